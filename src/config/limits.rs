//! `limits`: Doorward's own section of the static configuration, for what the whole process may be asked to bear.

use serde::{Deserialize, Serialize};

use crate::config::overload::OverloadConfig;
use crate::values::is_default;

/// `limits`. Doorward's own.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LimitsConfig {
    /// What is given up, step by step, when memory or descriptors run short.
    #[serde(skip_serializing_if = "is_default")]
    pub overload: OverloadConfig,
}
