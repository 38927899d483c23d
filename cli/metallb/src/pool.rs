//! IPAddressPool to CiliumLoadBalancerIPPool.

use std::collections::BTreeMap;
use std::net::IpAddr;

use cilium_api::CiliumLoadBalancerIPPool;
use cilium_api::load_balancer_pool::{LoadBalancerPoolSpec, PoolBlock};
use cilium_api::selector::LabelSelector;
use cilium_services::NAMESPACE_LABEL;
use kube_core::ObjectMeta;
use serde_json::Value;

use crate::document::{At, Error};
use crate::input::{self, Allocation, Input};
use crate::output::Note;
use crate::range::Range;
use crate::selector::{all_of, any_of, is_empty, label, one_of};

/// Label that a Service needs for an address of a pool that gives none unasked. Its value is the pool's name.
pub(crate) const POOL_LABEL: &str = "ip-pool";

/// Most blocks that a range is cut into to leave out .0 and .255. A pool of so many is still readable.
const MAX_PARTS: u128 = 256;

/// Longest value of a label (Kubernetes, "Labels and Selectors").
const MAX_LABEL: usize = 63;

/// A pool of ours.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) name: String,
    labels: BTreeMap<String, String>,
    ranges: Vec<Range>,
    /// Services that it is for, as far as that can be said.
    pub(crate) selector: LabelSelector,
    /// Services need [`POOL_LABEL`].
    pub(crate) is_labelled: bool,
    is_disabled: bool,
    pub(crate) notes: Vec<Note>,
}

/// All pools, in the order in which they are to be created: the oldest gives first.
///
/// # Errors
/// Two pools have a name or an address in common.
pub(crate) fn convert(input: &Input) -> Result<Vec<Pool>, Error> {
    check(&input.pools)?;
    let mut sorted: Vec<&input::Pool> = input.pools.iter().collect();
    sorted.sort_by_key(|pool| rank(pool));
    Ok(sorted.into_iter().map(|pool| Pool::of(pool, input.pools.len() > 1)).collect())
}

/// Pools with a priority come first, the lowest number before others, then those for certain Services, then the rest.
fn rank(pool: &input::Pool) -> (u8, i64) {
    match &pool.allocation {
        Some(allocation) if allocation.priority > 0 => (0, allocation.priority),
        Some(_) => (1, 0),
        None => (2, 0),
    }
}

fn check(pools: &[input::Pool]) -> Result<(), Error> {
    for (index, pool) in pools.iter().enumerate() {
        if pools[..index].iter().any(|other| other.name == pool.name) {
            return Err(pool.at.fail(format!("there is another pool with the name {}", pool.name)));
        }
    }
    let all = pools.iter().flat_map(|pool| pool.ranges.iter().map(move |(at, range)| (pool, at, range)));
    let all: Vec<_> = all.collect();
    for (index, (_, at, range)) in all.iter().enumerate() {
        if let Some((pool, _, other)) = all[..index].iter().find(|(_, _, other)| other.meets(range)) {
            let reason = format!("{range} and {other} of pool {} have addresses in common", pool.name);
            return Err(at.fail(reason));
        }
    }
    Ok(())
}

