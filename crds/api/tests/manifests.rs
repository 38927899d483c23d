//! Manifests as users write them, and objects as the API server may return them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use cilium_api::egress::EgressPeers;
use cilium_api::icmp::IcmpType;
use cilium_api::peer::Entity;
use cilium_api::policy_status::{PolicyNodes, PolicyStatus};
use cilium_api::port::Protocol;
use cilium_api::{
    CiliumClusterwideNetworkPolicy, CiliumEndpoint, CiliumIdentity, CiliumNetworkPolicy, CiliumNode, GROUP,
    VERSION,
};
use kube_core::{DeserializeGuard, ObjectList, Resource};
use serde::{Deserialize as _, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

/// All documents of all example files, with the name of the file.
fn examples() -> Vec<(String, Value)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/examples");
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        for document in serde_yaml::Deserializer::from_str(&text) {
            found.push((path.display().to_string(), Value::deserialize(document).unwrap()));
        }
    }
    found
}

fn round_trip<T: DeserializeOwned + Serialize>(value: &Value) -> Result<Value, serde_json::Error> {
    serde_json::to_value(serde_json::from_value::<T>(value.clone())?)
}

fn round_trip_by_kind(value: &Value) -> Result<Value, serde_json::Error> {
    match value["kind"].as_str().unwrap() {
        "CiliumNetworkPolicy" => round_trip::<CiliumNetworkPolicy>(value),
        "CiliumClusterwideNetworkPolicy" => round_trip::<CiliumClusterwideNetworkPolicy>(value),
        "CiliumEndpoint" => round_trip::<CiliumEndpoint>(value),
        "CiliumIdentity" => round_trip::<CiliumIdentity>(value),
        "CiliumNode" => round_trip::<CiliumNode>(value),
        other => panic!("no type for {other}"),
    }
}

fn policy(spec: &Value) -> CiliumNetworkPolicy {
    let object = json!({"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": {"name": "p"}, "spec": spec});
    serde_json::from_value(object).unwrap()
}

#[test]
fn examples_come_back_as_they_were() {
    let mut by_kind = BTreeMap::new();
    for (file, value) in examples() {
        let back = round_trip_by_kind(&value).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert_eq!(back, value, "{file}");
        *by_kind.entry(value["kind"].as_str().unwrap().to_owned()).or_insert(0) += 1;
    }
    assert_eq!(by_kind.len(), 5, "{by_kind:?}");
    assert!(by_kind["CiliumNetworkPolicy"] >= 9, "{by_kind:?}");
}

/// Bad objects among good ones, as one answer of the API server.
#[test]
fn a_malformed_object_does_not_break_the_list() {
    let (_, good) = examples().into_iter().find(|(_, value)| value["kind"] == "CiliumNetworkPolicy").unwrap();
    let bad = |field: &str, value: Value| {
        let mut object = good.clone();
        object["metadata"]["name"] = json!(field);
        *object.pointer_mut("/spec").unwrap() = json!({"endpointSelector": {}, field: value});
        object
    };
    let items = json!([
        good,
        bad("ingress", json!("everything")),
        bad("egress", json!([{"toPorts": [{"ports": [{"port": 80}]}]}])),
        bad("ingressDeny", json!([{"icmps": [{"fields": [{}]}]}])),
        bad("egressDeny", json!([null])),
        good,
    ]);
    let list = json!({"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicyList", "metadata": {}, "items": items});
    let list: ObjectList<DeserializeGuard<CiliumNetworkPolicy>> = serde_json::from_value(list).unwrap();

    let outcome: Vec<bool> = list.items.iter().map(|item| item.0.is_ok()).collect();
    assert_eq!(outcome, [true, false, false, false, false, true]);
    for item in &list.items {
        match &item.0 {
            Ok(object) => assert_eq!(serde_json::to_value(object).unwrap(), good),
            Err(error) => assert!(error.metadata.name.is_some() && !error.error.is_empty(), "{error:?}"),
        }
    }
}

#[test]
fn another_version_of_the_api_is_refused_by_name() {
    let object =
        json!({"apiVersion": "cilium.io/v3", "kind": "CiliumNetworkPolicy", "metadata": {"name": "p"}});
    let error = serde_json::from_value::<CiliumNetworkPolicy>(object).unwrap_err().to_string();
    assert!(error.contains("cilium.io/v3") && error.contains("cilium.io/v2"), "{error}");
}

