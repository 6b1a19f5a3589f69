//! The dynamic configuration: every section by name, each object decoded on its own.
//!
//! A wrong object breaks itself and what names it, never its neighbours: an object that does not
//! decode stays in its section with its errors, so that a router keeps its place.

use std::sync::Arc;

use hashbrown::hash_map::Entry as Slot;
use serde::de::DeserializeOwned;

use super::diagnostics::{Diagnostic, Severity, did_you_mean};
use super::static_config::similar_static_root;
use super::tree::{self, Entry, Node, Span, Value};
use crate::middleware::MiddlewareConfig;
use crate::router::{RouterConfig, RouterTlsConfig};
use crate::service::ServiceConfig;
use crate::tls::{CertificateConfig, TlsOptionsConfig, TlsStoreConfig};
use crate::upstream::ServersTransportConfig;
use crate::values::{BuildError, QualifiedName};

/// Objects by their qualified name.
pub type Section<T> =
    hashbrown::HashMap<QualifiedName, Arc<Object<T>>, foldhash::fast::RandomState>;

/// One object of the configuration.
#[derive(Debug)]
pub struct Object<T> {
    /// What is wanted. For an object in error: what could be read of it.
    pub config: T,
    /// Where it is written; `None` for what no file says.
    pub node: Option<Node>,
    /// Why it did not decode.
    pub errors: Vec<Diagnostic>,
}

impl<T> Object<T> {
    /// An object that no file says.
    pub fn implied(config: T) -> Arc<Self> {
        Arc::new(Self { config, node: None, errors: Vec::new() })
    }

    /// Whether it decoded.
    pub fn is_good(&self) -> bool {
        self.errors.is_empty()
    }

    /// A diagnostic for this object, at the option that `error` names.
    pub fn diagnose(
        &self,
        severity: Severity,
        kind: &'static str,
        name: &QualifiedName,
        error: &BuildError,
    ) -> Diagnostic {
        let diagnostic = match severity {
            Severity::Error => Diagnostic::error(error.message.as_str()),
            Severity::Warning => Diagnostic::warning(error.message.as_str()),
        };
        let diagnostic = diagnostic.about(kind, name.as_str());
        let Some(node) = &self.node else { return diagnostic };
        let place = node.at_path(&error.option);
        let (above, last) = error.option.rsplit_once('.').unwrap_or(("", &error.option));
        let above = node.at_path(above);
        let entry = above.entry(last).filter(|entry| std::ptr::eq(&raw const entry.value, place));
        let diagnostic = diagnostic.at(entry.map_or(&place.span, span_of));
        // Items of a list stand on lines that do not name the option.
        let is_written = !std::ptr::eq(place, above);
        if is_written && tree::is_secret(last) { diagnostic.secret() } else { diagnostic }
    }

    fn same_as(&self, other: &Self) -> bool {
        match (&self.node, &other.node) {
            (Some(one), Some(other)) => one.same_as(other),
            _ => false,
        }
    }
}

/// Where an option is: its value, or its name where that is a section on lines of its own.
fn span_of(entry: &Entry) -> &Span {
    let line = |span: &Span| span.line_column().0;
    match entry.value.value {
        Value::Mapping(_) if line(&entry.key_span) != line(&entry.value.span) => &entry.key_span,
        _ => &entry.value.span,
    }
}

/// What one provider, or all of them together, want.
#[derive(Debug, Default, Clone)]
pub struct DynamicConfig {
    /// `http.routers`
    pub routers: Section<RouterConfig>,
    /// `http.services`
    pub services: Section<ServiceConfig>,
    /// `http.middlewares`
    pub middlewares: Section<MiddlewareConfig>,
    /// `http.serversTransports`
    pub servers_transports: Section<ServersTransportConfig>,
    /// `tls.certificates`
    pub certificates: Vec<Arc<Object<CertificateConfig>>>,
    /// `tls.options`; the name `default` is without a provider.
    pub tls_options: Section<TlsOptionsConfig>,
    /// `tls.stores`; the name `default` is without a provider.
    pub tls_stores: Section<TlsStoreConfig>,
    /// What is wrong outside of any object.
    pub diagnostics: Vec<Diagnostic>,
    /// A section cannot be read, so that nobody can tell which objects are missing.
    pub incomplete: bool,
}

