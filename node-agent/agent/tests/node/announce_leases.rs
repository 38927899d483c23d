//! Addresses of Services on the node's link, where Leases say who answers.

use serde_json::{Value, json};

use crate::announce::{IPV4, IPV6, KEY, answers, answers6, await_answers, list, mk_parts, outside};
use crate::api::lock;
use crate::parts::NODE;
use crate::stage::{Stage, eventually};

const LEASE: &str = "cilium-l2announce-default-web";
const OTHER: &str = "2026-01-02T03:04:05.678901Z";
/// A Lease is kept for seconds, not for a quarter of a minute.
const SHORT: [(&str, &str); 3] = [
    ("l2-announcements-lease-duration", "5s"),
    ("l2-announcements-renew-deadline", "3s"),
    ("l2-announcements-retry-period", "200ms"),
];

fn mk_stage(settings: &[(&str, &str)]) -> Stage {
    let on = [("enable-l2-announcements", "true"), ("l2-announcements-mode", "lease")];
    let stage = Stage::create(1, &[&on, settings].concat());
    stage.await_ready();
    stage
}

fn lease(stage: &Stage) -> Value {
    lock(&stage.world).lease(LEASE)
}

/// Another node has it, and does nothing to keep it.
fn give_away(stage: &Stage, seconds: u32) {
    let spec = json!({"holderIdentity": "n2", "leaseDurationSeconds": seconds, "leaseTransitions": 3,
        "acquireTime": OTHER, "renewTime": OTHER});
    lock(&stage.world).put_lease(LEASE, &spec);
}

fn await_standby(stage: &Stage, holder: &str) {
    eventually("the node knows that it is not its turn", || {
        let rows = list(stage);
        rows.len() == 2 && rows.iter().all(|row| (&*row.state, &*row.node) == ("standby", holder))
    });
    assert!(answers(stage).is_empty() && answers6(stage).is_empty());
}

#[test]
fn the_holder_answers_and_renews_until_the_plan_drops_the_address() {
    let mut stage = mk_stage(&SHORT);
    stage.plan(&mk_parts(&["ghost", NODE], &["^up"]));
    await_answers(&stage);
    let rows = list(&stage);
    let states: Vec<_> = rows.iter().map(|row| (&*row.address, &*row.state, &*row.node)).collect();
    assert_eq!(states, [(IPV4, "answering", NODE), (IPV6, "answering", NODE)]);
    let first = lease(&stage);
    assert_eq!(
        [&first["holderIdentity"], &first["leaseDurationSeconds"], &first["leaseTransitions"]],
        [&json!(NODE), &json!(5), &json!(0)]
    );
    eventually("it is renewed", || lease(&stage)["renewTime"] != first["renewTime"]);
    assert_eq!(lease(&stage)["acquireTime"], first["acquireTime"]);
    let ack = stage.last_ack();
    assert!(ack["silent"].as_array().is_none_or(Vec::is_empty), "it watches nobody: {ack}");
    assert!(!ack["failures"].to_string().contains("key"), "and needs no key: {ack}");

    stage.plan(&[crate::parts::mk_endpoint(1)].into());
    eventually("the Lease is given back", || lease(&stage)["holderIdentity"] == "");
    assert!(list(&stage).is_empty() && answers(&stage).is_empty() && answers6(&stage).is_empty());
}

#[test]
fn another_holder_has_the_address_until_its_lease_expires() {
    let mut stage = mk_stage(&SHORT);
    give_away(&stage, 3600);
    stage.plan(&mk_parts(&[NODE], &[]));
    await_standby(&stage, "n2");
    give_away(&stage, 1);
    await_answers(&stage);
    let taken = lease(&stage);
    assert_eq!([&taken["holderIdentity"], &taken["leaseTransitions"]], [&json!(NODE), &json!(4)]);
    assert_ne!(taken["acquireTime"], json!(OTHER));
    give_away(&stage, 3600);
    await_standby(&stage, "n2");
}

