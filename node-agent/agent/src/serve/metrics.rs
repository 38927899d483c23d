//! Prometheus text format (version 0.0.4). Counters of packets are the kernel's own, read when they are asked for.

use std::fmt::{Display, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use cilium_bpf::layout::{METRIC_COLUMNS, Metric};
use cilium_drivers::maps::Maps;
use cilium_rest::bgp::{FamilyState, PeerState, SessionState};
use cilium_rest::dns::{BUCKETS, Counts};

use crate::bgp::runs::{self, ENDS};
use crate::brain::{DnsNumbers, Numbers};
use crate::describe;
use crate::pressure::Subject;
use crate::run::Handle;
use crate::watch::WATCHES;

pub(super) fn routes(bpffs: PathBuf, handle: Handle) -> Router {
    Router::new().route("/metrics", get(metrics)).with_state((bpffs, handle))
}

async fn metrics(State((bpffs, handle)): State<(PathBuf, Handle)>) -> Response {
    let Ok(numbers) = handle.ask(|brain| brain.numbers()).await else {
        return axum::http::StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let packets = Maps::open(&bpffs).and_then(|maps| maps.metrics.totals()).unwrap_or_default();
    let text = render(&numbers, packets.into_iter());
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

/// Most objects with a sample of their own.
const MAX_NAMED: usize = 100;

/// The value of a label.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// A text under construction.
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }
    fn sample(&mut self, name: &str, labels: &str, value: impl Display) {
        let labels = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }
    fn single(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, "", value);
    }
}

fn render(numbers: &Numbers, packets: impl Iterator<Item = (u32, Metric)>) -> String {
    let mut page = Page(String::new());
    page.family("cilium_version", "gauge", "Version of the agent.");
    page.sample("cilium_version", &format!("version=\"{}\"", env!("CARGO_PKG_VERSION")), 1);
    page.family("cilium_endpoint_state", "gauge", "Endpoints by state.");
    page.sample("cilium_endpoint_state", "endpoint_state=\"ready\"", numbers.ready);
    page.sample(
        "cilium_endpoint_state",
        "endpoint_state=\"creating\"",
        numbers.planned.saturating_sub(numbers.ready),
    );
    page.single("cilium_agent_watches", "gauge", "Watches that the agent holds on the API server.", WATCHES);
    page.single("cilium_agent_watches_connected", "gauge", "Watches that work.", numbers.connected);
    page.family("cilium_agent_revision", "gauge", "Revision of the node's state.");
    page.sample("cilium_agent_revision", "state=\"desired\"", numbers.desired);
    page.sample("cilium_agent_revision", "state=\"applied\"", numbers.applied);
    page.single("cilium_agent_running", "gauge", "1 when pods can be connected.", u8::from(numbers.running));
    page.single("cilium_agent_failures", "gauge", "Objects that are not in force.", numbers.failures.len());
    page.family("cilium_agent_failing", "gauge", "The same by name, the first hundred.");
    for object in numbers.failures.iter().take(MAX_NAMED) {
        page.sample("cilium_agent_failing", &format!("object=\"{}\"", escaped(object)), 1);
    }
    page.single(
        "cilium_agent_repairs_total",
        "counter",
        "Kernel entries repaired after somebody else changed them.",
        numbers.repairs,
    );
    let timing = numbers.timing;
    page.family("cilium_agent_apply_seconds", "summary", "Time from a watch event to written maps.");
    page.sample("cilium_agent_apply_seconds_sum", "", timing.sum.as_secs_f64());
    page.sample("cilium_agent_apply_seconds_count", "", timing.count);
    page.single(
        "cilium_agent_apply_longest_seconds",
        "gauge",
        "The longest of them.",
        timing.longest.as_secs_f64(),
    );
    page.family(
        "cilium_bpf_map_pressure",
        "gauge",
        "Share of a table's entries that are in use, by the last look.",
    );
    for pressure in &numbers.pressures {
        if let Subject::Map(map) = &pressure.subject {
            let label = format!("map_name=\"{map}\"");
            page.sample("cilium_bpf_map_pressure", &label, format!("{:.4}", pressure.ratio()));
        }
    }
    if let Some(ports) = numbers.pressures.iter().find(|pressure| pressure.subject == Subject::Ports) {
        page.single(
            "cilium_nat_port_pressure",
            "gauge",
            "Share of the node's ports that are in use towards the destination with the most, by the last look.",
            format!("{:.4}", ports.ratio()),
        );
    }
    render_dns(&mut page, &numbers.dns);
    render_bgp(&mut page, &numbers.bgp);
    render_bgp_runs(&mut page, &numbers.bgp_runs);
    render_packets(&mut page, packets);
    page.0
}

