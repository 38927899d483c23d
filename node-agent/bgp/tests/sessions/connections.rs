//! Which of several connections with one peer stays, and what the socket says.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use cilium_bgp::export::{Changes, Offer};
use cilium_bgp::serve;
use cilium_bgp::session::{Cease, Event, NextHop, Parameters, Session, Voice, end_of_rib};
use cilium_rest::Client;
use cilium_rest::bgp::{Bfd, Config, Family, Peer, Peers, RouteChanges, SessionState};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};

use crate::node::{Node, Variant as _, in_namespace, mk_config, mk_peer, mk_routes, net};

const NOW: Duration = Duration::ZERO;

/// The other end of a connection, which does what the test says.
struct End {
    stream: TcpStream,
    session: Session,
    reason: Option<String>,
    /// It hears, and says nothing more.
    is_mute: bool,
}

impl End {
    /// Speaker 2 with another BGP identifier; its OPEN waits until [`Self::turn`].
    async fn new(mut stream: TcpStream, id: u8) -> Self {
        let parameters = Parameters {
            local_asn: 65002,
            router_id: Ipv4Addr::new(192, 0, 2, id),
            peer_asn: 65001,
            peer: Ipv4Addr::new(192, 0, 2, 1).into(),
            hold_time: 90,
            keepalive: 30,
            families: vec![Family::Ipv4],
            restart_time: Some(60),
            stale_time: None,
            is_restarting: false,
            is_forwarding: true,
        };
        let mut events = Vec::new();
        let session = Session::new(parameters, NOW, &mut events);
        write(&mut stream, events).await;
        Self { stream, session, reason: None, is_mute: false }
    }

    /// Reads until something is so.
    async fn until(&mut self, is_so: impl Fn(&Self) -> bool) {
        let mut bytes = [0; 4096];
        while !is_so(self) {
            let length = self.stream.read(&mut bytes).await.expect("the connection is there");
            assert!(
                length > 0,
                "the speaker closed the connection: {:?} {:?}",
                self.session.state(),
                self.reason
            );
            let mut events = Vec::new();
            self.session.receive(&bytes[..length], NOW, &mut events);
            self.reason = events.iter().find_map(|event| match event {
                Event::Closed(end) => Some(end.reason.clone()),
                _ => None,
            });
            if !self.is_mute {
                write(&mut self.stream, events).await;
            }
        }
    }

    async fn until_state(&mut self, state: SessionState) {
        self.until(|end| end.session.state() == state).await;
    }

    async fn until_ended(&mut self) -> String {
        self.until(|end| end.reason.is_some()).await;
        self.reason.clone().expect("it ended")
    }

    async fn say(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("the connection takes bytes");
    }
}

async fn write(stream: &mut TcpStream, events: Vec<Event>) {
    for event in events {
        if let Event::Send(bytes) = event {
            // The speaker may have closed it.
            let _ = stream.write_all(&bytes).await;
        }
    }
}

fn address(number: u8, port: u16) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::new(192, 0, 2, number).into(), port)
}

