//! Attachments that went while the agent was down: one file each, drained by the agent when it starts.

use std::fs::{self, File};
use std::path::Path;

use rustix::fs::FlockOperation;
use sha2::{Digest as _, Sha256};

use crate::failure::Failure;

/// Where the files are.
const DIRECTORY: &str = "/var/run/cilium/deleteQueue";

/// Beyond this, something is wrong with the agent for longer than pods should go unnoticed.
const LIMIT: usize = 256;

/// Leaves a note. The shared lock keeps the agent from draining in between.
pub(crate) fn push(attachment: &str) -> Result<(), Failure> {
    let directory = std::env::var("CILIUM_DELETE_QUEUE").unwrap_or_else(|_| DIRECTORY.to_owned());
    push_to(Path::new(&directory), attachment)
}

fn push_to(directory: &Path, attachment: &str) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        Failure::io(&format!("the agent is down, and {} cannot be written", directory.display()), &error)
    };
    fs::create_dir_all(directory).map_err(failed)?;
    let lock = File::create(directory.join("lockfile")).map_err(failed)?;
    rustix::fs::flock(&lock, FlockOperation::LockShared).map_err(|error| failed(error.into()))?;
    let name = format!("{:x}.delete", Sha256::digest(attachment));
    let path = directory.join(name);
    let waiting = fs::read_dir(directory).map_err(failed)?.count();
    if waiting > LIMIT && !path.exists() {
        let details = format!("{LIMIT} pods wait already; start the agent of this node");
        return Err(Failure::new(Failure::TRY_LATER, "the agent is down and its queue is full", details));
    }
    fs::write(path, attachment).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::push_to;

    #[test]
    fn a_note_is_named_by_its_content_and_there_is_a_limit() {
        let dir = tempfile::tempdir().expect("temporary directory");
        push_to(dir.path(), "abc:eth0").expect("writes");
        push_to(dir.path(), "abc:eth0").expect("writes");
        assert_eq!(std::fs::read_dir(dir.path()).expect("lists").count(), 2, "one note and the lock");
        for number in 0..255 {
            push_to(dir.path(), &format!("{number}:eth0")).expect("writes");
        }
        let failure = push_to(dir.path(), "one more:eth0").expect_err("is full");
        assert_eq!(failure.code, 11);
        push_to(dir.path(), "abc:eth0").expect("is noted already");
    }
}
