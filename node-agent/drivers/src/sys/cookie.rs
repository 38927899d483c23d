//! `SO_NETNS_COOKIE` of socket(7), which libc does not name.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

const SO_NETNS_COOKIE: libc::c_int = 71;

/// Cookie of the network namespace that a socket is of (Linux 5.14).
pub(crate) fn netns(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut cookie = 0u64;
    let mut size = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `size` bytes, which `cookie` has, and their number to `size`; both outlive the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut size,
        )
    };
    if result == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}
