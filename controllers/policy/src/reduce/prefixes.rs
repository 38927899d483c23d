//! Peers by prefix.

use std::net::IpAddr;

use cilium_api::peer::CidrRule;
use cilium_core::{Peers, Requirement, Selector, Source, prefix};
use ipnet::IpNet;

use super::selectors;
use crate::invalid::{Invalid, Path};
use crate::reference::{Reference, in_group};

/// An item of `fromCIDR` or `toCIDR`: a prefix, or an address.
pub(super) fn cidr(path: &Path, text: &str) -> Result<Peers, Invalid> {
    let prefix = match text.parse::<IpAddr>() {
        Ok(address) => checked(path, prefix::host(address))?,
        Err(_) => parse(path, text)?,
    };
    Ok(peers(prefix, &[]))
}

/// An item of `fromCIDRSet` or `toCIDRSet`; no peer for groups by label, which are a [reference](group_reference).
pub(super) fn cidr_set(path: &Path, rule: &CidrRule) -> Result<Peers, Invalid> {
    let selector = match (&rule.cidr, &rule.cidr_group_ref, &rule.cidr_group_selector) {
        (Some(text), None, None) => {
            let prefix = parse(&path.field("cidr"), text)?;
            return Ok(peers(prefix, &except_of(path, rule, Some(prefix))?));
        }
        (None, Some(name), None) => Some(in_group(name, &except_of(path, rule, None)?)),
        (None, None, Some(_)) => None,
        _ => {
            let reason = "exactly one of cidr, cidrGroupRef and cidrGroupSelector must be given";
            return Err(path.malformed(reason));
        }
    };
    Ok(Peers::Selected(selector.into_iter().collect()))
}

/// What an item stands for that asks for groups by their labels; `None` for other items.
pub(super) fn group_reference(path: &Path, rule: &CidrRule) -> Result<Option<Reference>, Invalid> {
    let Some(selector) = &rule.cidr_group_selector else { return Ok(None) };
    let selector = selectors::parse(&path.field("cidrGroupSelector"), selector)?.on(&Source::CIDR_GROUP);
    Ok(Some(Reference::Groups { selector, except: except_of(path, rule, None)? }))
}

/// Prefixes that are left out. What is not in `around` cannot be left out of it; in a group there may be anything.
pub(super) fn except(path: &Path, list: &[String], around: Option<IpNet>) -> Result<Vec<IpNet>, Invalid> {
    let left_out = list.iter().enumerate().map(|(index, text)| {
        let path = path.index(index);
        let left_out = parse(&path, text)?;
        match around {
            Some(prefix) if !prefix.contains(&left_out) => {
                Err(path.malformed(format!("{text:?} does not lie inside of {prefix}")))
            }
            _ => Ok(left_out),
        }
    });
    left_out.collect()
}

/// What an item of `fromCIDRSet` or `toCIDRSet` leaves out.
fn except_of(path: &Path, rule: &CidrRule, around: Option<IpNet>) -> Result<Vec<IpNet>, Invalid> {
    except(&path.field("except"), rule.except.as_deref().unwrap_or_default(), around)
}

/// Bits behind the length do not count.
pub(super) fn parse(path: &Path, text: &str) -> Result<IpNet, Invalid> {
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
