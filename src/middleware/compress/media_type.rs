//! The values of `Content-Type`, as far as lists of media types need them.
//!
//! Strict as Go's parser is, because Traefik compresses nothing whose type it cannot read.

use crate::wire;

/// The media type in a value of `Content-Type`, as it is written and without parameters.
///
/// `None` when there is none. What follows it is not looked at: see [`is_well_formed`].
pub(super) fn media_type(value: &str) -> Option<&str> {
    let name = value.split(';').next()?.trim_ascii();
    let mut parts = name.splitn(2, '/');
    let kind = parts.next()?;
    (is_token(kind) && parts.next().is_none_or(is_token)).then_some(name)
}

/// Whether the parameters behind the media type can be read too.
pub(super) fn is_well_formed(value: &str) -> bool {
    let Some(at) = value.find(';') else { return true };
    let mut rest = value.get(at..).unwrap_or_default();
    loop {
        rest = rest.trim_ascii_start();
        if rest.is_empty() || rest.trim_ascii() == ";" {
            return true;
        }
        match parameter(rest) {
            Some(behind) => rest = behind,
            None => return false,
        }
    }
}

/// Reads `;name=value` and returns what stands behind it.
fn parameter(text: &str) -> Option<&str> {
    let text = text.strip_prefix(';')?.trim_ascii_start();
    let (name, text) = text.split_once('=')?;
    if !is_token(name.trim_ascii_end()) {
        return None;
    }
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.bytes().position(|byte| !wire::is_token(byte)).unwrap_or(text.len());
        return (end > 0).then(|| text.get(end..)).flatten();
    };
    let mut escaped = false;
    for (at, c) in quoted.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return quoted.get(at + 1..),
            _ => {}
        }
    }
    None
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(wire::is_token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read() {
        for (value, kind, well_formed) in [
            ("text/html", Some("text/html"), true),
            (" Text/HTML ; charset=utf-8", Some("Text/HTML"), true),
            ("text/html;", Some("text/html"), true),
            ("text/html; charset=\"a;\\\"b\"; x=y", Some("text/html"), true),
            ("text", Some("text"), true),
            ("text/html; charset", Some("text/html"), false),
            ("text/html; =utf-8", Some("text/html"), false),
            ("text/html; charset=\"utf-8", Some("text/html"), false),
            ("text/html; charset=utf-8 x", Some("text/html"), false),
            ("text/", None, true),
            ("/html", None, true),
            ("text/html/x", None, true),
            ("text html", None, true),
            ("", None, true),
        ] {
            assert_eq!(media_type(value), kind, "{value}");
            assert_eq!(is_well_formed(value), well_formed, "{value}");
        }
    }
}
