//! What the kernel finds in compiled entries is what the oracle says of the policy.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use cilium_api::parts::{Action, Direction, DnsRule, Entry, FIRST_BLOCK, Policy, Step};
use cilium_bpf::layout::{
    BlockKey, DIRECTION_EGRESS, DIRECTION_INGRESS, NetPort, POLICY_ALLOW, POLICY_NONE, POLICY_PROXY,
    PolicyEntry, PolicyKey, PolicyPeer, PolicyRules, aggregate_of,
};
use cilium_dataplane::{Compiled, Displaced, Piece, PieceKey, compile, origins_of};
use cilium_policy::verdict::questions;
use cilium_policy::{Flow, Judgement, verdict};
use proptest::prelude::*;
use proptest::sample::select;

const SUBJECT: u32 = 500;
/// One that is in no aggregate, and some of each.
const PEERS: [u32; 6] = [1, 300, 301, 1 << 24, (1 << 24) + 1, 2 << 24];
const ADDRESSES: [&str; 6] = ["10.0.0.1", "10.1.2.3", "192.0.2.1", "fd00::1", "10.1.0.1", "2001:db8::1"];
const BLOCKS: [&str; 6] = ["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "::/0", "fd00::/8"];
const PORTS: [u16; 8] = [1, 79, 80, 81, 443, 8080, 8083, 65_535];

fn entry() -> impl Strategy<Value = Entry> {
    let peer = select(vec![0, 0, 1, 300, 301, 11, 11, 13, 14, 1 << 24, 2 << 24]);
    let ports = prop_oneof![
        2 => Just((0, 0)),
        3 => select(&PORTS[..]).prop_map(|port| (port, port)),
        2 => (select(&PORTS[..]), select(&PORTS[..])).prop_map(|(one, other)| (one.min(other), one.max(other))),
    ];
    let origins = proptest::collection::btree_set(0..3u16, 0..3);
    (peer, select(vec![0u8, 6, 6, 17, 58]), ports, origins).prop_map(
        |(peer, protocol, (first, last), origins)| {
            let (first, last) = if protocol == 0 { (0, 0) } else { (first, last) };
            Entry { peer, protocol, first, last, origins: origins.into_iter().collect() }
        },
    )
}

/// Rules in an order; often none.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    let action = select(vec![Action::Accept, Action::Deny, Action::Pass]);
    let step = (action, proptest::collection::vec(entry(), 0..3));
    let step = step.prop_map(|(action, entries)| Step { action, entries, names: Vec::new() });
    prop_oneof![2 => Just(Vec::new()), 3 => proptest::collection::vec(step, 1..5)]
}

fn direction() -> impl Strategy<Value = Direction> {
    let list = || proptest::collection::vec(entry(), 0..8);
    let blocks = proptest::collection::btree_set(select(&BLOCKS[..]), 0..4);
    let by_address = proptest::collection::vec((any::<proptest::sample::Index>(), entry()), 0..4);
    (any::<bool>(), list(), list(), (blocks, by_address), (steps(), steps())).prop_map(
        |(enforced, allow, deny, (blocks, by_address), (admin, baseline))| {
            let mut blocks: Vec<ipnet::IpNet> =
                blocks.iter().map(|text| text.parse().expect("a prefix")).collect();
            blocks.sort_unstable();
            let number = |at: proptest::sample::Index| FIRST_BLOCK + at.index(blocks.len()) as u32;
            let by_address = by_address.into_iter().filter(|_| !blocks.is_empty());
            let by_address: Vec<Entry> =
                by_address.map(|(at, entry)| Entry { peer: number(at), ..entry }).collect();
            // Blocks are of policies that close the direction, and then nothing is asked behind them.
            let (by_address, blocks) =
                if enforced && baseline.is_empty() { (by_address, blocks) } else { Default::default() };
            let grants = enforced || !baseline.is_empty();
            let allow = if grants { [allow, by_address].concat() } else { Vec::new() };
            Direction { enforced, admin, allow, blocks, deny, baseline, ..Direction::default() }
        },
    )
}

