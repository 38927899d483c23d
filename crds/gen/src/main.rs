//! Prints the CustomResourceDefinitions, or writes one file for each.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Parser;
use crd_gen::{file_name, render};

/// Prints the CustomResourceDefinitions of all kinds as YAML.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Write one file for each kind into this directory instead of printing.
    #[arg(long, value_name = "DIR")]
    write: Option<PathBuf>,
}

fn main() -> Result<()> {
    match Args::parse().write {
        Some(directory) => write(&directory),
        None => print(),
    }
}

/// Prints all definitions as one stream of documents.
fn print() -> Result<()> {
    for crd in cilium_api::all() {
        print!("---\n{}", render(&crd)?);
    }
    Ok(())
}

/// Writes all definitions into `directory`, and makes it if need be.
fn write(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot make directory {}", directory.display()))?;
    for crd in cilium_api::all() {
        let path = directory.join(file_name(&crd));
        fs::write(&path, render(&crd)?).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
