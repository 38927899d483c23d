//! Frames and multicast groups on the real kernel, in namespaces of their own. Needs root.
#![expect(clippy::unwrap_used, reason = "a test stops where something fails")]

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::process::Command;
use std::time::{Duration, Instant};

use cilium_drivers::frames::{FrameSender, Groups};
use cilium_drivers::netlink::Link;
use cilium_drivers::netns::Netns;
use cilium_drivers::testing;

/// A device, its namespace, and that of the other end.
fn mk_device() -> (Link, Netns, Netns) {
    let (here, there) = (testing::namespace(), testing::namespace());
    let (link, _) = testing::connect((&here, "up0", &[]), (&there, "up0", &[]));
    (link, here, there)
}

/// What `ip(8)` says inside a namespace: an independent view of what was done.
fn ip(namespace: &Netns, arguments: &[&str]) -> String {
    let output = namespace.run(|| Command::new("ip").args(arguments).output().unwrap()).unwrap();
    assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Packets that the device has received (`ip -s link`: the line behind that of the names).
fn received(namespace: &Netns) -> u64 {
    let shown = ip(namespace, &["-s", "link", "show", "up0"]);
    let line = shown.lines().skip_while(|line| !line.contains("RX:")).nth(1).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn frames_come_out_at_the_other_end() {
    let (link, here, there) = mk_device();
    let sender = here.run(|| FrameSender::open(&link)).unwrap().unwrap();
    let frame = [&[0xff; 6][..], &link.mac.0, &[0x88, 0xb5], &[7; 50]].concat();
    let before = received(&there);
    for _ in 0..100 {
        sender.send(&frame).unwrap();
    }
    assert!(received(&there) >= before + 100);
    assert!(sender.send(&frame[..10]).is_err(), "that is no frame");
}

#[test]
fn a_device_has_a_link_as_long_as_both_ends_are_up() {
    let (link, here, there) = mk_device();
    let sender = here.run(|| FrameSender::open(&link)).unwrap().unwrap();
    let becomes = |expected| {
        let end = Instant::now() + Duration::from_secs(10);
        while sender.has_carrier() != expected {
            assert!(Instant::now() < end, "still not {expected}");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    becomes(true);
    ip(&there, &["link", "set", "up0", "down"]);
    becomes(false);
    ip(&there, &["link", "set", "up0", "up"]);
    becomes(true);
    ip(&here, &["link", "set", "up0", "down"]);
    becomes(false);
    assert!(sender.send(&[0; 60]).is_err());
}

#[test]
fn groups_are_joined_and_left_and_the_filter_outlives_the_process() {
    let (link, here, _there) = mk_device();
    let group = |last: u16| {
        let mac = [0x33, 0x33, 0xff, 0, (last >> 8) as u8, last as u8];
        (Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, last), mac)
    };
    let of = |numbers: &[u16]| numbers.iter().map(|last| group(*last)).collect::<BTreeMap<_, _>>();
    let shown = || ip(&here, &["maddress", "show", "dev", "up0"]);
    let mut groups = Groups::new(&link);
    // More than one socket holds.
    let many: Vec<u16> = (1..=300).collect();
    here.run(|| groups.set(&of(&many))).unwrap().unwrap();
    let text = shown();
    assert_eq!(text.matches("inet6 ff02::1:ff00:").count(), 300, "{text}");
    assert!(text.contains("33:33:ff:00:01:2c"), "{text}");

    here.run(|| groups.set(&of(&[7, 300]))).unwrap().unwrap();
    let text = shown();
    assert!(text.contains("inet6 ff02::1:ff00:7") && text.contains("inet6 ff02::1:ff00:12c"), "{text}");
    assert_eq!(text.matches("inet6 ff02::1:ff00:").count(), 2, "{text}");
    assert!(!text.contains("33:33:ff:00:00:08"), "{text}");

    drop(groups);
    let text = shown();
    assert_eq!(text.matches("inet6 ff02::1:ff00:").count(), 0, "{text}");
    assert!(
        text.contains("33:33:ff:00:00:07"),
        "without the process, the device takes the frames on: {text}"
    );

    let mut groups = Groups::new(&link);
    here.run(|| groups.set(&of(&[7]))).unwrap().unwrap();
    here.run(|| groups.set(&BTreeMap::new())).unwrap().unwrap();
    assert!(!shown().contains("33:33:ff:00:00:07"));
}

#[test]
fn a_device_that_is_gone_is_named() {
    let (link, here, _there) = mk_device();
    let gone = Link { index: 9999, name: "gone0".to_owned(), ..link };
    let error = here.run(|| FrameSender::open(&gone)).unwrap().unwrap_err().to_string();
    assert!(error.contains("gone0"), "{error}");
    let group = [(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 1), [0x33, 0x33, 0xff, 0, 0, 1])].into();
    let error = here.run(|| Groups::new(&gone).set(&group)).unwrap().unwrap_err().to_string();
    assert_eq!(error, "device gone0 cannot receive what is sent to ff02::1:ff00:1");
}
