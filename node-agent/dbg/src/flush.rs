//! Emptying the policy maps, past the agent: it must work when the agent does not, and the agent must find it by itself.

use std::io::{self, BufRead as _, Write as _};

use anyhow::{Context as _, ensure};
use cilium_drivers::maps::{DIRECTORY, PolicyMaps};

use crate::cli::FlushArgs;
use cilium_print::output::print;

/// Removes all rules, from each of the maps that hold some.
///
/// # Errors
/// Nobody confirmed it, or the map is not there or not writable.
pub(crate) fn policy(args: &FlushArgs) -> anyhow::Result<()> {
    let mut maps =
        PolicyMaps::open(&args.bpffs.join(DIRECTORY)).context("is this the node, or the agent's pod?")?;
    ensure!(
        args.yes || confirm(maps.count()?)?,
        "not confirmed, nothing was removed; --yes removes without asking"
    );
    let removed = maps.retain_generations(|_| false)?;
    Ok(print(&format!("{removed} entries removed from {}\n", maps.peers.name()))?)
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
