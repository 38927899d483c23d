//! What users are told about policies: before they are stored, on the object, and by `cilium` from a laptop.

use std::process::Command;

use anyhow::{Context as _, ensure};
use cluster_tests::cli::cilium;
use cluster_tests::scenes::{mk_cnp, trio};
use cluster_tests::{Namespace, eventually, kubectl, kubectl_json, nodes};
use serde_json::Value;

const SERVER: &str = "endpointSelector: {matchLabels: {app: server}}";
const CLIENT_ON_7000: &str = "ingress: [{fromEndpoints: [{matchLabels: {app: client}}], toPorts: [{ports: [{port: '7000', protocol: TCP}]}]}]";

/// `kubectl apply` of a manifest to a namespace, with options: what it said, and whether it succeeded.
fn apply(ns: &Namespace, manifest: &str, options: &[&str]) -> anyhow::Result<(bool, String)> {
    let file = std::env::temp_dir().join(format!("{}.yaml", ns.name));
    std::fs::write(&file, manifest)?;
    let output = Command::new("kubectl")
        .args(["apply", "-n", &ns.name, "-f"])
        .arg(&file)
        .args(options)
        .output()
        .context("cannot run kubectl")?;
    std::fs::remove_file(&file)?;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
}

/// `cilium policy explain` in a namespace; its only answer.
fn explain(ns: &Namespace, from: &str, to: &str, port: &str) -> anyhow::Result<Value> {
    let args =
        ["policy", "explain", "-n", &ns.name, "--from", from, "--to", to, "--port", port, "-o", "json"];
    let (code, out, err) = cilium(&args)?;
    ensure!(code == 0, "{err}");
    let mut answers: Vec<Value> = serde_json::from_str(&out).with_context(|| out.clone())?;
    ensure!(answers.len() == 1, "{out}");
    Ok(answers.remove(0))
}

fn condition(ns: &Namespace, policy: &str, kind: &str) -> anyhow::Result<Value> {
    let object = kubectl_json(&["get", "cnp", policy, "-n", &ns.name])?;
    let found = object["status"]["conditions"].as_array().into_iter().flatten();
    Ok(found.into_iter().find(|it| it["type"] == kind).cloned().unwrap_or_default())
}

#[test]
fn the_door_refuses_and_warns_in_a_dry_run_too() -> anyhow::Result<()> {
    let ns = trio("door")?;
    let bad = mk_cnp(
        "bad",
        &format!(
            "{SERVER}, ingress: [{{fromEndpoints: [{{}}], icmps: [{{fields: [{{type: 8}}]}}], toPorts: [{{ports: [{{port: '80'}}]}}]}}]"
        ),
    );
    eventually("a policy that can never be valid is refused", || {
        let (stored, said) = apply(&ns, &bad, &["--dry-run=server"])?;
        Ok(!stored
            && said.contains("validate.cilium.io")
            && said.contains("spec.ingress[0]: icmps and toPorts exclude each other"))
    })?;
    let (stored, said) = apply(&ns, &bad, &[])?;
    ensure!(!stored && said.contains("spec.ingress[0]"), "{said}");

    let later =
        mk_cnp("later", "endpointSelector: {}, egress: [{toGroups: [{aws: {securityGroupsIds: ['x']}}]}]");
    let (stored, said) = apply(&ns, &later, &["--dry-run=server"])?;
    ensure!(
        stored && said.contains("Warning: ") && said.contains("cannot be enforced by this version"),
        "{said}"
    );

    let nobody = mk_cnp("nobody", "endpointSelector: {matchLabels: {app: nobody}}, ingress: [{}]");
    let (stored, said) = apply(&ns, &nobody, &["--dry-run=server"])?;
    ensure!(stored && said.contains("Warning: spec selects no endpoint"), "{said}");
    let typo = mk_cnp(
        "typo",
        &format!("{SERVER}, ingress: [{{fromEndpoints: [{{matchLabels: {{app: clinet}}}}]}}]"),
    );
    let (stored, said) = apply(&ns, &typo, &["--dry-run=server"])?;
    ensure!(stored && said.contains("Warning: spec.ingress[0]: no peer matches"), "{said}");
    let good = mk_cnp("good", &format!("{SERVER}, {CLIENT_ON_7000}"));
    let (stored, said) = apply(&ns, &good, &["--dry-run=server"])?;
    ensure!(stored && !said.contains("Warning"), "{said}");
    let found = ns.kubectl(&["get", "cnp", "-o", "name"])?;
    ensure!(found.is_empty(), "a dry run stored {found}");
    Ok(())
}

