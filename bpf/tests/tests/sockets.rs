//! Services at the socket: real connects and datagrams of this process, in a cgroup of its own. Needs root, and fails without
//! it. One test, because a process is in one cgroup only.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use bpf_tests::Family as PacketFamily;
use bpf_tests::stage::{Mode, Place, Stage, ip};
use cilium_bpf::layout::{
    Addr, BackendEntry, BackendKey, CONFIG_REDIRECTS, CONFIG_SET_RETVAL, ExemptEntry, ExemptKey, NetPort,
    SCOPE_EXEMPT, SCOPE_INTERNAL, SERVICE_AT_OWN_NODE, ServiceEntry, ServiceKey,
};
use cilium_delta::Table;
use cilium_drivers::netns::Netns;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

const TCP: u8 = 6;
const UDP: u8 = 17;

/// A cgroup that this process is in until the handle goes.
struct Membership {
    cgroup: PathBuf,
    before: PathBuf,
    _mount: OwnedFd,
}

impl Membership {
    fn join() -> Self {
        let context =
            fsopen("cgroup2", FsOpenFlags::FSOPEN_CLOEXEC).expect("root, and a kernel with cgroup2");
        fsconfig_create(&context).unwrap();
        let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).unwrap();
        let root = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()));
        let cgroup = root.join(format!("bpf-tests-{}", std::process::id()));
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or("").to_owned();
        fs::create_dir(&cgroup).unwrap();
        fs::write(cgroup.join("cgroup.procs"), "0").unwrap();
        Self { cgroup, before: root.join(own), _mount: mount }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        fs::write(self.before.join("cgroup.procs"), "0").unwrap();
        fs::remove_dir(&self.cgroup).unwrap();
    }
}

struct Services {
    stage: Stage,
    generation: u32,
    /// `SERVICE_*` bits of services that are set.
    flags: u32,
    /// Scope of services that are set.
    scope: u8,
}

impl Services {
    fn new(stage: Stage) -> Self {
        Self { stage, generation: 0, flags: 0, scope: SCOPE_INTERNAL }
    }

    /// Puts a service in force: backends under a new generation first, then the service.
    fn set(&mut self, service: SocketAddr, protocol: u8, backends: &[SocketAddr]) {
        self.set_with(service, protocol, backends, 0);
    }

    fn set_with(&mut self, service: SocketAddr, protocol: u8, backends: &[SocketAddr], affinity: u32) {
        self.generation += 1;
        let generation = self.generation;
        for (index, backend) in backends.iter().enumerate() {
            let key = BackendKey { generation, index: index as u32 };
            let entry = BackendEntry { address: backend.ip().into(), port: NetPort(backend.port()) };
            self.stage.maps.backends.set(&key, &entry).unwrap();
        }
        let key = ServiceKey { scope: self.scope, ..mk_key(service, protocol) };
        let entry = ServiceEntry { generation, count: backends.len() as u32, affinity, flags: self.flags };
        self.stage.maps.services.set(&key, &entry).unwrap();
    }
}

fn mk_key(service: SocketAddr, protocol: u8) -> ServiceKey {
    let (address, port) = (service.ip().into(), NetPort(service.port()));
    ServiceKey { address, port, protocol, scope: SCOPE_INTERNAL }
}

struct Family {
    service: IpAddr,
    loopback: IpAddr,
}

fn families() -> [Family; 2] {
    [
        Family { service: ip("10.96.0.10"), loopback: ip("127.0.0.1") },
        Family { service: ip("fd00:96::10"), loopback: ip("::1") },
    ]
}

fn listen(address: IpAddr) -> TcpListener {
    TcpListener::bind((address, 0)).unwrap()
}

