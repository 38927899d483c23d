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
    let expected =
        [24, 20, 24, 16, 8, 40, 40, 40, 48, 40, 24, 24, 8, 512, 32, 24, 40, 4, 24, 24, 24, 16, 48, 64, 72];
    assert_eq!(sizes, expected);
}
