//! A line of JSON without what may be secret in it: values of names like those of secrets, and all that stands below
//! them. The text may be broken: once it is, nothing is shown behind such a name.

use std::mem;
use std::ops::Range;

use super::{is_of_objects, is_suspect, last_name, mask_behind, mask_secrets, stars};

/// The line as it may be shown. The lines `above` it, of which the first one may be in the middle of the text, say what
/// it belongs to.
pub(super) fn masked<'t>(above: impl Iterator<Item = &'t str>, line: &'t str) -> String {
    let mut place = Place::default();
    for text in above.flat_map(|line| tokens(line).map(|bytes| line.get(bytes).unwrap_or_default()))
    {
        place.step(text);
    }
    place.judge();
    place.broken = false;
    let mut shown = line.to_owned();
    let mut suspected = false;
    // Where the name began whose colon has not come: it may be a part of something else.
    let mut name = None;
    for bytes in tokens(line) {
        let text = line.get(bytes.clone()).unwrap_or_default();
        let is_hidden = place.step(text);
        let new = if is_hidden { stars(text) } else { mask_secrets(text, false) };
        let is_like_one = place.top.is_secret || is_suspect(last_name(text));
        suspected |= is_hidden || new != text || is_like_one;
        if suspected && place.broken {
            return mask_behind(&shown, name.unwrap_or(bytes.start));
        }
        name = (place.top.next == Next::Colon).then_some(bytes.start);
        shown.replace_range(bytes, &new);
    }
    shown
}

/// What may come next in an object or a list.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Next {
    #[default]
    Name,
    Colon,
    Value,
    Comma,
}

/// An object or a list that has begun.
#[derive(Default)]
struct Open<'t> {
    /// Its last name, as it is written.
    name: &'t str,
    is_list: bool,
    /// It belongs to a name like that of a secret.
    is_hidden: bool,
    /// Its names are those of objects.
    has_objects: bool,
    /// Its last name is like that of a secret.
    is_secret: bool,
    /// Objects stand below its last name.
    is_section: bool,
    next: Next,
}

impl Open<'_> {
    fn judge(&mut self) {
        let name = serde_json::from_str(self.name).unwrap_or_else(|_| self.name.to_owned());
        (self.is_secret, self.is_section) = (is_suspect(&name), is_of_objects(&name));
    }

    fn stand_in(&mut self, outer: &Self) {
        self.is_hidden = outer.is_hidden || outer.is_secret && !outer.has_objects;
        self.has_objects = outer.is_section;
    }
}

#[derive(Default)]
struct Place<'t> {
    /// What has begun last and not ended; at first, whatever the text begins in.
    top: Open<'t>,
    /// What that stands in.
    around: Vec<Open<'t>>,
    /// Names are judged as they come. Of the many above the line, those that matter are when all are known.
    judges: bool,
    /// A token stood where none of its kind may.
    broken: bool,
}

impl<'t> Place<'t> {
    /// Judges the names of all that has not ended, and from now on every name.
    fn judge(&mut self) {
        self.judges = true;
        let mut outer: Option<&Open<'t>> = None;
        for open in self.around.iter_mut().chain([&mut self.top]) {
            open.judge();
            if let Some(outer) = outer {
                open.stand_in(outer);
            }
            outer = Some(open);
        }
    }

    /// Goes over one token, and says whether it must not be shown.
    fn step(&mut self, token: &'t str) -> bool {
        let (next, is_base) = (self.top.next, self.around.is_empty());
        let is_text = !matches!(token, "{" | "[" | "}" | "]" | "," | ":");
        let is_name = is_text && next == Next::Name;
        let is_hidden = is_text && (self.top.is_hidden || self.top.is_secret && !is_name);
        let is_right = match token {
            "{" | "[" => {
                self.begin(token == "[");
                next == Next::Value || is_base && next == Next::Name
            }
            "}" | "]" => self.end(token == "]") && next != Next::Colon,
            "," => {
                self.top.next = if self.top.is_list { Next::Value } else { Next::Name };
                (self.top.name, self.top.is_secret, self.top.is_section) = ("", false, false);
                next == Next::Comma
            }
            ":" => {
                self.top.next = Next::Value;
                next == Next::Colon
            }
            _ if is_name => {
                self.top.name = token;
                if self.judges {
                    self.top.judge();
                }
                self.top.next = Next::Colon;
                is_closed(token)
            }
            _ => {
                self.top.next = Next::Comma;
                next == Next::Value && (is_closed(token) || !token.starts_with('"'))
            }
        };
        self.broken |= !is_right;
        is_hidden
    }

    fn begin(&mut self, is_list: bool) {
        let next = if is_list { Next::Value } else { Next::Name };
        let mut inner = Open { is_list, next, ..Open::default() };
        inner.stand_in(&self.top);
        self.around.push(mem::replace(&mut self.top, inner));
    }

    /// Ends what has begun last, and says whether it could.
    fn end(&mut self, is_list: bool) -> bool {
        let outer = if self.top.is_list == is_list { self.around.pop() } else { None };
        let is_right = outer.is_some();
        if let Some(outer) = outer {
            self.top = outer;
        }
        self.top.next = Next::Comma;
        is_right
    }
}

