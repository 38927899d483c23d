//! Numbered datagrams at a steady pace: loss, and how long the network held any of them.
//!
//! A datagram carries the time at which it was sent; the server adds when the kernel received it and when it is
//! sent back; the client takes the kernel's receive time. What the network did is in those differences, unless one of the
//! two programs lost its processor for long between reading the clock and the end of its call: such a datagram has no times
//! that mean anything, and only counts as received. The clock is CLOCK_REALTIME, the clock of kernel timestamps.

use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::ops::Range;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;

use crate::connect;
use crate::stamp::{Sending, Stamped, realtime};

/// Sequence number, client's send time, server's receive time, server's send time, and how many of the server's earlier
/// sends lost the processor: 8 bytes each, big-endian.
pub(crate) const LENGTH: usize = 40;

/// What one echo says; times are nanoseconds.
struct Echo {
    sequence: u64,
    there: u64,
    back: u64,
    at: u64,
    disturbed: u64,
}

/// What was sent.
#[derive(Default)]
struct Sent {
    count: u64,
    refused: u64,
    disturbed: BTreeSet<u64>,
}

/// Sends for `duration`, waits a second for stragglers, prints one JSON object.
///
/// `lost` counts datagrams from the first that came back on (`wait_for_path`), or all of them; `max_gap_ms` is the longest
/// time that one of the `measured` datagrams was on its way, there or back; `blind` is the longest row of datagrams that were not
/// measured. If the network held everything for a time, this shows, but for as many intervals.
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
    let sent = send(&socket, start, end, interval)?;
    let echoes = receiver.join().map_err(|_| anyhow::anyhow!("the receiving thread panicked"))?;
    let first = echoes.first().map_or(sent.count, |echo| echo.sequence);
    let expected = sent.count - if wait_for_path { first } else { 0 };
    let measured = measured(&echoes, &sent.disturbed);
    let longest = measured.iter().max_by_key(|echo| echo.there.max(echo.back));
    println!(
        "{}",
        serde_json::json!({
            "sent": expected,
            "received": echoes.len(),
            "lost": expected.saturating_sub(echoes.len() as u64),
            "refused": sent.refused,
            "measured": measured.len(),
            "blind": longest_row(measured.iter().map(|echo| echo.sequence), first..sent.count),
            "max_gap_ms": longest.map(|echo| echo.there.max(echo.back) as f64 / 1e6),
            "max_gap_at_ms": longest.map(|echo| echo.at.saturating_sub(start) as f64 / 1e6),
        })
    );
    Ok(())
}

/// The echoes whose times are those of the network. What the server said of an echo comes with the one after it.
fn measured<'a>(echoes: &'a [Echo], disturbed: &BTreeSet<u64>) -> Vec<&'a Echo> {
    echoes
        .windows(2)
        .filter(|pair| pair[0].disturbed == pair[1].disturbed && !disturbed.contains(&pair[0].sequence))
        .map(|pair| &pair[0])
        .collect()
}

/// The longest row of numbers in `all` that are not among `found`.
fn longest_row(found: impl Iterator<Item = u64>, all: Range<u64>) -> u64 {
    let found: BTreeSet<u64> = found.filter(|number| all.contains(number)).collect();
    let (mut next, mut longest) = (all.start, 0);
    for number in found.into_iter().chain([all.end]) {
        longest = longest.max(number.saturating_sub(next));
        next = number + 1;
    }
    longest
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Sends on a fixed grid of times, so that a late wake-up does not slow the pace down.
fn send(socket: &UdpSocket, start: u64, end: u64, interval: Duration) -> anyhow::Result<Sent> {
    let mut sent = Sent::default();
    while realtime() < end {
        let mut datagram = [0u8; LENGTH];
        let sending = Sending::begin()?;
        datagram[..8].copy_from_slice(&sent.count.to_be_bytes());
        datagram[8..16].copy_from_slice(&sending.began().to_be_bytes());
        if socket.send(&datagram).is_err() {
            sent.refused += 1;
        }
        if sending.was_disturbed()? {
            sent.disturbed.insert(sent.count);
        }
        sent.count += 1;
        let due = start + sent.count * nanos(interval);
        thread::sleep(Duration::from_nanos(due.saturating_sub(realtime())));
    }
    Ok(sent)
}

fn receive(socket: &Stamped, end: u64) -> Vec<Echo> {
    let mut echoes = Vec::new();
    let mut buffer = [0u8; 64];
    loop {
        match socket.receive(&mut buffer) {
            Some((LENGTH, _, at)) => echoes.push(echo(&buffer, at)),
            Some(_) => {}
            None if realtime() > end => return echoes,
            None => {}
        }
    }
}

fn echo(datagram: &[u8], at: u64) -> Echo {
    let field = |index: usize| crate::number(&datagram[index * 8..]).unwrap_or(0);
    Echo {
        sequence: field(0),
        there: field(2).saturating_sub(field(1)),
        back: at.saturating_sub(field(3)),
        at,
        disturbed: field(4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mk_echo(sequence: u64, disturbed: u64) -> Echo {
        Echo { sequence, there: 1, back: 1, at: 0, disturbed }
    }

    #[test]
    fn the_longest_row_may_be_at_either_end() {
        let row = |found: &[u64]| longest_row(found.iter().copied(), 2..10);
        assert_eq!([row(&[]), row(&[2, 3, 4, 5, 6, 7, 8, 9]), row(&[9, 2, 5])], [8, 0, 3]);
        assert_eq!([row(&[8, 9]), row(&[2, 3]), row(&[0, 1, 30])], [6, 6, 8]);
    }

    #[test]
    fn an_echo_counts_unless_either_end_lost_its_processor() {
        let echoes = [mk_echo(0, 0), mk_echo(1, 0), mk_echo(2, 1), mk_echo(3, 1), mk_echo(4, 1)];
        let counted: Vec<u64> =
            measured(&echoes, &BTreeSet::from([2])).iter().map(|echo| echo.sequence).collect();
        assert_eq!(counted, [0, 3]);
    }
}