#[test]
fn without_an_api_server_the_address_is_answered_for_no_longer_than_the_lease() {
    let mut stage = mk_stage(&SHORT);
    stage.plan(&mk_parts(&[NODE], &[]));
    await_answers(&stage);
    stage.kill_server();
    eventually("the agent stops at the renew deadline", || {
        list(&stage).iter().all(|row| row.state == "standby") && answers(&stage).is_empty()
    });
    stage.start_server();
    await_answers(&stage);
    assert_eq!(lease(&stage)["leaseTransitions"], 0, "nobody else had it");
    stage.kill_server();
    stage.kill_agent();
    stage.start_agent();
    stage.await_ready();
    eventually("an agent that cannot read the Lease does not put the end off", || {
        answers(&stage).is_empty() && list(&stage).iter().all(|row| row.state == "standby")
    });
    stage.start_server();
    await_answers(&stage);
    stage.kill_agent();
    eventually("programs stop at the end of the Lease", || answers(&stage).is_empty());
    assert!(answers6(&stage).is_empty());
}

#[test]
fn an_agent_that_restarts_keeps_what_it_holds_and_nothing_else() {
    let mut stage = mk_stage(&[("l2-announcements-lease-duration", "60s")]);
    stage.plan(&mk_parts(&[NODE], &[]));
    await_answers(&stage);
    let first = lease(&stage);
    stage.kill_agent();
    stage.start_agent();
    let asking = ["-c", "300", "-W", "0.01", "-r", "-i", "up0", IPV4];
    assert_eq!(outside(&stage, "arping", &asking).lines().count(), 300, "not one is missed");
    stage.await_ready();
    eventually("the new agent renews", || lease(&stage)["renewTime"] != first["renewTime"]);
    assert_eq!(outside(&stage, "arping", &asking).lines().count(), 300, "nor later");
    assert_eq!(
        [&lease(&stage)["acquireTime"], &lease(&stage)["leaseTransitions"]],
        [&first["acquireTime"], &json!(0)]
    );

    stage.kill_agent();
    give_away(&stage, 3600);
    stage.start_agent();
    stage.await_ready();
    await_standby(&stage, "n2");
}

#[test]
fn what_was_answered_for_in_another_mode_is_not_taken_over() {
    let mut stage = mk_stage(&[("l2-announcements-mode", "heartbeat")]);
    lock(&stage.world).heartbeat_key = Some(KEY.to_owned());
    let restart = |stage: &mut Stage, mode| {
        stage.kill_agent();
        stage.set("l2-announcements-mode", mode);
        stage.start_agent();
        stage.await_ready();
    };
    stage.plan(&mk_parts(&[NODE], &[]));
    await_answers(&stage);
    give_away(&stage, 3600);
    restart(&mut stage, "lease");
    await_standby(&stage, "n2");
    restart(&mut stage, "heartbeat");
    await_answers(&stage);
}

#[test]
fn a_node_without_a_right_to_leases_is_silent_and_says_so() {
    let mut stage = mk_stage(&SHORT);
    lock(&stage.world).forbids_leases = true;
    stage.plan(&mk_parts(&[NODE], &[]));
    eventually("the operator hears of both addresses", || {
        let failures = stage.last_ack()["failures"].to_string();
        [IPV4, IPV6].iter().all(|address| failures.contains(&format!("announcement/{address}")))
            && failures.contains("Leases cannot be listed")
    });
    assert!(answers(&stage).is_empty());
    lock(&stage.world).forbids_leases = false;
    await_answers(&stage);
    eventually("and that it is over", || stage.last_ack()["failures"].as_array().is_none_or(Vec::is_empty));
}

#[test]
fn an_agent_that_is_told_to_stop_gives_back_what_it_holds() {
    let mut stage = mk_stage(&[]);
    stage.plan(&mk_parts(&[NODE], &[]));
    await_answers(&stage);
    stage.stop_agent();
    assert_eq!(lease(&stage)["holderIdentity"], "");
    assert!(answers(&stage).is_empty() && answers6(&stage).is_empty());
}
