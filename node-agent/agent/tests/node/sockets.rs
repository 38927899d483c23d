//! Programs that a Service has led to a pod are told when the pod is gone.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket};
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use cilium_api::parts::{Address, Part, PartKey, Parts, Redirect, RedirectFrontend, Service, ServicePort};
use cilium_bpf::layout::Addr;
use cilium_drivers::maps::Maps;
use cilium_drivers::netns::Netns;

use crate::api::lock;
use crate::parts::{NODE, address4, mk_endpoint, mk_shared};
use crate::stage::{Pod, Stage, eventually};

pub(crate) const PORT: u16 = 8080;

fn address6(id: u16) -> Ipv6Addr {
    format!("fd00:10:244:1::{}", 10 + id).parse().expect("an address")
}

fn addresses(id: u16) -> [IpAddr; 2] {
    [address4(id).into(), address6(id).into()]
}

/// Addresses of the Service whose only backend is the pod.
pub(crate) fn cluster_ips(id: u16) -> [IpAddr; 2] {
    [format!("10.96.0.{id}"), format!("fd00:96::{id}")].map(|text| text.parse().expect("an address"))
}

fn mk_service(id: u16) -> (PartKey, Part) {
    let port = |protocol| ServicePort {
        name: String::new(),
        protocol,
        port: 80,
        node_port: 0,
        backends: addresses(id).map(|address| (address, PORT).into()).into(),
    };
    let ports = vec![port(6), port(17)];
    let service = Service { cluster_ips: cluster_ips(id).into(), ports, ..Service::default() };
    (PartKey::service("default", &format!("pod-{id}")), Part::Service(service))
}

/// An address that is no Service's, and leads to the pod.
fn redirected(id: u16) -> IpAddr {
    format!("169.254.20.{id}").parse().expect("an address")
}

fn mk_redirect(id: u16) -> (PartKey, Part) {
    let frontend = |protocol| RedirectFrontend {
        address: redirected(id),
        protocol,
        port: 80,
        backends: vec![(address4(id).into(), PORT)],
    };
    let redirect = Redirect { frontends: vec![frontend(6), frontend(17)], ..Redirect::default() };
    (PartKey::redirect("default", &format!("pod-{id}")), Part::Redirect(redirect))
}

/// Pods of another node, which go when pod 2 does.
const BURST: u32 = 2000;

/// What is planned for all nodes while these pods live, each with its identity.
pub(crate) fn mk_world(pods: &BTreeMap<u16, u32>) -> Parts {
    let mut parts = mk_shared(1..=3);
    parts.retain(|key, _| !key.0.starts_with("address/") && !key.0.starts_with("service/"));
    for (id, identity) in pods {
        let address = Address { identity: *identity, node: Some(NODE.into()) };
        parts.extend(addresses(*id).map(|ip| (PartKey::address(ip), Part::Address(address.clone()))));
    }
    parts.extend([mk_service(2), mk_service(3)]);
    let burst = if pods.contains_key(&2) { BURST } else { 0 };
    parts.extend((0..burst).map(|number| {
        let address = Ipv4Addr::from(0x0af5_0000 + number);
        let part = Address { identity: 1001, node: None };
        (PartKey::address(address.into()), Part::Address(part))
    }));
    parts
}

/// A pod that takes connections and datagrams, and says nothing.
pub(crate) struct Silent {
    pub(crate) pod: Pod,
    pub(crate) tcp: TcpListener,
    _udp: UdpSocket,
}

impl Silent {
    pub(crate) fn start(stage: &Stage, id: u16) -> Self {
        let pod = stage.add_pod(id);
        let bind = || (TcpListener::bind(("::", PORT)), UdpSocket::bind(("::", PORT)));
        let (tcp, udp) = pod.netns.run(bind).expect("enters");
        Self { pod, tcp: tcp.expect("binds"), _udp: udp.expect("binds") }
    }
}

/// A shell that is connected, and waits for what it hears.
pub(crate) struct Client {
    what: String,
    shell: Child,
    output: tempfile::NamedTempFile,
}

impl Client {
    /// `led`: by the programs of the node's control group.
    pub(crate) fn start(stage: &Stage, netns: &Netns, protocol: &str, to: (IpAddr, u16), led: bool) -> Self {
        let procs = stage.cgroup.path().join("cgroup.procs");
        let join = if led { format!("echo $$ > {} && ", procs.display()) } else { String::new() };
        let script =
            format!("{join}exec 3<>/dev/{protocol}/{}/{} && echo connected && exec cat <&3", to.0, to.1);
        let output = tempfile::NamedTempFile::new().expect("a file");
        let file = || -> File { output.reopen().expect("a file") };
        let mut command = Command::new("bash");
        command.args(["-c", &script]).env("LC_ALL", "C").stdout(file()).stderr(appending(&output));
        let shell = netns.run(|| command.spawn().expect("bash runs")).expect("enters");
        let what = format!("{protocol} to {}, led: {led}", to.0);
        let client = Self { what, shell, output };
        eventually(&client.what, || client.said().starts_with("connected"));
        client
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.output.path()).expect("reads")
    }

    fn has_ended(&mut self) -> bool {
        self.shell.try_wait().expect("is a child").is_some()
    }

    fn await_told(&mut self) {
        let what = self.what.clone();
        eventually(&format!("the program is told: {what}"), || self.has_ended());
        assert!(self.said().contains("Software caused connection abort"), "{what}: {}", self.said());
    }
}

