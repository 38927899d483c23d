//! Rules for the whole cluster, before and behind those of namespaces. For a cluster with `k8sClusterNetworkPolicy.enabled=true` and
//! without the kind's definition: the operator has to wait for it.

use anyhow::ensure;
use cluster_tests::pods::{addresses, mk_pod, mk_server};
use cluster_tests::scenes::{asking, is_answered, outside};
use cluster_tests::{Namespace, eventually, exec, kubectl, kubectl_json, nodes};

/// As much of the kind as is read.
const DEFINITION: &str = "\
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: clusternetworkpolicies.policy.networking.k8s.io
  annotations: {api-approved.kubernetes.io: unapproved for tests}
spec:
  group: policy.networking.k8s.io
  scope: Cluster
  names: {kind: ClusterNetworkPolicy, plural: clusternetworkpolicies, singular: clusternetworkpolicy}
  versions:
    - name: v1alpha2
      served: true
      storage: true
      subresources: {status: {}}
      schema:
        openAPIV3Schema:
          type: object
          required: [spec]
          properties:
            spec:
              type: object
              required: [tier, priority, subject]
              properties:
                tier: {type: string, enum: [Admin, Baseline]}
                priority: {type: integer, minimum: 0, maximum: 1000}
                subject: {type: object, maxProperties: 1, minProperties: 1, x-kubernetes-preserve-unknown-fields: true}
                ingress: &rules
                  type: array
                  maxItems: 25
                  items:
                    type: object
                    required: [action]
                    properties: {action: {type: string, enum: [Accept, Deny, Pass]}}
                    x-kubernetes-preserve-unknown-fields: true
                egress: *rules
            status: {type: object, x-kubernetes-preserve-unknown-fields: true}
";

fn install() -> anyhow::Result<()> {
    let definition = cluster_tests::kubectl::feed(&["apply", "-f", "-"], DEFINITION)?;
    ensure!(definition.contains("clusternetworkpolicies"), "{definition}");
    let name = "crd/clusternetworkpolicies.policy.networking.k8s.io";
    kubectl(&["wait", "--for=condition=Established", "--timeout=30s", name]).map(drop)
}

/// A policy of the whole cluster, which goes with the test.
struct Ordered(String);

impl Ordered {
    fn put(&self, namespace: &Namespace, tier: &str, subject: &str, rules: &str) -> anyhow::Result<()> {
        let Self(name) = self;
        let place = format!("namespaceSelector: {}", in_namespace(namespace));
        namespace
            .apply(&format!(
                "{{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {{name: {name}}}, spec: {{tier: {tier}, priority: 10, \
                 subject: {{pods: {{{place}, podSelector: {{matchLabels: {{app: {subject}}}}}}}}}, {rules}}}}}"
            ))
            .map(drop)
    }
}

impl Drop for Ordered {
    fn drop(&mut self) {
        let _ = kubectl(&["delete", "clusternetworkpolicy", &self.0, "--ignore-not-found"]);
    }
}

fn in_namespace(namespace: &Namespace) -> String {
    format!("{{matchLabels: {{kubernetes.io/metadata.name: {}}}}}", namespace.name)
}

/// What comes in from this namespace.
fn ingress(namespace: &Namespace, actions: &[&str]) -> String {
    let from = format!("from: [{{namespaces: {}}}]", in_namespace(namespace));
    let rules: Vec<String> = actions.iter().map(|action| format!("{{action: {action}, {from}}}")).collect();
    format!("ingress: [{}]", rules.join(", "))
}

fn mk_netpol(ingress: &str) -> String {
    format!(
        "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: own}}, spec: {{podSelector: {{matchLabels: {{app: server}}}}, ingress: [{ingress}]}}}}"
    )
}