async fn connect() -> TcpStream {
    loop {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(address(2, 0)).expect("an address of the namespace");
        match socket.connect(address(1, 1789)).await {
            Ok(stream) => return stream,
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// Both ends connect, and the speaker has heard the OPEN of both before a KEEPALIVE of the one that it gives up. Which one that is.
async fn check_collision(id: u8, gives_up_its_own: bool) {
    let listener = TcpListener::bind(address(2, 1790)).await.expect("a port");
    let node = Node::start();
    node.set(mk_config(1, &[mk_peer(1, 2)]));
    let (first, _) = listener.accept().await.expect("the speaker connects");
    let second = connect().await;
    let mut first = End::new(first, id).await;
    node.until(SessionState::OpenConfirm).await;
    let mut second = End::new(second, id).await;
    first.is_mute = gives_up_its_own;
    let (kept, lost) = if gives_up_its_own { (&mut second, &mut first) } else { (&mut first, &mut second) };
    assert_eq!(lost.until_ended().await, "the peer ended the session: Connection Collision Resolution (6/7)");
    kept.until_state(SessionState::Established).await;
    node.until(SessionState::Established).await;
    assert_eq!(node.peer(0).established_count, 1);
}

#[test]
fn of_two_connections_the_one_of_the_higher_identifier_stays() {
    in_namespace(check_collision(9, true));
}

#[test]
fn of_two_connections_the_one_of_the_lower_identifier_goes() {
    in_namespace(check_collision(0, false));
}

fn passive(restart_time: Option<u16>) -> Config {
    let mut peer = mk_peer(1, 2).passive();
    peer.restart_time = restart_time;
    mk_config(1, &[peer])
}

fn update() -> Vec<u8> {
    let voice = Voice {
        family: Family::Ipv4,
        asn: Some(65002),
        four_octet_as: true,
        next_hop: NextHop::V4(Ipv4Addr::new(192, 0, 2, 2)),
    };
    let table = vec![(net("10.0.0.0/24"), Offer::default().into())];
    voice.say(&Changes::between(&Vec::new(), &table, false)).to_vec()
}

#[test]
fn who_connects_again_has_restarted() {
    in_namespace(async {
        let node = Node::start();
        node.set(passive(Some(60)));
        let mut first = End::new(connect().await, 2).await;
        first.until_state(SessionState::Established).await;
        first.say(&update()).await;
        node.until_received(&["10.0.0.0/24"]).await;
        let mut second = End::new(connect().await, 2).await;
        second.until_state(SessionState::Established).await;
        node.until_true("there is a second session", |node| node.peer(0).established_count == 2).await;
        assert!(node.speaker.routes().iter().any(|it| it.stale), "{:?}", node.speaker.routes());
        second.say(&end_of_rib(Family::Ipv4)).await;
        node.until_received(&[]).await;
    });
}

#[test]
fn without_graceful_restart_the_first_connection_stays() {
    in_namespace(async {
        let node = Node::start();
        node.set(passive(None));
        let mut first = End::new(connect().await, 2).await;
        first.until_state(SessionState::Established).await;
        let mut second = End::new(connect().await, 2).await;
        let reason = "the peer ended the session: Connection Collision Resolution (6/7)";
        assert_eq!(second.until_ended().await, reason);
        assert_eq!((node.peer(0).state, node.peer(0).established_count), (SessionState::Established, 1));
        let mut events = Vec::new();
        first.session.cease(Cease::Shutdown, "over", &mut events);
        write(&mut first.stream, events).await;
        node.until_reason("the peer ended the session: Administrative Shutdown (6/2)").await;
    });
}

#[test]
fn the_socket_says_what_is_wrong() {
    in_namespace(async {
        let node = Node::start();
        let path = node.directory().join("s.sock");
        let socket = serve::bind(&path).expect("a socket in a folder of ours");
        let api = serve::routes(node.speaker.clone());
        tokio::spawn(async move { axum::serve(socket, api).await });
        let asked = tokio::task::spawn_blocking(move || {
            let client = Client::of_speaker(&path, None);
            let refusal = |result: Result<(), cilium_rest::Error>| {
                let error = result.expect_err("a refusal");
                (error.status(), error.chain())
            };
            let mut config = mk_config(1, &[mk_peer(1, 2), mk_peer(1, 2)]);
            let twice = refusal(client.replace("/v1/config", &config));
            config.instances[0].peers.pop();
            client.replace("/v1/config", &config).expect("a right configuration");
            let early = refusal(client.patch("/v1/routes", &RouteChanges::default()));
            client.replace("/v1/routes", &mk_routes(&[("10.0.0.1/32", "a")])).expect("prefixes");
            client.patch("/v1/routes", &RouteChanges::default()).expect("changes");
            let unknown = refusal(client.get("/v1/peers?before=1").map(|_: Peers| ()));
            let peers: Peers = client.get("/v1/peers").expect("peers");
            let news: Peers =
                client.get(&format!("/v1/peers?after={}", peers.generation - 1)).expect("peers");
            (twice, early, unknown, news.peers.len())
        });
        let (twice, early, unknown, count) = asked.await.expect("a thread");
        assert_eq!(twice.0, Some(422));
        assert!(twice.1.contains("there are two peers with the name \"to-2\""), "{}", twice.1);
        assert_eq!(early.0, Some(409));
        assert!(early.1.contains("PUT all of them first"), "{}", early.1);
        assert_eq!((unknown.0, count), (Some(400), 1));
    });
}

#[test]
fn a_peer_says_why_bfd_does_not_work() {
    in_namespace(async {
        let taken = UdpSocket::bind("0.0.0.0:3784").await.expect("a port in a namespace of ours");
        let node = Node::start();
        let bfd = Bfd { transmit: 100, receive: 100, multiplier: 3 };
        node.set(mk_config(1, &[Peer { bfd: Some(bfd), ..mk_peer(1, 2) }, mk_peer(1, 3)]));
        node.until_true("a problem", |node| node.peer(0).bfd_problem.is_some()).await;
        assert_eq!(
            node.peer(0).with_bfd(Some("no answer")).as_deref(),
            Some(
                "no answer; BFD does not work: packets of BFD cannot be received: UDP port 3784 cannot be opened: \
                 Address already in use (os error 98)"
            )
        );
        assert_eq!(node.peer(1).bfd_problem, None);
        let config = mk_config(
            1,
            &[Peer { bfd: Some(bfd), connect_retry: 9, hold_time: 9, keepalive: 3, ..mk_peer(1, 2) }],
        );
        node.set(config);
        assert!(node.peer(0).bfd_problem.is_some(), "another session with the same peer has it, too");
        drop(taken);
        node.until_true("no problem", |node| node.peer(0).bfd_problem.is_none()).await;
    });
}