/// Names and labels are upstream's.
fn render_bgp(page: &mut Page, peers: &[PeerState]) {
    if peers.is_empty() {
        return;
    }
    let labels = |peer: &PeerState| {
        let neighbor = SocketAddr::new(peer.address, peer.port);
        let PeerState { instance, local_asn, asn, .. } = peer;
        let instance = escaped(instance);
        format!(
            "instance_name=\"{instance}\",local_asn=\"{local_asn}\",neighbor=\"{neighbor}\",neighbor_asn=\"{asn}\""
        )
    };
    let is_up = |peer: &PeerState| peer.state == SessionState::Established;
    let name = "cilium_bgp_control_plane_session_state";
    page.family(name, "gauge", "1 while the session with a neighbour is established.");
    for peer in peers {
        page.sample(name, &labels(peer), u8::from(is_up(peer)));
    }
    for (name, help, count) in [
        (
            "cilium_bgp_control_plane_advertised_routes",
            "Routes that a neighbour was told.",
            (|family| family.advertised) as fn(&FamilyState) -> u64,
        ),
        ("cilium_bgp_control_plane_received_routes", "Routes that a neighbour told.", |family| {
            family.received
        }),
    ] {
        page.family(name, "gauge", help);
        for peer in peers.iter().filter(|peer| is_up(peer)) {
            for family in &peer.families {
                let labels = format!("{},afi=\"{}\",safi=\"unicast\"", labels(peer), family.family.afi());
                page.sample(name, &labels, count(family));
            }
        }
    }
}

/// Names and labels are upstream's.
fn render_bgp_runs(page: &mut Page, all: &runs::All) {
    if all.is_empty() {
        return;
    }
    let label = |instance: &str| format!("instance_name=\"{}\"", escaped(instance));
    let name = "cilium_bgp_control_plane_reconcile_errors_total";
    page.family(name, "counter", "What could not be put in force, in each run anew.");
    for (instance, runs) in all {
        page.sample(name, &label(instance), runs.errors);
    }
    let name = "cilium_bgp_control_plane_reconcile_run_duration_seconds";
    page.family(name, "histogram", "Time that runs took.");
    for (instance, runs) in all {
        let label = label(instance);
        let mut total = 0;
        for (end, count) in ENDS.iter().zip(runs.buckets) {
            total += count;
            let end = Duration::from_millis(*end).as_secs_f64();
            page.sample(&format!("{name}_bucket"), &format!("{label},le=\"{end}\""), total);
        }
        page.sample(&format!("{name}_bucket"), &format!("{label},le=\"+Inf\""), runs.count);
        page.sample(&format!("{name}_sum"), &label, runs.sum.as_secs_f64());
        page.sample(&format!("{name}_count"), &label, runs.count);
    }
}

/// Names are upstream's where it has them; what the proxy counts begins anew with it.
fn render_dns(page: &mut Page, dns: &DnsNumbers) {
    let DnsNumbers { counts, names, addresses, evicted } = dns;
    page.family(
        "cilium_policy_l7_total",
        "counter",
        "Questions that came to the DNS proxy, by what became of them.",
    );
    for (rule, value) in [
        ("received", counts.received),
        ("forwarded", counts.forwarded),
        ("denied", counts.denied),
        ("parse_errors", counts.malformed),
    ] {
        page.sample("cilium_policy_l7_total", &format!("rule=\"{rule}\",proxy_type=\"fqdn\""), value);
    }
    render_replies(page, counts);
    page.single(
        "cilium_proxy_datapath_update_timeout_total",
        "counter",
        "Answers that were passed on before their addresses were in force.",
        counts.timeouts,
    );
    page.single("cilium_fqdn_active_names", "gauge", "Names with addresses.", names);
    page.single("cilium_fqdn_active_ips", "gauge", "Addresses with names.", addresses);
    page.single(
        "cilium_fqdn_evicted_ips_total",
        "counter",
        "Addresses that lost a name before its time, as a bound was reached.",
        evicted,
    );
}

