//! What keeps a router from being built: where it is written, and who is to blame.

use std::ops::Range;

use crate::config::diagnostics::{Diagnostic, Severity, Subject};
use crate::config::dynamic_config::Object;
use crate::router::RouterConfig;
use crate::values::{BuildError, QualifiedName};

/// One reason why a router cannot be built.
#[derive(Clone)]
pub(super) struct Problem {
    /// What is wrong with which option of the router.
    pub(super) error: BuildError,
    /// The part of the option's text that is meant.
    within: Option<Range<usize>>,
    /// Who is to blame, if that is another object in error.
    cause: Option<Subject>,
}

impl Problem {
    /// Something that is wrong with the router itself.
    pub(super) fn new(error: BuildError) -> Self {
        Self { error, within: None, cause: None }
    }

    /// The same with an option of the router.
    pub(super) fn at(option: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(BuildError::at(option, message))
    }

    /// Says which part of the option's text is meant.
    pub(super) fn within(mut self, bytes: Range<usize>) -> Self {
        self.within = Some(bytes);
        self
    }

    /// Says that the router suffers from another object, which is in error.
    pub(super) fn because_of(mut self, kind: &'static str, name: &QualifiedName) -> Self {
        self.cause = Some(Subject { kind, name: name.as_str().into() });
        self
    }

    /// What is wrong, and who is to blame for it.
    pub(super) fn into_parts(self) -> (BuildError, Option<Subject>) {
        (self.error, self.cause)
    }

    /// As a diagnostic of the router `name`.
    pub(super) fn diagnose(
        self,
        object: &Object<RouterConfig>,
        name: &QualifiedName,
    ) -> Diagnostic {
        let mut diagnostic = object.diagnose(Severity::Error, "router", name, &self.error);
        if let (Some(bytes), Some(node)) = (self.within, &object.node) {
            diagnostic = diagnostic.at(&node.at_path(&self.error.option).span_within(bytes));
        }
        match self.cause {
            Some(cause) => diagnostic.because_of(cause),
            None => diagnostic,
        }
    }
}
