use std::{fs, io, path::Path};

use cilium_bpf::EARLY_PROGRAM;

use super::{
    Attached, Datapath, Error,
    attach::{Place, escape, remove_link},
};
use crate::{netlink::Link, sys::bpf};

/// How the program runs that packets meet before the stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EarlyMode {
    /// In the device's driver, which must be made for it.
    Driver,
    /// On packets of the stack, with any device: slower than without, and for tests.
    Generic,
}

impl EarlyMode {
    const ALL: [Self; 2] = [Self::Driver, Self::Generic];

    /// Behind the device's name in that of the pin: a link does not tell how its program runs.
    fn suffix(self) -> &'static str {
        match self {
            Self::Driver => "_xdp_driver",
            Self::Generic => "_xdp_generic",
        }
    }

    fn flags(self) -> u32 {
        match self {
            Self::Driver => bpf::XDP_DRIVER,
            Self::Generic => bpf::XDP_GENERIC,
        }
    }
}

impl Datapath {
    /// Makes sure that the early program is on a device of the calling thread's network namespace, in this mode, and on no other. A program
    /// of another agent is replaced in one step; one that runs in the other mode is taken off first, and packets go the long way meanwhile.
    ///
    /// # Errors
    /// [`Error::NoDriverSupport`], with nothing attached; [`Error::Attach`], also when another XDP program is on the device;
    /// [`Error::Detach`], [`Error::PinLink`], [`Error::RemovePin`], [`Error::ListLinks`].
    pub fn attach_early(&self, device: &Link, mode: EarlyMode) -> Result<Attached, Error> {
        let pin = self.links().join(escape(&device.name) + mode.suffix());
        self.remove_early(Some(&pin))?;
        let place = Place {
            pin,
            name: device.name.clone(),
            number: device.index.into(),
            target: device.index,
            attach_type: bpf::XDP,
            flags: mode.flags(),
        };
        self.attach_link(EARLY_PROGRAM, &place).map_err(|error| match error {
            Error::Attach { target: device, source, .. } if is_unsupported(&source) => {
                Error::NoDriverSupport { device, source }
            }
            other => other,
        })
    }

    /// Takes the early program off all devices.
    ///
    /// # Errors
    /// [`Error::Detach`], [`Error::RemovePin`], [`Error::ListLinks`].
    pub fn detach_early(&self) -> Result<(), Error> {
        self.remove_early(None)
    }

    fn remove_early(&self, kept: Option<&Path>) -> Result<(), Error> {
        let failed = |source| Error::ListLinks { path: self.links(), source };
        let entries = fs::read_dir(self.links()).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
        let pins = entries.map_err(failed)?.into_iter().map(|entry| entry.path());
        let mut early = pins.filter(|pin| is_early(pin) && Some(pin.as_path()) != kept);
        early.try_for_each(|pin| remove_link(&pin))
    }
}

fn is_early(pin: &Path) -> bool {
    let name = pin.file_name().unwrap_or_default().to_string_lossy();
    EarlyMode::ALL.into_iter().any(|mode| name.ends_with(mode.suffix()))
}

fn is_unsupported(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EOPNOTSUPP)
}
