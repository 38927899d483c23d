//! The program as people and scripts run it: against a socket that answers with fixed data, and against a real map.

mod agent;
mod data;
mod flush;
mod golden;
mod speaker;

use cilium_rest::model::Health;
use serde_json::Value;

use crate::agent::{Agent, Answers, program};
use crate::data::{answers, endpoints, status, troubled};

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("output is text")
}

fn run(agent: &Agent, args: &str) -> (i32, String, String) {
    let output = agent.run(args);
    (output.status.code().expect("ends by itself"), text(&output.stdout), text(&output.stderr))
}

#[test]
fn data_keeps_the_names_of_the_api() {
    let agent = Agent::start(answers());
    let (_, output, _) = run(&agent, "endpoint list -o json");
    let list: Value = serde_json::from_str(&output).expect("is JSON");
    let deathstar = &list[1];
    assert_eq!(deathstar["id"], 17);
    assert_eq!(deathstar["status"]["identity"]["labels"][1], "k8s:class=deathstar");
    assert_eq!(deathstar["status"]["policy"]["realized"]["policy-enabled"], "ingress");
    assert_eq!(deathstar["status"]["networking"]["addressing"][0]["ipv6"], "fd00:1::11");
    let (_, output, _) = run(&agent, "bpf policy list -o json");
    let list: Value = serde_json::from_str(&output).expect("is JSON");
    assert_eq!(list.as_array().map(Vec::len), Some(6));
    let empty = Agent::start(Answers::default().set_text("/v1/map/policy", "[]"));
    assert_eq!(run(&empty, "bpf policy list -o json").1, "[]\n");
    let (_, output, _) = run(&agent, "identity list -o yaml");
    assert!(output.starts_with("- id: 1\n  labels:\n  - reserved:host\n"), "{output}");
}

#[test]
fn an_endpoint_has_many_names() {
    let agent = Agent::start(answers());
    let (code, by_number, _) = run(&agent, "endpoint get 17");
    assert_eq!(code, 0);
    let names = [
        "pod-name:default/deathstar",
        "container-id:c0ffee17",
        "cni-attachment-id:c0ffee17:eth0",
        "ipv4:10.0.1.17",
        "ipv6:fd00:1::11",
    ];
    for name in names {
        assert_eq!(run(&agent, &format!("endpoint get {name}")).1, by_number, "{name}");
    }
    let list: Value = serde_json::from_str(&by_number).expect("is JSON");
    assert_eq!((list.as_array().map(Vec::len), &list[0]["id"]), (Some(1), &17.into()));
    let (code, _, message) = run(&agent, "endpoint get pod-name:default/nobody");
    assert_eq!(
        (code, message.as_str()),
        (1, "Error: no endpoint of this node is pod-name:default/nobody; see: cilium-dbg endpoint list\n")
    );
    let (code, _, message) = run(&agent, "bpf policy get pod-name:default/nobody");
    assert_eq!(
        (code, message.as_str()),
        (1, "Error: no endpoint of this node is pod-name:default/nobody; see: cilium-dbg endpoint list\n")
    );
    let waiting = endpoints().swap_remove(0);
    let early = Agent::start(answers().set("/v1/endpoint/203", &waiting));
    let (code, _, message) = run(&early, "bpf policy get 203");
    assert_eq!((code, message.as_str()), (1, "Error: endpoint 203 has no identity yet\n"));
    let (code, _, message) = run(&agent, "endpoint get 99");
    assert_eq!(
        (code, message.as_str()),
        (1, "Error: GET /v1/endpoint/99: /v1/endpoint/99 is not known here\n")
    );
    let (code, _, message) = run(&agent, "identity get 7");
    assert_eq!(
        (code, message.as_str()),
        (1, "Error: identity 7 is not known on this node; see: cilium-dbg identity list\n")
    );
}

