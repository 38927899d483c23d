//! Nodes that speak BGP with a [`Router`], and a Service whose address it learns from them.

use std::path::PathBuf;
use std::process::{Child, Stdio};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::kubectl::{Namespace, feed, kubectl, kubectl_json};
use crate::nodes::{self, hook};
use crate::outside::node_address;
use crate::pods::mk_server;
use crate::router::{NODE_ASN, ROUTER_ASN, Router};
use crate::wait::eventually;

/// Objects of one test, which go with it.
pub struct Bgp {
    label: String,
}

const KINDS: &str =
    "ciliumbgpclusterconfigs,ciliumbgppeerconfigs,ciliumbgpadvertisements,ciliumloadbalancerippools";

impl Bgp {
    /// Nothing yet.
    pub fn new(ns: &Namespace) -> Self {
        Self { label: ns.name.clone() }
    }

    /// Applies an object without a namespace; `spec` is the inside of a YAML mapping in one line.
    ///
    /// # Errors
    /// As [`feed`].
    pub fn set(&self, kind: &str, name: &str, spec: &str) -> anyhow::Result<()> {
        let label = &self.label;
        let text = format!(
            "{{apiVersion: cilium.io/v2, kind: {kind}, metadata: {{name: {name}, labels: {{test: {label}}}}}, spec: {{{spec}}}}}"
        );
        feed(&["apply", "-f", "-"], &text).map(drop)
    }
}

impl Drop for Bgp {
    fn drop(&mut self) {
        if let Err(error) = kubectl(&["delete", KINDS, "-l", &format!("test={}", self.label), "--wait=true"])
        {
            eprintln!("objects of {} stay: {error:#}", self.label);
        }
    }
}

/// The node's network up to the part of hosts, and the router on it, IPv4 and IPv6.
pub struct Network {
    /// Addresses of the router.
    pub router: [String; 2],
    /// Networks from which nodes come.
    pub nodes: [String; 2],
}

impl Network {
    /// Reads it from the nodes.
    ///
    /// # Errors
    /// They have not one address of each family.
    pub fn read() -> anyhow::Result<Self> {
        let node = &nodes::names()?[0];
        let of =
            |family: &str| anyhow::Ok(node_address(node, family)?.context("a node has both")?.to_string());
        let (v4, v6) = (of("IPv4")?, of("IPv6")?);
        let v4 = v4.rsplit_once('.').context("is one")?.0;
        let v6 = v6.rsplit_once(':').context("is one")?.0;
        Ok(Self {
            router: [format!("{v4}.250"), format!("{v6}:250")],
            nodes: [format!("{v4}.0/24"), format!("{v6}:0/64")],
        })
    }
}

/// A Service `server` (UDP and TCP, port 7000) with an address that a router learns from every node.
pub struct Stage {
    /// Its namespace.
    pub ns: Namespace,
    /// Its addresses, IPv4 and IPv6.
    pub addresses: [String; 2],
    /// What nodes were told.
    pub bgp: Bgp,
    /// The nodes' network.
    pub network: Network,
}

/// What a peer has beside `timers` and `families`, unless a test says otherwise.
pub const GRACEFUL: &str = "gracefulRestart: {enabled: true, restartTimeSeconds: 60}";
/// The same with a check of liveness every 100 ms.
pub const GRACEFUL_BFD: &str = "gracefulRestart: {enabled: true, restartTimeSeconds: 60}, bfd: {transmitIntervalMilliseconds: 100, receiveIntervalMilliseconds: 100, detectMultiplier: 3}";

impl Stage {
    /// Sets it up with servers on these nodes; `peer` is more of each CiliumBGPPeerConfig.
    ///
    /// # Errors
    /// As [`Namespace::ready`], or the Service gets no addresses.
    pub fn new(prefix: &str, servers: &[&str], peer: &str) -> anyhow::Result<Self> {
        let ns = Namespace::new(prefix)?;
        let (bgp, network) = (Bgp::new(&ns), Network::read()?);
        let names: Vec<String> = (0..servers.len()).map(|index| format!("server-{index}")).collect();
        let pods = names
            .iter()
            .zip(servers)
            .map(|(name, node)| mk_server(name, Some(node)).replace(&format!("app: {name}"), "app: server"));
        let pods = pods.collect::<String>();
        if !pods.is_empty() {
            ns.apply(&pods)?;
        }
        let stage = Self { addresses: Default::default(), ns, bgp, network };
        stage.serve("")?;
        let of_namespace = stage.of_namespace();
        stage.bgp.set(
            "CiliumLoadBalancerIPPool",
            &stage.ns.name,
            &format!("serviceSelector: {of_namespace}, blocks: [{{cidr: 198.51.100.0/24}}, {{cidr: 2001:db8:100::/120}}]"),
        )?;
        for (name, afi) in [("v4", "ipv4"), ("v6", "ipv6")] {
            let name = format!("{}-{name}", stage.ns.name);
            let families = format!(
                "[{{afi: {afi}, safi: unicast, advertisements: {{matchLabels: {{test: {}}}}}}}]",
                stage.ns.name
            );
            let timers = "{connectRetryTimeSeconds: 1, holdTimeSeconds: 9, keepAliveTimeSeconds: 3}";
            stage.bgp.set(
                "CiliumBGPPeerConfig",
                &name,
                &format!("timers: {timers}, families: {families}, {peer}"),
            )?;
        }
        stage.bgp.set(
            "CiliumBGPAdvertisement",
            &stage.ns.name,
            &format!("advertisements: [{{advertisementType: PodCIDR}}, {{advertisementType: Service, service: {{addresses: [LoadBalancerIP]}}, selector: {of_namespace}, attributes: {{communities: {{standard: ['64512:80'], wellKnown: [no-export]}}}}}}]"),
        )?;
        stage.peer(ROUTER_ASN)?;
        let ready: Vec<&str> = names.iter().map(String::as_str).collect();
        if !ready.is_empty() {
            stage.ns.ready(&ready)?;
        }
        stage.with_addresses()
    }

