//! The guide, step by step, with assertions: what a user sees before, under and after one policy.

use anyhow::ensure;
use cluster_tests::{Namespace, eventually, exec, kubectl, nodes};

const APP: &str = include_str!("../../../manifests/examples/starwars/app.yaml");
const RULE: &str = include_str!("../../../manifests/examples/starwars/rule1.yaml");

#[test]
fn star_wars() -> anyhow::Result<()> {
    let ns = Namespace::new("starwars")?;
    deploy(&ns)?;
    nothing_is_enforced(&ns)?;
    lands(&ns, "xwing")?;
    lands(&ns, "tiefighter")?;

    ns.apply(RULE)?;
    in_force(&ns)?;
    lands(&ns, "tiefighter")?;
    times_out(&ns, "xwing")?;
    only_deathstars_are_enforced(&ns)?;
    describes_itself(&ns)?;

    ns.kubectl(&["delete", "cnp", "rule1"])?;
    eventually("xwing lands again", || Ok(request_landing(&ns, "xwing")?.ok()))
}

fn deploy(ns: &Namespace) -> anyhow::Result<()> {
    ns.apply(APP)?;
    ns.kubectl(&["rollout", "status", "deployment/deathstar", "--timeout=120s"])?;
    ns.ready(&["tiefighter", "xwing"])?;
    let listed = ns.kubectl(&["get", "pods,svc"])?;
    for name in ["pod/deathstar-", "pod/tiefighter", "pod/xwing", "service/deathstar"] {
        ensure!(listed.contains(name), "{name} is missing in:\n{listed}");
    }
    Ok(())
}

/// Rows of `kubectl get cep -o wide`, without the header, as words.
fn endpoints(ns: &Namespace) -> anyhow::Result<Vec<Vec<String>>> {
    let text = ns.kubectl(&["get", "cep", "-o", "wide", "--no-headers"])?;
    Ok(text.lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect())
}

fn nothing_is_enforced(ns: &Namespace) -> anyhow::Result<()> {
    eventually("four endpoints are ready, and none is enforced", || {
        let rows = endpoints(ns)?;
        Ok(rows.len() == 4
            && rows
                .iter()
                .all(|row| row.get(2..5) == Some(&["disabled", "disabled", "ready"].map(str::to_owned))))
    })?;
    let rows = endpoints(ns)?;
    ensure!(rows.iter().all(|row| row[1].parse::<u32>().is_ok_and(|id| id >= 256)), "identities: {rows:?}");
    let everywhere = kubectl(&["get", "cep", "--all-namespaces"])?;
    ensure!(everywhere.contains("SECURITY IDENTITY") && everywhere.contains(&ns.name), "{everywhere}");
    let enforcement = enforcement(ns)?;
    ensure!(enforcement.len() == 4 && enforcement.iter().all(|(_, on)| !on), "{enforcement:?}");
    Ok(())
}

/// What `cilium-dbg endpoint list` says on all nodes of the pods here: class label and whether ingress is enforced.
fn enforcement(ns: &Namespace) -> anyhow::Result<Vec<(String, bool)>> {
    let mut found = Vec::new();
    for node in nodes::names()? {
        let list: serde_json::Value =
            serde_json::from_str(&nodes::dbg(&node, &["endpoint", "list", "-o", "json"])?)?;
        for endpoint in list.as_array().into_iter().flatten() {
            let labels = endpoint["status"]["identity"]["labels"].to_string();
            if !labels.contains(&format!("io.kubernetes.pod.namespace={}\"", ns.name)) {
                continue;
            }
            let class = ["deathstar", "tiefighter", "xwing"]
                .into_iter()
                .find(|c| labels.contains(&format!("class={c}\"")));
            let on = endpoint["status"]["policy"]["realized"]["policy-enabled"].as_str() == Some("ingress");
            found.push((class.unwrap_or("?").to_owned(), on));
        }
    }
    found.sort();
    Ok(found)
}

fn request_landing(ns: &Namespace, ship: &str) -> anyhow::Result<cluster_tests::Ran> {
    let url = format!("deathstar.{}.svc.cluster.local/v1/request-landing", ns.name);
    exec(&ns.name, ship, &["curl", "-s", "--max-time", "4", "-XPOST", &url])
}

fn lands(ns: &Namespace, ship: &str) -> anyhow::Result<()> {
    let ran = request_landing(ns, ship)?;
    ensure!(ran.out == "Ship landed\n", "{ship}: {ran:?}");
    Ok(())
}

fn times_out(ns: &Namespace, ship: &str) -> anyhow::Result<()> {
    // curl's 28 is "operation timed out".
    let ran = request_landing(ns, ship)?;
    ensure!(ran.code == 28 && ran.out.is_empty(), "{ship} should hang: {ran:?}");
    Ok(())
}

fn in_force(ns: &Namespace) -> anyhow::Result<()> {
    ns.kubectl(&["wait", "--for=condition=Valid", "--timeout=60s", "cnp/rule1"])?;
    ns.kubectl(&["wait", "--for=condition=Enforced", "--timeout=60s", "cnp/rule1"]).map(drop)
}

fn only_deathstars_are_enforced(ns: &Namespace) -> anyhow::Result<()> {
    let expected = [("deathstar", true), ("deathstar", true), ("tiefighter", false), ("xwing", false)];
    let expected: Vec<_> = expected.into_iter().map(|(class, on)| (class.to_owned(), on)).collect();
    let found = enforcement(ns)?;
    ensure!(found == expected, "{found:?}");
    eventually("the endpoints say so, too", || {
        let rows = endpoints(ns)?;
        Ok(rows.iter().all(|row| (row[2] == "enforcing") == row[0].starts_with("deathstar")))
    })?;
    // As the guide shows it: a table with the word Enabled in it.
    let tables: Vec<String> = nodes::names()?
        .iter()
        .map(|node| nodes::dbg(node, &["endpoint", "list"]))
        .collect::<Result<_, _>>()?;
    ensure!(tables.iter().any(|table| table.contains("Enabled")), "{tables:?}");
    Ok(())
}

fn describes_itself(ns: &Namespace) -> anyhow::Result<()> {
    let row = ns.kubectl(&["get", "cnp", "rule1"])?;
    ensure!(row.contains("VALID") && row.contains("True"), "{row}");
    let text = ns.kubectl(&["describe", "cnp", "rule1"])?;
    for needle in ["Valid", "Enforced", "Policy validation succeeded", "Selected Endpoints"] {
        ensure!(text.contains(needle), "{needle:?} is missing in:\n{text}");
    }
    let nodes = ns.kubectl(&[
        "get",
        "cnp",
        "rule1",
        "-o",
        "jsonpath={.status.nodes.needed} {.status.nodes.enforcing} {.status.selectedEndpoints}",
    ])?;
    let numbers: Vec<u32> = nodes.split(' ').filter_map(|n| n.parse().ok()).collect();
    ensure!(matches!(numbers[..], [needed, enforcing, 2] if needed == enforcing && needed >= 1), "{nodes}");
    Ok(())
}
