//! The command line of a laptop.

use std::process::Command;

use anyhow::Context as _;

/// Runs `cilium`: exit code, and what it printed.
///
/// # Errors
/// Nobody said where it is, or it cannot be run.
pub fn cilium(args: &[&str]) -> anyhow::Result<(i32, String, String)> {
    let program = std::env::var("CILIUM_CLI")
        .context("CILIUM_CLI is not set: run the tests through `just test-e2e`")?;
    let output =
        Command::new(&program).args(args).output().with_context(|| format!("cannot run {program}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr)))
}
