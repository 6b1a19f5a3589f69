//! The thread that looks at memory, descriptors and connections, and says what is to be given up.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;

use tokio::time::{Duration, Instant};
use tracing::warn;

use super::cgroup::{Used, part};
use super::connections::share_out;
use super::gauges::{Descriptors, Memory};
use super::ladder::{Ladder, Step};
use super::young::SLICE;
use super::{Overload, OverloadSettings, Refuses};
use crate::entry_point::guard::Open;
use crate::exchange::memory;
use crate::observability::metrics::{OverloadMetrics, ResourceMetrics};

/// So far below the first step it is looked at ten times as often.
const NEAR: f64 = 0.2;
/// What one connection more may take of memory beside bodies that are counted, for each byte that a client of HTTP/2 may
/// send ahead: what is read ahead is in buffers that are larger.
const COST: u64 = 2;
/// Where such a client may send as much as hyper lets it.
const MOST_AHEAD: u64 = 1 << 20;
/// Bytes that all clients together do not send in a millisecond: while more is left than they could take until the next
/// look, nobody has to wait.
const FASTEST: u64 = 5 << 20;
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
    open: Arc<Open>,
    metrics: Arc<OverloadMetrics>,
) -> io::Result<(Arc<Overload>, Watch)> {
    let mut memory = Memory::new(settings.max_memory);
    let limit = memory.look(1.0, 1.0).iter().map(|used| used.limit).min();
    let overload = Arc::new(Overload::new(settings, open, metrics, limit));
    let (stop, stopped) = sync_channel(0);
    let mut watcher = Watcher::new(Arc::clone(&overload), memory);
    watcher.look();
    thread::Builder::new().name("overload".to_owned()).spawn(move || watcher.run(&stopped))?;
    Ok((overload, Watch { _stop: stop }))
}

struct Watcher {
    overload: Arc<Overload>,
    memory: Memory,
    descriptors: Descriptors,
    ladders: Ladders,
    /// Of memory, and of descriptors.
    resets: (Resets, Resets),
    /// Since when the slice of the young lasts.
    slice: Instant,
}

struct Ladders {
    memory: Ladder,
    descriptors: Ladder,
    connections: Ladder,
}

/// What follows from one look.
struct Found {
    /// Whether it is to be looked at again soon.
    near: bool,
    /// Connections that may come until then.
    more: usize,
    /// Bytes to free, and connections to end.
    surplus: (u64, usize),
}

