//! UDP sockets of RFC 5881: one that receives for each family, and one that sends for each session.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::ops::RangeInclusive;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use cilium_drivers::bgp_sockets;
use nix::libc::in6_pktinfo;
use nix::sys::socket::sockopt::{
    BindToDevice, Ipv4PacketInfo, Ipv4RecvTtl, Ipv6RecvHopLimit, Ipv6RecvPacketInfo, Ipv6V6Only,
};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, RecvMsg, SockaddrStorage, recvmsg, setsockopt};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, bind, sendto, socket_with, sockopt};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::engine::Key;

/// Where packets are received.
pub const PORT: u16 = 3784;

/// TTL (or hop limit) of every packet. One that a router let through has less.
pub const TTL: u8 = 255;

/// Ports from which sessions send.
const SOURCE_PORTS: RangeInclusive<u16> = 49152..=65535;

/// Ports that are tried, one after the other, until one is free.
const TRIES: u32 = 64;

/// Class selector 6, as routing protocols have it (RFC 4594, 3.2).
const TRAFFIC_CLASS: u8 = 0xc0;

/// A datagram that came.
#[derive(Clone, Copy, Debug)]
pub struct Datagram {
    /// Its beginning; there are no packets that are longer.
    bytes: [u8; 64],
    length: usize,
    /// Who sent it.
    pub source: IpAddr,
    /// To which address of the node; `None` where the kernel does not say so.
    pub destination: Option<IpAddr>,
    /// Index of the device by which it came; 0 where the kernel does not say so.
    pub ifindex: u32,
    /// TTL or hop limit with which it arrived.
    pub ttl: u8,
}

impl Datagram {
    /// What is in it.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

fn open(is_v6: bool) -> io::Result<OwnedFd> {
    let family = if is_v6 { AddressFamily::INET6 } else { AddressFamily::INET };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(family, SocketType::DGRAM, flags, None)?)
}

fn unspecified(is_v6: bool) -> IpAddr {
    if is_v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() }
}

/// Receives for all sessions of a family.
#[derive(Debug)]
pub struct Receiver {
    socket: UdpSocket,
}

impl Receiver {
    /// Listens at all addresses of the node.
    ///
    /// # Errors
    /// The kernel refuses: another program has the port.
    pub fn open(is_v6: bool) -> io::Result<Self> {
        let socket = open(is_v6)?;
        if is_v6 {
            setsockopt(&socket, Ipv6V6Only, &true)?;
            setsockopt(&socket, Ipv6RecvHopLimit, &true)?;
            setsockopt(&socket, Ipv6RecvPacketInfo, &true)?;
        } else {
            setsockopt(&socket, Ipv4RecvTtl, &true)?;
            setsockopt(&socket, Ipv4PacketInfo, &true)?;
        }
        bind(&socket, &SocketAddr::new(unspecified(is_v6), PORT))?;
        Ok(Self { socket: UdpSocket::from_std(socket.into())? })
    }

    /// Waits until there may be a datagram.
    pub async fn wait(&self) {
        // An error shows when it is read.
        let _ = self.socket.readable().await;
    }

    /// The next datagram; `None`: there is none now. Errors of single datagrams are passed over.
    pub fn next(&self) -> Option<Datagram> {
        loop {
            let read = self.socket.try_io(Interest::READABLE, || Ok(read(self.socket.as_fd())?));
            match read {
                Ok(Some(datagram)) => return Some(datagram),
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
    }
}

/// `None` where it is of no use: without source or TTL.
fn read(socket: BorrowedFd<'_>) -> nix::Result<Option<Datagram>> {
    let mut bytes = [0; 64];
    let mut control = nix::cmsg_space!(in6_pktinfo, i32);
    let mut slices = [IoSliceMut::new(&mut bytes)];
    let message: RecvMsg<'_, '_, SockaddrStorage> =
        recvmsg(socket.as_raw_fd(), &mut slices, Some(&mut control), MsgFlags::MSG_DONTWAIT)?;
    let length = message.bytes;
    let source = message.address.and_then(|address| ip(&address));
    let (mut ttl, mut destination, mut ifindex) = (None, None, 0);
    for control in message.cmsgs()? {
        match control {
            ControlMessageOwned::Ipv4Ttl(it) | ControlMessageOwned::Ipv6HopLimit(it) => {
                ttl = u8::try_from(it).ok();
            }
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                let address = Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr));
                (destination, ifindex) = (Some(address.into()), info.ipi_ifindex.cast_unsigned());
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => {
                let address = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                (destination, ifindex) = (Some(address.into()), info.ipi6_ifindex);
            }
            _ => {}
        }
    }
    let (Some(source), Some(ttl)) = (source, ttl) else { return Ok(None) };
    Ok(Some(Datagram { bytes, length, source, destination, ifindex, ttl }))
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|it| IpAddr::V4(it.ip()));
    v4.or_else(|| Some(IpAddr::V6(address.as_sockaddr_in6()?.ip())))
}

/// Index of a device; `None`: there is none.
pub fn device_index(name: &str) -> Option<u32> {
    let socket = open(false).ok()?;
    rustix::net::netdevice::name_to_index(&socket, name).ok()
}

/// Sends for one session.
#[derive(Debug)]
pub struct Sender {
    socket: OwnedFd,
    to: SocketAddr,
}

impl Sender {
    /// A socket for a session, with a free source port, from that of `random` on.
    ///
    /// # Errors
    /// The kernel refuses: the device or the local address is not there.
    pub fn open(key: &Key, random: u32) -> io::Result<Self> {
        let is_v6 = key.peer.is_ipv6();
        let socket = open(is_v6)?;
        let scope = match &key.device {
            Some(device) => {
                setsockopt(&socket, BindToDevice, &device.into())?;
                device_index(device).ok_or(io::ErrorKind::NotFound)?
            }
            None => 0,
        };
        bgp_sockets::set_ttl(socket.as_fd(), is_v6, TTL)?;
        if is_v6 {
            sockopt::set_ipv6_tclass(&socket, TRAFFIC_CLASS.into())?;
        } else {
            sockopt::set_ip_tos(&socket, TRAFFIC_CLASS)?;
        }
        bind_source(&socket, key.local.unwrap_or(unspecified(is_v6)), scope, random)?;
        Ok(Self { socket, to: at(key.peer, PORT, scope) })
    }

    /// Sends a packet. It does not wait; one for which there is no room is lost, as on the way.
    ///
    /// # Errors
    /// There is no way to the neighbour, or the device is gone.
    pub fn send(&self, bytes: &[u8]) -> io::Result<()> {
        match sendto(&self.socket, bytes, SendFlags::empty(), &self.to) {
            Ok(_) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::NOBUFS) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn at(address: IpAddr, port: u16, scope: u32) -> SocketAddr {
    match address {
        IpAddr::V6(address) if address.is_unicast_link_local() => {
            SocketAddrV6::new(address, port, 0, scope).into()
        }
        _ => SocketAddr::new(address, port),
    }
}

fn bind_source(socket: &OwnedFd, local: IpAddr, scope: u32, random: u32) -> io::Result<()> {
    let count = u32::from(SOURCE_PORTS.end() - SOURCE_PORTS.start()) + 1;
    let mut result = Err(io::ErrorKind::AddrInUse.into());
    for offset in 0..TRIES {
        let port = SOURCE_PORTS.start() + (random.wrapping_add(offset) % count) as u16;
        result = bind(socket, &at(local, port, scope)).map_err(io::Error::from);
        match &result {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            _ => return result,
        }
    }
    result
}
