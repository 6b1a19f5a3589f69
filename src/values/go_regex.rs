//! Go's regular expressions (RE2 syntax), run by Rust's `regex`.
//!
//! Both engines search for the leftmost-first match in linear time; they differ in what they read.
//! So a pattern is read by Go's rules and written anew for Rust: a pattern that Go refuses is
//! refused here with Go's sentence, and any other means the same in both.

mod classes;

use regex::{Regex, RegexBuilder};

use super::BuildError;
use classes::perl_class;

/// The largest compiled program, in bytes; it bounds the time a hostile pattern takes to compile.
const PROGRAM_LIMIT: usize = 8 << 20;
/// The largest lazy DFA cache of one pattern and one thread, in bytes.
const DFA_LIMIT: usize = 1 << 20;
/// Go's limit for a repeat count, and for the product of nested ones.
const REPEAT_LIMIT: u32 = 1000;

/// Why a pattern is not a Go regular expression, in Go's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct GoRegexError {
    /// The whole sentence, as Go's `regexp.Compile` says it.
    pub message: String,
    /// Byte offset in the pattern where the trouble starts.
    pub offset: usize,
}

/// Compiles a pattern written for Go's `regexp` package.
///
/// Capture groups keep their numbers, and their names where Rust can express them: a group whose
/// name starts with a digit or was given before keeps its number only. Three things that Go reads are refused:
/// a surrogate (`\x{D800}`), which no text contains, an operator that repeats what stands before
/// flags (`a(?i)*`), and a program of more than eight megabytes.
pub fn compile(pattern: &str) -> Result<Regex, GoRegexError> {
    let translated = Translator::new(pattern).translate()?;
    RegexBuilder::new(&translated)
        .size_limit(PROGRAM_LIMIT)
        .dfa_size_limit(DFA_LIMIT)
        .build()
        .map_err(|error| {
            let reason = match error {
                regex::Error::CompiledTooBig(_) => "expression too large",
                _ => "expression nests too deeply",
            };
            GoRegexError { message: sentence(reason, pattern), offset: 0 }
        })
}

/// A warning for each group that `replacement`, the value of `option`, names and `regex` has not:
/// Go, and Rust, put nothing in its place.
pub fn missing_groups(option: &str, replacement: &str, regex: &Regex) -> Vec<BuildError> {
    let mut missing: Vec<BuildError> = Vec::new();
    let mut rest = replacement;
    while let Some((_, after)) = rest.split_once('$') {
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let (name, written, remaining) = if let Some(inner) = after.strip_prefix('{') {
            let Some((name, remaining)) = inner.split_once('}') else {
                rest = inner;
                continue;
            };
            (name, format!("${{{name}}}"), remaining)
        } else {
            let end = after.find(|c| !is_word(c)).unwrap_or(after.len());
            let (name, remaining) = after.split_at(end);
            // `$$` is a dollar sign, and so is one before anything else.
            let remaining = remaining.strip_prefix('$').filter(|_| end == 0).unwrap_or(remaining);
            (name, format!("${name}"), remaining)
        };
        rest = remaining;
        if name.is_empty() || !name.chars().all(is_word) || has_group(regex, name) {
            continue;
        }
        let digits = name.find(|c: char| !c.is_ascii_digit()).unwrap_or(name.len());
        let message = match name.split_at(digits) {
            (number, text) if !number.is_empty() && !text.is_empty() => format!(
                "`{written}` names a group `{name}`, which `regex` has not: nothing stands in its \
                 place; for group {number} write `${{{number}}}{text}`"
            ),
            _ => format!(
                "`{written}` names a group that `regex` has not, its groups go from 0 to {}: \
                 nothing stands in its place",
                regex.captures_len() - 1
            ),
        };
        let message = BuildError::at(option, message);
        if !missing.contains(&message) {
            missing.push(message);
        }
    }
    missing
}

fn has_group(regex: &Regex, name: &str) -> bool {
    match name.parse::<usize>() {
        Ok(number) => number < regex.captures_len(),
        Err(_) => regex.capture_names().flatten().any(|known| known == name),
    }
}

fn sentence(reason: &str, at: &str) -> String {
    format!("error parsing regexp: {reason}: `{at}`")
}

