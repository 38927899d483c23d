//! bpf(2): the commands that aya has no call for (batches, links by interface index, comparing pinned maps), and map access
//! without copies of the map's definition.
//!
//! Each command reads a prefix of `union bpf_attr`; the structs here are those prefixes as in the kernel's
//! `uapi/linux/bpf.h`. The kernel takes missing fields at the end for zero.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

const MAP_CREATE: i32 = 0;
const MAP_LOOKUP_ELEM: i32 = 1;
const MAP_UPDATE_ELEM: i32 = 2;
const MAP_DELETE_ELEM: i32 = 3;
const MAP_GET_NEXT_KEY: i32 = 4;
const PROG_LOAD: i32 = 5;
const OBJ_PIN: i32 = 6;
const OBJ_GET: i32 = 7;
const PROG_TEST_RUN: i32 = 10;
const OBJ_GET_INFO_BY_FD: i32 = 15;
const PROG_QUERY: i32 = 16;
const MAP_LOOKUP_BATCH: i32 = 24;
const LINK_CREATE: i32 = 28;
const LINK_UPDATE: i32 = 29;
const LINK_DETACH: i32 = 34;

/// Runs one command.
fn call<A>(command: i32, attributes: &mut A) -> io::Result<i64> {
    // SAFETY: `attributes` is a `repr(C)` prefix of `union bpf_attr` whose size is passed along, so that the kernel reads and
    // writes inside it; pointers in it point to memory that its maker keeps alive and large enough during the call.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<A>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn call_fd<A>(command: i32, attributes: &mut A) -> io::Result<OwnedFd> {
    let fd = call(command, attributes)?;
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the command returned a descriptor that it has just made for us, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn raw(fd: impl AsFd) -> u32 {
    fd.as_fd().as_raw_fd().unsigned_abs()
}

fn pointer<T>(bytes: &[T]) -> u64 {
    bytes.as_ptr() as u64
}

fn pointer_mut<T>(bytes: &mut [T]) -> u64 {
    bytes.as_mut_ptr() as u64
}

#[repr(C)]
#[derive(Default)]
struct Element {
    map: u32,
    reserved: u32,
    key: u64,
    value_or_next: u64,
    flags: u64,
}

/// Reads one value. The buffers are as large as the map's key and value (values of all CPUs for per-CPU maps).
pub(crate) fn lookup(map: impl AsFd, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
    let mut element =
        Element { map: raw(map), key: pointer(key), value_or_next: pointer_mut(value), ..Element::default() };
    found(call(MAP_LOOKUP_ELEM, &mut element))
}

/// Creates or overwrites an entry.
pub(crate) fn update(map: impl AsFd, key: &[u8], value: &[u8]) -> io::Result<()> {
    let mut element =
        Element { map: raw(map), key: pointer(key), value_or_next: pointer(value), ..Element::default() };
    call(MAP_UPDATE_ELEM, &mut element).map(drop)
}

/// Removes an entry; says whether there was one.
pub(crate) fn delete(map: impl AsFd, key: &[u8]) -> io::Result<bool> {
    let mut element = Element { map: raw(map), key: pointer(key), ..Element::default() };
    found(call(MAP_DELETE_ELEM, &mut element))
}

/// The key after `key` (the first one without); false at the end.
pub(crate) fn next_key(map: impl AsFd, key: Option<&[u8]>, next: &mut [u8]) -> io::Result<bool> {
    let key = key.map_or(0, pointer);
    let mut element = Element { map: raw(map), key, value_or_next: pointer_mut(next), ..Element::default() };
    found(call(MAP_GET_NEXT_KEY, &mut element))
}

fn found(result: io::Result<i64>) -> io::Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

#[repr(C)]
#[derive(Default)]
struct BatchAttributes {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

/// Where a batched reading stands; opaque to us.
pub(crate) struct Cursor {
    position: Vec<u8>,
    started: bool,
}

impl Cursor {
    /// At the beginning. Hash maps keep a 4-byte position there, all others a key.
    pub(crate) fn new(key_size: usize) -> Self {
        Self { position: vec![0; key_size.max(4)], started: false }
    }
}

/// What one [`lookup_batch`] did.
pub(crate) struct Batch {
    /// Entries that were read.
    pub(crate) count: usize,
    /// Nothing follows.
    pub(crate) last: bool,
}

/// Reads as many entries as the buffers take, one after the other in `keys` and `values`.
pub(crate) fn lookup_batch(
    map: impl AsFd,
    cursor: &mut Cursor,
    keys: &mut [u8],
    values: &mut [u8],
    capacity: u32,
) -> io::Result<Batch> {
    let mut next = cursor.position.clone();
    let mut batch = BatchAttributes {
        in_batch: if cursor.started { pointer(&cursor.position) } else { 0 },
        out_batch: pointer_mut(&mut next),
        keys: pointer_mut(keys),
        values: pointer_mut(values),
        count: capacity,
        map: raw(map),
        ..BatchAttributes::default()
    };
    let more = found(call(MAP_LOOKUP_BATCH, &mut batch))?;
    cursor.position = next;
    cursor.started = true;
    Ok(Batch { count: batch.count as usize, last: !more })
}

#[repr(C)]
#[derive(Default)]
struct ObjectAttributes {
    path: u64,
    fd: u32,
    flags: u32,
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

/// Pins a map, program or link in a BPF file system.
pub(crate) fn pin(object: impl AsFd, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let mut attributes = ObjectAttributes {
        path: pointer(path.as_bytes_with_nul()),
        fd: raw(object),
        ..ObjectAttributes::default()
    };
    call(OBJ_PIN, &mut attributes).map(drop)
}

/// Opens what is pinned; `None` when there is no such file.
pub(crate) fn open_pin(path: &Path) -> io::Result<Option<OwnedFd>> {
    let path = c_path(path)?;
    let mut attributes =
        ObjectAttributes { path: pointer(path.as_bytes_with_nul()), ..ObjectAttributes::default() };
    match call_fd(OBJ_GET, &mut attributes) {
        Ok(fd) => Ok(Some(fd)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[repr(C)]
#[derive(Default)]
struct InfoAttributes {
    fd: u32,
    length: u32,
    info: u64,
}

fn info<T: Default>(object: impl AsFd) -> io::Result<T> {
    let mut info = T::default();
    let length = size_of::<T>() as u32;
    let mut attributes =
        InfoAttributes { fd: raw(object), length, info: pointer_mut(std::slice::from_mut(&mut info)) };
    call(OBJ_GET_INFO_BY_FD, &mut attributes)?;
    Ok(info)
}

/// The beginning of `struct bpf_map_info`.
#[repr(C)]
#[derive(Default, Debug, Clone, Copy)]
pub(crate) struct MapInfo {
    pub(crate) kind: u32,
    pub(crate) id: u32,
    pub(crate) key_size: u32,
    pub(crate) value_size: u32,
    pub(crate) max_entries: u32,
    pub(crate) flags: u32,
}

/// What the kernel knows of a map.
pub(crate) fn map_info(map: impl AsFd) -> io::Result<MapInfo> {
    info(map)
}

/// The beginning of `struct bpf_prog_info`.
#[repr(C)]
#[derive(Default)]
struct ProgramInfo {
    kind: u32,
    id: u32,
}

/// The kernel's number of a program.
pub(crate) fn program_id(program: impl AsFd) -> io::Result<u32> {
    info::<ProgramInfo>(program).map(|info| info.id)
}

/// The beginning of `struct bpf_link_info`.
#[repr(C)]
#[derive(Default, Debug, Clone, Copy)]
pub(crate) struct LinkInfo {
    kind: u32,
    id: u32,
    pub(crate) program: u32,
    padding: u32,
    /// tcx: interface index and attach type; XDP: interface index; cgroup: the cgroup's number.
    target: [u8; 8],
    attach_type: u32,
}

impl LinkInfo {
    /// The index of a tcx or XDP link's device; 0 once the device is gone or the link was detached.
    pub(crate) fn device(&self) -> u32 {
        let [a, b, c, d, ..] = self.target;
        u32::from_ne_bytes([a, b, c, d])
    }

    /// The number of a cgroup link's cgroup; 0 once the cgroup is gone or the link was detached.
    pub(crate) fn cgroup(&self) -> u64 {
        u64::from_ne_bytes(self.target)
    }

    /// What the link is attached to: the device's index or the cgroup's number.
    pub(crate) fn target(&self) -> u64 {
        const XDP: u32 = 6;
        const TCX: u32 = 11;
        if [XDP, TCX].contains(&self.kind) { self.device().into() } else { self.cgroup() }
    }
}

/// What the kernel knows of a link.
pub(crate) fn link_info(link: impl AsFd) -> io::Result<LinkInfo> {
    info(link)
}

/// Attach types of programs on devices (`enum bpf_attach_type`).
pub(crate) const TCX_INGRESS: u32 = 46;
pub(crate) const TCX_EGRESS: u32 = 47;
pub(crate) const XDP: u32 = 37;

/// How an XDP program runs (`XDP_FLAGS_*` of the kernel's `uapi/linux/if_link.h`): on packets of the stack, or in the driver.
pub(crate) const XDP_GENERIC: u32 = 1 << 1;
pub(crate) const XDP_DRIVER: u32 = 1 << 2;

/// Types of maps (`enum bpf_map_type`).
pub(crate) const MAP_HASH: u32 = 1;
pub(crate) const MAP_ARRAY: u32 = 2;
pub(crate) const MAP_PERCPU_ARRAY: u32 = 6;
pub(crate) const MAP_LRU_HASH: u32 = 9;
pub(crate) const MAP_LPM_TRIE: u32 = 11;
pub(crate) const MAP_RINGBUF: u32 = 27;

#[repr(C)]
#[derive(Default)]
struct LinkAttributes {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    /// tcx: relative program or link, and expected revision; zero means at the end, any revision.
    relative: u32,
    padding: u32,
    revision: u64,
}

/// Attaches a program to a device (target: its index) or a cgroup (target: its descriptor).
pub(crate) fn create_link(
    program: impl AsFd,
    target: u32,
    attach_type: u32,
    flags: u32,
) -> io::Result<OwnedFd> {
    let mut attributes =
        LinkAttributes { program: raw(program), target, attach_type, flags, ..LinkAttributes::default() };
    call_fd(LINK_CREATE, &mut attributes)
}

#[repr(C)]
#[derive(Default)]
struct UpdateAttributes {
    link: u32,
    program: u32,
    flags: u32,
    old_program: u32,
}

/// Replaces the program of a link in one step.
pub(crate) fn update_link(link: impl AsFd, program: impl AsFd) -> io::Result<()> {
    let mut attributes =
        UpdateAttributes { link: raw(link), program: raw(program), ..UpdateAttributes::default() };
    call(LINK_UPDATE, &mut attributes).map(drop)
}

/// Takes a link off what it is attached to, before this returns. One that is off already is a success.
pub(crate) fn detach_link(link: impl AsFd) -> io::Result<()> {
    match call(LINK_DETACH, &mut raw(link)) {
        Err(error) if error.raw_os_error() != Some(libc::ENOLINK) => Err(error),
        _ => Ok(()),
    }
}

#[repr(C)]
#[derive(Default)]
struct TestAttributes {
    program: u32,
    result: u32,
    input_size: u32,
    output_size: u32,
    input: u64,
    output: u64,
    repeat: u32,
    duration: u32,
    context_in_size: u32,
    context_out_size: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
}

/// What a program did with a packet.
pub(crate) struct TestResult {
    /// Return value of the program.
    pub(crate) result: u32,
    /// Length of the packet afterwards.
    pub(crate) output: usize,
    /// Mean time of one run, in nanoseconds.
    pub(crate) nanoseconds: u32,
}

/// Runs a program on a packet, `repeat` times; `context` is a `struct __sk_buff`, changed in place.
pub(crate) fn test_run(
    program: impl AsFd,
    input: &[u8],
    output: &mut [u8],
    context: &mut [u8],
    repeat: u32,
) -> io::Result<TestResult> {
    let context_in = context.to_vec();
    let mut attributes = TestAttributes {
        program: raw(program),
        input_size: size(input),
        output_size: size(output),
        input: pointer(input),
        output: pointer_mut(output),
        repeat,
        context_in_size: size(&context_in),
        context_out_size: size(context),
        context_in: if context_in.is_empty() { 0 } else { pointer(&context_in) },
        context_out: if context_in.is_empty() { 0 } else { pointer_mut(context) },
        ..TestAttributes::default()
    };
    call(PROG_TEST_RUN, &mut attributes)?;
    Ok(TestResult {
        result: attributes.result,
        output: attributes.output_size as usize,
        nanoseconds: attributes.duration,
    })
}

fn size(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

#[repr(C)]
#[derive(Default)]
struct QueryAttributes {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    programs: u64,
    count: u32,
    padding: u32,
    program_flags: u64,
    links: u64,
    link_flags: u64,
    revision: u64,
}

/// Asks how many programs a device has at an attach type; fails where the kernel does not know the type.
pub(crate) fn query_device(device: u32, attach_type: u32) -> io::Result<u32> {
    let mut attributes = QueryAttributes { target: device, attach_type, ..QueryAttributes::default() };
    call(PROG_QUERY, &mut attributes)?;
    Ok(attributes.count)
}

#[repr(C)]
#[derive(Default)]
struct CreateAttributes {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
}

/// Makes a map without a name.
pub(crate) fn create_map(info: &MapInfo) -> io::Result<OwnedFd> {
    let mut attributes = CreateAttributes {
        kind: info.kind,
        key_size: info.key_size,
        value_size: info.value_size,
        max_entries: info.max_entries,
        flags: info.flags,
    };
    call_fd(MAP_CREATE, &mut attributes)
}

#[repr(C)]
#[derive(Default)]
struct LoadAttributes {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    expected_attach_type: u32,
}

/// Loads a program from raw instructions (8 bytes each).
pub(crate) fn load_program(
    kind: u32,
    expected_attach_type: u32,
    instructions: &[u64],
) -> io::Result<OwnedFd> {
    let mut attributes = LoadAttributes {
        kind,
        instruction_count: u32::try_from(instructions.len()).map_err(io::Error::other)?,
        instructions: pointer(instructions),
        license: pointer(c"Dual BSD/GPL".to_bytes_with_nul()),
        expected_attach_type,
        ..LoadAttributes::default()
    };
    call_fd(PROG_LOAD, &mut attributes)
}
