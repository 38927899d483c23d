use std::net::IpAddr;

use cilium_drivers::netlink::{Link, Netlink};
use cilium_drivers::netns::Netns;
use cilium_rest::Client;
use cilium_rest::model::Endpoint;

use crate::arguments::Arguments;
use crate::config::{Config, Previous};
use crate::failure::Failure;

/// Looks whether a pod is still connected as ADD left it.
pub(crate) fn check(config: &Config, arguments: &Arguments, client: &Client) -> Result<(), Failure> {
    let Some(previous) = &config.previous else {
        let details = "CHECK needs the result of ADD";
        return Err(Failure::new(Failure::CONFIG, "prevResult is missing", details));
    };
    let endpoint: Endpoint = client
        .get(&format!("/v1/endpoint/cni-attachment-id:{}", arguments.attachment()))
        .map_err(|error| Failure::agent("the agent does not know the pod", &error))?;
    if endpoint.status.state != "ready" {
        let why = endpoint.status.failures.join("; ");
        return Err(changed(format!("endpoint {} is {}: {why}", endpoint.id, endpoint.status.state)));
    }
    let netns = Netns::open(&arguments.netns).map_err(|error| Failure::link("no pod to check", &error))?;
    check_device(previous, arguments, &netns)
}

fn check_device(previous: &Previous, arguments: &Arguments, netns: &Netns) -> Result<(), Failure> {
    let failed = |error| Failure::link("the pod's devices cannot be read", &error);
    let mut netlink = Netlink::open_in(netns).map_err(failed)?;
    let link = netlink.link(&arguments.device).map_err(failed)?;
    let link = link.ok_or_else(|| changed(format!("there is no device {}", arguments.device)))?;
    check_interface(previous, arguments, &link)?;
    let addresses = netlink.addresses().map_err(failed)?;
    let has = |address: IpAddr| {
        addresses.iter().any(|(device, found)| *device == link.index && found.addr() == address)
    };
    match previous.ips.iter().find(|expected| !has(expected.address.addr())) {
        Some(missing) => Err(changed(format!("{} has lost {}", link.name, missing.address))),
        None => Ok(()),
    }
}

fn check_interface(previous: &Previous, arguments: &Arguments, link: &Link) -> Result<(), Failure> {
    let expected = previous
        .interfaces
        .iter()
        .find(|interface| interface.name == arguments.device && !interface.sandbox.is_empty());
    let expected =
        expected.ok_or_else(|| changed(format!("prevResult has no device {}", arguments.device)))?;
    if !expected.mac.is_empty() && expected.mac != link.mac.to_string() {
        return Err(changed(format!("{} has address {} instead of {}", link.name, link.mac, expected.mac)));
    }
    if link.up { Ok(()) } else { Err(changed(format!("{} is down", link.name))) }
}

fn changed(details: String) -> Failure {
    Failure::new(Failure::CHANGED, "the pod is not connected as it was", details)
}
