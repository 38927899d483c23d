use std::{
    collections::BTreeMap,
    fs,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use aya::{Ebpf, EbpfLoader, programs::ProgramFd};
use cilium_bpf::{CONFIG_GLOBAL, DEVICE_PROGRAMS, EARLY_PROGRAM, OBJECT, PINNED_MAPS, SOCKET_PROGRAMS};

use super::{AttachMode, Datapath, Error, LoadOptions, Program, ReplacedMap, attach};
use crate::{maps, probe, sys::bpf};

impl Datapath {
    /// Makes or reuses the pinned maps and loads all programs; attaches none.
    ///
    /// # Errors
    /// Every variant of [`Error`] that does not speak of attaching. Compatible pinned maps are as before then.
    pub fn load(options: &LoadOptions) -> Result<Self, Error> {
        let pins = options.bpffs.join(maps::DIRECTORY);
        make_directories(&options.bpffs, &pins)?;
        let replaced = drop_incompatible(&pins, &options.map_sizes)?;
        let mut object = load_object(options, &pins)?;
        let programs = load_programs(&mut object)?;
        let mode = options
            .mode
            .unwrap_or_else(|| if probe::has_tcx() { AttachMode::Tcx } else { AttachMode::Filter });
        Ok(Self { programs, replaced, bpffs: options.bpffs.clone(), mode })
    }
}

/// Refuses before it makes anything in an ordinary directory.
fn make_directories(bpffs: &Path, pins: &Path) -> Result<(), Error> {
    let existing = bpffs.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(bpffs);
    if !rustix::fs::statfs(existing).is_ok_and(|found| found.f_type == BPF_FS_MAGIC) {
        return Err(Error::NoBpffs { path: bpffs.to_owned() });
    }
    for directory in [pins, &bpffs.join(attach::DIRECTORY)] {
        fs::create_dir_all(directory)
            .map_err(|source| Error::CreateDirectory { path: directory.to_owned(), source })?;
    }
    Ok(())
}

/// From the kernel's `uapi/linux/magic.h`.
const BPF_FS_MAGIC: rustix::fs::FsWord = 0xcafe_4a11;

/// Removes the pins of maps that the programs could not use or that would have the wrong size.
fn drop_incompatible(pins: &Path, sizes: &BTreeMap<String, u32>) -> Result<Vec<ReplacedMap>, Error> {
    let object = aya_obj::Object::parse(OBJECT).map_err(Error::ParseObject)?;
    let mut replaced = Vec::new();
    for name in PINNED_MAPS {
        let wanted = object.maps.get(name).ok_or(Error::MissingMap { map: name })?;
        let path = pins.join(name);
        let failed = |source| Error::ReadPin { path: path.clone(), source };
        let Some(pinned) = bpf::open_pin(&path).map_err(failed)? else { continue };
        let found = bpf::map_info(&pinned).map_err(failed)?;
        if let Some(reason) = difference(&found, wanted, sizes.get(name).copied()) {
            fs::remove_file(&path).map_err(|source| Error::RemovePin { path, source })?;
            replaced.push(ReplacedMap { name: name.to_owned(), reason });
        }
    }
    Ok(replaced)
}

/// What keeps a pinned map from being used.
fn difference(found: &bpf::MapInfo, wanted: &aya_obj::Map, size: Option<u32>) -> Option<String> {
    let is_ring = wanted.map_type() == bpf::MAP_RINGBUF;
    let value_size = if is_ring { 0 } else { wanted.value_size() };
    let compared = [
        ("type", found.kind, wanted.map_type()),
        ("key size", found.key_size, wanted.key_size()),
        ("value size", found.value_size, value_size),
        ("entries", found.max_entries, size.unwrap_or_else(|| wanted.max_entries())),
        ("flags", found.flags, wanted.map_flags()),
    ];
    let differing = compared.iter().find(|(_, found, wanted)| found != wanted);
    differing.map(|(what, found, wanted)| format!("{what} {found}, needed {wanted}"))
}

fn load_object(options: &LoadOptions, pins: &Path) -> Result<Ebpf, Error> {
    let config = options.config.to_bytes();
    let paths: Vec<(&str, PathBuf)> = PINNED_MAPS.iter().map(|name| (*name, pins.join(name))).collect();
    let mut loader = EbpfLoader::new();
    // The programs need no types of the running kernel.
    loader.btf(None).override_global(CONFIG_GLOBAL, &config, true);
    for (name, path) in &paths {
        loader.map_pin_path(name, path.as_path());
    }
    for (name, size) in &options.map_sizes {
        loader.map_max_entries(name, *size);
    }
    loader.load(OBJECT).map_err(|error| Error::LoadObject(Box::new(error)))
}

fn load_programs(object: &mut Ebpf) -> Result<BTreeMap<&'static str, Program>, Error> {
    DEVICE_PROGRAMS
        .into_iter()
        .chain(SOCKET_PROGRAMS)
        .chain([EARLY_PROGRAM])
        .map(|name| Ok((name, load_program(object, name)?)))
        .collect()
}

fn load_program(object: &mut Ebpf, name: &'static str) -> Result<Program, Error> {
    let loaded = match object.program_mut(name) {
        Some(aya::programs::Program::SchedClassifier(program)) => program.load().and_then(|()| program.fd()),
        Some(aya::programs::Program::CgroupSockAddr(program)) => program.load().and_then(|()| program.fd()),
        Some(aya::programs::Program::Xdp(program)) => program.load().and_then(|()| program.fd()),
        _ => return Err(Error::MissingProgram { program: name }),
    };
    let fd = loaded.map_err(|source| Error::LoadProgram { program: name, source: Box::new(source) })?;
    keep(name, fd)
}

/// Our own descriptor, so that the parsed object, which is large, can go.
fn keep(name: &'static str, fd: &ProgramFd) -> Result<Program, Error> {
    let failed = |source| Error::KeepProgram { program: name, source };
    let fd = fd.as_fd().try_clone_to_owned().map_err(failed)?;
    let id = bpf::program_id(&fd).map_err(failed)?;
    Ok(Program { fd, id })
}

#[cfg(test)]
mod tests {
    use cilium_bpf::TRAFFIC_MAPS;

    use super::*;

    #[test]
    fn maps_that_are_sized_by_memory_are_as_large_as_is_reckoned_with() {
        let object = aya_obj::Object::parse(OBJECT).expect("the object is one");
        for map in TRAFFIC_MAPS {
            let found = object.maps.get(map.name).expect("the object has the map");
            // In the kernel, keys and values take whole words.
            let words = found.key_size().next_multiple_of(8) + found.value_size().next_multiple_of(8);
            assert_eq!((found.max_entries(), words + 48), (map.entries, map.bytes), "{}", map.name);
        }
    }
}
