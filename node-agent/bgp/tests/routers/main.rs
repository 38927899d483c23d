//! Routers of other makes, each in a network namespace beside the speaker: what works with which of them.
//!
//! They are Debian's FRR, BIRD, GoBGP and ExaBGP; `./dev` installs them. Each cell of the table has a router, a speaker and a link of
//! its own. `ROUTERS=bird FEATURES=bfd,md5` chooses some of them.
//!
//! | module | what |
//! |---|---|
//! | [`lab`] | namespaces, programs in them |
//! | [`session`], [`speaker`] | what a session is to be; the node's side of it |
//! | [`router`] | what is asked of every router |
//! | [`frr`], [`bird`], [`gobgp`], [`exabgp`] | how each of them is told, and says it |
//! | [`features`] | the lines of the table |
//! | [`raw`], [`wire`] | a peer of the test's own that sends what no router would |

mod bird;
mod exabgp;
mod features;
mod frr;
mod gobgp;
mod lab;
mod raw;
mod router;
mod session;
mod speaker;
mod wire;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use anyhow::{Result, anyhow};

use crate::features::{FEATURES, Feature};
use crate::lab::Lab;
use crate::router::Router;

/// What became of a feature with a router.
enum Cell {
    Works,
    /// The router does not have it.
    Missing,
    NotAsked,
    Fails(String),
}

impl Cell {
    fn text(&self) -> &'static str {
        match self {
            Self::Works => "works",
            Self::Missing => "-",
            Self::NotAsked => "",
            Self::Fails(_) => "FAILS",
        }
    }
}

/// Whether a variable names this, or is not there.
fn is_asked(variable: &str, name: &str) -> bool {
    std::env::var(variable).map_or(true, |names| names.split(',').any(|it| it == name))
}

fn attempt(check: impl FnOnce(&Lab) -> Result<()>) -> Result<()> {
    let lab = Lab::new()?;
    let result = catch_unwind(AssertUnwindSafe(|| check(&lab)));
    result.unwrap_or_else(|_| Err(anyhow!("it panicked"))).map_err(|error| error.context(lab.logs()))
}

fn cell<R: Router>(name: &str, feature: &Feature) -> Cell {
    if !is_asked("ROUTERS", name) || !is_asked("FEATURES", feature.name) {
        return Cell::NotAsked;
    }
    if feature.missing.contains(&name) {
        return Cell::Missing;
    }
    match attempt(|lab| features::check::<R>(feature, lab)) {
        Ok(()) => Cell::Works,
        Err(error) => Cell::Fails(format!("{name}, {}: {error:?}", feature.name)),
    }
}

fn column<R: Router>(name: &str) -> Vec<Cell> {
    FEATURES.iter().map(|feature| cell::<R>(name, feature)).collect()
}

fn print(names: &[&str], columns: &[Vec<Cell>]) {
    let line = |first: &str, cells: &[&str]| {
        let rest: String = cells.iter().map(|cell| format!(" {cell:<8}")).collect();
        println!("{first:<28}{rest}");
    };
    line("", names);
    for (place, feature) in FEATURES.iter().enumerate() {
        let cells: Vec<&str> = columns.iter().map(|column| column[place].text()).collect();
        line(feature.name, &cells);
    }
}

#[test]
fn every_feature_works_with_every_router() {
    let names = ["frr", "bird", "gobgp", "exabgp"];
    let work: [fn(&str) -> Vec<Cell>; 4] =
        [column::<frr::Frr>, column::<bird::Bird>, column::<gobgp::Gobgp>, column::<exabgp::Exabgp>];
    let columns: Vec<Vec<Cell>> = thread::scope(|scope| {
        let threads = names.iter().zip(work).map(|(name, column)| scope.spawn(move || column(name)));
        let threads: Vec<_> = threads.collect();
        threads.into_iter().map(|thread| thread.join().expect("panics are caught")).collect()
    });
    print(&names, &columns);
    let failures = columns.iter().flatten().filter_map(|cell| match cell {
        Cell::Fails(reason) => Some(reason.as_str()),
        _ => None,
    });
    let failures: Vec<&str> = failures.collect();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}
