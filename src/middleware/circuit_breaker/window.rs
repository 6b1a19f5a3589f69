//! What requests came to lately: statuses of ten seconds, and latencies of a minute.

use std::time::Duration;

use smallvec::SmallVec;

/// How many seconds statuses are remembered.
const SECONDS: usize = 10;

/// The requests that count. Times are since a beginning that is always the same.
pub(super) struct Window {
    /// Statuses by the second; a second stands at its number modulo [`SECONDS`].
    seconds: [Second; SECONDS],
    latencies: Option<Latencies>,
    now: u64,
}

#[derive(Default)]
struct Second {
    number: u64,
    statuses: SmallVec<[(u16, u32); 3]>,
}

impl Window {
    /// An empty window, which keeps latencies on demand only.
    pub(super) fn new(latencies: bool) -> Self {
        Self {
            seconds: std::array::from_fn(|_| Second::default()),
            latencies: latencies.then(Latencies::default),
            now: 0,
        }
    }

    /// Forgets what is too old.
    pub(super) fn turn(&mut self, now: Duration) {
        // Who waited for the lock brings a moment that is over.
        self.now = self.now.max(now.as_secs());
        if let Some(latencies) = &mut self.latencies {
            latencies.turn(self.now / Latencies::SECONDS_OF_PART);
        }
    }

    /// Takes note of a request.
    pub(super) fn note(&mut self, now: Duration, status: u16, latency: Duration) {
        self.turn(now);
        let index = usize::try_from(self.now).unwrap_or_default() % SECONDS;
        if let Some(second) = self.seconds.get_mut(index) {
            if second.number != self.now {
                second.number = self.now;
                second.statuses.clear();
            }
            match second.statuses.iter_mut().find(|(known, _)| *known == status) {
                Some((_, count)) => *count = count.saturating_add(1),
                None => second.statuses.push((status, 1)),
            }
        }
        if let Some(latencies) = &mut self.latencies {
            latencies.note(latency);
        }
    }

    /// How many requests have a status of the first kind, divided by those of the second; zero if
    /// there are none.
    pub(super) fn ratio(&self, part: impl Fn(u16) -> bool, of: impl Fn(u16) -> bool) -> f64 {
        let (mut counted, mut divisor) = (0_u32, 0_u32);
        let lately = self.seconds.iter().filter(|second| self.now - second.number < SECONDS as u64);
        for &(status, count) in lately.flat_map(|second| &second.statuses) {
            if part(status) {
                counted = counted.saturating_add(count);
            }
            if of(status) {
                divisor = divisor.saturating_add(count);
            }
        }
        if divisor == 0 { 0.0 } else { f64::from(counted) / f64::from(divisor) }
    }

    /// The latency that this percentage of the requests kept.
    pub(super) fn latency(&self, quantile: f64) -> Duration {
        self.latencies.as_ref().map_or(Duration::ZERO, |latencies| latencies.at(quantile))
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        *self = Self { now: self.now, ..Self::new(self.latencies.is_some()) };
    }
}

/// How often there was which latency, within one percent (an HDR histogram of two digits), in
/// six parts of which the oldest is forgotten each ten seconds.
#[derive(Default)]
struct Latencies {
    parts: [Option<Box<[u32]>>; Self::PARTS],
    sum: Option<Box<[u32]>>,
    part: u64,
}

impl Latencies {
    const PARTS: usize = 6;
    const SECONDS_OF_PART: u64 = 10;
    /// Steps between a latency and its double.
    const STEPS: u32 = 128;
    /// Microseconds up to 2^32, which is more than an hour; what took longer does not count.
    const CELLS: usize = 26 * Self::STEPS as usize;

    fn turn(&mut self, part: u64) {
        let passed = usize::try_from(part - self.part).unwrap_or(Self::PARTS).min(Self::PARTS);
        for back in 0..passed {
            let index = Self::index(part.wrapping_sub(back as u64));
            let Some(old) = self.parts.get_mut(index).and_then(Option::take) else { continue };
            for (sum, old) in self.sum.iter_mut().flatten().zip(&old) {
                *sum = sum.saturating_sub(*old);
            }
        }
        self.part = part;
    }

