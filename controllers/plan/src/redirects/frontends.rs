use std::collections::{BTreeMap, btree_map};
use std::net::IpAddr;

use cilium_services::redirect::{Invalid, RedirectPort, RedirectTarget, Rule};
use cilium_services::{Face, ServiceName};

use super::{Redirect, Redirects};
use crate::config::Config;
use crate::object::ObjectKey;
use crate::planner::Planner;
use crate::policies::Refusal;

/// An address and port, and the port of the pods behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mapping {
    pub(super) address: IpAddr,
    pub(super) protocol: u8,
    pub(super) port: u16,
    pub(super) backend_port: u16,
}

/// Why a policy that is valid by itself has no frontends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Hindrance {
    /// Nobody has looked yet.
    Undecided,
    /// It is not put in force.
    Refused(Refusal),
    /// It waits for something.
    Idle(Refusal),
}

fn refuse(reason: &'static str, message: String) -> Refusal {
    Refusal { reason, message }
}

pub(super) fn malformed(invalid: &Invalid) -> Refusal {
    refuse("Malformed", invalid.to_string())
}

/// What the settings of the cluster have against a policy.
///
/// # Errors
/// What to tell its author.
pub(super) fn check_settings(rule: &Rule, config: &Config) -> Result<(), Refusal> {
    if !config.local_redirects {
        let message = "a CiliumLocalRedirectPolicy needs enable-local-redirect-policy (localRedirectPolicies.enabled in the chart), \
                       which is off";
        return Err(refuse("Disabled", message.to_owned()));
    }
    let RedirectTarget::Address(address) = rule.target else { return Ok(()) };
    let field = "spec.redirectFrontend.addressMatcher.ip";
    if !config.has_family(address) {
        let message = format!("{field}: pods have no addresses of the family of {address}");
        return Err(refuse("Unsupported", message));
    }
    let cidrs = &config.redirect_cidrs;
    if !cidrs.is_empty() && !cidrs.iter().any(|cidr| cidr.contains(&address)) {
        let cidrs: Vec<String> = cidrs.iter().map(ToString::to_string).collect();
        let message = format!(
            "{field}: {address} lies in none of the prefixes {} of lrp-address-matcher-cidrs \
             (localRedirectPolicies.addressMatcherCIDRs in the chart)",
            cidrs.join(", ")
        );
        return Err(refuse("AddressNotAllowed", message));
    }
    Ok(())
}

impl Redirects {
    /// Takes addresses and ports of a Service as they are now.
    pub(crate) fn set_face(&mut self, service: &ServiceName, face: Option<Face>) {
        let before = self.faces.get(service);
        if before == face.as_ref() {
            return;
        }
        self.unresolved = true;
        for address in before.into_iter().flat_map(addresses) {
            if let btree_map::Entry::Occupied(mut owners) = self.owners.entry(address) {
                owners.get_mut().remove(service);
                if owners.get().is_empty() {
                    owners.remove();
                }
            }
        }
        for address in face.iter().flat_map(addresses) {
            self.owners.entry(address).or_default().insert(service.clone());
        }
        match face {
            Some(face) => drop(self.faces.insert(service.clone(), face)),
            None => drop(self.faces.remove(service)),
        }
    }

    /// Addresses and ports of a policy by itself, whoever else wants them.
    fn wanted(&self, rule: &Rule) -> Result<Vec<Mapping>, Hindrance> {
        match &rule.target {
            RedirectTarget::Address(address) => {
                if let Some(owner) = self.owners.get(address).and_then(|owners| owners.first()) {
                    let ServiceName { namespace, name } = owner;
                    let message = format!(
                        "spec.redirectFrontend.addressMatcher.ip: {address} belongs to Service {namespace}/{name}: name that one in a \
                         serviceMatcher, in its namespace"
                    );
                    return Err(Hindrance::Refused(refuse("AddressOfService", message)));
                }
                Ok(mappings(rule, &[*address], &rule.ports))
            }
            RedirectTarget::Service(service) => {
                let Some(face) = self.faces.get(service) else {
                    let message = format!(
                        "there is no Service {}/{} with a cluster address",
                        service.namespace, service.name
                    );
                    return Err(Hindrance::Idle(refuse("NoService", message)));
                };
                let found = mappings(rule, &face.cluster_ips, &ports_of(rule, face));
                if found.is_empty() { Err(Hindrance::Idle(no_port(rule, service))) } else { Ok(found) }
            }
        }
    }
}

