//! Entries of kernel maps as the API lists them.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::Path;

use cilium_bpf::layout::{
    Addr, CT_CONFIRMED, CT_FIN_ANSWERER, CT_FIN_STARTER, CT_REFUSED, CT_STARTED_BY_HIGH, CtEntry, CtKey,
    DIRECTION_INGRESS, IpcacheKey, NAT_OUT, NAT_SERVICE, NatEntry, NatKey, POLICY_ALLOW, POLICY_NONE,
    POLICY_PROXY, PolicyEntry, PolicyKey, SCOPE_EXEMPT, SCOPE_EXTERNAL, SCOPE_INTERNAL, ServiceKey,
};
use cilium_drivers::maps::Maps;
use cilium_rest::model;
use rustix::time::ClockId;
use serde::Serialize;

use crate::brain::Generations;
use crate::describe;

/// Maps that can be listed.
pub(super) const NAMES: [&str; 9] =
    ["endpoints", "ipcache", "policy", "ct", "nat", "services", "backends", "maglev", "metrics"];

/// All entries of a map, sorted.
pub(super) fn list(bpffs: &Path, name: &str, generations: &Generations) -> anyhow::Result<serde_json::Value> {
    let mut maps = Maps::open(bpffs)?;
    match name {
        "endpoints" => endpoints(&maps),
        "ipcache" => sorted(maps.ipcache.entries()?, |(key, entry)| model::IpcacheEntry {
            prefix: prefix(&key),
            identity: entry.identity,
            tunnel_endpoint: describe::end(entry.tunnel, 0),
        }),
        "policy" => {
            let blocks = blocks(&maps)?;
            sorted(maps.policy.rules()?, |(key, entry)| policy(&key, &entry, generations, &blocks))
        }
        "ct" => sorted(maps.ct.entries()?, |(key, entry)| ct(&key, &entry)),
        "nat" => sorted(maps.snat.entries()?, |(key, entry)| nat(&key, &entry)),
        "services" => services(&maps),
        "backends" => sorted(maps.backends.entries()?, |(key, entry)| model::BackendEntry {
            generation: key.generation,
            index: key.index,
            backend: describe::end(entry.address, entry.port.0),
        }),
        "maglev" => super::maglev::list(&maps),
        _ => metrics(&maps),
    }
}

fn sorted<T: Ord, M: Serialize>(
    mut entries: Vec<T>,
    to_model: impl Fn(T) -> M,
) -> anyhow::Result<serde_json::Value> {
    entries.sort_unstable();
    let models: Vec<M> = entries.into_iter().map(to_model).collect();
    Ok(serde_json::to_value(models)?)
}

fn mac(bytes: [u8; 6]) -> String {
    cilium_drivers::netlink::Mac(bytes).to_string()
}

fn prefix(key: &IpcacheKey) -> String {
    let (address, length) = match Addr(key.address).ip() {
        Some(IpAddr::V4(v4)) => (v4.to_string(), key.prefix_len.saturating_sub(96)),
        Some(IpAddr::V6(v6)) => (v6.to_string(), key.prefix_len),
        None => ("::".to_owned(), key.prefix_len),
    };
    format!("{address}/{length}")
}

fn endpoints(maps: &Maps) -> anyhow::Result<serde_json::Value> {
    sorted(maps.endpoints.entries()?, |(address, entry)| model::EndpointEntry {
        ip: describe::end(address, 0),
        ifindex: entry.ifindex,
        identity: entry.identity,
        slot: entry.slot.into(),
        id: entry.id,
        mac: mac(entry.mac),
        node_mac: mac(entry.host_mac),
    })
}

/// Prefixes of blocks, by generation, direction and peer.
type Blocks = HashMap<(u32, u8, u32), String>;

fn blocks(maps: &Maps) -> anyhow::Result<Blocks> {
    let named = maps.blocks.entries()?.into_iter().filter_map(|(key, entry)| {
        let (address, length) = key.prefix();
        Some(((key.generation, u8::try_from(key.direction).ok()?, entry.peer), format!("{address}/{length}")))
    });
    Ok(named.collect())
}