impl Watcher {
    fn new(overload: Arc<Overload>, memory: Memory) -> Self {
        let thresholds = overload.settings.thresholds;
        // What rests is closed for newcomers; that there are no more of them than `total` is the guard's affair.
        let [first, ..] = thresholds;
        let ladders = Ladders {
            memory: Ladder::new(thresholds),
            descriptors: Ladder::new(thresholds),
            connections: Ladder::new([first, f64::INFINITY, f64::INFINITY]),
        };
        Self {
            overload,
            memory,
            descriptors: Descriptors::default(),
            ladders,
            resets: (Resets::default(), Resets::default()),
            slice: Instant::now(),
        }
    }

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
        let now = Instant::now();
        let open = overload.open.0.load(Relaxed);
        if now >= self.slice + SLICE {
            self.slice = now;
            overload.tallies.iter().for_each(|tally| tally.young.pass());
        }
        let young = overload.tallies.iter().map(|tally| tally.young.count()).sum();
        let mut found = Found { near: false, more: usize::MAX, surplus: (0, 0) };
        self.look_at_memory(now, young, &mut found);
        self.look_at_descriptors(now, open, young, &mut found);
        if let Some(total) = overload.settings.connections {
            let used = Used { bytes: open as u64, limit: total as u64 };
            let metrics = &overload.metrics.connections;
            note("connections", &mut self.ladders.connections, used, now, metrics);
            found.near |= self.is_near(used);
        }
        self.publish(open.saturating_add(found.more), found.surplus);
        found.near
    }

    fn is_near(&self, used: Used) -> bool {
        let [first, ..] = self.overload.settings.thresholds;
        used.share() >= first - NEAR
    }

    fn look_at_memory(&mut self, now: Instant, young: usize, found: &mut Found) {
        let overload = &self.overload;
        let [first, second, _] = overload.settings.thresholds;
        let all = self.memory.look(first - NEAR, second);
        let nearest = all.iter().max_by(|one, other| one.share().total_cmp(&other.share()));
        let Some(&used) = nearest else {
            no_limit("memory", &mut self.ladders.memory, now, &overload.metrics.memory);
            return memory::set_room(None);
        };
        // In bytes another limit may be nearer.
        let left = all.iter().map(|used| used.left(first)).min().unwrap_or_default();
        let ladder = &mut self.ladders.memory;
        note("memory", ladder, used, now, &overload.metrics.memory);
        let step = ladder.step();
        memory::set_room(Some(room(left, step, memory::held())));
        found.more = match step {
            Step::None => {
                let interval = u64::try_from(overload.settings.interval.as_millis());
                let cost = COST * overload.http2_window().map_or(MOST_AHEAD, u64::from);
                let plenty = FASTEST.saturating_mul(interval.unwrap_or(u64::MAX));
                if left > plenty { usize::MAX } else { connections_for(left, cost, young) }
            }
            // What was given up may be taken again by those who come next.
            Step::KeepAlive => TRICKLE,
            Step::New | Step::Heaviest => REFUSED,
        };
        if ladder.at_the_top(used.share()) {
            found.more = AT_LAST;
            if self.resets.0.are_due(used, now) {
                found.more = 0;
                found.surplus.0 = used.over(second - BELOW).max(1);
            }
        }
        found.near |= self.is_near(used);
    }

    fn look_at_descriptors(&mut self, now: Instant, open: usize, young: usize, found: &mut Found) {
        let overload = &self.overload;
        let [_, second, _] = overload.settings.thresholds;
        let ladder = &mut self.ladders.descriptors;
        let Some(used) = self.descriptors.look(now, open) else {
            return no_limit("descriptors", ladder, now, &overload.metrics.descriptors);
        };
        note("descriptors", ladder, used, now, &overload.metrics.descriptors);
        // Each wants another one for a server, and those that came just now may not have it yet.
        let room = used.left(second).saturating_sub(young as u64) / 2;
        let room = room.max(u64::from(used.share() < second && young == 0));
        found.more = found.more.min(usize::try_from(room).unwrap_or(usize::MAX));
        if ladder.at_the_top(used.share()) && self.resets.1.are_due(used, now) {
            // Each has another one for a server, more likely than not.
            let surplus = used.over(second - BELOW).div_ceil(2).max(1);
            found.surplus.1 = usize::try_from(surplus).unwrap_or(usize::MAX);
        }
        found.near |= self.is_near(used);
    }

    fn publish(&self, most: usize, surplus: (u64, usize)) {
        let (overload, ladders) = (&self.overload, &self.ladders);
        let (memory, descriptors) = (ladders.memory.step(), ladders.descriptors.step());
        let step = memory.max(descriptors);
        let begun = step.max(ladders.connections.step()) >= Step::KeepAlive;
        overload.most.store(most, Relaxed);
        overload.closes_idle.store(begun, Relaxed);
        overload.stops_keep_alive.store(memory >= Step::KeepAlive, Relaxed);
        let refuses = match (memory >= Step::New, descriptors >= Step::New) {
            (true, _) => Refuses::All,
            (false, true) => Refuses::Others,
            (false, false) => Refuses::None,
        };
        overload.refuses_requests.store(refuses as u8, Relaxed);
        overload.refuses_connections.store(step >= Step::New, Relaxed);
        overload.weighs.store(step > Step::None, Relaxed);
        share_out(overload, surplus.0, surplus.1);
        overload.calm.send_if_modified(|calm| std::mem::replace(calm, !begun) == begun);
    }
}

/// The resets of one resource.
#[derive(Default)]
struct Resets {
    /// When the last one was, and how much was used then.
    last: Option<(Instant, u64)>,
}

