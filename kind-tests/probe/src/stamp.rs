//! Datagram sockets whose kernel tells when a datagram arrived (`SO_TIMESTAMPNS`, socket(7)).

use std::io::IoSliceMut;
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt};

/// Room for datagrams that come while the program has no processor; the kernel gives as much of it as `net.core.rmem_max` lets it.
const ROOM: usize = 4 << 20;

/// A socket with receive times.
pub(crate) struct Stamped(pub(crate) UdpSocket);

impl Stamped {
    pub(crate) fn new(socket: UdpSocket) -> anyhow::Result<Self> {
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true)
            .context("the kernel gives no receive times")?;
        setsockopt(&socket, sockopt::RcvBuf, &ROOM).context("the kernel gives no room for datagrams")?;
        Ok(Self(socket))
    }

    pub(crate) fn set_timeout(&self, timeout: Duration) -> anyhow::Result<()> {
        self.0.set_read_timeout(Some(timeout)).context("cannot set a timeout")
    }

    /// Length, sender and kernel receive time of the next datagram; `None` on a time-out or an ICMP error.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> Option<(usize, Option<SocketAddr>, u64)> {
        let mut control = nix::cmsg_space!(nix::sys::time::TimeSpec);
        let mut parts = [IoSliceMut::new(buffer)];
        let message =
            recvmsg::<SockaddrStorage>(self.0.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty())
                .ok()?;
        let stamp = message.cmsgs().ok()?.find_map(|part| match part {
            ControlMessageOwned::ScmTimestampns(time) => Some(nanos(time.tv_sec(), time.tv_nsec())),
            _ => None,
        });
        let from = message.address.as_ref().and_then(address);
        Some((message.bytes, from, stamp.unwrap_or_else(realtime)))
    }
}

fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = || storage.as_sockaddr_in().map(|a| SocketAddrV4::from(*a).into());
    storage.as_sockaddr_in6().map(|a| SocketAddrV6::from(*a).into()).or_else(v4)
}

fn nanos(seconds: i64, nanoseconds: i64) -> u64 {
    u64::try_from(seconds).unwrap_or(0) * 1_000_000_000 + u64::try_from(nanoseconds).unwrap_or(0)
}

/// What a thread that lost its processor may have added to a time before that time means nothing any more.
const NOTICEABLE: Duration = Duration::from_millis(1);

/// From reading the clock to the end of the call that sends.
pub(crate) struct Sending {
    began: u64,
    preemptions: i64,
}

impl Sending {
    pub(crate) fn begin() -> anyhow::Result<Self> {
        Ok(Self { preemptions: preemptions()?, began: realtime() })
    }

    /// CLOCK_REALTIME in nanoseconds.
    pub(crate) fn began(&self) -> u64 {
        self.began
    }

    /// Whether the thread lost its processor meanwhile, and noticeably: a short loss is the receiver that was woken up.
    pub(crate) fn was_disturbed(&self) -> anyhow::Result<bool> {
        let took = Duration::from_nanos(realtime().saturating_sub(self.began));
        Ok(took > NOTICEABLE && preemptions()? != self.preemptions)
    }
}

/// How often this thread lost its processor against its will (`ru_nivcsw`, getrusage(2)).
fn preemptions() -> anyhow::Result<i64> {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).context("the kernel does not count context switches")?;
    Ok(usage.involuntary_context_switches())
}

/// CLOCK_REALTIME in nanoseconds: the clock of kernel timestamps.
pub(crate) fn realtime() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    nanos(time.tv_sec, time.tv_nsec)
}
