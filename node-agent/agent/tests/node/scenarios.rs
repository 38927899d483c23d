//! What happens on a node.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::thread;
use std::time::Duration;

use cilium_api::parts::{Part, PartKey, Parts};
use cilium_delta::Table as _;
use cilium_drivers::maps::Maps;
use cilium_drivers::netlink::Netlink;
use cilium_rest::model;
use serde_json::{Value, json};

use crate::api::lock;
use crate::parts::{NODE, address4, mk_endpoint, mk_policy, mk_shared, mk_state};
use crate::stage::{Stage, eventually};
use crate::stream::{Echo, Stream, answers};

fn mk_parts(pods: u16) -> Parts {
    (1..=pods).map(mk_endpoint).collect()
}

fn policy_enabled(stage: &Stage, id: i64) -> String {
    let endpoint: model::Endpoint = stage.client().get(&format!("/v1/endpoint/{id}")).expect("is known");
    endpoint.status.policy.realized.policy_enabled
}

#[test]
fn pods_talk_until_a_policy_says_no() {
    let mut stage = Stage::create(3, &[]);
    stage.await_ready();
    eventually("the runtime is told of the plugin", || stage.conflist().exists());
    let (one, two, three) = (stage.add_pod(1), stage.add_pod(2), stage.add_pod(3));
    assert_eq!(two.result["ips"][1]["address"], "10.244.1.12/32");
    assert_eq!(two.result["ips"][1]["gateway"], "10.244.1.1");
    assert_eq!(two.result["interfaces"][1]["name"], "eth0");
    let _echo = Echo::start(&two.netns, address4(2), 7000);
    assert!(answers(&one.netns, address4(1), (address4(2), 7000)));
    assert!(answers(&three.netns, address4(3), (address4(2), 7000)));
    assert_eq!(policy_enabled(&stage, 2), "none");

    let mut parts = mk_parts(3);
    parts.extend([mk_policy(2, 1, 7000)]);
    let revision = stage.plan(&parts);
    stage.await_revision(revision);
    assert!(answers(&one.netns, address4(1), (address4(2), 7000)));
    assert!(!answers(&three.netns, address4(3), (address4(2), 7000)));
    assert_eq!((policy_enabled(&stage, 2), policy_enabled(&stage, 1)), ("ingress".into(), "none".into()));

    let revision = stage.plan(&mk_parts(3));
    stage.await_revision(revision);
    assert!(answers(&three.netns, address4(3), (address4(2), 7000)));

    eventually("the revision is acknowledged", || stage.last_ack()["revision"] == revision);
    assert_eq!(stage.last_ack()["endpoints"], 3);
    assert_eq!(stage.last_ack()["failureCount"], 0);
    assert_eq!(lock(&stage.world).watches(), 2);
}

#[test]
fn what_does_not_fit_is_named_and_the_rest_stays_in_force() {
    let mut stage = Stage::create(3, &[("bpf-map-sizes", "cilium_policy=4")]);
    stage.await_ready();
    let (one, two, three) = (stage.add_pod(1), stage.add_pod(2), stage.add_pod(3));
    let _at_two = Echo::start(&two.netns, address4(2), 7000);
    let _at_three = Echo::start(&three.netns, address4(3), 7000);
    let mut parts = mk_parts(3);
    parts.extend([mk_policy(2, 1, 7000)]);
    let revision = stage.plan(&parts);
    stage.await_revision(revision);

    // Two entries are in force, and two of these three would fit.
    let (key, mut large) = mk_policy(3, 2, 7000);
    if let Part::Policy(policy) = &mut large {
        policy.ingress.allow.push(policy.ingress.allow[0].clone());
        policy.ingress.allow[2].peer = 1077;
    }
    parts.insert(key, large);
    let revision = stage.plan(&parts);
    eventually("the revision is acknowledged", || stage.last_ack()["revision"] == revision);
    let ack = stage.last_ack();
    assert_eq!((&ack["failureCount"], &ack["failures"][0]["object"]), (&json!(1), &json!("policy/1003")));
    let message = ack["failures"][0]["message"].as_str().expect("has words");
    assert!(message.ends_with("map cilium_policy is full, its limit is 4 entries"), "{message}");
    let metrics = stage.http(9962, "/metrics");
    assert!(metrics.contains("\ncilium_agent_failing{object=\"policy/1003\"} 1\n"), "{metrics}");
    let reaches_two = |from: &std::net::Ipv4Addr, netns| answers(netns, *from, (address4(2), 7000));
    assert!(reaches_two(&address4(1), &one.netns) && !reaches_two(&address4(3), &three.netns));
    assert!(answers(&one.netns, address4(1), (address4(3), 7000)), "as it was before");

    // One that would close pod 2 to pod 1 does not fit either: what was in force stays.
    let (key, mut closed) = mk_policy(2, 3, 7000);
    if let Part::Policy(policy) = &mut closed {
        let first = policy.ingress.allow[0].clone();
        let more = (0..3).map(|more| cilium_api::parts::Entry { peer: 1070 + more, ..first.clone() });
        policy.ingress.allow.extend(more);
    }
    parts.insert(key, closed);
    let revision = stage.plan(&parts);
    eventually("the revision is acknowledged", || stage.last_ack()["revision"] == revision);
    assert_eq!(stage.last_ack()["failureCount"], 2);
    assert!(reaches_two(&address4(1), &one.netns) && !reaches_two(&address4(3), &three.netns));

    parts.retain(|key, _| key.kind() != "policy");
    parts.extend([mk_policy(3, 2, 7000)]);
    let revision = stage.plan(&parts);
    eventually("everything fits", || {
        stage.last_ack()["revision"] == revision && stage.last_ack()["failureCount"] == 0
    });
    assert!(!answers(&one.netns, address4(1), (address4(3), 7000)));
}

