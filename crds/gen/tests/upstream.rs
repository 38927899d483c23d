//! Every field of our definitions is that of the upstream v1.20.2 field lists, or the difference is listed with its reason.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fields;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use fields::{Field, FieldList};

/// An entry of `differences.tsv`.
#[derive(Debug)]
struct Allowed {
    kind: String,
    path: String,
    what: String,
}

/// A difference that was found.
#[derive(Debug)]
struct Difference {
    path: String,
    what: String,
}

impl Allowed {
    fn covers(&self, difference: &Difference) -> bool {
        self.what == difference.what && matches(&self.path, &difference.path)
    }
}

/// `*` in a pattern stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, rest)) => text.strip_prefix(start).is_some_and(|tail| {
            let mut cuts = tail.char_indices().map(|(at, _)| at).chain([tail.len()]);
            cuts.any(|at| matches(rest, &tail[at..]))
        }),
    }
}

fn tests_directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// Entries for one kind. Each line: kinds with commas between, path, difference, reason.
fn allowed_for(kind: &str) -> Vec<Allowed> {
    let text = fs::read_to_string(tests_directory().join("differences.tsv")).unwrap();
    let lines = text.lines().enumerate().filter(|(_, line)| !line.starts_with('#'));
    let entries = lines.flat_map(|(at, line)| {
        let cells: Vec<&str> = line.split('\t').collect();
        let [kinds, path, what, reason] = cells.as_slice() else {
            panic!("differences.tsv:{}: not four cells", at + 1)
        };
        assert!(reason.len() >= 20, "differences.tsv:{}: say why", at + 1);
        kinds
            .split(',')
            .map(|kind| Allowed { kind: kind.into(), path: (*path).into(), what: (*what).into() })
            .collect::<Vec<_>>()
    });
    entries.filter(|entry| entry.kind == kind).collect()
}

fn describe(old: &Field, new: &Field) -> String {
    let old_type = (old.kind != new.kind).then(|| old.kind.clone());
    let new_type = (old.kind != new.kind).then(|| new.kind.clone());
    let gone: Vec<String> =
        old_type.into_iter().chain(old.constraints.difference(&new.constraints).cloned()).collect();
    let come: Vec<String> =
        new_type.into_iter().chain(new.constraints.difference(&old.constraints).cloned()).collect();
    format!("{} -> {}", gone.join("; "), come.join("; "))
}

fn differences(upstream: &FieldList, ours: &FieldList) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut add = |path: &str, what: String| found.push(Difference { path: path.into(), what });
    if upstream.head != ours.head {
        add("(kind)", format!("{} -> {}", upstream.head, ours.head));
    }
    let kept: Vec<&String> = ours.columns.iter().filter(|column| upstream.columns.contains(column)).collect();
    if kept != upstream.columns.iter().collect::<Vec<_>>() {
        add("(columns)", format!("{:?} -> {kept:?}", upstream.columns));
    }
    for column in ours.columns.iter().filter(|column| !upstream.columns.contains(column)) {
        add("(columns)", format!("extra {column}"));
    }
    let paths: BTreeSet<&String> = upstream.fields.keys().chain(ours.fields.keys()).collect();
    for path in paths {
        match (upstream.fields.get(path), ours.fields.get(path)) {
            (Some(_), None) => add(path, "missing".into()),
            (None, Some(_)) => add(path, "extra".into()),
            (Some(old), Some(new)) if old != new => add(path, describe(old, new)),
            _ => {}
        }
    }
    found
}

/// Compares the only version of a kind.
fn compare(kind: &str) -> usize {
    let count = cilium_api::all()
        .iter()
        .filter(|crd| crd.spec.names.kind == kind)
        .flat_map(|crd| crd.spec.versions.clone())
        .count();
    assert_eq!(count, 1, "{kind} has other than one version");
    compare_version(kind, kind, "v2")
}

/// Compares a version of a kind with the list in a file.
fn compare_version(kind: &str, file: &str, version: &str) -> usize {
    let text = fs::read_to_string(tests_directory().join(format!("upstream/{file}.tsv"))).unwrap();
    let upstream = FieldList::parse(&text);
    let crds = cilium_api::all();
    let crd = crds
        .iter()
        .find(|crd| crd.spec.names.kind == kind)
        .unwrap_or_else(|| panic!("no definition of {kind}"));
    let version =
        crd.spec.versions.iter().find(|known| known.name == version).expect("the version is defined");
    let found = differences(&upstream, &FieldList::of(crd, version));
    // An older version has entries of its own, under the name of its list.
    let allowed = allowed_for(file);

    let unlisted: Vec<_> =
        found.iter().filter(|found| !allowed.iter().any(|entry| entry.covers(found))).collect();
    assert!(
        unlisted.is_empty(),
        "{kind} differs from upstream, and differences.tsv does not say why: {unlisted:#?}"
    );
    let unused: Vec<_> =
        allowed.iter().filter(|entry| !found.iter().any(|found| entry.covers(found))).collect();
    assert!(unused.is_empty(), "{kind} has no such difference, remove it from differences.tsv: {unused:#?}");
    upstream.fields.len()
}

