//! What a configuration must be to be taken, and what of it makes a session.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cilium_rest::bgp::{Bfd, Config, Family, Instance, Peer};
use thiserror::Error;

use crate::session::LONGEST_COMMUNITIES;

/// Longest password that the kernel takes.
const LONGEST_PASSWORD: usize = 80;

/// Why a configuration is not taken. The sessions are what they were.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Error {
    /// Two instances have one name.
    #[error("there are two instances with the name {0:?}; names are unique")]
    InstanceName(String),
    /// Two instances listen on one port.
    #[error("instances {0:?} and {1:?} both listen on port {2}; give one of them another port, or none")]
    Port(String, String, u16),
    /// A field of an instance cannot be.
    #[error("instance {0:?}: {1}")]
    Instance(String, &'static str),
    /// Communities of advertisements fill a message.
    #[error(
        "instance {0:?}, peer {1:?}: the communities of the advertisements for it have {2} bytes; at most {LONGEST_COMMUNITIES} fit into an UPDATE"
    )]
    Communities(String, String, usize),
    /// Two peers of an instance have one name.
    #[error("instance {0:?}: there are two peers with the name {1:?}; names are unique")]
    PeerName(String, String),
    /// Two peers of an instance have one address.
    #[error("instance {0:?}: peers {1:?} and {2:?} both have the address {3}")]
    PeerAddress(String, String, String, IpAddr),
    /// A field of a peer cannot be.
    #[error("instance {0:?}, peer {1:?}: {2}")]
    Peer(String, String, &'static str),
    /// A peer is told an advertisement that is not there.
    #[error("instance {0:?}, peer {1:?}: there is no advertisement {2:?}")]
    Advertisement(String, String, String),
}

/// Whether a configuration can be.
///
/// # Errors
/// The first thing that cannot be.
pub fn check(config: &Config) -> Result<(), Error> {
    let mut names = BTreeSet::new();
    let mut ports: BTreeMap<u16, &str> = BTreeMap::new();
    for instance in &config.instances {
        let name = instance.name.clone();
        if !names.insert(&instance.name) {
            return Err(Error::InstanceName(name));
        }
        if let Some(port) = instance.port
            && let Some(other) = ports.insert(port, &instance.name)
        {
            return Err(Error::Port(other.to_owned(), name, port));
        }
        check_instance(instance)?;
    }
    Ok(())
}

fn check_instance(instance: &Instance) -> Result<(), Error> {
    let fields = [
        (instance.asn == 0, "its AS number is 0"),
        (instance.router_id.is_unspecified(), "its router id is 0.0.0.0"),
        (instance.port == Some(0), "port 0 cannot be listened on"),
    ];
    if let Some((_, what)) = fields.iter().find(|(is_wrong, _)| *is_wrong) {
        return Err(Error::Instance(instance.name.clone(), what));
    }
    let mut names = BTreeSet::new();
    let mut addresses: BTreeMap<(IpAddr, Option<&str>), &str> = BTreeMap::new();
    for peer in &instance.peers {
        if !names.insert(&peer.name) {
            return Err(Error::PeerName(instance.name.clone(), peer.name.clone()));
        }
        let address = (peer.address, peer.device.as_deref().filter(|_| is_link_local(peer.address)));
        if let Some(other) = addresses.insert(address, &peer.name) {
            return Err(Error::PeerAddress(
                instance.name.clone(),
                other.to_owned(),
                peer.name.clone(),
                peer.address,
            ));
        }
        check_peer(instance, peer)?;
    }
    Ok(())
}

/// Whether an address belongs to one link.
pub(crate) fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

