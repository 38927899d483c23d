//! Hears from the speaker how its sessions stand, as soon as that changes.

use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use cilium_rest::Client;
use cilium_rest::bgp::Peers;
use tokio::sync::watch;

use super::{Line, Message};

/// Longer than the speaker keeps a question.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between attempts to reach it.
const RETRY: Duration = Duration::from_millis(200);

/// Runs until nobody wants to know.
pub(super) fn run(socket: &Path, line: &Line, peers: &watch::Sender<Option<Peers>>) {
    let client = Client::of_speaker(socket, Some(PATIENCE));
    let mut heard: Option<Peers> = None;
    let mut has_failed = false;
    while !peers.is_closed() {
        let path = match &heard {
            Some(last) => format!("/v1/peers?after={}", last.generation),
            None => "/v1/peers".to_owned(),
        };
        match client.get::<Peers>(&path) {
            Ok(now) => {
                if heard.is_none() {
                    line.say(Message::Speaker(Ok(())));
                }
                has_failed = false;
                heard = Some(now.clone());
                peers.send_if_modified(|known| known.replace(now.clone()).is_none_or(|before| before != now));
            }
            Err(error) => {
                // A new speaker, or one that was away, is told everything again.
                if !has_failed {
                    line.say(Message::Speaker(Err(error.chain())));
                }
                (heard, has_failed) = (None, true);
                peers.send_if_modified(|known| known.take().is_some());
                sleep(RETRY);
            }
        }
    }
}
