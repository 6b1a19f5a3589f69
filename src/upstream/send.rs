//! Sends one request over a connection and waits for the head of the answer.
//!
//! A request goes out a second time only when nothing of it can have been acted upon, or when
//! repeating it does no harm: not a byte of it was written, or it is idempotent, has no body, went
//! over a connection that was idle before, and not one byte of an answer came.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Method, Uri, Version};
use http_body::Body as _;
use tokio::time::Instant;

use super::http1::{self, Answer, Connection, Unanswered};
use super::owner::{Owner, is_bound_by};
use super::pool::{self, Http2Lease, Lease, Wanted};
use super::relay::{AtEnd, relay};
use super::target::{Target, TargetScheme};
use super::transport::{Origin, ServersTransport};
use super::upload::{Upload, UploadState};
use crate::exchange::{Budget, ProxyError};

/// How long a body is held back for a server that does not answer `Expect: 100-continue`.
const EXPECT_CONTINUE_TIMEOUT: Duration = Duration::from_secs(1);
/// The same for a server that did not answer it [`MUTE_AFTER`] times in a row: most of those never do, and each of
/// their uploads would stand still for a second.
const MUTE_TIMEOUT: Duration = Duration::from_millis(50);
const MUTE_AFTER: u32 = 3;
/// One of so many uploads waits for the whole second all the same, as a server may have learnt it.
const MUTE_TRIAL: u32 = 16;

/// How often a request goes out again that a server has refused before it looked at it: one that leaves, or tells how
/// many streams it allows, does so seldom twice. What is refused without a word is paid for by [`Origin::refusals`].
const MOST_REFUSALS: u32 = 2;

/// Where a request goes.
pub(super) struct Line<'a> {
    pub(super) transport: &'a ServersTransport,
    pub(super) origin: &'a Arc<Origin>,
    pub(super) target: &'a Target,
    /// When the request was ready.
    pub(super) start: Instant,
    /// The request asks for an upgrade.
    pub(super) upgrade: bool,
    /// Who sends it, if it is not anybody.
    pub(super) owner: Option<&'a Arc<Owner>>,
    /// How long the head of the answer may take.
    pub(super) response_header: Option<Duration>,
    /// Over no connection that was idle before.
    pub(super) fresh: bool,
    /// A server that does not answer `Expect: 100-continue` is waited for as long each time, as Go does.
    pub(super) exact: bool,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Failure {
    pub(super) error: ProxyError,
    /// Whether something of the request may have reached the server.
    pub(super) sent: bool,
    /// The connection was idle before, and ended without a byte of an answer.
    pub(super) stale: bool,
}

