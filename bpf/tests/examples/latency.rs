//! UDP request-response and TCP throughput between two pods of a node, against two namespaces joined by a bare device pair:
//! `cargo run --release -p bpf-tests --example latency` (as root).

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use bpf_tests::cluster::{Cluster, identity, pod_ip};
use bpf_tests::stage::{ip, net};
use bpf_tests::{Family, Mode, Rule};
use cilium_drivers::netns::Netns;
use cilium_drivers::testing;

const ROUNDS: usize = 60;
const EXCHANGES: usize = 4_000;
const STREAM: Duration = Duration::from_millis(200);

struct Ends<'a> {
    client: (&'a Netns, IpAddr),
    server: (&'a Netns, IpAddr),
}

/// Median of the round trips, in nanoseconds.
fn round_trip(ends: &Ends<'_>) -> u128 {
    let bind =
        |(netns, address): (&Netns, IpAddr)| netns.run(|| UdpSocket::bind((address, 0))).expect("a thread");
    let (client, server) = (bind(ends.client).expect("a socket"), bind(ends.server).expect("a socket"));
    client.connect(server.local_addr().expect("an address")).expect("an address of a pod");
    server.connect(client.local_addr().expect("an address")).expect("an address of a pod");
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut buffer = [0; 64];
            for _ in 0..EXCHANGES {
                let length = server.recv(&mut buffer).expect("a question");
                server.send(&buffer[..length]).expect("room to send");
            }
        });
        let mut buffer = [0; 64];
        let mut times: Vec<u128> = (0..EXCHANGES)
            .map(|_| {
                let start = Instant::now();
                client.send(b"x").expect("room to send");
                client.recv(&mut buffer).expect("an answer");
                start.elapsed().as_nanos()
            })
            .collect();
        times.sort_unstable();
        times[EXCHANGES / 2]
    })
}

/// Megabytes in a second.
fn throughput(ends: &Ends<'_>) -> u64 {
    let listener =
        ends.server.0.run(|| TcpListener::bind((ends.server.1, 0))).expect("a thread").expect("a port");
    let target = listener.local_addr().expect("an address");
    let mut client =
        ends.client.0.run(|| TcpStream::connect(target)).expect("a thread").expect("a connection");
    let (mut server, _) = listener.accept().expect("a connection");
    thread::scope(|scope| {
        scope.spawn(move || {
            let data = vec![0; 1 << 17];
            let start = Instant::now();
            while start.elapsed() < STREAM {
                client.write_all(&data).expect("a reader");
            }
        });
        let mut buffer = vec![0; 1 << 17];
        let (start, mut total) = (Instant::now(), 0);
        while let Ok(length @ 1..) = server.read(&mut buffer) {
            total += length as u64;
        }
        total / (start.elapsed().as_millis() as u64).max(1) / 1000
    })
}

fn main() {
    let mut cluster = Cluster::new(Mode::Native);
    cluster.one.enforce(6, 10, Some(&[Rule(identity(1, 5), 0, None)]), Some(&[]));
    let bare = [testing::namespace(), testing::namespace()];
    testing::connect((&bare[0], "eth0", &[net("10.77.0.1/24")]), (&bare[1], "eth0", &[net("10.77.0.2/24")]));
    let floor = Ends { client: (&bare[0], ip("10.77.0.1")), server: (&bare[1], ip("10.77.0.2")) };
    let pods = Family::ALL.map(|family| Ends {
        client: (&cluster.one.pod(5).netns, pod_ip(1, 5, family)),
        server: (&cluster.one.pod(6).netns, pod_ip(1, 6, family)),
    });
    // Short turns, so that whatever else the machine does hits all of them alike.
    let mut times = [const { Vec::new() }; 3];
    let mut rates = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        for (i, ends) in [&floor, &pods[0], &pods[1]].into_iter().enumerate() {
            times[i].push(round_trip(ends));
            rates[i].push(throughput(ends));
        }
    }
    for (i, what) in ["bare", "pods v4", "pods v6"].into_iter().enumerate() {
        times[i].sort_unstable();
        rates[i].sort_unstable();
        let (time, rate) = (times[i][ROUNDS / 2], rates[i][ROUNDS / 2]);
        let ratio = (time as f64 / times[0][ROUNDS / 2] as f64, rate as f64 / rates[0][ROUNDS / 2] as f64);
        println!("{what}: {time} ns ({:.3}), {rate} MB/s ({:.3})", ratio.0, ratio.1);
    }
}
