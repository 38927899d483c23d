//! BIRD 2, through its control socket.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use ipnet::Ipv4Net;

use super::daemon::{ASN, Daemon, ROUTER_ID, Setup};
use super::lab::{DAEMON, Lab, Process};

pub(super) struct Bird<'lab> {
    lab: &'lab Lab,
    control: BufReader<UnixStream>,
    process: Process,
    told: String,
}

/// File with the prefixes of its own.
const OWN: &str = "own.conf";

fn configuration(lab: &Lab, setup: &Setup<'_>) -> String {
    let export = if setup.tells { "export where source = RTS_STATIC" } else { "export none" };
    let mut text = format!(
        "router id {ROUTER_ID};\nlog stderr {{ warning, error, fatal, bug }};\nprotocol device {{}}\n\
         protocol static {{ ipv4;\ninclude \"{}\";\n}}\n\
         template bgp peer {{ local {DAEMON} as {ASN}; passive on; direct; graceful restart off; hold time 240; ipv4 {{ import all; {export}; }}; }}\n",
        lab.path(OWN).display()
    );
    for peer in setup.peers {
        text += &format!("protocol bgp from peer {{ neighbor {} as {}; }}\n", peer.address, peer.asn);
    }
    text
}

/// Connects, and reads the greeting.
fn control(socket: &Path) -> Result<BufReader<UnixStream>> {
    let mut control = BufReader::new(UnixStream::connect(socket)?);
    answer(&mut control)?;
    Ok(control)
}

/// Lines of an answer until its last one: that has a code of four digits and a space, and codes from 8000 on are errors.
fn answer(control: &mut BufReader<UnixStream>) -> Result<String> {
    let mut text = String::new();
    loop {
        let mut line = String::new();
        ensure!(control.read_line(&mut line)? > 0, "BIRD closed its control socket");
        text += &line;
        if let Some((code, _)) = line.split_at_checked(5)
            && let Some(code) = code.strip_suffix(' ').and_then(|it| it.parse::<u32>().ok())
        {
            ensure!(code < 8000, "BIRD refused: {line}");
            return Ok(text);
        }
    }
}

impl<'lab> Bird<'lab> {
    pub(super) fn start(lab: &'lab Lab, setup: &Setup<'_>) -> Result<Self> {
        lab.write(OWN, "")?;
        let file = lab.write("bird.conf", configuration(lab, setup))?;
        let (socket, pid) = (lab.path("bird.ctl"), lab.path("bird.pid"));
        let args = [
            "-f".as_ref(),
            "-c".as_ref(),
            file.as_os_str(),
            "-s".as_ref(),
            socket.as_os_str(),
            "-P".as_ref(),
            pid.as_os_str(),
        ];
        let mut process = lab.spawn("/usr/sbin/bird".as_ref(), args)?;
        let control = process.until("BIRD's control socket", || control(&socket))?;
        Ok(Self { lab, control, process, told: String::new() })
    }

    fn ask(&mut self, command: &str) -> Result<String> {
        writeln!(self.control.get_mut(), "{command}")?;
        answer(&mut self.control).with_context(|| command.to_owned())
    }
}

impl Daemon for Bird<'_> {
    fn learned(&mut self) -> Result<usize> {
        let answer = self.ask("show protocols all")?;
        // "    Routes:         1000 imported, 0 exported, 1000 preferred"
        let counts = answer.lines().filter_map(|line| line.trim().strip_prefix("Routes:"));
        let imported = counts.filter_map(|rest| rest.trim().split_once(" imported")?.0.parse::<usize>().ok());
        Ok(imported.sum())
    }

    fn tell(&mut self, prefixes: &[Ipv4Net]) -> Result<()> {
        self.told.extend(prefixes.iter().map(|prefix| format!("route {prefix} blackhole;\n")));
        self.lab.write(OWN, &self.told)?;
        self.ask("configure").map(drop)
    }

    fn process(&self) -> &Process {
        &self.process
    }
}
