//! Tokens of a rule, cut as Go's scanner cuts them.
//!
//! A rule is a Go expression, so a line that ends after a name, a literal or a closing bracket ends
//! the expression: there the lexer gives `NewLine`, where Go inserts a semicolon.

use std::borrow::Cow;

use super::RuleError;

/// What a token is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind<'t> {
    Name(&'t str),
    /// A string literal, unquoted.
    Text(Cow<'t, str>),
    Number,
    Open,
    Close,
    Comma,
    Not,
    And,
    Or,
    /// A line break that ends the expression.
    NewLine,
    End,
    /// Anything else that Go's scanner knows.
    Other,
}

/// A token and its byte range in the rule.
#[derive(Clone, Debug)]
pub(super) struct Token<'t> {
    pub(super) kind: Kind<'t>,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// Cuts a rule into tokens.
pub(super) struct Lexer<'t> {
    text: &'t str,
    at: usize,
    /// Whether a line break here would end the expression.
    ends_line: bool,
}

/// Go's operators of more than one character, longest first.
const LONG_OPERATORS: [&str; 23] = [
    "<<=", ">>=", "&^=", "...", "==", "!=", "<=", ">=", "<-", "<<", ">>", "&^", "+=", "-=", "*=",
    "/=", "%=", "&=", "|=", "^=", ":=", "++", "--",
];

impl<'t> Lexer<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        // Go skips a byte order mark at the start.
        let at = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        Self { text, at, ends_line: false }
    }

    /// The next token; after the last one, `End` for ever.
    pub(super) fn next(&mut self) -> Result<Token<'t>, RuleError> {
        if let Some(line_end) = self.skip_space()? {
            self.ends_line = false;
            return Ok(Token { kind: Kind::NewLine, start: line_end, end: line_end });
        }
        let start = self.at;
        let Some(c) = self.rest().chars().next() else {
            return Ok(Token { kind: Kind::End, start, end: start });
        };
        let kind = match c {
            '`' => self.raw_string()?,
            '"' => self.quoted_string()?,
            '\'' => return Err(self.single_quotes()),
            _ if c.is_alphabetic() || c == '_' => {
                let length = self.prefix(|c| c.is_alphanumeric() || c == '_');
                Kind::Name(self.take(length))
            }
            _ if c.is_ascii_digit()
                || (c == '.' && self.byte(1).is_some_and(|b| b.is_ascii_digit())) =>
            {
                let length = self.prefix(|c| c.is_ascii_alphanumeric() || c == '.' || c == '_');
                self.at += length;
                Kind::Number
            }
            _ => self.operator(c)?,
        };
        self.ends_line = match kind {
            Kind::Name(_) | Kind::Text(_) | Kind::Number | Kind::Close => true,
            Kind::Other => matches!(self.text.get(start..self.at), Some("]" | "}" | "++" | "--")),
            _ => false,
        };
        Ok(Token { kind, start, end: self.at })
    }

    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn byte(&self, ahead: usize) -> Option<u8> {
        self.text.as_bytes().get(self.at + ahead).copied()
    }

    fn prefix(&self, wanted: impl Fn(char) -> bool) -> usize {
        let rest = self.rest();
        rest.find(|c| !wanted(c)).unwrap_or(rest.len())
    }

    fn take(&mut self, length: usize) -> &'t str {
        let taken = self.rest().get(..length).unwrap_or_default();
        self.at += taken.len();
        taken
    }

    fn error(&self, message: impl Into<String>, start: usize) -> RuleError {
        RuleError::new(message, start..self.at.max(start))
    }

    /// Skips blanks and comments; stops after a line break that ends the expression, and gives its
    /// offset.
    fn skip_space(&mut self) -> Result<Option<usize>, RuleError> {
        loop {
            match self.byte(0) {
                Some(b'\n') if self.ends_line => {
                    self.at += 1;
                    return Ok(Some(self.at - 1));
                }
                Some(b' ' | b'\t' | b'\r' | b'\n') => self.at += 1,
                Some(b'/') if self.byte(1) == Some(b'/') => self.at += self.prefix(|c| c != '\n'),
                Some(b'/') if self.byte(1) == Some(b'*') => {
                    let start = self.at;
                    let Some(length) = self.text.get(start + 2..).and_then(|text| text.find("*/"))
                    else {
                        self.at = self.text.len();
                        return Err(self.error("comment not terminated", start));
                    };
                    // A comment that spans lines acts like a line break.
                    let comment = self.take(length + 4);
                    if self.ends_line && comment.contains('\n') {
                        return Ok(Some(start));
                    }
                }
                _ => return Ok(None),
            }
        }
    }

    fn raw_string(&mut self) -> Result<Kind<'t>, RuleError> {
        let start = self.at;
        self.at += 1;
        let length = self.prefix(|c| c != '`');
        let body = self.take(length);
        if self.byte(0).is_none() {
            return Err(self.error("raw string literal not terminated", start));
        }
        self.at += 1;
        // Go drops carriage returns from raw strings.
        let text = if body.contains('\r') { body.replace('\r', "").into() } else { body.into() };
        Ok(Kind::Text(text))
    }

    fn quoted_string(&mut self) -> Result<Kind<'t>, RuleError> {
        let start = self.at;
        self.at += 1;
        let body_start = self.at;
        loop {
            match self.byte(0) {
                None | Some(b'\n') => {
                    return Err(self.error("string literal not terminated", start));
                }
                Some(b'"') => break,
                Some(b'\\') if !matches!(self.byte(1), None | Some(b'\n')) => self.at += 2,
                Some(_) => self.at += 1,
            }
        }
        let body = self.text.get(body_start..self.at).unwrap_or_default();
        self.at += 1;
        if !body.contains('\\') {
            return Ok(Kind::Text(body.into()));
        }
        unescape(body, body_start).map(|text| Kind::Text(text.into()))
    }

    fn single_quotes(&mut self) -> RuleError {
        let start = self.at;
        self.at += 1;
        self.at += self.prefix(|c| c != '\'' && c != '\n');
        self.at += usize::from(self.byte(0) == Some(b'\''));
        self.error(
            "illegal rune literal: strings are written in `back quotes` or \"double quotes\"",
            start,
        )
    }

    fn operator(&mut self, c: char) -> Result<Kind<'t>, RuleError> {
        let rest = self.rest();
        for (operator, kind) in [("&&", Kind::And), ("||", Kind::Or)] {
            if rest.starts_with(operator) {
                self.at += operator.len();
                return Ok(kind);
            }
        }
        if let Some(operator) = LONG_OPERATORS.iter().find(|operator| rest.starts_with(**operator))
        {
            self.at += operator.len();
            return Ok(Kind::Other);
        }
        let start = self.at;
        self.at += c.len_utf8();
        match c {
            '(' => Ok(Kind::Open),
            ')' => Ok(Kind::Close),
            ',' => Ok(Kind::Comma),
            '!' => Ok(Kind::Not),
            '+' | '-' | '*' | '/' | '%' | '&' | '|' | '^' | '<' | '>' | '=' | '[' | ']' | '{'
            | '}' | ';' | '.' | ':' | '~' => Ok(Kind::Other),
            _ => {
                let code = u32::from(c);
                Err(self.error(format!("illegal character U+{code:04X} {c:?}"), start))
            }
        }
    }
}

