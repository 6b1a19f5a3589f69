//! A text that a regular expression matches, made of its literals.
//!
//! Whatever is made is tried: a pattern that is too clever gets no example, never a wrong one.

use std::iter::Peekable;
use std::str::Chars;

use regex::Regex;

/// No repetition is written out more often.
const MOST_COPIES: usize = 64;

/// A text that `regex` matches, if one can be made.
pub(super) fn example(regex: &Regex) -> Option<String> {
    [true, false].into_iter().find_map(|full| {
        let mut reader = Reader { rest: regex.as_str().chars().peekable(), full };
        Some(reader.alternatives()).filter(|text| regex.is_match(text))
    })
}

struct Reader<'p> {
    rest: Peekable<Chars<'p>>,
    /// Whether what may be left out is written once.
    full: bool,
}

impl Reader<'_> {
    /// The first of the alternatives up to a closing bracket or the end.
    fn alternatives(&mut self) -> String {
        let first = self.sequence();
        while self.rest.next_if_eq(&'|').is_some() {
            self.sequence();
        }
        first
    }

    fn sequence(&mut self) -> String {
        let mut text = String::new();
        while let Some(next) = self.rest.next_if(|next| !matches!(next, '|' | ')')) {
            let atom = self.atom(next);
            for _ in 0..self.copies() {
                text.push_str(&atom);
            }
        }
        text
    }

    fn atom(&mut self, first: char) -> String {
        match first {
            '^' | '$' => String::new(),
            '.' => "a".to_owned(),
            '(' => {
                let is_group = self.group_start();
                let text = if is_group { self.alternatives() } else { String::new() };
                self.rest.next_if_eq(&')');
                text
            }
            '[' => self.class().map(String::from).unwrap_or_default(),
            '\\' => self.escape().map(String::from).unwrap_or_default(),
            other => other.to_string(),
        }
    }

    /// Reads what may follow an opening bracket; `false` for flags alone.
    fn group_start(&mut self) -> bool {
        if self.rest.next_if_eq(&'?').is_none() {
            return true;
        }
        while let Some(next) = self.rest.next_if(|next| *next != ')') {
            if matches!(next, ':' | '>') {
                return true;
            }
        }
        false
    }

    /// How often the atom in front of here is written.
    fn copies(&mut self) -> usize {
        let optional = usize::from(self.full);
        let copies = match self.rest.peek() {
            Some('?' | '*') => optional,
            Some('+') => 1,
            Some('{') => {
                let bounds: String =
                    self.rest.by_ref().skip(1).take_while(|next| *next != '}').collect();
                let least = bounds.split(',').next().and_then(|least| least.trim().parse().ok());
                self.rest.next_if_eq(&'?');
                return least.unwrap_or(1).min(MOST_COPIES);
            }
            _ => return 1,
        };
        self.rest.next();
        self.rest.next_if(|next| matches!(next, '?' | '+'));
        copies
    }

    /// What a backslash stands in front of; nothing for a place, such as `\b`.
    fn escape(&mut self) -> Option<char> {
        match self.rest.next()? {
            'd' => Some('0'),
            'w' | 'D' | 'S' => Some('a'),
            'W' => Some('-'),
            's' => Some(' '),
            'n' => Some('\n'),
            't' => Some('\t'),
            'r' => Some('\r'),
            'b' | 'B' | 'A' | 'z' => None,
            'p' | 'P' => {
                self.braced();
                Some('a')
            }
            'x' => {
                let digits = match self.rest.peek() {
                    Some('{') => self.braced(),
                    _ => self.rest.by_ref().take(2).collect(),
                };
                u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32)
            }
            literal => Some(literal),
        }
    }

    /// The text in braces, or one letter.
    fn braced(&mut self) -> String {
        if self.rest.next_if_eq(&'{').is_some() {
            self.rest.by_ref().take_while(|next| *next != '}').collect()
        } else {
            self.rest.next().into_iter().collect()
        }
    }

    /// A member of a class; of what a negated one may hold, an `x`.
    fn class(&mut self) -> Option<char> {
        let negated = self.rest.next_if_eq(&'^').is_some();
        let mut first = None;
        let mut is_start = true;
        while let Some(next) = self.rest.next() {
            let member = match next {
                ']' if !is_start => break,
                '[' => {
                    self.class();
                    Some('a')
                }
                '\\' => self.escape(),
                other => Some(other),
            };
            first = first.or(member);
            is_start = false;
        }
        if negated { Some('x') } else { first }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_match() {
        for (pattern, expected) in [
            (r"^.+\.example\.com$", "a.example.com"),
            (r"^/api/v[0-9]+/(users|groups)$", "/api/v0/users"),
            (r"^/(?P<name>[a-z]{3})/?$", "/aaa/"),
            (r"(?i)^shop\d*\.test$", "shop0.test"),
            (r"\.(css|js)$", ".css"),
            (r"^[^/]+$", "x"),
            (r"^[[:alpha:]]\x41$", "aA"),
            ("", ""),
        ] {
            assert_eq!(
                example(&Regex::new(pattern).unwrap()).as_deref(),
                Some(expected),
                "{pattern}"
            );
        }
    }

    #[test]
    fn what_is_too_clever_has_none() {
        for pattern in [r"^[^a-z]x\b1$", r"^a\b\Bc$"] {
            assert_eq!(example(&Regex::new(pattern).unwrap()), None, "{pattern}");
        }
    }
}
