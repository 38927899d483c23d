//! Writes how sessions stand to the status of the node's CiliumBGPNodeConfig: at once, and then not more often than every five seconds.

use std::time::Duration;

use cilium_api::bgp::{BgpInstance, BgpPeer, BgpPeerAddress};
use cilium_api::bgp_node_config::{
    BgpInstanceStatus, BgpNodeConfigStatus, BgpPeerStatus, BgpRouteCount, BgpTimersStatus,
};
use cilium_api::bgp_peer_config::{Afi, Safi};
use cilium_api::condition::Condition;
use cilium_rest::bgp::{Family, FamilyState, PeerState, Peers, SessionState};
use hyper::Request;
use jiff::Timestamp;
use kube::Client;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{oneshot, watch};

use super::Intent;
use crate::backoff::Backoff;
use crate::watch::chain;

/// As upstream's, so that both are one owner of the fields.
const MANAGER: &str = "CiliumBGPNodeConfigStatusReconciler";
const PAUSE: Duration = Duration::from_secs(5);
/// Problems of an instance that the condition names.
const NAMED: usize = 5;
/// Written anew after this time, in case somebody made the object anew.
const REFRESH: Duration = Duration::from_secs(300);
/// Bytes of the message of a condition (apimachinery, `metav1.Condition`).
const LONGEST: usize = 32_768;

/// What is written, and from what.
pub(crate) struct Reporter {
    pub(super) node: String,
    pub(super) intent: watch::Receiver<Intent>,
    pub(super) peers: watch::Receiver<Option<Peers>>,
}

#[derive(Deserialize)]
struct NodeConfig {
    metadata: Metadata,
    #[serde(default)]
    status: Option<Status>,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    generation: i64,
}

#[derive(Deserialize)]
struct Status {
    #[serde(default)]
    conditions: Vec<Condition>,
}

impl Reporter {
    /// Runs until the agent ends.
    pub(crate) async fn run(mut self, client: oneshot::Receiver<Client>) {
        let Ok(client) = client.await else { return };
        let mut backoff = Backoff::new();
        // As the object has them; not known before the first answer.
        let mut known: Option<NodeConfig> = None;
        let mut written: Option<BgpNodeConfigStatus> = None;
        loop {
            let intent = self.intent.borrow_and_update().clone();
            let peers = self.peers.borrow_and_update().clone();
            let status = status(&intent, peers.as_ref(), known.as_ref());
            let mut pause = Duration::MAX;
            if !intent.instances.is_empty() && written.as_ref() != Some(&status) {
                match self.write(&client, &status).await {
                    Ok(answer) => {
                        backoff.succeeded();
                        // The first answer says which conditions there are, and of which generation this is.
                        pause = if known.is_none() { Duration::ZERO } else { PAUSE };
                        (written, known) = (Some(status), Some(answer));
                    }
                    Err(error) => {
                        tracing::debug!(
                            error = chain(&error),
                            "the status of CiliumBGPNodeConfig cannot be written yet"
                        );
                        pause = backoff.pause();
                        (written, known) = (None, None);
                    }
                }
            }
            let is_due = pause < Duration::MAX;
            if is_due {
                tokio::time::sleep(pause).await;
                continue;
            }
            tokio::select! {
                changed = self.intent.changed() => if changed.is_err() { return },
                changed = self.peers.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(REFRESH) => written = None,
            }
        }
    }

    async fn write(&self, client: &Client, status: &BgpNodeConfigStatus) -> kube::Result<NodeConfig> {
        let node = &self.node;
        let path = format!("/apis/cilium.io/v2/ciliumbgpnodeconfigs/{node}/status?fieldManager={MANAGER}");
        let body = serde_json::to_vec(&json!({ "status": status })).map_err(kube::Error::SerdeError)?;
        let request = Request::patch(path).header("content-type", "application/merge-patch+json").body(body);
        client.request(request.map_err(kube::Error::HttpError)?).await
    }
}

