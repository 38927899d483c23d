//! The lines of the table.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use cilium_rest::bgp::{Attributes, BfdState, Family, PeerState, RouteChanges, SessionState};

use ipnet::IpNet;

use crate::lab::{Lab, PATIENCE, Side, until};
use crate::router::{Router, Seen};
use crate::session::{
    HOLD_TIME, NODE_ASN, Session, node_address, node_prefix, router_address, router_prefix,
};
use crate::speaker::Speaker;

use Family::{Ipv4, Ipv6};

/// A line.
pub(crate) struct Feature {
    pub(crate) name: &'static str,
    what: What,
    /// Routers that do not have it.
    pub(crate) missing: &'static [&'static str],
}

enum What {
    /// Routes of both sides, over a session like this.
    Exchange(fn() -> Session),
    /// No session, and a reason that has one of these words.
    Refusal(fn() -> Session, &'static [&'static str]),
    Changes,
    RouteRefresh,
    /// With BFD, or without.
    GracefulRestart(bool),
    RouterRestart,
    LongLivedRestart,
    Many,
    Bfd,
}

pub(crate) const FEATURES: &[Feature] = &[
    Feature { name: "ipv4", what: What::Exchange(|| Session::new(Ipv4, &[Ipv4])), missing: &[] },
    Feature { name: "ipv6", what: What::Exchange(|| Session::new(Ipv6, &[Ipv6])), missing: &[] },
    Feature {
        name: "both over ipv4",
        what: What::Exchange(|| Session::new(Ipv4, &[Ipv4, Ipv6])),
        missing: &[],
    },
    Feature { name: "ibgp", what: What::Exchange(internal), missing: &[] },
    Feature { name: "communities", what: What::Exchange(with_communities), missing: &[] },
    Feature { name: "md5", what: What::Exchange(with_password), missing: &[] },
    Feature { name: "md5 over ipv6", what: What::Exchange(with_password6), missing: &[] },
    Feature { name: "gtsm", what: What::Exchange(with_ttl_security), missing: &[] },
    Feature { name: "passive", what: What::Exchange(passive), missing: &[] },
    Feature { name: "extended next hop", what: What::Exchange(extended), missing: &[] },
    // ExaBGP knows no device of an address.
    Feature { name: "link-local", what: What::Exchange(link_local), missing: &["exabgp"] },
    Feature { name: "four-octet as", what: What::Exchange(four_octet_asn), missing: &[] },
    Feature { name: "any as", what: What::Exchange(any_asn), missing: &[] },
    Feature { name: "changes", what: What::Changes, missing: &[] },
    // GoBGP looks again at what it kept, and asks nobody.
    Feature { name: "route refresh", what: What::RouteRefresh, missing: &["gobgp"] },
    // ExaBGP has no table in which it could keep routes.
    Feature { name: "graceful restart", what: What::GracefulRestart(false), missing: &["exabgp"] },
    Feature { name: "the same with bfd", what: What::GracefulRestart(true), missing: &["gobgp", "exabgp"] },
    Feature { name: "restart of the router", what: What::RouterRestart, missing: &[] },
    Feature { name: "long-lived restart", what: What::LongLivedRestart, missing: &["frr", "exabgp"] },
    Feature { name: "many prefixes", what: What::Many, missing: &[] },
    Feature { name: "bfd", what: What::Bfd, missing: &["gobgp", "exabgp"] },
    Feature { name: "wrong as", what: What::Refusal(wrong_asn, &["AS"]), missing: &[] },
    Feature {
        name: "wrong password",
        what: What::Refusal(wrong_password, &["password", "MD5", "timed out", "no answer"]),
        missing: &[],
    },
    Feature {
        name: "wrong ttl",
        what: What::Refusal(wrong_ttl, &["TTL", "hop", "timed out", "no answer"]),
        missing: &[],
    },
];

fn internal() -> Session {
    let attributes = Attributes { local_preference: Some(222), ..Attributes::default() };
    let mut session = Session::new(Ipv4, &[Ipv4]);
    (session.router_asn, session.expected_asn) = (NODE_ASN, NODE_ASN);
    Session { attributes, ..session }
}

