//! Threads in two network namespaces that have sessions with each other.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::num::{NonZeroU8, NonZeroU32};
use std::time::Duration;

use cilium_bfd::sockets::PORT;
use cilium_bfd::{Bfd, Change, Diagnostic, Key, Packet, Parameters, State};
use cilium_drivers::netns::Netns;
use cilium_drivers::testing::{connect, namespace};
use ipnet::IpNet;
use tokio::sync::mpsc::UnboundedReceiver;

/// Longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(30);

struct End {
    netns: Netns,
    bfd: Bfd,
    changes: UnboundedReceiver<Change>,
    seen: Vec<Change>,
}

impl End {
    fn new(netns: Netns) -> Self {
        let (bfd, changes) =
            netns.run(Bfd::start).expect("the namespace can be entered").expect("a thread starts");
        Self { netns, bfd, changes, seen: Vec::new() }
    }

    /// The first change that fits, of those that were not taken before.
    fn wait(&mut self, what: &str, fits: impl Fn(&Change) -> bool) -> Change {
        if let Some(place) = self.seen.iter().position(&fits) {
            return self.seen.remove(place);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let first = async {
            loop {
                let change = self.changes.recv().await.expect("the thread lives");
                if fits(&change) {
                    return change;
                }
                self.seen.push(change);
            }
        };
        runtime.block_on(async { tokio::time::timeout(PATIENCE, first).await }).expect(what)
    }

    fn wait_for(&mut self, key: &Key, state: State) -> Change {
        self.wait(&format!("{} is never {state}", key.peer), |it| it.key == *key && it.state == state)
    }
}

fn networks(texts: [&str; 3]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().expect("a prefix")).collect()
}

fn mk_ends() -> (End, End) {
    let (one, other) = (namespace(), namespace());
    let left = networks(["10.0.0.1/24", "2001:db8::1/64", "fe80::a1/64"]);
    let right = networks(["10.0.0.2/24", "2001:db8::2/64", "fe80::a2/64"]);
    connect((&one, "one", &left), (&other, "other", &right));
    (End::new(one), End::new(other))
}

fn mk_key(local: Option<&str>, peer: &str, device: Option<&str>) -> Key {
    let (local, peer) = (local.map(|it| it.parse().expect("an address")), peer.parse().expect("an address"));
    Key { local, peer, device: device.map(str::to_owned) }
}

/// Slow enough that no machine is too busy for it.
fn mk_sessions(keys: &[&Key]) -> BTreeMap<Key, Parameters> {
    let parameters = Parameters {
        transmit: Duration::from_millis(100),
        receive: Duration::from_millis(100),
        multiplier: NonZeroU8::new(50).expect("not 0"),
    };
    keys.iter().map(|key| ((*key).clone(), parameters)).collect()
}

#[test]
fn sessions_of_both_families_come_up_and_go() {
    let (mut one, mut other) = mk_ends();
    let keys = [
        (mk_key(None, "10.0.0.2", None), mk_key(Some("10.0.0.2"), "10.0.0.1", None)),
        (mk_key(None, "2001:db8::2", None), mk_key(None, "2001:db8::1", Some("other"))),
        (
            mk_key(Some("fe80::a1"), "fe80::a2", Some("one")),
            mk_key(Some("fe80::a2"), "fe80::a1", Some("other")),
        ),
    ];
    one.bfd.set(mk_sessions(&keys.each_ref().map(|key| &key.0)));
    other.bfd.set(mk_sessions(&keys.each_ref().map(|key| &key.1)));
    for (left, right) in &keys {
        let change = one.wait_for(left, State::Up);
        assert_eq!((change.diagnostic, change.problem), (Diagnostic::None, None));
        other.wait_for(right, State::Up);
    }
    one.bfd.set(mk_sessions(&[&keys[0].0, &keys[1].0]));
    let change = other.wait_for(&keys[2].1, State::Down);
    assert_eq!((change.diagnostic, change.remote), (Diagnostic::NeighborDown, State::AdminDown));
    drop(one.bfd);
    for (_, right) in &keys[..2] {
        let change = other.wait_for(right, State::Down);
        assert_eq!((change.diagnostic, change.remote), (Diagnostic::TimeExpired, State::Down));
    }
}

#[test]
fn packets_from_further_away_change_nothing() {
    let (mut one, other) = mk_ends();
    let key = mk_key(None, "10.0.0.2", None);
    one.bfd.set(mk_sessions(&[&key]));
    let packet = |state, yours| Packet {
        diagnostic: Diagnostic::None,
        state,
        poll: false,
        is_final: false,
        control_plane_independent: false,
        demand: false,
        multiplier: NonZeroU8::MAX,
        mine: NonZeroU32::MIN,
        yours,
        transmit: 1_000_000,
        receive: 1_000_000,
        echo: 0,
    };
    let (listening, sending) = other
        .netns
        .run(|| {
            let listening = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)).unwrap();
            listening.set_read_timeout(Some(PATIENCE)).unwrap();
            (listening, UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 50000)).unwrap())
        })
        .unwrap();
    let mut bytes = [0; 100];
    let (length, from) = listening.recv_from(&mut bytes).unwrap();
    assert_eq!(from.ip(), IpAddr::from([10, 0, 0, 1]));
    assert!((49152..=65535).contains(&from.port()), "{from}");
    let yours = Packet::read(&bytes[..length]).unwrap().mine.get();

    let to = SocketAddr::from(([10, 0, 0, 1], PORT));
    let send = |ttl, state| {
        sending.set_ttl(ttl).unwrap();
        sending.send_to(&packet(state, yours).bytes(), to).unwrap();
    };
    send(254, State::Init);
    send(255, State::Down);
    let change = one.wait("no state", |change| change.state != State::Down);
    assert_eq!(change.state, State::Init, "a packet with TTL 254 counts");
    send(255, State::Init);
    one.wait_for(&key, State::Up);
    send(254, State::Down);
    send(255, State::AdminDown);
    assert_eq!(one.wait_for(&key, State::Down).diagnostic, Diagnostic::NeighborDown);
}

#[test]
fn what_keeps_a_session_down_is_said() {
    let (mut one, other) = mk_ends();
    let taken = one.netns.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)).unwrap()).unwrap();
    let key = mk_key(None, "10.0.0.2", None);
    let nowhere = mk_key(Some("10.0.0.9"), "10.0.0.3", None);
    let elsewhere = mk_key(None, "2001:db8::3", Some("missing"));
    one.bfd.set(mk_sessions(&[&key, &nowhere, &elsewhere]));
    let problem = |end: &mut End, key: &Key| {
        end.wait("no problem", |it| it.key == *key && it.problem.is_some()).problem.unwrap()
    };
    assert_eq!(
        problem(&mut one, &key),
        "packets of BFD cannot be received: UDP port 3784 cannot be opened: Address already in use (os error 98)"
    );
    assert_eq!(
        problem(&mut one, &elsewhere),
        "packets of BFD cannot be sent to 2001:db8::3: No such device (os error 19)"
    );
    one.bfd.set(mk_sessions(&[&key, &nowhere]));
    drop(taken);
    assert_eq!(
        one.wait("no other problem", |it| it.key == nowhere
            && !it.problem.clone().unwrap_or_default().contains("3784"))
            .problem,
        Some(
            "packets of BFD cannot be sent to 10.0.0.3: Cannot assign requested address (os error 99)"
                .to_owned()
        )
    );
    other.bfd.set(mk_sessions(&[&mk_key(None, "10.0.0.1", None)]));
    assert_eq!(one.wait_for(&key, State::Up).problem, None);
}
