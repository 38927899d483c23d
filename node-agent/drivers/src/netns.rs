//! Network namespaces: opening, creating, and running code inside one.
//!
//! A namespace is entered only by threads that are made for it and end with the work, so that no other code ever finds
//! itself in the wrong namespace. Sockets opened inside stay bound to that namespace wherever they are used later.

use std::{
    fs::File,
    io,
    net::{Ipv4Addr, UdpSocket},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    panic,
    path::Path,
    thread,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use thiserror::Error;

use crate::sys;

/// Why a namespace could not be used.
#[derive(Debug, Error)]
pub enum Error {
    /// The file that stands for the namespace cannot be opened.
    #[error("cannot open network namespace {path}")]
    Open {
        /// Path that was given.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel makes no new namespace for us.
    #[error("cannot create a network namespace (is this process root?)")]
    Create(#[source] io::Error),
    /// The namespace does not say its number.
    #[error("cannot read the cookie of the network namespace")]
    Cookie(#[source] io::Error),
    /// No thread could be started.
    #[error("cannot start a thread to enter network namespace {path}")]
    Thread {
        /// Path of the namespace.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel did not let us in.
    #[error("cannot enter network namespace {path} (is it one, and is this process root?)")]
    Enter {
        /// Path of the namespace.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// An open network namespace. It lives at least as long as this handle.
#[derive(Debug)]
pub struct Netns {
    fd: OwnedFd,
    /// For messages only.
    path: String,
}

const OWN: &str = "/proc/thread-self/ns/net";

impl Netns {
    /// Opens a namespace by the path that the container runtime gave, such as `/var/run/netns/cni-…`.
    ///
    /// # Errors
    /// [`Error::Open`]; that the file is a namespace shows only when it is entered.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        match File::open(path) {
            Ok(file) => Ok(Self { fd: file.into(), path: path.display().to_string() }),
            Err(source) => Err(Error::Open { path: path.display().to_string(), source }),
        }
    }

    /// The number by which socket programs know the namespace of the calling thread.
    ///
    /// # Errors
    /// [`Error::Cookie`], with Linux before 5.14.
    pub fn cookie() -> Result<u64, Error> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map_err(Error::Cookie)?;
        sys::cookie::netns(socket.as_fd()).map_err(Error::Cookie)
    }

    /// The namespace of the calling thread.
    ///
    /// # Errors
    /// [`Error::Open`].
    pub fn current() -> Result<Self, Error> {
        Self::open(OWN)
    }

    /// A new, empty namespace (with a loopback device that is down). It goes when the last handle, process and mount of
    /// it is gone.
    ///
    /// # Errors
    /// [`Error::Create`].
    pub fn create() -> Result<Self, Error> {
        let fresh = thread::spawn(|| {
            crate::sys::unshare_network().map_err(Error::Create)?;
            let mut namespace = Self::current()?;
            namespace.path = "(new)".to_owned();
            Ok(namespace)
        });
        fresh.join().unwrap_or_else(|panic| panic::resume_unwind(panic))
    }

    /// Runs `work` on a thread of its own inside the namespace, and waits for it.
    ///
    /// # Errors
    /// [`Error::Thread`], [`Error::Enter`]. A panic of `work` goes on in the caller.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
        thread::scope(|scope| {
            let thread = thread::Builder::new()
                .name("netns".to_owned())
                .stack_size(512 * 1024)
                .spawn_scoped(scope, || {
                    self.enter()?;
                    Ok(work())
                })
                .map_err(|source| Error::Thread { path: self.path.clone(), source })?;
            thread.join().unwrap_or_else(|panic| panic::resume_unwind(panic))
        })
    }

    /// Moves the calling thread, for good. Only for threads whose whole life belongs to the namespace.
    ///
    /// # Errors
    /// [`Error::Enter`].
    pub fn enter(&self) -> Result<(), Error> {
        move_into_link_name_space(self.fd.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|errno| Error::Enter { path: self.path.clone(), source: errno.into() })
    }

    /// A path under which this process can open the namespace again, while the handle lives.
    pub fn proc_path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.fd.as_raw_fd())
    }

    /// How the namespace is called in messages.
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Netns {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}
