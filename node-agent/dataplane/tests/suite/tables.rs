//! What each kind of part becomes.

use cilium_api::parts::{Algorithm, Backend, BackendPlace, Forwarding, Part, PartKey, Parts, Service};
use cilium_bpf::layout::{
    Addr, BackendEntry, IpcacheEntry, IpcacheKey, NetPort, SCOPE_EXTERNAL, SCOPE_INTERNAL,
    SERVICE_AT_OWN_NODE, SERVICE_DSR, SERVICE_MAGLEV, SERVICE_ONLY_OWN, SERVICE_RANGES, SERVICE_RANGES_DENY,
    ServiceKey,
};
use cilium_dataplane::{Balancing, Behind, BehindKey, Dataplane, Mode, Unready, router_address};

use crate::build::*;
use crate::kernel::Fake;

fn entry(kernel: &Fake, prefix: &str) -> Option<(u32, String)> {
    let net: ipnet::IpNet = prefix.parse().expect("a prefix");
    let found = kernel.ipcache.get(&IpcacheKey::new(net.addr(), net.prefix_len()))?;
    Some((found.identity, found.tunnel.ip().map(|ip| ip.to_string()).unwrap_or_default()))
}

#[test]
fn an_endpoint_stands_in_the_map_only_when_planned_and_linked() {
    let (mut dataplane, mut kernel) = (Dataplane::new(mk_config(false)), Fake::default());
    let parts = Parts::from([mk_endpoint(5, 300), mk_node("n1", 1)]);
    feed(&mut dataplane, &mut kernel, &parts);
    assert!(kernel.endpoints.is_empty());
    assert_eq!(
        kernel.slots.values().filter(|slot| slot.open).count(),
        1,
        "its policy is ready before CNI comes"
    );
    assert_eq!(dataplane.ready(5), Err(Unready::Link));

    dataplane.link(5, Some(mk_link(5)));
    dataplane.apply(&mut kernel, 0);
    let found = kernel.endpoints[&Addr::from(ip("10.244.1.5"))];
    assert_eq!((found.ifindex, found.identity, found.id, found.mac[5]), (105, 300, 5, 5));
    assert_eq!(kernel.endpoints.len(), 2);
    let route = kernel.routes[&"10.244.1.5/32".parse().expect("a prefix")];
    assert_eq!((route.device, route.source), (105, Some(ip("10.244.1.1"))));
    assert_eq!(kernel.neighbours[&(105, ip("10.244.1.5"))], [2, 0, 0, 0, 0, 5]);
    assert_eq!((dataplane.ready(5), dataplane.connected()), (Ok(()), 1));

    dataplane.link(5, None);
    dataplane.apply(&mut kernel, 0);
    assert!(kernel.endpoints.is_empty() && kernel.routes.is_empty() && kernel.neighbours.is_empty());
}

#[test]
fn a_link_of_another_pod_of_that_number_does_not_count() {
    let (mut dataplane, mut kernel) = (Dataplane::new(mk_config(false)), Fake::default());
    let mut link = mk_link(5);
    link.uid = "of a pod before".into();
    dataplane.link(5, Some(link));
    feed(&mut dataplane, &mut kernel, &Parts::from([mk_endpoint(5, 300)]));
    assert!(kernel.endpoints.is_empty());
    assert_eq!(dataplane.ready(5), Err(Unready::Link));
    assert_eq!(dataplane.ready(6), Err(Unready::Plan));
}

#[test]
fn in_tunnel_mode_remote_addresses_have_a_tunnel_endpoint() {
    let (mut dataplane, mut kernel) = (Dataplane::new(mk_config(true)), Fake::default());
    let parts = Parts::from([
        mk_node("n1", 1),
        mk_node("n2", 2),
        mk_node("n9", 9),
        mk_address("10.244.1.5", 300, Some("n1")),
        mk_address("10.244.2.7", 301, Some("n2")),
        mk_address("fd00:10:244:2::7", 301, Some("n2")),
        mk_address("198.51.100.7", 16_777_216, None),
    ]);
    feed(&mut dataplane, &mut kernel, &parts);
    let known = |prefix: &str| entry(&kernel, prefix).unwrap_or_else(|| panic!("{prefix} is there"));
    assert_eq!(known("10.244.1.5/32"), (300, String::new()));
    assert_eq!(known("10.244.2.7/32"), (301, "172.30.0.2".into()));
    assert_eq!(known("fd00:10:244:2::7/128"), (301, "172.30.0.2".into()));
    assert_eq!(known("198.51.100.7/32"), (16_777_216, String::new()));
    assert_eq!(known("172.30.0.1/32"), (1, String::new()));
    assert_eq!(known("10.244.1.1/32"), (1, String::new()), "the own router address");
    assert_eq!(known("172.30.0.2/32"), (6, "172.30.0.2".into()));
    assert_eq!(known("fd00:10:244:2::1/128"), (6, "172.30.0.2".into()));
    assert_eq!(known("172.30.0.9/32"), (7, "172.30.0.9".into()));
    assert_eq!(known("10.244.2.0/24"), (9, "172.30.0.2".into()), "pods not known one by one");
    assert_eq!(entry(&kernel, "10.244.1.0/24"), None);
    let route = kernel.routes[&"10.244.2.0/24".parse().expect("a prefix")];
    assert_eq!((route.device, route.via, route.mtu), (3, None, Some(1450)));
    assert_eq!(route.source, Some(ip("10.244.1.1")));
}

