//! Links, addresses, routes and neighbours on the real kernel, in namespaces of their own. Needs root.
#![expect(clippy::unwrap_used, reason = "a test stops where something fails")]

use std::{
    net::{IpAddr, UdpSocket},
    process::Command,
    time::Duration,
};

use cilium_delta::{Table, Tracker};
use cilium_drivers::{
    netlink::{
        Error, Gateway, HOST_DEVICE, Kind, LearnedRoutes, Mac, NET_DEVICE, Neighbour, NeighbourTable,
        Netlink, PodAddress, PodLink, PodNetwork, Route, RouteTable, VXLAN_DEVICE, configure_pod, lxc_name,
        remove_pod_device,
    },
    netns::Netns,
    sysctl, testing,
};
use ipnet::IpNet;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// What `ip(8)` says inside a namespace: an independent view of what was done.
fn ip_command(namespace: &Netns, arguments: &[&str]) -> String {
    let output = namespace.run(|| Command::new("ip").args(arguments).output().unwrap()).unwrap();
    assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

const POD: [PodAddress; 2] = [
    PodAddress {
        address: IpAddr::V4(std::net::Ipv4Addr::new(10, 1, 0, 5)),
        gateway: IpAddr::V4(std::net::Ipv4Addr::new(10, 1, 0, 1)),
    },
    PodAddress {
        address: IpAddr::V6(std::net::Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 5)),
        gateway: IpAddr::V6(std::net::Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 1)),
    },
];

/// A host with router addresses, and a pod on it that can talk to the host.
fn mk_host_with_pod() -> (Netns, Netns, String) {
    let (host, pod) = (testing::namespace(), testing::namespace());
    host.run(|| sysctl::prepare_node(true)).unwrap().unwrap();
    let mut netlink = Netlink::open_in(&host).unwrap();
    let router = netlink.ensure_host_pair(1500).unwrap();
    netlink.ensure_addresses(&router, &[net("10.1.0.1/32"), net("fd00:1::1/128")]).unwrap();

    let name = lxc_name("0123456789abcdef", "eth0");
    let link = PodLink { host: &name, device: "eth0", netns: &pod, mtu: 1450, alias: "cilium:17" };
    let ends = netlink.create_pod_link(&link).unwrap();
    let network = PodNetwork { device: "eth0", addresses: &POD, host_mac: ends.host.mac, route_mtu: 1400 };
    configure_pod(&pod, &network).unwrap().ready().unwrap();
    netlink.require_link(&name).unwrap();

    let mut routes = RouteTable::new(Netlink::open_in(&host).unwrap());
    let mut neighbours = NeighbourTable::new(Netlink::open_in(&host).unwrap());
    for address in POD {
        routes.set(&address.address.into(), &Route::on_link(ends.host.index)).unwrap();
        let neighbour = Neighbour { device: ends.host.index, address: address.address };
        neighbours.set(&neighbour, &ends.pod_mac).unwrap();
    }
    (host, pod, name)
}

#[test]
fn a_pod_talks_to_its_host_in_both_families() {
    let (host, pod, _) = mk_host_with_pod();
    for address in POD {
        let server = host.run(|| UdpSocket::bind((address.gateway, 0)).unwrap()).unwrap();
        let client = pod.run(|| UdpSocket::bind((address.address, 0)).unwrap()).unwrap();
        server.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        client.send_to(b"hello", server.local_addr().unwrap()).unwrap();
        let mut buffer = [0; 16];
        let (length, from) = server.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..length], from), (&b"hello"[..], client.local_addr().unwrap()));
        server.send_to(b"and back", from).unwrap();
        let (length, _) = client.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"and back");
    }
    // Nobody had to ask who has an address: the pod's neighbours on its link are permanent.
    for (namespace, address) in
        [(&host, "10.1.0.5"), (&host, "fd00:1::5"), (&pod, "10.1.0.1"), (&pod, "fd00:1::1")]
    {
        let neighbours = ip_command(namespace, &["neigh", "show", address]);
        assert!(neighbours.trim().ends_with("PERMANENT"), "{neighbours}");
    }
}

