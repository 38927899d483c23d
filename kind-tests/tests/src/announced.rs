//! Addresses that nodes announce, as a machine on their network sees them: it is no part of the cluster.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};

use crate::kubectl::{feed, kubectl};
use crate::nodes::{control, dbg, hook, names};
use crate::wait::eventually;

/// What a program on the machine outside prints, whether it is content or not.
///
/// # Errors
/// It cannot be run.
pub fn outside(args: &[&str]) -> anyhow::Result<String> {
    let output = hook(&[&["outside"], args].concat())?.output().context("cannot run the hook")?;
    Ok(String::from_utf8(output.stdout)?)
}

/// The MAC addresses that answer an IPv4 address, for each of `count` questions, in 20 ms each.
///
/// # Errors
/// As [`outside`].
pub fn macs(address: &str, count: u32) -> anyhow::Result<Vec<String>> {
    let text =
        outside(&["arping", "-r", "-c", &count.to_string(), "-W", "0.02", "-w", "3", "-i", "e0", address])?;
    Ok(text.lines().map(str::to_lowercase).collect())
}

/// The same for an IPv6 address, once.
///
/// # Errors
/// As [`outside`].
pub fn macs6(address: &str) -> anyhow::Result<Vec<String>> {
    let text = outside(&["ndisc6", "-q", "-r", "1", "-w", "1000", "-m", address, "e0"])?;
    Ok(text.lines().map(|line| line.trim().to_lowercase()).collect())
}

/// Nodes by the MAC addresses of their devices.
///
/// # Errors
/// As [`control`].
pub fn nodes_by_mac() -> anyhow::Result<BTreeMap<String, String>> {
    let mac = |node: String| {
        let mac = control(&["node", &node, "cat", "/sys/class/net/e0/address"])?;
        Ok((mac.trim().to_owned(), node))
    };
    names()?.into_iter().map(mac).collect()
}

/// Addresses that each node says it answers for.
///
/// # Errors
/// An agent does not answer.
pub fn answering() -> anyhow::Result<BTreeMap<String, Vec<String>>> {
    let mut answering = BTreeMap::new();
    for node in names()? {
        let list: serde_json::Value =
            serde_json::from_str(&dbg(&node, &["l2-announce", "list", "-o", "json"])?)?;
        let rows = list.as_array().context("a list")?.iter().filter(|row| row["state"] == "answering");
        let addresses = rows.filter_map(|row| row["address"].as_str()).map(str::to_owned).collect();
        answering.insert(node, addresses);
    }
    Ok(answering)
}

/// Waits until so many addresses are answered for, each by one node. Returns which by which.
///
/// # Errors
/// They are not.
pub fn settled(count: usize) -> anyhow::Result<BTreeMap<String, Vec<String>>> {
    let mut last = BTreeMap::new();
    let outcome = eventually(&format!("{count} addresses are answered for"), || {
        last = answering()?;
        Ok(last.values().map(Vec::len).sum::<usize>() == count)
    });
    outcome.with_context(|| format!("the last was {last:?}"))?;
    Ok(last)
}

/// A policy that goes with the test.
pub struct Policy(String);

impl Policy {
    /// `spec` is the inside of a YAML mapping in one line.
    ///
    /// # Errors
    /// As [`feed`].
    pub fn new(name: &str, spec: &str) -> anyhow::Result<Self> {
        let policy = Self(name.to_owned());
        policy.set(spec)?;
        Ok(policy)
    }

    /// Gives it another content.
    ///
    /// # Errors
    /// As [`feed`].
    pub fn set(&self, spec: &str) -> anyhow::Result<()> {
        let name = &self.0;
        let text = format!(
            "{{apiVersion: cilium.io/v2alpha1, kind: CiliumL2AnnouncementPolicy, metadata: {{name: {name}}}, spec: {{{spec}}}}}"
        );
        feed(&["apply", "-f", "-"], &text).map(drop)
    }
}

impl Drop for Policy {
    fn drop(&mut self) {
        if let Err(error) = kubectl(&["delete", "ciliuml2announcementpolicy", &self.0, "--ignore-not-found"])
        {
            eprintln!("the policy {} stays: {error:#}", self.0);
        }
    }
}

/// An answer, or an announcement: who said when that it has the address.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Seconds since 1970.
    pub time: f64,
    /// MAC address.
    pub mac: String,
}

/// Somebody who asks for an address every 10 ms, and everything that is answered, as tcpdump sees it.
pub struct Watcher {
    asker: Child,
    listener: Child,
    /// Lines of tcpdump, which stops when nobody reads them.
    lines: JoinHandle<Vec<String>>,
}

impl Watcher {
    /// Begins to ask.
    ///
    /// # Errors
    /// As [`control`].
    pub fn start(address: &str) -> anyhow::Result<Self> {
        let filter = format!("arp and arp[6:2] = 2 and src host {address}");
        let mut listener = hook(&["outside", "tcpdump", "-i", "e0", "-l", "-n", "-e", "-tt", "-p", &filter])?
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let said = BufReader::new(listener.stderr.as_mut().context("is piped")?).lines();
        ensure!(
            said.map_while(Result::ok).any(|line| line.contains("listening on")),
            "tcpdump does not listen"
        );
        let asker = hook(&["outside", "arping", "-W", "0.01", "-i", "e0", "-q", address])?.spawn()?;
        let lines = BufReader::new(listener.stdout.take().context("is piped")?).lines();
        let lines = std::thread::spawn(move || lines.map_while(Result::ok).collect());
        Ok(Self { asker, listener, lines })
    }

    /// Ends, and returns all answers in their order.
    ///
    /// # Errors
    /// A line of tcpdump is not as expected.
    pub fn stop(mut self) -> anyhow::Result<Vec<Answer>> {
        end(&mut self.asker)?;
        end(&mut self.listener)?;
        let mut answers = Vec::new();
        let lines = self.lines.join().map_err(|_| anyhow::anyhow!("the reader panicked"))?;
        for line in lines.into_iter().filter(|line| !line.is_empty()) {
            let time = line.split(' ').next().and_then(|text| text.parse().ok());
            let mac = line.split("is-at ").nth(1).and_then(|rest| rest.split(',').next());
            let (time, mac) = time.zip(mac).with_context(|| format!("{line:?}"))?;
            answers.push(Answer { time, mac: mac.trim().to_owned() });
        }
        Ok(answers)
    }
}

/// The hook becomes the program, so that the signal reaches it.
fn end(child: &mut Child) -> anyhow::Result<()> {
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status()?;
    ensure!(killed.success(), "the watcher had ended before");
    child.wait()?;
    Ok(())
}

/// Seconds since 1970.
///
/// # Errors
/// The clock is before that.
pub fn now() -> anyhow::Result<f64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64())
}

/// In which order MAC addresses answered, each row of the same one once.
pub fn order(answers: &[Answer]) -> Vec<&str> {
    let mut order: Vec<&str> = answers.iter().map(|answer| answer.mac.as_str()).collect();
    order.dedup();
    order
}
