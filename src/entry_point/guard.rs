//! Who may have how many connections, and how often somebody wanted too much.
//!
//! Invariant: every seat that was taken is free again when its connection is over, and so is its tunnel. Only opening
//! and closing a connection takes a lock, and only where addresses are counted.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use hashbrown::HashMap;
use tokio::time::Instant;
use tracing::debug;

use super::EntryPoint;
use super::connection::Door;
use super::overload::Counted;
use crate::config::limits::Limits;
use crate::config::static_config::TRAEFIK;
use crate::exchange::memory::Held;
use crate::observability::metrics::Metrics;

/// Parts of the table of addresses, so that workers seldom wait for each other.
const SHARES: usize = 16;
/// Connections that the entry point `traefik` may have beyond the total: whoever looks after a full house gets in.
const RESERVE: usize = 64;
/// Milliseconds between two lines of the log about one limit.
const PAUSE: u64 = 1000;

/// A limit that a client may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    PerAddress,
    Total,
    RequestHead,
    RequestBody,
    Answer,
    Frames,
    Resets,
}

/// Names of the limits, in their order.
const NAMES: [&str; 7] = [
    "connections.perAddress",
    "connections.total",
    "requestHead.timeout",
    "requestBody.minRate",
    "answer.stall",
    "http2.frames",
    "http2.resets",
];

/// The limits that hold at all entry points, and what counts against them.
pub struct Guard {
    limits: Limits,
    open: Arc<Open>,
    hasher: RandomState,
    addresses: [Mutex<HashMap<u128, u32, RandomState>>; SHARES],
    hits: [Hits; NAMES.len()],
    since: Instant,
}

struct Hits {
    count: Arc<AtomicU64>,
    /// Milliseconds at which the log heard of it last; 0 is never.
    said: AtomicU64,
}

impl Guard {
    /// Sees to `limits`, and counts what goes beyond.
    pub fn new(limits: Limits, metrics: &Metrics) -> Arc<Self> {
        Arc::new(Self {
            limits,
            open: Arc::default(),
            hasher: RandomState::new(),
            addresses: Default::default(),
            hits: NAMES.map(|name| Hits { count: metrics.limit(name), said: AtomicU64::new(0) }),
            since: Instant::now(),
        })
    }

    /// The limits in force.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// How many connections are open.
    pub fn open(&self) -> Arc<Open> {
        Arc::clone(&self.open)
    }

    /// Takes note that a client has reached a limit.
    pub(super) fn hit(&self, limit: Limit, at: &EntryPoint, client: SocketAddr) {
        let Some((hits, name)) = self.hits.get(limit as usize).zip(NAMES.get(limit as usize))
        else {
            return;
        };
        let count = hits.count.fetch_add(1, Relaxed) + 1;
        let now = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        let said = hits.said.load(Relaxed);
        let due = said == 0 || now >= said.saturating_add(PAUSE);
        if due && hits.said.compare_exchange(said, now, Relaxed, Relaxed).is_ok() {
            debug!(
                entryPointName = %at.facts.name, %client, limit = name, count,
                "a client has reached a limit"
            );
        }
    }

    fn share(&self, address: u128) -> MutexGuard<'_, HashMap<u128, u32, RandomState>> {
        let share = usize::try_from(self.hasher.hash_one(address) % SHARES as u64).unwrap_or(0);
        let share = self.addresses.get(share).unwrap_or(&self.addresses[0]);
        share.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many connections are open, with their tunnels. All workers write it, and so nothing that they read is beside it.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Open(pub(super) AtomicUsize);

/// The place of one open connection, or of the tunnel that it has become.
pub(super) struct Seat {
    door: Arc<Door>,
    address: OnceLock<u128>,
    /// Where overload is looked after.
    counted: Option<Counted>,
}

impl Seat {
    /// A seat for one connection more, unless all are taken.
    pub(super) fn take(door: &Arc<Door>, peer: SocketAddr) -> Option<Self> {
        let (guard, at) = (&door.shared.guard, &door.entry_point);
        let before = guard.open.0.fetch_add(1, Relaxed);
        let reserve = || if *at.facts.name == *TRAEFIK { RESERVE } else { 0 };
        if guard.limits.total.is_some_and(|total| before >= total + reserve()) {
            guard.open.0.fetch_sub(1, Relaxed);
            guard.hit(Limit::Total, at, peer);
            return None;
        }
        let counted = door.tally.as_ref().map(|tally| tally.enter(at.position));
        Some(Self { door: Arc::clone(door), address: OnceLock::new(), counted })
    }

