use std::net::IpAddr;

use cilium_api::parts::{Algorithm, Forwarding, Service};

use crate::maglev::Maglev;

/// What does not change while the agent runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Name of this node.
    pub node: String,
    /// Pods of different nodes reach each other through VXLAN; otherwise through the network between the nodes.
    pub tunnel: bool,
    /// Without tunnel: set routes to the pods of other nodes, via those nodes. Otherwise the network knows the way.
    pub direct_routes: bool,
    /// Indexes of devices that routes point to.
    pub devices: Devices,
    /// Addresses of this node beside those of its Node object, on other devices that it is served on.
    pub other_addresses: Vec<IpAddr>,
    /// MTU of routes into the tunnel, in bytes.
    pub route_mtu: u32,
    /// Identity of prefixes of IPv4 pods that are not known one by one.
    pub world4: u32,
    /// The same for IPv6.
    pub world6: u32,
    /// The node has a policy of its own, which the part `policy/1` says.
    pub host_firewall: bool,
    /// How clients from outside come to backends.
    pub balancing: Balancing,
}

/// IP protocol number.
const TCP: u8 = 6;
/// The same.
const SCTP: u8 = 132;

/// How a new client from outside comes to one of several backends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balancing {
    /// For Services that do not say.
    pub algorithm: Algorithm,
    /// Services may say.
    pub by_annotation: bool,
    /// How tables are filled.
    pub maglev: Maglev,
    /// How backends on other nodes see clients.
    pub mode: Mode,
    /// Services may say that.
    pub mode_by_annotation: bool,
}

/// How backends on other nodes see clients of Services that do not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// As the node that these came to.
    #[default]
    Snat,
    /// As they are, and answer them by themselves.
    Dsr,
    /// By TCP as they are, otherwise as the node.
    Hybrid,
}

impl Balancing {
    /// How the tables of a Service are filled; `None` for one without.
    pub(crate) fn maglev_of(&self, service: &Service) -> Option<Maglev> {
        let asked = service.algorithm.filter(|_| self.by_annotation);
        (asked.unwrap_or(self.algorithm) == Algorithm::Maglev).then_some(self.maglev)
    }

    /// Backends of the Service on other nodes answer clients by themselves.
    pub(crate) fn returns_directly(&self, service: &Service, protocol: u8) -> bool {
        // A node that stands in for clients must change ports, which SCTP's checksum does not allow.
        if protocol == SCTP {
            return true;
        }
        match service.forwarding.filter(|_| self.mode_by_annotation) {
            Some(asked) => asked == Forwarding::Dsr,
            None => self.mode == Mode::Dsr || (self.mode == Mode::Hybrid && protocol == TCP),
        }
    }
}

/// Indexes of devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Devices {
    /// `cilium_host`.
    pub host: u32,
    /// The device towards the other nodes.
    pub native: u32,
}

/// An Ethernet address.
pub type Mac = [u8; 6];

/// How a pod is connected, known once CNI has made its device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// UID of the pod that the device was made for.
    pub uid: String,
    /// Index of the host's end.
    pub ifindex: u32,
    /// Address of the pod's end.
    pub mac: Mac,
    /// Address of the host's end.
    pub host_mac: Mac,
    /// Cookie of the pod's network namespace; 0 when it is not known.
    pub netns_cookie: u64,
}

/// Where packets for a destination go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Index of the device.
    pub device: u32,
    /// Next hop; without it the destination is on the link.
    pub via: Option<IpAddr>,
    /// Source address of what the node itself sends there.
    pub source: Option<IpAddr>,
    /// MTU in bytes; without it the device's.
    pub mtu: Option<u32>,
}

/// An address that is reached over a device without being asked for (ARP, ND).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Neighbour {
    /// Index of the device.
    pub device: u32,
    /// The address.
    pub address: IpAddr,
}
