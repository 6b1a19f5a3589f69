//! `stripPrefix`: takes the first matching prefix off the path and says so in `X-Forwarded-Prefix`.
//!
//! What remains goes to a backend only if it is a clean path (CVE-2026-48020).

use std::sync::Arc;

use http::{HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};

use super::{Build, BuildContext, path};
use crate::exchange::error::text;
use crate::exchange::forwarded::X_FORWARDED_PREFIX;
use crate::exchange::{Context, Middleware, Next, Request, ResponseFuture, ready};
use crate::values::BuildError;

/// Options of `stripPrefix`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct StripPrefixConfig {
    /// Prefixes as the decoded path has them. The first that matches is stripped; `/api` also
    /// matches `/apix`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prefixes: Vec<String>,
    /// Deprecated. It only says how an empty path is written, and that is sent as `/` anyway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub force_slash: Option<bool>,
}

impl Build for StripPrefixConfig {
    fn build(&self, cx: &mut BuildContext<'_>) -> Result<Arc<dyn Middleware>, BuildError> {
        if self.force_slash.is_some() {
            cx.warnings.push(BuildError::at("forceSlash", "`forceSlash` is deprecated"));
        }
        if self.prefixes.is_empty() {
            let sentence = "`prefixes` is empty: nothing is stripped; list prefixes such as `/api`";
            cx.warnings.push(BuildError::at("prefixes", sentence));
        }
        let mut prefixes = Vec::with_capacity(self.prefixes.len());
        for (index, prefix) in self.prefixes.iter().enumerate() {
            let value = HeaderValue::from_bytes(prefix.as_bytes()).map_err(|_| {
                BuildError::at(
                    format!("prefixes[{index}]"),
                    "`prefixes`: a prefix cannot contain control characters",
                )
            })?;
            prefixes.push((prefix.clone(), value));
        }
        Ok(Arc::new(StripPrefix { prefixes }))
    }
}

struct StripPrefix {
    prefixes: Vec<(String, HeaderValue)>,
}

impl Middleware for StripPrefix {
    fn handle<'a>(
        &'a self,
        cx: &'a Context,
        mut request: Request,
        next: Next<'a>,
    ) -> ResponseFuture<'a> {
        let escaped = request.uri().path();
        let found = self.prefixes.iter().find_map(|(prefix, value)| {
            path::strip_prefix(escaped, prefix).map(|rest| (rest, value))
        });
        let Some((rest, value)) = found else { return next.run(cx, request) };
        let stripped = path::absolute(rest);
        if !path::set_clean_path(&mut request, &stripped) {
            return ready(text(StatusCode::BAD_REQUEST, "Bad Request\n"));
        }
        request.headers_mut().append(X_FORWARDED_PREFIX, value.clone());
        next.run(cx, request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::middleware::testing::{Bench, body, build, get};

    fn bench(prefixes: &[&str]) -> Bench {
        let prefixes = prefixes.iter().map(|&prefix| prefix.to_owned()).collect();
        Bench::new(vec![build(&StripPrefixConfig { prefixes, force_slash: None }).unwrap()])
    }

    #[tokio::test]
    async fn the_first_prefix_that_matches_is_stripped() {
        for (target, want, prefix) in [
            ("/api", "/", Some("/api")),
            ("/api?x", "/?x", Some("/api")),
            ("/api/", "/", Some("/api")),
            ("/api/x%2Fy?a=b", "/x%2Fy?a=b", Some("/api")),
            ("/apix", "/x", Some("/api")),
            ("/a%20b/c", "/c", Some("/a b")),
            ("/other", "/other", None),
        ] {
            let bench = bench(&["/api", "/api/v1", "/a b"]);
            bench.send(get(target)).await;
            let seen = bench.seen();
            assert_eq!(seen.uri.to_string(), want, "{target}");
            let got = seen.headers.get(X_FORWARDED_PREFIX).map(|value| value.to_str().unwrap());
            assert_eq!(got, prefix, "{target}");
        }
    }

    #[tokio::test]
    async fn an_existing_forwarded_prefix_is_kept() {
        let bench = bench(&["/api"]);
        let mut request = get("/api/x");
        request.headers_mut().insert(X_FORWARDED_PREFIX, HeaderValue::from_static("/outer"));
        bench.send(request).await;
        let seen = bench.seen();
        let lines: Vec<_> = seen.headers.get_all(X_FORWARDED_PREFIX).iter().collect();
        assert_eq!(lines, ["/outer", "/api"]);
    }

    #[tokio::test]
    async fn an_unclean_rest_is_refused() {
        for target in ["/api../private", "/api./x", "/api/..%2Fprivate", "/api%2e%2e/private"] {
            let bench = bench(&["/api"]);
            let response = bench.send(get(target)).await;
            assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{target}");
            assert_eq!(body(response).await, "Bad Request\n");
            assert_eq!(bench.calls(), 0);
        }
    }

    #[test]
    fn a_prefix_with_a_line_break_is_refused() {
        let config = StripPrefixConfig {
            prefixes: vec!["/a".into(), "/b\r\nX: y".into()],
            force_slash: None,
        };
        assert_eq!(build(&config).err().unwrap().option, "prefixes[1]");
    }
}
