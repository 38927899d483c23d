//! Settings: one file for each, as a mounted ConfigMap has them. Keys are upstream's.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use cilium_announcer::Timings;
use cilium_api::parts::Algorithm;
use cilium_bpf::PINNED_MAPS;
use cilium_bpf::layout::CONFIG_NODEPORT_PREFIX_COUNT;
use cilium_dataplane::maglev::Maglev;
use cilium_dataplane::{Balancing, Mode};
use cilium_names::Limits;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use jiff::SignedDuration;

use crate::acceleration::Acceleration;
use crate::balancing::{parse_seed, parse_size};
use crate::host::NAT_PORTS;
use crate::sizes;

/// Of the node's memory, for tables that traffic fills.
const MAP_PART: f64 = 0.0025;
/// As upstream's.
const LOOPBACK4: Ipv4Addr = Ipv4Addr::new(169, 254, 42, 1);
/// In the block that nobody routes (RFC 6666). A link-local one, as upstream's, would make pods look for its link-layer address.
const LOOPBACK6: Ipv6Addr = Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0xa9fe, 0x2a01);

/// Why the settings cannot be used. What only an edit can fix is not tried again: the agent exits.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{key} is {value:?}, expected is {expected}")]
    Value { key: &'static str, value: String, expected: &'static str },
    #[error("the name of the node is missing: set K8S_NODE_NAME (the manifest takes it from spec.nodeName)")]
    Node,
    #[error("neither enable-ipv4 nor enable-ipv6 is true")]
    NoFamily,
}

/// Everything that the agent is told.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings {
    pub(crate) node: String,
    pub(crate) tunnel: bool,
    pub(crate) tunnel_port: u16,
    pub(crate) direct_routes: bool,
    pub(crate) ipv4: bool,
    pub(crate) ipv6: bool,
    pub(crate) masquerade4: bool,
    pub(crate) masquerade6: bool,
    /// The node has a policy of its own.
    pub(crate) host_firewall: bool,
    /// Policies redirect, and may exempt pods.
    pub(crate) local_redirects: bool,
    /// Addresses of Services are announced on the node's links, and nodes agree so who does.
    pub(crate) announces: Option<Agreement>,
    /// The node speaks BGP where the plan says so.
    pub(crate) bgp: Option<Bgp>,
    /// Destinations that are reached with the pod's own address.
    pub(crate) native: Vec<IpNet>,
    /// Devices that are served beside the node's own.
    pub(crate) devices: DeviceNames,
    /// 0: that of the node's device.
    pub(crate) mtu: u32,
    /// Attach programs by tcx links where the kernel has them.
    pub(crate) tcx: bool,
    pub(crate) cni_conf: Option<PathBuf>,
    pub(crate) cni_exclusive: bool,
    pub(crate) cni_log: String,
    pub(crate) health_port: u16,
    pub(crate) prometheus: Option<SocketAddr>,
    pub(crate) kubeconfig: Option<PathBuf>,
    pub(crate) socket: PathBuf,
    /// Where the DNS proxy finds the agent.
    pub(crate) dns_socket: PathBuf,
    /// Port of the DNS proxy on the loopback addresses.
    pub(crate) dns_port: u16,
    /// First and last of the ports on which every node may serve.
    pub(crate) nodeports: (u16, u16),
    /// Addresses of nodes at which these are served, or all when there is none.
    pub(crate) nodeport_addresses: Vec<IpNet>,
    /// Sockets of pods are left alone when they connect to a Service; their packets find a backend.
    pub(crate) sockets_of_host: bool,
    /// What a pod sees of itself when it is the backend of its own packet.
    pub(crate) loopbacks: (Ipv4Addr, Ipv6Addr),
    /// Whether packets of known clients from outside are handled before the stack.
    pub(crate) acceleration: Acceleration,
    /// How clients from outside come to backends.
    pub(crate) balancing: Balancing,
    /// Which entry of a table is a connection's.
    pub(crate) maglev_seed: u64,
    /// Bounds of what is learned from DNS.
    pub(crate) names: Limits,
    pub(crate) state_dir: PathBuf,
    pub(crate) bpffs: PathBuf,
    /// Most entries of maps, by name; others have the size that is built in.
    pub(crate) map_sizes: BTreeMap<String, u32>,
    /// The part of the memory by which sizes of maps are chosen.
    pub(crate) map_part: f64,
    pub(crate) cgroup: PathBuf,
    /// As they were read, for `GET /v1/config`.
    pub(crate) raw: BTreeMap<String, String>,
}

