//! The BGP speaker beside GoBGP, BIRD and FRR: how soon it learns and tells prefixes, and the memory for it. Needs no cluster: each daemon in
//! turn runs in a network namespace of its own, its peers in another one.

mod bird;
mod daemon;
mod frr;
mod generator;
mod gobgp;
mod lab;
mod ours;
mod wire;

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use cilium_rest::Client;
use cilium_rest::bgp::RouteView;
use ipnet::Ipv4Net;

use self::daemon::{Daemon, Kind, Setup};
use self::generator::{Generator, Peer};
use self::lab::{DAEMON, Lab, PATIENCE, peer_address};
use crate::compare::say_load;
use crate::table::{Goal, Row, median};

/// Peers of the daemon.
const PEERS: usize = 100;
/// Prefixes of each peer.
const OF_PEER: usize = 1000;
/// Of these, so many have a path in common.
const OF_PATH: usize = 100;
/// The first prefix that the daemon announces, without its last byte.
const OWN_FIRST: u32 = 0x1E_0000;
/// Prefixes that the daemon announces.
const OWN: usize = 1000;
/// Single prefixes more that it announces then, one after the other.
const MORE: usize = 10;
/// Between two questions for what a daemon has learned; longer where answers take long, so that asking is a small part of the work.
const PERIOD: Duration = Duration::from_millis(5);
/// What a daemon may still have to do when all sessions are there.
const SETTLING: Duration = Duration::from_secs(2);

/// What is to be known of the figures.
const NOTE: &str = "\
All daemons: passive peers, nothing written to the kernel, no prefix of one peer told to another, BIRD and FRR without delays and by their sockets.
Learned is what a daemon's own list of peers counts, asked again 5 ms after an answer, or after four times as long as it took.
cilium-bgp chooses best paths when it is asked for them: that one answer with all of them is in its figure.
gobgpd is told and asked by its command line (10 ms), which hands over prefixes one by one, and asks its policy for each prefix and peer.";

/// Figures of one daemon in one round.
#[derive(Default)]
struct Figures {
    /// Milliseconds until everything is learned.
    learn: f64,
    /// Milliseconds until all peers are told everything.
    tell: f64,
    /// The same for one prefix.
    one: f64,
    /// Milliseconds until the first peer hears of one prefix.
    change: f64,
    /// The same while everything that was learned is asked for; ours only.
    busy: f64,
    /// Bytes for a prefix of a peer.
    prefix: f64,
    /// KiB for a peer without prefixes.
    peer: f64,
}

/// The whole table.
pub(crate) fn measure(rounds: usize) -> Result<Vec<Row>> {
    say_load("before");
    eprintln!("{NOTE}");
    let mut all: Vec<Vec<Figures>> = Kind::ALL.iter().map(|_| Vec::new()).collect();
    for round in 0..rounds {
        for (kind, figures) in Kind::ALL.into_iter().zip(&mut all) {
            eprintln!("BGP, round {} of {rounds}: {kind} ...", round + 1);
            figures.push(one_round(kind).with_context(|| kind.to_string())?);
        }
    }
    say_load("after");
    Ok(rows(&all))
}

fn prefixes(first: u32, count: usize) -> impl Iterator<Item = Result<Ipv4Net>> {
    (0..count).map(move |it| Ok(Ipv4Net::new(Ipv4Addr::from((first + it as u32) << 8), 24)?))
}

fn peer(number: usize) -> Result<Peer> {
    let (address, asn) = (peer_address(number), 64600 + number as u16);
    let all = prefixes(0x14_0000 + (number * OF_PEER) as u32, OF_PEER).collect::<Result<Vec<_>>>()?;
    let paths = all.chunks(OF_PATH).zip(4_200_000_000u32..);
    let updates = paths.flat_map(|(of_path, origin)| wire::announce(of_path, &[asn.into(), origin], address));
    Ok(Peer { address, asn, updates: updates.collect() })
}

fn one_round(kind: Kind) -> Result<Figures> {
    let lab = Lab::new(PEERS)?;
    let peers = (0..PEERS).map(peer).collect::<Result<Vec<_>>>()?;
    let mut figures = Figures::default();
    lab.at_peers(|| {
        learn(kind, &lab, &peers, &mut figures)?;
        tell(kind, &lab, &peers, &mut figures)
    })??;
    Ok(figures)
}

fn sessions(peers: &[Peer]) -> Result<Generator> {
    let generator = Generator::connect((DAEMON, 179).into(), peers.to_vec(), PATIENCE)?;
    thread::sleep(SETTLING);
    generator.check()?;
    Ok(generator)
}

fn learn(kind: Kind, lab: &Lab, peers: &[Peer], figures: &mut Figures) -> Result<()> {
    let alone = {
        let daemon = kind.start(lab, &Setup { peers: &[], tells: false })?;
        thread::sleep(SETTLING);
        daemon.process().memory()?
    };
    let mut daemon = kind.start(lab, &Setup { peers, tells: false })?;
    let generator = sessions(peers)?;
    let before = daemon.process().memory()?;
    figures.peer = (before - alone) / PEERS as f64 / 1024.0;
    let start = generator.announce()?;
    figures.learn = milliseconds(start, wait_learned(daemon.as_mut(), start)?);
    thread::sleep(SETTLING);
    generator.check()?;
    figures.prefix = (daemon.process().memory()? - before) / (PEERS * OF_PEER) as f64;
    if let Some(speaker) = daemon.speaker() {
        let start = Instant::now();
        ours::choose(&speaker, PEERS * OF_PEER)?;
        figures.learn += milliseconds(start, Instant::now());
        figures.busy =
            while_asked(&speaker, || one_by_one(daemon.as_mut(), &generator, 0).map(|(first, _)| first))?;
    }
    Ok(())
}

