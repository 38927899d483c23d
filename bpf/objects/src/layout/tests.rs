use std::net::IpAddr;

use super::*;

fn ip(text: &str) -> Addr {
    text.parse::<IpAddr>().unwrap().into()
}

#[test]
fn ipv4_is_mapped_and_comes_back() {
    let addr = ip("10.0.1.2");
    assert_eq!(addr.0, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 1, 2]);
    assert_eq!(addr.ip(), Some("10.0.1.2".parse().unwrap()));
    assert_eq!(ip("fd00::1").ip(), Some("fd00::1".parse().unwrap()));
    assert_eq!(Addr::NONE.ip(), None);
}

#[test]
fn prefix_lengths_count_in_the_mapped_space() {
    assert_eq!(IpcacheKey::new("10.0.0.0".parse().unwrap(), 8).prefix_len, 104);
    assert_eq!(IpcacheKey::new("fd00::".parse().unwrap(), 64).prefix_len, 64);
    assert_eq!(Prefix::new("10.0.0.0".parse().unwrap(), 8).bits, 104);
}

#[test]
fn connection_key_is_the_same_for_both_directions() {
    let (a, b) = ((ip("10.0.0.1"), 40000), (ip("10.0.0.2"), 80));
    let (forward, forward_high) = CtKey::new(6, a, b);
    let (reply, reply_high) = CtKey::new(6, b, a);
    assert_eq!(forward, reply);
    assert!(!forward_high && reply_high);
    let (same, high) = CtKey::new(6, (a.0, 9), (a.0, 8));
    assert!(high);
    assert_eq!((same.low_port, same.high_port), (NetPort(8), NetPort(9)));
}

#[test]
fn bytes_have_network_order_where_promised_and_zero_padding() {
    let key = PolicyKey {
        prefix_len: 96,
        generation: 7,
        peer: 0x01020304,
        direction: 1,
        protocol: 6,
        port: NetPort(80),
    };
    let mut expected = Vec::new();
    expected.extend(96u32.to_ne_bytes());
    expected.extend(7u32.to_ne_bytes());
    expected.extend(0x01020304u32.to_ne_bytes());
    expected.extend([1, 6, 0, 80]);
    assert_eq!(key.to_bytes().to_vec(), expected);
    let entry = PolicyEntry { cookie: u32::MAX, verdict: POLICY_ALLOW };
    assert_eq!(entry.to_bytes(), [255, 255, 255, 255, 1, 0, 0, 0]);
}

#[test]
fn values_survive_the_trip() {
    let endpoint = Endpoint { ifindex: 5, identity: 300, slot: 2, id: 17, mac: [1; 6], host_mac: [2; 6] };
    assert_eq!(Endpoint::from_bytes(&endpoint.to_bytes()), endpoint);
    let mut config =
        Config { host4: ip("192.0.2.1"), nat_first: 61000, nat_last: 65535, ..Config::default() };
    config.kept[3] = Prefix::new("10.0.0.0".parse().unwrap(), 8);
    assert_eq!(Config::from_bytes(&config.to_bytes()), config);
    let slot = Slot { generation: u32::MAX, ingress_enforced: true, egress_enforced: false, open: true };
    assert_eq!(Slot::from_u64(slot.to_u64()), slot);
    assert_eq!(slot.to_u64() >> 32, 0b101);
}

#[test]
fn sizes_are_those_of_the_header() {
    let sizes = [
        Endpoint::SIZE,
        IpcacheKey::SIZE,
        IpcacheEntry::SIZE,
        PolicyPeer::SIZE,
        PolicyRules::SIZE,
        PolicyAggregate::SIZE,
        PolicyAggregates::SIZE,
        PolicyKey::SIZE,
        PolicyEntry::SIZE,
        CtKey::SIZE,
        CtEntry::SIZE,
        NatKey::SIZE,
        NatEntry::SIZE,
        FragmentKey::SIZE,
        ServiceKey::SIZE,
        BackendEntry::SIZE,
        MaglevKey::SIZE,
        MaglevChunk::SIZE,
        SockRevnatKey::SIZE,
        SockRevnatEntry::SIZE,
        ExemptKey::SIZE,
        ExemptEntry::SIZE,
        AnnouncementKey::SIZE,
        AnnouncementEntry::SIZE,
        LinkEntry::SIZE,
        PeerKey::SIZE,
        PeerEntry::SIZE,
        Heartbeat::SIZE,
        Event::SIZE,
    ];
    let expected = [
        24, 20, 24, 12, 56, 64, 512, 16, 8, 40, 40, 40, 48, 40, 24, 24, 8, 512, 32, 24, 40, 4, 24, 24, 24,
        16, 48, 64, 72,
    ];
    assert_eq!(sizes, expected);
}

