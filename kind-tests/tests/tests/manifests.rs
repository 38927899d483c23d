//! The chart and the kustomize base are two ways to the same objects, and the chart refuses what it cannot do.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context as _, ensure};
use serde::Deserialize as _;
use serde_json::Value;

fn manifests() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests")
}

fn run(program: &str, args: &[&str]) -> anyhow::Result<Output> {
    Command::new(program)
        .args(args)
        .current_dir(manifests())
        .output()
        .with_context(|| format!("cannot run {program}: run the tests through `just`"))
}

/// Objects of a YAML stream by kind, namespace and name.
fn objects(output: &Output) -> anyhow::Result<BTreeMap<String, Value>> {
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout.clone())?;
    let mut objects = BTreeMap::new();
    for document in serde_yaml::Deserializer::from_str(&text) {
        let object = Value::deserialize(document)?;
        if object.is_null() {
            continue;
        }
        let meta = &object["metadata"];
        let name = format!("{} {} {}", object["kind"], meta["namespace"], meta["name"]);
        ensure!(objects.insert(name.clone(), object).is_none(), "{name} is there twice");
    }
    Ok(objects)
}

#[test]
fn chart_and_base_render_the_same_objects() -> anyhow::Result<()> {
    let chart = objects(&run("helm", &["template", "cilium", "chart", "--namespace", "kube-system"])?)?;
    let base = objects(&run("kubectl", &["kustomize", "base"])?)?;
    for name in [
        "\"DaemonSet\" \"kube-system\" \"cilium\"",
        "\"Deployment\" \"kube-system\" \"cilium-operator\"",
        "\"ConfigMap\" \"kube-system\" \"cilium-config\"",
    ] {
        ensure!(chart.contains_key(name), "{name} is missing in {:?}", chart.keys());
    }
    ensure!(chart.keys().eq(base.keys()), "{:?}\n{:?}", chart.keys(), base.keys());
    for (name, object) in &chart {
        ensure!(base.get(name) == Some(object), "{name} differs:\n{object}\n{:?}", base.get(name));
    }
    Ok(())
}

#[test]
fn the_chart_refuses_what_it_cannot_do() -> anyhow::Result<()> {
    for (setting, word) in [
        ("hubble.enabled=true", "hubble.enabled"),
        ("routingMode=bridge", "routingMode"),
        ("tunnelProtocol=geneve", "tunnelProtocol"),
        ("ipam.mode=eni", "ipam.mode"),
        ("defaultLBServiceIPAM=nodeipam", "defaultLBServiceIPAM"),
        ("l2announcements.mode=gossip", "l2announcements.mode"),
        ("policyEnforcementMode=sometimes", "policyEnforcementMode"),
        ("ipv4.enabled=false,ipv6.enabled=false", "ipv4.enabled"),
    ] {
        let output = run("helm", &["template", "cilium", "chart", "--set", setting])?;
        let text = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success() && text.contains(word), "{setting} was accepted: {text}");
    }
    Ok(())
}

#[test]
fn values_reach_the_objects() -> anyhow::Result<()> {
    let settings = "ipam.mode=multi-pool,k8sServiceHost=10.0.0.1,k8sServicePort=6443,image.repository=example.org/agent,image.tag=v1,operator.image.override=example.org/operator@sha256:00,routingMode=native,operator.replicas=1";
    let chart =
        objects(&run("helm", &["template", "cilium", "chart", "-n", "kube-system", "--set", settings])?)?;
    let agent =
        &chart["\"DaemonSet\" \"kube-system\" \"cilium\""]["spec"]["template"]["spec"]["containers"][0];
    ensure!(agent["image"] == "example.org/agent:v1", "{}", agent["image"]);
    ensure!(agent["env"].to_string().contains("10.0.0.1"), "{}", agent["env"]);
    let operator = &chart["\"Deployment\" \"kube-system\" \"cilium-operator\""]["spec"];
    ensure!(operator["replicas"] == 1, "{operator}");
    ensure!(
        operator["template"]["spec"]["containers"][0]["image"] == "example.org/operator@sha256:00",
        "{operator}"
    );
    ensure!(
        chart["\"ConfigMap\" \"kube-system\" \"cilium-config\""]["data"]["routing-mode"] == "native",
        "routing-mode"
    );
    let mode = &chart["\"ConfigMap\" \"kube-system\" \"cilium-config\""]["data"]["ipam"];
    ensure!(mode == "multi-pool", "ipam: {mode}");
    Ok(())
}