#[test]
fn names_are_told_of_that_no_pod_is_heard_to_ask_for() -> anyhow::Result<()> {
    let ns = trio("unheard")?;
    let rule = "{toFQDNs: [{matchName: api.test}], toPorts: [{ports: [{port: '443', protocol: TCP}]}]}";
    let client = "endpointSelector: {matchLabels: {app: client}}";
    let names = mk_cnp("names", &format!("{client}, egress: [{rule}]"));
    let unheard = "spec.egress[0]: no rule with rules.dns selects the same pods";
    eventually("the door warns", || {
        let (stored, said) = apply(&ns, &names, &[])?;
        Ok(stored && said.contains(unheard))
    })?;
    eventually("the condition says so", || {
        let effective = condition(&ns, "names", "Effective")?;
        let message = effective["message"].as_str().unwrap_or_default();
        Ok(effective["reason"] == "NoQuestion" && message.contains(unheard))
    })?;
    let answer = explain(&ns, "client", "api.test", "443/TCP")?;
    ensure!(answer["verdict"] == "denied" && answer["question"]["verdict"] == "unheard", "{answer}");

    let questions = "{toEndpoints: [{matchLabels: {'k8s:io.kubernetes.pod.namespace': kube-system, k8s-app: kube-dns}}], toPorts: [{ports: [{port: '53', protocol: ANY}], rules: {dns: [{matchPattern: '*.test'}]}}]}";
    ns.apply(&mk_cnp("questions", &format!("{client}, egress: [{questions}]")))?;
    eventually("another policy makes them known", || {
        Ok(condition(&ns, "names", "Effective")?["status"] == "True")
    })?;
    let answer = explain(&ns, "client", "api.test", "443/TCP")?;
    ensure!(answer["verdict"] == "allowed" && answer["question"]["verdict"] == "allowed", "{answer}");
    let answer = explain(&ns, "client", "api.example", "443/TCP")?;
    ensure!(answer["verdict"] == "denied" && answer["question"]["verdict"] == "denied", "{answer}");
    Ok(())
}

#[test]
fn a_dead_webhook_blocks_nothing() -> anyhow::Result<()> {
    let ns = Namespace::new("dead")?;
    let operators = nodes::SYSTEM;
    let replicas =
        kubectl(&["-n", operators, "get", "deploy", "cilium-operator", "-o", "jsonpath={.spec.replicas}"])?;
    kubectl(&["-n", operators, "scale", "deploy", "cilium-operator", "--replicas=0"])?;
    kubectl(&[
        "-n",
        operators,
        "wait",
        "--for=delete",
        "pod",
        "-l",
        "io.cilium/app=operator",
        "--timeout=60s",
    ])?;
    let refusable = mk_cnp("bad", "endpointSelector: {}, ingress: [{toPorts: [{ports: [{port: '70000'}]}]}]");
    let (stored, said) = apply(&ns, &refusable, &[])?;
    kubectl(&["-n", operators, "scale", "deploy", "cilium-operator", &format!("--replicas={replicas}")])?;
    kubectl(&["-n", operators, "rollout", "status", "deploy/cilium-operator", "--timeout=120s"])?;
    ensure!(stored, "{said}");
    eventually("the operator says on the policy what the webhook could not", || {
        let valid = condition(&ns, "bad", "Valid")?;
        let message = valid["message"].as_str().unwrap_or_default();
        Ok(valid["status"] == "False" && message.contains("spec.ingress[0].toPorts[0].ports[0].port"))
    })?;
    ensure!(condition(&ns, "bad", "Stalled")?["status"] == "True", "it waits for its author");
    eventually("the new leader serves the webhook", || {
        Ok(!apply(
            &ns,
            &mk_cnp("worse", "endpointSelector: {}, ingress: [{toPorts: [{ports: [{port: '70000'}]}]}]"),
            &[],
        )?
        .0)
    })
}

