//! The words of a command line that begin with a dash, for commands with flags of their own.

use std::slice::Iter;

use anyhow::{Context as _, anyhow, bail};

use crate::config::diagnostics::did_you_mean;

/// One word: its name, and the value behind `=`, where it has one.
pub(super) struct Flag<'a> {
    pub(super) name: &'a str,
    inline: Option<&'a str>,
}

impl<'a> Flag<'a> {
    /// Reads a word; only what begins with two dashes has a value behind `=`.
    pub(super) fn read(word: &'a str) -> Self {
        match word.split_once('=') {
            Some((name, value)) if name.starts_with("--") => Self { name, inline: Some(value) },
            _ => Self { name: word, inline: None },
        }
    }

    /// Its value: what stands behind `=`, else the next word.
    pub(super) fn value(&mut self, rest: &mut Iter<'_, String>) -> anyhow::Result<String> {
        let value = self.inline.take().map(str::to_owned).or_else(|| rest.next().cloned());
        value.with_context(|| format!("`{}` needs a value", self.name))
    }
}

/// What is said of a flag that is none of the `known` ones.
pub(super) fn unknown<'k>(flag: &str, known: impl IntoIterator<Item = &'k str>) -> anyhow::Error {
    match did_you_mean(flag, known) {
        Some(known) => anyhow!("unknown flag `{flag}`; did you mean `{known}`?"),
        None => anyhow!("unknown flag `{flag}`"),
    }
}

/// Whether a value of `--format` asks for JSON.
pub(super) fn is_json(format: &str) -> anyhow::Result<bool> {
    match format {
        "json" => Ok(true),
        "text" => Ok(false),
        other => bail!("unknown format `{other}`: write text or json"),
    }
}
