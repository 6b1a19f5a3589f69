//! What is wrong with the configuration, and where. Diagnostics are collected, never thrown at
//! the first; the log, `check` and the API print the same list in their own ways.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;

use annotate_snippets::{
    AnnotationKind, Level, Origin, Renderer, Snippet, normalize_untrusted_str,
};
use serde::ser::{Serialize, SerializeStruct, Serializer};

use crate::config::excerpt::Excerpt;
use crate::config::tree::Span;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The object works, but probably not as meant.
    Warning,
    /// The object cannot be used.
    Error,
}

impl Severity {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// The object a diagnostic is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject {
    /// `router`, `middleware`, `service` and so on.
    pub kind: &'static str,
    /// The qualified name, such as `shop@file`.
    pub name: Box<str>,
}

/// What a diagnostic has to do with others.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Relation {
    /// It follows from an error of this object.
    Cause(Subject),
    /// What follows from it.
    Note(String),
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// The object it is about, if it is about one.
    pub subject: Option<Subject>,
    /// What is wrong: a sentence without capital and full stop.
    pub message: String,
    /// Where it is written.
    pub span: Option<Span>,
    /// What to do about it.
    pub help: Option<String>,
    /// True when the source text at the span is a secret and must not be printed.
    pub secret: bool,
    relation: Option<Box<Relation>>,
}

impl Diagnostic {
    /// Something that makes its object unusable.
    pub fn error(message: impl Into<String>) -> Self {
        Self::new(Severity::Error, message.into())
    }

    /// Something that works but is probably not meant.
    pub fn warning(message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, message.into())
    }

    fn new(severity: Severity, message: String) -> Self {
        Self {
            severity,
            subject: None,
            message,
            span: None,
            help: None,
            secret: false,
            relation: None,
        }
    }

    /// Says where.
    #[must_use]
    pub fn at(mut self, span: &Span) -> Self {
        self.span = Some(span.clone());
        self
    }

    /// Says which object.
    #[must_use]
    pub fn about(mut self, kind: &'static str, name: impl Into<Box<str>>) -> Self {
        self.subject = Some(Subject { kind, name: name.into() });
        self
    }

    /// Says which other object is to blame, which tells itself what is wrong with it.
    #[must_use]
    pub fn because_of(mut self, cause: Subject) -> Self {
        self.relation = Some(Box::new(Relation::Cause(cause)));
        self
    }

    /// The object that is to blame, if that is another one.
    pub fn cause(&self) -> Option<&Subject> {
        match self.relation.as_deref()? {
            Relation::Cause(cause) => Some(cause),
            Relation::Note(_) => None,
        }
    }

    /// What follows from it.
    pub fn note(&self) -> Option<&str> {
        match self.relation.as_deref()? {
            Relation::Note(note) => Some(note),
            Relation::Cause(_) => None,
        }
    }

    /// Says what to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Keeps the source text at the span out of [`Diagnostic::render`].
    #[must_use]
    pub fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    /// Several lines for a person: message, place, excerpt and help.
    pub fn render(&self, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let excerpt = self.span.as_ref().filter(|_| !self.secret).and_then(Excerpt::of);
        let mut group = level.primary_title(self.headline()).elements(Vec::<Origin<'_>>::new());
        if let Some(span) = &self.span {
            let name = &*span.source.name;
            if let Some(excerpt) = &excerpt {
                let mark = AnnotationKind::Primary.span(excerpt.start..excerpt.end);
                let snippet = Snippet::source(excerpt.text.as_str())
                    .line_start(excerpt.line)
                    .path(name)
                    .annotation(mark);
                group = group.element(snippet);
            } else {
                let (line, column) = span.line_column();
                group = group.element(Origin::path(name).line(line).char_column(column));
            }
        }
        if let Some(note) = self.note() {
            group = group.element(Level::NOTE.message(normalize_untrusted_str(note)));
        }
        if let Some(help) = &self.help {
            group = group.element(Level::HELP.message(normalize_untrusted_str(help)));
        }
        renderer.render(&[group])
    }

    /// One line for a log: `file.yml:3:7: error: router x@file: …`.
    pub fn one_line(&self) -> String {
        let mut line = match &self.span {
            Some(span) => format!("{span}: "),
            None => String::new(),
        };
        line.push_str(self.severity.as_str());
        line.push_str(": ");
        line.push_str(&self.headline());
        for more in self.note().into_iter().chain(self.help.as_deref()) {
            line.push_str(" (");
            line.push_str(more);
            line.push(')');
        }
        without_controls(&line).into_owned()
    }

    fn headline(&self) -> String {
        match &self.subject {
            Some(subject) => format!("{} {}: {}", subject.kind, subject.name, self.message),
            None => self.message.clone(),
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.one_line())
    }
}

