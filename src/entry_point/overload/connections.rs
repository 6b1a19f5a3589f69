//! What one worker serves: its connections, and the streams that have a lot on their way, so that they can be told to
//! look at how things are, or be ended.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tokio::time::{Duration, Instant, sleep};

use super::{Overload, Surplus};
use crate::exchange::memory::{self, Held};

/// What a connection takes at least, with its buffers and its TLS.
const LEAST: u64 = 64 << 10;
/// How often connections are told to look at how things are, while something is given up.
const REMIND: Duration = Duration::from_secs(1);

thread_local! {
    /// In the order in which they came.
    static HERE: RefCell<Here> = RefCell::new(Here::default());
}

#[derive(Default)]
struct Here {
    /// Each with its entry point; streams have none.
    open: Vec<(Option<usize>, Weak<Held>)>,
    /// As many as were left when those that are gone were last taken out.
    left: usize,
}

impl Here {
    fn add(&mut self, entry_point: Option<usize>, held: &Arc<Held>) {
        if self.open.len() > 2 * self.left + 64 {
            self.open.retain(|(_, held)| held.strong_count() > 0);
            self.left = self.open.len();
        }
        self.open.push((entry_point, Arc::downgrade(held)));
    }

    /// Those of which the entry point is wanted, and all streams, but for what has been told to end.
    fn all(&self, wanted: impl Fn(usize) -> bool) -> Vec<Arc<Held>> {
        let open = self.open.iter().filter(|(entry_point, _)| entry_point.is_none_or(&wanted));
        open.filter_map(|(_, held)| held.upgrade()).filter(|held| !held.is_ended()).collect()
    }
}

/// Has this worker look after a stream.
pub(in crate::entry_point) fn here(held: &Arc<Held>) {
    HERE.with_borrow_mut(|here| here.add(None, held));
}

/// Has this worker look after a connection.
pub(super) fn connected(entry_point: usize) -> Arc<Held> {
    let held = Held::new(true);
    HERE.with_borrow_mut(|here| here.add(Some(entry_point), &held));
    held
}

/// Serves a connection by `serving`, until that is over or the connection must end.
pub(in crate::entry_point) fn serve<F: Future<Output = ()>>(
    held: &Held,
    serving: F,
) -> Seated<'_, F> {
    Seated { serving, held, told: false }
}

pin_project! {
    /// What [`serve`] returns.
    pub(in crate::entry_point) struct Seated<'a, F> {
        #[pin]
        serving: F,
        held: &'a Held,
        told: bool,
    }
}

impl<F: Future<Output = ()>> Future for Seated<'_, F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        if !*this.told {
            // A task has one waker all its life.
            this.held.serve_by(cx.waker());
            *this.told = true;
        }
        if this.held.is_ended() {
            return Poll::Ready(());
        }
        this.serving.poll(cx)
    }
}

/// Looks after what this worker, of number `worker`, serves, for as long as something is given up; then until it is again.
pub(in crate::entry_point) async fn tend(overload: Arc<Overload>, worker: usize) {
    let mut calm = overload.changes();
    loop {
        if calm.wait_for(|calm| !*calm).await.is_err() {
            return;
        }
        let mut reminded = None;
        while !*calm.borrow_and_update() {
            let now = Instant::now();
            if reminded.is_none_or(|at| now >= at + REMIND) {
                reminded = Some(now);
                remind();
            }
            if overload.weighs.load(Relaxed) {
                free(&overload, worker);
                memory::give_back();
            }
            sleep(overload.settings.interval).await;
        }
    }
}

fn remind() {
    let all = HERE.with_borrow(|here| here.all(|_| true));
    all.iter().filter(|held| held.is_connection).for_each(|held| held.wake());
}

