//! Load balancers ask nodes for the health of Services.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use cilium_api::parts::{Backend, BackendPlace, Part, PartKey, Service, ServicePort};

use crate::parts::{NODE, address4, mk_shared};
use crate::stage::{Stage, eventually};

const PORT: u16 = 31_000;

/// A Service with these pods of the node behind it, and one elsewhere.
fn mk_service(pods: &[u16]) -> (PartKey, Part) {
    let backend = |id: u16, node: &str| {
        let place = BackendPlace { node: node.to_owned(), ..BackendPlace::default() };
        Backend { address: address4(id).into(), port: 80, place: Some(Box::new(place)) }
    };
    let own = pods.iter().map(|id| backend(*id, NODE));
    let backends = own.chain([backend(200, "elsewhere")]).collect();
    let port = ServicePort { name: String::new(), protocol: 6, port: 80, node_port: 30_000, backends };
    let service = Service {
        cluster_ips: vec!["10.96.0.2".parse().expect("an address")],
        external_local: true,
        health_port: PORT,
        ports: vec![port],
        ..Service::default()
    };
    (PartKey::service("default", "web"), Part::Service(service))
}

fn plan(stage: &Stage, pods: &[u16]) {
    let mut shared = mk_shared(1..=2);
    shared.extend([mk_service(pods)]);
    stage.plan_shared(&shared);
}

/// What the node says to somebody outside; nothing when nobody listens.
fn asked(stage: &Stage, address: &str) -> String {
    let address = SocketAddr::new(address.parse().expect("an address"), PORT);
    let ask = || {
        let mut answer = String::new();
        let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(5)) else {
            return answer;
        };
        if stream.write_all(b"GET / HTTP/1.1\r\nHost: node\r\n\r\n").is_ok() {
            // Who is in the middle of closing has said nothing.
            let _ = stream.read_to_string(&mut answer);
        }
        answer
    };
    stage.outside.run(ask).expect("enters")
}

fn await_answer(stage: &Stage, status: u16, local: usize) {
    for address in ["192.0.2.1", "2001:db8::1"] {
        eventually(&format!("{address} says {status}"), || {
            let answer = asked(stage, address);
            answer.starts_with(&format!("HTTP/1.1 {status} "))
                && answer.contains(&format!("\"localEndpoints\":{local},"))
        });
    }
}

#[test]
fn the_health_of_a_service_is_told_to_the_network_whoever_is_down() {
    let mut stage = Stage::create(2, &[]);
    stage.await_ready();
    plan(&stage, &[1, 2]);
    await_answer(&stage, 200, 2);
    plan(&stage, &[]);
    await_answer(&stage, 503, 0);
    plan(&stage, &[2]);
    await_answer(&stage, 200, 1);
    stage.kill_server();
    await_answer(&stage, 200, 1);
    stage.kill_agent();
    assert_eq!(asked(&stage, "192.0.2.1"), "");
    stage.start_agent();
    await_answer(&stage, 200, 1);
}

#[test]
fn a_port_that_somebody_else_has_is_a_failure_until_it_is_free() {
    let stage = Stage::create(1, &[]);
    stage.await_ready();
    let listen = || TcpListener::bind(("0.0.0.0", PORT)).expect("nobody has it yet");
    let somebody = stage.netns.run(listen).expect("enters");
    plan(&stage, &[1]);
    eventually("the operator is told", || {
        let failures = stage.last_ack()["failures"].to_string();
        failures.contains("service/default/web")
            && failures.contains("healthCheckNodePort 31000: cannot listen")
    });
    drop(somebody);
    eventually("the operator is told that it is over", || {
        !stage.last_ack()["failures"].to_string().contains("service/default/web")
    });
    await_answer(&stage, 200, 1);
}
