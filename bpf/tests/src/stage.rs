//! The node on which packets are tried.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use cilium_bpf::EARLY_PROGRAM;
use cilium_bpf::layout::{
    AGGREGATES, Addr, CONFIG_MASQUERADE4, CONFIG_MASQUERADE6, Config, CtEntry, CtKey, DIRECTION_EGRESS,
    DIRECTION_INGRESS, Endpoint, HOST_SLOT, IpcacheEntry, IpcacheKey, METRIC_COLUMNS, METRIC_EGRESS,
    METRIC_INGRESS, NetPort, POLICY_ALLOW, POLICY_DENY, PolicyEntry, PolicyKey, PolicyPeer, PolicyRules,
    Prefix, Slot,
};
use cilium_bpf::reason::DropReason;
use cilium_delta::Table;
use cilium_drivers::datapath::{Datapath, DeviceProgram, LoadOptions};
use cilium_drivers::maps::Maps;
use cilium_drivers::netlink::{Link, Mac, Neighbour, NeighbourTable, Netlink, Route, RouteTable};
use cilium_drivers::netns::Netns;
use cilium_drivers::{sysctl, testing, testrun};
use ipnet::IpNet;

use crate::packet::Family;

/// How nodes reach each other's pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Through the network between them.
    Native,
    /// Through VXLAN.
    Tunnel,
}

/// Somebody who sends or receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A pod of this node.
    PodA,
    /// Another pod of this node.
    PodB,
    /// A pod of another node.
    RemotePod,
    /// This node.
    Host,
    /// Another node.
    RemoteNode,
    /// Frontend of the cluster.
    World,
    /// Frontend of the cluster, in a prefix that is never masqueraded.
    Kept,
}

impl Place {
    /// The address.
    pub fn ip(self, family: Family) -> IpAddr {
        let (v4, v6) = match self {
            Self::PodA => ("10.1.0.5", "fd00:1::5"),
            Self::PodB => ("10.1.0.6", "fd00:1::6"),
            Self::RemotePod => ("10.2.0.7", "fd00:2::7"),
            Self::Host => ("192.0.2.1", "2001:db8::1"),
            Self::RemoteNode => ("192.0.2.2", "2001:db8::2"),
            Self::World => ("198.51.100.9", "2001:db8:ffff::9"),
            Self::Kept => ("10.9.0.9", "fd00:9::9"),
        };
        ip(if family == Family::V4 { v4 } else { v6 })
    }

    /// The address with a port.
    pub fn at(self, family: Family, port: u16) -> SocketAddr {
        (self.ip(family), port).into()
    }

    /// The identity that this node knows it by.
    pub fn identity(self, family: Family) -> u32 {
        match self {
            Self::PodA => 1005,
            Self::PodB => 1006,
            Self::RemotePod => 1007,
            Self::Host => 1,
            Self::RemoteNode => 6,
            Self::World | Self::Kept => {
                if family == Family::V4 {
                    9
                } else {
                    10
                }
            }
        }
    }

    /// Slot and number of a pod of this node.
    fn slot(self) -> u16 {
        match self {
            Self::PodA => 5,
            Self::PodB => 6,
            other => panic!("{other:?} is not a pod of this node"),
        }
    }
}

/// What a program did with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Let it go on to the stack (or, for `to_container`, to the pod).
    Pass,
    /// Dropped it for this reason.
    Drop(DropReason),
    /// Took it: it was for the program itself.
    Consume,
    /// Sent it elsewhere.
    Redirect,
    /// Let it go on to the stack, which will refuse it for this reason.
    Refuse(DropReason),
    /// Dropped it for this reason, and told its sender so by an ICMP error, which is the packet now.
    Answer(DropReason),
}

/// What came out of a program.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was done.
    pub action: Action,
    /// The packet afterwards.
    pub packet: Vec<u8>,
    /// Whose side a drop was counted for: `DIRECTION_INGRESS` or `DIRECTION_EGRESS`; 0 without a drop.
    pub direction: u8,
    /// Mean time of one run, in nanoseconds.
    pub nanoseconds: u32,
}

