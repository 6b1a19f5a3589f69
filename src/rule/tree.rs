//! The tree of a rule: what matches, and which part did not.
//!
//! Negation exists on matchers only; a group that stood under one carries `negated` so that it can
//! be quoted as it was written.

use std::ops::Range;

use super::matcher::Matcher;
use crate::exchange::view::RequestView;

/// A rule or a part of one.
#[derive(Clone, Debug)]
pub(super) enum Node {
    All(Group),
    Any(Group),
    Test(Test),
}

/// Two or more nodes joined by one operator.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) nodes: Box<[Node]>,
    pub(super) span: Span,
    pub(super) negated: bool,
}

/// One matcher, perhaps negated.
#[derive(Clone, Debug)]
pub(super) struct Test {
    pub(super) matcher: Matcher,
    pub(super) span: Span,
    pub(super) negated: bool,
}

/// A byte range of the rule's text, which is short enough for 32 bits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    start: u32,
    end: u32,
}

/// Where a rule failed, and how many matchers held on the way there.
#[derive(Clone, Copy)]
pub(super) struct Failure<'n> {
    pub(super) node: &'n Node,
    held: usize,
}

impl Node {
    /// Whether the request matches; left to right, stopping as soon as it is known.
    pub(super) fn matches(&self, request: &RequestView<'_>) -> bool {
        match self {
            Self::All(group) => group.nodes.iter().all(|node| node.matches(request)),
            Self::Any(group) => group.nodes.iter().any(|node| node.matches(request)),
            Self::Test(test) => test.matcher.matches(request) != test.negated,
        }
    }

    /// The part that made the rule fail. Of alternatives, the one that came furthest; if none
    /// came further than its first matcher, all of them together.
    pub(super) fn failure(&self, request: &RequestView<'_>) -> Option<Failure<'_>> {
        match self {
            Self::Test(test) => {
                let holds = test.matcher.matches(request) != test.negated;
                (!holds).then_some(Failure { node: self, held: 0 })
            }
            Self::All(group) => group.nodes.iter().enumerate().find_map(|(before, node)| {
                let failure = node.failure(request)?;
                Some(Failure { held: failure.held + before, ..failure })
            }),
            Self::Any(group) => {
                let mut furthest = Failure { node: self, held: 0 };
                for node in &group.nodes {
                    let failure = node.failure(request)?;
                    if failure.held > furthest.held {
                        furthest = failure;
                    }
                }
                Some(furthest)
            }
        }
    }

    pub(super) fn range(&self) -> Range<usize> {
        match self {
            Self::All(group) | Self::Any(group) => group.span.range(),
            Self::Test(test) => test.span.range(),
        }
    }

    pub(super) fn negated(&self) -> bool {
        match self {
            Self::All(group) | Self::Any(group) => group.negated,
            Self::Test(test) => test.negated,
        }
    }

    /// Calls `visit` for every matcher, left to right.
    pub(super) fn visit<'n>(&'n self, visit: &mut impl FnMut(&'n Test)) {
        match self {
            Self::All(group) | Self::Any(group) => {
                group.nodes.iter().for_each(|node| node.visit(visit));
            }
            Self::Test(test) => visit(test),
        }
    }
}

impl Span {
    pub(super) fn new(range: Range<usize>) -> Self {
        let narrow = |offset: usize| u32::try_from(offset).unwrap_or(u32::MAX);
        Self { start: narrow(range.start), end: narrow(range.end) }
    }

    pub(super) fn range(self) -> Range<usize> {
        let wide = |offset: u32| usize::try_from(offset).unwrap_or(usize::MAX);
        wide(self.start)..wide(self.end)
    }
}
