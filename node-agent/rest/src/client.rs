use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::model;

/// Speaks HTTP/1.0 to the agent, or to another of our programs: one connection for each request, and the body ends with the
/// connection.
///
/// # Assumptions
/// The other side is our program: nothing here is hardened against a hostile server on a socket that only root opens.
#[derive(Clone, Debug)]
pub struct Client {
    server: &'static str,
    socket: PathBuf,
    timeout: Option<Duration>,
}

/// Why there is no answer, or not the one asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens, or we may not connect.
    #[error("cannot connect to {socket}: is the {server} running?")]
    Connect {
        /// Who should listen.
        server: &'static str,
        /// Path of the socket.
        socket: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The request could not be sent.
    #[error("cannot send {request}")]
    Send {
        /// Method and path.
        request: String,
        /// The reason.
        source: io::Error,
    },
    /// The answer did not come, or broke off.
    #[error("no complete answer to {request}")]
    Receive {
        /// Method and path.
        request: String,
        /// The reason.
        source: io::Error,
    },
    /// The other side refused.
    #[error("{request}: {message}")]
    Refused {
        /// Method and path.
        request: String,
        /// HTTP status code.
        status: u16,
        /// What it said.
        message: String,
    },
    /// The answer is not what the API promises.
    #[error("the answer to {request} cannot be read: are both sides of one version?")]
    Decode {
        /// Method and path.
        request: String,
        /// The reason.
        source: serde_json::Error,
    },
}

impl Error {
    /// HTTP status code of a refusal.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// The agent could not be reached at all.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Connect { .. } | Self::Send { .. } | Self::Receive { .. })
    }

    /// The message with all of its sources.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            text = format!("{text}: {error}");
            source = error.source();
        }
        text
    }
}

type Result<T> = std::result::Result<T, Error>;

impl Client {
    /// A client of the agent behind `socket`. Reading and writing give up after `timeout` without progress.
    pub fn new(socket: &Path, timeout: Option<Duration>) -> Self {
        Self { server: "agent", socket: socket.to_owned(), timeout }
    }

    /// A client of the BGP speaker behind `socket`, in the same way.
    pub fn of_speaker(socket: &Path, timeout: Option<Duration>) -> Self {
        Self { server: "BGP speaker", socket: socket.to_owned(), timeout }
    }

    /// `GET`; the answer as JSON.
    ///
    /// # Errors
    /// Any [`Error`].
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.json("GET", path, &[])
    }

    /// `POST` without a body; the answer as JSON.
    ///
    /// # Errors
    /// Any [`Error`].
    pub fn post<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.json("POST", path, &[])
    }

    /// `PUT` of a JSON body; the answer as JSON.
    ///
    /// # Errors
    /// Any [`Error`].
    pub fn put<B: Serialize, T: DeserializeOwned>(&self, path: &str, body: &B) -> Result<T> {
        self.json("PUT", path, &encode("PUT", path, body)?)
    }

    /// `PUT` of a JSON body that has no answer but that it was taken.
    ///
    /// # Errors
    /// Any [`Error`].
    pub fn replace<B: Serialize>(&self, path: &str, body: &B) -> Result<()> {
        self.bytes("PUT", path, &encode("PUT", path, body)?).map(drop)
    }

    /// `PATCH` with a JSON body, in the same way.
    ///
    /// # Errors
    /// Any [`Error`].
    pub fn patch<B: Serialize>(&self, path: &str, body: &B) -> Result<()> {
        self.bytes("PATCH", path, &encode("PATCH", path, body)?).map(drop)
    }

    /// `DELETE`; what the answer holds is not looked at.
    ///
    /// # Errors
    /// Any [`Error`] but [`Error::Decode`].
    pub fn delete(&self, path: &str) -> Result<()> {
        self.bytes("DELETE", path, &[]).map(drop)
    }

    /// `GET` of something that goes on: one item a line until one side ends it.
    ///
    /// # Errors
    /// Any [`Error`] but [`Error::Decode`], before the first line.
    pub fn lines(&self, path: &str) -> Result<Lines> {
        let request = format!("GET {path}");
        let (reader, status) = self.send("GET", path, &[], None)?;
        if !(200..300).contains(&status) {
            return Err(refusal(reader, request, status));
        }
        Ok(Lines { reader, request })
    }

    fn json<T: DeserializeOwned>(&self, method: &str, path: &str, body: &[u8]) -> Result<T> {
        let answer = self.bytes(method, path, body)?;
        serde_json::from_slice(&answer)
            .map_err(|source| Error::Decode { request: format!("{method} {path}"), source })
    }

    fn bytes(&self, method: &str, path: &str, body: &[u8]) -> Result<Vec<u8>> {
        let request = format!("{method} {path}");
        let (mut reader, status) = self.send(method, path, body, self.timeout)?;
        if !(200..300).contains(&status) {
            return Err(refusal(reader, request, status));
        }
        let mut answer = Vec::new();
        reader.read_to_end(&mut answer).map_err(|source| Error::Receive { request, source })?;
        Ok(answer)
    }

    /// Sends a request and reads the answer up to where its body begins.
    fn send(
        &self,
        method: &str,
        path: &str,
        body: &[u8],
        timeout: Option<Duration>,
    ) -> Result<(BufReader<UnixStream>, u16)> {
        let connect = |source| Error::Connect { server: self.server, socket: self.socket.clone(), source };
        let request = format!("{method} {path}");
        let mut stream = UnixStream::connect(&self.socket).map_err(connect)?;
        stream.set_read_timeout(timeout).map_err(connect)?;
        stream.set_write_timeout(timeout).map_err(connect)?;
        let length = body.len();
        let mut message = format!(
            "{request} HTTP/1.0\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
        )
        .into_bytes();
        message.extend_from_slice(body);
        stream.write_all(&message).map_err(|source| Error::Send { request: request.clone(), source })?;
        let mut reader = BufReader::new(stream);
        let status = read_head(&mut reader).map_err(|source| Error::Receive { request, source })?;
        Ok((reader, status))
    }
}

fn encode<B: Serialize>(method: &str, path: &str, body: &B) -> Result<Vec<u8>> {
    serde_json::to_vec(body).map_err(|source| Error::Decode { request: format!("{method} {path}"), source })
}

/// Reads status line and headers; returns the status code.
fn read_head(reader: &mut impl io::BufRead) -> io::Result<u16> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| io::Error::other(format!("not an HTTP answer: {line:?}")))?;
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if line.trim_end().is_empty() {
            return Ok(status);
        }
    }
}

fn refusal(mut reader: BufReader<UnixStream>, request: String, status: u16) -> Error {
    let mut body = Vec::new();
    if let Err(source) = reader.read_to_end(&mut body) {
        return Error::Receive { request, source };
    }
    let message = serde_json::from_slice::<model::Refusal>(&body).map_or_else(
        |_| format!("HTTP status {status} {}", String::from_utf8_lossy(&body).trim()),
        |refusal| refusal.message,
    );
    Error::Refused { request, status, message }
}

/// Lines of an answer that goes on, without their ends.
#[derive(Debug)]
pub struct Lines {
    reader: BufReader<UnixStream>,
    request: String,
}

impl Iterator for Lines {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => {
                line.truncate(line.trim_end().len());
                Some(Ok(line))
            }
            Err(source) => Some(Err(Error::Receive { request: self.request.clone(), source })),
        }
    }
}
