//! Addresses of Services on the node's link, asked for by real tools from beyond it.

use std::net::IpAddr;
use std::process::Command;

use cilium_api::parts::{Announcement, Part, PartKey, Parts};
use cilium_rest::model;
use serde_json::json;

use crate::api::lock;
use crate::parts::NODE;
use crate::stage::{Stage, eventually};

pub(crate) const IPV4: &str = "192.0.2.100";
pub(crate) const IPV6: &str = "2001:db8::100";
pub(crate) const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZg==";

fn mk_stage(key: Option<&str>) -> Stage {
    let stage = Stage::create(1, &[("enable-l2-announcements", "true")]);
    lock(&stage.world).heartbeat_key = key.map(str::to_owned);
    stage.await_ready();
    stage
}

pub(crate) fn mk_parts(owners: &[&str], interfaces: &[&str]) -> Parts {
    let strings = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
    let part = Announcement {
        owners: strings(owners),
        interfaces: strings(interfaces),
        services: vec!["default/web".to_owned()],
    };
    let address = |text: &str| text.parse::<IpAddr>().expect("an address");
    [IPV4, IPV6]
        .map(|text| (PartKey::announcement(address(text)), Part::Announcement(part.clone())))
        .into_iter()
        .chain([crate::parts::mk_endpoint(1)])
        .collect()
}

/// What a program beyond the node's device says.
pub(crate) fn outside(stage: &Stage, program: &str, arguments: &[&str]) -> String {
    let run = || Command::new(program).args(arguments).output().expect("is installed by ./dev");
    let output = stage.outside.run(run).expect("enters");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The MAC addresses that answer for the IPv4 address.
pub(crate) fn answers(stage: &Stage) -> Vec<String> {
    let text = outside(stage, "arping", &["-r", "-c", "1", "-w", "1", "-i", "up0", IPV4]);
    text.lines().map(str::to_owned).collect()
}

/// The MAC address that answers for the IPv6 address.
pub(crate) fn answers6(stage: &Stage) -> Vec<String> {
    let text = outside(stage, "ndisc6", &["-q", "-1", "-r", "1", "-w", "1000", IPV6, "up0"]);
    text.lines().map(|line| line.trim().to_lowercase()).collect()
}

fn mac(stage: &Stage) -> String {
    let show = || Command::new("ip").args(["-j", "link", "show", "up0"]).output().expect("ip runs");
    let output = stage.netns.run(show).expect("enters");
    let links: serde_json::Value = serde_json::from_slice(&output.stdout).expect("is JSON");
    links[0]["address"].as_str().expect("has one").to_owned()
}

pub(crate) fn list(stage: &Stage) -> Vec<model::Announcement> {
    stage.client().get("/v1/l2-announcement").expect("the agent answers")
}

pub(crate) fn await_answers(stage: &Stage) {
    let mac = mac(stage);
    eventually("the node answers by ARP", || answers(stage) == [mac.clone()]);
    eventually("and by neighbour discovery", || answers6(stage) == [mac.clone()]);
}

#[test]
fn addresses_are_answered_for_while_agents_come_and_go() {
    let mut stage = mk_stage(Some(KEY));
    stage.plan(&mk_parts(&[NODE], &["^up"]));
    await_answers(&stage);
    let rows = list(&stage);
    let states: Vec<_> = rows.iter().map(|row| (&*row.address, &*row.state, &*row.node)).collect();
    assert_eq!(states, [(IPV4, "answering", NODE), (IPV6, "answering", NODE)]);
    assert!(rows.iter().all(|row| row.replies > 0 && row.interface == "up0"), "{rows:?}");
    assert_eq!(stage.last_ack()["devices"], json!(["up0"]));

    stage.kill_agent();
    let asking = ["-c", "300", "-W", "0.01", "-r", "-i", "up0", IPV4];
    let (one, other) = (outside(&stage, "arping", &asking), {
        stage.start_agent();
        outside(&stage, "arping", &asking)
    });
    assert_eq!((one.lines().count(), other.lines().count()), (300, 300), "not one is missed");
    stage.await_ready();
    eventually("the new agent goes on", || list(&stage).iter().all(|row| row.state == "answering"));
    assert!(list(&stage)[0].replies >= 600, "the count goes on, too: {:?}", list(&stage));

    stage.kill_server();
    stage.kill_agent();
    stage.start_agent();
    await_answers(&stage);
    stage.start_server();
    stage.plan(&[crate::parts::mk_endpoint(1)].into());
    eventually("nothing is announced any more", || list(&stage).is_empty() && answers(&stage).is_empty());
    assert!(answers6(&stage).is_empty());

    stage.plan(&mk_parts(&[NODE], &[]));
    await_answers(&stage);
    stage.kill_agent();
    stage.plan(&[crate::parts::mk_endpoint(1)].into());
    assert!(!answers(&stage).is_empty(), "without an agent, all goes on");
    stage.start_agent();
    eventually("what went while no agent was there is not answered for", || answers(&stage).is_empty());
}

#[test]
fn the_second_owner_answers_when_the_first_one_is_not_heard() {
    let mut stage = mk_stage(Some(KEY));
    stage.plan(&mk_parts(&["ghost", NODE], &[]));
    await_answers(&stage);
    eventually("the operator hears of it", || stage.last_ack()["silent"] == json!(["ghost"]));
}

#[test]
fn a_takeover_is_told_to_everybody() {
    let mut stage = mk_stage(Some(KEY));
    let listen = || {
        Command::new("tcpdump")
            .args(["-i", "up0", "-l", "-n", "-e", "-c", "2"])
            .arg(format!("(arp and src host {IPV4}) or (icmp6 and src host {IPV6} and dst host ff02::1)"))
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .expect("tcpdump is installed by ./dev")
    };
    let mut listener = stage.outside.run(listen).expect("enters");
    let mut ready = [0; 1];
    std::io::Read::read_exact(listener.stderr.as_mut().expect("is piped"), &mut ready).expect("it listens");
    stage.plan(&mk_parts(&[NODE], &[]));
    let heard = listener.wait_with_output().expect("it ends");
    let heard = String::from_utf8_lossy(&heard.stdout).into_owned();
    let mac = mac(&stage);
    assert!(heard.contains(&format!("{mac} > ff:ff:ff:ff:ff:ff")), "{heard}");
    assert!(heard.contains(&format!("{mac} > 33:33:00:00:00:01")), "{heard}");
}

#[test]
fn other_devices_and_nodes_without_the_key_are_silent_and_say_so() {
    let mut stage = mk_stage(None);
    stage.plan(&mk_parts(&[NODE], &[]));
    eventually("the operator hears that the key is missing", || {
        let failures = stage.last_ack()["failures"].to_string();
        failures.contains("the key of heartbeats is not known yet")
    });
    assert!(answers(&stage).is_empty());
    lock(&stage.world).heartbeat_key = Some(KEY.to_owned());
    await_answers(&stage);
    stage.plan(&mk_parts(&[NODE], &["^eth[0-9]$"]));
    eventually("up0 does not match", || list(&stage).is_empty() && answers(&stage).is_empty());
    stage.plan(&mk_parts(&[NODE], &["("]));
    eventually("an expression that is none is named", || {
        stage.last_ack()["failures"].to_string().contains("expression (")
    });
}
