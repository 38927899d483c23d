//! Destroying sockets of programs on the real kernel, in namespaces of their own. Needs root.
#![expect(clippy::unwrap_used, reason = "a test stops where something fails")]

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsFd,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use cilium_drivers::{
    netlink::{Connected, Sockets, Transport},
    netns::Netns,
    probe, testing,
};
use rustix::net::sockopt::socket_cookie;

/// What needs no time, on a machine that is busy with other things.
const AT_ONCE: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(20);

/// Two ends of a link: programs in one, and what they talk to in the other.
struct Link {
    here: Netns,
    there: Netns,
}

impl Link {
    fn create() -> Self {
        let (here, there) = (testing::namespace(), testing::namespace());
        let net = |text: &str| text.parse().unwrap();
        testing::connect(
            (&here, "up0", &[net("192.0.2.1/24"), net("2001:db8::1/64")]),
            (&there, "up0", &[net("192.0.2.2/24"), net("2001:db8::2/64"), net("192.0.2.3/24")]),
        );
        let link = Self { here, there };
        // An IPv6 address is in use a moment after it was set.
        let deadline = Instant::now() + PATIENCE;
        while link.there.run(|| UdpSocket::bind("[2001:db8::2]:0").is_err()).unwrap()
            || link.here.run(|| UdpSocket::bind("[2001:db8::1]:0").is_err()).unwrap()
        {
            assert!(Instant::now() < deadline, "an address is not in use");
            thread::sleep(Duration::from_millis(10));
        }
        link
    }

    fn listen(&self, address: IpAddr) -> TcpListener {
        self.there.run(|| TcpListener::bind((address, 0)).unwrap()).unwrap()
    }

