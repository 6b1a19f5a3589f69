//! What the entry point says itself, and what it does to every answer because of the connection it goes out on.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body::Body as _;

use super::overload;
use crate::exchange::error::{empty, text};
use crate::exchange::{Body, BodyEnd, Ending, Outcome, Response};
use crate::wire::{self, GateControl};

/// Why a request is refused whose header names `underscoreHeadersStrategy` rejects.
pub(super) const ALIASED_NAME: &str = "header name with an underscore";

/// The response to a request that broke a rule: what Traefik, or Go's server below it, writes.
pub(super) fn refusal(status: StatusCode, reason: &'static str) -> Response {
    if status == StatusCode::NOT_IMPLEMENTED || reason == wire::FRAGMENT {
        return empty(status);
    }
    if reason == ALIASED_NAME {
        return text(status, "Bad Request\n");
    }
    let mut response = text(status, "");
    let name = status.canonical_reason().unwrap_or_default();
    *response.body_mut() = Body::from(format!("{} {name}: {reason}", status.as_u16()));
    response
}

/// The answer to a request that there is no room for.
pub(super) fn overloaded() -> Response {
    let mut response = text(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable\n");
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(overload::RETRY_AFTER));
    response
}

/// Asks for the connection to be closed behind an HTTP/1 answer.
pub(super) fn close(response: &mut Response) {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
}

/// Takes the body out of the answer to HEAD: on HTTP/2 hyper would send it (RFC 9110, 9.3.2).
pub(super) fn keep_head_only(response: &mut Response) {
    let body = response.body();
    if body.is_end_stream() {
        return;
    }
    if let Some(length) = body.size_hint().exact() {
        response.headers_mut().entry(CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(length));
    }
    *response.body_mut() = Body::empty();
}

/// Says of an error that no server has answered that nobody may keep it: a cache may take a 404 for lasting
/// (RFC 9110, 15.1), which is over with the next configuration.
pub(super) fn keep_out_of_caches(response: &mut Response) {
    let status = response.status();
    let outcome = response.extensions().get::<Outcome>();
    let is_theirs = outcome.is_some_and(|outcome| outcome.origin_status.is_some());
    if !is_theirs && (status.is_client_error() || status.is_server_error()) {
        let no_store = || HeaderValue::from_static("no-store");
        response.headers_mut().entry(CACHE_CONTROL).or_insert_with(no_store);
    }
}

/// What came of a request's body.
#[derive(Debug, Default)]
pub(super) struct Received {
    bytes: AtomicU64,
    whole: AtomicBool,
    chunked: bool,
}

impl Received {
    pub(super) fn of(body: &Body) -> Self {
        Self { chunked: body.size_hint().exact().is_none(), ..Self::default() }
    }

    /// Payload bytes that were read, once the body is over.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn over(&self, end: BodyEnd, _: Option<&HeaderMap>) {
        self.bytes.store(end.bytes, Ordering::Relaxed);
        self.whole.store(end.ending == Ending::Complete, Ordering::Relaxed);
    }

    /// Whether hyper will close an HTTP/1 connection behind the answer, because of what it would have to read before
    /// the next request: it drains what has come of a body of known length, and one chunk of another.
    pub(super) fn leaves_a_rest(&self, gate: &GateControl) -> bool {
        !gate.has_whole_request() || (self.chunked && !self.whole.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    async fn body(response: Response) -> String {
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn refusals_read_as_in_traefik() {
        let bad = StatusCode::BAD_REQUEST;
        let too_large = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        for (status, reason, want) in [
            (bad, "bare LF", "400 Bad Request: bare LF"),
            (bad, wire::FRAGMENT, ""),
            (bad, ALIASED_NAME, "Bad Request\n"),
            (StatusCode::NOT_IMPLEMENTED, "CONNECT is not served", ""),
            (
                too_large,
                "header name too long",
                "431 Request Header Fields Too Large: header name too long",
            ),
        ] {
            let response = refusal(status, reason);
            assert_eq!(response.status(), status);
            assert_eq!(body(response).await, want);
        }
    }

    #[tokio::test]
    async fn an_answer_to_head_says_how_long_its_body_would_be() {
        let mut response = text(StatusCode::NOT_FOUND, "404 page not found\n");
        keep_head_only(&mut response);
        assert_eq!(response.headers()[CONTENT_LENGTH], "19");
        assert_eq!(body(response).await, "");
        let mut response = empty(StatusCode::OK);
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(200));
        keep_head_only(&mut response);
        assert_eq!(response.headers()[CONTENT_LENGTH], "200");
    }
}
