//! Emptying the policy map, past the agent: it must work when the agent does not, and the agent must find it by itself.

use std::io::{self, BufRead as _, Write as _};

use anyhow::{Context as _, ensure};
use cilium_bpf::layout::{PolicyEntry, PolicyKey};
use cilium_drivers::maps::Map;

use crate::cli::FlushArgs;
use cilium_print::output::print;

/// The map below the agent's directory; see `docs/design/datapath.md`.
const PIN: &str = "maps/cilium_policy";

/// Removes all entries.
///
/// # Errors
/// Nobody confirmed it, or the map is not there or not writable.
pub(crate) fn policy(args: &FlushArgs) -> anyhow::Result<()> {
    let pin = args.bpffs.join(PIN);
    let mut map =
        Map::<PolicyKey, PolicyEntry>::open(&pin).context("is this the node, or the agent's pod?")?;
    ensure!(
        args.yes || confirm(map.count()?)?,
        "not confirmed, nothing was removed; --yes removes without asking"
    );
    let removed = map.retain_generations(|_| false)?;
    Ok(print(&format!("{removed} entries removed from {}\n", map.name()))?)
}

fn confirm(entries: usize) -> io::Result<bool> {
    eprint!(
        "This removes all {entries} entries of the policy map. Pods whose policy is enforced lose what it allows until \
         the agent has written them again. Continue? [y/N] "
    );
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
