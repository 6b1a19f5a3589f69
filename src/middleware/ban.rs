//! `ban`, Doorward's own: who offends too often within a time is turned away for a while, and for
//! longer each further time, as fail2ban does it.
//!
//! Bans belong to the middleware's name and not to its settings: all routers that name it share
//! them, and they outlive every reload that still has the name ([`Bans`]). An offence is counted
//! when the head of the answer is known.

mod condition;
mod list;
mod registry;
mod source;
mod view;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tracing::warn;

pub use self::condition::{BanConditionConfig, BanHeaderConfig};
use self::condition::{Conditions, Suspicion};
pub use self::list::BanList;
use self::list::{Policy, Sentence, Settings};
pub use self::registry::Bans;
use self::source::Prefix;
pub use self::view::{BanView, Refused};
use super::ip_allow_list::reject_status;
use super::ip_strategy::ranges;
use super::source::{Criterion, Fallback, Source, SourceCriterionConfig};
use super::{Build, BuildContext};
use crate::exchange::error::bare;
use crate::exchange::forwarded::TrustedSources;
use crate::exchange::{Context, Middleware, Next, Request, Response, ResponseFuture, ready};
use crate::values::{BuildError, GoDuration};

/// Options of `ban`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BanConfig {
    /// What is an offence: whatever fulfils one of these. Required; 64 at most.
    pub conditions: Vec<BanConditionConfig>,
    /// Offences within `window` that are one too many: 1 to 1000. Default: 5.
    pub threshold: i64,
    /// How long an offence counts, 30 days at most. Default: 10m.
    pub window: GoDuration,
    /// How long a ban lasts, 10 years at most. Default: 10m.
    pub duration: GoDuration,
    /// Makes further bans of the same source longer. Default: all are of one length.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub escalation: Option<EscalationConfig>,
    /// Whom offences count for. Default: the peer's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_criterion: Option<SourceCriterionConfig>,
    /// Length, 1 to 128, of the IPv6 network that counts as one source, since whoever has one
    /// address has its whole network. Another length ends the bans of IPv6 sources. Default: 64.
    pub ipv6_subnet: i64,
    /// Addresses and ranges that are never counted, and pass even if they are banned. Default: none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<String>,
    /// Status for who is banned. Default: 403.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reject_status_code: Option<i64>,
}

impl Default for BanConfig {
    fn default() -> Self {
        Self {
            conditions: Vec::new(),
            threshold: 5,
            window: GoDuration::from_secs(600),
            duration: GoDuration::from_secs(600),
            escalation: None,
            source_criterion: None,
            ipv6_subnet: 64,
            allow: Vec::new(),
            reject_status_code: None,
        }
    }
}

/// `escalation`: how much longer the next ban of the same source is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EscalationConfig {
    /// So many times as long as the one before, at least 1. Default: 2.
    pub factor: f64,
    /// Longest ban. Default: 24h.
    pub max: GoDuration,
    /// Time after the end of a ban in which it is remembered. Default: 24h.
    pub forget: GoDuration,
}

impl Default for EscalationConfig {
    fn default() -> Self {
        let day = GoDuration::from_secs(86_400);
        Self { factor: 2.0, max: day, forget: day }
    }
}

/// Longest time that anything is remembered here.
const LONGEST: Duration = Duration::from_hours(24 * 3652);
/// Moments of offences are kept as milliseconds in 32 bits.
const LONGEST_WINDOW: Duration = Duration::from_hours(24 * 30);
const MOST_OFFENCES: i64 = 1000;

impl BanConfig {
    fn policy(&self) -> Result<Policy, BuildError> {
        let threshold = u32::try_from(self.threshold)
            .ok()
            .filter(|_| (1..=MOST_OFFENCES).contains(&self.threshold))
            .ok_or_else(|| {
                let message = format!("`threshold` is 1 to {MOST_OFFENCES}");
                BuildError::at("threshold", message)
            })?;
        let escalation = self.escalation.as_ref();
        let factor = escalation.map_or(1.0, |escalation| escalation.factor);
        if !factor.is_finite() || factor < 1.0 {
            return Err(BuildError::at("escalation.factor", "`escalation.factor` is at least 1"));
        }
        let duration = time("duration", self.duration, LONGEST)?;
        let max = match escalation {
            Some(escalation) => time("escalation.max", escalation.max, LONGEST)?,
            None => duration,
        };
        if max < duration {
            let message = "`escalation.max` is less than `duration`";
            return Err(BuildError::at("escalation.max", message));
        }
        let remember = match escalation {
            Some(escalation) => time("escalation.forget", escalation.forget, LONGEST)?,
            None => Duration::ZERO,
        };
        let window = time("window", self.window, LONGEST_WINDOW)?;
        Ok(Policy { threshold, window, duration, factor, max, remember })
    }
}

