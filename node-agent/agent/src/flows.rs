//! Connections: those that were allowed to somebody else, and who is in use by any.

use std::collections::HashSet;
use std::net::IpAddr;
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

/// Addresses of both ends of every connection that may still be in use.
///
/// One pass over the connection table, like [`forget`].
pub(crate) fn in_use(bpffs: &Path) -> anyhow::Result<HashSet<IpAddr>> {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic).tv_sec;
    let connections = Maps::open(bpffs)?.ct.entries()?;
    let alive = connections.iter().filter(|(_, entry)| i64::from(entry.expires) >= now);
    Ok(alive.flat_map(|(key, _)| [key.low.ip(), key.high.ip()]).flatten().collect())
}