/// Names of devices, as upstream's `devices` has them: separated by commas or blanks, `eth+` for all that begin so, `!` before
/// what is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DeviceNames(Vec<String>);

impl DeviceNames {
    fn parse(text: &str) -> Self {
        Self(text.split([',', ' ']).filter(|name| !name.is_empty()).map(str::to_owned).collect())
    }

    /// Whether a device is meant.
    pub(crate) fn has(&self, device: &str) -> bool {
        let is_meant = |name: &str| match name.strip_suffix('+') {
            Some(start) => device.starts_with(start),
            None => device == name,
        };
        let is_left_out = self.0.iter().filter_map(|name| name.strip_prefix('!')).any(is_meant);
        !is_left_out && self.0.iter().map(String::as_str).any(is_meant)
    }
}

/// How the node comes to speak BGP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bgp {
    /// Where the speaker listens.
    pub(crate) socket: PathBuf,
    /// Where Secrets with passwords are.
    pub(crate) secrets_namespace: String,
    /// How sessions stand is written to the node's CiliumBGPNodeConfig.
    pub(crate) reports: bool,
}

/// How nodes agree on who answers for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Agreement {
    /// They tell each other on their links that they live.
    Heartbeats,
    /// Who holds the Lease of a Service answers.
    Leases(Timings),
}

impl Settings {
    /// Reads a directory of files; without one, all settings have their defaults.
    pub(crate) fn load(directory: Option<&Path>, node: &str) -> Result<Self, Error> {
        let raw = directory.map(read_directory).transpose()?.unwrap_or_default();
        Self::parse(raw, node)
    }

    fn parse(raw: BTreeMap<String, String>, node: &str) -> Result<Self, Error> {
        if node.is_empty() {
            return Err(Error::Node);
        }
        let keys = Keys(&raw);
        let (balancing, maglev_seed) = keys.balancing()?;
        let settings = Self {
            node: node.to_owned(),
            tunnel: keys.choice("routing-mode", &["tunnel", "native"], "tunnel or native")? == "tunnel",
            tunnel_port: keys.nonzero_port("tunnel-port", 8472)?,
            direct_routes: keys.bool("auto-direct-node-routes", false)?,
            ipv4: keys.bool("enable-ipv4", true)?,
            ipv6: keys.bool("enable-ipv6", true)?,
            masquerade4: keys.bool("enable-ipv4-masquerade", true)?,
            masquerade6: keys.bool("enable-ipv6-masquerade", true)?,
            host_firewall: keys.bool("enable-host-firewall", false)?,
            local_redirects: keys.bool("enable-local-redirect-policy", false)?,
            announces: keys.announces()?,
            bgp: keys.bgp()?,
            native: keys.prefixes()?,
            devices: DeviceNames::parse(&keys.text("devices", "")),
            mtu: keys.value("mtu", "a number of bytes")?.unwrap_or(0),
            tcx: keys.bool("enable-tcx", true)?,
            cni_conf: keys.path("write-cni-conf-when-ready"),
            cni_exclusive: keys.bool("cni-exclusive", false)?,
            cni_log: keys.text("cni-log-file", "/var/run/cilium/cilium-cni.log"),
            health_port: keys.value("agent-health-port", "a port")?.unwrap_or(9879),
            prometheus: keys.address("prometheus-serve-addr")?,
            kubeconfig: keys.path("k8s-kubeconfig-path"),
            socket: keys.text("socket-path", cilium_rest::SOCKET).into(),
            dns_socket: keys.text("dns-proxy-socket-path", cilium_rest::dns::SOCKET).into(),
            dns_port: keys.nonzero_port("tofqdns-proxy-port", cilium_rest::dns::PORT)?,
            nodeports: keys.ports("node-port-range", (30_000, 32_767))?,
            nodeport_addresses: keys.nodeport_addresses()?,
            sockets_of_host: keys.bool("bpf-lb-sock-hostns-only", false)?,
            loopbacks: (
                keys.value("ipv4-service-loopback-address", "an IPv4 address")?.unwrap_or(LOOPBACK4),
                keys.value("ipv6-service-loopback-address", "an IPv6 address")?.unwrap_or(LOOPBACK6),
            ),
            acceleration: keys.acceleration()?,
            balancing,
            maglev_seed,
            names: keys.names()?,
            state_dir: keys.text("state-dir", "/var/run/cilium").into(),
            bpffs: Path::new(&keys.text("bpf-root", "/sys/fs/bpf")).join("cilium"),
            map_sizes: keys.map_sizes()?,
            map_part: keys.map_part()?,
            cgroup: keys.text("cgroup-root", "/run/cilium/cgroupv2").into(),
            raw: BTreeMap::new(),
        };
        keys.choice("tunnel-protocol", &["vxlan"], "vxlan, the only one that is supported")?;
        if !settings.ipv4 && !settings.ipv6 {
            return Err(Error::NoFamily);
        }
        Ok(Self { raw, ..settings })
    }

