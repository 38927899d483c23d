//! Options of sockets that `tcp(7)`, `ip(7)` and `ipv6(7)` have beyond what rustix knows.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// `struct tcp_md5sig` of `linux/tcp.h`.
#[repr(C, align(8))]
struct Md5 {
    address: [u8; 128],
    flags: u8,
    prefix_length: u8,
    key_length: u16,
    ifindex: i32,
    key: [u8; MAX_KEY],
}

/// `TCP_MD5SIG_MAXKEYLEN`.
pub(crate) const MAX_KEY: usize = 80;

fn set<T>(fd: BorrowedFd<'_>, level: i32, option: i32, value: &T) -> io::Result<()> {
    // SAFETY: the kernel reads as many bytes as it is told, which are those of `value`; all of them are initialized, because the types
    // given by this module have no padding, and `value` outlives the call.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The key of segments to and from a peer, whose address is of the socket's family. An empty one removes it.
pub(crate) fn set_md5_key(fd: BorrowedFd<'_>, peer: IpAddr, key: &[u8]) -> io::Result<()> {
    let mut option =
        Md5 { address: [0; 128], flags: 0, prefix_length: 0, key_length: 0, ifindex: 0, key: [0; MAX_KEY] };
    option.key.get_mut(..key.len()).ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(key);
    option.key_length = key.len() as u16;
    // `struct sockaddr_in` and `struct sockaddr_in6`, without port, scope and flow.
    let (family, at) = if peer.is_ipv4() { (libc::AF_INET, 4) } else { (libc::AF_INET6, 8) };
    option.address[..2].copy_from_slice(&(family as u16).to_ne_bytes());
    match peer {
        IpAddr::V4(peer) => option.address[at..at + 4].copy_from_slice(&peer.octets()),
        IpAddr::V6(peer) => option.address[at..at + 16].copy_from_slice(&peer.octets()),
    }
    set(fd, libc::IPPROTO_TCP, libc::TCP_MD5SIG, &option)
}

/// The least TTL of an IPv4 segment that is taken.
pub(crate) fn set_min_ttl(fd: BorrowedFd<'_>, ttl: u8) -> io::Result<()> {
    set(fd, libc::IPPROTO_IP, libc::IP_MINTTL, &i32::from(ttl))
}

/// The least hop limit of an IPv6 segment that is taken.
pub(crate) fn set_min_hop_count(fd: BorrowedFd<'_>, hops: u8) -> io::Result<()> {
    set(fd, libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT, &i32::from(hops))
}

/// Keeps the SYNs of connections that a listener accepts.
pub(crate) fn save_syn(fd: BorrowedFd<'_>) -> io::Result<()> {
    set(fd, libc::IPPROTO_TCP, libc::TCP_SAVE_SYN, &1_i32)
}

/// Most bytes of a SYN that are read; its IP header is shorter.
const SYN: usize = 512;

/// The SYN of an accepted connection, from its IP header on. It can be read once; empty: it was not kept.
pub(crate) fn saved_syn(fd: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0_u8; SYN];
    let mut length = SYN as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, which the vector has, and the length itself; both outlive the call.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_SAVED_SYN,
            bytes.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    bytes.truncate(length as usize);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_option_is_as_large_as_the_kernels() {
        assert_eq!(size_of::<Md5>(), 128 + 8 + 80);
        assert_eq!(std::mem::offset_of!(Md5, key), 136);
    }
}
