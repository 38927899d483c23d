//! How long routes of a peer stay without a session: graceful restart (RFC 4724), and the long-lived kind (RFC 9494). Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use cilium_rest::bgp::Family;

use crate::session::Negotiated;

/// A peer that is back has at least so long to say all that it knows.
const SETTLING: Duration = Duration::from_secs(60);

/// What becomes of stale routes of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// They are a last resort from now on.
    LongLived(Family),
    /// They go.
    Dropped(Family),
}

#[derive(Clone, Copy, Debug)]
struct Kept {
    /// When the time is over that holds now.
    until: Duration,
    /// What follows it.
    then: Option<Duration>,
}

/// Families with stale routes.
#[derive(Clone, Debug, Default)]
pub struct Retention {
    kept: BTreeMap<Family, Kept>,
}

impl Retention {
    /// The session ended without a word. Returns families whose routes stay; those of others go.
    pub fn lost(&mut self, negotiated: &Negotiated, now: Duration) -> Vec<Family> {
        self.kept.clear();
        let Some(restart) = &negotiated.restart else { return Vec::new() };
        for family in &negotiated.families {
            let seconds = |seconds: u32| Duration::from_secs(seconds.into());
            let is_named = restart.families.iter().any(|(it, _)| it == family);
            let short = is_named.then(|| seconds(restart.time.into())).filter(|it| !it.is_zero());
            let long = restart.long_lived.iter().find(|(it, ..)| it == family);
            let long = long.map(|(_, time, _)| seconds(*time)).filter(|it| !it.is_zero());
            if short.is_some() || long.is_some() {
                self.kept.insert(*family, Kept { until: now + short.unwrap_or_default(), then: long });
            }
        }
        self.kept.keys().copied().collect()
    }

    /// The peer is back: families whose stale routes go at once, because it does not forward for them any more.
    pub fn back(&mut self, negotiated: &Negotiated, now: Duration) -> Vec<Family> {
        let restart = negotiated.restart.clone().unwrap_or_default();
        let forwards = |family: Family| {
            let short = restart.families.iter().any(|(it, forwards)| *it == family && *forwards);
            short || restart.long_lived.iter().any(|(it, _, forwards)| *it == family && *forwards)
        };
        let carries = |family: Family| negotiated.families.contains(&family);
        let gone: Vec<_> = self.kept.keys().copied().filter(|it| !carries(*it) || !forwards(*it)).collect();
        self.kept.retain(|family, _| !gone.contains(family));
        let settling = Duration::from_secs(restart.time.into()).max(SETTLING);
        self.kept.values_mut().for_each(|kept| *kept = Kept { until: now + settling, then: None });
        gone
    }

    /// The peer said all that it knows of a family: whether there were stale routes, which go now.
    pub fn is_complete(&mut self, family: Family) -> bool {
        self.kept.remove(&family).is_some()
    }

    /// Nothing is stale any more.
    pub fn clear(&mut self) {
        self.kept.clear();
    }

    /// When [`Self::advance`] has something to do.
    pub fn deadline(&self) -> Option<Duration> {
        self.kept.values().map(|kept| kept.until).min()
    }

    /// What time does.
    pub fn advance(&mut self, now: Duration) -> Vec<Fate> {
        let mut fates = Vec::new();
        self.kept.retain(|family, kept| {
            if kept.until > now {
                return true;
            }
            match kept.then.take() {
                Some(longer) => {
                    kept.until = now + longer;
                    fates.push(Fate::LongLived(*family));
                    true
                }
                None => {
                    fates.push(Fate::Dropped(*family));
                    false
                }
            }
        });
        fates
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::PeerRestart;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn mk_negotiated(forwards: bool) -> Negotiated {
        let restart = PeerRestart {
            is_restarting: false,
            time: 10,
            families: vec![(Family::Ipv4, forwards)],
            long_lived: vec![(Family::Ipv4, 100, forwards)],
        };
        let families = vec![Family::Ipv4, Family::Ipv6];
        Negotiated { families, restart: Some(restart), ..Negotiated::default() }
    }

    #[test]
    fn first_short_then_long_then_gone() {
        let mut retention = Retention::default();
        assert_eq!(retention.lost(&mk_negotiated(true), at(1)), [Family::Ipv4]);
        assert_eq!(retention.deadline(), Some(at(11)));
        assert!(retention.advance(at(10)).is_empty());
        assert_eq!(retention.advance(at(11)), [Fate::LongLived(Family::Ipv4)]);
        assert_eq!(retention.deadline(), Some(at(111)));
        assert_eq!(retention.advance(at(111)), [Fate::Dropped(Family::Ipv4)]);
        assert_eq!(retention.deadline(), None);
    }

    #[test]
    fn who_is_back_has_its_time() {
        let mut retention = Retention::default();
        retention.lost(&mk_negotiated(true), at(1));
        assert!(retention.back(&mk_negotiated(true), at(5)).is_empty());
        assert_eq!(retention.deadline(), Some(at(65)));
        assert!(retention.is_complete(Family::Ipv4));
        assert!(!retention.is_complete(Family::Ipv4));
        assert_eq!(retention.deadline(), None);
    }

    #[test]
    fn who_does_not_forward_any_more_loses_its_routes() {
        let mut retention = Retention::default();
        retention.lost(&mk_negotiated(true), at(1));
        assert_eq!(retention.back(&mk_negotiated(false), at(5)), [Family::Ipv4]);
        assert_eq!(retention.deadline(), None);
    }

    #[test]
    fn without_the_capability_nothing_stays() {
        let mut retention = Retention::default();
        let plain = Negotiated { families: vec![Family::Ipv4], ..Negotiated::default() };
        assert!(retention.lost(&plain, at(1)).is_empty());
        assert_eq!(retention.deadline(), None);
    }
}
