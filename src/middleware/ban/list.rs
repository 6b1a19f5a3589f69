//! Who has offended how often, and who is banned until when, of one middleware.
//!
//! Both are bounded. Sources of one network share a shard, and a full shard lets go what its most
//! numerous network has: whoever commands one network, with all the addresses in it, can push out
//! nobody's ban but his own.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::Duration;

use arc_swap::ArcSwap;
use smallvec::SmallVec;
use tokio::time::Instant;

use super::source::{Prefix, network};
use crate::exchange::forwarded::TrustedSources;
use crate::middleware::source::Source;
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use crate::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Sources that are counted, and bans: as many of each.
pub(super) const CAPACITY: usize = 65_536;
pub(super) const SHARDS: usize = 16;
const ROOM: usize = CAPACITY / SHARDS;
/// Looking for room costs as much as some hundred requests.
const FULL: Duration = Duration::from_secs(1);

/// When somebody is banned, and for how long. The list does not keep it: what a reload changes
/// counts from the next offence on.
#[derive(Debug, Clone)]
pub(super) struct Policy {
    pub(super) threshold: u32,
    pub(super) window: Duration,
    pub(super) duration: Duration,
    pub(super) factor: f64,
    pub(super) max: Duration,
    /// Time after its end in which a ban makes the next one longer.
    pub(super) remember: Duration,
}

impl Policy {
    fn length(&self, level: u32) -> Duration {
        let power = i32::try_from(level.saturating_sub(1)).unwrap_or(i32::MAX);
        let seconds = self.duration.as_secs_f64() * self.factor.powi(power);
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX).min(self.max)
    }
}

/// What the admin API has to know of the middleware as it is configured now.
pub(super) struct Settings {
    pub(super) prefix: Prefix,
    pub(super) allow: Arc<TrustedSources>,
    pub(super) duration: Duration,
    pub(super) by_address: bool,
}

/// What an offence leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sentence {
    /// Nothing yet, or the ban that there is.
    None,
    /// A ban.
    Banned { duration: Duration, offences: u32, level: u32 },
    /// A ban, but no other one may go for it.
    NoRoom,
}

/// A ban, in force or remembered.
#[derive(Debug, Clone)]
pub(super) struct Ban {
    pub(super) since: Instant,
    pub(super) until: Instant,
    /// Until when it makes the next ban longer; not before `until`.
    pub(super) remembered: Instant,
    pub(super) offences: u32,
    /// How many bans in a row this is; 0 when it was imposed by hand.
    pub(super) level: u32,
    /// Who has imposed it by hand, and why.
    pub(super) order: Option<Box<Order>>,
    /// That it is over has been told.
    told: bool,
}

/// A ban by hand.
#[derive(Debug, Clone)]
pub(super) struct Order {
    pub(super) by: String,
    pub(super) reason: String,
}

/// Moments of offences that still count, in milliseconds, the oldest first.
type Moments = SmallVec<[u32; 4]>;

#[derive(Default)]
struct Shard {
    counted: HashMap<Source, Moments>,
    bans: HashMap<Source, Ban>,
    /// There was no room, and until then nobody looks for it again.
    full_until: Option<Instant>,
}

/// See the module.
pub struct BanList {
    name: Arc<str>,
    start: Instant,
    settings: ArcSwap<Option<Settings>>,
    hasher: RandomState,
    shards: [Mutex<Shard>; SHARDS],
    /// Bans of all shards: as long as there is none, nobody is looked up.
    entries: AtomicUsize,
    total: AtomicU64,
    /// The longest window that an offence was counted with, in milliseconds.
    window: AtomicU64,
}

impl BanList {
    pub(super) fn new(name: Arc<str>) -> Self {
        Self {
            name,
            start: Instant::now(),
            settings: ArcSwap::default(),
            hasher: RandomState::new(),
            shards: Default::default(),
            entries: AtomicUsize::new(0),
            total: AtomicU64::new(0),
            window: AtomicU64::new(0),
        }
    }

    /// The middleware's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Bans so far.
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Bans in force.
    pub fn in_force(&self, now: Instant) -> usize {
        let count =
            |shard: &Mutex<Shard>| lock(shard).bans.values().filter(|ban| ban.until > now).count();
        self.shards.iter().map(count).sum()
    }

    /// Takes over what is configured now. Networks of another length are other sources.
    pub(super) fn set(&self, settings: Settings) {
        let before = self.settings.swap(Arc::new(Some(settings)));
        let prefix = |settings: &Option<Settings>| settings.as_ref().map(|one| one.prefix);
        if prefix(&before).is_some_and(|before| Some(before) != prefix(&self.settings.load())) {
            for shard in &self.shards {
                let mut shard = lock(shard);
                let is_v6 = |source: &Source| matches!(source, Source::Ip(ip) if ip.is_ipv6());
                shard.counted.retain(|source, _| !is_v6(source));
                self.retain(&mut shard, |source, _| !is_v6(source));
            }
        }
    }

