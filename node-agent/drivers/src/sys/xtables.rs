//! Tables of iptables that are not in nf_tables, which the kernel shows as options of a socket (its
//! `uapi/linux/netfilter_ipv4/ip_tables.h`).

use std::{
    fs, io,
    net::{Ipv4Addr, UdpSocket},
    os::fd::AsRawFd,
};

/// Names of the tables that are there, one a line. To ask for another one would make it.
const NAMES: &str = "/proc/thread-self/net/ip_tables_names";

const GET_INFO: i32 = 64;
const GET_ENTRIES: i32 = 65;

/// `struct ipt_getinfo`.
#[repr(C)]
#[derive(Default)]
struct Info {
    name: [u8; 32],
    valid_hooks: u32,
    hook_entry: [u32; 5],
    underflow: [u32; 5],
    entries: u32,
    size: u32,
}

/// `struct ipt_get_entries`, without the entries that follow: name, their size in bytes, and padding.
const ENTRIES_HEADER: usize = 40;
const SIZE_AT: usize = 32;

/// Nobody's table is larger: half a million rules or so.
const LARGEST: u32 = 256 << 20;

/// Whether a table has a chain of the user's with this name. The table may change between two calls; then it is read again.
pub(crate) fn has_chain(table: &str, chain: &str) -> io::Result<bool> {
    match fs::read_to_string(NAMES) {
        Ok(names) if names.lines().any(|name| name == table) => {}
        Ok(_) => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    }
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    for _ in 0..4 {
        match entries(&socket, table) {
            Ok(entries) => return Ok(names_chain(&entries, chain)),
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other(format!("table {table} kept changing while it was read")))
}

/// A chain begins with an entry whose target is an error that carries the chain's name and its end.
fn names_chain(entries: &[u8], chain: &str) -> bool {
    let name: Vec<u8> = chain.bytes().chain([0]).collect();
    entries.windows(name.len()).any(|window| window == name)
}

fn named(table: &str) -> [u8; 32] {
    let mut name = [0; 32];
    for (to, from) in name.iter_mut().zip(table.bytes()) {
        *to = from;
    }
    name
}

fn entries(socket: &UdpSocket, table: &str) -> io::Result<Vec<u8>> {
    let mut info = Info { name: named(table), ..Info::default() };
    // SAFETY: `Info` is the struct that the option fills: plain integers, of the size that is passed along.
    unsafe { get(socket, GET_INFO, (&raw mut info).cast(), size_of::<Info>()) }?;
    if info.size > LARGEST {
        return Err(io::Error::other(format!("table {table} has {} bytes", info.size)));
    }
    let mut buffer = vec![0u8; ENTRIES_HEADER + info.size as usize];
    buffer[..SIZE_AT].copy_from_slice(&named(table));
    buffer[SIZE_AT..SIZE_AT + 4].copy_from_slice(&info.size.to_ne_bytes());
    let length = buffer.len();
    // SAFETY: the buffer has room for the header and as many bytes of entries as the header says, and its size is passed along.
    unsafe { get(socket, GET_ENTRIES, buffer.as_mut_ptr().cast(), length) }?;
    Ok(buffer.split_off(ENTRIES_HEADER))
}

/// # Safety
/// `value` points to `size` bytes that may be written.
unsafe fn get(socket: &UdpSocket, option: i32, value: *mut libc::c_void, size: usize) -> io::Result<()> {
    let mut length = libc::socklen_t::try_from(size).map_err(io::Error::other)?;
    // SAFETY: as the caller promises; the kernel writes at most `length` bytes.
    let result =
        unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_IP, option, value, &raw mut length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_is_found_by_its_whole_name() {
        let entries = b"\0\0ERROR\0\0KUBE-SERVICES\0\0KUBE-NODEPORTS-X\0";
        assert!(names_chain(entries, "KUBE-SERVICES"));
        assert!(!names_chain(entries, "KUBE-NODEPORTS"));
        assert!(!names_chain(b"", "KUBE-SERVICES"));
    }
}