impl Line<'_> {
    /// Sends `request`, whose URI is in origin form and whose headers are ready but for framing. It is of
    /// no use afterwards, and is dropped before anybody repeats it. What is rare is boxed, so that what every request goes through stays small.
    pub(super) async fn send(
        &self,
        request: &mut http::Request<Upload>,
    ) -> Result<Answer, Failure> {
        let (http1, owner) = (self.upgrade, self.owner);
        let mut wanted = Wanted { http1, fresh: self.fresh, owner, at: self.start };
        let mut refusals = 0;
        loop {
            let lease = pool::lease(self.transport, self.origin, wanted)
                .await
                .map_err(|error| Failure { error, sent: false, stale: false })?;
            let outcome = match lease {
                Lease::Http1(connection) => self.over_http1(connection, request).await,
                Lease::Http2(lease) => Box::pin(self.over_http2(lease, request)).await,
            };
            match outcome {
                Ok(answer) => return Ok(answer),
                Err(Failed { again: true, refused: Some(why), .. })
                    if refusals < MOST_REFUSALS && self.may_ask_again(why) =>
                {
                    refusals += 1;
                }
                Err(Failed { again: true, refused: None, .. }) if !wanted.fresh => {
                    wanted.fresh = true;
                }
                Err(Failed { failure, .. }) => return Err(failure),
            }
        }
    }

    fn may_ask_again(&self, why: Refusal) -> bool {
        why == Refusal::Explained || self.origin.refusals.as_ref().is_none_or(Budget::spend)
    }

    async fn over_http1(
        &self,
        connection: Box<Connection>,
        request: &mut http::Request<Upload>,
    ) -> Result<Answer, Failed> {
        shape_http1(request, self.target);
        let upload = request.body().state().cloned();
        let reused = connection.is_reused();
        let repeatable = reused && upload.is_none() && is_repeatable(request.method());
        let limit = self.response_header;
        let absolute = self.origin.absolute.as_ref();
        let exchange = http1::exchange(connection, request, absolute, self.upgrade, repeatable);
        let pending = pin!(exchange);
        let held = upload.as_deref().is_some_and(UploadState::is_held);
        let outcome = if limit.is_none() && !held {
            pending.await.map_err(Some)
        } else {
            Box::pin(self.wait(pending, upload.as_deref(), limit)).await
        };
        match outcome {
            Ok(answer) => Ok(answer),
            Err(None) => Err(TIMED_OUT),
            Err(Some(unanswered)) => {
                let Unanswered { failure, written, replied, intact } = unanswered;
                let error = blame(&failure, upload.as_deref());
                let stale = reused && !replied && matches!(failure, http1::Failure::Connection(_));
                let again = intact && reused && (!written || repeatable && !replied);
                Err(Failed {
                    failure: Failure { error, sent: written, stale },
                    again,
                    refused: None,
                })
            }
        }
    }

    async fn over_http2(
        &self,
        mut lease: Http2Lease,
        request: &mut http::Request<Upload>,
    ) -> Result<Answer, Failed> {
        shape_http2(request, self.target);
        let upload = request.body().state().cloned();
        if let Some(upload) = &upload {
            // hyper tells of no interim answers over HTTP/2.
            upload.release();
        }
        let spare = copy(request);
        let taken = std::mem::replace(request, http::Request::new(Upload::empty()));
        let pending = pin!(lease.sender.try_send_request(taken));
        let waited = self.wait(pending, upload.as_deref(), self.response_header);
        match waited.await {
            Ok(response) => {
                if let Some(refusals) = &self.origin.refusals {
                    refusals.earn();
                }
                let at_end = AtEnd { upload, permit: Some(lease.permit) };
                let response = response.map(|body| relay(body, at_end));
                let bound = self.owner.is_none() && is_bound_by(response.headers());
                let owner = bound.then(Owner::new);
                Ok(Answer { response, at: Instant::now(), switched: None, owner })
            }
            Err(None) => Err(TIMED_OUT),
            Err(Some(mut unsent)) => {
                let message = unsent.take_message();
                let refused = refusal(unsent.error(), &lease);
                let untouched = message.is_some() || refused.is_some();
                let failure = Failure {
                    error: classify(unsent.error(), upload.as_deref()),
                    sent: !untouched,
                    stale: untouched || lease.reused && is_over(unsent.error()),
                };
                let again = spare
                    .filter(|spare| untouched || lease.reused && is_repeatable(spare.method()));
                let again = message.or(again).map(|again| *request = again).is_some();
                Err(Failed { failure, again, refused })
            }
        }
    }

    /// Waits for an answer; `Err(None)` when its head does not come in time. The time runs from the
    /// end of the upload (Go `ResponseHeaderTimeout`).
    async fn wait<F, T, E>(
        &self,
        mut pending: Pin<&mut F>,
        upload: Option<&UploadState>,
        limit: Option<Duration>,
    ) -> Result<T, Option<E>>
    where
        F: Future<Output = Result<T, E>>,
    {
        if let Some(upload) = upload.filter(|upload| upload.is_held()) {
            let origin = self.origin;
            let in_vain = origin.in_vain.load(Ordering::Relaxed);
            let mute = !self.exact && in_vain >= MUTE_AFTER && !in_vain.is_multiple_of(MUTE_TRIAL);
            let patience = if mute { MUTE_TIMEOUT } else { EXPECT_CONTINUE_TIMEOUT };
            tokio::select! {
                biased;
                answer = &mut pending => {
                    origin.in_vain.store(0, Ordering::Relaxed);
                    return answer.map_err(Some);
                }
                () = poll_fn(|cx| upload.poll_released(cx)) => {
                    origin.in_vain.store(0, Ordering::Relaxed);
                }
                () = tokio::time::sleep(patience) => {
                    origin.in_vain.fetch_add(1, Ordering::Relaxed);
                    upload.release();
                }
            }
        }
        let Some(limit) = limit else { return pending.await.map_err(Some) };
        if let Some(upload) = upload {
            tokio::select! {
                biased;
                answer = &mut pending => return answer.map_err(Some),
                () = poll_fn(|cx| upload.poll_over(cx)) => {}
            }
        }
        tokio::time::timeout(limit, pending).await.map_err(|_| None)?.map_err(Some)
    }
}

/// A failure, and whether the request is whole and may go out again.
struct Failed {
    failure: Failure,
    again: bool,
    /// The server has said that it did nothing with it.
    refused: Option<Refusal>,
}

/// Why a server does nothing with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    /// It leaves, or there were more streams than it has said meanwhile that it allows: another connection will do.
    Explained,
    /// It does not say; it may be overloaded.
    Unexplained,
}

