use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Milliseconds of a clock that only goes forward, also from one run of the agent to the next; what the pure crates take for time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    began: Instant,
    /// What the clock said then.
    at: u64,
}

impl Clock {
    pub(crate) fn start() -> Self {
        let up = clock_gettime(ClockId::Boottime);
        let up = Duration::new(up.tv_sec.try_into().unwrap_or(0), up.tv_nsec.try_into().unwrap_or(0));
        Self { began: Instant::now(), at: milliseconds(up) }
    }

    /// Milliseconds since the machine's start.
    pub(crate) fn now(self) -> u64 {
        self.at.saturating_add(milliseconds(self.began.elapsed()))
    }

    /// The moment at which [`Clock::now`] will be `at`.
    pub(crate) fn instant(self, at: u64) -> Instant {
        self.began + Duration::from_millis(at.saturating_sub(self.at))
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
