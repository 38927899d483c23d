//! Links, addresses, routes and neighbours of a network namespace, through rtnetlink; its sockets, through `sock_diag(7)`; and whether
//! kube-proxy's rules are in it, through nfnetlink.
//!
//! The socket is a small blocking one of our own, not the async one of the `rtnetlink` crate, for three reasons. An
//! rtnetlink request is a system call that has done its work when it returns, so there is nothing to wait for
//! asynchronously; [`cilium_delta::Table`] is synchronous; and the CNI plugin, which has to be quick, needs no runtime.
//! Several requests go out in one datagram where that saves system calls.
//!
//! # Guarantees
//! Routes and neighbours of others are neither listed nor touched: routes are ours by protocol 87, neighbours by standing
//! on a pod device.
//!
//! # Assumptions
//! Linux 5.15 or later (strict checking of dump filters, extended acknowledgements).

mod address;
mod diag;
mod filter;
mod host;
mod learned;
mod link;
mod neighbour;
mod netfilter;
mod pod;
mod route;
mod rule;
mod socket;

use std::{io, net::IpAddr};

use ipnet::IpNet;
use netlink_packet_route::RouteNetlinkMessage;
use thiserror::Error;

pub(crate) use self::socket::{CREATE, EXCLUSIVE, REPLACE, Request, Socket};
pub use self::{
    address::Gateway,
    diag::{Connected, Sockets, Transport, read_sockets},
    learned::LearnedRoutes,
    link::{Kind, Link, Mac},
    neighbour::{Neighbour, NeighbourTable},
    netfilter::{KubeProxyMode, KubeProxyRules},
    pod::{
        Configured, PodAddress, PodLink, PodLinkEnds, PodNetwork, configure_entered_pod, configure_pod,
        lxc_name, remove_pod_device,
    },
    route::{Route, RouteTable},
    rule::PROXY_TABLE,
    socket::Fault,
};
use crate::{netns, netns::Netns, sysctl};

/// Protocol number of all routes that are ours (`rtm_protocol`).
pub const ROUTE_PROTOCOL: u8 = 87;
/// Protocol number of routes that neighbours made known by BGP.
pub const LEARNED_PROTOCOL: u8 = 88;
/// Names of pod devices start so.
pub const POD_PREFIX: &str = "lxc";
/// Aliases of pod devices start so; the endpoint's number follows.
pub const POD_ALIAS: &str = "cilium:";
/// The device that carries the node's router addresses.
pub const HOST_DEVICE: &str = "cilium_host";
/// The other end of [`HOST_DEVICE`].
pub const NET_DEVICE: &str = "cilium_net";
/// The tunnel device.
pub const VXLAN_DEVICE: &str = "cilium_vxlan";

