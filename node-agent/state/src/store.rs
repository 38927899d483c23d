//! Accepted state on disk, so that a restart needs no API server.
//!
//! ```text
//! <dir>/node.json            header of the revision in force
//! <dir>/node/<digest>.json   its slices, named by content: a header always finds the slices that it lists
//! <dir>/shared/<name>.json   shared slices
//! <dir>/shared.listed        present once all shared slices have been written
//! ```
//! Every file is written beside its place and renamed, so that a process killed at any moment leaves the old or the
//! new version. There is no fsync: what a crash of the machine tears fails its digest when it is loaded, is left
//! out, and comes again from the API server.

use std::collections::BTreeSet;
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
        for path in [dir.join("node"), dir.join("shared")] {
            fs::create_dir_all(&path).map_err(|source| StoreError::Create { path, source })?;
        }
        Ok(Self { dir: dir.to_owned() })
    }

    /// Writes what [`crate::State::apply`] asked for, in order.
    ///
    /// # Errors
    /// The first operation that failed. What stands on disk is then older than what was accepted, but complete.
    pub fn save(&self, saves: &[Save]) -> Result<()> {
        saves.iter().try_for_each(|save| match save {
            Save::Revision { desired, slices } => self.save_revision(desired, slices),
            Save::Shared { name, spec } => write(&self.shared(name)?, spec),
            Save::SharedGone { name } => remove(&self.shared(name)?),
            Save::Listed => write(&self.listed(), &()),
        })
    }

    /// Reads everything.
    pub fn load(&self) -> Loaded {
        let mut loaded = Loaded::default();
        let listed = self.listed().exists();
        loaded.events.extend(listed.then_some(Event::RelistStarted));
        self.load_shared(&mut loaded);
        let header = loaded.read::<DesiredState>(&self.dir.join("node.json"));
        for slice in header.iter().flat_map(|desired| &desired.slices) {
            if let Some(spec) = loaded.read(&self.node(&slice.digest)) {
                loaded.slice(slice.name.clone(), Owner::Node, spec);
            }
        }
        loaded.events.extend(header.map(|desired| Event::Header(Some(desired))));
        loaded.events.extend(listed.then_some(Event::RelistDone));
        loaded
    }

    fn load_shared(&self, loaded: &mut Loaded) {
        let dir = self.dir.join("shared");
        match json_files(&dir) {
            Ok(paths) => {
                for path in paths {
                    let name = path.file_stem().and_then(OsStr::to_str).map(str::to_owned);
                    if let (Some(name), Some(spec)) = (name, loaded.read(&path)) {
                        loaded.slice(name, Owner::Shared, spec);
                    }
                }
            }
            Err(error) => loaded.unreadable.push(error),
        }
    }

    fn save_revision(
        &self,
        desired: &DesiredState,
        slices: &[(String, CiliumNodeStateSliceSpec)],
    ) -> Result<()> {
        for (_, spec) in slices {
            write(&self.node(&spec.digest), spec)?;
        }
        write(&self.dir.join("node.json"), desired)?;
        let live: BTreeSet<PathBuf> = desired.slices.iter().map(|slice| self.node(&slice.digest)).collect();
        json_files(&self.dir.join("node"))?
            .iter()
            .filter(|path| !live.contains(*path))
            .try_for_each(|path| remove(path))
    }

    fn node(&self, digest: &str) -> PathBuf {
        self.dir.join("node").join(format!("{digest}.json"))
    }

    fn shared(&self, name: &str) -> Result<PathBuf> {
        if name.is_empty() || name.starts_with('.') || name.contains('/') {
            return Err(StoreError::Name { name: name.to_owned() });
        }
        Ok(self.dir.join("shared").join(format!("{name}.json")))
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