/// A rule of a policy: peer (0: any), protocol (0: any), port (none: any).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule(pub u32, pub u8, pub Option<u16>);

/// A node with loaded programs, and devices that packets can be seen on.
pub struct Stage {
    /// Namespace of the node.
    pub netns: Netns,
    /// Programs.
    pub datapath: Datapath,
    /// Maps.
    pub maps: Maps,
    /// Host's ends of the pods' devices, of [`Place::PodA`] and [`Place::PodB`].
    pub pods: [Link; 2],
    /// The device towards other nodes.
    pub uplink: Link,
    /// `cilium_host`.
    pub router: Link,
    /// `cilium_vxlan`.
    pub tunnel: Link,
    bpffs: std::path::PathBuf,
    _ends: [Netns; 3],
    _mount: testing::Bpffs,
}

/// Address from text.
pub fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Prefix from text.
pub fn net(text: &str) -> IpNet {
    text.parse().expect("a prefix")
}

/// MAC address of a pod's end.
pub fn pod_mac(pod: Place) -> [u8; 6] {
    [2, 0, 0, 0, 1, pod.slot() as u8]
}

/// Verdicts of XDP programs (`enum xdp_action`).
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;

const UPLINK: [&str; 2] = ["192.0.2.1/24", "2001:db8::1/64"];

