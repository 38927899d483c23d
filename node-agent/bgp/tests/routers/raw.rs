//! What no router would send: broken UPDATEs (RFC 7606), messages and OPENs (RFC 4271, 6), and silence.

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use cilium_rest::bgp::{Family, SessionState};

use crate::lab::Lab;
use crate::session::Session;
use crate::speaker::Speaker;
use crate::wire::{GOOD_OPEN, GOOD_UPDATE, NOTIFICATION, OPEN, UPDATE, Wire, bytes, message};

/// A speaker that waits for the peer.
fn start(lab: &Lab) -> Result<Speaker<'_>> {
    Speaker::start(lab, &Session { node_passive: true, ..Session::new(Family::Ipv4, &[Family::Ipv4]) })
}

/// A session that the speaker has, too. It may hear late of the end of the one before.
fn establish(lab: &Lab, speaker: &Speaker<'_>) -> Result<Wire> {
    let before = speaker.wait("a state", |_| true)?.established_count;
    let wire = Wire::establish(lab, GOOD_OPEN)?;
    speaker.wait("a new session", |peer| peer.established_count > before)?;
    Ok(wire)
}

/// Waits until this many prefixes of the peer are there, while the session holds.
fn wait_received(speaker: &Speaker<'_>, count: u64) -> Result<()> {
    let peer = speaker.wait(&format!("{count} prefixes"), |peer| {
        peer.state != SessionState::Established || peer.families[0].received == count
    })?;
    ensure!(peer.state == SessionState::Established, "the session ended: {peer:?}");
    Ok(())
}

/// Announces a prefix well, and then again with something wrong.
fn check_update(lab: &Lab, speaker: &Speaker<'_>, update: &str, count: u64) -> Result<()> {
    let mut wire = establish(lab, speaker)?;
    wire.send(&message(UPDATE, GOOD_UPDATE))?;
    wait_received(speaker, 1)?;
    wire.send(&message(UPDATE, update))?;
    // Another prefix behind it: what came before has been read when it is there.
    let next = GOOD_UPDATE.replace("18c63364", "18cb0071");
    wire.send(&message(UPDATE, &next))?;
    wait_received(speaker, count + 1)
}

