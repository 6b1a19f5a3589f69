//! `doorward diff OLD NEW`: the requests that two configurations treat differently. Not a difference of texts: both
//! are compiled as the proxy would, and asked the same.

mod certificates;
mod compare;
mod fixed;
mod groups;
mod guards;
mod hidden;
mod objects;
mod overlaps;
mod requests;
mod text;
mod values;
mod ways;

#[cfg(test)]
mod tests;

use std::io::{self, ErrorKind, IsTerminal as _, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};

use self::compare::{Told, compare};
use super::explain::{Subject, compiled};
use super::flag::{Flag, is_json, unknown};
use super::written::Written;

/// What `doorward diff --help` prints.
pub const USAGE: &str = "\
usage: doorward diff [--format text|json] [--limit N] OLD NEW
       doorward diff [--format text|json] [--limit N] --old FILE... --new FILE...

Says which requests get something else under the new configuration: another router, other
middlewares, other servers, another status. Each side is a file or a directory, or several with
--old and --new: static and dynamic files as `doorward check` takes them. A static file brings the
dynamic files along that it names, unless dynamic files are given. Nothing is started.

Both sides are compiled as the proxy compiles them, and asked the same requests: every host, path,
method and header that a rule of either side names, and what lies just beside them. Protection that
a request loses (basicAuth, forwardAuth, ipAllowList, rateLimit, client certificates, ...) comes
first, protection that changed next. A regular expression is asked with an example made of its
literals; where none can be made, its router is compared as text. Definitions, certificates and
stores are compared by what they say; secrets are never shown.

  --limit N   tell no more than N of a kind (default 100)

Exit code: 0 nothing differs; 1 something does; 2 the command or a configuration cannot be read.
";

/// Runs the command. What is wrong with the question goes to `err`.
pub fn command(
    args: &[String],
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> anyhow::Result<ExitCode> {
    let (told, options) = match answer(args, err) {
        Ok(answer) => answer,
        Err(error) => {
            writeln!(err, "doorward: diff: {error:#}")?;
            return Ok(ExitCode::from(2));
        }
    };
    let written = if options.json {
        writeln!(out, "{:#}", serde_json::to_value(&told)?)
    } else {
        text::write(&told, options.limit, out, io::stdout().is_terminal())
    };
    match written {
        // Who reads has seen enough, as `head` does.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        written => written?,
    }
    let is_same = told.changes.is_empty()
        && told.objects.is_empty()
        && told.options.is_empty()
        && told.unseen.is_empty();
    Ok(if is_same { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn answer(args: &[String], err: &mut dyn Write) -> anyhow::Result<(Told, Options)> {
    let options = Options::read(args)?;
    let mut read = |files: &[PathBuf], side: &str| -> anyhow::Result<Subject> {
        let written = Written::read(files)?;
        compiled(written, err).with_context(|| format!("the {side} side"))
    };
    let (old, new) = (read(&options.old, "old")?, read(&options.new, "new")?);
    let mut told = compare(&old, &new);
    if options.json {
        told.limit(options.limit);
    }
    Ok((told, options))
}

struct Options {
    old: Vec<PathBuf>,
    new: Vec<PathBuf>,
    json: bool,
    limit: usize,
}

const FLAGS: [&str; 4] = ["--format", "--limit", "--new", "--old"];

impl Options {
    fn read(args: &[String]) -> anyhow::Result<Self> {
        let (mut old, mut new, mut plain) = (Vec::new(), Vec::new(), Vec::new());
        let (mut json, mut limit) = (false, 100);
        // Where a file goes that stands alone.
        let mut side = 0;
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut flag = Flag::read(arg);
            let name = flag.name;
            let mut value = || flag.value(&mut args);
            match name {
                "--format" => json = is_json(&value()?)?,
                "--limit" => limit = value()?.parse().context("`--limit` is a number")?,
                "--old" => {
                    old.push(PathBuf::from(value()?));
                    side = 1;
                }
                "--new" => {
                    new.push(PathBuf::from(value()?));
                    side = 2;
                }
                flag if flag.starts_with('-') => return Err(unknown(flag, FLAGS)),
                _ => match side {
                    0 => plain.push(PathBuf::from(arg)),
                    1 => old.push(PathBuf::from(arg)),
                    _ => new.push(PathBuf::from(arg)),
                },
            }
        }
        match (&plain[..], old.is_empty(), new.is_empty()) {
            ([one, other], true, true) => (old, new) = (vec![one.clone()], vec![other.clone()]),
            ([], false, false) => {}
            _ => bail!("name two files or directories, or some with --old and some with --new"),
        }
        Ok(Self { old, new, json, limit })
    }
}
