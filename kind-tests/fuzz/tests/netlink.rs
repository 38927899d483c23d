//! Datagrams of the kernel: replies to requests, tables, refusals. The samples are of a kernel 6.18.

use std::sync::LazyLock;

use cilium_drivers::netlink::{Fault, read_replies};
use fuzz::Input;

/// Bytes of the header of a message.
const HEADER: usize = 16;

static SAMPLES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let all: [&[u8]; 5] = [
        include_bytes!("samples/links.bin"),
        include_bytes!("samples/addresses.bin"),
        include_bytes!("samples/routes.bin"),
        include_bytes!("samples/neighbours.bin"),
        include_bytes!("samples/refusal.bin"),
    ];
    all.map(<[u8]>::to_vec).into()
});

fn check(datagram: &[u8]) {
    if let Ok(found) = read_replies(datagram) {
        // A message may be of interest to two readers.
        assert!(found.len() <= 2 * datagram.len() / HEADER, "more is found than was sent: {found:?}");
    }
}

#[test]
fn samples_are_read() {
    let found: Vec<String> = SAMPLES[..4].iter().flat_map(|it| read_replies(it).expect("is read")).collect();
    for part in
        ["cilium:1", "Vxlan { port: 8472, external: true }", "10.244.1.5/32", "10.244.2.0/24", "10.244.1.7"]
    {
        assert!(found.iter().any(|line| line.contains(part)), "{part} is missing in {found:#?}");
    }
    let refusal = read_replies(&SAMPLES[4]).expect_err("a refusal");
    assert!(matches!(refusal, Fault::Refused { .. }), "{refusal:?}");
}

#[test]
fn any_reply() {
    bolero::check!().for_each(|bytes: &[u8]| {
        check(bytes);
        if let Some(datagram) = Input(bytes).altered(&SAMPLES) {
            check(&datagram);
        }
    });
}
