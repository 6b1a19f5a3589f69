//! Rules of the house that no compiler checks: who may import whom, how files begin, how long they
//! are, and that the shelf's list is complete.

#![expect(clippy::unwrap_used, reason = "a test that cannot read the sources has failed")]

use std::fs;
use std::path::{Path, PathBuf};

/// Modules and their ranks: a module imports only from lower ones, or from itself.
const RANKS: &[(&str, i8)] = &[
    ("sync", -1),
    ("exchange", 0),
    ("state", 0),
    ("values", 0),
    ("wire", 0),
    ("rule", 1),
    ("tls", 1),
    ("observability", 1),
    ("upstream", 2),
    ("middleware", 3),
    ("service", 3),
    ("router", 4),
    ("config", 5),
    ("compile", 6),
    ("provider", 6),
    ("entry_point", 6),
    ("api", 6),
    ("admin", 6),
    ("reload", 7),
    ("app", 8),
    ("demo", 8),
];

/// Imports between modules of one rank, or upwards, with the reason.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    ("api", "compile", "the API shows what compiling reports"),
    ("exchange", "wire", "one function judges hosts"),
];

/// Files of `config` that belong to the static configuration and stand at rank 7.
const STATIC_FILES: &[&str] = &["static_config", "entry_points", "loader", "resolvers"];

/// Lines of code that a file may have, tests not counted.
const LONGEST: usize = 650;

fn sources() -> Vec<PathBuf> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    assert!(found.len() > 50, "the sources are not where they were");
    found.sort();
    found
}

fn relative(path: &Path) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    path.strip_prefix(root).unwrap().display().to_string()
}

fn rank(module: &str) -> Option<i8> {
    RANKS.iter().find(|(name, _)| *name == module).map(|(_, rank)| *rank)
}

/// The part of a file that is not its tests.
fn code(text: &str) -> &str {
    text.split("\n#[cfg(test)]\nmod ").next().unwrap_or(text)
}

#[test]
fn modules_import_only_from_lower_ranks() {
    let mut wrong = Vec::new();
    let mut idle = EXCEPTIONS.to_vec();
    for path in sources() {
        let name = relative(&path);
        let module = name.split(['/', '.']).next().unwrap_or_default().to_owned();
        let Some(mut own) = rank(&module) else { continue };
        if module == "config" && STATIC_FILES.iter().any(|file| name.contains(file)) {
            own = 7;
        }
        let text = fs::read_to_string(&path).unwrap();
        for (_, rest) in code(&text).match_indices("crate::").map(|(at, _)| text.split_at(at)) {
            let rest = rest.trim_start_matches("crate::");
            let imported: Vec<&str> = if let Some(list) = rest.strip_prefix('{') {
                list.split('}').next().unwrap_or_default().split(',').map(str::trim).collect()
            } else {
                vec![rest]
            };
            for import in imported {
                let target = import.split(|c: char| !c.is_alphanumeric() && c != '_').next();
                let target = target.unwrap_or_default();
                let Some(other) = rank(target) else { continue };
                if target == module || other < own {
                    continue;
                }
                let excepts = |(from, to, _): &(&str, &str, &str)| *from == module && *to == target;
                idle.retain(|exception| !excepts(exception));
                if !EXCEPTIONS.iter().any(excepts) {
                    wrong.push(format!(
                        "`{name}` imports `{target}`; {module} is rank {own}, {target} rank {other}"
                    ));
                }
            }
        }
    }
    wrong.dedup();
    for (from, to, reason) in idle {
        wrong.push(format!("the exception `{from}` -> `{to}` ({reason}) excuses nothing"));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_open_with_what_they_are() {
    for path in sources() {
        let text = fs::read_to_string(&path).unwrap();
        let name = relative(&path);
        let first = text.lines().next().unwrap_or_default();
        assert!(first.starts_with("//! ") && first.len() > 12, "`{name}` does not say what it is");
    }
}

#[test]
fn files_are_short_enough_to_read() {
    for path in sources() {
        let name = relative(&path);
        if name.ends_with("tests.rs") || name.contains("/tests/") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let lines = code(&text).lines().count();
        assert!(lines <= LONGEST, "`{name}` has {lines} lines of code; split it");
    }
}

#[test]
fn the_shelf_lists_every_middleware() {
    let shelf = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/middleware");
    let list = fs::read_to_string(shelf.join("mod.rs")).unwrap();
    for entry in fs::read_dir(&shelf).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() || stem == "mod" {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        for implementation in code(&text).split("\nimpl Build for ").skip(1) {
            let config = implementation.split(' ').next().unwrap_or_default();
            assert!(list.contains(config), "`{config}` of `{stem}` is not on the shelf's list");
        }
    }
}

#[test]
fn nothing_is_left_to_do() {
    for path in sources() {
        let text = fs::read_to_string(&path).unwrap();
        for word in ["TODO", "FIXME", "XXX", "HACK"] {
            assert!(!text.contains(word), "`{}` has a {word}", relative(&path));
        }
    }
}
