//! GoBGP, through its command line.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use ipnet::Ipv4Net;
use serde_json::Value;

use super::daemon::{ASN, Daemon, ROUTER_ID, Setup};
use super::lab::{DAEMON, Lab, Process};
use super::wire;

pub(super) struct Gobgp<'lab> {
    lab: &'lab Lab,
    target: String,
    process: Process,
}

fn configuration(setup: &Setup<'_>) -> String {
    let mut text = format!(
        "[global.config]\nas = {ASN}\nrouter-id = \"{ROUTER_ID}\"\nport = 179\nlocal-address-list = [\"{DAEMON}\"]\n"
    );
    if setup.tells {
        text += "[global.apply-policy.config]\ndefault-export-policy = \"accept-route\"\n";
    } else {
        text += "[global.apply-policy.config]\ndefault-export-policy = \"reject-route\"\n";
    }
    for peer in setup.peers {
        text += &format!(
            "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"{}\"\npeer-as = {}\n\
             [neighbors.transport.config]\npassive-mode = true\n[neighbors.timers.config]\nhold-time = 240\n\
             [[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = \"ipv4-unicast\"\n",
            peer.address, peer.asn
        );
    }
    text
}

fn ask(target: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new("gobgp").args(["--target", target]).args(arguments).output()?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "gobgp {arguments:?}: {out}{err}");
    Ok(out.into_owned())
}

impl<'lab> Gobgp<'lab> {
    pub(super) fn start(lab: &'lab Lab, setup: &Setup<'_>) -> Result<Self> {
        let file = lab.write("gobgpd.toml", configuration(setup))?.display().to_string();
        let socket = lab.path("gobgp.sock");
        if socket.exists() {
            std::fs::remove_file(&socket)?;
        }
        let target = format!("unix://{}", socket.display());
        let args = ["-f", &file, "--api-hosts", &target, "--log-plain", "-l", "warn", "--pprof-disable"];
        let mut process = lab.spawn("/usr/bin/gobgpd".as_ref(), args)?;
        process.until("gobgpd's API", || ask(&target, &["global"]))?;
        Ok(Self { lab, target, process })
    }
}

impl Daemon for Gobgp<'_> {
    fn learned(&mut self) -> Result<usize> {
        let text = ask(&self.target, &["neighbor", "-j"])?;
        let neighbours: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
        let families =
            neighbours.as_array().into_iter().flatten().filter_map(|it| it["afi_safis"].as_array());
        Ok(families.flatten().filter_map(|it| it["state"]["accepted"].as_u64()).sum::<u64>() as usize)
    }

    fn tell(&mut self, prefixes: &[Ipv4Net]) -> Result<()> {
        if let [prefix] = prefixes {
            return ask(&self.target, &["global", "rib", "add", &prefix.to_string()]).map(drop);
        }
        let file = self.lab.write("own.mrt", dump(prefixes))?.display().to_string();
        // It ends before the daemon has read all that it wrote, and the rest is lost: that is told again.
        let mut there = 0;
        while there < prefixes.len() {
            let (count, skip) = ((prefixes.len() - there).to_string(), there.to_string());
            ask(&self.target, &["mrt", "inject", "global", &file, &count, &skip])?;
            there = own(&self.target)?;
        }
        Ok(())
    }

    fn process(&self) -> &Process {
        &self.process
    }
}

/// Prefixes in its table: "Destination: 5, Path: 5".
fn own(target: &str) -> Result<usize> {
    let summary = ask(target, &["global", "rib", "summary"])?;
    let count = summary.split_once("Destination: ").and_then(|(_, rest)| rest.split_once(','));
    Ok(count.with_context(|| format!("no count: {summary}"))?.0.parse()?)
}

/// A table of one peer in the form MRT (RFC 6396, 4.3): the command line takes many prefixes at once in no other one.
fn dump(prefixes: &[Ipv4Net]) -> Vec<u8> {
    // A path of AS 0 is the daemon's own.
    let id = ROUTER_ID.octets();
    let index = [&id[..], &[0, 0], &[0, 1], &[0x02], &id, &DAEMON.octets(), &[0; 4]].concat();
    let mut dump = record(1, &index);
    // ORIGIN IGP, an empty AS_PATH, NEXT_HOP; paths without a next hop are dropped.
    let attributes = [&[0x40, 1, 1, 0, 0x40, 2, 0, 0x40, 3, 4], &DAEMON.octets()[..]].concat();
    for (number, prefix) in (0u32..).zip(prefixes) {
        let mut body = number.to_be_bytes().to_vec();
        wire::put(&mut body, *prefix);
        body.extend([0, 1, 0, 0, 0, 0, 0, 0, 0, attributes.len() as u8]);
        body.extend(&attributes);
        dump.extend(record(2, &body));
    }
    dump
}

/// A record of TABLE_DUMP_V2.
fn record(subtype: u8, body: &[u8]) -> Vec<u8> {
    [&[0, 0, 0, 0, 0, 13, 0, subtype][..], &(body.len() as u32).to_be_bytes(), body].concat()
}
