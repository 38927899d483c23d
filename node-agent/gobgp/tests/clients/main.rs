//! What GoBGP's own clients make of the API: version 3 as Debian ships it, and version 4 as `kind-tests/cluster/build gobgp` builds it.

mod view;

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use anyhow::{Context as _, ensure};
use cilium_rest::bgp::{Peers, SessionState};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::UnixListener;
use tokio::process::Command;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use view::{SINCE, Still, mk_peers};

/// What is asked of the API, one command line each.
const COMMANDS: [&str; 36] = [
    "global",
    "-j global",
    "neighbor",
    "-j neighbor",
    "neighbor 10.0.1.1",
    "-j neighbor 10.0.1.1",
    "neighbor fd00:1::1",
    "neighbor 10.0.2.1",
    "neighbor 10.9.9.9",
    "global rib -a ipv4",
    "-j global rib -a ipv4",
    "global rib -a ipv6",
    "-j global rib -a ipv6",
    "global rib -a evpn",
    "global rib 10.244.1.9",
    "global rib 10.244.0.0/16",
    "global rib 10.244.0.0/16 longer-prefixes",
    "global rib summary",
    "neighbor 10.0.1.1 adj-in",
    "-j neighbor 10.0.1.1 adj-in",
    "neighbor 10.0.1.1 adj-in -a ipv6",
    "neighbor 10.0.1.1 adj-in summary",
    "neighbor 10.0.1.1 adj-out",
    "-j neighbor 10.0.1.1 adj-out",
    "neighbor fd00:1::1 adj-out",
    "neighbor 10.0.2.1 adj-in",
    "neighbor 10.0.1.1 local",
    "policy",
    "policy prefix",
    "policy neighbor",
    "neighbor 10.0.1.1 policy",
    "global rib add 10.0.0.0/8",
    "neighbor 10.0.1.1 softreset",
    "neighbor del 10.0.1.1",
    "vrf",
    "monitor global rib",
];

/// The API with [`Still`] behind it, in a folder of its own.
struct Api {
    folder: TempDir,
    peers: watch::Sender<Peers>,
    task: JoinHandle<()>,
}

impl Api {
    fn serve() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let listener = UnixListener::bind(folder.path().join("sock"))?;
        let (peers, receiver) = watch::channel(mk_peers());
        let task = tokio::spawn(async move {
            cilium_gobgp::serve(listener, Still(receiver)).await.expect("serving ends with the task");
        });
        Ok(Self { folder, peers, task })
    }

    fn command(&self, client: &Path, line: &str) -> Command {
        let mut command = Command::new(client);
        command.arg("--target").arg(format!("unix://{}", self.folder.path().join("sock").display()));
        command.args(line.split(' ')).stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// The commands with what the client says to each.
    async fn transcript(&self, client: &Path) -> anyhow::Result<String> {
        let mut transcript = String::new();
        for line in COMMANDS {
            let output = self.command(client, line).output().await;
            let output = output.with_context(|| format!("cannot run {}: {HOW}", client.display()))?;
            transcript += &format!("$ gobgp {line}\n{}\n", said(&output)?);
        }
        Ok(transcript)
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.task.abort();
    }
}

const HOW: &str =
    "`./dev` installs version 3 (package gobgpd), `kind-tests/cluster/build gobgp` builds version 4";

fn version3() -> PathBuf {
    "/usr/bin/gobgp".into()
}

fn version4() -> anyhow::Result<PathBuf> {
    let cache = std::env::var_os("CILIUM_CACHE").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache/cilium-rs"));
    Ok(cache.or_else(home).context("neither CILIUM_CACHE nor HOME is set")?.join("bin/gobgp"))
}

/// Both streams, without blanks at ends of lines, with ages made equal, and how the client ended where it failed. How many blanks Go
/// prints between fields of a message differs between builds, on purpose.
fn said(output: &Output) -> anyhow::Result<String> {
    let mut text = String::from_utf8(output.stdout.clone())? + std::str::from_utf8(&output.stderr)?;
    text = text.replace("  safi:", " safi:");
    if !output.status.success() {
        text += &format!("({})\n", output.status);
    }
    Ok(text.lines().map(|line| ageless(line.trim_end()) + "\n").collect())
}

/// `line` with each `1234d 01:02:03` as `NNNNd hh:mm:ss`.
fn ageless(line: &str) -> String {
    let ages = regex::Regex::new(r"[0-9]{4}d [0-9]{2}:[0-9]{2}:[0-9]{2}").expect("the expression is one");
    ages.replace_all(line, "NNNNd hh:mm:ss").into_owned()
}

#[tokio::test]
async fn version_3_shows_it() -> anyhow::Result<()> {
    insta::assert_snapshot!("gobgp-3", Api::serve()?.transcript(&version3()).await?);
    Ok(())
}

#[tokio::test]
async fn version_4_shows_it() -> anyhow::Result<()> {
    insta::assert_snapshot!("gobgp-4", Api::serve()?.transcript(&version4()?).await?);
    Ok(())
}

/// Lines that `gobgp monitor neighbor` prints when a neighbour goes down and another one is counted anew.
async fn monitored(client: &Path) -> anyhow::Result<String> {
    let api = Api::serve()?;
    let mut process =
        api.command(client, "monitor neighbor 10.0.1.1").stdout(Stdio::piped()).spawn().context(HOW)?;
    let mut lines = BufReader::new(process.stdout.take().context("no output")?).lines();
    // A client that is not there yet sees the neighbour up first and down later: states come and go until it says something.
    let mut generation = 1;
    let line = loop {
        tokio::select! {
            line = lines.next_line() => break line?.context("the client has ended")?,
            () = tokio::time::sleep(std::time::Duration::from_millis(50)) => {}
        }
        generation += 1;
        ensure!(generation < 1000, "the client has said nothing");
        api.peers.send_modify(|peers| {
            peers.generation = generation;
            let (state, since) = (SessionState::Active, SINCE + generation);
            (peers.peers[0].state, peers.peers[0].since) = (state, since);
        });
    };
    let (_, event) = line.split_once(' ').context("no time in front")?;
    Ok(event.to_owned())
}

#[tokio::test]
async fn changes_of_states_are_watched() -> anyhow::Result<()> {
    assert_eq!(monitored(&version3()).await?, "[NEIGH] 10.0.1.1 fsm: ACTIVE admin: UP");
    let active = "[NEIGH] 10.0.1.1 fsm: SESSION_STATE_ACTIVE admin: ADMIN_STATE_UP";
    assert_eq!(monitored(&version4()?).await?, active);
    Ok(())
}