/// Tells every worker its part of what is to be freed: as large as its part of what is held, or of the connections where
/// nothing is.
pub(super) fn share_out(overload: &Overload, bytes: u64, connections: usize) {
    if bytes == 0 && connections == 0 {
        return;
    }
    let held_by = |worker: &Surplus| worker.held.load(Relaxed);
    let open_at = |worker: &Surplus| worker.open.load(Relaxed) as u64;
    let workers = &overload.surplus;
    let held: u64 = workers.iter().map(held_by).sum();
    let open: u64 = workers.iter().map(open_at).sum();
    let alike = workers.len() as u64;
    for worker in workers {
        let by_open = if open > 0 { (open_at(worker), open) } else { (1, alike) };
        let by_held = if held > 0 { (held_by(worker), held) } else { by_open };
        // What was said for want of something else may not have been taken yet.
        if bytes > 0 {
            worker.bytes.store(part(bytes, by_held), Relaxed);
        }
        if connections > 0 {
            let connections = part(connections as u64, by_open);
            worker.count.store(usize::try_from(connections).unwrap_or(usize::MAX), Relaxed);
        }
    }
}

fn part(whole: u64, (own, all): (u64, u64)) -> u64 {
    let part = (u128::from(whole) * u128::from(own)).div_ceil(u128::from(all.max(1)));
    u64::try_from(part).unwrap_or(u64::MAX)
}

/// Says what this worker holds, and ends what is heaviest until its part of the surplus is free.
fn free(overload: &Overload, worker: usize) {
    let Some(surplus) = overload.surplus.get(worker) else { return };
    let few: Vec<bool> =
        (0..overload.settings.entry_points).map(|at| overload.has_few(at)).collect();
    let has_many = |entry_point: usize| !few.get(entry_point).copied().unwrap_or_default();
    let all = HERE.with_borrow(|here| here.all(has_many));
    let weigh = |held: &Arc<Held>| (held.bytes() as u64, held.is_connection);
    let served: Vec<(u64, bool)> = all.iter().map(weigh).collect();
    surplus.held.store(served.iter().map(|(weight, _)| weight).sum(), Relaxed);
    let connections = served.iter().filter(|(_, is_connection)| *is_connection);
    surplus.open.store(connections.count(), Relaxed);
    let (bytes, connections) = (surplus.bytes.swap(0, Relaxed), surplus.count.swap(0, Relaxed));
    for at in heaviest(&served, bytes, connections) {
        let Some(held) = all.get(at) else { continue };
        let metrics = &overload.metrics;
        let count =
            if held.is_connection { &metrics.connections_reset } else { &metrics.streams_reset };
        count.fetch_add(1, Relaxed);
        held.end();
    }
}

