//! A node with an agent, an API server, and pods that the CNI plugin connects.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Once;
use std::thread;
use std::time::{Duration, Instant};

use cilium_api::node_slice::SHARED;
use cilium_api::parts::Parts;
use cilium_drivers::netns::Netns;
use cilium_drivers::{sysctl, testing};
use cilium_rest::Client;
use cilium_rest::model::{Endpoint, Status};

use crate::api::{Server, Shared, lock};
use crate::cgroup::Cgroup;
use crate::parts::{NODE, mk_shared, mk_spec, mk_state};

pub(crate) struct Stage {
    pub(crate) netns: Netns,
    pub(crate) world: Shared,
    pub(crate) cgroup: Cgroup,
    pub(crate) bpffs: PathBuf,
    dir: tempfile::TempDir,
    agent: Option<Child>,
    server: Option<Server>,
    revision: i64,
    /// What is beyond the node's device; it has addresses 192.0.2.2 and 192.0.2.10 to 192.0.2.29.
    pub(crate) outside: Netns,
    _mount: testing::Bpffs,
}

/// How long something that needs no time may take on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until something is so.
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "still not so: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

impl Stage {
    /// A node without pods, planned for pods 1 to `pods`; agent and API server run.
    pub(crate) fn create(pods: u16, settings: &[(&str, &str)]) -> Self {
        testing::require_root();
        let (netns, outside) = (testing::namespace(), testing::namespace());
        let net = |text: &str| text.parse().expect("a prefix");
        let others = (10..30).map(|last| net(&format!("192.0.2.{last}/24")));
        let addresses: Vec<_> =
            [net("192.0.2.2/24"), net("2001:db8::2/64")].into_iter().chain(others).collect();
        testing::connect(
            (&netns, "up0", &[net("192.0.2.1/24"), net("2001:db8::1/64")]),
            (&outside, "up0", &addresses),
        );
        let mount = testing::Bpffs::create();
        let mut stage = Self {
            bpffs: mount.directory("root"),
            netns,
            world: Shared::default(),
            cgroup: Cgroup::create(),
            dir: tempfile::tempdir().expect("temporary directory"),
            agent: None,
            server: None,
            revision: 0,
            outside,
            _mount: mount,
        };
        stage.configure(settings);
        stage.plan_shared(&mk_shared(1..=pods));
        stage.plan(&(1..=pods).map(crate::parts::mk_endpoint).collect());
        stage.start_server();
        stage.start_agent();
        stage
    }

    fn configure(&self, settings: &[(&str, &str)]) {
        let config = self.dir.path().join("config");
        fs::create_dir(&config).expect("creates");
        let path = |name: &str| self.dir.path().join(name).display().to_string();
        let kubeconfig = path("kubeconfig");
        fs::write(&kubeconfig, KUBECONFIG).expect("writes");
        let own = [
            ("routing-mode", "native".to_owned()),
            ("socket-path", path("cilium.sock")),
            ("dns-proxy-socket-path", path("dns-proxy.sock")),
            ("state-dir", path("run")),
            ("bpf-root", self.bpffs.display().to_string()),
            ("cgroup-root", self.cgroup.path().display().to_string()),
            ("k8s-kubeconfig-path", kubeconfig),
            ("write-cni-conf-when-ready", path("05-cilium.conflist")),
            ("prometheus-serve-addr", "127.0.0.1:9962".to_owned()),
        ];
        for (key, value) in own {
            fs::write(config.join(key), value).expect("writes");
        }
        for (key, value) in settings {
            fs::write(config.join(key), value).expect("writes");
        }
    }

    /// Changes a setting, for the next start of the agent.
    pub(crate) fn set(&self, key: &str, value: &str) {
        fs::write(self.dir.path().join("config").join(key), value).expect("writes");
    }

    /// Writes what all nodes share.
    pub(crate) fn plan_shared(&self, parts: &Parts) {
        lock(&self.world).put_slice("cluster.r", SHARED, &mk_spec(parts));
    }

    /// Writes the node's state. Returns its revision.
    pub(crate) fn plan(&mut self, parts: &Parts) -> i64 {
        self.revision += 1;
        lock(&self.world).put_state(NODE, &mk_state(self.revision, parts));
        self.revision
    }

    pub(crate) fn start_server(&mut self) {
        self.server = Some(Server::start(&self.netns, &self.world));
    }

    pub(crate) fn kill_server(&mut self) {
        self.server = None;
    }

    pub(crate) fn start_agent(&mut self) {
        let start = || {
            // Each run reads its own kernel parameters below /proc, so the namespace has to be that of the process.
            sysctl::set("net.ipv6.conf.all.disable_ipv6", "0").expect("is root");
            Command::new(env!("CARGO_BIN_EXE_cilium-agent"))
                .arg("--config-dir")
                .arg(self.dir.path().join("config"))
                .env("K8S_NODE_NAME", NODE)
                .env("RUST_LOG", std::env::var("RUST_LOG").unwrap_or_else(|_| "info,kube_client=off".into()))
                .spawn()
                .expect("the agent starts")
        };
        self.agent = Some(self.netns.run(start).expect("enters"));
    }

    /// Starts the DNS proxy as the manifest does; it ends with the handle.
    pub(crate) fn start_proxy(&self) -> Proxy {
        let program = built("cilium-dns-proxy", "CILIUM_DNS_PROXY");
        let start = || {
            Command::new(program)
                .arg("--agent")
                .arg(self.dir.path().join("dns-proxy.sock"))
                .arg("--rules")
                .arg(self.dir.path().join("run").join("state").join("dns-rules.json"))
                .arg("--bpffs")
                .arg(self.bpffs.join("cilium"))
                .spawn()
                .expect("the proxy starts")
        };
        Proxy(self.netns.run(start).expect("enters"))
    }