#[test]
fn a_pod_link_is_as_planned() {
    let (host, pod, name) = mk_host_with_pod();
    let link = Netlink::open_in(&host).unwrap().require_link(&name).unwrap();
    assert_eq!((link.mtu, link.up, link.kind, link.alias.as_str()), (1450, true, Kind::Veth, "cilium:17"));
    assert_eq!(name.len(), 15);

    let inside = Netlink::open_in(&pod).unwrap().require_link("eth0").unwrap();
    assert_eq!((inside.mtu, inside.up, inside.index), (1450, true, link.peer));
    let routes = ip_command(&pod, &["route", "show"]);
    assert_eq!(
        routes.trim(),
        "default via 10.1.0.1 dev eth0 proto 87 mtu 1400 \n10.1.0.1 dev eth0 proto 87 scope link"
    );
    let routes = ip_command(&pod, &["-6", "route", "show", "proto", "87"]);
    assert!(routes.contains("default via fd00:1::1 dev eth0") && routes.contains("mtu 1400"), "{routes}");
    let addresses = ip_command(&pod, &["-6", "addr", "show", "dev", "eth0", "scope", "global"]);
    assert!(addresses.contains("fd00:1::5/128") && !addresses.contains("tentative"), "{addresses}");
    // The host's end has no address at all, not even a link-local one.
    assert_eq!(ip_command(&host, &["addr", "show", "dev", &name]).matches("inet").count(), 0);
}

#[test]
fn a_pod_whose_device_goes_does_not_become_ready() {
    let (host, pod) = (testing::namespace(), testing::namespace());
    let mut netlink = Netlink::open_in(&host).unwrap();
    let link = PodLink { host: "lxcone", device: "eth0", netns: &pod, mtu: 1500, alias: "cilium:1" };
    let ends = netlink.create_pod_link(&link).unwrap();
    let network = PodNetwork { device: "eth0", addresses: &POD, host_mac: ends.host.mac, route_mtu: 1500 };
    let configured = configure_pod(&pod, &network).unwrap();
    netlink.delete_link("lxcone").unwrap();
    configured.ready().unwrap_err();
}

#[test]
fn names_that_are_taken_are_refused_and_nothing_stays_behind() {
    let (host, pod, name) = mk_host_with_pod();
    let mut netlink = Netlink::open_in(&host).unwrap();
    let links = netlink.links().unwrap().len();
    let again = PodLink { host: &name, device: "eth1", netns: &pod, mtu: 1450, alias: "cilium:18" };
    let error = netlink.create_pod_link(&again).unwrap_err();
    assert!(matches!(&error, Error::CreatePodLink { source, .. } if source.errno() == Some(libc::EEXIST)));
    assert!(error.to_string().contains(&name), "{error}");
    let inside_taken =
        PodLink { host: "lxcother", device: "eth0", netns: &pod, mtu: 1450, alias: "cilium:18" };
    netlink.create_pod_link(&inside_taken).unwrap_err();
    assert_eq!(netlink.links().unwrap().len(), links);
    assert_eq!(netlink.require_link(&name).unwrap().alias, "cilium:17");

    remove_pod_device(&pod, "eth0").unwrap();
    assert_eq!(netlink.link(&name).unwrap(), None);
    remove_pod_device(&pod, "eth0").unwrap();
}

#[test]
fn a_refused_step_is_named_with_the_kernels_reason() {
    let (host, pod) = (testing::namespace(), testing::namespace());
    let mut netlink = Netlink::open_in(&host).unwrap();
    let link = PodLink { host: "lxcone", device: "eth0", netns: &pod, mtu: 1500, alias: "cilium:1" };
    let ends = netlink.create_pod_link(&link).unwrap();
    // The second address has the first one's gateway route in its way.
    let twice = [POD[0], PodAddress { address: ip("10.1.0.6"), ..POD[0] }];
    let network = PodNetwork { device: "eth0", addresses: &twice, host_mac: ends.host.mac, route_mtu: 1500 };
    let error = configure_pod(&pod, &network).err().unwrap();
    assert_eq!(error.to_string(), "cannot add neighbour 10.1.0.1 for eth0 in (new)");

    let missing = PodNetwork { device: "eth9", ..network };
    assert!(matches!(configure_pod(&pod, &missing).err().unwrap(), Error::NoLink { name } if name == "eth9"));
    let error = Netns::open("/run/no/such/namespace").unwrap_err();
    assert_eq!(error.to_string(), "cannot open network namespace /run/no/such/namespace");
    let error = Netns::open("/proc/self/status").unwrap().run(|| ()).unwrap_err();
    assert!(error.to_string().contains("/proc/self/status"), "{error}");
}

