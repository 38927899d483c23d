//! Accepted state on disk, so that a restart needs no API server.
//!
//! ```text
//! <dir>/header/node.<version>.json     header of the revision in force
//! <dir>/node/<digest>.json             its slices, named by content: a header always finds the slices that it lists
//! <dir>/shared/<name>.<version>.json   shared slices
//! <dir>/shared.listed                  present once all shared slices have been written
//! ```
//! Every file is written beside its place and renamed to a name that is not taken, and only then the version before it is
//! removed: a process killed at any moment leaves the old or the new version, or both, of which the higher counts. (To
//! rename onto an existing file would do the same, but ext4 then waits for the disk: 5–10 ms in the path of every change.)
//! There is no fsync: what a crash of the machine tears fails its digest when it is loaded, is left out, and comes again
//! from the API server.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::{fs, iter};

use cilium_api::node_slice::CiliumNodeStateSliceSpec;
use cilium_api::node_state::DesiredState;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Event, Owner, Save, Slice};

/// Where accepted state is kept. One process uses a directory at a time.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    /// Versions on disk, by path without version and extension.
    versions: BTreeMap<PathBuf, u64>,
    next: u64,
}

/// What was on disk.
#[derive(Debug, Default)]
pub struct Loaded {
    /// To be given to [`crate::State::apply`] in this order.
    pub events: Vec<Event>,
    /// Files that could not be read and are left out.
    pub unreadable: Vec<StoreError>,
}

