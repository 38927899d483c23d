//! The node itself: its devices, kernel parameters and programs.

use std::collections::{BTreeMap, BTreeSet};
use std::iter;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use cilium_api::parts::Node;
use cilium_bpf::layout::{
    Addr, CONFIG_ANNOUNCE, CONFIG_HOST_FIREWALL, CONFIG_KEPT_PREFIXES, CONFIG_MASQUERADE4,
    CONFIG_MASQUERADE6, CONFIG_NODEPORT_PREFIX_COUNT, CONFIG_NODEPORT_PREFIXES, CONFIG_REDIRECTS,
    CONFIG_SET_RETVAL, CONFIG_SOCKETS_OF_HOST, Config, NetPort, Prefix,
};
use cilium_dataplane::{Devices, routers};
use cilium_drivers::datapath::{AttachMode, Attached, Datapath, DeviceProgram, EarlyMode, LoadOptions};
use cilium_drivers::netlink::{self, HOST_DEVICE, Link, NET_DEVICE, Netlink, VXLAN_DEVICE};
use cilium_drivers::netns::Netns;
use cilium_drivers::{probe, sysctl};
use cilium_rest::model::EndpointChange;
use ipnet::IpNet;

use crate::acceleration;
use crate::config::Settings;

/// Ports of masqueraded connections: behind those that the kernel gives to the node's own (32768–60999).
pub(crate) const NAT_PORTS: (u16, u16) = (61000, 65535);

/// Events of one reason that one CPU may report in a second.
const EVENT_RATE: u32 = 1000;

/// Bytes that VXLAN adds to a packet, by family of the tunnel.
const VXLAN_OVERHEAD: (u32, u32) = (50, 70);

/// What the node is, as far as devices and programs depend on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) addresses: Vec<IpAddr>,
    /// Of its pods. Of blocks out of pools only those with a router address, which stay: others come and go with pods.
    pub(crate) prefixes: Vec<IpNet>,
    routers: Vec<IpAddr>,
}

impl Facts {
    /// From the node's own part; prefixes that cannot be read are the dataplane's to complain of.
    pub(crate) fn new(node: &Node) -> Self {
        let prefixes = node.pod_cidrs.iter().filter_map(|text| text.parse::<IpNet>().ok());
        let mut prefixes: Vec<IpNet> = prefixes.map(|prefix| prefix.trunc()).collect();
        let routers = routers(node, &prefixes);
        if !node.routers.is_empty() {
            prefixes.retain(|prefix| routers.iter().any(|router| prefix.contains(router)));
        }
        Self { addresses: node.addresses.clone(), prefixes, routers }
    }

    pub(crate) fn first(&self, v4: bool) -> Option<IpAddr> {
        self.addresses.iter().find(|address| address.is_ipv4() == v4).copied()
    }

    fn routers(&self) -> Vec<IpNet> {
        self.routers.iter().copied().map(IpNet::from).collect()
    }
}

/// Addresses by device.
type OtherAddresses = BTreeMap<String, BTreeSet<IpAddr>>;

/// A node that is set up.
pub(crate) struct Host {
    pub(crate) facts: Facts,
    /// Shared with the task that settles programs.
    pub(crate) datapath: Arc<Datapath>,
    /// The device towards the other nodes.
    pub(crate) native: Link,
    /// It, and others that clients and addresses of Services are served on.
    pub(crate) uplinks: Vec<Link>,
    /// Addresses on the others that the Node object does not have, by the names of these devices.
    other_addresses: OtherAddresses,
    host: Link,
    tunnel: Option<Link>,
    pub(crate) device_mtu: u32,
    pub(crate) route_mtu: u32,
    pub(crate) config: Config,
    /// How the early program runs; `None` is not at all.
    pub(crate) early: Option<EarlyMode>,
}