fn with_communities() -> Session {
    let attributes = Attributes {
        // 65001:7 and no-export.
        communities: vec![0xfde9_0007, 0xffff_ff01],
        large_communities: vec![(65001, 1, 2)],
        local_preference: None,
    };
    Session { attributes, ..Session::new(Ipv4, &[Ipv4, Ipv6]) }
}

fn with_password() -> Session {
    let password = Some("correct-horse");
    Session { node_password: password, router_password: password, ..Session::new(Ipv4, &[Ipv4]) }
}

fn with_password6() -> Session {
    Session { transport: Ipv6, families: vec![Ipv6], ..with_password() }
}

fn with_ttl_security() -> Session {
    Session { node_ttl_security: true, router_ttl_security: true, ..Session::new(Ipv4, &[Ipv4]) }
}

fn passive() -> Session {
    Session { node_passive: true, ..Session::new(Ipv4, &[Ipv4]) }
}

fn extended() -> Session {
    Session { extended_next_hop: true, ..Session::new(Ipv6, &[Ipv4, Ipv6]) }
}

fn link_local() -> Session {
    Session { link_local: true, ..extended() }
}

fn four_octet_asn() -> Session {
    let asn = 4_200_000_002;
    Session { router_asn: asn, expected_asn: asn, ..Session::new(Ipv4, &[Ipv4]) }
}

fn any_asn() -> Session {
    Session { expected_asn: 0, ..Session::new(Ipv4, &[Ipv4]) }
}

fn wrong_asn() -> Session {
    Session { expected_asn: 65099, ..Session::new(Ipv4, &[Ipv4]) }
}

fn wrong_password() -> Session {
    Session { router_password: Some("battery-staple"), ..with_password() }
}

fn wrong_ttl() -> Session {
    Session { node_ttl_security: true, ..Session::new(Ipv4, &[Ipv4]) }
}

/// Fills one cell.
pub(crate) fn check<R: Router>(feature: &Feature, lab: &Lab) -> Result<()> {
    match feature.what {
        What::Exchange(session) => check_exchange::<R>(lab, &session()),
        What::Refusal(session, words) => check_refusal::<R>(lab, &session(), words),
        What::Changes => check_changes::<R>(lab),
        What::RouteRefresh => check_route_refresh::<R>(lab),
        What::GracefulRestart(bfd) => check_graceful_restart::<R>(lab, bfd),
        What::RouterRestart => check_router_restart::<R>(lab),
        What::LongLivedRestart => check_long_lived_restart::<R>(lab),
        What::Many => check_many::<R>(lab),
        What::Bfd => check_bfd::<R>(lab),
    }
}

fn start<'lab, R: Router>(lab: &'lab Lab, session: &Session) -> Result<(R, Speaker<'lab>)> {
    Ok((R::start(lab, session).context("the router does not start")?, Speaker::start(lab, session)?))
}

/// Family of the next hop of a family's prefixes.
fn hop_family(session: &Session, family: Family) -> Family {
    if session.extended_next_hop { session.transport } else { family }
}

fn expected(session: &Session, family: Family) -> Seen {
    Seen {
        next_hops: vec![node_address(hop_family(session, family))],
        as_path: if session.is_internal() { Vec::new() } else { vec![NODE_ASN] },
        communities: session.attributes.communities.clone(),
        large_communities: session.attributes.large_communities.clone(),
        local_preference: session.attributes.local_preference.filter(|_| session.is_internal()),
    }
}

/// Waits until the router has a prefix of the node, and compares what goes with it.
fn check_at_router<R: Router>(router: &mut R, session: &Session, family: Family) -> Result<()> {
    let prefix = node_prefix(family);
    let seen = until(&format!("{prefix} at the router"), || router.route(prefix))?;
    // Routers show a preference of their own for what came without one.
    let local_preference = seen.local_preference.filter(|_| session.is_internal());
    let (seen, expected) = (Seen { local_preference, ..seen }, expected(session, family));
    ensure!(seen == expected, "the router has {prefix} as {seen:?}, not as {expected:?}");
    Ok(())
}

