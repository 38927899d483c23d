//! Sockets that take packets for other addresses, and send from other addresses (`IP_TRANSPARENT`, Linux' `ip(7)`).

use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::libc;
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessageOwned, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage,
    bind, listen, recvmsg, setsockopt, socket, sockopt,
};
use tokio::io::Interest;
use tokio::net::{TcpListener, UdpSocket};

/// Connections that wait to be taken.
const BACKLOG: i32 = 1024;

fn transparent(address: SocketAddr, kind: SockType, protocol: SockProtocol) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, protocol)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    // Of the IPv4 level, and yet for both families.
    setsockopt(&fd, sockopt::IpTransparent, &true)?;
    if !address.is_ipv4() {
        setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
    }
    Ok(fd)
}

fn bound(address: SocketAddr, kind: SockType, protocol: SockProtocol) -> io::Result<OwnedFd> {
    let fd = transparent(address, kind, protocol)?;
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(fd)
}

/// Takes connections that are given to it, whoever they are for; the accepted socket's own address says that.
pub(crate) fn tcp_listener(address: SocketAddr) -> io::Result<TcpListener> {
    let fd = bound(address, SockType::Stream, SockProtocol::Tcp)?;
    listen(&fd, Backlog::new(BACKLOG)?)?;
    TcpListener::from_std(fd.into())
}

/// Takes datagrams that are given to it, whoever they are for; [`receive`] says that.
pub(crate) fn udp_listener(address: SocketAddr) -> io::Result<UdpSocket> {
    let fd = bound(address, SockType::Datagram, SockProtocol::Udp)?;
    if address.is_ipv4() {
        setsockopt(&fd, sockopt::Ipv4OrigDstAddr, &true)?;
    } else {
        setsockopt(&fd, sockopt::Ipv6OrigDstAddr, &true)?;
    }
    UdpSocket::from_std(fd.into())
}

/// Sends from an address that need not be this machine's.
pub(crate) fn udp_sender(from: SocketAddr) -> io::Result<UdpSocket> {
    let fd = bound(from, SockType::Datagram, SockProtocol::Udp)?;
    UdpSocket::from_std(fd.into())
}

/// A datagram with where it came from and whom it is for.
pub(crate) struct Datagram {
    pub(crate) bytes: Vec<u8>,
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
}

/// The next datagram of a [`udp_listener`]. `None` for one that does not say whom it is for.
pub(crate) async fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Option<Datagram>> {
    socket.async_io(Interest::READABLE, || receive_now(socket, buffer)).await
}

fn receive_now(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Option<Datagram>> {
    let mut space = nix::cmsg_space!(libc::sockaddr_in6);
    let (length, from, to) = {
        let mut slices = [IoSliceMut::new(buffer)];
        let fd = socket.as_fd().as_raw_fd();
        let message = recvmsg::<SockaddrStorage>(fd, &mut slices, Some(&mut space), MsgFlags::MSG_DONTWAIT)?;
        let to = message.cmsgs()?.find_map(|message| original(&message));
        (message.bytes, message.address.as_ref().and_then(standard), to)
    };
    let bytes = buffer[..length].to_vec();
    Ok(from.zip(to).map(|(from, to)| Datagram { bytes, from, to }))
}

fn original(message: &ControlMessageOwned) -> Option<SocketAddr> {
    match message {
        ControlMessageOwned::Ipv4OrigDstAddr(to) => {
            let address = u32::from_be(to.sin_addr.s_addr).into();
            Some(SocketAddrV4::new(address, u16::from_be(to.sin_port)).into())
        }
        ControlMessageOwned::Ipv6OrigDstAddr(to) => {
            let address = to.sin6_addr.s6_addr.into();
            Some(SocketAddrV6::new(address, u16::from_be(to.sin6_port), 0, 0).into())
        }
        _ => None,
    }
}

fn standard(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| SocketAddrV4::new(v4.ip(), v4.port()).into());
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddrV6::new(v6.ip(), v6.port(), 0, 0).into()))
}
