//! Sockets of `packet(7)`, and what `netdevice(7)` tells of devices.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// `struct ifreq` with flags or a hardware address; as large as the kernel's.
#[repr(C)]
#[derive(Clone, Copy)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    family_or_flags: u16,
    data: [u8; 22],
}

impl Request {
    fn new(device: &str) -> io::Result<Self> {
        let mut request = Self { name: [0; libc::IFNAMSIZ], family_or_flags: 0, data: [0; 22] };
        let name = device.as_bytes();
        let room = request.name.get_mut(..name.len()).filter(|room| room.len() < libc::IFNAMSIZ);
        room.ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(name);
        Ok(request)
    }
}

fn ioctl(socket: BorrowedFd<'_>, command: libc::c_ulong, request: &mut Request) -> io::Result<()> {
    // SAFETY: `request` is as large as `struct ifreq` and has a name with a zero behind it; the kernel reads and writes no more than that,
    // and it outlives the call.
    let result =
        unsafe { libc::ioctl(socket.as_raw_fd(), command as libc::Ioctl, std::ptr::from_mut(request)) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A socket that sends whole frames by one device, and receives nothing.
pub(crate) fn frame_socket(ifindex: u32) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)?;
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: 0,
        sll_ifindex: i32::try_from(ifindex).map_err(|_| io::ErrorKind::InvalidInput)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: the address is of the socket's family, lives for the call, and its size is passed along.
    let result = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(socket) } else { Err(io::Error::last_os_error()) }
}

/// Whether a device is up and has a link.
pub(crate) fn is_running(socket: impl AsFd, device: &str) -> io::Result<bool> {
    let mut request = Request::new(device)?;
    ioctl(socket.as_fd(), libc::SIOCGIFFLAGS, &mut request)?;
    let wanted = (libc::IFF_UP | libc::IFF_RUNNING) as u16;
    Ok(request.family_or_flags & wanted == wanted)
}

/// Lets a device take frames for a multicast address, or no longer. That outlives the process; it may be said more than once.
pub(crate) fn filter_multicast(
    socket: impl AsFd,
    device: &str,
    mac: [u8; 6],
    is_taken: bool,
) -> io::Result<()> {
    let mut request = Request::new(device)?;
    request.data[..mac.len()].copy_from_slice(&mac);
    let command = if is_taken { libc::SIOCADDMULTI } else { libc::SIOCDELMULTI };
    ioctl(socket.as_fd(), command, &mut request)
}
