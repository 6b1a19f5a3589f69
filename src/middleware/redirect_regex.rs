//! `redirectRegex`: sends the client to a URL made from the one that it asked for.

use std::borrow::Cow;
use std::sync::Arc;

use regex::Regex;
use serde::{Deserialize, Serialize};

use super::{Build, BuildContext, redirect};
use crate::exchange::{Context, Middleware, Next, Request, ResponseFuture, ready};
use crate::values::{BuildError, go_regex, is_default};

/// Options of `redirectRegex`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RedirectRegexConfig {
    /// Matched against `scheme://host[:port]/path?query`, unanchored. The scheme is that of the
    /// connection; `X-Forwarded-Proto` does not count.
    pub regex: String,
    /// What the match is replaced by; `${1}` is the first group.
    pub replacement: String,
    /// 301 and 308 instead of 302 and 307. Default: false.
    #[serde(skip_serializing_if = "is_default")]
    pub permanent: bool,
}

impl Build for RedirectRegexConfig {
    fn build(&self, cx: &mut BuildContext<'_>) -> Result<Arc<dyn Middleware>, BuildError> {
        let regex = go_regex::compile(&self.regex)
            .map_err(|error| BuildError::at("regex", error.message))?;
        if self.replacement.bytes().any(|byte| byte.is_ascii_control()) {
            return Err(BuildError::at(
                "replacement",
                "`replacement`: a URL cannot contain control characters",
            ));
        }
        if self.regex.is_empty() {
            let message = if self.replacement.is_empty() {
                "`regex` and `replacement` are empty: nothing is redirected"
            } else {
                "`regex` is empty: it matches between any two characters of every URL"
            };
            cx.warnings.push(BuildError::at("regex", message));
        }
        cx.warnings.extend(go_regex::missing_groups("replacement", &self.replacement, &regex));
        Ok(Arc::new(RedirectRegex {
            regex,
            replacement: self.replacement.clone(),
            permanent: self.permanent,
        }))
    }
}

struct RedirectRegex {
    regex: Regex,
    replacement: String,
    permanent: bool,
}

impl Middleware for RedirectRegex {
    fn handle<'a>(
        &'a self,
        cx: &'a Context,
        request: Request,
        next: Next<'a>,
    ) -> ResponseFuture<'a> {
        let scheme = cx.connection.scheme().as_str();
        let rest = redirect::path_and_query(&request);
        let url = [scheme, "://", redirect::host(&request), rest].concat();
        match self.regex.replace_all(&url, &*self.replacement) {
            Cow::Owned(new) if new != url => {
                ready(redirect::redirect_to(&new, request.method(), self.permanent))
            }
            _ => next.run(cx, request),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::header::LOCATION;

    use super::*;
    use crate::middleware::testing::{Bench, build, context, get, over_tls, with};

    fn bench(regex: &str, replacement: &str) -> Bench {
        let config = RedirectRegexConfig {
            regex: regex.into(),
            replacement: replacement.into(),
            permanent: false,
        };
        Bench::new(vec![build(&config).unwrap()])
    }

    #[tokio::test]
    async fn the_url_is_rewritten() {
        for (regex, replacement, target, want) in [
            (r"^http://a\.test/(.*)", "https://b.test/$1", "/x?y", Some("https://b.test/x?y")),
            ("/foo/", "/bar/", "/foo/x", Some("http://a.test/bar/x")),
            ("foo", "bar", "/foo/foo", Some("http://a.test/bar/bar")),
            ("^https://", "http://", "/", None),
            ("test", "test", "/", None),
            ("^http://(.*)", "http://${1} x", "/", Some("http://a.test/%20x")),
        ] {
            let response = bench(regex, replacement)
                .send(with(get(target), "x-forwarded-proto", "https"))
                .await;
            let got = response.headers().get(LOCATION).map(|value| value.to_str().unwrap());
            assert_eq!(got, want, "{regex} {target}");
        }
    }

    #[tokio::test]
    async fn tls_makes_https() {
        let bench = bench("^https://a", "https://b").with_context(over_tls(context("192.0.2.1")));
        assert_eq!(bench.send(get("/")).await.headers()[LOCATION], "https://b.test/");
    }

    #[tokio::test]
    async fn what_is_no_url_is_an_error() {
        assert_eq!(bench("^http", ":").status(get("/")).await, 500);
        assert_eq!(bench("a.test", "a.test:%").status(get("/")).await, 500);
    }

    #[test]
    fn the_pattern_is_checked() {
        let config = RedirectRegexConfig { regex: "(".into(), ..RedirectRegexConfig::default() };
        let error = build(&config).err().unwrap();
        assert_eq!(error.option, "regex");
        assert!(error.message.contains("missing closing )"), "{error}");
    }
}
