//! Doorward's own limits of routers and services: how long an exchange may take, and how much a client may send.
//!
//! What a router says wins over what its service says, value by value, and what a router below says over the one
//! above. Where nothing is said, nothing is there: no timer, no wrapped body.

mod body;
mod keeper;
#[cfg(test)]
mod tests;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

pub(super) use self::body::answered_by;
pub use self::keeper::Keeper;
pub(super) use self::keeper::Watch;
use crate::values::{BuildError, GoDuration};

/// `timeouts` of a router or of a service: Doorward's own. A limit of 0 is none, whatever others say. Of services
/// within services, each has its own. Tunnels have no limit once protocols are switched.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TimeoutsConfig {
    /// From the last byte of the request to the first of the answer, in place of the servers transport's
    /// `responseHeaderTimeout`; then 504.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_byte: Option<GoDuration>,
    /// Longest pause of the client inside its body, then 408, and of the server inside its answer, which is cut then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<GoDuration>,
    /// The whole exchange, from the request's head (for a service: from when it gets the request) to the answer's last
    /// byte; then 504, or the answer is cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<GoDuration>,
    /// Bytes per second that a client must send of a body on average; then 408. Time that the server lets it wait does
    /// not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_min_rate: Option<i64>,
    /// How long a body may be slower than that at its beginning. Default: 10s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_min_rate_grace: Option<GoDuration>,
}

/// `requestBody` of a router or of an entry point: Doorward's own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RequestBodyConfig {
    /// Longest body that a client may send; a longer one is answered with 413, at once where its length is announced,
    /// and never reaches a server whole. Default for a router: its entry point's; else, and for 0: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<i64>,
}

/// `bodyMinRateGrace` when it is not written.
const GRACE: Duration = Duration::from_secs(10);

/// A limit: `None` is nothing said, `Some(None)` is no limit.
type Limit<T> = Option<Option<T>>;

/// How slow a body may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct MinRate {
    bytes_per_second: u64,
    grace: Duration,
    /// Nobody has asked for it at this place: whatever anybody says wins, and bodies of gRPC, which may be streams of
    /// rare messages, have none.
    by_default: bool,
}

/// What a router or a service says about its exchanges.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    first_byte: Limit<Duration>,
    idle: Limit<Duration>,
    total: Limit<Duration>,
    rate: Limit<MinRate>,
    max_bytes: Limit<u64>,
}

impl Limits {
    /// Reads what is configured. What is wrong goes to `errors`, what says nothing to `warnings`.
    pub fn read(
        timeouts: Option<&TimeoutsConfig>,
        body: RequestBodyConfig,
        errors: &mut Vec<BuildError>,
        warnings: &mut Vec<BuildError>,
    ) -> Self {
        let mut limits = Self::default();
        if let Some(timeouts) = timeouts {
            let mut time = |option: &str, value: Option<GoDuration>| -> Limit<Duration> {
                let value = value?;
                if value.is_negative() {
                    let message = format!(
                        "`{option}` is negative: write a duration such as 30s, or 0 for no limit"
                    );
                    errors.push(BuildError::at(format!("timeouts.{option}"), message));
                }
                Some(value.positive())
            };
            limits.first_byte = time("firstByte", timeouts.first_byte);
            limits.idle = time("idle", timeouts.idle);
            limits.total = time("total", timeouts.total);
            let grace = time("bodyMinRateGrace", timeouts.body_min_rate_grace);
            let rate =
                number("timeouts.bodyMinRate", timeouts.body_min_rate, "bytes per second", errors);
            if grace.is_some() && rate.flatten().is_none() {
                let message = "`bodyMinRateGrace` has no effect without `bodyMinRate`";
                warnings.push(BuildError::at("timeouts.bodyMinRateGrace", message));
            }
            let grace = grace.map_or(GRACE, Option::unwrap_or_default);
            limits.rate = rate.map(|rate| {
                rate.map(|bytes_per_second| MinRate { bytes_per_second, grace, by_default: false })
            });
        }
        limits.max_bytes = number("requestBody.maxBytes", body.max_bytes, "bytes", errors);
        limits
    }

    /// These, with a rate for bodies if none is said.
    #[must_use]
    pub fn with_slowest_body(mut self, bytes_per_second: i64, grace: GoDuration) -> Self {
        if let (None, Ok(bytes_per_second)) = (self.rate, u64::try_from(bytes_per_second)) {
            let grace = grace.or_zero();
            self.rate = Some(Some(MinRate { bytes_per_second, grace, by_default: true }));
        }
        self
    }

    fn has_default_rate(&self) -> bool {
        self.rate.flatten().is_some_and(|rate| rate.by_default)
    }

    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether they say nothing but what is kept where the server's bytes come in, and nothing of pauses.
    fn are_of_answers(&self) -> bool {
        Self { first_byte: None, ..*self }.is_empty()
    }

    /// These, and where they say nothing, `others`.
    fn or(self, others: Self) -> Self {
        Self {
            first_byte: self.first_byte.or(others.first_byte),
            idle: self.idle.or(others.idle),
            total: self.total.or(others.total),
            rate: match others.rate {
                Some(_) if self.has_default_rate() => others.rate,
                _ => self.rate.or(others.rate),
            },
            max_bytes: self.max_bytes.or(others.max_bytes),
        }
    }

    /// What these say and `others` do not.
    fn without(self, others: Self) -> Self {
        Self {
            first_byte: self.first_byte.filter(|_| others.first_byte.is_none()),
            idle: self.idle.filter(|_| others.idle.is_none()),
            total: self.total.filter(|_| others.total.is_none()),
            rate: self.rate.filter(|_| others.rate.is_none() || others.has_default_rate()),
            max_bytes: self.max_bytes.filter(|_| others.max_bytes.is_none()),
        }
    }

    /// When the client must have sent more: it is waited for since `since`, was for `waited` before that, and has sent
    /// `bytes`.
    fn more_until(&self, since: Instant, waited: Duration, bytes: u64) -> Option<Instant> {
        let idle = self.idle.flatten().map(|idle| since + idle);
        let rate = self.rate.flatten().map(|rate| {
            let earned = bytes.saturating_mul(1000) / rate.bytes_per_second.max(1);
            let allowed = Duration::from_millis(earned).max(rate.grace);
            since + allowed.saturating_sub(waited)
        });
        [idle, rate].into_iter().flatten().min()
    }
}

fn number(
    option: &str,
    value: Option<i64>,
    unit: &str,
    errors: &mut Vec<BuildError>,
) -> Limit<u64> {
    let value = value?;
    let Ok(number) = u64::try_from(value) else {
        let name = option.rsplit('.').next().unwrap_or(option);
        let message = format!("`{name}` is negative: write a number of {unit}, or 0 for no limit");
        errors.push(BuildError::at(option, message));
        return None;
    };
    Some((number > 0).then_some(number))
}
