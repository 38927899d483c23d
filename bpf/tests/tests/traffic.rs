//! Real packets between namespaces, through attached programs. Needs root, and fails without it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use bpf_tests::cluster::{Cluster, identity, node_ip, pod_ip, world};
use bpf_tests::services::Frontend;
use bpf_tests::{Family, Mode, Rule};
use cilium_drivers::netns::Netns;
use cilium_drivers::testing::finish_checksums;

/// How long a packet may take that is expected; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long to wait for a packet that shall not come.
const SILENCE: Duration = Duration::from_millis(300);

const TCP: u8 = 6;
const UDP: u8 = 17;

fn bind(netns: &Netns, address: IpAddr) -> UdpSocket {
    let socket = netns.run(|| UdpSocket::bind((address, 0)).unwrap()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Sends a datagram and its answer; gives the address that the server saw.
fn exchange(client: &UdpSocket, server: &UdpSocket, size: usize) -> SocketAddr {
    let (question, mut buffer) = (vec![7; size], vec![0; 65_536]);
    client.send_to(&question, server.local_addr().unwrap()).unwrap();
    let (length, from) = server.recv_from(&mut buffer).expect("the question arrives");
    assert_eq!(length, size);
    server.send_to(&buffer[..length], from).unwrap();
    let (length, answered) = client.recv_from(&mut buffer).expect("the answer arrives");
    assert_eq!((length, answered), (size, server.local_addr().unwrap()));
    from
}

fn is_silent(client: &UdpSocket, server: &UdpSocket) -> bool {
    client.send_to(b"denied", server.local_addr().unwrap()).unwrap();
    server.set_read_timeout(Some(SILENCE)).unwrap();
    let got = server.recv_from(&mut [0; 64]);
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    got.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

/// Sends a megabyte there and back over TCP; gives the address that the server saw.
fn stream(from: &Netns, to: &Netns, address: IpAddr) -> IpAddr {
    const SIZE: usize = 1 << 20;
    let listener = to.run(|| TcpListener::bind((address, 0)).unwrap()).unwrap();
    let target = listener.local_addr().unwrap();
    let mut connection =
        from.run(|| TcpStream::connect_timeout(&target, PATIENCE)).unwrap().expect("the server is reached");
    let (mut accepted, peer) = listener.accept().unwrap();
    for end in [&connection, &accepted] {
        end.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut data = vec![0; SIZE];
            accepted.read_exact(&mut data).unwrap();
            accepted.write_all(&data).unwrap();
        });
        let mut writer = connection.try_clone().unwrap();
        scope.spawn(move || writer.write_all(&vec![9; SIZE]).unwrap());
        let mut data = vec![0; SIZE];
        connection.read_exact(&mut data).unwrap();
        assert!(data.iter().all(|byte| *byte == 9));
    });
    peer.ip()
}

#[test]
fn pods_of_one_node() {
    let mut cluster = Cluster::new(Mode::Native);
    for (family, generation) in [(Family::V4, 10), (Family::V6, 20)] {
        cluster.one.enforce(6, generation, None, None);
        let (five, six) = (pod_ip(1, 5, family), pod_ip(1, 6, family));
        let (client, server) = (bind(&cluster.one.pod(5).netns, five), bind(&cluster.one.pod(6).netns, six));
        assert_eq!(exchange(&client, &server, 10).ip(), five);
        assert_eq!(exchange(&client, &server, 8000).ip(), five, "in fragments");
        assert_eq!(stream(&cluster.one.pod(5).netns, &cluster.one.pod(6).netns, six), five);
        cluster.one.enforce(6, generation + 1, Some(&[Rule(identity(1, 5), TCP, None)]), None);
        assert!(is_silent(&client, &server), "the same connection, under a policy without UDP");
        assert_eq!(stream(&cluster.one.pod(5).netns, &cluster.one.pod(6).netns, six), five);
        cluster.one.enforce(6, generation + 2, Some(&[Rule(identity(1, 5), UDP, None)]), None);
        exchange(&client, &server, 10);
    }
}

