//! `rateLimit.responseHeaders`: what a client is told of its bucket, as
//! draft-ietf-httpapi-ratelimit-headers-10 writes it.
//!
//! `RateLimit-Policy: "limit@file";q=10;w=60` is the limit as configured, or the burst if it is more:
//! no answer ever tells of more than `q`. `RateLimit: "limit@file";r=3;t=6` says that three more pass at
//! once, and that there is one more in six seconds. Seconds are whole, so of a limit that has more than
//! one request for each, `r=100;t=1` tells how many pass within the coming second.

use std::time::Duration;

use http::{HeaderName, HeaderValue};

use crate::exchange::Response;
use crate::values::{BuildError, whole_seconds};

const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// The largest integer of RFC 9651.
const LARGEST: u128 = 999_999_999_999_999;

/// What is left in a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::middleware) struct Left {
    /// Requests that pass at once.
    pub(in crate::middleware) requests: u64,
    /// Until there is one more; for a request that is refused, until it would not be.
    pub(in crate::middleware) next: Duration,
}

/// Tells clients of one limit.
pub(super) struct Teller {
    policy: HeaderValue,
    /// The limit's name as a string of RFC 9651, and what comes before the requests that are left.
    begins: Box<[u8]>,
    /// No more than this is ever left.
    quota: u64,
    /// Nanoseconds from one request to the next, if they are less than a second.
    interval: Option<u128>,
}

const SECOND: Duration = Duration::from_secs(1);

impl Teller {
    /// Tells of `average` requests per `period`, `burst` of them at once, under this name.
    pub(super) fn new(
        name: &str,
        (average, period): (u64, Duration),
        burst: u64,
    ) -> Result<Self, BuildError> {
        let name = quoted(name);
        // Windows are whole seconds.
        let window = u128::from(whole_seconds(period).max(1));
        let quota = u128::from(average) * window * 1_000_000_000 / period.as_nanos().max(1);
        let quota = quota.max(burst.into()).min(LARGEST);
        let window = window.min(LARGEST);
        let interval = (period.as_nanos() / u128::from(average.max(1))).max(1);
        let policy = HeaderValue::from_str(&format!("{name};q={quota};w={window}"))
            .map_err(|_| BuildError::at("responseHeaders", "this name cannot be a header"))?;
        Ok(Self {
            policy,
            begins: format!("{name};r=").into_bytes().into(),
            quota: u64::try_from(quota).unwrap_or(u64::MAX),
            interval: (interval < SECOND.as_nanos()).then_some(interval),
        })
    }

    /// How many requests pass before the time is over that the answer to one that `passed` names.
    fn remaining(&self, left: Left, passed: bool) -> u64 {
        // Who was refused comes too early with any number of them.
        let within = match (self.interval, SECOND.checked_sub(left.next)) {
            (Some(interval), Some(rest)) if passed => 1 + rest.as_nanos() / interval,
            _ => 0,
        };
        left.requests.saturating_add(u64::try_from(within).unwrap_or(u64::MAX)).min(self.quota)
    }

    /// Adds the fields to the response to a request that `passed` or not, behind those of other limits.
    pub(super) fn tell(&self, response: &mut Response, left: Left, passed: bool) {
        let largest = u64::try_from(LARGEST).unwrap_or(u64::MAX);
        let mut number = itoa::Buffer::new();
        let mut text = Vec::with_capacity(self.begins.len() + 35);
        text.extend_from_slice(&self.begins);
        text.extend_from_slice(number.format(self.remaining(left, passed)).as_bytes());
        text.extend_from_slice(b";t=");
        text.extend_from_slice(number.format(whole_seconds(left.next).min(largest)).as_bytes());
        let headers = response.headers_mut();
        headers.append(RATELIMIT_POLICY, self.policy.clone());
        if let Ok(text) = HeaderValue::from_maybe_shared(bytes::Bytes::from(text)) {
            headers.append(RATELIMIT, text);
        }
    }
}

/// A string of RFC 9651, which has only printable ASCII.
fn quoted(name: &str) -> String {
    let mut text = String::from('"');
    for character in name.chars() {
        match character {
            '"' | '\\' => text.extend(['\\', character]),
            ' '..='~' => text.push(character),
            _ => text.push('_'),
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Body;

    #[test]
    fn limits_are_told_in_whole_seconds() {
        for (name, average, period, burst, want) in [
            ("one@file", 10, 60_000, 1, "\"one@file\";q=10;w=60"),
            ("one@file", 5, 500, 10, "\"one@file\";q=10;w=1"),
            ("one@file", 5, 500, 11, "\"one@file\";q=11;w=1"),
            ("one@file", 1, 1500, 1, "\"one@file\";q=1;w=2"),
            ("a\"b\\c\u{e9}\n", 1, 1000, 1, "\"a\\\"b\\\\c__\";q=1;w=1"),
            ("x", u64::MAX, 1000, 1, "\"x\";q=999999999999999;w=1"),
            ("x", 1, 1000, u64::MAX, "\"x\";q=999999999999999;w=1"),
        ] {
            let rate = (average, Duration::from_millis(period));
            let teller = Teller::new(name, rate, burst).unwrap();
            assert_eq!(teller.policy, want);
        }
    }

    #[test]
    fn what_is_left_is_never_more_than_the_limit() {
        let millis = Duration::from_millis;
        for (rate, burst, requests, next, passed, want) in [
            // Slow limits tell what passes at once.
            ((6, millis(60_000)), 3, 2, 10_000, true, 2),
            ((1, millis(1000)), 1, 0, 1000, true, 0),
            // Fast ones what passes within a second: now, and then each tenth.
            ((10, millis(1000)), 1, 0, 100, true, 10),
            ((10, millis(1000)), 1, 0, 140, true, 9),
            ((10, millis(1000)), 20, 5, 50, true, 15),
            ((10, millis(1000)), 20, 19, 100, true, 20),
            ((600, millis(60_000)), 1, 0, 100, true, 10),
            ((10, millis(1000)), 1, 0, 60, false, 0),
            // At a limit of its own clock nothing is divided by nothing.
            ((u64::MAX, millis(1000)), 1, 0, 0, true, 1_000_000_001),
        ] {
            let teller = Teller::new("one@file", rate, burst).unwrap();
            let left = Left { requests, next: millis(next) };
            assert_eq!(teller.remaining(left, passed), want, "{rate:?} {burst} {left:?}");
        }
    }

    #[test]
    fn what_is_left_comes_behind_what_others_said() {
        let mut response = Response::new(Body::empty());
        for name in ["one@file", "two@file"] {
            let left = Left { requests: u64::MAX, next: Duration::from_millis(1001) };
            let teller = Teller::new(name, (1, Duration::from_secs(1)), u64::MAX).unwrap();
            teller.tell(&mut response, left, true);
        }
        let lines: Vec<_> = response.headers().get_all("ratelimit").iter().collect();
        assert_eq!(
            lines,
            ["\"one@file\";r=999999999999999;t=2", "\"two@file\";r=999999999999999;t=2"]
        );
        assert_eq!(response.headers().get_all("ratelimit-policy").iter().count(), 2);
    }
}
