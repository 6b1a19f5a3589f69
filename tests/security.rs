//! The tables of `tests/security` are what they say: ids stand once, states are known, and every test and every case of
//! the wire probe that a row names is there. A test that a row names has the row's id in its comment, and the other way
//! round.

#![expect(clippy::unwrap_used, reason = "a test that cannot read the tables has failed")]

mod common;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use common::{Row, above_test, has_reason, named, root, rows};

const README: &str = "tests/security/README.md";
const FAULTS: &str = "tests/security/faults.md";
/// What a row may be.
const STATES: [&str; 4] = ["tested", "probe", "waits", "record"];
/// The tables of the readme by the letter of their ids.
const TABLES: [(char, &str); 3] = [
    ('T', "Traefik's advisories"),
    ('V', "Other projects' advisories"),
    ('G', "Classes of attacks"),
];

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap()
}

/// The table of the readme that has this title.
fn table(readme: &str, title: &str) -> Vec<Row> {
    let (before, behind) = readme.split_once(&format!("\n## {title}\n")).unwrap();
    let text = behind.split("\n## ").next().unwrap();
    let line = before.lines().count() + 2;
    rows(README, &format!("{}{text}", "\n".repeat(line)), 4, 2)
}

/// All rows, by the letter of their table.
fn tables() -> Vec<(char, Vec<Row>)> {
    let readme = read(README);
    let mut all: Vec<_> =
        TABLES.iter().map(|(letter, title)| (*letter, table(&readme, title))).collect();
    all.push(('F', rows(FAULTS, &read(FAULTS), 6, 3)));
    all
}

/// Whether `text` has this id, and not only one that begins with it.
fn names(text: &str, id: &str) -> bool {
    text.match_indices(id).any(|(at, _)| {
        !text[at + id.len()..].starts_with(|next: char| next.is_ascii_digit())
            && !text[..at].ends_with(|before: char| before.is_ascii_alphanumeric())
    })
}

/// The file of a test as a row names it: the table of faults leaves out the folder of most.
fn path_of(file: &str) -> String {
    let folder = if file.contains('/') { "" } else { "tests/it/" };
    format!("{folder}{file}.rs")
}

#[test]
fn ids_stand_once_and_in_order() {
    let mut count = 0;
    for (letter, rows) in tables() {
        let mut last = 0;
        for Row { place, id, .. } in rows {
            let number = id.strip_prefix(&format!("{letter}-")).filter(|number| number.len() > 1);
            let number: Option<u32> = number.and_then(|number| number.parse().ok());
            let number = number.unwrap_or_else(|| panic!("{place}: `{id}` is no id of this table"));
            assert!(number > last, "{place}: {id} stands twice, or not in its place");
            last = number;
            count += 1;
        }
    }
    assert!(count > 150, "the tables are not where they were");
}

#[test]
fn every_row_has_what_holds_it_or_its_reason() {
    let probe = read("tests/tools/wire_probe.py");
    let mut wrong = String::new();
    let mut files = HashMap::new();
    for row in tables().into_iter().flat_map(|(_, rows)| rows) {
        let Row { place, id, state, proof } = &row;
        let tests = named(proof);
        let cases: Vec<_> =
            proof.split('`').skip(1).step_by(2).filter(|text| is_case(text)).collect();
        let fault = match state.as_str() {
            "tested" if tests.is_empty() && !proof.starts_with("as ") => Some("names no test"),
            "probe" if cases.is_empty() => Some("names no case"),
            "waits" | "record" if !has_reason(proof) => Some("gives no reason"),
            "waits" | "record" | "probe" if !tests.is_empty() => Some("names tests: it is tested"),
            state if !STATES.contains(&state) => Some("is in a state that nobody knows"),
            _ => None,
        };
        if let Some(fault) = fault {
            let _ = writeln!(wrong, "{place}: {id} {fault}");
        }
        for case in cases {
            // A class, or one of it, as the probe's source quotes it.
            let quoted = match case.strip_suffix('*') {
                Some(class) => format!("\"{class}"),
                None => format!("\"{case}\""),
            };
            if !probe.contains(&quoted) {
                let _ = writeln!(wrong, "{place}: {id} names `{case}`, which is no case");
            }
        }
        for (file, name) in tests {
            let path = path_of(file);
            let text = files.entry(path.clone()).or_insert_with_key(|path| {
                fs::read_to_string(root().join(path)).unwrap_or_default()
            });
            let Some(head) = above_test(text, name) else {
                let _ = writeln!(wrong, "{place}: {id} names `{path}::{name}`, which is no test");
                continue;
            };
            if !names(&comment(&head), id) {
                let _ = writeln!(wrong, "{place}: the comment of `{path}::{name}` has no {id}");
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

fn comment(head: &[&str]) -> String {
    head.iter().filter(|line| line.starts_with("///")).copied().collect()
}

/// `PA-19`, or `PA-*` for a class.
fn is_case(text: &str) -> bool {
    text.split_once('-').is_some_and(|(class, number)| {
        class.len() == 2
            && class.chars().all(|char| char.is_ascii_uppercase() || char.is_ascii_digit())
            && (number == "*"
                || number.len() == 2 && number.chars().all(|char| char.is_ascii_digit()))
    })
}

/// All source files below a folder.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}

/// A row that does not know all of its tests looks less held than it is, and loses them unseen.
#[test]
fn every_test_that_names_a_row_is_named_by_it() {
    let rows: Vec<_> = tables().into_iter().flat_map(|(_, rows)| rows).collect();
    let mut wrong = String::new();
    for path in ["tests/it", "src"].iter().flat_map(|folder| sources(&root().join(folder))) {
        let file = path.strip_prefix(root()).unwrap().display().to_string();
        let text = fs::read_to_string(&path).unwrap();
        let tests = text.lines().filter_map(|line| {
            let line = line.trim_start();
            let line = line.strip_prefix("async ").unwrap_or(line);
            Some(line.strip_prefix("fn ")?.split_once('(')?.0)
        });
        for test in tests {
            let Some(head) = above_test(&text, test) else { continue };
            let comment = comment(&head);
            for row in rows.iter().filter(|row| names(&comment, &row.id)) {
                let is_it = |(known, name): &(&str, &str)| path_of(known) == file && *name == test;
                if !row.proof.starts_with("as ") && !named(&row.proof).iter().any(is_it) {
                    let _ =
                        writeln!(wrong, "{}: {} leaves out `{file}::{test}`", row.place, row.id);
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn the_totals_are_those_of_the_tables() {
    let readme = read(README);
    let mut all = [0; STATES.len()];
    let mut missing = String::new();
    let mut expect = |name: &str, counts: [usize; STATES.len()]| {
        let counts = counts.map(|count| count.to_string()).join(" | ");
        let line = format!("| {name} | {counts} |");
        if !readme.lines().any(|found| found == line) {
            let _ = writeln!(missing, "{line}");
        }
    };
    for (_, title) in TABLES {
        let rows = table(&readme, title);
        let counts = STATES.map(|state| rows.iter().filter(|row| row.state == state).count());
        for (sum, count) in all.iter_mut().zip(counts) {
            *sum += count;
        }
        expect(title, counts);
    }
    expect("together", all);
    assert!(missing.is_empty(), "{README} should have these lines:\n{missing}");
}
