//! How many connections come about in a second.
//!
//! The client opens one after the other. Of a handshake between namespaces of one machine, the kernel does every step on the
//! client's processor, before the call returns; the server only has to keep up with what it is given. So the time of a connection is the
//! work of all hops on the path, and nothing else as long as the two ends stay on processors of their own (`--cpu`).

use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::Context as _;
use rustix::net::sockopt::set_socket_linger;

use crate::now;

/// No handshake takes so long; one that does has lost a packet.
const PATIENCE: Duration = Duration::from_secs(1);

/// Connections that may wait while the server has no processor: at most the kernel's default (`somaxconn`). The standard library's queue
/// is full after milliseconds.
const BACKLOG: i32 = 4096;

/// Takes connections until it is killed. Each is kept until the next one comes: the client ends it first, by a reset, so that nothing
/// remains at either end.
pub(crate) fn accept(port: u16) -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
        .with_context(|| format!("cannot listen on port {port}"))?;
    rustix::net::listen(&listener, BACKLOG).context("cannot lengthen the queue of new connections")?;
    let mut last = None;
    for stream in listener.incoming() {
        match stream {
            Ok(stream) => drop(last.replace(stream)),
            Err(error) => eprintln!("cannot accept: {error}"),
        }
    }
    Ok(())
}

/// Connects for `duration`, with a `pause` after each; prints how many there were in a second, the median in nanoseconds, how many
/// failed, and how long the longest took.
pub(crate) fn connect(to: SocketAddr, duration: Duration, pause: Duration) -> anyhow::Result<()> {
    let (mut times, mut failed) = (Vec::new(), 0u64);
    let start = now();
    let end = start + u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    let mut last = start;
    while last < end {
        match TcpStream::connect_timeout(&to, PATIENCE) {
            Ok(stream) => {
                times.push(now() - last);
                set_socket_linger(&stream, Some(Duration::ZERO)).context("cannot prepare the reset")?;
            }
            Err(_) => failed += 1,
        }
        if !pause.is_zero() {
            std::thread::sleep(pause);
        }
        last = now();
    }
    let per_second = times.len() as f64 * 1e9 / (last - start) as f64;
    times.sort_unstable();
    println!(
        "{}",
        serde_json::json!({
            "count": times.len(),
            "failed": failed,
            "per_second": per_second,
            "p50_ns": times.get(times.len() / 2),
            "max_ns": times.last(),
        })
    );
    Ok(())
}
