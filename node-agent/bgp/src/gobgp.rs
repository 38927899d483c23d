//! The speaker as GoBGP's clients see it.

use std::collections::BTreeMap;
use std::panic::resume_unwind;

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
        listed(self, Self::routes).await
    }

    async fn best(&self) -> BTreeMap<String, Vec<ImportedRoute>> {
        listed(self, Self::best).await
    }

    async fn policies(&self) -> Vec<RoutePolicy> {
        listed(self, Self::policies).await
    }
}

/// A list that may be long is made in another thread than the one that sessions have.
async fn listed<T: Send + 'static>(speaker: &Speaker, list: fn(&Speaker) -> T) -> T {
    let speaker = speaker.clone();
    let made = tokio::task::spawn_blocking(move || list(&speaker)).await;
    made.unwrap_or_else(|error| resume_unwind(error.into_panic()))
}
