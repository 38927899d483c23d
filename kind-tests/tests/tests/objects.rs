//! What a real API server and the operator make of good and bad objects.

use anyhow::{Context as _, ensure};
use cluster_tests::pods::{addresses, mk_pod, mk_server, socket};
use cluster_tests::{Namespace, eventually, exec, holds_for, kubectl, kubectl_json, nodes};
use std::time::Duration;

fn pair(prefix: &str) -> anyhow::Result<Namespace> {
    let ns = Namespace::new(prefix)?;
    ns.apply(&(mk_pod("client", None, &[], false) + &mk_server("server", None)))?;
    ns.ready(&["client", "server"])?;
    Ok(ns)
}

fn open(ns: &Namespace) -> anyhow::Result<bool> {
    let [v4, _] = addresses(ns, "server")?;
    let ran = exec(
        &ns.name,
        "client",
        &["curl", "-s", "--max-time", "2", &format!("telnet://{}", socket(&v4, 7000))],
    )?;
    // An open connection that says nothing also ends in 28, but only after it was made: ask curl which.
    let connect = exec(&ns.name, "client", &["nc", "-z", "-w", "2", &v4, "7000"])?;
    ensure!(ran.code == 28 || !connect.ok(), "{ran:?}");
    Ok(connect.ok())
}