    fn index(part: u64) -> usize {
        usize::try_from(part % Self::PARTS as u64).unwrap_or_default()
    }

    fn note(&mut self, latency: Duration) {
        let Ok(micros) = u32::try_from(latency.as_micros()) else { return };
        // The eight highest bits, and how many there are below them.
        let below = (u32::BITS - (micros | 0xFF).leading_zeros()).saturating_sub(8);
        let cell = usize::try_from(below * Self::STEPS + (micros >> below)).unwrap_or_default();
        let part = self.parts.get_mut(Self::index(self.part));
        for cells in part.into_iter().chain([&mut self.sum]) {
            let cells = cells.get_or_insert_with(|| vec![0; Self::CELLS].into());
            if let Some(count) = cells.get_mut(cell) {
                *count = count.saturating_add(1);
            }
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "requests of a minute, of which a share is meant"
    )]
    fn at(&self, quantile: f64) -> Duration {
        let Some(cells) = &self.sum else { return Duration::ZERO };
        let all: u64 = cells.iter().copied().map(u64::from).sum();
        let wanted = (quantile.min(100.0) / 100.0 * all as f64 + 0.5) as u64;
        if wanted == 0 {
            return Duration::ZERO;
        }
        let mut seen = 0;
        for (cell, count) in (0_u64..).zip(cells) {
            seen += u64::from(*count);
            if seen >= wanted {
                let below = (cell / u64::from(Self::STEPS)).saturating_sub(1);
                let lowest = (cell - below * u64::from(Self::STEPS)) << below;
                return Duration::from_micros(lowest + (1 << below) - 1);
            }
        }
        Duration::ZERO
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn statuses_are_forgotten_after_ten_seconds() {
        let mut window = Window::new(false);
        let errors = |window: &Window| window.ratio(|status| status == 502, |_| true);
        window.note(seconds(3), 502, Duration::ZERO);
        window.note(seconds(4), 200, Duration::ZERO);
        assert!((errors(&window) - 0.5).abs() < 1e-9);
        window.turn(Duration::from_millis(12_999));
        assert!((errors(&window) - 0.5).abs() < 1e-9);
        window.turn(seconds(13));
        assert!(errors(&window).abs() < 1e-9);
        window.note(seconds(1_000_003), 502, Duration::ZERO);
        assert!((errors(&window) - 1.0).abs() < 1e-9);
        window.clear();
        assert!(errors(&window).abs() < 1e-9);
    }

    #[test]
    fn latencies_are_forgotten_after_a_minute() {
        let mut window = Window::new(true);
        window.note(seconds(1), 200, seconds(1));
        window.note(seconds(11), 200, Duration::from_millis(1));
        assert_eq!(window.latency(50.0).as_millis(), 1);
        assert_eq!(window.latency(100.0).as_millis(), 1003);
        window.turn(seconds(59));
        assert_eq!(window.latency(100.0).as_millis(), 1003);
        window.turn(seconds(60));
        assert_eq!(window.latency(100.0).as_millis(), 1);
        window.turn(seconds(500));
        assert_eq!(window.latency(100.0), Duration::ZERO);
    }

    #[test]
    fn latencies_are_true_within_a_percent() {
        for micros in (0..=u32::MAX).step_by(9_999_991).chain([0, 1, 255, 256, 257, u32::MAX]) {
            let mut window = Window::new(true);
            window.note(seconds(0), 200, Duration::from_micros(micros.into()));
            let told = u64::try_from(window.latency(99.0).as_micros()).unwrap();
            let micros = u64::from(micros);
            assert!(told >= micros && told - micros <= micros / 100, "{micros}: {told}");
        }
        let mut window = Window::new(true);
        window.note(seconds(0), 200, seconds(7200));
        assert_eq!(window.latency(99.0), Duration::ZERO);
    }
}
