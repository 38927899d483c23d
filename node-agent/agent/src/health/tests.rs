use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

const LOOPBACKS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// Far more than anything here takes, on a machine that is busy with other things.
const LONG: Duration = Duration::from_secs(30);

struct World {
    checks: watch::Sender<Checks>,
    failures: watch::Receiver<Failures>,
    server: JoinHandle<()>,
}

impl World {
    /// Short pauses, and few connections.
    fn start(connections: usize, patience: Duration) -> Self {
        let limits = Limits { connections, patience, again: Duration::from_millis(20) };
        let (checks, theirs) = watch::channel(Checks::new());
        let (told, failures) = watch::channel(Failures::new());
        let server = tokio::spawn(async move { run(&LOOPBACKS, limits, theirs, &told).await });
        Self { checks, failures, server }
    }

    fn set(&self, checks: &[(u16, &str, usize)]) {
        let check = |(port, name, local): &(u16, &str, usize)| {
            (*port, Check { namespace: "shop".to_owned(), name: (*name).to_owned(), local: *local })
        };
        self.checks.send_replace(checks.iter().map(check).collect());
    }
}

/// A port that nobody has, on either loopback. The kernel gives it to nobody else soon.
fn free_port() -> u16 {
    loop {
        let Ok(one) = std::net::TcpListener::bind((LOOPBACKS[0], 0)) else { continue };
        let port = one.local_addr().unwrap().port();
        if std::net::TcpListener::bind((LOOPBACKS[1], port)).is_ok() {
            return port;
        }
    }
}

async fn connect(address: IpAddr, port: u16) -> TcpStream {
    let attempt = async {
        loop {
            match TcpStream::connect((address, port)).await {
                Ok(stream) => return stream,
                Err(_) => sleep(Duration::from_millis(5)).await,
            }
        }
    };
    timeout(LONG, attempt).await.expect("somebody listens")
}

/// Says something and reads until the other end closes.
async fn say(mut stream: TcpStream, text: &str) -> String {
    let _ = stream.write_all(text.as_bytes()).await;
    let mut answer = Vec::new();
    // Who is not heard to the end is closed with a reset.
    let _ = timeout(LONG, stream.read_to_end(&mut answer)).await.expect("it is closed");
    String::from_utf8(answer).unwrap()
}

const GET: &str = "GET /healthz HTTP/1.1\r\nHost: node\r\n\r\n";

async fn get(port: u16) -> String {
    say(connect(LOOPBACKS[0], port).await, GET).await
}

/// Status and body.
async fn status(port: u16) -> (u16, String) {
    let answer = get(port).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    (head.get(9..12).and_then(|code| code.parse().ok()).unwrap_or_default(), body.to_owned())
}

async fn until_closed(port: u16) {
    let refused = async {
        while TcpStream::connect((LOOPBACKS[0], port)).await.is_ok() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, refused).await.expect("nobody listens any more");
}

fn body(name: &str, local: usize) -> String {
    format!(
        r#"{{"service":{{"namespace":"shop","name":"{name}"}},"localEndpoints":{local},"serviceProxyHealthy":true}}"#
    )
}

#[tokio::test]
async fn each_port_tells_of_its_service_in_both_families() {
    let world = World::start(16, LONG);
    let (web, db) = (free_port(), free_port());
    world.set(&[(web, "web", 2), (db, "db", 0)]);
    for address in LOOPBACKS {
        let answer = say(connect(address, web).await, GET).await;
        let (head, told) = answer.split_once("\r\n\r\n").unwrap();
        let mut lines: Vec<&str> = head.lines().filter(|line| !line.starts_with("Date: ")).collect();
        lines[1..].sort_unstable();
        let length = format!("Content-Length: {}", told.len());
        assert_eq!(
            lines,
            [
                "HTTP/1.1 200 OK",
                "Connection: close",
                length.as_str(),
                "Content-Type: application/json",
                "X-Content-Type-Options: nosniff",
                "X-Load-Balancing-Endpoint-Weight: 2",
            ]
        );
        assert_eq!(told, body("web", 2));
    }
    let answer = get(db).await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("Endpoint-Weight: 0\r\n"), "{answer}");
    assert!(answer.ends_with(&body("db", 0)), "{answer}");
}

#[tokio::test]
async fn what_is_told_follows_the_plan() {
    let world = World::start(16, LONG);
    let (one, other) = (free_port(), free_port());
    world.set(&[(one, "web", 1)]);
    assert_eq!(status(one).await, (200, body("web", 1)));
    world.set(&[(one, "web", 0)]);
    assert_eq!(status(one).await, (503, body("web", 0)));
    world.set(&[(one, "web", 3)]);
    assert_eq!(status(one).await, (200, body("web", 3)));
    // Another port.
    world.set(&[(other, "web", 3)]);
    assert_eq!(status(other).await, (200, body("web", 3)));
    until_closed(one).await;
    // Another Service takes the port over, without a gap.
    world.set(&[(other, "api", 1)]);
    assert_eq!(status(other).await, (200, body("api", 1)));
    world.set(&[]);
    until_closed(other).await;
    world.set(&[(other, "api", 1)]);
    assert_eq!(status(other).await, (200, body("api", 1)));
    // The end of who plans is the end.
    drop(world.checks);
    timeout(LONG, world.server).await.unwrap().unwrap();
    until_closed(other).await;
}

