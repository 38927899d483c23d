//! Why a Service has no address, or not all that it asks for.

use std::net::IpAddr;

/// The reason. Each has a name and words of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No pool in use has the address, or, without one, none of the family selects the Service.
    NoPool(Option<IpAddr>),
    /// Pools have the address, and none of them selects the Service.
    SelectorMismatch(IpAddr),
    /// Another Service has the address, or it is one of a pool's ends that it does not give.
    Allocated(IpAddr),
    /// Another Service has the address, and may not share it with this one.
    Incompatible(IpAddr, Clash),
    /// This was requested, and is no address.
    Unreadable(String),
    /// All addresses are in use.
    OutOfAddresses,
}

/// Why two Services cannot have one address. The first that holds counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Clash {
    /// They do not name the same key.
    Key,
    /// They are of different namespaces, and not both of them permit it.
    Namespace,
    /// They have a port in common.
    Port,
    /// Their `externalTrafficPolicy` differs.
    TrafficPolicy,
    /// Nodes use their own backends, and those are not the same pods.
    Pods,
}

impl Clash {
    /// In the words of upstream.
    pub fn text(self) -> &'static str {
        match self {
            Self::Key => "different sharing key",
            Self::Namespace => "different and not permitted namespace",
            Self::Port => "same port and protocol",
            Self::TrafficPolicy => "different ExternalTrafficPolicy",
            Self::Pods => "compatible ExternalTrafficPolicy local but selecting different set of pods",
        }
    }
}

impl Failure {
    /// Reason of the condition.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoPool(_) => "no_pool",
            Self::SelectorMismatch(_) => "pool_selector_mismatch",
            Self::Allocated(_) => "already_allocated",
            Self::Incompatible(..) => "already_allocated_incompatible_service",
            Self::Unreadable(_) => "invalid_ip",
            Self::OutOfAddresses => "out_of_ips",
        }
    }

    /// Message of the condition.
    pub fn message(&self) -> String {
        match self {
            Self::NoPool(Some(ip)) => format!("No pool exists with a CIDR containing '{ip}'"),
            Self::NoPool(None) => {
                "There are no enabled CiliumLoadBalancerIPPools that match this service".to_owned()
            }
            Self::SelectorMismatch(ip) => {
                format!("The pool with the CIDR containing '{ip}', doesn't select this service")
            }
            Self::Allocated(ip) => format!("The IP '{ip}' is already allocated to another service"),
            Self::Incompatible(ip, clash) => format!(
                "The IP '{ip}' is already allocated to an incompatible service. Reason: {}",
                clash.text()
            ),
            Self::Unreadable(text) => format!(
                "The requested IP '{text}' is not an IP address; correct or remove it. Until then, this service gets no IP in place of it"
            ),
            Self::OutOfAddresses => {
                "All enabled CiliumLoadBalancerIPPools that match this service ran out of allocatable IPs"
                    .to_owned()
            }
        }
    }
}
