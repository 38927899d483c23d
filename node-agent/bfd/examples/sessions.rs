//! Has sessions with the neighbours named, and prints what becomes of them:
//! `sessions [LOCAL,]PEER[%DEVICE] …`, with packets every 100 ms, of which two may be missing.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU8;
use std::time::Duration;

use cilium_bfd::{Bfd, Key, Parameters};

fn key(text: &str) -> Result<Key, std::net::AddrParseError> {
    let (local, rest) = text.split_once(',').map_or((None, text), |(local, rest)| (Some(local), rest));
    let (peer, device) = rest.split_once('%').map_or((rest, None), |(peer, device)| (peer, Some(device)));
    let local = local.map(str::parse::<IpAddr>).transpose()?;
    Ok(Key { local, peer: peer.parse()?, device: device.map(str::to_owned) })
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let parameters = Parameters {
        transmit: Duration::from_millis(100),
        receive: Duration::from_millis(100),
        multiplier: NonZeroU8::MIN.saturating_add(2),
    };
    let keys = std::env::args().skip(1).map(|text| Ok((key(&text)?, parameters)));
    let wanted = keys.collect::<Result<BTreeMap<_, _>, std::net::AddrParseError>>()?;
    let (bfd, mut changes) = Bfd::start()?;
    bfd.set(wanted);
    while let Some(change) = changes.recv().await {
        println!(
            "{} {} ({}) {}",
            change.key.peer,
            change.state,
            change.diagnostic,
            change.problem.unwrap_or_default()
        );
    }
    Ok(())
}
