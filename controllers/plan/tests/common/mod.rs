//! An API server and agents in memory, as far as a planner sees them.
#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    clippy::needless_pass_by_value,
    reason = "a module that every test binary includes, and uses another part of; builders take json!(…) as it is written"
)]

mod agent;
mod build;
mod spec;
mod store;
mod view;

pub use agent::{Agent, acknowledge, acknowledge_node};
pub use build::*;
pub use spec::mk_any_spec;
pub use store::{Fate, Store, key_of, mk_writer};

use cilium_plan::{Config, Object, ObjectKey, Outcome, Output, Planner, Report};

/// Seconds since the epoch at the start of every test.
pub const START: i64 = 1_800_000_000;

/// A planner with the API server it works on.
pub struct World {
    pub config: Config,
    pub planner: Planner,
    pub store: Store,
    pub now: i64,
    /// Writes made so far.
    pub writes: usize,
}

impl World {
    pub fn new(config: Config) -> Self {
        let planner = Planner::new(config.clone());
        let mut world = Self { config, planner, store: Store::default(), now: START, writes: 0 };
        world.planner.synced();
        world
    }

    /// Creates or replaces an object, as a user or another controller would.
    pub fn apply(&mut self, object: impl Into<Object>) {
        self.store.apply(object.into());
    }

    pub fn delete(&mut self, key: &ObjectKey) {
        self.store.delete(key);
    }

    /// Tells the planner of everything that happened.
    pub fn deliver(&mut self) {
        for event in self.store.take_events() {
            event.tell(&mut self.planner);
        }
    }

    /// One plan, with its writes.
    pub fn plan(&mut self) -> Output {
        let output = self.planner.plan(self.now);
        self.write_output(&output, &mut |_| Fate::Succeeds);
        output
    }

    /// One report, with its writes.
    pub fn report(&mut self) -> Report {
        let report = self.planner.report(self.now);
        self.write_report(&report, &mut |_| Fate::Succeeds);
        report
    }

    pub fn write_output(&mut self, output: &Output, fate: &mut dyn FnMut(&ObjectKey) -> Fate) {
        for (key, outcome) in self.store.write_output(output, fate) {
            self.answer(&key, outcome);
        }
    }

    pub fn write_report(&mut self, report: &Report, fate: &mut dyn FnMut(&ObjectKey) -> Fate) {
        for (key, outcome) in self.store.write_report(report, fate) {
            self.answer(&key, outcome);
        }
    }

    fn answer(&mut self, key: &ObjectKey, outcome: Outcome) {
        self.writes += 1;
        if outcome == Outcome::Conflict {
            match self.store.get(key) {
                Some(object) => self.planner.observe(object.clone()),
                None => self.planner.forget(key),
            }
        }
        self.planner.written(key, outcome);
    }

    /// Delivers, plans, lets agents apply and reports until nothing happens any more.
    pub fn settle(&mut self) {
        for _ in 0..100 {
            let before = self.writes;
            self.deliver();
            self.plan();
            self.deliver();
            let acknowledged = acknowledge(&mut self.store);
            self.deliver();
            self.plan();
            self.report();
            if self.writes == before && !acknowledged && !self.store.has_events() {
                return;
            }
        }
        panic!("the planner does not come to rest");
    }

    /// A new planner takes over.
    pub fn restart(&mut self) {
        self.store.take_events();
        self.planner = mk_planner(&self.config, self.store.objects());
    }
}

/// A planner that has listed these objects.
pub fn mk_planner<'a>(config: &Config, objects: impl Iterator<Item = &'a Object>) -> Planner {
    let mut planner = Planner::new(config.clone());
    objects.for_each(|object| planner.observe(object.clone()));
    planner.synced();
    planner
}

/// Number of writes in an output.
pub fn count_output(output: &Output) -> usize {
    output.node_states.len() + output.slices.len() + output.identities.len() + output.load_balancers.len()
}

/// Number of writes in a report.
pub fn count_report(report: &Report) -> usize {
    report.endpoints.len()
        + report.nodes.len()
        + report.policies.len()
        + report.redirects.len()
        + report.pools.len()
        + report.announcements.len()
        + report.bgp_nodes.len()
        + report.bgp.len()
        + report.slices.len()
}