#[test]
fn in_native_mode_pods_are_reached_through_their_node() {
    let (mut dataplane, mut kernel) = (Dataplane::new(mk_config(false)), Fake::default());
    let parts = Parts::from([mk_node("n1", 1), mk_node("n2", 2), mk_address("10.244.2.7", 301, Some("n2"))]);
    feed(&mut dataplane, &mut kernel, &parts);
    assert_eq!(entry(&kernel, "10.244.2.7/32"), Some((301, String::new())));
    assert_eq!(entry(&kernel, "10.244.2.0/24"), None);
    let via = |prefix: &str| {
        let route = kernel.routes[&prefix.parse().expect("a prefix")];
        (route.device, route.via, route.mtu)
    };
    assert_eq!(via("10.244.2.0/24"), (2, Some(ip("172.30.0.2")), None));
    assert_eq!(via("fd00:10:244:2::/64"), (2, Some(ip("fd00:172::2")), None));
    assert_eq!(kernel.routes.len(), 2);

    let config = cilium_dataplane::Config { direct_routes: false, ..mk_config(false) };
    let (mut dataplane, mut kernel) = (Dataplane::new(config), Fake::default());
    feed(&mut dataplane, &mut kernel, &parts);
    assert!(kernel.routes.is_empty(), "the network between the nodes knows the way");
}

#[test]
fn a_node_that_moves_takes_its_pods_along() {
    let (mut dataplane, mut kernel) = (Dataplane::new(mk_config(true)), Fake::default());
    let mut parts =
        Parts::from([mk_address("10.244.2.7", 301, Some("n2")), mk_address("172.30.0.2", 302, None)]);
    feed(&mut dataplane, &mut kernel, &parts);
    assert_eq!(entry(&kernel, "10.244.2.7/32"), Some((301, String::new())));
    assert_eq!(entry(&kernel, "172.30.0.2/32"), Some((302, String::new())));
    parts.extend([mk_node("n2", 2)]);
    dataplane.update([&mk_node("n2", 2).0], &parts);
    dataplane.apply(&mut kernel, 0);
    assert_eq!(entry(&kernel, "10.244.2.7/32"), Some((301, "172.30.0.2".into())));
    assert_eq!(entry(&kernel, "172.30.0.2/32"), Some((6, "172.30.0.2".into())), "nodes go first");
    parts.remove(&mk_node("n2", 2).0);
    dataplane.update([&mk_node("n2", 2).0], &parts);
    dataplane.apply(&mut kernel, 0);
    assert_eq!(entry(&kernel, "10.244.2.7/32"), Some((301, String::new())));
    assert_eq!(entry(&kernel, "172.30.0.2/32"), Some((302, String::new())));
    assert_eq!(kernel.ipcache.len(), 2);
    assert!(kernel.ipcache.values().all(|entry| *entry != IpcacheEntry::default()));
}

#[test]
fn addresses_that_stand_for_somebody_else_are_named() {
    let (mut dataplane, mut kernel) = (Dataplane::new(mk_config(true)), Fake::default());
    let old = Parts::from([
        mk_address("10.244.2.7", 301, Some("n2")),
        mk_address("10.244.2.8", 301, Some("n2")),
        mk_address("10.244.2.9", 301, Some("n2")),
    ]);
    feed(&mut dataplane, &mut kernel, &old);
    assert!(dataplane.take_reassigned().is_empty(), "they were nobody's before");
    let new = Parts::from([
        mk_address("10.244.2.7", 302, Some("n2")),
        mk_address("10.244.2.8", 301, Some("n2")),
        mk_node("n2", 2),
    ]);
    let expected = [Addr::from(ip("10.244.2.7")), Addr::from(ip("10.244.2.9"))];
    dataplane.update(old.keys().chain(new.keys()), &new);
    assert_eq!(dataplane.take_reassigned(), expected);
    assert!(dataplane.take_reassigned().is_empty());
    let nobodys = |address: &str| dataplane.is_nobodys(&ip(address).into());
    assert_eq!(["10.244.2.7", "10.244.2.8", "10.244.2.9"].map(nobodys), [false, false, true]);
    let world: Parts =
        [mk_address("203.0.113.1", (1 << 24) + 1, None)].into_iter().chain(new.clone()).collect();
    dataplane.update([&PartKey::address(ip("203.0.113.1"))], &world);
    assert!(dataplane.is_nobodys(&ip("203.0.113.1").into()), "a part of the world");
    assert!(!dataplane.is_nobodys(&ip("172.30.0.2").into()), "a node");

    let mut restarted = Dataplane::new(mk_config(true));
    restarted.adopt(&mut kernel, 0).expect("lists");
    restarted.update(new.keys(), &new);
    assert_eq!(restarted.take_reassigned(), expected, "what changed while no agent ran");
}

