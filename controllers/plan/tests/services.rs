//! What users hear of Services that nodes cannot serve as planned.
#![allow(clippy::unwrap_used, reason = "a test that lacks what it looks at has failed")]

mod common;

use cilium_api::node_state::{AppliedState, Failure};
use cilium_api::slim::Service;
use cilium_plan::{Config, Kind, Object, ObjectKey};
use common::*;
use serde_json::json;

const MESSAGE: &str = "192.0.2.80 port 80 belongs to Service default/other";

/// A node says of these Services that they are not in force. Returns reason, object and note of what users are told.
fn fail(world: &mut World, node: &str, services: &[&str]) -> Vec<(String, String)> {
    let Some(Object::NodeState(state)) = world.store.get(&ObjectKey::cluster(Kind::NodeState, node)) else {
        panic!("no node state")
    };
    let mut state = (**state).clone();
    let status = state.status.as_mut().unwrap();
    let failure =
        |name: &&str| Failure { object: format!("service/default/{name}"), message: MESSAGE.into() };
    let failures: Vec<Failure> = services.iter().map(failure).collect();
    let failure_count = i64::try_from(failures.len()).unwrap();
    status.applied = Some(AppliedState { failures, failure_count, ..status.applied.take().unwrap() });
    world.apply(state);
    world.deliver();
    let events = world.plan().events;
    for event in &events {
        assert_eq!((event.type_, event.reason, event.uid.as_str()), ("Warning", "NotProgrammed", "uid-web"));
        assert_eq!(event.regarding.kind, Kind::Service);
    }
    events.into_iter().map(|event| (event.regarding.name, event.note)).collect()
}

#[test]
fn ports_that_nobody_serves_are_told_once() {
    let mut world = World::new(Config::default());
    world.apply(mk_namespace("default", &[]));
    let mut put = |protocol: &str, target: u16| {
        let mut slice = mk_endpoint_slice("default", "web", &["192.0.2.7"], target);
        for port in &mut slice.ports {
            port.name = Some("b".into());
            port.protocol = Some(protocol.into());
        }
        world.apply(slice);
        world.apply(mk::<Service>(json!({
            "metadata": {"namespace": "default", "name": "web", "uid": "uid-web"},
            "spec": {"clusterIPs": ["10.96.0.1"], "ports": [
                {"name": "a", "port": 80}, {"name": "b", "port": 81, "protocol": protocol},
            ]},
        })));
        world.deliver();
        world.plan().events
    };
    assert_eq!(put("UDP", 8081), []);
    assert_eq!(put("SCTP", 81), [], "it keeps its port");
    let events = put("SCTP", 8081);
    let [event] = &events[..] else { panic!("{events:?}") };
    assert_eq!(
        (event.reason, event.uid.as_str(), event.regarding.kind),
        ("NotSupported", "uid-web", Kind::Service)
    );
    assert!(event.note.contains("SCTP") && event.note.contains("81"), "{}", event.note);
    assert_eq!(put("SCTP", 8081), []);
    assert_eq!(put("TCP", 8081), []);
    assert_eq!(put("SCTP", 8081).len(), 1);
}

#[test]
fn what_a_service_asks_for_in_vain_is_told_once() {
    let mut world = World::new(Config::default());
    world.apply(mk_namespace("default", &[]));
    let mut put = |annotations: serde_json::Value, node_port: u16, range: &str| {
        world.apply(mk::<Service>(json!({
            "metadata": {"namespace": "default", "name": "web", "uid": "uid-web", "annotations": annotations},
            "spec": {"type": "LoadBalancer", "clusterIPs": ["10.96.0.1"], "loadBalancerSourceRanges": [range],
                "ports": [{"port": 80, "nodePort": node_port}]},
        })));
        world.deliver();
        let events = world.plan().events.into_iter();
        events.map(|event| format!("{}: {}", event.reason, event.note)).collect::<Vec<_>>()
    };
    const RANGE: &str = "192.0.2.0/24";
    assert_eq!(put(json!({}), 30_080, RANGE), [""; 0]);
    assert_eq!(
        put(json!({"service.cilium.io/lb-algorithm": "magic"}), 30_080, RANGE),
        [
            "NotUnderstood: annotation service.cilium.io/lb-algorithm is \"magic\": expected is random or maglev; it is served as without the annotation"
        ]
    );
    assert_eq!(
        put(json!({"service.cilium.io/lb-algorithm": "magic"}), 40_080, "192.0.2.1-9"),
        [
            "NotUnderstood: loadBalancerSourceRanges: \"192.0.2.1-9\" is no prefix; it is passed over",
            "NotSupported: nodes do not serve nodePort 40080: they serve 30000 to 32767 (node-port-range, in the chart nodePort.range)",
        ],
        "the rest has been told"
    );
    assert_eq!(
        put(json!({"service.cilium.io/forwarding-mode": "dsr"}), 30_080, RANGE),
        [
            "NotSupported: annotation service.cilium.io/forwarding-mode has no effect: set bpf.lbModeAnnotation in the chart to let Services choose"
        ]
    );
    assert_eq!(put(json!({}), 30_080, RANGE), [""; 0]);
}

#[test]
fn many_nodes_with_one_trouble_are_one_event() {
    let mut world = World::new(Config::default());
    world.apply(mk_namespace("default", &[]));
    for (number, name) in (1..).zip(["a", "b"]) {
        world.apply(mk_node(name, number));
    }
    world.apply(mk::<Service>(json!({
        "metadata": {"namespace": "default", "name": "web", "uid": "uid-web"},
        "spec": {"clusterIPs": ["10.96.0.1"], "externalIPs": ["192.0.2.80"], "ports": [{"port": 80}]},
    })));
    world.settle();
    assert_eq!(fail(&mut world, "a", &["web"]), [("web".to_owned(), format!("node a: {MESSAGE}"))]);
    assert_eq!(fail(&mut world, "b", &["web"]), []);
    assert_eq!(fail(&mut world, "a", &["web", "gone"]), [], "there is no such Service to tell of");
    assert_eq!(fail(&mut world, "a", &[]), []);
    assert_eq!(fail(&mut world, "a", &["web"]), [], "b still says so");
    assert_eq!(fail(&mut world, "a", &[]), []);
    assert_eq!(fail(&mut world, "b", &[]), []);
    assert_eq!(fail(&mut world, "b", &["web"]), [("web".to_owned(), format!("node b: {MESSAGE}"))]);
}