impl Serialize for Diagnostic {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let place = self.span.as_ref().map(Span::line_column);
        let mut map = serializer.serialize_struct("Diagnostic", 9)?;
        map.serialize_field("severity", self.severity.as_str())?;
        map.serialize_field("kind", &self.subject.as_ref().map(|subject| subject.kind))?;
        map.serialize_field("name", &self.subject.as_ref().map(|subject| &subject.name))?;
        map.serialize_field("message", &self.message)?;
        map.serialize_field("file", &self.span.as_ref().map(|span| &span.source.name))?;
        map.serialize_field("line", &place.map(|(line, _)| line))?;
        map.serialize_field("column", &place.map(|(_, column)| column))?;
        map.serialize_field("note", &self.note())?;
        map.serialize_field("help", &self.help)?;
        map.end()
    }
}

/// `diagnostics` without consequences of others among them: one broken object is one error, however
/// many need it, themselves or through others, and its note says who suffers.
pub fn without_consequences(diagnostics: &[Diagnostic]) -> Vec<Diagnostic> {
    let is_cause = |one: &&Diagnostic| one.severity == Severity::Error && one.cause().is_none();
    let causes: HashSet<_> =
        diagnostics.iter().filter(is_cause).filter_map(|one| one.subject.as_ref()).collect();
    let between: HashMap<_, _> =
        diagnostics.iter().filter_map(|one| Some((one.subject.as_ref()?, one.cause()?))).collect();
    let root = |nearest| {
        // No longer than there are objects: they may stand in a circle.
        let way = std::iter::successors(Some(nearest), |one| between.get(one).copied());
        way.take(between.len() + 1).find(|one| causes.contains(one))
    };
    let mut told = Vec::with_capacity(diagnostics.len());
    let mut sufferers: HashMap<&Subject, Sufferers<'_>> = HashMap::new();
    for diagnostic in diagnostics {
        match (diagnostic.cause().map(|nearest| (nearest, root(nearest))), &diagnostic.subject) {
            (Some((nearest, Some(root))), Some(subject)) => {
                sufferers.entry(root).or_default().insert((nearest != root, subject));
            }
            _ => told.push(diagnostic.clone()),
        }
    }
    for diagnostic in told.iter_mut().filter(|one| is_cause(&&**one)) {
        let found = diagnostic.subject.as_ref().and_then(|subject| sufferers.remove(subject));
        diagnostic.relation = found.map(|found| Box::new(Relation::Note(note_of(&found))));
    }
    told
}

/// Who suffers from one object: those that name it before those that others are between.
type Sufferers<'a> = BTreeSet<(bool, &'a Subject)>;

fn note_of(sufferers: &Sufferers<'_>) -> String {
    const SHOWN: usize = 5;
    let more = sufferers.len().saturating_sub(SHOWN);
    let shown: Vec<_> = sufferers.iter().take(SHOWN).map(|(_, subject)| *subject).collect();
    let kinds = shown.chunk_by(|one, other| one.kind == other.kind);
    let kinds: Vec<_> = kinds
        .map(|group| {
            let names: Vec<_> = group.iter().map(|one| &*one.name).collect();
            let kind = group.first().map_or("", |one| one.kind);
            let plural = if group.len() > 1 { "s" } else { "" };
            format!("{kind}{plural} {}", names.join(", "))
        })
        .collect();
    match (sufferers.len(), more) {
        (1, _) => format!("{} is in error because of it", kinds.concat()),
        (_, 0) => format!("{} are in error because of it", kinds.join(", ")),
        _ => format!("{} and {more} more are in error because of it", kinds.join(", ")),
    }
}

