//! A loaded cluster: policies and services that concern nobody measured.

use std::net::Ipv4Addr;
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use cluster_tests::Namespace;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::api::{Api, DynamicObject, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

const POLICIES: usize = 1_000;
const SERVICES: usize = 2_000;
/// Requests that the API server has at a time: more of them only wait there.
const AT_ONCE: usize = 16;
/// After so many objects there is a line.
const LINE: usize = 5_000;
/// 198.18.0.1
const FIRST_BACKEND: u32 = 0xc612_0001;

/// Creates policies and services in a namespace of its own, which goes when the value is dropped.
pub(crate) async fn apply() -> anyhow::Result<Namespace> {
    let ns = Namespace::new("load")?;
    let policies = api(&ns, "cilium.io", "v2", "CiliumNetworkPolicy", "ciliumnetworkpolicies").await?;
    create("policies", &policies, 0..POLICIES, policy).await?;
    services(&ns, 0..SERVICES).await?;
    Ok(ns)
}

/// Creates services with three backends each, by number.
pub(crate) async fn services(ns: &Namespace, numbers: Range<usize>) -> anyhow::Result<()> {
    let services = api(ns, "", "v1", "Service", "services").await?;
    let slices = api(ns, "discovery.k8s.io", "v1", "EndpointSlice", "endpointslices").await?;
    create("services", &services, numbers.clone(), a_service).await?;
    create("endpoint slices", &slices, numbers, endpoint_slice).await?;
    // Give garbage of the burst time to settle before anything is measured.
    tokio::time::sleep(Duration::from_secs(10)).await;
    Ok(())
}

async fn api(
    ns: &Namespace,
    group: &str,
    version: &str,
    kind: &str,
    plural: &str,
) -> anyhow::Result<Api<DynamicObject>> {
    let client = kube::Client::try_default().await.context("no client: run through `just bench`")?;
    let kind = GroupVersionKind::gvk(group, version, kind);
    Ok(Api::namespaced_with(client, &ns.name, &ApiResource::from_gvk_with_plural(&kind, plural)))
}

async fn create(
    what: &str,
    api: &Api<DynamicObject>,
    numbers: Range<usize>,
    mk: fn(usize) -> Value,
) -> anyhow::Result<()> {
    let begin = Instant::now();
    let count = numbers.len();
    let created = stream::iter(numbers).map(async |index| {
        let object = serde_json::from_value(mk(index))?;
        api.create(&PostParams::default(), &object)
            .await
            .with_context(|| format!("cannot create {what} {index}"))
    });
    let mut created = created.buffer_unordered(AT_ONCE);
    let mut done = 0;
    while created.try_next().await?.is_some() {
        done += 1;
        if done % LINE == 0 || done == count {
            eprintln!("  {done} of {count} {what}, {:.0} s", begin.elapsed().as_secs_f64());
        }
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

/// Three backends that no other service has, of the prefix for measurements (RFC 2544).
fn endpoint_slice(index: usize) -> Value {
    let address =
        |n: usize| u32::try_from(index * 3 + n).map_or(Ipv4Addr::UNSPECIFIED, |n| (FIRST_BACKEND + n).into());
    let endpoint = |n: usize| json!({"addresses": [Ipv4Addr::to_string(&address(n))]});
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
