//! Our speaker.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use cilium_rest::Client;
use cilium_rest::bgp::{
    Attributes, Config, Family, ImportedRoute, Instance, Peer, Peers, RouteChanges, Routes,
};
use ipnet::{IpNet, Ipv4Net};

use super::daemon::{ASN, Daemon, ROUTER_ID, Setup};
use super::generator;
use super::lab::{Lab, PATIENCE, Process};

/// The one advertisement.
const ADVERTISEMENT: &str = "own";

pub(super) struct Ours {
    client: Client,
    process: Process,
    /// It has prefixes, so that there may be changes.
    has_routes: bool,
}

pub(super) fn config(port: u16, peers: &[generator::Peer]) -> Config {
    let peer = |it: &generator::Peer| Peer {
        name: it.address.to_string(),
        address: it.address.into(),
        device: None,
        asn: it.asn.into(),
        port: 179,
        local_address: None,
        connect_retry: 120,
        hold_time: 240,
        keepalive: 80,
        password: None,
        hops: 1,
        ttl_security: false,
        passive: true,
        restart_time: None,
        stale_time: None,
        bfd: None,
        import: true,
        families: [(Family::Ipv4, vec![ADVERTISEMENT.to_owned()])].into(),
    };
    let instance = Instance {
        name: "bench".to_owned(),
        asn: ASN,
        router_id: ROUTER_ID,
        port: Some(port),
        next_hop4: None,
        next_hop6: None,
        advertisements: [(ADVERTISEMENT.to_owned(), Attributes::default())].into(),
        peers: peers.iter().map(peer).collect(),
    };
    Config { instances: vec![instance] }
}

pub(super) fn routes(prefixes: &[Ipv4Net]) -> Routes {
    prefixes.iter().map(|prefix| (IpNet::V4(*prefix), vec![ADVERTISEMENT.to_owned()])).collect()
}

/// Has the speaker choose best paths: it does so when it is asked. Fails unless there is one for so many prefixes.
pub(super) fn choose(speaker: &Client, prefixes: usize) -> Result<()> {
    let best: Vec<ImportedRoute> = speaker.get("/v1/import")?;
    ensure!(best.len() == prefixes, "of {prefixes} prefixes, {} have a best path", best.len());
    Ok(())
}

/// The program beside this one.
fn program() -> Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name("cilium-bgp");
    ensure!(path.exists(), "{} is not there: run through `just bench`", path.display());
    Ok(path)
}

fn start_process(lab: &Lab, socket: &Path) -> Result<Process> {
    let state = lab.path("state");
    let args = ["--state-dir".as_ref(), state.as_os_str(), "--socket".as_ref(), socket.as_os_str()];
    lab.spawn(&program()?, args)
}

impl Ours {
    pub(super) fn start(lab: &Lab, setup: &Setup<'_>) -> Result<Self> {
        let state = lab.path("state");
        if state.exists() {
            std::fs::remove_dir_all(&state)?;
        }
        let socket = lab.path("speaker.sock");
        let mut process = start_process(lab, &socket)?;
        let client = Client::of_speaker(&socket, Some(PATIENCE));
        process.until("the speaker's socket", || Ok(client.get::<Peers>("/v1/peers")?))?;
        client
            .replace("/v1/config", &config(179, setup.peers))
            .context("the speaker takes no configuration")?;
        Ok(Self { client, process, has_routes: false })
    }
}

impl Daemon for Ours {
    fn learned(&mut self) -> Result<usize> {
        let peers: Peers = self.client.get("/v1/peers")?;
        let received = peers.peers.iter().flat_map(|peer| &peer.families).map(|it| it.received);
        Ok(received.sum::<u64>() as usize)
    }

    fn speaker(&self) -> Option<Client> {
        Some(self.client.clone())
    }

    fn tell(&mut self, prefixes: &[Ipv4Net]) -> Result<()> {
        let set = routes(prefixes);
        if std::mem::replace(&mut self.has_routes, true) {
            return Ok(self.client.patch("/v1/routes", &RouteChanges { set, removed: Vec::new() })?);
        }
        Ok(self.client.replace("/v1/routes", &set)?)
    }

    fn process(&self) -> &Process {
        &self.process
    }
}