#[test]
fn a_node_that_cannot_be_set_up_says_why() {
    let stage = Stage::create(1, &[("cgroup-root", "/proc")]);
    eventually("the operator is told", || stage.last_ack()["failureCount"] == 1);
    let failure = stage.last_ack()["failures"][0].clone();
    assert_eq!(failure["object"], format!("node/{NODE}"));
    let message = failure["message"].as_str().expect("has words");
    assert!(message.contains("/proc is not a cgroup2 file system"), "{message}");
    assert_eq!(stage.status().expect("the agent answers").cilium.msg, message);
    assert!(!stage.conflist().exists(), "the runtime must not call the plugin");
}

#[test]
fn an_established_flow_follows_policy_and_the_host_reaches_its_pods() {
    let mut stage = Stage::create(2, &[]);
    stage.await_ready();
    let (one, two) = (stage.add_pod(1), stage.add_pod(2));
    let _echo = Echo::start(&two.netns, address4(2), 7000);
    let socket = crate::stream::bind(&one.netns, address4(1), 0);
    socket.set_read_timeout(Some(Duration::from_millis(300))).expect("is a socket");
    let asks = || {
        socket.send_to(b"x", (address4(2), 7000)).expect("sends");
        socket.recv_from(&mut [0; 8]).is_ok()
    };
    assert!(asks());
    let mut parts = mk_parts(2);
    parts.extend([mk_policy(2, 9, 7000)]);
    let revision = stage.plan(&parts);
    stage.await_revision(revision);
    assert!(!asks(), "the flow was allowed under the policy before");
    let router = "10.244.1.1".parse().expect("an address");
    assert!(answers(&stage.netns, router, (address4(2), 7000)), "probes of the kubelet always pass");
    let revision = stage.plan(&mk_parts(2));
    stage.await_revision(revision);
    assert!(asks());
}

#[test]
fn connections_of_an_address_are_forgotten_when_somebody_else_has_it() {
    let mut stage = Stage::create(2, &[]);
    stage.await_ready();
    let (one, two) = (stage.add_pod(1), stage.add_pod(2));
    let _echo = Echo::start(&two.netns, address4(2), 7000);
    let mut parts = mk_parts(2);
    parts.extend([mk_policy(2, 1, 7000)]);
    let revision = stage.plan(&parts);
    stage.await_revision(revision);
    let socket = crate::stream::bind(&one.netns, address4(1), 0);
    socket.set_read_timeout(Some(Duration::from_millis(300))).expect("is a socket");
    let asks = || {
        socket.send_to(b"x", (address4(2), 7000)).expect("sends");
        socket.recv_from(&mut [0; 8]).is_ok()
    };
    assert!(asks());
    let maps = Maps::open(&stage.bpffs.join("cilium")).expect("maps are pinned");
    assert_eq!(maps.ct.count().expect("counts"), 1);
    let mut shared = mk_shared(1..=2);
    if let Some(Part::Address(part)) = shared.get_mut(&PartKey::address(address4(1).into())) {
        part.identity = 4711;
    }
    stage.plan_shared(&shared);
    eventually("the connection is forgotten", || maps.ct.count().is_ok_and(|count| count == 0));
    assert!(asks(), "policy allows it, so it is judged and goes on");
}

