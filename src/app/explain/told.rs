//! What `explain` tells, as data: `--format json` prints it as it is, and the text is made of it.

use serde::Serialize;

use super::walk::Answer;

/// One request at one entry point or more.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Told {
    pub(super) request: RequestTold,
    pub(super) entry_points: Vec<EntryPointTold>,
    /// What should be known of all of it.
    pub(super) notes: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RequestTold {
    pub(super) method: String,
    pub(super) url: String,
    pub(super) client_ip: String,
    /// Nobody said which client it is.
    pub(super) client_assumed: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EntryPointTold {
    pub(super) entry_point: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) address: Option<String>,
    pub(super) tls: bool,
    /// Whether the client's own forwarded headers count.
    pub(super) trusts_forwarded_headers: bool,
    /// Host as rules see it; absent for a request that no rule sees.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) host: Option<String>,
    /// Path as rules see it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) path: Option<String>,
    /// Target as it goes on, if that is not the one of the URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) became: Option<String>,
    /// Options that the connection is made with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tls_options: Option<String>,
    /// What the handshake depends on, as a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) handshake: Option<String>,
    pub(super) outcome: Outcome,
    /// Routers that take the request, from the entry point down.
    pub(super) routers: Vec<RouterTold>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) service: Option<ServiceTold>,
    /// Other routers, those nearest to taking it first.
    pub(super) others: Vec<OtherTold>,
    /// Routers that are not listed, by what keeps them away.
    pub(super) not_listed: Vec<Count>,
}

/// What the client gets.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Outcome {
    /// Absent when the service decides, or when the connection ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) status: Option<u16>,
    /// Whether a router answers as it is meant to.
    pub(super) answered: bool,
    pub(super) why: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RouterTold {
    pub(super) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) place: Option<String>,
    pub(super) rule: String,
    pub(super) priority: i64,
    /// Nobody set the priority.
    pub(super) priority_of_rule: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tls_options: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) errors: Vec<String>,
    pub(super) middlewares: Vec<MiddlewareTold>,
    pub(super) service: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MiddlewareTold {
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) place: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) effect: Option<String>,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ServiceTold {
    pub(super) name: String,
    /// What it is to the service above.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) role: Option<String>,
    #[serde(rename = "type", skip_serializing_if = "String::is_empty")]
    pub(super) kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) place: Option<String>,
    /// Strategy, cookie, health check.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) details: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) middlewares: Vec<MiddlewareTold>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) servers: Vec<ServerTold>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) services: Vec<ServiceTold>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) problem: Option<String>,
    /// What becomes of the request here; `None` if that depends on the member, or if none comes here.
    #[serde(skip)]
    pub(super) end: Option<ServiceEnd>,
}

/// What becomes of a request that comes to a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ServiceEnd {
    /// It is asked for this target.
    Asked(String),
    /// A middleware of the service answers.
    Answered(Answer),
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ServerTold {
    pub(super) url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) weight: Option<i64>,
    /// `UP` or `DOWN`, from a running instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) status: Option<String>,
}

/// Why another router does not take the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Verdict {
    /// It matches too, and comes later.
    Loses,
    /// It is for the host, and something else does not fit.
    DoesNotMatch,
    /// It would match, and is not asked here.
    Elsewhere,
    /// It is for any host, and something does not fit.
    AnyHost,
    /// It is for other hosts.
    OtherHost,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct OtherTold {
    pub(super) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) place: Option<String>,
    pub(super) rule: String,
    pub(super) priority: i64,
    pub(super) verdict: Verdict,
    /// Each a sentence.
    pub(super) why: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Count {
    pub(super) count: usize,
    pub(super) verdict: Verdict,
}
