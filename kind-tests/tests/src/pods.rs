//! Pods of tests, and commands in them.

use std::process::Command;

use anyhow::Context as _;

use crate::kubectl::{Namespace, kubectl_json};

/// What a command in a pod did.
#[derive(Debug)]
pub struct Ran {
    /// Exit code; -1 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Ran {
    /// The command succeeded.
    pub fn ok(&self) -> bool {
        self.code == 0
    }
}

/// Runs a command in a pod.
///
/// # Errors
/// kubectl could not be run. A command that fails is no error.
pub fn exec(namespace: &str, pod: &str, command: &[&str]) -> anyhow::Result<Ran> {
    let output = Command::new("kubectl")
        .args(["exec", "-n", namespace, pod, "--"])
        .args(command)
        .output()
        .context("cannot run kubectl")?;
    Ok(Ran {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// A pod of the client image with a label `app=<name>`, on a node when one is given. It sleeps unless told otherwise.
pub fn mk_pod(name: &str, node: Option<&str>, command: &[&str], host_network: bool) -> String {
    let node = node.map(|node| format!("  nodeName: {node}\n")).unwrap_or_default();
    let command = if command.is_empty() { String::new() } else { format!("      command: {command:?}\n") };
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  labels: {{app: {name}}}\nspec:\n  terminationGracePeriodSeconds: 0\n  restartPolicy: Never\n  hostNetwork: {host_network}\n  tolerations: [{{operator: Exists}}]\n{node}  containers:\n    - name: main\n      image: localhost/client:dev\n      imagePullPolicy: IfNotPresent\n      resources: {{requests: {{cpu: 50m}}}}\n{command}---\n"
    )
}

/// A pod that runs `probe serve 7000`.
pub fn mk_server(name: &str, node: Option<&str>) -> String {
    mk_pod(name, node, &["probe", "serve", "7000"], false)
}

/// Addresses of a pod, IPv4 first.
///
/// # Errors
/// The pod has not one of each family.
pub fn addresses(namespace: &Namespace, pod: &str) -> anyhow::Result<[String; 2]> {
    let pod_json = kubectl_json(&["get", "pod", pod, "-n", &namespace.name])?;
    let ips: Vec<String> = pod_json["status"]["podIPs"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|ip| ip["ip"].as_str().map(str::to_owned))
        .collect();
    let find = |v6: bool| {
        ips.iter()
            .find(|ip| ip.contains(':') == v6)
            .cloned()
            .with_context(|| format!("pod {pod} has {ips:?}"))
    };
    Ok([find(false)?, find(true)?])
}

/// `address:port`, with brackets around IPv6.
pub fn socket(address: &str, port: u16) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}
