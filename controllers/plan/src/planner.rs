//! The planner as its caller sees it.

use crate::config::Config;
use crate::object::{Object, ObjectKey};
use crate::output::{Outcome, Output, Report};

/// Objects in, writes out.
#[derive(Debug)]
pub struct Planner {
    config: Config,
    synced: bool,
}

impl Planner {
    /// A planner that knows nothing yet.
    pub fn new(config: Config) -> Self {
        Self { config, synced: false }
    }

    /// Takes an object as it is now. An object older than what is known of it is ignored.
    pub fn observe(&mut self, object: Object) {
        let _ = (object, &self.config);
    }

    /// Takes note that an object is gone.
    pub fn forget(&mut self, key: &ObjectKey) {
        let _ = key;
    }

    /// Says that every kind was listed once. Before that [`Planner::plan`] answers nothing.
    pub fn synced(&mut self) {
        self.synced = true;
    }

    /// Says how a write went. Plan again afterwards: what was held back meanwhile comes then.
    pub fn written(&mut self, key: &ObjectKey, outcome: Outcome) {
        let _ = (key, outcome);
    }

    /// What is to be written now. `now` is in seconds since the epoch. Touches only what changed since the last call.
    pub fn plan(&mut self, now: i64) -> Output {
        let _ = now;
        Output::default()
    }

    /// What people look at, as of the last plan: call it a little after [`Output::report_due`], so that several changes make
    /// one write.
    pub fn report(&mut self, now: i64) -> Report {
        let _ = now;
        Report::default()
    }
}
