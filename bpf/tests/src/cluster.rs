//! Two nodes with pods and real packets between them: programs attached, everything in namespaces of its own.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cilium_bpf::layout::{
    Addr, CONFIG_MASQUERADE4, CONFIG_MASQUERADE6, Config, Endpoint, IpcacheEntry, IpcacheKey, METRIC_COLUMNS,
    Prefix, Slot,
};
use cilium_bpf::reason::DropReason;
use cilium_delta::Table;
use cilium_drivers::datapath::{Datapath, DeviceProgram, EarlyMode, LoadOptions};
use cilium_drivers::maps::Maps;
use cilium_drivers::netlink::{
    Link, Neighbour, NeighbourTable, Netlink, PodAddress, PodLink, PodNetwork, Route, RouteTable,
    configure_pod, lxc_name,
};
use cilium_drivers::netns::Netns;
use cilium_drivers::{sysctl, testing};
use ipnet::IpNet;

use crate::packet::Family;
use crate::stage::{Mode, Rule, ip, write_policy};

/// What fits into VXLAN over IPv6 over Ethernet.
const TUNNEL_MTU: u32 = 1430;

/// Everything that is outside of the cluster: an address that the second node's machine answers for.
pub fn world(family: Family) -> IpAddr {
    ip(if family == Family::V4 { "198.51.100.9" } else { "2001:db8:ffff::9" })
}

/// Address of node 1 or 2 in the network between the nodes.
pub fn node_ip(node: u8, family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::new(192, 0, 2, node)),
        Family::V6 => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, node.into())),
    }
}

/// Address of a pod; pod 1 is the node's router.
pub fn pod_ip(node: u8, pod: u8, family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::new(10, node, 0, pod)),
        Family::V6 => IpAddr::V6(Ipv6Addr::new(0xfd00, node.into(), 0, 0, 0, 0, 0, pod.into())),
    }
}

/// Identity of a pod.
pub fn identity(node: u8, pod: u8) -> u32 {
    1000 * u32::from(node) + u32::from(pod)
}

fn host_net(address: IpAddr) -> IpNet {
    IpNet::from(address)
}

fn pod_net(node: u8, family: Family) -> IpNet {
    let length = if family == Family::V4 { 24 } else { 64 };
    IpNet::new(pod_ip(node, 0, family), length).expect("a length of the family")
}

/// A pod: number, namespace, and the host's end of its device.
pub struct Pod {
    /// Number on its node.
    pub number: u8,
    /// Its network namespace.
    pub netns: Netns,
    /// The host's end of its device.
    pub link: Link,
}

/// A node.
pub struct Node {
    /// 1 or 2.
    pub number: u8,
    /// Its network namespace.
    pub netns: Netns,
    /// Its maps.
    pub maps: Maps,
    /// Its programs.
    pub datapath: Datapath,
    /// Its pods.
    pub pods: Vec<Pod>,
    mtu: u32,
    _mount: testing::Bpffs,
}

/// Two nodes, with pods 5 and 6 on the first and pod 7 on the second.
pub struct Cluster {
    /// The first node.
    pub one: Node,
    /// The second node, whose machine is also the world.
    pub two: Node,
}

fn mk_config(number: u8, mode: Mode, tunnel: u32) -> Config {
    let mut config = Config {
        host4: node_ip(number, Family::V4).into(),
        host6: node_ip(number, Family::V6).into(),
        loopback4: ip("169.254.42.1").into(),
        loopback6: ip("100::a9fe:2a01").into(),
        tunnel_ifindex: if mode == Mode::Tunnel { tunnel } else { 0 },
        world4: 9,
        world6: 10,
        flags: CONFIG_MASQUERADE4 | CONFIG_MASQUERADE6,
        event_rate: 1000,
        nat_first: 61000,
        nat_last: 65535,
        nodeport_first: 30000,
        nodeport_last: 32767,
        ..Config::default()
    };
    config.kept[0] = Prefix::new(ip("10.0.0.0"), 8);
    config.kept[1] = Prefix::new(ip("fd00::"), 8);
    config
}

/// Forwarding, and addresses that can be used at once.
fn prepare() {
    sysctl::prepare_node(true).expect("forwarding");
    sysctl::set("net.ipv6.conf.default.accept_dad", "0").expect("no search for duplicates");
}

/// A router needs a link-local address to ask for its neighbours.
fn uplink_nets(node: u8) -> Vec<IpNet> {
    let link_local = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, node.into()));
    let addresses = [(node_ip(node, Family::V4), 24), (node_ip(node, Family::V6), 64), (link_local, 64)];
    addresses.map(|(address, length)| IpNet::new(address, length).expect("a length of the family")).to_vec()
}

