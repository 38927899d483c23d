//! Addresses of load balancers out of pools: who gets which, what is said of those who get none, and whether a client outside is served
//! there.

use std::net::IpAddr;

use anyhow::{Context as _, ensure};
use cluster_tests::outside::{Way, are_answered_by};
use cluster_tests::scenes::{backends, serve};
use cluster_tests::{Namespace, eventually, feed, kubectl, kubectl_json};

/// The guide for those who come from MetalLB.
const MIGRATION: &str = include_str!("../../../docs/guides/metallb-migration.md");

/// A pool for the Services of one namespace; it goes with the test.
struct Pool(String);

impl Pool {
    /// `blocks` is the inside of a YAML list.
    fn new(ns: &Namespace, blocks: &str) -> anyhow::Result<Self> {
        let pool = Self(format!("pool-{}", ns.name));
        pool.set(ns, blocks)?;
        Ok(pool)
    }

    fn set(&self, ns: &Namespace, blocks: &str) -> anyhow::Result<()> {
        feed(&["apply", "-f", "-"], &mk_pool(&self.0, ns, blocks)).map(drop)
    }

    /// What `kubectl get ippools` shows of it: Disabled, Conflicting, IPs Available.
    fn columns(&self) -> anyhow::Result<String> {
        let line = kubectl(&["get", "ippools", &self.0, "--no-headers"])?;
        Ok(line.split_whitespace().skip(1).take(3).collect::<Vec<_>>().join(" "))
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if let Err(error) = kubectl(&["delete", "ippool", &self.0, "--ignore-not-found"]) {
            eprintln!("the pool {} stays: {error:#}", self.0);
        }
    }
}

fn mk_pool(name: &str, ns: &Namespace, blocks: &str) -> String {
    let selector = format!("{{matchLabels: {{io.kubernetes.service.namespace: {}}}}}", ns.name);
    format!(
        "{{apiVersion: cilium.io/v2, kind: CiliumLoadBalancerIPPool, metadata: {{name: {name}}}, spec: {{serviceSelector: {selector}, blocks: [{blocks}]}}}}"
    )
}

/// A Service of type LoadBalancer without backends.
fn mk_service(name: &str, port: u16, annotations: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: {name}, annotations: {{{annotations}}}}}, spec: {{type: LoadBalancer, ports: [{{port: {port}}}]}}}}\n---\n"
    )
}

/// Addresses of a Service, and the reason that stands beside them.
fn found(ns: &Namespace, service: &str) -> anyhow::Result<String> {
    let status = &kubectl_json(&["-n", &ns.name, "get", "service", service])?["status"];
    let ingress = status["loadBalancer"]["ingress"].as_array().cloned().unwrap_or_default();
    let addresses: Vec<&str> = ingress.iter().filter_map(|it| it["ip"].as_str()).collect();
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    let ours = conditions.iter().find(|it| it["type"] == "cilium.io/IPAMRequestSatisfied");
    let reason = ours.and_then(|it| it["reason"].as_str()).unwrap_or("none");
    Ok(format!("{} {reason}", addresses.join(",")).trim_start().to_owned())
}

fn becomes(ns: &Namespace, service: &str, expected: &str) -> anyhow::Result<()> {
    let mut last = String::new();
    let outcome = eventually(&format!("{service} has {expected:?}"), || {
        last = found(ns, service)?;
        Ok(last == expected)
    });
    outcome.with_context(|| format!("the last was {last:?}"))
}

#[test]
fn a_service_gets_an_address_and_answers_on_it() -> anyhow::Result<()> {
    let (ns, nodes) = backends("pool")?;
    serve(&ns, "type: LoadBalancer, ipFamilyPolicy: RequireDualStack")?;
    let pool = Pool::new(&ns, "{cidr: 192.0.2.16/29}, {cidr: '2001:db8:16::/125'}")?;
    becomes(&ns, "web", "192.0.2.16,2001:db8:16:: satisfied")?;
    eventually("the pool counts it", || Ok(pool.columns()? == "false False 14"))?;
    for address in ["192.0.2.16", "2001:db8:16::"] {
        let address: IpAddr = address.parse()?;
        let _way = Way::new(address, &nodes[0])?;
        are_answered_by((address, 80).into(), &["far", "near"])?;
    }
    Ok(())
}