fn dns() -> impl Strategy<Value = Vec<DnsRule>> {
    let rule = (select(vec![0, 1, 300, 301, 11, 13, 1 << 24]), select(vec![6u8, 17]), select(&PORTS[..]));
    let rule = rule.prop_map(|(peer, protocol, port)| DnsRule {
        peer,
        protocol,
        port,
        patterns: vec!["a.io.".to_owned()],
        origins: vec![0],
    });
    proptest::collection::vec(rule, 0..4)
}

/// Name servers that are heard.
fn heard() -> impl Strategy<Value = Vec<Entry>> {
    let server = (select(vec![300, 301, 1 << 24]), select(vec![6u8, 17]), select(&PORTS[..]));
    let server = server.prop_map(|(peer, protocol, port)| Entry {
        peer,
        protocol,
        first: port,
        last: port,
        origins: vec![1],
    });
    proptest::collection::vec(server, 0..3)
}

fn policy() -> impl Strategy<Value = Policy> {
    let origins = ["ccnp/a", "cnp/default/b", "cnp/default/c"].map(str::to_owned).to_vec();
    (direction(), direction(), dns(), heard()).prop_map(move |(ingress, egress, dns, heard)| Policy {
        ingress,
        egress,
        dns,
        heard,
        origins: origins.clone(),
        ..Policy::default()
    })
}

/// The entry that the trie gives: of those that agree with the key in all of their bits, the longest.
fn longest(compiled: &Compiled, direction: u8, peer: u32, protocol: u8, port: u16) -> Option<PolicyEntry> {
    let agrees = |key: &PolicyKey| {
        let bits = key.prefix_len.saturating_sub(PolicyKey::ANY_PROTOCOL);
        let word =
            |protocol: u8, port: NetPort| (u64::from(protocol) << 16 | u64::from(port.0)) >> (24 - bits);
        (key.direction, key.peer) == (direction, peer)
            && word(key.protocol, key.port) == word(protocol, NetPort(port))
    };
    let entries = compiled.rules.iter().map(|(rule, entry)| (rule.key(1), *entry));
    entries.filter(|(key, _)| agrees(key)).max_by_key(|(key, _)| key.prefix_len).map(|(_, entry)| entry)
}

/// The block that the other trie gives for an address.
fn block(compiled: &Compiled, direction: u8, address: IpAddr) -> Option<u32> {
    let whole = BlockKey::new(1, direction, address, if address.is_ipv4() { 32 } else { 128 });
    let agrees = |key: &BlockKey| {
        let mask = u128::MAX.checked_shl(192 - key.prefix_len).unwrap_or(0);
        let bits = |key: &BlockKey| u128::from_be_bytes(key.address) & mask;
        (key.direction, key.family, bits(key)) == (whole.direction, whole.family, bits(&whole))
    };
    let entries = compiled.blocks.iter().map(|(block, entry)| (block.key(1), entry.peer));
    entries.filter(|(key, _)| agrees(key)).max_by_key(|(key, _)| key.prefix_len).map(|(_, peer)| peer)
}

/// As the programs look up: the peer, and only if it has nothing, what it is one of; then, if that does not decide, the block of its
/// address.
fn find(
    compiled: &Compiled,
    direction: u8,
    (peer, address): Peer,
    protocol: u8,
    port: u16,
) -> Option<PolicyEntry> {
    longest(compiled, direction, peer, protocol, port)
        .or_else(|| longest(compiled, direction, aggregate_of(peer), protocol, port))
        .filter(|entry| entry.verdict != POLICY_NONE)
        .or_else(|| longest(compiled, direction, block(compiled, direction, address)?, protocol, port))
}

/// Identity and address.
type Peer = (u32, IpAddr);

