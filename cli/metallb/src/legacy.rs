//! The older forms: AddressPool, and the ConfigMap of versions before there were objects.

use serde::Deserialize as _;
use serde_json::Value;

use crate::document::{At, Error, Fields};
use crate::input::{Advertisement, Input, Object, Pool, bgp, check_name, ranges, where_is};

/// Names of the fields of a pool, which differ in spelling.
struct Names {
    auto_assign: &'static str,
    avoid_buggy: &'static str,
    bgp: &'static str,
}

const OF_OBJECT: Names =
    Names { auto_assign: "autoAssign", avoid_buggy: "avoidBuggyIPs", bgp: "bgpAdvertisements" };

const OF_CONFIG: Names =
    Names { auto_assign: "auto-assign", avoid_buggy: "avoid-buggy-ips", bgp: "bgp-advertisements" };

/// Parts of the ConfigMap.
const POOLS: &str = "address-pools";
const ABOUT_BGP: [&str; 3] = ["peers", "bgp-communities", "bfd-profiles"];

/// An AddressPool.
pub(crate) fn address_pool(input: &mut Input, object: Object<'_>) -> Result<(), Error> {
    let Object { name, mut fields, mut meta, .. } = object;
    let spec = fields.inner("spec")?;
    let found = Pool { labels: meta.map("labels")?, ..pool(input, spec, &OF_OBJECT, name)? };
    input.pools.push(found);
    Ok(())
}

/// A ConfigMap is MetalLB's if its `config` has one of MetalLB's parts.
pub(crate) fn config_map(input: &mut Input, value: &Value, at: &At) -> Result<(), Error> {
    let config = at.field("data.config");
    let text = value["data"]["config"].as_str().unwrap_or_default();
    let parsed = serde_yaml::Deserializer::from_str(text).next().map(Value::deserialize);
    let parsed = match parsed.transpose() {
        Err(error) if text.contains(POOLS) => return Err(config.fail(format!("it is no YAML: {error}"))),
        Ok(Some(value @ Value::Object(_))) => value,
        _ => Value::Null,
    };
    let parts = ABOUT_BGP.iter().chain([&POOLS]);
    if !parts.into_iter().any(|part| parsed.get(part).is_some()) {
        input.pass_over(at, "it is no configuration of MetalLB");
        return Ok(());
    }
    let mut fields = Fields::of(&parsed, config)?;
    for (at, value) in fields.list(POOLS)? {
        let mut spec = Fields::of(value, at.clone())?;
        let name = spec.text("name")?.unwrap_or_default().to_owned();
        check_name(&at.field("name"), &name)?;
        input.once("AddressPool", "", &name, &at)?;
        let found = pool(input, spec, &OF_CONFIG, name)?;
        input.pools.push(found);
    }
    for part in ABOUT_BGP {
        if fields.has(part) {
            input.notes.push(bgp(&fields.at.field(part)));
        }
    }
    let at = fields.at.clone();
    input.unknown(&at, fields);
    Ok(())
}

/// A pool, with how its addresses are announced.
fn pool(input: &mut Input, mut spec: Fields<'_>, names: &Names, name: String) -> Result<Pool, Error> {
    let pool = Pool {
        at: spec.at.clone(),
        labels: [].into(),
        ranges: ranges(&mut spec, "addresses")?,
        on_request: where_is(&mut spec, names.auto_assign, false)?,
        avoids_buggy: where_is(&mut spec, names.avoid_buggy, true)?,
        allocation: None,
        name,
    };
    match spec.text("protocol")? {
        Some("layer2") => {
            input.advertisements.push(Advertisement::of(spec.at.clone(), vec![pool.name.clone()]));
        }
        Some("bgp") => {
            input.has_bgp = true;
            input.notes.push(bgp(&spec.at.field("protocol")));
        }
        other => {
            let reason = format!("{:?} is neither layer2 nor bgp", other.unwrap_or_default());
            return Err(spec.at.field("protocol").fail(reason));
        }
    }
    if spec.has(names.bgp) {
        input.notes.push(bgp(&spec.at.field(names.bgp)));
    }
    let at = spec.at.clone();
    input.unknown(&at, spec);
    Ok(pool)
}
