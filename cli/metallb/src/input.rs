//! MetalLB's objects and Services, reduced to what is converted.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use cilium_api::selector::LabelSelector;
use cilium_services::{BGP_CLASS, L2_CLASS};
use serde_json::Value;

use crate::document::{At, Error, Fields, Source, objects};
use crate::legacy;
use crate::output::Note;
use crate::range::Range;

/// All that was given.
#[derive(Debug, Default)]
pub(crate) struct Input {
    pub(crate) pools: Vec<Pool>,
    pub(crate) advertisements: Vec<Advertisement>,
    pub(crate) services: Vec<Service>,
    /// Something brings addresses to nodes by BGP.
    pub(crate) has_bgp: bool,
    pub(crate) notes: Vec<Note>,
    pub(crate) passed_over: Vec<String>,
    /// Objects of MetalLB and Services, by kind, namespace and name.
    seen: BTreeSet<(String, String, String)>,
}

/// IPAddressPool, or one of its older forms.
#[derive(Debug)]
pub(crate) struct Pool {
    /// Its spec.
    pub(crate) at: At,
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) ranges: Vec<(At, Range)>,
    /// The field that says that only Services that ask for it get addresses.
    pub(crate) on_request: Option<At>,
    /// The field that leaves out addresses that end in .0 and .255.
    pub(crate) avoids_buggy: Option<At>,
    pub(crate) allocation: Option<Allocation>,
}

/// `spec.serviceAllocation`: Services that a pool is for.
#[derive(Debug, Default)]
pub(crate) struct Allocation {
    /// Pools with a lower one come first; 0 is none, and comes last.
    pub(crate) priority: i64,
    pub(crate) namespaces: Vec<String>,
    pub(crate) namespace_selectors: Vec<LabelSelector>,
    /// Any of them.
    pub(crate) service_selectors: Vec<LabelSelector>,
}

/// L2Advertisement, or all older pools of protocol `layer2`.
#[derive(Debug)]
pub(crate) struct Advertisement {
    pub(crate) at: At,
    /// Empty for one older pool, until all of them are put together.
    pub(crate) name: String,
    pub(crate) pools: Vec<String>,
    pub(crate) pool_selectors: Vec<LabelSelector>,
    pub(crate) service_selectors: Vec<LabelSelector>,
    pub(crate) node_selectors: Vec<LabelSelector>,
    pub(crate) interfaces: Vec<String>,
    pub(crate) prefers_nodes: bool,
}

/// A Service of type LoadBalancer.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) at: At,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) class: Option<String>,
    /// Asked for in the annotation.
    pub(crate) listed: Vec<IpAddr>,
    /// `spec.loadBalancerIP`.
    pub(crate) requested: Option<IpAddr>,
    /// Of the status.
    pub(crate) held: Vec<IpAddr>,
}

/// Kinds about BGP, all of which are unsupported.
const BGP_KINDS: [&str; 4] = ["BGPPeer", "BGPAdvertisement", "BFDProfile", "Community"];

/// Kinds that MetalLB writes itself.
const STATUS_KINDS: [&str; 4] =
    ["ServiceL2Status", "ServiceBGPStatus", "ConfigurationState", "ConfigurationStatus"];

/// Values of `loadBalancerClass` that are ours.
const OWN_CLASSES: [&str; 2] = [L2_CLASS, BGP_CLASS];

/// What belongs to one object.
pub(crate) struct Object<'a> {
    pub(crate) at: At,
    pub(crate) name: String,
    pub(crate) fields: Fields<'a>,
    pub(crate) meta: Fields<'a>,
}

