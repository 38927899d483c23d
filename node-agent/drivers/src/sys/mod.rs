//! The only place of the workspace with unsafe code: system calls that no safe wrapper covers.
#![expect(unsafe_code, reason = "raw system calls; each block says why it is sound")]

pub(crate) mod bpf;
pub(crate) mod cookie;
pub(crate) mod ethtool;
pub(crate) mod packet;
pub(crate) mod sched;
pub(crate) mod tcp;
pub(crate) mod xtables;

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

use aya::maps::{MapData, RingBuf};
use tokio::io::{Interest, unix::AsyncFd};

/// Registers a ring buffer with the tokio runtime. The caller never exchanges the ring inside for another one.
pub(crate) fn watch_ring(ring: RingBuf<MapData>) -> io::Result<AsyncFd<RingBuf<MapData>>> {
    // SAFETY: the ring owns its map, whose descriptor it gives out unchanged and closes only when it is dropped.
    Ok(unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }?)
}

/// Moves the calling thread into a new network namespace.
pub(crate) fn unshare_network() -> io::Result<()> {
    let flags = rustix::thread::UnshareFlags::NEWNET;
    // SAFETY: a network namespace belongs to a thread; unlike CLONE_FILES, it takes no file descriptor from anybody.
    Ok(unsafe { rustix::thread::unshare_unsafe(flags) }?)
}

/// Switches a boolean option of a netlink socket on.
pub(crate) fn set_netlink_option(socket: &impl AsFd, option: i32) -> io::Result<()> {
    let on: i32 = 1;
    // SAFETY: the option's value is an int that lives for the call, and its size is passed along.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_NETLINK,
            option,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
