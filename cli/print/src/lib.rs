//! What the command line programs print: text in columns, or data as JSON and YAML.

pub mod bgp;
pub mod output;
pub mod table;
