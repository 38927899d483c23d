use std::time::{Duration, Instant};

/// Milliseconds of a clock that only goes forward; what the pure crates take for time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    /// Milliseconds since the start.
    pub(crate) fn now(self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The moment at which [`Clock::now`] will be `at`.
    pub(crate) fn instant(self, at: u64) -> Instant {
        self.0 + Duration::from_millis(at)
    }
}