impl DynamicConfig {
    /// Reads the root of a document of `provider`. Never fails: see `diagnostics` and each
    /// object's errors.
    pub fn read(root: &Node, provider: &str) -> Self {
        let mut reader = Reader { provider, config: Self::default() };
        reader.root(root);
        reader.config
    }

    /// Puts the objects of `previous` in the place of those that say the same, so that compiling
    /// sees by pointer what did not change.
    pub fn reuse(&mut self, previous: &Self) {
        reuse_section(&mut self.routers, &previous.routers);
        reuse_section(&mut self.services, &previous.services);
        reuse_section(&mut self.middlewares, &previous.middlewares);
        reuse_section(&mut self.servers_transports, &previous.servers_transports);
        reuse_section(&mut self.tls_options, &previous.tls_options);
        reuse_section(&mut self.tls_stores, &previous.tls_stores);
        for (position, certificate) in self.certificates.iter_mut().enumerate() {
            if let Some(kept) = previous.certificates.get(position)
                && certificate.is_good()
                && certificate.same_as(kept)
            {
                *certificate = Arc::clone(kept);
            }
        }
    }

    /// Adds what `other`, a later file of the same provider, says. Of two objects with one name
    /// the first wins, with a warning (Traefik file provider).
    pub fn absorb(&mut self, other: &Self) {
        let warnings = &mut self.diagnostics;
        absorb_section(&mut self.routers, &other.routers, "router", warnings);
        absorb_section(&mut self.services, &other.services, "service", warnings);
        absorb_section(&mut self.middlewares, &other.middlewares, "middleware", warnings);
        absorb_section(
            &mut self.servers_transports,
            &other.servers_transports,
            "serversTransport",
            warnings,
        );
        absorb_section(&mut self.tls_options, &other.tls_options, "tls options", warnings);
        absorb_section(&mut self.tls_stores, &other.tls_stores, "tls store", warnings);
        self.certificates.extend(other.certificates.iter().cloned());
        self.diagnostics.extend(other.diagnostics.iter().cloned());
    }

    /// Whether `other` wants the same, wherever that is written. What has mistakes never does: they have places.
    pub fn says_the_same(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
            || self.diagnostics.is_empty()
                && other.diagnostics.is_empty()
                && same_section(&self.routers, &other.routers)
                && same_section(&self.services, &other.services)
                && same_section(&self.middlewares, &other.middlewares)
                && same_section(&self.servers_transports, &other.servers_transports)
                && same_section(&self.tls_options, &other.tls_options)
                && same_section(&self.tls_stores, &other.tls_stores)
                && self.certificates.len() == other.certificates.len()
                && self
                    .certificates
                    .iter()
                    .zip(&other.certificates)
                    .all(|(one, other)| same(one, other))
    }

    /// Whether nothing is configured.
    pub fn is_empty(&self) -> bool {
        self.routers.is_empty()
            && self.services.is_empty()
            && self.middlewares.is_empty()
            && self.servers_transports.is_empty()
            && self.certificates.is_empty()
            && self.tls_options.is_empty()
            && self.tls_stores.is_empty()
    }
}

fn reuse_section<T>(section: &mut Section<T>, previous: &Section<T>) {
    for (name, object) in section.iter_mut() {
        if let Some(kept) = previous.get(name)
            && object.is_good()
            && kept.is_good()
            && (Arc::ptr_eq(object, kept) || object.same_as(kept))
        {
            *object = Arc::clone(kept);
        }
    }
}

fn same<T>(one: &Arc<Object<T>>, other: &Arc<Object<T>>) -> bool {
    one.is_good() && other.is_good() && (Arc::ptr_eq(one, other) || one.same_as(other))
}

fn same_section<T>(one: &Section<T>, other: &Section<T>) -> bool {
    one.len() == other.len()
        && one.iter().all(|(name, object)| other.get(name).is_some_and(|other| same(object, other)))
}