fn udp(address: IpAddr) -> UdpSocket {
    let socket = UdpSocket::bind((address, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket
}

#[test]
fn sockets_reach_services() {
    for flags in [CONFIG_SET_RETVAL, 0] {
        let stage = Stage::with_config(Mode::Native, |config| config.flags = flags);
        let membership = Membership::join();
        assert_eq!(stage.datapath.attach_cgroup(&membership.cgroup).unwrap(), 8);
        let mut services = Services::new(stage);
        for family in families() {
            tcp_connects_and_sees_the_service(&mut services, &family);
            connections_spread_over_backends(&mut services, &family);
            datagrams_go_there_and_seem_to_come_from_there(&mut services, &family);
            a_client_keeps_its_backend(&mut services, &family, flags & CONFIG_SET_RETVAL != 0);
            without_backends_connecting_fails(&mut services, &family, flags);
            other_addresses_are_left_alone(&mut services, &family);
        }
        mapped_addresses_are_ipv4(&mut services);
    }
    ports_of_nodes_are_met_at_addresses_of_nodes();
    namespaces_that_are_exempt_meet_what_is_there_otherwise();
}

/// A redirect is a service; who is exempt has the Service in its place, or nothing where there is none.
fn namespaces_that_are_exempt_meet_what_is_there_otherwise() {
    let own = Netns::cookie().unwrap();
    for (flags, cookie) in [(CONFIG_REDIRECTS, own), (CONFIG_REDIRECTS, own + 1), (0, own)] {
        // Loopback addresses are the node's: for this test, anybody's.
        let stage =
            Stage::with_config(Mode::Native, |config| (config.flags, config.netns_cookie) = (flags, own));
        let membership = Membership::join();
        stage.datapath.attach_cgroup(&membership.cgroup).unwrap();
        let mut services = Services::new(stage);
        let is_exempt = (flags, cookie) == (CONFIG_REDIRECTS, own);
        for family in families() {
            let (local, usual) = (listen(family.loopback), listen(family.loopback));
            let of_service = SocketAddr::new(family.service, 80);
            // Where somebody answers without any service.
            let alone = listen(family.loopback);
            let by_itself = alone.local_addr().unwrap();
            for redirected in [of_service, by_itself] {
                services.set(redirected, TCP, &[local.local_addr().unwrap()]);
                let key = ExemptKey { client: Addr::of_netns(cookie), service: mk_key(redirected, TCP) };
                services.stage.maps.exempt.set(&key, &ExemptEntry { exempt: 1 }).unwrap();
            }
            services.scope = SCOPE_EXEMPT;
            services.set(of_service, TCP, &[usual.local_addr().unwrap()]);
            services.scope = SCOPE_INTERNAL;
            for (redirected, otherwise) in [(of_service, &usual), (by_itself, &alone)] {
                assert_eq!(is_led(redirected, otherwise), is_exempt);
                assert_eq!(is_led(redirected, &local), !is_exempt);
            }
            datagrams_are_exempt_too(&mut services, &family, cookie, is_exempt);
        }
    }
}

fn datagrams_are_exempt_too(services: &mut Services, family: &Family, cookie: u64, is_exempt: bool) {
    let (local, usual) = (udp(family.loopback), udp(family.loopback));
    let service = SocketAddr::new(family.service, 53);
    services.set(service, UDP, &[local.local_addr().unwrap()]);
    services.scope = SCOPE_EXEMPT;
    services.set(service, UDP, &[usual.local_addr().unwrap()]);
    services.scope = SCOPE_INTERNAL;
    let key = ExemptKey { client: Addr::of_netns(cookie), service: mk_key(service, UDP) };
    services.stage.maps.exempt.set(&key, &ExemptEntry { exempt: 1 }).unwrap();
    let client = udp(family.loopback);
    client.send_to(b"question", service).unwrap();
    let (server, mut buffer) = (if is_exempt { &usual } else { &local }, [0; 16]);
    let (_, from) = server.recv_from(&mut buffer).unwrap();
    server.send_to(b"answer", from).unwrap();
    assert_eq!(client.recv_from(&mut buffer).unwrap().1, service);
}

/// Whether a connection to an address comes to the listener, as seen by the client.
fn is_led(to: SocketAddr, listener: &TcpListener) -> bool {
    listener.set_nonblocking(true).unwrap();
    let Ok(connection) = TcpStream::connect_timeout(&to, Duration::from_millis(200)) else { return false };
    assert_eq!(connection.peer_addr().unwrap(), to);
    listener.accept().is_ok()
}

fn ports_of_nodes_are_met_at_addresses_of_nodes() {
    const PORT: u16 = 30_080;
    let own = Netns::cookie().unwrap();
    for cookie in [own, own + 1] {
        let stage = Stage::with_config(Mode::Native, |config| config.netns_cookie = cookie);
        let membership = Membership::join();
        stage.datapath.attach_cgroup(&membership.cgroup).unwrap();
        let mut services = Services::new(stage);
        for (family, version) in families().iter().zip(PacketFamily::ALL) {
            let listener = listen(family.loopback);
            let any = if version == PacketFamily::V4 { "0.0.0.0" } else { "::" };
            services.set(SocketAddr::new(ip(any), PORT), TCP, &[listener.local_addr().unwrap()]);
            for node in [Place::Host, Place::RemoteNode] {
                assert!(is_led(node.at(version, PORT), &listener), "{node:?}");
                assert!(!is_led(node.at(version, PORT + 1), &listener), "no service has that port");
            }
            assert!(!is_led(Place::World.at(version, PORT), &listener), "no address of a node");
            services.flags = SERVICE_AT_OWN_NODE;
            services.set(SocketAddr::new(ip(any), PORT), TCP, &[listener.local_addr().unwrap()]);
            services.flags = 0;
            assert!(is_led(Place::Host.at(version, PORT), &listener));
            assert!(!is_led(Place::RemoteNode.at(version, PORT), &listener), "the other node decides");
            let loopback = SocketAddr::new(family.loopback, PORT);
            assert_eq!(is_led(loopback, &listener), cookie == own, "a pod's loopback address is its own");
            // So it is with an address that is named as it is.
            let named = SocketAddr::new(family.loopback, 81);
            services.set(named, TCP, &[listener.local_addr().unwrap()]);
            assert_eq!(is_led(named, &listener), cookie == own);
        }
    }
}

fn tcp_connects_and_sees_the_service(services: &mut Services, family: &Family) {
    let listener = listen(family.loopback);
    let service = SocketAddr::new(family.service, 80);
    services.set(service, TCP, &[listener.local_addr().unwrap()]);
    let connection = TcpStream::connect(service).unwrap();
    let (_, peer) = listener.accept().unwrap();
    assert_eq!(peer, connection.local_addr().unwrap());
    assert_eq!(connection.peer_addr().unwrap(), service);
}

fn a_client_keeps_its_backend(services: &mut Services, family: &Family, searches: bool) {
    let service = SocketAddr::new(family.service, 82);
    let sockets: Vec<UdpSocket> = (0..8).map(|_| udp(family.loopback)).collect();
    let mut backends: Vec<SocketAddr> = sockets.iter().map(|it| it.local_addr().unwrap()).collect();
    let chosen = |services: &Services| {
        let _running = &services.stage;
        let client = udp(family.loopback);
        client.send_to(b"hello", service).unwrap();
        let mut buffer = [0; 8];
        sockets.iter().for_each(|it| it.set_nonblocking(true).unwrap());
        sockets.iter().position(|socket| socket.recv(&mut buffer).is_ok()).unwrap()
    };
    services.set_with(service, UDP, &backends, 60);
    let first = chosen(services);
    assert!((0..32).all(|_| chosen(services) == first));
    // The set changes, and its order: the backend is still there.
    backends.reverse();
    backends.remove(usize::from(backends.len() - 1 == first));
    services.set_with(service, UDP, &backends, 60);
    let next = chosen(services);
    assert!(next == first || !searches);
    assert!((0..32).all(|_| chosen(services) == next));
    let first = next;
    // The backend goes: another one takes its place, and stays.
    let gone = sockets[first].local_addr().unwrap();
    backends.retain(|backend| *backend != gone);
    services.set_with(service, UDP, &backends, 1);
    let second = chosen(services);
    assert_ne!(second, first);
    assert!((0..32).all(|_| chosen(services) == second));
    // After the time without a connection, any will do.
    let is_other = |_| {
        std::thread::sleep(Duration::from_millis(1100));
        chosen(services) != second
    };
    assert!((0..20).any(is_other), "twenty times the same of seven");
}

fn connections_spread_over_backends(services: &mut Services, family: &Family) {
    let listeners = [listen(family.loopback), listen(family.loopback)];
    let backends = listeners.each_ref().map(|listener| listener.local_addr().unwrap());
    let service = SocketAddr::new(family.service, 81);
    services.set(service, TCP, &backends);
    let connections: Vec<TcpStream> = (0..64).map(|_| TcpStream::connect(service).unwrap()).collect();
    let accepted = listeners.map(|listener| {
        listener.set_nonblocking(true).unwrap();
        std::iter::from_fn(|| listener.accept().ok()).count()
    });
    assert_eq!(accepted.iter().sum::<usize>(), connections.len());
    assert!(accepted.iter().all(|count| *count > 0), "{accepted:?}");

    // A new set of backends takes over with one write.
    let next = listen(family.loopback);
    services.set(service, TCP, &[next.local_addr().unwrap()]);
    let _connection = TcpStream::connect(service).unwrap();
    next.accept().unwrap();
}

fn datagrams_go_there_and_seem_to_come_from_there(services: &mut Services, family: &Family) {
    let servers = [udp(family.loopback), udp(family.loopback)];
    let service = SocketAddr::new(family.service, 53);
    services.set(service, UDP, &servers.each_ref().map(|server| server.local_addr().unwrap()));
    let mut buffer = [0; 16];

    let client = udp(family.loopback);
    client.send_to(b"question", service).unwrap();
    let serving = servers.iter().find(|server| {
        server.set_nonblocking(true).unwrap();
        server.peek(&mut [0; 16]).is_ok()
    });
    let server = serving.expect("one of them got it");
    server.set_nonblocking(false).unwrap();
    for _ in 0..4 {
        let (_, from) = server.recv_from(&mut buffer).unwrap();
        server.send_to(b"answer", from).unwrap();
        assert_eq!(client.recv_from(&mut buffer).unwrap().1, service);
        client.send_to(b"again", service).expect("to the same server");
    }

    let connected = udp(family.loopback);
    connected.connect(service).unwrap();
    assert_eq!(connected.peer_addr().unwrap(), service);
    connected.send(b"question").unwrap();

    // Whoever writes to the client from elsewhere keeps his own address.
    let stranger = udp(family.loopback);
    stranger.send_to(b"hello", client.local_addr().unwrap()).unwrap();
    assert_eq!(client.recv_from(&mut buffer).unwrap().1, stranger.local_addr().unwrap());
}

fn without_backends_connecting_fails(services: &mut Services, family: &Family, flags: u32) {
    let service = SocketAddr::new(family.service, 82);
    services.set(service, TCP, &[]);
    services.set(service, UDP, &[]);
    let expected = if flags == 0 { ErrorKind::PermissionDenied } else { ErrorKind::ConnectionRefused };
    assert_eq!(TcpStream::connect(service).unwrap_err().kind(), expected);
    let client = udp(family.loopback);
    assert_eq!(client.send_to(b"", service).unwrap_err().kind(), expected);
    assert_eq!(client.connect(service).unwrap_err().kind(), expected);
}

fn other_addresses_are_left_alone(services: &mut Services, family: &Family) {
    let listener = listen(family.loopback);
    let target = listener.local_addr().unwrap();
    // The same port of the service for another protocol is another service.
    services.set(SocketAddr::new(family.loopback, target.port()), UDP, &[]);
    let connection = TcpStream::connect(target).unwrap();
    assert_eq!(connection.peer_addr().unwrap(), target);
}

/// An IPv6 socket reaches an IPv4 service through the mapped address, and sees the mapped address.
fn mapped_addresses_are_ipv4(services: &mut Services) {
    let listener = listen(ip("127.0.0.1"));
    let service = SocketAddr::new(ip("10.96.0.10"), 83);
    services.set(service, TCP, &[listener.local_addr().unwrap()]);
    let mapped = SocketAddr::new(ip("::ffff:10.96.0.10"), 83);
    let connection = TcpStream::connect(mapped).unwrap();
    listener.accept().unwrap();
    assert_eq!(connection.peer_addr().unwrap(), mapped);
}
