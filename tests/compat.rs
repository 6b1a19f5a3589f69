//! The tables of `tests/compat` are what they say: ids stand once, states are known, and every test
//! that a row names is there.

#![expect(clippy::unwrap_used, reason = "a test that cannot read the tables has failed")]

mod common;

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use common::{Row, above_test, has_reason, named, root, rows};

/// What a row may be.
const STATES: [&str; 4] = ["tested", "differs", "not supported", "elsewhere"];

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
        let rows = rows(&name, &text, 4, 2);
        (name, rows)
    };
    tables.map(read).collect()
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
        let fault = match state.as_str() {
            state if !STATES.contains(&state) => Some("is in a state that nobody knows"),
            "tested" | "differs" if tests.is_empty() => Some("names no test"),
            state if state != "tested" && !has_reason(proof) => Some("gives no reason"),
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
            if above_test(text, name).is_none() {
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
