//! `encodedCharacters`: refuses paths with escaped characters that backends may read as separators.
//!
//! The check is the entry point's. There everything is allowed that is not denied; here everything
//! is denied that is not allowed.

use std::sync::Arc;

use http::StatusCode;

use super::{Build, BuildContext};
use crate::exchange::canonical::{EncodedCharacters, EncodedCharactersConfig};
use crate::exchange::error::empty;
use crate::exchange::{Context, Middleware, Next, Request, ResponseFuture, ready};
use crate::values::BuildError;

impl Build for EncodedCharactersConfig {
    fn build(&self, _cx: &mut BuildContext<'_>) -> Result<Arc<dyn Middleware>, BuildError> {
        Ok(Arc::new(DeniedCharacters(self.resolve(false))))
    }
}

struct DeniedCharacters(EncodedCharacters);

impl Middleware for DeniedCharacters {
    fn handle<'a>(
        &'a self,
        cx: &'a Context,
        request: Request,
        next: Next<'a>,
    ) -> ResponseFuture<'a> {
        if self.0.denied(request.uri().path()) {
            return ready(empty(StatusCode::BAD_REQUEST));
        }
        next.run(cx, request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::middleware::testing::{Bench, body, build, get};

    fn bench(json: &str) -> Bench {
        let config: EncodedCharactersConfig = serde_json::from_str(json).unwrap();
        Bench::new(vec![build(&config).unwrap()])
    }

    /// RP 7.7
    #[tokio::test]
    async fn everything_is_denied_that_is_not_allowed() {
        let all = ["%2F", "%2f", "%5C", "%00", "%3B", "%25", "%3f", "%23"];
        for escape in all {
            let target = format!("/a{escape}b?q=%2F");
            let response = bench("{}").send(get(&target)).await;
            assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{escape}");
            assert!(response.headers().is_empty());
            assert_eq!(body(response).await, "");
        }
        let some = bench(r#"{"allowEncodedSlash": true, "allowEncodedHash": true}"#);
        for escape in all {
            let want = if ["%2F", "%2f", "%23"].contains(&escape) { 200 } else { 400 };
            assert_eq!(some.status(get(&format!("/{escape}"))).await, want, "{escape}");
        }
    }

    #[tokio::test]
    async fn other_characters_and_queries_are_not_looked_at() {
        for target in ["/", "/a%20b%C3%A9", "/a?q=%2F%00%25", "/;"] {
            assert_eq!(bench("{}").status(get(target)).await, 200, "{target}");
        }
    }
}