fn time(option: &str, value: GoDuration, longest: Duration) -> Result<Duration, BuildError> {
    value.positive().filter(|&time| time <= longest).ok_or_else(|| {
        let longest = GoDuration::from(longest);
        BuildError::at(option, format!("`{option}` is more than 0 and at most {longest}"))
    })
}

impl Build for BanConfig {
    fn build(&self, cx: &mut BuildContext<'_>) -> Result<Arc<dyn Middleware>, BuildError> {
        let policy = self.policy()?;
        let conditions = Conditions::build(&self.conditions, cx.warnings)?;
        let criterion = Criterion::build(self.source_criterion.as_ref(), Fallback::PeerIp, cx)?;
        let prefix = Prefix::new(self.ipv6_subnet)?;
        let allow = Arc::new(ranges(&self.allow, "allow")?);
        let reject = reject_status(self.reject_status_code)?;
        let list = Bans::of(cx.state).list(cx.name);
        list.set(Settings {
            prefix,
            allow: Arc::clone(&allow),
            duration: policy.duration,
            by_address: criterion.is_address(),
        });
        Ok(Arc::new(Ban { conditions, policy, criterion, prefix, allow, reject, list }))
    }
}

struct Ban {
    conditions: Conditions,
    policy: Policy,
    criterion: Criterion,
    prefix: Prefix,
    allow: Arc<TrustedSources>,
    reject: StatusCode,
    list: Arc<BanList>,
}

/// Whom a request counts for, and the address that the allow list is asked for.
#[derive(Clone, Copy)]
struct Who {
    source: Source,
    address: IpAddr,
}

impl Ban {
    fn who(&self, cx: &Context, headers: &HeaderMap) -> Who {
        match self.criterion.source(cx, headers) {
            Source::Ip(address) => Who { source: self.prefix.source(address), address },
            source => Who { source, address: cx.connection.peer_ip },
        }
    }

    fn refusal(&self, left: Duration) -> Response {
        let mut response = bare(self.reject);
        let seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        response
    }

    fn offence(&self, source: Source) {
        let name = self.list.name();
        match self.list.offend(source, &self.policy, Instant::now()) {
            Sentence::None => {}
            Sentence::Banned { duration, offences, level } => warn!(
                middlewareName = name,
                source = %self.prefix.text(source),
                offences,
                duration = %GoDuration::from(duration),
                banLevel = level,
                "banned"
            ),
            Sentence::NoRoom => warn!(
                middlewareName = name,
                source = %self.prefix.text(source),
                "not banned: there is no room for another ban"
            ),
        }
    }
}

impl Middleware for Ban {
    fn handle<'a>(
        &'a self,
        cx: &'a Context,
        request: Request,
        next: Next<'a>,
    ) -> ResponseFuture<'a> {
        let who = self.who(cx, request.headers());
        if let Some(left) = self.list.banned_for(who.source)
            && !self.allow.trust(who.address)
        {
            return ready(self.refusal(left));
        }
        let suspicion = self.conditions.suspect(&request);
        if suspicion.is_none() || self.allow.trust(who.address) {
            return next.run(cx, request);
        }
        Box::pin(async move {
            let mut trial = Trial {
                ban: self,
                source: who.source,
                guilty: self.conditions.is_certain(suspicion),
                suspicion,
            };
            let response = next.run(cx, request).await;
            trial.hear(response.status());
            drop(trial);
            response
        })
    }
}

/// A request that may be an offence. Where only the request is asked, a client that goes away
/// before the answer does not get around being counted.
struct Trial<'a> {
    ban: &'a Ban,
    source: Source,
    suspicion: Suspicion,
    guilty: bool,
}

impl Trial<'_> {
    fn hear(&mut self, status: StatusCode) {
        self.guilty = self.guilty || self.ban.conditions.hold(self.suspicion, status);
    }
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        if self.guilty {
            self.ban.offence(self.source);
        }
    }
}

#[cfg(test)]
mod tests;
