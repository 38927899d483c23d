//! Clients of version 3 name the socket's path as the host they talk to. A path is no authority (RFC 3986, 3.2), and the HTTP/2 server
//! would refuse what they ask (RFC 9113, 8.3.1): here, the first request of a connection gets another `:authority`. Later ones refer to it
//! by its place in the table of headers, which stays the same.

mod headers;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tonic::transport::server::Connected;

use headers::Greeting;

/// A connection whose first request has an authority that is one.
pub(crate) struct Connection {
    stream: UnixStream,
    /// `None` once the first request went by.
    greeting: Option<Greeting>,
    /// What is to be read before anything of `stream`.
    ahead: Vec<u8>,
}

impl Connection {
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self { stream, greeting: Some(Greeting::default()), ahead: Vec::new() }
    }

    /// Takes what came before the end of the first request; nothing is the end of the stream.
    fn greet(&mut self, bytes: &[u8]) {
        let Some(mut greeting) = self.greeting.take() else { return };
        if bytes.is_empty() {
            self.ahead = greeting.rest();
            return;
        }
        let (ahead, is_over) = greeting.take(bytes);
        self.ahead = ahead;
        self.greeting = (!is_over).then_some(greeting);
    }

    /// Hands out what is ahead, as much as there is room for.
    fn hand_out(&mut self, buffer: &mut ReadBuf<'_>) {
        let length = self.ahead.len().min(buffer.remaining());
        buffer.put_slice(&self.ahead[..length]);
        self.ahead.drain(..length);
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.ahead.is_empty() {
            if self.greeting.is_none() {
                return Pin::new(&mut self.stream).poll_read(context, buffer);
            }
            let mut chunk = [0; 4096];
            let mut chunk = ReadBuf::new(&mut chunk);
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut chunk))?;
            self.greet(chunk.filled());
            if chunk.filled().is_empty() {
                break;
            }
        }
        self.hand_out(buffer);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}
