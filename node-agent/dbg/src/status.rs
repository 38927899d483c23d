//! State of the agent, as a whole and line by line.

use std::collections::BTreeMap;
use std::process::ExitCode;

use cilium_rest::model::{
    Config, Health, KubeProxyReplacement, Masquerading, Monitor, NodeState, Routing, Status,
};
use cilium_rest::{Client, Error};

use crate::cli::StatusArgs;
use cilium_print::output::{encode, print};
use cilium_print::table::{Line, align, line};

/// Prints the state. The exit code follows the agent as a whole, as scripts and probes expect it; data is always a success.
///
/// # Errors
/// The agent does not answer.
pub(crate) fn run(client: &Client, args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let status = client.get::<Status>("/v1/healthz");
    if args.brief {
        return report_brief(status);
    }
    let status = status?;
    if let Some(format) = args.output.output {
        print(&encode(&status, format)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let config = client.get::<Config>("/v1/config")?;
    print(&align(&lines(&status, &config, args)))?;
    Ok(exit_code(&status))
}

fn exit_code(status: &Status) -> ExitCode {
    if status.cilium.is_fine() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn report_brief(status: Result<Status, Error>) -> anyhow::Result<ExitCode> {
    match status {
        Ok(status) => {
            print(&(brief(&status) + "\n"))?;
            Ok(exit_code(&status))
        }
        Err(error) => {
            if error.is_unreachable() {
                print("cilium: daemon unreachable\n")?;
            }
            Err(error.into())
        }
    }
}

/// `OK`, or the first thing that is not.
fn brief(status: &Status) -> String {
    let parts = [("kubernetes", &status.kubernetes), ("cilium", &status.cilium)];
    if let Some((part, health)) = parts.into_iter().find(|(_, health)| !health.is_fine()) {
        return format!("error in {part}: {}", health.msg);
    }
    match status.node_state.failures.first() {
        Some(failure) => format!("error in {}: {}", failure.object, failure.message),
        None => "OK".into(),
    }
}

fn lines(status: &Status, config: &Config, args: &StatusArgs) -> Vec<Line> {
    let mut lines = vec![line(["Kubernetes:", &status.kubernetes.state, &status.kubernetes.msg])];
    if status.kubernetes.state != "Disabled" && !status.kubernetes_apis.is_empty() {
        lines.push(line(["Kubernetes APIs:", &quoted(&status.kubernetes_apis)]));
    }
    lines.push(replacement(&status.kube_proxy_replacement));
    lines.extend(kube_proxy(&status.kube_proxy_replacement));
    lines.push(line(["CNI Config file:", &cni_file(&status.cni_file)]));
    lines.push(line(["Cilium:", &health(&status.cilium)]));
    lines.extend(node_state(&status.node_state));
    lines.push(line(["NodeMonitor:", &monitor(&status.node_monitor)]));
    lines.push(line(["IPAM:", &status.ipam.status]));
    if args.all_addresses || args.verbose {
        lines.push(line(["Allocated addresses:"]));
        lines.extend(status.ipam.allocations.iter().map(|(ip, owner)| vec![format!("  {ip} ({owner})")]));
    }
    let routing = &status.routing;
    let host = format!("Host: {}", routing.intra_host_routing_mode);
    lines.push(line(["Routing:", &network(routing), &host]));
    lines.push(line(["Attach Mode:", &status.attach_mode]));
    lines.push(line(["Device Mode:", &config.status.datapath_mode]));
    lines.push(line(["Devices:", &devices(&status.devices)]));
    lines.push(masquerading(&status.masquerading));
    lines.push(line(["Global Identity Range:", &identity_range(status)]));
    if args.verbose {
        lines.extend(details(status, config));
    }
    lines
}

/// A list as upstream writes it: `["a", "b"]`.
fn quoted(names: &[String]) -> String {
    let mut names: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
    names.sort();
    format!("[{}]", names.join(", "))
}

fn health(health: &Health) -> String {
    format!("{}   {}", health.state, health.msg)
}

/// The message says enough, unless something is wrong.
fn cni_file(file: &Health) -> String {
    if file.state == "Ok" { file.msg.clone() } else { health(file) }
}

fn node_state(state: &NodeState) -> Vec<Line> {
    let NodeState { desired, applied, failures, repairs } = state;
    let summary = format!("revision {desired} desired, {applied} applied, {repairs} repairs");
    let mut lines = vec![line(["Node state:", &summary])];
    lines.extend(failures.iter().map(|failure| {
        let text = format!("{}: {}", failure.object, failure.message);
        line(["", &text])
    }));
    lines
}

fn monitor(monitor: &Monitor) -> String {
    let Monitor { cpus, npages, pagesize, lost, listeners } = monitor;
    if *cpus == 0 {
        return "Disabled".into();
    }
    let text = format!("Listening for events on {cpus} CPUs with {npages}x{pagesize} of shared memory");
    match (lost, listeners) {
        (0, 0) => text,
        (0, _) => format!("{text}, {listeners} listeners"),
        _ => format!("{text}, {listeners} listeners, {lost} events lost"),
    }
}

fn network(routing: &Routing) -> String {
    let mode = &routing.inter_host_routing_mode;
    match routing.tunnel_protocol.as_str() {
        "" => format!("Network: {mode}"),
        protocol => format!("Network: {mode} [{protocol}]"),
    }
}

fn devices(devices: &BTreeMap<String, Vec<String>>) -> String {
    let devices = devices.iter().map(|(name, addresses)| match addresses.as_slice() {
        [] => name.clone(),
        _ => format!("{name} {}", addresses.join(" ")),
    });
    format!("[{}]", devices.collect::<Vec<_>>().join(", "))
}

fn masquerading(masquerading: &Masquerading) -> Line {
    let Masquerading { ipv4, ipv6, devices, snat_exclusion_cidr } = masquerading;
    if !ipv4 && !ipv6 {
        return line(["Masquerading:", "Disabled"]);
    }
    let enabled = |on: &bool| if *on { "Enabled" } else { "Disabled" };
    let families = format!("[IPv4: {}, IPv6: {}]", enabled(ipv4), enabled(ipv6));
    let kept = snat_exclusion_cidr.join(" ");
    let devices = format!("[{}]", devices.join(", "));
    line(["Masquerading:", "BPF", &devices, format!("{kept} {families}").trim_start()])
}

fn replacement(replacement: &KubeProxyReplacement) -> Line {
    let KubeProxyReplacement { mode, devices, .. } = replacement;
    match devices.as_slice() {
        [] => line(["KubeProxyReplacement:", mode]),
        _ => line(["KubeProxyReplacement:", mode, &format!("[{}]", devices.join(", "))]),
    }
}

/// That the node also has rules of kube-proxy, and what comes of it.
fn kube_proxy(replacement: &KubeProxyReplacement) -> Option<Line> {
    let KubeProxyReplacement { mode, rules_of_kube_proxy, .. } = replacement;
    if rules_of_kube_proxy.is_empty() {
        return None;
    }
    let effect = if mode == "True" {
        "not used: Services are served before packets come to them"
    } else {
        "used as long as this agent serves no Services"
    };
    let text = format!("has rules on this node ({}), {effect}", rules_of_kube_proxy.join(", "));
    Some(line(["kube-proxy:", &text]))
}

/// How Services are served on this node, and what is missing.
fn replacement_details(replacement: &KubeProxyReplacement) -> Vec<Line> {
    let KubeProxyReplacement { mode, forwarding, selection, acceleration, parts, .. } = replacement;
    let mut lines = vec![
        line(["KubeProxyReplacement Details:"]),
        line(["  Status", mode]),
        line(["  Mode", forwarding]),
        line(["  Backend Selection", selection]),
        line(["  XDP Acceleration", acceleration]),
    ];
    lines.extend(parts.iter().map(|part| {
        let state = if part.enabled { "Enabled" } else { "Disabled" };
        let detail = if part.detail.is_empty() { String::new() } else { format!(" ({})", part.detail) };
        line([&format!("  {}", part.name), &format!("{state}{detail}")])
    }));
    lines
}

fn identity_range(status: &Status) -> String {
    let range = &status.identity_range;
    match (range.min_identity, range.max_identity) {
        (0, 0) => "Unknown".into(),
        (first, last) => format!("min {first}, max {last}"),
    }
}

/// What only `--verbose` shows.
fn details(status: &Status, config: &Config) -> Vec<Line> {
    let mtu = format!("devices {}, routes {}", config.status.device_mtu, config.status.route_mtu);
    let mut lines = vec![line(["MTU:", &mtu]), line(["Kernel features:", "", ""])];
    lines.extend(status.features.iter().map(|feature| {
        let available = if feature.available { "yes" } else { "no" };
        line([&format!("  {}", feature.name), available, &feature.detail])
    }));
    lines.extend(replacement_details(&status.kube_proxy_replacement));
    let sizing = format!("dynamic sizing: on (ratio: {:.6})", status.bpf_maps.dynamic_size_ratio);
    lines.extend([line(["BPF Maps:", &sizing]), line(["  Name", "Size"])]);
    let maps = status.bpf_maps.maps.iter();
    lines.extend(maps.map(|map| line([&format!("  {}", map.name), &map.size.to_string()])));
    lines
}
