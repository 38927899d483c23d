//! Answers that are in force already: who gets the same answer again need not wait.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Pairs of name and address that are remembered. Beyond, all are forgotten: the next answers wait for the agent again.
const MOST: usize = 100_000;

/// Names, their addresses, and until when the agent keeps these.
#[derive(Debug, Default)]
pub(crate) struct Known {
    names: HashMap<String, HashMap<IpAddr, Instant>>,
    pairs: usize,
}

impl Known {
    /// Whether all of these are in force.
    pub(crate) fn covers(&self, name: &str, addresses: &[IpAddr], now: Instant) -> bool {
        let Some(known) = self.names.get(name) else { return addresses.is_empty() };
        addresses.iter().all(|address| known.get(address).is_some_and(|until| *until > now))
    }

    /// Notes what is in force.
    pub(crate) fn insert(&mut self, name: &str, addresses: &[IpAddr], until: Instant) {
        if self.pairs + addresses.len() > MOST {
            self.clear();
        }
        let known = self.names.entry(name.to_owned()).or_default();
        for address in addresses {
            match known.get_mut(address) {
                Some(before) => *before = until.max(*before),
                None => {
                    known.insert(*address, until);
                    self.pairs += 1;
                }
            }
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.names.clear();
        self.pairs = 0;
    }

    /// Takes out everything that still holds, with the time that is left.
    pub(crate) fn take(&mut self, now: Instant) -> Vec<(String, Vec<IpAddr>, Duration)> {
        self.pairs = 0;
        let mut all = Vec::new();
        for (name, addresses) in self.names.drain() {
            for (address, until) in addresses {
                if let Some(left) = until.checked_duration_since(now).filter(|left| !left.is_zero()) {
                    all.push((name.clone(), vec![address], left));
                }
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(number: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, number])
    }

    #[test]
    fn only_what_is_in_force_need_not_wait() {
        let (mut known, now) = (Known::default(), Instant::now());
        let at = |seconds| now + Duration::from_secs(seconds);
        assert!(!known.covers("a.", &[ip(1)], now));
        known.insert("a.", &[ip(1), ip(2)], at(10));
        known.insert("a.", &[ip(1)], at(5));
        assert!(known.covers("a.", &[ip(1), ip(2)], at(9)));
        assert!(!known.covers("a.", &[ip(1)], at(10)));
        assert!(!known.covers("a.", &[ip(1), ip(3)], now));
        assert!(!known.covers("b.", &[ip(1)], now));
        let mut left = known.take(at(4));
        left.sort_unstable();
        let six = Duration::from_secs(6);
        assert_eq!(left, [("a.".into(), vec![ip(1)], six), ("a.".into(), vec![ip(2)], six)]);
        assert!(!known.covers("a.", &[ip(1)], now));
    }

    #[test]
    fn it_stays_small() {
        let (mut known, now) = (Known::default(), Instant::now());
        let until = now + Duration::from_secs(10);
        for number in 0..=MOST {
            known.insert(&number.to_string(), &[ip(1)], until);
        }
        assert_eq!(known.take(now).len(), 1);
    }
}