#[test]
fn a_service_has_the_backends_of_its_family() {
    let (mut dataplane, mut kernel) = (Dataplane::new(mk_config(false)), Fake::default());
    let backends = [("10.244.1.5", 8080), ("10.244.2.7", 8080), ("fd00::7", 8080)];
    feed(&mut dataplane, &mut kernel, &Parts::from([mk_service("s", 1, &backends)]));
    let count = |address: &str| {
        let key =
            ServiceKey { address: ip(address).into(), port: NetPort(80), protocol: 6, scope: SCOPE_INTERNAL };
        kernel.services[&key].count
    };
    assert_eq!((count("10.96.0.1"), count("fd00:10:96::1"), kernel.behind.len()), (2, 1, 3));

    feed(&mut dataplane, &mut kernel, &Parts::from([mk_service("s", 1, &backends[..1])]));
    assert_eq!(kernel.behind.len(), 4, "a program may be looking at the old ones");
    dataplane.sweep(&mut kernel, cilium_dataplane::GRACE - 1);
    assert_eq!(kernel.behind.len(), 4);
    assert!(!dataplane.sweep(&mut kernel, cilium_dataplane::GRACE));
    assert_eq!(kernel.behind.len(), 1);
    assert!(kernel.services.values().any(|service| service.count == 0), "without backends connecting fails");
}

fn mk_backend(address: &str, place: BackendPlace) -> Backend {
    Backend { address: ip(address), port: 80, place: Some(Box::new(place)) }
}

/// Last numbers of the backends' addresses under an address of the Service.
fn backends(kernel: &Fake, address: &str) -> Vec<u8> {
    backends_at(kernel, address, 80, SCOPE_INTERNAL)
}

fn backends_at(kernel: &Fake, address: &str, port: u16, scope: u8) -> Vec<u8> {
    let key = ServiceKey { address: ip(address).into(), port: NetPort(port), protocol: 6, scope };
    let service = kernel.services[&key];
    let last = |index| match kernel.backend(&service, index) {
        Behind::Backend(entry) => entry.address.0[15],
        other => panic!("{other:?} is no backend"),
    };
    (0..service.count).map(last).collect()
}

#[test]
fn a_node_uses_its_own_backends_where_the_service_says_so() {
    let (mut dataplane, mut kernel) = (Dataplane::new(mk_config(false)), Fake::default());
    let on = |node: &str, leaving| BackendPlace { node: node.to_owned(), leaving, ..BackendPlace::default() };
    let mut service = Service {
        local: true,
        load_balancer: vec![ip("192.0.2.80")],
        ..mk_service_of(
            1,
            vec![
                mk_backend("10.244.1.1", on("n1", true)),
                mk_backend("10.244.1.2", on("n1", false)),
                mk_backend("10.244.2.3", on("n2", false)),
            ],
        )
    };
    let mut set = |service: &Service, kernel: &mut Fake| {
        feed(
            &mut dataplane,
            kernel,
            &Parts::from([(PartKey::service("default", "s"), Part::Service(service.clone()))]),
        );
    };
    set(&service, &mut kernel);
    assert_eq!(backends(&kernel, "10.96.0.1"), [2]);
    assert_eq!(backends(&kernel, "192.0.2.80"), [2, 3], "the internal policy is about cluster addresses");
    service.ports[0].backends.remove(1);
    set(&service, &mut kernel);
    assert_eq!(backends(&kernel, "10.96.0.1"), [1], "one that is leaving is better than none");
    service.ports[0].backends.remove(0);
    set(&service, &mut kernel);
    assert_eq!(backends(&kernel, "10.96.0.1"), [0u8; 0]);
}

#[test]
fn hints_count_when_all_backends_have_them_and_one_is_for_this_node() {
    let (mut dataplane, mut kernel) = (Dataplane::new(mk_config(false)), Fake::default());
    let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let hint = |nodes: &[&str], zones: &[&str]| BackendPlace {
        for_nodes: names(nodes),
        for_zones: names(zones),
        ..BackendPlace::default()
    };
    let mut parts = Parts::from([mk_node("n1", 1)]);
    let mut seen = |places: [BackendPlace; 3], zone: &str| {
        let placed = (1..).zip(places).map(|(n, place)| mk_backend(&format!("10.244.2.{n}"), place));
        let service = mk_service_of(1, placed.collect());
        parts.insert(PartKey::service("default", "s"), Part::Service(service));
        if let Some(Part::Node(node)) = parts.get_mut(&PartKey::node("n1")) {
            zone.clone_into(&mut node.zone);
        }
        feed(&mut dataplane, &mut kernel, &parts);
        backends(&kernel, "10.96.0.1")
    };
    let zones = || [hint(&[], &["a"]), hint(&[], &["b"]), hint(&[], &["a", "b"])];
    assert_eq!(seen(zones(), "b"), [2, 3]);
    assert_eq!(seen(zones(), "a"), [1, 3], "the node was moved");
    assert_eq!(seen(zones(), "c"), [1, 2, 3], "none is for this zone");
    assert_eq!(seen(zones(), ""), [1, 2, 3], "the node is in no zone");
    assert_eq!(
        seen([hint(&[], &["a"]), hint(&[], &[]), hint(&[], &["a"])], "a"),
        [1, 2, 3],
        "one has no hint"
    );
    let nodes = [hint(&["n2"], &["a"]), hint(&["n1"], &["a"]), hint(&["n3"], &["a"])];
    assert_eq!(seen(nodes, "a"), [2], "the node before the zone");
}