fn absorb_section<T>(
    section: &mut Section<T>,
    other: &Section<T>,
    kind: &'static str,
    warnings: &mut Vec<Diagnostic>,
) {
    section.reserve(other.len());
    for (name, object) in other {
        match section.entry(name.clone()) {
            Slot::Vacant(slot) => {
                slot.insert(Arc::clone(object));
            }
            Slot::Occupied(_) => {
                let error = BuildError::new(format!(
                    "{kind} `{}` is defined more than once; the first definition is used",
                    name.name()
                ));
                warnings.push(object.diagnose(Severity::Warning, kind, name, &error));
            }
        }
    }
}

const HTTP_SECTIONS: [&str; 4] = ["routers", "services", "middlewares", "serversTransports"];
const TLS_SECTIONS: [&str; 3] = ["certificates", "options", "stores"];
/// Root keys of a dynamic configuration.
pub const ROOTS: [&str; 4] = ["http", "tcp", "udp", "tls"];

struct Reader<'a> {
    provider: &'a str,
    config: DynamicConfig,
}

impl Reader<'_> {
    fn root(&mut self, root: &Node) {
        if matches!(root.value, Value::Null) {
            return;
        }
        if !matches!(root.value, Value::Mapping(_)) {
            self.error("a configuration is a mapping of sections such as `http`", root);
            return;
        }
        let shared = super::kind_of(root) == super::DocumentKind::Both;
        for entry in root.entries() {
            match &*entry.key.to_ascii_lowercase() {
                "http" => self.http(&entry.value),
                "tls" => self.tls(&entry.value),
                "tcp" | "udp" if !is_blank(&entry.value) => {
                    let message = format!("`{}` is not supported yet", entry.key);
                    self.config.diagnostics.push(Diagnostic::error(message).at(&entry.key_span));
                }
                "tcp" | "udp" => {}
                key if key.starts_with("x-") => {}
                // The static and the dynamic part of a configuration may share a file.
                key if super::is_static_root(key) => {}
                key => {
                    let message = format!("unknown section `{}` is ignored", entry.key);
                    let mut warning = Diagnostic::warning(message).at(&entry.key_span);
                    let of_static = || similar_static_root(key).filter(|_| shared);
                    if let Some(known) = did_you_mean(key, ROOTS).or_else(of_static) {
                        warning = warning.help(format!("did you mean `{known}`?"));
                    }
                    self.config.diagnostics.push(warning);
                }
            }
        }
    }

    fn http(&mut self, http: &Node) {
        for entry in self.sections(http, "http", &HTTP_SECTIONS) {
            match &*entry.key.to_ascii_lowercase() {
                "routers" => {
                    let objects = self.objects(&entry.value, "router", salvage_router);
                    self.config.routers = objects;
                }
                "services" => {
                    let objects =
                        self.objects(&entry.value, "service", |_| ServiceConfig::default());
                    self.config.services = objects;
                }
                "middlewares" => {
                    let objects =
                        self.objects(&entry.value, "middleware", |_| MiddlewareConfig::default());
                    self.config.middlewares = objects;
                }
                "serverstransports" => {
                    let objects = self.objects(&entry.value, "serversTransport", |_| {
                        ServersTransportConfig::default()
                    });
                    self.config.servers_transports = objects;
                }
                _ => {}
            }
        }
    }

    fn tls(&mut self, tls: &Node) {
        for entry in self.sections(tls, "tls", &TLS_SECTIONS) {
            match &*entry.key.to_ascii_lowercase() {
                "certificates" => {
                    for (position, item) in entry.value.items().iter().enumerate() {
                        let name = format!("certificates[{position}]");
                        let object =
                            object(item, "certificate", &name, |_| CertificateConfig::default());
                        self.config.certificates.push(Arc::new(object));
                    }
                    if !matches!(entry.value.value, Value::Sequence(_) | Value::Null) {
                        self.error("`tls.certificates` is a list", &entry.value);
                    }
                }
                "options" => {
                    let objects =
                        self.objects(&entry.value, "tls options", |_| TlsOptionsConfig::default());
                    self.config.tls_options = objects;
                }
                "stores" => {
                    let objects =
                        self.objects(&entry.value, "tls store", |_| TlsStoreConfig::default());
                    self.config.tls_stores = objects;
                }
                _ => {}
            }
        }
    }

    /// The known entries of a section's mapping; complains of the others.
    fn sections<'n>(
        &mut self,
        node: &'n Node,
        parent: &str,
        known: &[&'static str],
    ) -> Vec<&'n Entry> {
        if !matches!(node.value, Value::Mapping(_) | Value::Null) {
            self.error(&format!("`{parent}` is a mapping of sections"), node);
        }
        let (good, unknown): (Vec<_>, Vec<_>) = node
            .entries()
            .iter()
            .partition(|entry| known.iter().any(|name| name.eq_ignore_ascii_case(&entry.key)));
        for entry in unknown {
            let message = format!("unknown section `{parent}.{}`", entry.key);
            let mut error = Diagnostic::error(message).at(&entry.key_span);
            if let Some(known) = did_you_mean(&entry.key, known.iter().copied()) {
                error = error.help(format!("did you mean `{known}`?"));
            }
            self.config.diagnostics.push(error);
            self.config.incomplete = true;
        }
        good
    }

    fn objects<T: DeserializeOwned>(
        &mut self,
        node: &Node,
        kind: &'static str,
        salvage: fn(&Node) -> T,
    ) -> Section<T> {
        if !matches!(node.value, Value::Mapping(_) | Value::Null) {
            self.error(&format!("a {kind} has a name: write a mapping"), node);
        }
        let mut section = Section::default();
        section.reserve(node.entries().len());
        for entry in node.entries() {
            let global = &*entry.key == "default" && kind.starts_with("tls");
            let name = if global {
                QualifiedName::global(&entry.key)
            } else {
                QualifiedName::new(&entry.key, self.provider)
            };
            let mut object = object(&entry.value, kind, name.as_str(), salvage);
            if entry.key.contains('@') {
                let message = "`@` is not allowed in a name";
                let error = Diagnostic::error(message).about(kind, name.as_str());
                object.errors.push(error.at(&entry.key_span));
            }
            section.insert(name, Arc::new(object));
        }
        section
    }

    fn error(&mut self, message: &str, node: &Node) {
        self.config.diagnostics.push(Diagnostic::error(message).at(&node.span));
        self.config.incomplete = true;
    }
}

