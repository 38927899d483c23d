//! Growing pauses between attempts.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Pauses that double from `first` to `most`, each shortened by up to a quarter at random, so that many clients of
/// one server that comes back do not ask at the same moment.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    failures: u32,
}

impl Backoff {
    /// Pauses between `first` and `most`.
    pub const fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, failures: 0 }
    }

    /// The pause after one more failure.
    pub fn fail(&mut self) -> Duration {
        let pause = doubled(self.first, self.failures, self.most);
        self.failures = self.failures.saturating_add(1);
        pause - pause.mul_f64(random_fraction() / 4.0)
    }

    /// Starts again at the first pause.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Failures since the last success.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

/// `first` × 2^`times`, at most `most`.
pub(crate) fn doubled(first: Duration, times: u32, most: Duration) -> Duration {
    first.saturating_mul(1_u32.checked_shl(times).unwrap_or(u32::MAX)).min(most)
}

/// A number in [0, 1) from the random keys that the standard library gives to every hash map.
fn random_fraction() -> f64 {
    f64::from(u32::try_from(RandomState::new().hash_one(0_u8) >> 32).unwrap_or(0)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_limit_and_start_again_after_success() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let nominal = [100, 200, 400, 800, 1000, 1000];
        for expected in nominal {
            let pause = backoff.fail().as_millis();
            assert!(pause <= expected && pause >= expected * 3 / 4 - 1, "{pause} for {expected}");
        }
        backoff.reset();
        assert!(backoff.fail() <= Duration::from_millis(100));
    }

    #[test]
    fn many_failures_do_not_overflow() {
        assert_eq!(doubled(Duration::from_secs(1), 200, Duration::from_secs(9)), Duration::from_secs(9));
    }
}