/// The configuration that stages run with.
pub fn mk_config(mode: Mode, tunnel: u32) -> Config {
    let mut config = Config {
        host4: Place::Host.ip(Family::V4).into(),
        host6: Place::Host.ip(Family::V6).into(),
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

impl Stage {
    /// Builds the stage: both pods open and without policy, everybody known to the ipcache but the world.
    ///
    /// # Panics
    /// Without root, and when the kernel refuses something.
    pub fn new(mode: Mode) -> Self {
        Self::with_config(mode, |_| ())
    }

    /// As [`Stage::new`], with a changed configuration.
    ///
    /// # Panics
    /// As [`Stage::new`].
    pub fn with_config(mode: Mode, change: impl FnOnce(&mut Config)) -> Self {
        let mount = testing::Bpffs::create();
        let bpffs = mount.directory("cilium");
        let netns = testing::namespace();
        netns.run(|| sysctl::prepare_node(true)).expect("a thread").expect("forwarding");
        let ends = [testing::namespace(), testing::namespace(), testing::namespace()];
        let addresses = UPLINK.map(net);
        let (uplink, _) = testing::connect((&netns, "up0", &addresses), (&ends[0], "up0", &[]));
        let pods =
            [1, 2].map(|i| testing::connect((&netns, &format!("lxc{i}"), &[]), (&ends[i], "eth0", &[])).0);
        let mut netlink = Netlink::open_in(&netns).expect("netlink");
        let router = netlink.ensure_host_pair(1500).expect("cilium_host");
        let tunnel = netlink.ensure_vxlan(8472, 1500).expect("cilium_vxlan");
        let mut config = mk_config(mode, tunnel.index);
        config.device_mac = uplink.mac.0;
        change(&mut config);
        let options = LoadOptions { config, bpffs: bpffs.clone(), map_sizes: small_maps(), mode: None };
        let datapath = Datapath::load(&options).expect("the programs load");
        let maps = Maps::open(&bpffs).expect("the maps are there");
        let mut stage =
            Self { netns, datapath, maps, pods, uplink, router, tunnel, bpffs, _ends: ends, _mount: mount };
        stage.furnish(mode);
        stage
    }

    /// Gives the node one more address, which the operator does not know.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn add_own_address(&mut self, address: IpAddr) {
        let mut all = UPLINK.map(net).to_vec();
        all.push(address.into());
        let mut netlink = Netlink::open_in(&self.netns).expect("netlink");
        netlink.ensure_addresses(&self.uplink, &all).expect("another address");
        // The kernel's own work, which it does a little later for IPv6, is to route it to the node.
        let family = if address.is_ipv4() { "-4" } else { "-6" };
        let show = || {
            let address = address.to_string();
            let mut ip = std::process::Command::new("ip");
            ip.args([family, "route", "show", "table", "local", &address]).output().expect("ip runs")
        };
        let is_routed = || !self.netns.run(show).expect("a thread").stdout.is_empty();
        let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while !is_routed() {
            assert!(std::time::Instant::now() < end, "{address} is not routed to the node");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    fn furnish(&mut self, mode: Mode) {
        let mut routes = RouteTable::new(Netlink::open_in(&self.netns).expect("netlink"));
        for family in Family::ALL {
            for pod in [Place::PodA, Place::PodB] {
                self.add_endpoint(pod, family);
            }
            let node = Place::RemoteNode.ip(family);
            let tunnel = if mode == Mode::Tunnel { Some(node) } else { None };
            for (place, tunnel) in [
                (Place::PodA, None),
                (Place::PodB, None),
                (Place::Host, None),
                (Place::RemotePod, tunnel),
                (Place::RemoteNode, tunnel),
            ] {
                self.know(place.ip(family), place.identity(family), tunnel);
            }
            let everything = net(if family == Family::V4 { "0.0.0.0/0" } else { "::/0" });
            let gateway = Route { via: Some(node), ..Route::on_link(self.uplink.index) };
            routes.set(&everything, &gateway).expect("a default route");
        }
        self.open(Place::PodA);
        self.open(Place::PodB);
    }

    fn add_endpoint(&mut self, pod: Place, family: Family) {
        let link = self.link(pod);
        let endpoint = Endpoint {
            ifindex: link.index,
            identity: pod.identity(family),
            slot: pod.slot(),
            id: pod.slot(),
            mac: pod_mac(pod),
            host_mac: link.mac.0,
        };
        self.maps.endpoints.set(&pod.ip(family).into(), &endpoint).expect("an endpoint fits");
    }

    /// Host's end of a pod's device.
    pub fn link(&self, pod: Place) -> &Link {
        &self.pods[usize::from(pod == Place::PodB)]
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

    /// Gives a pod no policy: everything passes.
    pub fn open(&mut self, pod: Place) {
        self.set_slot(pod, Slot { generation: 1, open: true, ..Slot::default() });
    }

    /// Takes everything from a pod, as before its first policy.
    pub fn close(&mut self, pod: Place) {
        self.set_slot(pod, Slot::default());
    }

    /// Puts a slot in force.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn set_slot(&mut self, pod: Place, slot: Slot) {
        self.maps.slots.set(&pod.slot().into(), &slot).expect("a slot can be written");
    }

    /// Gives a pod a policy under a new generation; a direction without rules is not enforced.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn enforce(
        &mut self,
        pod: Place,
        generation: u32,
        ingress: Option<&[Rule]>,
        egress: Option<&[Rule]>,
    ) {
        write_policy(&mut self.maps, pod.slot(), generation, ingress, egress);
    }

    /// Gives the node itself a policy under a new generation. It counts where the configuration has `CONFIG_HOST_FIREWALL`.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn enforce_host(&mut self, generation: u32, ingress: Option<&[Rule]>, egress: Option<&[Rule]>) {
        write_policy(&mut self.maps, HOST_SLOT, generation, ingress, egress);
    }

    /// Adds entries that deny to a generation; [`Stage::enforce`] switches to it afterwards.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn deny(&mut self, generation: u32, direction: u8, rules: &[Rule]) {
        let entry = |rule: Rule| PolicyEntry { cookie: rule.0 + 1, verdict: POLICY_DENY };
        rules.iter().for_each(|rule| write_rule(&mut self.maps, generation, direction, *rule, entry(*rule)));
    }

    /// What is recorded of a connection.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn connection(&self, protocol: u8, from: SocketAddr, to: SocketAddr) -> Option<CtEntry> {
        let side = |end: SocketAddr| (Addr::from(end.ip()), end.port());
        self.maps.ct.get(&CtKey::new(protocol, side(from), side(to)).0).expect("the table can be read")
    }

    /// A packet that a pod sends.
    pub fn leave(&self, pod: Place, packet: &[u8]) -> Outcome {
        self.run(DeviceProgram::FromContainer, self.link(pod), packet, 1)
    }

    /// A packet that the host's stack sends to a pod.
    pub fn enter(&self, pod: Place, packet: &[u8]) -> Outcome {
        self.run(DeviceProgram::ToContainer, self.link(pod), packet, 1)
    }

    /// A packet from the network.
    pub fn receive(&self, packet: &[u8]) -> Outcome {
        self.run(DeviceProgram::FromNetdev, &self.uplink, packet, 1)
    }

    /// A packet that leaves the node by its network device, with a mark.
    ///
    /// # Panics
    /// As [`Stage::run`].
    pub fn send_out(&self, packet: &[u8], mark: u32) -> Outcome {
        self.execute(DeviceProgram::ToNetdev, &self.uplink, packet, 1, mark).expect("the kernel runs it")
    }

    /// A packet that the host sends through its router device.
    pub fn route(&self, packet: &[u8]) -> Outcome {
        self.run(DeviceProgram::FromHost, &self.router, packet, 1)
    }

    /// Runs a program `repeat` times on a packet seen on a device.
    ///
    /// # Panics
    /// When the kernel does not run it, or it does something that no program does.
    pub fn run(&self, program: DeviceProgram, device: &Link, packet: &[u8], repeat: u32) -> Outcome {
        self.execute(program, device, packet, repeat, 0)
            .unwrap_or_else(|error| panic!("{error}: {:?}", std::error::Error::source(&error)))
    }

    /// Mean time of one of `repeat` runs, in nanoseconds; what becomes of the packet is not looked at.
    ///
    /// # Panics
    /// When the kernel does not run the program.
    pub fn time(&self, program: DeviceProgram, device: &Link, packet: &[u8], repeat: u32) -> u32 {
        let fd = self.datapath.program(program.name()).expect("the program is loaded");
        let context = testrun::Context { device: device.index, ..testrun::Context::default() };
        let done = self.netns.run(|| testrun::run(fd, packet, context, repeat)).expect("a thread");
        done.expect("the kernel runs it").nanoseconds
    }

    /// As [`Stage::run`] once; `None` when the kernel takes the bytes for no packet.
    pub fn try_run(&self, program: DeviceProgram, device: &Link, packet: &[u8]) -> Option<Outcome> {
        self.execute(program, device, packet, 1, 0).ok()
    }

    fn execute(
        &self,
        program: DeviceProgram,
        device: &Link,
        packet: &[u8],
        repeat: u32,
        mark: u32,
    ) -> Result<Outcome, testrun::Error> {
        let before = self.counters();
        let fd = self.datapath.program(program.name()).expect("the program is loaded");
        let context = testrun::Context { device: device.index, mark, ..testrun::Context::default() };
        let done = self.netns.run(|| testrun::run(fd, packet, context, repeat)).expect("a thread")?;
        let (reason, direction) = self.reason_since(&before).unzip();
        let action = match (done.verdict, reason) {
            (0, None) => Action::Pass,
            (0, Some(reason)) => Action::Refuse(reason),
            (2, Some(reason)) => Action::Drop(reason),
            (2, None) => Action::Consume,
            (7, None) => Action::Redirect,
            (7, Some(reason)) => Action::Answer(reason),
            other => panic!("{program:?} returned and counted {other:?}"),
        };
        let direction = direction.unwrap_or(0);
        Ok(Outcome { action, packet: done.packet, direction, nanoseconds: done.nanoseconds })
    }

    /// A packet from the network, as the early program sees it: whether it has sent the packet on, and the packet afterwards.
    ///
    /// # Panics
    /// When the kernel does not run the program.
    pub fn receive_early(&self, packet: &[u8]) -> (bool, Vec<u8>) {
        let done = self.run_early(packet, 1);
        match done.verdict {
            XDP_PASS => (false, done.packet),
            XDP_TX => (true, done.packet),
            other => panic!("the early program returned {other}"),
        }
    }

    /// Runs the early program `repeat` times.
    ///
    /// # Panics
    /// When the kernel does not.
    pub fn run_early(&self, packet: &[u8], repeat: u32) -> testrun::Outcome {
        let fd = self.datapath.program(EARLY_PROGRAM).expect("the program is loaded");
        let run = || testrun::run_early(fd, packet, self.uplink.index, repeat);
        self.netns.run(run).expect("a thread").expect("the kernel runs it")
    }

    /// Tells this node where another machine of its network is.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn meet(&self, address: IpAddr, mac: [u8; 6]) {
        let mut neighbours = NeighbourTable::new(Netlink::open_in(&self.netns).expect("netlink"));
        let neighbour = Neighbour { device: self.uplink.index, address };
        neighbours.set(&neighbour, &Mac(mac)).expect("a neighbour");
    }

    fn counters(&self) -> BTreeMap<u32, u64> {
        let totals = self.maps.metrics.totals().expect("counters can be read");
        totals.into_iter().map(|(index, metric)| (index, metric.packets)).collect()
    }

    /// The reason and direction for which packets were dropped since.
    fn reason_since(&self, before: &BTreeMap<u32, u64>) -> Option<(DropReason, u8)> {
        let grown = self.counters().into_iter().filter(|(index, count)| before.get(index) != Some(count));
        let reasons: Vec<(u32, u32)> = grown
            .map(|(index, _)| (index / METRIC_COLUMNS, index % METRIC_COLUMNS))
            .filter(|(reason, column)| *reason != 0 && [METRIC_INGRESS, METRIC_EGRESS].contains(column))
            .collect();
        assert!(reasons.len() <= 1, "one packet was counted for {reasons:?}");
        let (reason, column) = *reasons.first()?;
        Some((DropReason::from_number(reason as u8).expect("a reason that is listed"), column as u8))
    }

    /// Directory of the pins.
    pub fn bpffs(&self) -> &std::path::Path {
        &self.bpffs
    }
}

