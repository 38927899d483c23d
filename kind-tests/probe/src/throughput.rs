//! Round trips and throughput.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::Context as _;

use crate::{connect, now, number};

/// `count` round trips after a short warm-up; prints median and p99 in nanoseconds. Lost datagrams are sent again and counted.
pub(crate) fn round_trips(to: SocketAddr, count: usize) -> anyhow::Result<()> {
    let socket = connect(to)?;
    socket.set_read_timeout(Some(Duration::from_millis(200))).context("cannot set a timeout")?;
    let warm_up = count / 10;
    let mut times = Vec::with_capacity(count);
    let mut lost = 0u64;
    let mut sequence = 0u64;
    while times.len() < count + warm_up {
        sequence += 1;
        match round_trip(&socket, sequence) {
            Some(time) => times.push(time),
            None => lost += 1,
        }
        anyhow::ensure!(lost < 50, "50 datagrams to {to} were lost: is the path open?");
    }
    let mut times = times.split_off(warm_up);
    times.sort_unstable();
    let at = |share: usize| times[(times.len() - 1) * share / 100];
    println!(
        "{}",
        serde_json::json!({"count": times.len(), "lost": lost, "p50_ns": at(50), "p99_ns": at(99)})
    );
    Ok(())
}

fn round_trip(socket: &std::net::UdpSocket, sequence: u64) -> Option<u64> {
    let mut buffer = [0u8; 64];
    let start = now();
    socket.send(&sequence.to_be_bytes()).ok()?;
    loop {
        let length = socket.recv(&mut buffer).ok()?;
        if number(&buffer[..length]) == Some(sequence) {
            return Some(now() - start);
        }
    }
}

/// Sends for `duration`; prints gigabits per second.
pub(crate) fn tcp(to: SocketAddr, duration: Duration) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(5))
        .with_context(|| format!("cannot connect to {to}"))?;
    let buffer = vec![0x5au8; 256 * 1024];
    let start = now();
    let end = start + u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    let mut sent = 0u64;
    while now() < end {
        sent += stream.write(&buffer).with_context(|| format!("the stream to {to} broke"))? as u64;
    }
    let elapsed = now() - start;
    println!("{}", serde_json::json!({"bytes": sent, "gbit_s": sent as f64 * 8.0 / elapsed as f64}));
    Ok(())
}
