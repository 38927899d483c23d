//! CiliumBGPAdvertisement, reduced.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use cilium_api::CiliumBGPAdvertisement;
use cilium_api::bgp::BgpAdvertisement;
use cilium_api::bgp_advertisement::{
    AdvertisedService, AdvertisementType, BgpAdvertised, BgpCommunities, ServiceAddressType,
};
use cilium_core::{Label, Labels, Selector};
use ipnet::IpNet;

use crate::fault::{Fault, selector};

/// Prefixes of several kinds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertisement {
    /// What CiliumBGPPeerConfigs select it by.
    pub(crate) labels: Labels,
    /// In the order of the object.
    pub(crate) places: Vec<Place>,
    faults: Vec<Fault>,
}

/// Prefixes of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Its name for nodes: `name/place`.
    pub(crate) id: Arc<str>,
    pub(crate) source: Source,
    /// What goes with them.
    pub(crate) attributes: BgpAdvertisement,
}

/// Where prefixes come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// From prefixes of nodes.
    PodCidr,
    /// From blocks that nodes have of pools, by the labels of these; `None` selects none.
    PodPools(Option<Selector>),
    /// From Services.
    Services(Services),
    /// From a device, which is for the node to look at; or from nothing.
    Other,
}

/// Which addresses of which Services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Services {
    /// `None` selects none.
    pub(crate) selector: Option<Selector>,
    pub(crate) load_balancer: bool,
    pub(crate) cluster: bool,
    pub(crate) external: bool,
    /// Lengths of prefixes that addresses go into.
    ipv4: u8,
    ipv6: u8,
}

impl Services {
    fn reduce(it: &AdvertisedService, selector: Option<Selector>) -> Self {
        let has = |wanted: ServiceAddressType| it.addresses.contains(&wanted);
        let length = |given: Option<i32>, whole: u8| {
            given
                .and_then(|length| u8::try_from(length).ok())
                .filter(|length| *length < whole)
                .unwrap_or(whole)
        };
        Self {
            selector,
            load_balancer: has(ServiceAddressType::LoadBalancer),
            cluster: has(ServiceAddressType::Cluster),
            external: has(ServiceAddressType::External),
            ipv4: length(it.aggregation_length_ipv4, 32),
            ipv6: length(it.aggregation_length_ipv6, 128),
        }
    }

    pub(crate) fn selects(&self, labels: &Labels) -> bool {
        self.selector.as_ref().is_some_and(|selector| selector.matches(labels))
    }

    /// The prefix that an address goes into.
    pub(crate) fn aggregate(&self, address: IpAddr) -> IpNet {
        let length = if address.is_ipv4() { self.ipv4 } else { self.ipv6 };
        IpNet::new(address, length).map_or_else(|_| IpNet::from(address), |prefix| prefix.trunc())
    }
}

impl Advertisement {
    /// Reads an object.
    pub fn reduce(object: &CiliumBGPAdvertisement) -> Self {
        let meta = &object.metadata;
        let labels = meta.labels.iter().flatten().map(|(key, value)| Label::k8s(key, value));
        let name = meta.name.as_deref().unwrap_or_default();
        let mut faults = Vec::new();
        let places = object.spec.advertisements.iter().enumerate();
        let places = places.map(|(at, it)| place(name, at, it, &mut faults)).collect();
        Self { labels: labels.collect(), places, faults }
    }

    /// What of it is not put in force.
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }

    /// What a user will hardly have meant, as sentences.
    pub fn advice(&self) -> Vec<String> {
        let unselected = |place: &Place| match &place.source {
            Source::Services(it) if it.selector.is_none() => Some("Service"),
            Source::PodPools(None) => Some("pool"),
            _ => None,
        };
        let all = self.places.iter().enumerate();
        let all =
            all.filter_map(|(at, place)| Some((format!("spec.advertisements[{at}]"), unselected(place)?)));
        let told =
            all.filter(|(path, _)| !self.faults.iter().any(|fault| fault.path.starts_with(path.as_str())));
        told.map(|(path, what)| format!("{path} advertises nothing: without selector it selects no {what}"))
            .collect()
    }
}

