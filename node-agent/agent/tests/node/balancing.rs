//! How clients from outside come to backends: what settings make of a node.

use cilium_api::parts::{Backend, Part, PartKey, Service, ServicePort};
use cilium_rest::model::{KubeProxyReplacement, MaglevEntry};

use crate::parts::{address4, mk_shared};
use crate::stage::{Stage, eventually};

/// A Service on a port of nodes with a backend here and one elsewhere.
fn mk_service() -> (PartKey, Part) {
    let backends = [1, 200].map(|id| Backend::from((address4(id).into(), 80))).to_vec();
    let port = ServicePort { name: String::new(), protocol: 6, port: 80, node_port: 30_080, backends };
    let service = Service {
        cluster_ips: vec!["10.96.0.2".parse().expect("an address")],
        ports: vec![port],
        ..Service::default()
    };
    (PartKey::service("default", "web"), Part::Service(service))
}

fn tables(stage: &Stage) -> Vec<MaglevEntry> {
    stage.client().get("/v1/map/maglev").unwrap_or_default()
}

fn replacement(stage: &Stage) -> KubeProxyReplacement {
    stage.status().map(|status| status.kube_proxy_replacement).unwrap_or_default()
}

#[test]
fn algorithm_and_acceleration_are_in_force_and_go_with_a_restart() {
    let settings = [
        ("bpf-lb-acceleration", "testing-only"),
        ("bpf-lb-algorithm", "maglev"),
        ("bpf-lb-maglev-table-size", "251"),
    ];
    let mut stage = Stage::create(2, &settings);
    stage.await_ready();
    let mut shared = mk_shared(1..=2);
    shared.extend([mk_service()]);
    stage.plan_shared(&shared);
    eventually("the service has a table", || tables(&stage).len() == 1);
    let table = &tables(&stage)[0];
    let mut shares: Vec<u32> = table.backends.iter().map(|share| share.entries).collect();
    shares.sort_unstable();
    assert_eq!((table.frontend.as_str(), table.size, shares), ("0.0.0.0:30080/TCP", 251, vec![125, 126]));
    let told = replacement(&stage);
    assert_eq!((told.acceleration, told.selection), ("Generic".into(), "Maglev (Table Size: 251)".into()));
    let pin = stage.bpffs.join("cilium/links/up0_xdp_generic");
    assert!(pin.exists());

    stage.kill_agent();
    assert!(pin.exists(), "it goes on without the agent");
    stage.set("bpf-lb-acceleration", "disabled");
    stage.set("bpf-lb-algorithm", "random");
    stage.start_agent();
    eventually("the agent has restarted", || replacement(&stage).acceleration == "Disabled");
    assert_eq!(replacement(&stage).selection, "Random");
    assert!(!pin.exists());
    eventually("the table is gone", || stage.status().is_some() && tables(&stage).is_empty());
}
