//! `doorward check FILE…`: decode, merge, compile, and say all that is wrong. Publishes nothing.

use std::io::{self, ErrorKind, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{anyhow, bail};
use serde_json::json;

use super::admin;
use super::flag::{Flag, is_json, unknown};
use super::hints::Hints;
use super::written::Written;
use crate::compile::Report;
use crate::config::diagnostics::{Diagnostic, Severity, without_consequences};
use crate::config::loader;

/// What `doorward check --help` prints.
pub const USAGE: &str = "usage: doorward check [--format text|json] FILE…\n\n\
    Reads static and dynamic configuration files (told apart by their root keys), and directories\n\
    of dynamic files; decodes, merges and compiles them, and prints everything that is wrong with\n\
    its place. Nothing is started. A static file brings the dynamic files along that it names,\n\
    unless dynamic files are given. Exit code: 0 when there is no error, else 1.\n";

/// Runs the command. `variables` are those of the environment.
pub fn command(
    args: &[String],
    variables: &[(String, String)],
    out: &mut dyn Write,
) -> anyhow::Result<ExitCode> {
    let options = Options::read(args).map_err(|error| anyhow!("check: {error}"))?;
    if options.files.is_empty() {
        out.write_all(USAGE.as_bytes())?;
        bail!("check: name at least one file");
    }
    let mut findings = check(&options.files)?;
    findings.diagnostics.extend(match loader::proxies(variables) {
        Ok((_, notice)) => notice,
        Err(error) => Some(error),
    });
    let written = if options.json {
        write_json(&findings, out)
    } else {
        write_text(&findings, out, io::stdout().is_terminal())
    };
    match written {
        // Who reads has seen enough, as `head` does.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        written => written?,
    }
    Ok(if findings.errors() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[derive(Default)]
struct Options {
    files: Vec<PathBuf>,
    json: bool,
}

impl Options {
    fn read(args: &[String]) -> anyhow::Result<Self> {
        let mut options = Self::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut flag = Flag::read(arg);
            match flag.name {
                "--format" => options.json = is_json(&flag.value(&mut args)?)?,
                other if other.starts_with('-') && other.len() > 1 => {
                    return Err(unknown(other, ["--format"]));
                }
                _ => options.files.push(PathBuf::from(arg)),
            }
        }
        Ok(options)
    }
}

/// What was found.
pub struct Findings {
    /// Everything that is wrong.
    pub diagnostics: Vec<Diagnostic>,
    /// What compiled.
    pub report: Arc<Report>,
}

impl Findings {
    /// How many errors there are.
    pub fn errors(&self) -> usize {
        self.diagnostics.iter().filter(|one| one.severity == Severity::Error).count()
    }
}

/// Checks `files`.
pub fn check(files: &[PathBuf]) -> anyhow::Result<Findings> {
    let Written { set, mut diagnostics } = Written::read(files)?;
    if let Some((config, node)) = &set.fixed {
        diagnostics.extend(admin::errors(config, node));
        diagnostics.extend(admin::warnings(config, node));
    }
    let table = set.compile()?;
    let dynamic = &table.set.dynamic;
    let compiled = table.compiled.report;
    let mut found = without_consequences(&compiled.diagnostics);
    found.sort_by(|one, other| place(one).cmp(&place(other)));
    found.dedup_by(|one, other| same_mistake(one, other));
    let hints = Hints::of(dynamic);
    for one in &mut found {
        hints.add_to(one);
    }
    diagnostics.retain(|one| !found.iter().any(|other| same_section(one, other)));
    diagnostics.extend(found);
    Ok(Findings { diagnostics, report: compiled })
}

fn place(diagnostic: &Diagnostic) -> (Option<(&str, usize)>, &str) {
    let place = diagnostic.span.as_ref().map(|span| (&*span.source.name, span.start));
    (place, &diagnostic.message)
}

/// Whether two diagnostics tell of one mistake: a router has a copy for each of its entry points.
fn same_mistake(one: &Diagnostic, other: &Diagnostic) -> bool {
    let kind = |diagnostic: &Diagnostic| diagnostic.subject.as_ref().map(|subject| subject.kind);
    one.span.is_some() && place(one) == place(other) && kind(one) == kind(other)
}

/// Whether two diagnostics tell of one section of a file that is read as both static and dynamic.
fn same_section(one: &Diagnostic, other: &Diagnostic) -> bool {
    let (Some(span), Some(other_span)) = (&one.span, &other.span) else { return false };
    one.subject.is_none()
        && other.subject.is_none()
        && span.start == other_span.start
        && span.source.text == other_span.source.text
}

fn write_text(findings: &Findings, out: &mut dyn Write, color: bool) -> io::Result<()> {
    for diagnostic in &findings.diagnostics {
        writeln!(out, "{}\n", diagnostic.render(color))?;
    }
    let warnings = findings.diagnostics.len() - findings.errors();
    writeln!(
        out,
        "{} routers, {} services, {} middlewares; {} errors, {warnings} warnings",
        findings.report.routers.len(),
        findings.report.services.iter().filter(|service| service.object.is_some()).count(),
        findings.report.middlewares.len(),
        findings.errors(),
    )
}

fn write_json(findings: &Findings, out: &mut dyn Write) -> io::Result<()> {
    let errors = findings.errors();
    let summary = json!({
        "diagnostics": findings.diagnostics,
        "errors": errors,
        "warnings": findings.diagnostics.len() - errors,
    });
    writeln!(out, "{summary:#}")
}
