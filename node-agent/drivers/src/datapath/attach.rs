use std::{
    fs::{self, File},
    io,
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
};

use cilium_bpf::SOCKET_PROGRAMS;

use super::{AttachMode, Datapath, Direction, Error, Program};
use crate::{
    netlink::{self, Link, Netlink},
    sys::bpf,
};

/// Where links are pinned below the agent's directory.
pub(super) const DIRECTORY: &str = "links";

/// A program for a network device; where it goes is part of what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DeviceProgram {
    /// What a pod sends: ingress of its host-side device.
    FromContainer,
    /// What reaches a pod through the host's stack: egress of its host-side device.
    ToContainer,
    /// What the node receives: ingress of the node's device.
    FromNetdev,
    /// What leaves the node: egress of the node's device.
    ToNetdev,
    /// What comes out of the tunnel: ingress of `cilium_vxlan`.
    FromOverlay,
    /// What the host sends to pods of other nodes: egress of `cilium_host`.
    FromHost,
}

impl DeviceProgram {
    /// Name of the program in the object.
    pub fn name(self) -> &'static str {
        match self {
            Self::FromContainer => "from_container",
            Self::ToContainer => "to_container",
            Self::FromNetdev => "from_netdev",
            Self::ToNetdev => "to_netdev",
            Self::FromOverlay => "from_overlay",
            Self::FromHost => "from_host",
        }
    }

    /// Which packets of its device it sees.
    pub fn direction(self) -> Direction {
        match self {
            Self::FromContainer | Self::FromNetdev | Self::FromOverlay => Direction::Ingress,
            Self::ToContainer | Self::FromHost | Self::ToNetdev => Direction::Egress,
        }
    }
}

/// What an attaching call found and did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attached {
    /// The program was there already.
    Unchanged,
    /// Another program was there and has been replaced without a gap.
    Replaced,
    /// No program was there.
    Created,
}

/// A place for a program.
pub(super) struct Place {
    pub(super) pin: PathBuf,
    /// For messages.
    pub(super) name: String,
    /// What the kernel calls it once it is attached: index of the device or number of the cgroup.
    pub(super) number: u64,
    /// What the kernel wants to be told: index of the device or descriptor of the cgroup.
    pub(super) target: u32,
    pub(super) attach_type: u32,
    /// As the kernel's `XDP_FLAGS_*`, for such programs.
    pub(super) flags: u32,
}

impl Datapath {
    /// Makes sure that a program is on a device of the calling thread's network namespace. Cheap when it is there already.
    ///
    /// # Errors
    /// [`Error::Attach`], [`Error::PinLink`], [`Error::RemovePin`], [`Error::Filter`]; what was attached before still is.
    pub fn attach(&self, program: DeviceProgram, device: &Link) -> Result<Attached, Error> {
        match self.mode {
            AttachMode::Tcx => self.attach_link(program.name(), &self.device_place(program, device)),
            AttachMode::Filter => self.attach_filter(program, device),
        }
    }

    /// As [`Datapath::attach`], but quick on a device that has no program yet. To make a tcx link, the kernel waits for an RCU
    /// grace period (5–20 ms) while it holds the lock of all network configuration; a filter on the clsact qdisc is there
    /// at once. It stands in for the link until [`Datapath::settle`].
    ///
    /// # Errors
    /// As [`Datapath::attach`].
    pub fn attach_at_once(&self, program: DeviceProgram, device: &Link) -> Result<Attached, Error> {
        if self.has_link(&self.device_place(program, device), program)? {
            return self.attach(program, device);
        }
        self.attach_filter(program, device)
    }

