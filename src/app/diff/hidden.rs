//! Texts as they may be printed: without credentials in URLs and examples.

use std::borrow::Cow;
use std::fmt::Write as _;

use crate::service::without_credentials;
use crate::values::secret::is_secret_name;

/// What stands in the place of a value.
pub(super) const HIDDEN: &str = "(hidden)";

/// The value of an option. A URL may have credentials before its host and in its query.
pub(super) fn value(text: &str) -> Cow<'_, str> {
    let is_url = text.starts_with('/') || text.contains("://");
    match text.split_once('?').filter(|_| is_url) {
        Some((before, query)) => {
            let before = without_credentials(before);
            format!("{before}?{}", parameters(query, |_| true)).into()
        }
        None => without_credentials(text),
    }
}

/// A URL of an example, where only what is named like a secret is hidden.
pub(super) fn url(text: &str) -> Cow<'_, str> {
    match text.split_once('?') {
        Some((before, query)) => format!("{before}?{}", parameters(query, is_secret_name)).into(),
        None => text.into(),
    }
}

fn parameters(query: &str, is_hidden: impl Fn(&str) -> bool) -> String {
    let mut out = String::with_capacity(query.len());
    for (number, parameter) in query.split('&').enumerate() {
        if number > 0 {
            out.push('&');
        }
        match parameter.split_once('=') {
            Some((name, _)) if is_hidden(name) => {
                let _ = write!(out, "{name}={HIDDEN}");
            }
            _ => out.push_str(parameter),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_taken_out_of_texts() {
        for (text, expected) in [
            ("http://u:p@a/x?key=1&b", "http://a/x?key=(hidden)&b"),
            ("/health?who=me", "/health?who=(hidden)"),
            ("^/a?b=c", "^/a?b=c"),
        ] {
            assert_eq!(value(text), expected);
        }
        assert_eq!(url("http://a/?page=1&token=x"), "http://a/?page=1&token=(hidden)");
    }
}