impl Host {
    /// Makes devices and loads programs; attaches none of them. What is there already stays as it is.
    pub(crate) fn set_up(settings: &Settings, facts: Facts) -> anyhow::Result<Self> {
        for error in sysctl::prepare_node(settings.ipv6)? {
            tracing::debug!(error = format!("{:#}", anyhow::Error::from(error)), "going on without");
        }
        if let Err(error) = sysctl::reserve_ports(&[NAT_PORTS, settings.nodeports]) {
            let error = format!("{:#}", anyhow::Error::from(error));
            tracing::warn!(
                error,
                "programs of the node may get ports that belong to Services or to masqueraded pods"
            );
        }
        let mut netlink = Netlink::open()?;
        let native = netlink.node_device(&facts.addresses)?;
        let device_mtu = if settings.mtu == 0 { native.mtu } else { settings.mtu };
        let host = set_up_host_device(&mut netlink, settings, &facts, device_mtu)?;
        let tunnel = set_up_tunnel(&mut netlink, settings, device_mtu)?;
        netlink.ensure_proxy_way(settings.ipv4, settings.ipv6)?;
        let route_mtu = device_mtu.saturating_sub(overhead(settings, &facts));
        let config = mk_config(settings, &facts, &native, tunnel.as_ref(), route_mtu);
        let mode = (!settings.tcx).then_some(AttachMode::Filter);
        let (bpffs, map_sizes) = (settings.bpffs.clone(), settings.map_sizes.clone());
        let options = LoadOptions { config, bpffs, map_sizes, mode };
        let datapath = Arc::new(Datapath::load(&options)?);
        for map in datapath.replaced_maps() {
            tracing::warn!(
                map = map.name,
                reason = map.reason,
                "a map of another layout was replaced by an empty one"
            );
        }
        let uplinks = find_uplinks(&mut netlink, settings, &native)?;
        let other_addresses = find_other_addresses(&mut netlink, &uplinks, &facts)?;
        Ok(Self {
            facts,
            datapath,
            native,
            uplinks,
            other_addresses,
            host,
            tunnel,
            device_mtu,
            route_mtu,
            config,
            early: None,
        })
    }

    /// Lets packets of known clients from outside be handled before the stack, or not. The other programs are there already: they get all
    /// that this one leaves alone.
    pub(crate) fn accelerate(&mut self, settings: &Settings) -> anyhow::Result<()> {
        self.early = acceleration::set_up(&self.datapath, settings.acceleration, &self.native)?;
        Ok(())
    }

    /// Puts the node's programs in their places, on devices too that came meanwhile. Returns how many were not there.
    pub(crate) fn attach(&mut self, settings: &Settings) -> anyhow::Result<usize> {
        let mut changed = self.attach_one(DeviceProgram::FromHost, &self.host)?;
        if let Some(tunnel) = &self.tunnel {
            changed += self.attach_one(DeviceProgram::FromOverlay, tunnel)?;
        }
        self.uplinks = find_uplinks(&mut Netlink::open()?, settings, &self.native)?;
        for device in &self.uplinks {
            changed += self.attach_one(DeviceProgram::FromNetdev, device)?;
            changed += self.attach_one(DeviceProgram::ToNetdev, device)?;
        }
        changed += usize::from(acceleration::keep(&self.datapath, self.early, &self.native)?);
        Ok(changed + self.datapath.attach_cgroup(&settings.cgroup)?)
    }

    fn attach_one(&self, program: DeviceProgram, device: &Link) -> anyhow::Result<usize> {
        Ok(usize::from(self.datapath.attach(program, device)? != Attached::Unchanged))
    }

    /// Whether the node has the addresses on other devices that it had when it was set up, as far as can be read.
    pub(crate) fn has_same_addresses(&self, settings: &Settings) -> bool {
        let find = || {
            let mut netlink = Netlink::open()?;
            let uplinks = find_uplinks(&mut netlink, settings, &self.native)?;
            find_other_addresses(&mut netlink, &uplinks, &self.facts)
        };
        find().map_or(true, |found| found.values().flatten().eq(self.other_addresses.values().flatten()))
    }

    /// Addresses that are not in the Node object.
    pub(crate) fn other_addresses(&self) -> Vec<IpAddr> {
        self.other_addresses.values().flatten().copied().collect()
    }

    /// Devices that clients are served on, with their addresses; the node's own first.
    pub(crate) fn served(&self) -> Vec<(String, Vec<String>)> {
        let none = BTreeSet::new();
        let texts = |addresses: &mut dyn Iterator<Item = &IpAddr>| addresses.map(IpAddr::to_string).collect();
        let others = self.uplinks.iter().skip(1).map(|device| {
            let addresses = self.other_addresses.get(&device.name).unwrap_or(&none);
            (device.name.clone(), texts(&mut addresses.iter()))
        });
        let native = (self.native.name.clone(), texts(&mut self.facts.addresses.iter()));
        iter::once(native).chain(others).collect()
    }

    /// Indexes that routes need.
    pub(crate) fn devices(&self) -> Devices {
        Devices { host: self.host.index, native: self.native.index }
    }
}

/// The node's own device first, then those that the settings name, as far as they carry Ethernet.
fn find_uplinks(
    netlink: &mut Netlink,
    settings: &Settings,
    native: &Link,
) -> Result<Vec<Link>, netlink::Error> {
    let is_named =
        |link: &Link| link.index != native.index && settings.devices.has(&link.name) && link.mac.0 != [0; 6];
    let named = netlink.uplinks()?.into_iter().filter(is_named);
    Ok(iter::once(native.clone()).chain(named).collect())
}

