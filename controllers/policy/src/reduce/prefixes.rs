//! Peers by prefix.

use std::net::IpAddr;

use cilium_api::peer::CidrRule;
use cilium_core::{Peers, Requirement, Selector, prefix};
use ipnet::IpNet;

use crate::invalid::{Invalid, Path};

/// An item of `fromCIDR` or `toCIDR`: a prefix, or an address.
pub(super) fn cidr(path: &Path, text: &str) -> Result<Peers, Invalid> {
    let prefix = match text.parse::<IpAddr>() {
        Ok(address) => checked(path, prefix::host(address))?,
        Err(_) => parse(path, text)?,
    };
    Ok(peers(prefix, &[]))
}

/// An item of `fromCIDRSet` or `toCIDRSet`.
pub(super) fn cidr_set(path: &Path, rule: &CidrRule) -> Result<Peers, Invalid> {
    let text = match (&rule.cidr, &rule.cidr_group_ref, &rule.cidr_group_selector) {
        (Some(text), None, None) => text,
        (None, Some(_), None) => return Err(path.field("cidrGroupRef").unsupported("a group of prefixes")),
        (None, None, Some(_)) => {
            return Err(path.field("cidrGroupSelector").unsupported("groups of prefixes"));
        }
        _ => {
            let reason = "exactly one of cidr, cidrGroupRef and cidrGroupSelector must be given";
            return Err(path.malformed(reason));
        }
    };
    let prefix = parse(&path.field("cidr"), text)?;
    let mut except = Vec::new();
    for (index, text) in rule.except.iter().flatten().enumerate() {
        let path = path.field("except").index(index);
        let left_out = parse(&path, text)?;
        if !prefix.contains(&left_out) {
            return Err(path.malformed(format!("{text:?} does not lie inside of {prefix}")));
        }
        except.push(left_out);
    }
    Ok(peers(prefix, &except))
}

/// Bits behind the length do not count.
fn parse(path: &Path, text: &str) -> Result<IpNet, Invalid> {
    match text.parse::<IpNet>() {
        Ok(prefix) => checked(path, prefix.trunc()),
        Err(_) => {
            Err(path.malformed(format!("{text:?} is not a prefix such as 192.0.2.0/24 or 2001:db8::/32")))
        }
    }
}

/// IPv4 in an IPv6 prefix (RFC 4291 section 2.5.5.2) never is on the wire: whoever writes it means something else.
fn checked(path: &Path, prefix: IpNet) -> Result<IpNet, Invalid> {
    match prefix.addr() {
        IpAddr::V6(address) if address.to_ipv4_mapped().is_some() => {
            Err(path.malformed(format!("{prefix} is IPv4 written as IPv6; write it as IPv4")))
        }
        _ => Ok(prefix),
    }
}

fn peers(prefix: IpNet, except: &[IpNet]) -> Peers {
    let requirements = except.iter().copied().map(Requirement::not_within);
    let selector: Selector = requirements.chain([Requirement::within(prefix)]).collect();
    Peers::Selected(vec![selector])
}
