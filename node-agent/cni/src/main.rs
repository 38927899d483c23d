//! `cilium-cni`: the CNI plugin (CNI specification 1.1.0), run by the container runtime once for each step of a pod's life.
//!
//! It is small and starts fast: one process, one thread, blocking requests to the agent over its unix socket. The
//! agent knows addresses and identity of the pod from the operator's plan; the plugin makes the device pair and tells
//! the agent, which then connects the pod to the datapath.
//!
//! Results and errors go to standard output as JSON; the exit status is 0 or 1.

mod add;
#[cfg(test)]
mod any_input;
mod arguments;
mod check;
mod config;
mod del;
mod failure;
mod gc;
mod log;
mod queue;
mod result;
mod status;

use std::io::{Read as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use cilium_rest::Client;

use crate::arguments::{Arguments, Command};
use crate::config::{Config, Version};
use crate::failure::Failure;
use crate::log::Steps;

/// How long the agent may be silent. It answers requests for addresses after 30 s at the latest.
const PATIENCE: Duration = Duration::from_secs(45);

fn main() -> ExitCode {
    hurry();
    let mut input = Vec::new();
    let outcome = match std::io::stdin().read_to_end(&mut input) {
        Ok(_) => run(&input, |name| std::env::var(name).ok()),
        Err(error) => Err(Failure::io("cannot read the configuration from standard input", &error)),
    };
    let (text, code) = match outcome {
        Ok(text) => (text, ExitCode::SUCCESS),
        Err(failure) => (failure.to_json(config::version_of(&input)), ExitCode::FAILURE),
    };
    if std::io::stdout().write_all(text.as_bytes()).is_err() {
        return ExitCode::FAILURE;
    }
    code
}

/// Carries out one call of the runtime. Returns what to print.
fn run(input: &[u8], variable: impl Fn(&str) -> Option<String>) -> Result<String, Failure> {
    let command = arguments::command(&variable)?;
    if command == Command::Version {
        return Ok(result::versions(config::version_of(input)));
    }
    let mut steps = Steps::start();
    let config = Config::parse(input)?;
    let outcome = call(command, &config, &variable, &mut steps);
    if let Some(path) = &config.log_file {
        log::write(path, &variable, &steps, &outcome);
    }
    outcome
}

/// Nice value of the plugin.
const NICENESS: i32 = -20;

/// Goes before everything else that the runtime does: other pods wait for the kernel's lock of network configuration while this
/// process has it, also when it has it without a processor. Without the right to do so it is as slow as others are.
fn hurry() {
    let _ = rustix::process::setpriority_process(None, NICENESS);
    let _ = cilium_drivers::turns::shorten();
}

fn call(
    command: Command,
    config: &Config,
    variable: &impl Fn(&str) -> Option<String>,
    steps: &mut Steps,
) -> Result<String, Failure> {
    config.check_command(command)?;
    let arguments = Arguments::read(command, variable)?;
    let client = Client::new(&cilium_rest::socket_path(None), Some(PATIENCE));
    match command {
        Command::Add => add::add(config, &arguments, &client, steps),
        Command::Del => del::del(&arguments, &client).map(|()| String::new()),
        Command::Check => check::check(config, &arguments, &client).map(|()| String::new()),
        Command::Gc => gc::gc(config, &client).map(|()| String::new()),
        Command::Status => status::status(&client).map(|()| String::new()),
        Command::Version => Ok(result::versions(Some(Version::NEWEST))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::run;

    fn code(answer: Result<String, crate::Failure>) -> u32 {
        answer.expect_err("is refused").code
    }

    fn variables<'a>(pairs: &'a [(&str, &str)]) -> impl Fn(&str) -> Option<String> + 'a {
        |wanted| pairs.iter().find(|(name, _)| *name == wanted).map(|(_, value)| (*value).to_owned())
    }

    const GOOD: &[u8] = br#"{"cniVersion":"1.1.0","name":"cilium","type":"cilium-cni"}"#;

    #[test]
    fn nonsense_has_the_code_of_its_kind() {
        let add = [
            ("CNI_COMMAND", "ADD"),
            ("CNI_CONTAINERID", "c"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_NETNS", "/n"),
            ("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=xwing"),
        ];
        assert_eq!(code(run(GOOD, |_| None)), 4);
        assert_eq!(code(run(GOOD, variables(&[("CNI_COMMAND", "DANCE")]))), 4);
        assert_eq!(code(run(b"not json", variables(&add))), 6);
        assert_eq!(code(run(b"[]", variables(&add))), 6);
        assert_eq!(code(run(br#"{"cniVersion":"9.9.9","name":"cilium"}"#, variables(&add))), 1);
        assert_eq!(code(run(br#"{"cniVersion":"1.0.0"}"#, variables(&add))), 7);
        assert_eq!(code(run(br#"{"cniVersion":"1.0.0","name":"x","prevResult":{}}"#, variables(&add))), 7);
        for (name, value) in [("CNI_CONTAINERID", "../x"), ("CNI_IFNAME", "eth0/../../lo"), ("CNI_NETNS", "")]
        {
            let broken: Vec<_> = add.iter().map(|(n, v)| (*n, if *n == name { value } else { *v })).collect();
            assert_eq!(code(run(GOOD, variables(&broken))), 4, "{name}={value}");
        }
        let old = br#"{"cniVersion":"1.0.0","name":"cilium"}"#;
        assert_eq!(code(run(old, variables(&[("CNI_COMMAND", "STATUS")]))), 1);
        assert_eq!(code(run(old, variables(&[("CNI_COMMAND", "GC")]))), 1);
    }

    #[test]
    fn versions_are_told_without_a_configuration() {
        let answer = run(b"", variables(&[("CNI_COMMAND", "VERSION")])).expect("is answered");
        assert_eq!(
            answer,
            r#"{"cniVersion":"1.1.0","supportedVersions":["0.3.0","0.3.1","0.4.0","1.0.0","1.1.0"]}"#
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(input: Vec<u8>, text in "\\PC*", command in "(ADD|DEL|CHECK|GC|STATUS|VERSION|[A-Z]*)") {
            // Without a container id nothing reaches the agent or the kernel.
            let variable = |name: &str| (name == "CNI_COMMAND").then(|| command.clone());
            for bytes in [&input[..], text.as_bytes()] {
                let parsed: Option<serde_json::Value> = serde_json::from_slice(bytes).ok();
                match run(bytes, variable) {
                    Ok(answer) => prop_assert!(command == "VERSION", "{command}: {answer}"),
                    Err(failure) => {
                        let json = failure.to_json(crate::config::version_of(bytes));
                        let value: serde_json::Value = serde_json::from_str(&json).expect("errors are JSON");
                        prop_assert!(value["code"].as_u64().is_some_and(|code| code > 0));
                        prop_assert!(parsed.is_some() || [4, 6].contains(&failure.code));
                    }
                }
            }
        }
    }
}