fn status(intent: &Intent, peers: Option<&Peers>, known: Option<&NodeConfig>) -> BgpNodeConfigStatus {
    let states = peers.map(|peers| peers.peers.as_slice()).unwrap_or_default();
    let instance = |(name, planned): (&String, &BgpInstance)| {
        let peers = planned.peers.iter().map(|(peer, planned)| {
            let state = states.iter().find(|state| state.instance == *name && state.name == *peer);
            state.map_or_else(|| at_rest(peer, planned), of_state)
        });
        BgpInstanceStatus {
            name: name.clone(),
            local_asn: Some(planned.asn.into()),
            peers: Some(peers.collect()),
        }
    };
    let conditions = known.map(|known| {
        let mut conditions =
            known.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
        let condition =
            Condition { observed_generation: Some(known.metadata.generation), ..condition(intent) };
        cilium_core::condition::set(&mut conditions, condition, Timestamp::now().as_second());
        conditions
    });
    BgpNodeConfigStatus { bgp_instances: Some(intent.instances.iter().map(instance).collect()), conditions }
}

/// It is configured, but does not run.
fn at_rest(name: &str, planned: &BgpPeer) -> BgpPeerStatus {
    let peer_address = match planned.address {
        BgpPeerAddress::At(address) => address.to_string(),
        BgpPeerAddress::DefaultGateway(_) => String::new(),
    };
    let peer_asn = Some(planned.asn.into());
    BgpPeerStatus { name: name.to_owned(), peer_address, peer_asn, ..BgpPeerStatus::default() }
}

fn of_state(state: &PeerState) -> BgpPeerStatus {
    let number = |count: u64| Some(i32::try_from(count).unwrap_or(i32::MAX));
    let count = |it: &FamilyState| BgpRouteCount {
        afi: if it.family == Family::Ipv4 { Afi::Ipv4 } else { Afi::Ipv6 },
        safi: Safi::Unicast,
        received: number(it.received),
        advertised: number(it.advertised),
    };
    let is_up = state.state == SessionState::Established;
    let since = i64::try_from(state.since).ok().and_then(|since| Timestamp::from_second(since).ok());
    BgpPeerStatus {
        name: state.name.clone(),
        peer_address: state.address.to_string(),
        peer_asn: Some(state.asn.into()),
        peering_state: Some(state.state.name().to_owned()),
        timers: Some(BgpTimersStatus {
            applied_hold_time_seconds: Some(state.hold_time.into()),
            applied_keepalive_seconds: Some(state.keepalive.into()),
        }),
        established_time: since.filter(|_| is_up).map(|since| since.to_string()),
        route_count: Some(state.families.iter().map(count).collect()),
        reason: state.with_bfd(state.reason.as_deref().filter(|_| !is_up)),
    }
}

/// Whether anything that was planned is not so.
fn condition(intent: &Intent) -> Condition {
    let lines = intent.problems.iter().flat_map(|(name, problems)| {
        problems.iter().take(NAMED).map(move |problem| format!("{name}: {problem}"))
    });
    let mut message = lines.collect::<Vec<_>>().join("\n");
    message.truncate(message.floor_char_boundary(LONGEST));
    let (status, reason) =
        if message.is_empty() { ("False", "ReconcileSucceeded") } else { ("True", "ReconcileFailed") };
    Condition::new("cilium.io/BGPReconcileError", status, reason, message)
}

#[cfg(test)]
mod tests {
    use super::super::resolve::tests::{mk_instances, mk_peer};
    use super::*;

    fn mk_intent(problems: &[&str]) -> Intent {
        let address = BgpPeerAddress::At("192.0.2.254".parse().expect("an address"));
        let peers = vec![("tor-1", mk_peer(address)), ("tor-2", mk_peer(address))];
        let problems: Vec<String> = problems.iter().map(|problem| (*problem).to_owned()).collect();
        let problems = if problems.is_empty() { vec![] } else { vec![("rack".to_owned(), problems)] };
        Intent { instances: mk_instances(peers), problems: problems.into_iter().collect() }
    }

