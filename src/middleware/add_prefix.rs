//! `addPrefix`: puts a prefix in front of the path. The query stays as it is.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Build, BuildContext, path};
use crate::exchange::error::bare;
use crate::exchange::{Context, Middleware, Next, Request, ResponseFuture, ready};
use crate::values::BuildError;

/// Options of `addPrefix`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AddPrefixConfig {
    /// What is put in front of the path. Required; a leading `/` is added when it is missing.
    pub prefix: String,
}

impl Build for AddPrefixConfig {
    fn build(&self, _cx: &mut BuildContext<'_>) -> Result<Arc<dyn Middleware>, BuildError> {
        if self.prefix.is_empty() {
            return Err(BuildError::at("prefix", "prefix cannot be empty"));
        }
        Ok(Arc::new(AddPrefix { prefix: path::escape(&self.prefix, false) }))
    }
}

struct AddPrefix {
    /// Escaped.
    prefix: String,
}

impl Middleware for AddPrefix {
    fn handle<'a>(
        &'a self,
        cx: &'a Context,
        mut request: Request,
        next: Next<'a>,
    ) -> ResponseFuture<'a> {
        let mut prefixed = String::with_capacity(self.prefix.len() + request.uri().path().len());
        prefixed.push_str(&self.prefix);
        prefixed.push_str(request.uri().path());
        if !path::set_path(&mut request, &prefixed) {
            // Only a target longer than 64 KiB cannot take a prefix.
            return ready(bare(http::StatusCode::URI_TOO_LONG));
        }
        next.run(cx, request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::middleware::testing::{Bench, build, get};

    #[tokio::test]
    async fn the_prefix_goes_in_front_of_the_escaped_path() {
        for (prefix, target, want) in [
            ("/foo", "/", "/foo/"),
            ("/foo", "/bar?x=/y", "/foo/bar?x=/y"),
            ("foo", "/bar%2Fbaz", "/foo/bar%2Fbaz"),
            ("/a b", "/x", "/a%20b/x"),
            ("/foo/", "/x", "/foo//x"),
        ] {
            let middleware = build(&AddPrefixConfig { prefix: prefix.to_owned() }).unwrap();
            let bench = Bench::new(vec![middleware]);
            bench.send(get(target)).await;
            assert_eq!(bench.seen().uri.to_string(), want, "{prefix} {target}");
        }
    }

    #[test]
    fn a_prefix_is_required() {
        let error = build(&AddPrefixConfig::default()).err().unwrap();
        assert_eq!(
            (error.option.as_str(), error.message.as_str()),
            ("prefix", "prefix cannot be empty")
        );
    }
}
