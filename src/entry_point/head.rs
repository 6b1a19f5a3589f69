//! The head of one request, made canonical or refused.
//!
//! The data plane and `explain` share it, so that they cannot read a request differently.

use http::request::Parts;
use http::{Method, StatusCode, Version};
use tracing::debug;

use super::{EntryPoint, reply};
use crate::exchange::canonical::{
    HostError, canonicalize_host, has_disguised_dots, malformed_http2,
};

/// Why a request is not routed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// What the client gets.
    pub status: StatusCode,
    /// A sentence for the log.
    pub reason: &'static str,
}

/// Makes headers, target and host of a request canonical, as its entry point has it.
pub fn canonicalize(entry_point: &EntryPoint, parts: &mut Parts) -> Result<(), Refusal> {
    let refused = |status, reason| Err(Refusal { status, reason });
    let bad = |reason| refused(StatusCode::BAD_REQUEST, reason);
    if parts.method == Method::CONNECT {
        return refused(StatusCode::NOT_IMPLEMENTED, "CONNECT is not served");
    }
    if entry_point.underscores.apply(&mut parts.headers, entry_point.aliases) {
        return bad(reply::ALIASED_NAME);
    }
    if parts.version >= Version::HTTP_2
        && let Some(reason) = malformed_http2(&parts.headers, &parts.uri)
    {
        return bad(reason);
    }
    if let Err(error) = entry_point.target.apply(&parts.method, &mut parts.uri) {
        debug!(%error, "malformed target");
        return bad("malformed target");
    }
    if entry_point.facts.hardened && has_disguised_dots(parts.uri.path()) {
        return bad("disguised dot segment");
    }
    if let Err(error) = canonicalize_host(&mut parts.headers, &parts.uri, parts.version) {
        return bad(match error {
            HostError::Missing => "missing required Host header",
            HostError::Several => "too many Host headers",
            HostError::Malformed => "malformed Host header",
        });
    }
    Ok(())
}
