//! How large the tables are that traffic fills: as large as the node's memory allows. They are made at once, so that no packet waits for
//! memory, and a small node should not pay for connections that it will never have.

use std::collections::BTreeMap;

use cilium_bpf::TRAFFIC_MAPS;

/// The least and most that the sizes built in are multiplied by, as powers of two.
const POWERS: (i32, i32) = (-3, 4);

/// Entries of these maps on a node with so many bytes of memory, of which they may take this part: the sizes built in, times a power of
/// two. So a node that gains or loses a little memory keeps its tables.
pub(crate) fn of_memory(bytes: u64, part: f64) -> BTreeMap<String, u32> {
    let built_in: u64 = TRAFFIC_MAPS.iter().map(|map| u64::from(map.entries) * u64::from(map.bytes)).sum();
    let power = (bytes as f64 * part / built_in as f64).log2().floor();
    let power = (power as i32).clamp(POWERS.0, POWERS.1);
    let scaled = |entries: u32| if power < 0 { entries >> -power } else { entries << power };
    TRAFFIC_MAPS.iter().map(|map| (map.name.to_owned(), scaled(map.entries))).collect()
}

/// Bytes of memory of this machine.
pub(crate) fn memory() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram.saturating_mul(u64::from(info.mem_unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_grow_and_shrink_with_memory() {
        let connections = |gib: f64| of_memory((gib * f64::from(1 << 30)) as u64, 0.0025)["cilium_ct"];
        let found = [0.5, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 1024.0, 4096.0].map(connections);
        assert_eq!(found, [16384, 16384, 32768, 65536, 131072, 262144, 524288, 1048576, 2097152, 2097152]);
        assert_eq!(connections(32.0), connections(33.5), "a little more changes nothing");
    }

    #[test]
    fn all_of_them_keep_within_their_part() {
        for gib in 7..512u64 {
            let sizes = of_memory(gib << 30, 0.0025);
            let taken: u64 =
                TRAFFIC_MAPS.iter().map(|map| u64::from(sizes[map.name]) * u64::from(map.bytes)).sum();
            assert!(taken <= (gib << 30) / 400, "{gib} GiB: {taken} bytes");
        }
    }

    #[test]
    fn this_machine_has_memory() {
        assert!(memory() > 64 << 20);
    }
}
