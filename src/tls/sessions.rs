//! Sessions of TLS 1.2 clients that know no tickets, in memory and for half a day.
//!
//! rustls gives up tickets by itself after twelve hours, when their second key is gone, and keeps sessions until they
//! are pushed out, which may take for ever. No session is resumed that is older than a ticket may be.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::server::{ServerSessionMemoryCache, StoresServerSessions};
use tokio::time::Instant;

/// As long as a ticket lives, at most.
const LIFETIME: Duration = Duration::from_hours(12);
/// Seconds since the store was made, in front of each session.
const STAMP: usize = size_of::<u64>();

/// See the module.
pub(super) struct Sessions {
    cache: Arc<ServerSessionMemoryCache>,
    made: Instant,
}

impl Sessions {
    /// A store of about so many sessions.
    pub(super) fn new(count: usize) -> Arc<Self> {
        Arc::new(Self { cache: ServerSessionMemoryCache::new(count), made: Instant::now() })
    }

    fn young(&self, mut stamped: Vec<u8>) -> Option<Vec<u8>> {
        let (stamp, _) = stamped.split_first_chunk::<STAMP>()?;
        let age = self.made.elapsed().as_secs().checked_sub(u64::from_be_bytes(*stamp))?;
        if age >= LIFETIME.as_secs() {
            return None;
        }
        stamped.drain(..STAMP);
        Some(stamped)
    }
}

impl StoresServerSessions for Sessions {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        let stamp = self.made.elapsed().as_secs().to_be_bytes();
        self.cache.put(key, [&stamp[..], &value].concat())
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.young(self.cache.get(key)?)
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.young(self.cache.take(key)?)
    }

    fn can_cache(&self) -> bool {
        self.cache.can_cache()
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// G-22
    #[tokio::test(start_paused = true)]
    async fn a_session_ends_after_half_a_day() {
        let sessions = Sessions::new(8);
        tokio::time::advance(Duration::from_mins(90)).await;
        assert!(sessions.put(b"id".to_vec(), b"session".to_vec()));
        assert_eq!(sessions.get(b"id").as_deref(), Some(&b"session"[..]));
        tokio::time::advance(Duration::from_mins(12 * 60 - 1)).await;
        assert_eq!(sessions.get(b"id").as_deref(), Some(&b"session"[..]));
        tokio::time::advance(Duration::from_mins(1)).await;
        assert_eq!(sessions.get(b"id"), None);
        assert_eq!(sessions.take(b"id"), None);
        assert_eq!(sessions.get(b"other"), None);
    }
}
