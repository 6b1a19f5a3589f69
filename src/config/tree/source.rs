//! Where configuration text came from. A [`Span`] keeps its whole source alive, so a diagnostic
//! can print an excerpt long after the file has changed; line and column are computed on demand.

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// How a source is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// A YAML file.
    Yaml,
    /// A TOML file.
    Toml,
    /// A JSON file.
    Json,
    /// Command line flags, one argument per line of the source text.
    Flags,
    /// Environment variables, one `NAME=value` per line of the source text.
    Environment,
    /// Labels, annotations or keys of a store, one `path=value` per line of the source text.
    Labels,
}

impl Format {
    /// The format of a file, by its extension.
    pub fn of_path(path: &Path) -> Option<Self> {
        let extension = path.extension()?.to_str()?;
        match extension.to_ascii_lowercase().as_str() {
            "yaml" | "yml" => Some(Self::Yaml),
            "toml" => Some(Self::Toml),
            "json" => Some(Self::Json),
            _ => None,
        }
    }

    /// True for files, where a list is written as a list and a section is never a bare word.
    pub fn is_file(self) -> bool {
        matches!(self, Self::Yaml | Self::Toml | Self::Json)
    }
}

/// One text that configuration was read from.
pub struct Source {
    /// The file's path, `flags`, `environment` or the name of a set of labels.
    pub name: Arc<str>,
    /// The whole text, without a byte order mark.
    pub text: Arc<str>,
    /// How the text is written.
    pub format: Format,
    line_starts: OnceLock<Vec<usize>>,
}

impl Source {
    /// A source; a byte order mark at the start of the text is dropped.
    pub fn new(name: impl Into<Arc<str>>, text: impl Into<Arc<str>>, format: Format) -> Arc<Self> {
        let text: Arc<str> = text.into();
        let text = match text.strip_prefix('\u{feff}') {
            Some(rest) => Arc::from(rest),
            None => text,
        };
        Arc::new(Self { name: name.into(), text, format, line_starts: OnceLock::new() })
    }

    /// The 1-based line that holds a byte offset, and the bytes of that line without its end.
    pub(crate) fn line_at(&self, offset: usize) -> (usize, Range<usize>) {
        let starts = self.line_starts.get_or_init(|| {
            let ends = memchr::memchr_iter(b'\n', self.text.as_bytes()).map(|at| at + 1);
            std::iter::once(0).chain(ends).collect()
        });
        let line = starts.partition_point(|&start| start <= offset).max(1);
        let start = starts.get(line - 1).copied().unwrap_or(0);
        let end = starts.get(line).map_or(self.text.len(), |&next| next - 1);
        let end = match self.text.as_bytes().get(start..end) {
            Some([.., b'\r']) => end - 1,
            _ => end,
        };
        (line, start..end)
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Source({:?}, {:?})", self.name, self.format)
    }
}

/// A stretch of bytes in a source.
#[derive(Clone)]
pub struct Span {
    /// The text the bytes belong to.
    pub source: Arc<Source>,
    /// The first byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

impl Span {
    /// The span of these bytes, moved inwards to the text and to character boundaries.
    pub fn new(source: &Arc<Source>, bytes: Range<usize>) -> Self {
        let start = source.text.floor_char_boundary(bytes.start);
        let end = source.text.ceil_char_boundary(bytes.end.max(start));
        Self { source: Arc::clone(source), start, end }
    }

    /// Line and column of the first character, both counted from 1, the column in characters.
    pub fn line_column(&self) -> (usize, usize) {
        let (line, bytes) = self.source.line_at(self.start);
        let before = self.source.text.get(bytes.start..self.start).unwrap_or_default();
        (line, before.chars().count() + 1)
    }

    /// The text of the span as it stands in the source.
    pub fn text(&self) -> &str {
        self.source.text.get(self.start..self.end).unwrap_or_default()
    }
}

impl PartialEq for Span {
    fn eq(&self, other: &Self) -> bool {
        self.start == other.start
            && self.end == other.end
            && (Arc::ptr_eq(&self.source, &other.source) || self.source.name == other.source.name)
    }
}

impl Eq for Span {}

impl fmt::Display for Span {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, column) = self.line_column();
        write!(formatter, "{}:{line}:{column}", self.source.name)
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_follow_the_extension() {
        let of = |path: &str| Format::of_path(Path::new(path));
        assert_eq!(of("/etc/traefik/traefik.YML"), Some(Format::Yaml));
        assert_eq!(of("a.yaml"), Some(Format::Yaml));
        assert_eq!(of("a.toml"), Some(Format::Toml));
        assert_eq!(of("a.json"), Some(Format::Json));
        assert_eq!(of("a.conf"), None);
        assert_eq!(of("yaml"), None);
    }

    #[test]
    fn lines_and_columns_count_characters_from_one() {
        let source = Source::new("f.yml", "\u{feff}ab\r\né: x\n\nlast", Format::Yaml);
        let at = |start: usize| Span::new(&source, start..start).line_column();
        assert_eq!(&*source.text, "ab\r\né: x\n\nlast");
        assert_eq!(at(0), (1, 1));
        assert_eq!(at(1), (1, 2));
        assert_eq!(at(4), (2, 1));
        assert_eq!(at(8), (2, 4));
        assert_eq!(at(10), (3, 1));
        assert_eq!(at(15), (4, 5));
        assert_eq!(at(900), (4, 5));
        assert_eq!(source.line_at(1), (1, 0..2));
    }

    #[test]
    fn a_span_stays_on_character_boundaries() {
        let source = Source::new("f", "é", Format::Yaml);
        let span = Span::new(&source, 1..1);
        assert_eq!((span.start, span.end), (0, 2));
        assert_eq!(span.text(), "é");
        assert_eq!(format!("{span:?}"), "f:1:1");
    }

    #[test]
    fn an_empty_source_has_one_line() {
        let source = Source::new("f", "", Format::Toml);
        assert_eq!(Span::new(&source, 0..0).line_column(), (1, 1));
    }
}