#[tokio::test]
async fn a_port_that_somebody_has_is_told_and_tried_again() {
    let mut world = World::start(16, LONG);
    let (taken, free) = (free_port(), free_port());
    let somebody = std::net::TcpListener::bind((LOOPBACKS[0], taken)).unwrap();
    world.set(&[(taken, "web", 1), (free, "api", 1)]);
    let address = SocketAddr::new(LOOPBACKS[0], taken);
    let failed = timeout(LONG, world.failures.wait_for(|failures| !failures.is_empty())).await;
    let failures = failed.expect("it is told").unwrap().clone();
    assert_eq!(failures.keys().collect::<Vec<_>>(), [&address]);
    assert!(failures[&address].contains("in use"), "{failures:?}");
    // It holds up nobody else, and the other family has the port.
    assert_eq!(status(free).await, (200, body("api", 1)));
    let answer = say(connect(LOOPBACKS[1], taken).await, GET).await;
    assert!(answer.ends_with(&body("web", 1)), "{answer}");
    drop(somebody);
    let over = timeout(LONG, world.failures.wait_for(Failures::is_empty)).await;
    assert!(over.expect("it is had in the end").is_ok());
    assert_eq!(status(taken).await, (200, body("web", 1)));
    // What nobody wants any more is no failure.
    let somebody = std::net::TcpListener::bind((LOOPBACKS[0], free_port())).unwrap();
    let taken = somebody.local_addr().unwrap().port();
    world.set(&[(taken, "web", 1)]);
    let failed = timeout(LONG, world.failures.wait_for(|failures| !failures.is_empty())).await;
    assert!(failed.expect("it is told").is_ok());
    world.set(&[]);
    let over = timeout(LONG, world.failures.wait_for(Failures::is_empty)).await;
    assert!(over.expect("it is forgotten").is_ok());
}

#[tokio::test]
async fn any_method_and_path_is_answered_and_what_is_no_request_refused() {
    let world = World::start(16, LONG);
    let port = free_port();
    world.set(&[(port, "web", 1)]);
    let ask = async |text: &str| say(connect(LOOPBACKS[0], port).await, text).await;
    for request in [
        "POST /x?y HTTP/1.1\r\nHost: node\r\nContent-Length: 0\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: node\r\n\r\n",
        // Only the first of many is answered.
        "GET / HTTP/1.1\r\nHost: node\r\n\r\nGET / HTTP/1.1\r\nHost: node\r\n\r\n",
    ] {
        let answer = ask(request).await;
        assert!(answer.contains(" 200 OK\r\n") && answer.ends_with(&body("web", 1)), "{request}: {answer}");
        assert_eq!(answer.matches("200 OK").count(), 1, "{request}");
    }
    let head = ask("HEAD / HTTP/1.1\r\nHost: node\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    for refused in
        ["moon\r\n\r\n", "GET / HTTP/7.0\r\n\r\n", "GET / HTTP/1.1\r\nno header\r\n\r\n", "\u{0}\u{1}"]
    {
        let answer = ask(&format!("{refused}\r\n\r\n")).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{refused:?}: {answer}");
    }
    let long = format!("GET / HTTP/1.1\r\nHost: node\r\nX: {}\r\n\r\n", "x".repeat(2 * MAX_HEAD));
    let answer = ask(&long).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
    // Whoever came before, the next one is answered.
    assert_eq!(status(port).await, (200, body("web", 1)));
}

#[tokio::test]
async fn slow_clients_keep_nobody_out() {
    let world = World::start(4, LONG);
    let (web, api) = (free_port(), free_port());
    world.set(&[(web, "web", 1), (api, "api", 1)]);
    let mut slow = Vec::new();
    for number in 0..12 {
        let mut stream = connect(LOOPBACKS[number % 2], web).await;
        if number % 3 > 0 {
            stream.write_all(b"GET / HTTP/1.1\r\nHo").await.unwrap();
        }
        slow.push(stream);
        // Both ports share the room.
        assert_eq!(status(web).await, (200, body("web", 1)), "after {number}");
        assert_eq!(status(api).await, (200, body("api", 1)), "after {number}");
    }
    // The oldest made way for those that came later.
    for stream in slow.drain(..6) {
        assert_eq!(say(stream, "").await, "");
    }
}

#[tokio::test]
async fn time_is_short_for_who_says_nothing() {
    let world = World::start(16, Duration::from_millis(100));
    let port = free_port();
    world.set(&[(port, "web", 1)]);
    let (silent, mut slow) = (connect(LOOPBACKS[0], port).await, connect(LOOPBACKS[0], port).await);
    let begin = Instant::now();
    // Each byte comes in time, and all of them do not.
    let dripping = async {
        while slow.write_all(b"G").await.is_ok() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LONG, dripping).await.expect("it is closed");
    assert_eq!(say(silent, "").await, "");
    assert!(begin.elapsed() < LONG);
}
