//! One row a figure: what was measured, against what, and the goal.

use clap::ValueEnum;
use serde_json::json;

/// How to print.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Format {
    /// Columns for people
    Table,
    /// One array of objects
    Json,
}

/// What counts as reached.
#[derive(Clone, Copy)]
pub(crate) enum Goal {
    /// The figure itself is at most this.
    AtMost(f64),
    /// The ratio to the floor is at least this.
    RatioAtLeast(f64),
    /// The ratio to the floor is at most this.
    RatioAtMost(f64),
    /// None: a peer's figure, to be read beside ours.
    Beside,
}

/// A figure.
pub(crate) struct Row {
    /// What was measured.
    pub(crate) what: String,
    /// Its unit.
    pub(crate) unit: &'static str,
    /// Median of the floor of the same run, if there is one.
    pub(crate) floor: Option<f64>,
    /// Median of the product.
    pub(crate) value: f64,
    /// The goal.
    pub(crate) goal: Goal,
}

impl Row {
    fn ratio(&self) -> Option<f64> {
        self.floor.map(|floor| self.value / floor)
    }
    /// `None`: there is nothing to reach.
    fn reached(&self) -> Option<bool> {
        Some(match (self.goal, self.ratio()) {
            (Goal::Beside, _) => return None,
            (Goal::AtMost(limit), _) => self.value <= limit,
            (Goal::RatioAtLeast(limit), Some(ratio)) => ratio >= limit,
            (Goal::RatioAtMost(limit), Some(ratio)) => ratio <= limit,
            _ => false,
        })
    }
    fn goal_text(&self) -> String {
        match self.goal {
            Goal::AtMost(limit) => format!("<= {limit} {}", self.unit),
            Goal::RatioAtLeast(limit) => format!("ratio >= {limit}"),
            Goal::RatioAtMost(limit) => format!("ratio <= {limit}"),
            Goal::Beside => "-".to_owned(),
        }
    }
}

/// Median; 0 for nothing.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// Prints all rows to standard output.
pub(crate) fn print(rows: &[Row], format: Format) -> anyhow::Result<()> {
    match format {
        Format::Json => {
            let rows: Vec<_> = rows
                .iter()
                .map(|row| json!({"what": row.what, "unit": row.unit, "floor": row.floor, "value": row.value, "ratio": row.ratio(), "goal": row.goal_text(), "reached": row.reached()}))
                .collect();
            println!("{}", serde_json::to_string_pretty(&rows)?);
        }
        Format::Table => columns(rows),
    }
    Ok(())
}

fn columns(rows: &[Row]) {
    let optional = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.2}"));
    let width = rows.iter().map(|row| row.what.len()).max().unwrap_or(4).max(4);
    println!("{:width$}  {:>9}  {:>9}  {:>6}  {:16}  REACHED", "WHAT", "FLOOR", "MEASURED", "RATIO", "GOAL");
    for row in rows {
        println!(
            "{:width$}  {:>9}  {:>9.2}  {:>6}  {:16}  {}",
            row.what,
            optional(row.floor),
            row.value,
            optional(row.ratio()),
            row.goal_text(),
            row.reached().map_or("-", |reached| if reached { "yes" } else { "NO" }),
        );
    }
}
