//! Raw strings in templates. The engine reads escapes in them, where Go has none: each of their backslashes is
//! doubled before it sees them, and places in its errors are those of the text as it was written.

use std::borrow::Cow;

/// A template as the engine reads it.
pub(super) struct Prepared<'t> {
    /// Its text.
    pub(super) text: Cow<'t, str>,
    /// Where in `text` a backslash was added, in order.
    added: Vec<usize>,
}

impl<'t> Prepared<'t> {
    /// Prepares the text of a file.
    pub(super) fn new(text: &'t str) -> Self {
        let mut prepared = Self { text: Cow::Borrowed(text), added: Vec::new() };
        if text.contains('`') && text.contains('\\') {
            prepared.double_backslashes(text);
        }
        prepared
    }

    /// The offset in the file of an offset in `text`.
    pub(super) fn written(&self, offset: usize) -> usize {
        offset - self.added.partition_point(|added| *added < offset)
    }

    fn double_backslashes(&mut self, written: &str) {
        let mut text = String::with_capacity(written.len() + 16);
        let mut place = Place::Text;
        let mut rest = written.chars().peekable();
        while let Some(character) = rest.next() {
            text.push(character);
            let next = rest.peek().copied();
            place = match (place, character) {
                (Place::Text, '{') if next == Some('{') => Place::Action,
                (Place::Action, '}') if next == Some('}') => Place::Text,
                (Place::Action, '/') if next == Some('*') => Place::Comment,
                (Place::Comment, '*') if next == Some('/') => Place::Action,
                (Place::Action, '"' | '\'') => Place::Quoted(character),
                (Place::Quoted(quote), end) if end == quote => Place::Action,
                (Place::Quoted(_), '\\') => {
                    text.extend(rest.next());
                    place
                }
                (Place::Action, '`') => Place::Raw,
                (Place::Raw, '`') => Place::Action,
                (Place::Raw, '\\') => {
                    self.added.push(text.len());
                    text.push('\\');
                    place
                }
                (place, _) => place,
            };
        }
        self.text = Cow::Owned(text);
    }
}

#[derive(Clone, Copy)]
enum Place {
    Text,
    Action,
    Comment,
    Quoted(char),
    Raw,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_raw_strings_are_changed() {
        for (written, read) in [
            (r"a `\d` {{ x `\d\\` }} `\d`", r"a `\d` {{ x `\\d\\\\` }} `\d`"),
            (r#"{{ "`\d" `\w` }}"#, r#"{{ "`\d" `\\w` }}"#),
            (r#"{{ "a\"`" `\w` '`' `\s` }}"#, r#"{{ "a\"`" `\\w` '`' `\\s` }}"#),
            (r"{{/* `\d` */}}{{ `\}}` }}", r"{{/* `\d` */}}{{ `\\}}` }}"),
        ] {
            assert_eq!(Prepared::new(written).text, read);
        }
    }

    #[test]
    fn places_are_those_of_the_file() {
        let written = r"{{ f `\d\w` x }}";
        let prepared = Prepared::new(written);
        for (offset, byte) in prepared.text.bytes().enumerate() {
            let there = written.as_bytes().get(prepared.written(offset));
            // The second of two backslashes stands for the first.
            assert!(there == Some(&byte) || byte == b'\\', "{offset}");
        }
        assert_eq!(prepared.written(prepared.text.len()), written.len());
    }
}