#[test]
fn the_host_pair_is_kept_adjusted_and_replaced() {
    let host = testing::namespace();
    let mut netlink = Netlink::open_in(&host).unwrap();
    let first = netlink.ensure_host_pair(1500).unwrap();
    let second = netlink.ensure_host_pair(1400).unwrap();
    assert_eq!((second.index, second.mtu, second.up), (first.index, 1400, true));
    assert_eq!(netlink.require_link(NET_DEVICE).unwrap().mtu, 1400);
    assert!(ip_command(&host, &["link", "show", HOST_DEVICE]).contains("NOARP"));

    netlink.delete_link(HOST_DEVICE).unwrap();
    ip_command(&host, &["link", "add", NET_DEVICE, "type", "vxlan", "id", "5", "dstport", "9999"]);
    let third = netlink.ensure_host_pair(1500).unwrap();
    assert_eq!((third.kind, netlink.require_link(NET_DEVICE).unwrap().kind), (Kind::Veth, Kind::Veth));
}

#[test]
fn the_tunnel_device_is_kept_unless_it_is_wrong() {
    let host = testing::namespace();
    let mut netlink = Netlink::open_in(&host).unwrap();
    let first = netlink.ensure_vxlan(8472, 1500).unwrap();
    assert_eq!((first.kind, first.up), (Kind::Vxlan { port: 8472, external: true }, true));
    let shown = ip_command(&host, &["-d", "link", "show", VXLAN_DEVICE]);
    assert!(
        shown.contains("external") && shown.contains("dstport 8472") && shown.contains("nolearning"),
        "{shown}"
    );
    assert_eq!(netlink.ensure_vxlan(8472, 1450).unwrap().index, first.index);
    let moved = netlink.ensure_vxlan(8473, 1450).unwrap();
    assert_ne!(moved.index, first.index);
    assert_eq!(moved.kind, Kind::Vxlan { port: 8473, external: true });
}

#[test]
fn a_device_gets_exactly_the_addresses_wanted() {
    let host = testing::namespace();
    let mut netlink = Netlink::open_in(&host).unwrap();
    let device = netlink.ensure_host_pair(1500).unwrap();
    let wanted = [net("10.0.0.1/32"), net("fd00::1/128")];
    assert_eq!(netlink.ensure_addresses(&device, &wanted).unwrap(), 2);
    assert_eq!(netlink.ensure_addresses(&device, &wanted).unwrap(), 0);
    ip_command(&host, &["addr", "add", "10.9.9.9/24", "dev", HOST_DEVICE]);
    assert_eq!(netlink.ensure_addresses(&device, &[net("10.0.0.2/32"), wanted[1]]).unwrap(), 3);
    let mut present: Vec<_> =
        netlink.addresses().unwrap().into_iter().filter(|(index, _)| *index == device.index).collect();
    present.sort();
    assert_eq!(present, [(device.index, net("10.0.0.2/32")), (device.index, net("fd00::1/128"))]);
}