fn place(name: &str, at: usize, it: &BgpAdvertised, faults: &mut Vec<Fault>) -> Place {
    let path = format!("spec.advertisements[{at}]");
    let selector = selector(&format!("{path}.selector"), it.selector.as_ref(), faults);
    let mut attributes = BgpAdvertisement::default();
    if let Some(given) = &it.attributes {
        let path = format!("{path}.attributes");
        if let Some(communities) = &given.communities {
            read_communities(&format!("{path}.communities"), communities, &mut attributes, faults);
        }
        attributes.local_preference = given.local_preference.and_then(|number| {
            let number = u32::try_from(number).ok();
            if number.is_none() {
                let reason = "a local preference is one of 0 to 4294967295";
                faults.push(Fault::malformed(format!("{path}.localPreference"), reason));
            }
            number
        });
    }
    let source = match (&it.advertisement_type, &it.service) {
        (AdvertisementType::PodCidr, _) => Source::PodCidr,
        (AdvertisementType::Service, Some(service)) => Source::Services(Services::reduce(service, selector)),
        (AdvertisementType::Service, None) => {
            faults.push(Fault::malformed(path, "the type Service needs service.addresses"));
            Source::Other
        }
        (AdvertisementType::Interface, _) => {
            attributes.interface =
                it.interface.as_ref().map(|it| it.name.clone()).filter(|name| !name.is_empty());
            if attributes.interface.is_none() {
                faults.push(Fault::malformed(path, "the type Interface needs interface.name"));
            }
            Source::Other
        }
        (AdvertisementType::PodIpPool, _) => Source::PodPools(selector),
        (AdvertisementType::Other(kind), _) => {
            faults.push(Fault::unsupported(path, format!("the type {kind} is not supported")));
            Source::Other
        }
    };
    Place { id: format!("{name}/{at}").into(), source, attributes }
}

/// Reads communities of all sorts; those that cannot be read are left out.
fn read_communities(
    path: &str,
    given: &BgpCommunities,
    attributes: &mut BgpAdvertisement,
    faults: &mut Vec<Fault>,
) {
    let mut communities = BTreeSet::new();
    for (at, text) in given.standard.iter().flatten().enumerate() {
        match standard(text) {
            Some(number) => drop(communities.insert(number)),
            None => faults.push(Fault::malformed(
                format!("{path}.standard[{at}]"),
                format!(
                    "{text:?} is neither a number up to 4294967295 nor two up to 65535 with a colon between"
                ),
            )),
        }
    }
    for (at, name) in given.well_known.iter().flatten().enumerate() {
        match name.number() {
            Some(number) => drop(communities.insert(number)),
            None => faults.push(Fault::unsupported(
                format!("{path}.wellKnown[{at}]"),
                format!("{name} is not among the well-known communities"),
            )),
        }
    }
    let mut large_communities = BTreeSet::new();
    for (at, text) in given.large.iter().flatten().enumerate() {
        match large(text) {
            Some(numbers) => drop(large_communities.insert(numbers)),
            None => faults.push(Fault::malformed(
                format!("{path}.large[{at}]"),
                format!("{text:?} is not three numbers up to 4294967295 with colons between"),
            )),
        }
    }
    attributes.communities = communities.into_iter().collect();
    attributes.large_communities = large_communities.into_iter().collect();
}

fn standard(text: &str) -> Option<u32> {
    match text.split_once(':') {
        None => number(text),
        Some((high, low)) => {
            let half = |text| number(text).and_then(|it| u16::try_from(it).ok()).map(u32::from);
            Some(half(high)? << 16 | half(low)?)
        }
    }
}

fn large(text: &str) -> Option<(u32, u32, u32)> {
    let mut numbers = text.split(':').map(number);
    let all = (numbers.next()??, numbers.next()??, numbers.next()??);
    numbers.next().is_none().then_some(all)
}

/// Digits only, no sign.
fn number(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}
