//! `replacePath`: one path for every request; the old one is kept in `X-Replaced-Path`.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};

use super::{Build, BuildContext, path};
use crate::exchange::error::{bare, text};
use crate::exchange::{Body, Context, Middleware, Next, Request, ResponseFuture, ready};
use crate::values::BuildError;

/// Options of `replacePath`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ReplacePathConfig {
    /// The path that backends get, with escapes where it needs them. Empty: `/`.
    pub path: String,
}

impl Build for ReplacePathConfig {
    fn build(&self, cx: &mut BuildContext<'_>) -> Result<Arc<dyn Middleware>, BuildError> {
        let escaped = path::escape(&self.path, true);
        if self.path.is_empty() {
            let sentence = "`path` is empty, which means `/`: every request asks for that";
            cx.warnings.push(BuildError::at("path", sentence));
        }
        let refusal =
            path::invalid_escape(&self.path).map(|escape| format!("invalid URL escape {escape:?}"));
        if let Some(sentence) = &refusal {
            cx.warnings.push(BuildError::at("path", sentence.clone()));
        }
        let refusal = refusal.map(|sentence| Bytes::from(sentence + "\n"));
        Ok(Arc::new(ReplacePath { path: escaped, refusal }))
    }
}

/// `X-Replaced-Path`
pub(super) const X_REPLACED_PATH: HeaderName = HeaderName::from_static("x-replaced-path");

struct ReplacePath {
    /// Escaped.
    path: String,
    /// What every request is answered with, when the path cannot be unescaped.
    refusal: Option<Bytes>,
}

impl Middleware for ReplacePath {
    fn handle<'a>(
        &'a self,
        cx: &'a Context,
        mut request: Request,
        next: Next<'a>,
    ) -> ResponseFuture<'a> {
        if let Some(refusal) = &self.refusal {
            let mut response = text(StatusCode::INTERNAL_SERVER_ERROR, "");
            *response.body_mut() = Body::from(refusal.clone());
            return ready(response);
        }
        if let Ok(old) = HeaderValue::from_str(request.uri().path()) {
            request.headers_mut().insert(X_REPLACED_PATH, old);
        }
        if !path::set_path(&mut request, &self.path) {
            return ready(bare(StatusCode::URI_TOO_LONG));
        }
        next.run(cx, request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::middleware::testing::{Bench, body, build, get};

    #[tokio::test]
    async fn the_old_path_is_told() {
        for (path, want) in
            [("/new", "/new?q=1"), ("new", "/new?q=1"), ("", "/?q=1"), ("/a%2Fb?", "/a%2Fb%3F?q=1")]
        {
            let bench = Bench::new(vec![build(&ReplacePathConfig { path: path.into() }).unwrap()]);
            let mut request = get("/old%2Fpath?q=1");
            request.headers_mut().insert(X_REPLACED_PATH, HeaderValue::from_static("/forged"));
            bench.send(request).await;
            let seen = bench.seen();
            assert_eq!(seen.uri.to_string(), want);
            let told: Vec<_> = seen.headers.get_all(X_REPLACED_PATH).iter().collect();
            assert_eq!(told, ["/old%2Fpath"]);
        }
    }

    #[tokio::test]
    async fn a_path_that_cannot_be_unescaped_is_an_error() {
        let bench = Bench::new(vec![build(&ReplacePathConfig { path: "/%zz".into() }).unwrap()]);
        let response = bench.send(get("/")).await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(body(response).await, "invalid URL escape \"%zz\"\n");
    }
}
