use std::{net::IpAddr, time::Duration};

use ipnet::IpNet;
use netlink_packet_route::{
    RouteNetlinkMessage,
    address::{AddressAttribute, AddressHeaderFlags},
    link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkInfo, LinkMessage},
};
use rustix::fd::AsRawFd;
use sha2::{Digest, Sha256};

use super::{
    CREATE, EXCLUSIVE, Error, Fault, Link, Mac, Neighbour, Netlink, POD_PREFIX, Request, Route, Socket,
    address, link, neighbour, route,
};
use crate::{netns::Netns, sysctl};

/// The host's end of a pod device is called so: `lxc` and the first 12 hex digits of SHA-256 over
/// `<container id>:<device in the pod>`, as upstream names it.
pub fn lxc_name(container: &str, device: &str) -> String {
    let digest = Sha256::digest(format!("{container}:{device}"));
    let hex: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    format!("{POD_PREFIX}{hex}")
}

/// The veth pair that connects a pod.
#[derive(Debug, Clone, Copy)]
pub struct PodLink<'a> {
    /// Name of the host's end ([`lxc_name`]).
    pub host: &'a str,
    /// Name of the pod's end, usually `eth0`.
    pub device: &'a str,
    /// The pod's namespace.
    pub netns: &'a Netns,
    /// MTU of both ends, in bytes.
    pub mtu: u32,
    /// Alias of the host's end: [`POD_ALIAS`](super::POD_ALIAS) and the endpoint's number.
    pub alias: &'a str,
}

/// What [`Netlink::create_pod_link`] made.
#[derive(Debug, Clone)]
pub struct PodLinkEnds {
    /// The host's end.
    pub host: Link,
    /// Ethernet address of the pod's end.
    pub pod_mac: Mac,
}

/// An address of a pod and the router that it sends to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PodAddress {
    /// The pod's address.
    pub address: IpAddr,
    /// The node's router address of the same family.
    pub gateway: IpAddr,
}

/// What the inside of a pod's namespace gets.
#[derive(Debug, Clone, Copy)]
pub struct PodNetwork<'a> {
    /// Name of the pod's end.
    pub device: &'a str,
    /// At most one of each family.
    pub addresses: &'a [PodAddress],
    /// Ethernet address of the host's end, to which the gateways resolve.
    pub host_mac: Mac,
    /// MTU of the default routes, in bytes.
    pub route_mtu: u32,
}

impl Netlink {
    /// Creates the pair; the pod's end appears in its namespace under its final name with the same request. The host's
    /// end is up afterwards, the pod's is not ([`configure_pod`]).
    ///
    /// # Errors
    /// [`Error::CreatePodLink`]; with `EEXIST` as cause when one of the names is taken. Nothing is left behind then.
    pub fn create_pod_link(&mut self, pod: &PodLink<'_>) -> Result<PodLinkEnds, Error> {
        let (host_mac, pod_mac) = (Mac::random(), Mac::random());
        let failed = |source| Error::CreatePodLink {
            host: pod.host.to_owned(),
            pod: pod.device.to_owned(),
            netns: pod.netns.path().to_owned(),
            source,
        };
        let create = RouteNetlinkMessage::NewLink(pair(pod, host_mac, pod_mac));
        self.socket.execute(vec![Request::new(create, CREATE | EXCLUSIVE)]).map_err(failed)?;
        match self.finish_host_end(pod) {
            Ok(host) => Ok(PodLinkEnds { host, pod_mac }),
            Err(error) => {
                self.delete_link(pod.host)?;
                Err(error)
            }
        }
    }