fn is_closed(token: &str) -> bool {
    token.len() > 1 && token.starts_with('"') && token.ends_with('"')
}

/// The brackets, commas, colons, texts and words of a line.
fn tokens(line: &str) -> impl Iterator<Item = Range<usize>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = line.get(at..)?;
        let start = at + rest.len() - rest.trim_start().len();
        let rest = line.get(start..).filter(|rest| !rest.is_empty())?;
        let length = match rest.as_bytes().first()? {
            b'{' | b'}' | b'[' | b']' | b',' | b':' => 1,
            b'"' => {
                let mut escaped = false;
                let end = rest.bytes().skip(1).position(|byte| {
                    let is_end = byte == b'"' && !escaped;
                    escaped = byte == b'\\' && !escaped;
                    is_end
                });
                end.map_or(rest.len(), |end| end + 2)
            }
            _ => {
                let is_end = |one: char| one.is_whitespace() || "{}[],:\"".contains(one);
                rest.find(is_end).unwrap_or(rest.len())
            }
        };
        at = start + length;
        Some(start..at)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        let mut lines: Vec<&str> = text.lines().collect();
        let last = lines.pop().unwrap();
        masked(lines.into_iter(), last)
    }

    #[test]
    fn values_of_secrets_are_hidden_and_no_others() {
        for (text, expected) in [
            (r#"{"password": "a,b", "x": [1]}"#, r#"{"password": *****, "x": [1]}"#),
            (r#"{"users": ["a:b", 1], "x": {}}"#, r#"{"users": [*****, *], "x": {}}"#),
            (r#"{"a": {"b": 1}, "toke": "x\"y"}"#, r#"{"a": {"b": 1}, "toke": ******}"#),
            ("{\"token\":\n\"x\" }", "*** }"),
            ("\"users\": [\n\"a:b\",\n\"c:d\", \"e\"], \"f\": 1", "*****, ***], \"f\": 1"),
            ("\"users\": [\n\"a:b\"],\n\"c\": \"d\"", "\"c\": \"d\""),
            ("\"pass\\u0077ord\": {\n\"a\": 1", "***: *"),
            (r#""url": "/?token=x&b=c", "d": 1"#, r#""url": "/?token=******, "d": 1"#),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn what_objects_are_called_hides_nothing_of_them() {
        for text in [
            "{\"services\": {\n\"users\": {\n\"loadBalancer\": 1",
            "{\"http\": {\"services\": {\"users\": {\"loadBalancer\": {}}}}}",
            "\"routers\": {\n\"token\": {\"rule\": \"x\"},\n\"b\": {\"rule\": \"y\"}",
        ] {
            assert_eq!(shown(text), text.lines().last().unwrap());
        }
        let text = "{\"services\": {\n\"users\": {\n\"token\": \"x\", \"a\": \"b\"";
        assert_eq!(shown(text), "\"token\": ***, \"a\": \"b\"");
        assert_eq!(shown("{\"services\": {\n\"token\": \"x\""), "\"token\": ***");
    }

    /// Of what has ended above the line, no name matters.
    #[test]
    fn names_above_are_judged_only_while_they_are_open() {
        let mut place = Place::default();
        let text = r#"{"token": "x", "users": {"secret": ["#;
        tokens(text).for_each(|bytes| {
            assert!(!place.step(&text[bytes]));
        });
        assert!(!place.around.iter().any(|open| open.is_secret || open.is_hidden));
        place.judge();
        assert!(place.top.is_hidden && place.around[1].is_secret);
        for (text, expected) in [
            ("{\"users\": {\"token\": [\"x\"]}, \"a\": [\n\"b\"", "\"b\""),
            ("{\"users\": {\"a\": {\"b\": 1}, \"c\": [\n\"d\"", "***"),
            ("{\"services\": {\"token\": {\n\"a\": \"b\"", "\"a\": \"b\""),
            ("{\"services\": {\"token\": {\"keys\": {\n\"a\": \"b\"", "***: ***"),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn nothing_is_shown_behind_a_secret_where_the_text_is_broken() {
        for text in [
            r#"{"password": hunter2"#,
            r#"{"password": "a"hunter2"}"#,
            r#"{"password": "a","hunter2"}"#,
            r#"{"password": "a" "hunter2"}"#,
            r#"{"password": "a"}hunter2"}"#,
            r#"{"password": "hunter2"#,
            r#"{"password" "hunter2"}"#,
            r#"{"a" "password": "hunter2"}"#,
            r#"{"b": "c" "password": "hunter2"}"#,
            r#"["password": "hunter2"]"#,
            r#"{password: "hunter2"}"#,
            "{\"password\": \"a\n hunter2\"}",
            "{\"users\": [\n\"a\"\n\"hunter2\"]",
            "\"a:b\",\n\"password\": \"hunter2\"",
        ] {
            assert!(!shown(text).contains("hunter2"), "{text}: {}", shown(text));
        }
    }
}