    /// What is held for the connection, where that is counted.
    pub(super) fn held(&self) -> Option<&Arc<Held>> {
        self.counted.as_ref().map(Counted::held)
    }

    /// Says whose connection it is; `false` when that address has enough of them.
    pub(super) fn belongs_to(&self, client: SocketAddr) -> bool {
        let (guard, at) = (&self.door.shared.guard, &self.door.entry_point);
        let Some(most) = guard.limits.per_address else { return true };
        // Whoever speaks for others has the connections of all of them.
        if at.trusted.trust(client.ip()) {
            return true;
        }
        let address = neighbourhood(client.ip());
        let mut share = guard.share(address);
        let count = share.entry(address).or_insert(0);
        if *count >= most {
            drop(share);
            guard.hit(Limit::PerAddress, at, client);
            return false;
        }
        *count += 1;
        drop(share);
        let _ = self.address.set(address);
        true
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let guard = &self.door.shared.guard;
        guard.open.0.fetch_sub(1, Relaxed);
        if let (Some(tally), Some(counted)) = (&self.door.tally, &self.counted) {
            tally.leave(counted);
        }
        let Some(&address) = self.address.get() else { return };
        let mut share = guard.share(address);
        if let Some(count) = share.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                share.remove(&address);
            }
        }
    }
}

/// What counts as one client: an address, or the /64 of IPv6 that a household has.
fn neighbourhood(ip: IpAddr) -> u128 {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
        IpAddr::V6(ip) => ip.to_bits() >> 64 << 64,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{address, limited_door};
    use super::*;

    fn limits(per_address: u32, total: usize) -> Limits {
        Limits { per_address: Some(per_address), total: Some(total), ..Limits::default() }
    }

    /// G-37
    #[test]
    fn an_address_has_so_many_seats_and_gets_them_back() {
        let door = limited_door(limits(2, 5), |_| {});
        let sit = |client: &str| {
            let client = SocketAddr::new(client.parse().unwrap(), 1);
            Seat::take(&door, client).filter(|seat| seat.belongs_to(client))
        };
        let first = sit("192.0.2.1").unwrap();
        let _second = sit("::ffff:192.0.2.1").unwrap();
        assert!(sit("192.0.2.1").is_none(), "two are enough");
        drop(first);
        let _again = sit("192.0.2.1").unwrap();
        let _third = (sit("2001:db8::1").unwrap(), sit("2001:db8::ffff:2").unwrap());
        assert!(sit("2001:db8::3").is_none(), "one household");
        let _last = sit("2001:db8:0:1::3").unwrap();
        assert!(sit("192.0.2.9").is_none(), "the house is full");
        let text = door.shared.metrics.render();
        assert!(text.contains("doorward_limits_total{limit=\"connections.perAddress\"} 2\n"));
        assert!(text.contains("doorward_limits_total{limit=\"connections.total\"} 1\n"));
    }

    #[test]
    fn the_entry_point_traefik_has_a_reserve_and_trusted_peers_no_limit() {
        let door = limited_door(limits(1, 1), |_| {});
        let _seat = Seat::take(&door, address()).unwrap();
        assert!(Seat::take(&door, address()).is_none());
        let inside = limited_door(limits(1, 1), |entry_point| {
            let name = Arc::from(TRAEFIK);
            entry_point.facts =
                Arc::new(crate::exchange::EntryPointFacts { name, ..Default::default() });
            entry_point.trusted = crate::exchange::forwarded::TrustedSources::new(true, &[]);
        });
        let seats: Vec<_> = std::iter::from_fn(|| Seat::take(&inside, address())).collect();
        assert_eq!(seats.len(), 1 + RESERVE);
        assert!(seats.iter().all(|seat| seat.belongs_to(address())));
    }
}
