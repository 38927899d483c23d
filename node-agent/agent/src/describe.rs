//! Numbers of the kernel in words.

use cilium_bpf::layout::{
    DIRECTION_EGRESS, DIRECTION_INGRESS, EVENT_DROP, Event, METRIC_COLUMNS, METRIC_EGRESS, METRIC_EVENT_LOST,
    METRIC_INGRESS,
};
use cilium_bpf::reason::DropReason;
use cilium_rest::model;
use cilium_rest::model::EventKind;

/// Reserved identities and their names.
pub(crate) const RESERVED: [(u32, &str); 10] = [
    (1, "host"),
    (2, "world"),
    (3, "unmanaged"),
    (4, "health"),
    (5, "init"),
    (6, "remote-node"),
    (7, "kube-apiserver"),
    (8, "ingress"),
    (9, "world-ipv4"),
    (10, "world-ipv6"),
];

/// Name of a reserved identity.
pub(crate) fn reserved(identity: u32) -> Option<&'static str> {
    RESERVED.iter().find(|(number, _)| *number == identity).map(|(_, name)| *name)
}

/// Name of an IP protocol (IANA protocol numbers); `ANY` for 0.
pub(crate) fn protocol(number: u8) -> String {
    match number {
        0 => "ANY".to_owned(),
        1 => "ICMP".to_owned(),
        6 => "TCP".to_owned(),
        17 => "UDP".to_owned(),
        58 => "ICMPv6".to_owned(),
        132 => "SCTP".to_owned(),
        other => other.to_string(),
    }
}

/// A port, a range, or `any`.
pub(crate) fn ports(first: u16, last: u16) -> String {
    match (first, last) {
        (0, 0) => "any".to_owned(),
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}-{last}"),
    }
}

/// `INGRESS`, `EGRESS`, or nothing.
pub(crate) fn direction(number: u8) -> &'static str {
    match number {
        DIRECTION_INGRESS => "ingress",
        DIRECTION_EGRESS => "egress",
        _ => "",
    }
}

/// Why a packet was dropped.
pub(crate) fn reason(number: u8) -> String {
    match DropReason::from_number(number) {
        Some(reason) => reason.text().to_owned(),
        None if number == 0 => "Success".to_owned(),
        None => format!("reason {number}"),
    }
}

/// Reason and direction of a counter; `None` for columns that count no packets.
pub(crate) fn metric(index: u32) -> Option<(String, &'static str)> {
    let reason_number = u8::try_from(index / METRIC_COLUMNS).ok()?;
    let direction = match index % METRIC_COLUMNS {
        METRIC_INGRESS => "INGRESS",
        METRIC_EGRESS => "EGRESS",
        _ => return None,
    };
    Some((reason(reason_number), direction))
}

/// Whether a counter is of events that found the ring full.
pub(crate) fn is_lost(index: u32) -> bool {
    index % METRIC_COLUMNS == METRIC_EVENT_LOST
}

/// `address:port`, or the address alone when there is no port.
pub(crate) fn end(address: cilium_bpf::layout::Addr, port: u16) -> String {
    match address.ip() {
        None => String::new(),
        Some(ip) if port == 0 => ip.to_string(),
        Some(ip) => std::net::SocketAddr::new(ip, port).to_string(),
    }
}

/// An event; `origins` are the policies that decided, `policy_log` what their rules want said.
pub(crate) fn event(event: &Event, origins: &str, policy_log: Vec<String>) -> model::Event {
    let kind = if event.kind == EVENT_DROP { EventKind::Drop } else { EventKind::PolicyVerdict };
    let why = match (kind, event.reason) {
        (EventKind::PolicyVerdict, 0) => origins.to_owned(),
        (_, number) if !origins.is_empty() => format!("{}: {origins}", reason(number)),
        (_, number) => reason(number),
    };
    model::Event {
        kind,
        verdict: if event.reason == 0 { "allowed" } else { "denied" }.to_owned(),
        reason: why,
        policy_log,
        direction: direction(event.direction).to_owned(),
        endpoint: event.endpoint,
        source_identity: event.source_identity,
        destination_identity: event.destination_identity,
        protocol: protocol(event.protocol),
        source: end(event.source, event.source_port.0),
        destination: end(event.destination, event.destination_port.0),
        length: event.length,
    }
}

#[cfg(test)]
mod tests {
    use cilium_bpf::layout::{Addr, NetPort, metric_index};

    use super::*;

    #[test]
    fn counters_have_names() {
        let index = metric_index(Some(DropReason::PolicyDenied), METRIC_INGRESS);
        assert_eq!(metric(index), Some(("Policy denied".to_owned(), "INGRESS")));
        assert_eq!(metric(metric_index(None, METRIC_EGRESS)), Some(("Success".to_owned(), "EGRESS")));
        assert_eq!(metric(metric_index(None, METRIC_EVENT_LOST)), None);
    }

    #[test]
    fn events_say_who_and_why() {
        let ip = |text: &str| Addr::from(text.parse::<std::net::IpAddr>().expect("an address"));
        let raw = Event {
            source: ip("10.244.1.5"),
            destination: ip("fd00::7"),
            source_port: NetPort(4000),
            destination_port: NetPort(80),
            kind: EVENT_DROP,
            reason: DropReason::PolicyDenied.number(),
            direction: DIRECTION_INGRESS,
            protocol: 6,
            ..Event::default()
        };
        let told = event(&raw, "", vec![]);
        assert_eq!((told.source.as_str(), told.destination.as_str()), ("10.244.1.5:4000", "[fd00::7]:80"));
        assert_eq!((told.verdict.as_str(), told.reason.as_str()), ("denied", "Policy denied"));
        assert_eq!(
            event(&Event { kind: 5, ..Event::default() }, "cnp/default/rule1", vec![]).reason,
            "cnp/default/rule1"
        );
        let default_deny = event(&raw, "cnp/default/rule1", vec![]);
        assert_eq!(default_deny.reason, "Policy denied: cnp/default/rule1");
        let denied = Event { kind: 5, reason: DropReason::PolicyDeny.number(), ..Event::default() };
        assert_eq!(
            event(&denied, "cnp/default/rule1", vec![]).reason,
            "Policy denied by denylist: cnp/default/rule1"
        );
    }
}