/// Both streams of a shell go to one file.
fn appending(output: &tempfile::NamedTempFile) -> File {
    File::options().append(true).open(output.path()).expect("a file")
}

impl Drop for Client {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

/// What programs call a Service: a socket of IPv6 reaches IPv4, too.
fn mk_names(id: u16) -> [IpAddr; 3] {
    let [v4, v6] = cluster_ips(id);
    let IpAddr::V4(address) = v4 else { unreachable!("IPv4 comes first") };
    [v4, v6, address.to_ipv6_mapped().into()]
}

/// Clients of a pod, through its Service: from a pod and from the node itself.
fn mk_clients(stage: &Stage, from: &Pod, id: u16) -> Vec<Client> {
    let mut clients = Vec::new();
    for address in mk_names(id).into_iter().chain([redirected(id)]) {
        for protocol in ["tcp", "udp"] {
            for netns in [&from.netns, &stage.netns] {
                clients.push(Client::start(stage, netns, protocol, (address, 80), true));
            }
        }
    }
    clients
}

/// Sockets that are remembered to be led to a pod.
fn remembered(stage: &Stage, id: u16) -> usize {
    let map = Maps::open(&stage.bpffs.join("cilium")).expect("maps are pinned").sock_revnat;
    let addresses: [Addr; 2] = addresses(id).map(Addr::from);
    map.keys(|key| addresses.contains(&key.backend)).expect("reads").len()
}

#[test]
fn sockets_whose_backend_is_gone_are_told_and_no_others() {
    let mut stage = Stage::create(3, &[]);
    stage.await_ready();
    let mut pods = BTreeMap::from([(1, 1001), (2, 1002), (3, 1003)]);
    stage.plan_shared(&mk_world(&pods));
    let redirects = [mk_redirect(2), mk_redirect(3)];
    let revision = stage.plan(&[1, 2, 3].map(mk_endpoint).into_iter().chain(redirects.clone()).collect());
    stage.await_revision(revision);
    let one = stage.add_pod(1);
    let (two, three) = (Silent::start(&stage, 2), Silent::start(&stage, 3));
    eventually("services are in force", || {
        let services: Vec<serde_json::Value> = stage.client().get("/v1/service").expect("answers");
        services.len() == 12
    });
    let mut gone = mk_clients(&stage, &one, 2);
    let mut others = mk_clients(&stage, &one, 3);
    for address in addresses(2) {
        others.push(Client::start(&stage, &one.netns, "tcp", (address, PORT), false));
        others.push(Client::start(&stage, &one.netns, "udp", (address, PORT), false));
    }
    assert_eq!((remembered(&stage, 2), remembered(&stage, 3)), (16, 16));

    // How pods are linked outlives the agent. A pod with other labels lives.
    stage.kill_agent();
    eventually("the agent is gone", || lock(&stage.world).watches() == 0);
    stage.start_agent();
    stage.await_ready();
    eventually("the agent watches", || lock(&stage.world).watches() == 2);
    pods.insert(2, 1003);
    pods.insert(3, 1002);
    stage.plan_shared(&mk_world(&pods));
    let identity = |address: IpAddr| {
        let entries: Vec<cilium_rest::model::IpEntry> = stage.client().get("/v1/ip").expect("answers");
        let found = entries.iter().find(|entry| entry.cidr.starts_with(&format!("{address}/")));
        found.map(|entry| entry.identity)
    };
    eventually("labels are others", || identity(address4(3).into()) == Some(1002));
    thread::sleep(Duration::from_millis(500));
    assert!(gone.iter_mut().chain(&mut others).all(|client| !client.has_ended()));

    // The pod is gone for everybody, with many others, and its namespace is still open.
    pods.remove(&2);
    stage.plan_shared(&mk_world(&pods));
    let [_, other] = redirects;
    let revision = stage.plan(&[1, 3].map(mk_endpoint).into_iter().chain([other]).collect());
    stage.await_revision(revision);
    let begin = Instant::now();
    gone.iter_mut().for_each(Client::await_told);
    println!("{} programs were told within {:?}", gone.len(), begin.elapsed());
    eventually("what is gone is forgotten", || remembered(&stage, 2) == 0);
    for client in &mut others {
        assert!(!client.has_ended(), "{}: {}", client.what, client.said());
    }
    assert_eq!(remembered(&stage, 3), 16);
    drop((two.pod, three.pod));
}
