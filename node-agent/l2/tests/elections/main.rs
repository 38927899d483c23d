//! Nodes that want one Lease, an API server that may be out of reach, answers that get lost: never do two hold it, and somebody does
//! when all is well.
#![allow(clippy::unwrap_used, reason = "a test that lacks what it looks at has failed")]

use std::time::Duration;

use cilium_announcer::election::lease_name;
use cilium_announcer::{Action, Election, Leased, Tenure, Timings};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use proptest::prelude::*;

const NODES: usize = 3;
const NAME: &str = "cilium-l2announce-default-web";
const MILLISECOND: u64 = 1_000_000;
const STEP: u64 = 100 * MILLISECOND;

/// What happens to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Answered,
    /// It does not reach the API server.
    Lost,
    /// It does, and the answer is lost.
    Unheard,
    /// It does, and both ways take some steps.
    Late(u8, u8),
}

/// What happens in a step, beside time that passes.
#[derive(Clone, Copy, Debug)]
enum Event {
    Nothing,
    /// The requests of a node fare like this from now on.
    Network(usize, Fate),
    /// A new agent, which knows nothing.
    Restart(usize),
    Want(usize, bool),
    /// Somebody deletes the Lease that nobody holds.
    Collect,
}

struct Request {
    began: u64,
    arrives: u64,
    claim: Lease,
    fate: Fate,
    /// What the API server has said, and when the node hears it.
    answer: Option<(u64, Result<Lease, ()>)>,
}

struct Node {
    name: String,
    election: Election,
    fate: Fate,
    request: Option<Request>,
}

struct World {
    now: u64,
    version: u64,
    lease: Option<Lease>,
    nodes: Vec<Node>,
}

fn mk_election(name: &str) -> Election {
    let of = Duration::from_millis;
    Election::new(NAME, name, Timings::clamped(of(3000), of(1500), of(400)))
}

impl World {
    fn new() -> Self {
        let mk = |number| {
            let name = format!("n{number}");
            Node { election: mk_election(&name), name, fate: Fate::Answered, request: None }
        };
        Self { now: STEP, version: 0, lease: None, nodes: (0..NODES).map(mk).collect() }
    }

    /// As an API server takes a create or a replace.
    fn store(&mut self, mut claim: Lease) -> Result<Lease, ()> {
        let known = self.lease.as_ref().and_then(|lease| lease.metadata.resource_version.clone());
        if claim.metadata.resource_version != known {
            return Err(());
        }
        self.version += 1;
        claim.metadata.resource_version = Some(self.version.to_string());
        self.lease = Some(claim.clone());
        Ok(claim)
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Nothing => {}
            Event::Network(node, fate) => self.nodes[node].fate = fate,
            // What the agent before has sent may still arrive: nobody waits for the answer.
            Event::Restart(node) => {
                self.nodes[node].election = mk_election(&self.nodes[node].name);
                if let Some(request) = &mut self.nodes[node].request {
                    request.fate = Fate::Unheard;
                }
            }
            Event::Want(node, is_wanted) => self.nodes[node].election.want(is_wanted),
            Event::Collect => {
                let is_garbage = |lease: &Lease| cilium_announcer::election::is_garbage(lease, "", false);
                self.lease.take_if(|lease| is_garbage(lease));
            }
        }
        (0..NODES).for_each(|node| self.follow(node));
        self.now += STEP;
    }

    fn follow(&mut self, number: usize) {
        let (now, lease) = (self.now, self.lease.clone());
        let node = &mut self.nodes[number];
        if node.request.is_none() {
            if node.election.reads_at() <= now && node.fate == Fate::Answered {
                node.election.observe(lease.as_ref(), now);
            }
            let wall = Timestamp::from_millisecond((now / MILLISECOND).cast_signed()).unwrap();
            if let Some(claim) = node.election.claim(now, &MicroTime(wall)) {
                let way = if let Fate::Late(way, _) = node.fate { u64::from(way) } else { 0 };
                let (fate, arrives) = (node.fate, now + way * STEP);
                node.request = Some(Request { began: now, arrives, claim, fate, answer: None });
            }
        }
        self.carry(number);
    }

    fn carry(&mut self, number: usize) {
        let now = self.now;
        let Some(mut request) = self.nodes[number].request.take() else { return };
        if request.answer.is_none() && request.arrives <= now && request.fate != Fate::Lost {
            let back = if let Fate::Late(_, way) = request.fate { u64::from(way) } else { 0 };
            request.answer = Some((now + back * STEP, self.store(request.claim.clone())));
        }
        let node = &mut self.nodes[number];
        match (&request.answer, request.fate) {
            (_, Fate::Lost) | (Some(_), Fate::Unheard) => node.election.failed(request.began),
            (Some((at, Ok(lease))), _) if *at <= now => {
                node.election.written(lease.clone(), request.began, now);
            }
            (Some((at, Err(()))), _) if *at <= now => node.election.refused(),
            _ => node.request = Some(request),
        }
    }

    fn holders(&self) -> Vec<&str> {
        let holds = |node: &&Node| node.election.held_until().is_some_and(|until| self.now < until);
        self.nodes.iter().filter(holds).map(|node| &*node.name).collect()
    }
}

