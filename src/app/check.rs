//! `doorward check FILE…`: decode, merge, compile, and say all that is wrong. Publishes nothing.

use std::fmt::Display;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::bail;
use serde_json::json;

use super::facts::{InternalServices, static_facts};
use super::gauges::Gauges;
use super::hints::Hints;
use crate::api::Noop;
use crate::compile::{Environment, Report, compile};
use crate::config::diagnostics::{Diagnostic, Severity, did_you_mean, without_consequences};
use crate::config::dynamic_config::DynamicConfig;
use crate::config::entry_points::EntryPointConfig;
use crate::config::loader::{self, Loaded};
use crate::config::merge::merge;
use crate::config::resolvers::CertificatesResolverConfig;
use crate::config::static_config::StaticConfig;
use crate::config::tree::{Format, Node, Source, parse};
use crate::config::{DocumentKind, kind_of};
use crate::exchange::Handler;
use crate::observability::metrics::{Metrics, MetricsConfig};
use crate::provider::file::{FileProvider, FileProviderConfig};
use crate::service::ServerGauge;
use crate::state::SharedState;
use crate::values::Disk;

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
    let options = Options::read(args)?;
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
            let format = match arg.as_str() {
                "--format" => args.next().map(String::as_str),
                other => other.strip_prefix("--format="),
            };
            match (arg.as_str(), format) {
                (_, Some("json")) => options.json = true,
                (_, Some("text")) => options.json = false,
                (_, Some(other)) => bail!("check: unknown format `{other}`: write text or json"),
                ("--format", None) => bail!("check: `--format` needs a value: text or json"),
                (flag, None) if flag.starts_with('-') && flag.len() > 1 => {
                    match did_you_mean(flag, ["--format"]) {
                        Some(known) => {
                            bail!("check: unknown flag `{flag}`; did you mean `{known}`?")
                        }
                        None => bail!("check: unknown flag `{flag}`"),
                    }
                }
                (file, None) => options.files.push(PathBuf::from(file)),
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
    let mut diagnostics = Vec::new();
    let mut static_config = None;
    let mut dynamic = DynamicConfig::default();
    let mut named_dynamic = false;
    for path in files {
        let kind = match kind_of_file(path) {
            Ok(kind) => kind,
            Err(problem) => {
                // What it would have brought is not looked for elsewhere.
                named_dynamic = true;
                diagnostics.push(problem);
                continue;
            }
        };
        if matches!(kind, DocumentKind::Static | DocumentKind::Both) {
            match loader::load_file(path, &Disk) {
                Ok(Loaded { config, warnings, node, .. }) => {
                    diagnostics.extend(warnings);
                    if static_config.is_some() {
                        let message = "more than one static configuration was given";
                        diagnostics
                            .push(Diagnostic::error(format!("{}: {message}", path.display())));
                    } else {
                        static_config = Some((config, node));
                    }
                }
                Err(problems) => diagnostics.extend(problems),
            }
        }
        if matches!(kind, DocumentKind::Dynamic | DocumentKind::Both | DocumentKind::Neither) {
            named_dynamic = true;
            dynamic.absorb(&*read(path)?);
        }
    }
    let (static_config, written) = static_config.unzip();
    let named =
        static_config.as_ref().and_then(|config: &StaticConfig| config.providers.file.clone());
    if let Some(file) = named.filter(|_| !named_dynamic) {
        let provider = FileProvider::<DynamicConfig>::new(file, Arc::default())?;
        dynamic.absorb(&provider.read_once().config);
    }
    let dynamic = Arc::new(dynamic);
    let compiled = compile_all(static_config.as_ref(), written.as_ref(), &dynamic)?;
    let mut found = without_consequences(&compiled.diagnostics);
    found.sort_by(|one, other| place(one).cmp(&place(other)));
    found.dedup_by(|one, other| same_mistake(one, other));
    let hints = Hints::of(&dynamic);
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

fn kind_of_file(path: &Path) -> Result<DocumentKind, Diagnostic> {
    if path.is_dir() {
        return Ok(DocumentKind::Dynamic);
    }
    let unusable =
        |reason: &dyn Display| Diagnostic::error(format!("{}: {reason}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| unusable(&error))?;
    let Some(format) = Format::of_path(path) else {
        return Err(unusable(&"not a .toml, .yaml, .yml or .json file"));
    };
    let source = Source::new(path.display().to_string(), text, format);
    // What does not parse may be a template, and only dynamic files are templates.
    Ok(parse(&source).map_or(DocumentKind::Dynamic, |root| kind_of(&root)))
}

fn read(path: &Path) -> anyhow::Result<Arc<DynamicConfig>> {
    let mut config = FileProviderConfig { watch: false, ..FileProviderConfig::default() };
    if path.is_dir() {
        path.clone_into(&mut config.directory);
    } else {
        path.clone_into(&mut config.filename);
    }
    let provider = FileProvider::<DynamicConfig>::new(config, Arc::default())?;
    Ok(provider.read_once().config)
}

fn compile_all(
    static_config: Option<&StaticConfig>,
    written: Option<&Node>,
    dynamic: &Arc<DynamicConfig>,
) -> anyhow::Result<Arc<Report>> {
    let metrics = Arc::new(Metrics::new(&MetricsConfig::default())?);
    let server_up: Arc<dyn ServerGauge> = Arc::new(Gauges::new(Arc::clone(&metrics)));
    let implied;
    let config = if let Some(config) = static_config {
        config
    } else {
        implied = implied_by(dynamic);
        &implied
    };
    let facts = static_facts(config, services());
    let internal = super::internal::shared(config, written);
    let merged = merge(&[("internal", internal), ("file", Arc::clone(dynamic))]);
    let environment = Environment {
        files: &Disk,
        state: &SharedState::default(),
        metrics: &metrics,
        server_up: &server_up,
        facts: &facts,
    };
    Ok(compile(&merged, None, &environment).report)
}

/// Without a static configuration: entry points and resolvers are those that routers name.
fn implied_by(dynamic: &DynamicConfig) -> StaticConfig {
    let mut config = StaticConfig::default();
    let mut names: Vec<&str> = dynamic
        .routers
        .values()
        .flat_map(|router| router.config.entry_points.iter().map(String::as_str))
        .collect();
    names.push("web");
    names.sort_unstable();
    names.dedup();
    for name in names {
        config.entry_points.insert(name.to_owned(), EntryPointConfig::default());
    }
    for router in dynamic.routers.values() {
        if let Some(tls) = router.config.tls.as_ref().filter(|tls| !tls.cert_resolver.is_empty()) {
            let resolver = CertificatesResolverConfig::default();
            config.certificates_resolvers.insert(tls.cert_resolver.clone(), resolver);
        }
    }
    config
}

/// All internal services, as stand-ins: nothing is served here.
fn services() -> InternalServices {
    ["api", "dashboard", "live", "noop", "ping", "prometheus", "ready"]
        .into_iter()
        .map(|name| {
            let handler: Arc<dyn Handler> = Arc::new(Noop);
            (name, Ok(handler))
        })
        .collect()
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