impl Resets {
    /// Whether it is time for one: the last has had time to show, or so much more is used meanwhile.
    fn are_due(&mut self, used: Used, now: Instant) -> bool {
        let shows = |(at, bytes): (Instant, u64)| {
            now >= at + SHOWS_AFTER || used.bytes > bytes + part(used.limit, GROWS)
        };
        let due = self.last.is_none_or(shows);
        if due {
            self.last = Some((now, used.bytes));
        }
        due
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

/// A limit may be lifted while a step is on: then that ends as it would if nothing were used any more.
fn no_limit(resource: &'static str, ladder: &mut Ladder, now: Instant, metrics: &ResourceMetrics) {
    if ladder.step() > Step::None {
        note(resource, ladder, Used { bytes: 0, limit: u64::MAX }, now, metrics);
    }
    metrics.set(0, 0, ladder.step() as u8);
}

/// How many bytes may be held for clients: half of what all else leaves up to the first step, so that slow clients alone
/// bring no step about. None, once it is reached.
fn room(left: u64, step: Step, held: usize) -> usize {
    if step > Step::None {
        return 0;
    }
    let left = usize::try_from(left).unwrap_or(usize::MAX);
    (held.saturating_add(left) / 2).min(usize::MAX - 1)
}

/// How many connections so much memory is enough for, beside those that have not taken theirs yet.
fn connections_for(left: u64, cost: u64, young: usize) -> usize {
    let all = usize::try_from(left / cost.max(1)).unwrap_or(usize::MAX);
    all.saturating_sub(young).max(TRICKLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u64 = 100 << 20;

    #[test]
    fn bodies_have_half_of_what_is_left() {
        let left = |share: f64| Used { bytes: part(LIMIT, share), limit: LIMIT }.left(0.92);
        assert!((24..=25).contains(&(room(left(0.42), Step::None, 0) >> 20)));
        assert!((29..=30).contains(&(room(left(0.42), Step::None, 10 << 20) >> 20)));
        assert_eq!(room(left(0.93), Step::None, 0), 0);
        assert_eq!(room(left(0.1), Step::KeepAlive, 0), 0);
        assert_eq!(connections_for(50 << 20, 256 << 10, 0), 200);
        assert_eq!(connections_for(50 << 20, 256 << 10, 150), 50);
        assert_eq!(connections_for(0, 256 << 10, 0), TRICKLE);
    }

    #[test]
    fn a_reset_has_time_to_show_unless_more_is_used() {
        let (mut resets, start) = (Resets::default(), Instant::now());
        let mut due = |millis, bytes| {
            let now = start + Duration::from_millis(millis);
            resets.are_due(Used { bytes, limit: 1000 }, now)
        };
        assert!(due(0, 980));
        assert!(!due(10, 985), "it has not had any effect yet");
        assert!(due(20, 986), "it grows");
        assert!(!due(1219, 981));
        assert!(due(1220, 981));
    }

    #[test]
    fn a_step_ends_when_the_limit_is_lifted() {
        let (metrics, start) = (ResourceMetrics::default(), Instant::now());
        let mut ladder = Ladder::new([0.92, 0.95, 0.98]);
        note("x", &mut ladder, Used { bytes: 96, limit: 100 }, start, &metrics);
        assert_eq!(ladder.step(), Step::New);
        for (second, step) in [(0, Step::New), (2, Step::None), (3, Step::None)] {
            no_limit("x", &mut ladder, start + Duration::from_secs(second), &metrics);
            assert_eq!(ladder.step(), step);
        }
    }

    fn settings() -> OverloadSettings {
        Overload::fixed(false, false).settings.clone()
    }

    /// As `look` does, but with these shares of a limit of 1000 for memory, descriptors and connections.
    fn after(memory: u64, descriptors: u64, connections: u64) -> (Arc<Overload>, bool) {
        let overload = Arc::new(Overload::new(settings(), Arc::default(), Arc::default(), None));
        let mut watcher = Watcher::new(Arc::clone(&overload), Memory::new(None));
        let (ladders, now) = (&mut watcher.ladders, Instant::now());
        for (ladder, bytes) in [
            (&mut ladders.memory, memory),
            (&mut ladders.descriptors, descriptors),
            (&mut ladders.connections, connections),
        ] {
            let used = Used { bytes, limit: 1000 };
            note("x", ladder, used, now, &ResourceMetrics::default());
        }
        watcher.publish(7, (0, 0));
        let calm = *overload.changes().borrow();
        (overload, calm)
    }

    #[test]
    fn each_resource_has_what_is_given_up_for_it() {
        let given_up = |memory, descriptors, connections| {
            let (overload, calm) = after(memory, descriptors, connections);
            assert_eq!(calm, !overload.closes_idle());
            let refuses = |others| overload.refuses_request(|| others);
            (
                overload.closes_idle(),
                overload.stops_keep_alive(),
                (refuses(false), refuses(true)),
                overload.refuses_connections.load(Relaxed),
            )
        };
        assert_eq!(given_up(919, 919, 919), (false, false, (false, false), false));
        assert_eq!(given_up(920, 0, 0), (true, true, (false, false), false));
        assert_eq!(given_up(950, 0, 0), (true, true, (true, true), true));
        assert_eq!(given_up(0, 920, 0), (true, false, (false, false), false));
        assert_eq!(given_up(0, 950, 0), (true, false, (false, true), true));
        assert_eq!(given_up(0, 0, 1000), (true, false, (false, false), false));
        assert_eq!(given_up(980, 0, 1000), (true, true, (true, true), true));
    }
}
