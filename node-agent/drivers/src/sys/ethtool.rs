//! `SIOCETHTOOL` of the kernel's `uapi/linux/ethtool.h`: what a device does of the stack's work.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

const SIOCETHTOOL: u64 = 0x8946;
const ETHTOOL_STXCSUM: u32 = 0x17;

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// The part of `struct ifreq` that counts, at its full size.
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    value: *mut Value,
    rest: [u8; 16],
}

/// Whether packets are given to a device with checksums to finish. The socket is of the device's network namespace.
pub(crate) fn set_checksum_offload(socket: BorrowedFd<'_>, device: &str, on: bool) -> io::Result<()> {
    let mut value = Value { command: ETHTOOL_STXCSUM, data: on.into() };
    let mut request = Request { name: [0; libc::IFNAMSIZ], value: &raw mut value, rest: [0; 16] };
    let name = device.as_bytes();
    let Some(room) = request.name.get_mut(..name.len()).filter(|room| room.len() < libc::IFNAMSIZ) else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    };
    room.copy_from_slice(name);
    // SAFETY: `request` is as large as `struct ifreq` and has a name with a zero behind it; the kernel reads and writes it and the value that
    // it points to, and both outlive the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL as libc::Ioctl, &raw mut request) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
