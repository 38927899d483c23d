//! FRR's bgpd, through the socket that its shell uses.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use ipnet::Ipv4Net;
use serde_json::Value;

use super::daemon::{ASN, Daemon, ROUTER_ID, Setup};
use super::lab::{Lab, Process};

pub(super) struct Frr {
    shell: Shell,
    process: Process,
}

/// A session with the daemon's shell.
struct Shell(UnixStream);

impl Shell {
    fn open(socket: &Path) -> Result<Self> {
        let mut shell = Self(UnixStream::connect(socket)?);
        shell.ask("enable")?;
        Ok(shell)
    }

    /// A command ends with a zero byte, its answer with three and a code.
    fn ask(&mut self, command: &str) -> Result<String> {
        self.0.write_all(format!("{command}\0").as_bytes())?;
        let (mut answer, mut chunk) = (Vec::new(), [0; 65536]);
        loop {
            if let [text @ .., 0, 0, 0, code] = answer.as_slice() {
                let text = String::from_utf8_lossy(text).into_owned();
                return if *code == 0 {
                    Ok(text)
                } else {
                    Err(anyhow::anyhow!("bgpd refused {command} ({code}): {text}"))
                };
            }
            match self.0.read(&mut chunk)? {
                0 => bail!("bgpd closed its shell"),
                length => answer.extend(&chunk[..length]),
            }
        }
    }
}

fn configuration(setup: &Setup<'_>) -> String {
    let mut lines = vec![
        format!("router bgp {ASN}"),
        format!(" bgp router-id {ROUTER_ID}"),
        " no bgp ebgp-requires-policy".to_owned(),
        " no bgp default ipv4-unicast".to_owned(),
        " no bgp network import-check".to_owned(),
        // It would wait for more before it says anything.
        " coalesce-time 0".to_owned(),
        " neighbor peers peer-group".to_owned(),
        " neighbor peers passive".to_owned(),
        " neighbor peers advertisement-interval 0".to_owned(),
        " neighbor peers timers 80 240".to_owned(),
    ];
    for peer in setup.peers {
        lines.push(format!(" neighbor {} remote-as {}", peer.address, peer.asn));
        lines.push(format!(" neighbor {} peer-group peers", peer.address));
    }
    lines.extend(
        [
            " address-family ipv4 unicast",
            "  neighbor peers activate",
            "  neighbor peers prefix-list own out",
            " exit-address-family",
            "exit",
        ]
        .map(str::to_owned),
    );
    let own = if setup.tells {
        "ip prefix-list own permit 30.0.0.0/7 le 32"
    } else {
        "ip prefix-list own deny any"
    };
    lines.push(own.to_owned());
    lines.join("\n") + "\n"
}

impl Frr {
    pub(super) fn start(lab: &Lab, setup: &Setup<'_>) -> Result<Self> {
        let file = lab.write("bgpd.conf", configuration(setup))?.display().to_string();
        let socket = lab.path("bgpd.vty");
        let (folder, pid) = (lab.path("").display().to_string(), lab.path("bgpd.pid").display().to_string());
        let args = [
            "-f",
            &file,
            "-i",
            &pid,
            "--vty_socket",
            &folder,
            "-P",
            "0",
            "-n",
            "-Z",
            "-S",
            "--log",
            "stdout",
            "--log-level",
            "warnings",
        ];
        let mut process = lab.spawn("/usr/lib/frr/bgpd".as_ref(), args)?;
        let shell = process.until("bgpd's shell", || {
            let mut shell = Shell::open(&socket)?;
            // Its configuration is read later than the socket is there.
            shell.ask("show bgp summary")?;
            Ok(shell)
        })?;
        Ok(Self { shell, process })
    }
}

impl Daemon for Frr {
    fn learned(&mut self) -> Result<usize> {
        let text = self.shell.ask("show bgp ipv4 unicast summary json")?;
        let summary: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
        let peers = summary["peers"].as_object().into_iter().flatten();
        Ok(peers.filter_map(|(_, peer)| peer["pfxRcd"].as_u64()).sum::<u64>() as usize)
    }

    fn tell(&mut self, prefixes: &[Ipv4Net]) -> Result<()> {
        for command in ["configure terminal", &format!("router bgp {ASN}"), "address-family ipv4 unicast"] {
            self.shell.ask(command)?;
        }
        for prefix in prefixes {
            self.shell.ask(&format!("network {prefix}"))?;
        }
        self.shell.ask("end").map(drop)
    }

    fn process(&self) -> &Process {
        &self.process
    }
}
