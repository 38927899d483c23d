//! The programs decide as the oracle does: random policies, compiled and written as operator and agent do, against random flows.
//!
//! `ORACLE_TUPLES` is how many policies × flows are tried, `ORACLE_SEED` where to begin; without the latter every run tries the same.

mod policies;
mod random;
mod world;

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use bpf_tests::stage::{Place, Place::*, Stage};
use bpf_tests::{Family, Mode};
use cilium_api::parts::Policy;
use cilium_bpf::layout::{BlockKey, CtEntry, CtKey, METRIC_EGRESS, METRIC_INGRESS, Metric, metric_index};
use cilium_bpf::reason::DropReason;
use cilium_dataplane::{Piece, PieceKey};
use cilium_delta::Table;
use cilium_drivers::datapath::DeviceProgram;
use cilium_drivers::maps::Map;
use cilium_drivers::testrun;
use cilium_policy::verdict::{Flow, Judgement, Side, questions, verdict};

use crate::write_pieces;
use policies::Set;
use random::Random;
use world::{Attempt, FIRST_SOURCE, LAST_SOURCE, SCTP, World};

/// Tuples of one test run.
const TUPLES: usize = 120_000;
/// Flows for each set of policies.
const FLOWS: usize = 400;

/// What denied a flow, or that it was for the DNS proxy, which does not run here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Why {
    Default,
    Rule,
    Proxy,
}

type Denied = Option<(Side, Why)>;

/// Whether a rule with a place in an order has a say in what becomes of a flow.
fn is_ordered(policies: &BTreeMap<u32, Policy>, flow: &Flow) -> bool {
    verdict(policies, flow).origins().iter().any(|origin| origin.starts_with("clusternetpol/"))
}

/// What the oracle says.
fn expected(policies: &BTreeMap<u32, Policy>, flow: &Flow) -> Denied {
    let verdict = verdict(policies, flow);
    let Some(side) = verdict.denied_by() else {
        return questions(policies, flow).map(|_| (Side::Egress, Why::Proxy));
    };
    let judgement = if side == Side::Egress { verdict.egress } else { verdict.ingress };
    Some((side, if matches!(judgement, Judgement::DefaultDeny(_)) { Why::Default } else { Why::Rule }))
}

/// The counters of packets that policy drops.
const COUNTERS: [(DropReason, u32, (Side, Why)); 5] = [
    (DropReason::PolicyDenied, METRIC_EGRESS, (Side::Egress, Why::Default)),
    (DropReason::PolicyDenied, METRIC_INGRESS, (Side::Ingress, Why::Default)),
    (DropReason::PolicyDeny, METRIC_EGRESS, (Side::Egress, Why::Rule)),
    (DropReason::PolicyDeny, METRIC_INGRESS, (Side::Ingress, Why::Rule)),
    (DropReason::SocketLookup, METRIC_EGRESS, (Side::Egress, Why::Proxy)),
];

fn counters(metrics: &Map<u32, Metric>) -> [u64; 5] {
    COUNTERS.map(|(reason, column, _)| metrics.total(metric_index(Some(reason), column)).unwrap().packets)
}

/// Runs packets through the programs that see them first, and tells what dropped them.
struct Runner<'a> {
    programs: [(DeviceProgram, BorrowedFd<'a>); 3],
    metrics: &'a Map<u32, Metric>,
    ct: &'a mut Map<CtKey, CtEntry>,
    before: [u64; 5],
}

impl Runner<'_> {
    fn judged(&mut self, job: &Job) -> Denied {
        let fd = self.programs.iter().find(|(program, _)| *program == job.program).unwrap().1;
        let context = testrun::Context { device: job.device, ..testrun::Context::default() };
        let verdict = testrun::run(fd, &job.packet, context, 1).unwrap().verdict;
        if let Some(key) = &job.forget {
            self.ct.delete(key).unwrap();
        }
        // TC_ACT_OK, TC_ACT_REDIRECT; everything else should be TC_ACT_SHOT.
        if [0, 7].contains(&verdict) {
            return None;
        }
        let (before, after) = (self.before, counters(self.metrics));
        self.before = after;
        let grown: Vec<_> = (0..5).filter(|at| after[*at] != before[*at]).map(|at| COUNTERS[at].2).collect();
        assert!(verdict == 2 && grown.len() == 1, "{job:?} returned {verdict} and was counted as {grown:?}");
        grown.first().copied()
    }
}

/// A packet for a program.
#[derive(Debug)]
struct Job {
    attempt: Attempt,
    program: DeviceProgram,
    device: u32,
    packet: Vec<u8>,
    /// A connection that the next flow must not be a part of.
    forget: Option<CtKey>,
}

impl Job {
    fn new(stage: &Stage, attempt: Attempt, number: u16) -> Self {
        let (program, device) = match (attempt.from.place, attempt.to.place) {
            (PodA | PodB, _) => (DeviceProgram::FromContainer, stage.link(attempt.from.place).index),
            (Host, pod) => (DeviceProgram::ToContainer, stage.link(pod).index),
            _ => (DeviceProgram::FromNetdev, stage.uplink.index),
        };
        let packet = attempt.packet(attempt.mac(stage), number);
        Self { attempt, program, device, packet, forget: attempt.lasting_connection() }
    }
}

/// One set of policies, and its flows.
struct Trial<'a> {
    stage: &'a mut Stage,
    world: &'a mut World,
    generation: u32,
    number: u16,
    prefixes: BTreeMap<ipnet::IpNet, u32>,
    /// Of the policies in force.
    blocks: Vec<BlockKey>,
    counts: BTreeMap<(Family, u8, Denied), usize>,
    /// Flows that such rules decide about.
    ordered: usize,
}

