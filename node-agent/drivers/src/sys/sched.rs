//! `sched_getattr` and `sched_setattr` of sched_setattr(2).

use std::io;

/// `struct sched_attr` of `linux/sched/types.h`, in its first version.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    pub(crate) runtime: u64,
    deadline: u64,
    period: u64,
}

const SIZE: u32 = size_of::<Attributes>() as u32;

/// Those of the calling thread.
pub(crate) fn get() -> io::Result<Attributes> {
    let mut attributes = Attributes::default();
    // SAFETY: the kernel writes at most SIZE bytes, which the struct has; thread 0 is the caller.
    let result = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, SIZE, 0) };
    if result == 0 { Ok(attributes) } else { Err(io::Error::last_os_error()) }
}

/// Gives them to the calling thread; threads that it starts later have them as well.
pub(crate) fn set(attributes: Attributes) -> io::Result<()> {
    let attributes = Attributes { size: SIZE, ..attributes };
    // SAFETY: the kernel reads as many bytes as the struct says it has; thread 0 is the caller.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
