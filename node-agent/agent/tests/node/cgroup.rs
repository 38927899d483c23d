//! A control group of one test.

use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

/// Made in the version 2 hierarchy, removed at the end.
pub(crate) struct Cgroup {
    root: OwnedFd,
    name: String,
}

impl Cgroup {
    pub(crate) fn create() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let context = fsopen("cgroup2", FsOpenFlags::FSOPEN_CLOEXEC).expect("the kernel has cgroup2");
        fsconfig_create(&context).expect("cgroup2 can be opened");
        let root = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty());
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("cilium-agent-test-{}-{number}", std::process::id());
        let cgroup = Self { root: root.expect("cgroup2 can be mounted"), name };
        fs::create_dir(cgroup.path()).expect("a control group can be made");
        cgroup
    }

    pub(crate) fn path(&self) -> PathBuf {
        let root = format!("/proc/{}/fd/{}", std::process::id(), self.root.as_raw_fd());
        PathBuf::from(root).join(&self.name)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(self.path()) {
            eprintln!("control group {} stays: {error}", self.name);
        }
    }
}
