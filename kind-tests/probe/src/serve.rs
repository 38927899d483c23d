//! The far end: echoes datagrams, swallows streams.

use std::io::Read as _;
use std::net::{Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::thread;

use anyhow::Context as _;

/// Serves both protocols on all addresses until the process is killed.
pub(crate) fn run(port: u16) -> anyhow::Result<()> {
    let datagrams = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port))
        .with_context(|| format!("cannot bind datagram port {port}"))?;
    let streams = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
        .with_context(|| format!("cannot listen on port {port}"))?;
    thread::spawn(move || accept(&streams));
    echo(&datagrams)
}

fn echo(socket: &UdpSocket) -> anyhow::Result<()> {
    let mut buffer = [0u8; 2048];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).context("cannot receive")?;
        // A client that went away is its own business (ICMP errors surface here as refused connections).
        if let Err(error) = socket.send_to(&buffer[..length], from) {
            eprintln!("no echo to {from}: {error}");
        }
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
