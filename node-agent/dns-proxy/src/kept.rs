//! Rules on disk, so that a restarted proxy needs no agent.

use std::fs;
use std::io;
use std::path::Path;

use cilium_rest::dns::Rules;

/// The rules that were kept last. A file that cannot be read is as good as none: the agent tells them again.
pub(crate) fn load(path: &Path) -> Option<Rules> {
    let bytes = fs::read(path).ok()?;
    serde_json::from_slice(&bytes)
        .inspect_err(|error| tracing::warn!(%error, file = %path.display(), "kept rules cannot be read"))
        .ok()
}

/// Keeps rules; the file is there whole or not at all.
pub(crate) fn save(path: &Path, rules: &Rules) {
    if let Err(error) = write(path, rules) {
        let file = path.display();
        tracing::error!(%error, %file, "rules are not kept: a restarted proxy will have to wait for the agent");
    }
}

fn write(path: &Path, rules: &Rules) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let beside = path.with_added_extension("new");
    fs::write(&beside, serde_json::to_vec(rules)?)?;
    fs::rename(&beside, path)
}
