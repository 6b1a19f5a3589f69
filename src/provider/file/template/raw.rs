//! Strings in templates, as the engine can read them. It reads escapes in raw strings, where Go has none: each of their
//! backslashes is doubled before it sees them. And it reads `\x`, `\u` and `\U` in quoted ones so badly that it comes to no
//! end: their characters take their places. Places in its errors are those of the text as it was written.

use std::borrow::Cow;
use std::ops::Range;

/// A template as the engine reads it.
pub(super) struct Prepared<'t> {
    /// Its text.
    pub(super) text: Cow<'t, str>,
    /// Where the first escape stands that is none, in the text as it was written.
    pub(super) broken: Option<Range<usize>>,
    /// From where on in `text` an offset is so many bytes away from that in the text as it was written, in order.
    moved: Vec<(usize, isize)>,
}

impl<'t> Prepared<'t> {
    /// Prepares the text of a file.
    pub(super) fn new(text: &'t str) -> Self {
        let mut prepared = Self { text: Cow::Borrowed(text), broken: None, moved: Vec::new() };
        if text.contains("{{") && text.contains('\\') {
            prepared.rewrite(text);
        }
        prepared
    }

    /// The offset in the file of an offset in `text`.
    pub(super) fn written(&self, offset: usize) -> usize {
        let before = self.moved.partition_point(|(from, _)| *from <= offset);
        let by = before.checked_sub(1).and_then(|last| self.moved.get(last)).map_or(0, |it| it.1);
        offset.saturating_add_signed(by)
    }

    fn rewrite(&mut self, written: &str) {
        let mut text = String::with_capacity(written.len() + 16);
        let mut place = Place::Text;
        let mut at = 0;
        while let Some(character) = written.get(at..).and_then(|rest| rest.chars().next()) {
            let start = at;
            at += character.len_utf8();
            let rest = written.get(at..).unwrap_or_default();
            let next = rest.chars().next();
            if let (Place::Quoted(quote), '\\') = (place, character) {
                match Escape::at(written.get(start..).unwrap_or_default()) {
                    Escape::Plain => {
                        text.push(character);
                        text.extend(next);
                        at += next.map_or(0, char::len_utf8);
                    }
                    Escape::Characters(characters, length) => {
                        push(&mut text, &characters, quote);
                        at = start + length;
                        self.move_on(text.len(), at);
                    }
                    Escape::Broken => {
                        self.broken.get_or_insert(start..at + next.map_or(0, char::len_utf8));
                        text.push_str("\\\\");
                    }
                }
                continue;
            }
            text.push(character);
            place = match (place, character) {
                (Place::Text, '{') if next == Some('{') => Place::Action,
                (Place::Action, '}') if next == Some('}') => Place::Text,
                (Place::Action, '/') if next == Some('*') => Place::Comment,
                (Place::Comment, '*') if next == Some('/') => Place::Action,
                (Place::Action, '"' | '\'') => Place::Quoted(character),
                (Place::Quoted(quote), end) if end == quote => Place::Action,
                (Place::Action, '`') => Place::Raw,
                (Place::Raw, '`') => Place::Action,
                (Place::Raw, '\\') => {
                    text.push('\\');
                    self.move_on(text.len(), at);
                    place
                }
                (place, _) => place,
            };
        }
        self.text = Cow::Owned(text);
    }

    /// From here on in the new text, the old one is at `written`.
    fn move_on(&mut self, new: usize, written: usize) {
        self.moved.push((new, written.cast_signed() - new.cast_signed()));
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

/// What stands behind a backslash in a quoted string.
enum Escape {
    /// What the engine reads, or refuses.
    Plain,
    /// The characters that so many bytes mean.
    Characters(String, usize),
    /// Nothing that Go reads, and the engine does not end with.
    Broken,
}

impl Escape {
    /// Reads the escape that `text` begins with.
    fn at(text: &str) -> Self {
        let digits = match text.as_bytes().get(1) {
            Some(b'x') => return Self::bytes(text),
            Some(b'u') => 4,
            Some(b'U') => 8,
            _ => return Self::Plain,
        };
        match number(text, digits).and_then(char::from_u32) {
            Some(character) => Self::Characters(character.into(), 2 + digits),
            None => Self::Broken,
        }
    }

    /// Neighbouring `\x` are the bytes of characters.
    fn bytes(text: &str) -> Self {
        let mut bytes = Vec::new();
        let mut rest = text;
        while rest.starts_with("\\x") {
            let Some(byte) = number(rest, 2).and_then(|byte| u8::try_from(byte).ok()) else {
                break;
            };
            bytes.push(byte);
            rest = rest.get(4..).unwrap_or_default();
        }
        match String::from_utf8(bytes) {
            Ok(characters) if !characters.is_empty() => {
                Self::Characters(characters, text.len() - rest.len())
            }
            _ => Self::Broken,
        }
    }
}

/// So many hexadecimal digits, behind two characters.
fn number(text: &str, digits: usize) -> Option<u32> {
    let digits = text.get(2..2 + digits)?;
    let all = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    u32::from_str_radix(digits, 16).ok().filter(|_| all)
}

/// Writes characters into a quoted string.
fn push(text: &mut String, characters: &str, quote: char) {
    for character in characters.chars() {
        match character {
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            other => {
                if other == quote || other == '\\' {
                    text.push('\\');
                }
                text.push(other);
            }
        }
    }
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
    fn escapes_become_what_they_mean() {
        for (written, read) in [
            (r#"{{ "\u0041bcdefg" }}"#, r#"{{ "Abcdefg" }}"#),
            (r#"{{ "\xc3\xa9\x22\x5c\n\u000a" '\u0027' }}"#, r#"{{ "é\"\\\n\n" '\'' }}"#),
            (r#"{{ "\U0001f600é" }} "\u""#, r#"{{ "😀é" }} "\u""#),
        ] {
            let prepared = Prepared::new(written);
            assert_eq!(prepared.text, read);
            assert_eq!(prepared.broken, None);
            assert_eq!(prepared.written(prepared.text.len()), written.len());
        }
        for (written, broken) in [
            (r#"{{ "a\uy" }}"#, 5..7),
            (r#"{{ "\u" }}"#, 4..6),
            (r#"{{ "\u00é0" }}"#, 4..6),
            (r#"{{ "\ud800" }}"#, 4..6),
            (r#"{{ "\x4" }}"#, 4..6),
            (r#"{{ "\x+1\xff" }}"#, 4..6),
            (r#"{{ "\U00110000" }}"#, 4..6),
        ] {
            assert_eq!(Prepared::new(written).broken, Some(broken), "{written}");
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
