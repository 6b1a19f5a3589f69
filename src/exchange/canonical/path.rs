//! Paths and queries in their escaped form: normalising, sanitising, and the decoded view that rules match on.
//!
//! Everything works on the escaped path, so `%2F` is never a separator, and nothing is decoded twice.

use std::borrow::Cow;

/// Why a request path is refused (all answers are 400).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// A `%` is not followed by two hexadecimal digits.
    #[error("the path has an invalid percent-encoding")]
    InvalidEscape,
    /// The path has a literal `#`, which proxies and backends read differently.
    #[error("the path contains a fragment")]
    Fragment,
    /// The path has a control character.
    #[error("the path contains a control character")]
    Control,
    /// The path does not begin with `/`.
    #[error("the path does not begin with a slash")]
    NotAbsolute,
}

/// Decodes %-encoded unreserved characters and writes every other escape in upper case (RFC 3986, 6.2.2).
///
/// Characters that may not stand in a path unescaped, such as `\` and `|`, are escaped in place, so that a check
/// for `%5C` sees them. `*` (as in `OPTIONS *`) is returned as it is.
pub fn normalize_path(raw: &str) -> Result<Cow<'_, str>, PathError> {
    let bytes = raw.as_bytes();
    match bytes.first() {
        None => return Ok(Cow::Borrowed("/")),
        Some(b'/') => {}
        Some(b'*') if bytes.len() == 1 => return Ok(Cow::Borrowed(raw)),
        Some(_) => return Err(PathError::NotAbsolute),
    }
    let mut out = Rewrite::new(raw);
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'%' => {
                let value = escape_at(bytes, at).ok_or(PathError::InvalidEscape)?;
                if is_unreserved(value) {
                    out.replace(at, at + 3, &[value]);
                } else if bytes.get(at + 1..at + 3) != Some(hex_digits(value).as_slice()) {
                    out.replace(at, at + 3, &escaped(value));
                }
                at += 3;
            }
            b'#' => return Err(PathError::Fragment),
            0..=0x1f | 0x7f => return Err(PathError::Control),
            _ => {
                if !is_path_literal(byte) {
                    out.replace(at, at + 1, &escaped(byte));
                }
                at += 1;
            }
        }
    }
    Ok(out.finish())
}

/// Resolves `.` and `..` segments, collapses `//`, and keeps one trailing slash if there was any.
///
/// Nothing climbs above the root. An empty path becomes `/`; `*` is returned as it is.
pub fn sanitize_path(path: &str) -> Cow<'_, str> {
    if path == "*" || (path.starts_with('/') && !has_empty_or_dot_segment(path.as_bytes())) {
        return Cow::Borrowed(path);
    }
    let mut out = String::with_capacity(path.len() + 1);
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => out.truncate(out.rfind('/').unwrap_or(0)),
            _ => {
                out.push('/');
                out.push_str(segment);
            }
        }
    }
    if out.is_empty() || path.ends_with('/') {
        out.push('/');
    }
    Cow::Owned(out)
}

/// Whether a path that a middleware has cut or replaced may go to a backend; if not, the answer is 400.
///
/// Traefik compares the result with its sanitised form, so `/..private` passes and `/../private` (made from
/// `/api../private` by stripping `/api`, CVE-2026-48020) does not; an empty path passes. Here a dot segment is also
/// found when its dots or the separators around it are escaped (`/..%2Fprivate`, CVE-2026-40912), because a
/// rewritten path has lost the context in which a rule let it through.
pub fn is_clean(path: &str) -> bool {
    let bytes = path.as_bytes();
    if bytes.is_empty() {
        return true;
    }
    bytes.starts_with(b"/")
        && !has_empty_or_dot_segment(bytes)
        && !has_dot_segment(path, Reading::Decoded)
}

/// Whether a tolerant backend may find a dot segment in this path that sanitising cannot see.
///
/// Servlet containers cut `;…` from a segment, and C programs cut at NUL: `/x/..;/private` is `/private` to them.
/// For the hardened profile; `encodedCharacters` covers only escaped characters.
pub fn has_disguised_dots(path: &str) -> bool {
    has_dot_segment(path, Reading::Tolerant)
}

