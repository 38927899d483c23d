//! Pods that may ask for some names, and reach what these stand for.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use cilium_api::parts::{Direction, DnsRule, NamedPeer, Part, PartKey, Parts, Policy};
use cilium_drivers::netns::Netns;
use cilium_rest::model::NameEntry;
use hickory_proto::op::{Message, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::parts::{address4, mk_endpoint};
use crate::stage::{Pod, Stage, eventually};

const SERVER: &str = "192.0.2.2";
const SERVER6: &str = "2001:db8::2";
/// Where the hosts with names have something to connect to.
const PORT: u16 = 8080;

/// Pod 1 may ask name servers outside for `*.example.` and reach what it learns of these.
fn mk_parts(patterns: &[&str], named: &[&str]) -> Parts {
    let rules = [9, 10].into_iter().flat_map(|peer| [6, 17].map(|protocol| (peer, protocol)));
    let rule = |(peer, protocol)| DnsRule {
        peer,
        protocol,
        port: 53,
        patterns: patterns.iter().map(|it| (*it).to_owned()).collect(),
        origins: vec![0],
    };
    let peer = |pattern: &&str| NamedPeer {
        pattern: (*pattern).to_owned(),
        protocol: 6,
        first: PORT,
        last: PORT,
        origins: vec![0],
    };
    let policy = Policy {
        egress: Direction { enforced: true, ..Direction::default() },
        dns: rules.map(rule).collect(),
        names: named.iter().map(peer).collect(),
        origins: vec!["cnp/default/names".into()],
        ..Policy::default()
    };
    Parts::from([mk_endpoint(1), (PartKey::policy(1001), Part::Policy(Box::new(policy)))])
}

/// Answers every question for `n<number>.` with 192.0.2.<number>, and every other name with no such name.
fn answer(bytes: &[u8]) -> Vec<u8> {
    let query = Message::from_vec(bytes).expect("is a message");
    let mut reply = Message::response(query.metadata.id, OpCode::Query);
    let question = query.queries[0].clone();
    let name = question.name.to_ascii().to_lowercase();
    let number = name.strip_prefix('n').and_then(|rest| rest.split('.').next()?.parse().ok());
    match number {
        Some(number) => {
            let address = A(Ipv4Addr::new(192, 0, 2, number));
            reply.add_answer(Record::from_rdata(question.name.clone(), 300, RData::A(address)));
        }
        None => reply.metadata.response_code = ResponseCode::NXDomain,
    }
    reply.add_query(question);
    reply.to_vec().expect("is encoded")
}

/// A name server outside, by UDP and TCP, and something that takes connections on every address there.
fn start_outside(netns: &Netns) {
    for server in [SERVER, SERVER6] {
        let address: IpAddr = server.parse().expect("an address");
        let udp = netns.run(|| UdpSocket::bind((address, 53))).expect("enters").expect("binds");
        let tcp = netns.run(|| TcpListener::bind((address, 53))).expect("enters").expect("binds");
        thread::spawn(move || serve_udp(&udp));
        thread::spawn(move || serve_tcp(&tcp));
    }
    let hosts = netns.run(|| TcpListener::bind(("0.0.0.0", PORT))).expect("enters").expect("binds");
    thread::spawn(move || hosts.incoming().for_each(drop));
}

fn serve_udp(socket: &UdpSocket) {
    let mut buffer = [0; 4096];
    while let Ok((length, from)) = socket.recv_from(&mut buffer) {
        socket.send_to(&answer(&buffer[..length]), from).expect("the way back is known");
    }
}

fn serve_tcp(listener: &TcpListener) {
    for mut stream in listener.incoming().flatten() {
        while let Ok(question) = read_framed(&mut stream) {
            write_framed(&mut stream, &answer(&question)).expect("is written");
        }
    }
}

fn read_framed(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut bytes = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn write_framed(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    let length = u16::try_from(bytes.len()).expect("is short").to_be_bytes();
    stream.write_all(&[&length, bytes].concat())
}

fn mk_query(name: &str) -> Vec<u8> {
    let mut message = Message::query();
    message.metadata.id = 4711;
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).expect("a name"), RecordType::A));
    message.to_vec().expect("is encoded")
}

/// Asks by UDP, once. The answer must come from who was asked.
fn ask_once(pod: &Pod, server: &str, name: &str) -> Option<Vec<u8>> {
    let server = SocketAddr::new(server.parse().expect("an address"), 53);
    let own: IpAddr =
        if server.is_ipv4() { address4(1).into() } else { "fd00:10:244:1::11".parse().expect("an address") };
    let socket = pod.netns.run(|| UdpSocket::bind((own, 0))).expect("enters").expect("binds");
    socket.set_read_timeout(Some(Duration::from_secs(1))).expect("is a socket");
    socket.connect(server).expect("has a route");
    socket.send(&mk_query(name)).ok()?;
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).ok()?;
    Some(buffer[..length].to_vec())
}