#[test]
fn neither_agent_nor_api_server_is_needed_for_traffic_and_policy() {
    let mut stage = Stage::create(3, &[]);
    stage.await_ready();
    let (one, two, three) = (stage.add_pod(1), stage.add_pod(2), stage.add_pod(3));
    let _echo = Echo::start(&two.netns, address4(2), 7000);
    let mut parts = mk_parts(3);
    parts.extend([mk_policy(2, 1, 7000)]);
    let revision = stage.plan(&parts);
    stage.await_revision(revision);
    let stream = Stream::start(&one.netns, address4(1), SocketAddr::from((address4(2), 7000)));
    let before = slots(&stage);
    for with_server in [true, false, false] {
        if !with_server {
            stage.kill_server();
        }
        thread::sleep(Duration::from_millis(200));
        stage.kill_agent();
        assert!(!answers(&three.netns, address4(3), (address4(2), 7000)), "policy without an agent");
        stage.start_agent();
        stage.await_revision(revision);
        assert!(!answers(&three.netns, address4(3), (address4(2), 7000)));
        assert_eq!(stage.endpoints().iter().filter(|e| e.status.state == "ready").count(), 3);
    }
    let links = stage.bpffs.join("cilium/links");
    eventually("programs are settled", || {
        std::fs::read_dir(&links).is_ok_and(|pins| {
            let names = pins.filter_map(|pin| pin.ok()?.file_name().into_string().ok());
            names.filter(|name| name.starts_with("lxc")).count() == 6
        })
    });
    assert!(!answers(&three.netns, address4(3), (address4(2), 7000)), "policy by links");
    let (sent, lost) = stream.lost();
    assert!(sent > 1000, "the stream went on while all of this happened");
    assert_eq!(lost, Vec::<u32>::new(), "of {sent}");
    assert_eq!(slots(&stage), before, "equal state changes nothing in the kernel");

    stage.start_server();
    let revision = stage.plan(&mk_parts(3));
    stage.await_revision(revision);
    assert!(answers(&three.netns, address4(3), (address4(2), 7000)), "the watch is back");
}

fn slots(stage: &Stage) -> Vec<(u32, u64)> {
    let mut maps = Maps::open(&stage.bpffs.join("cilium")).expect("maps are pinned");
    let mut slots = maps.slots.list().expect("lists");
    slots.sort_unstable_by_key(|(index, _)| *index);
    slots.into_iter().map(|(index, slot)| (index, slot.to_u64())).collect()
}

#[test]
fn emptied_maps_and_removed_routes_are_repaired() {
    let mut stage = Stage::create(2, &[]);
    stage.await_ready();
    let (one, two) = (stage.add_pod(1), stage.add_pod(2));
    let _echo = Echo::start(&two.netns, address4(2), 7000);
    let mut parts = mk_parts(2);
    parts.extend([mk_policy(2, 1, 7000)]);
    let revision = stage.plan(&parts);
    stage.await_revision(revision);
    let mut maps = Maps::open(&stage.bpffs.join("cilium")).expect("maps are pinned");
    for (key, _) in maps.policy.peers.list().expect("lists") {
        maps.policy.peers.delete(&key).expect("deletes");
    }
    for (key, _) in maps.endpoints.list().expect("lists") {
        maps.endpoints.delete(&key).expect("deletes");
    }
    let flush = || Command::new("ip").args(["route", "flush", "proto", "87"]).status().expect("ip runs");
    assert!(stage.netns.run(flush).expect("enters").success());
    eventually("everything is there again", || {
        maps.policy.peers.list().is_ok_and(|rules| rules.len() == 2)
            && maps.endpoints.list().is_ok_and(|endpoints| endpoints.len() == 4)
            && answers(&one.netns, address4(1), (address4(2), 7000))
    });
    eventually("repairs are told", || {
        stage.last_ack()["repairs"].as_i64().is_some_and(|repairs| repairs >= 8)
    });
}

