//! Bans as the admin API shows and changes them.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use tokio::time::Instant;

use super::list::{Ban, BanList, Order};
use super::source::Prefix;
use super::{LONGEST, Source};
use crate::values::GoDuration;

/// A ban in force.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BanView {
    /// The middleware that it belongs to.
    pub middleware: String,
    /// Who is banned: an address, a network, or the digest of a header.
    pub source: String,
    /// When it began, in RFC 3339.
    pub since: String,
    /// When it ends.
    pub until: String,
    /// Offences that led to it.
    pub offences: u32,
    /// How many bans in a row this is; 0 if it was imposed by hand.
    pub level: u32,
    /// Who imposed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Why a ban was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// What is asked for makes no ban.
    #[error("{0}")]
    Wrong(String),
    /// It makes no sense for this source.
    #[error("{0}")]
    Useless(String),
    /// There is no room.
    #[error("there is no room for another ban")]
    NoRoom,
}

impl BanList {
    /// The bans in force, sorted by source.
    pub fn views(&self) -> Vec<BanView> {
        let now = Instant::now();
        let mut bans = self.bans(now);
        bans.sort_unstable_by_key(|(source, _)| *source);
        bans.into_iter().map(|(source, ban)| self.view(source, ban, now)).collect()
    }

    /// The ban of the source that `text` names.
    pub fn find(&self, text: &str) -> Result<Option<BanView>, Refused> {
        let (source, now) = (self.source(text)?, Instant::now());
        Ok(self.ban(source, now).map(|ban| self.view(source, ban, now)))
    }

    /// Ends the ban of the source that `text` names; `false` when there is none.
    pub fn unban(&self, text: &str) -> Result<bool, Refused> {
        self.source(text).map(|source| self.lift(source))
    }

    /// Bans the source that `text` names by hand, as long as bans last by themselves if nothing
    /// else is said. What is returned says who is banned: of an IPv6 address the network that counts.
    pub fn ban_by_hand(
        &self,
        text: &str,
        duration: Option<GoDuration>,
        by: &str,
        reason: &str,
    ) -> Result<BanView, Refused> {
        let source = self.source(text)?;
        let settings = self.settings();
        let Some(settings) = &*settings else {
            return Err(Refused::Useless("the middleware has not been built yet".to_owned()));
        };
        if settings.by_address != matches!(source, Source::Ip(_)) {
            let message = "the middleware tells sources apart by something else";
            return Err(Refused::Wrong(message.to_owned()));
        }
        if Prefix::single(text).is_some_and(|address| settings.allow.trust(address)) {
            return Err(Refused::Useless(format!("{text} is on the middleware's list `allow`")));
        }
        let duration = match duration {
            None => settings.duration,
            Some(duration) => {
                duration.positive().filter(|&time| time <= LONGEST).ok_or_else(|| {
                    let longest = GoDuration::from(LONGEST);
                    let message = format!("a ban lasts more than 0 and at most {longest}");
                    Refused::Wrong(message)
                })?
            }
        };
        let order = Order { by: by.to_owned(), reason: reason.to_owned() };
        if !self.impose(source, duration, order) {
            return Err(Refused::NoRoom);
        }
        let now = Instant::now();
        let ban = self.ban(source, now).ok_or(Refused::NoRoom)?;
        Ok(self.view(source, ban, now))
    }

    /// A source as people read it.
    pub(super) fn text(&self, source: Source) -> String {
        match &*self.settings() {
            Some(settings) => settings.prefix.text(source),
            None => String::new(),
        }
    }

    fn source(&self, text: &str) -> Result<Source, Refused> {
        let settings = self.settings();
        let source = settings.as_ref().as_ref().and_then(|settings| settings.prefix.parse(text));
        source.ok_or_else(|| {
            let message = match &*settings {
                Some(settings) if settings.by_address => {
                    format!("{text:?} is no source: {}", settings.prefix.described())
                }
                _ => format!("{text:?} is no source as `GET /v1/bans` shows them"),
            };
            Refused::Wrong(message)
        })
    }

    fn view(&self, source: Source, ban: Ban, now: Instant) -> BanView {
        let (by, reason) = match ban.order {
            Some(order) => (Some(order.by), Some(order.reason).filter(|text| !text.is_empty())),
            None => (None, None),
        };
        BanView {
            middleware: self.name().to_owned(),
            source: self.text(source),
            since: wall_clock(ban.since, now),
            until: wall_clock(ban.until, now),
            offences: ban.offences,
            level: ban.level,
            by,
            reason,
        }
    }
}

/// A moment on the wall's clock, to the second.
fn wall_clock(moment: Instant, now: Instant) -> String {
    let signed = |time: Duration| SignedDuration::try_from(time).unwrap_or_default();
    let offset = match moment.checked_duration_since(now) {
        Some(ahead) => signed(ahead),
        None => -signed(now.saturating_duration_since(moment)),
    };
    let there = Timestamp::now().checked_add(offset).unwrap_or(Timestamp::MAX);
    format!("{there:.0}")
}