fn policy(
    key: &PolicyKey,
    entry: &PolicyEntry,
    generations: &Generations,
    blocks: &Blocks,
) -> model::PolicyEntry {
    let known = generations.get(&key.generation);
    let free = PolicyKey::ONE_PORT.saturating_sub(key.prefix_len).min(16);
    let any = key.prefix_len <= PolicyKey::ANY_PORT;
    let last = key.port.0 | u16::try_from((1u32 << free) - 1).unwrap_or(u16::MAX);
    model::PolicyEntry {
        identities: known.map(|(identities, _)| identities.clone()).unwrap_or_default(),
        generation: key.generation,
        direction: if key.direction == DIRECTION_INGRESS { "Ingress" } else { "Egress" }.to_owned(),
        peer: key.peer,
        block: blocks.get(&(key.generation, key.direction, key.peer)).cloned().unwrap_or_default(),
        protocol: describe::protocol(key.protocol),
        ports: if any { (0, 0) } else { (key.port.0, last) },
        verdict: match entry.verdict {
            POLICY_ALLOW => "Allow",
            POLICY_PROXY => "Proxy",
            POLICY_NONE => "None",
            _ => "Deny",
        }
        .to_owned(),
        origins: known.and_then(|(_, cookies)| cookies.get(&entry.cookie)).cloned().unwrap_or_default(),
    }
}

fn ct(key: &CtKey, entry: &CtEntry) -> model::CtEntry {
    let low = describe::end(key.low, key.low_port.0);
    let high = describe::end(key.high, key.high_port.0);
    let by_high = entry.flags & CT_STARTED_BY_HIGH != 0;
    let (source, destination) = if by_high { (high, low) } else { (low, high) };
    let has = |flag: u16| entry.flags & flag != 0;
    let state = match () {
        () if has(CT_REFUSED) => "refused",
        () if key.protocol != 6 => "",
        () if has(CT_FIN_STARTER) || has(CT_FIN_ANSWERER) => "closing",
        () if has(CT_CONFIRMED) => "established",
        () => "syn",
    };
    model::CtEntry {
        protocol: describe::protocol(key.protocol),
        source,
        destination,
        state: state.to_owned(),
        expires_in: i64::from(entry.expires) - rustix::time::clock_gettime(ClockId::Monotonic).tv_sec,
        generations: (entry.egress_generation, entry.ingress_generation),
    }
}

fn nat(key: &NatKey, entry: &NatEntry) -> model::NatEntry {
    let local = describe::end(key.local, key.local_port.0);
    let remote = describe::end(key.remote, key.remote_port.0);
    let (direction, source, destination) = match key.direction {
        NAT_OUT => ("OUT", local, remote),
        NAT_SERVICE => ("SERVICE", remote, local),
        _ => ("IN", remote, local),
    };
    let to = describe::end(entry.to, entry.to_port.0);
    let from = (entry.from_port.0 != 0).then(|| describe::end(entry.from, entry.from_port.0));
    model::NatEntry {
        protocol: describe::protocol(key.protocol),
        direction: direction.to_owned(),
        source,
        destination,
        translated: from.map_or(to.clone(), |from| format!("{from} -> {to}")),
    }
}

fn services(maps: &Maps) -> anyhow::Result<serde_json::Value> {
    let mut backends: HashMap<u32, Vec<(u32, String)>> = HashMap::new();
    for (key, entry) in maps.backends.entries()? {
        let backend = describe::end(entry.address, entry.port.0);
        backends.entry(key.generation).or_default().push((key.index, backend));
    }
    for list in backends.values_mut() {
        list.sort_unstable();
    }
    let services = maps.services.entries()?;
    let of_two_scopes: HashSet<ServiceKey> = services
        .iter()
        .filter(|(key, _)| key.scope == SCOPE_EXTERNAL)
        .map(|(key, _)| ServiceKey { scope: SCOPE_INTERNAL, ..*key })
        .collect();
    sorted(services, |(key, entry)| model::ServiceEntry {
        frontend: frontend(&key, of_two_scopes.contains(&key)),
        generation: entry.generation,
        count: entry.count,
        backends: backends
            .get(&entry.generation)
            .into_iter()
            .flatten()
            .map(|(_, backend)| backend.clone())
            .collect(),
    })
}

/// The one of two that is for the inside has a mark, and so has one for pods that are exempt from a redirect.
pub(super) fn frontend(key: &ServiceKey, marked: bool) -> String {
    let address = key.address.ip().unwrap_or(Ipv6Addr::UNSPECIFIED.into());
    let mark = match key.scope {
        SCOPE_EXEMPT => "/exempt",
        _ if marked => "/i",
        _ => "",
    };
    format!("{}/{}{mark}", SocketAddr::new(address, key.port.0), describe::protocol(key.protocol))
}

