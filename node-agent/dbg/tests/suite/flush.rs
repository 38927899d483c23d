//! Emptying a real policy map. Needs root.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::process::{Output, Stdio};

use cilium_bpf::layout::{Config, NetPort, PolicyEntry, PolicyKey, PolicyPeer, PolicyRules};
use cilium_delta::Table as _;
use cilium_drivers::datapath::{Datapath, LoadOptions};
use cilium_drivers::maps::Maps;
use cilium_drivers::testing::Bpffs;

use crate::agent::program;
use crate::text;

fn mk_maps(bpffs: &Path) -> Maps {
    let options = LoadOptions {
        config: Config::default(),
        bpffs: bpffs.into(),
        map_sizes: BTreeMap::new(),
        mode: None,
    };
    Datapath::load(&options).expect("the datapath loads");
    let mut maps = Maps::open(bpffs).expect("maps are pinned");
    for generation in 1..=3 {
        for port in 1..=200 {
            let key = PolicyKey {
                prefix_len: PolicyKey::ONE_PORT,
                generation,
                peer: 20012,
                direction: 1,
                protocol: 6,
                port: NetPort(port),
            };
            let entry = PolicyEntry { cookie: 1, verdict: 1 };
            match port {
                // One peer with too many rules for one entry, and peers of whom there is one to say.
                1..=100 => maps.policy.ports.set(&key, &entry),
                _ => {
                    let said = PolicyRules::pack([(&key, &entry)]).expect("fits");
                    let peer = if port == 200 { 0 } else { 20012 + u32::from(port) };
                    maps.policy.peers.set(&PolicyPeer { peer, ..PolicyPeer::of(&key) }, &said)
                }
            }
            .expect("entries can be written");
        }
    }
    maps
}

fn flush(bpffs: &Path, options: &str, answer: &str) -> Output {
    let mut command = program(&format!("bpf policy flush --bpffs {} {options}", bpffs.display()));
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    // With --yes it ends without reading.
    let _ = child.stdin.take().expect("is piped").write_all(answer.as_bytes());
    child.wait_with_output().expect("ends")
}

#[test]
fn the_policy_map_is_emptied_when_it_is_confirmed() {
    let mount = Bpffs::create();
    let bpffs = mount.directory("cilium");
    let mut maps = mk_maps(&bpffs);
    for answer in ["", "\n", "n\n", "maybe\n"] {
        let output = flush(&bpffs, "", answer);
        assert_eq!(output.status.code(), Some(1), "{answer:?}");
        let message = text(&output.stderr);
        assert!(message.contains("all 600 entries") && message.contains("nothing was removed"), "{message}");
        assert_eq!(maps.policy.count().expect("can be counted"), 600);
    }
    let output = flush(&bpffs, "", "y\n");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(text(&output.stdout), "600 entries removed from cilium_policy\n");
    assert_eq!(maps.policy.count().expect("can be counted"), 0);
}

#[test]
fn with_yes_nothing_is_asked() {
    let mount = Bpffs::create();
    let bpffs = mount.directory("cilium");
    let mut maps = mk_maps(&bpffs);
    let output = flush(&bpffs, "--yes", "");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(
        (text(&output.stdout).as_str(), text(&output.stderr).as_str()),
        ("600 entries removed from cilium_policy\n", "")
    );
    assert_eq!(maps.policy.count().expect("can be counted"), 0);
    assert!(flush(&bpffs, "-y", "").status.success());
}

#[test]
fn a_node_without_the_map_is_told() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let output = flush(dir.path(), "--yes", "");
    assert_eq!(output.status.code(), Some(1));
    let message = text(&output.stderr);
    assert!(
        message.contains("is this the node, or the agent's pod?") && message.contains("cannot open map"),
        "{message}"
    );
}