fn check_peer(instance: &Instance, peer: &Peer) -> Result<(), Error> {
    let password = peer.password.as_ref().map_or(1, |password| password.0.len());
    let local = peer.local_address;
    let fields = [
        (peer.address.is_unspecified() || peer.address.is_multicast(), "its address is none of a router"),
        (
            local.is_some_and(|it| it.is_ipv4() != peer.address.is_ipv4()),
            "its address and localAddress are of two families",
        ),
        (
            is_link_local(peer.address) && peer.device.is_none(),
            "its address is link-local, and device is not there",
        ),
        (peer.port == 0, "its port is 0"),
        (peer.connect_retry == 0, "connectRetry is 0; it is at least 1"),
        (peer.hold_time < 3, "holdTime is at least 3"),
        (peer.keepalive == 0 || peer.keepalive > peer.hold_time, "keepalive is between 1 and holdTime"),
        (!(1..=LONGEST_PASSWORD).contains(&password), "the password has 1 to 80 bytes"),
        (peer.hops == 0, "hops is 0; it is at least 1"),
        (peer.restart_time.is_some_and(|it| it > 4095), "restartTime is at most 4095"),
        (peer.stale_time.is_some_and(|it| it > 0xFF_FFFF), "staleTime is at most 16777215"),
        (peer.stale_time.is_some() && peer.restart_time.is_none(), "staleTime needs restartTime"),
        (peer.bfd.is_some_and(|it| it.multiplier == 0), "the multiplier of bfd is 0; it is at least 1"),
        (peer.bfd.is_some_and(|it| it.transmit == 0 || it.receive == 0), "an interval of bfd is 0"),
        (peer.families.is_empty(), "it has no families"),
    ];
    let names = (instance.name.clone(), peer.name.clone());
    if let Some((_, what)) = fields.iter().find(|(is_wrong, _)| *is_wrong) {
        return Err(Error::Peer(names.0, names.1, what));
    }
    for advertisements in peer.families.values() {
        let mut length = 0;
        for name in advertisements {
            let Some(attributes) = instance.advertisements.get(name) else {
                return Err(Error::Advertisement(names.0, names.1, name.clone()));
            };
            length += 4 * attributes.communities.len() + 12 * attributes.large_communities.len();
        }
        if length > LONGEST_COMMUNITIES {
            return Err(Error::Communities(names.0, names.1, length));
        }
    }
    Ok(())
}

/// What makes a session: a peer whose spec changes is connected anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Our AS number.
    pub local_asn: u32,
    /// Our BGP identifier.
    pub router_id: Ipv4Addr,
    /// Address and device of the peer.
    pub address: IpAddr,
    /// Device on which a link-local address is.
    pub device: Option<String>,
    /// AS number that it has to say; 0 is any.
    pub asn: u32,
    /// Its TCP port.
    pub port: u16,
    /// Address of the node that the session has.
    pub local_address: Option<IpAddr>,
    /// Proposed hold time in seconds.
    pub hold_time: u16,
    /// Proposed seconds between KEEPALIVEs.
    pub keepalive: u16,
    /// Password of TCP-MD5.
    pub password: Option<cilium_rest::bgp::Password>,
    /// Hops to an external peer.
    pub hops: u8,
    /// GTSM.
    pub ttl_security: bool,
    /// The peer connects.
    pub passive: bool,
    /// Restart time in seconds.
    pub restart_time: Option<u16>,
    /// Stale time in seconds.
    pub stale_time: Option<u32>,
    /// What the session carries.
    pub families: Vec<Family>,
}

impl Spec {
    /// What of a peer makes a session.
    pub fn new(instance: &Instance, peer: &Peer) -> Self {
        Self {
            local_asn: instance.asn,
            router_id: instance.router_id,
            address: peer.address,
            device: peer.device.clone(),
            asn: peer.asn,
            port: peer.port,
            local_address: peer.local_address,
            hold_time: peer.hold_time,
            keepalive: peer.keepalive,
            password: peer.password.clone(),
            hops: peer.hops,
            ttl_security: peer.ttl_security,
            passive: peer.passive,
            restart_time: peer.restart_time,
            stale_time: peer.stale_time,
            families: peer.families.keys().copied().collect(),
        }
    }

    /// The peer is in our AS, as far as the configuration says so.
    pub fn is_internal(&self) -> bool {
        self.asn == self.local_asn
    }
}

/// What changes without a new session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Soft {
    /// Seconds between two attempts to connect, at most.
    pub connect_retry: u32,
    /// Next hop of IPv4 prefixes where the session has no IPv4 address.
    pub next_hop4: Option<Ipv4Addr>,
    /// The same for IPv6.
    pub next_hop6: Option<Ipv6Addr>,
    /// Routes of the peer are listed.
    pub import: bool,
    /// BFD.
    pub bfd: Option<Bfd>,
}

