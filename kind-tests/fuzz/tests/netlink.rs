//! Datagrams of the kernel: replies to requests, tables, refusals. The samples are of a kernel 6.18.

use std::sync::LazyLock;

use cilium_drivers::netlink::{Fault, Transport, read_replies, read_sockets};
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

static SOCKETS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let all: [&[u8]; 3] = [
        include_bytes!("samples/tcp_sockets.bin"),
        include_bytes!("samples/udp_sockets.bin"),
        include_bytes!("samples/refusal.bin"),
    ];
    all.map(<[u8]>::to_vec).into()
});

fn check_sockets(datagram: &[u8]) {
    if let Ok(found) = read_sockets(Transport::Tcp, datagram) {
        assert!(found.len() <= datagram.len() / HEADER, "more is found than was sent: {found:?}");
    }
}

#[test]
fn samples_of_sockets_are_read() {
    let read = |transport: Transport, sample: &[u8]| {
        let found = read_sockets(transport, sample).expect("is read");
        assert!(found.iter().all(|socket| socket.cookie != 0));
        found.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let tcp = read(Transport::Tcp, &SOCKETS[0]);
    for line in [
        "TCP socket 10.244.1.5:40000 connected to 10.244.2.7:8080",
        "TCP socket 10.244.2.7:8080 connected to 10.244.1.5:40000",
        "TCP socket [fd00:10:244:1::5]:40001 connected to [fd00:10:244:2::7]:8080",
    ] {
        assert!(tcp.iter().any(|found| found == line), "{line} is missing in {tcp:#?}");
    }
    let udp = read(Transport::Udp, &SOCKETS[1]);
    let expected = [
        "UDP socket 10.244.1.5:40002 connected to 10.244.2.7:5353",
        "UDP socket [fd00:10:244:1::5]:40003 connected to [fd00:10:244:2::7]:5353",
    ];
    assert_eq!(udp, expected);
    let refusal = read_sockets(Transport::Tcp, &SOCKETS[2]).expect_err("a refusal");
    assert!(matches!(refusal, Fault::Refused { .. }), "{refusal:?}");
}

#[test]
fn any_socket() {
    bolero::check!().for_each(|bytes: &[u8]| {
        check_sockets(bytes);
        if let Some(datagram) = Input(bytes).altered(&SOCKETS) {
            check_sockets(&datagram);
        }
    });
}