#[test]
fn conditions_say_what_has_no_effect() -> anyhow::Result<()> {
    let ns = trio("effect")?;
    ns.apply(&mk_cnp("rule", &format!("{SERVER}, {CLIENT_ON_7000}")))?;
    ns.kubectl(&["wait", "--for=condition=Enforced", "--timeout=30s", "cnp/rule"])?;
    ns.kubectl(&["wait", "--for=condition=Effective", "--timeout=30s", "cnp/rule"])?;

    ns.kubectl(&["label", "pod", "client", "app=renamed", "--overwrite"])?;
    ns.kubectl(&["wait", "--for=condition=Effective=False", "--timeout=30s", "cnp/rule"])?;
    let effective = condition(&ns, "rule", "Effective")?;
    ensure!(
        effective["reason"] == "NoPeer" && effective["message"] == "spec.ingress[0]: no peer matches",
        "{effective}"
    );
    ensure!(effective["observedGeneration"] == 1, "{effective}");
    ns.kubectl(&["label", "pod", "client", "app=client", "--overwrite"])?;
    ns.kubectl(&["wait", "--for=condition=Effective", "--timeout=30s", "cnp/rule"])?;

    ns.apply(&mk_cnp("shadow", &format!("{SERVER}, ingressDeny: [{{fromEndpoints: [{{}}]}}]")))?;
    ns.kubectl(&["wait", "--for=condition=Effective=False", "--timeout=30s", "cnp/rule"])?;
    let effective = condition(&ns, "rule", "Effective")?;
    let by = format!("denied by cnp/{}/shadow spec.ingressDeny[0]", ns.name);
    ensure!(
        effective["reason"] == "Denied" && effective["message"].as_str().is_some_and(|it| it.contains(&by)),
        "{effective}"
    );
    let described = ns.kubectl(&["describe", "cnp", "rule"])?;
    ensure!(described.contains("Effective") && described.contains(&by), "{described}");
    ns.kubectl(&["delete", "cnp", "shadow"])?;
    ns.kubectl(&["wait", "--for=condition=Effective", "--timeout=30s", "cnp/rule"])?;
    ns.kubectl(&["delete", "pod", "server", "--now"])?;
    ns.kubectl(&["wait", "--for=condition=Effective=False", "--timeout=30s", "cnp/rule"])?;
    ensure!(condition(&ns, "rule", "Effective")?["reason"] == "NoEndpoint", "nobody is selected");
    Ok(())
}