fn check_at_node(speaker: &Speaker<'_>, session: &Session, family: Family) -> Result<()> {
    let prefix = router_prefix(family);
    let route = until(&format!("{prefix} in /v1/routes"), || speaker.received(session, prefix))?;
    let hops = [router_address(hop_family(session, family)), session.router()];
    let count = if session.link_local { 2 } else { 1 };
    ensure!(hops[..count].contains(&route.next_hop), "a wrong next hop: {route:?}");
    let path = if session.is_internal() { vec![] } else { vec![session.router_asn.to_string()] };
    ensure!(route.as_path == path, "a wrong path: {route:?}");
    Ok(())
}

fn check_exchange<R: Router>(lab: &Lab, session: &Session) -> Result<()> {
    let (mut router, speaker) = start::<R>(lab, session)?;
    let peer = speaker.wait_received()?;
    ensure!(peer.asn == session.router_asn, "another AS number: {peer:?}");
    ensure!(peer.hold_time == HOLD_TIME, "another hold time: {peer:?}");
    ensure!(peer.established_count >= 1, "{peer:?}");
    for family in &session.families {
        check_at_router(&mut router, session, *family)?;
        check_at_node(&speaker, session, *family)?;
        let other = if *family == Ipv4 { Ipv6 } else { Ipv4 };
        if !session.has(other) {
            ensure!(router.route(node_prefix(other))?.is_none(), "a family that nobody asked for came");
        }
    }
    let advertised = speaker.wait("one prefix said in each family", |peer| {
        peer.families.len() == session.families.len() && peer.families.iter().all(|it| it.advertised == 1)
    });
    advertised.map(drop)
}

fn check_refusal<R: Router>(lab: &Lab, session: &Session, words: &[&str]) -> Result<()> {
    let (_router, speaker) = start::<R>(lab, session)?;
    let peer = speaker.wait("a reason", |peer| {
        peer.state != SessionState::Established
            && peer.reason.as_ref().is_some_and(|reason| words.iter().any(|word| reason.contains(word)))
    })?;
    ensure!(peer.established_count == 0, "there was a session: {peer:?}");
    Ok(())
}

fn check_changes<R: Router>(lab: &Lab) -> Result<()> {
    let session = Session::new(Ipv4, &[Ipv4]);
    let (mut router, speaker) = start::<R>(lab, &session)?;
    check_at_router(&mut router, &session, Ipv4)?;
    let prefix = node_prefix(Ipv4);
    speaker.change(&RouteChanges { removed: vec![prefix], ..RouteChanges::default() })?;
    until("a withdrawal", || Ok(router.route(prefix)?.is_none().then_some(())))?;
    speaker.change(&RouteChanges { set: session.routes(), ..RouteChanges::default() })?;
    check_at_router(&mut router, &session, Ipv4)?;
    let attributes = Attributes { communities: vec![0xfde9_0009], ..Attributes::default() };
    let session = Session { attributes, ..session };
    speaker.configure(&session)?;
    until("a new community", || {
        let seen = router.route(prefix)?;
        Ok(seen.filter(|it| it.communities == session.attributes.communities))
    })?;
    check_at_router(&mut router, &session, Ipv4)?;
    ensure!(speaker.peer()?.established_count == 1, "attributes ended the session");
    Ok(())
}

fn check_route_refresh<R: Router>(lab: &Lab) -> Result<()> {
    let session = Session::new(Ipv4, &[Ipv4]);
    let (mut router, speaker) = start::<R>(lab, &session)?;
    check_at_router(&mut router, &session, Ipv4)?;
    speaker.wait_received()?;
    // What follows the first routes is counted, too: End-of-RIB.
    let mut before = router.updates()?;
    until("no more UPDATEs", || {
        thread::sleep(Duration::from_millis(500));
        let (last, now) = (before, router.updates()?);
        before = now;
        Ok((last == now).then_some(()))
    })?;
    router.ask_again()?;
    until("routes again", || Ok((router.updates()? > before).then_some(())))?;
    check_at_router(&mut router, &session, Ipv4)?;
    ensure!(speaker.peer()?.established_count == 1, "the request ended the session");
    Ok(())
}