#[test]
fn pods_of_two_nodes() {
    for mode in [Mode::Native, Mode::Tunnel] {
        let mut cluster = Cluster::new(mode);
        for (family, generation) in [(Family::V4, 10), (Family::V6, 20)] {
            let (five, seven) = (pod_ip(1, 5, family), pod_ip(2, 7, family));
            cluster.two.enforce(7, generation, Some(&[Rule(identity(1, 5), 0, None)]), Some(&[]));
            let (one, two) = (&cluster.one.pod(5).netns, &cluster.two.pod(7).netns);
            let (client, server) = (bind(one, five), bind(two, seven));
            assert_eq!(exchange(&client, &server, 10).ip(), five, "{mode:?}");
            assert_eq!(exchange(&client, &server, 8000).ip(), five, "{mode:?}, in fragments");
            assert_eq!(stream(one, two, seven), five, "{mode:?}");
            let stranger = bind(&cluster.one.pod(6).netns, pod_ip(1, 6, family));
            assert!(is_silent(&stranger, &server), "{mode:?}");
        }
    }
}

#[test]
fn the_tunnel_names_a_sender_that_is_not_known_yet() {
    let mut cluster = Cluster::new(Mode::Tunnel);
    for (family, generation) in [(Family::V4, 10), (Family::V6, 20)] {
        let five = pod_ip(1, 5, family);
        cluster.two.forget(five);
        cluster.two.enforce(7, generation, Some(&[Rule(identity(1, 5), UDP, None)]), None);
        let client = bind(&cluster.one.pod(5).netns, five);
        let server = bind(&cluster.two.pod(7).netns, pod_ip(2, 7, family));
        client.send_to(b"hello", server.local_addr().unwrap()).unwrap();
        assert_eq!(server.recv_from(&mut [0; 16]).expect("it arrives").1, client.local_addr().unwrap());
    }
}

#[test]
fn a_node_reaches_pods_here_and_there() {
    for mode in [Mode::Native, Mode::Tunnel] {
        let mut cluster = Cluster::new(mode);
        for (family, generation) in [(Family::V4, 10), (Family::V6, 20)] {
            cluster.one.enforce(5, generation, Some(&[Rule(1, 0, None)]), Some(&[]));
            let local = stream(&cluster.one.netns, &cluster.one.pod(5).netns, pod_ip(1, 5, family));
            assert!([pod_ip(1, 1, family), node_ip(1, family)].contains(&local), "{mode:?}: {local}");

            cluster.two.enforce(7, generation, Some(&[Rule(6, TCP, None)]), Some(&[]));
            let remote = stream(&cluster.one.netns, &cluster.two.pod(7).netns, pod_ip(2, 7, family));
            assert!([pod_ip(1, 1, family), node_ip(1, family)].contains(&remote), "{mode:?}: {remote}");
        }
    }
}

#[test]
fn a_pod_reaches_nodes() {
    for mode in [Mode::Native, Mode::Tunnel] {
        let mut cluster = Cluster::new(mode);
        for (family, generation) in [(Family::V4, 10), (Family::V6, 20)] {
            let egress = [Rule(1, 0, None), Rule(6, 0, None)];
            cluster.one.enforce(5, generation, Some(&[]), Some(&egress));
            let pod = &cluster.one.pod(5).netns;
            let five = pod_ip(1, 5, family);
            assert_eq!(stream(pod, &cluster.one.netns, node_ip(1, family)), five, "{mode:?}");
            assert_eq!(stream(pod, &cluster.one.netns, pod_ip(1, 1, family)), five, "{mode:?}");
            let seen = stream(pod, &cluster.two.netns, node_ip(2, family));
            let expected = if mode == Mode::Tunnel { node_ip(1, family) } else { five };
            assert_eq!(seen, expected, "{mode:?}");
        }
    }
}

/// A connection from an address of its own.
fn connect(from: IpAddr, to: SocketAddr) -> TcpStream {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket, sockopt};
    let family = if from.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket(family, SocketType::STREAM, None).unwrap();
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(PATIENCE)).unwrap();
    bind(&socket, &SocketAddr::new(from, 0)).unwrap();
    connect(&socket, &to).expect("the server is reached");
    socket.into()
}

