//! The CNI configuration file: its presence tells the runtime that pods can be connected.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use cilium_rest::model::Health;

use crate::config::Settings;

/// Keeps the file as it should be.
pub(crate) struct Conflist {
    path: Option<PathBuf>,
    exclusive: bool,
    text: String,
    pub(crate) health: Health,
}

/// Files of others get this suffix, so that the runtime does not see them.
const BACKUP: &str = "cilium_bak";

impl Conflist {
    pub(crate) fn new(settings: &Settings) -> Self {
        let plugin = serde_json::json!({
            "type": "cilium-cni",
            "log-file": settings.cni_log,
        });
        // The oldest version that runtimes still ask for: what is newer than a runtime, it does not load.
        let list = serde_json::json!({ "cniVersion": "0.3.1", "name": "cilium", "plugins": [plugin] });
        let health = match settings.cni_conf {
            Some(_) => Health::failure("CNI controller not started"),
            None => Health::disabled("CNI configuration management disabled"),
        };
        Self {
            path: settings.cni_conf.clone(),
            exclusive: settings.cni_exclusive,
            text: format!("{list:#}\n"),
            health,
        }
    }

    /// Writes the file unless it is there already, and sets aside those of others. To be called when pods can be
    /// connected, and again from time to time.
    pub(crate) fn ensure(&mut self) {
        let Some(path) = &self.path else { return };
        self.health = match self.write(path) {
            Ok(()) => Health::ok(format!("successfully wrote CNI configuration file to {}", path.display())),
            Err(error) => {
                Health::failure(format!("failed to write CNI configuration file {}: {error}", path.display()))
            }
        };
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        if fs::read_to_string(path).is_ok_and(|found| found == self.text) {
            return self.set_others_aside(path);
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let beside = path.with_file_name(format!(".{name}.new"));
        fs::write(&beside, &self.text)?;
        fs::set_permissions(&beside, Permissions::from_mode(0o600))?;
        fs::rename(&beside, path)?;
        self.set_others_aside(path)
    }

    fn set_others_aside(&self, path: &Path) -> io::Result<()> {
        let Some(directory) = path.parent().filter(|_| self.exclusive) else { return Ok(()) };
        for entry in fs::read_dir(directory)? {
            let other = entry?.path();
            let is_config = other
                .extension()
                .and_then(|extension| extension.to_str())
                .is_some_and(|extension| ["conf", "conflist", "json"].contains(&extension));
            if is_config && other != path {
                tracing::info!(file = %other.display(), "setting another CNI configuration aside");
                fs::rename(&other, other.with_added_extension(BACKUP))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mk_conflist(path: Option<&Path>, exclusive: bool) -> Conflist {
        let mut settings = Settings::load(None, "n1").expect("defaults");
        settings.cni_conf = path.map(Path::to_owned);
        settings.cni_exclusive = exclusive;
        Conflist::new(&settings)
    }

    #[test]
    fn the_file_is_written_and_others_are_set_aside() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("05-cilium.conflist");
        fs::write(dir.path().join("10-other.conf"), "{}").expect("writes");
        fs::write(dir.path().join("README"), "").expect("writes");
        let mut conflist = mk_conflist(Some(&path), true);
        assert_eq!((conflist.health.state.as_str(), path.exists()), ("Failure", false));
        conflist.ensure();
        assert_eq!(
            conflist.health.msg,
            format!("successfully wrote CNI configuration file to {}", path.display())
        );
        let list: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(&path).expect("reads")).expect("is JSON");
        assert_eq!(
            (list["name"].as_str(), list["plugins"][0]["type"].as_str()),
            (Some("cilium"), Some("cilium-cni"))
        );
        assert_eq!(fs::metadata(&path).expect("is there").permissions().mode() & 0o777, 0o600);
        assert!(dir.path().join("10-other.conf.cilium_bak").exists() && dir.path().join("README").exists());
        fs::remove_file(&path).expect("removes");
        conflist.ensure();
        assert!(path.exists(), "it comes back");
    }

    #[test]
    fn others_stay_unless_it_is_to_be_exclusive() {
        let dir = tempfile::tempdir().expect("temporary directory");
        fs::write(dir.path().join("10-other.conf"), "{}").expect("writes");
        mk_conflist(Some(&dir.path().join("05-cilium.conflist")), false).ensure();
        assert!(dir.path().join("10-other.conf").exists());
    }

    #[test]
    fn failure_and_absence_are_said() {
        let mut conflist = mk_conflist(Some(Path::new("/nonexistent/05-cilium.conflist")), true);
        conflist.ensure();
        assert!(conflist.health.msg.starts_with("failed to write CNI configuration file /nonexistent/"));
        assert_eq!(mk_conflist(None, true).health.state, "Disabled");
    }
}