    /// What stands for all addresses of the node, in each of its families.
    pub(crate) fn every_address(&self) -> Vec<IpAddr> {
        let all: [(bool, IpAddr); 2] =
            [(self.ipv4, Ipv4Addr::UNSPECIFIED.into()), (self.ipv6, Ipv6Addr::UNSPECIFIED.into())];
        all.into_iter().filter(|(wanted, _)| *wanted).map(|(_, address)| address).collect()
    }

    /// Where accepted desired state is kept.
    pub(crate) fn desired_dir(&self) -> PathBuf {
        self.state_dir.join("state").join("desired")
    }

    /// Where is kept what was learned from DNS.
    pub(crate) fn names_file(&self) -> PathBuf {
        self.state_dir.join("state").join("names.json")
    }

    /// Where the key of heartbeats is kept.
    pub(crate) fn heartbeat_key_file(&self) -> PathBuf {
        self.state_dir.join("state").join("l2-heartbeat.key")
    }

    /// Where passwords of BGP sessions are kept.
    pub(crate) fn bgp_secrets_file(&self) -> PathBuf {
        self.state_dir.join("state").join("bgp-secrets.json")
    }

    /// Where is kept how pods are linked.
    pub(crate) fn links_dir(&self) -> PathBuf {
        self.state_dir.join("state").join("endpoints")
    }

    /// Where the CNI plugin leaves notes while the agent is down.
    pub(crate) fn delete_queue(&self) -> PathBuf {
        self.state_dir.join("deleteQueue")
    }
}

/// A mounted ConfigMap also has hidden entries (`..data`), which are not settings.
fn read_directory(directory: &Path) -> Result<BTreeMap<String, String>, Error> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Read { path, source }
    };
    let mut settings = BTreeMap::new();
    for entry in fs::read_dir(directory).map_err(failed(directory))? {
        let path = entry.map_err(failed(directory))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if !name.starts_with('.') && path.is_file() {
            let text = fs::read_to_string(&path).map_err(failed(&path))?;
            settings.insert(name.to_owned(), text.trim().to_owned());
        }
    }
    Ok(settings)
}

struct Keys<'a>(&'a BTreeMap<String, String>);