#[test]
fn requests_sharing_and_their_limits() -> anyhow::Result<()> {
    let ns = Namespace::new("requests")?;
    let key = "lbipam.cilium.io/sharing-key: k";
    ns.apply(
        &[
            mk_service("asks", 80, "lbipam.cilium.io/ips: 192.0.2.33"),
            mk_service("beyond", 80, "lbipam.cilium.io/ips: 192.0.2.99"),
            mk_service("shares-1", 80, key),
            mk_service("shares-2", 81, key),
        ]
        .concat(),
    )?;
    let pool = Pool::new(&ns, "{start: 192.0.2.32, stop: 192.0.2.33}")?;
    becomes(&ns, "asks", "192.0.2.33 satisfied")?;
    becomes(&ns, "beyond", "no_pool")?;
    becomes(&ns, "shares-1", "192.0.2.32 satisfied")?;
    becomes(&ns, "shares-2", "192.0.2.32 satisfied")?;
    ns.apply(
        &[mk_service("any", 80, ""), mk_service("late", 80, "lbipam.cilium.io/ips: 192.0.2.33")].concat(),
    )?;
    becomes(&ns, "any", "out_of_ips")?;
    becomes(&ns, "late", "already_allocated")?;
    ns.kubectl(&["delete", "service", "asks"])?;
    becomes(&ns, "late", "192.0.2.33 satisfied")?;
    pool.set(&ns, "{start: 192.0.2.32, stop: 192.0.2.34}")?;
    becomes(&ns, "any", "192.0.2.34 satisfied")?;
    becomes(&ns, "shares-1", "192.0.2.32 satisfied")
}

#[test]
fn a_pool_that_is_deleted_takes_its_addresses_along() -> anyhow::Result<()> {
    let ns = Namespace::new("deleted")?;
    ns.apply(&mk_service("web", 80, ""))?;
    let pool = Pool::new(&ns, "{cidr: 192.0.2.48/30}")?;
    becomes(&ns, "web", "192.0.2.48 satisfied")?;
    kubectl(&["delete", "ippool", &pool.0])?;
    // Without any pool the operator has nothing to say of new Services, but it takes back what it gave.
    becomes(&ns, "web", "no_pool")?;
    pool.set(&ns, "{cidr: 192.0.2.52/30}")?;
    becomes(&ns, "web", "192.0.2.52 satisfied")
}

#[test]
fn what_another_controller_wrote_is_left_alone() -> anyhow::Result<()> {
    let ns = Namespace::new("foreign")?;
    ns.apply(&mk_service("theirs", 80, ""))?;
    let status = r#"{"status":{"loadBalancer":{"ingress":[{"ip":"192.0.2.56"}]}}}"#;
    ns.kubectl(&["patch", "service", "theirs", "--subresource=status", "--type=merge", "-p", status])?;
    let _pool = Pool::new(&ns, "{cidr: 192.0.2.56/30}")?;
    ns.apply(&mk_service("ours", 80, ""))?;
    becomes(&ns, "ours", "192.0.2.57 satisfied")?;
    becomes(&ns, "theirs", "192.0.2.56 none")?;

    // As the guide takes over what MetalLB gave.
    ns.kubectl(&["annotate", "service", "theirs", "lbipam.cilium.io/ips=192.0.2.56"])?;
    let empty = r#"{"status":{"loadBalancer":{"ingress":null}}}"#;
    ensure!(MIGRATION.contains(empty), "the guide does it otherwise");
    ns.kubectl(&["patch", "service", "theirs", "--subresource=status", "--type=merge", "-p", empty])?;
    becomes(&ns, "theirs", "192.0.2.56 satisfied")
}

#[test]
fn a_malformed_pool_is_refused_and_a_conflicting_one_says_so() -> anyhow::Result<()> {
    let ns = Namespace::new("malformed")?;
    let bad = mk_pool("malformed", &ns, "{start: 192.0.2.70, stop: 192.0.2.65}");
    eventually("the webhook refuses it", || {
        let refused = feed(&["apply", "--dry-run=server", "-f", "-"], &bad);
        let error = refused.err().map(|error| error.to_string()).unwrap_or_default();
        Ok(error.contains("spec.blocks[0].stop: 192.0.2.65 is before 192.0.2.70"))
    })?;
    let older = Pool::new(&ns, "{cidr: 192.0.2.64/29}")?;
    let younger = Pool(format!("younger-{}", ns.name));
    eventually("the first pool is there", || Ok(older.columns()? == "false False 8"))?;
    // Times are in seconds.
    std::thread::sleep(std::time::Duration::from_secs(1));
    younger.set(&ns, "{cidr: 192.0.2.64/28}")?;
    eventually("the younger one conflicts", || Ok(younger.columns()? == "false True 16"))?;
    ensure!(older.columns()? == "false False 8", "{}", older.columns()?);
    Ok(())
}
