//! Numbered datagrams at a steady pace: loss and gaps.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;

use crate::{connect, now, number};

/// Echoes seen so far.
#[derive(Default)]
struct Seen {
    received: u64,
    first: Option<u64>,
    last_at: u64,
    longest_gap: u64,
    gap_after: u64,
}

/// Sends for `duration`, waits a second for stragglers, prints one JSON object.
///
/// `lost` counts datagrams from the first that came back on (`wait_for_path`), or all of them.
pub(crate) fn run(to: SocketAddr, duration: Duration, interval: Duration, wait_for_path: bool) -> anyhow::Result<()> {
    let socket = connect(to)?;
    let reader = socket.try_clone().context("cannot share the socket")?;
    reader.set_read_timeout(Some(Duration::from_millis(1000))).context("cannot set a timeout")?;
    let start = now();
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
            "max_gap_ms": seen.longest_gap as f64 / 1e6,
            "gap_after_ms": seen.gap_after.saturating_sub(start) as f64 / 1e6,
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
    while now() < end {
        if socket.send(&sent.to_be_bytes()).is_err() {
            refused += 1;
        }
        sent += 1;
        let due = start + sent * nanos(interval);
        thread::sleep(Duration::from_nanos(due.saturating_sub(now())));
    }
    (sent, refused)
}

fn receive(socket: &UdpSocket, end: u64) -> Seen {
    let mut seen = Seen::default();
    let mut buffer = [0u8; 64];
    loop {
        match socket.recv(&mut buffer) {
            Ok(length) => note(&mut seen, number(&buffer[..length])),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) && now() > end => {
                return seen;
            }
            Err(_) => {}
        }
    }
}

fn note(seen: &mut Seen, number: Option<u64>) {
    let at = now();
    if seen.last_at > 0 && at - seen.last_at > seen.longest_gap {
        (seen.longest_gap, seen.gap_after) = (at - seen.last_at, seen.last_at);
    }
    seen.first = seen.first.or(number);
    seen.last_at = at;
    seen.received += 1;
}
