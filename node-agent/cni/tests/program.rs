//! The program as a runtime runs it: environment and standard input in, JSON and exit status out.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

fn call(variables: &[(&str, &str)], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_cilium-cni"))
        .env_clear()
        .envs(variables.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut stdin = child.stdin.take().expect("is piped");
    stdin.write_all(input.as_bytes()).expect("writes");
    drop(stdin);
    child.wait_with_output().expect("ends")
}

fn error(output: &Output) -> serde_json::Value {
    assert_eq!(output.status.code(), Some(1));
    serde_json::from_slice(&output.stdout).expect("errors are JSON")
}

#[test]
fn nonsense_is_answered_with_an_error() {
    let output = call(&[("CNI_COMMAND", "ADD")], "\u{0}nonsense");
    let error = error(&output);
    assert_eq!((error["code"].as_u64(), error["cniVersion"].as_str()), (Some(6), Some("1.1.0")));
    assert!(error["msg"].as_str().is_some_and(|text| !text.is_empty()));
}

#[test]
fn without_an_agent_add_is_to_be_tried_later_and_status_says_so() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let socket = dir.path().join("sock");
    let socket = ("CILIUM_SOCK", socket.to_str().expect("is text"));
    let add = [
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "c1"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_NETNS", "/nowhere"),
        ("CNI_ARGS", "K8S_POD_NAMESPACE=default;K8S_POD_NAME=xwing;K8S_POD_UID=1-2"),
        socket,
    ];
    let config = r#"{"cniVersion":"1.1.0","name":"cilium","type":"cilium-cni"}"#;
    let refused = error(&call(&add, config));
    assert_eq!(refused["code"].as_u64(), Some(11));
    assert!(refused["details"].as_str().is_some_and(|text| text.contains("is the agent running?")));
    let refused = error(&call(&[("CNI_COMMAND", "STATUS"), socket], config));
    assert_eq!(refused["code"].as_u64(), Some(50));
}

#[test]
fn del_works_without_an_agent_and_without_the_pod() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (socket, queue) = (dir.path().join("sock"), dir.path().join("queue"));
    let del = [
        ("CNI_COMMAND", "DEL"),
        ("CNI_CONTAINERID", "c1"),
        ("CNI_IFNAME", "eth0"),
        ("CILIUM_SOCK", socket.to_str().expect("is text")),
        ("CILIUM_DELETE_QUEUE", queue.to_str().expect("is text")),
    ];
    let config = r#"{"cniVersion":"0.3.1","name":"cilium","type":"cilium-cni"}"#;
    for _ in 0..2 {
        let output = call(&del, config);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        assert!(output.stdout.is_empty());
    }
    let notes: Vec<_> = std::fs::read_dir(&queue)
        .expect("lists")
        .map(|entry| entry.expect("reads").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "delete"))
        .collect();
    assert_eq!(notes.len(), 1);
    assert_eq!(std::fs::read_to_string(&notes[0]).expect("reads"), "c1:eth0");
}

#[test]
fn version_needs_no_configuration() {
    let output = call(&[("CNI_COMMAND", "VERSION")], "");
    assert!(output.status.success());
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).expect("is JSON");
    assert_eq!(answer["supportedVersions"][4], "1.1.0");
}
