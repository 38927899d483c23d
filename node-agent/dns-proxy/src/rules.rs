//! Who may ask whom for what.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use cilium_core::{NamePattern, reserved};
use cilium_rest::dns;

/// What is done with a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It is passed on.
    Allowed,
    /// The client is told that it may not ask that.
    Refused,
    /// No rule is about it: it is on its way from a time when there was one, or ahead of the rule. The client asks again.
    Unknown,
}

/// Identities of addresses, as the kernel's maps have them.
pub(crate) trait Identities {
    /// Identity of a pod of this node.
    fn pod(&self, address: IpAddr) -> Option<u32>;
    /// Identity of any other address; `None` when nothing is known of it.
    fn other(&self, address: IpAddr) -> Option<u32>;
}

/// The agent's rules, parsed.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    world4: u32,
    world6: u32,
    by_identity: HashMap<u32, Vec<Rule>>,
}

#[derive(Debug)]
struct Rule {
    peer: u32,
    protocol: u8,
    port: u16,
    patterns: Vec<NamePattern>,
}

impl From<&dns::Rules> for Rules {
    fn from(rules: &dns::Rules) -> Self {
        let by_identity = rules.by_identity.iter();
        Self {
            world4: rules.world4,
            world6: rules.world6,
            by_identity: by_identity
                .map(|(number, rules)| (*number, rules.iter().map(Rule::from).collect()))
                .collect(),
        }
    }
}

impl From<&dns::Rule> for Rule {
    /// A pattern that cannot be read allows nothing.
    fn from(rule: &dns::Rule) -> Self {
        let patterns = rule.patterns.iter().filter_map(|text| NamePattern::pattern(text).ok());
        Self { peer: rule.peer, protocol: rule.protocol, port: rule.port, patterns: patterns.collect() }
    }
}

impl Rules {
    /// Decides about a question for `name` from a client to a server.
    pub(crate) fn decide(
        &self,
        identities: &impl Identities,
        client: IpAddr,
        server: SocketAddr,
        protocol: u8,
        name: &str,
    ) -> Decision {
        let Some(rules) = identities.pod(client).and_then(|identity| self.by_identity.get(&identity)) else {
            return Decision::Unknown;
        };
        let peer = self.peer(identities, server.ip());
        let about = |rule: &&Rule| {
            [reserved::ANY, peer, reserved::aggregate_of(peer)].contains(&rule.peer)
                && rule.protocol == protocol
                && rule.port == server.port()
        };
        let mut rules = rules.iter().filter(about).peekable();
        if rules.peek().is_none() {
            return Decision::Unknown;
        }
        let allowed = rules.flat_map(|rule| &rule.patterns).any(|pattern| pattern.matches(name));
        if allowed { Decision::Allowed } else { Decision::Refused }
    }

    fn peer(&self, identities: &impl Identities, address: IpAddr) -> u32 {
        let world = if address.is_ipv4() { self.world4 } else { self.world6 };
        identities.pod(address).or_else(|| identities.other(address)).unwrap_or(world)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct World;

    impl Identities for World {
        fn pod(&self, address: IpAddr) -> Option<u32> {
            (address == ip("10.0.0.5")).then_some(300)
        }
        fn other(&self, address: IpAddr) -> Option<u32> {
            (address == ip("10.0.1.53")).then_some(400)
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn rule(peer: u32, port: u16, patterns: &[&str]) -> dns::Rule {
        dns::Rule { peer, protocol: 17, port, patterns: patterns.iter().map(|it| (*it).to_owned()).collect() }
    }

    #[test]
    fn rules_of_the_client_for_the_server_decide() {
        let rules = Rules::from(&dns::Rules {
            world4: 9,
            world6: 10,
            by_identity: [(
                300,
                vec![
                    rule(400, 53, &["a.io.", "*.b.io."]),
                    rule(0, 53, &["any.io."]),
                    rule(9, 53, &["world.io."]),
                    rule(11, 53, &["cluster.io."]),
                    rule(10, 5353, &["not a pattern"]),
                ],
            )]
            .into(),
        });
        let (cluster, outside, outside6) = ("10.0.1.53:53", "192.0.2.1:53", "[2001:db8::1]:5353");
        for (client, server, protocol, name, expected) in [
            ("10.0.0.5", cluster, 17, "a.io.", Decision::Allowed),
            ("10.0.0.5", cluster, 17, "x.b.io.", Decision::Allowed),
            ("10.0.0.5", cluster, 17, "any.io.", Decision::Allowed),
            ("10.0.0.5", cluster, 17, "cluster.io.", Decision::Allowed),
            ("10.0.0.5", outside, 17, "cluster.io.", Decision::Refused),
            ("10.0.0.5", cluster, 17, "world.io.", Decision::Refused),
            ("10.0.0.5", outside, 17, "world.io.", Decision::Allowed),
            ("10.0.0.5", outside, 17, "a.io.", Decision::Refused),
            ("10.0.0.5", outside, 6, "world.io.", Decision::Unknown),
            ("10.0.0.5", outside6, 17, "a.io.", Decision::Refused),
            ("10.0.0.5", "10.0.1.53:54", 17, "a.io.", Decision::Unknown),
            ("10.0.0.6", cluster, 17, "a.io.", Decision::Unknown),
        ] {
            let found = rules.decide(&World, ip(client), server.parse().unwrap(), protocol, name);
            assert_eq!(found, expected, "{client} {server} {protocol} {name}");
        }
    }
}