/// The policies behind the cookies of a policy's entries.
fn named<'a>(policy: &'a Policy, compiled: &Compiled) -> BTreeMap<u32, BTreeSet<&'a str>> {
    let cookies: BTreeSet<u32> = compiled.rules.iter().map(|(_, entry)| entry.cookie).collect();
    cookies.into_iter().map(|cookie| (cookie, origins_of(policy, cookie).into_iter().collect())).collect()
}

/// A policy with what is made of it.
struct Trial<'a> {
    policy: &'a Policy,
    compiled: &'a Compiled,
    named: &'a BTreeMap<u32, BTreeSet<&'a str>>,
}

fn check(trial: &Trial<'_>, direction: u8, peer: Peer, protocol: u8, port: u16) {
    let Trial { policy, compiled, named } = *trial;
    let policies = BTreeMap::from([(SUBJECT, policy.clone())]);
    let (source, destination) =
        if direction == DIRECTION_INGRESS { (peer.0, SUBJECT) } else { (SUBJECT, peer.0) };
    // The subject's own address plays no role.
    let addresses = Some((peer.1, peer.1));
    let flow = Flow { source, destination, protocol, destination_port: port, addresses };
    let verdict = verdict(&policies, &flow);
    let (judged, enforced) = if direction == DIRECTION_INGRESS {
        (verdict.ingress, compiled.ingress)
    } else {
        (verdict.egress, compiled.egress)
    };
    let found = find(compiled, direction, peer, protocol, port);
    let proxied = found.is_some_and(|entry| entry.verdict == POLICY_PROXY);
    let passes = !enforced || proxied || found.is_some_and(|entry| entry.verdict == POLICY_ALLOW);
    let expected = !judged.drops();
    assert_eq!(passes, expected, "{direction} {peer:?} {protocol}/{port}: {found:?}, {judged:?}");
    let asks = direction == DIRECTION_EGRESS && expected && questions(&policies, &flow).is_some();
    assert_eq!(proxied, asks, "{direction} {peer:?} {protocol}/{port}: {found:?}, {judged:?}");
    assert_eq!(matches!(judged, Judgement::DefaultDeny(_)), enforced && found.is_none(), "{judged:?}");
    let named = found.map(|entry| named[&entry.cookie].clone()).unwrap_or_default();
    if let (Judgement::Granted(all) | Judgement::Denied(all), true) = (judged, enforced) {
        // What wider entries, or an aggregate's, say is not repeated for their names alone.
        let all: BTreeSet<&str> = all.into_iter().collect();
        assert!(named.is_subset(&all), "{named:?} of {all:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 500, ..ProptestConfig::default() })]
    #[test]
    fn entries_looked_up_mean_what_the_oracle_says(policy in policy()) {
        let compiled = compile(&policy).expect("ranges are in order");
        let named = named(&policy, &compiled);
        let trial = Trial { policy: &policy, compiled: &compiled, named: &named };
        for direction in [DIRECTION_INGRESS, DIRECTION_EGRESS] {
            for (peer, address) in PEERS.into_iter().zip(ADDRESSES) {
                let peer = (peer, address.parse().expect("an address"));
                for protocol in [6, 17, 58, 132] {
                    for port in PORTS.into_iter().chain([0, 8081]) {
                        check(&trial, direction, peer, protocol, port);
                    }
                }
            }
        }
    }
}

/// Whether the programs let a packet through, and whether it goes past the DNS proxy.
fn passes(compiled: &Compiled, direction: u8, peer: Peer, protocol: u8, port: u16) -> (bool, bool) {
    let enforced = if direction == DIRECTION_INGRESS { compiled.ingress } else { compiled.egress };
    match find(compiled, direction, peer, protocol, port).map(|entry| entry.verdict) {
        _ if !enforced => (true, true),
        Some(POLICY_ALLOW) => (true, true),
        verdict => (verdict == Some(POLICY_PROXY), false),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 500, ..ProptestConfig::default() })]

    /// Whoever is taken for somebody else may do nothing that they may not do as themselves; all others may do what they did.
    #[test]
    fn who_is_taken_for_another_gains_nothing(policy in policy(), seen in select(&PEERS[..]), meant in select(&PEERS[..])) {
        let compiled = compile(&policy).expect("ranges are in order");
        let closed = compiled.closed_to(&BTreeSet::from([Displaced { seen, meant }]));
        prop_assert!(seen != meant || closed.is_none());
        let closed = closed.unwrap_or_else(|| compiled.clone());
        for direction in [DIRECTION_INGRESS, DIRECTION_EGRESS] {
            for address in ADDRESSES.map(|text| text.parse().expect("an address")) {
                for (protocol, port) in [6, 17, 58, 132].into_iter().flat_map(|protocol| {
                    PORTS.into_iter().chain([0, 8081]).map(move |port| (protocol, port))
                }) {
                    let of = |compiled, identity| passes(compiled, direction, (identity, address), protocol, port);
                    let (now, own) = (of(&closed, seen), of(&compiled, meant));
                    prop_assert!(now <= own, "{direction} {address} {protocol}/{port}: {now:?}, {own:?}");
                    for other in PEERS.into_iter().filter(|other| *other != seen) {
                        prop_assert_eq!(of(&closed, other), of(&compiled, other));
                    }
                }
            }
        }
        prop_assert_eq!(closed.closed_to(&BTreeSet::from([Displaced { seen, meant }])), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 200, ..ProptestConfig::default() })]

    /// What statuses say of the room that policies take is never less than it is, denials and rules in an order aside.
    #[test]
    fn entries_take_no_more_room_than_is_told(policy in policy()) {
        let allowing = |direction: &Direction| Direction {
            enforced: true,
            deny: Vec::new(),
            admin: Vec::new(),
            baseline: Vec::new(),
            ..direction.clone()
        };
        let policy = Policy {
            ingress: allowing(&policy.ingress),
            egress: allowing(&policy.egress),
            dns: Vec::new(),
            heard: Vec::new(),
            ..policy
        };
        let told: usize = cilium_policy::room(&policy).map(|(_, entries)| entries).sum();
        prop_assert!(compile(&policy).expect("ranges are in order").rules.len() <= told);
    }
}

