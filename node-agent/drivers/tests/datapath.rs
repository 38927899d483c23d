//! Programs on devices and cgroups of the real kernel: attaching, replacing, restarting. Needs root.
#![expect(clippy::unwrap_used, reason = "a test stops where something fails")]

mod common;

use std::{
    fs,
    net::{IpAddr, UdpSocket},
    os::fd::AsRawFd,
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use cilium_drivers::{
    datapath::{AttachMode, Attached, Datapath, DeviceProgram, EarlyMode, Error},
    netlink::{Netlink, remove_pod_device},
    probe, sysctl,
    testrun::{self, Context},
};
use common::{Node, Pod};

#[test]
fn a_program_is_attached_once_and_replaced_by_a_restart() {
    for mode in [AttachMode::Tcx, AttachMode::Filter] {
        let node = Node::create();
        let datapath = node.load_with(mode);
        let device = &node.uplink;
        let attach = |datapath: &Datapath| {
            node.netns.run(|| datapath.attach(DeviceProgram::FromNetdev, device)).unwrap().unwrap()
        };
        assert_eq!(attach(&datapath), Attached::Created, "{mode:?}");
        assert_eq!(attach(&datapath), Attached::Unchanged, "{mode:?}");
        drop(datapath);
        let restarted = node.load_with(mode);
        assert_eq!(attach(&restarted), Attached::Replaced, "{mode:?}");
        assert_eq!(attach(&restarted), Attached::Unchanged, "{mode:?}");

        node.netns.run(|| restarted.detach(&device.name)).unwrap().unwrap();
        node.netns.run(|| restarted.detach("gone")).unwrap().unwrap();
        assert_eq!(attach(&restarted), Attached::Created, "{mode:?}");
    }
}

#[test]
fn a_filter_stands_in_for_a_link_until_it_is_settled() {
    let node = Node::create();
    let datapath = node.load_with(AttachMode::Tcx);
    let device = &node.uplink;
    let program = DeviceProgram::FromNetdev;
    let at_once =
        |datapath: &Datapath| node.netns.run(|| datapath.attach_at_once(program, device)).unwrap().unwrap();
    let settle = |datapath: &Datapath| node.netns.run(|| datapath.settle(program, device)).unwrap().unwrap();
    let attach = |datapath: &Datapath| node.netns.run(|| datapath.attach(program, device)).unwrap().unwrap();
    let pin = node.bpffs.join("links/up0_ingress");
    assert_eq!((at_once(&datapath), at_once(&datapath)), (Attached::Created, Attached::Unchanged));
    assert!(!pin.exists());
    let restarted = node.load_with(AttachMode::Tcx);
    assert_eq!(at_once(&restarted), Attached::Replaced);
    assert_eq!((settle(&restarted), settle(&restarted)), (true, false));
    assert!(pin.exists());
    assert_eq!((at_once(&restarted), attach(&restarted)), (Attached::Unchanged, Attached::Unchanged));
    let show = || Command::new("tc").args(["filter", "show", "dev", "up0", "ingress"]).output().unwrap();
    assert!(node.netns.run(show).unwrap().stdout.is_empty(), "the filter is gone");
    restarted.unpin("up0").unwrap();
    assert!(!pin.exists());
    let without = node.load_with(AttachMode::Filter);
    assert_eq!((at_once(&without), settle(&without)), (Attached::Created, false));
}

#[test]
fn the_early_program_is_on_one_device_in_one_mode() {
    let node = Node::create();
    let datapath = node.load_with(AttachMode::Tcx);
    let attach = |datapath: &Datapath, device, mode| {
        node.netns.run(|| datapath.attach_early(device, mode)).unwrap().unwrap()
    };
    let pins = || {
        let names = fs::read_dir(node.bpffs.join("links")).unwrap();
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(attach(&datapath, &node.uplink, EarlyMode::Generic), Attached::Created);
    assert_eq!(attach(&datapath, &node.uplink, EarlyMode::Generic), Attached::Unchanged);
    let restarted = node.load_with(AttachMode::Tcx);
    assert_eq!(attach(&restarted, &node.uplink, EarlyMode::Generic), Attached::Replaced);
    assert_eq!(pins(), ["up0_xdp_generic"]);
    assert_eq!(attach(&restarted, &node.uplink, EarlyMode::Driver), Attached::Created);
    assert_eq!(pins(), ["up0_xdp_driver"]);
    let pod = node.add_pod(5);
    assert_eq!(attach(&restarted, &pod.host_end, EarlyMode::Driver), Attached::Created);
    assert_eq!(pins(), [format!("{}_xdp_driver", pod.host_end.name)]);
    restarted.detach_early().unwrap();
    restarted.detach_early().unwrap();
    assert_eq!(pins(), [""; 0]);
}

#[test]
fn a_driver_without_xdp_is_named() {
    let node = Node::create();
    let datapath = node.load_with(AttachMode::Tcx);
    let lo = Netlink::open_in(&node.netns).unwrap().require_link("lo").unwrap();
    let refused = node.netns.run(|| datapath.attach_early(&lo, EarlyMode::Driver)).unwrap().unwrap_err();
    assert!(matches!(refused, Error::NoDriverSupport { .. }), "{refused:?}");
    assert_eq!(refused.to_string(), "the driver of device lo runs no XDP programs");
    let generic = node.netns.run(|| datapath.attach_early(&lo, EarlyMode::Generic)).unwrap();
    assert_eq!(generic.unwrap(), Attached::Created);
}

#[test]
fn filters_stand_where_tc_shows_them() {
    let node = Node::create();
    let datapath = node.load_with(AttachMode::Filter);
    let router = Netlink::open_in(&node.netns).unwrap().require_link("cilium_host").unwrap();
    node.netns.run(|| datapath.attach(DeviceProgram::FromHost, &router)).unwrap().unwrap();
    let show = || {
        let arguments = ["filter", "show", "dev", "cilium_host", "egress"];
        let output = node.netns.run(|| Command::new("tc").args(arguments).output().unwrap()).unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(show().contains("from_host direct-action"), "{}", show());
    node.netns.run(|| datapath.detach("cilium_host")).unwrap().unwrap();
    assert_eq!(show(), "");
}

#[test]
fn links_of_devices_that_are_gone_are_swept_and_names_can_come_back() {
    let node = Node::create();
    let datapath = node.load_with(AttachMode::Tcx);
    let (first, second) = (node.add_pod(5), node.add_pod(6));
    node.attach(&datapath, &[&first, &second]);
    assert_eq!(datapath.sweep().unwrap(), Vec::<String>::new());

    remove_pod_device(&first.netns, "eth0").unwrap();
    let mut swept = datapath.sweep().unwrap();
    swept.sort();
    let name = &first.host_end.name;
    assert_eq!(swept, [format!("{name}_egress"), format!("{name}_ingress")]);

    // A device that takes over a name before the sweep does not inherit the dead link.
    remove_pod_device(&second.netns, "eth0").unwrap();
    let again = node.add_pod(6);
    assert_ne!(again.host_end.index, second.host_end.index);
    let attached = node.netns.run(|| datapath.attach(DeviceProgram::FromContainer, &again.host_end));
    assert_eq!(attached.unwrap().unwrap(), Attached::Created);
}

#[test]
fn names_with_dots_can_have_pins() {
    let node = Node::create();
    let datapath = node.load_with(AttachMode::Tcx);
    let (link, _) =
        cilium_drivers::testing::connect((&node.netns, "up0.100", &[]), (&node.world, "up0.100", &[]));
    let attach = || node.netns.run(|| datapath.attach(DeviceProgram::FromNetdev, &link)).unwrap().unwrap();
    assert_eq!((attach(), attach()), (Attached::Created, Attached::Unchanged));
}

/// A cgroup of our own in a cgroup2 hierarchy that is mounted nowhere; removed at the end.
struct Cgroup {
    path: PathBuf,
    _mount: std::os::fd::OwnedFd,
}

impl Cgroup {
    fn create(name: &str) -> Self {
        use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
        let context = fsopen("cgroup2", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
        fsconfig_create(&context).unwrap();
        let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).unwrap();
        let root = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()));
        let path = root.join(format!("cilium-drivers-{name}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self { path, _mount: mount }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if self.path.exists() {
            fs::remove_dir(&self.path).unwrap();
        }
    }
}

#[test]
fn socket_programs_are_attached_to_a_cgroup_once() {
    let node = Node::create();
    let cgroup = Cgroup::create("once");
    let datapath = node.load();
    assert_eq!(datapath.attach_cgroup(&cgroup.path).unwrap(), 8);
    assert_eq!(datapath.attach_cgroup(&cgroup.path).unwrap(), 0);
    let restarted = node.load();
    assert_eq!(restarted.attach_cgroup(&cgroup.path).unwrap(), 8);
    assert_eq!(restarted.attach_cgroup(&cgroup.path).unwrap(), 0);

    // Another cgroup takes the programs along; a cgroup that is gone leaves nothing.
    let other = Cgroup::create("other");
    assert_eq!(restarted.attach_cgroup(&other.path).unwrap(), 8);
    restarted.detach_cgroup().unwrap();
    assert_eq!(restarted.attach_cgroup(&cgroup.path).unwrap(), 8);
    drop(cgroup);
    // The kernel lets go of a removed cgroup a little later.
    let mut swept = 0;
    while swept < 8 {
        swept += restarted.sweep().unwrap().len();
        thread::yield_now();
    }
    let error = restarted.attach_cgroup(&PathBuf::from("/no/such/cgroup")).unwrap_err();
    assert_eq!(error.to_string(), "cannot open cgroup /no/such/cgroup");
}

fn sockets(from: &Pod, to: &Pod, family: usize) -> (UdpSocket, UdpSocket) {
    let bind = |pod: &Pod| {
        let address: IpAddr = pod.addresses[family].address;
        let socket = pod.netns.run(|| UdpSocket::bind((address, 0)).unwrap()).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        socket
    };
    let (client, server) = (bind(from), bind(to));
    client.connect(server.local_addr().unwrap()).unwrap();
    (client, server)
}

#[test]
fn pods_reach_each_other_and_the_host_with_all_programs() {
    for mode in [AttachMode::Tcx, AttachMode::Filter] {
        let node = Node::create();
        let datapath = node.load_with(mode);
        node.add_host_addresses();
        let (one, other) = (node.add_pod(5), node.add_pod(6));
        node.attach(&datapath, &[&one, &other]);
        let mut buffer = [0; 64];
        for family in [0, 1] {
            let (client, server) = sockets(&one, &other, family);
            client.send(b"from pod to pod").unwrap();
            let (length, from) = server.recv_from(&mut buffer).unwrap_or_else(|error| {
                panic!("{mode:?} {family} {error}: {:?}", node.maps().metrics.totals())
            });
            assert_eq!((&buffer[..length], from), (&b"from pod to pod"[..], client.local_addr().unwrap()));
            server.send_to(b"back", from).unwrap();
            assert_eq!(client.recv(&mut buffer).unwrap(), 4, "{mode:?}");

            let gateway = one.addresses[family].gateway;
            let host = node.netns.run(|| UdpSocket::bind((gateway, 0)).unwrap()).unwrap();
            host.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            client.connect(host.local_addr().unwrap()).unwrap();
            host.send_to(b"from the host", client.local_addr().unwrap()).unwrap();
            assert_eq!(client.recv(&mut buffer).unwrap(), 13, "{mode:?}");
            client.send(b"to the host").unwrap();
            assert_eq!(host.recv(&mut buffer).unwrap(), 11, "{mode:?}");
        }
    }
}

/// Sends datagrams in lockstep, so that no queue can overflow, until told to stop. Returns how many came back.
fn stream(client: &UdpSocket, server: &UdpSocket, stop: &AtomicBool) -> u32 {
    let mut number = 0u32;
    let mut buffer = [0; 8];
    while !stop.load(Ordering::Acquire) {
        client.send(&number.to_be_bytes()).unwrap();
        let (length, from) = server.recv_from(&mut buffer).expect("every datagram arrives");
        server.send_to(&buffer[..length], from).unwrap();
        let length = client.recv(&mut buffer).expect("every answer arrives");
        assert_eq!(buffer[..length], number.to_be_bytes());
        number += 1;
    }
    number
}

#[test]
fn replacing_programs_loses_no_datagram() {
    for mode in [AttachMode::Tcx, AttachMode::Filter] {
        let node = Node::create();
        let mut datapaths = vec![node.load_with(mode)];
        let (one, other) = (node.add_pod(5), node.add_pod(6));
        node.attach(&datapaths[0], &[&one, &other]);
        // Only the programs deliver: a device without one, however shortly, loses what is sent then.
        node.netns.run(|| sysctl::set("net.ipv4.ip_forward", "0")).unwrap().unwrap();
        let (client, server) = sockets(&one, &other, 0);
        datapaths.push(node.load_with(mode));
        let stop = AtomicBool::new(false);
        let answered = thread::scope(|scope| {
            let stream = scope.spawn(|| stream(&client, &server, &stop));
            for round in 0..400 {
                node.attach(&datapaths[(round + 1) % 2], &[&one, &other]);
            }
            stop.store(true, Ordering::Release);
            stream.join().unwrap()
        });
        assert!(answered > 0, "{mode:?}");
    }
}

#[test]
fn garbage_is_judged_without_an_error() {
    let node = Node::create();
    let datapath = node.load();
    let program = datapath.program("from_container").unwrap();
    let outcome = testrun::run(program, &[0xff; 64], Context { mark: 7, ..Context::default() }, 1).unwrap();
    assert_eq!(outcome.packet.len(), 64);
    assert!(testrun::run(program, &[0; 3], Context::default(), 1).is_err());
}

#[test]
fn this_kernel_has_what_is_required() {
    cilium_drivers::testing::require_root();
    let mount = rustix::mount::fsopen("cgroup2", rustix::mount::FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    rustix::mount::fsconfig_create(&mount).unwrap();
    let mount = rustix::mount::fsmount(
        &mount,
        rustix::mount::FsMountFlags::FSMOUNT_CLOEXEC,
        rustix::mount::MountAttrFlags::empty(),
    )
    .unwrap();
    let cgroup = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()));
    let features = probe::probe(&cgroup);
    let missing: Vec<_> = features.iter().filter(|feature| feature.required && !feature.available).collect();
    assert!(missing.is_empty(), "{missing:?}");
    let elsewhere = probe::probe(&PathBuf::from("/proc"));
    let cgroup = elsewhere.iter().find(|feature| feature.name == "cgroup v2").unwrap();
    assert!(!cgroup.available && cgroup.detail == "/proc is not a cgroup2 file system", "{cgroup:?}");
}