/// Does something while the speaker is asked for best paths and routes again and again.
fn while_asked<T>(speaker: &Client, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let asking = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                ours::choose(speaker, PEERS * OF_PEER)?;
                let routes: Vec<RouteView> = speaker.get("/v1/routes")?;
                ensure!(routes.len() >= PEERS * OF_PEER, "it shows only {} routes", routes.len());
            }
            Ok(())
        });
        let result = work();
        is_over.store(true, Ordering::Relaxed);
        let asked: Result<()> = asking.join().map_err(|_| anyhow!("the thread that asks has failed"))?;
        asked.and(result)
    })
}

fn wait_learned(daemon: &mut dyn Daemon, start: Instant) -> Result<Instant> {
    loop {
        let asked = Instant::now();
        // One that has much to do may answer late, or say that it does.
        let learned = daemon.learned();
        let now = Instant::now();
        if learned.as_ref().is_ok_and(|it| *it == PEERS * OF_PEER) {
            return Ok(now);
        }
        if now - start > PATIENCE {
            let learned = learned.with_context(|| daemon.process().said())?;
            bail!("it has only {learned} prefixes: {}", daemon.process().said());
        }
        thread::sleep(PERIOD.max(4 * (now - asked)));
    }
}

fn tell(kind: Kind, lab: &Lab, peers: &[Peer], figures: &mut Figures) -> Result<()> {
    let mut daemon = kind.start(lab, &Setup { peers, tells: true })?;
    let generator = sessions(peers)?;
    let all = prefixes(OWN_FIRST, OWN).collect::<Result<Vec<_>>>()?;
    generator.expect(OWN);
    let start = Instant::now();
    daemon.tell(&all)?;
    figures.tell = milliseconds(start, generator.told()?.last);
    (figures.change, figures.one) = one_by_one(daemon.as_mut(), &generator, OWN)?;
    Ok(())
}

/// Single prefixes more than so many: milliseconds until the first peer hears of one, and until all have it.
fn one_by_one(daemon: &mut dyn Daemon, generator: &Generator, before: usize) -> Result<(f64, f64)> {
    let (mut first, mut last) = (Vec::new(), Vec::new());
    for (prefix, count) in prefixes(OWN_FIRST + before as u32, MORE).zip(before + 1..) {
        thread::sleep(SETTLING / 10);
        generator.expect(count);
        let start = Instant::now();
        daemon.tell(&[prefix?])?;
        let told = generator.told()?;
        first.push(milliseconds(start, told.first));
        last.push(milliseconds(start, told.last));
    }
    Ok((median(&mut first), median(&mut last)))
}

fn milliseconds(from: Instant, to: Instant) -> f64 {
    to.saturating_duration_since(from).as_secs_f64() * 1000.0
}

fn rows(all: &[Vec<Figures>]) -> Vec<Row> {
    let learn = format!("learns {} prefixes of {PEERS} peers", PEERS * OF_PEER);
    let tell = format!("tells {OWN} prefixes to {PEERS} peers");
    let goal = Some(Goal::RatioAtMost(1.0));
    let limit = Some(Goal::AtMost(20.0));
    let shown = |what, unit, goal, get| Shown { what, unit, goal, get };
    let figures = [
        shown(&*learn, "ms", goal, |it: &Figures| it.learn),
        shown(&tell, "ms", goal, |it| it.tell),
        shown("tells one more to all of them", "ms", goal, |it| it.one),
        shown("from one more to an UPDATE at a peer", "ms", limit, |it| it.change),
        shown("memory (PSS) for a prefix of a peer", "B", None, |it| it.prefix),
        shown("memory (PSS) for a peer", "KiB", None, |it| it.peer),
    ];
    figures.iter().flat_map(|figure| figure.rows(all)).chain([busy(all)]).collect()
}

fn busy(all: &[Vec<Figures>]) -> Row {
    let mut rounds: Vec<f64> = all.first().into_iter().flatten().map(|it| it.busy).collect();
    Row {
        what: format!("from one more to an UPDATE while all routes are asked for (ms), {}", Kind::Ours),
        unit: "ms",
        floor: None,
        value: median(&mut rounds),
        goal: Goal::AtMost(20.0),
    }
}

/// A figure that all daemons have.
struct Shown<'a> {
    what: &'a str,
    unit: &'static str,
    /// Of ours.
    goal: Option<Goal>,
    get: fn(&Figures) -> f64,
}

impl Shown<'_> {
    /// Medians of all daemons, each beside the best of the three others.
    fn rows(&self, all: &[Vec<Figures>]) -> Vec<Row> {
        let medians = all.iter().map(|rounds| median(&mut rounds.iter().map(self.get).collect::<Vec<_>>()));
        let medians: Vec<(Kind, f64)> = Kind::ALL.into_iter().zip(medians).collect();
        let others = medians.iter().filter(|(kind, _)| *kind != Kind::Ours);
        let best = others.map(|(_, value)| *value).fold(f64::INFINITY, f64::min);
        let row = |&(kind, value): &(Kind, f64)| Row {
            what: format!("{} ({}), {kind}", self.what, self.unit),
            unit: self.unit,
            floor: Some(best),
            value,
            goal: self.goal.filter(|_| kind == Kind::Ours).unwrap_or(Goal::Beside),
        };
        medians.iter().map(row).collect()
    }
}
