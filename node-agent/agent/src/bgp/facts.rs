//! What the node knows of itself and the plan does not: gateways and addresses of devices.

use std::collections::HashMap;

use cilium_api::bgp::IpFamily;
use cilium_drivers::netlink::{Error, Netlink};

use super::resolve::{Facts, is_link_local};

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
    let mut gateways = netlink.default_gateways()?;
    // The best comes first; a link-local one only where there is no other, as upstream never takes it.
    gateways.sort_by_key(|gateway| is_link_local(gateway.address));
    for gateway in gateways {
        let family = if gateway.address.is_ipv4() { IpFamily::Ipv4 } else { IpFamily::Ipv6 };
        if let Some(name) = names.get(&gateway.device) {
            facts.gateways.entry(family).or_insert_with(|| (gateway.address, (*name).to_owned()));
        }
    }
    Ok(())
}
