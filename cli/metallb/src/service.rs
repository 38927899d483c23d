//! What Services ask of MetalLB, in annotations of ours.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use cilium_services::L2_CLASS;

use crate::document::At;
use crate::input::{Input, Service, annotation, suffix};
use crate::output::{Note, ServiceChange};
use crate::pool::{POOL_LABEL, Pool};

/// Annotations of ours, by their newer names.
const ADDRESSES: &str = cilium_lbipam::ADDRESSES[0];
const SHARING_KEY: &str = cilium_lbipam::SHARING_KEY[0];
const CROSS_NAMESPACE: &str = cilium_lbipam::CROSS_NAMESPACE[0];

/// Annotations of MetalLB that are read, or that it writes itself.
const KNOWN: [&str; 4] = ["address-pool", "loadBalancerIPs", "allow-shared-ip", "ip-allocated-from-pool"];

/// Namespaces of the Services that share with a key.
type Sharing<'a> = BTreeMap<&'a str, BTreeSet<&'a str>>;

/// What to set on the Services that are MetalLB's.
pub(crate) fn convert(input: &Input, pools: &[Pool], notes: &mut Vec<Note>) -> Vec<ServiceChange> {
    let mut sharing = Sharing::new();
    for service in &input.services {
        if let Some(key) = sharing_key(service) {
            sharing.entry(key).or_default().insert(&service.namespace);
        }
    }
    let changes = input.services.iter().map(|service| change(service, pools, &sharing, notes));
    changes.filter(|change| !change.is_empty()).collect()
}

fn sharing_key(service: &Service) -> Option<&str> {
    annotation(&service.annotations, "allow-shared-ip").map(|(_, key)| key).filter(|key| !key.is_empty())
}

fn change(service: &Service, pools: &[Pool], sharing: &Sharing<'_>, notes: &mut Vec<Note>) -> ServiceChange {
    let mut change = ServiceChange {
        namespace: service.namespace.clone(),
        name: service.name.clone(),
        ..ServiceChange::default()
    };
    unknown(service, notes);
    class(service, notes);
    let addresses = addresses(service, pools, notes);
    if service.requested.is_none_or(|address| addresses != [address]) && !addresses.is_empty() {
        let list: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
        change.annotations.insert(ADDRESSES.to_owned(), list.join(","));
    }
    share(service, sharing, &mut change, notes);
    pool(service, pools, &addresses, &mut change, notes);
    change.annotations.retain(|key, value| service.annotations.get(key) != Some(value));
    change.labels.retain(|key, value| service.labels.get(key) != Some(value));
    change
}

fn at_annotation(service: &Service, key: &str) -> At {
    service.at.field("metadata.annotations").entry(key)
}

fn unknown(service: &Service, notes: &mut Vec<Note>) {
    for key in service.annotations.keys().filter(|key| suffix(key).is_some_and(|it| !KNOWN.contains(&it))) {
        let advice = "see what it does with MetalLB, and whether you need it";
        notes.push(Note::new(
            &at_annotation(service, key),
            "the converter does not know this annotation",
            advice,
        ));
    }
}

fn class(service: &Service, notes: &mut Vec<Note>) {
    if let Some(class) = &service.class {
        let meaning = format!(
            "Services of the class {class:?} are another controller's, and a class cannot be changed while the type is LoadBalancer"
        );
        let advice = format!("set the type to NodePort, then to LoadBalancer with the class {L2_CLASS}");
        notes.push(Note::new(&service.at.field("spec.loadBalancerClass"), meaning, advice));
    }
}

/// What it asks for, or else has.
fn addresses(service: &Service, pools: &[Pool], notes: &mut Vec<Note>) -> Vec<IpAddr> {
    let is_in_a_pool =
        |address: &IpAddr| pools.is_empty() || pools.iter().any(|pool| pool.contains(*address));
    if let (Some(address), false) = (service.requested, service.listed.is_empty()) {
        let meaning = format!(
            "MetalLB refuses this beside the annotation; here the Service gets {address}, too, or nothing"
        );
        notes.push(Note::new(&service.at.field("spec.loadBalancerIP"), meaning, "take one of them out"));
    }
    let asked: Vec<IpAddr> = match service.requested {
        Some(address) if service.listed.is_empty() => vec![address],
        _ => service.listed.clone(),
    };
    if asked.is_empty() {
        // Others than MetalLB give addresses, too.
        return service.held.iter().copied().filter(is_in_a_pool).collect();
    }
    for address in asked.iter().filter(|address| !is_in_a_pool(address)) {
        let meaning = format!("it asks for {address}, which no converted pool has");
        notes.push(Note::new(
            &service.at,
            meaning,
            "give its pool to the converter, too, or ask for another address",
        ));
    }
    asked
}

fn share(service: &Service, sharing: &Sharing<'_>, change: &mut ServiceChange, notes: &mut Vec<Note>) {
    let Some(key) = sharing_key(service) else { return };
    // YAML knows more line breaks than a shell does.
    if !key.chars().all(|c| c.is_ascii_graphic() || c == ' ') {
        let (name, _) = annotation(&service.annotations, "allow-shared-ip").unwrap_or_default();
        let meaning = "the key has characters that cannot stand in a command";
        let advice = format!("set {SHARING_KEY} to another one, the same for all Services that share");
        notes.push(Note::new(&at_annotation(service, &name), meaning, advice));
        return;
    }
    change.annotations.insert(SHARING_KEY.to_owned(), key.to_owned());
    let others: Vec<&str> = sharing
        .get(key)
        .into_iter()
        .flatten()
        .copied()
        .filter(|namespace| *namespace != service.namespace)
        .collect();
    if !others.is_empty() {
        change.annotations.insert(CROSS_NAMESPACE.to_owned(), others.join(","));
    }
}

/// Pools are not asked for by name; those that wait to be asked want a label.
fn pool(
    service: &Service,
    pools: &[Pool],
    addresses: &[IpAddr],
    change: &mut ServiceChange,
    notes: &mut Vec<Note>,
) {
    let named = annotation(&service.annotations, "address-pool").filter(|(_, name)| !name.is_empty());
    let wanted = match &named {
        Some((_, name)) => pools.iter().find(|pool| pool.name == *name),
        None => pools.iter().find(|pool| addresses.iter().any(|address| pool.contains(*address))),
    };
    if let Some(pool) = wanted.filter(|pool| pool.is_labelled) {
        change.labels.insert(POOL_LABEL.to_owned(), pool.name.clone());
        return;
    }
    let Some((key, name)) = named.filter(|_| addresses.is_empty()) else { return };
    let meaning = format!(
        "a pool cannot be asked for by name; the Service gets an address of any pool that selects it, not of {name:?} only"
    );
    let advice =
        format!("ask for an address with {ADDRESSES}, or give the Service a label that the pool selects");
    notes.push(Note::new(&at_annotation(service, &key), meaning, advice));
}