impl Keys<'_> {
    /// An empty value is as good as none.
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str).filter(|text| !text.is_empty())
    }

    fn value<T: FromStr>(&self, key: &'static str, expected: &'static str) -> Result<Option<T>, Error> {
        let parse =
            |text: &str| text.parse().map_err(|_| Error::Value { key, value: text.to_owned(), expected });
        self.get(key).map(parse).transpose()
    }

    fn bool(&self, key: &'static str, default: bool) -> Result<bool, Error> {
        Ok(self.value(key, "true or false")?.unwrap_or(default))
    }

    /// The first of `choices` is the default.
    fn choice(
        &self,
        key: &'static str,
        choices: &[&'static str],
        expected: &'static str,
    ) -> Result<&'static str, Error> {
        let Some(text) = self.get(key) else { return Ok(choices.first().copied().unwrap_or_default()) };
        let found = choices.iter().find(|choice| **choice == text);
        found.copied().ok_or_else(|| Error::Value { key, value: text.to_owned(), expected })
    }

    /// 0 stands for the default.
    fn nonzero_port(&self, key: &'static str, default: u16) -> Result<u16, Error> {
        Ok(self.value(key, "a port")?.filter(|port| *port != 0).unwrap_or(default))
    }

    /// `<first>,<last>`, apart from the ports of masqueraded connections.
    fn ports(&self, key: &'static str, default: (u16, u16)) -> Result<(u16, u16), Error> {
        let expected = "first,last with 0 < first < last < 61000";
        let Some(text) = self.get(key) else { return Ok(default) };
        let read = || {
            let (first, last) = text.split_once(',')?;
            let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
            (0 < first && first < last && last < NAT_PORTS.0).then_some((first, last))
        };
        read().ok_or_else(|| Error::Value { key, value: text.to_owned(), expected })
    }

    /// Prefixes, separated by commas or blanks.
    fn nodeport_addresses(&self) -> Result<Vec<IpNet>, Error> {
        let (key, expected) = ("nodeport-addresses", "at most 8 prefixes, separated by commas");
        let text = self.get(key).unwrap_or_default();
        let items = text.split([',', ' ']).filter(|item| !item.is_empty());
        let prefixes: Result<Vec<IpNet>, _> = items.map(str::parse).collect();
        let few = prefixes.ok().filter(|prefixes| prefixes.len() <= CONFIG_NODEPORT_PREFIX_COUNT);
        few.ok_or_else(|| Error::Value { key, value: text.to_owned(), expected })
    }

    fn text(&self, key: &str, default: &str) -> String {
        self.get(key).unwrap_or(default).to_owned()
    }

    fn path(&self, key: &str) -> Option<PathBuf> {
        self.get(key).map(PathBuf::from)
    }

    /// Control ports stay on loopback unless an address is named: `:9962` means the loopback.
    fn address(&self, key: &'static str) -> Result<Option<SocketAddr>, Error> {
        let expected = "address:port, or :port for the loopback";
        let Some(text) = self.get(key) else { return Ok(None) };
        let full = if text.starts_with(':') { format!("127.0.0.1{text}") } else { text.to_owned() };
        let address = full.parse().map_err(|_| Error::Value { key, value: text.to_owned(), expected })?;
        Ok(Some(address))
    }

    /// As Go writes it; what is negative is as good as nothing.
    fn duration(&self, key: &'static str, default: Duration) -> Result<Duration, Error> {
        let expected = "a duration such as 15s, 1m30s or 200ms";
        let Some(text) = self.get(key).filter(|text| *text != "0") else {
            return Ok(self.get(key).map_or(default, |_| Duration::ZERO));
        };
        let is_plain = text.starts_with(|first: char| first.is_ascii_digit() || "+-.".contains(first));
        let parsed = text.parse::<SignedDuration>().ok().filter(|_| is_plain);
        let parsed = parsed.ok_or_else(|| Error::Value { key, value: text.to_owned(), expected })?;
        Ok(Duration::try_from(parsed).unwrap_or_default())
    }

    /// `None` where no node speaks BGP.
    fn bgp(&self) -> Result<Option<Bgp>, Error> {
        let bgp = Bgp {
            socket: self.text("bgp-socket-path", cilium_rest::bgp::SOCKET).into(),
            secrets_namespace: self.text("bgp-secrets-namespace", "kube-system"),
            reports: self.bool("enable-bgp-control-plane-status-report", true)?,
        };
        Ok(self.bool("enable-bgp-control-plane", false)?.then_some(bgp))
    }

    /// `None` where addresses are not announced.
    fn announces(&self) -> Result<Option<Agreement>, Error> {
        let expected = "heartbeat or lease";
        let mode = self.choice("l2-announcements-mode", &["heartbeat", "lease"], expected)?;
        let timings = Timings::clamped(
            self.duration("l2-announcements-lease-duration", Duration::from_secs(15))?,
            self.duration("l2-announcements-renew-deadline", Duration::from_secs(5))?,
            self.duration("l2-announcements-retry-period", Duration::from_secs(2))?,
        );
        let agreement = if mode == "lease" { Agreement::Leases(timings) } else { Agreement::Heartbeats };
        Ok(self.bool("enable-l2-announcements", false)?.then_some(agreement))
    }

    fn map_part(&self) -> Result<f64, Error> {
        let (key, expected) = ("bpf-map-dynamic-size-ratio", "a part of the memory, above 0 and below 1");
        let part = self.value::<f64>(key, expected)?.unwrap_or(MAP_PART);
        if !(part > 0.0 && part < 1.0) {
            return Err(Error::Value { key, value: part.to_string(), expected });
        }
        Ok(part)
    }

    /// By the node's memory, unless they are said.
    fn map_sizes(&self) -> Result<BTreeMap<String, u32>, Error> {
        let mut all = sizes::of_memory(sizes::memory(), self.map_part()?);
        all.extend(self.sizes("bpf-map-sizes")?);
        Ok(all)
    }

    /// `<map>=<entries>`, separated by commas.
    fn sizes(&self, key: &'static str) -> Result<BTreeMap<String, u32>, Error> {
        let expected = "map=entries,map=entries, with names as in bpftool map and at least 1 entry";
        let items = self.get(key).into_iter().flat_map(|text| text.split(','));
        let read = |item: &str| {
            let (name, size) = item.split_once('=')?;
            let size = size.parse().ok().filter(|size| *size > 0)?;
            let name = name.trim();
            // Programs reckon with the size of this one.
            let is_sized = PINNED_MAPS.contains(&name) && name != "cilium_policy_aggregates";
            is_sized.then(|| (name.to_owned(), size))
        };
        let failed = |item: &str| Error::Value { key, value: item.to_owned(), expected };
        items.map(|item| read(item).ok_or_else(|| failed(item))).collect()
    }

    fn acceleration(&self) -> Result<Acceleration, Error> {
        const NAMES: [&str; 4] = ["disabled", "native", "best-effort", "testing-only"];
        let expected = "disabled, native, best-effort or testing-only";
        Ok(match self.choice("bpf-lb-acceleration", &NAMES, expected)? {
            "native" => Acceleration::Native,
            "best-effort" => Acceleration::BestEffort,
            "testing-only" => Acceleration::Generic,
            _ => Acceleration::Disabled,
        })
    }

    /// And which entry of a table is a connection's.
    fn balancing(&self) -> Result<(Balancing, u64), Error> {
        const SIZES: &str = "one of 251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65521, 131071";
        let failed = |key: &'static str, expected: &'static str| {
            let value = self.get(key).unwrap_or_default().to_owned();
            move || Error::Value { key, value, expected }
        };
        let (size_key, seed_key) = ("bpf-lb-maglev-table-size", "bpf-lb-maglev-hash-seed");
        let size = parse_size(self.get(size_key)).ok_or_else(failed(size_key, SIZES))?;
        let seeds = parse_seed(self.get(seed_key));
        let seeds = seeds.ok_or_else(failed(seed_key, "12 bytes in base64, the same on all nodes"))?;
        let algorithm = self.choice("bpf-lb-algorithm", &["random", "maglev"], "random or maglev")?;
        let balancing = Balancing {
            algorithm: if algorithm == "maglev" { Algorithm::Maglev } else { Algorithm::Random },
            by_annotation: self.bool("bpf-lb-algorithm-annotation", false)?,
            maglev: Maglev { size, seed: seeds.tables },
            mode: self.mode()?,
            mode_by_annotation: self.bool("bpf-lb-mode-annotation", false)?,
        };
        Ok((balancing, seeds.connections))
    }

    /// How backends on other nodes see clients from outside.
    fn mode(&self) -> Result<Mode, Error> {
        self.choice("bpf-lb-dsr-dispatch", &["opt"], "opt, the only one that is supported")?;
        let mode = self.choice("bpf-lb-mode", &["snat", "dsr", "hybrid"], "snat, dsr or hybrid")?;
        Ok(match mode {
            "dsr" => Mode::Dsr,
            "hybrid" => Mode::Hybrid,
            _ => Mode::Snat,
        })
    }

    fn names(&self) -> Result<Limits, Error> {
        let upstream = Limits::default();
        let number = |key| self.value::<usize>(key, "a number");
        Ok(Limits {
            per_name: number("tofqdns-endpoint-max-ip-per-hostname")?.unwrap_or(upstream.per_name),
            in_use: number("tofqdns-max-deferred-connection-deletes")?.unwrap_or(upstream.in_use),
            min_ttl: self.value("tofqdns-min-ttl", "a number of seconds")?.unwrap_or(upstream.min_ttl),
            ..upstream
        })
    }

    fn prefixes(&self) -> Result<Vec<IpNet>, Error> {
        let v4: Option<Ipv4Net> = self.value("ipv4-native-routing-cidr", "an IPv4 prefix")?;
        let v6: Option<Ipv6Net> = self.value("ipv6-native-routing-cidr", "an IPv6 prefix")?;
        Ok(v4.map(IpNet::V4).into_iter().chain(v6.map(IpNet::V6)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mk_settings(pairs: &[(&str, &str)]) -> Result<Settings, Error> {
        let raw = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Settings::parse(raw, "n1")
    }

    #[test]
    fn defaults_are_those_of_the_documentation() {
        let settings = mk_settings(&[]).expect("parses");
        assert!(settings.tunnel && settings.ipv4 && settings.ipv6 && settings.masquerade4);
        assert_eq!((settings.tunnel_port, settings.health_port, settings.prometheus), (8472, 9879, None));
        assert_eq!(settings.bpffs, Path::new("/sys/fs/bpf/cilium"));
        assert_eq!(settings.cni_conf, None);
        assert_eq!(settings.acceleration, Acceleration::Disabled);
    }

    #[test]
    fn values_are_read() {
        let settings = mk_settings(&[
            ("routing-mode", "native"),
            ("ipv4-native-routing-cidr", "10.0.0.0/8"),
            ("prometheus-serve-addr", ":9962"),
            ("mtu", "0"),
            ("tunnel-port", "0"),
            ("write-cni-conf-when-ready", ""),
            ("bpf-map-sizes", "cilium_policy=5, cilium_ipcache=7"),
            ("node-port-range", "20000, 22767"),
            ("nodeport-addresses", "192.0.2.0/24,2001:db8::/64"),
            ("ipv6-service-loopback-address", "fd00::1"),
            ("bpf-lb-algorithm", "maglev"),
            ("bpf-lb-acceleration", "best-effort"),
            ("bpf-lb-mode", "hybrid"),
            ("bpf-lb-mode-annotation", "true"),
            ("bpf-lb-maglev-table-size", "509"),
            ("bpf-lb-maglev-hash-seed", "AAAABwAAAAAAAAAI"),
        ])
        .expect("parses");
        assert!(!settings.tunnel);
        assert_eq!(settings.native, ["10.0.0.0/8".parse::<IpNet>().expect("a prefix")]);
        assert_eq!(settings.prometheus, "127.0.0.1:9962".parse().ok());
        assert_eq!(settings.tunnel_port, 8472);
        assert_eq!(settings.nodeports, (20000, 22767));
        let prefixes = ["192.0.2.0/24", "2001:db8::/64"].map(|text| text.parse::<IpNet>().expect("a prefix"));
        assert_eq!(settings.nodeport_addresses, prefixes);
        assert_eq!(
            settings.loopbacks,
            (Ipv4Addr::new(169, 254, 42, 1), "fd00::1".parse().expect("an address"))
        );
        assert_eq!(settings.acceleration, Acceleration::BestEffort);
        let maglev = Maglev { size: 509, seed: 7 };
        let balancing = Balancing {
            algorithm: Algorithm::Maglev,
            by_annotation: false,
            maglev,
            mode: Mode::Hybrid,
            mode_by_annotation: true,
        };
        assert_eq!((settings.balancing, settings.maglev_seed), (balancing, 8));
        assert_eq!([settings.map_sizes["cilium_policy"], settings.map_sizes["cilium_ipcache"]], [5, 7]);
        assert!(settings.map_sizes.contains_key("cilium_ct"), "by memory");
    }

    #[test]
    fn mistakes_name_the_key() {
        for (key, value) in [
            ("routing-mode", "tunel"),
            ("tunnel-protocol", "geneve"),
            ("enable-ipv4", "yes"),
            ("mtu", "many"),
            ("ipv6-native-routing-cidr", "10.0.0.0/8"),
            ("prometheus-serve-addr", "9962"),
            ("bpf-map-sizes", "cilium_policy=0"),
            ("bpf-map-dynamic-size-ratio", "1.5"),
            ("bpf-map-dynamic-size-ratio", "much"),
            ("bpf-map-sizes", "cilium_polcy=5"),
            ("bpf-map-sizes", "cilium_policy_aggregates=5"),
            ("node-port-range", "30000"),
            ("bpf-lb-algorithm", "round-robin"),
            ("bpf-lb-mode", "nat"),
            ("bpf-lb-dsr-dispatch", "geneve"),
            ("bpf-lb-acceleration", "generic"),
            ("bpf-lb-algorithm-annotation", "maybe"),
            ("bpf-lb-maglev-table-size", "16384"),
            ("bpf-lb-maglev-hash-seed", "secret"),
            ("node-port-range", "32767,30000"),
            ("node-port-range", "30000,62000"),
            ("nodeport-addresses", "192.0.2.1"),
            ("nodeport-addresses", "::/0,::/1,::/2,::/3,::/4,::/5,::/6,::/7,::/8"),
            ("ipv4-service-loopback-address", "fd00::1"),
            ("bpf-lb-sock-hostns-only", "pods"),
            ("l2-announcements-mode", "both"),
            ("l2-announcements-lease-duration", "15"),
            ("l2-announcements-renew-deadline", "soon"),
            ("l2-announcements-retry-period", "PT2S"),
        ] {
            let error = mk_settings(&[(key, value)]).expect_err("is refused").to_string();
            assert!(error.contains(key) && error.contains(value), "{error}");
        }
        assert!(matches!(
            mk_settings(&[("enable-ipv4", "false"), ("enable-ipv6", "false")]),
            Err(Error::NoFamily)
        ));
        assert!(matches!(Settings::parse(BTreeMap::new(), ""), Err(Error::Node)));
    }

    #[test]
    fn announcements_are_agreed_upon_by_heartbeats_or_leases() {
        let of = |pairs: &[(&str, &str)]| mk_settings(pairs).expect("parses").announces;
        let (on, lease) = (("enable-l2-announcements", "true"), ("l2-announcements-mode", "lease"));
        let timings = |duration, renew, retry| {
            let of = Duration::from_millis;
            Some(Agreement::Leases(Timings {
                lease_duration: of(duration),
                renew_deadline: of(renew),
                retry_period: of(retry),
            }))
        };
        assert_eq!(of(&[lease]), None);
        assert_eq!(of(&[on]), Some(Agreement::Heartbeats));
        assert_eq!(of(&[on, lease]), timings(15_000, 5000, 2000));
        let said = |duration, renew, retry| {
            of(&[
                on,
                lease,
                ("l2-announcements-lease-duration", duration),
                ("l2-announcements-renew-deadline", renew),
                ("l2-announcements-retry-period", retry),
            ])
        };
        assert_eq!(said("1m30s", "10.5s", "200ms"), timings(90_000, 10_500, 200));
        assert_eq!(said("0", "-3s", "0s"), timings(1000, 500, 200), "what is too short gives way");
        assert_eq!(said("1h0m0s", "5s", "4.5s"), timings(3_600_000, 5000, 2500));
    }

    #[test]
    fn devices_are_named_by_their_beginnings_and_left_out() {
        let names = DeviceNames::parse("eth+, bond0 !eth9+");
        let meant = ["eth0", "eth1", "bond0", "eth9", "eth90", "bond01", "wlan0"].map(|name| names.has(name));
        assert_eq!(meant, [true, true, true, false, false, false, false]);
        assert!(!DeviceNames::default().has("eth0"));
    }

    #[test]
    fn hidden_files_of_a_mounted_config_map_are_left_out() {
        let dir = tempfile::tempdir().expect("temporary directory");
        fs::create_dir(dir.path().join("..data")).expect("creates");
        fs::write(dir.path().join("..data/mtu"), "9000").expect("writes");
        fs::write(dir.path().join("mtu"), "1400\n").expect("writes");
        let settings = Settings::load(Some(dir.path()), "n1").expect("loads");
        assert_eq!((settings.mtu, settings.raw.len()), (1400, 1));
    }
}
