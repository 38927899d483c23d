//! The program as a DaemonSet starts it: what is wrong with the settings is said, and nothing is begun.

use std::process::{Command, Output};

fn call(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cilium-dns-proxy")).args(arguments).env_clear().output().expect("starts")
}

#[test]
fn settings_that_make_no_sense_are_refused_by_name() {
    for [option, value] in [["--max-delay", "soon"], ["--reject-with", "silence"], ["--port", "65536"]] {
        let output = call(&[option, value]);
        assert_eq!(output.status.code(), Some(2));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(option) && said.contains(value), "{said}");
    }
}

#[test]
fn help_names_every_setting() {
    let output = call(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    let help = String::from_utf8_lossy(&output.stdout);
    for option in ["--port", "--agent", "--rules", "--bpffs", "--reject-with", "--max-delay"] {
        assert!(help.contains(option), "{option} is missing: {help}");
    }
}
