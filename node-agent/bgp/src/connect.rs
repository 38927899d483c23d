//! TCP sockets of sessions, and their options.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use cilium_drivers::bgp_sockets::{keep_openings, opening_ttl, set_md5, set_min_ttl, set_ttl};
use cilium_rest::bgp::Password;
use rustix::net::netdevice::name_to_index;
use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::config::{Spec, is_link_local};

/// The longest that an attempt takes. A router that is there answers sooner.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connections that wait to be accepted.
const BACKLOG: u32 = 128;

/// Connects to a peer. The error is a sentence.
pub(crate) async fn connect(spec: Spec, retry: Duration) -> Result<TcpStream, String> {
    let patience = PATIENCE.min(retry.max(Duration::from_secs(1)));
    let to = format!("{} port {}", spec.address, spec.port);
    let attempt = async {
        let (socket, address) = socket(&spec)?;
        let stream = socket.connect(address).await?;
        stream.set_nodelay(true)?;
        Ok::<_, io::Error>(stream)
    };
    match tokio::time::timeout(patience, attempt).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            Err(format!("{to} refuses TCP connections"))
        }
        Ok(Err(error)) => Err(format!("cannot connect to {to}: {error}")),
        Err(_) => Err(format!("no answer from {to} within {} s{}", patience.as_secs(), hint(&spec))),
    }
}

/// Why there is no session with a peer that is connected, and says nothing.
pub(crate) fn silence(spec: &Spec) -> String {
    format!("{} is connected, but its OPEN does not come{}", spec.address, hint(spec))
}

/// What else leads to silence.
fn hint(spec: &Spec) -> &'static str {
    match (&spec.password, spec.ttl_security) {
        (Some(_), _) => "; it is also silent where it has another password, or none",
        (None, true) => "; it is also silent where packets go over more hops than allowed",
        (None, false) => "",
    }
}

fn socket(spec: &Spec) -> io::Result<(TcpSocket, SocketAddr)> {
    let socket = if spec.address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(Password(password)) = &spec.password {
        set_md5(socket.as_fd(), spec.address, Some(password))?;
    }
    set_hops(socket.as_fd(), spec)?;
    if let Some(local) = spec.local_address {
        socket.bind(on_link(socket.as_fd(), local, 0, spec.device.as_deref())?)?;
    }
    let address = on_link(socket.as_fd(), spec.address, spec.port, spec.device.as_deref())?;
    Ok((socket, address))
}

/// An address, with the number of its device where it needs one.
fn on_link(fd: BorrowedFd<'_>, address: IpAddr, port: u16, device: Option<&str>) -> io::Result<SocketAddr> {
    match (address, device) {
        (IpAddr::V6(address), Some(device)) if address.is_unicast_link_local() => {
            Ok(SocketAddrV6::new(address, port, 0, name_to_index(fd, device)?).into())
        }
        _ => Ok(SocketAddr::new(address, port)),
    }
}

/// TTL of what is sent, and of what is taken.
fn set_hops(fd: BorrowedFd<'_>, spec: &Spec) -> io::Result<()> {
    let is_v6 = spec.address.is_ipv6();
    if spec.ttl_security {
        set_ttl(fd, is_v6, 255)?;
        set_min_ttl(fd, is_v6, least_ttl(spec))?;
    } else if !spec.is_internal() {
        set_ttl(fd, is_v6, spec.hops)?;
    }
    Ok(())
}

/// Makes an accepted connection one of the peer's. The error is a sentence.
pub(crate) fn adopt(stream: &TcpStream, spec: &Spec) -> Result<(), String> {
    let set = || {
        stream.set_nodelay(true)?;
        set_hops(stream.as_fd(), spec)?;
        opening_ttl(stream.as_fd())
    };
    let ttl = set().map_err(|error| format!("a connection of {} cannot be taken: {error}", spec.address))?;
    // The port is for all peers, and takes any TTL.
    match ttl {
        Some(ttl) if spec.ttl_security && ttl < least_ttl(spec) => Err(format!(
            "a connection of {} was refused: its packets have TTL {ttl}, and TTL security takes {} or more",
            spec.address,
            least_ttl(spec)
        )),
        _ => Ok(()),
    }
}

/// 255 is what a direct neighbour's packets have, one less for each further hop.
fn least_ttl(spec: &Spec) -> u8 {
    255 - (spec.hops - 1)
}

/// Whether a connection from `address` is one of the peer's.
pub(crate) fn is_from(stream: &TcpStream, address: SocketAddr, spec: &Spec) -> bool {
    let is_on_device = || match (address, spec.device.as_deref()) {
        (SocketAddr::V6(address), Some(device)) if is_link_local(spec.address) => {
            name_to_index(stream.as_fd(), device).is_ok_and(|index| index == address.scope_id())
        }
        _ => true,
    };
    address.ip() == spec.address && is_on_device()
}

/// A port on all addresses of the node.
#[derive(Debug)]
pub(crate) struct Listeners {
    v4: TcpListener,
    /// `None` where the kernel has no IPv6.
    v6: Option<TcpListener>,
}

impl Listeners {
    /// Listens.
    pub(crate) fn open(port: u16) -> io::Result<Self> {
        let v4 = listen(TcpSocket::new_v4()?, SocketAddr::new(IpAddr::from([0, 0, 0, 0]), port))?;
        let v6 = match TcpSocket::new_v6() {
            Ok(socket) => {
                sockopt::set_ipv6_v6only(&socket, true)?;
                Some(listen(socket, SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port))?)
            }
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error()) => None,
            Err(error) => return Err(error),
        };
        Ok(Self { v4, v6 })
    }

    fn of(&self, peer: IpAddr) -> Option<&TcpListener> {
        if peer.is_ipv4() { Some(&self.v4) } else { self.v6.as_ref() }
    }

    /// Has these passwords from now on; `before` is what it has.
    pub(crate) fn set_passwords(
        &self,
        before: &BTreeMap<IpAddr, Option<Password>>,
        wanted: &BTreeMap<IpAddr, Option<Password>>,
    ) -> io::Result<()> {
        let gone = before.keys().filter(|peer| !wanted.contains_key(peer)).map(|peer| (peer, None));
        let there = wanted.iter().map(|(peer, password)| (peer, password.as_ref()));
        for (peer, password) in gone.chain(there) {
            if let Some(listener) = self.of(*peer)
                && before.get(peer).and_then(Option::as_ref) != password
            {
                set_md5(listener.as_fd(), *peer, password.map(|it| it.0.as_str()))?;
            }
        }
        Ok(())
    }

    /// Answers so that peers with GTSM take it: their first packet from us has TTL 255. Keeps their first packets, to see their TTL.
    pub(crate) fn secure_ttl(&self) -> io::Result<()> {
        let listeners = [(Some(&self.v4), false), (self.v6.as_ref(), true)];
        for (listener, is_v6) in listeners {
            let Some(listener) = listener else { continue };
            set_ttl(listener.as_fd(), is_v6, 255)?;
            keep_openings(listener.as_fd())?;
        }
        Ok(())
    }

    /// The next connection.
    pub(crate) async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let v6 = async {
            match &self.v6 {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            accepted = self.v4.accept() => accepted,
            accepted = v6 => accepted,
        }
    }
}

fn listen(socket: TcpSocket, address: SocketAddr) -> io::Result<TcpListener> {
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
