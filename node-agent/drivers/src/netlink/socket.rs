//! The transport: requests out, answers in.

use std::{
    io,
    marker::PhantomData,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use netlink_packet_core::{
    NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_packet_route::RouteNetlinkMessage;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType,
    netlink::SocketAddrNetlink,
    sockopt::{Timeout, set_socket_timeout},
};
use thiserror::Error;

use crate::sys;

const NLM_F_REQUEST: u16 = 0x01;
const NLM_F_ACK: u16 = 0x04;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_ACK_TLVS: u16 = 0x200;
/// Flags of requests that make something, from the kernel's `uapi/linux/netlink.h`.
pub(crate) const REPLACE: u16 = 0x100;
pub(crate) const EXCLUSIVE: u16 = 0x200;
pub(crate) const CREATE: u16 = 0x400;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSGERR_ATTR_MSG: u16 = 1;
const HEADER: usize = 16;
/// `RTMGRP_IPV6_IFADDR` of `uapi/linux/rtnetlink.h`.
const IPV6_ADDRESSES: u32 = 0x100;

/// The kernel fills dumps in units of at most this size when the reader's buffer has room for it.
const BUFFER: usize = 32 * 1024;
/// A dump during which the table changed is read again, this often at most.
const DUMP_ATTEMPTS: usize = 8;

/// Why a request did not succeed.
#[derive(Debug, Error)]
pub enum Fault {
    /// The socket refused to send.
    #[error("the request could not be sent to the kernel")]
    Send(#[source] io::Error),
    /// No answer could be read.
    #[error("the kernel's answer could not be read")]
    Receive(#[source] io::Error),
    /// The kernel answered with an error.
    #[error("the kernel refused{}", .detail.as_ref().map(|detail| format!(" ({detail})")).unwrap_or_default())]
    Refused {
        /// Position of the refused request among those sent together.
        request: usize,
        /// The kernel's explanation, where it gives one.
        detail: Option<String>,
        /// The error number.
        source: io::Error,
    },
    /// The answer is not what the protocol says.
    #[error("the kernel's answer cannot be decoded: {0}")]
    Malformed(String),
    /// The table changed during every one of several attempts to read it.
    #[error("the table kept changing while it was read")]
    Unsteady,
}

impl Fault {
    /// The kernel's error number, when it refused.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}

/// What one of the kernel's netlink protocols talks in.
pub(crate) trait Message: NetlinkSerializable + NetlinkDeserializable + Clone {
    /// `None`: `NETLINK_ROUTE`, which is number 0.
    const PROTOCOL: Option<Protocol>;
}

impl Message for RouteNetlinkMessage {
    const PROTOCOL: Option<Protocol> = None;
}

/// One request and its extra flags.
pub(crate) struct Request<M = RouteNetlinkMessage> {
    message: M,
    flags: u16,
}

impl<M> Request<M> {
    pub(crate) fn new(message: M, flags: u16) -> Self {
        Self { message, flags }
    }
}

/// A blocking netlink socket of the namespace in which it was opened.
pub(crate) struct Socket<M = RouteNetlinkMessage> {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
    messages: PhantomData<fn(M)>,
}

impl<M> AsFd for Socket<M> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Socket {
    /// A socket that hears of changes to IPv6 addresses, and gives up listening after `patience`.
    pub(crate) fn open_listener(patience: Duration) -> io::Result<Self> {
        let socket = Self::open_with(IPV6_ADDRESSES)?;
        set_socket_timeout(&socket.fd, Timeout::Recv, Some(patience))?;
        Ok(socket)
    }
}

impl<M: Message> Socket<M> {
    pub(crate) fn open() -> io::Result<Self> {
        Self::open_with(0)
    }

    fn open_with(groups: u32) -> io::Result<Self> {
        let kind = SocketType::RAW;
        let fd = rustix::net::socket_with(AddressFamily::NETLINK, kind, SocketFlags::CLOEXEC, M::PROTOCOL)?;
        rustix::net::bind(&fd, &SocketAddrNetlink::new(0, groups))?;
        for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK, libc::NETLINK_GET_STRICT_CHK] {
            sys::set_netlink_option(&fd, option)?;
        }
        Ok(Self { fd, sequence: 0, buffer: vec![0; BUFFER], messages: PhantomData })
    }

    /// Sends all requests in one datagram. The kernel carries them out in order, each on its own: a refused one does
    /// not keep the later ones from being carried out. Answers other than acknowledgements are returned.
    ///
    /// # Errors
    /// The first refusal, after all answers are in.
    pub(crate) fn execute(&mut self, requests: Vec<Request<M>>) -> Result<Vec<M>, Fault> {
        let first = self.sequence.wrapping_add(1);
        let count = requests.len();
        let mut datagram = Vec::with_capacity(256 * count);
        for request in requests {
            self.append(&mut datagram, request.message, NLM_F_ACK | request.flags);
        }
        self.send(&datagram)?;
        let mut batch = Batch { first, waiting: count, answers: Vec::new(), refusal: None };
        while batch.waiting > 0 {
            let length = self.receive()?;
            for frame in Frames(&self.buffer[..length]) {
                batch.take(&frame?)?;
            }
        }
        batch.refusal.map_or(Ok(batch.answers), Err)
    }

    /// Reads a whole table; `parse` keeps what it wants of each entry.
    pub(crate) fn dump<T>(&mut self, request: &M, parse: impl Fn(M) -> Option<T>) -> Result<Vec<T>, Fault> {
        for _ in 0..DUMP_ATTEMPTS {
            if let Some(entries) = self.dump_once(request.clone(), &parse)? {
                return Ok(entries);
            }
        }
        Err(Fault::Unsteady)
    }

    /// `None`: the table changed in between.
    fn dump_once<T>(&mut self, request: M, parse: &impl Fn(M) -> Option<T>) -> Result<Option<Vec<T>>, Fault> {
        let mut datagram = Vec::with_capacity(128);
        self.append(&mut datagram, request, NLM_F_DUMP);
        self.send(&datagram)?;
        let mut entries = Vec::new();
        let mut steady = true;
        loop {
            let length = self.receive()?;
            for frame in Frames(&self.buffer[..length]) {
                let frame = frame?;
                if frame.sequence != self.sequence {
                    continue;
                }
                steady &= frame.flags & NLM_F_DUMP_INTR == 0;
                match frame.kind {
                    NLMSG_DONE | NLMSG_ERROR => {
                        return match frame.refusal(0) {
                            Some(refusal) => Err(refusal),
                            None => Ok(steady.then_some(entries)),
                        };
                    }
                    _ => entries.extend(parse(frame.decode()?)),
                }
            }
        }
    }

    /// Shows every message that the socket hears to `is_last`, until that says so.
    pub(crate) fn listen(&mut self, mut is_last: impl FnMut(M) -> bool) -> Result<(), Fault> {
        loop {
            let length = self.receive()?;
            for frame in Frames(&self.buffer[..length]) {
                if is_last(frame?.decode()?) {
                    return Ok(());
                }
            }
        }
    }

    fn append(&mut self, datagram: &mut Vec<u8>, message: M, flags: u16) {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        message.finalize();
        let start = datagram.len();
        datagram.resize(start + message.buffer_len().next_multiple_of(4), 0);
        message.serialize(&mut datagram[start..]);
    }

    fn send(&mut self, datagram: &[u8]) -> Result<(), Fault> {
        let sent = rustix::net::send(&self.fd, datagram, SendFlags::empty());
        sent.map(drop).map_err(|errno| Fault::Send(errno.into()))
    }

    fn receive(&mut self) -> Result<usize, Fault> {
        loop {
            match rustix::net::recv(&self.fd, &mut self.buffer[..], RecvFlags::TRUNC) {
                Ok((_, length)) if length > BUFFER => {
                    return Err(Fault::Malformed(format!(
                        "{length} bytes in one datagram, at most {BUFFER} expected"
                    )));
                }
                Ok((_, length)) => return Ok(length),
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(Fault::Receive(errno.into())),
            }
        }
    }
}

/// The messages of a datagram, but for those that end a dump or acknowledge.
///
/// # Errors
/// [`Fault::Refused`], [`Fault::Malformed`].
pub(crate) fn read_replies<M: Message>(datagram: &[u8]) -> Result<Vec<M>, Fault> {
    let mut messages = Vec::new();
    for frame in Frames(datagram) {
        let frame = frame?;
        match frame.kind {
            NLMSG_DONE | NLMSG_ERROR => frame.refusal(0).map_or(Ok(()), Err)?,
            _ => messages.push(frame.decode()?),
        }
    }
    Ok(messages)
}

/// Answers to requests that were sent together.
struct Batch<M> {
    first: u32,
    waiting: usize,
    answers: Vec<M>,
    refusal: Option<Fault>,
}

impl<M: Message> Batch<M> {
    fn take(&mut self, frame: &Frame<'_>) -> Result<(), Fault> {
        let request = frame.sequence.wrapping_sub(self.first) as usize;
        if frame.kind != NLMSG_ERROR {
            self.answers.push(frame.decode()?);
            return Ok(());
        }
        self.waiting = self.waiting.saturating_sub(1);
        if let Some(refusal) = frame.refusal(request)
            && self.refusal.is_none()
        {
            self.refusal = Some(refusal);
        }
        Ok(())
    }
}

/// One message of a datagram.
struct Frame<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    whole: &'a [u8],
}

impl Frame<'_> {
    fn decode<M: Message>(&self) -> Result<M, Fault> {
        let message = NetlinkMessage::<M>::deserialize(self.whole)
            .map_err(|error| Fault::Malformed(error.to_string()))?;
        match message.payload {
            NetlinkPayload::InnerMessage(message) => Ok(message),
            _ => Err(Fault::Malformed(format!("unexpected message type {}", self.kind))),
        }
    }

    /// The error in an acknowledgement or at the end of a dump; `None` is success.
    fn refusal(&self, request: usize) -> Option<Fault> {
        let code = self.whole.get(HEADER..HEADER + 4)?;
        let code = i32::from_ne_bytes(code.try_into().ok()?);
        if code == 0 {
            return None;
        }
        let source = io::Error::from_raw_os_error(code.saturating_neg());
        Some(Fault::Refused { request, detail: self.detail(), source })
    }

    /// The kernel's text (`NLMSGERR_ATTR_MSG`), which follows the header of the request.
    fn detail(&self) -> Option<String> {
        if self.flags & NLM_F_ACK_TLVS == 0 {
            return None;
        }
        let start = if self.kind == NLMSG_ERROR { HEADER + 4 + HEADER } else { HEADER + 4 };
        let mut rest = self.whole.get(start..)?;
        while let Some(length) = read_u16(rest, 0).map(usize::from) {
            let value = rest.get(4..length)?;
            if read_u16(rest, 2) == Some(NLMSGERR_ATTR_MSG) {
                return Some(String::from_utf8_lossy(value).trim_end_matches('\0').to_owned());
            }
            rest = rest.get(length.next_multiple_of(4)..)?;
        }
        None
    }
}

fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// The messages of one datagram.
struct Frames<'a>(&'a [u8]);

impl<'a> Iterator for Frames<'a> {
    type Item = Result<Frame<'a>, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let frame = split_frame(self.0);
        let used = frame.as_ref().map_or(self.0.len(), |frame| frame.whole.len().next_multiple_of(4));
        self.0 = self.0.get(used..).unwrap_or_default();
        Some(frame.ok_or_else(|| Fault::Malformed("a message is cut off".to_owned())))
    }
}

fn split_frame(bytes: &[u8]) -> Option<Frame<'_>> {
    let length = read_u32(bytes, 0)? as usize;
    let whole = bytes.get(..length).filter(|whole| whole.len() >= HEADER)?;
    Some(Frame {
        kind: read_u16(bytes, 4)?,
        flags: read_u16(bytes, 6)?,
        sequence: read_u32(bytes, 8)?,
        whole,
    })
}
