//! What the authentication server has allowed, for a short while: Doorward's own `cache`.
//!
//! Only what lets a request pass is kept, no longer than `ttl` after it was asked for, and under the
//! digest of what the server was told, all of it but what is named as telling nothing. Of several
//! equal questions at once one is asked; whoever waits for it gets what it allows, and asks for
//! itself when it allows nothing or takes too long.

mod memory;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, AGE, AUTHORIZATION, CACHE_CONTROL, COOKIE, DATE, EXPIRES, HeaderMap,
    PROXY_AUTHORIZATION, VARY,
};
use http::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use self::memory::Memory;
pub(super) use self::memory::{Found, Key};
use crate::exchange::forwarded::{
    X_FORWARDED_HOST, X_FORWARDED_METHOD, X_FORWARDED_PROTO, X_FORWARDED_URI, tokens,
};
use crate::middleware::auth::is_alias;
use crate::values::{BuildError, GoDuration};

/// Doorward's own `cache`: what the server allows is remembered. Default: nothing is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AuthCacheConfig {
    /// How long an answer of 2xx lets equal requests pass, from when it was asked for; its
    /// `Cache-Control`, or else its `Expires`, may shorten that. Default: 10s.
    pub ttl: GoDuration,
    /// How many answers are kept, per router; the ones that would end soonest go first. Default:
    /// 10000.
    pub max_entries: i64,
    /// Headers, as the server gets them, that the server does not decide by: requests that differ
    /// in nothing else are equal. `Authorization`, `Proxy-Authorization`, `Cookie`,
    /// `X-Forwarded-Host`, `X-Forwarded-Proto`, `X-Forwarded-Tls-Client-Cert`,
    /// `X-Forwarded-Tls-Client-Cert-Info` and those of `authRequestHeaders` cannot be ignored.
    /// Default: none, so `X-Forwarded-For`, `-Method` and `-Uri` count.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ignore_headers: Vec<String>,
}

impl Default for AuthCacheConfig {
    fn default() -> Self {
        Self { ttl: GoDuration::from_secs(10), max_entries: 10_000, ignore_headers: Vec::new() }
    }
}

/// A longer `ttl` than this is warned of.
const LONG: Duration = Duration::from_mins(5);
/// Credentials, and what site is meant: requests that differ in these are never equal.
const ALWAYS: [HeaderName; 7] = [
    AUTHORIZATION,
    PROXY_AUTHORIZATION,
    COOKIE,
    X_FORWARDED_HOST,
    X_FORWARDED_PROTO,
    HeaderName::from_static("x-forwarded-tls-client-cert"),
    HeaderName::from_static("x-forwarded-tls-client-cert-info"),
];

impl AuthCacheConfig {
    /// The cache that this describes, for a server that gets the headers in `passed`, or all.
    pub(super) fn build(
        &self,
        passed: &[HeaderName],
        warnings: &mut Vec<BuildError>,
    ) -> Result<AuthCache, BuildError> {
        let ttl = self
            .ttl
            .positive()
            .ok_or_else(|| BuildError::at("cache.ttl", "`ttl` must be more than nothing"))?;
        if ttl > LONG {
            let sentence = "`ttl` is more than 5m: whoever is locked out enters for so long";
            warnings.push(BuildError::at("cache.ttl", sentence));
        }
        let most = usize::try_from(self.max_entries).ok().filter(|&most| most > 0);
        let most = most
            .ok_or_else(|| BuildError::at("cache.maxEntries", "`maxEntries` must be 1 or more"))?;
        Ok(AuthCache::new(ttl, most, self.ignored(passed, warnings)?))
    }

    fn ignored(
        &self,
        passed: &[HeaderName],
        warnings: &mut Vec<BuildError>,
    ) -> Result<Vec<HeaderName>, BuildError> {
        let ignored = super::names("cache.ignoreHeaders", &self.ignore_headers)?;
        for (index, name) in ignored.iter().enumerate() {
            let at = |sentence: String| {
                BuildError::at(format!("cache.ignoreHeaders[{index}]"), sentence)
            };
            // A server may read another punctuation as the same name.
            let is_among = |names: &[HeaderName]| names.iter().any(|it| is_alias(it, name));
            if is_among(&ALWAYS) {
                return Err(at(format!(
                    "`{name}` cannot be ignored: it says who asks, or for which site"
                )));
            }
            if is_among(passed) {
                return Err(at(format!(
                    "`{name}` cannot be ignored: `authRequestHeaders` lists it, so the server \
                     decides by it"
                )));
            }
            for (other, what) in [(&X_FORWARDED_URI, "path"), (&X_FORWARDED_METHOD, "method")] {
                if is_alias(other, name) {
                    warnings.push(at(format!(
                        "`{name}` is ignored: what is allowed for one {what} is allowed for all"
                    )));
                }
            }
        }
        Ok(ignored)
    }
}

