//! What a Service says and nobody can follow: users are told, as nothing else shows it.

use cilium_api::slim;
use ipnet::IpNet;

use crate::reduce::{ALGORITHM, FORWARDING, RANGES_POLICY, TYPE, annotation, source_range_texts};

/// Values of annotations that mean something.
const KNOWN: [(&str, &[&str]); 4] = [
    (ALGORITHM, &["random", "maglev"]),
    (FORWARDING, &["snat", "dsr"]),
    (RANGES_POLICY, &["allow", "deny"]),
    (TYPE, &["ClusterIP", "NodePort", "LoadBalancer"]),
];

/// One sentence for each thing that cannot be read, with what happens instead.
pub(crate) fn complaints(service: &slim::Service) -> Box<[String]> {
    let values = KNOWN.into_iter().filter_map(|(name, known)| {
        let value = annotation(service, name).filter(|value| !known.contains(value))?;
        let known = known.join(" or ");
        Some(format!(
            "annotation {name} is {value:?}: expected is {known}; it is served as without the annotation"
        ))
    });
    let ranges = source_range_texts(&service.spec).filter(|text| text.parse::<IpNet>().is_err());
    let ranges =
        ranges.map(|text| format!("loadBalancerSourceRanges: {text:?} is no prefix; it is passed over"));
    values.chain(ranges).collect()
}