    /// What is configured now; `None` before anything was.
    pub(super) fn settings(&self) -> Arc<Option<Settings>> {
        self.settings.load_full()
    }

    /// How long a source stays banned; `None` when it is not.
    pub(super) fn banned_for(&self, source: Source) -> Option<Duration> {
        if self.entries.load(Ordering::Acquire) == 0 {
            return None;
        }
        let until = lock(self.shard(source)?).bans.get(&source)?.until;
        until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }

    /// Counts an offence.
    pub(super) fn offend(&self, source: Source, policy: &Policy, now: Instant) -> Sentence {
        let Some(shard) = self.shard(source) else { return Sentence::None };
        let mut shard = lock(shard);
        let known = shard.bans.get(&source);
        if known.is_some_and(|ban| ban.until > now) {
            return Sentence::None;
        }
        let before = known.filter(|ban| ban.remembered > now).map_or(0, |ban| ban.level);
        let window = millis(policy.window);
        self.window.fetch_max(u64::from(window), Ordering::Relaxed);
        let offences = shard.count(source, self.clock(now), window);
        if offences < policy.threshold {
            return Sentence::None;
        }
        shard.counted.remove(&source);
        let level = before.saturating_add(1);
        let duration = policy.length(level);
        let until = later(now, duration);
        let remembered = later(until, policy.remember);
        let ban = Ban { since: now, until, remembered, offences, level, order: None, told: false };
        if !self.insert(&mut shard, source, ban, now) {
            return Sentence::NoRoom;
        }
        Sentence::Banned { duration, offences, level }
    }

    /// Bans by hand; `false` when there is no room.
    pub(super) fn impose(&self, source: Source, duration: Duration, order: Order) -> bool {
        let now = Instant::now();
        let Some(shard) = self.shard(source) else { return false };
        let mut shard = lock(shard);
        let known = shard.bans.get(&source);
        let until = later(now, duration);
        let remembered = known.map_or(until, |ban| ban.remembered.max(until));
        let level = known.filter(|ban| ban.remembered > now).map_or(0, |ban| ban.level);
        let order = Some(Box::new(order));
        shard.counted.remove(&source);
        let ban = Ban { since: now, until, remembered, offences: 0, level, order, told: false };
        self.insert(&mut shard, source, ban, now)
    }

    /// Ends a ban and forgets what led to it; `false` when there was none in force.
    pub(super) fn lift(&self, source: Source) -> bool {
        let Some(shard) = self.shard(source) else { return false };
        let mut shard = lock(shard);
        shard.counted.remove(&source);
        let lifted = shard.bans.remove(&source);
        self.entries.fetch_sub(usize::from(lifted.is_some()), Ordering::AcqRel);
        shard.full_until = None;
        lifted.is_some_and(|ban| ban.until > Instant::now())
    }

    /// The bans in force.
    pub(super) fn bans(&self, now: Instant) -> Vec<(Source, Ban)> {
        let mut bans = Vec::new();
        for shard in &self.shards {
            let shard = lock(shard);
            let living = shard.bans.iter().filter(|(_, ban)| ban.until > now);
            bans.extend(living.map(|(source, ban)| (*source, ban.clone())));
        }
        bans
    }

    /// The ban of one source that is in force.
    pub(super) fn ban(&self, source: Source, now: Instant) -> Option<Ban> {
        lock(self.shard(source)?).bans.get(&source).filter(|ban| ban.until > now).cloned()
    }

    /// Forgets what is over; returns whose ban has ended since the last time.
    pub(super) fn sweep(&self, now: Instant) -> Vec<Source> {
        let mut ended = Vec::new();
        let clock = self.clock(now);
        let window = u32::try_from(self.window.load(Ordering::Relaxed)).unwrap_or(u32::MAX);
        for shard in &self.shards {
            let mut shard = lock(shard);
            for (source, ban) in &mut shard.bans {
                if ban.until <= now && !ban.told {
                    ban.told = true;
                    ended.push(*source);
                }
            }
            self.retain(&mut shard, |_, ban| ban.remembered > now);
            shard.forget_old(clock, window);
        }
        ended
    }

    fn insert(&self, shard: &mut Shard, source: Source, ban: Ban, now: Instant) -> bool {
        if !shard.bans.contains_key(&source) {
            if shard.bans.len() >= ROOM && shard.full_until.is_none_or(|until| until <= now) {
                self.retain(shard, |_, ban| ban.remembered > now);
                self.make_room(shard, network(source), now);
                shard.full_until = (shard.bans.len() >= ROOM).then(|| later(now, FULL));
            }
            if shard.bans.len() >= ROOM {
                return false;
            }
            self.entries.fetch_add(1, Ordering::AcqRel);
        }
        shard.bans.insert(source, ban);
        self.total.fetch_add(1, Ordering::Relaxed);
        true
    }

