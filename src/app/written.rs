//! Configuration that is looked at and not served: read from files, and compiled as the proxy compiles it.
//!
//! `check`, `explain` and `diff` stand on it, so that none of them can disagree with the proxy.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::facts::{InternalServices, static_facts};
use super::gauges::Gauges;
use crate::api::Noop;
use crate::compile::{Compiled, Environment, StaticFacts, compile};
use crate::config::diagnostics::{Diagnostic, Severity};
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

/// A configuration that nobody serves.
#[derive(Default)]
pub(super) struct ConfigSet {
    /// The static part, and the tree that it was read from; `None` when nothing says it.
    pub(super) fixed: Option<(StaticConfig, Node)>,
    /// The dynamic part.
    pub(super) dynamic: DynamicConfig,
}

/// A configuration that was read, and what is wrong with the files apart from what compiling finds.
#[derive(Default)]
pub(super) struct Written {
    pub(super) set: ConfigSet,
    pub(super) diagnostics: Vec<Diagnostic>,
}

/// A configuration as the proxy would serve it.
pub(super) struct Table {
    /// The static part, or the one that the dynamic part implies.
    pub(super) fixed: StaticConfig,
    /// What was compiled, without what the static part implies.
    pub(super) set: ConfigSet,
    /// What was compiled.
    pub(super) merged: DynamicConfig,
    /// What the compiler knew.
    pub(super) facts: StaticFacts,
    /// What came of it.
    pub(super) compiled: Compiled,
}

impl Written {
    /// Reads files, static and dynamic ones told apart by their root keys, and directories of dynamic files. A static
    /// file brings the dynamic files along that it names, unless dynamic files are given.
    pub(super) fn read(files: &[PathBuf]) -> anyhow::Result<Self> {
        let mut written = Self::default();
        let mut named_dynamic = false;
        for path in files {
            let kind = match kind_of_file(path) {
                Ok(kind) => kind,
                Err(problem) => {
                    // What it would have brought is not looked for elsewhere.
                    named_dynamic = true;
                    written.diagnostics.push(problem);
                    continue;
                }
            };
            if matches!(kind, DocumentKind::Static | DocumentKind::Both) {
                written.read_static(path);
            }
            if matches!(kind, DocumentKind::Dynamic | DocumentKind::Both | DocumentKind::Neither) {
                named_dynamic = true;
                written.set.dynamic.absorb(&*read_dynamic(path)?);
            }
        }
        if !named_dynamic {
            written.set.read_named()?;
        }
        Ok(written)
    }

    /// The configuration that the proxy would start with, given these flags and variables.
    pub(super) fn of_server(
        flags: &[String],
        variables: &[(String, String)],
    ) -> anyhow::Result<Self> {
        let mut written = Self::default();
        match loader::load(flags, variables, &Disk) {
            Ok(Loaded { config, warnings, node, .. }) => {
                written.diagnostics = warnings;
                written.set.fixed = Some((config, node));
            }
            Err(problems) => written.diagnostics = problems,
        }
        written.set.read_named()?;
        Ok(written)
    }

    /// Whether something is wrong that leaves nothing to look at.
    pub(super) fn is_unreadable(&self) -> bool {
        let dynamic = &self.set.dynamic;
        let mut all = self.diagnostics.iter().chain(&dynamic.diagnostics);
        dynamic.routers.is_empty() && all.any(|one| one.severity == Severity::Error)
            || self.diagnostics.iter().any(|one| one.severity == Severity::Error)
    }

    fn read_static(&mut self, path: &Path) {
        match loader::load_file(path, &Disk) {
            Ok(Loaded { config, warnings, node, .. }) => {
                self.diagnostics.extend(warnings);
                if self.set.fixed.is_some() {
                    let message = "more than one static configuration was given";
                    let message = format!("{}: {message}", path.display());
                    self.diagnostics.push(Diagnostic::error(message));
                } else {
                    self.set.fixed = Some((config, node));
                }
            }
            Err(problems) => self.diagnostics.extend(problems),
        }
    }
}

impl ConfigSet {
    /// Reads the dynamic files that the static part names.
    fn read_named(&mut self) -> anyhow::Result<()> {
        let fixed = self.fixed.as_ref();
        if let Some(file) = fixed.and_then(|(config, _)| config.providers.file.clone()) {
            let provider = FileProvider::<DynamicConfig>::new(file, Arc::default())?;
            self.dynamic.absorb(&provider.read_once().config);
        }
        Ok(())
    }

    /// Compiles all of it, with stand-ins for what is internal.
    pub(super) fn compile(self) -> anyhow::Result<Table> {
        let metrics = Arc::new(Metrics::new(&MetricsConfig::default())?);
        let server_up: Arc<dyn ServerGauge> = Arc::new(Gauges::new(Arc::clone(&metrics)));
        let (fixed, written) = match &self.fixed {
            Some((config, node)) => (config.clone(), Some(node)),
            None => (implied_by(&self.dynamic), None),
        };
        let facts = static_facts(&fixed, services());
        let internal = super::internal::shared(&fixed, written);
        let merged = merge(&[("internal", internal), ("file", Arc::new(self.dynamic.clone()))]);
        let environment = Environment {
            files: &Disk,
            state: &SharedState::default(),
            metrics: &metrics,
            server_up: &server_up,
            facts: &facts,
        };
        let compiled = compile(&merged, None, &environment);
        Ok(Table { fixed, set: self, merged, facts, compiled })
    }
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

fn read_dynamic(path: &Path) -> anyhow::Result<Arc<DynamicConfig>> {
    let mut config = FileProviderConfig { watch: false, ..FileProviderConfig::default() };
    if path.is_dir() {
        path.clone_into(&mut config.directory);
    } else {
        path.clone_into(&mut config.filename);
    }
    let provider = FileProvider::<DynamicConfig>::new(config, Arc::default())?;
    Ok(provider.read_once().config)
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
        let mut entry_point = EntryPointConfig::default();
        entry_point.complete(config.core.profile);
        config.entry_points.insert(name.to_owned(), entry_point);
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
