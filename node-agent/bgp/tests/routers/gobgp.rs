//! GoBGP.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};
use cilium_rest::bgp::Family;
use ipnet::IpNet;
use serde_json::Value;

use crate::lab::{Checked as _, DEVICE, Lab, Process, until};
use crate::router::{Router, Seen, list, number};
use crate::session::{NODE_ASN, RESTART_TIME, Session, router_address, router_prefix};

pub(crate) struct Gobgp {
    target: String,
    peer: String,
    /// What it announces, with next hops.
    routes: Vec<(IpNet, IpAddr)>,
    daemon: Process,
}

fn peer_address(session: &Session) -> String {
    let address = session.node();
    if session.link_local { format!("{address}%{DEVICE}") } else { address.to_string() }
}

fn configuration(session: &Session) -> String {
    let peer = peer_address(session);
    let mut text = format!(
        "[global.config]\nas = {}\nrouter-id = \"10.1.0.2\"\nport = 179\n\
         [[neighbors]]\n[neighbors.config]\nneighbor-address = \"{peer}\"\npeer-as = {NODE_ASN}\n",
        session.router_asn
    );
    if let Some(password) = session.router_password {
        text += &format!("auth-password = \"{password}\"\n");
    }
    text += "[neighbors.timers.config]\nconnect-retry = 1\nidle-hold-time-after-reset = 1\n";
    text += &format!("[neighbors.graceful-restart.config]\nenabled = true\nrestart-time = {RESTART_TIME}\n");
    text += &format!("long-lived-enabled = {}\n", session.long_lived);
    if session.router_ttl_security {
        text += "[neighbors.ttl-security.config]\nenabled = true\nttl-min = 255\n";
    }
    for family in &session.families {
        let name = if *family == Family::Ipv4 { "ipv4-unicast" } else { "ipv6-unicast" };
        text += &format!(
            "[[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = \"{name}\"\n\
             [neighbors.afi-safis.mp-graceful-restart.config]\nenabled = true\n"
        );
        if session.long_lived {
            text += "[neighbors.afi-safis.long-lived-graceful-restart.config]\nenabled = true\nrestart-time = 120\n";
        }
    }
    text
}

fn family(prefix: IpNet) -> &'static str {
    if prefix.addr().is_ipv4() { "ipv4" } else { "ipv6" }
}

impl Gobgp {
    fn announce(&mut self) -> Result<()> {
        until("gobgpd", || {
            self.daemon.check()?;
            self.ask("neighbor").map(Some)
        })?;
        for (prefix, hop) in &self.routes {
            self.ask(&format!("global rib add {prefix} nexthop {hop} -a {}", family(*prefix)))?;
        }
        Ok(())
    }

    fn ask(&self, command: &str) -> Result<String> {
        Command::new("gobgp").args(["--target", &self.target]).args(command.split(' ')).checked()
    }
}

impl Router for Gobgp {
    fn start(lab: &Lab, session: &Session) -> Result<Self> {
        let file: PathBuf = lab.write("gobgpd.toml", &configuration(session))?;
        let target = format!("unix://{}", lab.path("gobgp.sock").display());
        let args = ["-f", &file.display().to_string(), "--api-hosts", &target, "--log-plain"];
        let daemon = lab.spawn(&lab.router, "gobgpd", "/usr/bin/gobgpd", args, &[])?;
        let peer = peer_address(session);
        // A session of IPv6 takes the router's own address as next hop of IPv4.
        let hop = |it| if session.extended_next_hop { Family::Ipv6 } else { it };
        let routes = session.families.iter().map(|it| (router_prefix(*it), router_address(hop(*it))));
        let routes = routes.collect();
        let mut gobgp = Self { target, peer, routes, daemon };
        gobgp.announce()?;
        Ok(gobgp)
    }

    fn route(&mut self, prefix: IpNet) -> Result<Option<Seen>> {
        let text = self.ask(&format!("global rib -a {} -j", family(prefix)))?;
        let table: Value = serde_json::from_str(&text).unwrap_or_default();
        let Some(path) = list(&table[&prefix.to_string()]).first() else { return Ok(None) };
        let mut seen = Seen::default();
        for attribute in list(&path["attrs"]) {
            if let Some(hop) = attribute["nexthop"].as_str() {
                seen.next_hops = vec![hop.parse()?];
            }
            match attribute["type"].as_u64().with_context(|| format!("{attribute}"))? {
                2 => {
                    let segments = list(&attribute["as_paths"]).iter().flat_map(|it| list(&it["asns"]));
                    seen.as_path = segments.map(number).collect::<Result<_>>()?;
                }
                5 => seen.local_preference = Some(number(&attribute["value"])?),
                8 => {
                    seen.communities =
                        list(&attribute["communities"]).iter().map(number).collect::<Result<_>>()?;
                    seen.communities.sort_unstable();
                }
                32 => {
                    let triple = |it: &Value| {
                        let part = |name: &str| number(&it[name]);
                        Ok((part("ASN")?, part("LocalData1")?, part("LocalData2")?))
                    };
                    let all = list(&attribute["value"]).iter().map(triple);
                    seen.large_communities = all.collect::<Result<_>>()?;
                }
                _ => {}
            }
        }
        Ok(Some(seen))
    }

    fn ask_again(&mut self) -> Result<()> {
        self.ask(&format!("neighbor {} softresetin", self.peer)).map(drop)
    }

    fn crash(&mut self) -> Result<()> {
        self.daemon.kill()?;
        Ok(std::fs::remove_file(self.target.trim_start_matches("unix://"))?)
    }

    fn come_back(&mut self) -> Result<()> {
        self.daemon.start_again(&["-r"])?;
        self.announce()
    }

    fn updates(&mut self) -> Result<u64> {
        let answer = self.ask(&format!("neighbor {}", self.peer))?;
        let line = answer.lines().find_map(|line| line.trim().strip_prefix("Updates:"));
        let count = line.and_then(|rest| rest.split_whitespace().nth(1)?.parse().ok());
        count.with_context(|| format!("no count of UPDATEs: {answer}"))
    }
}
