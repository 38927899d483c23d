//! What is redirected to a pod of the node, what of it is not, and how it is shown.

use std::collections::BTreeMap;
use std::net::IpAddr;

use cilium_api::parts::{Part, PartKey, Redirect, RedirectFrontend, RedirectMatcher};
use cilium_drivers::netns::Netns;
use cilium_rest::model;

use crate::api::lock;
use crate::parts::{address4, mk_endpoint};
use crate::sockets::{Client, PORT, Silent, cluster_ips, mk_world};
use crate::stage::{Stage, eventually};

/// The Service of pod 2 leads to pod 3, for everybody but pod 1.
fn mk_redirect(address: IpAddr) -> (PartKey, Part) {
    let backends = vec![(address4(3).into(), PORT)];
    let frontend = RedirectFrontend { address, protocol: 6, port: 80, backends };
    let redirect = Redirect {
        matcher: RedirectMatcher::Service,
        service: "pod-2".into(),
        frontends: vec![frontend],
        exempt: vec!["pod-1".into()],
    };
    (PartKey::redirect("default", "nearby"), Part::Redirect(redirect))
}

/// The one of two pods to which a connection comes.
fn met(stage: &Stage, netns: &Netns, address: IpAddr, pods: &[(u16, &Silent)]) -> u16 {
    let _client = Client::start(stage, netns, "tcp", (address, 80), true);
    let found = pods.iter().find(|(_, pod)| {
        pod.tcp.set_nonblocking(true).expect("sets");
        pod.tcp.accept().is_ok()
    });
    found.expect("it is connected, so somebody has it").0
}

#[test]
fn exempt_pods_meet_what_others_do_not() {
    let mut stage = Stage::create(3, &[("enable-local-redirect-policy", "true")]);
    stage.await_ready();
    stage.plan_shared(&mk_world(&BTreeMap::from([(1, 1001), (2, 1002), (3, 1003)])));
    let one = stage.add_pod(1);
    let (two, three) = (Silent::start(&stage, 2), Silent::start(&stage, 3));
    let pods = [(2, &two), (3, &three)];
    let [address, _] = cluster_ips(2);
    let services = |stage: &Stage| stage.client().get::<Vec<model::Service>>("/v1/service").expect("answers");
    eventually("services are in force", || services(&stage).len() == 8);
    assert_eq!(met(&stage, &two.pod.netns, address, &pods), 2);

    let endpoints = [1, 2, 3].map(mk_endpoint);
    let revision = stage.plan(&endpoints.into_iter().chain([mk_redirect(address)]).collect());
    stage.await_revision(revision);
    for restarted in [false, true] {
        if restarted {
            stage.kill_agent();
            eventually("the agent is gone", || lock(&stage.world).watches() == 0);
            stage.start_agent();
            stage.await_ready();
        }
        assert_eq!(met(&stage, &one.netns, address, &pods), 2, "exempt, restarted: {restarted}");
        assert_eq!(met(&stage, &two.pod.netns, address, &pods), 3, "restarted: {restarted}");
        assert_eq!(met(&stage, &stage.netns, address, &pods), 3, "a process of the node");
    }
    is_shown(&stage, &services(&stage));

    let revision = stage.plan(&[1, 2, 3].map(mk_endpoint).into());
    stage.await_revision(revision);
    assert_eq!(met(&stage, &two.pod.netns, address, &pods), 2, "as before");
    assert_eq!(services(&stage).len(), 8);
}

fn is_shown(stage: &Stage, services: &[model::Service]) {
    let redirected: Vec<_> = services.iter().filter(|it| it.spec.r#type == "LocalRedirect").collect();
    let [service] = redirected[..] else { panic!("{services:?}") };
    assert_eq!(service.spec.name, "nearby:local-redirect");
    assert_eq!(service.spec.frontend_address.to_string(), "10.96.0.2:80/TCP");
    let same = services.iter().filter(|it| it.spec.frontend_address == service.spec.frontend_address);
    assert_eq!((same.count(), services.len()), (1, 8), "it is not there as the Service's, too");
    let policies: Vec<model::Redirect> = stage.client().get("/v1/lrp").expect("answers");
    let [policy] = &policies[..] else { panic!("{policies:?}") };
    assert_eq!((policy.name.as_str(), policy.service_id.as_str()), ("nearby", "default/pod-2"));
    assert_eq!(policy.frontend_type, "clusterIP + all svc ports");
    let backend = &policy.frontend_mappings[0].backends[0];
    assert_eq!(format!("{}({})", backend.backend_address, backend.pod_id), "10.244.1.13:8080(default/pod-3)");
}
