//! Named ports of pods, as labels of their identities.
//!
//! A port's name may stand for another number in another pod. Pods whose named ports differ get different identities by these
//! labels, so what a name means is a question about an identity.

use crate::label::{Label, Labels, Source};

/// Key of the label; further ones have `-1`, `-2` and so on behind it.
const KEY: &str = "io.cilium.k8s.named-ports";
/// Longest value of a label.
const MAX_VALUE: usize = 63;
/// Longest name of a port (RFC 6335 section 5.1).
const MAX_NAME: usize = 15;
/// Protocols with ports (IANA, protocol numbers).
const PROTOCOLS: [(&str, u8); 3] = [("TCP", 6), ("UDP", 17), ("SCTP", 132)];

/// A port with a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamedPort {
    /// Name, in lower case.
    pub name: Box<str>,
    /// IP protocol number.
    pub protocol: u8,
    /// Number of the port.
    pub port: u16,
}

impl NamedPort {
    /// A port of a container; `None` for what Kubernetes does not take as one.
    pub fn new(name: &str, protocol: &str, port: i64) -> Option<Self> {
        let name_ok = !name.is_empty()
            && name.len() <= MAX_NAME
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        let (_, number) = PROTOCOLS.into_iter().find(|(known, _)| *known == protocol)?;
        let port = u16::try_from(port).ok().filter(|port| *port > 0)?;
        name_ok.then(|| Self { name: name.into(), protocol: number, port })
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let port = Self::new(parts.next()?, parts.next()?, parts.next()?.parse().ok()?);
        port.filter(|_| parts.next().is_none())
    }

    fn text(&self) -> String {
        let protocol = PROTOCOLS.iter().find(|(_, number)| *number == self.protocol);
        format!("{}.{}.{}", self.name, protocol.map_or("", |(name, _)| name), self.port)
    }
}

/// The labels of a pod with these ports; none for none.
pub fn labels(ports: impl IntoIterator<Item = NamedPort>) -> Vec<Label> {
    let mut ports: Vec<NamedPort> = ports.into_iter().collect();
    ports.sort_unstable();
    ports.dedup();
    let mut values: Vec<String> = Vec::new();
    for text in ports.iter().map(NamedPort::text) {
        match values.last_mut().filter(|last| last.len() + 1 + text.len() <= MAX_VALUE) {
            Some(last) => *last = format!("{last}_{text}"),
            None => values.push(text),
        }
    }
    let key = |at: usize| if at == 0 { KEY.to_owned() } else { format!("{KEY}-{at}") };
    values.iter().enumerate().map(|(at, value)| Label::new(Source::GEN, &key(at), value)).collect()
}

/// The ports behind the labels of an identity, sorted.
pub fn of_labels(labels: &Labels) -> Vec<NamedPort> {
    let ours = labels.iter().filter(|label| label.source == Source::GEN && label.key.starts_with(KEY));
    let mut ports: Vec<NamedPort> =
        ours.flat_map(|label| label.value.split('_')).filter_map(NamedPort::parse).collect();
    ports.sort_unstable();
    ports
}

/// Selects what has ports with names.
pub fn selector() -> crate::Selector {
    crate::Selector::default().and(crate::Requirement::exists(Source::GEN, KEY))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mk_ports(all: &[(&str, &str, i64)]) -> Vec<NamedPort> {
        all.iter().map(|(name, protocol, port)| NamedPort::new(name, protocol, *port).unwrap()).collect()
    }

    fn texts(ports: &[(&str, &str, i64)]) -> Vec<String> {
        labels(mk_ports(ports)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn labels_are_written_as_upstream_writes_them() {
        assert_eq!(texts(&[]), Vec::<String>::new());
        assert_eq!(
            texts(&[("http", "TCP", 8080), ("dns", "UDP", 53), ("dns", "TCP", 53), ("dns", "TCP", 53)]),
            ["gen:io.cilium.k8s.named-ports=dns.TCP.53_dns.UDP.53_http.TCP.8080"]
        );
    }

    #[test]
    fn many_ports_take_several_labels_and_come_back() {
        let names: Vec<String> = (10..30).map(|number| format!("port-with-nr-{number}")).collect();
        let ports: Vec<_> = names.iter().map(|name| (name.as_str(), "SCTP", 65_535)).collect();
        let labels = labels(mk_ports(&ports));
        assert_eq!((labels.len(), &*labels[1].key), (10, "io.cilium.k8s.named-ports-1"));
        assert!(labels.iter().all(|label| label.value.len() <= 63));
        let labels: Labels = labels.into_iter().collect();
        assert!(selector().matches(&labels));
        assert_eq!(of_labels(&labels), mk_ports(&ports));
    }

    #[test]
    fn what_is_no_port_is_left_out() {
        for (name, protocol, port) in [
            ("", "TCP", 1),
            ("a.b", "TCP", 1),
            ("A", "TCP", 1),
            ("a", "ICMP", 1),
            ("a", "TCP", 0),
            ("a", "TCP", 65_536),
        ] {
            assert_eq!(NamedPort::new(name, protocol, port), None, "{name} {protocol} {port}");
        }
        let forged = Labels::parse([
            "k8s:io.cilium.k8s.named-ports=web.TCP.80",
            "gen:io.cilium.k8s.named-ports=web.TCP_x",
        ]);
        assert_eq!(of_labels(&forged.unwrap()), []);
    }
}