/// The path that rules match on: escapes are decoded, except those of reserved characters and of `%`.
///
/// ``PathPrefix(`/foo bar`)`` so matches `/foo%20bar`, while `%2F` stays three characters. Bytes that would not be
/// UTF-8 keep their escape, which leaves the mapping one to one.
pub fn routing_path(escaped_path: &str) -> Cow<'_, str> {
    let bytes = escaped_path.as_bytes();
    let mut out = Rewrite::new(escaped_path);
    let mut from = 0;
    while let Some(found) = bytes.get(from..).and_then(|rest| memchr::memchr(b'%', rest)) {
        let at = from + found;
        from = match escape_at(bytes, at) {
            None => at + 1,
            Some(value) if value.is_ascii() => {
                if !is_reserved(value) {
                    out.replace(at, at + 3, &[value]);
                }
                at + 3
            }
            Some(lead) => {
                let (character, length) = escaped_utf8(bytes, at, lead);
                if let Some(text) = character.get(..length).filter(|text| !text.is_empty()) {
                    out.replace(at, at + 3 * length, text);
                }
                at + 3 * length.max(1)
            }
        };
    }
    out.finish()
}

/// Makes `;` in a query mean one thing: escaped when `encode` is set, else the separator `&` that Go reads it as.
pub fn rewrite_query_semicolons(query: &str, encode: bool) -> Cow<'_, str> {
    if memchr::memchr(b';', query.as_bytes()).is_none() {
        return Cow::Borrowed(query);
    }
    Cow::Owned(query.replace(';', if encode { "%3B" } else { "&" }))
}

/// How far `has_dot_segment` goes in reading a path as a backend might.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// Separators and dots may be escaped, and `\` is a separator.
    Decoded,
    /// The same, and a segment ends where a parameter, NUL, query or fragment begins.
    Tolerant,
}

fn has_dot_segment(path: &str, reading: Reading) -> bool {
    // A dot segment needs a dot, and most paths have neither dots nor escapes.
    if memchr::memchr2(b'.', b'%', path.as_bytes()).is_none() {
        return false;
    }
    let bytes = path.as_bytes();
    let mut dots = 0_usize;
    let mut others = false;
    let mut cut = false;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let (value, width) = match (byte, escape_at(bytes, at)) {
            (b'%', Some(value)) => (value, 3),
            _ => (byte, 1),
        };
        match value {
            b'/' | b'\\' => {
                if !others && (dots == 1 || dots == 2) {
                    return true;
                }
                (dots, others, cut) = (0, false, false);
            }
            _ if cut => {}
            b';' | 0 | b'?' | b'#' if reading == Reading::Tolerant => cut = true,
            b'.' => dots += 1,
            _ => others = true,
        }
        at += width;
    }
    !others && (dots == 1 || dots == 2)
}

/// Whether an absolute path has `//`, `/./`, `/../`, or ends in a dot segment.
fn has_empty_or_dot_segment(bytes: &[u8]) -> bool {
    memchr::memchr_iter(b'/', bytes).any(|slash| {
        matches!(
            bytes.get(slash + 1..).unwrap_or_default(),
            [b'/', ..] | [b'.'] | [b'.', b'/', ..] | [b'.', b'.'] | [b'.', b'.', b'/', ..]
        )
    })
}

/// The UTF-8 character whose escaped bytes begin at `at`, and its length; length 0 if it is none.
fn escaped_utf8(bytes: &[u8], at: usize, lead: u8) -> ([u8; 4], usize) {
    let length = match lead {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => return ([0; 4], 0),
    };
    let mut character = [0; 4];
    for (index, slot) in character.iter_mut().take(length).enumerate() {
        match escape_at(bytes, at + 3 * index) {
            Some(value) => *slot = value,
            None => return ([0; 4], 0),
        }
    }
    match character.get(..length).map(str::from_utf8) {
        Some(Ok(_)) => (character, length),
        _ => ([0; 4], 0),
    }
}

/// The value of the escape at `at`, if there is a well-formed one.
fn escape_at(bytes: &[u8], at: usize) -> Option<u8> {
    match bytes.get(at..at + 3)? {
        [b'%', high, low] => Some(hex_value(*high)? << 4 | hex_value(*low)?),
        _ => None,
    }
}

fn hex_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

fn hex_digits(value: u8) -> [u8; 2] {
    let digit = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'A' + nibble - 10 };
    [digit(value >> 4), digit(value & 15)]
}

fn escaped(value: u8) -> [u8; 3] {
    let [high, low] = hex_digits(value);
    [b'%', high, low]
}

/// RFC 3986, 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// RFC 3986, 2.2, and `%`, whose decoding would change the meaning of what follows.
fn is_reserved(byte: u8) -> bool {
    matches!(byte, b':' | b'/' | b'?' | b'#' | b'[' | b']' | b'@' | b'%') || is_sub_delimiter(byte)
}

fn is_sub_delimiter(byte: u8) -> bool {
    matches!(byte, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=')
}

/// What may stand in a path unescaped: RFC 3986's `pchar` and `/`, and the brackets that Go lets pass.
fn is_path_literal(byte: u8) -> bool {
    is_unreserved(byte)
        || is_sub_delimiter(byte)
        || matches!(byte, b':' | b'@' | b'/' | b'[' | b']')
}

/// A copy of `source` with replacements, which is no copy until the first replacement.
struct Rewrite<'a> {
    source: &'a str,
    out: Vec<u8>,
    copied: usize,
}