impl Input {
    /// Reads all files. `namespace` is that of Services that name none.
    pub(crate) fn read(sources: &[Source<'_>], namespace: &str) -> Result<Self, Error> {
        let mut input = Self::default();
        for source in sources {
            for (place, value) in objects(source)? {
                input.object(&place, &value, namespace)?;
            }
        }
        if input.seen.is_empty() {
            return Err(Error::Nothing);
        }
        input.combine_legacy();
        Ok(input)
    }

    fn object(&mut self, place: &str, value: &Value, namespace: &str) -> Result<(), Error> {
        let unnamed = At::root(place, "an object");
        let mut fields = Fields::of(value, unnamed.clone())?;
        let version = fields.text("apiVersion")?.unwrap_or_default();
        let kind = fields.text("kind")?.unwrap_or_default();
        if kind.is_empty() {
            return Err(unnamed.field("kind").fail("it is missing"));
        }
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        let name = value["metadata"]["name"].as_str().unwrap_or_default();
        let at = match (group, kind) {
            ("", "Service") => {
                let namespace = value["metadata"]["namespace"].as_str().unwrap_or(namespace);
                At::root(place, &format!("Service {namespace}/{name}"))
            }
            _ => At::root(place, &format!("{kind} {name}")),
        };
        match (group, kind) {
            ("metallb.io", _) => self.metallb(kind, version, open(value, at)?),
            ("", "Service") => self.service(open(value, at)?, namespace),
            ("", "ConfigMap") => legacy::config_map(self, value, &at),
            _ => {
                self.pass_over(&at, "it is none of MetalLB's");
                Ok(())
            }
        }
    }

    fn metallb(&mut self, kind: &str, version: &str, object: Object<'_>) -> Result<(), Error> {
        if STATUS_KINDS.contains(&kind) {
            self.pass_over(&object.at, "MetalLB writes it itself");
            return Ok(());
        }
        if !["v1alpha1", "v1beta1", "v1beta2"].contains(&version) {
            let reason = format!("{version:?} is not known; v1beta1 and v1beta2 are read");
            return Err(object.at.field("apiVersion").fail(reason));
        }
        self.once(kind, "", &object.name, &object.at)?;
        match kind {
            "IPAddressPool" => self.pool(object),
            "L2Advertisement" => self.advertisement(object),
            "AddressPool" => legacy::address_pool(self, object),
            kind if BGP_KINDS.contains(&kind) => {
                self.has_bgp |= kind == "BGPAdvertisement";
                self.notes.push(bgp(&object.at));
                Ok(())
            }
            _ => {
                let meaning = "this kind is not known to the converter";
                self.notes.push(Note::new(
                    &object.at,
                    meaning,
                    "see what it does with MetalLB, and whether you need it",
                ));
                Ok(())
            }
        }
    }

    /// Two objects with one name are a mistake: nobody knows which is meant.
    pub(crate) fn once(&mut self, kind: &str, namespace: &str, name: &str, at: &At) -> Result<(), Error> {
        let key = (kind.to_owned(), namespace.to_owned(), name.to_owned());
        if self.seen.insert(key) { Ok(()) } else { Err(at.fail("there is another one with this name")) }
    }

    pub(crate) fn pass_over(&mut self, at: &At, why: &str) {
        self.passed_over.push(format!("{}: {} ({why})", at.place(), at.object));
    }

    fn pool(&mut self, object: Object<'_>) -> Result<(), Error> {
        let Object { name, mut fields, mut meta, .. } = object;
        let mut spec = fields.inner("spec")?;
        let allocation =
            spec.has("serviceAllocation").then(|| spec.inner("serviceAllocation")).transpose()?;
        let pool = Pool {
            name,
            labels: meta.map("labels")?,
            ranges: ranges(&mut spec, "addresses")?,
            on_request: where_is(&mut spec, "autoAssign", false)?,
            avoids_buggy: where_is(&mut spec, "avoidBuggyIPs", true)?,
            allocation: allocation.map(|fields| self.allocation(fields)).transpose()?,
            at: spec.at.clone(),
        };
        self.unknown(&pool.at, spec);
        self.pools.push(pool);
        Ok(())
    }

    fn allocation(&mut self, mut fields: Fields<'_>) -> Result<Allocation, Error> {
        let namespaces = fields.texts("namespaces")?;
        for (at, namespace) in &namespaces {
            check_namespace(at, namespace)?;
        }
        let allocation = Allocation {
            priority: fields.number("priority")?.unwrap_or_default(),
            namespaces: namespaces.into_iter().map(|(_, name)| name.to_owned()).collect(),
            namespace_selectors: fields.selectors("namespaceSelectors")?,
            service_selectors: fields.selectors("serviceSelectors")?,
        };
        let at = fields.at.clone();
        self.unknown(&at, fields);
        Ok(allocation)
    }

    fn advertisement(&mut self, object: Object<'_>) -> Result<(), Error> {
        let Object { at, name, mut fields, .. } = object;
        let mut spec = fields.inner("spec")?;
        let texts = |list: Vec<(At, &str)>| list.into_iter().map(|(_, text)| text.to_owned()).collect();
        let found = Advertisement {
            at: at.clone(),
            name,
            pools: texts(spec.texts("ipAddressPools")?),
            pool_selectors: spec.selectors("ipAddressPoolSelectors")?,
            service_selectors: spec.selectors("serviceSelectors")?,
            node_selectors: spec.selectors("nodeSelectors")?,
            interfaces: texts(spec.texts("interfaces")?),
            prefers_nodes: !spec.list("preferredNodeSelectors")?.is_empty(),
        };
        self.unknown(&at, spec);
        self.advertisements.push(found);
        Ok(())
    }

    fn service(&mut self, mut object: Object<'_>, namespace: &str) -> Result<(), Error> {
        let namespace = object.meta.text("namespace")?.unwrap_or(namespace);
        check_namespace(&object.meta.at.field("namespace"), namespace)?;
        self.once("Service", namespace, &object.name, &object.at)?;
        let Object { at, name, mut fields, mut meta } = object;
        let mut spec = fields.inner("spec")?;
        let annotations = meta.map("annotations")?;
        if spec.text("type")? != Some("LoadBalancer") {
            // A cluster is full of them.
            if annotations.keys().any(|key| suffix(key).is_some()) {
                self.pass_over(&at, "its type is not LoadBalancer");
            }
            return Ok(());
        }
        let requested = spec.text("loadBalancerIP")?.filter(|text| !text.is_empty());
        let requested = requested.map(|text| address(&spec.at.field("loadBalancerIP"), text)).transpose()?;
        let mut status = fields.inner("status")?.inner("loadBalancer")?;
        let service = Service {
            labels: meta.map("labels")?,
            listed: listed(&meta.at.field("annotations"), &annotations)?,
            class: spec.text("loadBalancerClass")?.map(str::to_owned),
            held: held(&mut status)?,
            namespace: namespace.to_owned(),
            at,
            name,
            annotations,
            requested,
        };
        if service.is_metallbs() {
            self.services.push(service);
        } else {
            self.pass_over(&service.at, "its class is another controller's");
        }
        Ok(())
    }

    /// Names fields of which nothing is known here.
    pub(crate) fn unknown(&mut self, at: &At, fields: Fields<'_>) {
        for path in fields.rest() {
            let at = at.with_path(path);
            let advice = "see what it does with MetalLB, and whether you need it";
            self.notes.push(Note::new(&at, "the converter does not know this field; it is left out", advice));
        }
    }

    /// Older pools are announced by what they say themselves: one advertisement for all of them.
    fn combine_legacy(&mut self) {
        let all = std::mem::take(&mut self.advertisements).into_iter();
        let (legacy, others): (Vec<_>, Vec<_>) = all.partition(|advertisement| advertisement.name.is_empty());
        self.advertisements = others;
        let Some(first) = legacy.first() else { return };
        let place = first.at.place().to_owned();
        let pools: Vec<String> = legacy.into_iter().flat_map(|advertisement| advertisement.pools).collect();
        let at = At::root(&place, &format!("Protocol layer2 of {}", pools.join(", ")));
        self.advertisements.push(Advertisement { name: "layer2".to_owned(), ..Advertisement::of(at, pools) });
    }
}

impl Advertisement {
    /// From all nodes and interfaces. It has no name.
    pub(crate) fn of(at: At, pools: Vec<String>) -> Self {
        Self {
            at,
            name: String::new(),
            pools,
            pool_selectors: Vec::new(),
            service_selectors: Vec::new(),
            node_selectors: Vec::new(),
            interfaces: Vec::new(),
            prefers_nodes: false,
        }
    }
}

impl Service {
    /// Without a class, a Service is MetalLB's; with one that is not ours, if it has a trace of MetalLB.
    fn is_metallbs(&self) -> bool {
        match self.class.as_deref() {
            None => true,
            Some(class) => {
                !OWN_CLASSES.contains(&class) && self.annotations.keys().any(|key| suffix(key).is_some())
            }
        }
    }
}

/// What there is to say of everything about BGP.
pub(crate) fn bgp(at: &At) -> Note {
    let meaning = "BGP is not converted, and this version does not speak it";
    Note::new(at, meaning, "keep MetalLB for what has to come to nodes by BGP, or bring it there by routes")
}

/// An object with a name that can stand in a command.
fn open(value: &Value, at: At) -> Result<Object<'_>, Error> {
    let mut fields = Fields::of(value, at.clone())?;
    let mut meta = fields.inner("metadata")?;
    let name = meta.text("name")?.unwrap_or_default().to_owned();
    check_name(&meta.at.field("name"), &name)?;
    Ok(Object { at, name, fields, meta })
}

