//! Sockets of programs: listing those that are connected, and destroying one (`NETLINK_SOCK_DIAG`, `sock_diag(7)`).

use std::{fmt, net::SocketAddr};

use netlink_packet_core::{
    DecodeError, Emitable, NetlinkDeserializable, NetlinkHeader, NetlinkSerializable, Parseable,
};
use netlink_packet_sock_diag::{
    SOCK_DESTROY, SOCK_DIAG_BY_FAMILY,
    constants::{AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP},
    inet::{ExtensionFlags, InetRequest, InetResponseHeader, SocketId, StateFlags},
};
use rustix::net::{Protocol, netlink};

use super::{
    Error, Fault, Request, Socket,
    socket::{Message, read_replies},
};
use crate::netns::Netns;

/// What a socket speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Transport {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Tcp, Self::Udp];

    fn number(self) -> u8 {
        match self {
            Self::Tcp => IPPROTO_TCP,
            Self::Udp => IPPROTO_UDP,
        }
    }

    /// States in which a program may wait for the other side. A connected UDP socket counts as established; connections of
    /// which no program has anything to expect (`TIME_WAIT`, `CLOSING`, `LAST_ACK`) end by themselves.
    fn connected(self) -> StateFlags {
        match self {
            Self::Tcp => {
                StateFlags::ESTABLISHED
                    | StateFlags::SYN_SENT
                    | StateFlags::FIN_WAIT1
                    | StateFlags::FIN_WAIT2
                    | StateFlags::CLOSE_WAIT
            }
            Self::Udp => StateFlags::ESTABLISHED,
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}

/// A socket that has a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connected {
    /// What it speaks.
    pub transport: Transport,
    /// Its own end.
    pub local: SocketAddr,
    /// The other end. For a socket of IPv6 that talks to IPv4, both are mapped addresses (`::ffff:a.b.c.d`).
    pub peer: SocketAddr,
    /// The number that it has as long as it lives, and that no other socket has (`SO_COOKIE` of `socket(7)`); eBPF programs
    /// know it by that, too.
    pub cookie: u64,
    /// The device that it is bound to; 0: none.
    device: u32,
}

impl Connected {
    fn new(transport: Transport, found: &InetResponseHeader) -> Self {
        let id = &found.socket_id;
        Self {
            transport,
            local: (id.source_address, id.source_port).into(),
            peer: (id.destination_address, id.destination_port).into(),
            cookie: to_cookie(id.cookie),
            device: id.interface_id,
        }
    }

    /// The kernel finds the socket by addresses and ports, and refuses if the cookie is another's.
    fn to_request(&self) -> InetRequest {
        let id = SocketId {
            source_port: self.local.port(),
            destination_port: self.peer.port(),
            source_address: self.local.ip(),
            destination_address: self.peer.ip(),
            interface_id: self.device,
            cookie: from_cookie(self.cookie),
        };
        let family = if self.peer.is_ipv4() { AF_INET } else { AF_INET6 };
        InetRequest {
            family,
            protocol: self.transport.number(),
            extensions: ExtensionFlags::empty(),
            states: self.transport.connected(),
            socket_id: id,
        }
    }
}

impl fmt::Display for Connected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} socket {} connected to {}", self.transport, self.local, self.peer)
    }
}

/// The kernel writes a cookie as two words, the lower one first, each in the order of the machine (`sock_diag_save_cookie`).
fn to_cookie([a, b, c, d, e, f, g, h]: [u8; 8]) -> u64 {
    let (low, high) = (u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h]));
    u64::from(high) << 32 | u64::from(low)
}

fn from_cookie(cookie: u64) -> [u8; 8] {
    let ([a, b, c, d], [e, f, g, h]) = ((cookie as u32).to_ne_bytes(), ((cookie >> 32) as u32).to_ne_bytes());
    [a, b, c, d, e, f, g, h]
}

/// What is said about sockets.
#[derive(Clone)]
enum Diag {
    /// Which are there?
    List(InetRequest),
    /// This one shall go.
    Destroy(InetRequest),
    /// One is there.
    Found(InetResponseHeader),
}

impl Message for Diag {
    const PROTOCOL: Option<Protocol> = Some(netlink::SOCK_DIAG);
}

impl NetlinkSerializable for Diag {
    fn message_type(&self) -> u16 {
        match self {
            Self::List(_) | Self::Found(_) => SOCK_DIAG_BY_FAMILY,
            Self::Destroy(_) => SOCK_DESTROY,
        }
    }