#[test]
fn a_state_with_a_wrong_digest_is_refused_and_the_old_one_stays() {
    let mut stage = Stage::create(2, &[]);
    stage.await_ready();
    let (one, two) = (stage.add_pod(1), stage.add_pod(2));
    let _echo = Echo::start(&two.netns, address4(2), 7000);
    let revision = stage.plan(&mk_parts(2));
    stage.await_revision(revision);
    let mut bad = mk_state(99, &Parts::from([mk_policy(2, 9, 1)]));
    bad.digest = mk_state(99, &Parts::new()).digest;
    lock(&stage.world).put_state(NODE, &bad);
    eventually("the refusal is told", || stage.last_ack()["failureCount"] == 1);
    let ack = stage.last_ack();
    assert_eq!(
        (ack["revision"].as_i64(), ack["failures"][0]["object"].as_str()),
        (Some(revision), Some("revision/99"))
    );
    assert!(answers(&one.netns, address4(1), (address4(2), 7000)));
}

#[test]
fn add_waits_for_the_plan_and_del_works_without_an_agent() {
    let mut stage = Stage::create(1, &[]);
    stage.await_ready();
    let mut parts = mk_parts(1);
    let pod = thread::scope(|scope| {
        let waiting = scope.spawn(|| stage.add_pod(2));
        eventually("the plugin waits", || stage.status().is_some());
        thread::sleep(Duration::from_millis(100));
        assert!(!waiting.is_finished());
        lock(&stage.world).put_slice("cluster.r", "CLUSTER", &crate::parts::mk_spec(&mk_shared(1..=2)));
        parts.extend([mk_endpoint(2)]);
        lock(&stage.world).put_state(NODE, &mk_state(50, &parts));
        waiting.join().expect("is connected")
    });
    let check = json!({"prevResult": pod.result});
    assert!(stage.cni("CHECK", 2, &pod.netns.proc_path(), &check).success);
    let mut broken = check;
    broken["prevResult"]["ips"][1]["address"] = "10.244.1.77/32".into();
    let refused = stage.cni("CHECK", 2, &pod.netns.proc_path(), &broken);
    assert!(refused.json["details"].as_str().is_some_and(|text| text.contains("has lost 10.244.1.77/32")));
    assert!(stage.cni("STATUS", 2, "", &Value::Null).success);

    stage.kill_agent();
    for _ in 0..2 {
        assert!(stage.cni("DEL", 2, "", &Value::Null).success, "also twice");
    }
    let device = pod.result["interfaces"][0]["name"].as_str().expect("has a name").to_owned();
    let mut netlink = Netlink::open_in(&stage.netns).expect("opens");
    assert_eq!(netlink.link(&device).expect("reads"), None);
    stage.start_agent();
    stage.await_ready();
    let states: Vec<_> = stage.endpoints().iter().map(|e| (e.id, e.status.state.clone())).collect();
    assert_eq!(states, [(1, "creating".to_owned()), (2, "creating".to_owned())]);
    let maps = Maps::open(&stage.bpffs.join("cilium")).expect("maps are pinned");
    assert_eq!(maps.endpoints.count().expect("counts"), 0);
}

#[test]
fn gc_disconnects_what_the_runtime_does_not_list() {
    let stage = Stage::create(2, &[]);
    stage.await_ready();
    let (_one, _two) = (stage.add_pod(1), stage.add_pod(2));
    let keep = json!({"cni.dev/valid-attachments": [{"containerID": "container1", "ifname": "eth0"}]});
    let answer = stage.cni("GC", 1, "", &keep);
    assert!(answer.success, "{}", answer.json);
    let states: Vec<_> = stage.endpoints().iter().map(|e| e.status.state.clone()).collect();
    assert_eq!(states, ["ready", "creating"]);
}

#[test]
fn a_pod_reaches_a_service() {
    let stage = Stage::create(2, &[]);
    stage.await_ready();
    let (one, two) = (stage.add_pod(1), stage.add_pod(2));
    let listener = two.netns.run(|| TcpListener::bind((address4(2), 8080))).expect("enters").expect("binds");
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("accepts");
        stream.write_all(b"Ship landed\n").expect("answers");
    });
    let procs = stage.cgroup.path().join("cgroup.procs");
    let script = format!("echo $$ > {} && exec 3<>/dev/tcp/10.96.0.1/80 && cat <&3", procs.display());
    let ask = || Command::new("bash").args(["-c", &script]).output().expect("bash runs");
    let output = one.netns.run(ask).expect("enters");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "Ship landed\n", "{output:?}");
    server.join().expect("served");
    let services: Vec<model::Service> = stage.client().get("/v1/service").expect("answers");
    assert_eq!(services[0].spec.frontend_address.to_string(), "10.96.0.1:80/TCP");
}