/// Whether a section holds no object: `tcp: {routers: {}}` is nothing to complain of.
fn is_blank(node: &Node) -> bool {
    match &node.value {
        Value::Null => true,
        Value::Scalar(_) => false,
        Value::Sequence(items) => items.iter().all(is_blank),
        Value::Mapping(entries) => entries.iter().all(|entry| is_blank(&entry.value)),
    }
}

fn object<T: DeserializeOwned>(
    node: &Node,
    kind: &'static str,
    name: &str,
    salvage: fn(&Node) -> T,
) -> Object<T> {
    let (config, errors) = match tree::decode::<T>(node) {
        Ok(config) => (config, Vec::new()),
        Err(errors) => {
            let errors = errors.into_iter().map(|error| error.about(kind, name)).collect();
            (salvage(node), errors)
        }
    };
    Object { config, node: Some(node.clone()), errors }
}

/// What a router that does not decode needs to keep its place: its rule, priority, entry points,
/// and whether it serves TLS.
fn salvage_router(node: &Node) -> RouterConfig {
    let text = |key: &str| node.get(key).and_then(Node::text).unwrap_or_default().to_owned();
    let words = |key: &str| -> Vec<String> {
        let items = node.get(key).map(Node::items).unwrap_or_default();
        items.iter().filter_map(|item| item.text().map(str::to_owned)).collect()
    };
    RouterConfig {
        entry_points: words("entryPoints"),
        middlewares: words("middlewares"),
        service: text("service"),
        rule: text("rule"),
        priority: text("priority").parse().unwrap_or_default(),
        tls: node.get("tls").map(|tls| RouterTlsConfig {
            options: tls.get("options").and_then(Node::text).unwrap_or_default().to_owned(),
            ..RouterTlsConfig::default()
        }),
        ..RouterConfig::default()
    }
}
