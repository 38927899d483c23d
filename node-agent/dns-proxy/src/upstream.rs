//! Questions to name servers. Each has a socket of its own, so nobody can guess where its answer is expected (RFC 5452).

use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use cilium_names::{Answer, Question};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};

/// The largest datagram.
const LARGEST: usize = 65_535;

thread_local! {
    /// Nothing waits while it is in use.
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; LARGEST]);
}

/// Asks by datagram. What does not answer the question is passed over. The answer is there as bytes, and as far as it is understood.
pub(crate) async fn ask(
    server: SocketAddr,
    question: &Question,
    bytes: &[u8],
) -> io::Result<(Vec<u8>, Answer)> {
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(bytes).await?;
    loop {
        socket.readable().await?;
        let received = BUFFER.with_borrow_mut(|buffer| {
            let length = socket.try_recv(buffer)?;
            let answer = question.read_answer(&buffer[..length]);
            Ok(answer.ok().map(|answer| (buffer[..length].to_vec(), answer)))
        });
        match received {
            Ok(Some(answered)) => return Ok(answered),
            Ok(None) => {}
            Err(error) if io::Error::kind(&error) == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// The next message of a stream: two bytes of length, and as many bytes (RFC 1035 section 4.2.2). `None` at its end.
pub(crate) async fn read_message(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 2];
    match stream.read_exact(&mut length).await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    };
    let mut bytes = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut bytes).await?;
    Ok(Some(bytes))
}

/// Writes a message as [`read_message`] reads it.
pub(crate) async fn write_message(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    let length = u16::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend(bytes);
    stream.write_all(&framed).await
}