    /// The kernel ignores alias and address generation mode when it creates a device. The qdisc is for the programs that the
    /// agent attaches: on a device that is down it is there at once, on one that is up the kernel waits for packets on their way.
    fn finish_host_end(&mut self, pod: &PodLink<'_>) -> Result<Link, Error> {
        let host = self.require_link(pod.host)?;
        self.ensure_clsact(host.index)?;
        let mut message = link::by_name(pod.host);
        message.attributes.push(LinkAttribute::IfAlias(pod.alias.to_owned()));
        message.attributes.push(link::no_link_local());
        self.set_and_up(pod.host, message)?;
        Ok(host)
    }
}

/// The request for both ends of the pair.
fn pair(pod: &PodLink<'_>, host_mac: Mac, pod_mac: Mac) -> LinkMessage {
    let mut peer = end(pod.device, pod_mac, pod.mtu);
    peer.attributes.push(LinkAttribute::NetNsFd(pod.netns.as_raw_fd()));
    let mut message = end(pod.host, host_mac, pod.mtu);
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ]));
    message
}

fn end(name: &str, mac: Mac, mtu: u32) -> LinkMessage {
    let mut message = link::by_name(name);
    message.attributes.push(LinkAttribute::Address(mac.0.to_vec()));
    message.attributes.push(LinkAttribute::Mtu(mtu));
    message
}

/// How long the kernel may take to put an IPv6 address to use after it has acknowledged it. Usually it is done before the
/// question is asked.
const PATIENCE: Duration = Duration::from_secs(5);

/// A pod's end that is set up, but possibly not yet in use by the kernel.
#[must_use = "the pod receives IPv6 packets only after `ready`"]
pub struct Configured {
    netlink: Netlink,
    /// Hears when the kernel puts an address to use.
    listener: Option<Socket>,
    awaited: Vec<IpAddr>,
    device: String,
    netns: String,
}

impl Configured {
    /// Waits until the pod can receive on all its addresses. The kernel acknowledges an IPv6 address before it has a route
    /// for it, even without duplicate address detection; that happens on a kernel thread of its own, so other work fits
    /// in between.
    ///
    /// # Errors
    /// [`Error::AddressNotReady`] after five seconds, [`Error::NoLink`] when the device has been removed meanwhile.
    pub fn ready(mut self) -> Result<(), Error> {
        if let Some(mut listener) = self.listener.take() {
            let heard = listener.listen(|message| {
                self.awaited.retain(|address| !is_in_use(&message, *address));
                self.awaited.is_empty()
            });
            heard.map_err(|source| Error::AddressNotReady {
                addresses: self.awaited.clone(),
                device: self.device.clone(),
                netns: self.netns.clone(),
                source,
            })?;
        }
        // The word goes out a moment before the route is there, under a lock that reading the device takes, too. Since Linux
        // 6.9 reading also completes what is left of setting the device up.
        self.netlink.require_link(&self.device).map(drop)
    }
}

fn is_in_use(message: &RouteNetlinkMessage, address: IpAddr) -> bool {
    let RouteNetlinkMessage::NewAddress(message) = message else { return false };
    let is_tentative = message.header.flags.contains(AddressHeaderFlags::Tentative);
    !is_tentative && message.attributes.contains(&AddressAttribute::Address(address))
}

/// Sets up a pod's end: loopback and device up, addresses, gateways as permanent neighbours, routes. Everything goes to
/// the kernel in two datagrams. Call [`Configured::ready`] before the pod is reported as connected.
///
/// # Errors
/// [`Error::ConfigurePod`] names the step that the kernel refused; [`Error::Netns`], [`Error::Sysctl`], [`Error::NoLink`].
pub fn configure_pod(netns: &Netns, network: &PodNetwork<'_>) -> Result<Configured, Error> {
    netns.run(|| configure_entered_pod(netns, network))?
}

