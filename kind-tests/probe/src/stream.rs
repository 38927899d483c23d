//! Numbered datagrams at a steady pace: loss, and how long the network held any of them.
//!
//! A datagram carries the time at which it was sent; the server adds when the kernel received it and when it is
//! sent back; the client takes the kernel's receive time. What the network did is in those differences, whoever of the
//! two programs was kept waiting for a processor. The clock is CLOCK_REALTIME, the clock of kernel timestamps.

use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;

use crate::connect;
use crate::stamp::{Stamped, realtime};

/// Sequence number, client's send time, server's receive time, server's send time: 8 bytes each, big-endian.
pub(crate) const LENGTH: usize = 32;

/// Echoes seen so far.
#[derive(Default)]
struct Seen {
    received: u64,
    first: Option<u64>,
    longest: u64,
    longest_at: u64,
}

/// Sends for `duration`, waits a second for stragglers, prints one JSON object.
///
/// `lost` counts datagrams from the first that came back on (`wait_for_path`), or all of them; `max_gap_ms` is the longest
/// time that a datagram was on its way, there or back.
pub(crate) fn run(
    to: SocketAddr,
    duration: Duration,
    interval: Duration,
    wait_for_path: bool,
) -> anyhow::Result<()> {
    let socket = connect(to)?;
    let reader = Stamped::new(socket.try_clone().context("cannot share the socket")?)?;
    reader.set_timeout(Duration::from_millis(1000))?;
    let start = realtime();
    let end = start + nanos(duration);
    let receiver = thread::spawn(move || receive(&reader, end));
    let (sent, refused) = send(&socket, start, end, interval);
    let seen = receiver.join().map_err(|_| anyhow::anyhow!("the receiving thread panicked"))?;
    let skipped = if wait_for_path { seen.first.unwrap_or(sent) } else { 0 };
    println!(
        "{}",
        serde_json::json!({
            "sent": sent - skipped,
            "received": seen.received,
            "lost": (sent - skipped).saturating_sub(seen.received),
            "refused": refused,
            "max_gap_ms": seen.longest as f64 / 1e6,
            "max_gap_at_ms": seen.longest_at.saturating_sub(start) as f64 / 1e6,
        })
    );
    Ok(())
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Sends on a fixed grid of times, so that a late wake-up does not slow the pace down.
fn send(socket: &UdpSocket, start: u64, end: u64, interval: Duration) -> (u64, u64) {
    let (mut sent, mut refused) = (0u64, 0u64);
    while realtime() < end {
        let mut datagram = [0u8; LENGTH];
        datagram[..8].copy_from_slice(&sent.to_be_bytes());
        datagram[8..16].copy_from_slice(&realtime().to_be_bytes());
        if socket.send(&datagram).is_err() {
            refused += 1;
        }
        sent += 1;
        let due = start + sent * nanos(interval);
        thread::sleep(Duration::from_nanos(due.saturating_sub(realtime())));
    }
    (sent, refused)
}

fn receive(socket: &Stamped, end: u64) -> Seen {
    let mut seen = Seen::default();
    let mut buffer = [0u8; 64];
    loop {
        match socket.receive(&mut buffer) {
            Some((LENGTH, _, at)) => note(&mut seen, &buffer, at),
            Some(_) => {}
            None if realtime() > end => return seen,
            None => {}
        }
    }
}

fn note(seen: &mut Seen, datagram: &[u8], at: u64) {
    let field = |index: usize| crate::number(&datagram[index * 8..]).unwrap_or(0);
    let there = field(2).saturating_sub(field(1));
    let back = at.saturating_sub(field(3));
    if there.max(back) > seen.longest {
        (seen.longest, seen.longest_at) = (there.max(back), at);
    }
    seen.first = seen.first.or(Some(field(0)));
    seen.received += 1;
}
