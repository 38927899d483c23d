//! Throwaway namespaces, links and BPF file systems for tests on the real kernel. Everything goes with the handles.

use std::{
    fs,
    net::{Ipv4Addr, UdpSocket},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::PathBuf,
};

use ipnet::IpNet;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use crate::{
    netlink::{Link, Netlink, PodLink},
    netns::Netns,
    sys::ethtool,
};

/// Fails the test when it does not run as root: a test that cannot do its work has not passed.
///
/// # Panics
/// Without root.
pub fn require_root() {
    assert!(rustix::process::geteuid().is_root(), "this test needs root: run it with sudo");
}

/// A BPF file system that is mounted nowhere: it is reached through a descriptor of this process.
#[derive(Debug)]
pub struct Bpffs {
    root: OwnedFd,
}

impl Bpffs {
    /// Makes an empty one.
    ///
    /// # Panics
    /// When the kernel refuses, for example without root.
    pub fn create() -> Self {
        require_root();
        let context =
            rustix::mount::fsopen("bpf", FsOpenFlags::FSOPEN_CLOEXEC).expect("the kernel has a bpffs");
        rustix::mount::fsconfig_create(&context).expect("a bpffs can be made");
        let root = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty());
        Self { root: root.expect("a bpffs can be mounted") }
    }

    /// A directory in it, for this process and its children while the handle lives.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn directory(&self, name: &str) -> PathBuf {
        let path =
            PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.root.as_raw_fd())).join(name);
        fs::create_dir_all(&path).expect("a directory in a fresh bpffs can be made");
        path
    }
}

/// A new namespace whose loopback device is up.
///
/// # Panics
/// When the kernel refuses.
pub fn namespace() -> Netns {
    require_root();
    let namespace = Netns::create().expect("root can create a network namespace");
    let mut netlink = Netlink::open_in(&namespace).expect("netlink works in a new namespace");
    netlink.set_up("lo").expect("loopback can be set up");
    namespace
}

/// Connects two namespaces with a pair of devices, both up, with the addresses given.
///
/// # Panics
/// When the kernel refuses.
pub fn connect(one: (&Netns, &str, &[IpNet]), other: (&Netns, &str, &[IpNet])) -> (Link, Link) {
    let pair = PodLink { host: one.1, device: other.1, netns: other.0, mtu: 1500, alias: "test" };
    let mut netlink = Netlink::open_in(one.0).expect("netlink works in the first namespace");
    netlink.create_pod_link(&pair).expect("a pair of devices can be made");
    (settle(one), settle(other))
}

/// Has checksums finished before packets are given to a device, as on a wire.
///
/// # Panics
/// When the kernel refuses.
pub fn finish_checksums(namespace: &Netns, device: &str) {
    let set = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        ethtool::set_checksum_offload(socket.as_fd(), device, false)
    };
    namespace.run(set).expect("a thread").expect("the device leaves checksums to the stack");
}

fn settle((namespace, device, addresses): (&Netns, &str, &[IpNet])) -> Link {
    let mut netlink = Netlink::open_in(namespace).expect("netlink works in the namespace");
    netlink.set_up(device).expect("the device can be set up");
    let link = netlink.require_link(device).expect("the device is there");
    netlink.ensure_addresses(&link, addresses).expect("addresses can be set");
    link
}
