//! Waiting for what a cluster does in its own time.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::bail;

/// How long anything may take before a test gives up: far beyond what is normal, for slow machines.
const PATIENCE: Duration = Duration::from_secs(90);

/// Waits until `holds` is true. Errors of `holds` count as "not yet".
///
/// # Errors
/// It did not hold in time; the error names `what` and the last error.
pub fn eventually(what: &str, mut holds: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let end = Instant::now() + PATIENCE;
    loop {
        let outcome = holds();
        if matches!(outcome, Ok(true)) {
            return Ok(());
        }
        if Instant::now() > end {
            match outcome {
                Ok(_) => bail!("waited {PATIENCE:?} in vain: {what}"),
                Err(error) => bail!("waited {PATIENCE:?} in vain: {what}: {error:#}"),
            }
        }
        sleep(Duration::from_millis(100));
    }
}

/// Checks that `holds` stays true for a while.
///
/// # Errors
/// It was false once, or failed.
pub fn holds_for(
    what: &str,
    time: Duration,
    mut holds: impl FnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let end = Instant::now() + time;
    while Instant::now() < end {
        if !holds()? {
            bail!("no longer so: {what}");
        }
        sleep(Duration::from_millis(200));
    }
    Ok(())
}
