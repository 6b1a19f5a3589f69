//! Something that is told once, to many who are busy with something else meanwhile.
//!
//! A connection asks with every poll whether it must stop. Until it must, that costs one atomic load: the token below
//! would take two locks.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use pin_project_lite::pin_project;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use crate::sync::Arc;
use crate::sync::atomic::{AtomicBool, Ordering};

/// Told once, and never taken back.
#[derive(Clone, Debug, Default)]
pub struct Signal {
    told: Arc<AtomicBool>,
    token: CancellationToken,
}

impl Signal {
    /// Tells everybody who waits, or will.
    pub fn tell(&self) {
        self.told.store(true, Ordering::Release);
        self.token.cancel();
    }

    /// Completes when it is told.
    pub fn told(&self) -> Told<'_> {
        Told { was: &self.told, wait: self.token.cancelled(), waker: None }
    }
}

pin_project! {
    /// What [`Signal::told`] returns.
    pub struct Told<'a> {
        was: &'a AtomicBool,
        #[pin]
        wait: WaitForCancellationFuture<'a>,
        // Who is woken by it.
        waker: Option<Waker>,
    }
}

impl Future for Told<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        // It is stored before anybody is woken, so whoever is woken sees it.
        let waits = this.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
        if waits && !this.was.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        let polled = this.wait.poll(cx);
        if polled.is_pending() {
            *this.waker = Some(cx.waker().clone());
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn who_waits_is_woken_and_who_comes_late_waits_no_more() {
        let signal = Signal::default();
        let waiting = tokio::spawn({
            let signal = signal.clone();
            async move { signal.told().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        signal.tell();
        waiting.await.unwrap();
        assert_eq!(signal.told().now_or_never(), Some(()));
    }

    #[test]
    fn the_task_that_polled_last_is_woken() {
        struct Woken(AtomicBool);
        impl std::task::Wake for Woken {
            fn wake(self: Arc<Self>) {
                self.0.store(true, Ordering::Release);
            }
        }
        let woken = Arc::new(Woken(AtomicBool::new(false)));
        let waker = Waker::from(Arc::clone(&woken));
        let signal = Signal::default();
        let mut told = pin!(signal.told());
        assert!(told.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        for _ in 0..2 {
            assert!(told.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        }
        signal.tell();
        assert!(woken.0.load(Ordering::Acquire));
        assert!(told.as_mut().poll(&mut Context::from_waker(&waker)).is_ready());
    }
}