    fn buffer_len(&self) -> usize {
        match self {
            Self::List(request) | Self::Destroy(request) => request.buffer_len(),
            Self::Found(found) => found.buffer_len(),
        }
    }

    fn serialize(&self, buffer: &mut [u8]) {
        match self {
            Self::List(request) | Self::Destroy(request) => request.emit(buffer),
            Self::Found(found) => found.emit(buffer),
        }
    }
}

impl NetlinkDeserializable for Diag {
    type Error = DecodeError;

    /// Attributes, which newer kernels have more of, are not looked at.
    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        match header.message_type {
            SOCK_DIAG_BY_FAMILY => Ok(Self::Found(InetResponseHeader::parse(payload)?)),
            other => Err(format!("message type {other} says nothing about sockets").into()),
        }
    }
}

fn parse(transport: Transport, message: &Diag) -> Option<Connected> {
    match message {
        Diag::Found(found) => Some(Connected::new(transport, found)),
        Diag::List(_) | Diag::Destroy(_) => None,
    }
}

/// What the reader of sockets finds in a datagram that claims to come from the kernel. Nothing is asked of the kernel.
///
/// # Errors
/// [`Fault::Refused`], [`Fault::Malformed`].
pub fn read_sockets(transport: Transport, datagram: &[u8]) -> Result<Vec<Connected>, Fault> {
    let messages = read_replies::<Diag>(datagram)?;
    Ok(messages.iter().filter_map(|message| parse(transport, message)).collect())
}

/// The sockets of one network namespace.
///
/// # Assumptions
/// `CONFIG_INET_DIAG` and `CONFIG_INET_UDP_DIAG` for reading (the kernel loads its modules by itself), `CONFIG_INET_DIAG_DESTROY`
/// and `CAP_NET_ADMIN` for destroying.
pub struct Sockets {
    socket: Socket<Diag>,
}

impl Sockets {
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

    /// The connected sockets, of both families, that are wanted. Takes a walk through all of the node's connections, but keeps
    /// only these.
    ///
    /// # Errors
    /// [`Error::ReadSockets`].
    pub fn connected(
        &mut self,
        transport: Transport,
        is_wanted: impl Fn(&Connected) -> bool,
    ) -> Result<Vec<Connected>, Error> {
        let mut all = Vec::new();
        for family in [AF_INET, AF_INET6] {
            let wanted = |message| parse(transport, &message).filter(&is_wanted);
            let found = self.socket.dump(&Diag::List(every(family, transport)), wanted);
            all.extend(found.map_err(|source| Error::ReadSockets { transport, source })?);
        }
        Ok(all)
    }

    /// Takes a socket from its program, which gets ECONNABORTED from what it waits for or does next. A TCP socket resets its
    /// connection. Returns whether it was still there.
    ///
    /// # Errors
    /// [`Error::DestroySocket`]; see [`Error::is_unsupported`].
    pub fn destroy(&mut self, socket: &Connected) -> Result<bool, Error> {
        match self.socket.execute(vec![Request::new(Diag::Destroy(socket.to_request()), 0)]) {
            Ok(_) => Ok(true),
            // Another one may have its addresses and ports now.
            Err(source) if matches!(source.errno(), Some(libc::ENOENT | libc::ESTALE)) => Ok(false),
            Err(source) => Err(Error::DestroySocket { socket: socket.clone(), source }),
        }
    }
}

impl Error {
    /// The kernel destroys no sockets at all: it is built without `CONFIG_INET_DIAG_DESTROY`.
    pub fn is_unsupported(&self) -> bool {
        matches!(self, Self::DestroySocket { source, .. } if source.errno() == Some(libc::EOPNOTSUPP))
    }
}

fn every(family: u8, transport: Transport) -> InetRequest {
    let socket_id = if family == AF_INET { SocketId::new_v4() } else { SocketId::new_v6() };
    InetRequest {
        family,
        protocol: transport.number(),
        extensions: ExtensionFlags::empty(),
        states: transport.connected(),
        socket_id,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_keep_their_words() {
        for cookie in [0, 1, 0x0123_4567_89ab_cdef, u64::MAX] {
            assert_eq!(to_cookie(from_cookie(cookie)), cookie);
        }
        let words = [1u32.to_ne_bytes(), 2u32.to_ne_bytes()].concat();
        assert_eq!(from_cookie(0x2_0000_0001).to_vec(), words);
    }
}
