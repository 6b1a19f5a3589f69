//! `buffering`: reads whole requests before a server sees them, and whole responses before the client
//! does; limits both, and may send a request again.
//!
//! What is not in memory is on the disk, and gone with its request: see `spool`.

mod expression;
mod spool;

use std::sync::Arc;

use http::header::{CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body::Body as _;
use serde::{Deserialize, Serialize};
use tracing::warn;

use self::expression::Expression;
use self::spool::{Failure, Kept, Limits};
use super::at_hand::discard;
use super::{Build, BuildContext};
use crate::exchange::error::{bare, too_large};
use crate::exchange::memory::Held;
use crate::exchange::replay;
use crate::exchange::{
    Attempts, Body, BodyError, Budget, Context, Middleware, Next, Outcome, ProxyError, Request,
    Response, ResponseFuture,
};
use crate::values::{BuildError, Profile, is_default};

/// Options of `buffering`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BufferingConfig {
    /// Longest request body; a longer one is answered with 413. Default: 0, no limit.
    #[serde(skip_serializing_if = "is_default")]
    pub max_request_body_bytes: i64,
    /// How much of a request is kept in memory; the rest goes to the disk. Default: 1048576.
    pub mem_request_body_bytes: i64,
    /// Longest response body; a longer one becomes a 500. Default: 0, no limit.
    #[serde(skip_serializing_if = "is_default")]
    pub max_response_body_bytes: i64,
    /// How much of a response is kept in memory; the rest goes to the disk. Default: 1048576.
    pub mem_response_body_bytes: i64,
    /// When a request that has a body is sent again, ten times at most: `Attempts()`,
    /// `ResponseCode()`, `IsNetworkError()` and `RequestMethod()`, compared and joined by `&&` and
    /// `||`. Default: never.
    #[serde(skip_serializing_if = "is_default")]
    pub retry_expression: String,
}

impl Default for BufferingConfig {
    fn default() -> Self {
        Self {
            max_request_body_bytes: 0,
            mem_request_body_bytes: 1_048_576,
            max_response_body_bytes: 0,
            mem_response_body_bytes: 1_048_576,
            retry_expression: String::new(),
        }
    }
}

/// What "no limit" is in the `hardened` profile, so that nobody fills the disk: 1 GiB.
const HARDENED_MOST: u64 = 1 << 30;

/// How often a request is sent again at most, as in Traefik.
const MOST_RETRIES: u32 = 10;

impl Build for BufferingConfig {
    fn build(&self, cx: &mut BuildContext<'_>) -> Result<Arc<dyn Middleware>, BuildError> {
        let again = match &*self.retry_expression {
            "" => None,
            text => {
                let expression = Expression::parse(text)
                    .map_err(|message| BuildError::at("retryExpression", message))?;
                let spares = cx.profile != Profile::Exact;
                let budget = spares.then(|| cx.carry_over(&format!("{self:?}"), Budget::default));
                Some(Again { expression, budget, spares })
            }
        };
        let limits = |most_option, most, memory_option, memory| -> Result<Limits, BuildError> {
            let most = match not_negative(most_option, most)? {
                0 => (cx.profile == Profile::Hardened).then_some(HARDENED_MOST),
                most => Some(most),
            };
            let memory = not_negative(memory_option, memory)?;
            Ok(Limits { memory: usize::try_from(memory).unwrap_or(usize::MAX), most })
        };
        Ok(Arc::new(Buffering {
            request: limits(
                "maxRequestBodyBytes",
                self.max_request_body_bytes,
                "memRequestBodyBytes",
                self.mem_request_body_bytes,
            )?,
            response: limits(
                "maxResponseBodyBytes",
                self.max_response_body_bytes,
                "memResponseBodyBytes",
                self.mem_response_body_bytes,
            )?,
            again,
        }))
    }
}

fn not_negative(option: &str, value: i64) -> Result<u64, BuildError> {
    u64::try_from(value)
        .map_err(|_| BuildError::at(option, format!("`{option}` should be >= 0, got {value}")))
}

/// When a request is sent again.
struct Again {
    expression: Expression,
    budget: Option<Arc<Budget>>,
    /// No attempt goes to a server that was tried while another is up.
    spares: bool,
}

impl Again {
    fn wants(&self, attempt: u32, response: &Response, method: &Method) -> bool {
        attempt <= MOST_RETRIES
            && self.expression.holds(attempt, response.status(), method)
            && self.budget.as_ref().is_none_or(|budget| budget.spend())
    }
}

struct Buffering {
    request: Limits,
    response: Limits,
    again: Option<Again>,
}

