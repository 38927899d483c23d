//! A loaded cluster: 1,000 policies and 2,000 services that concern nobody measured.

use anyhow::Context as _;
use cluster_tests::Namespace;
use kube::api::{Api, DynamicObject, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

const POLICIES: usize = 1_000;
const SERVICES: usize = 2_000;

/// Creates the load in a namespace of its own, which goes when the value is dropped.
pub(crate) async fn apply() -> anyhow::Result<Namespace> {
    let ns = Namespace::new("load")?;
    let client = kube::Client::try_default().await.context("no client: run through `just bench`")?;
    let cnp = ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk("cilium.io", "v2", "CiliumNetworkPolicy"),
        "ciliumnetworkpolicies",
    );
    let service = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("", "v1", "Service"), "services");
    let slice = ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk("discovery.k8s.io", "v1", "EndpointSlice"),
        "endpointslices",
    );
    create(&Api::namespaced_with(client.clone(), &ns.name, &cnp), POLICIES, policy).await?;
    create(&Api::namespaced_with(client.clone(), &ns.name, &service), SERVICES, a_service).await?;
    create(&Api::namespaced_with(client, &ns.name, &slice), SERVICES, endpoint_slice).await?;
    // Give garbage of the burst time to settle before anything is measured.
    tokio::time::sleep(std::time::Duration::from_secs(10)).await;
    Ok(ns)
}

async fn create(api: &Api<DynamicObject>, count: usize, mk: fn(usize) -> Value) -> anyhow::Result<()> {
    for index in 0..count {
        let object = serde_json::from_value(mk(index))?;
        api.create(&PostParams::default(), &object)
            .await
            .with_context(|| format!("cannot create object {index}"))?;
    }
    Ok(())
}

fn policy(index: usize) -> Value {
    json!({
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": format!("policy-{index}")},
        "spec": {
            "endpointSelector": {"matchLabels": {"app": format!("app-{index}")}},
            "ingress": [{
                "fromEndpoints": [{"matchLabels": {"app": format!("app-{}", index + 1)}}],
                "toPorts": [{"ports": [{"port": "8080", "protocol": "TCP"}]}],
            }],
            "egress": [{"toEntities": ["cluster"]}],
        },
    })
}

fn a_service(index: usize) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": format!("service-{index}")},
        "spec": {"ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
    })
}

/// Three backends outside of every pod CIDR.
fn endpoint_slice(index: usize) -> Value {
    let endpoint = |n: usize| json!({"addresses": [format!("192.0.2.{}", 1 + (index * 3 + n) % 250)]});
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": format!("service-{index}-slice"),
            "labels": {"kubernetes.io/service-name": format!("service-{index}")},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": [endpoint(0), endpoint(1), endpoint(2)],
    })
}