impl Cluster {
    /// Builds it; no policy, everything known.
    ///
    /// # Panics
    /// Without root, and when the kernel refuses something.
    pub fn new(mode: Mode) -> Self {
        let namespaces = [testing::namespace(), testing::namespace()];
        for netns in &namespaces {
            netns.run(prepare).expect("a thread");
        }
        let uplinks = testing::connect(
            (&namespaces[0], "up0", &uplink_nets(1)),
            (&namespaces[1], "up0", &uplink_nets(2)),
        );
        let [first, second] = namespaces;
        let mut one = Node::new(1, first, &uplinks.0, mode);
        let mut two = Node::new(2, second, &uplinks.1, mode);
        one.add_pod(5);
        one.add_pod(6);
        two.add_pod(7);
        one.know_other(&two, &uplinks.0, mode);
        two.know_other(&one, &uplinks.1, mode);
        two.become_world();
        let mut routes = RouteTable::new(Netlink::open_in(&one.netns).expect("netlink"));
        for family in Family::ALL {
            let gateway = Route { via: Some(node_ip(2, family)), ..Route::on_link(uplinks.0.index) };
            routes.set(&host_net(world(family)), &gateway).expect("a route to the world");
        }
        Self { one, two }
    }
}

impl Node {
    fn new(number: u8, netns: Netns, uplink: &Link, mode: Mode) -> Self {
        let mount = testing::Bpffs::create();
        let bpffs = mount.directory("cilium");
        let mut netlink = Netlink::open_in(&netns).expect("netlink");
        let router = netlink.ensure_host_pair(1500).expect("cilium_host");
        let addresses = Family::ALL.map(|family| host_net(pod_ip(number, 1, family)));
        netlink.ensure_addresses(&router, &addresses).expect("router addresses");
        let tunnel = netlink.ensure_vxlan(8472, 1500).expect("cilium_vxlan");
        let mut config = mk_config(number, mode, tunnel.index);
        config.device_mac = uplink.mac.0;
        let options = LoadOptions { config, bpffs: bpffs.clone(), map_sizes: BTreeMap::new(), mode: None };
        let datapath = Datapath::load(&options).expect("the programs load");
        let maps = Maps::open(&bpffs).expect("the maps are there");
        let mtu = if mode == Mode::Tunnel { TUNNEL_MTU } else { 1500 };
        let mut node = Self { number, netns, maps, datapath, pods: Vec::new(), mtu, _mount: mount };
        node.attach(DeviceProgram::FromNetdev, uplink);
        node.attach(DeviceProgram::FromHost, &router);
        node.attach(DeviceProgram::FromOverlay, &tunnel);
        for family in Family::ALL {
            node.know(pod_ip(number, 1, family), 1, None);
            node.know(node_ip(number, family), 1, None);
        }
        node
    }

