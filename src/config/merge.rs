//! Many providers to one configuration. Names are qualified already; what remains is the one name
//! that belongs to nobody.

use std::sync::Arc;

use super::diagnostics::Diagnostic;
use super::dynamic_config::{DynamicConfig, Object, Section};
use crate::values::QualifiedName;

/// One configuration of what all providers want, each named with its provider.
pub fn merge(parts: &[(&str, Arc<DynamicConfig>)]) -> DynamicConfig {
    let largest = parts.iter().max_by_key(|(_, part)| part.routers.len() + part.services.len());
    let Some((base, first)) = largest else { return DynamicConfig::default() };
    let mut merged = DynamicConfig::clone(first);
    let mut options = Claims::default();
    let mut stores = Claims::default();
    options.note(base, &first.tls_options);
    stores.note(base, &first.tls_stores);
    for (provider, part) in parts.iter().filter(|(provider, _)| provider != base) {
        options.note(provider, &part.tls_options);
        stores.note(provider, &part.tls_stores);
        merged.absorb(part);
    }
    let default = QualifiedName::global("default");
    if let Some(error) = options.conflict("TLS options") {
        merged.tls_options.insert(default.clone(), refused(&error));
        merged.diagnostics.push(error);
    }
    if let Some(error) = stores.conflict("TLS store") {
        merged.tls_stores.remove(&default);
        merged.diagnostics.push(error);
    }
    merged
}

/// Options that are there and cannot be used: routers that rely on them fail, as in Traefik.
fn refused<T: Default>(error: &Diagnostic) -> Arc<Object<T>> {
    Arc::new(Object { config: T::default(), node: None, errors: vec![error.clone()] })
}

/// Which providers define the object called `default`.
#[derive(Default)]
struct Claims(Vec<String>);

impl Claims {
    fn note<T>(&mut self, provider: &str, section: &Section<T>) {
        if section.contains_key("default") {
            self.0.push(provider.to_owned());
        }
    }

    fn conflict(&self, what: &str) -> Option<Diagnostic> {
        (self.0.len() > 1).then(|| {
            let providers = self.0.join(", ");
            let message = format!("default {what} defined by several providers: {providers}");
            Diagnostic::error(message).about("tls", "default")
        })
    }
}