fn ask(pod: &Pod, server: &str, name: &str) -> Vec<u8> {
    let mut found = None;
    eventually(&format!("{name} is answered"), || {
        found = ask_once(pod, server, name);
        found.is_some()
    });
    found.expect("is answered")
}

fn ask_by_tcp(pod: &Pod, server: &str, names: &[&str]) -> Vec<Vec<u8>> {
    let server = SocketAddr::new(server.parse().expect("an address"), 53);
    let ask = || {
        let mut stream = TcpStream::connect(server).expect("connects");
        let ask_one = |name: &&str| {
            write_framed(&mut stream, &mk_query(name)).expect("is taken");
            read_framed(&mut stream).expect("is answered")
        };
        names.iter().map(ask_one).collect()
    };
    pod.netns.run(ask).expect("enters")
}

fn code(answer: &[u8]) -> ResponseCode {
    Message::from_vec(answer).expect("is a message").metadata.response_code
}

/// Whether the first packet gets through: a second one would be sent after a second.
fn connects(pod: &Pod, number: u8) -> bool {
    let host = SocketAddr::from(([192, 0, 2, number], PORT));
    let connect = || TcpStream::connect_timeout(&host, Duration::from_millis(700)).is_ok();
    pod.netns.run(connect).expect("enters")
}

fn mk_stage() -> (Stage, Pod) {
    let mut stage = Stage::create(1, &[]);
    start_outside(&stage.outside);
    stage.await_ready();
    let pod = stage.add_pod(1);
    let revision = stage.plan(&mk_parts(&["*.example."], &["*.example."]));
    stage.await_revision(revision);
    (stage, pod)
}

#[test]
fn a_name_opens_its_addresses_before_it_is_answered() {
    let (stage, pod) = mk_stage();
    assert!(ask_once(&pod, SERVER, "n10.example.").is_none(), "without proxy nothing passes");
    let _proxy = stage.start_proxy();
    assert!(!connects(&pod, 10), "nobody has asked for it yet");
    // The bytes are the server's, whatever letters the name was written in.
    let query = mk_query("N10.eXample.");
    assert_eq!(ask(&pod, SERVER, "N10.eXample."), answer(&query).as_slice());
    assert!(connects(&pod, 10));
    for number in 11..25 {
        let name = format!("n{number}.example.");
        let answers = match number % 3 {
            0 => ask_by_tcp(&pod, SERVER, &[&name]),
            1 => vec![ask(&pod, SERVER6, &name)],
            _ => vec![ask(&pod, SERVER, &name)],
        };
        assert_eq!(code(&answers[0]), ResponseCode::NoError);
        assert!(connects(&pod, number), "the first packet to {name}");
    }
    assert!(!connects(&pod, 25), "nobody has asked for it");
    let learned: Vec<NameEntry> = stage.client().get("/v1/fqdn/cache").expect("the agent answers");
    assert_eq!(learned.len(), 15);
    assert!(learned.iter().all(|entry| (200..=300).contains(&entry.ttl)), "{learned:?}");
}

#[test]
fn what_may_not_be_asked_is_refused() {
    let (mut stage, pod) = mk_stage();
    let _proxy = stage.start_proxy();
    assert_eq!(code(&ask(&pod, SERVER, "none.example.")), ResponseCode::NXDomain);
    for name in ["n10.example.org.", "n10.", "a.n10.example."] {
        assert_eq!(code(&ask(&pod, SERVER, name)), ResponseCode::Refused, "{name}");
        assert_eq!(code(&ask(&pod, SERVER6, name)), ResponseCode::Refused, "{name}");
    }
    let by_tcp = ask_by_tcp(&pod, SERVER6, &["n10.example.org.", "n11.example.", "n12.example."]);
    let codes: Vec<ResponseCode> = by_tcp.iter().map(|answer| code(answer)).collect();
    assert_eq!(codes, [ResponseCode::Refused, ResponseCode::NoError, ResponseCode::NoError]);
    assert!(!connects(&pod, 10) && connects(&pod, 11) && connects(&pod, 12));
    // Other rules, at once, and for addresses that were learned before.
    let revision = stage.plan(&mk_parts(&["*.org."], &["n11.example."]));
    stage.await_revision(revision);
    eventually("the other rule is in force", || {
        ask_once(&pod, SERVER, "n12.example.").is_some_and(|answer| code(&answer) == ResponseCode::Refused)
    });
    assert!(connects(&pod, 11) && !connects(&pod, 12));
}

