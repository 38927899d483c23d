use std::{fmt::Debug, fs, io, marker::PhantomData, os::fd::OwnedFd, path::Path};

use cilium_delta::Table;

use super::{Error, Record};
use crate::sys::bpf::{self, Cursor, MapInfo};

/// Entries that one batched read asks for; a hash map may need more for one bucket, and then the buffer grows.
const BATCH: usize = 512;

/// A map with one value for each key. It is a [`Table`]; programs see each change at once.
///
/// Array maps have all their keys always: to a [`Table`], an element that is all zero is absent, and deleting writes zeros.
pub struct Map<K, V> {
    fd: OwnedFd,
    name: String,
    info: MapInfo,
    types: PhantomData<fn(K) -> V>,
}

impl<K: Record, V: Record> Map<K, V> {
    /// Opens a pinned map.
    ///
    /// # Errors
    /// [`Error::Open`]; [`Error::Layout`] when keys or values have another size than ours.
    pub fn open(pin: &Path) -> Result<Self, Error> {
        let name = pin.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let failed = |source| Error::Open { path: pin.to_owned(), source };
        let fd = bpf::open_pin(pin).and_then(|fd| fd.ok_or_else(|| io::ErrorKind::NotFound.into()));
        let fd = fd.map_err(failed)?;
        let info = bpf::map_info(&fd).map_err(failed)?;
        let expected = (K::SIZE, V::SIZE);
        let found = (info.key_size as usize, info.value_size as usize);
        if expected != found {
            return Err(Error::Layout { map: name, expected, found });
        }
        Ok(Self { fd, name, info, types: PhantomData })
    }

    /// The map's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many entries fit.
    pub fn max_entries(&self) -> u32 {
        self.info.max_entries
    }

    /// The value of a key. In a trie, that is the entry with the longest prefix that covers `key`.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn get(&self, key: &K) -> Result<Option<V>, Error> {
        Ok(self.bytes(key)?.map(|value| V::read(&value[..V::SIZE])))
    }

    /// The value as it stands in the map; per-CPU values one after the other.
    pub(super) fn bytes(&self, key: &K) -> Result<Option<Vec<u8>>, Error> {
        let mut value = vec![0; self.value_size()?];
        match bpf::lookup(&self.fd, &key.encode(), &mut value) {
            Ok(found) => Ok(found.then_some(value)),
            Err(source) => Err(self.read_failed(source)),
        }
    }

    /// All entries; what changes meanwhile may or may not be seen.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn entries(&self) -> Result<Vec<(K, V)>, Error> {
        let mut entries = Vec::new();
        self.each_bytes(|key, value| entries.push((K::read(key), V::read(&value[..V::SIZE]))))?;
        Ok(entries)
    }

    /// The keys that are wanted. Nothing else is kept while the map is read.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn keys(&self, is_wanted: impl Fn(&K) -> bool) -> Result<Vec<K>, Error> {
        let mut keys = Vec::new();
        self.each_bytes(|key, _| keys.extend(Some(K::read(key)).filter(&is_wanted)))?;
        Ok(keys)
    }

    /// How many entries there are (elements that are not zero, for an array).
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn count(&self) -> Result<usize, Error> {
        let mut count = 0;
        self.each_bytes(|_, value| count += usize::from(!self.is_absent(value)))?;
        Ok(count)
    }

    /// Shows every entry's bytes; per-CPU values one after the other.
    pub(super) fn each_bytes(&self, mut see: impl FnMut(&[u8], &[u8])) -> Result<(), Error> {
        match self.each_batched(&mut see) {
            Err(error)
                if error.raw_os_error() == Some(libc::EINVAL) || error.raw_os_error() == Some(ENOTSUPP) =>
            {
                self.each_single(&mut see).map_err(|source| self.read_failed(source))
            }
            other => other.map_err(|source| self.read_failed(source)),
        }
    }

    fn each_batched(&self, see: &mut impl FnMut(&[u8], &[u8])) -> io::Result<()> {
        let value_size = self.value_size().map_err(io::Error::other)?;
        let mut capacity = BATCH.min(self.info.max_entries as usize).max(1);
        let mut cursor = Cursor::new(K::SIZE);
        let (mut keys, mut values) = (vec![0; capacity * K::SIZE], vec![0; capacity * value_size]);
        loop {
            let batch =
                match bpf::lookup_batch(&self.fd, &mut cursor, &mut keys, &mut values, capacity as u32) {
                    Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                        capacity *= 2;
                        keys.resize(capacity * K::SIZE, 0);
                        values.resize(capacity * value_size, 0);
                        continue;
                    }
                    other => other?,
                };
            for (key, value) in keys.chunks(K::SIZE).zip(values.chunks(value_size)).take(batch.count) {
                see(key, value);
            }
            if batch.last {
                return Ok(());
            }
        }
    }

    /// For map types whose kernel has no batches.
    fn each_single(&self, see: &mut impl FnMut(&[u8], &[u8])) -> io::Result<()> {
        let mut value = vec![0; self.value_size().map_err(io::Error::other)?];
        let mut key: Option<Vec<u8>> = None;
        let mut next = vec![0; K::SIZE];
        while bpf::next_key(&self.fd, key.as_deref(), &mut next)? {
            if bpf::lookup(&self.fd, &next, &mut value)? {
                see(&next, &value);
            }
            key = Some(next.clone());
        }
        Ok(())
    }

    /// Bytes of one entry's value, of all CPUs for a per-CPU map.
    fn value_size(&self) -> Result<usize, Error> {
        if self.info.kind != bpf::MAP_PERCPU_ARRAY {
            return Ok(V::SIZE);
        }
        let possible = possible_cpus().map_err(|source| self.read_failed(source))?;
        Ok(V::SIZE.next_multiple_of(8) * possible)
    }

    fn is_array(&self) -> bool {
        self.info.kind == bpf::MAP_ARRAY
    }

    fn is_absent(&self, value: &[u8]) -> bool {
        self.is_array() && value.iter().all(|byte| *byte == 0)
    }

    pub(super) fn read_failed(&self, source: io::Error) -> Error {
        Error::Read { map: self.name.clone(), source }
    }
}