#[test]
fn a_time_of_affinity_is_part_of_what_is_in_force() {
    let (mut dataplane, mut kernel) = (Dataplane::new(mk_config(false)), Fake::default());
    let backend = vec![(ip("10.244.2.1"), 80).into()];
    for affinity in [0, 60, 3600] {
        let service = Service { affinity, ..mk_service_of(1, backend.clone()) };
        feed(
            &mut dataplane,
            &mut kernel,
            &Parts::from([(PartKey::service("default", "s"), Part::Service(service))]),
        );
        assert!(
            kernel.services.values().all(|service| service.affinity == affinity),
            "{:?}",
            kernel.services
        );
    }
}

#[test]
fn prefixes_that_cannot_be_read_are_named() {
    let (mut dataplane, mut kernel) = (Dataplane::new(mk_config(false)), Fake::default());
    let (key, mut part) = mk_node("n2", 2);
    if let cilium_api::parts::Part::Node(node) = &mut part {
        node.pod_cidrs.push("10.244.2.0/240".into());
    }
    feed(&mut dataplane, &mut kernel, &Parts::from([(key, part)]));
    assert_eq!(kernel.routes.len(), 2);
    let failures = dataplane.failures();
    assert_eq!((failures.len(), failures[0].object.as_str()), (1, "node/n2"));
}

#[test]
fn routers_are_the_first_address_of_a_prefix() {
    let router = |prefix: &str| router_address(prefix.parse().expect("a prefix"));
    assert_eq!(router("10.244.1.0/24"), Some(ip("10.244.1.1")));
    assert_eq!(router("fd00:10:244:1::/64"), Some(ip("fd00:10:244:1::1")));
    assert_eq!(router("10.0.0.7/32"), None);
}

#[test]
fn prefixes_give_way_to_pods_and_nodes() {
    let (mut dataplane, mut kernel) = (Dataplane::new(mk_config(true)), Fake::default());
    let (near, wide) = ((1 << 24) + 1, (1 << 24) + 2);
    let mut parts = Parts::from([
        mk_prefix("10.244.2.7/32", near),
        mk_prefix("172.30.0.2/32", near),
        mk_prefix("10.0.0.0/8", wide),
        mk_prefix("10.244.2.0/24", wide),
        mk_prefix("10.244.2.128/25", near),
        mk_prefix("fd00:10:244:2::/65", near),
        mk_prefix("198.51.100.0/24", near),
        mk_address("10.244.2.7", 301, Some("n2")),
        mk_node("n2", 2),
    ]);
    feed(&mut dataplane, &mut kernel, &parts);
    let known =
        |kernel: &Fake, prefix: &str| entry(kernel, prefix).unwrap_or_else(|| panic!("{prefix} is there"));
    let tunnel = || "172.30.0.2".to_owned();
    assert_eq!(known(&kernel, "10.244.2.7/32"), (301, tunnel()));
    assert_eq!(known(&kernel, "172.30.0.2/32"), (6, tunnel()));
    assert_eq!(known(&kernel, "10.0.0.0/8"), (wide, String::new()));
    assert_eq!(known(&kernel, "10.244.2.0/24"), (9, tunnel()), "pods not known one by one");
    assert_eq!(known(&kernel, "10.244.2.128/25"), (near, tunnel()), "some of them");
    assert_eq!(known(&kernel, "fd00:10:244:2::/65"), (near, tunnel()));
    assert_eq!(known(&kernel, "198.51.100.0/24"), (near, String::new()));
    let gone = [mk_address("10.244.2.7", 0, None).0, mk_node("n2", 2).0];
    gone.iter().for_each(|key| drop(parts.remove(key)));
    dataplane.update(&gone, &parts);
    dataplane.apply(&mut kernel, 0);
    assert_eq!(known(&kernel, "10.244.2.7/32"), (near, String::new()));
    assert_eq!(known(&kernel, "172.30.0.2/32"), (near, String::new()));
    assert_eq!(known(&kernel, "10.244.2.0/24"), (wide, String::new()));
    assert_eq!(known(&kernel, "10.244.2.128/25"), (near, String::new()));
    let all: Vec<_> = parts.keys().cloned().collect();
    dataplane.update(&all, &Parts::new());
    dataplane.apply(&mut kernel, 0);
    assert!(kernel.ipcache.is_empty());
}

