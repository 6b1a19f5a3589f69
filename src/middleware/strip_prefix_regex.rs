//! `stripPrefixRegex`: takes what a pattern matches at the start of the path off it, and says so in
//! `X-Forwarded-Prefix`.
//!
//! Patterns see the path that rules see. What remains goes to a backend only if it is a clean path
//! (CVE-2026-48020).

use std::sync::Arc;

use http::{HeaderValue, StatusCode};
use regex::Regex;
use serde::{Deserialize, Serialize};

use super::{Build, BuildContext, path};
use crate::exchange::canonical::routing_path;
use crate::exchange::error::text;
use crate::exchange::forwarded::X_FORWARDED_PREFIX;
use crate::exchange::{Context, Middleware, Next, Request, ResponseFuture, ready};
use crate::values::{BuildError, go_regex};

/// Options of `stripPrefixRegex`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct StripPrefixRegexConfig {
    /// Matched against the decoded path. The first whose leftmost match stands at the start, and is
    /// not empty, is stripped. White space around them does not count.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub regex: Vec<String>,
}

impl Build for StripPrefixRegexConfig {
    fn build(&self, cx: &mut BuildContext<'_>) -> Result<Arc<dyn Middleware>, BuildError> {
        if self.regex.is_empty() {
            let sentence =
                "`regex` is empty: nothing is stripped; list patterns such as `/api/v[0-9]+`";
            cx.warnings.push(BuildError::at("regex", sentence));
        }
        let compile = |(index, text): (usize, &String)| {
            go_regex::compile(text.trim())
                .map_err(|error| BuildError::at(format!("regex[{index}]"), error.message))
        };
        let patterns = self.regex.iter().enumerate().map(compile).collect::<Result<_, _>>()?;
        Ok(Arc::new(StripPrefixRegex { patterns }))
    }
}

struct StripPrefixRegex {
    patterns: Vec<Regex>,
}

impl StripPrefixRegex {
    /// How much of the path is the prefix.
    fn prefix_of(&self, path: &str) -> Option<usize> {
        let mut found = self.patterns.iter().filter_map(|pattern| pattern.find(path));
        found.find(|found| found.start() == 0 && !found.is_empty()).map(|found| found.end())
    }
}

impl Middleware for StripPrefixRegex {
    fn handle<'a>(
        &'a self,
        cx: &'a Context,
        mut request: Request,
        next: Next<'a>,
    ) -> ResponseFuture<'a> {
        if !path::has_path(request.uri()) {
            return next.run(cx, request);
        }
        let escaped = request.uri().path();
        let decoded = routing_path(escaped);
        let Some(length) = self.prefix_of(&decoded) else { return next.run(cx, request) };
        let refusal = || ready(text(StatusCode::BAD_REQUEST, "Bad Request\n"));
        let Some(at) = escaped_length(escaped, &decoded, length) else { return refusal() };
        let (Some(prefix), Some((written, rest))) =
            (decoded.get(..length), escaped.split_at_checked(at))
        else {
            return refusal();
        };
        // A line break in it cannot stand in a header; its escape can.
        let told = HeaderValue::from_bytes(prefix.as_bytes())
            .or_else(|_| HeaderValue::from_bytes(written.as_bytes()));
        let stripped = path::absolute(rest);
        if !path::set_clean_path(&mut request, &stripped) {
            return refusal();
        }
        if let Ok(told) = told {
            request.headers_mut().append(X_FORWARDED_PREFIX, told);
        }
        next.run(cx, request)
    }
}

