//! Work that a shutdown waits for although its request was answered: counted, and cut when the grace time is over.
//!
//! Invariant: whoever waits for the end of all work is woken when the count reaches zero, in whatever order pieces end.

use std::any::Any;

use tokio::sync::Notify;

use super::signal::{Signal, Told};
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Arc, Weak};

/// Counts tunnels and other work that goes on after its request was answered.
///
/// A shutdown waits for the count to reach zero and, at the end of the grace time, cuts what is
/// left.
#[derive(Clone, Default)]
pub struct OpenWork {
    shared: Arc<OpenWorkShared>,
    /// Kept as long as any of the work that was begun for it; by whom else, is not decided here.
    kept: Option<Weak<dyn Any + Send + Sync>>,
}

#[derive(Default)]
struct OpenWorkShared {
    open: AtomicUsize,
    idle: Notify,
    cut: Signal,
}

impl OpenWork {
    /// Counts one piece of work until the returned value is dropped.
    pub fn begin(&self) -> OpenWorkItem {
        self.item(self.kept.as_ref().and_then(Weak::upgrade))
    }

    /// The same for work that the client has nothing of any more: nothing is kept for it.
    pub fn begin_apart(&self) -> OpenWorkItem {
        self.item(None)
    }

    /// The same count, for work that needs `kept` until its end.
    #[must_use]
    pub fn keeping(&self, kept: &Arc<dyn Any + Send + Sync>) -> Self {
        Self { shared: Arc::clone(&self.shared), kept: Some(Arc::downgrade(kept)) }
    }

    fn item(&self, kept: Option<Arc<dyn Any + Send + Sync>>) -> OpenWorkItem {
        self.shared.open.fetch_add(1, Ordering::AcqRel);
        OpenWorkItem { shared: Arc::clone(&self.shared), _kept: kept }
    }

    /// How many pieces of work are open.
    pub fn count(&self) -> usize {
        self.shared.open.load(Ordering::Acquire)
    }

    /// Waits until nothing is open.
    pub async fn finished(&self) {
        loop {
            let idle = self.shared.idle.notified();
            if self.count() == 0 {
                return;
            }
            idle.await;
        }
    }

    /// Tells all work to end now.
    pub fn cut(&self) {
        self.shared.cut.tell();
    }
}

/// One piece of open work.
pub struct OpenWorkItem {
    shared: Arc<OpenWorkShared>,
    _kept: Option<Arc<dyn Any + Send + Sync>>,
}

impl OpenWorkItem {
    /// Completes when the work must end at once.
    pub fn cut(&self) -> Told<'_> {
        self.shared.cut.told()
    }
}

impl Drop for OpenWorkItem {
    fn drop(&mut self) {
        if self.shared.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.idle.notify_waiters();
        }
    }
}
