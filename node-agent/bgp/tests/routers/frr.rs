//! FRR: zebra, bgpd and bfdd.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};
use cilium_rest::bgp::Family;
use ipnet::IpNet;
use serde_json::Value;

use crate::lab::{Checked as _, DEVICE, Lab, Process, until};
use crate::router::{Router, Seen, community, large_community, list, number};
use crate::session::{NODE_ASN, Session, router_prefix};

pub(crate) struct Frr {
    folder: PathBuf,
    peer: String,
    bgpd: Process,
    /// What it needs ends after it.
    _others: Vec<Process>,
}

fn bgpd(session: &Session) -> String {
    let peer = session.node();
    let mut lines = vec![
        "hostname frr".to_owned(),
        format!("router bgp {}", session.router_asn),
        " bgp router-id 10.1.0.2".to_owned(),
        " no bgp ebgp-requires-policy".to_owned(),
        " no bgp default ipv4-unicast".to_owned(),
        " no bgp network import-check".to_owned(),
        format!(" neighbor {peer} remote-as {NODE_ASN}"),
        format!(" neighbor {peer} timers connect 1"),
        format!(" neighbor {peer} advertisement-interval 0"),
    ];
    if session.router_restarts {
        lines.push(" bgp graceful-restart".to_owned());
        lines.push(" bgp graceful-restart preserve-fw-state".to_owned());
    }
    let options = [
        session.link_local.then(|| format!("interface {DEVICE}")),
        (session.router_password.map(|it| format!("password {it}"))),
        session.router_ttl_security.then(|| "ttl-security hops 1".to_owned()),
        session.extended_next_hop.then(|| "capability extended-nexthop".to_owned()),
        session.bfd.then(|| "bfd 3 100 100".to_owned()),
    ];
    lines.extend(options.into_iter().flatten().map(|option| format!(" neighbor {peer} {option}")));
    for family in &session.families {
        let name = if *family == Family::Ipv4 { "ipv4" } else { "ipv6" };
        lines.push(format!(" address-family {name} unicast"));
        lines.push(format!("  network {}", router_prefix(*family)));
        lines.push(format!("  neighbor {peer} activate"));
        // It would say the node's own prefixes back to it.
        lines.push(format!("  neighbor {peer} prefix-list own out"));
        lines.push(" exit-address-family".to_owned());
    }
    for family in &session.families {
        let name = if *family == Family::Ipv4 { "ip" } else { "ipv6" };
        lines.push(format!("{name} prefix-list own permit {}", router_prefix(*family)));
    }
    lines.join("\n") + "\n!\n"
}

impl Frr {
    fn ask(&self, command: &str) -> Result<String> {
        Command::new("vtysh").arg("--vty_socket").arg(&self.folder).args(["-c", command]).checked()
    }

    fn json(&self, command: &str) -> Result<Value> {
        let text = self.ask(&format!("{command} json"))?;
        serde_json::from_str(&text).with_context(|| format!("{command}: {text}"))
    }
}

impl Router for Frr {
    fn start(lab: &Lab, session: &Session) -> Result<Self> {
        let folder = lab.path("frr");
        std::fs::create_dir(&folder)?;
        lab.write("frr/bgpd.conf", &bgpd(session))?;
        lab.write("frr/empty.conf", "")?;
        Command::new("chown").args(["-R", "frr:frr"]).arg(&folder).checked()?;
        let at = |name: &str| folder.join(name).display().to_string();
        let start = |name: &str, more: &[&str]| {
            let common = [
                "-u",
                "frr",
                "-g",
                "frr",
                "-P",
                "0",
                "-z",
                &at("zserv.api"),
                "--log",
                "stdout",
                "--log-level",
                "debug",
                "--vty_socket",
                &at(""),
                "-i",
                &at(&format!("{name}.pid")),
            ]
            .map(str::to_owned);
            let args = common.into_iter().chain(more.iter().map(|it| (*it).to_owned()));
            lab.spawn(&lab.router, name, &format!("/usr/lib/frr/{name}"), args, &[])
        };
        let mut others = vec![start("zebra", &["-f", &at("empty.conf")])?];
        until("zebra", || Ok(folder.join("zserv.api").exists().then_some(())))?;
        if session.bfd {
            others.insert(0, start("bfdd", &["-f", &at("empty.conf"), "--bfdctl", &at("bfdd.sock")])?);
        }
        let bgpd = start("bgpd", &["-f", &at("bgpd.conf"), "-n"])?;
        let peer = session.node().to_string();
        let frr = Self { folder: folder.clone(), peer, bgpd, _others: others };
        until("bgpd", || frr.ask("show bgp summary").map(Some))?;
        Ok(frr)
    }

    fn route(&mut self, prefix: IpNet) -> Result<Option<Seen>> {
        let family = if prefix.addr().is_ipv4() { "ipv4" } else { "ipv6" };
        let answer = self.json(&format!("show bgp {family} unicast {prefix}"))?;
        let Some(path) = list(&answer["paths"]).first() else { return Ok(None) };
        let texts = |field: &str| list(&path[field]["list"]).iter().filter_map(Value::as_str);
        let hops = list(&path["nexthops"]).iter().filter(|hop| hop["scope"] != "link-local");
        let hops = hops.filter_map(|hop| hop["ip"].as_str()).map(str::parse);
        let segments = list(&path["aspath"]["segments"]).iter().flat_map(|it| list(&it["list"]));
        let mut communities = texts("community").map(community).collect::<Result<Vec<_>>>()?;
        communities.sort_unstable();
        Ok(Some(Seen {
            next_hops: hops.collect::<Result<_, _>>()?,
            as_path: segments.map(number).collect::<Result<_>>()?,
            communities,
            large_communities: texts("largeCommunity").map(large_community).collect::<Result<_>>()?,
            local_preference: number(&path["locPrf"]).or_else(|_| number(&path["localPref"])).ok(),
        }))
    }

    fn ask_again(&mut self) -> Result<()> {
        self.ask(&format!("clear bgp {} soft in", self.peer)).map(drop)
    }

    fn crash(&mut self) -> Result<()> {
        self.bgpd.kill()
    }

    fn come_back(&mut self) -> Result<()> {
        self.bgpd.start_again(&[])
    }

    fn updates(&mut self) -> Result<u64> {
        let answer = self.json(&format!("show bgp neighbors {}", self.peer))?;
        let count = answer[&self.peer]["messageStats"]["updatesRecv"].as_u64();
        count.with_context(|| format!("no count of UPDATEs: {answer}"))
    }
}