#[test]
fn health_metrics_and_lists_are_served() {
    let mut stage = Stage::create(2, &[("routing-mode", "tunnel")]);
    stage.await_ready();
    let (_one, _two) = (stage.add_pod(1), stage.add_pod(2));
    let mut parts = mk_parts(2);
    parts.extend([mk_policy(2, 1, 7000)]);
    let revision = stage.plan(&parts);
    stage.await_revision(revision);
    assert!(stage.http(9879, "/healthz").starts_with("HTTP/1.0 200"));
    let metrics = stage.http(9962, "/metrics");
    assert!(
        metrics.contains("cilium_agent_watches 2\n") && metrics.contains("endpoint_state=\"ready\"} 2\n"),
        "{metrics}"
    );

    let client = stage.client();
    let status = stage.status().expect("answers");
    assert_eq!(
        (status.routing.inter_host_routing_mode.as_str(), status.attach_mode.is_empty()),
        ("Tunnel", false)
    );
    assert_eq!(
        status.ipam.status,
        "IPv4: 2/253 allocated from 10.244.1.0/24, IPv6: 2/18446744073709551614 allocated from fd00:10:244:1::/64"
    );
    let config: model::Config = client.get("/v1/config").expect("answers");
    assert_eq!((config.status.device_mtu, config.status.route_mtu), (1500, 1450));
    let rules: Vec<model::PolicyEntry> = client.get("/v1/map/policy").expect("answers");
    let rule = rules.iter().find(|rule| rule.peer == 1001).expect("the rule of the policy");
    assert_eq!(
        (rule.identities.clone(), rule.ports, rule.origins.clone()),
        (vec![1002], (7000, 7000), vec!["cnp/default/rule1".to_owned()])
    );
    let endpoints: Vec<model::EndpointEntry> = client.get("/v1/map/endpoints").expect("answers");
    assert_eq!(endpoints.len(), 4);
    let ips: Vec<model::IpEntry> = client.get("/v1/ip").expect("answers");
    assert!(ips.iter().any(|entry| entry.cidr == "10.244.1.1/32" && entry.identity == 1));
    for map in ["ipcache", "ct", "nat", "services", "backends", "metrics"] {
        let _: Vec<Value> = client.get(&format!("/v1/map/{map}")).expect("answers");
    }
    let identities: Vec<model::Identity> = client.get("/v1/identity").expect("answers");
    assert!(identities.iter().any(|identity| identity.id == 1001 && identity.labels[0] == "k8s:app=pod-1"));
    let policy: model::Policy = client.get("/v1/policy").expect("answers");
    assert!(policy.policy.contains("cnp/default/rule1") && policy.revision == revision);
    let refusal = client.get::<Value>("/v1/map/nothing").expect_err("there is none");
    assert_eq!(refusal.status(), Some(404));
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(stage.socket()).expect("is there").permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn drops_are_told_to_those_who_listen() {
    let mut stage = Stage::create(2, &[]);
    stage.await_ready();
    let (one, _two) = (stage.add_pod(1), stage.add_pod(2));
    let mut parts = mk_parts(2);
    parts.extend([mk_policy(2, 9, 7000)]);
    let revision = stage.plan(&parts);
    stage.await_revision(revision);
    let mut lines = stage.client().lines("/v1/monitor").expect("answers");
    let event = thread::scope(|scope| {
        let found = scope.spawn(move || lines.next().expect("a line").expect("reads"));
        eventually("an event came", || {
            answers(&one.netns, address4(1), (address4(2), 7000));
            found.is_finished()
        });
        found.join().expect("reads")
    });
    let event: model::Event = serde_json::from_str(&event).expect("is an event");
    assert_eq!((event.verdict.as_str(), event.direction.as_str()), ("denied", "ingress"));
    assert_eq!((event.source_identity, event.endpoint), (1001, 2));
    assert_eq!(event.destination, "10.244.1.12:7000");
}
