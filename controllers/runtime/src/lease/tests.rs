//! The election against a Lease in memory, with paused time.

use std::sync::{Arc, Mutex};

use kube::core::Status;

use super::*;

/// A Lease that can be out of reach.
#[derive(Clone, Default)]
struct Memory {
    state: Arc<Mutex<State>>,
    /// Each client may be cut off on its own.
    cut_off: Arc<Mutex<bool>>,
}

#[derive(Default)]
struct State {
    lease: Option<Lease>,
    version: u64,
}

impl Memory {
    fn another_client(&self) -> Self {
        Self { state: Arc::clone(&self.state), cut_off: Arc::default() }
    }

    fn cut_off(&self, yes: bool) {
        *self.cut_off.lock().unwrap() = yes;
    }

    fn reach(&self) -> Result<(), kube::Error> {
        if *self.cut_off.lock().unwrap() { Err(mk_error(500)) } else { Ok(()) }
    }

    fn write(&self, lease: &Lease, expected: Option<&String>) -> Result<(), kube::Error> {
        self.reach()?;
        let mut state = self.state.lock().unwrap();
        if state.lease.as_ref().and_then(|lease| lease.metadata.resource_version.as_ref()) != expected {
            return Err(mk_error(409));
        }
        state.version += 1;
        let mut lease = lease.clone();
        lease.metadata.resource_version = Some(state.version.to_string());
        state.lease = Some(lease);
        Ok(())
    }

    fn spec(&self) -> LeaseSpec {
        self.state.lock().unwrap().lease.clone().unwrap().spec.unwrap()
    }
}

impl Store for Memory {
    async fn get(&self, _name: &str) -> Result<Option<Lease>, kube::Error> {
        self.reach()?;
        Ok(self.state.lock().unwrap().lease.clone())
    }
    async fn create(&self, lease: &Lease) -> Result<(), kube::Error> {
        self.write(lease, None)
    }
    async fn replace(&self, lease: &Lease) -> Result<(), kube::Error> {
        self.write(lease, lease.metadata.resource_version.as_ref())
    }
}

fn mk_error(code: u16) -> kube::Error {
    kube::Error::Api(Status::failure("test", "Test").with_code(code).boxed())
}

fn mk_config(identity: &str) -> Config {
    Config {
        name: "lock".into(),
        identity: identity.into(),
        lease_duration: Duration::from_secs(15),
        renew_deadline: Duration::from_secs(10),
        retry_period: Duration::from_secs(2),
    }
}

/// Starts a candidate and gives its standing.
fn start(memory: &Memory, identity: &str) -> (watch::Receiver<Standing>, tokio::task::JoinHandle<()>) {
    let (sender, receiver) = watch::channel(Standing::Waiting);
    let (memory, config) = (memory.clone(), mk_config(identity));
    (receiver, tokio::spawn(async move { lead(&memory, config, &sender).await }))
}

async fn after(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn the_first_one_leads_and_the_second_waits() {
    let memory = Memory::default();
    let (first, _) = start(&memory, "first");
    after(1).await;
    let (second, _) = start(&memory.another_client(), "second");
    after(120).await;
    assert_eq!((*first.borrow(), *second.borrow()), (Standing::Leading, Standing::Waiting));
    assert_eq!(memory.spec().holder_identity.as_deref(), Some("first"));
    assert_eq!(memory.spec().lease_transitions, Some(0));
    assert_eq!(memory.spec().lease_duration_seconds, Some(15));
}

#[tokio::test(start_paused = true)]
async fn a_dead_holder_is_replaced_after_its_lease_and_not_before() {
    let memory = Memory::default();
    let (_first, task) = start(&memory, "first");
    after(1).await;
    let (second, _) = start(&memory.another_client(), "second");
    after(1).await;
    task.abort();
    after(14).await;
    assert_eq!(*second.borrow(), Standing::Waiting);
    after(6).await;
    assert_eq!(*second.borrow(), Standing::Leading);
    assert_eq!(memory.spec().lease_transitions, Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_is_cut_off_stops_before_another_starts() {
    let memory = Memory::default();
    let (first, task) = start(&memory, "first");
    after(1).await;
    let (second, _) = start(&memory.another_client(), "second");
    after(1).await;
    memory.cut_off(true);
    while *second.borrow() != Standing::Leading {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let both = *first.borrow() == Standing::Leading && *second.borrow() == Standing::Leading;
        assert!(!both, "two leaders");
    }
    assert_eq!(*first.borrow(), Standing::Suspended);
    memory.cut_off(false);
    after(3).await;
    assert_eq!(*first.borrow(), Standing::Lost);
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_server_that_was_away_for_long_finds_the_same_leader() {
    let memory = Memory::default();
    let (first, _) = start(&memory, "first");
    after(1).await;
    memory.cut_off(true);
    after(9).await;
    assert_eq!(*first.borrow(), Standing::Leading);
    after(600).await;
    assert_eq!(*first.borrow(), Standing::Suspended);
    memory.cut_off(false);
    after(3).await;
    assert_eq!(*first.borrow(), Standing::Leading);
    assert_eq!(memory.spec().lease_transitions, Some(0));
}

#[tokio::test(start_paused = true)]
async fn whoever_led_in_between_deposes_even_after_it_let_go() {
    let memory = Memory::default();
    let (first, _) = start(&memory, "first");
    after(1).await;
    memory.cut_off(true);
    let other = memory.another_client();
    let (second, task) = start(&other, "second");
    after(30).await;
    assert_eq!(*second.borrow(), Standing::Leading);
    task.abort();
    release(&other, &mk_config("second")).await.unwrap();
    memory.cut_off(false);
    after(3).await;
    assert_eq!(*first.borrow(), Standing::Lost);
}

#[tokio::test(start_paused = true)]
async fn a_lease_given_back_is_taken_at_once() {
    let memory = Memory::default();
    let (_first, task) = start(&memory, "first");
    after(1).await;
    let (second, _) = start(&memory.another_client(), "second");
    after(1).await;
    task.abort();
    release(&memory, &mk_config("first")).await.unwrap();
    after(2).await;
    assert_eq!(*second.borrow(), Standing::Leading);
}

#[tokio::test(start_paused = true)]
async fn only_the_holder_can_give_the_lease_back() {
    let memory = Memory::default();
    let (_first, _task) = start(&memory, "first");
    after(1).await;
    release(&memory, &mk_config("second")).await.unwrap();
    assert_eq!(memory.spec().holder_identity.as_deref(), Some("first"));
}

#[tokio::test(start_paused = true)]
async fn a_restarted_process_of_the_same_identity_goes_on_at_once() {
    let memory = Memory::default();
    let (_first, task) = start(&memory, "first");
    after(1).await;
    task.abort();
    let (again, _) = start(&memory, "first");
    after(1).await;
    assert_eq!(*again.borrow(), Standing::Leading);
    assert_eq!(memory.spec().lease_transitions, Some(0));
}
