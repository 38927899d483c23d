//! Programs and maps in the kernel: loading, pinning, attaching.
//!
//! # Guarantees
//! - Everything that forwards is pinned below one directory of a BPF file system; the end of this process changes nothing.
//! - Loading touches neither the programs in force nor the entries of compatible maps. [`Datapath::attach`] replaces the
//!   program on a device in one step; no packet sees a device without a program.
//! - A pinned map of another type, size or flags is replaced by an empty one ([`Datapath::replaced_maps`]). The programs in
//!   force keep the old map until they are replaced themselves, so the caller fills maps first and attaches then.
//!
//! # Assumptions
//! Linux 5.15 or later. With tcx (6.6) programs are pinned links; before, they are filters on the clsact qdisc, which
//! outlive the process without a pin.

mod attach;
mod early;
mod load;

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
};

use cilium_bpf::layout::Config;
use thiserror::Error;

pub use self::attach::{Attached, DeviceProgram};
pub use self::early::EarlyMode;
use crate::netlink;

/// Which packets of a device a program sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// Packets that the device receives.
    Ingress,
    /// Packets that are sent through the device.
    Egress,
}

/// How programs are put on devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AttachMode {
    /// tcx links (Linux 6.6).
    Tcx,
    /// Filters on the clsact qdisc.
    Filter,
}

/// Why the datapath could not be set up.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "fields are the object named in the message, and the source")]
pub enum Error {
    /// Not a BPF file system.
    #[error("{path} is not in a BPF file system; run: mount -t bpf bpf /sys/fs/bpf")]
    NoBpffs { path: PathBuf },
    /// A directory for pins could not be made.
    #[error("cannot create directory {path}")]
    CreateDirectory { path: PathBuf, source: io::Error },
    /// The embedded object is broken.
    #[error("cannot read the eBPF object")]
    ParseObject(#[source] aya_obj::ParseError),
    /// The object has no such map.
    #[error("the eBPF object has no map {map}")]
    MissingMap { map: &'static str },
    /// A pinned map could not be compared.
    #[error("cannot read the pinned map {path}")]
    ReadPin { path: PathBuf, source: io::Error },
    /// A pin could not be removed.
    #[error("cannot remove the pin {path}")]
    RemovePin { path: PathBuf, source: io::Error },
    /// The kernel refused maps or the object as a whole.
    #[error("cannot load the eBPF object (are the rights CAP_BPF and CAP_NET_ADMIN missing?)")]
    LoadObject(#[source] Box<aya::EbpfError>),
    /// The object has no such program, or of another type.
    #[error("the eBPF object has no program {program} of the expected type")]
    MissingProgram { program: &'static str },
    /// The verifier refused a program.
    #[error("the kernel refused program {program}")]
    LoadProgram { program: &'static str, source: Box<aya::programs::ProgramError> },
    /// A descriptor could not be copied.
    #[error("cannot keep program {program} open")]
    KeepProgram { program: &'static str, source: io::Error },
    /// A program could not be attached.
    #[error("cannot attach {program} to {target}")]
    Attach { program: &'static str, target: String, source: io::Error },
    /// The device's driver runs no XDP programs.
    #[error("the driver of device {device} runs no XDP programs")]
    NoDriverSupport { device: String, source: io::Error },
    /// A link could not be taken off.
    #[error("cannot detach the link {path}")]
    Detach { path: PathBuf, source: io::Error },
    /// A link could not be pinned.
    #[error("cannot pin the link {path}")]
    PinLink { path: PathBuf, source: io::Error },
    /// The pinned links cannot be listed.
    #[error("cannot list the pinned links in {path}")]
    ListLinks { path: PathBuf, source: io::Error },
    /// The cgroup is not there.
    #[error("cannot open cgroup {path}")]
    OpenCgroup { path: PathBuf, source: io::Error },
    /// A filter could not be set or read.
    #[error("cannot work with the filters of {device}")]
    Filter { device: String, source: Box<netlink::Error> },
}

/// What to load.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Fixed for the life of the programs.
    pub config: Config,
    /// Our directory in a BPF file system, `/sys/fs/bpf/cilium`; it is made when missing.
    pub bpffs: PathBuf,
    /// Entries by name of the map, where the default is not wanted.
    pub map_sizes: BTreeMap<String, u32>,
    /// How to attach; the best that the kernel has when `None`.
    pub mode: Option<AttachMode>,
}

/// A pinned map that had to be replaced by an empty one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplacedMap {
    /// Name.
    pub name: String,
    /// What was different.
    pub reason: String,
}

/// The loaded programs. The maps are reached through their pins: [`Maps::open`](crate::maps::Maps::open).
pub struct Datapath {
    programs: BTreeMap<&'static str, Program>,
    replaced: Vec<ReplacedMap>,
    bpffs: PathBuf,
    mode: AttachMode,
}

struct Program {
    fd: OwnedFd,
    /// The kernel's number.
    id: u32,
}

impl Datapath {
    /// Maps that were pinned with another layout, and are empty now.
    pub fn replaced_maps(&self) -> &[ReplacedMap] {
        &self.replaced
    }

    /// How programs are put on devices.
    pub fn mode(&self) -> AttachMode {
        self.mode
    }

    /// A loaded program, for test runs.
    pub fn program(&self, name: &str) -> Option<BorrowedFd<'_>> {
        self.programs.get(name).map(|program| program.fd.as_fd())
    }
}
