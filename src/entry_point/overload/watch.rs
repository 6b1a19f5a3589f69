//! The thread that looks at memory and descriptors, and says what is to be given up.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;

use rustix::process::{Resource, getrlimit};
use tokio::time::{Duration, Instant};
use tracing::warn;

use super::cgroup::{self, Group, Used};
use super::ladder::{Ladder, Step};
use super::{Overload, OverloadSettings};
use crate::exchange::memory;
use crate::observability::metrics::{OverloadMetrics, ResourceMetrics};

/// So far below the first step it is looked at ten times as often.
const NEAR: f64 = 0.2;
/// Limits of cgroups may be changed while they are in force.
const LIMITS_EVERY: Duration = Duration::from_secs(10);
/// Where counting descriptors means listing them.
const LISTING_EVERY: Duration = Duration::from_secs(1);
/// What one connection more may take of memory beside bodies that are counted, for each byte that a client of HTTP/2 may
/// send ahead: what is read ahead is in buffers that are larger.
const COST: u64 = 2;
/// Where such a client may send as much as hyper lets it.
const MOST_AHEAD: u64 = 1 << 20;
/// How long it takes a connection to show what it takes.
const YOUNG: Duration = Duration::from_secs(2);
/// Connections that are let in between two looks however little is left: to be served when it is their turn, to be told
/// that there is no room, and to be told so when there is next to none.
const TRICKLE: usize = 4;
const REFUSED: usize = 8;
const AT_LAST: usize = 2;
/// So far below the second step a reset is to get, so that clients are refused again and not cut off.
const BELOW: f64 = 0.01;
/// How long the allocator may keep what a reset has freed, before it shows.
const SHOWS_AFTER: Duration = Duration::from_millis(1200);
/// Unless so much more is used meanwhile, as a share of the limit.
const GROWS: f64 = 0.005;

/// The thread ends when this is dropped.
pub struct Watch {
    _stop: SyncSender<()>,
}

pub(super) fn start(
    settings: OverloadSettings,
    metrics: Arc<OverloadMetrics>,
) -> io::Result<(Arc<Overload>, Watch)> {
    let mut memory = Memory::new(settings.max_memory);
    let limit = memory.look(1.0).map(|used| used.limit);
    let overload = Arc::new(Overload::new(settings, metrics, limit));
    let (stop, stopped) = sync_channel(0);
    let mut watcher = Watcher {
        memory,
        descriptors: Descriptors::default(),
        memory_ladder: Ladder::new(overload.settings.thresholds),
        descriptor_ladder: Ladder::new(overload.settings.thresholds),
        overload: Arc::clone(&overload),
        reset: None,
        young: Young::default(),
    };
    watcher.look();
    thread::Builder::new().name("overload".to_owned()).spawn(move || watcher.run(&stopped))?;
    Ok((overload, Watch { _stop: stop }))
}

struct Watcher {
    overload: Arc<Overload>,
    memory: Memory,
    descriptors: Descriptors,
    memory_ladder: Ladder,
    descriptor_ladder: Ladder,
    /// When memory was last freed by a reset, and how much was used then.
    reset: Option<(Instant, u64)>,
    young: Young,
}

