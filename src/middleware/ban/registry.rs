//! All lists of bans by the name of their middleware. A list lives as long as its name is
//! configured, also while no router uses it or while its configuration is broken.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::list::BanList;
use crate::observability::metrics::{BanCount, BanCounts};
use crate::state::SharedState;
use crate::values::QualifiedName;

/// How soon the end of a ban is told.
const SWEEP: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Default)]
pub struct Bans {
    lists: Mutex<BTreeMap<Arc<str>, Kept>>,
}

struct Kept {
    list: Arc<BanList>,
    is_configured: bool,
}

impl Bans {
    /// The lists of this process. They are `state`'s as long as somebody holds them.
    pub fn of(state: &SharedState) -> Arc<Self> {
        state.carry_over("bans", Self::default)
    }

    /// The list of the middleware `name`.
    pub(super) fn list(&self, name: &QualifiedName) -> Arc<BanList> {
        let mut lists = self.lock();
        let kept = lists.entry(name.shared()).or_insert_with_key(|name| Kept {
            list: Arc::new(BanList::new(Arc::clone(name))),
            is_configured: true,
        });
        Arc::clone(&kept.list)
    }

    /// Says which names are configured. Lists of others go once no table uses them any more.
    pub fn configured(&self, is_configured: impl Fn(&str) -> bool) {
        for (name, kept) in &mut *self.lock() {
            kept.is_configured = is_configured(name);
        }
    }

    /// The list of this name.
    pub fn get(&self, name: &str) -> Option<Arc<BanList>> {
        let lists = self.lock();
        lists.get(name).filter(|kept| kept.is_configured).map(|kept| Arc::clone(&kept.list))
    }

    /// All lists, in the order of their names.
    pub fn all(&self) -> Vec<Arc<BanList>> {
        let lists = self.lock();
        let configured = lists.values().filter(|kept| kept.is_configured);
        configured.map(|kept| Arc::clone(&kept.list)).collect()
    }

    /// Forgets what is over and tells of it.
    pub fn sweep(&self, now: Instant) {
        let lists: Vec<Arc<BanList>> = {
            let mut lists = self.lock();
            lists.retain(|_, kept| kept.is_configured || Arc::strong_count(&kept.list) > 1);
            lists.values().map(|kept| Arc::clone(&kept.list)).collect()
        };
        for list in lists {
            for source in list.sweep(now) {
                warn!(middlewareName = list.name(), source = %list.text(source), "unbanned");
            }
        }
    }

    /// Sweeps until `shutdown`.
    pub async fn watch(self: Arc<Self>, shutdown: CancellationToken) {
        let mut tick = interval(SWEEP);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                now = tick.tick() => self.sweep(now),
                () = shutdown.cancelled() => return,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Kept>> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BanCounts for Bans {
    fn counts(&self) -> Vec<BanCount> {
        let now = Instant::now();
        let count = |list: Arc<BanList>| BanCount {
            middleware: list.name().into(),
            total: list.total(),
            in_force: list.in_force(now),
        };
        self.all().into_iter().map(count).collect()
    }
}
