//! How far up the ladder a resource is. Up at once; down only when the pressure has been well below the step for a
//! while, so that what helps is not taken back as soon as it helps.

use tokio::time::{Duration, Instant};

/// How far below a threshold the pressure must be for its step to end.
const MARGIN: f64 = 0.02;
/// And for how long.
const CALM: Duration = Duration::from_secs(1);

/// How much is given up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Step {
    /// Nothing.
    #[default]
    None,
    /// Connections that rest, and keeping others for want of memory.
    KeepAlive,
    /// New requests and connections.
    New,
    /// What is heaviest.
    Heaviest,
}

impl Step {
    const ALL: [Self; 4] = [Self::None, Self::KeepAlive, Self::New, Self::Heaviest];

    fn reached(pressure: f64, thresholds: [f64; 3]) -> Self {
        let above = thresholds.iter().filter(|threshold| pressure >= **threshold).count();
        Self::ALL.get(above).copied().unwrap_or(Self::Heaviest)
    }

    /// As the log has it.
    pub(super) fn does(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::KeepAlive => "stop keep-alive",
            Self::New => "refuse requests",
            Self::Heaviest => "reset the heaviest",
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Ladder {
    thresholds: [f64; 3],
    step: Step,
    /// Since when the pressure is too low for the step.
    low: Option<Instant>,
}

impl Ladder {
    pub(super) fn new(thresholds: [f64; 3]) -> Self {
        Self { thresholds, step: Step::None, low: None }
    }

    /// Where it is.
    pub(super) fn step(&self) -> Step {
        self.step
    }

    /// Whether the last step's threshold is passed right now.
    pub(super) fn at_the_top(&self, pressure: f64) -> bool {
        Step::reached(pressure, self.thresholds) == Step::Heaviest
    }

    /// Takes note of the pressure. The step that was left, if it changes.
    pub(super) fn note(&mut self, pressure: f64, now: Instant) -> Option<Step> {
        let before = self.step;
        let up = Step::reached(pressure, self.thresholds);
        let down = Step::reached(pressure + MARGIN, self.thresholds);
        if up > before {
            self.step = up;
            self.low = None;
        } else if down < before {
            let since = *self.low.get_or_insert(now);
            if now >= since + CALM {
                self.step = down;
                self.low = None;
            }
        } else {
            self.low = None;
        }
        (self.step != before).then_some(before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ladder() -> (Ladder, impl Fn(u64) -> Instant) {
        let start = Instant::now();
        (Ladder::new([0.92, 0.95, 0.98]), move |millis| start + Duration::from_millis(millis))
    }

    #[test]
    fn up_at_once_and_down_after_a_while() {
        let (mut ladder, at) = ladder();
        assert_eq!(ladder.note(0.5, at(0)), None);
        assert_eq!(ladder.note(0.92, at(1)), Some(Step::None));
        assert_eq!(ladder.step(), Step::KeepAlive);
        assert_eq!(ladder.note(1.5, at(2)), Some(Step::KeepAlive), "two steps at once");
        assert_eq!(ladder.step(), Step::Heaviest);
        assert!(ladder.at_the_top(0.98) && !ladder.at_the_top(0.979));
        assert_eq!(ladder.note(0.94, at(100)), None, "it may be for a moment");
        assert_eq!(ladder.note(0.94, at(1099)), None);
        assert_eq!(ladder.note(0.94, at(1100)), Some(Step::Heaviest));
        assert_eq!(ladder.step(), Step::New, "0.94 is not well below 0.95");
        assert_eq!(ladder.note(0.1, at(1200)), None);
        assert_eq!(ladder.note(0.1, at(2200)), Some(Step::New));
        assert_eq!(ladder.step(), Step::None);
    }

    #[test]
    fn it_does_not_flap() {
        let (mut ladder, at) = ladder();
        assert!(ladder.note(0.951, at(0)).is_some());
        let mut changes = 0;
        for tick in 1..1000_u32 {
            // Around the threshold, and every half second well below it.
            let pressure = match tick % 5 {
                0 => 0.90,
                even if even % 2 == 0 => 0.949,
                _ => 0.951,
            };
            changes += u32::from(ladder.note(pressure, at(u64::from(tick) * 100)).is_some());
        }
        assert_eq!((changes, ladder.step()), (0, Step::New));
    }
}