    /// Puts a tcx link in the place of a filter that stands in for it. The link takes packets over before the filter goes, so
    /// that none passes without a program. Returns whether there was something to do; without tcx there never is.
    ///
    /// # Errors
    /// As [`Datapath::attach`]; the filter then still stands in.
    pub fn settle(&self, program: DeviceProgram, device: &Link) -> Result<bool, Error> {
        if self.mode == AttachMode::Filter {
            return Ok(false);
        }
        let made = self.attach(program, device)? == Attached::Created;
        let remove = || -> Result<bool, netlink::Error> {
            let mut netlink = Netlink::open()?;
            let stands_in = netlink.filter(device.index, program.direction())?.is_some();
            if stands_in {
                netlink.delete_filter(device.index, program.direction())?;
            }
            Ok(stands_in)
        };
        let removed = remove()
            .map_err(|source| Error::Filter { device: device.name.clone(), source: Box::new(source) })?;
        Ok(made || removed)
    }

    /// There is a tcx link on this very device.
    fn has_link(&self, place: &Place, program: DeviceProgram) -> Result<bool, Error> {
        if self.mode == AttachMode::Filter {
            return Ok(false);
        }
        let failed = |source| Error::Attach { program: program.name(), target: place.name.clone(), source };
        let Some(link) = bpf::open_pin(&place.pin).map_err(failed)? else { return Ok(false) };
        Ok(bpf::link_info(&link).map_err(failed)?.target() == place.number)
    }

    /// Forgets the links of a device that is about to go, without waiting for anything: the kernel takes the programs off
    /// with the device, or on its own a little later.
    ///
    /// # Errors
    /// [`Error::RemovePin`].
    pub fn unpin(&self, device: &str) -> Result<(), Error> {
        [Direction::Ingress, Direction::Egress]
            .into_iter()
            .try_for_each(|direction| remove_pin(&self.links().join(pin_name(device, direction))))
    }

    /// Makes sure that all socket programs are on a cgroup (version 2). Returns how many were not.
    ///
    /// # Errors
    /// [`Error::OpenCgroup`], and as [`Datapath::attach`].
    pub fn attach_cgroup(&self, cgroup: &Path) -> Result<usize, Error> {
        let failed = |source| Error::OpenCgroup { path: cgroup.to_owned(), source };
        let directory = File::open(cgroup).map_err(failed)?;
        let number = directory.metadata().map_err(failed)?.ino();
        let mut changed = 0;
        for name in SOCKET_PROGRAMS {
            let place = Place {
                pin: self.links().join(format!("cgroup_{name}")),
                name: cgroup.display().to_string(),
                number,
                target: directory.as_raw_fd().unsigned_abs(),
                attach_type: socket_attach_type(name),
                flags: 0,
            };
            changed += usize::from(self.attach_link(name, &place)? != Attached::Unchanged);
        }
        Ok(changed)
    }

    /// Takes our programs off a device. A device that is gone, or has none, is a success.
    ///
    /// # Errors
    /// [`Error::Detach`], [`Error::RemovePin`], [`Error::Filter`].
    pub fn detach(&self, device: &str) -> Result<(), Error> {
        for direction in [Direction::Ingress, Direction::Egress] {
            remove_link(&self.links().join(pin_name(device, direction)))?;
        }
        if self.mode == AttachMode::Filter {
            self.delete_filters(device)
                .map_err(|source| Error::Filter { device: device.to_owned(), source: Box::new(source) })?;
        }
        Ok(())
    }

    /// Takes the socket programs off their cgroup.
    ///
    /// # Errors
    /// [`Error::Detach`], [`Error::RemovePin`].
    pub fn detach_cgroup(&self) -> Result<(), Error> {
        SOCKET_PROGRAMS.iter().try_for_each(|name| remove_link(&self.links().join(format!("cgroup_{name}"))))
    }

