//! Options of `accessLog`, with Traefik's names and defaults.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::fields::Policy;
use crate::values::{GoDuration, Unsupported};

/// `accessLog`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AccessLogConfig {
    /// Path of the file. Empty: standard output.
    pub file_path: String,
    /// `common` (default), `genericCLF` or `json`.
    pub format: String,
    /// Lines that may wait for the writer. 0: a queue of our own size.
    pub buffering_size: i64,
    /// Write exchanges with internal services too.
    pub add_internals: bool,
    /// Write to the file beside OTLP, which is not served yet; without OTLP it says nothing.
    pub dual_output: bool,
    /// Which exchanges are written.
    pub filters: AccessLogFilters,
    /// What is written of an exchange.
    pub fields: AccessLogFields,
    /// OpenTelemetry, not served yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp: Option<Unsupported>,
}

impl AccessLogConfig {
    /// Whether any header is written.
    pub fn keeps_headers(&self) -> bool {
        !Policy::new(&self.fields).drops_all_headers()
    }
}

impl Default for AccessLogConfig {
    fn default() -> Self {
        Self {
            file_path: String::new(),
            format: "common".to_owned(),
            buffering_size: 0,
            add_internals: false,
            dual_output: false,
            filters: AccessLogFilters::default(),
            fields: AccessLogFields::default(),
            otlp: None,
        }
    }
}

/// `accessLog.filters`: an exchange is written when any one applies, or when none is set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AccessLogFilters {
    /// Statuses and ranges of them: `200`, `300-302`.
    pub status_codes: Vec<String>,
    /// Exchanges that were tried again.
    pub retry_attempts: bool,
    /// Exchanges that took longer.
    pub min_duration: GoDuration,
}

/// `accessLog.fields`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AccessLogFields {
    /// `keep` (default) or `drop`.
    pub default_mode: String,
    /// The mode of single fields.
    pub names: BTreeMap<String, String>,
    /// Headers.
    pub headers: FieldHeaders,
    /// The query of `RequestPath`.
    pub query_parameters: FieldQueryParameters,
}

impl Default for AccessLogFields {
    fn default() -> Self {
        Self {
            default_mode: "keep".to_owned(),
            names: BTreeMap::new(),
            headers: FieldHeaders::default(),
            query_parameters: FieldQueryParameters::default(),
        }
    }
}

/// `accessLog.fields.headers`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct FieldHeaders {
    /// `keep`, `drop` (default) or `redact`.
    pub default_mode: String,
    /// The mode of single headers.
    pub names: BTreeMap<String, String>,
}

impl Default for FieldHeaders {
    fn default() -> Self {
        Self { default_mode: "drop".to_owned(), names: BTreeMap::new() }
    }
}

/// `accessLog.fields.queryParameters`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct FieldQueryParameters {
    /// `keep` (default) or `drop`.
    pub default_mode: String,
}

impl Default for FieldQueryParameters {
    fn default() -> Self {
        Self { default_mode: "keep".to_owned() }
    }
}
