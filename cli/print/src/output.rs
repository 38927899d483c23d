//! What leaves the program.

use std::io::{self, Write as _};

use clap::{Args, ValueEnum};
use serde::Serialize;

/// How data is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// JSON, indented.
    Json,
    /// YAML.
    Yaml,
}

/// Option of commands that have data.
#[derive(Clone, Debug, Args)]
pub struct DataOutput {
    /// Print the data as json or yaml
    #[arg(short, long = "output", value_name = "FORMAT")]
    pub output: Option<Format>,
}

/// Options of commands that print a table.
#[derive(Clone, Debug, Args)]
pub struct TableOutput {
    /// Format of data in place of the table.
    #[command(flatten)]
    pub data: DataOutput,
    /// Leave out the header lines
    #[arg(long)]
    pub no_headers: bool,
}

/// The value as text in a format.
///
/// # Errors
/// Never in practice: the models are plain data.
pub fn encode<T: Serialize + ?Sized>(value: &T, format: Format) -> anyhow::Result<String> {
    match format {
        Format::Json => Ok(serde_json::to_string_pretty(value)? + "\n"),
        Format::Yaml => Ok(serde_yaml::to_string(value)?),
    }
}

/// Writes to standard output at once.
///
/// # Errors
/// As the output has them; see [`is_closed`].
pub fn print(text: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    output.write_all(text.as_bytes())?;
    output.flush()
}

/// Whether the reader of standard output went away (`… | head`), which is no fault.
pub fn is_closed(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
