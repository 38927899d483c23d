//! The log file that the configuration names: one JSON object for every call, so that slow and failed calls can be found
//! after the runtime has forgotten them.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::failure::Failure;

/// A log of this size is set aside under the same name with `.1` behind it; one older log is kept.
const LIMIT: u64 = 1 << 20;

/// How long the steps of a call took, so that a slow one says where.
pub(crate) struct Steps {
    start: Instant,
    last: Instant,
    /// Milliseconds by name.
    taken: BTreeMap<&'static str, f64>,
}

impl Steps {
    /// The call begins now.
    pub(crate) fn start() -> Self {
        let now = Instant::now();
        Self { start: now, last: now, taken: BTreeMap::new() }
    }

    /// A step ends, and the next one begins.
    pub(crate) fn done(&mut self, step: &'static str) {
        let now = Instant::now();
        self.taken.insert(step, milliseconds(now - self.last));
        self.last = now;
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[derive(Serialize)]
struct Entry<'a> {
    /// Seconds since the epoch.
    time: f64,
    command: &'a str,
    container: &'a str,
    pod: &'a str,
    /// From the start of the plugin to its answer.
    milliseconds: f64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    steps: &'a BTreeMap<&'static str, f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

/// Appends what a call came to. A log that cannot be written is no reason to fail a pod: it is said on standard error,
/// which runtimes keep.
pub(crate) fn write(
    path: &Path,
    variable: &impl Fn(&str) -> Option<String>,
    steps: &Steps,
    outcome: &Result<String, Failure>,
) {
    let [command, container, arguments] =
        ["CNI_COMMAND", "CNI_CONTAINERID", "CNI_ARGS"].map(|name| variable(name).unwrap_or_default());
    let entry = Entry {
        time: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64()),
        command: &command,
        container: &container,
        pod: &arguments,
        milliseconds: milliseconds(steps.start.elapsed()),
        steps: &steps.taken,
        error: outcome.as_ref().err().map(|failure| failure.message.as_str()),
    };
    if let Err(error) = append(path, &entry) {
        eprintln!("cilium-cni: cannot write {}: {error}", path.display());
    }
}

/// One write call for one line: plugins that run at the same time do not mix their lines.
fn append(path: &Path, entry: &Entry<'_>) -> io::Result<()> {
    let mut line = serde_json::to_string(entry).map_err(io::Error::other)?;
    line.push('\n');
    open(path)?.write_all(line.as_bytes())
}

fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().append(true).create(true).open(path)?;
    if file.metadata()?.len() < LIMIT {
        return Ok(file);
    }
    let mut old = path.as_os_str().to_owned();
    old.push(".1");
    fs::rename(path, PathBuf::from(old))?;
    OpenOptions::new().append(true).create(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_is_a_line_and_a_full_log_is_set_aside() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("cni.log");
        let variable = |name: &str| (name == "CNI_COMMAND").then(|| "ADD".to_owned());
        write(&path, &variable, &Steps::start(), &Ok(String::new()));
        write(&path, &variable, &Steps::start(), &Err(Failure::new(11, "try later", "")));
        let text = fs::read_to_string(&path).expect("a log");
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!((&lines[0]["command"], &lines[1]["error"]), (&"ADD".into(), &"try later".into()));
        fs::write(&path, vec![b'x'; LIMIT as usize]).expect("a full log");
        write(&path, &variable, &Steps::start(), &Ok(String::new()));
        assert_eq!(fs::read_to_string(&path).expect("a new log").lines().count(), 1);
        assert!(folder.path().join("cni.log.1").exists());
    }
}
