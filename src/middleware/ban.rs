//! `ban`, Doorward's own: who offends too often within a time is turned away for a while, and for
//! longer each further time, as fail2ban does it.
//!
//! Bans belong to the middleware's name and not to its settings: all routers that name it share
//! them, and they outlive every reload that still has the name ([`Bans`]). An offence is counted
//! when the head of the answer is known.

mod condition;
mod criterion;
mod list;
mod registry;
mod source;
mod view;

use std::sync::Arc;
use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tracing::warn;

pub use self::condition::{BanConditionConfig, BanHeaderConfig};
use self::condition::{Conditions, Suspicion};
use self::criterion::{BanCriterion, Who};
pub use self::list::BanList;
use self::list::{Policy, Sentence, Settings};
pub use self::registry::Bans;
use self::source::Prefix;
pub use self::view::{BanView, Refused};
use super::ip_allow_list::reject_status;
use super::ip_strategy::ranges;
use super::source::{Source, SourceCriterionConfig};
use super::{Build, BuildContext};
use crate::exchange::error::bare;
use crate::exchange::forwarded::TrustedSources;
use crate::exchange::{
    Context, Middleware, Next, Outcome, Request, Response, ResponseFuture, ready,
};
use crate::values::{BuildError, GoDuration, whole_seconds};

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
    /// Whom offences count for: `ipStrategy` (without `ipv6Subnet`, this middleware has its own)
    /// or `requestHeaderName`. `requestHost` is an error, one client would ban a site for all. A
    /// request without a usable entry in `X-Forwarded-For` counts for its peer. Whose entry is no
    /// address (a port behind it is fine), or who sends no such header, is not counted and not
    /// turned away. Default: the peer's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_criterion: Option<SourceCriterionConfig>,
    /// Length, 1 to 128, of the IPv6 network that counts as one source, since whoever has one
    /// address has its whole network. Another length ends the bans of IPv6 sources. For addresses
    /// only: no effect beside `requestHeaderName`. Default: 64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6_subnet: Option<i64>,
    /// Addresses and ranges that are never counted, and pass even if they are banned. The whole
    /// address is asked for. For addresses only: no effect beside `requestHeaderName`. Default:
    /// none.
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
            ipv6_subnet: None,
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
/// Length of the network that a client has for itself.
const IPV6_SUBNET: i64 = 64;

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
        let criterion = BanCriterion::build(self.source_criterion.as_ref(), cx)?;
        let prefix = Prefix::new(self.ipv6_subnet.unwrap_or(IPV6_SUBNET))?;
        let allow = Arc::new(ranges(&self.allow, "allow")?);
        let reject = reject_status(self.reject_status_code)?;
        let unused =
            [("allow", !self.allow.is_empty()), ("ipv6Subnet", self.ipv6_subnet.is_some())];
        for (option, _) in unused.iter().filter(|(_, set)| *set && !criterion.is_address()) {
            let sentence = format!(
                "`{option}` has no effect beside `requestHeaderName`: it is for sources that are \
                 addresses"
            );
            cx.warnings.push(BuildError::at(*option, sentence));
        }
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
    criterion: BanCriterion,
    prefix: Prefix,
    allow: Arc<TrustedSources>,
    reject: StatusCode,
    list: Arc<BanList>,
}

impl Ban {
    fn is_allowed(&self, who: Who) -> bool {
        who.address.is_some_and(|address| self.allow.trust(address))
    }

    fn refusal(&self, left: Duration) -> Response {
        let mut response = bare(self.reject);
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(whole_seconds(left)));
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
        let Some(who) = self.criterion.who(cx, request.headers(), self.prefix) else {
            return next.run(cx, request);
        };
        if let Some(left) = self.list.banned_for(who.source)
            && !self.is_allowed(who)
        {
            return ready(self.refusal(left));
        }
        let suspicion = self.conditions.suspect(&request);
        if suspicion.is_none() || self.is_allowed(who) {
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
            trial.hear(&response);
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
    /// Being asked for credentials is no offence: every client is, before its first request.
    fn hear(&mut self, response: &Response) {
        let is_asked = response.extensions().get::<Outcome>().is_some_and(|it| it.challenge);
        let offends = || self.ban.conditions.hold(self.suspicion, response.status());
        self.guilty = self.guilty || !is_asked && offends();
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