    fn connect(&self, to: SocketAddr) -> TcpStream {
        let stream = self.here.run(|| TcpStream::connect_timeout(&to, PATIENCE).unwrap()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn udp(&self, from: &str, to: SocketAddr) -> UdpSocket {
        let socket = self.here.run(|| UdpSocket::bind(from).unwrap()).unwrap();
        self.here.run(|| socket.connect(to).unwrap()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    /// The socket with that cookie, as the kernel lists it.
    fn find(&self, transport: Transport, socket: impl AsFd) -> Connected {
        let cookie = socket_cookie(socket).unwrap();
        let mut sockets = Sockets::open_in(&self.here).unwrap();
        let found = sockets.connected(transport, |found| found.cookie == cookie).unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        found[0].clone()
    }

    fn destroy(&self, socket: &Connected) -> bool {
        Sockets::open_in(&self.here).unwrap().destroy(socket).unwrap()
    }
}

fn peers() -> [IpAddr; 2] {
    ["192.0.2.2".parse().unwrap(), "2001:db8::2".parse().unwrap()]
}

fn mapped(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(v4) => (v4.to_ipv6_mapped(), address.port()).into(),
        IpAddr::V6(_) => address,
    }
}

/// Whether both ends still talk.
fn talks(mut stream: &TcpStream, listener_side: &mut TcpStream) -> bool {
    let mut byte = [0];
    stream.write_all(b"x").is_ok() && listener_side.read_exact(&mut byte).is_ok() && byte == *b"x"
}

#[test]
fn a_program_that_waits_on_a_connection_is_told_at_once_and_nobody_else() {
    let link = Link::create();
    for peer in peers() {
        let listener = link.listen(peer);
        let address = listener.local_addr().unwrap();
        let (gone, stays) = (link.connect(address), link.connect(address));
        let (_first, mut other) = (listener.accept().unwrap(), listener.accept().unwrap().0);
        let found = link.find(Transport::Tcp, &gone);
        assert_eq!((found.local, found.peer), (gone.local_addr().unwrap(), address));
        let (error, took) = thread::scope(|scope| {
            let waits = scope.spawn(|| {
                let error = (&gone).read(&mut [0]).unwrap_err();
                (error, Instant::now())
            });
            thread::sleep(Duration::from_millis(50));
            let begin = Instant::now();
            assert!(link.destroy(&found));
            let (error, end) = waits.join().unwrap();
            (error, end.saturating_duration_since(begin))
        });
        assert_eq!(error.kind(), ErrorKind::ConnectionAborted, "{error}");
        assert!(took < AT_ONCE, "{took:?}");
        assert!(talks(&stays, &mut other), "another connection to {address}");
        assert!(!link.destroy(&found), "it is gone already");
    }
}

#[test]
fn a_connected_udp_socket_is_told_at_once_and_nobody_else() {
    let link = Link::create();
    for (peer, any) in peers().into_iter().zip(["0.0.0.0:0", "[::]:0"]) {
        let server = link.there.run(|| UdpSocket::bind((peer, 0)).unwrap()).unwrap();
        let address = server.local_addr().unwrap();
        let (gone, stays) = (link.udp(any, address), link.udp(any, address));
        let found = link.find(Transport::Udp, &gone);
        assert_eq!(found.peer, address);
        let begin = Instant::now();
        assert!(link.destroy(&found));
        assert_eq!(gone.recv(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionAborted);
        assert!(begin.elapsed() < AT_ONCE);
        assert_eq!(stays.send(b"x").unwrap(), 1);
        assert_eq!(server.recv(&mut [0]).unwrap(), 1);
        assert!(!link.destroy(&found), "it has no peer any more");
    }
}

#[test]
fn a_socket_of_ipv6_that_talks_to_ipv4_is_found_and_destroyed() {
    let link = Link::create();
    let listener = link.listen(peers()[0]);
    let address = mapped(listener.local_addr().unwrap());
    let stream = link.connect(address);
    let found = link.find(Transport::Tcp, &stream);
    assert_eq!(found.peer, address);
    assert!(link.destroy(&found));
    assert_eq!((&stream).read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionAborted);

    let server = link.there.run(|| UdpSocket::bind((peers()[0], 0)).unwrap()).unwrap();
    let address = mapped(server.local_addr().unwrap());
    let socket = link.udp("[::]:0", address);
    assert!(link.destroy(&link.find(Transport::Udp, &socket)));
    assert_eq!(socket.recv(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionAborted);
}

#[test]
fn addresses_and_ports_alone_are_not_enough() {
    let link = Link::create();
    let listener = link.listen(peers()[0]);
    let stream = link.connect(listener.local_addr().unwrap());
    let mut other = listener.accept().unwrap().0;
    let mut found = link.find(Transport::Tcp, &stream);
    found.cookie += 1;
    assert!(!link.destroy(&found), "the socket that was meant is gone, and this is another one");
    assert!(talks(&stream, &mut other));
}

#[test]
fn a_program_that_waits_for_a_connection_is_told() {
    let link = Link::create();
    // Nobody has that address, and the kernel asks for it for a while.
    let address: SocketAddr = "192.0.2.77:80".parse().unwrap();
    thread::scope(|scope| {
        let waits = scope.spawn(|| link.here.run(|| TcpStream::connect(address)).unwrap());
        let mut sockets = Sockets::open_in(&link.here).unwrap();
        let deadline = Instant::now() + AT_ONCE;
        let found = loop {
            let found = sockets.connected(Transport::Tcp, |found| found.peer == address).unwrap();
            if let Some(found) = found.first() {
                break found.clone();
            }
            assert!(Instant::now() < deadline, "it does not connect");
            thread::sleep(Duration::from_millis(5));
        };
        assert!(sockets.destroy(&found).unwrap());
        assert_eq!(waits.join().unwrap().unwrap_err().kind(), ErrorKind::ConnectionAborted);
    });
}

#[test]
fn sockets_without_a_peer_are_not_listed() {
    let link = Link::create();
    let _listener = link.listen(peers()[0]);
    let _socket = link.there.run(|| UdpSocket::bind((peers()[0], 0)).unwrap()).unwrap();
    let mut sockets = Sockets::open_in(&link.there).unwrap();
    for transport in Transport::ALL {
        assert_eq!(sockets.connected(transport, |_| true).unwrap(), []);
    }
}

#[test]
fn a_kernel_that_destroys_sockets_is_found_out() {
    testing::require_root();
    let features = probe::probe(Path::new("/proc"));
    let found = features.iter().find(|feature| feature.name == "socket destroy").unwrap();
    assert!(found.available && !found.required, "{found:?}");
}