#[test]
fn room_is_what_entries_take() {
    let allow = [
        (300, 6, 80, 80),
        (301, 6, 8080, 8083),
        (302, 6, 1, 4),
        (303, 17, 0, 0),
        (0, 6, 443, 443),
        (304, 0, 0, 0),
    ];
    let entry = |(peer, protocol, first, last)| Entry { peer, protocol, first, last, origins: vec![0] };
    let ingress = Direction { enforced: true, allow: allow.map(entry).into(), ..Direction::default() };
    let policy = Policy { ingress, origins: vec!["cnp/default/a".to_owned()], ..Policy::default() };
    let told: Vec<usize> = cilium_policy::room(&policy).map(|(_, entries)| entries).collect();
    assert_eq!(told, [1, 1, 3, 1, 4, 1]);
    assert_eq!(compile(&policy).expect("compiles").rules.len(), 11);
}

/// What programs find in the pieces of a policy: the first rule inside of the peer's entry, or what the trie has in its place.
fn first(
    pieces: &BTreeMap<PieceKey, Piece>,
    peer: PolicyPeer,
    protocol: u8,
    port: u16,
) -> Option<PolicyEntry> {
    let Some(Piece::Peer(said)) = pieces.get(&PieceKey::Peer(peer)) else { return None };
    let bits = |protocol: u8, port: NetPort| u32::from(protocol) << 16 | u32::from(port.0);
    let covers = |key: &PolicyKey| {
        (bits(key.protocol, key.port) ^ bits(protocol, NetPort(port)))
            >> (PolicyKey::ONE_PORT - key.prefix_len)
            == 0
    };
    let mut inside = said.unpack(peer);
    if !said.are_in_ports() {
        return inside.find(|(key, _)| covers(key)).map(|(_, entry)| entry);
    }
    let in_trie = pieces.iter().filter_map(|piece| match piece {
        (PieceKey::Port(key), Piece::Port(entry)) => Some((key, entry)),
        _ => None,
    });
    let found = in_trie.filter(|(key, _)| PolicyPeer::of(key) == peer && covers(key));
    found.max_by_key(|(key, _)| key.prefix_len).map(|(_, entry)| *entry)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 300, ..ProptestConfig::default() })]

    /// The narrowest rule about the traffic, whether the rules about a peer fit into its entry or not.
    #[test]
    fn pieces_say_what_the_rules_say(policy in policy()) {
        let compiled = compile(&policy).expect("ranges are in order");
        let all = compiled.pieces(5);
        let pieces: BTreeMap<PieceKey, Piece> = all.iter().copied().collect();
        prop_assert_eq!(pieces.len(), all.len(), "each has a key of its own");
        let peers: BTreeSet<(u8, u32)> = compiled.rules.iter().map(|(rule, _)| rule.key(5)).map(|key| (key.direction, key.peer)).collect();
        for (direction, peer) in peers {
            let key = PolicyPeer { generation: 5, peer, direction: direction.into() };
            for protocol in [6, 17, 58, 132] {
                for port in PORTS.into_iter().chain([0, 8081]) {
                    prop_assert_eq!(first(&pieces, key, protocol, port), longest(&compiled, direction, peer, protocol, port));
                }
            }
        }
    }
}

