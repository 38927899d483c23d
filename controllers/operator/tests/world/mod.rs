//! An API server in memory and an operator's brain on top, without time and tasks.

mod store;

use std::time::Duration;

use cilium_operator::bootstrap::{Bootstrap, Settings};
use cilium_operator::brain::Brain;
use cilium_operator::feed::{self, News};
use cilium_operator::kinds;
use cilium_plan::{Config, Kind, ObjectKey, Planner};
use cilium_runtime::writer::{Job, Outcome, Report};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::time::Instant;

pub(crate) use store::Store;

/// Key of the taint that nodes start with.
pub(crate) const TAINT: &str = "node.cilium.io/agent-not-ready";

/// A cluster: what the API server has, one operator, and a clock.
pub(crate) struct World {
    pub(crate) store: Store,
    brain: Brain,
    /// Changes of the store that the operator has seen.
    seen: usize,
    start: Instant,
    elapsed: Duration,
    /// Jobs that went out, as `Kind namespace/name`.
    pub(crate) written: Vec<String>,
    /// Says for each job whether it fails without an effect.
    pub(crate) fails: fn(attempt: usize) -> bool,
    attempts: usize,
}

impl World {
    /// An operator that has just been started on `store`.
    pub(crate) fn on(store: Store) -> Self {
        Self::with(store, Config { cluster: "default".into(), ..Config::default() })
    }

    /// The same with settings of its own.
    pub(crate) fn with(store: Store, config: Config) -> Self {
        let settings = Settings { taint: Some(TAINT.into()), condition: true };
        let mut world = Self {
            store,
            brain: Brain::new(Planner::new(config), Bootstrap::new(settings)),
            seen: 0,
            start: Instant::now(),
            elapsed: Duration::ZERO,
            written: Vec::new(),
            fails: |_| false,
            attempts: 0,
        };
        world.list();
        world
    }

    fn list(&mut self) {
        for object in self.store.all() {
            self.brain.take(feed::parse(object.0, object.1).unwrap());
        }
        self.seen = self.store.changes.len();
        for kind in kinds::ALL {
            self.brain.take(News::Listed(kind, Vec::new()));
        }
    }

    /// Brings what happened since to the operator.
    pub(crate) fn watch(&mut self) {
        for (key, object) in self.store.changes[self.seen..].iter().cloned() {
            self.brain.take(match object {
                Some(object) => feed::parse(key.kind, object).unwrap(),
                None => News::Gone(key),
            });
        }
        self.seen = self.store.changes.len();
    }

    /// Lets the operator plan once, without carrying anything out.
    pub(crate) fn plan(&mut self) -> Vec<Job> {
        let wall = Timestamp::from_second(1_800_000_000).unwrap();
        let wall = wall + SignedDuration::try_from(self.elapsed).unwrap();
        self.brain.plan(self.start + self.elapsed, wall).unwrap()
    }

    /// Carries out a job and tells the operator.
    pub(crate) fn carry_out(&mut self, job: &Job) {
        self.attempts += 1;
        let outcome = if (self.fails)(self.attempts) {
            Outcome::Failed
        } else {
            self.written.push(job.object.to_string());
            self.store.carry_out(job)
        };
        self.brain.written(Report { object: job.object.clone(), outcome });
    }

    /// Runs until there is nothing to do, in steps of 50 ms. Fails the test if that takes more than a minute of the clock.
    pub(crate) fn settle(&mut self) {
        let mut quiet = 0;
        for _ in 0..1200 {
            self.watch();
            let jobs = self.plan();
            jobs.iter().for_each(|job| self.carry_out(job));
            quiet = if jobs.is_empty() { quiet + 1 } else { 0 };
            if quiet == 10 {
                return;
            }
            self.elapsed += Duration::from_millis(50);
        }
        panic!("no end of writing: {:?}", &self.written[self.written.len().saturating_sub(20)..]);
    }

    /// What agents do: every node applies what it is told.
    pub(crate) fn ack_all(&mut self) {
        for name in self.store.names(Kind::NodeState) {
            let state = self.store.get(&ObjectKey::cluster(Kind::NodeState, &name)).cloned().unwrap();
            let desired = &state["status"]["desired"];
            let applied = json!({"revision": desired["revision"], "digest": desired["digest"]});
            self.store.edit(&ObjectKey::cluster(Kind::NodeState, &name), |state| {
                state["status"]["applied"] = applied;
            });
        }
    }
}

/// A namespace.
pub(crate) fn mk_namespace(name: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}}})
}

/// A node whose pods get addresses from 10.244.`index`.0/24; closed until its agent works.
pub(crate) fn mk_node(name: &str, index: u8) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "podCIDRs": [format!("10.244.{index}.0/24"), format!("fd00:10:244:{index}::/64")],
            "taints": [{"key": TAINT, "effect": "NoExecute"}],
        },
        "status": {"addresses": [{"type": "InternalIP", "address": format!("172.30.0.{index}")}]},
    })
}

/// A pod that is bound to `node`.
pub(crate) fn mk_pod(name: &str, node: &str, labels: &Value) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "default", "labels": labels},
        "spec": {"nodeName": node, "serviceAccountName": "default", "containers": []},
        "status": {"phase": "Pending"},
    })
}

/// A policy that lets ships of the empire land.
pub(crate) fn mk_rule1() -> Value {
    json!({
        "apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "rule1", "namespace": "default", "generation": 1},
        "spec": {
            "endpointSelector": {"matchLabels": {"org": "empire", "class": "deathstar"}},
            "ingress": [{
                "fromEndpoints": [{"matchLabels": {"org": "empire"}}],
                "toPorts": [{"ports": [{"port": "80", "protocol": "TCP"}]}],
            }],
        },
    })
}

/// The demo: two nodes, two deathstars, a tiefighter and an xwing.
pub(crate) fn mk_starwars() -> Store {
    let mut store = Store::default();
    store.put(Kind::Namespace, mk_namespace("default"));
    store.put(Kind::Node, mk_node("n1", 1));
    store.put(Kind::Node, mk_node("n2", 2));
    let (empire, alliance) = (json!({"org": "empire"}), json!({"org": "alliance", "class": "xwing"}));
    let class = |class: &str| {
        let mut labels = empire.clone();
        labels["class"] = class.into();
        labels
    };
    store.put(Kind::Pod, mk_pod("deathstar-1", "n1", &class("deathstar")));
    store.put(Kind::Pod, mk_pod("deathstar-2", "n2", &class("deathstar")));
    store.put(Kind::Pod, mk_pod("tiefighter", "n1", &class("tiefighter")));
    store.put(Kind::Pod, mk_pod("xwing", "n2", &alliance));
    store
}
