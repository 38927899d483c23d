//! A router of somebody else's make (FRR) on the machine outside, with which the nodes speak BGP.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::nodes::{control, hook};
use crate::wait::eventually;

/// AS number of the router.
pub const ROUTER_ASN: u32 = 64500;
/// A prefix that the router makes known, as if it were behind it.
pub const BEHIND: &str = "192.0.2.0/25";
/// AS number of the nodes.
pub const NODE_ASN: u32 = 64512;

/// The daemons of the router; they go with the test.
pub struct Router {
    directory: PathBuf,
    daemons: Vec<Child>,
}

impl Router {
    /// Starts a router that takes sessions from the networks of the nodes. `more` are further lines for all of its neighbours, each
    /// what follows `neighbor nodes`.
    ///
    /// # Errors
    /// FRR is not there, or a daemon does not start.
    pub fn start(networks: &[&str], more: &[&str]) -> anyhow::Result<Self> {
        let directory = std::env::temp_dir().join(format!("frr-{}", std::process::id()));
        // What a test that was killed has left.
        if directory.exists() {
            fs::remove_dir_all(&directory)?;
        }
        fs::create_dir(&directory)?;
        let given = Command::new("chown").arg("frr:frr").arg(&directory).status()?;
        ensure!(given.success(), "there is no user frr: is FRR installed?");
        // Connections are spread by their ports, too, as routers do; by addresses alone, all of a client's go the same way.
        control(&["outside", "sysctl", "-qw", "net.ipv4.fib_multipath_hash_policy=1"])?;
        let mut router = Self { directory, daemons: Vec::new() };
        router.daemon("zebra", "", &[])?;
        router.daemon("bfdd", BFD, &[&format!("--bfdctl={}/bfd.sock", router.directory.display())])?;
        router.daemon("bgpd", &configuration(networks, more), &[])?;
        eventually("the router answers", || Ok(router.ask("show bgp summary json").is_ok()))?;
        Ok(router)
    }

    fn daemon(&mut self, name: &str, configuration: &str, more: &[&str]) -> anyhow::Result<()> {
        let at = |file: &str| self.directory.join(file).display().to_string();
        let file = at(&format!("{name}.conf"));
        fs::write(&file, configuration)?;
        let program = format!("/usr/lib/frr/{name}");
        let (pid, zebra, log) =
            (at(&format!("{name}.pid")), at("zebra.sock"), format!("file:{}", at(&format!("{name}.log"))));
        let sockets = self.directory.display().to_string();
        let args = [
            "outside",
            &program,
            "-f",
            &file,
            "-i",
            &pid,
            "-z",
            &zebra,
            "--vty_socket",
            &sockets,
            "-P",
            "0",
            "--log",
            &log,
        ];
        let mut command = hook(&[&args, more].concat())?;
        let daemon = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        self.daemons.push(daemon);
        let socket = self.directory.join(format!("{name}.vty"));
        eventually(&format!("{name} runs"), || Ok(socket.exists()))
    }

    /// What a command of the router's shell prints.
    ///
    /// # Errors
    /// It cannot be run, or failed.
    pub fn say(&self, command: &str) -> anyhow::Result<String> {
        let mut vtysh = Command::new("vtysh");
        let output = vtysh.arg("--vty_socket").arg(&self.directory).args(["-c", command]).output()?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{command}: {error}");
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The same as data.
    ///
    /// # Errors
    /// As [`Router::say`]; or it is no JSON.
    pub fn ask(&self, command: &str) -> anyhow::Result<Value> {
        let text = self.say(command)?;
        serde_json::from_str(&text).with_context(|| format!("{command}: {text}"))
    }

    /// Addresses of a family (`ipv4` or `ipv6`) of neighbours with which a session is established.
    ///
    /// # Errors
    /// As [`Router::ask`].
    pub fn established(&self, family: &str) -> anyhow::Result<Vec<String>> {
        let summary = self.ask(&format!("show bgp {family} unicast summary json"))?;
        let peers = summary["peers"].as_object().cloned().unwrap_or_default();
        // Sessions of the other family are there as well, though they do not carry this one.
        let of_family = |address: &str| address.contains(':') == (family == "ipv6");
        let up =
            peers.into_iter().filter(|(address, peer)| of_family(address) && peer["state"] == "Established");
        Ok(up.map(|(address, _)| address).collect())
    }

    /// Next hops that the router uses for a prefix, sorted; none where it has no route.
    ///
    /// # Errors
    /// As [`Router::ask`].
    pub fn next_hops(&self, prefix: &str) -> anyhow::Result<Vec<String>> {
        let family = if prefix.contains(':') { "ipv6" } else { "ip" };
        let routes = self.ask(&format!("show {family} route {prefix} json"))?;
        let routes = routes[prefix].as_array().cloned().unwrap_or_default();
        let hops = routes.iter().filter(|route| route["protocol"] == "bgp");
        let hops = hops.flat_map(|route| route["nexthops"].as_array().cloned().unwrap_or_default());
        let active = hops.filter(|hop| hop["active"] == true);
        let mut found: Vec<String> = active.filter_map(|hop| hop["ip"].as_str().map(str::to_owned)).collect();
        found.sort();
        Ok(found)
    }

    /// All prefixes of a family that neighbours made known, with how many of them did.
    ///
    /// # Errors
    /// As [`Router::ask`].
    pub fn prefixes(&self, family: &str) -> anyhow::Result<BTreeMap<String, usize>> {
        let table = self.ask(&format!("show bgp {family} unicast json"))?;
        let routes = table["routes"].as_object().cloned().unwrap_or_default();
        Ok(routes.into_iter().map(|(prefix, paths)| (prefix, paths.as_array().map_or(0, Vec::len))).collect())
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        // The last one that was started is the first to go, so that zebra takes the routes out of the kernel.
        for daemon in self.daemons.iter_mut().rev() {
            let asked = Command::new("kill").arg(daemon.id().to_string()).status();
            if !asked.is_ok_and(|status| status.success()) || daemon.wait().is_err() {
                eprintln!("a daemon of the router had ended before");
            }
        }
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            eprintln!("{} stays: {error}", self.directory.display());
        }
    }
}

const BFD: &str = "\
bfd
 profile fast
  detect-multiplier 3
  receive-interval 100
  transmit-interval 100
";

fn configuration(networks: &[&str], more: &[&str]) -> String {
    let ranges: String =
        networks.iter().map(|network| format!(" bgp listen range {network} peer-group nodes\n")).collect();
    let more: String = more.iter().map(|line| format!(" neighbor nodes {line}\n")).collect();
    format!(
        "\
router bgp {ROUTER_ASN}
 bgp router-id 172.30.0.250
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 no bgp network import-check
 bgp graceful-restart
 bgp bestpath as-path multipath-relax
 neighbor nodes peer-group
 neighbor nodes remote-as {NODE_ASN}
{more}{ranges} address-family ipv4 unicast
  neighbor nodes activate
  network {BEHIND}
  maximum-paths 8
 exit-address-family
 address-family ipv6 unicast
  neighbor nodes activate
  maximum-paths 8
 exit-address-family
"
    )
}
