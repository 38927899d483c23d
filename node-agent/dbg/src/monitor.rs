//! Drops and verdicts as they happen.

use anyhow::bail;
use cilium_rest::Client;
use cilium_rest::model::{Event, EventKind};

use crate::cli::{MonitorArgs, MonitorType};
use cilium_print::output::print;

/// Prints events until one side ends it.
///
/// # Errors
/// The agent does not answer, or went away.
pub(crate) fn run(client: &Client, args: &MonitorArgs) -> anyhow::Result<()> {
    let lines = client.lines("/v1/monitor")?;
    if !args.json {
        eprintln!("Listening for events of this node; Ctrl-C ends it.");
    }
    for line in lines {
        if let Some(text) = text(&line?, args) {
            print(&(text + "\n"))?;
        }
    }
    bail!("the agent has ended the stream of events; start again when it is back")
}

/// What to print for a line of the stream. What an agent of another version says in its own way is printed as it is,
/// unless certain types are asked for.
fn text(line: &str, args: &MonitorArgs) -> Option<String> {
    let event: Option<Event> = serde_json::from_str(line).ok();
    let kind = event.as_ref().map(|event| match event.kind {
        EventKind::Drop => MonitorType::Drop,
        EventKind::PolicyVerdict => MonitorType::PolicyVerdict,
    });
    let wanted = args.types.is_empty() || kind.is_some_and(|kind| args.types.contains(&kind));
    match event {
        _ if !wanted => None,
        Some(event) if !args.json => Some(describe(&event)),
        _ => Some(line.to_owned()),
    }
}

fn describe(event: &Event) -> String {
    let Event { reason, verdict, protocol, source, destination, length, .. } = event;
    let flow = format!("{source} -> {destination} {protocol}, {length} bytes");
    let context = context(event);
    let line = match event.kind {
        EventKind::Drop => format!("xx drop ({reason}) {context}: {flow}"),
        EventKind::PolicyVerdict if reason.is_empty() => {
            format!("Policy verdict: {verdict} {context}: {flow}")
        }
        EventKind::PolicyVerdict => format!("Policy verdict: {verdict} {context}: {flow} ({reason})"),
    };
    match event.policy_log.as_slice() {
        [] => line,
        logs => format!("{line}, log: {}", logs.join(", ")),
    }
}

/// Direction, endpoint and identities, as far as they are known.
fn context(event: &Event) -> String {
    let mut parts = Vec::new();
    if !event.direction.is_empty() {
        parts.push(event.direction.clone());
    }
    if event.endpoint != 0 {
        parts.push(format!("endpoint {}", event.endpoint));
    }
    parts.push(format!("identity {}->{}", event.source_identity, event.destination_identity));
    parts.join(", ")
}
