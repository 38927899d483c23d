//! Tables by which clients from outside come to backends.

use std::collections::BTreeMap;

use cilium_bpf::layout::{BackendEntry, MAGLEV_NONE, SERVICE_MAGLEV, ServiceEntry};
use cilium_core::hash::fnv1a;
use cilium_drivers::maps::Maps;
use cilium_rest::model::{MaglevEntry, MaglevShare};

use super::maps::frontend;
use crate::describe;

/// Tables and sets of backends, by generation.
#[derive(Default)]
struct Sets {
    /// Indexes of backends, from the first entry on.
    tables: BTreeMap<u32, Vec<u16>>,
    backends: BTreeMap<u32, BTreeMap<u32, BackendEntry>>,
}

impl Sets {
    fn read(maps: &Maps) -> anyhow::Result<Self> {
        let mut chunks = maps.maglev.entries()?;
        chunks.sort_unstable_by_key(|(key, _)| *key);
        let mut sets = Self::default();
        for (key, chunk) in chunks {
            let indexes = chunk.backends.0.into_iter().filter(|index| *index != MAGLEV_NONE);
            sets.tables.entry(key.generation).or_default().extend(indexes);
        }
        for (key, entry) in maps.backends.entries()? {
            if sets.tables.contains_key(&key.generation) {
                sets.backends.entry(key.generation).or_default().insert(key.index, entry);
            }
        }
        Ok(sets)
    }

    fn describe(&self, frontend: String, entry: &ServiceEntry) -> Option<MaglevEntry> {
        let table = self.tables.get(&entry.generation)?;
        let backends = self.backends.get(&entry.generation)?;
        let share = |(index, backend): (&u32, &BackendEntry)| MaglevShare {
            backend: describe::end(backend.address, backend.port.0),
            entries: count(table.iter().filter(|of| u32::from(**of) == *index).count()),
        };
        Some(MaglevEntry {
            frontend,
            generation: entry.generation,
            size: count(table.len()),
            digest: format!("{:016x}", digest(table, backends)),
            backends: backends.iter().map(share).collect(),
        })
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Of the backends behind all entries, whatever their indexes.
fn digest(table: &[u16], backends: &BTreeMap<u32, BackendEntry>) -> u64 {
    let found = table.iter().map(|index| backends.get(&u32::from(*index)).copied().unwrap_or_default());
    fnv1a(found.flat_map(|entry| entry.to_bytes()))
}

/// One for each frontend with a table, sorted.
pub(super) fn list(maps: &Maps) -> anyhow::Result<serde_json::Value> {
    let sets = Sets::read(maps)?;
    let mut services = maps.services.entries()?;
    services.retain(|(_, entry)| entry.flags & SERVICE_MAGLEV != 0);
    services.sort_unstable();
    let all = services.iter().filter_map(|(key, entry)| sets.describe(frontend(key, false), entry));
    Ok(serde_json::to_value(all.collect::<Vec<_>>())?)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use cilium_bpf::layout::NetPort;

    use super::*;

    fn mk_backend(last: u8) -> BackendEntry {
        BackendEntry { address: IpAddr::from([10, 0, 0, last]).into(), port: NetPort(80) }
    }

    fn mk_sets(table: &[u16], backends: [u8; 2]) -> Sets {
        let backends = (0..).zip(backends.map(mk_backend)).collect();
        Sets { tables: [(7, table.to_vec())].into(), backends: [(7, backends)].into() }
    }

    #[test]
    fn shares_are_counted_and_the_digest_does_not_follow_indexes() {
        let entry = ServiceEntry { generation: 7, count: 2, ..ServiceEntry::default() };
        let describe = |sets: Sets| sets.describe("0.0.0.0:30080/TCP".into(), &entry).expect("there is one");
        let one = describe(mk_sets(&[0, 1, 1, 0, 1], [1, 2]));
        let shares: Vec<_> = one.backends.iter().map(|it| (it.backend.as_str(), it.entries)).collect();
        assert_eq!((one.size, shares), (5, vec![("10.0.0.1:80", 2), ("10.0.0.2:80", 3)]));
        let other = describe(mk_sets(&[1, 0, 0, 1, 0], [2, 1]));
        assert_eq!(one.digest, other.digest, "the same backends in another order");
        assert_ne!(one.digest, describe(mk_sets(&[0, 1, 1, 0, 0], [1, 2])).digest);
        let none = ServiceEntry { generation: 8, ..entry };
        assert_eq!(mk_sets(&[0], [1, 2]).describe(String::new(), &none), None);
    }
}
