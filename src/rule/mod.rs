//! Traefik's rule language, version 3 or 2: text to a tree that says whether a request matches.
//!
//! A rule is data, not closures: the same tree answers which hosts it names, which hosts it can
//! match, and which of its matchers a request failed. Reading is bounded in depth and length, so no
//! text overflows the stack.

mod hosts;
mod lexer;
mod matcher;
mod parser;
mod query;
mod reasons;
mod sample_text;
mod samples;
mod tree;
mod unsaid;
mod v2;

#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::Range;

pub use hosts::{HostPattern, IndexHosts, readable_hosts};
pub use reasons::Reason;
pub use samples::Sample;
pub use unsaid::{compares_secret, masked, without_secrets};

use crate::exchange::view::RequestView;
use tree::Node;

/// The longest rule that is read, in bytes.
const MAX_LENGTH: usize = 1 << 20;

/// Which matchers a rule is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Syntax {
    /// Those of Traefik v2.
    V2,
    /// Those of Traefik v3.
    #[default]
    V3,
}

/// A rule that was read.
#[derive(Clone)]
pub struct Rule {
    text: Box<str>,
    root: Node,
}

/// Why a text is not a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RuleError {
    /// One sentence, Traefik's where it has one.
    pub message: String,
    /// Byte offset in the text where the trouble starts.
    pub offset: usize,
    /// Byte offset where it ends; equal to `offset` at the end of the text.
    pub end: usize,
}

/// Which part of a rule a request failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The part as it applies: with the negation that it stands under.
    pub predicate: String,
    /// Where it stands in the rule's text, without the negation.
    pub range: Range<usize>,
}

impl Rule {
    /// Reads a rule in the syntax of v3.
    pub fn parse(text: &str) -> Result<Self, RuleError> {
        Self::parse_as(text, Syntax::V3)
    }

    /// Reads a rule in this syntax.
    pub fn parse_as(text: &str, syntax: Syntax) -> Result<Self, RuleError> {
        Ok(Self { root: parser::parse(text, syntax)?, text: text.into() })
    }

    /// Whether the request matches.
    pub fn matches(&self, request: &RequestView<'_>) -> bool {
        self.root.matches(request)
    }

    /// The text that was read.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The priority of a router that names none: the length of its rule in bytes.
    pub fn default_priority(&self) -> usize {
        self.text.len()
    }

    /// The argument of every `Host`, in lower case and without trailing dot, also of negated ones:
    /// Traefik registers TLS options for those too.
    pub fn domains(&self) -> Vec<String> {
        self.root.domains()
    }

    /// The hosts of which a request must have one for this rule to be able to match.
    pub fn index_hosts(&self) -> IndexHosts<'_> {
        self.root.index_hosts()
    }

    /// The first part that the request fails; `None` if it matches. Of alternatives, the one that
    /// came furthest counts, or all of them if none got past its first matcher.
    pub fn explain(&self, request: &RequestView<'_>) -> Option<Explanation> {
        let node = self.root.failure(request)?.node;
        let range = node.range();
        let text = self.text.get(range.clone()).unwrap_or_default();
        let predicate = match (node, node.negated()) {
            (_, false) => text.to_owned(),
            (Node::Test(_), true) => format!("!{text}"),
            (_, true) => format!("!({text})"),
        };
        Some(Explanation { predicate, range })
    }
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Rule").field(&self.text).finish()
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Rule {}

impl RuleError {
    fn new(message: impl Into<String>, range: Range<usize>) -> Self {
        Self { message: message.into(), offset: range.start, end: range.end }
    }
}
