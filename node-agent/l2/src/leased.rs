//! One device of a node that answers for the addresses of those Services whose Leases it holds.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use cilium_bpf::layout::{LINK_ANSWERING, LINK_LEASED, LinkEntry};

use crate::announcer::{Action, NEVER, Standing, State};
use crate::election::{Tenure, Timings, lease_name, nanoseconds};
use crate::frame::Mac;
use crate::telling::Telling;

#[derive(Clone, Copy, Debug)]
enum Phase {
    Silent,
    /// An agent before answered; it is not known yet whether that is still right. At the latest, it is not `until`.
    Inherited {
        until: u64,
    },
    Answering(Telling),
}

#[derive(Clone, Debug)]
struct Address {
    leases: Vec<String>,
    phase: Phase,
}

/// Decides for one device. Times are in nanoseconds of `CLOCK_MONOTONIC`.
///
/// # Expected flow
/// [`Leased::inherit`] once, with what programs answer for; [`Leased::set`] whenever the plan changes, [`Leased::learn`] whenever a Lease
/// does; [`Leased::tick`] at [`Leased::deadline`] and after each change. Programs are told that the agent lives only while
/// [`Leased::is_sure`], and after the actions of a tick. When it does not any more, it has last renewed what it holds the renew deadline
/// before, at the worst; so they stop when the rest of the time is over for which others leave a Lease alone.
#[derive(Debug)]
pub struct Leased {
    mac: Mac,
    bound: u64,
    addresses: BTreeMap<IpAddr, Address>,
    leases: BTreeMap<String, Tenure>,
    link: Option<LinkEntry>,
    is_changed: bool,
}

impl Leased {
    /// A device on which nothing is announced yet.
    pub fn new(mac: Mac, timings: Timings) -> Self {
        Self {
            mac,
            bound: nanoseconds(timings.lease_duration.saturating_sub(timings.renew_deadline)),
            addresses: BTreeMap::new(),
            leases: BTreeMap::new(),
            link: None,
            is_changed: true,
        }
    }

    /// Leaves what an agent before answered for as it is until it is known who holds the Leases; no longer than `until`.
    pub fn inherit(&mut self, answered: impl IntoIterator<Item = IpAddr>, until: u64) {
        let inherited = || Address { leases: Vec::new(), phase: Phase::Inherited { until } };
        self.addresses.extend(answered.into_iter().map(|address| (address, inherited())));
    }