#[test]
fn tiers_are_asked_in_their_order() -> anyhow::Result<()> {
    install()?;
    let names = nodes::names()?;
    let ns = Namespace::new("tiers")?;
    ns.apply(
        &[mk_server("server", Some(&names[0])), mk_pod("client", Some(&names[1]), &[], false)].concat(),
    )?;
    ns.ready(&["server", "client"])?;
    let server = addresses(&ns, "server")?;
    // Both families: they stand and fall together.
    let reaches = |wanted: bool| {
        let connect = |ip: &String| exec(&ns.name, "client", &["nc", "-z", "-w", "2", ip, "7000"]);
        let ran = server.iter().map(|ip| connect(ip).map(|ran| ran.ok()));
        Ok(ran.collect::<anyhow::Result<Vec<bool>>>()? == [wanted; 2])
    };
    ensure!(reaches(true)?, "without a policy");
    let (admin, baseline) = (Ordered(format!("{}-admin", ns.name)), Ordered(format!("{}-baseline", ns.name)));

    admin.put(&ns, "Admin", "server", &ingress(&ns, &["Deny"]))?;
    eventually("what admins deny", || reaches(false))?;
    ns.apply(&mk_netpol("{}"))?;
    eventually("no policy of a namespace opens it", || reaches(false))?;
    admin.put(&ns, "Admin", "server", &ingress(&ns, &["Pass", "Deny"]))?;
    eventually("passed on, it is for the namespace to say", || reaches(true))?;
    baseline.put(&ns, "Baseline", "server", &ingress(&ns, &["Deny"]))?;
    ns.apply(&mk_netpol("{from: [{podSelector: {matchLabels: {app: nobody}}}]}"))?;
    eventually("which closes", || reaches(false))?;
    admin.put(&ns, "Admin", "server", &ingress(&ns, &["Accept"]))?;
    eventually("what admins accept", || reaches(true))?;
    baseline.put(&ns, "Baseline", "server", &ingress(&ns, &["Accept"]))?;
    drop(admin);
    eventually("the baseline opens nothing", || reaches(false))?;
    ns.kubectl(&["delete", "networkpolicy", "own"])?;
    eventually("without a policy of the namespace it decides", || reaches(true))?;
    baseline.put(&ns, "Baseline", "server", &ingress(&ns, &["Deny"]))?;
    eventually("and denies", || reaches(false))?;
    drop(baseline);
    eventually("without any, all is open", || reaches(true))
}

#[test]
fn names_are_accepted_before_networks_are_denied() -> anyhow::Result<()> {
    install()?;
    let (host, port) = outside()?;
    let host = host.as_str();
    let ns = asking("tiers-names", host)?;
    let reaches = |name: &str| is_answered(&ns, name, &port);
    ensure!(reaches("api.test")? && reaches(host)?, "the host outside does not answer");
    let policy = Ordered(format!("{}-egress", ns.name));
    let rules = "egress: [{action: Accept, to: [{domainNames: [api.test]}]}, {action: Deny, to: [{networks: [0.0.0.0/0]}]}]";
    policy.put(&ns, "Admin", "client", rules)?;
    eventually("the network is denied", || Ok(!reaches(host)?))?;
    let resolved = exec(&ns.name, "client", &["getent", "hosts", "other.test"])?;
    ensure!(resolved.ok(), "questions are not filtered: {resolved:?}");
    ensure!(!reaches("other.test")?, "a name that is not accepted");
    ensure!(reaches("api.test")?, "the name that is accepted");
    ensure!(reaches(host)?, "the address behind the name");
    eventually("an Event tells what the denial leaves out", || {
        let events = kubectl_json(&["get", "events.events.k8s.io", "-n", "default"])?;
        let items = events["items"].as_array().cloned().unwrap_or_default();
        let is_told = |event: &serde_json::Value| {
            event["note"].as_str().is_some_and(|note| note.contains("pods and nodes"))
        };
        Ok(items.iter().any(|event| event["regarding"]["name"] == policy.0.as_str() && is_told(event)))
    })
}
