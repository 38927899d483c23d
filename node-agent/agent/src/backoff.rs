use std::time::Duration;

/// Pauses between attempts: doubling from the first to the longest, and from the beginning again after a success.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(5);

impl Backoff {
    pub(crate) fn new() -> Self {
        Self { next: FIRST }
    }

    /// The pause before the next attempt. Agents of many nodes that lost one server do not come back all at once: the
    /// clock's low bits spread them.
    pub(crate) fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(LONGEST);
        let nanos = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |d| d.subsec_nanos());
        pause.mul_f64(0.75 + f64::from(nanos % 1000) / 4000.0)
    }

    pub(crate) fn succeeded(&mut self) {
        self.next = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let mut backoff = Backoff::new();
        let pauses: Vec<Duration> = (0..12).map(|_| backoff.pause()).collect();
        assert!(pauses[0] <= FIRST && pauses[0] >= FIRST * 3 / 4);
        assert!(pauses[11] > LONGEST / 2 && pauses[11] <= LONGEST);
        backoff.succeeded();
        assert!(backoff.pause() <= FIRST);
    }
}