impl<K: Record + Debug, V: Record> Table<K, V> for Map<K, V> {
    type Error = Error;

    fn list(&mut self) -> Result<Vec<(K, V)>, Error> {
        let mut entries = Vec::new();
        Table::each(self, &mut |key, value| entries.push((key, value)))?;
        Ok(entries)
    }

    fn each(&mut self, see: &mut dyn FnMut(K, V)) -> Result<(), Error> {
        self.each_bytes(|key, value| {
            if !self.is_absent(value) {
                see(K::read(key), V::read(&value[..V::SIZE]));
            }
        })
    }

    fn set(&mut self, key: &K, value: &V) -> Result<(), Error> {
        bpf::update(&self.fd, &key.encode(), &value.encode()).map_err(|source| match source.raw_os_error() {
            Some(libc::E2BIG | libc::ENOSPC) => {
                Error::Full { map: self.name.clone(), limit: self.info.max_entries }
            }
            _ => Error::Set { map: self.name.clone(), key: format!("{key:?}"), source },
        })
    }

    fn delete(&mut self, key: &K) -> Result<(), Error> {
        let bytes = key.encode();
        let done = if self.is_array() {
            bpf::update(&self.fd, &bytes, &vec![0; V::SIZE])
        } else {
            bpf::delete(&self.fd, &bytes).map(drop)
        };
        done.map_err(|source| Error::Delete { map: self.name.clone(), key: format!("{key:?}"), source })
    }
}

/// The kernel's own "not supported", which it lets out to user space here.
const ENOTSUPP: i32 = 524;

/// How many CPUs the kernel keeps per-CPU values for.
fn possible_cpus() -> io::Result<usize> {
    let text = fs::read_to_string("/sys/devices/system/cpu/possible")?;
    let last = text.trim().rsplit([',', '-']).next().and_then(|last| last.parse::<usize>().ok());
    last.map(|last| last + 1).ok_or_else(|| io::Error::other(format!("unreadable list of CPUs {text:?}")))
}
