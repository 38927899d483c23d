//! `cilium bgp`: what the speakers of all nodes say, each asked by `cilium-dbg` in its pod.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use cilium_print::bgp::{peer, peer_header, route, route_header};
use cilium_print::output::{TableOutput, encode, print};
use cilium_print::table::{Line, align};
use cilium_rest::bgp::RouteView;
use cilium_rest::model::BgpPeer;
use futures::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{AttachParams, ListParams};
use kube::{Api, Client, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::AsyncReadExt as _;

use crate::args::{BgpCommand, Cli};
use crate::cluster::{kubeconfig, now};

/// Nodes that are asked at the same time.
const AT_ONCE: usize = 16;
/// How long a node may take.
const PATIENCE: Duration = Duration::from_secs(10);
const SPEAKERS: &str = "k8s-app=cilium-bgp";

/// What nodes said, by name.
type ByNode<T> = BTreeMap<String, Vec<T>>;

/// Asks, and prints. 1 when a node did not answer.
///
/// # Errors
/// The cluster does not answer, or there are no speakers.
pub(crate) async fn run(cli: &Cli, command: &BgpCommand) -> anyhow::Result<ExitCode> {
    match command {
        BgpCommand::Peers(args) => {
            let (found, code) = ask::<BgpPeer>(cli, args.node.as_deref(), &["peers"]).await?;
            show(&found, &peer_header("Session State"), peer, &args.output)?;
            Ok(code)
        }
        BgpCommand::Routes(args) => {
            let words = ["routes", &args.table, &args.afi, &args.safi].map(str::to_owned);
            let words: Vec<String> = words.into_iter().chain(args.which.iter().cloned()).collect();
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let (found, code) = ask::<RouteView>(cli, args.node.as_deref(), &words).await?;
            let (has_peers, now) = (args.table != "available", u64::try_from(now()).unwrap_or_default());
            let row = |it: &RouteView| vec![route(it, has_peers, now)];
            show(&found, &route_header(has_peers), row, &args.output)?;
            Ok(code)
        }
    }
}

/// Asks every speaker, or that of one node. Who does not answer is named on standard error.
async fn ask<T: DeserializeOwned>(
    cli: &Cli,
    node: Option<&str>,
    words: &[&str],
) -> anyhow::Result<(ByNode<T>, ExitCode)> {
    let client = Client::try_from(kubeconfig(cli).await?).context("the kubeconfig cannot be used")?;
    let namespace = &cli.system_namespace;
    let pods: Api<Pod> = Api::namespaced(client, namespace);
    let list = pods.list(&ListParams::default().labels(SPEAKERS)).await;
    let list = list.with_context(|| format!("cannot list pods {SPEAKERS} in {namespace}"))?;
    let speakers = list.items.into_iter().filter_map(|pod| {
        let of = pod.spec.as_ref().and_then(|spec| spec.node_name.clone())?;
        node.is_none_or(|node| node == of).then(|| (of, pod.name_any()))
    });
    let speakers: Vec<(String, String)> = speakers.collect();
    ensure!(!speakers.is_empty(), "{}", nobody(node, namespace));
    let answers = stream::iter(speakers).map(|(node, pod)| {
        let pods = &pods;
        async move { (node, one(pods, &pod, words).await.with_context(|| format!("pod {namespace}/{pod}"))) }
    });
    let answers: Vec<_> = answers.buffer_unordered(AT_ONCE).collect().await;
    let mut found = ByNode::new();
    let mut code = ExitCode::SUCCESS;
    for (node, answer) in answers {
        match answer {
            Ok(answer) => drop(found.insert(node, answer)),
            Err(error) => {
                eprintln!("{node}: {error:#}");
                code = ExitCode::from(1);
            }
        }
    }
    Ok((found, code))
}

fn nobody(node: Option<&str>, namespace: &str) -> String {
    match node {
        Some(node) => format!("no speaker runs on node {node} ({SPEAKERS} in namespace {namespace})"),
        None => format!(
            "no speaker runs in namespace {namespace} ({SPEAKERS}): is BGP on (bgpControlPlane.enabled), and is this the \
             product's namespace (--system-namespace)?"
        ),
    }
}

/// Asks one speaker.
async fn one<T: DeserializeOwned>(pods: &Api<Pod>, pod: &str, words: &[&str]) -> anyhow::Result<Vec<T>> {
    let command = ["cilium-dbg", "bgp"].into_iter().chain(words.iter().copied()).chain(["-o", "json"]);
    let asked = tokio::time::timeout(PATIENCE, run_in(pods, pod, command.collect())).await;
    let text = asked.with_context(|| format!("no answer within {PATIENCE:?}"))??;
    serde_json::from_str(&text).context("the answer cannot be read: are both sides of one version?")
}

/// What a command prints in a pod.
async fn run_in(pods: &Api<Pod>, pod: &str, command: Vec<&str>) -> anyhow::Result<String> {
    let mut process = pods.exec(pod, command, &AttachParams::default().stdout(true).stderr(true)).await?;
    let (mut out, mut err) = (String::new(), String::new());
    let (mut stdout, mut stderr) = (
        process.stdout().context("there is no standard output")?,
        process.stderr().context("there is no standard error")?,
    );
    let status = process.take_status().context("there is no exit status")?;
    let (read, read_err) = tokio::join!(stdout.read_to_string(&mut out), stderr.read_to_string(&mut err));
    read?;
    read_err?;
    let status = status.await.context("it broke off")?;
    if status.status.as_deref() != Some("Success") {
        bail!("{}", err.trim());
    }
    Ok(out)
}

fn show<T: Serialize>(
    found: &ByNode<T>,
    header: &Line,
    rows: impl Fn(&T) -> Vec<Line>,
    output: &TableOutput,
) -> anyhow::Result<()> {
    let text = match output.data.output {
        Some(format) => encode(found, format)?,
        None => align(&table(found, header, rows, output.no_headers)),
    };
    Ok(print(&text)?)
}

/// The node's name stands in its first line only.
fn table<T>(found: &ByNode<T>, header: &Line, rows: impl Fn(&T) -> Vec<Line>, no_headers: bool) -> Vec<Line> {
    let with = |name: &str, rest: &Line| [name.to_owned()].into_iter().chain(rest.iter().cloned()).collect();
    let mut lines: Vec<Line> = if no_headers { vec![] } else { vec![with("Node", header)] };
    for (node, items) in found {
        for (index, row) in items.iter().flat_map(&rows).enumerate() {
            lines.push(with(if index == 0 { node } else { "" }, &row));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_stand_before_their_rows() {
        let found: ByNode<&str> =
            [("b".to_owned(), vec!["3"]), ("a".to_owned(), vec!["1", "2"]), ("c".to_owned(), vec![])].into();
        let row = |it: &&str| vec![vec![(*it).to_owned()]];
        let text = align(&table(&found, &vec!["X".to_owned()], row, false));
        assert_eq!(text, "Node   X\na      1\n       2\nb      3\n");
        assert_eq!(table(&found, &Line::new(), row, true).len(), 3);
    }
}
