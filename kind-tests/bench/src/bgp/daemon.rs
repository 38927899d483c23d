//! What is the same for all daemons.

use std::fmt;
use std::net::Ipv4Addr;

use anyhow::Result;
use cilium_rest::Client;
use ipnet::Ipv4Net;

use super::bird::Bird;
use super::frr::Frr;
use super::generator::Peer;
use super::gobgp::Gobgp;
use super::lab::{DAEMON, Lab, Process};
use super::ours::Ours;

/// AS number of each daemon.
pub(super) const ASN: u32 = 64500;
/// BGP identifier of each daemon.
pub(super) const ROUTER_ID: Ipv4Addr = DAEMON;

/// What a daemon is told before it starts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setup<'a> {
    /// Passive peers.
    pub(super) peers: &'a [Peer],
    /// Its own prefixes go to all peers; else nothing goes to any.
    pub(super) tells: bool,
}

/// A daemon that runs.
pub(super) trait Daemon {
    /// Prefixes that it has of all peers, by its own list of peers.
    fn learned(&mut self) -> Result<usize>;
    /// A further way to ask it, where it is our speaker.
    fn speaker(&self) -> Option<Client> {
        None
    }
    /// Has it announce prefixes beside those that it announces.
    fn tell(&mut self, prefixes: &[Ipv4Net]) -> Result<()>;
    /// Its process.
    fn process(&self) -> &Process;
}

/// Whose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Ours,
    Bird,
    Frr,
    Gobgp,
}

impl Kind {
    pub(super) const ALL: [Self; 4] = [Self::Ours, Self::Bird, Self::Frr, Self::Gobgp];

    pub(super) fn start<'lab>(self, lab: &'lab Lab, setup: &Setup<'_>) -> Result<Box<dyn Daemon + 'lab>> {
        Ok(match self {
            Self::Ours => Box::new(Ours::start(lab, setup)?),
            Self::Bird => Box::new(Bird::start(lab, setup)?),
            Self::Frr => Box::new(Frr::start(lab, setup)?),
            Self::Gobgp => Box::new(Gobgp::start(lab, setup)?),
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ours => "cilium-bgp",
            Self::Bird => "bird",
            Self::Frr => "frr bgpd",
            Self::Gobgp => "gobgpd",
        })
    }
}