fn metrics(maps: &Maps) -> anyhow::Result<serde_json::Value> {
    let entries: Vec<_> = maps.metrics.totals()?.into_iter().collect();
    let models: Vec<model::MetricEntry> = entries
        .into_iter()
        .filter_map(|(index, metric)| {
            let (reason, direction) = describe::metric(index)?;
            let direction = direction.to_owned();
            Some(model::MetricEntry { reason, direction, packets: metric.packets, bytes: metric.bytes })
        })
        .collect();
    Ok(serde_json::to_value(models)?)
}

/// All prefixes with their identities.
pub(super) fn ips(bpffs: &Path) -> anyhow::Result<Vec<model::IpEntry>> {
    let mut entries = Maps::open(bpffs)?.ipcache.entries()?;
    entries.sort_unstable_by_key(|(key, _)| (key.address, key.prefix_len));
    let entry = |(key, entry): (IpcacheKey, cilium_bpf::layout::IpcacheEntry)| model::IpEntry {
        cidr: prefix(&key),
        identity: entry.identity.into(),
        host_ip: describe::end(entry.tunnel, 0),
    };
    Ok(entries.into_iter().map(entry).collect())
}

/// The ring buffer of events; all zero while there is none.
pub(super) async fn monitor(bpffs: &Path) -> model::Monitor {
    let bpffs = bpffs.to_owned();
    let lost = tokio::task::spawn_blocking(move || {
        let totals = Maps::open(&bpffs).and_then(|maps| maps.metrics.totals()).unwrap_or_default();
        totals.iter().filter(|(index, _)| describe::is_lost(**index)).map(|(_, metric)| metric.packets).sum()
    });
    let pagesize = u32::try_from(rustix::param::page_size()).unwrap_or(4096);
    model::Monitor {
        cpus: std::thread::available_parallelism().map_or(1, |cpus| u32::try_from(cpus.get()).unwrap_or(1)),
        npages: RING_BYTES / pagesize,
        pagesize,
        lost: lost.await.unwrap_or(0),
        listeners: 0,
    }
}

/// Size of the ring, as `bpf/include/maps.h` has it.
const RING_BYTES: u32 = 1 << 20;

#[cfg(test)]
mod tests {
    use cilium_bpf::layout::NetPort;

    use super::*;

    #[test]
    fn masked_ports_are_shown_as_ranges() {
        let mut key = PolicyKey {
            prefix_len: 94,
            generation: 7,
            peer: 5,
            direction: 1,
            protocol: 6,
            port: NetPort(8080),
        };
        let entry = PolicyEntry { cookie: 9, verdict: POLICY_ALLOW };
        let generations = HashMap::from([(7, (vec![300], HashMap::from([(9, vec!["cnp/a/b".to_owned()])])))]);
        let blocks = Blocks::from([((7, DIRECTION_INGRESS, 0xff00_0000), "10.0.0.0/8".to_owned())]);
        let shown = policy(&key, &entry, &generations, &blocks);
        assert_eq!(shown.block, "");
        let by_address = PolicyKey { peer: 0xff00_0000, ..key };
        assert_eq!(policy(&by_address, &entry, &generations, &blocks).block, "10.0.0.0/8");
        assert_eq!(
            (shown.ports, shown.identities, shown.origins),
            ((8080, 8083), vec![300], vec!["cnp/a/b".to_owned()])
        );
        key.prefix_len = 96;
        assert_eq!(policy(&key, &entry, &generations, &blocks).ports, (8080, 8080));
        key.prefix_len = 80;
        assert_eq!(policy(&key, &entry, &generations, &blocks).ports, (0, 0));
    }

    #[test]
    fn prefixes_are_shown_in_their_own_family() {
        let key = |text: &str, length: u8| IpcacheKey::new(text.parse().expect("an address"), length);
        assert_eq!(prefix(&key("10.244.2.0", 24)), "10.244.2.0/24");
        assert_eq!(prefix(&key("fd00::", 64)), "fd00::/64");
    }

    #[test]
    fn a_connection_is_shown_from_its_starter() {
        let ip = |text: &str| Addr::from(text.parse::<IpAddr>().expect("an address"));
        let (key, high) = CtKey::new(6, (ip("10.0.0.9"), 4000), (ip("10.0.0.1"), 80));
        assert!(high);
        let entry = CtEntry { flags: CT_STARTED_BY_HIGH | CT_CONFIRMED, ..CtEntry::default() };
        let shown = ct(&key, &entry);
        assert_eq!(
            (shown.source.as_str(), shown.destination.as_str(), shown.state.as_str()),
            ("10.0.0.9:4000", "10.0.0.1:80", "established")
        );
    }
}
