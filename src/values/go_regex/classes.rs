//! Character classes: `[…]`, `\p{Greek}`, `\d`.
//!
//! Members are written as numbers, so that nothing in a class has a meaning that Go does not know.

use std::fmt::Write as _;

use regex::Regex;

use super::{GoRegexError, Translator};

impl Translator<'_> {
    /// Reads `\pN`, `\p{Greek}` or `\p{^Greek}`.
    pub(super) fn unicode_class(&mut self) -> Result<String, GoRegexError> {
        let start = self.at();
        let mut negated = self.rest.starts_with(r"\P");
        self.skip(2);
        let rest = self.rest;
        let mut name = if rest.starts_with('{') {
            let Some(end) = rest.find('}') else {
                return Err(self.error("invalid character class range", start, self.pattern.len()));
            };
            self.skip(end + 1);
            rest.get(1..end).unwrap_or_default()
        } else {
            let length = self.next().map_or(0, char::len_utf8);
            rest.get(..length).unwrap_or_default()
        };
        if let Some(positive) = name.strip_prefix('^') {
            negated = !negated;
            name = positive;
        }
        let plain =
            name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b' '));
        let class = format!(r"\{}{{{name}}}", if negated { 'P' } else { 'p' });
        if !plain || name.is_empty() || Regex::new(&class).is_err() {
            return Err(self.error_from("invalid character class range", start));
        }
        Ok(class)
    }

    /// Reads `[…]`.
    pub(super) fn class(&mut self) -> Result<(), GoRegexError> {
        let start = self.at();
        self.skip(1);
        self.out.push('[');
        if self.rest.starts_with('^') {
            self.skip(1);
            self.out.push('^');
        }
        let mut first = true;
        while first || !self.rest.starts_with(']') {
            first = false;
            self.class_item(start)?;
        }
        self.skip(1);
        self.out.push(']');
        self.atom(1);
        Ok(())
    }

    fn class_item(&mut self, class: usize) -> Result<(), GoRegexError> {
        if let Some(after) = self.rest.strip_prefix("[:")
            && let Some(end) = after.find(":]")
        {
            return self.posix_class(end + 4);
        }
        if self.rest.starts_with(r"\p") || self.rest.starts_with(r"\P") {
            let group = self.unicode_class()?;
            self.out.push_str(&group);
            return Ok(());
        }
        if let [b'\\', letter, ..] = self.rest.as_bytes()
            && let Some((members, negated)) = perl_class(*letter)
        {
            self.skip(2);
            if negated {
                self.out.push_str("[^");
            }
            self.out.push_str(members);
            if negated {
                self.out.push(']');
            }
            return Ok(());
        }
        let start = self.at();
        let low = self.class_char(class)?;
        self.class_literal(low);
        if let [b'-', next, ..] = self.rest.as_bytes()
            && *next != b']'
        {
            self.skip(1);
            let high = self.class_char(class)?;
            if high < low {
                return Err(self.error_from("invalid character class range", start));
            }
            self.out.push('-');
            self.class_literal(high);
        }
        Ok(())
    }

    fn posix_class(&mut self, length: usize) -> Result<(), GoRegexError> {
        const NAMES: [&str; 14] = [
            "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print",
            "punct", "space", "upper", "word", "xdigit",
        ];
        let start = self.at();
        let class = self.rest.get(..length).unwrap_or_default();
        self.skip(length);
        let name = class.trim_start_matches("[:").trim_end_matches(":]");
        if !NAMES.contains(&name.strip_prefix('^').unwrap_or(name)) {
            return Err(self.error_from("invalid character class range", start));
        }
        self.out.push_str(class);
        Ok(())
    }

    fn class_char(&mut self, class: usize) -> Result<char, GoRegexError> {
        if self.rest.starts_with('\\') {
            return self.escape();
        }
        self.next().ok_or_else(|| self.error("missing closing ]", class, self.pattern.len()))
    }

    /// Writes a member of a class so that no character has a meaning of its own: Rust reads `&&`,
    /// `--`, `~~` and `[` inside classes.
    fn class_literal(&mut self, c: char) {
        if c.is_ascii_alphanumeric() {
            self.out.push(c);
        } else {
            // Writing to a String cannot fail.
            let _ = write!(self.out, r"\x{{{:x}}}", u32::from(c));
        }
    }
}

/// The members of `\d`, `\s`, `\w` in Go, which are ASCII and leave the vertical tab out of `\s`.
pub(super) fn perl_class(letter: u8) -> Option<(&'static str, bool)> {
    let members = match letter.to_ascii_lowercase() {
        b'd' => "0-9",
        b's' => r"\t\n\x0C\r ",
        b'w' => "0-9A-Za-z_",
        _ => return None,
    };
    Some((members, letter.is_ascii_uppercase()))
}