impl Pool {
    fn of(pool: &input::Pool, has_others: bool) -> Self {
        let mut found = Self {
            name: pool.name.clone(),
            labels: pool.labels.clone(),
            ranges: pool.ranges.iter().map(|(_, range)| *range).collect(),
            selector: LabelSelector::default(),
            is_labelled: false,
            is_disabled: false,
            notes: Vec::new(),
        };
        found.avoid_buggy(pool);
        if let Some(allocation) = &pool.allocation {
            found.allocate(pool, allocation, has_others);
        }
        found.on_request(pool);
        found
    }

    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        self.ranges.iter().any(|range| range.contains(address))
    }

    fn avoid_buggy(&mut self, pool: &input::Pool) {
        let Some(at) = &pool.avoids_buggy else { return };
        if self.ranges.iter().map(Range::parts).sum::<u128>() > MAX_PARTS {
            let meaning = "the pool is too large to leave out each .0 and .255, so Services get these, too \
                (allowFirstLastIPs: \"No\" leaves out only the two ends of a whole prefix)";
            self.notes.push(Note::new(
                at,
                meaning,
                "use a smaller pool, or see whether clients still cannot reach such addresses",
            ));
            return;
        }
        self.ranges = self.ranges.iter().flat_map(Range::without_buggy).collect();
        if self.ranges.is_empty() {
            self.notes.push(Note::new(
                at,
                "all addresses of the pool end in .0 or .255, so none is left",
                "leave the pool out",
            ));
        }
    }

    fn allocate(&mut self, pool: &input::Pool, allocation: &Allocation, has_others: bool) {
        let at = pool.at.field("serviceAllocation");
        if has_others {
            let meaning = "MetalLB prefers this pool for its Services, by priority; here the oldest pool gives first, then by name";
            self.notes.push(Note::new(&at, meaning, "create pools one after another in the order of the output, a second apart, or give the others a serviceSelector"));
        }
        self.namespaces(&at.field("namespaceSelectors"), allocation);
        self.services(&at.field("serviceSelectors"), allocation);
    }

    fn namespaces(&mut self, at: &At, allocation: &Allocation) {
        if !allocation.namespaces.is_empty() {
            self.selector = one_of(NAMESPACE_LABEL, allocation.namespaces.clone());
        }
        if allocation.namespace_selectors.is_empty() {
            return;
        }
        self.is_disabled |= allocation.namespaces.is_empty();
        let what = if self.is_disabled { "is disabled" } else { "is for those that are named" };
        let meaning =
            format!("namespaces can be selected by their names only, not by labels; the pool {what}");
        let advice = format!(
            "write the names into spec.serviceSelector, as values of {NAMESPACE_LABEL} (kubectl get namespaces -l …), and enable it"
        );
        self.notes.push(Note::new(at, meaning, advice));
    }

    fn services(&mut self, at: &At, allocation: &Allocation) {
        let alternatives = any_of(&allocation.service_selectors);
        if let [one] = alternatives.as_slice() {
            self.selector = all_of([&self.selector, one]);
            return;
        }
        self.is_disabled = true;
        let meaning = format!(
            "{} selectors of which one has to match cannot be said in one; the pool is disabled",
            alternatives.len()
        );
        let advice = "give all these Services a label of their own, select it in spec.serviceSelector, and enable the pool";
        self.notes.push(Note::new(at, meaning, advice));
    }

    /// `autoAssign: false`.
    fn on_request(&mut self, pool: &input::Pool) {
        let Some(at) = &pool.on_request else { return };
        if pool.name.len() > MAX_LABEL {
            self.is_disabled = true;
            let meaning = "a pool cannot wait to be asked for; it is disabled, as its name is too long for a label to select Services by";
            self.notes.push(Note::new(
                at,
                meaning,
                "select the Services that ask for it by a label in spec.serviceSelector, and enable it",
            ));
            return;
        }
        self.selector = all_of([&self.selector, &label(POOL_LABEL, &pool.name)]);
        self.is_labelled = true;
        let meaning = format!(
            "a pool cannot wait to be asked for; it is for Services with the label {POOL_LABEL}={}",
            pool.name
        );
        let advice = "set the label on Services that ask for the pool or for one of its addresses; commands for those that were given are in the output";
        self.notes.push(Note::new(at, meaning, advice));
    }

    /// The object as it is printed.
    pub(crate) fn object(&self) -> Value {
        let blocks: Vec<PoolBlock> = self.ranges.iter().map(Range::block).collect();
        let spec = LoadBalancerPoolSpec {
            service_selector: (!is_empty(&self.selector)).then(|| self.selector.clone()),
            blocks: Some(blocks),
            disabled: self.is_disabled,
            ..LoadBalancerPoolSpec::default()
        };
        let metadata = ObjectMeta {
            name: Some(self.name.clone()),
            labels: (!self.labels.is_empty()).then(|| self.labels.clone()),
            ..ObjectMeta::default()
        };
        let pool = CiliumLoadBalancerIPPool { metadata, spec, ..CiliumLoadBalancerIPPool::default() };
        let mut value = serde_json::to_value(pool).expect("pools are plain data");
        if let (false, Some(spec)) = (self.is_disabled, value["spec"].as_object_mut()) {
            // It says nothing.
            spec.remove("disabled");
        }
        value
    }
}
