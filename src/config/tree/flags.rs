//! Command line flags: `--entryPoints.web.address=:80`. The source text holds one argument per
//! line, so the line of a diagnostic is the number of the argument and an excerpt shows no other.

use std::sync::Arc;

use super::dotted::Dotted;
use super::{Format, Node, Source, Span};
use crate::config::diagnostics::Diagnostic;

/// What a flag takes, which decides whether the next argument belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlagKind {
    /// A boolean or a section that can be switched on: never takes the next argument.
    Switch,
    /// A single value: takes the next argument when there is no `=`; given again, the last wins.
    Value,
    /// A list: as a value, but given again it grows.
    List,
    /// Not an option at all. It stays in the tree, so that decoding can say what was meant.
    Unknown,
}

/// Reads arguments (without the program's name) until `--` or the first that is no flag; what
/// follows is ignored, as in Traefik. `kind` gets the dotted path in lower case.
pub fn from_flags(
    arguments: &[String],
    kind: &dyn Fn(&str) -> FlagKind,
) -> Result<Node, Vec<Diagnostic>> {
    let source = Source::new("flags", arguments.join("\n"), Format::Flags);
    let mut dotted = Dotted::new(&source);
    let mut flags = Arguments { rest: arguments, offset: 0 };
    while let Some((argument, start)) = flags.next_flag() {
        let name_at = if argument.starts_with("--") { 2 } else { 1 };
        let name_start = start + name_at;
        let flag = argument.get(name_at..).unwrap_or_default();
        if flag.starts_with(['-', '=']) {
            dotted.error("this is not a flag: a name must follow the dashes", start..name_start);
            continue;
        }
        let (name, given) = match flag.split_once('=') {
            Some((name, value)) => (name, Some((value, name_start + name.len() + 1))),
            None => (flag, None),
        };
        let path = name_start..name_start + name.len();
        let kind = kind(&name.to_lowercase());
        let value = match (given, kind) {
            (Some(given), _) => Some(given),
            (None, FlagKind::Switch) => Some(("true", path.end)),
            (None, FlagKind::Value | FlagKind::List) => flags.next(),
            (None, FlagKind::Unknown) => flags.next_value().or(Some(("", path.end))),
        };
        let Some((text, at)) = value else {
            dotted.error(format!("the flag `--{name}` needs a value"), path);
            continue;
        };
        let node = value_node(&source, text, at);
        dotted.insert_path(path, '.', node, kind == FlagKind::List);
    }
    dotted.finish()
}

/// The value `true` of a bare switch stands nowhere: its place is the end of the flag.
fn value_node(source: &Arc<Source>, text: &str, at: usize) -> Node {
    let written = source.text.get(at..at + text.len()) == Some(text);
    let length = if written { text.len() } else { 0 };
    Node::scalar(text, Span::new(source, at..at + length))
}

/// The arguments that are left, and where the first of them stands in the source text.
struct Arguments<'a> {
    rest: &'a [String],
    offset: usize,
}

impl<'a> Arguments<'a> {
    fn next(&mut self) -> Option<(&'a str, usize)> {
        let (first, rest) = self.rest.split_first()?;
        let at = self.offset;
        self.offset += first.len() + 1;
        self.rest = rest;
        Some((first, at))
    }

    fn next_flag(&mut self) -> Option<(&'a str, usize)> {
        let first = self.rest.first()?;
        let flag = first.len() > 1 && first.starts_with('-') && first != "--";
        if flag { self.next() } else { None }
    }

    fn next_value(&mut self) -> Option<(&'a str, usize)> {
        if self.rest.first()?.starts_with('-') { None } else { self.next() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(path: &str) -> FlagKind {
        match path {
            "api" | "api.insecure" | "ping" | "entrypoints.web.http.tls" => FlagKind::Switch,
            "log.level" | "entrypoints.web.address" => FlagKind::Value,
            "list" => FlagKind::List,
            _ => FlagKind::Unknown,
        }
    }

    fn flags(arguments: &[&str]) -> Result<Node, Vec<Diagnostic>> {
        let arguments: Vec<_> = arguments.iter().map(|text| (*text).to_owned()).collect();
        from_flags(&arguments, &kind)
    }

    #[test]
    fn values_come_after_an_equals_sign_or_as_the_next_argument() {
        let node =
            flags(&["--log.level", "DEBUG", "-entryPoints.web.address=:80=x", "--api"]).unwrap();
        assert_eq!(node.at_path("log.level").text(), Some("DEBUG"));
        assert_eq!(node.at_path("log.level").span.to_string(), "flags:2:1");
        assert_eq!(node.at_path("entrypoints.web.address").text(), Some(":80=x"));
        assert_eq!(node.at_path("entrypoints.web.address").span.to_string(), "flags:3:26");
        assert_eq!(node.at_path("entrypoints.web.address").span.text(), ":80=x");
        assert_eq!(node.at_path("api").text(), Some("true"));
    }

    #[test]
    fn switches_never_take_the_next_argument() {
        let node =
            flags(&["--api", "--ping=false", "--api.insecure", "false", "--log.level=x"]).unwrap();
        assert_eq!(node.at_path("api.insecure").text(), Some("true"));
        assert_eq!(node.at_path("ping").text(), Some("false"));
        assert!(node.get("log").is_none(), "reading stopped at the bare word");
    }

    #[test]
    fn a_value_takes_whatever_comes_next() {
        let node = flags(&["--log.level", "--api"]).unwrap();
        assert_eq!(node.at_path("log.level").text(), Some("--api"));
        let errors = flags(&["--log.level"]).unwrap_err();
        assert_eq!(errors[0].one_line(), "flags:1:3: error: the flag `--log.level` needs a value");
    }

    #[test]
    fn repeated_lists_grow_and_repeated_values_replace() {
        let node =
            flags(&["--list=a,b", "--LIST", "c", "--log.level=x", "--log.level=y", "--list=d"])
                .unwrap();
        let items: Vec<_> =
            node.get("list").unwrap().items().iter().filter_map(Node::text).collect();
        assert_eq!(items, ["a", "b", "c", "d"]);
        assert_eq!(node.at_path("log.level").text(), Some("y"));
    }

    #[test]
    fn reading_ends_at_two_dashes_or_a_bare_word() {
        for end in ["--", "word", "-", ""] {
            let node = flags(&["--api", end, "--ping"]).unwrap();
            assert!(node.get("api").is_some() && node.get("ping").is_none(), "{end:?}");
        }
    }

    #[test]
    fn unknown_flags_stay_for_the_decoder() {
        let node = flags(&["--apy", "--pong", "x", "--api"]).unwrap();
        assert_eq!(node.get("apy").unwrap().text(), Some(""));
        assert_eq!(node.get("pong").unwrap().text(), Some("x"));
        assert!(node.get("api").is_some());
    }

    #[test]
    fn bad_syntax_is_reported_for_every_argument() {
        let errors = flags(&["---api", "--=x", "--a..b=c", "--api"]).unwrap_err();
        assert_eq!(errors.len(), 3);
    }

    #[test]
    fn lists_by_index_and_values_over_several_lines() {
        let node = flags(&["--d[0].main=a\nb", "--d[1].main=c"]).unwrap();
        assert_eq!(node.at_path("d[0].main").text(), Some("a\nb"));
        assert_eq!(node.at_path("d[1].main").span.text(), "c");
    }
}