impl Soft {
    /// What of a peer does not make a session.
    pub fn new(instance: &Instance, peer: &Peer) -> Self {
        Self {
            connect_retry: peer.connect_retry,
            next_hop4: instance.next_hop4,
            next_hop6: instance.next_hop6,
            import: peer.import,
            bfd: peer.bfd,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn mk_config() -> Value {
        json!({"instances": [{"name": "i", "asn": 65001, "routerId": "192.0.2.1", "port": 179,
            "advertisements": {"a": {}},
            "peers": [{"name": "p", "address": "192.0.2.2", "asn": 65002, "port": 179, "connectRetry": 120,
                "holdTime": 90, "keepalive": 30, "hops": 1, "families": {"ipv4": ["a"]}}]}]})
    }

    fn refusal(change: impl FnOnce(&mut Value)) -> Option<String> {
        let mut config = mk_config();
        change(&mut config);
        let config: Config = serde_json::from_value(config).unwrap();
        check(&config).err().map(|error| error.to_string())
    }

    fn with_peer(field: &str, value: Value) -> Option<String> {
        refusal(|config| config["instances"][0]["peers"][0][field] = value)
    }

    #[test]
    fn what_is_right_is_taken() {
        assert_eq!(refusal(|_| ()), None);
        assert_eq!(with_peer("asn", json!(0)), None);
        assert_eq!(with_peer("restartTime", json!(4095)), None);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let peer = |text: &str| Some(format!("instance \"i\", peer \"p\": {text}"));
        let cases = [
            ("holdTime", json!(2), "holdTime is at least 3"),
            ("keepalive", json!(91), "keepalive is between 1 and holdTime"),
            ("hops", json!(0), "hops is 0; it is at least 1"),
            ("password", json!(""), "the password has 1 to 80 bytes"),
            ("restartTime", json!(4096), "restartTime is at most 4095"),
            ("staleTime", json!(1), "staleTime needs restartTime"),
            ("address", json!("fe80::1"), "its address is link-local, and device is not there"),
            ("localAddress", json!("2001:db8::1"), "its address and localAddress are of two families"),
            ("families", json!({}), "it has no families"),
            ("families", json!({"ipv4": ["b"]}), "there is no advertisement \"b\""),
        ];
        for (field, value, text) in cases {
            assert_eq!(with_peer(field, value), peer(text), "{field}");
        }
        assert_eq!(
            refusal(|config| config["instances"][0]["asn"] = json!(0)).unwrap(),
            "instance \"i\": its AS number is 0"
        );
    }

    #[test]
    fn names_ports_and_addresses_are_unique() {
        let twice = |field: &str, value: Value| {
            refusal(|config| {
                let mut other = config["instances"][0].clone();
                other[field] = value;
                config["instances"].as_array_mut().unwrap().push(other);
            })
        };
        let port =
            "instances \"i\" and \"j\" both listen on port 179; give one of them another port, or none";
        assert_eq!(twice("name", json!("j")).unwrap(), port);
        assert_eq!(
            twice("port", json!(1179)).unwrap(),
            "there are two instances with the name \"i\"; names are unique"
        );
        let peers = |field: &str, value: Value| {
            refusal(|config| {
                let peers = config["instances"][0]["peers"].as_array_mut().unwrap();
                let mut other = peers[0].clone();
                other[field] = value;
                peers.push(other);
            })
        };
        assert_eq!(
            peers("name", json!("q")).unwrap(),
            "instance \"i\": peers \"p\" and \"q\" both have the address 192.0.2.2"
        );
        assert_eq!(
            peers("address", json!("192.0.2.3")).unwrap(),
            "instance \"i\": there are two peers with the name \"p\"; names are unique"
        );
    }

    #[test]
    fn communities_leave_room_for_prefixes() {
        let many: Vec<u32> = (0..800).collect();
        let text =
            refusal(|config| config["instances"][0]["advertisements"]["a"] = json!({"communities": many}));
        let expected = "instance \"i\", peer \"p\": the communities of the advertisements for it have 3200 bytes; at most 3072 fit into an UPDATE";
        assert_eq!(text.unwrap(), expected);
    }
}
