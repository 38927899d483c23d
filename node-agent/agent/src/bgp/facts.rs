//! What the node knows of itself and the plan does not: gateways and addresses of devices.

use std::collections::HashMap;
use std::net::IpAddr;

use cilium_api::bgp::IpFamily;
use cilium_drivers::netlink::{Error, Netlink};

use super::resolve::Facts;

/// Reads gateways and addresses; the node's own addresses stay.
///
/// # Errors
/// What reading from the kernel failed with.
pub(super) fn read(facts: &mut Facts) -> Result<(), Error> {
    let mut netlink = Netlink::open()?;
    let links = netlink.links()?;
    let names: HashMap<u32, &str> =
        links.iter().filter(|link| link.up).map(|link| (link.index, link.name.as_str())).collect();
    facts.devices.clear();
    for (device, address) in netlink.addresses()? {
        if let Some(name) = names.get(&device)
            && !is_link_local(address.addr())
        {
            facts.devices.entry((*name).to_owned()).or_default().push(address.addr());
        }
    }
    for addresses in facts.devices.values_mut() {
        addresses.sort_unstable();
    }
    facts.gateways.clear();
    for gateway in netlink.default_gateways()? {
        let family = if gateway.address.is_ipv4() { IpFamily::Ipv4 } else { IpFamily::Ipv6 };
        if names.contains_key(&gateway.device) && !is_link_local(gateway.address) {
            // The best comes first.
            facts.gateways.entry(family).or_insert(gateway.address);
        }
    }
    Ok(())
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}