fn condition(ns: &Namespace, policy: &str, kind: &str) -> anyhow::Result<(String, String)> {
    let object = kubectl_json(&["get", "cnp", policy, "-n", &ns.name])?;
    let found = object["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|c| c["type"] == kind)
        .cloned()
        .unwrap_or_default();
    Ok((
        found["status"].as_str().unwrap_or_default().to_owned(),
        found["message"].as_str().unwrap_or_default().to_owned(),
    ))
}

const DENY_ALL: &str = "{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: rule}, spec: {endpointSelector: {matchLabels: {app: server}}, ingress: [{}]}}";

#[test]
fn an_edit_that_cannot_be_valid_changes_nothing_and_says_where() -> anyhow::Result<()> {
    let ns = pair("invalid")?;
    ns.apply(DENY_ALL)?;
    eventually("the server is closed", || Ok(!open(&ns)?))?;
    // The API server's schema lets 70000 pass (its pattern is not anchored); the webhook does not.
    let refused = ns.apply("{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: rule}, spec: {endpointSelector: {matchLabels: {app: server}}, ingress: [{fromEndpoints: [{}], toPorts: [{ports: [{port: '70000', protocol: TCP}]}]}]}}");
    let message = format!("{:#}", refused.err().context("the policy was stored")?);
    ensure!(message.contains("spec.ingress[0].toPorts[0].ports[0].port"), "{message}");
    holds_for("the server stays closed", Duration::from_secs(3), || Ok(!open(&ns)?))?;
    ns.kubectl(&["delete", "cnp", "rule"])?;
    eventually("the server is open again", || open(&ns))
}

#[test]
fn what_this_version_cannot_enforce_is_refused_not_ignored() -> anyhow::Result<()> {
    let ns = pair("unsupported")?;
    ns.apply("{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: l7}, spec: {endpointSelector: {}, ingress: [{fromEndpoints: [{}], toPorts: [{ports: [{port: '7000', protocol: TCP}], rules: {http: [{method: GET}]}}]}]}}")?;
    eventually("the policy says so", || {
        let (status, message) = condition(&ns, "l7", "Valid")?;
        Ok(status == "False" && message.contains("spec.ingress[0].toPorts[0].rules"))
    })?;
    ensure!(open(&ns)?, "a refused policy must not close anything");
    Ok(())
}

#[test]
fn one_object_that_does_not_parse_stops_no_other() -> anyhow::Result<()> {
    let ns = pair("malformed")?;
    // An object that the schema would refuse, as one written before the schema knew better: validation is switched off.
    let refused = ns.apply("{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: broken}, spec: {endpointSelector: 7}}");
    ensure!(refused.is_err(), "the API server should refuse a selector that is a number");
    let refused = ns.apply("{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: nothing}, spec: {endpointSelector: {}, ingress: []}}");
    ensure!(refused.is_err(), "the webhook should refuse a policy that says nothing");
    ns.apply("{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: later}, spec: {endpointSelector: {}, ingress: [{toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {http: [{}]}}]}]}}")?;
    ns.apply(DENY_ALL)?;
    eventually("the good policy is in force beside the bad one", || Ok(!open(&ns)?))?;
    eventually("the bad one says why", || Ok(condition(&ns, "later", "Valid")?.0 == "False"))
}

#[test]
fn established_connections_follow_policy() -> anyhow::Result<()> {
    let ns = pair("established")?;
    let [v4, _] = addresses(&ns, "server")?;
    let to = socket(&v4, 7000);
    let script = format!(
        "probe watch {to} --interval-us 1000 --silence-ms 200 --seconds 120 > /tmp/watch 2>&1 & echo started"
    );
    ensure!(exec(&ns.name, "client", &["sh", "-c", &script])?.ok(), "cannot start the watch");
    let last = || -> anyhow::Result<bool> {
        Ok(exec(&ns.name, "client", &["tail", "-n", "1", "/tmp/watch"])?.out.contains("\"up\":true"))
    };
    eventually("the path is up", last)?;
    ns.apply(DENY_ALL)?;
    eventually("the stream of one socket stops", || Ok(!last()?))?;
    ns.kubectl(&["delete", "cnp", "rule"])?;
    eventually("and goes on", last)
}

#[test]
fn a_clusterwide_policy_and_entities_are_enforced() -> anyhow::Result<()> {
    let ns = pair("entities")?;
    let name = format!("egress-{}", ns.name);
    let ccnp = |entities: &str| {
        format!(
            "{{apiVersion: cilium.io/v2, kind: CiliumClusterwideNetworkPolicy, metadata: {{name: {name}}}, spec: {{endpointSelector: {{matchLabels: {{app: client, 'k8s:io.kubernetes.pod.namespace': {}}}}}, egress: [{{toEntities: [{entities}]}}]}}}}",
            ns.name
        )
    };
    ns.apply(&ccnp("host"))?;
    eventually("egress is closed", || Ok(!open(&ns)?))?;
    ns.apply(&ccnp("cluster"))?;
    eventually("egress to the cluster is open", || open(&ns))?;
    ns.apply(&ccnp("world"))?;
    eventually("the server is not the world", || Ok(!open(&ns)?))?;
    kubectl(&["delete", "ccnp", &name])?;
    eventually("egress is open again", || open(&ns))
}

/// Sends a merge patch of a node's state as the bearer of a token would (kubectl would read the object first, which
/// agents may not); returns the API server's answer.
fn patch_as(token: &str, node: &str, body: &str) -> anyhow::Result<String> {
    let config = kubectl_json(&["config", "view", "--raw", "--minify", "--flatten"])?;
    let cluster = &config["clusters"][0]["cluster"];
    let text = |key: &str| {
        cluster[key].as_str().map(str::to_owned).with_context(|| format!("kubeconfig without {key}"))
    };
    let script = format!(
        "ca=$(mktemp); trap 'rm -f $ca' EXIT; echo {} | base64 -d >$ca; curl -s --cacert $ca -X PATCH -H 'Authorization: Bearer {token}' \
         -H 'Content-Type: application/merge-patch+json' -d '{body}' {}/apis/cilium.io/v2alpha1/ciliumnodestates/{node}/status",
        text("certificate-authority-data")?,
        text("server")?
    );
    let output = std::process::Command::new("bash").args(["-c", &script]).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn a_node_can_write_only_its_own_state() -> anyhow::Result<()> {
    let names = nodes::names()?;
    let pod = nodes::agent(&names[0])?;
    let bound = ["--bound-object-kind", "Pod", "--bound-object-name", &pod];
    let token = kubectl(&[&["create", "token", "cilium", "-n", nodes::SYSTEM], bound.as_slice()].concat())?;
    let patch = |node: &str, body: &str| patch_as(token.trim(), node, body);
    let own = patch(&names[0], r#"{"status":{"applied":{"agentVersion":"test"}}}"#)?;
    ensure!(own.contains("\"kind\": \"CiliumNodeState\""), "its own: {own}");
    let other = patch(&names[1], r#"{"status":{"applied":{"agentVersion":"test"}}}"#)?;
    ensure!(other.contains("only the state of the node that its token is bound to"), "another's: {other}");
    let desired = patch(&names[0], r#"{"status":{"desired":{"revision":99999}}}"#)?;
    ensure!(desired.contains("only the operator writes status.desired"), "desired: {desired}");
    Ok(())
}

#[test]
fn an_agent_holds_at_most_two_watches() -> anyhow::Result<()> {
    let watches = cluster_tests::watches::per_agent()?;
    ensure!(watches > 0.0 && watches <= 2.0, "{watches} watches");
    Ok(())
}
