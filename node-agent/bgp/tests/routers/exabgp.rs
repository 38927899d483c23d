//! ExaBGP: it has no table of its own, and says what comes.

use std::fs::{File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use cilium_rest::bgp::Family;
use ipnet::IpNet;
use serde_json::Value;

use crate::lab::{Lab, Process};
use crate::router::{Router, Seen, list, number};
use crate::session::{NODE_ASN, RESTART_TIME, Session, router_address, router_prefix};

pub(crate) struct Exabgp {
    events: PathBuf,
    commands: File,
    families: Vec<Family>,
    daemon: Process,
}

fn configuration(session: &Session, script: &str) -> String {
    let name = |family: &Family| if *family == Family::Ipv4 { "ipv4 unicast" } else { "ipv6 unicast" };
    let families: String = session.families.iter().map(|it| format!("{};", name(it))).collect();
    let route = |family: &Family| {
        let hop = if session.extended_next_hop { Family::Ipv6 } else { *family };
        format!("route {} next-hop {};", router_prefix(*family), router_address(hop))
    };
    let routes: String = session.families.iter().map(route).collect();
    let mut options = Vec::new();
    options.extend(session.router_password.map(|it| format!("md5-password \"{it}\";")));
    if session.router_ttl_security {
        options.push("outgoing-ttl 255; incoming-ttl 255;".to_owned());
    }
    let (nexthop, conversion) = if session.extended_next_hop {
        ("nexthop enable;", "nexthop { ipv4 unicast ipv6; }")
    } else {
        ("", "")
    };
    format!(
        "process watch {{ run {script}; encoder json; }}\n\
         neighbor {} {{ router-id 10.1.0.2; local-address {}; local-as {}; peer-as {NODE_ASN}; hold-time 90;\n\
         capability {{ graceful-restart {RESTART_TIME}; route-refresh enable; {nexthop} }}\n\
         family {{ {families} }}\n{conversion}\nstatic {{ {routes} }}\n{}\n\
         api {{ processes [ watch ]; neighbor-changes; receive {{ parsed; update; }} }} }}\n",
        session.node(),
        session.router(),
        session.router_asn,
        options.join("\n"),
    )
}

impl Exabgp {
    /// What it said, in order.
    fn events(&self) -> Result<Vec<Value>> {
        let text = std::fs::read_to_string(&self.events)?;
        Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }
}

/// A route, if an UPDATE makes it known; its next hop is a key of a table.
fn announced(update: &Value, prefix: IpNet) -> Result<Option<Seen>> {
    let family = if prefix.addr().is_ipv4() { "ipv4 unicast" } else { "ipv6 unicast" };
    let Some(hops) = update["announce"][family].as_object() else { return Ok(None) };
    let has = |routes: &Value| list(routes).iter().any(|it| it["nlri"] == prefix.to_string());
    let hops = hops.iter().filter(|(hop, routes)| has(routes) && !hop.starts_with("fe80:"));
    let next_hops = hops.map(|(hop, _)| hop.parse()).collect::<Result<Vec<_>, _>>()?;
    if next_hops.is_empty() {
        return Ok(None);
    }
    let attribute = &update["attribute"];
    let numbers = |value: &Value| list(value).iter().map(number).collect::<Result<Vec<_>>>();
    let pairs = list(&attribute["community"]).iter().map(numbers).collect::<Result<Vec<_>>>()?;
    let triples = list(&attribute["large-community"]).iter().map(numbers).collect::<Result<Vec<_>>>()?;
    let mut communities: Vec<u32> = pairs.iter().map(|it| it[0] << 16 | it[1]).collect();
    communities.sort_unstable();
    Ok(Some(Seen {
        next_hops,
        as_path: numbers(&attribute["as-path"])?,
        communities,
        large_communities: triples.iter().map(|it| (it[0], it[1], it[2])).collect(),
        local_preference: number(&attribute["local-preference"]).ok(),
    }))
}

fn is_withdrawn(update: &Value, prefix: IpNet) -> bool {
    let family = if prefix.addr().is_ipv4() { "ipv4 unicast" } else { "ipv6 unicast" };
    list(&update["withdraw"][family]).iter().any(|it| it["nlri"] == prefix.to_string())
}

impl Router for Exabgp {
    fn start(lab: &Lab, session: &Session) -> Result<Self> {
        let (events, commands) = (lab.write("events", "")?, lab.write("commands", "")?);
        let script = lab.write(
            "watch",
            &format!(
                "#!/bin/sh\ntail --pid=$$ -n +1 -s 0.1 -f {} &\nexec cat >>{}\n",
                commands.display(),
                events.display()
            ),
        )?;
        std::fs::set_permissions(&script, Permissions::from_mode(0o755))?;
        let file = lab.write("exabgp.conf", &configuration(session, &script.display().to_string()))?;
        let variables = [
            ("exabgp.daemon.user", "root"),
            ("exabgp.daemon.drop", "false"),
            ("exabgp.log.destination", "stdout"),
            ("exabgp.api.cli", "false"),
            ("exabgp.api.ack", "false"),
        ];
        let daemon = lab.spawn(&lab.router, "exabgp", "/usr/sbin/exabgp", [&file], &variables)?;
        let commands = File::options().append(true).open(commands)?;
        Ok(Self { events, commands, families: session.families.clone(), daemon })
    }

    fn route(&mut self, prefix: IpNet) -> Result<Option<Seen>> {
        self.daemon.check()?;
        let mut seen = None;
        for event in self.events()? {
            let neighbor = &event["neighbor"];
            let update = &neighbor["message"]["update"];
            if neighbor["state"] == "down" || is_withdrawn(update, prefix) {
                seen = None;
            }
            seen = announced(update, prefix)?.or(seen);
        }
        Ok(seen)
    }

    fn ask_again(&mut self) -> Result<()> {
        for family in &self.families {
            let name = if *family == Family::Ipv4 { "ipv4" } else { "ipv6" };
            writeln!(self.commands, "announce route-refresh {name} unicast")?;
        }
        Ok(())
    }

    fn crash(&mut self) -> Result<()> {
        self.daemon.kill()
    }

    fn come_back(&mut self) -> Result<()> {
        self.daemon.start_again(&[])
    }

    fn updates(&mut self) -> Result<u64> {
        let updates =
            self.events()?.iter().filter(|it| it["neighbor"]["message"]["update"].is_object()).count();
        u64::try_from(updates).context("a count")
    }
}
