//! One timer for all the limits of a connection, moved as rarely as possible.
//! The invariant: when a limit applies, the sleep is registered for that time or an earlier one; when it wakes early, it
//! looks at the limit that applies then. Arming a tokio timer per phase costs as much as parsing a request.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// A timer that is moved as rarely as possible.
#[derive(Debug, Default)]
pub struct LazySleep {
    sleep: Option<Pin<Box<Sleep>>>,
    armed: Option<Instant>,
}

impl LazySleep {
    /// Ready when `deadline` has passed. Without a deadline the timer looks again after `lull` at the latest, because a
    /// deadline can come into being (a request has been answered) without anyone polling.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        deadline: Option<Instant>,
        lull: Option<Duration>,
    ) -> Poll<()> {
        loop {
            let wanted = match (deadline, self.armed) {
                (Some(deadline), Some(armed)) => deadline.min(armed),
                (Some(at), None) | (None, Some(at)) => at,
                (None, None) => match lull {
                    Some(lull) => Instant::now() + lull,
                    None => return Poll::Pending,
                },
            };
            if self.armed != Some(wanted) {
                self.armed = Some(wanted);
                match &mut self.sleep {
                    Some(sleep) => sleep.as_mut().reset(wanted),
                    None => self.sleep = Some(Box::pin(sleep_until(wanted))),
                }
            }
            if let Some(sleep) = &mut self.sleep {
                ready!(sleep.as_mut().poll(cx));
            }
            self.armed = None;
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Poll::Ready(());
            }
        }
    }

    /// Gives the timer up: nothing will be limited any more.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}
