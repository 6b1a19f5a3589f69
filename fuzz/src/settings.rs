//! `settings`: lines that are flags, variables of the environment or labels, all read as static configuration. The
//! three say the same where they can, and no value of an option named like a secret is in what is said of them.

use std::io;
use std::path::Path;
use std::sync::Arc;

use doorward::config::diagnostics::Diagnostic;
use doorward::config::loader::{Loaded, load, search_paths};
use doorward::config::tree::{FlagKind, from_flags, from_labels, is_secret};
use doorward::values::Files;

use super::configuration::print;

/// Reads the lines in every way.
pub fn run(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let lines: Vec<&str> = text.lines().take(40).collect();
    let flags: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
    let variables: Vec<(String, String)> = lines
        .iter()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    assert!(!search_paths(&variables).is_empty());
    let by_flags = load(&flags, &[], &NoFiles);
    told(&by_flags, &lines, '.');
    assert_eq!(said(&load(&flags, &[], &NoFiles)), said(&by_flags), "read twice");
    told(&load(&[], &variables, &NoFiles), &lines, '_');
    same(&lines);
}

/// A flag with its value behind `=` is a label without its root.
fn same(lines: &[&str]) {
    let plain = |line: &&&str| {
        let name = line.split_once('=').map(|(name, _)| name);
        name.is_some_and(|name| !name.is_empty() && !name.starts_with(['-', '=']))
    };
    let lines: Vec<&&str> = lines.iter().filter(plain).collect();
    let flags: Vec<String> = lines.iter().map(|line| format!("--{line}")).collect();
    let labels: Vec<(String, String)> = lines
        .iter()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (format!("root.{name}"), value.to_owned()))
        .collect();
    let by_flags = from_flags(&flags, &|_| FlagKind::Unknown);
    let by_labels = from_labels(&labels, "root", '.', "labels");
    match (by_flags, by_labels) {
        (Ok(flags), Ok(labels)) => assert!(flags.same_as(&labels), "{lines:?}"),
        (Err(flags), Err(labels)) => assert_eq!(flags.len(), labels.len(), "{lines:?}"),
        (flags, labels) => panic!("{lines:?}: {flags:?} but {labels:?}"),
    }
}

fn diagnostics(loaded: &Result<Loaded, Vec<Diagnostic>>) -> &[Diagnostic] {
    match loaded {
        Ok(loaded) => &loaded.warnings,
        Err(errors) => errors,
    }
}

fn said(loaded: &Result<Loaded, Vec<Diagnostic>>) -> Vec<String> {
    diagnostics(loaded).iter().map(|one| one.render(false)).collect()
}

/// Looks for secrets in what is printed of a configuration and of what is wrong with it.
fn told(loaded: &Result<Loaded, Vec<Diagnostic>>, lines: &[&str], separator: char) {
    let diagnostics = diagnostics(loaded);
    assert!(loaded.is_ok() || !diagnostics.is_empty(), "refused without a reason");
    print(diagnostics);
    let secrets: Vec<&str> = lines
        .iter()
        .filter_map(|line| line.split_once('='))
        .filter(|(name, _)| is_secret(name.rsplit(separator).next().unwrap_or(name)))
        // Below `fields` are names of headers, and what becomes of them.
        .filter(|(name, _)| !name.to_ascii_lowercase().contains("fields"))
        .map(|(_, value)| value)
        .filter(|value| value.len() >= 12 && value.chars().all(|c| c.is_ascii_alphanumeric()))
        .filter(|value| lines.iter().map(|line| line.matches(value).count()).sum::<usize>() == 1)
        .collect();
    for one in diagnostics {
        let shown = one.render(false);
        for secret in &secrets {
            let (message, help) = (&one.message, one.help.as_deref().unwrap_or_default());
            let is_told = message.contains(secret) || help.contains(secret);
            assert!(!is_told && !shown.contains(secret), "{secret:?} is told in {shown}");
        }
    }
    let Ok(loaded) = loaded else { return };
    let shown = serde_json::to_string(&loaded.config).unwrap_or_default();
    assert!(!shown.is_empty(), "what was read cannot be written");
}

struct NoFiles;

impl Files for NoFiles {
    fn read(&self, _: &Path) -> io::Result<Arc<[u8]>> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn exists(&self, _: &Path) -> bool {
        false
    }
}
