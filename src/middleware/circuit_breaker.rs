//! `circuitBreaker`: answers itself while a service does badly, then lets requests through again,
//! a few at first.

mod breaker;
mod condition;
mod window;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use self::breaker::{Breaker, Times};
use self::condition::Condition;
use super::expression::Expression;
use super::{Build, BuildContext};
use crate::exchange::{
    Body, BodyEnd, Context, Ending, Middleware, Next, ProxyError, Request, Response,
    ResponseFuture, on_end, ready,
};
use crate::values::{BuildError, GoDuration};

/// Options of `circuitBreaker`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CircuitBreakerConfig {
    /// When the service does badly: `NetworkErrorRatio() > 0.30`,
    /// `ResponseCodeRatio(500, 600, 0, 600) > 0.25`, `LatencyAtQuantileMS(50.0) > 100`, joined by
    /// `&&` and `||`. Ratios are of the last ten seconds, latencies of the last minute. Required.
    pub expression: String,
    /// How often that is looked at, at most. Default, also for 0: 100ms.
    pub check_period: GoDuration,
    /// How long no request passes then. Default, also for 0: 10s.
    pub fallback_duration: GoDuration,
    /// How long requests pass in growing number after that. Default, also for 0: 10s.
    pub recovery_duration: GoDuration,
    /// Status of the requests that do not pass. Default: 503.
    pub response_code: i64,
}

impl Default for CircuitBreakerConfig {
    fn default() -> Self {
        Self {
            expression: String::new(),
            check_period: GoDuration::from_millis(100),
            fallback_duration: GoDuration::from_secs(10),
            recovery_duration: GoDuration::from_secs(10),
            response_code: 503,
        }
    }
}

impl Build for CircuitBreakerConfig {
    fn build(&self, cx: &mut BuildContext<'_>) -> Result<Arc<dyn Middleware>, BuildError> {
        if self.expression.trim().is_empty() {
            let message = "no expression: write a condition, such as `NetworkErrorRatio() > 0.30`";
            return Err(BuildError::at("expression", message));
        }
        let condition: Expression<Condition> =
            Expression::parse::<condition::Words>(&self.expression)
                .map_err(|message| BuildError::at("expression", message))?;
        // A lower one is no answer: Go panics below 100, and goes on waiting below 200.
        let status = u16::try_from(self.response_code)
            .ok()
            .and_then(|code| StatusCode::from_u16(code).ok())
            .filter(|status| !status.is_informational())
            .ok_or_else(|| {
                let message =
                    format!("{} is no status of an answer: write 200 to 999", self.response_code);
                BuildError::at("responseCode", message)
            })?;
        let default = Self::default();
        for (option, duration, default) in [
            ("checkPeriod", self.check_period, default.check_period),
            ("fallbackDuration", self.fallback_duration, default.fallback_duration),
            ("recoveryDuration", self.recovery_duration, default.recovery_duration),
        ] {
            if duration.is_negative() {
                let message =
                    format!("`{option}` is {duration}, which means the default, {default}");
                cx.warnings.push(BuildError::at(option, message));
            }
        }
        let by_latency = condition.mentions(Condition::is_of_latency);
        let times = Times {
            check: self.check_period.positive().unwrap_or(Duration::from_millis(100)),
            open: self.fallback_duration.positive().unwrap_or(Duration::from_secs(10)),
            recovery: self.recovery_duration.positive().unwrap_or(Duration::from_secs(10)),
        };
        let settings = format!("{times:?} {}", self.expression);
        let (router, name) = (cx.owner.to_string(), cx.name.to_string());
        let breaker =
            cx.carry_over(&settings, || Breaker::new(condition, times, by_latency, router, name));
        Ok(Arc::new(CircuitBreaker { breaker, by_latency, refusal: Refusal::new(status) }))
    }
}

/// What the requests get that do not pass.
struct Refusal {
    status: StatusCode,
    text: Bytes,
}

impl Refusal {
    fn new(status: StatusCode) -> Self {
        let text = match status.as_u16() {
            // These have no body.
            204 | 304 => "",
            _ => status.canonical_reason().unwrap_or_default(),
        };
        Self { status, text: Bytes::from_static(text.as_bytes()) }
    }

    fn response(&self) -> Response {
        let mut response = Response::new(Body::from(self.text.clone()));
        *response.status_mut() = self.status;
        response
    }
}

struct CircuitBreaker {
    breaker: Arc<Breaker>,
    /// Latencies count to the end of a response, so that has to be waited for.
    by_latency: bool,
    refusal: Refusal,
}

impl Middleware for CircuitBreaker {
    fn handle<'a>(
        &'a self,
        cx: &'a Context,
        request: Request,
        next: Next<'a>,
    ) -> ResponseFuture<'a> {
        if !self.breaker.admits() {
            return ready(self.refusal.response());
        }
        let running = Running { breaker: Some(&self.breaker), start: Instant::now() };
        Box::pin(async move {
            let mut response = next.run(cx, request).await;
            let status = response.status();
            // How long a tunnel is used says nothing about the service.
            if self.by_latency && status != StatusCode::SWITCHING_PROTOCOLS {
                let start = running.go_on();
                let breaker = Arc::clone(&self.breaker);
                on_end(&mut response, move |end: BodyEnd, _: Option<&HeaderMap>| {
                    if end.ending == Ending::Complete {
                        breaker.note(status.as_u16(), start.elapsed());
                    }
                });
            } else {
                running.ended(status);
            }
            response
        })
    }
}

/// A request that passed and has no answer. One that is dropped has lost its client.
struct Running<'a> {
    breaker: Option<&'a Breaker>,
    start: Instant,
}

impl Running<'_> {
    fn ended(mut self, status: StatusCode) {
        self.note(status);
    }

    /// Leaves it to somebody else to say how the request ended.
    fn go_on(mut self) -> Instant {
        self.breaker = None;
        self.start
    }

    fn note(&mut self, status: StatusCode) {
        if let Some(breaker) = self.breaker.take() {
            breaker.note(status.as_u16(), self.start.elapsed());
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.note(ProxyError::ClientGone.status());
    }
}

#[cfg(test)]
mod tests;