/// Why an operation failed; the source says what the kernel said.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "fields are the object named in the message, and the source")]
pub enum Error {
    /// No socket.
    #[error("cannot open a netlink socket")]
    Open(#[source] io::Error),
    /// The kernel does not say whether there is a device.
    #[error("cannot look a device up")]
    LookUp(#[source] io::Error),
    /// The pod's namespace is not usable.
    #[error("cannot work in the network namespace")]
    Netns(#[from] netns::Error),
    /// A kernel parameter refused its value.
    #[error("cannot set a kernel parameter")]
    Sysctl(#[from] sysctl::Error),
    /// Links could not be read.
    #[error("cannot read network devices")]
    ReadLinks(#[source] Fault),
    /// A device that is needed is not there.
    #[error("there is no network device {name}")]
    NoLink { name: String },
    /// None of the devices is the node's.
    #[error(
        "no default route, and none of the devices has one of the node's addresses {addresses:?}; set one of them"
    )]
    NoNodeDevice { addresses: Vec<IpAddr> },
    /// The veth pair of a pod could not be made.
    #[error("cannot create the link {host} to {pod} in {netns}")]
    CreatePodLink { host: String, pod: String, netns: String, source: Fault },
    /// The pod's end could not be set up.
    #[error("cannot {step} for {device} in {netns}")]
    ConfigurePod { device: String, netns: String, step: String, source: Fault },
    /// The kernel does not take packets for an address.
    #[error("the kernel has not put {addresses:?} on {device} in {netns} to use in time")]
    AddressNotReady { addresses: Vec<IpAddr>, device: String, netns: String, source: Fault },
    /// A device of ours could not be made.
    #[error("cannot create network device {name}")]
    CreateLink { name: String, source: Fault },
    /// A device could not be changed.
    #[error("cannot change network device {name}")]
    SetLink { name: String, source: Fault },
    /// A device could not be removed.
    #[error("cannot delete network device {name}")]
    DeleteLink { name: String, source: Fault },
    /// Addresses could not be read.
    #[error("cannot read addresses")]
    ReadAddresses(#[source] Fault),
    /// An address could not be added.
    #[error("cannot add address {address} to {device}")]
    AddAddress { address: IpNet, device: String, source: Fault },
    /// An address could not be removed.
    #[error("cannot remove address {address} from {device}")]
    RemoveAddress { address: IpNet, device: String, source: Fault },
    /// Routes could not be read.
    #[error("cannot read routes")]
    ReadRoutes(#[source] Fault),
    /// A route could not be written.
    #[error("cannot set the route to {destination} ({route})")]
    SetRoute { destination: IpNet, route: Route, source: Fault },
    /// A route that was learned could not be written.
    #[error("cannot set the route to {destination} by way of {next_hops:?}")]
    SetLearned { destination: IpNet, next_hops: Vec<IpAddr>, source: Fault },
    /// The main table has a route to this destination that is not ours.
    #[error("there is a route to {destination} that is not ours; remove it or choose other prefixes")]
    ForeignRoute { destination: IpNet },
    /// A route could not be removed.
    #[error("cannot delete the route to {destination}")]
    DeleteRoute { destination: IpNet, source: Fault },
    /// The rule or the route for packets to the DNS proxy could not be written.
    #[error("cannot set the routing rule for packets to the DNS proxy")]
    SetProxyWay(#[source] Fault),
    /// Neighbours could not be read.
    #[error("cannot read neighbours")]
    ReadNeighbours(#[source] Fault),
    /// A neighbour could not be written.
    #[error("cannot set neighbour {address} on device number {device}")]
    SetNeighbour { address: IpAddr, device: u32, source: Fault },
    /// A neighbour could not be removed.
    #[error("cannot delete neighbour {address} on device number {device}")]
    DeleteNeighbour { address: IpAddr, device: u32, source: Fault },
    /// The clsact qdisc or the filter on it could not be set.
    #[error("cannot attach a filter to device number {device}")]
    SetFilter { device: u32, source: Fault },
    /// Filters could not be read.
    #[error("cannot read the filters of device number {device}")]
    ReadFilters { device: u32, source: Fault },
    /// Sockets could not be read.
    #[error("cannot read {transport} sockets")]
    ReadSockets { transport: Transport, source: Fault },
    /// A socket could not be taken from its program.
    #[error("cannot destroy {socket}")]
    DestroySocket { socket: Connected, source: Fault },
    /// The kernel does not say whether a table of packet filter rules is there.
    #[error("cannot look for the table {table} of kube-proxy")]
    ReadRules { table: &'static str, source: Fault },
    /// The same for tables that are not in nf_tables.
    #[error("cannot look for chains of kube-proxy in the tables of iptables-legacy")]
    ReadLegacyRules(#[source] io::Error),
    /// A filter could not be removed.
    #[error("cannot detach the filter from device number {device}")]
    DeleteFilter { device: u32, source: Fault },
}

/// What the readers of all tables find in a datagram that claims to come from the kernel, in words. Nothing is asked of the kernel.
///
/// # Errors
/// [`Fault::Refused`], [`Fault::Malformed`].
pub fn read_replies(datagram: &[u8]) -> Result<Vec<String>, Fault> {
    let mut found = Vec::new();
    for message in socket::read_replies::<RouteNetlinkMessage>(datagram)? {
        let read = [
            link::parse(message.clone()).map(|it| format!("{it:?}")),
            address::parse(message.clone()).map(|it| format!("{it:?}")),
            learned::parse(message.clone()).map(|it| format!("{it:?}")),
            address::parse_default(message.clone()).map(|it| format!("{it:?}")),
            neighbour::parse(message.clone()).map(|it| format!("{it:?}")),
            route::parse(message.clone()).map(|it| format!("{it:?}")),
            filter::parse(message).map(|it| format!("{it:?}")),
        ];
        found.extend(read.into_iter().flatten());
    }
    Ok(found)
}

/// An rtnetlink connection to one network namespace.
pub struct Netlink {
    socket: Socket,
}

impl Netlink {
    /// Connects to the namespace of the calling thread.
    ///
    /// # Errors
    /// [`Error::Open`].
    pub fn open() -> Result<Self, Error> {
        Ok(Self { socket: Socket::open().map_err(Error::Open)? })
    }

    /// Connects to another namespace; the connection can be used from any thread.
    ///
    /// # Errors
    /// [`Error::Open`], [`Error::Netns`].
    pub fn open_in(namespace: &Netns) -> Result<Self, Error> {
        namespace.run(Self::open)?
    }
}
