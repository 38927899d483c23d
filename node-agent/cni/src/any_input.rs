//! What a runtime may pass, however broken: it is read, or refused with a code.

use std::sync::LazyLock;

use fuzz::Input;
use serde_json::{Value, json};

use crate::arguments::{Arguments, Command};
use crate::config::{Config, version_of};

const COMMANDS: [Command; 6] =
    [Command::Add, Command::Del, Command::Check, Command::Gc, Command::Status, Command::Version];
const VARIABLES: [&str; 4] = ["CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS", "CNI_ARGS"];

static SAMPLES: LazyLock<Vec<Value>> = LazyLock::new(|| {
    let result = json!({
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "lxc1", "mac": "02:00:00:00:00:01"}, {"name": "eth0", "sandbox": "/run/netns/x"}],
        "ips": [{"address": "10.1.0.5/32", "gateway": "10.1.0.1", "interface": 1}, {"address": "fd00:1::5/128"}],
    });
    vec![
        json!({"cniVersion": "1.1.0", "name": "cilium", "type": "cilium-cni", "log-file": "/tmp/log"}),
        json!({"cniVersion": "0.3.1", "name": "cilium", "type": "cilium-cni"}),
        json!({"cniVersion": "1.0.0", "name": "cilium", "prevResult": result}),
        json!({"cniVersion": "1.1.0", "name": "cilium", "cni.dev/valid-attachments": [{"containerID": "abc", "ifname": "eth0"}]}),
    ]
});

fn check_config(input: &[u8]) {
    match Config::parse(input) {
        Ok(config) => {
            assert_eq!(version_of(input), Some(config.version));
            for command in COMMANDS {
                assert!(config.check_command(command).map_or_else(|failure| failure.code == 1, |()| true));
            }
        }
        Err(failure) => assert!([1, 6, 7].contains(&failure.code), "code {}", failure.code),
    }
}

/// The variables of the environment, separated by zero bytes.
fn check_arguments(input: &[u8]) {
    let values: Vec<String> =
        input.split(|byte| *byte == 0).map(|it| String::from_utf8_lossy(it).into()).collect();
    let variable = |wanted: &str| values.get(VARIABLES.iter().position(|name| *name == wanted)?).cloned();
    for command in COMMANDS {
        match Arguments::read(command, &variable) {
            Ok(found) => assert!(
                !found.container.contains('/') && !found.device.contains('/'),
                "names that lead out of their directory: {found:?}"
            ),
            Err(failure) => assert_eq!(failure.code, 4),
        }
    }
}

#[test]
fn any_call() {
    bolero::check!().for_each(|bytes: &[u8]| {
        check_config(bytes);
        check_arguments(bytes);
        check_arguments(&[b"c\0eth0\0/n\0K8S_POD_NAMESPACE=a;K8S_POD_NAME=", bytes].concat());
        if let Some(document) = Input(bytes).changed(&SAMPLES) {
            check_config(document.to_string().as_bytes());
        }
        if let Some(text) = Input(bytes).damaged(&SAMPLES) {
            check_config(&text);
        }
    });
}