#[test]
fn a_prefix_of_ipv6_catches_no_ipv4() {
    let (mut dataplane, mut kernel) = (Dataplane::new(mk_config(false)), Fake::default());
    let parts = Parts::from([mk_prefix("::/8", 1 << 24), mk_prefix("2001:db8::/32", 1 << 24)]);
    feed(&mut dataplane, &mut kernel, &parts);
    assert_eq!(entry(&kernel, "0.0.0.0/0"), Some((9, String::new())));
    let narrow = Parts::from([mk_prefix("2001:db8::/32", 1 << 24)]);
    dataplane.update(parts.keys(), &narrow);
    dataplane.apply(&mut kernel, 0);
    assert_eq!((entry(&kernel, "0.0.0.0/0"), kernel.ipcache.len()), (None, 1));
}

fn put(dataplane: &mut Dataplane, kernel: &mut Fake, services: &[(&str, &Service)]) {
    let part = |(name, service): &(&str, &Service)| {
        (PartKey::service("default", name), Part::Service(Service::clone(service)))
    };
    let parts: Parts = services.iter().map(part).collect();
    let all = ["a", "b", "c", "s"].map(|name| PartKey::service("default", name));
    dataplane.update(all.iter(), &parts);
    dataplane.apply(kernel, 0);
}

#[test]
fn the_outside_has_entries_of_its_own() {
    let (mut dataplane, mut kernel) = (Dataplane::new(mk_config(false)), Fake::default());
    let on = |node: &str| BackendPlace { node: node.to_owned(), ..BackendPlace::default() };
    let backends = vec![mk_backend("10.244.1.1", on("n1")), mk_backend("10.244.2.2", on("n2"))];
    let mut service = Service {
        external_local: true,
        load_balancer: vec![ip("192.0.2.80")],
        external: vec![ip("192.0.2.90")],
        source_ranges: Some(vec![
            "198.51.100.77/24".parse().expect("a prefix"),
            "2001:db8::/32".parse().expect("a prefix"),
        ]),
        ..mk_service_of(1, backends)
    };
    service.ports[0].node_port = 30_080;
    put(&mut dataplane, &mut kernel, &[("s", &service)]);
    assert_eq!(backends_at(&kernel, "0.0.0.0", 30_080, SCOPE_INTERNAL), [1, 2]);
    assert_eq!(backends_at(&kernel, "0.0.0.0", 30_080, SCOPE_EXTERNAL), [1]);
    assert_eq!(backends_at(&kernel, "192.0.2.80", 80, SCOPE_INTERNAL), [1, 2]);
    assert_eq!(backends_at(&kernel, "192.0.2.80", 80, SCOPE_EXTERNAL), [1]);
    assert_eq!(backends_at(&kernel, "192.0.2.90", 80, SCOPE_EXTERNAL), [1]);
    let entry = |kernel: &Fake, address: &str, port, scope| {
        kernel.services[&ServiceKey { address: ip(address).into(), port: NetPort(port), protocol: 6, scope }]
    };
    let balancer = entry(&kernel, "192.0.2.80", 80, SCOPE_EXTERNAL);
    assert_eq!(balancer.flags, SERVICE_ONLY_OWN | SERVICE_RANGES);
    let ranges: Vec<_> = kernel.ranges(&balancer).iter().map(|range| range.prefix()).collect();
    assert_eq!(ranges, [Some((ip("198.51.100.0"), 24))], "of the address's family");
    assert_eq!(entry(&kernel, "192.0.2.90", 80, SCOPE_EXTERNAL).flags, SERVICE_ONLY_OWN | SERVICE_RANGES);
    assert_eq!(entry(&kernel, "192.0.2.80", 80, SCOPE_INTERNAL).flags, 0);
    assert_eq!(entry(&kernel, "0.0.0.0", 30_080, SCOPE_EXTERNAL).flags, SERVICE_ONLY_OWN);
    assert_eq!(entry(&kernel, "0.0.0.0", 30_080, SCOPE_INTERNAL).flags, SERVICE_AT_OWN_NODE);

    service.source_ranges = Some(vec![]);
    put(&mut dataplane, &mut kernel, &[("s", &service)]);
    let balancer = entry(&kernel, "192.0.2.80", 80, SCOPE_EXTERNAL);
    assert_eq!(
        (balancer.flags & SERVICE_RANGES, kernel.ranges(&balancer)),
        (SERVICE_RANGES, vec![]),
        "nobody may come"
    );

    service.denies_ranges = true;
    put(&mut dataplane, &mut kernel, &[("s", &service)]);
    let flags = SERVICE_ONLY_OWN | SERVICE_RANGES | SERVICE_RANGES_DENY;
    assert_eq!(entry(&kernel, "192.0.2.80", 80, SCOPE_EXTERNAL).flags, flags);
    assert_eq!(entry(&kernel, "0.0.0.0", 30_080, SCOPE_EXTERNAL).flags, SERVICE_ONLY_OWN);

    put(&mut dataplane, &mut kernel, &[]);
    dataplane.sweep(&mut kernel, u64::MAX);
    assert_eq!((kernel.services.len(), kernel.behind.len()), (0, 0));
}

