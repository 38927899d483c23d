//! Node state as an API server that cannot be trusted would give it: what has not the digest that was announced changes nothing.

use std::sync::LazyLock;

use cilium_api::digest::{decode, digest, encode};
use cilium_api::node_slice::CiliumNodeStateSliceSpec;
use cilium_api::node_state::DesiredState;
use cilium_api::parts::{FORMAT_VERSION, Parts};
use cilium_dataplane::Dataplane;
use cilium_state::{Event, Owner, Slice, State};
use fuzz::Input;
use serde_json::{Value, json};

static SAMPLES: LazyLock<Vec<Value>> = LazyLock::new(|| {
    let entry = json!([301, 6, 80, 90, [0]]);
    vec![
        json!({
            "endpoint/default/web": {"endpoint": {"uid": "u", "id": 5, "identity": 300, "ipv4": "10.1.0.5", "ipv6": "fd00:1::5"}},
            "policy/300": {"policy": {"ingress": {"enforced": true, "allow": [entry]},
                "egress": {"deny": [entry]}, "origins": ["cnp/default/rule1"]}},
        }),
        json!({
            "address/10.1.0.5": {"address": {"identity": 300, "node": "a"}},
            "prefix/10.0.0.0/8": {"prefix": {"identity": 16_777_216}},
            "identity/300": {"identity": {"labels": ["k8s:app=web"]}},
            "node/a": {"node": {"addresses": ["192.168.0.1"], "podCidrs": ["10.1.0.0/24"], "apiServer": true}},
            "service/default/web": {"service": {"clusterIps": ["10.96.0.9"], "ports": [
                {"name": "http", "protocol": 6, "port": 80, "backends": [["10.1.0.5", 8080]]}]}},
        }),
    ]
});

fn mk_config() -> cilium_dataplane::Config {
    cilium_dataplane::Config {
        node: "a".into(),
        tunnel: true,
        world4: 9,
        ..cilium_dataplane::Config::default()
    }
}

fn spec(text: &str, digest: &str) -> CiliumNodeStateSliceSpec {
    CiliumNodeStateSliceSpec { format: FORMAT_VERSION, count: 1, digest: digest.into(), data: text.into() }
}

/// Gives the text to a node in every way in which parts come.
fn check(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    let mut state = State::new();
    let right = digest(text.as_bytes());
    for (name, owner, digest) in
        [("cluster.0", Owner::Shared, &*right), ("cluster.1", Owner::Shared, "wrong")]
    {
        let slice = Slice { name: name.into(), owner, spec: spec(text, digest) };
        let change = state.apply(Event::Slice(slice));
        assert!(change.keys.is_empty() || digest == right, "a slice with a wrong digest counts");
    }
    for (revision, digest) in [(1, "wrong"), (2, &*right)] {
        let desired = DesiredState {
            format: FORMAT_VERSION,
            revision,
            digest: digest.into(),
            inline: Some(text.into()),
            slices: Vec::new(),
        };
        state.apply(Event::Header(Some(desired)));
        assert!(state.accepted().is_none_or(|accepted| accepted.digest == right));
    }
    if let Ok(parts) = decode(text) {
        let again: Parts = decode(&encode(&parts).expect("parts encode")).expect("what was encoded decodes");
        assert_eq!(again, parts);
        let mut dataplane = Dataplane::new(mk_config());
        dataplane.update(parts.keys(), &parts);
        dataplane.update(parts.keys(), &Parts::new());
        assert_eq!(dataplane.sizes(), [0; 3], "something of the parts outlives them");
    }
}

#[test]
fn samples_are_accepted() {
    for sample in &*SAMPLES {
        decode(&sample.to_string()).expect("a sample is parts");
    }
}

#[test]
fn any_state() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let input = Input(bytes);
        check(bytes);
        if let Some(document) = input.changed(&SAMPLES) {
            check(document.to_string().as_bytes());
        }
        if let Some(text) = input.damaged(&SAMPLES) {
            check(&text);
        }
    });
}