impl Trial<'_> {
    fn run(&mut self, seed: u64) {
        let mut random = Random::new(seed);
        let set = if random.chance(75) {
            policies::from_objects(&mut random)
        } else {
            policies::from_entries(&mut random)
        };
        self.install(&set);
        let jobs: Vec<Job> = (0..FLOWS).map(|_| self.job(&mut random)).collect();
        for (job, found) in jobs.iter().zip(self.judged(&jobs)) {
            self.ordered += usize::from(is_ordered(&set.policies, &job.attempt.flow()));
            let expected = expected(&set.policies, &job.attempt.flow());
            assert_eq!(
                found, expected,
                "the programs (left) and the oracle (right) differ about {:?}\nORACLE_SEED={seed} ORACLE_TUPLES={FLOWS} tries it alone; policies: {:#?}\ncompiled: {:?}",
                job.attempt, set.source, set.policies,
            );
            *self.counts.entry((job.attempt.family(), job.attempt.protocol(), found)).or_default() += 1;
        }
    }

    fn job(&mut self, random: &mut Random) -> Job {
        self.number = if self.number == LAST_SOURCE { FIRST_SOURCE } else { self.number + 1 };
        Job::new(self.stage, self.world.attempt(random), self.number)
    }

    fn install(&mut self, set: &Set) {
        let open = Policy::default();
        let old_blocks = std::mem::take(&mut self.blocks);
        for pod in [PodA, PodB] {
            let policy = set.policies.get(&pod.identity(Family::V4)).unwrap_or(&open);
            self.put_policy(pod, policy);
        }
        self.stage.maps.policy.retain_generations(|generation| generation + 2 > self.generation).unwrap();
        for block in &old_blocks {
            self.stage.maps.blocks.delete(block).unwrap();
        }
        self.world.know(self.stage, &self.prefixes, &set.prefixes);
        self.prefixes.clone_from(&set.prefixes);
    }

    fn put_policy(&mut self, pod: Place, policy: &Policy) {
        self.generation += 1;
        let compiled = cilium_dataplane::compile(policy).unwrap();
        let pieces = compiled.pieces(self.generation);
        write_pieces(&mut self.stage.maps, &pieces);
        let block = |(key, _): &(PieceKey, Piece)| match key {
            PieceKey::Block(key) => Some(*key),
            _ => None,
        };
        self.blocks.extend(pieces.iter().filter_map(block));
        self.stage.set_slot(pod, compiled.slot(self.generation));
    }

    fn judged(&mut self, jobs: &[Job]) -> Vec<Denied> {
        let Stage { netns, datapath, maps, .. } = &mut *self.stage;
        let programs = [DeviceProgram::FromContainer, DeviceProgram::ToContainer, DeviceProgram::FromNetdev]
            .map(|program| (program, datapath.program(program.name()).unwrap()));
        let before = counters(&maps.metrics);
        let mut runner = Runner { programs, metrics: &maps.metrics, ct: &mut maps.ct, before };
        netns.run(|| jobs.iter().map(|job| runner.judged(job)).collect()).unwrap()
    }
}

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}

#[test]
fn programs_and_oracle_agree() {
    let tuples = setting("ORACLE_TUPLES").map_or(TUPLES, |tuples| usize::try_from(tuples).unwrap());
    let first = setting("ORACLE_SEED");
    // Masquerade knows neither SCTP nor every ICMP message, and is no part of the question.
    let mut stage = Stage::with_config(Mode::Native, |config| config.flags = 0);
    let mut world = World::furnish(&mut stage);
    let mut trial = Trial {
        stage: &mut stage,
        world: &mut world,
        generation: 100,
        number: FIRST_SOURCE,
        prefixes: BTreeMap::new(),
        blocks: Vec::new(),
        counts: BTreeMap::new(),
        ordered: 0,
    };
    let started = Instant::now();
    for seed in (first.unwrap_or(1)..).take(tuples.div_ceil(FLOWS)) {
        trial.run(seed);
    }
    if tuples >= TUPLES {
        check_counts(&trial.counts, tuples);
        assert!(trial.ordered > tuples / 50, "rules in an order decide {} times only", trial.ordered);
    }
    println!(
        "{} tuples of policies and flows, {} decided by ordered rules, in {:.1?} from seed {}, no differences",
        trial.counts.values().sum::<usize>(),
        trial.ordered,
        started.elapsed(),
        first.unwrap_or(1)
    );
}

/// Every outcome occurs often for each family and protocol.
fn check_counts(counts: &BTreeMap<(Family, u8, Denied), usize>, tuples: usize) {
    let outcomes = COUNTERS.map(|(_, _, denied)| Some(denied)).into_iter().chain([None]);
    for outcome in outcomes {
        for (family, protocol) in
            Family::ALL.into_iter().flat_map(|it| [crate::TCP, crate::UDP, SCTP, it.icmp()].map(|p| (it, p)))
        {
            // Questions come by these two.
            let is_asked = [crate::TCP, crate::UDP].contains(&protocol);
            if outcome == Some((Side::Egress, Why::Proxy)) && !is_asked {
                continue;
            }
            // Few rules are about questions.
            let least =
                if outcome == Some((Side::Egress, Why::Proxy)) { tuples / 12_000 } else { tuples / 2000 };
            let count = counts.get(&(family, protocol, outcome)).copied().unwrap_or(0);
            assert!(count > least, "{outcome:?} of {family:?} and protocol {protocol} {count} times only");
        }
    }
}