impl Middleware for Buffering {
    fn handle<'a>(
        &'a self,
        cx: &'a Context,
        request: Request,
        next: Next<'a>,
    ) -> ResponseFuture<'a> {
        Box::pin(self.run(cx, request, next))
    }
}

impl Buffering {
    async fn run<'a>(&'a self, cx: &'a Context, request: Request, next: Next<'a>) -> Response {
        let method = request.method().clone();
        let (mut parts, body) = request.into_parts();
        if body.is_end_stream() {
            // Traefik never sends a request without a body again.
            let response = next.run(cx, Request::from_parts(parts, body)).await;
            return self.keep(&method, response).await;
        }
        let held = parts.extensions.get::<Arc<Held>>().cloned();
        let kept = match Kept::read(body, self.request, held).await {
            Ok(kept) => kept,
            Err(failure) => return refusal(&failure),
        };
        describe(&mut parts.headers, &kept);
        if kept.length() == 0 {
            let response = next.run(cx, Request::from_parts(parts, Body::empty())).await;
            return self.keep(&method, response).await;
        }
        let Some(again) = &self.again else {
            let response = next.run(cx, Request::from_parts(parts, kept.body())).await;
            drop(kept);
            return self.keep(&method, response).await;
        };
        if let Some(budget) = &again.budget {
            budget.earn();
        }
        if again.spares {
            parts.extensions.get_or_insert_default::<Attempts>();
        }
        let mut attempt = 1;
        let mut sent = false;
        loop {
            let request = Request::from_parts(parts.clone(), kept.body());
            let mut response = next.run(cx, request).await;
            let outcome = Outcome::of(&mut response);
            outcome.sent |= sent;
            sent = outcome.sent;
            let upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS;
            if upgraded || !again.wants(attempt, &response, &method) {
                response = self.keep(&method, response).await;
                // A response that broke off is a network error, which may be tried again too.
                if !broke_off(&mut response) || !again.wants(attempt, &response, &method) {
                    return response;
                }
            }
            discard(response).await;
            attempt += 1;
        }
    }

    /// Reads a whole response; what cannot be read or is too long becomes another one.
    async fn keep(&self, method: &Method, mut response: Response) -> Response {
        if !has_body(method, &response) {
            return response;
        }
        let body = std::mem::take(response.body_mut());
        let (status, error) = match Kept::read(body, self.response, None).await {
            Ok(kept) => {
                describe(response.headers_mut(), &kept);
                *response.body_mut() = kept.body();
                return response;
            }
            Err(Failure::TooLarge) => (StatusCode::INTERNAL_SERVER_ERROR, None),
            Err(Failure::Disk(error)) => {
                warn!(%error, "a response cannot be kept on the disk");
                (StatusCode::INTERNAL_SERVER_ERROR, None)
            }
            Err(Failure::Source(error)) => {
                let stalled = matches!(error, BodyError::TooSlow);
                let error =
                    if stalled { ProxyError::AnswerStalled } else { ProxyError::UpstreamClosed };
                (error.status(), Some(error))
            }
        };
        let mut outcome = std::mem::take(Outcome::of(&mut response));
        outcome.error = error.or(outcome.error);
        let mut failed = bare(status);
        failed.extensions_mut().insert(outcome);
        failed
    }
}

/// Whether a response has a body that is worth reading: Traefik's rules.
fn has_body(method: &Method, response: &Response) -> bool {
    let status = response.status();
    let failed_call = response.headers().get("grpc-status").is_some_and(|status| status != "0");
    *method != Method::HEAD
        && !status.is_informational()
        && !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        && !failed_call
        && !response.body().is_end_stream()
}

fn broke_off(response: &mut Response) -> bool {
    Outcome::of(response).error == Some(ProxyError::UpstreamClosed)
}

/// Makes headers speak of a body that is known from its first to its last byte.
fn describe(headers: &mut HeaderMap, kept: &Kept) {
    headers.remove(TRANSFER_ENCODING);
    // The client has been told to go on already.
    headers.remove(EXPECT);
    if kept.has_trailers() {
        headers.remove(CONTENT_LENGTH);
    } else {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(kept.length()));
    }
}

/// The answer to a request whose body was not kept.
fn refusal(failure: &Failure) -> Response {
    match failure {
        Failure::TooLarge => too_large(),
        Failure::Disk(error) => {
            warn!(%error, "a request cannot be kept on the disk");
            bare(StatusCode::INTERNAL_SERVER_ERROR)
        }
        Failure::Source(error) => replay::refusal(error).into_response(),
    }
}

#[cfg(test)]
mod tests;
