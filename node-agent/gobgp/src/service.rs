//! The methods of both services.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use cilium_rest::bgp::{self, SessionState};
use futures::StreamExt as _;
use futures::stream::{BoxStream, iter, unfold};
use tonic::{Request, Response, Status};

use crate::proto::watch_event_response::Event;
use crate::proto::{
    GetBgpRequest, GetBgpResponse, GetTableRequest, GetTableResponse, ListDefinedSetRequest,
    ListDefinedSetResponse, ListPathRequest, ListPathResponse, ListPeerRequest, ListPeerResponse,
    ListPolicyAssignmentRequest, ListPolicyAssignmentResponse, ListPolicyRequest, ListPolicyResponse,
    PeerEvent, WatchEventRequest, WatchEventResponse, api, apipb,
};
use crate::routes::{Table, Which};
use crate::version::Version;
use crate::{View, peers, policies, proto, routes};

/// A stream of answers.
type Answers<T> = BoxStream<'static, Result<T, Status>>;

/// One of the services.
pub(crate) struct Api<V> {
    pub(crate) view: Arc<V>,
    pub(crate) version: Version,
}

fn stream<T: Send + 'static>(answers: Vec<T>) -> Response<Answers<T>> {
    Response::new(iter(answers).map(Ok).boxed())
}

impl<V: View> Api<V> {
    async fn global(&self) -> Result<GetBgpResponse, Status> {
        Ok(GetBgpResponse { global: Some(peers::global(&self.view.config().await)?) })
    }

    async fn peers(&self, request: ListPeerRequest) -> Vec<ListPeerResponse> {
        let (config, states) = (self.view.config().await, self.view.peers().await);
        let all = peers::peers(self.version, &config, &states.peers);
        let asked = all
            .filter(|(state, _)| request.address.is_empty() || state.address.to_string() == request.address);
        asked.map(|(_, peer)| ListPeerResponse { peer: Some(peer) }).collect()
    }

    /// The table that is asked for.
    async fn table(
        &self,
        number: i32,
        name: &str,
        family: Option<&proto::Family>,
    ) -> Result<(Which, Table), Status> {
        let which = Which::parse(self.version, number, name)?;
        if let Some(peer) = which.peer() {
            self.check_peer(peer).await?;
        }
        Ok((which, routes::table(self.view.routes().await, which, family)))
    }

    async fn check_peer(&self, address: IpAddr) -> Result<(), Status> {
        let config = self.view.config().await;
        let mut peers = config.instances.iter().flat_map(|instance| &instance.peers);
        if peers.any(|peer| peer.address == address) {
            return Ok(());
        }
        Err(Status::not_found(format!("there is no neighbour {address}")))
    }

    async fn paths(&self, request: ListPathRequest) -> Result<Vec<ListPathResponse>, Status> {
        let (which, mut table) =
            self.table(request.table_type, &request.name, request.family.as_ref()).await?;
        routes::look_up(self.version, &mut table, &request.prefixes)?;
        let best = match which {
            Which::Local => routes::best(self.view.best().await),
            Which::In(_) | Which::Out(_) => routes::Best::new(),
        };
        let all = table.iter().map(|(prefix, paths)| routes::destination(self.version, prefix, paths, &best));
        Ok(all.map(|destination| ListPathResponse { destination: Some(destination) }).collect())
    }

    async fn counts(&self, request: GetTableRequest) -> Result<GetTableResponse, Status> {
        let (_, table) = self.table(request.table_type, &request.name, request.family.as_ref()).await?;
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let num_path = count(table.values().map(Vec::len).sum());
        Ok(GetTableResponse { num_destination: count(table.len()), num_path, num_accepted: num_path })
    }

    async fn policies(&self, request: ListPolicyRequest) -> Vec<ListPolicyResponse> {
        let policies = self.view.policies().await;
        let all = policies.iter().map(|policy| policies::policy(self.version, policy));
        let asked = all.filter(|policy| request.name.is_empty() || policy.name == request.name);
        asked.map(|policy| ListPolicyResponse { policy: Some(policy) }).collect()
    }

    async fn defined_sets(&self, request: ListDefinedSetRequest) -> Vec<ListDefinedSetResponse> {
        let policies = self.view.policies().await;
        let all = policies::defined_sets(self.version, request.defined_type, &policies).into_iter();
        let asked = all.filter(|set| request.name.is_empty() || set.name == request.name);
        asked.map(|set| ListDefinedSetResponse { defined_set: Some(set) }).collect()
    }

    async fn assignments(
        &self,
        request: ListPolicyAssignmentRequest,
    ) -> Result<Vec<ListPolicyAssignmentResponse>, Status> {
        let peer = match request.name.as_str() {
            "" | "global" => None,
            name => {
                Some(name.parse().map_err(|_| Status::not_found(format!("there is no neighbour {name}")))?)
            }
        };
        if let Some(peer) = peer {
            self.check_peer(peer).await?;
        }
        // 0 is both directions.
        let directions = if request.direction == 0 { vec![1, 2] } else { vec![request.direction] };
        let policies = self.view.policies().await;
        let assignments = directions.into_iter().map(|direction| {
            let name = request.name.clone();
            let assignment = policies::assignment(self.version, name, peer, direction, &policies);
            ListPolicyAssignmentResponse { assignment: Some(assignment) }
        });
        Ok(assignments.collect())
    }