#[test]
fn names_survive_restarts() {
    let (mut stage, pod) = mk_stage();
    let proxy = stage.start_proxy();
    ask(&pod, SERVER, "n10.example.");
    ask(&pod, SERVER, "n11.example.");
    assert!(connects(&pod, 10));

    // Without agent, DNS goes on, and so do addresses that are known. It had the second that it needs to keep them.
    thread::sleep(Duration::from_millis(1500));
    stage.kill_agent();
    assert_eq!(code(&ask_once(&pod, SERVER, "n10.example.").expect("is answered")), ResponseCode::NoError);
    assert_eq!(code(&ask_once(&pod, SERVER, "n10.org.").expect("is answered")), ResponseCode::Refused);
    assert!(connects(&pod, 10));
    assert_eq!(code(&ask(&pod, SERVER, "n12.example.")), ResponseCode::NoError);

    // A new proxy needs no agent either.
    drop(proxy);
    let proxy = stage.start_proxy();
    assert_eq!(code(&ask(&pod, SERVER, "n11.example.")), ResponseCode::NoError);
    assert_eq!(code(&ask(&pod, SERVER, "n11.org.")), ResponseCode::Refused);
    // What was learned without agent is in force when it is back.
    ask(&pod, SERVER, "n13.example.");
    stage.start_agent();
    stage.await_ready();
    eventually("the agent is told", || connects(&pod, 13));
    assert!(connects(&pod, 10) && connects(&pod, 11));

    // Without proxy the agent knows the names by itself, when it is stopped the last ones as well.
    ask(&pod, SERVER, "n14.example.");
    drop(proxy);
    stage.stop_agent();
    stage.start_agent();
    stage.await_ready();
    assert!(connects(&pod, 10) && connects(&pod, 13) && connects(&pod, 14));
    let client = stage.client();
    let learned: Vec<NameEntry> = client.get("/v1/fqdn/cache").expect("the agent answers");
    assert!(learned.iter().any(|entry| entry.fqdn == "n13.example." && entry.ip == "192.0.2.13"));
}

/// Questions in the measurement, one each millisecond, for so many names.
const QUESTIONS: u16 = 10_000;
const NAMES: u16 = 100;

/// Sends questions at a steady rate. Returns how long each answer took; what is lost is not there.
fn load(pod: &Pod) -> Vec<Duration> {
    let socket = pod.netns.run(|| UdpSocket::bind((address4(1), 0))).expect("enters").expect("binds");
    socket.connect((SERVER, 53)).expect("has a route");
    socket.set_read_timeout(Some(Duration::from_secs(2))).expect("is a socket");
    let begin = Instant::now();
    let reader = socket.try_clone().expect("is a socket");
    let answers = thread::spawn(move || {
        let (mut buffer, mut arrived) = ([0; 4096], Vec::new());
        while arrived.len() < usize::from(QUESTIONS) && reader.recv(&mut buffer).is_ok() {
            arrived.push((u16::from_be_bytes([buffer[0], buffer[1]]), begin.elapsed()));
        }
        arrived
    });
    let mut sent = Vec::new();
    for number in 0..QUESTIONS {
        let name = format!("n{}.h{}.example.", 10 + number % 20, number % NAMES);
        let mut query = mk_query(&name);
        query[..2].copy_from_slice(&number.to_be_bytes());
        let due = Duration::from_millis(number.into());
        thread::sleep(due.saturating_sub(begin.elapsed()));
        sent.push(begin.elapsed());
        socket.send(&query).expect("is sent");
    }
    let arrived = answers.join().expect("reads");
    arrived.into_iter().map(|(number, at)| at - sent[usize::from(number)]).collect()
}

fn percentiles(mut times: Vec<Duration>) -> [Duration; 2] {
    times.sort_unstable();
    [times[times.len() / 2], times[times.len() * 99 / 100]]
}

#[test]
#[ignore = "measures: just bench-node"]
fn measure_dns() {
    let mut stage = Stage::create(1, &[]);
    start_outside(&stage.outside);
    stage.await_ready();
    let pod = stage.add_pod(1);
    let direct = load(&pod);
    let proxy = stage.start_proxy();
    let revision = stage.plan(&mk_parts(&["**.example."], &["**.example."]));
    stage.await_revision(revision);
    ask(&pod, SERVER, "n10.h0.example.");
    let first = load(&pod);
    let again = load(&pod);
    drop(proxy);
    println!("{QUESTIONS} questions, 1,000 a second, {NAMES} names: p50, p99, answered");
    let floor = percentiles(direct.clone());
    for (what, times) in [("without proxy", direct), ("names are new", first), ("names are known", again)] {
        let count = times.len();
        let [p50, p99] = percentiles(times);
        let added = [p50.saturating_sub(floor[0]), p99.saturating_sub(floor[1])];
        println!("{what:16} {p50:>10.1?} {p99:>10.1?} {count:>6}   added {:.1?} {:.1?}", added[0], added[1]);
    }
}
