//! What is remembered of questions, and who asks those that nobody knows.
//!
//! Invariant: of those who ask the same at the same time one leads, and nobody waits for a leader who is gone.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::time::Duration;

use http::HeaderMap;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The digest of what tells questions apart: what is remembered holds no credentials.
pub(in crate::middleware::forward_auth) type Key = [u8; 32];

/// See the module.
pub(in crate::middleware::forward_auth) struct Memory {
    /// No answer is kept longer.
    ttl: Duration,
    /// How many answers are kept.
    room: usize,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    answers: HashMap<Key, Kept, RandomState>,
    /// Questions that are being asked.
    flights: HashMap<Key, watch::Receiver<Option<Landing>>, RandomState>,
    next_sweep: Option<Instant>,
}

struct Kept {
    headers: Arc<HeaderMap>,
    until: Instant,
}

/// What became of a question that others wait for.
#[derive(Clone)]
enum Landing {
    /// It may be used by all.
    Allowed(Arc<HeaderMap>),
    /// Each has to ask for itself.
    Alone,
}

/// What to do about a question.
pub(in crate::middleware::forward_auth) enum Found<'a> {
    /// It was answered: these headers say who the user is.
    Allowed(Arc<HeaderMap>),
    /// To ask, and to tell the others.
    Lead(Flight<'a>),
    /// To ask for nobody else.
    Alone,
}

/// Answers whose headers are longer than this are not kept.
pub(in crate::middleware::forward_auth) const LONGEST_HEADERS: usize = 8 * 1024;

impl Memory {
    /// Room for so many answers, each for so long.
    pub(in crate::middleware::forward_auth) fn new(ttl: Duration, room: usize) -> Self {
        Self { ttl, room, inner: Mutex::default() }
    }

    /// What is remembered of `question`, or what to do to learn it. Waits for whoever is asking
    /// just now.
    pub(in crate::middleware::forward_auth) async fn find(&self, key: Key) -> Found<'_> {
        loop {
            let mut flight = {
                let mut inner = self.lock();
                if let Some(kept) = inner.answers.get(&key)
                    && kept.until > Instant::now()
                {
                    return Found::Allowed(Arc::clone(&kept.headers));
                }
                if let Some(flight) = inner.flights.get(&key) {
                    flight.clone()
                } else {
                    let (tell, told) = watch::channel(None);
                    inner.flights.insert(key, told);
                    return Found::Lead(Flight { memory: self, key, tell, landed: false });
                }
            };
            let landing = flight.wait_for(Option::is_some).await.ok().and_then(|it| it.clone());
            match landing {
                Some(Landing::Allowed(headers)) => return Found::Allowed(headers),
                Some(Landing::Alone) => return Found::Alone,
                // Whoever asked was given up by its client: one of those who wait asks instead.
                None => {}
            }
        }
    }

    /// Remembers an answer until then.
    pub(in crate::middleware::forward_auth) fn allow(
        &self,
        key: Key,
        headers: &Arc<HeaderMap>,
        until: Instant,
    ) {
        self.lock().keep(key, headers, until, self.room, self.ttl);
    }

    /// Forgets what allowed this question.
    pub(in crate::middleware::forward_auth) fn forget(&self, key: &Key) {
        self.lock().answers.remove(key);
    }

    /// How many answers are kept.
    #[cfg(test)]
    pub(in crate::middleware::forward_auth) fn len(&self) -> usize {
        self.lock().answers.len()
    }

    /// How many questions are being asked.
    #[cfg(test)]
    pub(in crate::middleware::forward_auth) fn asking(&self) -> usize {
        self.lock().flights.len()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn keep(
        &mut self,
        key: Key,
        headers: &Arc<HeaderMap>,
        until: Instant,
        room: usize,
        ttl: Duration,
    ) {
        let now = Instant::now();
        if until <= now || size(headers) > LONGEST_HEADERS {
            self.answers.remove(&key);
            return;
        }
        let full = self.answers.len() >= room && !self.answers.contains_key(&key);
        if full || self.next_sweep.is_none_or(|due| due <= now) {
            self.answers.retain(|_, kept| kept.until > now);
            self.next_sweep = Some(now + ttl);
        }
        if self.answers.len() >= room && !self.answers.contains_key(&key) {
            self.make_room();
        }
        self.answers.insert(key, Kept { headers: Arc::clone(headers), until });
    }

    /// Forgets the eighth that would end soonest.
    fn make_room(&mut self) {
        let mut ends: Vec<Instant> = self.answers.values().map(|kept| kept.until).collect();
        let mut surplus = ends.len() / 8 + 1;
        let (_, last, _) = ends.select_nth_unstable(surplus - 1);
        let last = *last;
        self.answers.retain(|_, kept| {
            let goes = surplus > 0 && kept.until <= last;
            surplus -= usize::from(goes);
            !goes
        });
    }
}

fn size(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
}

/// A question that is being asked for all who ask the same. Dropped before it has landed, it makes
/// one of those ask.
pub(in crate::middleware::forward_auth) struct Flight<'a> {
    memory: &'a Memory,
    key: Key,
    tell: watch::Sender<Option<Landing>>,
    landed: bool,
}

impl Flight<'_> {
    /// The answer allows all of them to pass, until then.
    pub(in crate::middleware::forward_auth) fn allow(
        self,
        headers: &Arc<HeaderMap>,
        until: Instant,
    ) {
        if until <= Instant::now() {
            return self.alone();
        }
        let (room, ttl) = (self.memory.room, self.memory.ttl);
        let keep = |inner: &mut Inner, key| inner.keep(key, headers, until, room, ttl);
        self.land(keep, Landing::Allowed(Arc::clone(headers)));
    }

    /// The answer is for nobody else; what allowed the same before is forgotten.
    pub(in crate::middleware::forward_auth) fn alone(self) {
        self.land(|inner, key| drop(inner.answers.remove(&key)), Landing::Alone);
    }

    fn land(mut self, note: impl FnOnce(&mut Inner, Key), landing: Landing) {
        self.landed = true;
        {
            let mut inner = self.memory.lock();
            note(&mut inner, self.key);
            inner.flights.remove(&self.key);
        }
        self.tell.send_replace(Some(landing));
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        if !self.landed {
            self.memory.lock().flights.remove(&self.key);
        }
    }
}
