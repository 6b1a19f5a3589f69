//! How many connections one address has. All places would be gone with those of one client that
//! says nothing; a socket of the file system is nobody's but its owner's, and is not counted.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use super::call::Place;

/// Connections of one address at a time.
const MOST: usize = 8;

/// See the module.
#[derive(Default)]
pub(super) struct Guests(Mutex<HashMap<IpAddr, usize>>);

/// A connection that is counted until this is dropped.
pub(super) struct Guest {
    guests: Arc<Guests>,
    address: Option<IpAddr>,
}

impl Guests {
    /// Counts a connection; `None`: there are too many from there.
    pub(super) fn enter(self: &Arc<Self>, from: Place) -> Option<Guest> {
        let address = match from {
            Place::User(_) => None,
            Place::Address(address) => Some(address.ip().to_canonical()),
        };
        if let Some(address) = address {
            let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let count = known.entry(address).or_default();
            if *count >= MOST {
                return None;
            }
            *count += 1;
        }
        Some(Guest { guests: Arc::clone(self), address })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let Some(address) = self.address else { return };
        let mut known = self.guests.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = known.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                known.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_and_no_more() {
        let guests = Arc::new(Guests::default());
        let from = |text: &str| Place::Address(text.parse().unwrap());
        let enter = |port: usize| guests.enter(from(&format!("192.0.2.1:{port}")));
        let mut inside: Vec<_> = (0..MOST).map(|port| enter(port).unwrap()).collect();
        assert!(enter(99).is_none());
        assert!(guests.enter(from("[::ffff:192.0.2.1]:1")).is_none());
        assert!(guests.enter(from("192.0.2.2:1")).is_some());
        assert!((0..100).all(|_| guests.enter(Place::User(0)).is_some()));
        inside.pop();
        inside.extend(enter(99));
        assert!(inside.len() == MOST && enter(100).is_none());
        drop(inside);
        assert!(guests.0.lock().unwrap().is_empty());
    }
}