impl Watcher {
    fn run(mut self, stopped: &Receiver<()>) {
        let interval = self.overload.settings.interval;
        let mut wait = interval;
        while stopped.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
            let near = self.look();
            wait = if near { interval / 10 } else { interval };
        }
    }

    /// Looks once. Whether it is to be looked at again soon.
    fn look(&mut self) -> bool {
        let overload = Arc::clone(&self.overload);
        let [first, second, _] = overload.settings.thresholds;
        let metrics = &overload.metrics;
        let now = Instant::now();
        let open = overload.connections.load(Relaxed);
        let memory = self.memory.look(first - NEAR);
        let young = self.young.count(&overload, now);
        let mut near = false;
        let mut more = usize::MAX;
        let mut surplus = (0, 0);
        if let Some(used) = memory {
            let share = used.share();
            note("memory", &mut self.memory_ladder, used, now, &metrics.memory);
            let step = self.memory_ladder.step();
            near |= share >= first - NEAR;
            memory::set_room(Some(room(used, first, step, memory::held())));
            more = match step {
                Step::None | Step::KeepAlive => {
                    let cost = COST * overload.http2_window().map_or(MOST_AHEAD, u64::from);
                    connections_for(left(used, first), cost, young)
                }
                Step::New | Step::Heaviest => REFUSED,
            };
            let top = self.memory_ladder.at_the_top(share);
            if top {
                more = AT_LAST;
            }
            let grown = |(at, bytes): &(Instant, u64)| {
                now >= *at + SHOWS_AFTER || used.bytes > bytes + part(used.limit, GROWS)
            };
            if top && self.reset.as_ref().is_none_or(grown) {
                surplus.0 = over(used, second - BELOW).max(1);
                more = 0;
                self.reset = Some((now, used.bytes));
            }
        } else {
            memory::set_room(None);
        }
        let descriptors = self.descriptors.look(now, open);
        if let Some(used) = descriptors {
            note("descriptors", &mut self.descriptor_ladder, used, now, &metrics.descriptors);
            near |= used.share() >= first - NEAR;
            // Each wants another one for a server, and those that came just now may not have it yet.
            let room = left(used, second).saturating_sub(young as u64) / 2;
            let room = room.max(u64::from(used.share() < second && young == 0));
            more = more.min(usize::try_from(room).unwrap_or(usize::MAX));
            if self.descriptor_ladder.at_the_top(used.share()) {
                let surplus_now = over(used, second - BELOW).max(1);
                surplus.1 = usize::try_from(surplus_now).unwrap_or(usize::MAX);
            }
        }
        self.publish(open.saturating_add(more), surplus);
        near
    }

    fn publish(&self, most: usize, surplus: (u64, usize)) {
        let overload = &self.overload;
        let (memory, descriptors) = (self.memory_ladder.step(), self.descriptor_ladder.step());
        let step = memory.max(descriptors);
        let workers = overload.settings.workers.max(1);
        overload.most.store(most, Relaxed);
        overload.closes_idle.store(step >= Step::KeepAlive, Relaxed);
        overload.stops_keep_alive.store(memory >= Step::KeepAlive, Relaxed);
        // Refusing requests would give no descriptors free.
        overload.refuses_requests.store(memory >= Step::New, Relaxed);
        overload.refuses_connections.store(step >= Step::New, Relaxed);
        for of_worker in &overload.surplus {
            if surplus.0 > 0 {
                of_worker.bytes.store(surplus.0.div_ceil(workers as u64), Relaxed);
            }
            of_worker.count.store(surplus.1.div_ceil(workers), Relaxed);
        }
        overload.calm.send_if_modified(|calm| {
            let is = step == Step::None;
            std::mem::replace(calm, is) != is
        });
    }
}

/// Takes note of how much is used, and says so when a step begins or ends.
fn note(
    resource: &'static str,
    ladder: &mut Ladder,
    used: Used,
    now: Instant,
    metrics: &ResourceMetrics,
) {
    let changed = ladder.note(used.share(), now);
    metrics.set(used.bytes, used.limit, ladder.step() as u8);
    if let Some(before) = changed {
        let (step, before) = (ladder.step().does(), before.does());
        let pressure = format!("{:.3}", used.share());
        warn!(resource, step, before, %pressure, limit = used.limit, "overload");
    }
}

/// Bytes, or descriptors, up to a share of the limit.
fn left(used: Used, share: f64) -> u64 {
    part(used.limit, share).saturating_sub(used.bytes)
}

/// And those beyond it.
fn over(used: Used, share: f64) -> u64 {
    used.bytes.saturating_sub(part(used.limit, share))
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share between 0 and 1 of something that is not negative"
)]
fn part(whole: u64, share: f64) -> u64 {
    (whole as f64 * share) as u64
}

/// How many bytes may be held for clients: half of what all else leaves up to the first step, so that slow clients alone
/// bring no step about. None, once it is reached.
fn room(used: Used, first: f64, step: Step, held: usize) -> usize {
    if step > Step::None {
        return 0;
    }
    let left = usize::try_from(left(used, first)).unwrap_or(usize::MAX);
    (held.saturating_add(left) / 2).min(usize::MAX - 1)
}

/// How many connections so much memory is enough for, beside those that have not taken theirs yet.
fn connections_for(left: u64, cost: u64, young: usize) -> usize {
    let all = usize::try_from(left / cost.max(1)).unwrap_or(usize::MAX);
    all.saturating_sub(young).max(TRICKLE)
}

/// How many connections were accepted when.
#[derive(Default)]
struct Young(VecDeque<(Instant, usize)>);

impl Young {
    /// Those that came not long ago and are still open.
    fn count(&mut self, overload: &Overload, now: Instant) -> usize {
        let accepted = overload.accepted.load(Relaxed);
        self.0.push_back((now, accepted));
        while self.0.len() > 1 && self.0.front().is_some_and(|(at, _)| *at + YOUNG < now) {
            self.0.pop_front();
        }
        let before = self.0.front().map_or(accepted, |(_, before)| *before);
        accepted.saturating_sub(before).min(overload.connections.load(Relaxed))
    }
}

