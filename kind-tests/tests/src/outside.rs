//! Clients outside of the cluster: this process is one, on the network of the nodes.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use crate::kubectl::{Namespace, kubectl};
use crate::wait::eventually;

/// How long an answer may take.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// So many connections come to one of two backends by chance in one of eight million runs.
pub const MANY: usize = 24;

/// An address of a node.
///
/// # Errors
/// As [`kubectl()`].
pub fn node_address(node: &str, family: &str) -> anyhow::Result<Option<IpAddr>> {
    let path = "jsonpath={.status.addresses[?(@.type=='InternalIP')].address}";
    let all = kubectl(&["get", "node", node, "-o", path])?;
    let mut all = all.split_whitespace().filter_map(|text| text.parse::<IpAddr>().ok());
    Ok(all.find(|ip| ip.is_ipv4() == (family == "IPv4")))
}

/// A way to an address that no machine has, by way of a node; it goes with the test.
pub struct Way(IpAddr);

impl Way {
    /// Sets the route.
    ///
    /// # Errors
    /// The node has no address of that family, or this process may not set routes.
    pub fn new(to: IpAddr, node: &str) -> anyhow::Result<Self> {
        let family = if to.is_ipv4() { "IPv4" } else { "IPv6" };
        let via = node_address(node, family)?.context("the node has no such address")?;
        let set = Command::new("ip")
            .args(["route", "replace", &to.to_string(), "via", &via.to_string()])
            .output()?;
        ensure!(set.status.success(), "{}", String::from_utf8_lossy(&set.stderr));
        Ok(Self(to))
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        let to = self.0.to_string();
        let gone = Command::new("ip").args(["route", "del", &to]).status();
        if !gone.is_ok_and(|status| status.success()) {
            eprintln!("the route to {to} stays");
        }
    }
}

/// The port of nodes that the Service `web` has for a protocol.
///
/// # Errors
/// As [`kubectl()`]; or it has none.
pub fn node_port(ns: &Namespace, name: &str) -> anyhow::Result<u16> {
    let path = format!("jsonpath={{.spec.ports[?(@.name=='{name}')].nodePort}}");
    Ok(ns.kubectl(&["get", "service", "web", "-o", &path])?.parse()?)
}

/// Body of the answer to an HTTP request, and its status.
///
/// # Errors
/// There is no connection, or no answer in time.
pub fn ask(at: SocketAddr, path: &str) -> anyhow::Result<(u16, String)> {
    let mut connection = TcpStream::connect_timeout(&at, PATIENCE)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    write!(connection, "GET {path} HTTP/1.0\r\nHost: test\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    let status = answer.split_whitespace().nth(1).context("an answer without status")?.parse()?;
    let (_, body) = answer.split_once("\r\n\r\n").context("an answer without body")?;
    Ok((status, body.to_owned()))
}

/// Who answers many connections; empty when one has no answer.
pub fn answers(at: SocketAddr) -> BTreeSet<String> {
    let all: anyhow::Result<BTreeSet<String>> =
        (0..MANY).map(|_| ask(at, "/hostname").map(|(_, body)| body)).collect();
    all.unwrap_or_default()
}

///
/// # Errors
/// Others answer, or nobody, for as long as [`eventually`] waits.
pub fn are_answered_by(at: SocketAddr, expected: &[&str]) -> anyhow::Result<()> {
    let expected: BTreeSet<String> = expected.iter().map(|name| (*name).to_owned()).collect();
    let mut seen = BTreeSet::new();
    let outcome = eventually(&format!("{at} leads to {expected:?}"), || {
        seen = answers(at);
        Ok(seen == expected)
    });
    outcome.with_context(|| format!("the last answers came from {seen:?}"))
}

/// Requests at a steady pace, each by a connection of its own, until told to stop. Returns how many there were, and what failed.
pub fn keep_asking(at: SocketAddr, pause: Duration, stop: &AtomicBool) -> (usize, Vec<String>) {
    let (mut asked, mut failed) = (0, Vec::new());
    let begin = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        match ask(at, "/hostname") {
            Ok((200, _)) => {}
            Ok((status, _)) => failed.push(format!("status {status}")),
            Err(error) => failed.push(format!("after {:?}: {error:#}", begin.elapsed())),
        }
        asked += 1;
        let due = pause * u32::try_from(asked).unwrap_or(u32::MAX);
        std::thread::sleep(due.saturating_sub(begin.elapsed()));
    }
    (asked, failed)
}