    pub(crate) fn agent_id(&self) -> u32 {
        self.agent.as_ref().expect("the agent runs").id()
    }

    /// `kill -9`.
    pub(crate) fn kill_agent(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            agent.kill().expect("is killed");
            agent.wait().expect("is gone");
        }
    }

    /// As kubelet does.
    pub(crate) fn stop_agent(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            let id = rustix::process::Pid::from_child(&agent);
            rustix::process::kill_process(id, rustix::process::Signal::TERM).expect("is told");
            agent.wait().expect("is gone");
        }
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(&self.dir.path().join("cilium.sock"), Some(Duration::from_secs(40)))
    }

    pub(crate) fn status(&self) -> Option<Status> {
        self.client().get("/v1/healthz").ok()
    }

    pub(crate) fn endpoints(&self) -> Vec<Endpoint> {
        self.client().get("/v1/endpoint").expect("the agent answers")
    }

    pub(crate) fn await_ready(&self) {
        eventually("the agent works", || {
            self.status().is_some_and(|status| status.cilium.state != "Failure")
        });
    }

    pub(crate) fn await_revision(&self, revision: i64) {
        eventually(&format!("revision {revision} is in force"), || {
            self.status().is_some_and(|status| status.node_state.applied == revision)
        });
    }

    /// Asks a server on the node's loopback. Returns head and body.
    pub(crate) fn http(&self, port: u16, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.0\r\n\r\n");
        let ask = || {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connects");
            stream.write_all(request.as_bytes()).expect("asks");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("is answered");
            answer
        };
        self.netns.run(ask).expect("enters")
    }

    /// The newest acknowledgement that the API server has.
    pub(crate) fn last_ack(&self) -> serde_json::Value {
        lock(&self.world).acks.last().cloned().unwrap_or_default()
    }

    pub(crate) fn conflist(&self) -> PathBuf {
        self.dir.path().join("05-cilium.conflist")
    }

    pub(crate) fn delete_queue(&self) -> PathBuf {
        self.dir.path().join("run").join("deleteQueue")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("cilium.sock")
    }

    /// Runs the plugin as a runtime would, in the node's namespace.
    pub(crate) fn cni(&self, command: &str, id: u16, netns: &str, extra: &serde_json::Value) -> CniAnswer {
        let plugin = cni_plugin();
        let mut config = serde_json::json!({"cniVersion": "1.1.0", "name": "cilium", "type": "cilium-cni"});
        if let (Some(config), Some(extra)) = (config.as_object_mut(), extra.as_object()) {
            config.extend(extra.clone());
        }
        let arguments = format!("K8S_POD_NAMESPACE=default;K8S_POD_NAME=pod-{id};K8S_POD_UID=uid-{id}");
        let run = || {
            let mut child = Command::new(&plugin)
                .env_clear()
                .env("CNI_COMMAND", command)
                .env("CNI_CONTAINERID", format!("container{id}"))
                .env("CNI_IFNAME", "eth0")
                .env("CNI_NETNS", netns)
                .env("CNI_ARGS", &arguments)
                .env("CILIUM_SOCK", self.socket())
                .env("CILIUM_DELETE_QUEUE", self.delete_queue())
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("the plugin starts");
            let mut stdin = child.stdin.take().expect("is piped");
            stdin.write_all(config.to_string().as_bytes()).expect("is read");
            drop(stdin);
            child.wait_with_output().expect("the plugin ends")
        };
        let output = self.netns.run(run).expect("enters");
        let json = serde_json::from_slice(&output.stdout).unwrap_or(serde_json::Value::Null);
        CniAnswer { success: output.status.success(), json }
    }

    /// Connects a pod.
    pub(crate) fn add_pod(&self, id: u16) -> Pod {
        let netns = testing::namespace();
        let answer = self.cni("ADD", id, &netns.proc_path(), &serde_json::Value::Null);
        assert!(answer.success, "{}", answer.json);
        Pod { netns, result: answer.json }
    }
}

pub(crate) struct CniAnswer {
    pub(crate) success: bool,
    pub(crate) json: serde_json::Value,
}

pub(crate) struct Pod {
    pub(crate) netns: Netns,
    /// What ADD printed.
    pub(crate) result: serde_json::Value,
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.kill_agent();
    }
}

const KUBECONFIG: &str = "\
apiVersion: v1
kind: Config
current-context: test
clusters: [{name: test, cluster: {server: 'http://127.0.0.1:6443'}}]
users: [{name: test, user: {}}]
contexts: [{name: test, context: {cluster: test, user: test}}]
";

/// A running DNS proxy.
pub(crate) struct Proxy(Child);

impl Drop for Proxy {
    fn drop(&mut self) {
        self.0.kill().expect("is killed");
        self.0.wait().expect("is gone");
    }
}

pub(crate) fn cni_plugin() -> PathBuf {
    built("cilium-cni", "CILIUM_CNI")
}

/// Another package's program, unless the variable names it. It is built as the workspace's tests are, so that there is nothing left
/// to do when those are what runs.
fn built(package: &str, variable: &str) -> PathBuf {
    if let Some(built) = std::env::var_os(variable) {
        return built.into();
    }
    static BUILD: Once = Once::new();
    let target = Path::new(env!("CARGO_BIN_EXE_cilium-agent")).parent().expect("is in a directory");
    BUILD.call_once(|| {
        let mut build = Command::new(env!("CARGO"));
        build.args(["test", "--quiet", "--workspace", "--no-run"]);
        if target.ends_with("release") {
            build.arg("--release");
        }
        build.env("CARGO_TARGET_DIR", target.parent().expect("is in a target directory"));
        assert!(build.status().expect("cargo starts").success());
    });
    target.join(package)
}
