//! What the speaker shall be: the plan's instances, with what only the node can know put in (gateways, addresses of devices, passwords).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cilium_api::bgp::{BgpInstance, BgpPeer, BgpPeerAddress, IpFamily};
use cilium_rest::bgp;
use ipnet::IpNet;

use super::secrets::Passwords;

/// Routers of the node by name.
pub(super) type Instances = BTreeMap<String, BgpInstance>;

/// What the node knows of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// First address of the node in each family.
    pub(super) own4: Option<Ipv4Addr>,
    pub(super) own6: Option<Ipv6Addr>,
    /// Gateway of the best default route of each family, and the device on whose link it is.
    pub(super) gateways: BTreeMap<IpFamily, (IpAddr, String)>,
    /// Addresses of devices that are up, without link-local ones.
    pub(super) devices: BTreeMap<String, Vec<IpAddr>>,
}

/// The outcome.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Resolved {
    pub(super) config: bgp::Config,
    /// Addresses of devices that are made known.
    pub(super) routes: BTreeMap<IpNet, BTreeSet<String>>,
    /// What cannot be, by instance: a sentence for each.
    pub(super) problems: BTreeMap<String, Vec<String>>,
}

/// Whether the plan asks for anything that can change without it.
pub(super) fn needs_facts(instances: &Instances) -> bool {
    instances.values().any(|instance| {
        let of_peer = |peer: &BgpPeer| {
            matches!(peer.address, BgpPeerAddress::DefaultGateway(_)) || peer.source_interface.is_some()
        };
        instance.peers.values().any(of_peer)
            || instance.advertisements.values().any(|advertisement| advertisement.interface.is_some())
    })
}

/// Puts plan and facts together. A peer that cannot be is left out, and said to be a problem.
pub(super) fn resolve(instances: &Instances, facts: &Facts, passwords: &Passwords) -> Resolved {
    let mut resolved = Resolved::default();
    for (name, instance) in instances {
        let mut problems = Vec::new();
        let mut peers = Vec::new();
        for (peer_name, peer) in &instance.peers {
            match resolve_peer(peer_name, peer, facts, passwords) {
                Ok(peer) => peers.push(peer),
                Err(problem) => problems.push(format!("peer {peer_name}: {problem}")),
            }
        }
        for (id, advertisement) in &instance.advertisements {
            let Some(device) = &advertisement.interface else { continue };
            let addresses = facts.devices.get(device);
            if addresses.is_none_or(Vec::is_empty) {
                problems.push(format!("advertisement {id}: device {device} is not up, or has no address"));
            }
            for address in addresses.into_iter().flatten() {
                resolved.routes.entry(IpNet::from(*address)).or_default().insert(id.clone());
            }
        }
        if !problems.is_empty() {
            resolved.problems.insert(name.clone(), problems);
        }
        resolved.config.instances.push(bgp::Instance {
            name: name.clone(),
            asn: instance.asn,
            router_id: instance.router_id,
            port: instance.port,
            next_hop4: facts.own4,
            next_hop6: facts.own6,
            advertisements: attributes(instance),
            peers,
        });
    }
    resolved
}

fn attributes(instance: &BgpInstance) -> BTreeMap<String, bgp::Attributes> {
    let of = |(id, advertisement): (&String, &cilium_api::bgp::BgpAdvertisement)| {
        let attributes = bgp::Attributes {
            communities: advertisement.communities.clone(),
            large_communities: advertisement.large_communities.clone(),
            local_preference: advertisement.local_preference,
        };
        (id.clone(), attributes)
    };
    instance.advertisements.iter().map(of).collect()
}

fn resolve_peer(
    name: &str,
    peer: &BgpPeer,
    facts: &Facts,
    passwords: &Passwords,
) -> Result<bgp::Peer, String> {
    let (address, device) = where_is(peer, facts)?;
    let local_address = match (peer.local_address, &peer.source_interface) {
        (Some(address), _) => Some(address),
        (None, Some(source)) => source_address(source, address, device, facts)?,
        (None, None) => None,
    };
    let password = match &peer.secret {
        None => None,
        Some(secret) => Some(passwords.get(secret)?),
    };
    let family = |family: &IpFamily| match family {
        IpFamily::Ipv4 => bgp::Family::Ipv4,
        IpFamily::Ipv6 => bgp::Family::Ipv6,
    };
    let families = peer.families.iter();
    Ok(bgp::Peer {
        name: name.to_owned(),
        address,
        device: device.map(str::to_owned),
        asn: peer.asn,
        port: peer.port,
        local_address,
        connect_retry: peer.connect_retry,
        hold_time: peer.hold_time,
        keepalive: peer.keepalive,
        password,
        hops: peer.hops,
        ttl_security: peer.ttl_security,
        passive: peer.passive,
        restart_time: peer.restart_time,
        stale_time: peer.stale_time,
        bfd: peer.bfd.map(|bfd| bgp::Bfd {
            transmit: bfd.transmit,
            receive: bfd.receive,
            multiplier: bfd.multiplier,
        }),
        import: peer.import,
        families: families.map(|(name, ids)| (family(name), ids.iter().cloned().collect())).collect(),
    })
}

