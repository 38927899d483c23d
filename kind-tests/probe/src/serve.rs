//! The far end: echoes datagrams, swallows streams.

use std::io::Read as _;
use std::net::{Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::thread;

use anyhow::Context as _;

use crate::stamp::{Sending, Stamped};
use crate::stream;

/// Serves both protocols on all addresses until the process is killed.
pub(crate) fn run(port: u16) -> anyhow::Result<()> {
    let datagrams = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port))
        .with_context(|| format!("cannot bind datagram port {port}"))?;
    let streams = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
        .with_context(|| format!("cannot listen on port {port}"))?;
    thread::spawn(move || accept(&streams));
    echo(datagrams)
}

fn echo(socket: UdpSocket) -> anyhow::Result<()> {
    let socket = Stamped::new(socket)?;
    let mut buffer = [0u8; 2048];
    let mut disturbed = 0u64;
    loop {
        // Refusals by clients that went away surface here as errors: their own business.
        let Some((length, Some(from), received)) = socket.receive(&mut buffer) else { continue };
        let sending = Sending::begin()?;
        if length == stream::LENGTH {
            buffer[32..40].copy_from_slice(&disturbed.to_be_bytes());
            buffer[16..24].copy_from_slice(&received.to_be_bytes());
            buffer[24..32].copy_from_slice(&sending.began().to_be_bytes());
        }
        if let Err(error) = socket.0.send_to(&buffer[..length], from) {
            eprintln!("no echo to {from}: {error}");
        }
        disturbed += u64::from(sending.was_disturbed()?);
    }
}

fn accept(listener: &TcpListener) {
    for stream in listener.incoming() {
        match stream {
            Ok(stream) => drop(thread::spawn(move || swallow(stream))),
            Err(error) => eprintln!("cannot accept: {error}"),
        }
    }
}

fn swallow(mut stream: TcpStream) {
    let mut buffer = vec![0u8; 256 * 1024];
    while matches!(stream.read(&mut buffer), Ok(length) if length > 0) {}
}