/// What is known of memory.
struct Memory {
    max: Option<u64>,
    groups: Vec<Group>,
    /// When they were looked for.
    since: Instant,
    buffer: Vec<u8>,
}

impl Memory {
    fn new(max: Option<u64>) -> Self {
        Self { max, groups: cgroup::limits(), since: Instant::now(), buffer: Vec::new() }
    }

    /// The limit that is nearest; `None`: there is none.
    fn look(&mut self, enough: f64) -> Option<Used> {
        let now = Instant::now();
        if now >= self.since + LIMITS_EVERY {
            (self.groups, self.since) = (cgroup::limits(), now);
        }
        let configured = self.max.and_then(|limit| {
            let bytes = cgroup::resident()?;
            Some(Used { bytes, limit })
        });
        let buffer = &mut self.buffer;
        let groups = self.groups.iter().filter_map(|group| group.pressure(buffer, enough));
        groups.chain(configured).max_by(|one, other| one.share().total_cmp(&other.share()))
    }
}

/// What is known of descriptors.
#[derive(Default)]
struct Descriptors {
    /// How many were open, beside connections, and when.
    listed: Option<(u64, Instant)>,
}

impl Descriptors {
    /// How many of them are in use; `None`: nobody knows, or there is no limit.
    fn look(&mut self, now: Instant, connections: usize) -> Option<Used> {
        let limit = getrlimit(Resource::Nofile).current?;
        let used = |bytes| Some(Used { bytes, limit });
        // Since Linux 6.2 the size of the folder is their number.
        let size = fs::metadata("/proc/self/fd").map_or(0, |folder| folder.len());
        if size > 0 {
            return used(size);
        }
        let connections = connections as u64;
        let others = match self.listed {
            Some((others, at)) if now < at + LISTING_EVERY => others,
            _ => {
                // The listing itself has one open.
                let open = fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1);
                let others = (open as u64).saturating_sub(connections);
                self.listed = Some((others, now));
                others
            }
        };
        used(others + connections)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u64 = 100 << 20;

    #[test]
    fn bodies_have_half_of_what_is_left() {
        let used = |share: f64| Used { bytes: part(LIMIT, share), limit: LIMIT };
        assert!((24..=25).contains(&(room(used(0.42), 0.92, Step::None, 0) >> 20)));
        assert!((29..=30).contains(&(room(used(0.42), 0.92, Step::None, 10 << 20) >> 20)));
        assert_eq!(room(used(0.93), 0.92, Step::None, 0), 0);
        assert_eq!(room(used(0.1), 0.92, Step::KeepAlive, 0), 0);
        assert_eq!(connections_for(left(used(0.45), 0.95), 256 << 10, 0), 200);
        assert_eq!(connections_for(left(used(0.45), 0.95), 256 << 10, 150), 50);
        assert_eq!(connections_for(left(used(0.99), 0.95), 256 << 10, 0), TRICKLE);
        assert_eq!(over(used(0.99), 0.97) >> 20, 2);
        assert_eq!(over(used(0.9), 0.97), 0);
    }

    #[test]
    fn the_young_are_those_that_came_just_now_and_stay() {
        let overload = Overload::fixed(false, false);
        let (mut young, start) = (Young::default(), Instant::now());
        let mut at = |millis: u64, accepted, open| {
            overload.accepted.store(accepted, Relaxed);
            overload.connections.store(open, Relaxed);
            young.count(&overload, start + Duration::from_millis(millis))
        };
        assert_eq!(at(0, 1000, 500), 0);
        assert_eq!(at(500, 1030, 500), 30);
        assert_eq!(at(900, 1060, 20), 20, "most have left");
        assert_eq!(at(3000, 1060, 500), 0, "not young any more");
    }

    #[test]
    fn descriptors_are_counted() {
        let mut descriptors = Descriptors::default();
        let before = descriptors.look(Instant::now(), 0).unwrap();
        assert!(before.bytes > 2 && before.bytes < before.limit, "{before:?}");
        let listed = fs::read_dir("/proc/self/fd").unwrap().count() as u64;
        assert!(before.bytes.abs_diff(listed) < 64, "{before:?} {listed}");
    }

    #[test]
    fn configured_memory_is_a_limit() {
        let used = Memory::new(Some(1 << 40)).look(0.0).unwrap();
        assert!(used.bytes > 0);
        assert_eq!(Memory::new(Some(1)).look(0.0).unwrap().limit, 1);
    }
}