fn mk_rule(prefix_len: u32, protocol: u8, port: u16) -> PolicyKey {
    PolicyKey { prefix_len, generation: 9, peer: 300, direction: 2, protocol, port: NetPort(port) }
}

#[test]
fn rules_stand_in_the_order_of_how_narrow_they_are() {
    let allow = PolicyEntry { cookie: 7, verdict: POLICY_ALLOW };
    let deny = PolicyEntry { cookie: u32::MAX, verdict: POLICY_DENY };
    let rules = [
        (mk_rule(72, 0, 0), allow),
        (mk_rule(96, 17, 53), allow),
        (mk_rule(94, 6, 8080), deny),
        (mk_rule(80, 6, 0), allow),
        (mk_rule(96, 6, 443), deny),
    ];
    let pack =
        |rules: &[(PolicyKey, PolicyEntry)]| PolicyRules::pack(rules.iter().map(|(key, it)| (key, it)));
    let packed = pack(&rules).unwrap();
    let mut words = Vec::new();
    packed.to_bytes().chunks(8).for_each(|word| words.push(u64::from_ne_bytes(word.try_into().unwrap())));
    let expected = [
        0x4006_01bb_ffff_ffff,
        0x2011_0035_0000_0007,
        0x4206_1f90_ffff_ffff,
        0x3006_0000_0000_0007,
        0x3800_0000_0000_0007,
        0,
        0,
    ];
    assert_eq!(words, expected);
    let mut reversed = rules;
    reversed.reverse();
    assert_eq!(pack(&reversed), Some(packed), "the order in which they come does not matter");
    let back: Vec<_> = packed.unpack(PolicyPeer::of(&rules[0].0)).collect();
    assert_eq!(back, [rules[4], rules[1], rules[2], rules[3], rules[0]]);
}

#[test]
fn seven_rules_fit_and_more_are_elsewhere() {
    let rules: Vec<_> = (1..=8).map(|port| (mk_rule(96, 6, port), PolicyEntry::default())).collect();
    let pack = |count: usize| PolicyRules::pack(rules[..count].iter().map(|(key, entry)| (key, entry)));
    assert!(pack(7).is_some_and(|packed| !packed.are_in_ports()));
    assert_eq!(pack(8), None);
    let elsewhere = PolicyRules::in_ports();
    assert_eq!(elsewhere.to_bytes()[..8], 0xb800_0000_0000_0000_u64.to_ne_bytes());
    assert!(elsewhere.are_in_ports() && elsewhere.unpack(PolicyPeer::default()).next().is_none());
}

#[test]
fn aggregates_have_places_of_their_own() {
    let mk_peer = |generation, peer, direction| PolicyPeer { generation, peer, direction };
    let place = |generation, peer, direction| mk_peer(generation, peer, direction).aggregate_place();
    for (peer, number) in [(0, 0), (11, 1), (13, 2), (14, 3)] {
        assert_eq!(place(1, peer, 1), Some((1, number)));
        assert_eq!(place(1 + 8192, peer, 2), Some((1, 4 + number)));
    }
    assert_eq!(place(8191, 14, 2), Some((8191, 7)));
    assert_eq!(place(1, 12, 1), None, "no aggregate");

    let mut element = PolicyAggregates::default();
    let said = PolicyRules::in_ports();
    element.of.0[2] = PolicyAggregate { generation: 1, said };
    element.of.0[7] = PolicyAggregate { generation: 8193, said };
    assert_eq!(PolicyAggregates::from_bytes(&element.to_bytes()), element);
    let expected = [(mk_peer(1, 13, 1), said), (mk_peer(8193, 14, 2), said)];
    assert_eq!(element.said(1).collect::<Vec<_>>(), expected);
    assert_eq!(element.said(2).count(), 0, "the place of other generations");
}
