//! Rules over all header fields of a request: names with punctuation, and how many fields there may be.
//!
//! Backends that turn names into variables (CGI, WSGI) read `X_User` and `X-User` as one name.

use http::header::{HeaderMap, HeaderName};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

/// Traefik's `underscoreHeadersStrategy`: what happens to request headers with `_` in their name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnderscoreStrategy {
    /// They are forwarded.
    #[default]
    #[serde(alias = "")]
    Keep,
    /// They are removed.
    Delete,
    /// The request is answered with 400.
    Reject,
}

impl UnderscoreStrategy {
    /// Applies the strategy; `true` means that the request must be refused.
    ///
    /// With `aliases`, every character of a name that is neither alphanumeric nor `-` counts like `_`
    /// (CVE-2026-88011: `X.Auth.User` and `X~Auth~User` are further spellings of `X-Auth-User`).
    #[must_use]
    pub fn apply(self, headers: &mut HeaderMap, aliases: bool) -> bool {
        let is_alias = |name: &HeaderName| {
            let bytes = name.as_str().as_bytes();
            if aliases {
                !bytes.iter().all(|&byte| byte == b'-' || byte.is_ascii_alphanumeric())
            } else {
                memchr::memchr(b'_', bytes).is_some()
            }
        };
        match self {
            Self::Keep => false,
            Self::Reject => headers.keys().any(is_alias),
            Self::Delete => {
                let found: SmallVec<[HeaderName; 4]> =
                    headers.keys().filter(|name| is_alias(name)).cloned().collect();
                for name in &found {
                    headers.remove(name);
                }
                false
            }
        }
    }
}

/// How many header fields, and how many bytes of them, one request may have.
///
/// HTTP/2 needs this: a field that refers to a table entry costs one byte on the wire. It also keeps header maps far
/// from the size at which the `http` crate panics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FieldLimits {
    /// The largest number of fields; each line of a repeated name counts.
    pub max_fields: usize,
    /// The largest sum of sizes: name, value and 32 bytes for each field (RFC 9113, 6.5.2).
    pub max_bytes: usize,
}

impl FieldLimits {
    /// The size of these headers (RFC 9113, 6.5.2); `None` when they are beyond a limit, and the answer is 431.
    pub fn measure(&self, headers: &HeaderMap) -> Option<usize> {
        if headers.len() > self.max_fields {
            return None;
        }
        headers.iter().try_fold(0, |size, (name, value)| {
            let size = size + name.as_str().len() + value.len() + 32;
            (size <= self.max_bytes).then_some(size)
        })
    }

    /// What the requests of one connection may have at once (HTTP/2).
    pub fn at_once(&self) -> usize {
        self.max_bytes.saturating_mul(4).max(2 << 20)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn headers(names: &[&str]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for name in names {
            map.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_static("v"),
            );
        }
        map
    }

    #[test]
    fn strategies() {
        use UnderscoreStrategy::{Delete, Keep, Reject};
        let names =
            ["X_Auth_User", "X_Auth_User", "X.Auth.User", "X~Auth~User", "X-Auth-User", "Host"];
        let table = [
            (Keep, false, 6, false),
            (Keep, true, 6, false),
            (Delete, false, 4, false),
            (Delete, true, 2, false),
            (Reject, false, 6, true),
            (Reject, true, 6, true),
        ];
        for (strategy, aliases, left, refused) in table {
            let mut map = headers(&names);
            assert_eq!(strategy.apply(&mut map, aliases), refused, "{strategy:?}");
            assert_eq!(map.len(), left, "{strategy:?} {aliases}");
            assert!(map.contains_key("x-auth-user"));
        }
        assert!(!Reject.apply(&mut headers(&["x.auth.user"]), false));
        assert!(Reject.apply(&mut headers(&["x.auth.user"]), true));
        assert!(!Reject.apply(&mut headers(&["x-auth-user", "dnt"]), true));
    }

    #[test]
    fn strategies_are_written_as_in_traefik() {
        for (text, want) in [
            ("\"\"", UnderscoreStrategy::Keep),
            ("\"keep\"", UnderscoreStrategy::Keep),
            ("\"delete\"", UnderscoreStrategy::Delete),
            ("\"reject\"", UnderscoreStrategy::Reject),
        ] {
            assert_eq!(serde_json::from_str::<UnderscoreStrategy>(text).unwrap(), want);
        }
        assert!(serde_json::from_str::<UnderscoreStrategy>("\"drop\"").is_err());
    }

    #[test]
    fn limits_count_lines_and_overhead() {
        let map = headers(&["a", "a", "b"]);
        let limits = |max_fields, max_bytes| FieldLimits { max_fields, max_bytes };
        assert_eq!(limits(3, 3 * 34).measure(&map), Some(3 * 34));
        assert_eq!(limits(2, 1 << 20).measure(&map), None);
        assert_eq!(limits(3, 3 * 34 - 1).measure(&map), None);
        assert_eq!(limits(0, 0).measure(&HeaderMap::new()), Some(0));
    }
}