    fn mk_state(name: &str, state: SessionState) -> PeerState {
        PeerState {
            instance: "rack".into(),
            local_asn: 64512,
            name: name.into(),
            address: "192.0.2.254".parse().expect("an address"),
            port: 179,
            asn: 64500,
            router_id: None,
            state,
            since: 1_000_000_000,
            established_count: 1,
            hold_time: 9,
            keepalive: 3,
            families: vec![FamilyState {
                family: cilium_rest::bgp::Family::Ipv4,
                received: 2,
                advertised: 5,
            }],
            reason: Some("the peer refused the connection".into()),
            bfd: None,
            bfd_problem: None,
            capabilities: vec![],
        }
    }

    #[test]
    fn every_planned_peer_is_there_with_what_is_known() {
        let peers = Peers { generation: 1, peers: vec![mk_state("tor-1", SessionState::Established)] };
        let told = json!(status(&mk_intent(&[]), Some(&peers), None));
        assert_eq!(
            told,
            json!({"bgpInstances": [{"name": "rack", "localASN": 64512, "peers": [
                {
                    "name": "tor-1", "peerAddress": "192.0.2.254", "peerASN": 64500, "peeringState": "established",
                    "timers": {"appliedHoldTimeSeconds": 9, "appliedKeepaliveSeconds": 3},
                    "establishedTime": "2001-09-09T01:46:40Z",
                    "routeCount": [{"afi": "ipv4", "safi": "unicast", "received": 2, "advertised": 5}],
                },
                {"name": "tor-2", "peerAddress": "192.0.2.254", "peerASN": 64500},
            ]}]})
        );
        let peers = Peers { generation: 1, peers: vec![mk_state("tor-1", SessionState::Active)] };
        let told = json!(status(&mk_intent(&[]), Some(&peers), None));
        let peer = &told["bgpInstances"][0]["peers"][0];
        assert_eq!(peer["reason"], "the peer refused the connection");
        assert_eq!((&peer["peeringState"], peer.get("establishedTime")), (&json!("active"), None));
        let of_bfd = |state| {
            let problem = Some("UDP port 3784 cannot be opened".to_owned());
            let peers = vec![PeerState { bfd_problem: problem, ..mk_state("tor-1", state) }];
            let told = json!(status(&mk_intent(&[]), Some(&Peers { generation: 1, peers }), None));
            told["bgpInstances"][0]["peers"][0]["reason"].clone()
        };
        assert_eq!(of_bfd(SessionState::Established), "BFD does not work: UDP port 3784 cannot be opened");
        assert_eq!(
            of_bfd(SessionState::Active),
            "the peer refused the connection; BFD does not work: UDP port 3784 cannot be opened"
        );
    }

    #[test]
    fn the_condition_says_what_is_not_so_and_keeps_its_time() {
        let known = |conditions: Vec<Condition>| NodeConfig {
            metadata: Metadata { generation: 4 },
            status: Some(Status { conditions }),
        };
        let before = Condition {
            type_: "cilium.io/BGPReconcileError".into(),
            status: "True".into(),
            last_transition_time: Some("2001-09-09T01:46:40Z".into()),
            ..Condition::default()
        };
        let told = json!(status(&mk_intent(&["one", "two"]), None, Some(&known(vec![before.clone()]))));
        assert_eq!(
            told["conditions"],
            json!([{
                "type": "cilium.io/BGPReconcileError", "status": "True", "reason": "ReconcileFailed",
                "message": "rack: one\nrack: two", "observedGeneration": 4, "lastTransitionTime": "2001-09-09T01:46:40Z",
            }])
        );
        let told = json!(status(&mk_intent(&[]), None, Some(&known(vec![before]))));
        assert_eq!(told["conditions"][0]["reason"], "ReconcileSucceeded");
        assert_ne!(told["conditions"][0]["lastTransitionTime"], "2001-09-09T01:46:40Z");
        assert_eq!(condition(&mk_intent(&["x"; 9])).message.map(|text| text.lines().count()), Some(5));
    }
}