#[test]
fn absent_and_empty_lists_stay_apart() {
    let policy = policy(&json!({
        "endpointSelector": {},
        "egress": [{}, {"toEndpoints": []}, {"toEndpoints": [{}], "toPorts": []}]
    }));
    let rule = policy.spec.unwrap();
    assert_eq!(rule.ingress, None);
    let egress = rule.egress.unwrap();
    assert_eq!(egress[0].peers, EgressPeers::default());
    assert_eq!(egress[1].peers.to_endpoints, Some(vec![]));
    assert_eq!(egress[1].to_ports, None);
    assert_eq!(egress[2].peers.to_endpoints.as_ref().map(Vec::len), Some(1));
    assert_eq!(egress[2].to_ports, Some(vec![]));
}

#[test]
fn values_of_later_versions_parse_and_are_kept() {
    let spec = json!({
        "endpointSelector": {},
        "ingress": [{
            "fromEntities": ["world", "moon"],
            "fromTelepathy": [{}],
            "toPorts": [{"ports": [{"port": "1", "protocol": "QUIC"}]}]
        }]
    });
    let rule = policy(&spec).spec.unwrap();
    let ingress = &rule.ingress.unwrap()[0];
    assert_eq!(ingress.peers.from_entities, Some(vec![Entity::World, Entity::Other("moon".into())]));
    let ports = ingress.to_ports.as_ref().unwrap()[0].ports.as_ref().unwrap();
    assert_eq!(ports[0].protocol, Some(Protocol::Other("QUIC".into())));
}

#[test]
fn icmp_types_are_numbers_or_strings() {
    let spec = json!({"endpointSelector": {}, "egress": [{"icmps": [{"fields": [{"type": 0}, {"type": "EchoReply"}, {"type": "3"}]}]}]});
    let rule = policy(&spec).spec.unwrap();
    let fields = rule.egress.unwrap()[0].icmps.as_ref().unwrap()[0].fields.clone().unwrap();
    let types: Vec<IcmpType> = fields.into_iter().map(|field| field.type_).collect();
    assert_eq!(types, [IcmpType::Number(0), IcmpType::Name("EchoReply".into()), IcmpType::Name("3".into())]);
}

#[test]
fn status_repeats_its_numbers_for_the_column_and_names_at_most_five_nodes() {
    let mut status = PolicyStatus::default();
    let laggards = (0..9).map(|n| format!("node-{n}")).collect();
    status.set_nodes(PolicyNodes { needed: 12, enforcing: 3, laggards: Some(laggards) });
    assert_eq!(status.enforced.as_deref(), Some("3/12"));
    assert_eq!(status.nodes.unwrap().laggards.unwrap().len(), 5);
}

/// Names that a typed client builds its requests from.
#[test]
fn resources_have_the_paths_of_their_definitions() {
    fn path<T: Resource<DynamicType = ()>>(namespace: Option<&str>) -> String {
        assert_eq!((T::group(&()), T::version(&())), (GROUP.into(), VERSION.into()));
        T::url_path(&(), namespace)
    }
    assert_eq!(
        path::<CiliumNetworkPolicy>(Some("a")),
        "/apis/cilium.io/v2/namespaces/a/ciliumnetworkpolicies"
    );
    assert_eq!(
        path::<CiliumClusterwideNetworkPolicy>(None),
        "/apis/cilium.io/v2/ciliumclusterwidenetworkpolicies"
    );
    assert_eq!(path::<CiliumEndpoint>(Some("a")), "/apis/cilium.io/v2/namespaces/a/ciliumendpoints");
    assert_eq!(path::<CiliumIdentity>(None), "/apis/cilium.io/v2/ciliumidentities");
    assert_eq!(path::<CiliumNode>(None), "/apis/cilium.io/v2/ciliumnodes");
}

#[test]
fn a_new_object_says_what_it_is() {
    let identity = serde_json::to_value(CiliumIdentity::default()).unwrap();
    assert_eq!(
        identity,
        json!({"apiVersion": "cilium.io/v2", "kind": "CiliumIdentity", "metadata": {}, "security-labels": {}})
    );
    assert_eq!(serde_json::to_value(CiliumNode::default()).unwrap()["spec"], json!({}));
}