#[test]
fn routes_follow_the_tracker_and_leave_others_alone() {
    let (host, world) = (testing::namespace(), testing::namespace());
    let (uplink, _) = testing::connect(
        (&host, "up0", &[net("192.0.2.1/24"), net("2001:db8::1/64")]),
        (&world, "up0", &[net("192.0.2.2/24")]),
    );
    ip_command(&host, &["route", "add", "10.9.0.0/24", "via", "192.0.2.9", "proto", "static"]);

    let mut table = RouteTable::new(Netlink::open_in(&host).unwrap());
    let mut tracker = Tracker::new();
    tracker.refresh(&mut table).unwrap();
    let via = |hop: &str| Route { device: uplink.index, via: Some(ip(hop)), source: None, mtu: None };
    tracker.set(net("10.2.0.0/24"), via("192.0.2.2"));
    tracker.set(
        net("10.3.0.0/24"),
        Route { mtu: Some(1450), source: Some(ip("192.0.2.1")), ..via("192.0.2.3") },
    );
    tracker.set(net("10.4.0.7/32"), Route::on_link(uplink.index));
    tracker.set(net("fd00:2::/64"), via("2001:db8::2"));
    tracker.set(net("fd00:3::7/128"), Route { mtu: Some(1400), ..Route::on_link(uplink.index) });
    let report = tracker.apply(&mut table);
    assert!(report.is_complete(), "{:?}", report.failures);
    // Read back, they are exactly what was desired.
    assert_eq!(tracker.refresh(&mut table).unwrap().total(), 0);
    assert!(
        ip_command(&host, &["route", "show", "10.3.0.0/24"])
            .contains("via 192.0.2.3 dev up0 proto 87 src 192.0.2.1")
    );

    // A changed route is replaced; an edit from outside is found and repaired.
    tracker.set(net("10.2.0.0/24"), via("192.0.2.7"));
    tracker.set(net("fd00:2::/64"), via("2001:db8::7"));
    tracker.remove(&net("10.4.0.7/32"));
    assert!(tracker.apply(&mut table).is_complete());
    ip_command(&host, &["route", "del", "fd00:2::/64"]);
    let drift = tracker.refresh(&mut table).unwrap();
    assert_eq!((drift.missing, drift.total()), (1, 1));
    assert!(tracker.apply(&mut table).is_complete());
    assert!(ip_command(&host, &["-6", "route", "show", "fd00:2::/64"]).contains("2001:db8::7"));

    // What the kernel refuses is told in its words.
    tracker.set(net("10.8.0.0/24"), via("203.0.113.1"));
    let report = tracker.apply(&mut table);
    let error = &report.failures[0].1;
    assert_eq!(
        error.to_string(),
        format!("cannot set the route to 10.8.0.0/24 (device number {} via 203.0.113.1)", uplink.index)
    );
    let source = std::error::Error::source(error).unwrap().to_string();
    assert_eq!(source, "the kernel refused (Nexthop has invalid gateway)");
    tracker.remove(&net("10.8.0.0/24"));

    // Somebody else's route stays, with and without ours wanted.
    tracker.set(net("10.9.0.0/24"), via("192.0.2.2"));
    let report = tracker.apply(&mut table);
    assert_eq!(report.failures.len(), 1);
    assert!(
        matches!(&report.failures[0].1, Error::ForeignRoute { destination } if *destination == net("10.9.0.0/24"))
    );
    tracker.replace_desired([]);
    tracker.apply(&mut table);
    assert_eq!(table.list().unwrap(), []);
    assert!(ip_command(&host, &["route", "show", "10.9.0.0/24"]).contains("192.0.2.9"));
}

#[test]
fn a_table_of_thousands_is_read_whole() {
    let (host, world) = (testing::namespace(), testing::namespace());
    let (uplink, _) = testing::connect((&host, "up0", &[net("192.0.2.1/24")]), (&world, "up0", &[]));
    let mut table = RouteTable::new(Netlink::open_in(&host).unwrap());
    let mut tracker = Tracker::new();
    for number in 0..3000u32 {
        let address = std::net::Ipv4Addr::from(0x0a00_0000 + number);
        tracker.set(IpAddr::from(address).into(), Route::on_link(uplink.index));
    }
    assert!(tracker.apply(&mut table).is_complete());
    assert_eq!(tracker.refresh(&mut table).unwrap().total(), 0);
    assert_eq!(table.list().unwrap().len(), 3000);
}

#[test]
fn neighbours_are_ours_only_on_pod_devices() {
    let (host, pod, name) = mk_host_with_pod();
    let mut netlink = Netlink::open_in(&host).unwrap();
    let device = netlink.require_link(&name).unwrap().index;
    ip_command(&host, &["neigh", "add", "10.1.0.99", "lladdr", "02:00:00:00:00:01", "dev", NET_DEVICE]);
    let mut table = NeighbourTable::new(Netlink::open_in(&host).unwrap());
    let mut tracker = Tracker::new();
    assert_eq!(tracker.refresh(&mut table).unwrap().foreign, 2);
    let mac = Mac([2, 0, 0, 0, 0, 7]);
    tracker.set(Neighbour { device, address: ip("10.1.0.5") }, mac);
    let report = tracker.apply(&mut table);
    assert_eq!((report.set, report.deleted, report.failures.len()), (1, 1, 0));
    assert_eq!(table.list().unwrap(), [(Neighbour { device, address: ip("10.1.0.5") }, mac)]);
    assert!(ip_command(&host, &["neigh", "show", "dev", NET_DEVICE]).contains("10.1.0.99"));
    // The device goes, and its neighbours with it: deleting them once more is a success.
    remove_pod_device(&pod, "eth0").unwrap();
    tracker.replace_desired([]);
    assert!(tracker.apply(&mut table).is_complete());
}