fn find_other_addresses(
    netlink: &mut Netlink,
    uplinks: &[Link],
    facts: &Facts,
) -> Result<OtherAddresses, netlink::Error> {
    let all = netlink.addresses()?;
    let is_link_local = |address: &IpAddr| matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
    let is_other = |address: &IpAddr| !is_link_local(address) && !facts.addresses.contains(address);
    let of_device = |device: &Link| {
        let found = all.iter().filter(|(index, _)| *index == device.index).map(|(_, it)| it.addr());
        (device.name.clone(), found.filter(is_other).collect())
    };
    Ok(uplinks.iter().skip(1).map(of_device).collect())
}

/// Programs of a pod's device.
const POD_PROGRAMS: [DeviceProgram; 2] = [DeviceProgram::FromContainer, DeviceProgram::ToContainer];

/// Makes sure that a pod's device has its programs and parameters; [`settle`] follows. It needs the lock of all network
/// configuration, which others may hold for a while, so new pods' devices are not for the thread that puts policies in
/// force, either.
pub(crate) fn attach_pod(datapath: &Datapath, device: &Link) -> anyhow::Result<()> {
    sysctl::prepare_pod_device(&device.name)?;
    for program in POD_PROGRAMS {
        datapath.attach_at_once(program, device)?;
    }
    Ok(())
}

/// As [`attach_pod`], for a device that the plugin has made.
pub(crate) fn attach_new_pod(datapath: &Datapath, change: &EndpointChange) -> anyhow::Result<()> {
    let device = Netlink::open()?.require_link(&change.interface_name)?;
    anyhow::ensure!(
        device.index == change.interface_index,
        "device {} has number {}, not {}",
        device.name,
        device.index,
        change.interface_index
    );
    attach_pod(datapath, &device)
}

/// Between two devices, so that nobody waits long for the lock of all network configuration.
const SETTLE_PAUSE: Duration = Duration::from_millis(50);

/// Makes sure that pods' devices have their programs, and puts links in the place of what stands in for them. It waits for
/// the kernel, so it is not for the thread that puts policies in force. A device that went meanwhile is no failure. Returns
/// how many programs were missing.
pub(crate) fn settle(datapath: &Datapath, devices: &[String]) -> anyhow::Result<usize> {
    let mut netlink = Netlink::open()?;
    let mut missing = 0;
    for name in devices {
        for program in POD_PROGRAMS {
            let Some(device) = netlink.link(name)? else { break };
            match settle_one(datapath, program, &device) {
                Ok(was_there) => missing += usize::from(!was_there),
                Err(error) if netlink.link(name)?.is_some() => return Err(error),
                Err(_) => datapath.unpin(name)?,
            }
        }
    }
    for pin in datapath.sweep()? {
        tracing::debug!(pin, "removed the pin of a link whose device is gone");
    }
    Ok(missing)
}

/// Returns whether the program, or what stands in for it, was there.
fn settle_one(datapath: &Datapath, program: DeviceProgram, device: &Link) -> anyhow::Result<bool> {
    let was_there = datapath.attach_at_once(program, device)? == Attached::Unchanged;
    if datapath.settle(program, device)? {
        std::thread::sleep(SETTLE_PAUSE);
    }
    Ok(was_there)
}

fn set_up_host_device(
    netlink: &mut Netlink,
    settings: &Settings,
    facts: &Facts,
    mtu: u32,
) -> anyhow::Result<Link> {
    let host = netlink.ensure_host_pair(mtu)?;
    for device in [HOST_DEVICE, NET_DEVICE] {
        sysctl::prepare_device(device, settings.ipv6)?;
    }
    let routers = facts.routers();
    netlink
        .ensure_addresses(&host, &routers)
        .with_context(|| format!("the node's router addresses {routers:?} are not on {HOST_DEVICE}"))?;
    Ok(host)
}

fn set_up_tunnel(netlink: &mut Netlink, settings: &Settings, mtu: u32) -> anyhow::Result<Option<Link>> {
    if !settings.tunnel {
        netlink.delete_link(VXLAN_DEVICE)?;
        return Ok(None);
    }
    let tunnel = netlink.ensure_vxlan(settings.tunnel_port, mtu)?;
    sysctl::prepare_device(VXLAN_DEVICE, settings.ipv6)?;
    Ok(Some(tunnel))
}

fn overhead(settings: &Settings, facts: &Facts) -> u32 {
    match (settings.tunnel, facts.first(true)) {
        (false, _) => 0,
        (true, Some(_)) => VXLAN_OVERHEAD.0,
        (true, None) => VXLAN_OVERHEAD.1,
    }
}

