//! What the running kernel can do, found out by trying, and what that means for the product.

use std::{
    fs, io,
    net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsFd,
    path::Path,
};

use rustix::net::sockopt::socket_cookie;

use crate::{
    netlink::{Netlink, Sockets, Transport},
    netns::Netns,
    sys::bpf::{self, MapInfo},
};

/// One thing that the kernel has or has not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feature {
    /// Short name.
    pub name: &'static str,
    /// Whether it is there.
    pub available: bool,
    /// Whether the agent cannot work without it.
    pub required: bool,
    /// What it is for, and the kernel's error where it is missing.
    pub detail: String,
}

/// Helpers (`enum bpf_func_id`), program types and attach types of the kernel's `uapi/linux/bpf.h`.
const HELPER_REDIRECT_NEIGH: u32 = 152;
const HELPER_REDIRECT_PEER: u32 = 155;
const HELPER_SET_RETVAL: u32 = 187;
const SCHED_CLS: u32 = 3;
const CGROUP_SOCK_ADDR: u32 = 18;
const INET4_CONNECT: u32 = 10;
const INET4_GETPEERNAME: u32 = 29;

/// Name of the feature that ends sockets whose backend is gone.
pub const SOCKET_DESTROY: &str = "socket destroy";

const CGROUP2_SUPER_MAGIC: rustix::fs::FsWord = 0x6367_7270;

/// Loopback is number 1 in every namespace.
const LOOPBACK: u32 = 1;

/// Looks at everything that matters. Takes some milliseconds; leaves nothing behind.
pub fn probe(cgroup: &Path) -> Vec<Feature> {
    let needed = [
        ("btf", fs::metadata("/sys/kernel/btf/vmlinux").map(drop), "type information of the kernel"),
        ("hash maps", map(bpf::MAP_HASH, 4, 4, 1, 0), "endpoints, services"),
        ("LRU maps", map(bpf::MAP_LRU_HASH, 4, 4, 8, 0), "connections"),
        ("LPM maps", map(bpf::MAP_LPM_TRIE, 8, 4, 1, NO_PREALLOC), "addresses, policy"),
        ("ring buffer", map(bpf::MAP_RINGBUF, 0, 0, page_size(), 0), "events"),
        ("redirect_peer", helper(SCHED_CLS, 0, HELPER_REDIRECT_PEER), "straight into a pod's namespace"),
        ("redirect_neigh", helper(SCHED_CLS, 0, HELPER_REDIRECT_NEIGH), "straight out of the node"),
        ("socket hooks", helper(CGROUP_SOCK_ADDR, INET4_CONNECT, 0), "services at connect"),
        ("socket names", helper(CGROUP_SOCK_ADDR, INET4_GETPEERNAME, 0), "services at getpeername"),
    ];
    let optional = [
        ("tcx", bpf::query_device(LOOPBACK, bpf::TCX_INGRESS).map(drop), "without it, clsact filters"),
        (
            "set_retval",
            set_retval(),
            "without it, EPERM from services without backends, and other backends when their set changes",
        ),
        ("vxlan", vxlan(), "without it, no tunnel mode"),
        (
            SOCKET_DESTROY,
            socket_destroy(),
            "without it (CONFIG_INET_DIAG_DESTROY), programs are not told that the backend they are connected to is gone",
        ),
    ];
    let mut features = vec![kernel_version(), cgroup2(cgroup)];
    features.extend(needed.map(|(name, result, purpose)| feature(name, true, result, purpose)));
    features.extend(optional.map(|(name, result, purpose)| feature(name, false, result, purpose)));
    features
}

/// Whether programs can be put on devices as links.
pub fn has_tcx() -> bool {
    bpf::query_device(LOOPBACK, bpf::TCX_INGRESS).is_ok()
}

/// Whether socket programs can choose the error of a refused connect (`CONFIG_SET_RETVAL`).
pub fn has_set_retval() -> bool {
    set_retval().is_ok()
}

const NO_PREALLOC: u32 = 1;

fn feature(name: &'static str, required: bool, result: io::Result<()>, purpose: &str) -> Feature {
    let (available, detail) = match result {
        Ok(()) => (true, purpose.to_owned()),
        Err(error) => (false, format!("{purpose}: {error}")),
    };
    Feature { name, available, required, detail }
}

fn kernel_version() -> Feature {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let available = version >= (5, 15);
    Feature {
        name: "kernel",
        available,
        required: true,
        detail: format!("{release}, 5.15 or later is needed"),
    }
}

fn map(kind: u32, key_size: u32, value_size: u32, max_entries: u32, flags: u32) -> io::Result<()> {
    bpf::create_map(&MapInfo { kind, key_size, value_size, max_entries, flags, ..MapInfo::default() })
        .map(drop)
}

fn page_size() -> u32 {
    rustix::param::page_size() as u32
}

/// Loads a program that calls one helper with zeros as arguments (0: none), and returns 1.
fn helper(kind: u32, attach_type: u32, helper: u32) -> io::Result<()> {
    let mut program = vec![mov(2, 0), mov(3, 0), mov(4, 0), mov(1, 0)];
    if helper != 0 {
        program.push(0x85 | u64::from(helper) << 32);
    }
    program.extend([mov(0, 1), 0x95]);
    bpf::load_program(kind, attach_type, &program).map(drop)
}

fn set_retval() -> io::Result<()> {
    helper(CGROUP_SOCK_ADDR, INET4_CONNECT, HELPER_SET_RETVAL)
}

/// The instruction that sets a register.
fn mov(register: u64, value: u32) -> u64 {
    0xb7 | register << 8 | u64::from(value) << 32
}

fn cgroup2(path: &Path) -> Feature {
    let found = rustix::fs::statfs(path);
    let available = found.as_ref().is_ok_and(|found| found.f_type == CGROUP2_SUPER_MAGIC);
    let detail = match found {
        Ok(_) if available => path.display().to_string(),
        Ok(_) => format!("{} is not a cgroup2 file system", path.display()),
        Err(errno) => format!("{}: {errno}", path.display()),
    };
    Feature { name: "cgroup v2", available, required: true, detail }
}

/// Makes a tunnel device in a namespace that goes with it.
fn vxlan() -> io::Result<()> {
    let namespace = Netns::create().map_err(io::Error::other)?;
    let mut netlink = Netlink::open_in(&namespace).map_err(io::Error::other)?;
    netlink.ensure_vxlan(8472, 1450).map(drop).map_err(io::Error::other)
}

/// Destroys sockets of its own on the loopback.
fn socket_destroy() -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let stream = TcpStream::connect(listener.local_addr()?)?;
    destroy(Transport::Tcp, &stream)?;
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect(socket.local_addr()?)?;
    destroy(Transport::Udp, &socket)
}

fn destroy(transport: Transport, socket: impl AsFd) -> io::Result<()> {
    let cookie = socket_cookie(socket)?;
    let mut sockets = Sockets::open().map_err(io::Error::other)?;
    let own = sockets.connected(transport, |found| found.cookie == cookie).map_err(reason)?;
    let own = own.first().ok_or_else(|| io::Error::other(format!("a {transport} socket is not listed")))?;
    sockets.destroy(own).map(drop).map_err(reason)
}

/// The kernel's own words.
fn reason(error: crate::netlink::Error) -> io::Error {
    match std::error::Error::source(&error).and_then(std::error::Error::source) {
        Some(source) => io::Error::other(source.to_string()),
        None => io::Error::other(error),
    }
}
