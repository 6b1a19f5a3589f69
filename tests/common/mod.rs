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

/// The rows of all tables in a text.
pub(crate) fn rows(file: &str, text: &str) -> Vec<Row> {
    text.lines().enumerate().filter_map(|(number, line)| row(file, number + 1, line)).collect()
}

/// `| id | what it is about | state | tests or reason |`; `None` for what is no row.
fn row(file: &str, number: usize, line: &str) -> Option<Row> {
    let line = line.trim().strip_prefix('|')?.strip_suffix('|')?.replace("\\|", "\u{1}");
    let cells: Vec<_> = line.split('|').map(|cell| cell.trim().to_owned()).collect();
    assert_eq!(cells.len(), 4, "{file}:{number}: a row has four cells");
    let [id, about, state, proof] = cells.try_into().ok()?;
    if id == "id" || id.chars().all(|char| matches!(char, '-' | ':')) {
        return None;
    }
    assert!(!about.is_empty(), "{file}:{number}: {id} does not say what it is about");
    Some(Row { place: format!("{file}:{number}"), id, state, proof })
}

/// What stands in backquotes in a cell.
pub(crate) fn quoted(proof: &str) -> impl Iterator<Item = &str> {
    proof.split('`').skip(1).step_by(2)
}

/// The tests that a cell names: `file.rs::test`, each in backquotes.
pub(crate) fn named(proof: &str) -> Vec<(&str, &str)> {
    quoted(proof).filter_map(|text| text.split_once(".rs::")).collect()
}

/// The comment and the attributes of the test of this name, line by line from the last one; `None` if there is no
/// function that an attribute makes a test.
pub(crate) fn above_test<'a>(text: &'a str, name: &str) -> Option<Vec<&'a str>> {
    let lines: Vec<_> = text.lines().map(str::trim_start).collect();
    let starts = [format!("fn {name}("), format!("async fn {name}(")];
    let heads = lines.iter().enumerate().filter_map(|(number, line)| {
        let attributes = lines.get(..number)?.iter().rev();
        starts.iter().any(|start| line.starts_with(start.as_str())).then(|| {
            attributes
                .take_while(|line| line.starts_with("#[") || line.starts_with("//"))
                .copied()
                .collect::<Vec<_>>()
        })
    });
    let is_test = |line: &&str| line.starts_with("#[test]") || line.starts_with("#[tokio::test");
    heads.into_iter().find(|head| head.iter().any(|line| is_test(&line)))
}

/// Whether the text behind the first quotes or before them is words.
pub(crate) fn has_reason(proof: &str) -> bool {
    proof.split('`').step_by(2).any(|text| text.contains(char::is_alphabetic))
}
