//! Connections that were allowed to somebody else.

use std::collections::HashSet;
use std::path::Path;

use cilium_bpf::layout::Addr;
use cilium_delta::Table as _;
use cilium_drivers::maps::Maps;

/// Forgets all connections of these addresses, which stand for another identity now. The next packet of each is judged as if
/// it were the first. Returns how many there were.
///
/// One pass over the connection table, however many addresses there are. It takes a while when the table is full, so it is not
/// for the thread that puts policies in force.
pub(crate) fn forget(bpffs: &Path, addresses: &HashSet<Addr>) -> anyhow::Result<usize> {
    let mut connections = Maps::open(bpffs)?.ct;
    let mut forgotten = 0;
    for (key, _) in connections.entries()? {
        if addresses.contains(&key.low) || addresses.contains(&key.high) {
            connections.delete(&key)?;
            forgotten += 1;
        }
    }
    Ok(forgotten)
}