    /// Has packets of known clients sent on before the stack.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn accelerate(&self) {
        let attach = || {
            let link = Netlink::open()?.require_link("up0")?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(
                self.datapath.attach_early(&link, EarlyMode::Generic)?,
            )
        };
        self.netns.run(attach).expect("a thread").expect("the early program on a device");
    }

    /// Takes everything but the early program off the device towards the other node.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn leave_to_early(&self) {
        self.netns.run(|| self.datapath.detach("up0")).expect("a thread").expect("programs can be taken off");
    }

    fn attach(&self, program: DeviceProgram, link: &Link) {
        self.netns
            .run(|| self.datapath.attach(program, link))
            .expect("a thread")
            .expect("a program on a device");
    }

    /// Writes an address into the ipcache.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn know(&mut self, address: IpAddr, identity: u32, tunnel: Option<IpAddr>) {
        let key = IpcacheKey::new(address, if address.is_ipv4() { 32 } else { 128 });
        let entry = IpcacheEntry { tunnel: tunnel.into(), identity };
        self.maps.ipcache.set(&key, &entry).expect("an address fits");
    }

    /// Removes an address from the ipcache.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn forget(&mut self, address: IpAddr) {
        let key = IpcacheKey::new(address, if address.is_ipv4() { 32 } else { 128 });
        self.maps.ipcache.delete(&key).expect("an address can be removed");
    }

    /// Addresses of the other node and its pods, and the routes to them.
    fn know_other(&mut self, other: &Self, uplink: &Link, mode: Mode) {
        let router =
            Netlink::open_in(&self.netns).expect("netlink").require_link("cilium_host").expect("the router");
        let mut routes = RouteTable::new(Netlink::open_in(&self.netns).expect("netlink"));
        for family in Family::ALL {
            let node = node_ip(other.number, family);
            let tunnel = (mode == Mode::Tunnel).then_some(node);
            self.know(node, 6, tunnel);
            self.know(pod_ip(other.number, 1, family), 6, tunnel);
            for pod in &other.pods {
                let address = pod_ip(other.number, pod.number, family);
                self.know(address, identity(other.number, pod.number), tunnel);
            }
            let route = match mode {
                Mode::Native => Route { via: Some(node), ..Route::on_link(uplink.index) },
                Mode::Tunnel => {
                    let source = Some(pod_ip(self.number, 1, family));
                    Route { source, mtu: Some(TUNNEL_MTU), ..Route::on_link(router.index) }
                }
            };
            routes.set(&pod_net(other.number, family), &route).expect("a route to the other node's pods");
        }
    }

    fn become_world(&self) {
        let mut netlink = Netlink::open_in(&self.netns).expect("netlink");
        let lo = netlink.require_link("lo").expect("loopback");
        let addresses = Family::ALL.map(|family| host_net(world(family)));
        netlink.ensure_addresses(&lo, &addresses).expect("addresses of the world");
    }

    /// The pod of a number.
    ///
    /// # Panics
    /// When there is none.
    pub fn pod(&self, number: u8) -> &Pod {
        self.pods.iter().find(|pod| pod.number == number).expect("a pod of that number")
    }

    /// Makes a pod as the agent would, open and without policy.
    fn add_pod(&mut self, number: u8) {
        let netns = testing::namespace();
        let name = lxc_name(&format!("{}-{number}", self.number), "eth0");
        let link = PodLink { host: &name, device: "eth0", netns: &netns, mtu: self.mtu, alias: "test" };
        let ends =
            Netlink::open_in(&self.netns).expect("netlink").create_pod_link(&link).expect("a pod's device");
        let addresses = Family::ALL.map(|family| PodAddress {
            address: pod_ip(self.number, number, family),
            gateway: pod_ip(self.number, 1, family),
        });
        let network = PodNetwork {
            device: "eth0",
            addresses: &addresses,
            host_mac: ends.host.mac,
            route_mtu: self.mtu,
        };
        let configured = configure_pod(&netns, &network).expect("a pod's addresses");
        configured.ready().expect("addresses in use");
        let slot = Slot { generation: 1, open: true, ..Slot::default() };
        self.maps.slots.set(&number.into(), &slot).expect("a slot");
        self.attach(DeviceProgram::FromContainer, &ends.host);
        self.attach(DeviceProgram::ToContainer, &ends.host);
        let endpoint = Endpoint {
            ifindex: ends.host.index,
            identity: identity(self.number, number),
            slot: number.into(),
            id: number.into(),
            mac: ends.pod_mac.0,
            host_mac: ends.host.mac.0,
        };
        let mut routes = RouteTable::new(Netlink::open_in(&self.netns).expect("netlink"));
        let mut neighbours = NeighbourTable::new(Netlink::open_in(&self.netns).expect("netlink"));
        for PodAddress { address, .. } in addresses {
            self.maps.endpoints.set(&Addr::from(address), &endpoint).expect("an endpoint");
            self.know(address, endpoint.identity, None);
            routes.set(&host_net(address), &Route::on_link(ends.host.index)).expect("a route to a pod");
            let neighbour = Neighbour { device: ends.host.index, address };
            neighbours.set(&neighbour, &ends.pod_mac).expect("a neighbour");
        }
        self.pods.push(Pod { number, netns, link: ends.host });
    }

    /// Gives a pod a policy under a new generation; a direction without rules is not enforced.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn enforce(&mut self, pod: u8, generation: u32, ingress: Option<&[Rule]>, egress: Option<&[Rule]>) {
        write_policy(&mut self.maps, pod.into(), generation, ingress, egress);
    }
}

/// A failed test says what the programs dropped.
impl Drop for Node {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for (index, metric) in self.maps.metrics.totals().unwrap_or_default() {
            let (reason, column) = ((index / METRIC_COLUMNS) as u8, index % METRIC_COLUMNS);
            let text = DropReason::from_number(reason).map_or("forwarded", DropReason::text);
            eprintln!("node {}: {text}, column {column}: {} packets", self.number, metric.packets);
        }
    }
}
