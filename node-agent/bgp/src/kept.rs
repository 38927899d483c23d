//! Configuration and prefixes on disk, so that a restarted speaker needs no agent.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use cilium_rest::bgp::{Config, Routes};
use serde_json::Error as JsonError;

/// The folder of the speaker.
#[derive(Clone, Debug)]
pub struct Kept {
    directory: PathBuf,
}

impl Kept {
    /// Keeps things in `directory`, which it makes.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn open(directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        Ok(Self { directory: directory.to_owned() })
    }

    /// The configuration that was kept last. A file that cannot be read is as good as none: the agent tells it again.
    pub fn config(&self) -> Option<Config> {
        self.load("config.json", |bytes| serde_json::from_slice(bytes))
    }

    /// The prefixes that were kept last.
    pub fn routes(&self) -> Option<Routes> {
        self.load("routes.json", |bytes| serde_json::from_slice(bytes))
    }

    fn load<T>(&self, name: &str, read: impl Fn(&[u8]) -> Result<T, JsonError>) -> Option<T> {
        let path = self.directory.join(name);
        let bytes = fs::read(&path).ok()?;
        read(&bytes)
            .inspect_err(
                |error| tracing::warn!(%error, file = %path.display(), "what was kept cannot be read"),
            )
            .ok()
    }

    /// Keeps a configuration. It holds passwords: only root reads it.
    ///
    /// # Errors
    /// The disk does not take it.
    pub fn keep_config(&self, config: &Config) -> io::Result<()> {
        self.save("config.json", &serde_json::to_vec(config)?)
    }

    /// Keeps prefixes.
    ///
    /// # Errors
    /// The disk does not take them.
    pub fn keep_routes(&self, routes: &Routes) -> io::Result<()> {
        self.save("routes.json", &serde_json::to_vec(routes)?)
    }

    /// The file is there whole or not at all.
    fn save(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let beside = self.directory.join(format!("{name}.new"));
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        file.write_all(bytes)?;
        fs::rename(&beside, self.directory.join(name))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_is_kept_is_found_again_by_root_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bgp");
        let kept = Kept::open(&path).unwrap();
        assert_eq!((kept.config(), kept.routes()), (None, None));
        let routes = Routes::from([("10.0.0.1/32".parse().unwrap(), vec!["a".to_owned()])]);
        kept.keep_routes(&Routes::new()).unwrap();
        kept.keep_routes(&routes).unwrap();
        kept.keep_config(&Config::default()).unwrap();
        let again = Kept::open(&path).unwrap();
        assert_eq!((again.config(), again.routes()), (Some(Config::default()), Some(routes)));
        for file in fs::read_dir(&path).unwrap() {
            let file = file.unwrap();
            let mode = file.metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{:?}", file.file_name());
        }
        assert_eq!(fs::read_dir(&path).unwrap().count(), 2, "nothing is left beside them");
    }

    #[test]
    fn what_cannot_be_read_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("config.json"), b"{\"instances\":").unwrap();
        fs::write(folder.path().join("routes.json.new"), b"{}").unwrap();
        let kept = Kept::open(folder.path()).unwrap();
        assert_eq!((kept.config(), kept.routes()), (None, None));
        kept.keep_routes(&Routes::new()).unwrap();
        assert_eq!(kept.routes(), Some(Routes::new()));
    }
}