fn addresses(face: &Face) -> impl Iterator<Item = IpAddr> {
    face.cluster_ips.iter().chain(&face.others).copied()
}

/// Ports of a Service that a policy is about, with the names that find the ports of the pods.
fn ports_of(rule: &Rule, face: &Face) -> Vec<RedirectPort> {
    if rule.ports.is_empty() {
        return face.ports.clone();
    }
    let has = |wanted: &&RedirectPort| {
        face.ports.iter().any(|port| (port.protocol, port.port) == (wanted.protocol, wanted.port))
    };
    rule.ports.iter().filter(has).cloned().collect()
}

fn mappings(rule: &Rule, addresses: &[IpAddr], ports: &[RedirectPort]) -> Vec<Mapping> {
    // What a policy names counts, whether the Service has it or not: another port shall not change where this one leads.
    let all = if rule.ports.is_empty() { ports.len() } else { rule.ports.len() };
    let ports: Vec<_> = ports.iter().filter_map(|port| Some((port, rule.backend_port(port, all)?))).collect();
    let mapping = |address, port: &RedirectPort, backend_port| Mapping {
        address,
        protocol: port.protocol,
        port: port.port,
        backend_port,
    };
    let all = addresses.iter().flat_map(|address| {
        ports.iter().map(move |(port, backend_port)| mapping(*address, port, *backend_port))
    });
    all.collect()
}

fn no_port(rule: &Rule, service: &ServiceName) -> Refusal {
    let ServiceName { namespace, name } = service;
    let message = if rule.ports.is_empty() {
        format!(
            "Service {namespace}/{name} has no TCP or UDP port with the name and protocol of a port of the pods"
        )
    } else {
        format!(
            "Service {namespace}/{name} has none of the ports in spec.redirectFrontend.serviceMatcher.toPorts"
        )
    };
    refuse("NoPort", message)
}

/// Who has an address, protocol and port.
type Claimed = BTreeMap<(IpAddr, u8, u16), ObjectKey>;

/// Gives a policy what it wants, all or nothing.
fn claim(claimed: &mut Claimed, object: &ObjectKey, wanted: &[Mapping]) -> Result<(), Hindrance> {
    let place = |it: &Mapping| (it.address, it.protocol, it.port);
    for mapping in wanted {
        if let Some(owner) = claimed.get(&place(mapping)) {
            let Mapping { address, port, .. } = mapping;
            let ObjectKey { namespace, name, .. } = owner;
            let message = format!(
                "{address} port {port} is redirected by the older CiliumLocalRedirectPolicy {namespace}/{name}: delete one of them"
            );
            return Err(Hindrance::Refused(refuse("Conflict", message)));
        }
    }
    claimed.extend(wanted.iter().map(|mapping| (place(mapping), object.clone())));
    Ok(())
}

impl Planner {
    /// Decides for all policies what leads where. There are few of them, and each may stand in the way of the others.
    pub(super) fn resolve_frontends(&mut self) {
        let mut order: Vec<(i64, ObjectKey)> =
            self.redirects.all.iter().map(|(object, it)| (it.created, object.clone())).collect();
        order.sort_unstable();
        let mut claimed = Claimed::new();
        for (_, object) in order {
            let Some(Redirect { rule: Ok(rule), .. }) = self.redirects.all.get(&object) else { continue };
            let wanted = self.redirects.wanted(rule);
            let found = wanted.and_then(|wanted| claim(&mut claimed, &object, &wanted).map(|()| wanted));
            self.put_frontends(&object, found);
        }
    }

    fn put_frontends(&mut self, object: &ObjectKey, found: Result<Vec<Mapping>, Hindrance>) {
        let Some(redirect) = self.redirects.all.get_mut(object) else { return };
        if redirect.frontends == found {
            return;
        }
        redirect.dirty.extend(redirect.nodes.keys().cloned());
        self.redirects.statuses.touch(object.clone());
        let refusal = match &found {
            Err(Hindrance::Refused(refusal)) => Some(refusal.message.clone()),
            _ => None,
        };
        let uid = redirect.uid.clone();
        redirect.frontends = found;
        if let Some(message) = refusal {
            self.warn(object.clone(), Some(&uid), "NotProgrammed", &message);
        }
    }
}