/// Looks again and again whether the router has lost a prefix.
struct Watch<'a, R> {
    router: R,
    session: &'a Session,
}

impl<R: Router> Watch<'_, R> {
    fn look(&mut self, when: &str) -> Result<()> {
        for family in &self.session.families {
            let prefix = node_prefix(*family);
            ensure!(self.router.route(prefix)?.is_some(), "{prefix} is gone {when}");
        }
        thread::sleep(Duration::from_millis(20));
        Ok(())
    }

    /// Over a restart, with so many looks while the speaker is away, and until what was not said again would be gone.
    fn restart(&mut self, speaker: &mut Speaker<'_>, is_crash: bool, looks: u32) -> Result<()> {
        let how = if is_crash { "a crash" } else { "SIGTERM" };
        let end = if is_crash { speaker.kill() } else { speaker.terminate() };
        end?;
        for _ in 0..looks {
            self.look(&format!("after {how}"))?;
        }
        speaker.start_again()?;
        let start = Instant::now();
        while speaker.peer()?.state != SessionState::Established {
            self.look(&format!("while the speaker comes back from {how}"))?;
            ensure!(start.elapsed() < PATIENCE, "no session after {how}: {:?}", speaker.peer()?);
        }
        for _ in 0..50 {
            self.look(&format!("after the speaker came back from {how}"))?;
        }
        let peer = speaker.wait_received()?;
        ensure!(peer.established_count == 1, "more than one session since the start: {peer:?}");
        for family in &self.session.families {
            check_at_router(&mut self.router, self.session, *family)?;
        }
        Ok(())
    }
}

fn check_graceful_restart<R: Router>(lab: &Lab, bfd: bool) -> Result<()> {
    let session = Session { graceful_restart: true, bfd, ..Session::new(Ipv4, &[Ipv4, Ipv6]) };
    let (mut router, mut speaker) = start::<R>(lab, &session)?;
    for family in &session.families {
        check_at_router(&mut router, &session, *family)?;
    }
    let peer = speaker.wait_received()?;
    ensure!(peer.capabilities.iter().any(|it| it == "graceful-restart"), "not agreed on: {peer:?}");
    let is_up = |peer: &PeerState| peer.bfd == bfd.then_some(BfdState::Up);
    speaker.wait("BFD", is_up)?;
    let mut watch = Watch { router, session: &session };
    // BFD misses a speaker that is away for long, and is surprised by one that is back at once.
    for (is_crash, looks) in [(true, 30), (true, 0), (false, 0)] {
        watch.restart(&mut speaker, is_crash, looks)?;
        speaker.wait("BFD after a restart", is_up)?;
    }
    Ok(())
}

/// The node keeps the routes of a router that comes back.
fn check_router_restart<R: Router>(lab: &Lab) -> Result<()> {
    let session = Session { graceful_restart: true, router_restarts: true, ..Session::new(Ipv4, &[Ipv4]) };
    let (mut router, speaker) = start::<R>(lab, &session)?;
    check_at_router(&mut router, &session, Ipv4)?;
    speaker.wait_received()?;
    router.crash()?;
    speaker.wait("the end of the session", |peer| peer.state != SessionState::Established)?;
    let received = || speaker.received(&session, router_prefix(Ipv4));
    let route = received()?.context("the route is gone with the session")?;
    ensure!(route.stale, "nobody says that the route is stale: {route:?}");
    router.come_back()?;
    let is_there = until("a fresh route", || match received()? {
        Some(route) => Ok((!route.stale).then_some(true)),
        None => Ok(Some(false)),
    })?;
    ensure!(is_there, "the route is gone before the router has said what it has");
    let peer = speaker.wait_received()?;
    ensure!(peer.established_count == 2, "{peer:?}");
    check_at_router(&mut router, &session, Ipv4)
}

