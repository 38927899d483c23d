//! How soon a thread that has something to do gets a processor.

use std::io;
use std::time::Duration;

use crate::sys::sched;

/// The shortest that the kernel knows (`sched_setattr(2)`, `sched_runtime` of `SCHED_OTHER`).
const TURN: Duration = Duration::from_micros(100);

/// Asks for short turns for this thread and those that it starts: who wants little at a time is let in before others whose turn is
/// not over (Linux 6.12; before, nothing changes). That costs nobody any share of the processor.
///
/// # Errors
/// The kernel refuses. All goes on as before then.
pub fn shorten() -> io::Result<()> {
    let mut attributes = sched::get()?;
    attributes.runtime = u64::try_from(TURN.as_nanos()).unwrap_or(u64::MAX);
    sched::set(attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_short_for_threads_that_are_started_later() {
        std::thread::spawn(|| {
            shorten().expect("anybody may ask for less");
            let seen = || sched::get().expect("is told").runtime;
            let later = std::thread::spawn(seen).join().expect("does not panic");
            // A kernel before 6.12 says 0 whatever was asked for.
            assert!([0, 100_000].contains(&later), "{later}");
            assert_eq!(later, seen());
        })
        .join()
        .expect("does not panic");
    }
}
