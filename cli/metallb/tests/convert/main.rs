//! Objects of MetalLB, and what becomes of them, word for word.

#![expect(clippy::unwrap_used, reason = "a test that meets the unexpected ends")]

mod policies;
mod pools;
mod reports;
mod services;

use cilium_api::CiliumLoadBalancerIPPool;
use cilium_metallb::{Converted, Options, Source, convert};
use serde_json::Value;

fn mk_options() -> Options {
    Options { namespace: "default".to_owned(), ..Options::default() }
}

fn run(text: &str, options: &Options) -> Converted {
    let converted = convert(&[Source { name: "in.yaml", text }], options).unwrap();
    converted.objects.iter().for_each(check_object);
    converted
}

/// Our operator takes it.
fn check_object(object: &Value) {
    if object["kind"] == "CiliumLoadBalancerIPPool" {
        let pool: CiliumLoadBalancerIPPool = serde_json::from_value(object.clone()).unwrap();
        cilium_lbipam::Pool::check(&pool).unwrap();
        let known = serde_json::to_value(&pool).unwrap();
        let fields = object["spec"].as_object().unwrap();
        assert!(fields.iter().all(|(name, value)| known["spec"][name] == *value), "{object}");
        return;
    }
    assert_eq!(
        (&object["apiVersion"], &object["kind"]),
        (&"cilium.io/v2alpha1".into(), &"CiliumL2AnnouncementPolicy".into())
    );
    let fields = ["interfaces", "loadBalancerIPs", "nodeSelector", "serviceSelector"];
    assert!(
        object["spec"].as_object().unwrap().keys().all(|name| fields.contains(&name.as_str())),
        "{object}"
    );
}

/// Objects, one a line: kind, name, spec.
fn objects(converted: &Converted) -> Vec<String> {
    let line = |it: &Value| {
        let kind = if it["kind"] == "CiliumLoadBalancerIPPool" { "pool" } else { "policy" };
        format!("{kind} {} {}", it["metadata"]["name"].as_str().unwrap(), it["spec"])
    };
    converted.objects.iter().map(line).collect()
}

/// Objects and fields of the notes.
fn noted(converted: &Converted) -> Vec<String> {
    converted
        .notes
        .iter()
        .map(|note| format!("{} {}", note.object, note.field).trim_end().to_owned())
        .collect()
}

fn meaning(converted: &Converted, field: &str) -> String {
    converted.notes.iter().find(|note| note.field == field).unwrap().meaning.clone()
}

fn mk_pool(name: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: metallb.io/v1beta1, kind: IPAddressPool, metadata: {{name: {name}, namespace: metallb-system, labels: {{pool: {name}}}}}, spec: {{{spec}}}}}\n---\n"
    )
}

fn mk_advertisement(spec: &str) -> String {
    format!(
        "{{apiVersion: metallb.io/v1beta1, kind: L2Advertisement, metadata: {{name: lan, namespace: metallb-system}}, spec: {{{spec}}}}}\n---\n"
    )
}

fn mk_service(annotations: &str, spec: &str, address: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: web, namespace: shop, annotations: {{{annotations}}}}}, spec: {{type: LoadBalancer, {spec}}}, status: {{loadBalancer: {{ingress: [{address}]}}}}}}\n---\n"
    )
}

const A: &str = "addresses: [192.0.2.16/28]";
const B: &str = "addresses: [198.51.100.16/28]";

/// All nodes but those that Kubernetes excludes.
const NODES: &str = r#""nodeSelector":{"matchExpressions":[{"key":"node.kubernetes.io/exclude-from-external-load-balancers","operator":"DoesNotExist"}]}"#;

fn converted(texts: &[String]) -> Converted {
    run(&texts.concat(), &mk_options())
}
