//! Addresses of Services on several links of a node.

use std::process::Command;

use cilium_drivers::netns::Netns;
use cilium_drivers::testing;
use cilium_rest::model;
use serde_json::json;

use crate::announce::{IPV4, KEY, answers, list, mk_parts};
use crate::api::lock;
use crate::parts::NODE;
use crate::stage::{Stage, eventually};

/// A node with `up0`, and `up1` to a network of its own. That one comes when the agent runs already.
fn mk_stage() -> (Stage, Netns) {
    let stage = Stage::create(1, &[("enable-l2-announcements", "true"), ("devices", "up+")]);
    lock(&stage.world).heartbeat_key = Some(KEY.to_owned());
    stage.await_ready();
    let beyond = testing::namespace();
    let net = |text: &str| text.parse().expect("a prefix");
    testing::connect(
        (&stage.netns, "up1", &[net("198.51.100.1/24")]),
        (&beyond, "up1", &[net("198.51.100.2/24")]),
    );
    (stage, beyond)
}

fn ip(netns: &Netns, arguments: &[&str]) -> String {
    let run = || Command::new("ip").args(arguments).output().expect("ip runs");
    let output = netns.run(run).expect("enters");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn mac(netns: &Netns, device: &str) -> String {
    let links: serde_json::Value =
        serde_json::from_str(&ip(netns, &["-j", "link", "show", device])).expect("is JSON");
    links[0]["address"].as_str().expect("has one").to_owned()
}

/// The MAC addresses that answer for the IPv4 address on the second link.
fn answers_beyond(beyond: &Netns, count: &str) -> Vec<String> {
    let arguments = ["-r", "-c", count, "-W", "0.01", "-w", "5", "-i", "up1", "-S", "198.51.100.2", IPV4];
    let run = || Command::new("arping").args(arguments).output().expect("is installed by ./dev");
    let output = beyond.run(run).expect("enters");
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn each_device_answers_with_its_own_address_if_it_is_named() {
    let (mut stage, beyond) = mk_stage();
    let (first, second) = (mac(&stage.netns, "up0"), mac(&stage.netns, "up1"));
    stage.plan(&mk_parts(&[NODE], &[]));
    eventually("up0 answers", || answers(&stage) == [first.clone()]);
    eventually("up1 answers", || answers_beyond(&beyond, "1") == [second.clone()]);
    eventually("the operator hears of both", || stage.last_ack()["devices"] == json!(["up0", "up1"]));
    let of = |device: &str| list(&stage).iter().filter(|row| row.interface == device).count();
    assert_eq!((of("up0"), of("up1")), (2, 2));

    stage.plan(&mk_parts(&[NODE], &["^up1$"]));
    eventually("up0 is not named any more", || answers(&stage).is_empty());
    assert_eq!(answers_beyond(&beyond, "1"), [second]);

    stage.kill_agent();
    assert_eq!(answers_beyond(&beyond, "50").len(), 50, "without an agent");
    stage.start_agent();
    assert_eq!(answers_beyond(&beyond, "100").len(), 100, "not one is missed while the next one starts");
    stage.await_ready();
    assert!(answers(&stage).is_empty());

    ip(&stage.netns, &["link", "delete", "up1"]);
    eventually("the device is gone", || stage.last_ack()["devices"] == json!(["up0"]));
    eventually("and what was announced on it", || list(&stage).iter().all(|row| row.interface == "up0"));
}

#[test]
fn an_owner_is_silent_only_when_no_link_hears_it() {
    let (mut stage, beyond) = mk_stage();
    let second = mac(&stage.netns, "up1");
    stage.plan(&mk_parts(&["ghost", NODE], &["^up1$"]));
    eventually("the second owner answers", || answers_beyond(&beyond, "1") == [second.clone()]);
    eventually("the operator hears of the first", || stage.last_ack()["silent"] == json!(["ghost"]));
}

#[test]
fn addresses_of_other_devices_are_the_nodes_own() {
    let (stage, _beyond) = mk_stage();
    let served = || {
        let status = stage.status().expect("the agent answers");
        (status.devices, status.kube_proxy_replacement.devices)
    };
    let devices = [("up0", vec!["192.0.2.1", "2001:db8::1"]), ("up1", vec!["198.51.100.1"])];
    let devices = devices.map(|(name, texts)| {
        (name.to_owned(), texts.into_iter().map(str::to_owned).collect::<Vec<String>>())
    });
    eventually("the second device is served", || served().0 == devices.clone().into());
    assert_eq!(served().1, ["up0 192.0.2.1 2001:db8::1 (Direct Routing)", "up1 198.51.100.1"]);
    let entries: Vec<model::IpcacheEntry> = stage.client().get("/v1/map/ipcache").expect("the agent answers");
    let own = entries.iter().find(|entry| entry.prefix == "198.51.100.1/32").expect("is known");
    assert_eq!(own.identity, 1, "reserved:host");
}
