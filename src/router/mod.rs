//! The table that the data plane reads, and the sections of configuration that become it.

mod below;
pub mod index;
pub mod table;

use serde::{Deserialize, Serialize};

pub use self::below::Below;
pub use self::table::{EntryPointRoutes, HttpRouter, HttpRouters, LiveTable, RoutingTable};
use crate::upstream::limits::{RequestBodyConfig, TimeoutsConfig};
use crate::values::is_default;

/// One entry of `http.routers`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RouterConfig {
    /// Entry points that the router listens at. Default: the default entry points.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub entry_points: Vec<String>,
    /// Middlewares, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub middlewares: Vec<String>,
    /// Name of the service. Required, but for a router that others stand below.
    #[serde(skip_serializing_if = "is_default")]
    pub service: String,
    /// Which requests are meant. Required.
    #[serde(skip_serializing_if = "is_default")]
    pub rule: String,
    /// Routers that this one stands below; then it has no entry points of its own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parent_refs: Vec<String>,
    /// `v3` or `v2`, which is deprecated. Default: `core.defaultRuleSyntax`.
    #[serde(skip_serializing_if = "is_default")]
    pub rule_syntax: String,
    /// Higher comes first. Default: 0, the length of the rule in bytes.
    #[serde(skip_serializing_if = "is_default")]
    pub priority: i64,
    /// Present: the router serves TLS, and nothing else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<RouterTlsConfig>,
    /// What is observed. Default: as the entry point says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observability: Option<RouterObservabilityConfig>,
    /// How long its exchanges may take: Doorward's own. Each value wins over the service's, and over those of routers
    /// above.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<TimeoutsConfig>,
    /// How much clients may send: Doorward's own. Default: as the entry point says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_body: Option<RequestBodyConfig>,
}

/// `tls` of a router or of an entry point.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RouterTlsConfig {
    /// Name of the TLS options. Default: `default`.
    #[serde(skip_serializing_if = "is_default")]
    pub options: String,
    /// Name of the certificates resolver.
    #[serde(skip_serializing_if = "is_default")]
    pub cert_resolver: String,
    /// Names that a certificate is wanted for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub domains: Vec<DomainConfig>,
}

/// Names of one certificate.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DomainConfig {
    /// First name.
    #[serde(skip_serializing_if = "is_default")]
    pub main: String,
    /// Further names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sans: Vec<String>,
}

/// `observability` of a router or of an entry point.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RouterObservabilityConfig {
    /// Write access log lines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_logs: Option<bool>,
    /// Count in metrics.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<bool>,
    /// Make spans. Accepted; there is no tracing yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracing: Option<bool>,
    /// `minimal` or `detailed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_verbosity: Option<String>,
}
