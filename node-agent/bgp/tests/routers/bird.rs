//! BIRD 2.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use cilium_rest::bgp::Family;
use ipnet::IpNet;

use crate::lab::{Checked as _, DEVICE, Lab, Process, until};
use crate::router::{Router, Seen, numbers};
use crate::session::{NODE_ASN, RESTART_TIME, Session, router_prefix};

pub(crate) struct Bird {
    socket: PathBuf,
    daemon: Process,
}

fn configuration(session: &Session) -> String {
    let channel = |family: Family| {
        let name = if family == Family::Ipv4 { "ipv4" } else { "ipv6" };
        let extended =
            if session.extended_next_hop && family == Family::Ipv4 { "extended next hop on;" } else { "" };
        format!("{name} {{ import all; export where source = RTS_STATIC; {extended} }};\n")
    };
    let source = |family: Family| {
        let name = if family == Family::Ipv4 { "ipv4" } else { "ipv6" };
        format!("protocol static {{ {name}; route {} blackhole; }}\n", router_prefix(family))
    };
    let all =
        |text: &dyn Fn(Family) -> String| -> String { session.families.iter().map(|it| text(*it)).collect() };
    let mut options = vec![format!("graceful restart on; graceful restart time {RESTART_TIME};")];
    options.push("long lived graceful restart on;".to_owned());
    options.extend(session.link_local.then(|| format!("interface \"{DEVICE}\";")));
    options.extend(session.router_password.map(|it| format!("password \"{it}\";")));
    options.extend(session.router_ttl_security.then(|| "ttl security on;".to_owned()));
    // With `on`, BIRD drops the routes of a node that restarts as soon as BFD misses it (RFC 5882, 4.3).
    let bfd = if session.graceful_restart { "graceful" } else { "on" };
    options.extend(session.bfd.then(|| format!("bfd {bfd};")));
    format!(
        "router id 10.1.0.2;\nlog stderr all;\nprotocol device {{}}\n\
         protocol bfd {{ interface \"*\" {{ interval 100 ms; multiplier 3; }}; }}\n{}\
         protocol bgp node {{\nlocal {} as {};\nneighbor {} as {NODE_ASN};\ndirect;\n\
         connect delay time 1;\nconnect retry time 1;\nerror wait time 1, 2;\n{}\n{}}}\n",
        all(&source),
        session.router(),
        session.router_asn,
        session.node(),
        options.join("\n"),
        all(&channel),
    )
}

impl Bird {
    fn ask(&self, command: &str) -> Result<String> {
        Command::new("birdc").arg("-s").arg(&self.socket).args(command.split(' ')).checked()
    }
}

/// What stands behind a name in the answer to `show route all`.
fn field<'a>(answer: &'a str, name: &str) -> &'a str {
    let line = answer.lines().find_map(|line| line.trim().strip_prefix(name));
    line.map_or("", str::trim)
}

/// `(1,2) (3,4)`: numbers of each pair of brackets.
fn groups(text: &str) -> Result<Vec<Vec<u32>>> {
    text.split('(').skip(1).map(|part| numbers(part.split(')').next().unwrap_or_default(), ',')).collect()
}

impl Router for Bird {
    fn start(lab: &Lab, session: &Session) -> Result<Self> {
        let file = lab.write("bird.conf", &configuration(session))?;
        let socket = lab.path("bird.ctl");
        let args =
            ["-f".into(), "-c".into(), file, "-s".into(), socket.clone(), "-P".into(), lab.path("bird.pid")];
        let daemon = lab.spawn(&lab.router, "bird", "/usr/sbin/bird", args, &[])?;
        let mut bird = Self { socket, daemon };
        until("bird", || {
            bird.daemon.check()?;
            bird.ask("show status").map(Some)
        })?;
        Ok(bird)
    }

    fn route(&mut self, prefix: IpNet) -> Result<Option<Seen>> {
        let command = format!("show route for {prefix} protocol node all");
        let output = Command::new("birdc").arg("-s").arg(&self.socket).args(command.split(' ')).output()?;
        let answer = String::from_utf8_lossy(&output.stdout).into_owned();
        if ["Network not found", "No valid tables"].iter().any(|it| answer.contains(it)) {
            return Ok(None);
        }
        ensure!(output.status.success(), "birdc: {answer}");
        if !answer.contains(&prefix.to_string()) {
            return Ok(None);
        }
        let next_hop = field(&answer, "BGP.next_hop:").split(' ').next().unwrap_or_default();
        let pairs = groups(field(&answer, "BGP.community:"))?;
        let triples = groups(field(&answer, "BGP.large_community:"))?;
        let mut communities: Vec<u32> = pairs.iter().map(|it| it[0] << 16 | it[1]).collect();
        communities.sort_unstable();
        Ok(Some(Seen {
            next_hops: vec![next_hop.parse().with_context(|| answer.clone())?],
            as_path: numbers(field(&answer, "BGP.as_path:"), ' ')?,
            communities,
            large_communities: triples.iter().map(|it| (it[0], it[1], it[2])).collect(),
            local_preference: field(&answer, "BGP.local_pref:").parse().ok(),
        }))
    }

    fn ask_again(&mut self) -> Result<()> {
        self.ask("reload in node").map(drop)
    }

    fn crash(&mut self) -> Result<()> {
        self.daemon.kill()
    }

    fn come_back(&mut self) -> Result<()> {
        self.daemon.start_again(&["-R"])
    }

    fn updates(&mut self) -> Result<u64> {
        let answer = self.ask("show protocols all node")?;
        let counts = answer.lines().filter_map(|line| line.trim().strip_prefix("Import updates:"));
        // One prefix in each UPDATE.
        counts.map(|rest| Ok(rest.split_whitespace().next().unwrap_or_default().parse::<u64>()?)).sum()
    }
}