/// An operation on the directory failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Creating the directories.
    #[error("cannot create {path}")]
    Create {
        /// What was to be created.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// Writing a file, or putting it in its place.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// Reading a file or a directory.
    #[error("cannot read {path}")]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path} is damaged, it is ignored until the API server has sent its content again")]
    Parse {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: serde_json::Error,
    },
    /// Removing a file.
    #[error("cannot remove {path}")]
    Remove {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The name of a slice cannot be the name of a file.
    #[error("slice {name:?} has a name that no Kubernetes object can have")]
    Name {
        /// The name.
        name: String,
    },
}

type Result<T> = std::result::Result<T, StoreError>;

impl Store {
    /// Opens a directory, which is created when missing.
    ///
    /// # Errors
    /// [`StoreError::Create`].
    pub fn open(dir: &Path) -> Result<Self> {
        let mut store = Self { dir: dir.to_owned(), versions: BTreeMap::new(), next: 1 };
        for path in [store.headers(), dir.join("node"), store.shared()] {
            fs::create_dir_all(&path).map_err(|source| StoreError::Create { path, source })?;
        }
        for directory in [store.headers(), store.shared()] {
            store.find_versions(&directory)?;
        }
        Ok(store)
    }

    /// Of two versions of one file, the process was killed between writing the new and removing the old one.
    fn find_versions(&mut self, directory: &Path) -> Result<()> {
        for path in json_files(directory)? {
            let Some((stem, version)) = split_version(&path) else { continue };
            self.next = self.next.max(version + 1);
            match self.versions.insert(stem.clone(), version) {
                Some(other) if other > version => {
                    self.versions.insert(stem, other);
                    remove(&path)?;
                }
                Some(other) => remove(&versioned(&stem, other))?,
                None => {}
            }
        }
        Ok(())
    }

    /// Writes what [`crate::State::apply`] asked for, in order.
    ///
    /// # Errors
    /// The first operation that failed. What stands on disk is then older than what was accepted, but complete.
    pub fn save(&mut self, saves: &[Save]) -> Result<()> {
        saves.iter().try_for_each(|save| match save {
            Save::Revision { desired, slices } => self.save_revision(desired, slices),
            Save::Shared { name, spec } => self.replace(&self.slice(name)?, spec),
            Save::SharedGone { name } => self.discard(&self.slice(name)?),
            Save::Listed => write(&self.listed(), &()),
        })
    }

    /// Writes the next version of a file, and removes the one before.
    fn replace<T: Serialize>(&mut self, stem: &Path, value: &T) -> Result<()> {
        let version = self.next;
        self.next += 1;
        write(&versioned(stem, version), value)?;
        match self.versions.insert(stem.to_owned(), version) {
            Some(before) => remove(&versioned(stem, before)),
            None => Ok(()),
        }
    }

    fn discard(&mut self, stem: &Path) -> Result<()> {
        match self.versions.remove(stem) {
            Some(version) => remove(&versioned(stem, version)),
            None => Ok(()),
        }
    }

    /// Reads everything.
    pub fn load(&self) -> Loaded {
        let mut loaded = Loaded::default();
        let listed = self.listed().exists();
        loaded.events.extend(listed.then_some(Event::RelistStarted));
        for (stem, version) in &self.versions {
            let name = stem.file_name().and_then(OsStr::to_str);
            if let Some(name) = name.filter(|_| stem.parent() == Some(&self.shared()))
                && let Some(spec) = loaded.read(&versioned(stem, *version))
            {
                loaded.slice(name.to_owned(), Owner::Shared, spec);
            }
        }
        let header = self.versions.get(&self.header()).map(|version| versioned(&self.header(), *version));
        let header = header.and_then(|path| loaded.read::<DesiredState>(&path));
        for slice in header.iter().flat_map(|desired| &desired.slices) {
            if let Some(spec) = loaded.read(&self.node(&slice.digest)) {
                loaded.slice(slice.name.to_string(), Owner::Node, spec);
            }
        }
        loaded.events.extend(header.map(|desired| Event::Header(Some(desired))));
        loaded.events.extend(listed.then_some(Event::RelistDone));
        loaded
    }

    fn save_revision(
        &mut self,
        desired: &DesiredState,
        slices: &[(String, CiliumNodeStateSliceSpec)],
    ) -> Result<()> {
        for (_, spec) in slices {
            write(&self.node(&spec.digest), spec)?;
        }
        self.replace(&self.header(), desired)?;
        let live: BTreeSet<PathBuf> = desired.slices.iter().map(|slice| self.node(&slice.digest)).collect();
        json_files(&self.dir.join("node"))?
            .iter()
            .filter(|path| !live.contains(*path))
            .try_for_each(|path| remove(path))
    }

    fn node(&self, digest: &str) -> PathBuf {
        self.dir.join("node").join(format!("{digest}.json"))
    }

    fn headers(&self) -> PathBuf {
        self.dir.join("header")
    }

    fn header(&self) -> PathBuf {
        self.headers().join("node")
    }

    fn shared(&self) -> PathBuf {
        self.dir.join("shared")
    }

    fn slice(&self, name: &str) -> Result<PathBuf> {
        if name.is_empty() || name.starts_with('.') || name.contains('/') {
            return Err(StoreError::Name { name: name.to_owned() });
        }
        Ok(self.shared().join(name))
    }

    fn listed(&self) -> PathBuf {
        self.dir.join("shared.listed")
    }
}

impl Loaded {
    fn slice(&mut self, name: String, owner: Owner, spec: CiliumNodeStateSliceSpec) {
        self.events.push(Event::Slice(Slice { name, owner, spec }));
    }

    fn read<T: DeserializeOwned>(&mut self, path: &Path) -> Option<T> {
        match read(path) {
            Ok(value) => value,
            Err(error) => {
                self.unreadable.push(error);
                None
            }
        }
    }
}

/// `<stem>.<version>.json`
fn versioned(stem: &Path, version: u64) -> PathBuf {
    stem.with_added_extension(format!("{version}.json"))
}

fn split_version(path: &Path) -> Option<(PathBuf, u64)> {
    let (stem, version) = path.file_name()?.to_str()?.strip_suffix(".json")?.rsplit_once('.')?;
    Some((path.with_file_name(stem), version.parse().ok()?))
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let data = match fs::read(path) {
        Ok(data) => data,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(StoreError::Read { path: path.to_owned(), source }),
    };
    serde_json::from_slice(&data)
        .map(Some)
        .map_err(|source| StoreError::Parse { path: path.to_owned(), source })
}

fn write<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let failed = |source| StoreError::Write { path: path.to_owned(), source };
    let data = serde_json::to_vec(value).map_err(|error| failed(error.into()))?;
    let beside = path.with_added_extension("new");
    fs::write(&beside, data).map_err(failed)?;
    fs::rename(&beside, path).map_err(failed)
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != ErrorKind::NotFound => {
            Err(StoreError::Remove { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// Files of a directory that end in `.json`, sorted. Others are left-overs of a killed process.
fn json_files(dir: &Path) -> Result<BTreeSet<PathBuf>> {
    let failed = |source| StoreError::Read { path: dir.to_owned(), source };
    let mut entries = fs::read_dir(dir).map_err(failed)?;
    iter::from_fn(|| entries.next())
        .map(|entry| entry.map(|entry| entry.path()).map_err(failed))
        .filter(|path| path.as_ref().map_or(true, |path| path.extension() == Some(OsStr::new("json"))))
        .collect()
}