fn fates() -> impl Strategy<Value = Fate> {
    prop_oneof![
        4 => Just(Fate::Answered),
        1 => Just(Fate::Lost),
        1 => Just(Fate::Unheard),
        2 => (0..20_u8, 0..20_u8).prop_map(|(there, back)| Fate::Late(there, back)),
    ]
}

fn events() -> impl Strategy<Value = Event> {
    prop_oneof![
        20 => Just(Event::Nothing),
        3 => (0..NODES, fates()).prop_map(|(node, fate)| Event::Network(node, fate)),
        1 => (0..NODES).prop_map(Event::Restart),
        1 => (0..NODES, any::<bool>()).prop_map(|(node, is_wanted)| Event::Want(node, is_wanted)),
        1 => Just(Event::Collect),
    ]
}

proptest! {
    #[test]
    fn one_node_holds_it_whatever_fails(history in prop::collection::vec(events(), 1..400)) {
        let mut world = World::new();
        for event in history {
            world.step(event);
            prop_assert!(world.holders().len() <= 1, "{:?} at {} ms", world.holders(), world.now / MILLISECOND);
        }
        for node in 0..NODES {
            world.step(Event::Network(node, Fate::Answered));
            world.step(Event::Want(node, true));
        }
        (0..60).for_each(|_| world.step(Event::Nothing));
        prop_assert_eq!(world.holders().len(), 1, "six seconds after all is well");
    }
}

const SECOND: u64 = 1000 * MILLISECOND;

/// When programs of a holder are silent that renewed its Lease last at `renewed`, cannot do so again, and is stopped at `paused`: its
/// process tells them nothing any more.
fn silent_at(election: &Election, timings: Timings, renewed: u64, paused: u64) -> u64 {
    let address: std::net::IpAddr = [192, 0, 2, 9].into();
    let services = ["default/web".to_owned()];
    let mut leased = Leased::new([2, 0, 0, 0, 0, 7], timings);
    leased.set([(address, &services[..])]);
    let tenure = Tenure { holder: Some("n0".to_owned()), until: election.held_until() };
    leased.learn(&lease_name(&services[0]), tenure);
    let (mut bound, mut alive) = (0, 0);
    for now in (0..).map(|step| renewed + step * STEP).take_while(|now| *now <= paused) {
        for action in leased.tick(now) {
            match action {
                Action::SetLink(link) => bound = link.bound,
                Action::Answer(_, false) => return now,
                _ => {}
            }
        }
        alive = now;
    }
    alive + bound
}

#[test]
fn a_holder_that_is_paused_is_silent_before_another_one_may_take_its_lease() {
    let timings = Timings::clamped(Duration::from_secs(15), Duration::from_secs(5), Duration::from_secs(2));
    let (mut holder, mut other) = (Election::new(NAME, "n0", timings), Election::new(NAME, "n1", timings));
    let renewed = 100 * SECOND;
    holder.observe(None, renewed);
    let claim = holder.claim(renewed + SECOND, &MicroTime(Timestamp::UNIX_EPOCH)).unwrap();
    holder.written(claim.clone(), renewed, renewed);
    other.observe(Some(&claim), renewed);
    let taken = other.writes_at();
    let silent: Vec<u64> =
        (0..80).map(|tenths| silent_at(&holder, timings, renewed, renewed + tenths * STEP)).collect();
    assert!(taken >= renewed + 15 * SECOND);
    assert_eq!(silent[0], renewed + 10 * SECOND, "paused at once");
    assert_eq!(silent[49], renewed + 14_900 * MILLISECOND, "paused when it could just not renew");
    assert_eq!(silent[79], renewed + 5 * SECOND, "it knew that it had to stop");
    assert!(silent.iter().all(|at| *at <= taken), "{silent:?} {taken}");
}
