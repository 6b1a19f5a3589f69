//! The request target: which forms are served, and its rewriting into the canonical one.
//!
//! The target must have been checked for a raw `#` before it became a `Uri`: that type drops a fragment silently.

use std::borrow::Cow;

use http::uri::{PathAndQuery, Scheme};
use http::{Method, Uri};

use super::path::{PathError, normalize_path, rewrite_query_semicolons, sanitize_path};

/// Why a request target is refused (all answers are 400).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// `host:port` with a method other than CONNECT.
    #[error("only CONNECT may have a target without a path")]
    AuthorityForm,
    /// `*` with a method other than OPTIONS.
    #[error("only OPTIONS may have the target *")]
    Asterisk,
    /// An absolute target of another scheme than http and https.
    #[error("the scheme of the target is not http or https")]
    Scheme,
    /// The path is refused, or the target has none.
    #[error(transparent)]
    Path(#[from] PathError),
}

/// The entry-point options that say how targets are rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TargetRules {
    /// Traefik's `sanitizePath`.
    pub sanitize_path: bool,
    /// Traefik's `encodeQuerySemicolons`.
    pub encode_query_semicolons: bool,
}

impl Default for TargetRules {
    fn default() -> Self {
        Self { sanitize_path: true, encode_query_semicolons: false }
    }
}

impl TargetRules {
    /// Checks the form of a target and makes its path and query canonical; a target that already is costs no copy.
    pub fn apply(self, method: &Method, uri: &mut Uri) -> Result<(), TargetError> {
        if uri.scheme().is_some_and(|s| *s != Scheme::HTTP && *s != Scheme::HTTPS) {
            return Err(TargetError::Scheme);
        }
        if uri.path() == "*" {
            return if *method == Method::OPTIONS { Ok(()) } else { Err(TargetError::Asterisk) };
        }
        let authority_form = uri.authority().is_some() && uri.scheme().is_none();
        if authority_form {
            return if *method == Method::CONNECT {
                Ok(())
            } else {
                Err(TargetError::AuthorityForm)
            };
        }
        // `?q` stands for `/?q` in an absolute target, and for nothing in another; `Uri::path` hides it.
        let lacks_slash = uri.path_and_query().is_some_and(|pq| !pq.as_str().starts_with('/'));
        if lacks_slash && uri.scheme().is_none() {
            return Err(TargetError::Path(PathError::NotAbsolute));
        }
        let normal = normalize_path(uri.path())?;
        let path =
            if self.sanitize_path { sanitize_path(&normal) } else { Cow::Borrowed(&*normal) };
        let query =
            uri.query().map(|query| rewrite_query_semicolons(query, self.encode_query_semicolons));
        if !lacks_slash && *path == *uri.path() && matches!(query, None | Some(Cow::Borrowed(_))) {
            return Ok(());
        }
        let rewritten = with_path(uri, &path, query.as_deref())?;
        *uri = rewritten;
        Ok(())
    }
}

/// The same target with another path and query.
fn with_path(uri: &Uri, path: &str, query: Option<&str>) -> Result<Uri, TargetError> {
    let mut text = String::with_capacity(path.len() + 1 + query.map_or(0, str::len));
    text.push_str(path);
    if let Some(query) = query {
        text.push('?');
        text.push_str(query);
    }
    // Escaping may make a path longer than a Uri can be: that is a malformed request too.
    let target = PathAndQuery::try_from(text).map_err(|_| PathError::InvalidEscape)?;
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(target);
    Uri::from_parts(parts).map_err(|_| TargetError::Path(PathError::NotAbsolute))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(rules: TargetRules, method: &Method, target: &str) -> Result<String, TargetError> {
        let mut uri: Uri = target.parse().unwrap();
        rules.apply(method, &mut uri)?;
        assert!(uri.path_and_query().is_none_or(|pq| pq.as_str().starts_with(['/', '*'])));
        Ok(uri.to_string())
    }

    #[test]
    fn targets_become_canonical() {
        let table = [
            ("/x/%2e%2e/private/y", "/private/y"),
            ("/a/../b/%41%42%43//%2f/", "/b/ABC/%2F/"),
            ("/p?q=/../private&x=%2e", "/p?q=/../private&x=%2e"),
            ("//private/y?a;b", "/private/y?a&b"),
            ("/p?a=b;c=d", "/p?a=b&c=d"),
            ("http://a.test/x/../private/y?z", "http://a.test/private/y?z"),
            ("http://a.test", "http://a.test/"),
            ("/p?", "/p?"),
            ("http://a.test?q", "http://a.test/?q"),
        ];
        for (raw, want) in table {
            assert_eq!(
                apply(TargetRules::default(), &Method::GET, raw).as_deref(),
                Ok(want),
                "{raw}"
            );
        }
        let rules = TargetRules { sanitize_path: false, encode_query_semicolons: true };
        assert_eq!(
            apply(rules, &Method::GET, "/a/../%62//?a=b;c").as_deref(),
            Ok("/a/../b//?a=b%3Bc")
        );
    }

    #[test]
    fn odd_forms_are_refused() {
        let rules = TargetRules::default();
        let table = [
            (Method::GET, "*", Err(TargetError::Asterisk)),
            (Method::OPTIONS, "*", Ok("*".to_owned())),
            (Method::GET, "a.test:80", Err(TargetError::AuthorityForm)),
            (Method::CONNECT, "a.test:80", Ok("a.test:80".to_owned())),
            (Method::GET, "ftp://evil.invalid/x", Err(TargetError::Scheme)),
            (Method::GET, "/%zz/../private/y", Err(TargetError::Path(PathError::InvalidEscape))),
        ];
        for (method, target, want) in table {
            assert_eq!(apply(rules, &method, target), want, "{method} {target}");
        }
    }

    #[test]
    fn a_target_of_only_a_query_is_refused() {
        let target: PathAndQuery = "?q".parse().unwrap();
        let mut uri = Uri::from(target);
        let got = TargetRules::default().apply(&Method::GET, &mut uri);
        assert_eq!(got, Err(TargetError::Path(PathError::NotAbsolute)));
    }
}
