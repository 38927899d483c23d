//! The BGP speaker as GoBGP's clients see it: gRPC on a unix socket, to look at and not to change.
//!
//! Served are `api.GoBgpService` (GoBGP 4) and `apipb.GobgpApi` (GoBGP 3, which distributions ship). What differs between them is in
//! `version`; the rest is said once.
//!
//! | method | answer |
//! |---|---|
//! | `GetBgp` | the first instance of the configuration |
//! | `ListPeer` | neighbours of all instances |
//! | `ListPath`, `GetTable` | routes: of the node and of peers together (`global`, `local`), received (`adj-in`), advertised (`adj-out`) |
//! | `ListPolicy`, `ListDefinedSet`, `ListPolicyAssignment` | which prefixes go to which peer, and what goes with them |
//! | `WatchEvent` | neighbours: how they are, then each change of a state |
//! | other `List` methods | `UNIMPLEMENTED`: the speaker has nothing of the kind |
//! | all others | `PERMISSION_DENIED`: what the speaker is, Kubernetes objects say |
//!
//! The speaker counts no messages: where clients show them, they are 0. Passwords are never shown.

mod authority;
mod guard;
mod peers;
mod policies;
mod proto;
mod routes;
mod service;
mod version;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::middleware;
use cilium_rest::bgp::{Config, ImportedRoute, Peers, RoutePolicy, RouteView};
use futures::Stream;
use futures::stream::unfold;
use tokio::net::UnixListener;
use tonic::service::Routes;
use tonic::transport::Server;

use authority::Connection;
use proto::api::go_bgp_service_server::GoBgpServiceServer;
use proto::apipb::gobgp_api_server::GobgpApiServer;
use service::Api;
use version::Version;

/// Name of the socket in the speaker's folder, unless told otherwise.
pub const SOCKET_NAME: &str = "gobgp.sock";

/// How long accepting rests after a failure (no file descriptors, most often).
const REST: Duration = Duration::from_millis(200);

/// What is shown of a speaker.
pub trait View: Send + Sync + 'static {
    /// What the speaker was told to be.
    fn config(&self) -> impl Future<Output = Config> + Send;

    /// Every neighbour of the configuration.
    fn peers(&self) -> impl Future<Output = Peers> + Send;

    /// The same, as soon as its generation is another one than `generation`, or after a while.
    fn changed(&self, generation: u64) -> impl Future<Output = Peers> + Send;

    /// All routes of all tables.
    fn routes(&self) -> impl Future<Output = Vec<RouteView>> + Send;

    /// The best of the routes that peers made known to each instance, by its name.
    fn best(&self) -> impl Future<Output = BTreeMap<String, Vec<ImportedRoute>>> + Send;

    /// Which prefixes go to which peer.
    fn policies(&self) -> impl Future<Output = Vec<RoutePolicy>> + Send;
}

/// Serves `view` to whoever may open the socket, until the future is dropped.
///
/// # Errors
/// None that is known of: a connection that fails ends alone.
pub async fn serve(listener: UnixListener, view: impl View) -> Result<(), tonic::transport::Error> {
    let view = Arc::new(view);
    let routes = Routes::new(GobgpApiServer::new(Api { view: view.clone(), version: Version::V3 }))
        .add_service(GoBgpServiceServer::new(Api { view, version: Version::V4 }))
        .into_axum_router()
        .layer(middleware::from_fn(guard::guard));
    Server::builder().add_routes(routes.into()).serve_with_incoming(connections(listener)).await
}

/// Every connection to `listener`.
fn connections(listener: UnixListener) -> impl Stream<Item = Result<Connection, Infallible>> {
    unfold(listener, async |listener| {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => return Some((Ok(Connection::new(stream)), listener)),
                Err(_) => tokio::time::sleep(REST).await,
            }
        }
    })
}
