//! The tables of `tests/compat` are what they say: ids stand once, states are known, and every test
//! that a row names is there.

#![expect(clippy::unwrap_used, reason = "a test that cannot read the tables has failed")]

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// What a row may be.
const STATES: [&str; 4] = ["tested", "differs", "not supported", "elsewhere"];

/// One line of a table.
struct Row {
    /// File and line, for messages.
    place: String,
    id: String,
    state: String,
    /// Tests, and a reason behind them.
    proof: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The tables by the names of their files.
fn tables() -> BTreeMap<String, Vec<Row>> {
    let folder = root().join("tests/compat");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let tables = files.filter(|path| {
        path.extension().is_some_and(|extension| extension == "md") && !path.ends_with("README.md")
    });
    let read = |path: PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&path).unwrap();
        let rows =
            text.lines().enumerate().filter_map(|(number, line)| row(&name, number + 1, line));
        (name.clone(), rows.collect())
    };
    tables.map(read).collect()
}

/// `| id | what is held | state | tests or reason |`; `None` for what is no row.
fn row(file: &str, number: usize, line: &str) -> Option<Row> {
    let line = line.trim().strip_prefix('|')?.strip_suffix('|')?.replace("\\|", "\u{1}");
    let cells: Vec<_> = line.split('|').map(|cell| cell.trim().to_owned()).collect();
    assert_eq!(cells.len(), 4, "{file}:{number}: a row has four cells");
    let [id, held, state, proof] = cells.try_into().ok()?;
    if id == "id" || id.chars().all(|char| matches!(char, '-' | ':')) {
        return None;
    }
    assert!(!held.is_empty(), "{file}:{number}: {id} does not say what is held");
    Some(Row { place: format!("{file}:{number}"), id, state, proof })
}

/// The tests that a cell names: `file.rs::test`, each in backquotes.
fn named(proof: &str) -> Vec<(&str, &str)> {
    let quoted = proof.split('`').skip(1).step_by(2);
    quoted.filter_map(|text| text.split_once(".rs::")).collect()
}

/// Whether there is a test of this name: a function with an attribute that makes it one.
fn is_test(text: &str, name: &str) -> bool {
    let lines: Vec<_> = text.lines().map(str::trim_start).collect();
    let starts = [format!("fn {name}("), format!("async fn {name}(")];
    lines.iter().enumerate().any(|(number, line)| {
        let attributes = lines[..number].iter().rev();
        starts.iter().any(|start| line.starts_with(start.as_str()))
            && attributes
                .take_while(|line| line.starts_with("#[") || line.starts_with("//"))
                .any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test"))
    })
}

#[test]
fn ids_stand_once() {
    let mut seen = HashMap::new();
    for row in tables().values().flatten() {
        let (document, number) = row.id.split_once('-').unwrap_or_default();
        let is_id = !document.is_empty()
            && document.chars().all(|char| char.is_ascii_uppercase())
            && number.starts_with(|char: char| char.is_ascii_digit());
        assert!(is_id, "{}: `{}` is no id", row.place, row.id);
        let before = seen.insert(row.id.clone(), row.place.clone());
        assert!(
            before.is_none(),
            "{}: {} stands at {} already",
            row.place,
            row.id,
            before.unwrap()
        );
    }
    assert!(seen.len() > 400, "the tables are not where they were");
}

#[test]
fn every_row_has_its_proof_or_its_reason() {
    let mut wrong = String::new();
    let mut files = HashMap::new();
    for row in tables().values().flatten() {
        let Row { place, id, state, proof } = row;
        let tests = named(proof);
        let reason = proof.split('`').step_by(2).any(|text| text.contains(char::is_alphabetic));
        let fault = match state.as_str() {
            state if !STATES.contains(&state) => Some("is in a state that nobody knows"),
            "tested" | "differs" if tests.is_empty() => Some("names no test"),
            state if state != "tested" && !reason => Some("gives no reason"),
            _ => None,
        };
        if let Some(fault) = fault {
            let _ = writeln!(wrong, "{place}: {id} {fault}");
        }
        for (file, name) in tests {
            let path = format!("{file}.rs");
            let text = files.entry(path.clone()).or_insert_with_key(|path| {
                fs::read_to_string(root().join(path)).unwrap_or_default()
            });
            if !is_test(text, name) {
                let _ = writeln!(wrong, "{place}: {id} names `{path}::{name}`, which is no test");
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn the_readme_counts_as_the_tables_do() {
    let readme = fs::read_to_string(root().join("tests/compat/README.md")).unwrap();
    let mut all = [0; STATES.len()];
    let mut missing = String::new();
    let mut expect = |name: &str, counts: [usize; STATES.len()]| {
        let counts = counts.map(|count| count.to_string()).join(" | ");
        let line = format!("| {name} | {counts} |");
        if !readme.lines().any(|found| found == line) {
            let _ = writeln!(missing, "{line}");
        }
    };
    for (name, rows) in tables() {
        let counts = STATES.map(|state| rows.iter().filter(|row| row.state == state).count());
        for (sum, count) in all.iter_mut().zip(counts) {
            *sum += count;
        }
        expect(&format!("[{name}]({name})"), counts);
    }
    expect("together", all);
    assert!(missing.is_empty(), "tests/compat/README.md should have these lines:\n{missing}");
}
