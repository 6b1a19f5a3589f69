//! `rateLimit.responseHeaders`: what a client is told of its bucket, as
//! draft-ietf-httpapi-ratelimit-headers-10 writes it.
//!
//! `RateLimit-Policy: "limit@file";q=10;w=60` is the limit as configured, `RateLimit:
//! "limit@file";r=3;t=6` that three more pass at once, and that there is one more in six seconds.

use std::time::Duration;

use http::{HeaderName, HeaderValue};

use crate::exchange::Response;
use crate::values::BuildError;

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
}

impl Teller {
    /// Tells of `average` requests per `period` under this name.
    pub(super) fn new(name: &str, average: u64, period: Duration) -> Result<Self, BuildError> {
        let name = quoted(name);
        // Windows are whole seconds.
        let window = u128::from(whole_seconds(period).max(1));
        let quota = u128::from(average) * window * 1_000_000_000 / period.as_nanos().max(1);
        let (quota, window) = (quota.min(LARGEST), window.min(LARGEST));
        let policy = HeaderValue::from_str(&format!("{name};q={quota};w={window}"))
            .map_err(|_| BuildError::at("responseHeaders", "this name cannot be a header"))?;
        Ok(Self { policy, begins: format!("{name};r=").into_bytes().into() })
    }

    /// Adds the fields to a response, behind those of other limits.
    pub(super) fn tell(&self, response: &mut Response, left: Left) {
        let largest = u64::try_from(LARGEST).unwrap_or(u64::MAX);
        let mut number = itoa::Buffer::new();
        let mut text = Vec::with_capacity(self.begins.len() + 35);
        text.extend_from_slice(&self.begins);
        text.extend_from_slice(number.format(left.requests.min(largest)).as_bytes());
        text.extend_from_slice(b";t=");
        text.extend_from_slice(number.format(whole_seconds(left.next).min(largest)).as_bytes());
        let headers = response.headers_mut();
        headers.append(RATELIMIT_POLICY, self.policy.clone());
        if let Ok(text) = HeaderValue::from_maybe_shared(bytes::Bytes::from(text)) {
            headers.append(RATELIMIT, text);
        }
    }
}

/// Rounded up, as `Retry-After` is.
pub(super) fn whole_seconds(time: Duration) -> u64 {
    time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0))
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
        for (name, average, period, want) in [
            ("one@file", 10, 60_000, "\"one@file\";q=10;w=60"),
            ("one@file", 5, 500, "\"one@file\";q=10;w=1"),
            ("one@file", 1, 1500, "\"one@file\";q=1;w=2"),
            ("a\"b\\c\u{e9}\n", 1, 1000, "\"a\\\"b\\\\c__\";q=1;w=1"),
            ("x", u64::MAX, 1000, "\"x\";q=999999999999999;w=1"),
        ] {
            let teller = Teller::new(name, average, Duration::from_millis(period)).unwrap();
            assert_eq!(teller.policy, want);
        }
    }

    #[test]
    fn what_is_left_comes_behind_what_others_said() {
        let mut response = Response::new(Body::empty());
        for name in ["one@file", "two@file"] {
            let left = Left { requests: u64::MAX, next: Duration::from_millis(1001) };
            let teller = Teller::new(name, 1, Duration::from_secs(1)).unwrap();
            teller.tell(&mut response, left);
        }
        let lines: Vec<_> = response.headers().get_all("ratelimit").iter().collect();
        assert_eq!(
            lines,
            ["\"one@file\";r=999999999999999;t=2", "\"two@file\";r=999999999999999;t=2"]
        );
        assert_eq!(response.headers().get_all("ratelimit-policy").iter().count(), 2);
    }
}