/// How much of `escaped` the first `length` bytes of `decoded`, its routing path, stand for. `None`
/// when that would cut an escape that decoding has kept.
fn escaped_length(escaped: &str, decoded: &str, length: usize) -> Option<usize> {
    let (escaped, decoded) = (escaped.as_bytes(), decoded.as_bytes());
    let (mut at, mut done) = (0, 0);
    while done < length {
        let (written, read) = match (escaped.get(at)?, decoded.get(done)?) {
            (b'%', b'%') => (3, 3),
            (b'%', _) => (3, 1),
            _ => (1, 1),
        };
        at += written;
        done += read;
    }
    (done == length).then_some(at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::exchange::Body;
    use crate::exchange::canonical::is_clean;
    use crate::middleware::testing::{Bench, body, build, get, with};

    fn bench(patterns: &[&str]) -> Bench {
        let regex = patterns.iter().map(|&pattern| pattern.to_owned()).collect();
        Bench::new(vec![build(&StripPrefixRegexConfig { regex }).unwrap()])
    }

    /// RP 7.1
    #[tokio::test]
    async fn the_first_pattern_that_matches_at_the_start_is_stripped() {
        for (target, want, prefix) in [
            ("/api/v12/users?q=1", "/users?q=1", Some("/api/v12")),
            ("/api/v1", "/", Some("/api/v1")),
            ("/api/v1x", "/x", Some("/api/v1")),
            ("/x/api/v1", "/x/api/v1", None),
            ("/b/b", "/b", Some("/b")),
            ("/a%20b/c%2Fd", "/c%2Fd", Some("/a b")),
            ("/caf%C3%A9/x", "/x", Some("/café")),
            ("/line%0Abreak/x", "/x", Some("/line%0Abreak")),
            ("/t%2Fn/x", "/x", Some("/t%2Fn")),
            ("/other", "/other", None),
        ] {
            let patterns = [" /api/v[0-9]+ ", "/b", "^/a b", "/caf.", "/line\\nbreak", "/t%2Fn"];
            let bench = bench(&patterns);
            bench.send(get(target)).await;
            let seen = bench.seen();
            assert_eq!(seen.uri.to_string(), want, "{target}");
            let got = seen.headers.get(X_FORWARDED_PREFIX);
            let got = got.map(|value| str::from_utf8(value.as_bytes()).unwrap());
            assert_eq!(got, prefix, "{target}");
        }
    }

    #[tokio::test]
    async fn an_escaped_separator_is_none() {
        let bench = bench(&["^/api/"]);
        bench.send(get("/api%2Fx")).await;
        assert_eq!(bench.seen().uri, "/api%2Fx");
    }

    #[tokio::test]
    async fn an_empty_match_strips_nothing() {
        let bench = bench(&["x*", "", "/a"]);
        bench.send(with(get("/a/b"), "x-forwarded-prefix", "/outer")).await;
        let seen = bench.seen();
        assert_eq!(seen.uri, "/b");
        assert!(seen.headers.get_all(X_FORWARDED_PREFIX).iter().eq(["/outer", "/a"]));
    }

    /// T-38
    #[tokio::test]
    async fn an_unclean_rest_is_refused() {
        for target in ["/api../private", "/api..%2Fprivate", "/api%2e%2e/x", "/api%2Fx"] {
            let bench = bench(&["^/api(%2)?"]);
            let response = bench.send(get(target)).await;
            assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{target}");
            assert_eq!(body(response).await, "Bad Request\n");
            assert_eq!(bench.calls(), 0);
        }
    }

    #[test]
    fn the_patterns_are_checked() {
        let config = StripPrefixRegexConfig { regex: vec!["/a".into(), "[".into()] };
        assert_eq!(build(&config).err().unwrap().option, "regex[1]");
    }

    proptest! {
        /// Cutting the decoded path and decoding the cut path are the same.
        #[test]
        fn lengths_agree(
            target in "/([a/.]|%2F|%25|%20|%C3%A9|%C3|%00|%zz){0,10}",
            cut in 0_usize..30,
        ) {
            let decoded = routing_path(&target);
            prop_assume!(decoded.is_char_boundary(cut) && cut <= decoded.len());
            if let Some(at) = escaped_length(&target, &decoded, cut) {
                prop_assert_eq!(&*routing_path(&target[..at]), &decoded[..cut]);
                prop_assert_eq!(&*routing_path(&target[at..]), &decoded[cut..]);
            }
        }

        #[test]
        fn backends_see_clean_paths_only(
            regex in "[/a.%2Fe()*+?^$]{0,8}",
            target in "/([a./]|%2F|%2E|%20){0,10}",
        ) {
            let Ok(middleware) = build(&StripPrefixRegexConfig { regex: vec![regex] }) else {
                return Ok(());
            };
            let bench = Bench::new(vec![middleware]);
            let Ok(request) = http::Request::get(target).body(Body::empty()) else {
                return Ok(());
            };
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(bench.send(request));
            if bench.calls() > 0 && bench.seen().headers.contains_key(X_FORWARDED_PREFIX) {
                prop_assert!(is_clean(bench.seen().uri.path()), "{}", bench.seen().uri);
            }
        }
    }
}