#[test]
fn the_exit_code_of_status_follows_the_agent_as_a_whole() {
    let troubled = Agent::start(answers().set("/v1/healthz", &troubled()));
    assert_eq!(run(&troubled, "status").0, 1);
    assert_eq!(run(&troubled, "status -o json").0, 0);
    assert_eq!(
        run(&troubled, "status --brief"),
        (1, "error in kubernetes: connection refused\n".into(), String::new())
    );

    let mut partly = status();
    partly.node_state = data::troubled().node_state;
    let agent = Agent::start(answers().set("/v1/healthz", &partly));
    let brief = "error in policy/20011: map cilium_policy is full, the limit is 65536 entries\n";
    assert_eq!(run(&agent, "status --brief"), (0, brief.into(), String::new()));
    partly.cilium = Health::warning("Not all probes executed at least once");
    let agent = Agent::start(answers().set("/v1/healthz", &partly));
    let brief = "error in cilium: Not all probes executed at least once\n";
    assert_eq!(run(&agent, "status --brief"), (1, brief.into(), String::new()));
    assert_eq!(
        run(&agent, "version").1.lines().nth(1),
        Some("Daemon: unknown (Warning: Not all probes executed at least once)")
    );

    let agent = Agent::start(answers());
    assert_eq!(run(&agent, "status --brief"), (0, "OK\n".into(), String::new()));
    assert_eq!(run(&agent, "status").0, 0);
}

#[test]
fn without_an_agent_every_command_says_so() {
    let agent = Agent::absent();
    for command in [
        "status",
        "endpoint list",
        "endpoint get 1",
        "policy get",
        "service list",
        "bpf ct list -o json",
        "monitor",
    ] {
        let (code, output, message) = run(&agent, command);
        assert_eq!((code, output.as_str()), (1, ""), "{command}");
        assert!(message.starts_with("Error: cannot connect to /"), "{command}: {message}");
        assert!(message.contains("is the agent running?: No such file"), "{command}: {message}");
    }
    let (code, output, _) = run(&agent, "status --brief");
    assert_eq!((code, output.as_str()), (1, "cilium: daemon unreachable\n"));
    let (code, output, _) = run(&agent, "version");
    assert_eq!(code, 0);
    assert!(output.contains("\nDaemon: unknown (cannot connect to /"), "{output}");
}

#[test]
fn the_socket_may_come_from_the_environment() {
    let mut command = program("endpoint list");
    let output = command.env("CILIUM_SOCK", "unix:///nowhere/sock").output().expect("the program starts");
    assert!(text(&output.stderr).starts_with("Error: cannot connect to /nowhere/sock:"));
}

#[test]
fn events_are_filtered_by_type() {
    let agent = Agent::start(answers());
    let (code, drops, message) = run(&agent, "monitor -t drop");
    assert_eq!(code, 1);
    assert!(
        message.contains("Listening for events") && message.contains("the agent has ended the stream"),
        "{message}"
    );
    assert_eq!(drops.lines().count(), 2);
    assert!(drops.lines().all(|line| line.starts_with("xx drop (")), "{drops}");
    let (_, both, message) = run(&agent, "monitor -t drop -t policy-verdict --json");
    assert_eq!(both.lines().count(), 4);
    assert!(!message.contains("Listening"), "{message}");
    for line in both.lines() {
        let event: Value = serde_json::from_str(line).expect("each line is JSON");
        assert!(event["source-identity"].is_number());
    }
    assert_eq!(run(&agent, "monitor -j").1.lines().count(), 5);
}

#[test]
fn a_reader_that_goes_away_is_no_fault() {
    let many: String = (0..20_000).map(|_| "{\"type\":\"trace\"}\n").collect();
    let agent = Agent::start(Answers::default().set_text("/v1/monitor", &many));
    let mut child =
        agent.command("monitor -j").stdout(std::process::Stdio::piped()).spawn().expect("the program starts");
    drop(child.stdout.take());
    assert!(child.wait().expect("ends").success());
}