    /// Removes the pins of links whose device or cgroup is gone. Returns their names.
    ///
    /// # Errors
    /// [`Error::ListLinks`], [`Error::RemovePin`].
    pub fn sweep(&self) -> Result<Vec<String>, Error> {
        let failed = |source| Error::ListLinks { path: self.links(), source };
        let mut removed = Vec::new();
        for entry in fs::read_dir(self.links()).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let Some(link) = bpf::open_pin(&entry.path()).map_err(failed)? else { continue };
            if bpf::link_info(&link).map_err(failed)?.target() == 0 {
                remove_pin(&entry.path())?;
                removed.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        Ok(removed)
    }

    pub(super) fn links(&self) -> PathBuf {
        self.bpffs.join(DIRECTORY)
    }

    fn loaded(&self, name: &'static str) -> Result<&Program, Error> {
        self.programs.get(name).ok_or(Error::MissingProgram { program: name })
    }

    fn device_place(&self, program: DeviceProgram, device: &Link) -> Place {
        let direction = program.direction();
        Place {
            pin: self.links().join(pin_name(&device.name, direction)),
            name: device.name.clone(),
            number: device.index.into(),
            target: device.index,
            attach_type: match direction {
                Direction::Ingress => bpf::TCX_INGRESS,
                Direction::Egress => bpf::TCX_EGRESS,
            },
            flags: 0,
        }
    }

    pub(super) fn attach_link(&self, name: &'static str, place: &Place) -> Result<Attached, Error> {
        let program = self.loaded(name)?;
        let failed = |source| Error::Attach { program: name, target: place.name.clone(), source };
        if let Some(link) = bpf::open_pin(&place.pin).map_err(failed)? {
            let info = bpf::link_info(&link).map_err(failed)?;
            if info.target() == place.number {
                if info.program == program.id {
                    return Ok(Attached::Unchanged);
                }
                bpf::update_link(&link, &program.fd).map_err(failed)?;
                return Ok(Attached::Replaced);
            }
            // The device or cgroup of this name is another one than it was.
            remove_link(&place.pin)?;
        }
        let link =
            bpf::create_link(&program.fd, place.target, place.attach_type, place.flags).map_err(failed)?;
        bpf::pin(&link, &place.pin).map_err(|source| Error::PinLink { path: place.pin.clone(), source })?;
        Ok(Attached::Created)
    }

    fn attach_filter(&self, program: DeviceProgram, device: &Link) -> Result<Attached, Error> {
        let loaded = self.loaded(program.name())?;
        let set = || -> Result<Attached, netlink::Error> {
            let mut netlink = Netlink::open()?;
            let present = netlink.filter(device.index, program.direction())?;
            if present == Some(loaded.id) {
                return Ok(Attached::Unchanged);
            }
            netlink.set_filter(device.index, program.direction(), program.name(), &loaded.fd)?;
            Ok(if present.is_some() { Attached::Replaced } else { Attached::Created })
        };
        set().map_err(|source| Error::Filter { device: device.name.clone(), source: Box::new(source) })
    }

    fn delete_filters(&self, device: &str) -> Result<(), netlink::Error> {
        let mut netlink = Netlink::open()?;
        let Some(device) = netlink.link(device)? else { return Ok(()) };
        netlink.delete_filter(device.index, Direction::Ingress)?;
        netlink.delete_filter(device.index, Direction::Egress)
    }
}

/// A BPF file system reserves names with dots, which names of VLAN devices have.
pub(super) fn escape(device: &str) -> String {
    device.replace('%', "%25").replace('.', "%2e")
}

fn pin_name(device: &str, direction: Direction) -> String {
    let device = escape(device);
    match direction {
        Direction::Ingress => format!("{device}_ingress"),
        Direction::Egress => format!("{device}_egress"),
    }
}

/// Detaches a pinned link, then removes its pin. Without the former the kernel would detach it some time later, and
/// refuse the same program until then.
pub(super) fn remove_link(pin: &Path) -> Result<(), Error> {
    let failed = |source| Error::Detach { path: pin.to_owned(), source };
    if let Some(link) = bpf::open_pin(pin).map_err(failed)? {
        bpf::detach_link(&link).map_err(failed)?;
    }
    remove_pin(pin)
}

fn remove_pin(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(Error::RemovePin { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// Values of `enum bpf_attach_type` in the kernel's `uapi/linux/bpf.h`.
fn socket_attach_type(program: &str) -> u32 {
    match program {
        "sock_connect4" => 10,
        "sock_connect6" => 11,
        "sock_sendmsg4" => 14,
        "sock_sendmsg6" => 15,
        "sock_recvmsg4" => 19,
        "sock_recvmsg6" => 20,
        "sock_getpeername4" => 29,
        _ => 30,
    }
}