/// The header that names the request, which is another one for each.
pub(super) type Naming<'a> = Option<(&'a HeaderName, &'a HeaderValue)>;

/// What is remembered for one router.
pub(super) struct AuthCache {
    ttl: Duration,
    /// What does not tell questions apart.
    ignored: Vec<HeaderName>,
    memory: Memory,
}

impl AuthCache {
    fn new(ttl: Duration, most: usize, ignored: Vec<HeaderName>) -> Self {
        Self { ttl, ignored, memory: Memory::new(ttl, most) }
    }

    /// What is remembered of `question`, or what to do to learn it. Waits for whoever is asking
    /// just now.
    pub(super) async fn find(&self, key: Key) -> Found<'_> {
        self.memory.find(key).await
    }

    /// Remembers an answer until then.
    pub(super) fn allow(&self, key: Key, headers: &Arc<HeaderMap>, until: Instant) {
        self.memory.allow(key, headers, until);
    }

    /// Forgets what allowed this question.
    pub(super) fn forget(&self, key: &Key) {
        self.memory.forget(key);
    }

    /// Until when an answer to a question asked at `start` may be used, if it may.
    pub(super) fn until(
        &self,
        answer: &HeaderMap,
        start: Instant,
        naming: Naming<'_>,
    ) -> Option<Instant> {
        if !self.tells_apart(answer, naming) {
            return None;
        }
        let lifetime = lifetime(answer).ok()?.unwrap_or(self.ttl).min(self.ttl);
        (!lifetime.is_zero()).then(|| start + lifetime)
    }

    /// What tells `question` from others. The header that names the request does not, as long as
    /// it says what the entry point has put there.
    pub(super) fn key(&self, question: &http::Request<Bytes>, naming: Naming<'_>) -> Key {
        let mut hash = Sha256::new();
        let mut add = |part: &[u8]| {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        };
        add(question.method().as_str().as_bytes());
        for (name, value) in question.headers() {
            if naming != Some((name, value)) && !self.ignored.contains(name) {
                add(name.as_str().as_bytes());
                add(value.as_bytes());
            }
        }
        hash.finalize().into()
    }

    /// Whether whatever the answer depends on, as it says itself, is in the key.
    fn tells_apart(&self, answer: &HeaderMap, naming: Naming<'_>) -> bool {
        answer.get_all(VARY).iter().flat_map(tokens).all(|name| {
            let is = |it: &HeaderName| name.eq_ignore_ascii_case(it.as_str());
            let is_ignored =
                self.ignored.iter().any(is) || naming.is_some_and(|(naming, _)| is(naming));
            // Nothing is kept of the body.
            is(&ACCEPT_ENCODING) || name != "*" && !is_ignored
        })
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.memory.len()
    }
}

/// An answer that must not be used again.
struct OnceOnly;

/// How long an answer may be used as it says itself, if it says so (RFC 9111, 4.2.1).
fn lifetime(answer: &HeaderMap) -> Result<Option<Duration>, OnceOnly> {
    let (mut own, mut shared) = (None, None);
    for directive in answer.get_all(CACHE_CONTROL).iter().flat_map(tokens) {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        let name = name.trim();
        let is = |it: &str| name.eq_ignore_ascii_case(it);
        if is("no-store") || is("no-cache") || is("private") {
            return Err(OnceOnly);
        }
        let place = match () {
            () if is("max-age") => &mut own,
            () if is("s-maxage") => &mut shared,
            () => continue,
        };
        // What cannot be read is no time at all; of two the shorter counts.
        let seconds = value.trim().trim_matches('"').parse().unwrap_or(0);
        *place = Some(place.map_or(seconds, |before: u64| before.min(seconds)));
    }
    let lifetime = match shared.or(own) {
        Some(seconds) => Some(Duration::from_secs(seconds)),
        None => match answer.get(EXPIRES) {
            None => None,
            Some(expires) => {
                let sent = answer.get(DATE).and_then(date).unwrap_or_else(SystemTime::now);
                let expires = date(expires).ok_or(OnceOnly)?;
                Some(expires.duration_since(sent).map_err(|_| OnceOnly)?)
            }
        },
    };
    let age = answer.get(AGE).and_then(|age| age.to_str().ok()?.trim().parse().ok());
    let age = Duration::from_secs(age.unwrap_or(0));
    Ok(lifetime.map(|lifetime| lifetime.saturating_sub(age)))
}

fn date(value: &HeaderValue) -> Option<SystemTime> {
    httpdate::parse_http_date(value.to_str().ok()?).ok()
}

#[cfg(test)]
mod tests;
