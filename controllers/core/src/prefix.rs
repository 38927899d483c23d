//! Prefixes of addresses outside the cluster, as labels of identities.
//!
//! An identity of a prefix has one label of source [`Source::CIDR`] with the prefix as key, beside the label of the world that it
//! is a part of. What has the label of a world alone stands for all of a family.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::label::{Label, Labels, Source};
use crate::reserved::{self, Families};
use crate::selector::Requirement;

/// The prefix of one address.
pub fn host(address: IpAddr) -> IpNet {
    IpNet::from(address)
}

/// The label of a prefix: as usual for IPv4, and for IPv6 with `-` for `:` and a 0 before or after an outer `::`.
pub fn label(prefix: IpNet) -> Label {
    let text = prefix.trunc().to_string();
    let (address, length) = text.split_once('/').unwrap_or((&text, ""));
    let start = if address.starts_with("::") { "0" } else { "" };
    let end = if address.ends_with("::") { "0" } else { "" };
    let key = format!("{start}{address}{end}/{length}").replace(':', "-");
    Label::new(Source::CIDR, &key, "")
}

/// The prefix that a label stands for; `None` for labels of other sources.
pub fn of_label(label: &Label) -> Option<IpNet> {
    if label.source != Source::CIDR {
        return None;
    }
    label.key.replace('-', ":").parse().ok()
}

/// Start of the keys of labels that name a group which a prefix is in.
const GROUP_NAME: &str = "io.cilium.policy.cidrgroupname/";

/// The label of what is in the group of this name.
pub fn group_label(name: &str) -> Label {
    Label::new(Source::CIDR_GROUP, &format!("{GROUP_NAME}{name}"), "")
}

/// Asks for what is in the group of this name.
pub fn in_group(name: &str) -> Requirement {
    Requirement::exists(Source::CIDR_GROUP, &format!("{GROUP_NAME}{name}"))
}

/// Name of the group that a requirement asks for; `None` for requirements of other kinds.
pub fn group_of(requirement: &Requirement) -> Option<&str> {
    (requirement.source == Source::CIDR_GROUP).then(|| requirement.key.strip_prefix(GROUP_NAME))?
}

/// Labels of the identity of a prefix.
pub fn labels(families: Families, prefix: IpNet) -> Labels {
    let world = reserved::labels(families.world_of(prefix.addr())).unwrap_or_default();
    world.iter().cloned().chain([label(prefix)]).collect()
}

/// The labels, with the prefix that a world without one stands for: that of its family.
#[must_use]
pub fn complete(labels: Labels, families: Families) -> Labels {
    let has_prefix = labels.iter().any(|label| label.source == Source::CIDR);
    let all_v4 = || label(IpNet::V4(Ipv4Net::default()));
    let all_v6 = || label(IpNet::V6(Ipv6Net::default()));
    let whole = match families {
        _ if has_prefix => None,
        _ if labels.has_reserved("world-ipv4") => Some(all_v4()),
        _ if labels.has_reserved("world-ipv6") => Some(all_v6()),
        Families::Ipv4 if labels.has_reserved("world") => Some(all_v4()),
        Families::Ipv6 if labels.has_reserved("world") => Some(all_v6()),
        _ => None,
    };
    match whole {
        Some(whole) => labels.iter().cloned().chain([whole]).collect(),
        None => labels,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn labels_are_written_as_upstream_writes_them_and_lead_back() {
        for (prefix, text) in [
            ("10.0.0.0/8", "cidr:10.0.0.0/8"),
            ("192.0.2.1/32", "cidr:192.0.2.1/32"),
            ("2001:db8::/32", "cidr:2001-db8--0/32"),
            ("::1/128", "cidr:0--1/128"),
            ("fd00::5/128", "cidr:fd00--5/128"),
            ("::/8", "cidr:0--0/8"),
        ] {
            let label = label(net(prefix));
            assert_eq!(label.to_string(), text);
            assert_eq!(of_label(&label), Some(net(prefix)));
        }
        assert_eq!(of_label(&Label::k8s("10.0.0.0/8", "")), None);
        assert_eq!(of_label(&Label::new(Source::CIDR, "mars", "")), None);
    }

    #[test]
    fn groups_are_asked_for_by_the_label_that_their_prefixes_have() {
        let label = group_label("servers");
        assert_eq!(label.to_string(), "cidrgroup:io.cilium.policy.cidrgroupname/servers");
        let labels: Labels = [label].into_iter().collect();
        assert!(in_group("servers").matches(&labels) && !in_group("server").matches(&labels));
        assert_eq!(group_of(&in_group("servers")), Some("servers"));
        assert_eq!(group_of(&Requirement::within(net("10.0.0.0/8"))), None);
    }

    #[test]
    fn a_prefix_is_a_part_of_its_world() {
        let texts = |families, prefix| labels(families, net(prefix)).to_strings();
        assert_eq!(texts(Families::Dual, "10.0.0.0/8"), ["cidr:10.0.0.0/8", "reserved:world-ipv4"]);
        assert_eq!(texts(Families::Dual, "fd00::/8"), ["cidr:fd00--0/8", "reserved:world-ipv6"]);
        assert_eq!(texts(Families::Ipv4, "10.0.0.0/8"), ["cidr:10.0.0.0/8", "reserved:world"]);
    }

    #[test]
    fn a_world_alone_is_all_of_its_family() {
        let whole = |families, name: &str| {
            let labels = complete([Label::reserved(name)].into_iter().collect(), families);
            labels.iter().find_map(of_label).map(|prefix| prefix.to_string())
        };
        assert_eq!(whole(Families::Dual, "world-ipv4").as_deref(), Some("0.0.0.0/0"));
        assert_eq!(whole(Families::Dual, "world-ipv6").as_deref(), Some("::/0"));
        assert_eq!(whole(Families::Ipv4, "world").as_deref(), Some("0.0.0.0/0"));
        assert_eq!(whole(Families::Ipv6, "world").as_deref(), Some("::/0"));
        assert_eq!(whole(Families::Dual, "host"), None);
        let part = labels(Families::Dual, net("10.0.0.0/8"));
        assert_eq!(complete(part.clone(), Families::Dual), part);
    }
}