    fn with_addresses(self) -> anyhow::Result<Self> {
        let mut addresses = Vec::new();
        eventually("the Service has addresses", || {
            let service = kubectl_json(&["-n", &self.ns.name, "get", "service", "server"])?;
            let ingress =
                service["status"]["loadBalancer"]["ingress"].as_array().cloned().unwrap_or_default();
            addresses = ingress.iter().filter_map(|it| it["ip"].as_str().map(str::to_owned)).collect();
            addresses.sort();
            Ok(addresses.len() == 2)
        })?;
        let [v4, v6] = <[String; 2]>::try_from(addresses).map_err(|_| anyhow::anyhow!("there are two"))?;
        Ok(Self { addresses: [v4, v6], ..self })
    }

    /// A selector of the Services of this test.
    pub fn of_namespace(&self) -> String {
        format!("{{matchLabels: {{io.kubernetes.service.namespace: {}}}}}", self.ns.name)
    }

    /// Makes the Service; `spec` is more of it.
    ///
    /// # Errors
    /// As [`Namespace::apply`].
    pub fn serve(&self, spec: &str) -> anyhow::Result<()> {
        self.ns.apply(&format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: server}}, spec: {{type: LoadBalancer, ipFamilyPolicy: RequireDualStack, selector: {{app: server}}, ports: [{{name: udp, protocol: UDP, port: 7000}}, {{name: tcp, port: 7000}}], {spec}}}}}"
        )).map(drop)
    }

    /// Makes all nodes peers of the router, which they take to have this AS number.
    ///
    /// # Errors
    /// As [`feed`].
    pub fn peer(&self, asn: u32) -> anyhow::Result<()> {
        let name = &self.ns.name;
        let [v4, v6] = &self.network.router;
        self.bgp.set(
            "CiliumBGPClusterConfig",
            name,
            &format!("bgpInstances: [{{name: rack, localASN: {NODE_ASN}, peers: [{{name: v4, peerAddress: {v4}, peerASN: {asn}, peerConfigRef: {{name: {name}-v4}}}}, {{name: v6, peerAddress: '{v6}', peerASN: {asn}, peerConfigRef: {{name: {name}-v6}}}}]}}]"),
        )
    }

    /// A router with these neighbours.
    ///
    /// # Errors
    /// As [`Router::start`].
    pub fn router(&self, more: &[&str]) -> anyhow::Result<Router> {
        let [v4, v6] = &self.network.nodes;
        Router::start(&[v4, v6], more)
    }

    /// The IPv4 and the IPv6 address as a prefix.
    pub fn prefixes(&self) -> [String; 2] {
        let [v4, v6] = &self.addresses;
        [format!("{v4}/32"), format!("{v6}/128")]
    }

    /// Waits until the router sends to both addresses by way of so many nodes.
    ///
    /// # Errors
    /// It does not.
    pub fn spread(&self, router: &Router, count: usize) -> anyhow::Result<()> {
        let mut last = Vec::new();
        let outcome = eventually(&format!("the router knows {count} ways"), || {
            last = self
                .prefixes()
                .iter()
                .map(|prefix| router.next_hops(prefix))
                .collect::<Result<Vec<_>, _>>()?;
            Ok(last.iter().all(|hops| hops.len() == count))
        });
        outcome.with_context(|| format!("the last were {last:?}"))
    }
}

/// What the status of a node says of a peer.
///
/// # Errors
/// There is no such node or peer.
pub fn peer_status(node: &str, name: &str) -> anyhow::Result<Value> {
    let config = kubectl_json(&["get", "ciliumbgpnodeconfig", node])?;
    let peers = config["status"]["bgpInstances"][0]["peers"].as_array().cloned().unwrap_or_default();
    peers.into_iter().find(|peer| peer["name"] == name).with_context(|| format!("{node} has no peer {name}"))
}

/// A program on the machine outside whose lines are read when it has ended.
pub struct Outside(Child);

impl Outside {
    /// Starts it.
    ///
    /// # Errors
    /// As [`hook`].
    pub fn start(args: &[&str]) -> anyhow::Result<Self> {
        Ok(Self(hook(&[&["outside"], args].concat())?.stdout(Stdio::piped()).spawn()?))
    }

    /// Starts the measuring probe.
    ///
    /// # Errors
    /// As [`hook`].
    pub fn probe(args: &[&str]) -> anyhow::Result<Self> {
        let cli =
            std::env::var("CILIUM_CLI").context("CILIUM_CLI is not set: run through `just test-e2e`")?;
        let probe = PathBuf::from(cli).with_file_name("probe");
        let probe = probe.to_str().context("a path in UTF-8")?;
        Self::start(&[&[probe], args].concat())
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It failed.
    pub fn lines(self) -> anyhow::Result<Vec<String>> {
        let output = self.0.wait_with_output()?;
        ensure!(output.status.success(), "it ended with {}", output.status);
        Ok(String::from_utf8(output.stdout)?.lines().map(str::to_owned).collect())
    }

    /// Ends it, and reads what it has said.
    ///
    /// # Errors
    /// It had ended before.
    pub fn stop(mut self) -> anyhow::Result<Vec<String>> {
        ensure!(self.0.try_wait()?.is_none(), "it had ended before");
        self.0.kill()?;
        let output = self.0.wait_with_output()?;
        Ok(String::from_utf8(output.stdout)?.lines().map(str::to_owned).collect())
    }
}
