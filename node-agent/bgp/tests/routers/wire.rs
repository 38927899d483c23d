//! A peer of the test's own: it speaks BGP by bytes.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context as _, Result, bail, ensure};
use cilium_rest::bgp::Family;

use crate::lab::{Lab, PATIENCE, until};
use crate::session::node_address;

pub(crate) const OPEN: u8 = 1;
pub(crate) const UPDATE: u8 = 2;
pub(crate) const NOTIFICATION: u8 = 3;
pub(crate) const KEEPALIVE: u8 = 4;

/// Version 4, AS 65002, hold time 90, 10.1.0.2; IPv4, four-octet AS numbers, route refresh.
pub(crate) const GOOD_OPEN: &str = "04 fdea 005a 0a010002 14 0206010400010001 020641040000fdea 02020200";

/// 198.51.100.0/24 with ORIGIN IGP, AS_PATH 65002, NEXT_HOP 10.1.0.2.
pub(crate) const GOOD_UPDATE: &str = "0000 0014 40010100 40020602010000fdea 4003040a010002 18c63364";

/// Bytes of digits; spaces do not count.
pub(crate) fn bytes(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pairs = digits.chunks(2).map(|pair| std::str::from_utf8(pair).expect("ASCII"));
    pairs.map(|pair| u8::from_str_radix(pair, 16).expect("two digits")).collect()
}

/// A message with its header.
pub(crate) fn message(kind: u8, body: &str) -> Vec<u8> {
    let body = bytes(body);
    let length = u16::try_from(body.len() + 19).expect("a short message");
    [&[0xff; 16], &length.to_be_bytes()[..], &[kind], &body].concat()
}

/// A connection to the speaker.
pub(crate) struct Wire {
    stream: TcpStream,
}

impl Wire {
    /// Connects from the router's namespace; the speaker has sent its OPEN.
    pub(crate) fn connect(lab: &Lab) -> Result<Self> {
        until("a connection that the speaker takes", || {
            let to = SocketAddr::new(node_address(Family::Ipv4), 179);
            let stream = lab.router.run(|| TcpStream::connect(to))??;
            stream.set_read_timeout(Some(PATIENCE))?;
            let mut wire = Self { stream };
            // One that is not expected yet is closed.
            Ok((wire.read()?.0 == OPEN).then_some(wire))
        })
    }

    /// Connects and comes to Established.
    pub(crate) fn establish(lab: &Lab, open: &str) -> Result<Self> {
        let mut wire = Self::connect(lab)?;
        wire.send(&message(OPEN, open))?;
        wire.send(&message(KEEPALIVE, ""))?;
        loop {
            match wire.read()? {
                (KEEPALIVE, _) => return Ok(wire),
                (NOTIFICATION, body) => bail!("NOTIFICATION {body:02x?}"),
                _ => {}
            }
        }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).context("the speaker has closed the connection")
    }

    /// Type and body of the next message.
    pub(crate) fn read(&mut self) -> Result<(u8, Vec<u8>)> {
        let mut header = [0; 19];
        self.stream.read_exact(&mut header).context("no message")?;
        ensure!(header[..16] == [0xff; 16], "no marker: {header:02x?}");
        let length = usize::from(u16::from_be_bytes([header[16], header[17]]));
        let mut body = vec![0; length.checked_sub(19).context("a short length")?];
        self.stream.read_exact(&mut body)?;
        Ok((header[18], body))
    }

    /// Code and subcode of the NOTIFICATION that ends the session.
    pub(crate) fn end(&mut self) -> Result<(u8, u8)> {
        loop {
            if let (NOTIFICATION, body) = self.read()? {
                ensure!(body.len() >= 2, "a short NOTIFICATION");
                return Ok((body[0], body[1]));
            }
        }
    }
}
