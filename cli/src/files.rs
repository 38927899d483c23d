//! Files that options name.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// The text of each; `-` is standard input.
///
/// # Errors
/// One of them cannot be read.
pub(crate) fn read(paths: &[PathBuf]) -> anyhow::Result<Vec<String>> {
    paths.iter().map(|path| read_one(path)).collect()
}

fn read_one(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let read = if path.as_os_str() == "-" {
        std::io::stdin().read_to_string(&mut text).map(drop)
    } else {
        std::fs::read_to_string(path).map(|content| text = content)
    };
    read.with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text)
}
