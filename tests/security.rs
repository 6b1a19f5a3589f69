//! The tables of `tests/security` are what they say: ids stand once, states are known, and every test and every case of
//! the wire probe that a row names is there. A test that a row names has the row's id in its comment.

#![expect(clippy::unwrap_used, reason = "a test that cannot read the tables has failed")]

mod common;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use common::{Row, above_test, has_reason, named, quoted, root, rows};

/// What a row may be.
const STATES: [&str; 4] = ["tested", "probe", "waits", "record"];
/// The tables by the letter of their ids.
const TABLES: [(char, &str); 4] = [
    ('T', "Traefik's advisories"),
    ('V', "Other projects' advisories"),
    ('G', "Classes of attacks"),
    ('F', "Faults"),
];

fn readme() -> String {
    fs::read_to_string(root().join("tests/security/README.md")).unwrap()
}

/// The table by its title.
fn table(readme: &str, title: &str) -> Vec<Row> {
    let (_, behind) = readme.split_once(&format!("\n## {title}\n")).unwrap();
    let lines = readme.lines().count() - behind.lines().count();
    let text = behind.split("\n## ").next().unwrap();
    rows("tests/security/README.md", &format!("{}{text}", "\n".repeat(lines)))
}

/// Whether `text` has this id, and not only one that begins with it.
fn names(text: &str, id: &str) -> bool {
    text.match_indices(id).any(|(at, _)| {
        !text[at + id.len()..].starts_with(|next: char| next.is_ascii_digit())
            && !text[..at].ends_with(|before: char| before.is_ascii_alphanumeric())
    })
}

#[test]
fn ids_stand_once_and_in_order() {
    let readme = readme();
    let mut count = 0;
    for (letter, title) in TABLES {
        let mut last = 0;
        for Row { place, id, .. } in table(&readme, title) {
            let number = id.strip_prefix(&format!("{letter}-")).filter(|number| number.len() > 1);
            let number: Option<u32> = number.and_then(|number| number.parse().ok());
            let number = number.unwrap_or_else(|| panic!("{place}: `{id}` is no id of this table"));
            assert!(number > last, "{place}: {id} stands twice, or not in its place");
            last = number;
            count += 1;
        }
    }
    assert!(count > 100, "the tables are not where they were");
}

#[test]
fn every_row_has_what_holds_it_or_its_reason() {
    let readme = readme();
    let probe = fs::read_to_string(root().join("tests/tools/wire_probe.py")).unwrap();
    let mut wrong = String::new();
    let mut files = HashMap::new();
    for row in TABLES.iter().flat_map(|(_, title)| table(&readme, title)) {
        let Row { place, id, state, proof } = &row;
        let tests = named(proof);
        let cases: Vec<_> = quoted(proof).filter(|text| is_case(text)).collect();
        let fault = match state.as_str() {
            "tested" if tests.is_empty() => Some("names no test"),
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
            let quote = format!("\"{}", case.strip_suffix('*').unwrap_or(case));
            let end = if case.ends_with('*') { "" } else { "\"" };
            if !probe.contains(&format!("{quote}{end}")) {
                let _ = writeln!(wrong, "{place}: {id} names `{case}`, which is no case");
            }
        }
        for (file, name) in tests {
            let path = format!("{file}.rs");
            let text = files.entry(path.clone()).or_insert_with_key(|path| {
                fs::read_to_string(root().join(path)).unwrap_or_default()
            });
            match above_test(text, name) {
                None => {
                    let _ =
                        writeln!(wrong, "{place}: {id} names `{path}::{name}`, which is no test");
                }
                Some(head)
                    if head.iter().any(|line| line.starts_with("///") && names(line, id)) => {}
                Some(_) => {
                    let _ = writeln!(wrong, "{place}: the comment of `{path}::{name}` has no {id}");
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
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

/// Ids in comments that no row knows, or whose row does not know the test: a row would look less held than it is.
#[test]
fn every_test_that_names_a_row_is_named_by_it() {
    let readme = readme();
    let rows: Vec<_> = TABLES.iter().flat_map(|(_, title)| table(&readme, title)).collect();
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
            let comment: String =
                head.iter().filter(|line| line.starts_with("///")).copied().collect();
            for row in rows.iter().filter(|row| names(&comment, &row.id)) {
                if !row.proof.contains(&format!("`{file}::{test}`")) {
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
    let readme = readme();
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
    assert!(missing.is_empty(), "tests/security/README.md should have these lines:\n{missing}");
}
