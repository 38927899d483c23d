//! Peers by way of other objects, and entities, with real pods: groups of prefixes, Services, what has an entry for all.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use cluster_tests::pods::{addresses, mk_pod, mk_server};
use cluster_tests::scenes::{self, in_force, outside};
use cluster_tests::{Namespace, eventually, exec, holds_for, kubectl, kubectl_json, nodes};

/// An object of the whole cluster that goes with the test.
struct Global(&'static str, String);

impl Drop for Global {
    fn drop(&mut self) {
        // Left over, it would only be in the way of the next run, which replaces it.
        let _ = kubectl(&["delete", self.0, &self.1, "--ignore-not-found"]);
    }
}

/// A policy for the client.
fn mk_cnp(name: &str, spec: &str) -> String {
    scenes::mk_cnp(name, &format!("endpointSelector: {{matchLabels: {{app: client}}}}, {spec}"))
}

fn mk_group(name: &str, labels: &str, prefixes: &str) -> String {
    format!(
        "{{apiVersion: cilium.io/v2, kind: CiliumCIDRGroup, metadata: {{name: {name}, labels: {{{labels}}}}}, spec: {{externalCIDRs: [{prefixes}]}}}}"
    )
}

fn connects(ns: &Namespace, address: &str, port: &str) -> anyhow::Result<bool> {
    Ok(exec(&ns.name, "client", &["nc", "-z", "-w", "2", address, port])?.ok())
}

#[test]
fn a_group_of_prefixes_is_enforced_as_it_changes() -> anyhow::Result<()> {
    let (host, port) = outside()?;
    let ns = Namespace::new("groups")?;
    ns.apply(&mk_pod("client", None, &[], false))?;
    ns.ready(&["client"])?;
    let reaches = || connects(&ns, &host, &port);
    ensure!(reaches()?, "the server outside does not answer");

    let group = Global("ccg", format!("{}-servers", ns.name));
    let by_name = format!("egress: [{{toCIDRSet: [{{cidrGroupRef: {}}}]}}]", group.1);
    ns.apply(&mk_cnp("group", &by_name))?;
    in_force(&ns, "group")?;
    eventually("a group that does not exist allows nothing", || Ok(!reaches()?))?;
    ns.apply(&mk_group(&group.1, "", &format!("198.51.100.0/24, {host}/32")))?;
    eventually("what is in the group is allowed", &reaches)?;
    ns.apply(&mk_group(&group.1, "", "198.51.100.0/24"))?;
    eventually("what is in it no more is not", || Ok(!reaches()?))?;

    let label = format!("test: {}", ns.name);
    let by_label = format!("egress: [{{toCIDRSet: [{{cidrGroupSelector: {{matchLabels: {{{label}}}}}}}]}}]");
    ns.apply(&mk_group(&group.1, "", &format!("{host}/32")))?;
    ns.apply(&mk_cnp("group", &by_label))?;
    holds_for("the group has no such label", Duration::from_secs(2), || Ok(!reaches()?))?;
    ns.apply(&mk_group(&group.1, &label, &format!("{host}/32")))?;
    eventually("now it has", &reaches)?;
    let except = format!("cidrGroupRef: {}, except: [{host}/32]", group.1);
    ns.apply(&mk_cnp("group", &format!("egress: [{{toCIDRSet: [{{{except}}}]}}]")))?;
    eventually("what is left out is not allowed", || Ok(!reaches()?))?;
    let old = kubectl_json(&["get", "ciliumcidrgroups.v2alpha1.cilium.io", &group.1])?;
    ensure!(old["apiVersion"] == "cilium.io/v2alpha1", "the old version is served: {old}");
    Ok(())
}

#[test]
fn a_service_is_a_peer() -> anyhow::Result<()> {
    let (host, port) = outside()?;
    let ns = Namespace::new("services")?;
    ns.apply(
        &[mk_server("server", None), mk_server("other", None), mk_pod("client", None, &[], false)].concat(),
    )?;
    ns.ready(&["server", "other", "client"])?;
    let [server, _] = addresses(&ns, "server")?;
    let [other, _] = addresses(&ns, "other")?;
    let rule = "egress: [{toServices: [{k8sService: {serviceName: web}}], toPorts: [{ports: [{port: '7000', protocol: TCP}]}]}, {toServices: [{k8sServiceSelector: {selector: {matchLabels: {where: outside}}}}]}]";
    ns.apply(&mk_cnp("services", rule))?;
    in_force(&ns, "services")?;
    eventually("no such service: nobody", || {
        Ok(!connects(&ns, &server, "7000")? && !connects(&ns, &host, &port)?)
    })?;

    ns.apply("{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {selector: {app: server}, ports: [{port: 7000}]}}")?;
    eventually("pods of the service", || connects(&ns, &server, "7000"))?;
    ensure!(!connects(&ns, &other, "7000")?, "not the pods of no service");
    ns.apply("{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {selector: {app: other}, ports: [{port: 7000}]}}")?;
    eventually("its pods are others now", || {
        Ok(connects(&ns, &other, "7000")? && !connects(&ns, &server, "7000")?)
    })?;

    let (service, slice) = (
        format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: db, labels: {{where: outside}}}}, spec: {{ports: [{{port: {port}}}]}}}}"
        ),
        format!(
            "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {{name: db-1, labels: {{kubernetes.io/service-name: db}}}}, addressType: IPv4, ports: [{{port: {port}}}], endpoints: [{{addresses: [{host}]}}]}}"
        ),
    );
    ns.apply(&service)?;
    ns.apply(&slice)?;
    eventually("the backends outside", || connects(&ns, &host, &port))?;
    ns.kubectl(&["delete", "endpointslice", "db-1"])?;
    eventually("which are gone", || Ok(!connects(&ns, &host, &port)?))?;
    ns.kubectl(&["delete", "service", "web"])?;
    eventually("and so is the service", || Ok(!connects(&ns, &other, "7000")?))
}