#[test]
fn network_policy() {
    assert_eq!(compare("CiliumNetworkPolicy"), 854);
}

#[test]
fn clusterwide_network_policy() {
    assert_eq!(compare("CiliumClusterwideNetworkPolicy"), 854);
}

#[test]
fn cidr_group_in_both_versions() {
    assert_eq!(compare_version("CiliumCIDRGroup", "CiliumCIDRGroup", "v2"), 3);
    assert_eq!(compare_version("CiliumCIDRGroup", "CiliumCIDRGroup.v2alpha1", "v2alpha1"), 3);
    let crds = cilium_api::all();
    let group = crds.iter().find(|crd| crd.spec.names.kind == "CiliumCIDRGroup").unwrap();
    let versions = group.spec.versions.iter().map(|it| (it.name.as_str(), it.deprecated == Some(true)));
    assert_eq!(versions.collect::<Vec<_>>(), [("v2", false), ("v2alpha1", true)]);
}

#[test]
fn load_balancer_pool_in_both_versions() {
    let kind = "CiliumLoadBalancerIPPool";
    assert_eq!(compare_version(kind, kind, "v2"), 26);
    assert_eq!(compare_version(kind, "CiliumLoadBalancerIPPool.v2alpha1", "v2alpha1"), 26);
    let crds = cilium_api::all();
    let pool = crds.iter().find(|crd| crd.spec.names.kind == kind).unwrap();
    let versions =
        pool.spec.versions.iter().map(|it| (it.name.as_str(), it.storage, it.deprecated == Some(true)));
    assert_eq!(versions.collect::<Vec<_>>(), [("v2", true, false), ("v2alpha1", false, true)]);
}

#[test]
fn local_redirect_policy() {
    assert_eq!(compare("CiliumLocalRedirectPolicy"), 36);
}

#[test]
fn l2_announcement_policy_in_its_only_version() {
    let kind = "CiliumL2AnnouncementPolicy";
    assert_eq!(compare_version(kind, kind, "v2alpha1"), 32);
    let crds = cilium_api::all();
    let policy = crds.iter().find(|crd| crd.spec.names.kind == kind).unwrap();
    let versions = policy.spec.versions.iter().map(|it| (it.name.as_str(), it.storage, it.deprecated));
    assert_eq!(versions.collect::<Vec<_>>(), [("v2alpha1", true, None)]);
}

#[test]
fn pod_ip_pool_in_its_only_version() {
    assert_eq!(compare_version("CiliumPodIPPool", "CiliumPodIPPool", "v2alpha1"), 29);
}

/// Fields of both versions, which both are served.
fn compare_both(kind: &str) -> (usize, usize) {
    let crds = cilium_api::all();
    let crd = crds.iter().find(|crd| crd.spec.names.kind == kind).unwrap();
    let versions =
        crd.spec.versions.iter().map(|it| (it.name.as_str(), it.storage, it.deprecated == Some(true)));
    assert_eq!(versions.collect::<Vec<_>>(), [("v2", true, false), ("v2alpha1", false, true)]);
    let old = format!("{kind}.v2alpha1");
    (compare_version(kind, kind, "v2"), compare_version(kind, &old, "v2alpha1"))
}

#[test]
fn bgp_kinds_in_both_versions() {
    assert_eq!(compare_both("CiliumBGPClusterConfig"), (35, 33));
    assert_eq!(compare_both("CiliumBGPPeerConfig"), (35, 35));
    assert_eq!(compare_both("CiliumBGPAdvertisement"), (29, 27));
    assert_eq!(compare_both("CiliumBGPNodeConfig"), (48, 46));
    assert_eq!(compare_both("CiliumBGPNodeConfigOverride"), (12, 12));
}

#[test]
fn endpoint() {
    assert_eq!(compare("CiliumEndpoint"), 119);
}

#[test]
fn identity() {
    assert_eq!(compare("CiliumIdentity"), 2);
}

#[test]
fn node() {
    assert_eq!(compare("CiliumNode"), 174);
}

#[test]
fn every_listed_difference_is_about_a_kind_that_is_compared() {
    let text = fs::read_to_string(tests_directory().join("differences.tsv")).unwrap();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        for kind in line.split('\t').next().unwrap().split(',') {
            assert!(
                tests_directory().join(format!("upstream/{kind}.tsv")).exists(),
                "no field list of {kind}"
            );
        }
    }
}

#[test]
fn a_difference_is_found_in_every_part() {
    let upstream =
        FieldList::parse("# Kind\n# column A\n# column B\nx\tstring\tmaxLength=3; enum=a|b\ny\tobject\n");
    let ours = FieldList::parse(
        "# Kind\n# column B\n# column C\nx\tstring required\tmaxLength=4; enum=a|b\nz\tobject\n",
    );
    let found: Vec<String> =
        differences(&upstream, &ours).iter().map(|found| format!("{}: {}", found.path, found.what)).collect();
    let expected = [
        r#"(columns): ["A", "B"] -> ["B"]"#,
        "(columns): extra C",
        "x: string; maxLength=3 -> string required; maxLength=4",
        "y: missing",
        "z: extra",
    ];
    assert_eq!(found, expected);
}