impl<'a> Rewrite<'a> {
    fn new(source: &'a str) -> Self {
        Self { source, out: Vec::new(), copied: 0 }
    }

    /// Puts `text` in place of `source[from..to]`; calls come in order.
    fn replace(&mut self, from: usize, to: usize, text: &[u8]) {
        if self.copied == 0 {
            self.out.reserve(self.source.len() + 8);
        }
        self.out.extend_from_slice(self.bytes(self.copied, from));
        self.out.extend_from_slice(text);
        self.copied = to;
    }

    fn finish(mut self) -> Cow<'a, str> {
        if self.copied == 0 {
            return Cow::Borrowed(self.source);
        }
        self.out.extend_from_slice(self.bytes(self.copied, self.source.len()));
        // Every replacement is ASCII or a whole character, so nothing is lost here.
        Cow::Owned(
            String::from_utf8(self.out)
                .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()),
        )
    }

    fn bytes(&self, from: usize, to: usize) -> &'a [u8] {
        self.source.as_bytes().get(from..to).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn normalizes() {
        let table = [
            ("", "/"),
            ("*", "*"),
            ("/", "/"),
            ("/web/static/a-b_c~1.js", "/web/static/a-b_c~1.js"),
            ("/%70rivate/y", "/private/y"),
            ("/x/%2e%2E/private/y", "/x/../private/y"),
            ("/x/%252e%252e/y", "/x/%252e%252e/y"),
            ("/a%2fb%3bc%0a", "/a%2Fb%3Bc%0A"),
            ("/x/%c0%ae%c0%ae/private/y", "/x/%C0%AE%C0%AE/private/y"),
            ("/%c3%a9", "/%C3%A9"),
            ("/é", "/%C3%A9"),
            ("/x\\..\\y", "/x%5C..%5Cy"),
            ("/a|b{c}\"^`<> ", "/a%7Cb%7Bc%7D%22%5E%60%3C%3E%20"),
            ("/!$&'()*+,;=:@[]", "/!$&'()*+,;=:@[]"),
            ("/a%2f|", "/a%2F%7C"),
        ];
        for (raw, want) in table {
            assert_eq!(normalize_path(raw).as_deref(), Ok(want), "{raw}");
        }
    }

    #[test]
    fn normalizing_decodes_every_unreserved_character_and_no_other() {
        for value in 0..=255_u8 {
            let raw = format!("/%{value:02x}");
            let want = if value.is_ascii_alphanumeric() || b"-._~".contains(&value) {
                format!("/{}", char::from(value))
            } else {
                format!("/%{value:02X}")
            };
            assert_eq!(normalize_path(&raw).as_deref(), Ok(want.as_str()));
        }
    }

    #[test]
    fn refuses_paths() {
        let table = [
            ("/%zz/../private/y", PathError::InvalidEscape),
            ("/%", PathError::InvalidEscape),
            ("/%f", PathError::InvalidEscape),
            ("/%2", PathError::InvalidEscape),
            ("/%+1", PathError::InvalidEscape),
            ("/x#/../private/y", PathError::Fragment),
            ("/a\u{1}", PathError::Control),
            ("/a\u{7f}", PathError::Control),
            ("private/y", PathError::NotAbsolute),
            ("**", PathError::NotAbsolute),
            ("?x", PathError::NotAbsolute),
        ];
        for (raw, want) in table {
            assert_eq!(normalize_path(raw), Err(want), "{raw}");
        }
    }

    #[test]
    fn sanitizes() {
        let table = [
            ("", "/"),
            ("*", "*"),
            ("/", "/"),
            ("/b", "/b"),
            ("/b/", "/b/"),
            ("/./foo/bar", "/foo/bar"),
            ("/foo/../bar", "/bar"),
            ("/foo/bar//", "/foo/bar/"),
            ("/../../b/", "/b/"),
            ("/../../b", "/b"),
            ("/a/b/..", "/a"),
            ("/a/b/.", "/a/b"),
            ("/a/b/../", "/a/"),
            ("/..", "/"),
            ("/a/..", "/"),
            ("/..///b///", "/b/"),
            ("/a/../../../c/../b", "/b"),
            ("/a/..//c/.././b", "/b"),
            ("/x/y/../../private/", "/private/"),
            ("//private/y", "/private/y"),
            ("/x/..//.//private//y", "/private/y"),
            ("/a/..%2Fb/", "/a/..%2Fb/"),
            ("/..a/b../.c/...", "/..a/b../.c/..."),
            ("/é//ü", "/é/ü"),
        ];
        for (raw, want) in table {
            let got = sanitize_path(raw);
            assert_eq!(got, want, "{raw}");
            let unchanged = matches!(got, Cow::Borrowed(_));
            assert_eq!(unchanged, raw == want, "{raw} is copied exactly when it changes");
        }
    }

    #[test]
    fn rules_see_decoded_paths() {
        let table = [
            ("/plain", "/plain"),
            ("/foo%20bar", "/foo bar"),
            ("/a%2Fb", "/a%2Fb"),
            (
                "/%3A%2F%3F%23%5B%5D%40%21%24%26%27%28%29",
                "/%3A%2F%3F%23%5B%5D%40%21%24%26%27%28%29",
            ),
            ("/%2A%2B%2C%3B%3D%25", "/%2A%2B%2C%3B%3D%25"),
            ("/%5C%22%00", "/\\\"\0"),
            ("/%C3%A9x%E2%82%AC%F0%9F%98%80", "/éx€😀"),
            ("/%C0%AE%C0%AE", "/%C0%AE%C0%AE"),
            ("/%C3%C3%A9", "/%C3é"),
            ("/%E2%82", "/%E2%82"),
            ("/%ED%A0%80", "/%ED%A0%80"),
            ("/%C3/%A9", "/%C3/%A9"),
            ("/%zz", "/%zz"),
        ];
        for (raw, want) in table {
            assert_eq!(routing_path(raw), want, "{raw}");
        }
        assert!(matches!(routing_path("/a%2Fb"), Cow::Borrowed(_)));
    }

    #[test]
    fn knows_clean_results() {
        for path in ["", "/", "/us", "/a%2Fb", "/..private", "/...", "/a.b/", "/%2Ex", "/a%2F%2Fb"]
        {
            assert!(is_clean(path), "{path}");
        }
        for path in [
            "../private",
            "/../private/y",
            "/./foo",
            "/a/..",
            "/a//b",
            "//a",
            "/a/.",
            "us",
            "/..%2fprivate/y",
            "/%2e%2e/y",
            "/.%2E",
            "/a%5C..%5Cb",
            "/a\\..\\b",
        ] {
            assert!(!is_clean(path), "{path}");
        }
    }

    #[test]
    fn finds_disguised_dots() {
        for path in
            ["/x/..;/private/y", "/x/..;a=b", "/x/..%3b/y", "/x/..%00/y", "/.;/y", "/x%2f..%2fy"]
        {
            assert!(has_disguised_dots(path), "{path}");
        }
        for path in ["/x/a..;/y", "/a;b/c", "/v1.2;x", "/;..", "/...;/", "/"] {
            assert!(!has_disguised_dots(path), "{path}");
        }
    }

    #[test]
    fn semicolons_mean_one_thing() {
        assert_eq!(rewrite_query_semicolons("a=b;c=d", false), "a=b&c=d");
        assert_eq!(rewrite_query_semicolons("a=b;c=d", true), "a=b%3Bc=d");
        assert!(matches!(rewrite_query_semicolons("q=/../x", true), Cow::Borrowed("q=/../x")));
    }

    proptest! {
        #[test]
        fn sanitizing_is_idempotent_and_leaves_no_dot_segment(path in "(/|\\.|\\.\\.|a|%2e|é|\\*){0,12}") {
            let once = sanitize_path(&path).into_owned();
            prop_assert_eq!(sanitize_path(&once), once.as_str());
            if path != "*" {
                prop_assert!(once.starts_with('/'));
                prop_assert!(!once.contains("//"));
                prop_assert!(once.split('/').all(|segment| segment != "." && segment != ".."));
                prop_assert_eq!(once.ends_with('/'), once == "/" || path.ends_with('/'));
            }
        }

        #[test]
        fn normalizing_is_idempotent(path in "/(%[0-9a-fA-F]{2}|[ -~]|é){0,16}") {
            if let Ok(once) = normalize_path(&path) {
                prop_assert!(once.is_ascii());
                let twice = normalize_path(&once);
                prop_assert_eq!(twice.as_deref(), Ok(once.as_ref()));
            }
        }

        #[test]
        fn canonical_paths_are_clean_unless_separators_are_escaped(path in "/(%[0-9a-fA-F]{2}|[./a]){0,16}") {
            let normal = normalize_path(&path).unwrap();
            let canonical = sanitize_path(&normal);
            let again = normalize_path(&canonical);
            prop_assert_eq!(again.as_deref(), Ok(canonical.as_ref()));
            if !canonical.contains("%2F") && !canonical.contains("%5C") {
                prop_assert!(is_clean(&canonical));
            }
        }

        #[test]
        fn routing_paths_never_panic(path in ".*") {
            prop_assert!(routing_path(&path).len() <= path.len());
        }
    }
}