#[test]
fn rules_about_a_peer_that_do_not_fit_are_in_the_trie() {
    let compiled = |ports: u16| {
        let allow = |port| Entry { peer: 300, protocol: 6, first: port, last: port, origins: vec![0] };
        let allow = (1..=ports).map(allow).collect();
        let ingress = Direction { enforced: true, allow, ..Direction::default() };
        let policy = Policy { ingress, origins: vec!["cnp/default/a".to_owned()], ..Policy::default() };
        compile(&policy).expect("compiles").pieces(5)
    };
    let peer = PieceKey::Peer(PolicyPeer { generation: 5, peer: 300, direction: 1 });
    let fits = compiled(7);
    assert_eq!((fits[0].0, fits.len()), (peer, 1));
    let beyond = compiled(8);
    assert_eq!((beyond[0], beyond.len()), ((peer, Piece::Peer(PolicyRules::in_ports())), 9));
    assert!(beyond[1..].iter().all(|(key, _)| matches!(key, PieceKey::Port(key) if key.prefix_len == 96)));
}

#[test]
fn kernel_and_planner_mean_the_same_by_aggregates() {
    let around = |at: u32| [at.saturating_sub(1), at, at + 1];
    let edges = [0, 11, 100, 256, 65_535, 65_536, 1 << 24, 2 << 24, 3 << 24, u32::MAX - 1];
    for identity in edges.into_iter().flat_map(around) {
        assert_eq!(aggregate_of(identity), cilium_core::reserved::aggregate_of(identity), "{identity}");
    }
}

#[test]
fn without_default_deny_everything_but_the_denied_passes() {
    let deny = Entry { peer: 300, protocol: 6, first: 80, last: 80, origins: vec![0] };
    let ingress = Direction { deny: vec![deny], ..Direction::default() };
    let policy = Policy { ingress, origins: vec!["cnp/default/a".to_owned()], ..Policy::default() };
    let compiled = compile(&policy).expect("compiles");
    assert!(compiled.ingress && !compiled.egress);
    let shown: Vec<_> = compiled
        .rules
        .iter()
        .map(|(rule, entry)| (rule.key(1), entry))
        .map(|(key, entry)| (key.peer, key.prefix_len, entry.verdict, origins_of(&policy, entry.cookie)))
        .collect();
    let everything = [0, 11, 13, 14].map(|peer| (peer, 72, 1, vec![]));
    let denied = (300, 96, 2, vec!["cnp/default/a"]);
    assert_eq!(shown, everything.into_iter().chain([denied]).collect::<Vec<_>>());
}
