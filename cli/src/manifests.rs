//! Policies in manifests, read as strictly as the API server would.

use anyhow::{Context as _, bail, ensure};
use cilium_api::cluster_network_policy::ClusterNetworkPolicy;
use cilium_api::kubernetes_network_policy::NetworkPolicy;
use cilium_api::{CiliumCIDRGroup, CiliumClusterwideNetworkPolicy, CiliumNetworkPolicy};
use cilium_plan::{Kind, Object, ObjectKey};
use cilium_policy::{PolicyKey, reduce};
use kube::{Resource, ResourceExt as _};
use serde::{Deserialize as _, Serialize};
use serde_json::Value;

/// A policy that would be applied, or a group of prefixes that policies refer to.
#[derive(Clone, Debug)]
pub(crate) struct New {
    pub(crate) key: Option<PolicyKey>,
    pub(crate) object: ObjectKey,
    pub(crate) content: Object,
}

/// The policies, and groups of prefixes, in manifests. Other kinds have nothing to compare, and are passed over.
pub(crate) fn parse(text: &str, namespace: &str) -> anyhow::Result<Vec<New>> {
    let mut found = Vec::new();
    for document in serde_yaml::Deserializer::from_str(text) {
        let value = Value::deserialize(document).context("this is neither YAML nor JSON")?;
        collect(&value, namespace, &mut found)?;
    }
    Ok(found)
}

fn collect(value: &Value, namespace: &str, found: &mut Vec<New>) -> anyhow::Result<()> {
    let kind = value["kind"].as_str().unwrap_or_default().to_owned();
    check_version(&kind, value)?;
    match kind.as_str() {
        "" if value.is_null() => Ok(()),
        "" => bail!("an object has no kind"),
        "List" => {
            let mut items = value["items"].as_array().into_iter().flatten();
            items.try_for_each(|item| collect(item, namespace, found))
        }
        "CiliumNetworkPolicy" => {
            let policy: CiliumNetworkPolicy = within(Some(namespace), object(&kind, value)?);
            found.push(new(Kind::NetworkPolicy, Some(reduce::cnp_key(&policy)), policy));
            Ok(())
        }
        "NetworkPolicy" => {
            let policy: NetworkPolicy = within(Some(namespace), object(&kind, value)?);
            found.push(new(Kind::KubernetesNetworkPolicy, Some(reduce::netpol_key(&policy)), policy));
            Ok(())
        }
        "CiliumClusterwideNetworkPolicy" => {
            let policy: CiliumClusterwideNetworkPolicy = within(None, object(&kind, value)?);
            found.push(new(Kind::ClusterwideNetworkPolicy, Some(reduce::ccnp_key(&policy)), policy));
            Ok(())
        }
        "ClusterNetworkPolicy" => {
            let policy: ClusterNetworkPolicy = within(None, object(&kind, value)?);
            found.push(new(Kind::ClusterNetworkPolicy, Some(reduce::clusternetpol_key(&policy)), policy));
            Ok(())
        }
        "CiliumCIDRGroup" => {
            let group: CiliumCIDRGroup = within(None, object(&kind, value)?);
            found.push(new(Kind::CidrGroup, None, group));
            Ok(())
        }
        other => {
            let name = value["metadata"]["name"].as_str().unwrap_or_default();
            eprintln!("Passed over: {other} {name} is no policy");
            Ok(())
        }
    }
}

/// Puts an object that names no namespace into this one; without one, it is the whole cluster's whatever it says.
fn within<K: Resource>(namespace: Option<&str>, mut object: K) -> K {
    let own = object.meta_mut().namespace.take();
    object.meta_mut().namespace = namespace.map(|namespace| own.unwrap_or_else(|| namespace.to_owned()));
    object
}

/// An object of a namespace if it has one, or else of the cluster.
fn new<K: Resource + Into<Object>>(kind: Kind, key: Option<PolicyKey>, object: K) -> New {
    let name = object.name_any();
    let place = match object.namespace() {
        Some(namespace) => ObjectKey::namespaced(kind, &namespace, &name),
        None => ObjectKey::cluster(kind, &name),
    };
    New { key, object: place, content: object.into() }
}

/// Kinds that are compared, with the groups that they are of.
const KINDS: [(&str, &str); 5] = [
    ("CiliumNetworkPolicy", "cilium.io/v2"),
    ("CiliumClusterwideNetworkPolicy", "cilium.io/v2"),
    ("CiliumCIDRGroup", "cilium.io/v2"),
    ("NetworkPolicy", "networking.k8s.io/v1"),
    ("ClusterNetworkPolicy", "policy.networking.k8s.io/v1alpha2"),
];