#[test]
fn no_generation_of_a_service_comes_again_after_a_restart() {
    let (mut dataplane, mut kernel) = (Dataplane::new(mk_config(false)), Fake::default());
    dataplane.adopt(&mut kernel, 5_000_000).expect("lists");
    let service = mk_service_of(1, vec![mk_backend("10.244.1.1", BackendPlace::default())]);
    let generation = |kernel: &Fake| kernel.services.values().next().expect("is there").generation;
    put(&mut dataplane, &mut kernel, &[("s", &service)]);
    let first = generation(&kernel);
    put(&mut dataplane, &mut kernel, &[]);
    dataplane.sweep(&mut kernel, u64::MAX);
    assert_eq!(
        (kernel.services.len(), kernel.behind.len()),
        (0, 0),
        "nothing says which number was the last"
    );

    let mut restarted = Dataplane::new(mk_config(false));
    restarted.adopt(&mut kernel, 5_000_700).expect("lists");
    put(&mut restarted, &mut kernel, &[("s", &service)]);
    assert!(generation(&kernel) > first, "programs may still remember {first}");
}

#[test]
fn an_address_that_two_services_want_belongs_to_one_in_any_order() {
    let service = |number: u8, external: bool| Service {
        load_balancer: if external { vec![] } else { vec![ip("192.0.2.80")] },
        external: if external { vec![ip("192.0.2.80")] } else { vec![] },
        ..mk_service_of(number, vec![mk_backend(&format!("10.244.1.{number}"), BackendPlace::default())])
    };
    let (external, balancer, later) = (service(1, true), service(2, false), service(3, false));
    let orders: [&[(&str, &Service)]; 2] = [
        &[("a", &external), ("b", &balancer), ("c", &later)],
        &[("c", &later), ("b", &balancer), ("a", &external)],
    ];
    for order in orders {
        let (mut dataplane, mut kernel) = (Dataplane::new(mk_config(false)), Fake::default());
        for end in 1..=order.len() {
            put(&mut dataplane, &mut kernel, &order[..end]);
        }
        let owner = |kernel: &Fake| backends_at(kernel, "192.0.2.80", 80, SCOPE_EXTERNAL);
        assert_eq!(owner(&kernel), [2], "the load balancer's, and of two the first by name");
        let listed = |name: &str, service: &Service| {
            let part = PartKey::service("default", name);
            dataplane.frontends(&part, service).filter(|it| it.address == ip("192.0.2.80")).count()
        };
        assert_eq!([listed("a", &external), listed("b", &balancer), listed("c", &later)], [0, 2, 0]);
        let failures = dataplane.failures();
        let told: Vec<&str> = failures.iter().map(|failure| failure.object.as_str()).collect();
        assert!(told.contains(&"service/default/a") && told.contains(&"service/default/c"), "{failures:?}");
        put(&mut dataplane, &mut kernel, &[("a", &external), ("c", &later)]);
        assert_eq!(owner(&kernel), [3]);
        put(&mut dataplane, &mut kernel, &[("a", &external)]);
        assert_eq!(owner(&kernel), [1]);
        assert!(dataplane.failures().is_empty());
    }
}

#[test]
fn ports_of_the_node_lead_to_a_pod() {
    let (mut dataplane, mut kernel) = (Dataplane::new(mk_config(false)), Fake::default());
    let frontends = |kernel: &Fake, port: u16| -> Vec<(String, u8)> {
        let of_port = kernel.services.keys().filter(|key| key.port == NetPort(port));
        of_port.map(|key| (key.address.to_string(), key.scope)).collect()
    };
    let at = |address: &str, scope| (address.to_owned(), scope);
    feed(&mut dataplane, &mut kernel, &Parts::from([mk_open_endpoint(6, 300), mk_open_endpoint(7, 300)]));
    assert_eq!(frontends(&kernel, 8081), [at("127.0.0.1", SCOPE_INTERNAL)], "only at that address");
    let loopback = [at("::1", SCOPE_INTERNAL), at("127.0.0.1", SCOPE_INTERNAL)];
    assert_eq!(frontends(&kernel, 8080), loopback, "addresses of the node are not known yet");

    let parts = Parts::from([mk_open_endpoint(6, 300), mk_open_endpoint(7, 300), mk_node("n1", 1)]);
    feed(&mut dataplane, &mut kernel, &parts);
    let own = dataplane.node_addresses();
    assert!(!own.is_empty());
    for address in own {
        for scope in [SCOPE_INTERNAL, SCOPE_EXTERNAL] {
            assert!(frontends(&kernel, 8080).contains(&at(&address.to_string(), scope)), "{address}");
        }
    }
    assert_eq!(backends_at(&kernel, "127.0.0.1", 8081, SCOPE_INTERNAL), [7]);
    let listed = |dataplane: &Dataplane| -> Vec<String> {
        let line = |(part, at, to): (&PartKey, &ServiceKey, &BackendEntry)| {
            format!("{} {}:{} {}:{}", part.0, at.address, at.port.0, to.address, to.port.0)
        };
        let mut all: Vec<String> = dataplane.host_ports().map(line).collect();
        all.sort();
        all
    };
    assert_eq!(
        listed(&dataplane),
        [
            "endpoint/default/pod-6 127.0.0.1:8080 10.244.1.6:86",
            "endpoint/default/pod-6 172.30.0.1:8080 10.244.1.6:86",
            "endpoint/default/pod-6 ::1:8080 fd00:10:244::6:86",
            "endpoint/default/pod-6 fd00:172::1:8080 fd00:10:244::6:86",
            "endpoint/default/pod-7 127.0.0.1:8081 10.244.1.7:87",
        ]
    );

    let gone = PartKey::endpoint("default", "pod-6");
    dataplane.update([&gone], &Parts::new());
    dataplane.apply(&mut kernel, 0);
    assert_eq!(frontends(&kernel, 8080), []);
}