/// The candidate that was probably meant by a misspelt word.
pub fn did_you_mean<'c>(
    word: &str,
    candidates: impl IntoIterator<Item = &'c str>,
) -> Option<&'c str> {
    let word = word.to_lowercase();
    let allowed = (word.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&word, &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Control characters written out, so that no value can add a line to a log.
fn without_controls(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut clean = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            clean.extend(character.escape_default());
        } else {
            clean.push(character);
        }
    }
    Cow::Owned(clean)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tree::{Format, Source};

    fn at(text: &str, part: &str) -> Span {
        let source = Source::new("file.yml", text, Format::Yaml);
        let start = source.text.find(part).unwrap();
        Span::new(&source, start..start + part.len())
    }

    #[test]
    fn one_line_names_place_severity_and_subject() {
        let span = at("a: 1\nb: 2\n  c: oops\n", "oops");
        let error = Diagnostic::error("no such thing\nat all")
            .at(&span)
            .about("router", "x@file")
            .help("use y");
        assert_eq!(
            error.one_line(),
            "file.yml:3:6: error: router x@file: no such thing\\nat all (use y)"
        );
        assert_eq!(Diagnostic::warning("hm").to_string(), "warning: hm");
    }

    #[test]
    fn rendering_shows_place_excerpt_and_help() {
        let span = at("a: 1\nb:\n  c: oops\n", "oops");
        let text = Diagnostic::error("no such thing").at(&span).help("use y").render(false);
        assert!(text.starts_with("error: no such thing\n"), "{text}");
        assert!(text.contains("--> file.yml:3:6"), "{text}");
        assert!(text.contains("3 |   c: oops"), "{text}");
        assert!(text.contains("^^^^"), "{text}");
        assert!(text.contains("help: use y"), "{text}");
        assert!(Diagnostic::warning("w").render(true).contains("\u{1b}["));
    }

    #[test]
    fn rendering_survives_a_span_over_many_lines_and_at_the_end() {
        let source = Source::new("f", "a:\n  b: 1\n  c: 2\n", Format::Yaml);
        let text = Diagnostic::error("x").at(&Span::new(&source, 0..17)).render(false);
        assert!(text.contains("1 | a:") && !text.contains("c: 2"), "{text}");
        let text = Diagnostic::error("x").at(&Span::new(&source, 17..99)).render(false);
        assert!(text.contains("f:4:1"), "{text}");
        let empty = Source::new("f", "", Format::Yaml);
        assert!(Diagnostic::error("x").at(&Span::new(&empty, 0..0)).render(false).contains('x'));
    }

    #[test]
    fn serialized_fields_are_stable() {
        let span = at("a: oops\n", "oops");
        let error = Diagnostic::error("bad").at(&span).about("service", "s@file");
        assert_eq!(
            serde_json::to_value(&error).unwrap(),
            serde_json::json!({
                "severity": "error", "kind": "service", "name": "s@file", "message": "bad",
                "file": "file.yml", "line": 1, "column": 4,
                "note": null, "help": null
            })
        );
    }

    #[test]
    fn consequences_are_a_note_of_their_cause() {
        let of = |name: &str, cause: Option<&str>| {
            let one = Diagnostic::error("bad").about("router", name);
            match cause {
                Some(name) => one.because_of(Subject { kind: "middleware", name: name.into() }),
                None => one,
            }
        };
        let mut all = vec![
            Diagnostic::warning("hm").about("middleware", "m"),
            Diagnostic::error("broken").about("middleware", "m"),
            Diagnostic::error("twice").about("middleware", "m"),
            of("own", None),
            of("other", Some("nobody tells")),
        ];
        all.extend((0..8).map(|number| of(&format!("r{number}"), Some("m"))));
        all.push(of("r3", Some("m")));
        let told: Vec<_> = without_consequences(&all).iter().map(Diagnostic::one_line).collect();
        assert_eq!(
            told,
            [
                "warning: middleware m: hm",
                "error: middleware m: broken (routers r0, r1, r2, r3, r4 and 3 more are in error \
                 because of it)",
                "error: middleware m: twice",
                "error: router own: bad",
                "error: router other: bad",
            ]
        );
        let one = without_consequences(&[all.remove(1), of("r", Some("m"))]);
        assert!(one[0].render(false).contains("note: router r is in error because of it"));
    }

    #[test]
    fn consequences_of_consequences_belong_to_the_first_cause() {
        let because = |kind, name: &str, (of, cause): (&'static str, &str)| {
            let cause = Subject { kind: of, name: cause.into() };
            Diagnostic::error("bad").about(kind, name).because_of(cause)
        };
        let all = [
            because("router", "r", ("service", "whole")),
            because("service", "whole", ("service", "part")),
            because("service", "part", ("serversTransport", "t")),
            Diagnostic::error("broken").about("serversTransport", "t"),
            because("service", "round", ("service", "about")),
            because("service", "about", ("service", "round")),
        ];
        let told: Vec<_> = without_consequences(&all).iter().map(Diagnostic::one_line).collect();
        assert_eq!(
            told,
            [
                "error: serversTransport t: broken (service part, router r, service whole are in \
                 error because of it)",
                "error: service round: bad",
                "error: service about: bad",
            ]
        );
    }

    #[test]
    fn suggestions_are_close_or_absent() {
        let known = ["middlewares", "priority", "rule", "service"];
        assert_eq!(did_you_mean("midlewares", known), Some("middlewares"));
        assert_eq!(did_you_mean("Rules", known), Some("rule"));
        assert_eq!(did_you_mean("servcie", known), Some("service"));
        assert_eq!(did_you_mean("observability", known), None);
        assert_eq!(did_you_mean("x", known), None);
    }
}
