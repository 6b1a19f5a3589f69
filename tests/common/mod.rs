//! Tables in Markdown that name tests: their rows, and whether what they name is there.

use std::path::Path;

/// One line of a table.
pub(crate) struct Row {
    /// File and line, for messages.
    pub(crate) place: String,
    pub(crate) id: String,
    pub(crate) state: String,
    /// Tests, and a reason behind them.
    pub(crate) proof: String,
}

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The rows of all tables in a text, whose lines have so many cells: first an id, and at `state` a state with tests or a
/// reason behind it.
pub(crate) fn rows(file: &str, text: &str, cells: usize, state: usize) -> Vec<Row> {
    let lines = text.lines().enumerate();
    let row = |(number, line)| row(&format!("{file}:{}", number + 1), line, cells, state);
    lines.filter_map(row).collect()
}

/// `None` for what is no row.
fn row(place: &str, line: &str, count: usize, state: usize) -> Option<Row> {
    let line = line.trim().strip_prefix('|')?.strip_suffix('|')?.replace("\\|", "\u{1}");
    let cells: Vec<_> = line.split('|').map(|cell| cell.trim().to_owned()).collect();
    assert_eq!(cells.len(), count, "{place}: a row has {count} cells");
    let cell = |at: usize| cells.get(at).cloned().unwrap_or_default();
    let id = cell(0);
    if !id.contains(|char: char| char.is_ascii_digit()) {
        return None;
    }
    let says_nothing = cells.iter().take(state).any(String::is_empty);
    assert!(!says_nothing, "{place}: {id} does not say what it is about");
    Some(Row { place: place.to_owned(), id, state: cell(state), proof: cell(state + 1) })
}

/// The tests that a cell names: `file.rs::test`, each in backquotes.
pub(crate) fn named(proof: &str) -> Vec<(&str, &str)> {
    let quoted = proof.split('`').skip(1).step_by(2);
    quoted.filter_map(|text| text.split_once(".rs::")).collect()
}

/// Whether there is more in a cell than what stands in backquotes.
pub(crate) fn has_reason(proof: &str) -> bool {
    proof.split('`').step_by(2).any(|text| text.contains(char::is_alphabetic))
}

/// The comment and the attributes of the test of this name, line by line from the last one; `None` if there is no
/// function that an attribute makes a test.
pub(crate) fn above_test<'a>(text: &'a str, name: &str) -> Option<Vec<&'a str>> {
    let lines: Vec<_> = text.lines().map(str::trim_start).collect();
    let starts = [format!("fn {name}("), format!("async fn {name}(")];
    let is_test = |line: &&str| line.starts_with("#[test]") || line.starts_with("#[tokio::test");
    let mut heads = lines.iter().enumerate().filter_map(|(number, line)| {
        if !starts.iter().any(|start| line.starts_with(start.as_str())) {
            return None;
        }
        let above = lines.get(..number)?.iter().rev().copied();
        let head = above.take_while(|line| line.starts_with("#[") || line.starts_with("//"));
        Some(head.collect::<Vec<_>>())
    });
    heads.find(|head| head.iter().any(is_test))
}