/// A client outside comes to a port of node 1, by UDP and by TCP.
fn visit(cluster: &Cluster, family: Family, backend: (&Netns, IpAddr), large: usize) -> IpAddr {
    const PORT: u16 = 30_080;
    let at = SocketAddr::new(node_ip(1, family), PORT);
    let listener = backend.0.run(|| TcpListener::bind((backend.1, 80)).unwrap()).unwrap();
    let server = backend.0.run(|| UdpSocket::bind((backend.1, 80)).unwrap()).unwrap();
    let client = bind(&cluster.two.netns, world(family));
    // The machines have not met before, so the first packets may get lost.
    assert!((0..10u8).any(|number| is_answered(&client, &server, at, &[number; 10])), "{family:?}");
    for end in [&client, &server] {
        end.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    for size in [10, large] {
        let mut buffer = vec![0; 65_536];
        client.send_to(&vec![7; size], at).unwrap();
        let (length, from) = server.recv_from(&mut buffer).expect("the question arrives");
        server.send_to(&buffer[..length], from).unwrap();
        assert_eq!(client.recv_from(&mut buffer).expect("the answer arrives"), (size, at));
    }
    let mut connection = cluster.two.netns.run(|| connect(world(family), at)).unwrap();
    let (mut accepted, peer) = listener.accept().unwrap();
    for end in [&connection, &accepted] {
        end.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    connection.write_all(b"question").unwrap();
    accepted.read_exact(&mut [0; 8]).unwrap();
    accepted.write_all(&vec![5; 100_000]).unwrap();
    connection.read_exact(&mut vec![0; 100_000]).unwrap();
    drop(accepted);
    assert_eq!(connection.read(&mut [0; 1]).unwrap(), 0, "the end arrives, too");
    peer.ip()
}

#[test]
fn the_world_is_served_at_a_port_of_a_node() {
    for mode in [Mode::Native, Mode::Tunnel] {
        let mut cluster = Cluster::new(mode);
        for (generation, family) in (1u32..).zip(Family::ALL) {
            let any = if family == Family::V4 { "0.0.0.0:30080" } else { "[::]:30080" };
            let any = any.parse().unwrap();
            let serve = |cluster: &mut Cluster, number: u32, backend: IpAddr| {
                for protocol in [TCP, UDP] {
                    let generation = 100 * generation + 10 * number + u32::from(protocol);
                    let service = Frontend { generation, protocol, ..Frontend::default() };
                    service.serve(&mut cluster.one.maps, any, &[(backend, 80).into()]);
                }
            };
            let here = pod_ip(1, 5, family);
            serve(&mut cluster, 1, here);
            cluster.one.enforce(
                5,
                10 * generation,
                Some(&[Rule(9, 0, Some(80)), Rule(10, 0, Some(80))]),
                None,
            );
            assert_eq!(
                visit(&cluster, family, (&cluster.one.pod(5).netns, here), 8000),
                world(family),
                "{mode:?}"
            );

            // In the tunnel, the other node hears that a client from the world is behind the node's address.
            let elsewhere = pod_ip(2, 7, family);
            serve(&mut cluster, 2, elsewhere);
            let who: &[u32] = if mode == Mode::Tunnel { &[9, 10] } else { &[6] };
            let rules: Vec<Rule> = who.iter().map(|who| Rule(*who, 0, Some(80))).collect();
            cluster.two.enforce(7, 10 * generation, Some(&rules), None);
            // Fragments that fill a frame do not fit into a tunnel over IPv6, which has no fragments on the way.
            let large = if (mode, family) == (Mode::Tunnel, Family::V6) { 1300 } else { 8000 };
            let seen = visit(&cluster, family, (&cluster.two.pod(7).netns, elsewhere), large);
            assert_eq!(seen, node_ip(1, family), "{mode:?}");
        }
    }
}

/// Puts a service of a port of node 1 in force, with one backend on node 2.
fn serve_elsewhere(cluster: &mut Cluster, family: Family, generation: u32) -> IpAddr {
    let (any, backend) = if family == Family::V4 { ("0.0.0.0:30080", 4) } else { ("[::]:30080", 6) };
    let address = pod_ip(2, 7, family);
    for protocol in [TCP, UDP] {
        let generation = 1000 * generation + 10 * backend + u32::from(protocol);
        let service = Frontend { generation, protocol, ..Frontend::default() };
        service.serve(&mut cluster.one.maps, any.parse().unwrap(), &[(address, 80).into()]);
    }
    address
}

/// A client with a connection that is known, its server, and the service. The machines have not met before, so the first packets may get
/// lost.
fn meet(cluster: &Cluster, family: Family, backend: IpAddr) -> (UdpSocket, UdpSocket, SocketAddr) {
    let pod = &cluster.two.pod(7).netns;
    let server = pod.run(|| UdpSocket::bind((backend, 80)).unwrap()).unwrap();
    let client = bind(&cluster.two.netns, world(family));
    let at = SocketAddr::new(node_ip(1, family), 30_080);
    assert!((0..10u8).any(|number| is_answered(&client, &server, at, &[number; 10])), "{family:?}");
    (client, server, at)
}

#[test]
fn known_clients_are_served_before_the_stack() {
    let mut cluster = Cluster::new(Mode::Native);
    finish_checksums(&cluster.two.netns, "up0");
    cluster.one.accelerate();
    for (generation, family) in (1u32..).zip(Family::ALL) {
        let backend = serve_elsewhere(&mut cluster, family, generation);
        drop(meet(&cluster, family, backend));
        let seen = visit(&cluster, family, (&cluster.two.pod(7).netns, backend), 1300);
        assert_eq!(seen, node_ip(1, family));
    }
}

#[test]
fn without_the_long_way_known_clients_are_still_served() {
    let mut cluster = Cluster::new(Mode::Native);
    finish_checksums(&cluster.two.netns, "up0");
    let mut ends = Vec::new();
    for (generation, family) in (1u32..).zip(Family::ALL) {
        let backend = serve_elsewhere(&mut cluster, family, generation);
        ends.push(meet(&cluster, family, backend));
    }
    cluster.one.accelerate();
    cluster.one.leave_to_early();
    for (client, server, at) in &ends {
        // One in 65,536 checksums looks as if it was to be finished: three are not of that kind.
        let answered = (0..3u8).filter(|number| is_answered(client, server, *at, &[*number; 100])).count();
        assert!(answered >= 2, "{answered} of 3 at {at}");
        assert!(!is_answered(&bind(&cluster.two.netns, world_like(at)), server, *at, b"stranger"));
    }
}

fn world_like(at: &SocketAddr) -> IpAddr {
    world(if at.is_ipv4() { Family::V4 } else { Family::V6 })
}

/// A datagram to a service comes to the server, and its answer back from the service.
fn is_answered(client: &UdpSocket, server: &UdpSocket, at: SocketAddr, question: &[u8]) -> bool {
    for end in [client, server] {
        end.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    }
    let mut buffer = [0; 256];
    client.send_to(question, at).unwrap();
    let Ok((length, from)) = server.recv_from(&mut buffer) else { return false };
    server.send_to(&buffer[..length], from).unwrap();
    client.recv_from(&mut buffer).is_ok_and(|answer| answer == (question.len(), at))
}

#[test]
fn the_world_sees_the_node() {
    for mode in [Mode::Native, Mode::Tunnel] {
        let mut cluster = Cluster::new(mode);
        for (family, generation) in [(Family::V4, 10), (Family::V6, 20)] {
            cluster.one.enforce(5, generation, Some(&[]), Some(&[Rule(0, 0, None)]));
            let pod = &cluster.one.pod(5).netns;
            assert_eq!(stream(pod, &cluster.two.netns, world(family)), node_ip(1, family), "{mode:?}");
            let client = bind(pod, pod_ip(1, 5, family));
            let server = bind(&cluster.two.netns, world(family));
            assert_eq!(exchange(&client, &server, 10).ip(), node_ip(1, family));
            assert_eq!(exchange(&client, &server, 8000).ip(), node_ip(1, family), "in fragments");

            let closed = server.local_addr().unwrap();
            drop(server);
            client.connect(closed).unwrap();
            client.send(b"anybody there?").unwrap();
            let refused = client.recv(&mut [0; 16]).expect_err("nobody is there");
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "the ICMP error finds its way");
        }
    }
}