/// Identities of unknown addresses: one for both families would not tell policies which of them is meant.
pub(crate) fn worlds(settings: &Settings) -> (u32, u32) {
    if settings.ipv4 && settings.ipv6 { (9, 10) } else { (2, 2) }
}

fn mk_config(settings: &Settings, facts: &Facts, native: &Link, tunnel: Option<&Link>, mtu: u32) -> Config {
    let host = |enabled: bool, v4: bool| Addr::from(facts.first(v4).filter(|_| enabled));
    let (host4, host6) = (host(settings.ipv4, true), host(settings.ipv6, false));
    let flag = |on: bool, flag: u32| if on { flag } else { 0 };
    let (world4, world6) = worlds(settings);
    Config {
        host4,
        host6,
        loopback4: IpAddr::from(settings.loopbacks.0).into(),
        loopback6: IpAddr::from(settings.loopbacks.1).into(),
        kept: kept(settings, facts),
        nodeport_prefixes: nodeport_prefixes(&settings.nodeport_addresses),
        tunnel_ifindex: tunnel.map_or(0, |link| link.index),
        world4,
        world6,
        flags: flag(settings.masquerade4 && host4 != Addr::NONE, CONFIG_MASQUERADE4)
            | flag(settings.masquerade6 && host6 != Addr::NONE, CONFIG_MASQUERADE6)
            | flag(settings.host_firewall, CONFIG_HOST_FIREWALL)
            | flag(!settings.nodeport_addresses.is_empty(), CONFIG_NODEPORT_PREFIXES)
            | flag(settings.sockets_of_host, CONFIG_SOCKETS_OF_HOST)
            | flag(settings.local_redirects, CONFIG_REDIRECTS)
            | flag(settings.announces.is_some(), CONFIG_ANNOUNCE)
            | flag(probe::has_set_retval(), CONFIG_SET_RETVAL),
        event_rate: EVENT_RATE,
        mtu,
        maglev_size: settings.balancing.maglev.size,
        maglev_seed: settings.maglev_seed,
        device_mac: native.mac.0,
        nat_first: NAT_PORTS.0,
        nat_last: NAT_PORTS.1,
        dns_port: NetPort(settings.dns_port),
        nodeport_first: settings.nodeports.0,
        nodeport_last: settings.nodeports.1,
        netns_cookie: own_cookie(),
    }
}

/// Without it, the node's processes do not find ports of nodes at loopback addresses.
fn own_cookie() -> u64 {
    Netns::cookie().unwrap_or_else(|error| {
        let error = format!("{:#}", anyhow::Error::from(error));
        tracing::warn!(error, "ports of nodes are not served at loopback addresses");
        0
    })
}

/// Every place has one: an empty place would be a prefix as well.
fn nodeport_prefixes(addresses: &[IpNet]) -> [Prefix; CONFIG_NODEPORT_PREFIX_COUNT] {
    let mut all = [Prefix::default(); CONFIG_NODEPORT_PREFIX_COUNT];
    for (slot, prefix) in all.iter_mut().zip(addresses.iter().cycle()) {
        *slot = Prefix::new(prefix.network(), prefix.prefix_len());
    }
    all
}

/// What is reached with the pod's own address: the configured prefixes, and the node's own pods, known or not.
fn kept(settings: &Settings, facts: &Facts) -> [Prefix; CONFIG_KEPT_PREFIXES] {
    let mut kept = [Prefix::default(); CONFIG_KEPT_PREFIXES];
    let prefixes = settings.native.iter().chain(&facts.prefixes);
    for (slot, prefix) in kept.iter_mut().zip(prefixes) {
        *slot = Prefix::new(prefix.network(), prefix.prefix_len());
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_that_come_and_go_leave_devices_and_programs_alone() {
        let mk = |pod_cidrs: &[&str], routers: &[&str]| {
            let pod_cidrs = pod_cidrs.iter().map(|text| (*text).to_owned()).collect();
            let routers = routers.iter().map(|text| text.parse().expect("an address")).collect();
            Facts::new(&Node { pod_cidrs, routers, ..Node::default() })
        };
        let one = mk(&["10.64.0.0/27"], &["10.64.0.5"]);
        assert_eq!(one, mk(&["10.9.0.0/28", "10.64.0.0/27"], &["10.64.0.5"]));
        assert_eq!(one.routers(), ["10.64.0.5/32".parse().expect("a prefix")]);
        let own = mk(&["10.1.0.0/24", "fd00:1::/64"], &[]);
        assert_eq!(
            own.routers(),
            ["10.1.0.1/32", "fd00:1::1/128"].map(|text| text.parse().expect("a prefix"))
        );
        assert_eq!(own.prefixes.len(), 2);
    }
}