    fn events(&self, request: &WatchEventRequest) -> Result<Response<Answers<WatchEventResponse>>, Status> {
        if request.peer.is_none() {
            return Err(Status::unimplemented(
                "only events of neighbours can be watched; list routes to see them",
            ));
        }
        let watch = Watch { view: self.view.clone(), version: self.version, seen: None };
        let events = unfold(watch, |mut watch| async {
            let events = watch.next().await;
            Some((iter(events), watch))
        });
        Ok(Response::new(events.flatten().map(Ok).boxed()))
    }
}

/// Neighbours as a client knows them.
struct Watch<V> {
    view: Arc<V>,
    version: Version,
    /// Generation, and by instance and address the state and its beginning; `None`: nothing has been told.
    seen: Option<(u64, States)>,
}

type States = BTreeMap<(String, IpAddr), (SessionState, u64)>;

const INIT: i32 = 1;
const END_OF_INIT: i32 = 2;
const STATE: i32 = 3;

impl<V: View> Watch<V> {
    /// All neighbours, the first time; later those whose state is another one, as soon as there may be some.
    async fn next(&mut self) -> Vec<WatchEventResponse> {
        let now = match &self.seen {
            None => self.view.peers().await,
            Some((generation, _)) => self.view.changed(*generation).await,
        };
        let config = self.view.config().await;
        let states =
            now.peers.iter().map(|p| ((p.instance.clone(), p.address), (p.state, p.since))).collect();
        let seen = self.seen.replace((now.generation, states));
        let is_news = |state: &bgp::PeerState| {
            let before =
                seen.as_ref().and_then(|(_, states)| states.get(&(state.instance.clone(), state.address)));
            before != Some(&(state.state, state.since))
        };
        let news = peers::peers(self.version, &config, &now.peers).filter(|(state, _)| is_news(state));
        let kind = if seen.is_none() { INIT } else { STATE };
        let mut events: Vec<_> = news.map(|(_, peer)| event(kind, Some(peer))).collect();
        events.extend(seen.is_none().then(|| event(END_OF_INIT, None)));
        events
    }
}

fn event(r#type: i32, peer: Option<proto::Peer>) -> WatchEventResponse {
    WatchEventResponse { event: Some(Event::Peer(PeerEvent { r#type, peer })) }
}

/// The same methods under the name of each service.
macro_rules! service {
    ($service:path) => {
        #[tonic::async_trait]
        impl<V: View> $service for Api<V> {
            type WatchEventStream = Answers<WatchEventResponse>;
            type ListPeerStream = Answers<ListPeerResponse>;
            type ListPathStream = Answers<ListPathResponse>;
            type ListPolicyStream = Answers<ListPolicyResponse>;
            type ListDefinedSetStream = Answers<ListDefinedSetResponse>;
            type ListPolicyAssignmentStream = Answers<ListPolicyAssignmentResponse>;

            async fn get_bgp(&self, _: Request<GetBgpRequest>) -> Result<Response<GetBgpResponse>, Status> {
                Ok(Response::new(self.global().await?))
            }

            async fn watch_event(
                &self,
                request: Request<WatchEventRequest>,
            ) -> Result<Response<Self::WatchEventStream>, Status> {
                self.events(request.get_ref())
            }

            async fn list_peer(
                &self,
                request: Request<ListPeerRequest>,
            ) -> Result<Response<Self::ListPeerStream>, Status> {
                Ok(stream(self.peers(request.into_inner()).await))
            }

            async fn list_path(
                &self,
                request: Request<ListPathRequest>,
            ) -> Result<Response<Self::ListPathStream>, Status> {
                Ok(stream(self.paths(request.into_inner()).await?))
            }

            async fn get_table(
                &self,
                request: Request<GetTableRequest>,
            ) -> Result<Response<GetTableResponse>, Status> {
                Ok(Response::new(self.counts(request.into_inner()).await?))
            }

            async fn list_policy(
                &self,
                request: Request<ListPolicyRequest>,
            ) -> Result<Response<Self::ListPolicyStream>, Status> {
                Ok(stream(self.policies(request.into_inner()).await))
            }

            async fn list_defined_set(
                &self,
                request: Request<ListDefinedSetRequest>,
            ) -> Result<Response<Self::ListDefinedSetStream>, Status> {
                Ok(stream(self.defined_sets(request.into_inner()).await))
            }

            async fn list_policy_assignment(
                &self,
                request: Request<ListPolicyAssignmentRequest>,
            ) -> Result<Response<Self::ListPolicyAssignmentStream>, Status> {
                Ok(stream(self.assignments(request.into_inner()).await?))
            }
        }
    };
}

service!(apipb::gobgp_api_server::GobgpApi);
service!(api::go_bgp_service_server::GoBgpService);