const TIMED_OUT: Failed = Failed {
    failure: Failure { error: ProxyError::ResponseTimeout, sent: true, stale: false },
    again: false,
    refused: None,
};

/// What a failure of an HTTP/1 exchange means (Traefik reference, section on generated responses).
fn blame(failure: &http1::Failure, upload: Option<&UploadState>) -> ProxyError {
    tracing::debug!(error = %failure, "no answer from the server");
    if let Some(blamed) = upload.and_then(UploadState::error) {
        return blamed;
    }
    match failure {
        http1::Failure::Invalid(_) => ProxyError::UpstreamInvalid,
        http1::Failure::Connection(_) => ProxyError::UpstreamClosed,
        // It is not what was announced.
        http1::Failure::Upload => ProxyError::BadRequestBody,
    }
}

/// What a failure of an HTTP/2 stream means.
fn classify(error: &hyper::Error, upload: Option<&UploadState>) -> ProxyError {
    tracing::debug!(%error, cause = ?std::error::Error::source(error), "no answer from the server");
    if let Some(blamed) = upload.and_then(UploadState::error) {
        return blamed;
    }
    if error.is_parse() { ProxyError::UpstreamInvalid } else { ProxyError::UpstreamClosed }
}

/// Why the server did nothing with a stream, if it says so (RFC 9113, 8.7): it refused it, or left with GOAWAY before
/// it had looked at it.
fn refusal(error: &hyper::Error, lease: &Http2Lease) -> Option<Refusal> {
    let cause = std::error::Error::source(error)?.downcast_ref::<h2::Error>()?;
    match cause.reason().filter(|_| cause.is_remote())? {
        h2::Reason::NO_ERROR if cause.is_go_away() => Some(Refusal::Explained),
        h2::Reason::REFUSED_STREAM if cause.is_reset() && lease.is_outdated() => {
            Some(Refusal::Explained)
        }
        h2::Reason::REFUSED_STREAM if cause.is_reset() => Some(Refusal::Unexplained),
        _ => None,
    }
}

/// Whether a connection ended, and not only a stream on it.
fn is_over(error: &hyper::Error) -> bool {
    let cause =
        std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<h2::Error>());
    error.is_closed() || cause.is_some_and(|cause| cause.is_io() || cause.is_go_away())
}

/// Whether a request may be repeated although it may have been received (as Go's transport
/// decides).
fn is_repeatable(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE)
}

/// A second copy of a request that has no body.
fn copy(request: &http::Request<Upload>) -> Option<http::Request<Upload>> {
    if request.body().state().is_some() {
        return None;
    }
    let mut copy = http::Request::new(Upload::empty());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}

/// A URI in origin form, without a copy. An empty path is `/`; the query stays byte for byte.
pub(super) fn origin_form(uri: &mut Uri) -> PathAndQuery {
    let path = std::mem::take(uri).into_parts().path_and_query;
    path.unwrap_or_else(|| PathAndQuery::from_static("/"))
}

fn shape_http1(request: &mut http::Request<Upload>, target: &Target) {
    *request.version_mut() = Version::HTTP_11;
    if let Some(authority) = request.uri().authority() {
        // It was shaped for HTTP/2 before.
        let host = HeaderValue::from_str(authority.as_str());
        let host = host.unwrap_or_else(|_| target.host_header().clone());
        request.headers_mut().insert(HOST, host);
        let path = origin_form(request.uri_mut());
        *request.uri_mut() = Uri::from(path);
    }
    if request.body().state().is_some() && !request.headers().contains_key(CONTENT_LENGTH) {
        let (name, value) = match request.body().size_hint().exact() {
            Some(length) => (CONTENT_LENGTH, HeaderValue::from(length)),
            None => (TRANSFER_ENCODING, HeaderValue::from_static("chunked")),
        };
        request.headers_mut().insert(name, value);
    }
}

fn shape_http2(request: &mut http::Request<Upload>, target: &Target) {
    *request.version_mut() = Version::HTTP_2;
    request.headers_mut().remove(TRANSFER_ENCODING);
    let host = request.headers_mut().remove(HOST);
    if request.uri().authority().is_some() {
        return;
    }
    let authority = host
        .and_then(|host| Authority::try_from(host.as_bytes()).ok())
        .unwrap_or_else(|| target.authority().clone());
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(match target.scheme() {
        TargetScheme::Https => Scheme::HTTPS,
        TargetScheme::Http | TargetScheme::H2c => Scheme::HTTP,
    });
    parts.authority = Some(authority);
    parts.path_and_query = Some(origin_form(request.uri_mut()));
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
}