#[test]
fn the_nodes_device_is_found() {
    let (host, world) = (testing::namespace(), testing::namespace());
    testing::connect((&host, "up0", &[net("192.0.2.1/24")]), (&world, "up0", &[]));
    testing::connect((&host, "up1", &[net("198.51.100.1/24")]), (&world, "up1", &[]));
    let mut netlink = Netlink::open_in(&host).unwrap();
    let error = netlink.node_device(&[ip("203.0.113.1")]).unwrap_err();
    assert!(error.to_string().contains("203.0.113.1"), "{error}");
    assert_eq!(netlink.node_device(&[ip("198.51.100.1")]).unwrap().name, "up1");
    ip_command(&host, &["route", "add", "default", "via", "198.51.100.9", "metric", "200"]);
    ip_command(&host, &["route", "add", "default", "via", "192.0.2.9", "metric", "100"]);
    assert_eq!(netlink.node_device(&[ip("198.51.100.1")]).unwrap().name, "up0");
}

#[test]
fn learned_routes_are_apart_from_ours_and_lose_to_others() {
    let (host, world) = (testing::namespace(), testing::namespace());
    testing::connect((&host, "up0", &[net("192.0.2.1/24"), net("2001:db8::1/64")]), (&world, "up0", &[]));
    let mut table = LearnedRoutes::new(Netlink::open_in(&host).unwrap());
    let mut tracker = Tracker::new();
    let two = vec![ip("192.0.2.8"), ip("192.0.2.9")];
    let wanted = [
        (net("198.51.100.0/24"), two),
        (net("0.0.0.0/0"), vec![ip("192.0.2.9")]),
        (net("2001:db8:1::/48"), vec![ip("2001:db8::8"), ip("2001:db8::9")]),
        (net("192.0.2.0/24"), vec![ip("192.0.2.9")]),
    ];
    tracker.replace_desired(wanted.clone());
    assert!(tracker.apply(&mut table).is_complete());
    let mut found = table.list().unwrap();
    found.sort();
    let mut expected = wanted.to_vec();
    expected.sort();
    assert_eq!(found, expected);
    let way = |to: &str| ip_command(&host, &["route", "get", to]);
    assert!(way("192.0.2.77").contains("dev up0 src"), "a connected network comes first");
    assert!(way("203.0.113.1").contains("via 192.0.2.9"));
    assert_eq!(RouteTable::new(Netlink::open_in(&host).unwrap()).list().unwrap(), []);
    tracker.replace_desired([(net("198.51.100.0/24"), vec![ip("192.0.2.7")])]);
    assert!(tracker.apply(&mut table).is_complete());
    assert_eq!(table.list().unwrap(), [(net("198.51.100.0/24"), vec![ip("192.0.2.7")])]);
    let nowhere = table.set(&net("198.51.100.0/24"), &vec![ip("203.0.113.9")]).unwrap_err();
    assert!(nowhere.to_string().contains("198.51.100.0/24 by way of [203.0.113.9]"), "{nowhere}");
}

#[test]
fn gateways_come_best_first() {
    let (host, world) = (testing::namespace(), testing::namespace());
    testing::connect((&host, "up0", &[net("192.0.2.1/24"), net("2001:db8::1/64")]), (&world, "up0", &[]));
    let mut netlink = Netlink::open_in(&host).unwrap();
    assert_eq!(netlink.default_gateways().unwrap(), []);
    for (gateway, metric) in [("192.0.2.9", "200"), ("192.0.2.8", "100"), ("2001:db8::9", "50")] {
        let family = if gateway.contains(':') { "-6" } else { "-4" };
        ip_command(&host, &[family, "route", "add", "default", "via", gateway, "metric", metric]);
    }
    ip_command(&host, &["route", "add", "default", "dev", "up0", "metric", "10"]);
    let device = netlink.require_link("up0").unwrap().index;
    let mk = |gateway: &str, metric| Gateway { address: ip(gateway), device, metric };
    let found = netlink.default_gateways().unwrap();
    assert_eq!(found, [mk("2001:db8::9", 50), mk("192.0.2.8", 100), mk("192.0.2.9", 200)]);
}

