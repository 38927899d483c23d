//! Speakers in one network namespace, number `n` at 192.0.2.n and 2001:db8::n.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use cilium_bgp::Speaker;
use cilium_drivers::netlink::Netlink;
use cilium_drivers::testing::namespace;
use cilium_rest::bgp::{
    Attributes, Config, Family, Instance, Peer, PeerState, RouteTable, Routes, SessionState,
};
use ipnet::IpNet;
use tempfile::TempDir;

/// What a test waits for comes within this, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a test in a namespace with addresses for five speakers.
pub(crate) fn in_namespace(test: impl Future<Output = ()> + Send + 'static) {
    let namespace = namespace();
    let mut netlink = Netlink::open_in(&namespace).expect("netlink works in a new namespace");
    let link = netlink.require_link("lo").expect("a namespace has a loopback device");
    let addresses: Vec<IpNet> =
        (1..6).flat_map(|n| [net(&format!("192.0.2.{n}/32")), net(&format!("2001:db8::{n}/128"))]).collect();
    netlink.ensure_addresses(&link, &addresses).expect("addresses can be set");
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(test);
    };
    namespace.run(run).expect("a thread");
}

pub(crate) fn net(text: &str) -> IpNet {
    text.parse().expect("is read")
}

pub(crate) fn mk_routes(text: &[(&str, &str)]) -> Routes {
    text.iter().map(|(prefix, name)| (net(prefix), vec![(*name).to_owned()])).collect()
}

/// How speaker `of` sees speaker `to`; the AS of `n` is 65000 + n, its port 1788 + n.
pub(crate) fn mk_peer(of: u8, to: u8) -> Peer {
    let names = vec!["a".to_owned(), "b".to_owned()];
    Peer {
        name: format!("to-{to}"),
        address: format!("192.0.2.{to}").parse().expect("is read"),
        device: None,
        asn: 65000 + u32::from(to),
        port: 1788 + u16::from(to),
        local_address: Some(format!("192.0.2.{of}").parse().expect("is read")),
        connect_retry: 2,
        hold_time: 90,
        keepalive: 30,
        password: None,
        hops: 1,
        ttl_security: false,
        passive: false,
        restart_time: None,
        stale_time: None,
        bfd: None,
        import: false,
        families: BTreeMap::from([(Family::Ipv4, names.clone()), (Family::Ipv6, names)]),
    }
}

pub(crate) trait Variant {
    fn passive(self) -> Self;
    fn over_ipv6(self) -> Self;
}

impl Variant for Peer {
    fn passive(self) -> Self {
        Self { passive: true, ..self }
    }

    fn over_ipv6(self) -> Self {
        let six = |address: std::net::IpAddr| {
            address.to_string().replace("192.0.2.", "2001:db8::").parse().expect("is read")
        };
        Self { address: six(self.address), local_address: self.local_address.map(six), ..self }
    }
}

pub(crate) fn mk_config(of: u8, peers: &[Peer]) -> Config {
    let a = Attributes { communities: vec![7], ..Attributes::default() };
    let advertisements = [("a".to_owned(), a), ("b".to_owned(), Attributes::default())];
    let instance = Instance {
        name: format!("node-{of}"),
        asn: 65000 + u32::from(of),
        router_id: format!("192.0.2.{of}").parse().expect("is read"),
        port: Some(1788 + u16::from(of)),
        next_hop4: None,
        next_hop6: Some(format!("2001:db8::{of}").parse().expect("is read")),
        advertisements: advertisements.into(),
        peers: peers.to_vec(),
    };
    Config { instances: vec![instance] }
}

/// A speaker and its folder.
pub(crate) struct Node {
    pub(crate) speaker: Speaker,
    directory: TempDir,
}

impl Node {
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().expect("a folder");
        Self { speaker: Speaker::start(directory.path()).expect("a fresh folder is writable"), directory }
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn set(&self, config: Config) {
        self.speaker.set_config(config).expect("the configuration is right");
    }

    pub(crate) fn peer(&self, index: usize) -> PeerState {
        self.speaker.peers().peers[index].clone()
    }

    /// Prefixes of all peers, sorted.
    pub(crate) fn received(&self) -> Vec<String> {
        let views = self.speaker.routes();
        let mut received: Vec<_> = views
            .iter()
            .filter(|it| it.table == RouteTable::Received)
            .map(|it| it.prefix.to_string())
            .collect();
        received.sort_unstable();
        received
    }

    pub(crate) async fn until_received(&self, prefixes: &[&str]) {
        self.until_true(&format!("{prefixes:?} are received"), |node| node.received() == prefixes).await;
    }

    pub(crate) async fn until(&self, state: SessionState) {
        self.until_true(&format!("the state is {state:?}"), |node| node.peer(0).state == state).await;
    }

    pub(crate) async fn until_reason(&self, reason: &str) {
        let is_so = |node: &Self| node.peer(0).reason.as_deref() == Some(reason);
        self.until_true(&format!("the reason is {reason:?}"), is_so).await;
    }

    /// Waits for something that comes with a new generation, or without one.
    pub(crate) async fn until_true(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let wait = async {
            while !is_so(self) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, wait).await.is_err() {
            panic!("waited for {what}; there is {:#?} {:?}", self.speaker.peers(), self.received());
        }
    }
}