#[test]
fn only_the_outside_has_tables_and_frontends_with_one_set_share_theirs() {
    let backends: Vec<Backend> =
        (1..=5).map(|i| mk_backend(&format!("10.244.1.{i}"), BackendPlace::default())).collect();
    let mut service = Service {
        algorithm: Some(Algorithm::Maglev),
        external: vec![ip("192.0.2.90"), ip("192.0.2.91")],
        ..mk_service_of(1, backends)
    };
    service.ports[0].node_port = 30_080;
    let (mut dataplane, mut kernel) = (Dataplane::new(mk_config(false)), Fake::default());
    put(&mut dataplane, &mut kernel, &[("s", &service)]);
    let entry = |kernel: &Fake, address: &str, port, scope| {
        kernel.services[&ServiceKey { address: ip(address).into(), port: NetPort(port), protocol: 6, scope }]
    };
    let outside = entry(&kernel, "0.0.0.0", 30_080, SCOPE_EXTERNAL);
    assert_eq!((outside.flags, outside.count), (SERVICE_MAGLEV, 5));
    let shares = (0..5).map(|i| kernel.table(&outside).iter().filter(|of| **of == i).count());
    assert_eq!(shares.collect::<Vec<_>>().iter().sum::<usize>(), 509);
    for address in ["192.0.2.90", "192.0.2.91"] {
        assert_eq!(entry(&kernel, address, 80, SCOPE_EXTERNAL), outside);
    }
    let inside = entry(&kernel, "0.0.0.0", 30_080, SCOPE_INTERNAL);
    assert_eq!((inside.flags, kernel.table(&inside)), (0, vec![]));
    let pieces =
        |kernel: &Fake| kernel.behind.keys().filter(|key| matches!(key, BehindKey::Maglev(_))).count();
    assert_eq!(pieces(&kernel), 2, "one table of 509 entries");

    // One backend leaves nothing to choose, and an agent may be told not to listen to Services.
    let alone =
        Service { ports: mk_service_of(1, service.ports[0].backends[..1].to_vec()).ports, ..service.clone() };
    put(&mut dataplane, &mut kernel, &[("s", &alone)]);
    dataplane.sweep(&mut kernel, u64::MAX);
    assert_eq!(pieces(&kernel), 0);
    let mut config = mk_config(false);
    config.balancing.by_annotation = false;
    let (mut dataplane, mut kernel) = (Dataplane::new(config.clone()), Fake::default());
    put(&mut dataplane, &mut kernel, &[("s", &service)]);
    assert_eq!(pieces(&kernel), 0);
    config.balancing = Balancing { algorithm: Algorithm::Maglev, by_annotation: true, ..config.balancing };
    service.algorithm = None;
    let (mut dataplane, mut kernel) = (Dataplane::new(config), Fake::default());
    put(&mut dataplane, &mut kernel, &[("s", &service)]);
    assert_eq!(pieces(&kernel), 2);
    service.algorithm = Some(Algorithm::Random);
    put(&mut dataplane, &mut kernel, &[("s", &service)]);
    dataplane.sweep(&mut kernel, u64::MAX);
    assert_eq!(pieces(&kernel), 0);
}

#[test]
fn a_restarted_agent_with_another_seed_exchanges_tables_and_one_with_the_same_writes_nothing() {
    let backends: Vec<Backend> =
        (1..=3).map(|i| mk_backend(&format!("10.244.1.{i}"), BackendPlace::default())).collect();
    let mut service = Service { algorithm: Some(Algorithm::Maglev), ..mk_service_of(1, backends) };
    service.ports[0].node_port = 30_080;
    let (mut dataplane, mut kernel) = (Dataplane::new(mk_config(false)), Fake::default());
    put(&mut dataplane, &mut kernel, &[("s", &service)]);
    let restart = |kernel: &mut Fake, config| {
        let before = kernel.writes;
        let mut dataplane = Dataplane::new(config);
        dataplane.adopt(kernel, 0).expect("adopts");
        put(&mut dataplane, kernel, &[("s", &service)]);
        dataplane.sweep(kernel, u64::MAX);
        kernel.writes - before
    };
    let key = ServiceKey {
        address: ip("0.0.0.0").into(),
        port: NetPort(30_080),
        protocol: 6,
        scope: SCOPE_EXTERNAL,
    };
    let before = kernel.table(&kernel.services[&key]);
    assert_eq!(restart(&mut kernel, mk_config(false)), 0);
    let mut config = mk_config(false);
    config.balancing.maglev.seed += 1;
    assert!(restart(&mut kernel, config) > 0);
    assert_ne!(kernel.table(&kernel.services[&key]), before);
}