fn check_all<C: Copy>(cases: &[(&str, &str, C)], check: impl Fn(&Lab, &Speaker<'_>, &str, C) -> Result<()>) {
    let lab = Lab::new().expect("a lab");
    let speaker = start(&lab).expect("a speaker");
    let failures: Vec<String> = cases
        .iter()
        .filter_map(|(name, text, expected)| {
            let result = check(&lab, &speaker, text, *expected);
            result.err().map(|error| format!("{name}: {error:?}"))
        })
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn an_update_with_wrong_attributes_withdraws_its_prefixes() {
    let cases = [
        ("ORIGIN of 5", "0000 0014 40010105 40020602010000fdea 4003040a010002 18c63364", 0),
        ("ORIGIN of two bytes", "0000 0015 4001020000 40020602010000fdea 4003040a010002 18c63364", 0),
        ("optional ORIGIN", "0000 0014 c0010100 40020602010000fdea 4003040a010002 18c63364", 0),
        ("no NEXT_HOP", "0000 000d 40010100 40020602010000fdea 18c63364", 0),
        ("no ORIGIN", "0000 0010 40020602010000fdea 4003040a010002 18c63364", 0),
        ("no AS_PATH", "0000 000b 40010100 4003040a010002 18c63364", 0),
        ("AS_PATH that is too short", "0000 0014 40010100 40020602030000fdea 4003040a010002 18c63364", 0),
        ("AS_PATH of kind 9", "0000 0014 40010100 40020609010000fdea 4003040a010002 18c63364", 0),
        ("NEXT_HOP of five bytes", "0000 0015 40010100 40020602010000fdea 4003050a01000200 18c63364", 0),
        (
            "MED of three bytes",
            "0000 001a 40010100 40020602010000fdea 4003040a010002 800403000001 18c63364",
            0,
        ),
        (
            "COMMUNITIES of three bytes",
            "0000 001a 40010100 40020602010000fdea 4003040a010002 c00803fdea00 18c63364",
            0,
        ),
        (
            "LARGE_COMMUNITY of five bytes",
            "0000 001c 40010100 40020602010000fdea 4003040a010002 c020050000000000 18c63364",
            0,
        ),
        (
            "an attribute beyond the others",
            "0000 0014 40010100 40020602010000fdea 4003080a010002 18c63364",
            0,
        ),
    ];
    check_all(&cases, check_update);
}

#[test]
fn attributes_that_matter_little_are_left_out() {
    let cases = [
        (
            "AGGREGATOR of three bytes",
            "0000 001a 40010100 40020602010000fdea 4003040a010002 c00703000000 18c63364",
            1,
        ),
        (
            "ATOMIC_AGGREGATE of a byte",
            "0000 0018 40010100 40020602010000fdea 4003040a010002 40060100 18c63364",
            1,
        ),
        (
            "LOCAL_PREF of another AS",
            "0000 001b 40010100 40020602010000fdea 4003040a010002 400504000000ff 18c63364",
            1,
        ),
        ("ORIGIN twice", "0000 0018 40010100 40020602010000fdea 4003040a010002 40010102 18c63364", 1),
        (
            "an attribute that nobody knows",
            "0000 0019 40010100 40020602010000fdea 4003040a010002 c0c8020000 18c63364",
            1,
        ),
    ];
    check_all(&cases, check_update);
}

#[test]
fn messages_that_cannot_be_read_end_the_session() {
    let marker = "ffffffffffffffffffffffffffffffff";
    let update = |body: &str| message(UPDATE, body);
    let cases: [(&str, Vec<u8>, (u8, u8)); 8] = [
        ("a wrong marker", bytes("00ffffffffffffffffffffffffffffff 0013 04"), (1, 1)),
        ("a length of 18", bytes(&format!("{marker} 0012 04")), (1, 2)),
        ("a length of 5000", bytes(&format!("{marker} 1388 02")), (1, 2)),
        ("a KEEPALIVE with a body", bytes(&format!("{marker} 0014 04 00")), (1, 2)),
        ("type 9", bytes(&format!("{marker} 0013 09")), (1, 3)),
        ("withdrawn prefixes beyond the end", update("ffff 0000"), (3, 1)),
        ("attributes beyond the end", update("0000 00ff 40010100"), (3, 1)),
        (
            "a prefix of 33 bits",
            update("0000 0014 40010100 40020602010000fdea 4003040a010002 21c6336400 80"),
            (3, 10),
        ),
    ];
    let lab = Lab::new().expect("a lab");
    let speaker = start(&lab).expect("a speaker");
    let check = |bytes: &[u8], expected| {
        let mut wire = Wire::establish(&lab, GOOD_OPEN)?;
        speaker.wait_established()?;
        wire.send(bytes)?;
        let code = wire.end()?;
        ensure!(code == expected, "the session ended with {code:?}, not {expected:?}");
        let peer = speaker.wait("the end", |peer| peer.state != SessionState::Established)?;
        peer.reason.map(drop).context("no reason")
    };
    let results = cases.iter().map(|(name, bytes, code)| (name, check(bytes, *code)));
    let failures = results.filter_map(|(name, result)| Some(format!("{name}: {:?}", result.err()?)));
    let failures: Vec<String> = failures.collect();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn opens_that_cannot_be_are_refused_with_a_reason() {
    let cases = [
        ("version 3", "03 fdea 005a 0a010002 00", ((2, 1), "ersion")),
        ("AS 64999", "04 fde7 005a 0a010002 00", ((2, 2), "64999")),
        ("router id 0.0.0.0", "04 fdea 005a 00000000 00", ((2, 3), "dentifier")),
        ("a hold time of 2", "04 fdea 0002 0a010002 00", ((2, 6), "old time")),
    ];
    check_all(&cases, |lab, speaker, open, (code, word)| {
        let mut wire = Wire::connect(lab)?;
        wire.send(&message(OPEN, open))?;
        let end = wire.end()?;
        ensure!(end == code, "it was refused with {end:?}, not {code:?}");
        let fits = |reason: &String| reason.contains(word);
        speaker.wait("a reason", |peer| peer.reason.as_ref().is_some_and(fits)).map(drop)
    });
}

#[test]
fn silence_ends_the_session_after_the_hold_time() {
    let lab = Lab::new().expect("a lab");
    let speaker = start(&lab).expect("a speaker");
    let open = GOOD_OPEN.replace("005a", "0003");
    let mut wire = Wire::establish(&lab, &open).expect("a session");
    let peer = speaker.wait_established().expect("a session");
    assert_eq!((peer.hold_time, peer.keepalive), (3, 1));
    assert_eq!(wire.end().expect("an end"), (4, 0));
    let reason =
        |it: &cilium_rest::bgp::PeerState| it.reason.as_ref().is_some_and(|it| it.contains("hold time"));
    speaker.wait("a reason", reason).expect("a reason");
}

#[test]
fn a_peer_that_says_why_it_goes_is_quoted() {
    let lab = Lab::new().expect("a lab");
    let speaker = start(&lab).expect("a speaker");
    let mut wire = Wire::establish(&lab, GOOD_OPEN).expect("a session");
    speaker.wait_established().expect("a session");
    // Cease, administrative shutdown, "new rack" (RFC 9003).
    wire.send(&message(NOTIFICATION, "06 02 08 6e6577207261636b")).expect("it is sent");
    let quoted = |it: &cilium_rest::bgp::PeerState| {
        it.reason.as_ref().is_some_and(|it| it.to_lowercase().contains("shutdown") && it.contains("new rack"))
    };
    speaker.wait("a reason", quoted).expect("a reason");
}

#[test]
fn a_peer_that_is_cut_off_in_the_middle_of_a_message_leaves_nothing_behind() {
    let lab = Lab::new().expect("a lab");
    let speaker = start(&lab).expect("a speaker");
    let mut wire = establish(&lab, &speaker).expect("a session");
    let update = message(UPDATE, GOOD_UPDATE);
    for byte in &update {
        wire.send(&[*byte]).expect("it is sent");
        thread::sleep(Duration::from_millis(1));
    }
    wait_received(&speaker, 1).expect("a prefix that came byte by byte");
    wire.send(&update[..30]).expect("it is sent");
    drop(wire);
    let gone = |peer: &cilium_rest::bgp::PeerState| {
        peer.state != SessionState::Established && peer.families.iter().all(|it| it.received == 0)
    };
    speaker.wait("an end", gone).expect("the session ends");
}