fn small_maps() -> BTreeMap<String, u32> {
    ["cilium_ct", "cilium_snat", "cilium_fragments", "cilium_affinity", "cilium_sock_revnat"]
        .map(|name| (name.to_owned(), 8192))
        .into_iter()
        .collect()
}

fn policy_key(generation: u32, direction: u8, Rule(peer, protocol, port): Rule) -> PolicyKey {
    let prefix_len = match (protocol, port) {
        (0, _) => PolicyKey::ANY_PROTOCOL,
        (_, None) => PolicyKey::ANY_PORT,
        (_, Some(_)) => PolicyKey::ONE_PORT,
    };
    PolicyKey { prefix_len, generation, peer, direction, protocol, port: NetPort(port.unwrap_or(0)) }
}

/// What is said of any peer is said of each aggregate, too.
fn write_rule(maps: &mut Maps, generation: u32, direction: u8, rule: Rule, entry: PolicyEntry) {
    let aggregates = AGGREGATES.into_iter().filter(|_| rule.0 == 0);
    for peer in aggregates.chain([rule.0]) {
        let key = policy_key(generation, direction, Rule(peer, rule.1, rule.2));
        let peer = PolicyPeer::of(&key);
        let said = maps.policy.peers.get(&peer).expect("the map can be read").unwrap_or_default();
        let mut rules: BTreeMap<_, _> = said.unpack(peer).collect();
        rules.insert(key, entry);
        let said = PolicyRules::pack(&rules).expect("rules of one peer fit");
        maps.policy.peers.set(&peer, &said).expect("a peer fits");
    }
}

/// Writes the rules of a slot under a generation, and then switches the slot to it.
///
/// # Panics
/// When the kernel refuses.
pub fn write_policy(
    maps: &mut Maps,
    slot: u16,
    generation: u32,
    ingress: Option<&[Rule]>,
    egress: Option<&[Rule]>,
) {
    for (direction, rules) in [(DIRECTION_INGRESS, ingress), (DIRECTION_EGRESS, egress)] {
        for rule in rules.unwrap_or_default() {
            let entry = PolicyEntry { cookie: rule.0 + 1, verdict: POLICY_ALLOW };
            write_rule(maps, generation, direction, *rule, entry);
        }
    }
    let (ingress_enforced, egress_enforced) = (ingress.is_some(), egress.is_some());
    let pointer = Slot { generation, ingress_enforced, egress_enforced, open: true };
    maps.slots.set(&slot.into(), &pointer).expect("a slot can be written");
}