/// What is known about the group being read.
#[derive(Default)]
struct Level {
    /// Where its parenthesis is.
    opened: usize,
    /// The product of repeat counts in the last atom; `None` where there is nothing to repeat.
    atom: Option<u32>,
    /// The largest such product among the atoms before.
    heaviest: u32,
}

impl Level {
    fn weight(&self) -> u32 {
        self.heaviest.max(self.atom.unwrap_or(1)).max(1)
    }

    fn end_atom(&mut self) {
        self.heaviest = self.weight();
        self.atom = None;
    }
}

struct Translator<'p> {
    pattern: &'p str,
    /// What is still to be read: a suffix of `pattern`.
    rest: &'p str,
    out: String,
    outer: Vec<Level>,
    level: Level,
    names: Vec<&'p str>,
    /// Where the repetition operator just read starts.
    last_repeat: Option<usize>,
}

impl<'p> Translator<'p> {
    fn new(pattern: &'p str) -> Self {
        Self {
            pattern,
            rest: pattern,
            out: String::with_capacity(pattern.len() + 16),
            outer: Vec::new(),
            level: Level::default(),
            names: Vec::new(),
            last_repeat: None,
        }
    }

    fn translate(mut self) -> Result<String, GoRegexError> {
        while let Some(c) = self.rest.chars().next() {
            let last_repeat = self.last_repeat.take();
            match c {
                '(' => self.open()?,
                ')' => self.close()?,
                '|' => {
                    self.skip(1);
                    self.level.end_atom();
                    self.out.push('|');
                }
                '*' | '+' | '?' => {
                    let start = self.at();
                    self.skip(1);
                    self.repeat(start, last_repeat, None)?;
                }
                '{' => match counts(self.rest) {
                    Some((bounds, length)) => {
                        let start = self.at();
                        self.skip(length);
                        self.repeat(start, last_repeat, Some(bounds))?;
                    }
                    None => self.literal_char(c),
                },
                '[' => self.class()?,
                '\\' => self.escaped()?,
                '.' | '^' | '$' => {
                    self.skip(1);
                    self.atom(1);
                    self.out.push(c);
                }
                _ => self.literal_char(c),
            }
        }
        if self.outer.is_empty() {
            Ok(self.out)
        } else {
            Err(self
                .error("missing closing )", self.level.opened, self.pattern.len())
                .whole(self.pattern))
        }
    }

    fn at(&self) -> usize {
        self.pattern.len() - self.rest.len()
    }

    fn skip(&mut self, bytes: usize) {
        self.rest = self.rest.get(bytes..).unwrap_or_default();
    }

    fn next(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.skip(c.len_utf8());
        Some(c)
    }

    fn error(&self, reason: &str, start: usize, end: usize) -> GoRegexError {
        let at = self.pattern.get(start..end).unwrap_or_default();
        GoRegexError { message: sentence(reason, at), offset: start }
    }

    /// An error about the text from `start` to where reading stands.
    fn error_from(&self, reason: &str, start: usize) -> GoRegexError {
        self.error(reason, start, self.at())
    }

    fn atom(&mut self, weight: u32) {
        self.level.end_atom();
        self.level.atom = Some(weight);
    }

    fn literal_char(&mut self, c: char) {
        self.skip(c.len_utf8());
        self.literal(c);
    }

    fn literal(&mut self, c: char) {
        self.atom(1);
        if r"\.+*?()|[]{}^$#&-~".contains(c) {
            self.out.push('\\');
        }
        self.out.push(c);
    }

    /// Reads `(` with what follows it: a capture, a name, flags, or flags for the rest of the group.
    fn open(&mut self) -> Result<(), GoRegexError> {
        let start = self.at();
        if !self.rest.starts_with("(?") {
            self.skip(1);
            self.out.push('(');
            self.push_level(start);
            return Ok(());
        }
        let name_at = if self.rest.starts_with("(?P<") {
            Some(4)
        } else if self.rest.starts_with("(?<") {
            Some(3)
        } else {
            None
        };
        match name_at {
            Some(name_at) => self.open_named(start, name_at),
            None => self.flags(start),
        }
    }

    fn push_level(&mut self, opened: usize) {
        self.outer.push(std::mem::take(&mut self.level));
        self.level.opened = opened;
    }

