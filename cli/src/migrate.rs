//! `cilium migrate metallb`.

use std::process::ExitCode;

use cilium_metallb::{Options, Source, convert};
use cilium_print::output::{encode, print};

use crate::args::{Cli, MetallbArgs};
use crate::files;

/// Converts, and prints. 1 when something has no counterpart, or another meaning.
///
/// # Errors
/// A file or an object cannot be read; nothing is printed then.
pub(crate) fn run(cli: &Cli, args: &MetallbArgs) -> anyhow::Result<ExitCode> {
    let texts = files::read(&args.filename)?;
    let names: Vec<String> = args.filename.iter().map(|path| path.display().to_string()).collect();
    let sources: Vec<Source<'_>> =
        names.iter().zip(&texts).map(|(name, text)| Source { name, text }).collect();
    let options = Options {
        namespace: cli.namespace.clone().unwrap_or_else(|| "default".to_owned()),
        moved_label: args.moved_label.clone(),
        ignore_exclude_lb: args.ignore_exclude_lb,
    };
    let converted = convert(&sources, &options)?;
    let text = match args.output.output {
        Some(format) => encode(&converted, format)?,
        None => converted.text()?,
    };
    print(&text)?;
    eprint!("{}", converted.report());
    Ok(if converted.is_complete() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