/// Names of objects are DNS subdomains (Kubernetes, "Object Names and IDs").
pub(crate) fn check_name(at: &At, name: &str) -> Result<(), Error> {
    let is_end = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let is_inner = |c: char| is_end(Some(c)) || matches!(c, '-' | '.');
    if is_end(name.chars().next())
        && is_end(name.chars().last())
        && name.chars().all(is_inner)
        && name.len() <= 253
    {
        return Ok(());
    }
    Err(at.fail(format!("{name:?} is no name of an object: small letters, digits, - and . are allowed")))
}

/// Names of namespaces are DNS labels: no dot, and not longer than the value of a label.
fn check_namespace(at: &At, name: &str) -> Result<(), Error> {
    check_name(at, name)?;
    if name.len() > 63 || name.contains('.') {
        return Err(
            at.fail(format!("{name:?} is no name of a namespace: at most 63 characters, without dots"))
        );
    }
    Ok(())
}

/// The field, if it has this value.
pub(crate) fn where_is(
    fields: &mut Fields<'_>,
    name: &'static str,
    value: bool,
) -> Result<Option<At>, Error> {
    Ok(fields.flag(name)?.filter(|flag| *flag == value).map(|_| fields.at.field(name)))
}

/// There is at least one.
pub(crate) fn ranges(fields: &mut Fields<'_>, name: &'static str) -> Result<Vec<(At, Range)>, Error> {
    let texts = fields.texts(name)?;
    if texts.is_empty() {
        return Err(fields.at.field(name).fail("a pool needs addresses"));
    }
    texts
        .into_iter()
        .map(|(at, text)| Ok((at.clone(), Range::parse(text).map_err(|it| at.fail(it))?)))
        .collect()
}

