//! Lists of the API as tables or data.

use cilium_rest::Client;
use serde::Serialize;
use serde::de::DeserializeOwned;

use cilium_print::output::{TableOutput, encode, print};
use cilium_print::table::{Line, align};

/// An element of a list of the API.
pub(crate) trait Row: Serialize + DeserializeOwned {
    /// Where the API has the list.
    const PATH: &'static str;
    /// Header lines.
    const HEADERS: &'static [&'static [&'static str]];

    /// By what rows are sorted.
    fn order(&self) -> impl Ord;

    /// The row in a table.
    fn lines(&self) -> Vec<Line>;
}

/// Prints what the API lists.
///
/// # Errors
/// The agent does not answer, or the output cannot be written.
pub(crate) fn list<T: Row>(client: &Client, output: &TableOutput) -> anyhow::Result<()> {
    show(client.get::<Vec<T>>(T::PATH)?, output)
}

/// Prints rows in their order.
///
/// # Errors
/// The output cannot be written.
pub(crate) fn show<T: Row>(mut rows: Vec<T>, output: &TableOutput) -> anyhow::Result<()> {
    rows.sort_by(|one, other| one.order().cmp(&other.order()));
    let text = match output.data.output {
        Some(format) => encode(&rows, format)?,
        None => align(&lines(&rows, output.no_headers)),
    };
    Ok(print(&text)?)
}

fn lines<T: Row>(rows: &[T], no_headers: bool) -> Vec<Line> {
    let headers = if no_headers { &[] } else { T::HEADERS };
    let headers = headers.iter().map(|header| header.iter().map(|&cell| cell.to_owned()).collect());
    headers.chain(rows.iter().flat_map(Row::lines)).collect()
}
