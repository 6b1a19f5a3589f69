//! `name@provider`: after merging, nothing knows names without a provider.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

/// The name of an object together with the provider that it comes from.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QualifiedName {
    text: Arc<str>,
}

impl QualifiedName {
    /// The object `name` of `provider`.
    pub fn new(name: &str, provider: &str) -> Self {
        Self { text: format!("{name}@{provider}").into() }
    }

    /// A name that belongs to no provider: the TLS options and the TLS store called `default`.
    pub fn global(name: &str) -> Self {
        Self { text: name.into() }
    }

    /// Resolves a reference written in an object of `provider`: with an `@` it is absolute,
    /// without one it names an object of the same provider.
    pub fn resolve(reference: &str, provider: &str) -> Self {
        if reference.contains('@') {
            Self { text: reference.into() }
        } else {
            Self::new(reference, provider)
        }
    }

    /// The whole, `name@provider`.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The whole, shared.
    pub fn shared(&self) -> Arc<str> {
        Arc::clone(&self.text)
    }

    /// The part in front of the last `@`.
    pub fn name(&self) -> &str {
        self.text.rsplit_once('@').map_or(&*self.text, |(name, _)| name)
    }

    /// The part behind the last `@`.
    pub fn provider(&self) -> &str {
        self.text.rsplit_once('@').map_or("", |(_, provider)| provider)
    }
}

impl fmt::Display for QualifiedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for QualifiedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Borrow<str> for QualifiedName {
    fn borrow(&self) -> &str {
        &self.text
    }
}

impl Serialize for QualifiedName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_resolve_in_their_own_provider() {
        assert_eq!(QualifiedName::resolve("auth", "file").as_str(), "auth@file");
        assert_eq!(QualifiedName::resolve("auth@docker", "file").as_str(), "auth@docker");
        let name = QualifiedName::new("auth", "file");
        assert_eq!((name.name(), name.provider()), ("auth", "file"));
    }
}
