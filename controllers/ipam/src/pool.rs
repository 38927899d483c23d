//! A CiliumPodIPPool, reduced to what can change an outcome.

use cilium_api::CiliumPodIPPool;
use cilium_core::{Labels, Selector};
use ipnet::IpNet;

/// A field of a pool that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct Invalid {
    /// Path of the field.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Addresses of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Family {
    /// In their order, without those that cannot be read.
    pub(crate) cidrs: Vec<IpNet>,
    /// Prefix length of a block.
    pub(crate) mask: u8,
}

impl Family {
    /// Whether a block lies in it.
    pub(crate) fn has(&self, block: IpNet) -> bool {
        self.cidrs.iter().any(|cidr| cidr.contains(&block))
    }
}

/// A pool. What cannot be read of it is left out, and the first of it is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    pub(crate) ipv4: Option<Family>,
    pub(crate) ipv6: Option<Family>,
    /// The first address of a block is for pods.
    pub(crate) allow_first: bool,
    /// The last address of a block is for pods.
    pub(crate) allow_last: bool,
    /// Pods and their namespaces that get addresses without asking; `None`: only those that ask.
    pub(crate) selectors: Option<(Selector, Selector)>,
    invalid: Option<Invalid>,
}

impl Pool {
    /// Reads a pool.
    pub fn reduce(pool: &CiliumPodIPPool) -> Self {
        let spec = &pool.spec;
        let mut invalid = None;
        let ipv4 = spec.ipv4.as_ref().map(|it| family(&it.cidrs, it.mask_size, true, &mut invalid));
        let ipv6 = spec.ipv6.as_ref().map(|it| family(&it.cidrs, it.mask_size, false, &mut invalid));
        let mut selector = |field: &str, selector: &Option<cilium_api::selector::LabelSelector>| {
            let Some(selector) = selector else { return Some(Selector::default()) };
            let parsed = Selector::parse(selector);
            let error = |error: cilium_core::selector::Error| Invalid {
                field: format!("spec.{field}.{}", error.path),
                reason: error.reason,
            };
            parsed.map_err(|found| note(&mut invalid, error(found))).ok()
        };
        let pods = selector("podSelector", &spec.pod_selector);
        let namespaces = selector("namespaceSelector", &spec.namespace_selector);
        let assigns = spec.pod_selector.is_some() || spec.namespace_selector.is_some();
        Self {
            ipv4,
            ipv6,
            allow_first: spec.allow_first_ip,
            allow_last: spec.allow_last_ip,
            selectors: pods.zip(namespaces).filter(|_| assigns),
            invalid,
        }
    }

    /// What is wrong with a pool that is about to be stored.
    ///
    /// # Errors
    /// A prefix or a selector cannot be read, or a prefix is smaller than a block.
    pub fn check(pool: &CiliumPodIPPool) -> Result<(), Invalid> {
        Self::reduce(pool).invalid.map_or(Ok(()), Err)
    }

    /// Whether pods with these labels, in a namespace with those, get addresses of this pool without asking.
    pub(crate) fn selects(&self, pod: &Labels, namespace: &Labels) -> bool {
        let selectors = self.selectors.as_ref();
        selectors.is_some_and(|(pods, namespaces)| pods.matches(pod) && namespaces.matches(namespace))
    }

    /// Its addresses of a family.
    pub(crate) fn family(&self, is_ipv4: bool) -> Option<&Family> {
        if is_ipv4 { self.ipv4.as_ref() } else { self.ipv6.as_ref() }
    }
}

fn family(cidrs: &[String], mask: u8, is_ipv4: bool, invalid: &mut Option<Invalid>) -> Family {
    let name = if is_ipv4 { "ipv4" } else { "ipv6" };
    let mut read = |(index, text): (usize, &String)| {
        let parsed = prefix(text, mask, is_ipv4);
        let field = || format!("spec.{name}.cidrs[{index}]");
        parsed.map_err(|reason| note(invalid, Invalid { field: field(), reason })).ok()
    };
    Family { cidrs: cidrs.iter().enumerate().filter_map(&mut read).collect(), mask }
}

/// Keeps the first.
fn note(first: &mut Option<Invalid>, invalid: Invalid) {
    first.get_or_insert(invalid);
}

fn prefix(text: &str, mask: u8, is_ipv4: bool) -> Result<IpNet, String> {
    let prefix: IpNet = text.parse().map_err(|_| format!("{text:?} is no prefix"))?;
    let name = if is_ipv4 { "IPv4" } else { "IPv6" };
    if prefix.addr().is_ipv4() != is_ipv4 {
        return Err(format!("{text} is no prefix of {name}"));
    }
    if mask < prefix.prefix_len() || mask > prefix.max_prefix_len() {
        return Err(format!("{text} has no block of the length {mask}, which is its maskSize"));
    }
    Ok(prefix.trunc())
}
