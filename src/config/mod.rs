//! Configuration: files, flags, environment and labels become one tree with positions, and the
//! tree becomes typed sections; what is wrong is collected as diagnostics.

pub mod diagnostics;
pub mod dynamic_config;
pub mod entry_points;
mod environment;
mod excerpt;
pub mod help;
pub mod limits;
pub mod loader;
pub mod merge;
pub mod not_supported;
pub mod overload;
pub mod resolvers;
pub mod static_config;
pub mod tree;
mod validate;

pub use static_config::is_static_root;

use crate::config::tree::Node;

/// What a document is, by the keys at its root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DocumentKind {
    /// Static configuration.
    Static,
    /// Dynamic configuration.
    Dynamic,
    /// Sections of both; each reader takes its own.
    Both,
    /// No known section.
    Neither,
}

/// What a document is, by the keys at its root.
pub fn kind_of(root: &Node) -> DocumentKind {
    let has = |wanted: fn(&str) -> bool| {
        root.entries().iter().any(|entry| wanted(&entry.key.to_lowercase()))
    };
    match (has(is_static_root), has(is_dynamic_root)) {
        (true, false) => DocumentKind::Static,
        (false, true) => DocumentKind::Dynamic,
        (true, true) => DocumentKind::Both,
        (false, false) => DocumentKind::Neither,
    }
}

/// Whether a root key, in lower case, is a section of dynamic configuration.
pub fn is_dynamic_root(key_lowercase: &str) -> bool {
    matches!(key_lowercase, "http" | "tcp" | "udp" | "tls")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tree::{Format, Source, parse};

    #[test]
    fn documents_are_told_apart_by_their_roots() {
        for (text, kind) in [
            ("EntryPoints: {}\nx-a: 1\n", DocumentKind::Static),
            ("http: {}\ntls: {}\n", DocumentKind::Dynamic),
            ("http: {}\nlog: {}\n", DocumentKind::Both),
            ("x-a: 1\n", DocumentKind::Neither),
            ("", DocumentKind::Neither),
        ] {
            let node = parse(&Source::new("f.yml", text, Format::Yaml)).unwrap();
            assert_eq!(kind_of(&node), kind, "{text}");
        }
    }
}
