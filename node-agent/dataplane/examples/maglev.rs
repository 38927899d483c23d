//! How long it takes to fill a table, and how much of it moves when a backend goes:
//! `cargo run --release -p cilium-dataplane --example maglev`.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use cilium_bpf::layout::{BackendEntry, NetPort};
use cilium_dataplane::maglev::Maglev;

const ROUNDS: u32 = 20;

fn mk_backend(number: u32) -> BackendEntry {
    BackendEntry { address: IpAddr::from((0x0af4_0000 + number).to_be_bytes()).into(), port: NetPort(80) }
}

fn main() {
    println!("entries  backends   to fill   move when one of them goes");
    for (size, count) in [(16_381, 2), (16_381, 10), (16_381, 100), (16_381, 1000), (131_071, 100)] {
        let maglev = Maglev { size, seed: 1 };
        let backends: Vec<BackendEntry> = (0..count).map(mk_backend).collect();
        let (mut table, mut each) = (None, Duration::MAX);
        // The quickest round is the one that nobody disturbed.
        for _ in 0..ROUNDS {
            let begin = Instant::now();
            table = std::hint::black_box(maglev.fill(std::hint::black_box(&backends)));
            each = each.min(begin.elapsed());
        }
        // The last one goes, so that the indexes of the others stay.
        let rest = maglev.fill(&backends[..backends.len() - 1]);
        let (Some(table), gone) = (table, backends.len() - 1) else { continue };
        let moved = rest.map(|rest| {
            let pairs = table.iter().zip(rest.iter());
            pairs.filter(|(old, new)| usize::from(**old) != gone && old != new).count()
        });
        let moved =
            moved.map_or("-".to_owned(), |moved| format!("{:.2} %", moved as f64 * 100.0 / f64::from(size)));
        println!("{size:>7}  {count:>8}  {each:>8.1?}   {moved}");
    }
}