/// Positions of what to end, of weights of which some are connections: the heaviest first, and of those that weigh the
/// same the oldest, until so many bytes are free; then the latest connections until so many are gone, for those who came
/// before are served on.
fn heaviest(served: &[(u64, bool)], mut bytes: u64, mut connections: usize) -> Vec<usize> {
    if bytes == 0 && connections == 0 {
        return Vec::new();
    }
    let mut order: Vec<(usize, (u64, bool))> = served.iter().copied().enumerate().collect();
    order.sort_by_key(|(_, (weight, _))| Reverse(*weight));
    let mut order = order.into_iter();
    let mut chosen = Vec::new();
    while bytes > 0
        && let Some((at, (weight, is_connection))) = order.next()
    {
        if is_connection {
            connections = connections.saturating_sub(1);
            bytes = bytes.saturating_sub(weight + LEAST);
        } else if weight > 0 {
            bytes = bytes.saturating_sub(weight);
        } else {
            continue;
        }
        chosen.push(at);
    }
    let latest = order.filter(|(_, (_, is_connection))| *is_connection).map(|(at, _)| at);
    let mut latest: Vec<usize> = latest.collect();
    latest.sort_unstable_by_key(|at| Reverse(*at));
    chosen.extend(latest.into_iter().take(connections));
    chosen
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::super::tally::Counted;
    use super::*;

    #[test]
    fn the_heaviest_go_first_and_no_more_than_needed() {
        let served =
            [(10 << 10, true), (900 << 10, false), (0, true), (500 << 10, true), (0, false)];
        let chosen = |bytes, count| heaviest(&served, bytes, count);
        assert_eq!(chosen(1, 0), [1]);
        assert_eq!(chosen(900 << 10, 0), [1]);
        assert_eq!(chosen(901 << 10, 0), [1, 3]);
        assert_eq!(chosen(u64::MAX, 0), [1, 3, 0, 2], "a stream that holds nothing frees nothing");
        assert_eq!(chosen(0, 2), [3, 2], "streams free no descriptors");
        assert_eq!(chosen(901 << 10, 2), [1, 3, 2]);
        assert_eq!(chosen(0, 0), [0; 0]);
    }

    #[test]
    fn whoever_holds_most_frees_most() {
        let mut settings = Overload::fixed(false, false).settings.clone();
        settings.workers = 3;
        let overload = Overload::new(settings, Arc::default(), Arc::default(), None);
        let parts = |bytes, connections| {
            share_out(&overload, bytes, connections);
            let part = |one: &Surplus| (one.bytes.swap(0, Relaxed), one.count.swap(0, Relaxed));
            overload.surplus.iter().map(part).collect::<Vec<_>>()
        };
        assert_eq!(parts(300, 3), [(100, 1); 3], "nobody has looked yet");
        for (worker, open) in overload.surplus.iter().zip([0, 10, 30]) {
            worker.open.store(open, Relaxed);
        }
        assert_eq!(parts(400, 8), [(0, 0), (100, 2), (300, 6)]);
        overload.surplus[0].held.store(u64::MAX / 2, Relaxed);
        assert_eq!(parts(u64::MAX, 0), [(u64::MAX, 0), (0, 0), (0, 0)]);
        assert_eq!(parts(0, 0), [(0, 0); 3]);
        share_out(&overload, 0, 8);
        assert_eq!(parts(1, 0), [(1, 0), (0, 2), (0, 6)], "one does not take back the other");
    }

    #[tokio::test(flavor = "local")]
    async fn what_has_been_told_to_end_is_not_told_again() {
        let overload = Overload::fixed(false, false);
        let tally = overload.tally(0, 0).unwrap();
        let seats: Vec<Counted> = (0..2).map(|_| tally.enter(0)).collect();
        tally.set_open(100);
        for ended in 1..=2 {
            share_out(&overload, 1, 0);
            free(&overload, 0);
            assert_eq!(overload.metrics.connections_reset.load(Relaxed), ended);
        }
        assert!(seats.iter().all(|seat| seat.held().is_ended()));
        free(&overload, 0);
        assert_eq!(overload.surplus[0].open.load(Relaxed), 0);
    }

    /// A connection says once who serves it, and is woken for every reminder, and for its end.
    #[test]
    fn whoever_serves_is_woken_each_time() {
        struct Count(AtomicUsize);
        impl std::task::Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Relaxed);
            }
        }
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = std::task::Waker::from(Arc::clone(&count));
        let mut task = Context::from_waker(&waker);
        let tally = Overload::fixed(false, false).tally(0, 0).unwrap();
        let counted = tally.enter(0);
        let mut served = std::pin::pin!(serve(counted.held(), std::future::pending()));
        for woken in 1..4 {
            assert!(served.as_mut().poll(&mut task).is_pending());
            remind();
            assert_eq!(count.0.load(Relaxed), woken);
        }
        counted.held().end();
        assert_eq!(count.0.load(Relaxed), 4);
        assert!(served.as_mut().poll(&mut task).is_ready());
    }

    #[tokio::test(flavor = "local")]
    async fn a_seat_is_ended_and_given_free() {
        let overload = Overload::fixed(false, false);
        let tally = overload.tally(0, 0).unwrap();
        let (other, seat) = (tally.enter(0), tally.enter(0));
        assert_eq!(tally.open(), 2);
        overload.surplus[0].count.store(1, Relaxed);
        free(&overload, 0);
        assert!(!seat.held().is_ended(), "an entry point with few keeps them");
        tally.set_open(100);
        for _ in 0..2 {
            overload.surplus[0].count.fetch_max(1, Relaxed);
            free(&overload, 0);
            tally.set_open(0);
        }
        serve(seat.held(), std::future::pending()).await;
        assert!(!other.held().is_ended());
        assert_eq!(overload.metrics.connections_reset.load(Relaxed), 1);
        tally.set_open(2);
        for counted in [seat, other] {
            tally.leave(&counted);
        }
        assert_eq!((tally.open(), tally.young.count()), (0, 0));
    }
}