fn render_replies(page: &mut Page, counts: &Counts) {
    let name = "cilium_proxy_upstream_reply_seconds";
    page.family(name, "histogram", "Time that name servers took to answer.");
    let mut total = 0;
    let ends = BUCKETS.iter().map(ToString::to_string).chain(["+Inf".to_owned()]);
    for (place, end) in ends.enumerate() {
        total += counts.replies.get(place).copied().unwrap_or(0);
        page.sample(&format!("{name}_bucket"), &format!("protocol_l7=\"dns\",le=\"{end}\""), total);
    }
    let sum = Duration::from_micros(counts.reply_micros).as_secs_f64();
    page.sample(&format!("{name}_sum"), "protocol_l7=\"dns\"", sum);
    page.sample(&format!("{name}_count"), "protocol_l7=\"dns\"", total);
}

fn render_packets(page: &mut Page, packets: impl Iterator<Item = (u32, Metric)>) {
    let (dropped, forwarded): (Vec<_>, Vec<_>) = packets
        .filter_map(|(index, metric)| Some((index >= METRIC_COLUMNS, describe::metric(index)?, metric)))
        .partition(|(dropped, _, _)| *dropped);
    let value = |metric: &Metric, bytes: bool| if bytes { metric.bytes } else { metric.packets };
    for (unit, bytes) in [("count", false), ("bytes", true)] {
        let name = format!("cilium_drop_{unit}_total");
        page.family(&name, "counter", "Dropped, by reason and direction.");
        for (_, (reason, direction), metric) in &dropped {
            page.sample(
                &name,
                &format!("reason=\"{reason}\",direction=\"{direction}\""),
                value(metric, bytes),
            );
        }
        let name = format!("cilium_forward_{unit}_total");
        page.family(&name, "counter", "Forwarded, by direction.");
        for (_, (_, direction), metric) in &forwarded {
            page.sample(&name, &format!("direction=\"{direction}\""), value(metric, bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use cilium_bpf::layout::{METRIC_EGRESS, METRIC_INGRESS, metric_index};
    use cilium_bpf::reason::DropReason;

    use super::*;

    #[test]
    fn sessions_have_upstreams_names() {
        let family = |family, received, advertised| FamilyState { family, received, advertised };
        let mk = |address: &str, state| PeerState {
            instance: "rack".into(),
            local_asn: 64512,
            name: "tor".into(),
            address: address.parse().expect("an address"),
            port: 179,
            asn: 64500,
            router_id: None,
            state,
            since: 0,
            established_count: 0,
            hold_time: 0,
            keepalive: 0,
            families: vec![family(cilium_rest::bgp::Family::Ipv6, 3, 4)],
            reason: None,
            bfd: None,
            bfd_problem: None,
            capabilities: vec![],
        };
        let bgp = vec![mk("192.0.2.1", SessionState::Established), mk("fd00::1", SessionState::Active)];
        let text = render(&Numbers { bgp, ..Numbers::default() }, [].into_iter());
        let found: Vec<&str> = text.lines().filter(|line| line.starts_with("cilium_bgp")).collect();
        let of = |neighbor: &str| {
            format!(
                "instance_name=\"rack\",local_asn=\"64512\",neighbor=\"{neighbor}\",neighbor_asn=\"64500\""
            )
        };
        let (up, down) = (of("192.0.2.1:179"), of("[fd00::1]:179"));
        assert_eq!(
            found,
            [
                format!("cilium_bgp_control_plane_session_state{{{up}}} 1"),
                format!("cilium_bgp_control_plane_session_state{{{down}}} 0"),
                format!("cilium_bgp_control_plane_advertised_routes{{{up},afi=\"ipv6\",safi=\"unicast\"}} 4"),
                format!("cilium_bgp_control_plane_received_routes{{{up},afi=\"ipv6\",safi=\"unicast\"}} 3"),
            ]
        );
    }

    #[test]
    fn runs_of_bgp_have_upstreams_names() {
        let runs = runs::Runs {
            errors: 2,
            count: 4,
            sum: Duration::from_millis(11_016),
            buckets: [1, 0, 2, 0, 0, 0, 0, 0],
        };
        let bgp_runs = [("rack".to_owned(), runs)].into();
        let text = render(&Numbers { bgp_runs, ..Numbers::default() }, [].into_iter());
        let of = text.lines().filter_map(|line| line.strip_prefix("cilium_bgp_control_plane_reconcile_"));
        assert_eq!(
            of.collect::<Vec<_>>(),
            [
                r#"errors_total{instance_name="rack"} 2"#,
                r#"run_duration_seconds_bucket{instance_name="rack",le="0.001"} 1"#,
                r#"run_duration_seconds_bucket{instance_name="rack",le="0.005"} 1"#,
                r#"run_duration_seconds_bucket{instance_name="rack",le="0.01"} 3"#,
                r#"run_duration_seconds_bucket{instance_name="rack",le="0.05"} 3"#,
                r#"run_duration_seconds_bucket{instance_name="rack",le="0.1"} 3"#,
                r#"run_duration_seconds_bucket{instance_name="rack",le="0.5"} 3"#,
                r#"run_duration_seconds_bucket{instance_name="rack",le="1"} 3"#,
                r#"run_duration_seconds_bucket{instance_name="rack",le="10"} 3"#,
                r#"run_duration_seconds_bucket{instance_name="rack",le="+Inf"} 4"#,
                r#"run_duration_seconds_sum{instance_name="rack"} 11.016"#,
                r#"run_duration_seconds_count{instance_name="rack"} 4"#,
            ]
        );
    }

    #[test]
    fn counters_and_gauges_are_rendered() {
        let drops =
            (metric_index(Some(DropReason::PolicyDenied), METRIC_INGRESS), Metric { packets: 3, bytes: 180 });
        let passed = (metric_index(None, METRIC_EGRESS), Metric { packets: 5, bytes: 500 });
        let failures = vec!["policy/300".to_owned(), "route a\"b".to_owned()];
        let replies = vec![3, 0, 1, 0, 0, 0, 0, 1];
        let counts = Counts { received: 7, denied: 2, replies, reply_micros: 1_500_000, ..Counts::default() };
        let dns = DnsNumbers { counts, names: 2, addresses: 5, evicted: 4 };
        let numbers = Numbers { ready: 2, planned: 3, failures, dns, ..Numbers::default() };
        let text = render(&numbers, [passed, drops].into_iter());
        for line in [
            "cilium_drop_count_total{reason=\"Policy denied\",direction=\"INGRESS\"} 3",
            "cilium_forward_bytes_total{direction=\"EGRESS\"} 500",
            "cilium_endpoint_state{endpoint_state=\"creating\"} 1",
            "cilium_agent_watches 2",
            "cilium_policy_l7_total{rule=\"received\",proxy_type=\"fqdn\"} 7",
            "cilium_policy_l7_total{rule=\"denied\",proxy_type=\"fqdn\"} 2",
            "cilium_proxy_upstream_reply_seconds_bucket{protocol_l7=\"dns\",le=\"0.005\"} 3",
            "cilium_proxy_upstream_reply_seconds_bucket{protocol_l7=\"dns\",le=\"+Inf\"} 5",
            "cilium_proxy_upstream_reply_seconds_sum{protocol_l7=\"dns\"} 1.5",
            "cilium_proxy_upstream_reply_seconds_count{protocol_l7=\"dns\"} 5",
            "cilium_fqdn_active_names 2",
            "cilium_fqdn_active_ips 5",
            "cilium_fqdn_evicted_ips_total 4",
            "cilium_agent_failures 2",
            "cilium_agent_failing{object=\"policy/300\"} 1",
            "cilium_agent_failing{object=\"route a\\\"b\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
    }
}
