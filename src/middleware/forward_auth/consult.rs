//! Asks the authentication server, or the memory of what it has said.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{HeaderMap, SET_COOKIE};
use http::response::Parts;
use http::{Request, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout, timeout_at};

use super::ForwardAuth;
use super::cache::{AuthCache, Found, Naming};
use crate::exchange::{Body, BodyError, Context};

/// How long the server may take to answer.
pub(super) const DEADLINE: Duration = Duration::from_secs(30);
/// How long somebody else's question is waited for: one that hangs must not hold up all that are
/// equal.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// What is known of a request.
pub(super) enum Told {
    /// The same was allowed before, and who the user is.
    Before(Arc<HeaderMap>),
    /// What the server says now.
    Now(Parts, Bytes),
}

impl ForwardAuth {
    /// What is known, or the status that stands for the server's silence.
    pub(super) async fn learn(
        &self,
        cx: &Context,
        question: Request<Bytes>,
    ) -> Result<Told, StatusCode> {
        let Some(cache) = &self.cache else {
            let (answer, body) = self.consult(question, Instant::now() + DEADLINE).await?;
            return Ok(Told::Now(answer, body));
        };
        let naming = cx.naming_header();
        let key = cache.key(&question, naming);
        let flight = match timeout(PATIENCE, cache.find(key)).await {
            Ok(Found::Allowed(headers)) => return Ok(Told::Before(headers)),
            Ok(Found::Lead(flight)) => Some(flight),
            Ok(Found::Alone) | Err(_) => None,
        };
        let start = Instant::now();
        let answer = self.consult(question, start + DEADLINE).await;
        let kept = answer.as_ref().ok();
        let kept = kept.and_then(|(answer, _)| self.kept(cache, answer, start, naming));
        match (flight, kept) {
            (Some(flight), Some((headers, until))) => flight.allow(&headers, until),
            (Some(flight), None) => flight.alone(),
            (None, Some((headers, until))) => cache.allow(key, &headers, until),
            (None, None) if answer.is_ok() => cache.forget(&key),
            (None, None) => {}
        }
        answer.map(|(answer, body)| Told::Now(answer, body))
    }

    /// What is to be remembered of an answer to a question of `start`, and until when.
    fn kept(
        &self,
        cache: &AuthCache,
        answer: &Parts,
        start: Instant,
        naming: Naming<'_>,
    ) -> Option<(Arc<HeaderMap>, Instant)> {
        // A cookie is made for one client.
        let gives_cookies = !self.cookies.is_empty() && answer.headers.contains_key(SET_COOKIE);
        if !answer.status.is_success() || gives_cookies {
            return None;
        }
        let until = cache.until(&answer.headers, start, naming)?;
        Some((Arc::new(self.used(&answer.headers)), until))
    }

    /// What the server says, or the status that stands for its silence.
    async fn consult(
        &self,
        question: Request<Bytes>,
        deadline: Instant,
    ) -> Result<(Parts, Bytes), StatusCode> {
        let exchange = async {
            let answer = self.forwarder.ask(question).await.map_err(|error| self.failed(&error))?;
            if answer.status().is_informational() {
                return Err(self.failed(&"it switched protocols unasked"));
            }
            let (parts, body) = answer.into_parts();
            // Whoever may pass does not see what was said of it.
            let is_kept = !parts.status.is_success();
            let limit = if is_kept { self.refusal_limit } else { self.yes_limit };
            match read(body, limit, is_kept).await {
                Ok(body) => Ok((parts, body)),
                Err(Unread::TooLarge) => {
                    self.failed(&"its answer is too large");
                    Err(StatusCode::UNAUTHORIZED)
                }
                Err(Unread::Failed(error)) => Err(self.failed(&error)),
            }
        };
        timeout_at(deadline, exchange).await.unwrap_or_else(|_| Err(self.failed(&LATE)))
    }

    fn failed(&self, error: &dyn std::fmt::Display) -> StatusCode {
        // A query may hold a token.
        let address = self.address.split('?').next().unwrap_or_default();
        tracing::error!(address, %error, "the authentication server failed");
        StatusCode::INTERNAL_SERVER_ERROR
    }
}

const LATE: &str = "it did not answer in time";

/// Why a body is not there.
pub(super) enum Unread {
    /// It is longer than allowed.
    TooLarge,
    /// It did not come.
    Failed(BodyError),
}

/// Reads a body of at most `limit` bytes; unless it `is_kept`, nothing of it stays.
pub(super) async fn read(
    mut body: Body,
    limit: Option<u64>,
    is_kept: bool,
) -> Result<Bytes, Unread> {
    let fits = |length: u64| limit.is_none_or(|limit| length <= limit);
    if !fits(body.size_hint().lower()) {
        return Err(Unread::TooLarge);
    }
    let mut length = 0;
    let mut whole = Bytes::new();
    let mut pieces = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(Unread::Failed)?.into_data() else { continue };
        length += data.len() as u64;
        if !fits(length) {
            return Err(Unread::TooLarge);
        }
        if !is_kept {
            continue;
        }
        if whole.is_empty() && pieces.is_empty() {
            whole = data;
        } else {
            if pieces.is_empty() {
                pieces.extend_from_slice(&std::mem::take(&mut whole));
            }
            pieces.extend_from_slice(&data);
        }
    }
    Ok(if pieces.is_empty() { whole } else { pieces.freeze() })
}
