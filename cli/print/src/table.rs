//! Text in columns.

/// One line of a table, cell by cell.
pub type Line = Vec<String>;

/// Blanks between a column and the next.
const PADDING: usize = 3;

/// Cells of a line.
pub fn line<const N: usize>(cells: [&str; N]) -> Line {
    cells.map(str::to_owned).into()
}

/// Lines of a row of which one column has several values: one on each line, and the other cells on the first only.
pub fn spread(first: Line, column: usize, values: impl IntoIterator<Item = String>) -> Vec<Line> {
    let mut lines = vec![first];
    for (index, value) in values.into_iter().enumerate() {
        if index == lines.len() {
            lines.push(vec![String::new(); lines[0].len()]);
        }
        lines[index][column] = value;
    }
    lines
}

/// The lines as text with aligned columns. A column reaches over neighbouring lines that go on behind it, so a short line
/// between two tables keeps their columns apart.
pub fn align(lines: &[Line]) -> String {
    let mut text = String::new();
    for (line, widths) in lines.iter().zip(widths(lines)) {
        let padded = line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(padded.collect::<String>().trim_end());
        text.push('\n');
    }
    text
}

/// Width of every cell, with what is between it and the next.
fn widths(lines: &[Line]) -> Vec<Vec<usize>> {
    let count = |line: &Line| line.iter().map(|cell| cell.chars().count() + PADDING).collect();
    let mut widths: Vec<Vec<usize>> = lines.iter().map(count).collect();
    let columns = widths.iter().map(Vec::len).max().unwrap_or_default();
    for column in 0..columns {
        let goes_on = |line: &[usize]| line.len() > column + 1;
        for block in widths.chunk_by_mut(|one, next| goes_on(one) == goes_on(next)) {
            if goes_on(&block[0]) {
                let widest = block.iter().map(|line| line[column]).max().unwrap_or_default();
                block.iter_mut().for_each(|line| line[column] = widest);
            }
        }
    }
    widths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let lines = [line(["ID", "NAME", "X"]), line(["1", "müller", "y"]), line(["", "", ""])];
        assert_eq!(align(&lines), "ID   NAME     X\n1    müller   y\n\n");
    }

    #[test]
    fn a_short_line_ends_a_column() {
        let lines = [line(["a", "b"]), line(["a long one"]), line(["ccc", "d"])];
        assert_eq!(align(&lines), "a   b\na long one\nccc   d\n");
        assert_eq!(align(&[]), "");
    }

    #[test]
    fn several_values_stand_below_each_other() {
        let values = |count| (0..count).map(|n: u32| n.to_string());
        let row = || line(["a", "none", "b"]);
        assert_eq!(spread(row(), 1, values(0)), [row()]);
        assert_eq!(spread(row(), 1, values(2)), [line(["a", "0", "b"]), line(["", "1", ""])]);
    }
}
