//! When does a path open, when does it close: from one socket, so that established state counts.

use std::io::Write as _;
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;

use crate::{connect, now};

/// Sends every `interval`; prints `{"up":true,"at":…}` with the time of the first echo after a silence, and
/// `{"up":false,"at":…}` with the time of the last echo before one.
pub(crate) fn run(
    to: SocketAddr,
    interval: Duration,
    silence: Duration,
    limit: Duration,
) -> anyhow::Result<()> {
    let socket = connect(to)?;
    let reader = socket.try_clone().context("cannot share the socket")?;
    reader.set_read_timeout(Some(silence)).context("cannot set a timeout")?;
    thread::spawn(move || report(&reader));
    let end = now() + u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
    while now() < end {
        // Refusals are what a closed path may look like.
        let _closed = socket.send(&now().to_be_bytes());
        thread::sleep(interval);
    }
    Ok(())
}

fn report(socket: &UdpSocket) {
    let mut buffer = [0u8; 64];
    let (mut up, mut last) = (false, 0);
    say(false, now());
    loop {
        match socket.recv(&mut buffer) {
            Ok(_) => {
                last = now();
                if !up {
                    say(true, last);
                }
                up = true;
            }
            Err(_) if up => {
                up = false;
                say(false, last);
            }
            Err(_) => {}
        }
    }
}

fn say(up: bool, at: u64) {
    println!("{}", serde_json::json!({"up": up, "at": at}));
    // A reader that is gone ends the process through SIGPIPE or the time limit.
    let _gone = std::io::stdout().flush();
}