#[test]
fn a_default_route_over_several_gateways_has_each_of_them() {
    let (host, world) = (testing::namespace(), testing::namespace());
    let own = [net("192.0.2.1/24"), net("2001:db8::1/64")];
    testing::connect((&host, "up0", &own), (&world, "up0", &[]));
    testing::connect((&host, "up1", &[net("198.51.100.1/24")]), (&world, "up1", &[]));
    let hop = |gateway, device| ["nexthop", "via", gateway, "dev", device];
    let add = |family, hops: [[&str; 5]; 2]| {
        let start = [family, "route", "add", "default", "metric", "50"];
        ip_command(&host, &[&start[..], &hops.concat()].concat());
    };
    add("-4", [hop("198.51.100.9", "up1"), hop("192.0.2.9", "up0")]);
    add("-6", [hop("2001:db8::9", "up0"), hop("2001:db8::8", "up0")]);
    ip_command(&host, &["route", "add", "default", "via", "192.0.2.7", "metric", "60"]);
    let mut netlink = Netlink::open_in(&host).unwrap();
    let [up0, up1] = ["up0", "up1"].map(|name| netlink.require_link(name).unwrap().index);
    let mut found = |family: fn(&IpAddr) -> bool| -> Vec<Gateway> {
        let all = netlink.default_gateways().unwrap().into_iter();
        all.filter(|gateway| family(&gateway.address)).collect()
    };
    let mk = |gateway: &str, device, metric| Gateway { address: ip(gateway), device, metric };
    let of_v4 = [mk("192.0.2.9", up0, 50), mk("198.51.100.9", up1, 50), mk("192.0.2.7", up0, 60)];
    assert_eq!(found(IpAddr::is_ipv4), of_v4);
    assert_eq!(found(IpAddr::is_ipv6), [mk("2001:db8::8", up0, 50), mk("2001:db8::9", up0, 50)]);
    // A link that is down takes its next hop away, and the route stays.
    ip_command(&host, &["link", "set", "up0", "down"]);
    assert_eq!(found(IpAddr::is_ipv4), [mk("198.51.100.9", up1, 50)]);
}

#[test]
fn kernel_parameters_belong_to_the_namespace() {
    let host = testing::namespace();
    let before = sysctl::get("net.ipv4.conf.all.rp_filter");
    host.run(|| {
        Netlink::open().unwrap().ensure_host_pair(1500).unwrap();
        sysctl::set("net.ipv4.conf.all.rp_filter", "2").unwrap();
        sysctl::prepare_node(true).unwrap();
        sysctl::prepare_device(HOST_DEVICE, true).unwrap();
        ip_command(&Netns::current().unwrap(), &["link", "add", "up0.100", "type", "veth"]);
        sysctl::prepare_pod_device("up0.100").unwrap();
        assert_eq!(sysctl::get("net.ipv4.conf.all.rp_filter").unwrap(), "0");
        assert_eq!(sysctl::get("net.ipv4.conf.cilium_host.accept_local").unwrap(), "1");
        assert_eq!(sysctl::get("net.ipv6.conf.all.forwarding").unwrap(), "1");
        sysctl::set("net.ipv4.ip_local_reserved_ports", "8080,61005").unwrap();
        sysctl::reserve_ports(&[(61000, 65535), (30000, 32767)]).unwrap();
        sysctl::reserve_ports(&[(61000, 65535), (30000, 32767)]).unwrap();
        assert_eq!(sysctl::get("net.ipv4.ip_local_reserved_ports").unwrap(), "8080,30000-32767,61000-65535");
    })
    .unwrap();
    assert_eq!(sysctl::get("net.ipv4.conf.all.rp_filter"), before);
    let error = sysctl::set("net.ipv4.no_such_thing", "1").unwrap_err();
    assert_eq!(error.to_string(), "cannot set kernel parameter net.ipv4.no_such_thing to 1");
}

#[test]
fn macs_are_random_unicast_and_readable() {
    let mac = Mac::random();
    assert_eq!(mac.0[0] & 3, 2);
    assert_ne!(mac, Mac::random());
    assert_eq!(mac.to_string().parse::<Mac>().unwrap(), mac);
    for wrong in ["", "02:00:00:00:00", "02:00:00:00:00:0g", "02:00:00:00:00:001", "+2:00:00:00:00:01"] {
        wrong.parse::<Mac>().unwrap_err();
    }
}

#[test]
fn pod_device_names_are_upstreams() {
    // First 12 hex digits of SHA-256 over "abc:eth0".
    assert_eq!(lxc_name("abc", "eth0"), format!("lxc{}", &sha("abc:eth0")[..12]));
}

fn sha(text: &str) -> String {
    let output = Command::new("sh").args(["-c", &format!("printf %s {text} | sha256sum")]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}
