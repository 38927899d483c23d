//! Output, letter by letter. `UPDATE_GOLDEN=1 cargo test -p cilium-dbg` writes the files anew; look at the difference then.

use std::path::Path;

use crate::agent::Agent;
use crate::data::{answers, beside_kube_proxy, troubled};
use crate::speaker::with_speaker;
use crate::text;

/// File below `golden/`, arguments.
const CASES: &[(&str, &str)] = &[
    ("endpoint-list.txt", "endpoint list"),
    ("endpoint-list-no-headers.txt", "endpoint list --no-headers"),
    ("endpoint-get.json", "endpoint get 17"),
    ("endpoint-get.yaml", "endpoint get ipv4:10.0.1.17 -o yaml"),
    ("policy-get.txt", "policy get"),
    ("identity-list.txt", "identity list"),
    ("identity-get.txt", "identity get 20011"),
    ("service-list.txt", "service list"),
    ("service-list.json", "service ls -o json"),
    ("lrp-list.txt", "lrp list"),
    ("lrp-list.json", "lrp list -o json"),
    ("bgp-peers.txt", "bgp peers"),
    ("bgp-peers.json", "bgp peers -o json"),
    ("bgp-routes.txt", "bgp routes"),
    ("bgp-routes-advertised.txt", "bgp routes advertised ipv6 unicast peer fd00::2"),
    ("bgp-routes-received.json", "bgp routes received ipv4 unicast vrouter 64512 -o json"),
    ("bgp-route-policies.txt", "bgp route-policies"),
    ("help-bgp-routes.txt", "bgp routes --help"),
    ("l2-announce-list.txt", "l2-announce list"),
    ("l2-announce-list.json", "l2-announce list -o json"),
    ("ip-list.txt", "ip list"),
    ("fqdn-cache-list.txt", "fqdn cache list"),
    ("node-list.txt", "node list"),
    ("bpf-endpoint-list.txt", "bpf endpoint list"),
    ("bpf-ipcache-list.txt", "bpf ipcache list"),
    ("bpf-policy-list.txt", "bpf policy list"),
    ("bpf-policy-get.txt", "bpf policy get 17"),
    ("bpf-policy-get.json", "bpf policy get pod-name:default/sender -o json"),
    ("bpf-policy-get-none.txt", "bpf policy get pod-name:default/odd"),
    ("bpf-ct-list.txt", "bpf ct list"),
    ("bpf-nat-list.txt", "bpf nat list"),
    ("bpf-lb-list.txt", "bpf lb list"),
    ("bpf-lb-list-backends.txt", "bpf lb list --backends"),
    ("bpf-lb-maglev-list.txt", "bpf lb maglev list"),
    ("bpf-lb-maglev-list.json", "bpf lb maglev list -o json"),
    ("bpf-metrics-list.txt", "bpf metrics list"),
    ("monitor.txt", "monitor"),
    ("status.txt", "status"),
    ("status-all-addresses.txt", "status --all-addresses"),
    ("status-verbose.txt", "status --verbose"),
    ("help.txt", "--help"),
    ("help-monitor.txt", "monitor --help"),
    ("help-bpf-policy-get.txt", "bpf policy get --help"),
    ("help-fqdn-cache-list.txt", "fqdn cache list --help"),
    ("help-bpf-policy-flush.txt", "bpf policy flush --help"),
];

/// The same with a point in time, to the second, told by its form only.
fn untimed(output: &str) -> String {
    let form =
        |word: &str| -> String { word.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect() };
    let is_time = |word: &&str| form(word) == "0000-00-00T00:00:00Z";
    let mut output = output.to_owned();
    while let Some(time) = output.split_whitespace().filter(is_time).find(|it| form(it) != *it) {
        output = output.replace(time, &form(time));
    }
    output
}

fn check(agent: &Agent, file: &str, args: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/golden").join(file);
    let output = untimed(&text(&agent.run(args).stdout));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &output).expect("golden files can be written");
    }
    let expected = std::fs::read_to_string(&path).expect("there is a golden file for each case");
    assert_eq!(output, expected, "cilium-dbg {args} differs from {}", path.display());
}

#[test]
fn output_is_as_checked_in() {
    let agent = Agent::start(with_speaker(answers()));
    for (file, args) in CASES {
        check(&agent, file, args);
    }
}

#[test]
fn what_is_wrong_is_seen() {
    let agent = Agent::start(answers().set("/v1/healthz", &troubled()));
    check(&agent, "status-troubled.txt", "status");
}

#[test]
fn rules_of_kube_proxy_are_seen() {
    let agent = Agent::start(answers().set("/v1/healthz", &beside_kube_proxy()));
    check(&agent, "status-kube-proxy.txt", "status");
}