    fn open_named(&mut self, start: usize, name_at: usize) -> Result<(), GoRegexError> {
        let rest = self.rest;
        let Some(end) = rest.find('>') else {
            return Err(self.error("invalid named capture", start, self.pattern.len()));
        };
        let name = rest.get(name_at..end).unwrap_or_default();
        self.skip(end + 1);
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err(self.error_from("invalid named capture", start));
        }
        if self.names.contains(&name) || name.starts_with(|c: char| c.is_ascii_digit()) {
            self.out.push('(');
        } else {
            self.names.push(name);
            self.out.push_str("(?P<");
            self.out.push_str(name);
            self.out.push('>');
        }
        self.push_level(start);
        Ok(())
    }

    /// Reads `(?flags)` or `(?flags:`. Go allows a flag twice and the last one wins; Rust does not.
    fn flags(&mut self, start: usize) -> Result<(), GoRegexError> {
        self.skip(2);
        let mut set = [None; FLAGS.len()];
        let mut value = true;
        let mut dangling_minus = false;
        loop {
            let c = self.next();
            let flag = c.and_then(|c| FLAGS.iter().position(|flag| *flag == c));
            if let Some(slot) = flag.and_then(|flag| set.get_mut(flag)) {
                *slot = Some(value);
                dangling_minus = false;
                continue;
            }
            match c {
                Some('-') if value => {
                    value = false;
                    dangling_minus = true;
                }
                Some(close @ (':' | ')')) if !dangling_minus => {
                    self.write_flags(set, close);
                    if close == ':' {
                        self.push_level(start);
                    } else {
                        self.level.end_atom();
                    }
                    return Ok(());
                }
                _ => return Err(self.error_from("invalid or unsupported Perl syntax", start)),
            }
        }
    }

    fn write_flags(&mut self, set: [Option<bool>; FLAGS.len()], close: char) {
        if close == ')' && set.iter().all(Option::is_none) {
            return;
        }
        self.out.push_str("(?");
        for wanted in [true, false] {
            let mut chosen =
                FLAGS.iter().zip(set).filter(|(_, set)| *set == Some(wanted)).peekable();
            if !wanted && chosen.peek().is_some() {
                self.out.push('-');
            }
            self.out.extend(chosen.map(|(flag, _)| *flag));
        }
        self.out.push(close);
    }

    fn close(&mut self) -> Result<(), GoRegexError> {
        let Some(outer) = self.outer.pop() else {
            return Err(self
                .error("unexpected )", self.at(), self.pattern.len())
                .whole(self.pattern));
        };
        self.skip(1);
        let weight = self.level.weight();
        self.level = outer;
        self.atom(weight);
        self.out.push(')');
        Ok(())
    }

    /// Writes the operator that was read from `start` on, with the `?` that may follow it.
    fn repeat(
        &mut self,
        start: usize,
        last: Option<usize>,
        bounds: Option<Bounds>,
    ) -> Result<(), GoRegexError> {
        if bounds.is_some_and(|bounds| !bounds.sensible()) {
            return Err(self.error_from("invalid repeat count", start));
        }
        if self.rest.starts_with('?') {
            self.skip(1);
        }
        if let Some(last) = last {
            return Err(self.error_from("invalid nested repetition operator", last));
        }
        let Some(weight) = self.level.atom else {
            return Err(self.error_from("missing argument to repetition operator", start));
        };
        if let Some(Bounds { min, max }) = bounds {
            let most = max.unwrap_or(min);
            let weight = if max == Some(0) { 1 } else { weight.saturating_mul(most.max(1)) };
            if most >= 2 && weight > REPEAT_LIMIT {
                return Err(self.error_from("invalid repeat count", start));
            }
            self.level.atom = Some(weight);
        }
        let operator = self.pattern.get(start..self.at()).unwrap_or_default();
        self.out.push_str(operator);
        self.last_repeat = Some(start);
        Ok(())
    }

    /// Reads a backslash and what it introduces, outside a class.
    fn escaped(&mut self) -> Result<(), GoRegexError> {
        match self.rest.as_bytes().get(1) {
            Some(b'A') => self.assertion(r"\A"),
            Some(b'z') => self.assertion(r"\z"),
            // Go's word boundaries know ASCII only.
            Some(b'b') => self.assertion(r"(?-u:\b)"),
            Some(b'B') => self.assertion(r"(?-u:\B)"),
            Some(b'Q') => {
                self.skip(2);
                let (quoted, length) = match self.rest.find(r"\E") {
                    Some(end) => (self.rest.get(..end).unwrap_or_default(), end + 2),
                    None => (self.rest, self.rest.len()),
                };
                self.skip(length);
                quoted.chars().for_each(|c| self.literal(c));
            }
            Some(b'p' | b'P') => {
                let class = self.unicode_class()?;
                self.atom(1);
                self.out.push_str(&class);
            }
            Some(letter) => {
                if let Some((members, negated)) = perl_class(*letter) {
                    self.skip(2);
                    self.atom(1);
                    self.out.push_str(if negated { "[^" } else { "[" });
                    self.out.push_str(members);
                    self.out.push(']');
                } else {
                    let c = self.escape()?;
                    self.literal(c);
                }
            }
            None => return Err(trailing_backslash(self.at())),
        }
        Ok(())
    }

    fn assertion(&mut self, rust: &str) {
        self.skip(2);
        self.atom(1);
        self.out.push_str(rust);
    }

    /// Reads an escape that stands for one character.
    fn escape(&mut self) -> Result<char, GoRegexError> {
        let start = self.at();
        self.skip(1);
        let Some(c) = self.next() else { return Err(trailing_backslash(start)) };
        let code = match c {
            // A single digit other than 0 would be a back-reference.
            '1'..='7' if !self.rest.starts_with(is_octal) => None,
            '0'..='7' => {
                let mut code = u32::from(c) - u32::from('0');
                for _ in 0..2 {
                    let Some(digit) = self.rest.chars().next().and_then(|c| c.to_digit(8)) else {
                        break;
                    };
                    self.skip(1);
                    code = code * 8 + digit;
                }
                Some(code)
            }
            'x' => self.hexadecimal(),
            'a' => Some(7),
            'f' => Some(12),
            'n' => Some(10),
            'r' => Some(13),
            't' => Some(9),
            'v' => Some(11),
            _ if c.is_ascii() && !c.is_ascii_alphanumeric() => Some(u32::from(c)),
            _ => None,
        };
        code.and_then(char::from_u32)
            .ok_or_else(|| self.error_from("invalid escape sequence", start))
    }

    /// Reads what follows `\x`: two hexadecimal digits, or any number of them in braces.
    fn hexadecimal(&mut self) -> Option<u32> {
        let braced = self.rest.starts_with('{');
        self.skip(usize::from(braced));
        let mut code = 0;
        for digits in 0.. {
            if !braced && digits == 2 {
                break;
            }
            let c = self.next()?;
            if braced && c == '}' && digits > 0 {
                break;
            }
            code = code * 16 + c.to_digit(16)?;
            if code > u32::from(char::MAX) {
                return None;
            }
        }
        Some(code)
    }
}

