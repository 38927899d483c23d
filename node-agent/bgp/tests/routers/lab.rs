//! Two network namespaces, a link between them, and programs in them.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use cilium_drivers::netns::Netns;
use cilium_drivers::testing::{connect, namespace};
use ipnet::IpNet;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Longer than anything takes that works.
pub(crate) const PATIENCE: Duration = Duration::from_secs(45);

/// Name of the link at both ends.
pub(crate) const DEVICE: &str = "eth0";

/// One end of the link.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Side {
    Node,
    Router,
}

/// A node and a router beside it, each with its addresses: see [`crate::session`].
pub(crate) struct Lab {
    pub(crate) node: Netns,
    pub(crate) router: Netns,
    dir: TempDir,
}

fn networks(host: u8) -> Vec<IpNet> {
    let texts = [format!("10.1.0.{host}/24"), format!("fd00:1::{host}/64"), format!("fe80::a{host}/64")];
    texts.iter().map(|text| text.parse().expect("a prefix")).collect()
}

impl Lab {
    pub(crate) fn new() -> Result<Self> {
        let (node, router) = (namespace(), namespace());
        connect((&node, DEVICE, &networks(1)), (&router, DEVICE, &networks(2)));
        let dir = tempfile::Builder::new().prefix("routers").tempdir()?;
        // Routers do not run as root.
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755))?;
        Ok(Self { node, router, dir })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file; returns where it is.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.path(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// The end of what each program said.
    pub(crate) fn logs(&self) -> String {
        let entries = fs::read_dir(self.dir.path()).into_iter().flatten().flatten();
        let paths = entries.map(|entry| entry.path());
        let logs = paths.filter(|path| path.extension().is_some_and(|it| it == "log"));
        logs.map(|path| format!("{}:\n{}\n", path.display(), tail(&path))).collect()
    }

    /// Has one side send to nobody; what comes from the other one arrives.
    pub(crate) fn cut(&self, from: Side) -> Result<()> {
        let nobody = ["lladdr", "02:00:00:00:00:99", "dev", DEVICE, "nud", "permanent"];
        self.neighbours(from, "replace", &nobody)
    }

    /// Ends [`Self::cut`].
    pub(crate) fn mend(&self, from: Side) -> Result<()> {
        self.neighbours(from, "del", &["dev", DEVICE])
    }

    fn neighbours(&self, of: Side, verb: &str, more: &[&str]) -> Result<()> {
        let (netns, peers) = match of {
            Side::Node => (&self.node, ["10.1.0.2", "fd00:1::2"]),
            Side::Router => (&self.router, ["10.1.0.1", "fd00:1::1"]),
        };
        for peer in peers {
            run_in(netns, "ip").args(["neigh", verb, peer]).args(more).checked()?;
        }
        Ok(())
    }

    /// Starts a program in a namespace. What it prints goes to a file.
    pub(crate) fn spawn<S: AsRef<OsStr>>(
        &self,
        netns: &Netns,
        name: &str,
        program: &str,
        args: impl IntoIterator<Item = S>,
        variables: &[(&str, &str)],
    ) -> Result<Process> {
        let log = self.path(&format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log)?;
        let mut command = run_in(netns, program);
        command.args(args).stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        command.envs(variables.iter().copied());
        let child = command.spawn().with_context(|| format!("cannot start {program}"))?;
        Ok(Process { name: name.to_owned(), command, child, log })
    }
}

/// A command inside of a namespace, which ends with the thread that starts it.
pub(crate) fn run_in(netns: &Netns, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", netns.proc_path()));
    command.args(["--", "setpriv", "--pdeathsig", "KILL", "--", program]);
    command
}

/// Running to the end.
pub(crate) trait Checked {
    /// What it prints.
    fn checked(&mut self) -> Result<String>;
}

impl Checked for Command {
    fn checked(&mut self) -> Result<String> {
        let output = self.output().with_context(|| format!("cannot run {self:?}"))?;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "{self:?} failed: {out}{err}");
        Ok(out.into_owned())
    }
}

/// A program that runs. It is killed with the handle.
pub(crate) struct Process {
    name: String,
    command: Command,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Ends it as if it had crashed.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Starts it again after its end, with more arguments.
    pub(crate) fn start_again(&mut self, more: &[&str]) -> Result<()> {
        self.child =
            self.command.args(more).spawn().with_context(|| format!("cannot start {}", self.name))?;
        Ok(())
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn terminate(&mut self) -> Result<()> {
        let id = Pid::from_raw(self.child.id().try_into()?).context("no process")?;
        kill_process(id, Signal::TERM)?;
        until(&format!("the end of {}", self.name), || Ok(self.child.try_wait()?)).map(drop)
    }

    /// Fails when it has ended by itself.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(anyhow!("{} ended ({status}):\n{}", self.name, tail(&self.log))),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("{} said:\n{}", self.name, tail(&self.log));
        }
    }
}

/// The last lines of a file.
pub(crate) fn tail(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

/// Looks again and again until there is something.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    loop {
        let result = look();
        if let Ok(Some(found)) = result {
            return Ok(found);
        }
        if start.elapsed() > PATIENCE {
            let reason = result.err().map(|error| format!(": {error:#}")).unwrap_or_default();
            return Err(anyhow!("in vain waited for {what}{reason}"));
        }
        thread::sleep(Duration::from_millis(50));
    }
}
