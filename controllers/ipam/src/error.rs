use std::net::IpAddr;

use ipnet::IpNet;

use crate::numbers::{FIRST_ID, LAST_ID};

/// Why there is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The node has no pod prefix of an enabled family (yet).
    #[error(
        "node {node} has no pod prefix: spec.podCIDRs of the Node is empty; does the controller manager allocate node CIDRs?"
    )]
    NoPrefix {
        /// Name of the node.
        node: String,
    },
    /// All addresses of a prefix are held.
    #[error(
        "no free address in {prefix} of node {node}: remove pods from the node, or give it a larger prefix"
    )]
    AddressesExhausted {
        /// Name of the node.
        node: String,
        /// The full prefix.
        prefix: IpNet,
    },
    /// All endpoint numbers of a node are held.
    #[error("no free endpoint number on node {node}: it has {} pods, the most that one node may have", LAST_ID - FIRST_ID + 1)]
    NumbersExhausted {
        /// Name of the node.
        node: String,
    },
    /// A record names an address that is held already, or that no pod may have.
    #[error("address {address} on record for node {node} is in use or reserved")]
    Unavailable {
        /// Name of the node.
        node: String,
        /// The address.
        address: IpAddr,
    },
    /// A pod is to have an address of a pool that is not there.
    #[error(
        "no address of {family}: there is no CiliumPodIPPool {pool}; make it, or let the pod use another pool"
    )]
    NoPool {
        /// Name of the pool.
        pool: String,
        /// `IPv4` or `IPv6`.
        family: &'static str,
    },
    /// The pool has no addresses of a family that pods have.
    #[error("CiliumPodIPPool {pool} has no {family}: add it to its spec, or let the pod use another pool")]
    NoFamily {
        /// Name of the pool.
        pool: String,
        /// `IPv4` or `IPv6`.
        family: &'static str,
    },
    /// Nodes have all blocks of the pool, and this one's are full.
    #[error(
        "CiliumPodIPPool {pool} has no free block of {family} for node {node}: add a prefix to it, or remove pods that use it"
    )]
    PoolExhausted {
        /// Name of the pool.
        pool: String,
        /// `IPv4` or `IPv6`.
        family: &'static str,
        /// Name of the node.
        node: String,
    },
}
