//! The program, seen through GoBGP's client: two instances that are each other's neighbours over loopback.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use cilium_rest::Client;
use cilium_rest::bgp::{Config, Peers, Routes, SessionState};
use serde_json::json;
use tempfile::TempDir;

/// The speaker with its sockets in a folder of its own.
struct Speaker {
    folder: TempDir,
    process: Child,
}

impl Drop for Speaker {
    fn drop(&mut self) {
        // Gone already, or gone now.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

impl Speaker {
    fn start() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let path = |name| folder.path().join(name);
        let process = Command::new(env!("CARGO_BIN_EXE_cilium-bgp"))
            .arg("--socket")
            .arg(path("speaker.sock"))
            .arg("--state-dir")
            .arg(path("state"))
            .spawn()?;
        let speaker = Self { folder, process };
        speaker.wait("both sockets", |it| {
            Ok(it.path("speaker.sock").exists() && it.path("gobgp.sock").exists())
        })?;
        Ok(speaker)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn client(&self) -> Client {
        Client::of_speaker(&self.path("speaker.sock"), Some(Duration::from_secs(30)))
    }

    fn wait(&self, what: &str, is_there: impl Fn(&Self) -> anyhow::Result<bool>) -> anyhow::Result<()> {
        let end = Instant::now() + Duration::from_secs(60);
        while !is_there(self)? {
            ensure!(Instant::now() < end, "not there in time: {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// What `gobgp` prints, ages made equal, without blanks at ends of lines.
    fn gobgp(&self, line: &str) -> anyhow::Result<String> {
        let target = format!("unix://{}", self.path("gobgp.sock").display());
        let output =
            Command::new("/usr/bin/gobgp").arg("--target").arg(target).args(line.split(' ')).output();
        let output = output.context("cannot run gobgp: `./dev` installs the package gobgpd")?;
        ensure!(output.status.success(), "gobgp {line}: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout)?;
        Ok(text.lines().map(|line| ageless(line) + "\n").collect())
    }
}

/// `line` with an age such as `00:00:01` as `hh:mm:ss`, if it has one.
fn ageless(line: &str) -> String {
    let is_age =
        |word: &&str| word.len() == 8 && word.split(':').all(|part| part.len() == 2) && word.contains(':');
    match line.split(' ').find(is_age) {
        Some(age) => line.replace(age, "hh:mm:ss").trim_end().to_owned(),
        None => line.trim_end().to_owned(),
    }
}

/// A port that nobody had a moment ago.
fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// `left` tells `right` of the prefixes of `pods`. IPv6 prefixes, because loopback addresses are no next hops.
fn mk_config() -> anyhow::Result<Config> {
    let (left, right) = (free_port()?, free_port()?);
    Ok(serde_json::from_value(json!({ "instances": [
        { "name": "left", "asn": 64512, "routerId": "10.0.0.1", "port": left, "nextHop6": "fd00::1",
          "advertisements": { "pods": { "communities": [64512_u32 << 16 | 7] } },
          "peers": [{ "name": "right", "address": "127.0.0.2", "asn": 64513, "port": right, "localAddress": "127.0.0.1",
                      "connectRetry": 1, "holdTime": 90, "keepalive": 30, "hops": 1, "password": "secret",
                      "families": { "ipv6": ["pods"] } }] },
        { "name": "right", "asn": 64513, "routerId": "10.0.0.2", "port": right,
          "peers": [{ "name": "left", "address": "127.0.0.1", "asn": 64512, "port": left, "localAddress": "127.0.0.2",
                      "connectRetry": 1, "holdTime": 90, "keepalive": 30, "hops": 1, "password": "secret", "passive": true,
                      "families": { "ipv6": [] } }] },
    ] }))?)
}

fn is_told(peers: &Peers) -> bool {
    peers.peers.iter().all(|peer| peer.state == SessionState::Established)
        && peers.peers.iter().any(|peer| peer.families.iter().any(|family| family.received == 1))
}

#[test]
fn gobgp_shows_what_the_speaker_does() -> anyhow::Result<()> {
    let speaker = Speaker::start()?;
    let mode = |path: &Path| Ok::<_, std::io::Error>(path.metadata()?.permissions().mode() & 0o777);
    assert_eq!(mode(&speaker.path("gobgp.sock"))?, 0o600);
    let client = speaker.client();
    let routes: Routes = serde_json::from_value(json!({ "fd00:10:244:1::/64": ["pods"] }))?;
    client.replace("/v1/routes", &routes)?;
    client.replace("/v1/config", &mk_config()?)?;
    speaker.wait("the session", |it| Ok(is_told(&it.client().get("/v1/peers")?)))?;

    assert_eq!(
        speaker.gobgp("neighbor")?,
        "Peer         AS  Up/Down State       |#Received  Accepted\n\
         127.0.0.1 64512 hh:mm:ss Establ      |        1         1\n\
         127.0.0.2 64513 hh:mm:ss Establ      |        0         0\n"
    );
    assert_eq!(
        speaker.gobgp("neighbor 127.0.0.2 adj-out -a ipv6")?,
        "   ID  Network              Next Hop             AS_PATH              Attrs\n   \
         0   fd00:10:244:1::/64   fd00::1              64512                [{Origin: i} {Communities: 64512:7}]\n"
    );
    assert_eq!(
        speaker.gobgp("neighbor 127.0.0.1 adj-in -a ipv6")?,
        "   ID  Network              Next Hop             AS_PATH              Age        Attrs\n   \
         0   fd00:10:244:1::/64   fd00::1              64512                hh:mm:ss   [{Origin: i} {Communities: 64512:7}]\n"
    );
    assert_eq!(
        speaker.gobgp("global rib -a ipv6")?,
        "   Network              Next Hop             AS_PATH              Age        Attrs\n\
         *> fd00:10:244:1::/64   ::                                        hh:mm:ss   [{Origin: i} {LocalPref: 100} {Communities: 64512:7}]\n\
         *> fd00:10:244:1::/64   fd00::1              64512                hh:mm:ss   [{Origin: i} {Communities: 64512:7}]\n"
    );
    let neighbour = speaker.gobgp("neighbor 127.0.0.1")?;
    assert!(neighbour.contains("BGP version 4, remote router ID 10.0.0.1"), "{neighbour}");
    let all = speaker.gobgp("-j neighbor")?;
    assert!(!all.contains("secret"), "{all}");
    Ok(())
}