const FLAGS: [char; 4] = ['i', 'm', 's', 'U'];

impl GoRegexError {
    /// The same error, quoting the whole pattern, as Go does for unbalanced parentheses.
    fn whole(mut self, pattern: &str) -> Self {
        if let Some((head, _)) = self.message.split_once(": `") {
            self.message = format!("{head}: `{pattern}`");
        }
        self
    }
}

fn trailing_backslash(offset: usize) -> GoRegexError {
    let message = "error parsing regexp: trailing backslash at end of expression: ``".to_owned();
    GoRegexError { message, offset }
}

fn is_octal(c: char) -> bool {
    matches!(c, '0'..='7')
}

/// The numbers of `{min,max}`.
#[derive(Clone, Copy)]
struct Bounds {
    min: u32,
    max: Option<u32>,
}

impl Bounds {
    fn sensible(self) -> bool {
        self.min <= REPEAT_LIMIT
            && self.max.is_none_or(|max| max <= REPEAT_LIMIT && self.min <= max)
    }
}

/// Reads `{n}`, `{n,}` or `{n,m}`; anything else that starts with a brace is literal in Go.
fn counts(text: &str) -> Option<(Bounds, usize)> {
    let end = text.find('}')?;
    let (min, max) = match text.get(1..end)?.split_once(',') {
        None => {
            let count = number(text.get(1..end)?)?;
            (count, Some(count))
        }
        Some((min, "")) => (number(min)?, None),
        Some((min, max)) => (number(min)?, Some(number(max)?)),
    };
    Some((Bounds { min, max }, end + 1))
}