#[test]
fn backends_elsewhere_answer_by_themselves_where_the_node_or_the_service_says_so() {
    let [tcp, udp] = [6, 17];
    let flags = |mode, mode_by_annotation, asked, protocol| {
        let backend = mk_backend("10.244.1.1", BackendPlace::default());
        let mut service = Service { forwarding: asked, ..mk_service_of(1, vec![backend]) };
        service.ports[0].node_port = 30_080;
        service.ports[0].protocol = protocol;
        let mut config = mk_config(false);
        config.balancing = Balancing { mode, mode_by_annotation, ..Balancing::default() };
        let (mut dataplane, mut kernel) = (Dataplane::new(config), Fake::default());
        put(&mut dataplane, &mut kernel, &[("s", &service)]);
        [SCOPE_EXTERNAL, SCOPE_INTERNAL].map(|scope| {
            let key = ServiceKey { address: ip("0.0.0.0").into(), port: NetPort(30_080), protocol, scope };
            kernel.services[&key].flags
        })
    };
    let (dsr, snat) = ([SERVICE_DSR, 0], [0, 0]);
    assert_eq!(flags(Mode::Snat, true, None, tcp), snat);
    assert_eq!(flags(Mode::Snat, true, Some(Forwarding::Dsr), udp), dsr);
    assert_eq!(flags(Mode::Snat, false, Some(Forwarding::Dsr), tcp), snat, "Services are not asked");
    assert_eq!(flags(Mode::Dsr, false, None, udp), dsr);
    assert_eq!(flags(Mode::Dsr, true, Some(Forwarding::Snat), tcp), snat);
    assert_eq!(flags(Mode::Hybrid, false, None, tcp), dsr);
    assert_eq!(flags(Mode::Hybrid, false, None, udp), snat);
    assert_eq!(flags(Mode::Snat, true, Some(Forwarding::Snat), 132), dsr, "SCTP cannot change ports");
}

#[test]
fn other_ports_of_a_load_balancers_address_are_closed_for_as_long_as_a_service_has_it() {
    let service = |number: u8, port: u16| {
        let mut service = Service {
            load_balancer: vec![ip("192.0.2.80")],
            ..mk_service_of(number, vec![mk_backend("10.244.1.1", BackendPlace::default())])
        };
        service.ports[0].port = port;
        service
    };
    let (one, other) = (service(1, 80), service(2, 443));
    let (mut dataplane, mut kernel) = (Dataplane::new(mk_config(false)), Fake::default());
    let closed =
        ServiceKey { address: ip("192.0.2.80").into(), port: NetPort(0), protocol: 0, scope: SCOPE_EXTERNAL };
    let count = |kernel: &Fake| kernel.services.get(&closed).map(|entry| entry.count);
    put(&mut dataplane, &mut kernel, &[("a", &one), ("b", &other)]);
    assert_eq!((count(&kernel), dataplane.failures()), (Some(0), vec![]), "both may share it");
    put(&mut dataplane, &mut kernel, &[("b", &other)]);
    assert_eq!(count(&kernel), Some(0));
    put(&mut dataplane, &mut kernel, &[]);
    assert_eq!(count(&kernel), None);
}

#[test]
fn sockets_of_the_node_and_its_pods_find_external_addresses_that_are_its_own() {
    let (mut dataplane, mut kernel) = (Dataplane::new(mk_config(false)), Fake::default());
    let service = Service {
        external: vec![ip("172.30.0.1"), ip("172.30.0.2")],
        ..mk_service_of(1, vec![mk_backend("10.244.1.1", BackendPlace::default())])
    };
    put(&mut dataplane, &mut kernel, &[("s", &service)]);
    let is_inside = |kernel: &Fake, address: &str| {
        let (address, port, protocol) = (ip(address).into(), NetPort(80), 6);
        kernel.services.contains_key(&ServiceKey { address, port, protocol, scope: SCOPE_INTERNAL })
    };
    assert!(!is_inside(&kernel, "172.30.0.1"));
    let mut parts = Parts::from([mk_node("n1", 1), mk_node("n2", 2)]);
    let nodes: Vec<PartKey> = parts.keys().cloned().collect();
    parts.insert(PartKey::service("default", "s"), Part::Service(service));
    dataplane.update(&nodes, &parts);
    dataplane.apply(&mut kernel, 0);
    assert!(is_inside(&kernel, "172.30.0.1"));
    assert!(!is_inside(&kernel, "172.30.0.2"), "whoever may write a Service must not take others' addresses");
}