    fn retain(&self, shard: &mut Shard, keep: impl Fn(&Source, &Ban) -> bool) {
        let before = shard.bans.len();
        shard.bans.retain(|source, ban| keep(source, ban));
        self.entries.fetch_sub(before - shard.bans.len(), Ordering::AcqRel);
    }

    /// Lets bans of the network go that has most of them, up to a sixteenth of the room: first
    /// those that are over and only remembered, then those of the lowest level that end first.
    /// With one ban each, only what is over goes. What was imposed by hand never goes.
    fn make_room(&self, shard: &mut Shard, of: Source, now: Instant) {
        let mut counts: HashMap<Source, usize> = HashMap::from([(of, 1)]);
        let may_go = |(_, ban): &(&Source, &Ban)| ban.order.is_none() || ban.until <= now;
        for (source, _) in shard.bans.iter().filter(may_go) {
            *counts.entry(network(*source)).or_default() += 1;
        }
        let most = counts.values().copied().max().unwrap_or_default();
        let mut going: Vec<(bool, u32, Instant, Source)> = shard
            .bans
            .iter()
            .filter(may_go)
            .filter(|(source, ban)| {
                let its = counts.get(&network(**source)).copied().unwrap_or_default();
                its == most && (most > 1 || ban.until <= now)
            })
            .map(|(source, ban)| (ban.until > now, ban.level, ban.until, *source))
            .collect();
        going.sort_unstable_by_key(|&(in_force, level, until, _)| (in_force, level, until));
        // Several networks may be equally large; together they give no more than one of them.
        going.truncate((ROOM / 16).min(most.max(2) - 1));
        for (.., source) in going {
            shard.bans.remove(&source);
            self.entries.fetch_sub(1, Ordering::AcqRel);
        }
    }

    fn shard(&self, source: Source) -> Option<&Mutex<Shard>> {
        let hash = self.hasher.hash_one(network(source));
        self.shards.get(usize::try_from(hash >> 32).unwrap_or_default() % SHARDS)
    }

    /// Milliseconds since the list was made. They wrap after 49 days, which is longer than any
    /// window, and what is older than its window does not stay.
    #[expect(clippy::cast_possible_truncation, reason = "wraps, as said")]
    fn clock(&self, now: Instant) -> u32 {
        now.saturating_duration_since(self.start).as_millis() as u32
    }

    /// How many sources are counted.
    #[cfg(test)]
    pub(super) fn counted(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).counted.len()).sum()
    }
}

impl Shard {
    /// Counts one more offence and returns how many there are in the window.
    fn count(&mut self, source: Source, clock: u32, window: u32) -> u32 {
        if !self.counted.contains_key(&source) && self.counted.len() >= ROOM {
            self.forget_old(clock, window);
            if self.counted.len() >= ROOM {
                self.forget_least(clock);
            }
        }
        let moments = self.counted.entry(source).or_default();
        moments.retain(|moment| age(clock, *moment) < window);
        moments.push(clock);
        u32::try_from(moments.len()).unwrap_or(u32::MAX)
    }

    fn forget_old(&mut self, clock: u32, window: u32) {
        self.counted
            .retain(|_, moments| moments.last().is_some_and(|last| age(clock, *last) < window));
        if self.counted.len() < self.counted.capacity() / 4 {
            self.counted.shrink_to_fit();
        }
    }

    /// Forgets an eighth: who has the fewest offences, and of those whose last one is oldest.
    fn forget_least(&mut self, clock: u32) {
        let rank = |moments: &Moments| {
            let age = moments.last().map_or(u32::MAX, |last| age(clock, *last));
            (moments.len(), u32::MAX - age)
        };
        let mut ranks: Vec<_> = self.counted.values().map(rank).collect();
        let mut surplus = ranks.len() / 8 + 1;
        if surplus >= ranks.len() {
            self.counted.clear();
            return;
        }
        let (_, limit, _) = ranks.select_nth_unstable(surplus);
        let limit = *limit;
        self.counted.retain(|_, moments| {
            let goes = surplus > 0 && rank(moments) <= limit;
            surplus -= usize::from(goes);
            !goes
        });
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How old a moment is. One that seems to be in the future was noted by another thread, which has
/// looked at the clock later and got the lock earlier.
fn age(clock: u32, moment: u32) -> u32 {
    const AHEAD: u32 = u32::MAX - 60_000;
    let age = clock.wrapping_sub(moment);
    if age > AHEAD { 0 } else { age }
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

/// Times have a limit that no sum of two comes near to.
fn later(moment: Instant, time: Duration) -> Instant {
    moment.checked_add(time).unwrap_or(moment)
}