/// The same kind of another group, or in another version, is something else.
fn check_version(kind: &str, value: &Value) -> anyhow::Result<()> {
    let Some((_, expected)) = KINDS.iter().find(|(known, _)| *known == kind) else { return Ok(()) };
    let given = value["apiVersion"].as_str().unwrap_or_default();
    let name = value["metadata"]["name"].as_str().unwrap_or_default();
    // Groups of prefixes began in v2alpha1.
    let is_known = given == *expected || (kind == "CiliumCIDRGroup" && given == "cilium.io/v2alpha1");
    ensure!(is_known, "{kind} {name} has the apiVersion {given:?}, and {expected} is compared");
    Ok(())
}

fn object<K>(kind: &str, value: &Value) -> anyhow::Result<K>
where
    K: serde::de::DeserializeOwned + Serialize,
{
    let name = value["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    ensure!(!name.is_empty(), "a {kind} has no metadata.name");
    let parsed: K = K::deserialize(value).with_context(|| format!("{kind} {name} does not parse"))?;
    let known = serde_json::to_value(&parsed).with_context(|| format!("{kind} {name} has no JSON form"))?;
    for field in ["spec", "specs"] {
        if let Some(path) = unknown_field(field, &value[field], &known[field]) {
            bail!("{kind} {name}: unknown field {path:?}");
        }
    }
    Ok(parsed)
}

/// The first field that is given and not known: the API server refuses it, and to leave it out would mean more than was written.
fn unknown_field(path: &str, given: &Value, known: &Value) -> Option<String> {
    match (given, known) {
        (Value::Object(given), Value::Object(known)) => given.iter().find_map(|(field, value)| {
            let path = format!("{path}.{field}");
            match known.get(field) {
                Some(known) => unknown_field(&path, value, known),
                None => (!is_empty(value)).then_some(path),
            }
        }),
        (Value::Array(given), Value::Array(known)) => given
            .iter()
            .zip(known)
            .enumerate()
            .find_map(|(at, (value, known))| unknown_field(&format!("{path}[{at}]"), value, known)),
        (given, Value::Null) if !is_empty(given) => Some(path.to_owned()),
        _ => None,
    }
}

/// What may be left out when it is written.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: &str = "apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: rule1}
spec: {endpointSelector: {}, ingress: [{fromEndpoints: [{matchLabels: {a: b}}], toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {}}]}]}
";

    fn refused(manifest: &str) -> String {
        parse(manifest, "x").unwrap_err().to_string()
    }

    #[test]
    fn a_list_and_other_kinds_are_read() {
        let list = format!("kind: List\nitems:\n- {}", RULE.trim_end().replace('\n', "\n  "));
        assert_eq!(parse(&list, "x").unwrap().len(), 1);
        let group = "apiVersion: cilium.io/v2\nkind: CiliumCIDRGroup\nmetadata: {name: g}\nspec: {externalCIDRs: [192.0.2.0/24]}\n";
        let stream = format!("{RULE}---\nkind: Deployment\nmetadata: {{name: d}}\n---\n{RULE}---\n{group}");
        assert_eq!(parse(&stream, "x").unwrap().len(), 3);
        assert!(parse("a: [", "x").is_err());
        assert_eq!(refused("{apiVersion: v1}"), "an object has no kind");
    }

    #[test]
    fn what_the_api_server_would_not_take_is_not_compared() {
        let typo = RULE.replace("fromEndpoints", "fromEndpoint");
        assert_eq!(
            refused(&typo),
            "CiliumNetworkPolicy rule1: unknown field \"spec.ingress[0].fromEndpoint\""
        );
        assert_eq!(
            refused(&RULE.replace("ingress:", "ingrss:")),
            "CiliumNetworkPolicy rule1: unknown field \"spec.ingrss\""
        );
        let other = RULE.replace("cilium.io/v2", "example.org/v9");
        assert!(refused(&other).contains("has the apiVersion \"example.org/v9\""), "{}", refused(&other));
    }

    #[test]
    fn every_example_has_known_fields_only() {
        for text in [
            include_str!("../../crds/api/tests/examples/deny.yaml"),
            include_str!("../../crds/api/tests/examples/l7-dns-fqdn.yaml"),
            include_str!("../../crds/api/tests/examples/l7-http.yaml"),
            include_str!("../../crds/api/tests/examples/entities-cidr.yaml"),
            include_str!("../../crds/api/tests/examples/icmp.yaml"),
            include_str!("../../crds/api/tests/examples/l4-ports.yaml"),
            include_str!("../../crds/api/tests/examples/node-selector.yaml"),
            include_str!("../../crds/api/tests/examples/specs.yaml"),
        ] {
            assert!(!parse(text, "x").unwrap().is_empty());
        }
    }
}