#[test]
fn entities_have_one_entry_for_all() -> anyhow::Result<()> {
    let (host, port) = outside()?;
    let ns = Namespace::new("entity")?;
    ns.apply(&(mk_server("server", None) + &mk_pod("client", None, &[], false)))?;
    ns.ready(&["server", "client"])?;
    let [server, _] = addresses(&ns, "server")?;
    let entity = |name: &str| mk_cnp("entity", &format!("egress: [{{toEntities: [{name}]}}]"));
    ns.apply(&entity("cluster"))?;
    in_force(&ns, "entity")?;
    eventually("the cluster, and not the world", || {
        Ok(connects(&ns, &server, "7000")? && !connects(&ns, &host, &port)?)
    })?;
    let entries = || -> anyhow::Result<u64> {
        let object = kubectl_json(&["get", "cnp", "entity", "-n", &ns.name])?;
        object["status"]["compiledEntries"].as_u64().context("no count of entries")
    };
    let before = entries()?;
    ns.apply(&mk_server("another", None))?;
    ns.ready(&["another"])?;
    let [another, _] = addresses(&ns, "another")?;
    ensure!(connects(&ns, &another, "7000")?, "a new pod is in the cluster at once");
    ensure!(entries()? == before, "a new identity took an entry: {} after {before}", entries()?);

    ns.apply(&entity("world"))?;
    eventually("the world, and not the cluster", || {
        Ok(!connects(&ns, &server, "7000")? && connects(&ns, &host, &port)?)
    })?;
    // A prefix that nobody named so far is a part of the world.
    ns.apply(&mk_cnp("prefix", &format!("enableDefaultDeny: {{egress: false}}, egressDeny: [{{toCIDR: [{host}/32], toPorts: [{{ports: [{{port: '1', protocol: TCP}}]}}]}}]")))?;
    in_force(&ns, "prefix")?;
    holds_for("it stays one", Duration::from_secs(2), || connects(&ns, &host, &port))?;
    ns.apply(&entity("none"))?;
    eventually("nobody", || Ok(!connects(&ns, &server, "7000")? && !connects(&ns, &host, &port)?))
}

#[test]
fn nodes_as_peers_are_refused_while_they_are_turned_off() -> anyhow::Result<()> {
    let config = kubectl_json(&["get", "configmap", "cilium-config", "-n", nodes::SYSTEM])?;
    ensure!(config["data"]["enable-node-selector-labels"] == "false", "this suite is for the default");
    let ns = Namespace::new("nodes-off")?;
    ns.apply(&mk_cnp("nodes", "egress: [{toNodes: [{matchLabels: {zone: a}}]}]"))?;
    eventually("the policy says which flag it needs", || {
        let object = kubectl_json(&["get", "cnp", "nodes", "-n", &ns.name])?;
        let text = object["status"]["conditions"].to_string();
        Ok(text.contains("spec.egress[0].toNodes") && text.contains("enable-node-selector-labels"))
    })
}