/// A count without leading zeros; one that is too large stays too large.
fn number(digits: &str) -> Option<u32> {
    let well_formed = !digits.is_empty()
        && digits.bytes().all(|b| b.is_ascii_digit())
        && (digits.len() == 1 || !digits.starts_with('0'));
    well_formed.then(|| digits.parse().unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{compile, missing_groups};

    fn found<'t>(pattern: &str, text: &'t str) -> Option<&'t str> {
        compile(pattern).expect(pattern).find(text).map(|found| found.as_str())
    }

    fn refusal(pattern: &str) -> (String, usize) {
        let error = compile(pattern).expect_err(pattern);
        (error.message.replace("error parsing regexp: ", ""), error.offset)
    }

    #[test]
    fn braces_that_are_no_repeat_are_literal() {
        assert_eq!(found("a{", "a{"), Some("a{"));
        assert_eq!(found("a{,3}", "aaa a{,3}"), Some("a{,3}"));
        assert_eq!(found("a{01}", "a a{01}"), Some("a{01}"));
        assert_eq!(found("a{2}", "a{2} aaa"), Some("aa"));
        assert_eq!(found("a{2,}?", "aaa"), Some("aa"));
        assert_eq!(found(r"{name:[a-z]+\.com}", "{name:example.com}"), Some("{name:example.com}"));
        assert_eq!(found("^}$", "}"), Some("}"));
    }

    #[test]
    fn perl_classes_and_boundaries_are_ascii() {
        assert_eq!(found(r"\d+", "٣3"), Some("3"));
        assert_eq!(found(r"\w+", "éa_1"), Some("a_1"));
        assert_eq!(found(r"\s", "\u{a0}\u{b}\t"), Some("\t"), "no vertical tab in Go");
        assert_eq!(found(r"\ba", "éa"), Some("a"));
        assert_eq!(found(r"\S", " é"), Some("é"));
        assert_eq!(found(r"[^\W\d]+", "é1ab"), Some("ab"));
        assert_eq!(found(r"[[:^alpha:]]", "a1"), Some("1"));
    }

    #[test]
    fn escapes_are_those_of_go() {
        assert_eq!(found(r"\Qa.b*\E+", "a.b**"), Some("a.b**"));
        assert_eq!(found(r"\Q(", "("), Some("("));
        assert_eq!(found(r"\x41\x{42}\103\12", "ABC\n"), Some("ABC\n"));
        assert_eq!(found(r"\<\>\_\-\@", "<>_-@"), Some("<>_-@"));
        assert_eq!(found(r"a$", "a\n"), None);
        assert_eq!(found(r"\Aa\z", "a"), Some("a"));
        assert_eq!(found(r"\p{Greek}\pL\P{^Lu}", "αbC"), Some("αbC"));
    }

    #[test]
    fn classes_know_no_set_operators() {
        assert_eq!(found("[a&&b]+", "&ab"), Some("&ab"));
        assert_eq!(found("[+--]+", "+,-."), Some("+,-"));
        assert_eq!(found("[a~~b[]+", "a~["), Some("a~["));
        assert_eq!(found("[]a]+", "]a"), Some("]a"));
    }

    #[test]
    fn flags_and_names() {
        assert_eq!(found("(?i)EXAMPLE", "example"), Some("example"));
        assert_eq!(found("(?ii-i:A)", "aA"), Some("A"));
        assert_eq!(found("(?U)a+", "aaa"), Some("a"));
        assert_eq!(found("(?m)^b$", "a\nb\nc"), Some("b"));
        assert_eq!(found("(?s)a.b", "a\nb"), Some("a\nb"));
        let names = compile("(?P<one>a)(?<two>b)(?P<3x>c)(?P<one>d)").expect("names");
        let names: Vec<_> = names.capture_names().collect();
        assert_eq!(names, [None, Some("one"), Some("two"), None, None]);
    }

    #[test]
    fn refuses_what_go_refuses_in_its_words() {
        let cases = [
            ("(example.com", "missing closing ): `(example.com`", 0),
            ("a)", "unexpected ): `a)`", 1),
            ("ab[c", "missing closing ]: `[c`", 2),
            ("a**", "invalid nested repetition operator: `**`", 1),
            ("a|*", "missing argument to repetition operator: `*`", 2),
            ("a{1001}", "invalid repeat count: `{1001}`", 1),
            ("a{2,1}", "invalid repeat count: `{2,1}`", 1),
            ("(?=a)", "invalid or unsupported Perl syntax: `(?=`", 0),
            ("(?x)a", "invalid or unsupported Perl syntax: `(?x`", 0),
            (r"a\Z", r"invalid escape sequence: `\Z`", 1),
            (r"\C", r"invalid escape sequence: `\C`", 0),
            (r"(a)\1", r"invalid escape sequence: `\1`", 3),
            (r"\p{Nonsense}", r"invalid character class range: `\p{Nonsense}`", 0),
            ("[z-a]", "invalid character class range: `z-a`", 1),
            ("[[:foo:]]", "invalid character class range: `[:foo:]`", 1),
            ("(?P<n-m>a)", "invalid named capture: `(?P<n-m>`", 0),
            ("a\\", "trailing backslash at end of expression: ``", 1),
        ];
        for (pattern, message, offset) in cases {
            assert_eq!(refusal(pattern), (message.to_owned(), offset), "{pattern}");
        }
    }

    #[test]
    fn hostile_patterns_are_refused_quickly() {
        #[expect(clippy::disallowed_methods, reason = "real time is what is measured")]
        let start = std::time::Instant::now();
        let nested = "(".repeat(10_000) + &")".repeat(10_000);
        for pattern in [
            "a{1000}{1000}",
            "(a{1000}){1000}",
            "((a{100}){100}){100}",
            r"(\pL{1000}){0,1}",
            &nested,
        ] {
            assert!(compile(pattern).is_err());
        }
        assert!(start.elapsed() < Duration::from_secs(10), "generous: this build is not optimised");
    }

    /// Patterns with a text each, and what Go's `regexp` finds: the bounds of the match and of its groups, or the
    /// sentence in which it refuses the pattern.
    #[test]
    fn results_are_those_of_go() {
        let read = |text: &str| serde_json::from_str::<String>(text).unwrap();
        let mut wrong = Vec::new();
        for line in include_str!("go_regex/go.tsv").lines() {
            let [pattern, text, wanted] = line.split('\t').collect::<Vec<_>>()[..] else {
                panic!("{line}");
            };
            let (pattern, text) = (read(pattern), read(text));
            let found = match compile(&pattern) {
                Err(refused) => format!("E {}", refused.message),
                Ok(regex) => match regex.captures(&text) {
                    None => "null".to_owned(),
                    Some(groups) => {
                        let bound = |group: Option<regex::Match<'_>>| {
                            group.map_or("-1,-1".to_owned(), |group| {
                                format!("{},{}", group.start(), group.end())
                            })
                        };
                        format!("[{}]", groups.iter().map(bound).collect::<Vec<_>>().join(","))
                    }
                },
            };
            if found != wanted {
                wrong.push(format!("{pattern:?} in {text:?} found {found} and not {wanted}"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn groups_that_are_missing_are_told_once() {
        for (pattern, replacement, missing) in [
            ("^/a(.*)", "/b$1", &[][..]),
            ("^/a(?P<rest>.*)", "/b${rest}$0$$9 $ ${", &[]),
            ("^/a(.*)", "/b${2}/${2}", &["`${2}` names a group"]),
            ("^/a(.*)", "/b$1x", &["for group 1 write `${1}x`"]),
            (
                "a",
                "$rest$3",
                &[
                    "`$rest` names",
                    "`$3` names a group that `regex` has not, its groups go from 0 to 0",
                ],
            ),
            ("a", "${no word}", &[]),
        ] {
            let told = missing_groups("r", replacement, &compile(pattern).unwrap());
            assert_eq!(told.len(), missing.len(), "{replacement}: {told:?}");
            for (told, missing) in told.iter().zip(missing) {
                assert!(told.option == "r" && told.message.contains(missing), "{told:?}");
            }
        }
    }
}
