//! Two network namespaces with a link between them: one for the daemon under test, one for all of its peers.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use cilium_drivers::netns::Netns;
use cilium_drivers::testing::{connect, namespace};
use ipnet::{IpNet, Ipv4Net};
use tempfile::TempDir;

/// Longer than anything takes that works; gobgpd needs half a minute on two processors.
pub(super) const PATIENCE: Duration = Duration::from_secs(240);

/// Address of the daemon.
pub(super) const DAEMON: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);

/// Address of a peer.
pub(super) fn peer_address(peer: usize) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 1, 1, 0)) + peer as u32)
}

/// The namespaces, and a folder; both go with the value.
pub(super) struct Lab {
    daemon: Netns,
    peers: Netns,
    folder: TempDir,
}

fn network(address: Ipv4Addr) -> Result<IpNet> {
    Ok(IpNet::V4(Ipv4Net::new(address, 16)?))
}

impl Lab {
    /// Makes the namespaces, with addresses for so many peers.
    pub(super) fn new(peers: usize) -> Result<Self> {
        let addresses = (0..peers).map(|it| network(peer_address(it))).collect::<Result<Vec<_>>>()?;
        let lab = Self { daemon: namespace(), peers: namespace(), folder: tempfile::tempdir()? };
        connect((&lab.daemon, "eth0", &[network(DAEMON)?]), (&lab.peers, "eth0", &addresses));
        Ok(lab)
    }

    /// Runs something where the peers are.
    pub(super) fn at_peers<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        Ok(self.peers.run(work)?)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file; returns where it is.
    pub(super) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> Result<PathBuf> {
        let path = self.path(name);
        fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// Starts a daemon. What it prints goes to a file.
    pub(super) fn spawn<S: AsRef<OsStr>>(
        &self,
        program: &Path,
        args: impl IntoIterator<Item = S>,
    ) -> Result<Process> {
        ensure!(
            program.exists(),
            "{} is not there: install Debian's gobgpd, bird2 and frr",
            program.display()
        );
        let log = self.path("daemon.log");
        let file = File::create(&log)?;
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.daemon.proc_path()));
        command.args(["--", "setpriv", "--pdeathsig", "KILL", "--"]).arg(program).args(args);
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Process { child, log })
    }
}

/// A daemon that runs. It is killed with the handle.
pub(super) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Memory of it alone and its share of what it shares (PSS), in bytes.
    pub(super) fn memory(&self) -> Result<f64> {
        let path = format!("/proc/{}/smaps_rollup", self.child.id());
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
        let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
        Ok(kib.with_context(|| format!("no PSS in {path}"))? * 1024.0)
    }

    /// Looks again and again until there is something; fails when the daemon ends meanwhile.
    pub(super) fn until<T>(&mut self, what: &str, look: impl Fn() -> Result<T>) -> Result<T> {
        let start = Instant::now();
        loop {
            match look() {
                Ok(found) => return Ok(found),
                Err(error) if start.elapsed() > PATIENCE => {
                    return Err(error.context(format!("in vain waited for {what}: {}", self.said())));
                }
                Err(_) => {}
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("the daemon ended ({status}): {}", self.said());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The end of what it printed.
    pub(super) fn said(&self) -> String {
        let text = String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