fn address(at: &At, text: &str) -> Result<IpAddr, Error> {
    let parsed = text.trim().parse::<IpAddr>();
    parsed.map(|it| it.to_canonical()).map_err(|_| at.fail(format!("{text:?} is no IP address")))
}

/// Prefixes of MetalLB's annotations; the first wins.
const PREFIXES: [&str; 2] = ["metallb.io/", "metallb.universe.tf/"];

/// Name of an annotation of MetalLB without its prefix; `None` for others.
pub(crate) fn suffix(key: &str) -> Option<&str> {
    PREFIXES.iter().find_map(|prefix| key.strip_prefix(prefix))
}

/// Key and value of one of MetalLB's annotations.
pub(crate) fn annotation<'a>(
    annotations: &'a BTreeMap<String, String>,
    name: &str,
) -> Option<(String, &'a str)> {
    PREFIXES.iter().find_map(|prefix| {
        let key = format!("{prefix}{name}");
        annotations.get(&key).map(|value| (key, value.as_str()))
    })
}

fn listed(at: &At, annotations: &BTreeMap<String, String>) -> Result<Vec<IpAddr>, Error> {
    let Some((key, list)) = annotation(annotations, "loadBalancerIPs").filter(|(_, list)| !list.is_empty())
    else {
        return Ok(Vec::new());
    };
    list.split(',').map(|text| address(&at.entry(&key), text)).collect()
}

/// Addresses in the status; hostnames are of no interest.
fn held(status: &mut Fields<'_>) -> Result<Vec<IpAddr>, Error> {
    let mut found = Vec::new();
    for (at, value) in status.list("ingress")? {
        if let Some(text) = Fields::of(value, at.clone())?.text("ip")? {
            found.push(address(&at.field("ip"), text)?);
        }
    }
    Ok(found)
}