#[test]
fn explain_names_the_field_that_decides() -> anyhow::Result<()> {
    let ns = trio("explain")?;
    let open = explain(&ns, "client", "server", "7000/TCP")?;
    ensure!(
        open["verdict"] == "allowed" && open["ingress"]["reason"] == "no policy restricts this direction",
        "{open}"
    );
    ns.apply(&mk_cnp("rule", &format!("{SERVER}, {CLIENT_ON_7000}")))?;
    let policy = format!("cnp/{}/rule", ns.name);
    let granted = explain(&ns, "client", "server", "7000/TCP")?;
    ensure!(granted["ingress"]["rules"][0] == format!("{policy} spec.ingress[0].toPorts[0]"), "{granted}");
    let port = explain(&ns, "client", "server", "7001/TCP")?;
    ensure!(port["verdict"] == "denied" && port["ingress"]["closedBy"][0] == policy, "{port}");
    ensure!(port["ingress"]["nearest"]["ports"][0] == "7000/TCP", "{port}");
    let peer = explain(&ns, "other", "server", "7000/TCP")?;
    ensure!(peer["ingress"]["nearest"]["unmet"][0] == "any:app=client", "{peer}");
    let world = explain(&ns, "192.0.2.1", "server", "7000/TCP")?;
    ensure!(world["verdict"] == "denied" && world["from"]["name"] == "192.0.2.1", "{world}");
    ns.apply("{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {selector: {app: server}, ports: [{port: 80, targetPort: 7000}]}}")?;
    let name = format!("web.{}.svc", ns.name);
    eventually("the Service stands for its pod", || {
        let Ok(answer) = explain(&ns, "client", &name, "80/TCP") else { return Ok(false) };
        Ok(answer["to"]["name"] == format!("{}/server", ns.name)
            && answer["port"] == "7000/TCP"
            && answer["verdict"] == "allowed")
    })?;
    let (code, out, _) = cilium(&[
        "policy", "explain", "-n", &ns.name, "--from", "other", "--to", "server", "--port", "7000",
    ])?;
    ensure!(code == 0 && out.contains(": denied\n") && out.contains(&format!("closed by {policy}")), "{out}");
    let (code, _, err) = cilium(&[
        "policy", "explain", "-n", &ns.name, "--from", "nobody", "--to", "server", "--port", "7000",
    ])?;
    ensure!(code == 2 && err.contains(&format!("there is no pod {}/nobody", ns.name)), "{err}");
    Ok(())
}

#[test]
fn diff_tells_before_it_happens_and_changes_nothing() -> anyhow::Result<()> {
    let ns = trio("diff")?;
    let file = std::env::temp_dir().join(format!("{}-diff.yaml", ns.name));
    let path = file.to_string_lossy().into_owned();
    std::fs::write(&file, mk_cnp("rule", &format!("{SERVER}, {CLIENT_ON_7000}")))?;
    let (code, out, err) = cilium(&["policy", "diff", "-n", &ns.name, "-f", &path, "-o", "json"])?;
    ensure!(code == 1, "{out}{err}");
    let groups: Vec<Value> = serde_json::from_str(&out)?;
    let of_other = groups.iter().find(|group| {
        group["peers"]
            .as_array()
            .is_some_and(|peers| peers.contains(&Value::from(format!("{}/other", ns.name))))
    });
    let of_other = of_other.with_context(|| out.clone())?;
    ensure!(of_other["pods"] == serde_json::json!([format!("{}/server", ns.name)]), "{of_other}");
    ensure!(
        of_other["ports"] == serde_json::json!([{"port": "any", "now": "allowed", "then": "denied"}]),
        "{of_other}"
    );
    ensure!(ns.kubectl(&["get", "cnp", "-o", "name"])?.is_empty(), "diff applied something");
    let (_, text, _) = cilium(&["policy", "diff", "-n", &ns.name, "-f", &path])?;
    ensure!(text.starts_with("PODS") && text.contains("7001-65535/TCP"), "{text}");
    ns.apply(&std::fs::read_to_string(&file)?)?;
    let (code, out, err) = cilium(&["policy", "diff", "-n", &ns.name, "-f", &path])?;
    ensure!(code == 0 && out == "Nothing would change.\n", "{out}{err}");
    std::fs::write(
        &file,
        mk_cnp("rule", &format!("{SERVER}, ingress: [{{toPorts: [{{ports: [{{port: '70000'}}]}}]}}]")),
    )?;
    let (code, _, err) = cilium(&["policy", "diff", "-n", &ns.name, "-f", &path])?;
    ensure!(code == 2 && err.contains("would not be put in force"), "{err}");
    std::fs::remove_file(&file)?;
    Ok(())
}