#[test]
fn rights_for_announcements_come_with_the_feature_and_its_mode() -> anyhow::Result<()> {
    let render = |settings: &str| {
        objects(&run("helm", &["template", "cilium", "chart", "-n", "kube-system", "--set", settings])?)
    };
    let capabilities = |chart: &BTreeMap<String, Value>| {
        let agent = &chart["\"DaemonSet\" \"kube-system\" \"cilium\""]["spec"]["template"]["spec"];
        agent["containers"][0]["securityContext"]["capabilities"]["add"].to_string()
    };
    let configuration = |chart: &BTreeMap<String, Value>| {
        chart["\"ConfigMap\" \"kube-system\" \"cilium-config\""]["data"].clone()
    };
    let role = "\"Role\" \"kube-system\" \"cilium-l2-announcements\"";
    let operator = "\"Role\" \"kube-system\" \"cilium-operator-l2-heartbeat\"";
    let off = render("l2announcements.enabled=false")?;
    ensure!(!off.contains_key(role) && !off.contains_key(operator), "{:?}", off.keys());
    ensure!(!capabilities(&off).contains("NET_RAW"), "{}", capabilities(&off));
    ensure!(configuration(&off)["enable-l2-announcements"] == "false", "{}", configuration(&off));
    let on = render("l2announcements.enabled=true")?;
    let expected = serde_json::json!([
        {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["cilium-l2-heartbeat"], "verbs": ["get"]},
    ]);
    ensure!(on[role]["rules"] == expected && on.contains_key(operator), "{}", on[role]);
    ensure!(capabilities(&on).contains("NET_RAW"), "{}", capabilities(&on));
    let data = configuration(&on);
    for (key, value) in [
        ("enable-l2-announcements", "true"),
        ("l2-announcements-mode", "heartbeat"),
        ("l2-announcements-lease-duration", "15s"),
        ("l2-announcements-renew-deadline", "5s"),
        ("l2-announcements-retry-period", "2s"),
    ] {
        ensure!(data[key] == value, "{key}: {}", data[key]);
    }
    let lease = render("l2announcements.enabled=true,l2announcements.mode=lease")?;
    let expected = serde_json::json!([
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["list", "create", "update", "delete"]},
    ]);
    ensure!(lease[role]["rules"] == expected, "{}", lease[role]);
    ensure!(!lease.contains_key(operator), "no key is made");
    Ok(())
}

#[test]
fn the_webhook_looks_at_every_kind_and_blocks_nothing() -> anyhow::Result<()> {
    let chart = objects(&run("helm", &["template", "cilium", "chart", "-n", "kube-system"])?)?;
    let webhook = &chart["\"ValidatingWebhookConfiguration\" null \"cilium-webhook\""]["webhooks"][0];
    let listed = webhook["rules"][0]["resources"].as_array().context("resources")?;
    let mut listed: Vec<&str> = listed.iter().filter_map(Value::as_str).collect();
    listed.sort_unstable();
    let kinds = cilium_api::all();
    let mut plurals: Vec<&str> = kinds.iter().map(|crd| crd.spec.names.plural.as_str()).collect();
    plurals.sort_unstable();
    ensure!(listed == plurals, "{listed:?}\n{plurals:?}");
    let groups = &webhook["rules"][0]["apiGroups"];
    ensure!(groups == &serde_json::json!([cilium_api::GROUP]), "{groups}");
    ensure!(webhook["failurePolicy"] == "Ignore" && webhook["sideEffects"] == "None", "{webhook}");
    ensure!(webhook["timeoutSeconds"].as_u64().is_some_and(|seconds| seconds <= 2), "{webhook}");
    let off =
        run("helm", &["template", "cilium", "chart", "-n", "kube-system", "--set", "webhook.enabled=false"])?;
    let text = String::from_utf8_lossy(&off.stdout).into_owned();
    ensure!(
        off.status.success()
            && !text.contains("kind: ValidatingWebhookConfiguration")
            && !text.contains("name: cilium-webhook"),
        "it is not off: {text}"
    );
    Ok(())
}
