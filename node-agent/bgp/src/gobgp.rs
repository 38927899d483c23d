//! The speaker as GoBGP's clients see it.

use std::collections::BTreeMap;

use cilium_gobgp::View;
use cilium_rest::bgp::{Config, ImportedRoute, Peers, RoutePolicy, RouteView};

use crate::Speaker;

impl View for Speaker {
    async fn config(&self) -> Config {
        self.config()
    }

    async fn peers(&self) -> Peers {
        self.peers()
    }

    async fn changed(&self, generation: u64) -> Peers {
        self.peers_after(generation).await
    }

    async fn routes(&self) -> Vec<RouteView> {
        self.routes()
    }

    async fn best(&self) -> BTreeMap<String, Vec<ImportedRoute>> {
        self.best()
    }

    async fn policies(&self) -> Vec<RoutePolicy> {
        self.policies()
    }
}