fn check_long_lived_restart<R: Router>(lab: &Lab) -> Result<()> {
    let session = Session { long_lived: true, ..Session::new(Ipv4, &[Ipv4]) };
    let (mut router, mut speaker) = start::<R>(lab, &session)?;
    check_at_router(&mut router, &session, Ipv4)?;
    let peer = speaker.wait_received()?;
    let is_there = |name: &str| peer.capabilities.iter().any(|it| it == name);
    ensure!(is_there("long-lived-graceful-restart"), "not agreed on: {peer:?}");
    speaker.kill()?;
    // LLGR_STALE (RFC 9494): the restart time is over, and the route is a last resort.
    let prefix = node_prefix(Ipv4);
    until("a long-lived stale route", || {
        let seen = router.route(prefix)?;
        Ok(seen.filter(|it| it.communities == [0xffff_0006]))
    })?;
    speaker.start_again()?;
    speaker.wait_received()?;
    until("a fresh route", || Ok(router.route(prefix)?.filter(|it| it.communities.is_empty())))?;
    check_at_router(&mut router, &session, Ipv4)
}

/// More prefixes than a message can carry come and go.
fn check_many<R: Router>(lab: &Lab) -> Result<()> {
    let session = Session::new(Ipv4, &[Ipv4, Ipv6]);
    let (mut router, speaker) = start::<R>(lab, &session)?;
    let prefix = |number: u32| IpNet::from(IpAddr::from((0xcb00_0000 + number).to_be_bytes()));
    let prefix6 = |number: u16| IpNet::from(IpAddr::from([0x2001, 0xdb8, 6, number, 0, 0, 0, 1]));
    let all: Vec<IpNet> = (0..3000).map(prefix).chain((0..1000).map(prefix6)).collect();
    let names = session.routes().into_values().next().context("an advertisement")?;
    let set = all.iter().map(|prefix| (*prefix, names.clone())).collect();
    speaker.change(&RouteChanges { set, removed: Vec::new() })?;
    let some = [prefix(0), prefix(1), prefix(1499), prefix(2999), prefix6(0), prefix6(500), prefix6(999)];
    for prefix in some {
        until(&format!("{prefix} at the router"), || router.route(prefix))?;
    }
    let advertised = |count4: u64, count6: u64| {
        speaker.wait("the count of prefixes", move |peer| {
            peer.families.iter().map(|it| it.advertised).eq([count4, count6])
        })
    };
    advertised(3001, 1001)?;
    speaker.change(&RouteChanges { set: BTreeMap::new(), removed: all })?;
    for prefix in some {
        until(&format!("no {prefix}"), || Ok(router.route(prefix)?.is_none().then_some(())))?;
    }
    advertised(1, 1)?;
    check_at_router(&mut router, &session, Ipv4)?;
    ensure!(speaker.peer()?.established_count == 1, "prefixes ended the session");
    Ok(())
}

fn check_bfd<R: Router>(lab: &Lab) -> Result<()> {
    let session = Session { bfd: true, ..Session::new(Ipv4, &[Ipv4]) };
    let (mut router, speaker) = start::<R>(lab, &session)?;
    let is_up = |peer: &PeerState| peer.state == SessionState::Established && peer.bfd == Some(BfdState::Up);
    for side in [Side::Router, Side::Node] {
        check_at_router(&mut router, &session, Ipv4)?;
        speaker.wait("session and BFD", is_up)?;
        lab.cut(side)?;
        // Half of the hold time at most.
        let peer = speaker.wait("the end of the session", |it| it.state != SessionState::Established)?;
        // The router may say by BGP first what it knows by BFD.
        let says_so = peer.reason.as_ref().is_some_and(|reason| reason.contains("BFD"));
        ensure!(says_so || matches!(side, Side::Node), "another reason: {peer:?}");
        if matches!(side, Side::Node) {
            until("a withdrawal", || Ok(router.route(node_prefix(Ipv4))?.is_none().then_some(())))?;
        }
        lab.mend(side)?;
    }
    check_at_router(&mut router, &session, Ipv4)?;
    // A session of BGP that begins anew leaves that of BFD alone.
    speaker.configure(&Session { graceful_restart: true, ..session.clone() })?;
    speaker.wait("graceful restart, and BFD still", |peer| {
        is_up(peer) && peer.capabilities.iter().any(|it| it == "graceful-restart")
    })?;
    check_at_router(&mut router, &session, Ipv4)
}