/// As [`configure_pod`], for a thread that has [entered](Netns::enter) `netns`: a busy machine may take its time to run another
/// one.
///
/// # Errors
/// As [`configure_pod`].
pub fn configure_entered_pod(netns: &Netns, network: &PodNetwork<'_>) -> Result<Configured, Error> {
    let awaited: Vec<_> = network.addresses.iter().map(|pod| pod.address).filter(IpAddr::is_ipv6).collect();
    let mut listener = None;
    if !awaited.is_empty() {
        prepare_ipv6(network.device)?;
        listener = Some(Socket::open_listener(PATIENCE).map_err(Error::Open)?);
    }
    let mut netlink = Netlink::open()?;
    let device = netlink.require_link(network.device)?;
    let steps = steps(network, &device);
    let (names, requests): (Vec<_>, Vec<_>) = steps.into_iter().unzip();
    netlink.socket.execute(requests).map_err(|source| Error::ConfigurePod {
        device: network.device.to_owned(),
        netns: netns.path().to_owned(),
        step: refused_step(&source, &names),
        source,
    })?;
    let (device, netns) = (network.device.to_owned(), netns.path().to_owned());
    Ok(Configured { netlink, listener, awaited, device, netns })
}

fn refused_step(fault: &Fault, names: &[String]) -> String {
    let refused = match fault {
        Fault::Refused { request, .. } => names.get(*request).cloned(),
        _ => None,
    };
    refused.unwrap_or_else(|| "talk to the kernel".to_owned())
}

/// Runtimes start namespaces with IPv6 disabled where the host has it so; and the device's own link-local address need not
/// be checked for duplicates on a link with one peer.
fn prepare_ipv6(device: &str) -> Result<(), sysctl::Error> {
    sysctl::set("net.ipv6.conf.all.disable_ipv6", "0")?;
    sysctl::set(&format!("net.ipv6.conf.{}.accept_dad", sysctl::device(device)), "0")
}

fn steps(network: &PodNetwork<'_>, device: &Link) -> Vec<(String, Request)> {
    let mut steps = Vec::with_capacity(2 + 4 * network.addresses.len());
    for name in ["lo", &device.name] {
        let up = RouteNetlinkMessage::SetLink(link::up(name));
        steps.push((format!("set {name} up"), Request::new(up, 0)));
    }
    for pod in network.addresses {
        steps.extend(address_steps(network, device, pod));
    }
    steps
}

fn address_steps(network: &PodNetwork<'_>, device: &Link, pod: &PodAddress) -> [(String, Request); 4] {
    let own = IpNet::from(pod.address);
    let gateway = IpNet::from(pod.gateway);
    let default = everything(pod.address);
    let resolved = Neighbour { device: device.index, address: pod.gateway };
    let mut via = Route::on_link(device.index);
    (via.via, via.mtu) = (Some(pod.gateway), Some(network.route_mtu));
    let new_address = RouteNetlinkMessage::NewAddress(address::message(device.index, own));
    let new_neighbour = RouteNetlinkMessage::NewNeighbour(neighbour::message(resolved, network.host_mac));
    let to_gateway = RouteNetlinkMessage::NewRoute(route::message(gateway, &Route::on_link(device.index)));
    let to_all = RouteNetlinkMessage::NewRoute(route::message(default, &via));
    let make = CREATE | EXCLUSIVE;
    [
        (format!("add address {own}"), Request::new(new_address, make)),
        (format!("add neighbour {}", pod.gateway), Request::new(new_neighbour, make)),
        (format!("add route {gateway}"), Request::new(to_gateway, make)),
        (format!("add route {default} via {}", pod.gateway), Request::new(to_all, make)),
    ]
}

fn everything(like: IpAddr) -> IpNet {
    let zero: IpAddr = match like {
        IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    IpNet::new(zero, 0).expect("0 is a valid prefix length")
}

/// Removes a device from a pod's namespace, and its other end with it. One that is not there is a success.
///
/// # Errors
/// [`Error::Netns`], [`Error::DeleteLink`].
pub fn remove_pod_device(netns: &Netns, device: &str) -> Result<(), Error> {
    netns.run(|| Netlink::open()?.delete_link(device))?
}
