//! Whether rules of kube-proxy are on the node: they stay when it goes, and decide about packets as long as they are there.
//!
//! Only tables and chains are asked for, by the names that kube-proxy gives them, and nothing is changed. The mode `nftables` has a
//! table of its own, `kube-proxy`, in each family. The mode `iptables` has the chain `KUBE-SERVICES` in the table `nat`: in nf_tables
//! when its `iptables` is of the kind that Debian and others have, and otherwise in the older tables of the kernel, which speak no
//! netlink ([`crate::sys::xtables`]).

use std::fmt;

use netlink_packet_core::{DecodeError, NetlinkDeserializable, NetlinkHeader, NetlinkSerializable};
use rustix::net::{Protocol, netlink};

use super::{Error, Fault, Request, Socket, socket::Message};
use crate::sys::xtables;

/// Families of nf_tables, which are those of sockets (`NFPROTO_*` of the kernel's `uapi/linux/netfilter.h`).
const FAMILIES: [u8; 2] = [libc::NFPROTO_IPV4 as u8, libc::NFPROTO_IPV6 as u8];

/// From the kernel's `uapi/linux/netfilter/nf_tables.h`; names of attributes are the same for tables and chains in this: 1 is the table.
const SUBSYSTEM: u16 = 10 << 8;
const NEW_TABLE: u16 = SUBSYSTEM;
const GET_TABLE: u16 = SUBSYSTEM | 1;
const NEW_CHAIN: u16 = SUBSYSTEM | 3;
const GET_CHAIN: u16 = SUBSYSTEM | 4;
const ATTRIBUTE_TABLE: u16 = 1;
const ATTRIBUTE_CHAIN: u16 = 3;

/// `struct nfgenmsg` of the kernel's `uapi/linux/netfilter/nfnetlink.h`.
const HEADER: usize = 4;

/// The table of the mode `nftables`.
const TABLE: &str = "kube-proxy";
/// Table and chain of the mode `iptables`.
const CHAIN: (&str, &str) = ("nat", "KUBE-SERVICES");

/// How kube-proxy wrote rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KubeProxyMode {
    /// A table of nf_tables.
    Nftables,
    /// Chains of iptables, in nf_tables.
    Iptables,
    /// Chains of iptables, in the kernel's older tables.
    IptablesLegacy,
}

impl fmt::Display for KubeProxyMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
            Self::IptablesLegacy => "iptables-legacy",
        })
    }
}

/// A table, or a chain of it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Netfilter {
    Get {
        family: u8,
        table: &'static str,
        chain: Option<&'static str>,
    },
    /// It is there. Its contents do not matter.
    Found,
}

impl Netfilter {
    fn attributes(&self) -> Vec<(u16, &'static str)> {
        match self {
            Self::Get { table, chain, .. } => {
                let chain = chain.map(|chain| (ATTRIBUTE_CHAIN, chain));
                std::iter::once((ATTRIBUTE_TABLE, *table)).chain(chain).collect()
            }
            Self::Found => Vec::new(),
        }
    }
}

/// A name with its end and the attribute's header, before padding.
fn length(name: &str) -> usize {
    4 + name.len() + 1
}

impl Message for Netfilter {
    const PROTOCOL: Option<Protocol> = Some(netlink::NETFILTER);
}

impl NetlinkSerializable for Netfilter {
    fn message_type(&self) -> u16 {
        match self {
            Self::Get { chain: None, .. } => GET_TABLE,
            Self::Get { chain: Some(_), .. } => GET_CHAIN,
            Self::Found => NEW_TABLE,
        }
    }

    fn buffer_len(&self) -> usize {
        let attributes = self.attributes().into_iter();
        HEADER + attributes.map(|(_, name)| length(name).next_multiple_of(4)).sum::<usize>()
    }

    /// Numbers of attributes are in the order of the machine, and the padding is zero.
    fn serialize(&self, buffer: &mut [u8]) {
        buffer.fill(0);
        if let Self::Get { family, .. } = self {
            buffer[0] = *family;
        }
        let mut at = HEADER;
        for (kind, name) in self.attributes() {
            let end = at + length(name);
            buffer[at..at + 2].copy_from_slice(&(length(name) as u16).to_ne_bytes());
            buffer[at + 2..at + 4].copy_from_slice(&kind.to_ne_bytes());
            buffer[at + 4..end - 1].copy_from_slice(name.as_bytes());
            at = end.next_multiple_of(4);
        }
    }
}

impl NetlinkDeserializable for Netfilter {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, _: &[u8]) -> Result<Self, DecodeError> {
        match header.message_type {
            NEW_TABLE | NEW_CHAIN => Ok(Self::Found),
            other => Err(format!("message type {other} is no table and no chain").into()),
        }
    }
}

/// Tables and chains of one network namespace, as far as kube-proxy's are concerned.
pub struct KubeProxyRules {
    socket: Socket<Netfilter>,
}

impl KubeProxyRules {
    /// Connects to the namespace of the calling thread.
    ///
    /// # Errors
    /// [`Error::Open`].
    pub fn open() -> Result<Self, Error> {
        Ok(Self { socket: Socket::open().map_err(Error::Open)? })
    }

    /// Modes of which there are rules in either family; none is none. A kernel without nf_tables has no rules there.
    ///
    /// # Assumptions
    /// `CAP_NET_ADMIN`.
    ///
    /// # Errors
    /// [`Error::ReadRules`], [`Error::ReadLegacyRules`].
    pub fn find(&mut self) -> Result<Vec<KubeProxyMode>, Error> {
        let mut modes = Vec::new();
        for (mode, table, chain) in
            [(KubeProxyMode::Nftables, TABLE, None), (KubeProxyMode::Iptables, CHAIN.0, Some(CHAIN.1))]
        {
            if self.is_there(table, chain)? {
                modes.push(mode);
            }
        }
        if xtables::has_chain(CHAIN.0, CHAIN.1).map_err(Error::ReadLegacyRules)? {
            modes.push(KubeProxyMode::IptablesLegacy);
        }
        Ok(modes)
    }

    fn is_there(&mut self, table: &'static str, chain: Option<&'static str>) -> Result<bool, Error> {
        for family in FAMILIES {
            let request = Request::new(Netfilter::Get { family, table, chain }, 0);
            match self.socket.execute(vec![request]) {
                Ok(found) if found.contains(&Netfilter::Found) => return Ok(true),
                Ok(_) => {}
                Err(fault) if is_absence(&fault) => {}
                Err(source) => return Err(Error::ReadRules { table, source }),
            }
        }
        Ok(false)
    }
}

/// No such table or chain, or no such tables in this kernel at all.
fn is_absence(fault: &Fault) -> bool {
    matches!(fault.errno(), Some(libc::ENOENT | libc::EOPNOTSUPP | libc::EINVAL | libc::EAFNOSUPPORT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_is_asked_for_by_both_names() {
        let message = Netfilter::Get { family: 2, table: "nat", chain: Some("KUBE-SERVICES") };
        let mut buffer = vec![0xff; message.buffer_len()];
        message.serialize(&mut buffer);
        let expected: &[u8] = if cfg!(target_endian = "little") {
            b"\x02\0\0\0\x08\0\x01\0nat\0\x12\0\x03\0KUBE-SERVICES\0\0\0"
        } else {
            b"\x02\0\0\0\0\x08\0\x01nat\0\0\x12\0\x03KUBE-SERVICES\0\0\0"
        };
        assert_eq!(buffer, expected);
        assert_eq!(message.message_type(), 0x0a04);
    }
}
