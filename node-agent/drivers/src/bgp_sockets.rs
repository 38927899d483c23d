//! Options of the TCP sockets of BGP sessions: passwords (RFC 2385) and hop limits (RFC 5082).
//!
//! They hold from the next segment on: on a socket that connects, set them before `connect`; on one that listens, before `listen`, or before
//! the peer may connect. Sockets that a listener accepts have what it has, its passwords included.
//!
//! The peer's family chooses the option, not the socket's: an IPv4 peer of a listener for both families has an IPv4 TTL.

use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use rustix::net::{AddressFamily, sockopt};

use crate::sys::tcp;

/// Bytes of the longest password that the kernel takes.
pub const MAX_PASSWORD: usize = tcp::MAX_KEY;

/// Signs segments to a peer, and drops segments from it that are not signed with the password. `None` ends that; it may be said more
/// than once, and for a peer that has none. A socket has one password for each peer.
///
/// On an IPv6 socket an IPv4 peer is meant by its mapped address (`::ffff:192.0.2.1`), so that one listener serves both families.
///
/// # Errors
/// `InvalidInput`: the password is empty or longer than [`MAX_PASSWORD`], or the peer is an IPv6 address and the socket IPv4. Otherwise
/// what the kernel says; without `CONFIG_TCP_MD5SIG` that is `ENOPROTOOPT`.
pub fn set_md5(fd: BorrowedFd<'_>, peer: IpAddr, password: Option<&str>) -> io::Result<()> {
    let key = password.unwrap_or_default().as_bytes();
    if password.is_some() && !(1..=MAX_PASSWORD).contains(&key.len()) {
        let text =
            format!("the password for {peer} has {} bytes; TCP-MD5 takes 1 to {MAX_PASSWORD}", key.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let peer = match (peer, sockopt::socket_domain(fd)? == AddressFamily::INET6) {
        (IpAddr::V4(peer), true) => peer.to_ipv6_mapped().into(),
        (IpAddr::V6(_), false) => {
            let text = format!("the socket is of IPv4, and {peer} is not");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        _ => peer,
    };
    match tcp::set_md5_key(fd, peer, key) {
        // There was none.
        Err(error) if password.is_none() && error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        result => result,
    }
}

/// TTL (or hop limit, with `v6`) of segments that the socket sends; at least 1.
///
/// # Errors
/// What the kernel says.
pub fn set_ttl(fd: BorrowedFd<'_>, v6: bool, ttl: u8) -> io::Result<()> {
    let result = if v6 {
        sockopt::set_ipv6_unicast_hops(fd, Some(ttl))
    } else {
        sockopt::set_ip_ttl(fd, u32::from(ttl))
    };
    Ok(result?)
}

/// Drops segments whose TTL (or hop limit, with `v6`) is lower: a peer at most `n` hops away that sends 255 has at least `256 - n`.
/// 0 takes all of them.
///
/// TCP only: the kernel does not look at it for datagrams.
///
/// # Errors
/// What the kernel says.
pub fn set_min_ttl(fd: BorrowedFd<'_>, v6: bool, ttl: u8) -> io::Result<()> {
    if v6 { tcp::set_min_hop_count(fd, ttl) } else { tcp::set_min_ttl(fd, ttl) }
}

/// Has a listener keep the first segments of connections, for [`opening_ttl`].
///
/// # Errors
/// What the kernel says.
pub fn keep_openings(listener: BorrowedFd<'_>) -> io::Result<()> {
    tcp::save_syn(listener)
}

/// TTL (or hop limit) of the first segment of an accepted connection: a listener for many peers takes any, and what a peer sends before
/// [`set_min_ttl`] is said for it was taken, too. `None`: the segment was not kept, because of its listener, because it was read before,
/// or because the kernel used a SYN cookie.
///
/// # Errors
/// What the kernel says.
pub fn opening_ttl(accepted: BorrowedFd<'_>) -> io::Result<Option<u8>> {
    let segment = tcp::saved_syn(accepted)?;
    let place = match segment.first().map(|first| first >> 4) {
        Some(4) => 8,
        Some(6) => 7,
        _ => return Ok(None),
    };
    Ok(segment.get(place).copied())
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener};
    use std::os::fd::{AsFd as _, OwnedFd};
    use std::thread;
    use std::time::Duration;

    use rustix::io::Errno;
    use rustix::net::{SocketFlags, SocketType, bind, connect, socket_with};

    use super::*;
    use crate::testing::namespace;

    const V4: &str = "127.0.0.1";
    const V6: &str = "::1";

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// A socket that does not wait, of the address' family.
    fn mk_socket(to: IpAddr) -> OwnedFd {
        let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        socket_with(family, SocketType::STREAM, flags, None).unwrap()
    }

    fn mk_listener(at: &str) -> TcpListener {
        TcpListener::bind((address(at), 0)).unwrap()
    }

    /// Whether the kernel connects `socket`, or has dropped a segment, as its count `drops` says.
    fn connects(socket: &OwnedFd, listener: &TcpListener, to: &str, drops: &str) -> bool {
        let before = count(drops);
        let to = SocketAddr::new(address(to), listener.local_addr().unwrap().port());
        loop {
            match connect(socket, &to) {
                Ok(()) | Err(Errno::ISCONN) => return true,
                Err(Errno::INPROGRESS | Errno::ALREADY) if count(drops) > before => return false,
                Err(Errno::INPROGRESS | Errno::ALREADY) => thread::sleep(Duration::from_millis(1)),
                Err(error) => panic!("{to}: {error}"),
            }
        }
    }

    /// A counter of the namespace (`/proc/net/netstat`).
    fn count(name: &str) -> u64 {
        let text = std::fs::read_to_string("/proc/thread-self/net/netstat").unwrap();
        let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
        let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
        let mut both = names.split(' ').zip(values.split(' '));
        both.find(|(it, _)| *it == name).unwrap().1.parse().unwrap()
    }

    fn check_passwords(at: &str, to: &str) {
        let listener = mk_listener(at);
        let peer = address(to);
        set_md5(listener.as_fd(), peer, Some("secret of two")).unwrap();
        let try_with = |password: Option<&str>, drops| {
            let socket = mk_socket(peer);
            set_md5(socket.as_fd(), peer, password).unwrap();
            connects(&socket, &listener, to, drops)
        };
        assert!(try_with(Some("secret of two"), "TCPMD5Failure"));
        assert!(!try_with(Some("secret of one"), "TCPMD5Failure"));
        assert!(!try_with(None, "TCPMD5NotFound"));
        set_md5(listener.as_fd(), peer, None).unwrap();
        assert!(try_with(None, "TCPMD5NotFound"));
        assert!(!try_with(Some("secret of two"), "TCPMD5Unexpected"));
    }

    #[test]
    fn only_who_has_the_password_connects() {
        let check = || {
            check_passwords(V4, V4);
            check_passwords(V6, V6);
            check_passwords("::", V4);
        };
        namespace().run(check).unwrap();
    }

    #[test]
    fn a_peer_has_one_password_and_others_have_none() {
        let check = || {
            let listener = mk_listener("::");
            set_md5(listener.as_fd(), address(V4), Some("first")).unwrap();
            set_md5(listener.as_fd(), address(V4), Some("second")).unwrap();
            let socket = mk_socket(address(V4));
            set_md5(socket.as_fd(), address(V4), Some("second")).unwrap();
            assert!(connects(&socket, &listener, V4, "TCPMD5Failure"));
            assert!(connects(&mk_socket(address(V6)), &listener, V6, "TCPMD5NotFound"));
            let other = mk_socket(address(V4));
            bind(&other, &SocketAddr::new(address("127.0.0.2"), 0)).unwrap();
            assert!(connects(&other, &listener, V4, "TCPMD5NotFound"));
        };
        namespace().run(check).unwrap();
    }

    #[test]
    fn passwords_that_cannot_be_are_refused() {
        let check = || {
            let socket = mk_socket(address(V4));
            let refusal = |peer: &str, password: &str| {
                let error = set_md5(socket.as_fd(), address(peer), Some(password)).unwrap_err();
                error.to_string()
            };
            assert_eq!(refusal(V4, ""), "the password for 127.0.0.1 has 0 bytes; TCP-MD5 takes 1 to 80");
            assert_eq!(
                refusal(V4, &"x".repeat(81)),
                "the password for 127.0.0.1 has 81 bytes; TCP-MD5 takes 1 to 80"
            );
            assert_eq!(refusal(V6, "x"), "the socket is of IPv4, and ::1 is not");
            set_md5(socket.as_fd(), address(V4), Some(&"x".repeat(80))).unwrap();
            set_md5(socket.as_fd(), address(V4), None).unwrap();
            set_md5(socket.as_fd(), address(V4), None).unwrap();
        };
        namespace().run(check).unwrap();
    }

    fn check_hops(at: &str, to: &str) {
        let listener = mk_listener(at);
        let peer = address(to);
        set_min_ttl(listener.as_fd(), peer.is_ipv6(), 254).unwrap();
        let try_with = |ttl| {
            let socket = mk_socket(peer);
            set_ttl(socket.as_fd(), peer.is_ipv6(), ttl).unwrap();
            connects(&socket, &listener, to, "TCPMinTTLDrop")
        };
        assert!(try_with(255));
        assert!(try_with(254));
        assert!(!try_with(253));
        assert!(!try_with(1));
        set_min_ttl(listener.as_fd(), peer.is_ipv6(), 0).unwrap();
        assert!(try_with(1));
    }

    #[test]
    fn what_comes_from_further_away_is_dropped() {
        let check = || {
            check_hops(V4, V4);
            check_hops(V6, V6);
            check_hops("::", V4);
        };
        namespace().run(check).unwrap();
    }

    fn check_openings(at: &str, to: &str) {
        let listener = mk_listener(at);
        let ttl_of = |ttl| {
            let socket = mk_socket(address(to));
            set_ttl(socket.as_fd(), address(to).is_ipv6(), ttl).unwrap();
            assert!(connects(&socket, &listener, to, "TCPMinTTLDrop"));
            let (accepted, _) = listener.accept().unwrap();
            [(); 2].map(|()| opening_ttl(accepted.as_fd()).unwrap())
        };
        assert_eq!(ttl_of(9), [None, None]);
        keep_openings(listener.as_fd()).unwrap();
        assert_eq!(ttl_of(9), [Some(9), None]);
        assert_eq!(ttl_of(255), [Some(255), None]);
    }

    #[test]
    fn an_accepted_connection_tells_its_first_ttl_once() {
        let check = || {
            check_openings(V4, V4);
            check_openings(V6, V6);
            check_openings("::", V4);
        };
        namespace().run(check).unwrap();
    }
}