/// Address of a peer, and the device of a link-local one.
fn where_is<'a>(peer: &'a BgpPeer, facts: &'a Facts) -> Result<(IpAddr, Option<&'a str>), String> {
    let (address, device) = match peer.address {
        BgpPeerAddress::At(address) => (address, peer.device.as_deref()),
        BgpPeerAddress::DefaultGateway(family) => {
            let (address, device) = facts.gateways.get(&family).ok_or_else(|| {
                let family = if family == IpFamily::Ipv4 { "IPv4" } else { "IPv6" };
                format!("the node has no default route of {family} over a gateway")
            })?;
            (*address, Some(device.as_str()))
        }
    };
    Ok((address, device.filter(|_| is_link_local(address))))
}

/// Whether an address means something on one link only.
pub(super) fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

/// The address of a session that shall have one of a device; `None`: the kernel takes the device's link-local one.
fn source_address(
    source: &str,
    peer: IpAddr,
    device: Option<&str>,
    facts: &Facts,
) -> Result<Option<IpAddr>, String> {
    match device {
        None => address_of(source, peer, facts).map(Some),
        Some(device) if device == source => Ok(None),
        Some(device) => Err(format!("{peer} is on the link of {device}, and sourceInterface is {source}")),
    }
}

/// The one address of the peer's family that a device has.
fn address_of(device: &str, peer: IpAddr, facts: &Facts) -> Result<IpAddr, String> {
    let addresses = facts.devices.get(device).ok_or_else(|| format!("device {device} is not up"))?;
    let mut usable = addresses.iter().filter(|address| address.is_ipv4() == peer.is_ipv4());
    match (usable.next(), usable.next()) {
        (Some(address), None) => Ok(*address),
        (None, _) => Err(format!("device {device} has no address of the family of {peer}")),
        (Some(_), Some(_)) => Err(format!(
            "device {device} has several addresses of the family of {peer}: name one as localAddress in a CiliumBGPNodeConfigOverride"
        )),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use cilium_api::bgp::{BgpAdvertisement, BgpSecret};

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    pub(crate) fn mk_peer(address: BgpPeerAddress) -> BgpPeer {
        BgpPeer {
            address,
            device: None,
            asn: 64500,
            port: 179,
            local_address: None,
            source_interface: None,
            connect_retry: 120,
            hold_time: 90,
            keepalive: 30,
            secret: None,
            restart_time: None,
            stale_time: None,
            hops: 1,
            ttl_security: false,
            passive: false,
            bfd: None,
            import: false,
            families: [(IpFamily::Ipv4, ["a/0".to_owned()].into())].into(),
        }
    }

    pub(crate) fn mk_instances(peers: Vec<(&str, BgpPeer)>) -> Instances {
        let instance = BgpInstance {
            asn: 64512,
            router_id: Ipv4Addr::new(192, 0, 2, 1),
            port: None,
            advertisements: [("a/0".to_owned(), BgpAdvertisement::default())].into(),
            peers: peers.into_iter().map(|(name, peer)| (name.to_owned(), peer)).collect(),
        };
        [("rack".to_owned(), instance)].into()
    }

    fn mk_facts() -> Facts {
        let device = |name: &str, addresses: &[&str]| {
            (name.to_owned(), addresses.iter().map(|text| address(text)).collect())
        };
        Facts {
            own4: Some(Ipv4Addr::new(192, 0, 2, 1)),
            own6: None,
            gateways: [(IpFamily::Ipv4, (address("192.0.2.254"), "up0".to_owned()))].into(),
            devices: [
                device("lo0", &["198.51.100.7", "2001:db8::7"]),
                device("two", &["198.51.100.8", "198.51.100.9"]),
            ]
            .into(),
        }
    }

    #[test]
    fn gateways_and_devices_give_addresses_or_a_problem() {
        let from = |device: &str| BgpPeer {
            source_interface: Some(device.to_owned()),
            ..mk_peer(BgpPeerAddress::At(address("192.0.2.9")))
        };
        let instances = mk_instances(vec![
            ("by-gateway", mk_peer(BgpPeerAddress::DefaultGateway(IpFamily::Ipv4))),
            ("no-gateway", mk_peer(BgpPeerAddress::DefaultGateway(IpFamily::Ipv6))),
            ("from-lo0", from("lo0")),
            ("from-two", from("two")),
            ("from-none", from("none")),
        ]);
        assert!(needs_facts(&instances));
        let resolved = resolve(&instances, &mk_facts(), &Passwords::default());
        let peers = &resolved.config.instances[0].peers;
        let found: Vec<_> =
            peers.iter().map(|peer| (peer.name.as_str(), peer.address, peer.local_address)).collect();
        assert_eq!(
            found,
            [
                ("by-gateway", address("192.0.2.254"), None),
                ("from-lo0", address("192.0.2.9"), Some(address("198.51.100.7"))),
            ]
        );
        assert_eq!(
            resolved.problems["rack"],
            [
                "peer from-none: device none is not up",
                "peer from-two: device two has several addresses of the family of 192.0.2.9: name one as localAddress in a \
                 CiliumBGPNodeConfigOverride",
                "peer no-gateway: the node has no default route of IPv6 over a gateway",
            ]
        );
    }

    #[test]
    fn link_local_peers_are_on_the_link_of_a_device() {
        let on = |device: &str, source: Option<&str>| BgpPeer {
            device: Some(device.to_owned()),
            source_interface: source.map(str::to_owned),
            ..mk_peer(BgpPeerAddress::At(address("fe80::9")))
        };
        let instances = mk_instances(vec![
            ("by-gateway", mk_peer(BgpPeerAddress::DefaultGateway(IpFamily::Ipv6))),
            ("here", on("up1", None)),
            ("here-by-source", on("up2", Some("up2"))),
            ("elsewhere", on("up1", Some("lo0"))),
        ]);
        let gateways = [(IpFamily::Ipv6, (address("fe80::1"), "up0".to_owned()))].into();
        let resolved = resolve(&instances, &Facts { gateways, ..mk_facts() }, &Passwords::default());
        let peers = resolved.config.instances[0].peers.iter();
        let found: Vec<_> =
            peers.map(|it| (it.name.as_str(), it.address, it.device.as_deref(), it.local_address)).collect();
        assert_eq!(
            found,
            [
                ("by-gateway", address("fe80::1"), Some("up0"), None),
                ("here", address("fe80::9"), Some("up1"), None),
                ("here-by-source", address("fe80::9"), Some("up2"), None),
            ]
        );
        assert_eq!(
            resolved.problems["rack"],
            ["peer elsewhere: fe80::9 is on the link of up1, and sourceInterface is lo0"]
        );
    }

    #[test]
    fn a_peer_waits_for_its_password() {
        let secret = |version: Option<&str>| BgpSecret {
            name: "rack".to_owned(),
            version: version.map(str::to_owned),
        };
        let of = |secret: BgpSecret| {
            let peer = mk_peer(BgpPeerAddress::At(address("192.0.2.9")));
            mk_instances(vec![("tor", BgpPeer { secret: Some(secret), ..peer })])
        };
        let mut passwords = Passwords::default();
        let resolved = resolve(&of(secret(Some("7"))), &mk_facts(), &passwords);
        assert_eq!(resolved.config.instances[0].peers, []);
        assert_eq!(resolved.problems["rack"], ["peer tor: Secret rack is not read yet"]);
        passwords.set("rack", "7", "s3cret");
        let resolved = resolve(&of(secret(Some("7"))), &mk_facts(), &passwords);
        let password = resolved.config.instances[0].peers[0].password.as_ref();
        assert_eq!(password.map(|password| password.0.as_str()), Some("s3cret"));
        assert!(!format!("{resolved:?}{passwords:?}").contains("s3cret"));
        // A new version that cannot be read yet: the session goes on with what it has.
        assert!(resolve(&of(secret(Some("8"))), &mk_facts(), &passwords).problems.is_empty());
        let gone = resolve(&of(secret(None)), &mk_facts(), &passwords);
        assert_eq!(gone.problems["rack"], ["peer tor: Secret rack is not there"]);
    }

    #[test]
    fn addresses_of_a_device_are_made_known() {
        let mut instances = mk_instances(vec![("tor", mk_peer(BgpPeerAddress::At(address("192.0.2.9"))))]);
        let instance = instances.get_mut("rack").expect("is there");
        let on = |device: &str| BgpAdvertisement { interface: Some(device.to_owned()), ..Default::default() };
        instance.advertisements = [("a/0".to_owned(), on("lo0")), ("a/1".to_owned(), on("gone"))].into();
        let resolved = resolve(&instances, &mk_facts(), &Passwords::default());
        let routes: Vec<String> =
            resolved.routes.iter().map(|(prefix, ids)| format!("{prefix} {ids:?}")).collect();
        assert_eq!(routes, [r#"198.51.100.7/32 {"a/0"}"#, r#"2001:db8::7/128 {"a/0"}"#]);
        assert_eq!(
            resolved.problems["rack"],
            ["advertisement a/1: device gone is not up, or has no address"]
        );
    }
}