    /// Takes what the plan says: Services that have each address, as `namespace/name`.
    pub fn set<'a>(&mut self, wanted: impl IntoIterator<Item = (IpAddr, &'a [String])>) {
        let mut before = std::mem::take(&mut self.addresses);
        for (address, services) in wanted {
            let phase = before.remove(&address).map_or(Phase::Silent, |it| it.phase);
            let leases = services.iter().map(|service| lease_name(service)).collect();
            self.addresses.insert(address, Address { leases, phase });
        }
        let wanted: BTreeSet<&String> = self.addresses.values().flat_map(|it| &it.leases).collect();
        self.leases.retain(|name, _| wanted.contains(name));
        self.is_changed = true;
    }

    /// Takes news of a Lease. One that the plan does not name any more is none of this device's.
    pub fn learn(&mut self, name: &str, tenure: Tenure) {
        if self.leases().any(|wanted| wanted == name) {
            self.leases.insert(name.to_owned(), tenure);
            self.is_changed = true;
        }
    }

    /// Names of the Leases that this node wants.
    pub fn leases(&self) -> impl Iterator<Item = &String> {
        self.addresses.values().flat_map(|it| &it.leases)
    }

    /// Addresses of the plan.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.keys().copied()
    }

    /// Of all that programs answer for, this node knows that it may.
    pub fn is_sure(&self) -> bool {
        !self.addresses.values().any(|it| matches!(it.phase, Phase::Inherited { .. }))
    }

    /// When [`Leased::tick`] has something to do, if nothing happens before.
    pub fn deadline(&self) -> u64 {
        if self.is_changed {
            return 0;
        }
        self.addresses.values().map(|it| self.deadline_of(it)).min().unwrap_or(NEVER)
    }

    fn deadline_of(&self, it: &Address) -> u64 {
        match it.phase {
            Phase::Silent => NEVER,
            Phase::Inherited { until } => until,
            Phase::Answering(telling) => telling.deadline().min(self.held_until(it).unwrap_or(0)),
        }
    }

    /// The longest that this node may answer.
    fn held_until(&self, it: &Address) -> Option<u64> {
        it.leases.iter().filter_map(|name| self.leases.get(name)?.until).max()
    }

    /// Does what is due.
    pub fn tick(&mut self, now: u64) -> Vec<Action> {
        self.is_changed = false;
        let mut actions = Vec::new();
        let mut addresses = std::mem::take(&mut self.addresses);
        for (address, it) in &mut addresses {
            it.phase = self.follow(*address, it, now, &mut actions);
        }
        self.addresses = addresses;
        let answers = self.addresses.values().any(|it| !matches!(it.phase, Phase::Silent));
        let flags = LINK_LEASED | if answers { LINK_ANSWERING } else { 0 };
        let link = LinkEntry { bound: self.bound, flags, mac: self.mac };
        if self.link.replace(link) != Some(link) {
            actions.push(Action::SetLink(link));
        }
        actions
    }

    fn follow(&self, address: IpAddr, it: &Address, now: u64, actions: &mut Vec<Action>) -> Phase {
        let is_held = self.held_until(it).is_some_and(|until| now < until);
        match it.phase {
            Phase::Silent if is_held => Phase::Answering(Telling::start(address, now, actions)),
            Phase::Silent => Phase::Silent,
            // It has been announced when the agent before began.
            Phase::Inherited { .. } if is_held => Phase::Answering(Telling::done(now)),
            Phase::Inherited { until } if now < until && !self.is_settled(it) => it.phase,
            Phase::Answering(mut telling) if is_held => {
                telling.follow(address, now, actions);
                Phase::Answering(telling)
            }
            Phase::Inherited { .. } | Phase::Answering(_) => {
                actions.push(Action::Answer(address, false));
                Phase::Silent
            }
        }
    }

    /// It is known who holds each of its Leases.
    fn is_settled(&self, it: &Address) -> bool {
        it.leases.iter().all(|name| self.leases.contains_key(name))
    }

    /// How an address stands.
    pub fn state(&self, address: IpAddr) -> Option<State> {
        let it = self.addresses.get(&address)?;
        let standing = match it.phase {
            Phase::Silent => Standing::Standby,
            Phase::Inherited { .. } | Phase::Answering(_) => Standing::Answering,
        };
        let known = || it.leases.iter().filter_map(|name| self.leases.get(name));
        let first = known().find(|it| it.until.is_some()).or_else(|| known().find(|it| it.holder.is_some()));
        Some(State { standing, owner: first.and_then(|it| it.holder.clone()), claimant: None })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const MAC: Mac = [2, 0, 0, 0, 0, 7];
    const WEB: &str = "cilium-l2announce-default-web";
    const DNS: &str = "cilium-l2announce-default-dns";

    fn address() -> IpAddr {
        "192.0.2.9".parse().expect("is one")
    }

    /// With one address, which these Services have.
    fn mk_leased(services: &[&str]) -> Leased {
        let timings =
            Timings::clamped(Duration::from_secs(15), Duration::from_secs(5), Duration::from_secs(2));
        let mut it = Leased::new(MAC, timings);
        set(&mut it, services);
        it
    }

    fn set(it: &mut Leased, services: &[&str]) {
        let services: Vec<String> = services.iter().map(ToString::to_string).collect();
        it.set([(address(), &*services)]);
    }

    fn mine(until: u64) -> Tenure {
        Tenure { holder: Some("n1".to_owned()), until: Some(until) }
    }

    fn theirs() -> Tenure {
        Tenure { holder: Some("n2".to_owned()), until: None }
    }

    fn link(flags: u32) -> Action {
        Action::SetLink(LinkEntry { bound: 10 * SECOND, flags, mac: MAC })
    }

    #[test]
    fn an_address_is_answered_while_the_lease_is_held() {
        let mut it = mk_leased(&["default/web"]);
        assert_eq!(it.tick(0), [link(LINK_LEASED)]);
        assert_eq!(it.deadline(), NEVER);
        it.learn(WEB, mine(5 * SECOND));
        assert_eq!(it.deadline(), 0);
        let expected = [
            Action::Answer(address(), true),
            Action::Announce(address()),
            link(LINK_LEASED | LINK_ANSWERING),
        ];
        assert_eq!(it.tick(0), expected);
        assert_eq!(it.deadline(), SECOND / 5);
        assert_eq!(it.tick(SECOND), [Action::Announce(address())]);
        assert_eq!(it.tick(SECOND), [Action::Announce(address())], "frames get lost");
        it.learn(WEB, mine(7 * SECOND));
        assert_eq!(it.tick(5 * SECOND), []);
        assert_eq!(it.deadline(), 7 * SECOND, "nobody has renewed it");
        assert_eq!(it.tick(7 * SECOND), [Action::Answer(address(), false), link(LINK_LEASED)]);
    }

    #[test]
    fn another_holder_silences_it_at_once() {
        let mut it = mk_leased(&["default/web"]);
        it.learn(WEB, mine(5 * SECOND));
        it.tick(0);
        it.learn(WEB, theirs());
        assert_eq!(it.tick(SECOND), [Action::Answer(address(), false), link(LINK_LEASED)]);
        let state = it.state(address()).expect("is of the plan");
        assert_eq!((state.standing, state.owner.as_deref()), (Standing::Standby, Some("n2")));
    }

    #[test]
    fn any_of_the_services_with_the_address_will_do() {
        let mut it = mk_leased(&["default/dns", "default/web"]);
        it.learn(DNS, theirs());
        it.learn(WEB, mine(5 * SECOND));
        assert!(it.tick(0).contains(&Action::Answer(address(), true)));
        assert_eq!(it.state(address()).and_then(|state| state.owner).as_deref(), Some("n1"));
        assert_eq!(it.leases().collect::<Vec<_>>(), [DNS, WEB]);
        set(&mut it, &["default/dns"]);
        assert!(it.tick(SECOND).contains(&Action::Answer(address(), false)));
    }

    #[test]
    fn what_an_agent_before_answered_for_stays_until_the_leases_are_known() {
        let mk = || {
            let mut it = mk_leased(&["default/web"]);
            it.inherit([address()], 9 * SECOND);
            set(&mut it, &["default/web"]);
            assert_eq!(it.tick(0), [link(LINK_LEASED | LINK_ANSWERING)]);
            assert!(!it.is_sure());
            it
        };
        let (mut held, mut lost, mut unknown) = (mk(), mk(), mk());
        held.learn(WEB, mine(5 * SECOND));
        assert_eq!(held.tick(SECOND), [], "without a gap, and without news for anybody");
        assert!(held.is_sure());
        lost.learn(WEB, theirs());
        assert_eq!(lost.tick(SECOND), [Action::Answer(address(), false), link(LINK_LEASED)]);
        assert!(lost.is_sure());
        assert_eq!((unknown.tick(8 * SECOND), unknown.deadline()), (vec![], 9 * SECOND));
        assert_eq!(unknown.tick(9 * SECOND), [Action::Answer(address(), false), link(LINK_LEASED)]);
    }
}
