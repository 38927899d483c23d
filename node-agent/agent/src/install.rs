use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::Context as _;

/// Our plugin: replaced by every version.
const OURS: &str = "cilium-cni";

/// Copies plugins from one directory to another. A copy is written beside its place and renamed: the runtime may start the
/// plugin at any moment, and a running one keeps the old file.
pub(crate) fn install(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
    let entries = fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))?;
    let mut ours = false;
    for entry in entries {
        let path = entry.with_context(|| format!("cannot read {}", from.display()))?.path();
        let Some(name) = path.file_name().filter(|_| path.is_file()) else { continue };
        let is_ours = name == OURS;
        ours |= is_ours;
        if is_ours || !to.join(name).exists() {
            copy(&path, &to.join(name))?;
            println!("installed {}", to.join(name).display());
        }
    }
    anyhow::ensure!(ours, "{} has no {OURS}: the image is not complete", from.display());
    Ok(())
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    let name = to.file_name().unwrap_or_default().to_string_lossy();
    let beside = to.with_file_name(format!(".{name}.new"));
    let failed = || format!("cannot copy {} to {}", from.display(), to.display());
    fs::copy(from, &beside).with_context(failed)?;
    fs::set_permissions(&beside, Permissions::from_mode(0o755)).with_context(failed)?;
    fs::rename(&beside, to).with_context(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_is_replaced_and_others_stay() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (from, to) = (dir.path().join("from"), dir.path().join("host/bin"));
        fs::create_dir_all(&from).expect("creates");
        fs::create_dir_all(&to).expect("creates");
        for (path, text) in [
            (from.join("cilium-cni"), "new"),
            (from.join("loopback"), "new"),
            (from.join("portmap"), "new"),
            (to.join("cilium-cni"), "old"),
            (to.join("loopback"), "old"),
        ] {
            fs::write(path, text).expect("writes");
        }
        install(&from, &to).expect("installs");
        let read = |name: &str| fs::read_to_string(to.join(name)).expect("reads");
        assert_eq!([read("cilium-cni"), read("loopback"), read("portmap")], ["new", "old", "new"]);
        let mode = fs::metadata(to.join("cilium-cni")).expect("is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o755);
        assert_eq!(fs::read_dir(&to).expect("lists").count(), 3, "nothing is left beside");
    }

    #[test]
    fn an_incomplete_image_is_named() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let error = install(dir.path(), &dir.path().join("to")).expect_err("is refused");
        assert!(error.to_string().contains("has no cilium-cni"), "{error}");
    }
}