/// Resolves the escapes of a double-quoted Go string.
fn unescape(body: &str, offset: usize) -> Result<String, RuleError> {
    let mut bytes = Vec::with_capacity(body.len());
    let mut rest = body;
    while let Some(escape_at) = rest.find('\\') {
        let (plain, escape) = rest.split_at(escape_at);
        bytes.extend_from_slice(plain.as_bytes());
        let start = offset + body.len() - escape.len();
        let (value, length) = escape_value(escape).ok_or_else(|| {
            let length: usize = escape.chars().take(2).map(char::len_utf8).sum();
            RuleError::new("unknown escape sequence", start..start + length)
        })?;
        match value {
            Escape::Byte(byte) => bytes.push(byte),
            Escape::Char(c) => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
        rest = escape.get(length..).unwrap_or_default();
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8(bytes).map_err(|_| {
        RuleError::new("the escapes do not form UTF-8 text", offset..offset + body.len())
    })
}

enum Escape {
    Byte(u8),
    Char(char),
}

/// The value of the escape at the start of `text`, and its length.
fn escape_value(text: &str) -> Option<(Escape, usize)> {
    let digits = |from: usize, count: usize, radix: u32| {
        let digits = text.get(from..from + count)?;
        let all_digits = digits.chars().all(|c| c.is_digit(radix));
        all_digits.then(|| u32::from_str_radix(digits, radix).ok()).flatten()
    };
    let byte = match text.as_bytes().get(1)? {
        b'a' => 7,
        b'b' => 8,
        b'f' => 12,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 11,
        b'\\' => b'\\',
        b'"' => b'"',
        b'0'..=b'7' => return Some((Escape::Byte(u8::try_from(digits(1, 3, 8)?).ok()?), 4)),
        b'x' => return Some((Escape::Byte(u8::try_from(digits(2, 2, 16)?).ok()?), 4)),
        b'u' => return Some((Escape::Char(char::from_u32(digits(2, 4, 16)?)?), 6)),
        b'U' => return Some((Escape::Char(char::from_u32(digits(2, 8, 16)?)?), 10)),
        _ => return None,
    };
    Some((Escape::Byte(byte), 2))
}
