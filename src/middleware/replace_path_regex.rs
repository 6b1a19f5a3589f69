//! `replacePathRegex`: rewrites the path where a pattern matches it; the old one is kept in
//! `X-Replaced-Path`.
//!
//! What comes out goes to a backend only if it is a clean path (CVE-2026-48020).

use std::sync::Arc;

use http::{HeaderValue, StatusCode};
use regex::Regex;
use serde::{Deserialize, Serialize};

use super::replace_path::X_REPLACED_PATH;
use super::{Build, BuildContext, path};
use crate::exchange::canonical::is_clean;
use crate::exchange::error::{bare, text};
use crate::exchange::{Body, Context, Middleware, Next, Request, ResponseFuture, ready};
use crate::values::{BuildError, go_regex};

/// Options of `replacePathRegex`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ReplacePathRegexConfig {
    /// Matched against the escaped path, unanchored. White space around it does not count.
    pub regex: String,
    /// What each match is replaced by; `${1}` is the first group.
    pub replacement: String,
}

impl Build for ReplacePathRegexConfig {
    fn build(&self, cx: &mut BuildContext<'_>) -> Result<Arc<dyn Middleware>, BuildError> {
        let regex = go_regex::compile(self.regex.trim())
            .map_err(|error| BuildError::at("regex", error.message))?;
        cx.warnings.extend(go_regex::missing_groups("replacement", &self.replacement, &regex));
        Ok(Arc::new(ReplacePathRegex { regex, replacement: self.replacement.trim().to_owned() }))
    }
}

struct ReplacePathRegex {
    regex: Regex,
    replacement: String,
}

impl Middleware for ReplacePathRegex {
    fn handle<'a>(
        &'a self,
        cx: &'a Context,
        mut request: Request,
        next: Next<'a>,
    ) -> ResponseFuture<'a> {
        let old = request.uri().path();
        // What matches is replaced even by itself, and then told.
        if !path::has_path(request.uri()) || !self.regex.is_match(old) {
            return next.run(cx, request);
        }
        let new = self.regex.replace_all(old, &*self.replacement);
        if let Some(escape) = path::invalid_escape(&new) {
            let mut response = text(StatusCode::INTERNAL_SERVER_ERROR, "");
            *response.body_mut() = Body::from(format!("invalid URL escape {escape:?}\n"));
            return ready(response);
        }
        if !is_clean(&new) {
            return ready(text(StatusCode::BAD_REQUEST, "Bad Request\n"));
        }
        let told = HeaderValue::from_str(old);
        let new = path::escape(&new, true);
        if !path::set_path(&mut request, &new) {
            return ready(bare(StatusCode::URI_TOO_LONG));
        }
        if let Ok(old) = told {
            request.headers_mut().insert(X_REPLACED_PATH, old);
        }
        next.run(cx, request)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::middleware::testing::{Bench, body, build, get, with};

    fn bench(regex: &str, replacement: &str) -> Bench {
        let config =
            ReplacePathRegexConfig { regex: regex.into(), replacement: replacement.into() };
        Bench::new(vec![build(&config).unwrap()])
    }

    /// RP 7.1
    #[tokio::test]
    async fn the_path_is_rewritten_and_the_old_one_told() {
        for (regex, replacement, target, want, told) in [
            ("^/api/(.*)", "/$1", "/api/x%2Fy?q=1", "/x%2Fy?q=1", Some("/api/x%2Fy")),
            (" ^/(a)/(b)$ ", " /$2/${1}x ", "/a/b", "/b/ax", Some("/a/b")),
            ("a", "b", "/a/a", "/b/b", Some("/a/a")),
            ("^/same$", "/same", "/same", "/same", Some("/same")),
            ("^/.*$", "", "/a?q", "/?q", Some("/a")),
            ("^/.*$", "/a?b=c d", "/x", "/a%3Fb=c%20d", Some("/x")),
            ("%20", "-", "/a%20b", "/a-b", Some("/a%20b")),
            ("[ ]", "-", "/a%20b", "/a%20b", None),
            ("^/none", "/x", "/a", "/a", None),
            ("", "", "/a", "/a", Some("/a")),
        ] {
            let bench = bench(regex, replacement);
            bench.send(get(target)).await;
            let seen = bench.seen();
            assert_eq!(seen.uri.to_string(), want, "{regex} {target}");
            let got = seen.headers.get(X_REPLACED_PATH).map(|value| value.to_str().unwrap());
            assert_eq!(got, told, "{regex} {target}");
        }
    }

    #[tokio::test]
    async fn a_forged_old_path_is_replaced() {
        let bench = bench("^/a", "/b");
        bench.send(with(get("/a"), "x-replaced-path", "/forged")).await;
        assert!(bench.seen().headers.get_all(X_REPLACED_PATH).iter().eq(["/a"]));
    }

    #[tokio::test]
    async fn an_unclean_result_is_refused() {
        for (regex, replacement, target) in [
            ("^/api", "", "/api../private"),
            ("^/api", "/", "/api/private"),
            ("^/(.*)", "$1", "/x"),
            // A group named `1x`, which does not exist: `//b`.
            ("^/(a)", "/$1x", "/a/b"),
            ("^/x", "/..%2F", "/xprivate"),
            ("^/x", "/a/%2e%2e/", "/xprivate"),
        ] {
            let bench = bench(regex, replacement);
            let response = bench.send(get(target)).await;
            assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{regex} {target}");
            assert_eq!(body(response).await, "Bad Request\n");
            assert_eq!(bench.calls(), 0);
        }
    }

    #[tokio::test]
    async fn a_result_that_cannot_be_unescaped_is_an_error() {
        let bench = bench("^/x", "/%z");
        let response = bench.send(get("/xy")).await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(body(response).await, "invalid URL escape \"%zy\"\n");
        assert_eq!(bench.calls(), 0);
    }

    #[tokio::test]
    async fn a_target_without_a_path_is_left_alone() {
        let bench = bench(".*", "/x");
        let request = http::Request::options("*").body(Body::empty()).unwrap();
        bench.send(request).await;
        assert_eq!(bench.seen().uri, "*");
    }

    #[test]
    fn the_pattern_is_checked() {
        let config =
            ReplacePathRegexConfig { regex: "a**".into(), ..ReplacePathRegexConfig::default() };
        let error = build(&config).err().unwrap();
        assert_eq!(error.option, "regex");
        assert!(error.message.contains("invalid nested repetition"), "{error}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// Whatever is configured and asked: a backend sees a clean path, or nothing.
        #[test]
        fn backends_see_clean_paths_only(
            regex in "[/a.%2Fe()*+?^$]{0,8}",
            replacement in "[/a.%2FeE$1 ?#é]{0,8}",
            target in "/([a./]|%2F|%2E|%20){0,10}",
        ) {
            let config = ReplacePathRegexConfig { regex, replacement };
            let Ok(middleware) = build(&config) else { return Ok(()) };
            let bench = Bench::new(vec![middleware]);
            let Ok(request) = http::Request::get(target).body(Body::empty()) else {
                return Ok(());
            };
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(bench.send(request));
            if bench.calls() > 0 && bench.seen().headers.contains_key(X_REPLACED_PATH) {
                let seen = bench.seen();
                prop_assert!(is_clean(seen.uri.path()), "{}", seen.uri);
            }
        }
    }
}
