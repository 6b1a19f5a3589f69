//! Nonces of `digestAuth`: which are ours, and how often each was used.
//!
//! A nonce carries its number under a key, so asking for one costs no memory. Only one that was
//! used with right credentials is remembered, the most recent thousands; those before count as
//! used up, so that none is ever good twice.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::{hmac, rand};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::values::BuildError;

/// How many nonces in use are remembered.
const REMEMBERED: usize = 4096;

/// What becomes of a nonce and a count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The count is higher than any before.
    Fresh,
    /// Ours, and overtaken: right credentials may try again with a new one.
    Stale,
    /// Not ours, or used with this very count before.
    Refused,
}

/// All nonces of one realm.
pub(super) struct Nonces {
    key: hmac::Key,
    opaque: String,
    issued: AtomicU64,
    used: Mutex<Used>,
}

#[derive(Default)]
struct Used {
    /// Highest count of each nonce, by its number.
    counts: BTreeMap<u64, u64>,
    /// Nonces up to this one count as used up if they are not there.
    forgotten: u64,
}

impl Nonces {
    /// Nonces under a key of their own.
    pub(super) fn new() -> Result<Self, BuildError> {
        let mut key = Zeroizing::new([0_u8; 32]);
        let mut opaque = [0_u8; 12];
        rand::fill(&mut *key)
            .and_then(|()| rand::fill(&mut opaque))
            .map_err(|_| BuildError::new("no randomness"))?;
        Ok(Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, &*key),
            opaque: STANDARD.encode(opaque),
            issued: AtomicU64::new(0),
            used: Mutex::default(),
        })
    }

    /// What clients send back unread, so that they notice a change of the key.
    pub(super) fn opaque(&self) -> &str {
        &self.opaque
    }

    /// A new nonce.
    pub(super) fn issue(&self) -> String {
        let number = self.issued.fetch_add(1, Ordering::Relaxed) + 1;
        let mut nonce = [0; 24];
        let (head, tag) = nonce.split_at_mut(8);
        head.copy_from_slice(&number.to_be_bytes());
        tag.copy_from_slice(&self.tag(number));
        STANDARD.encode(nonce)
    }

    /// Whether a nonce is one that was issued here.
    pub(super) fn is_ours(&self, nonce: &[u8]) -> bool {
        self.number(nonce).is_some()
    }

    /// Uses a nonce with a count. To be asked only after the credentials have proved right.
    pub(super) fn take(&self, nonce: &[u8], count: u64) -> Verdict {
        let Some(number) = self.number(nonce).filter(|_| count > 0) else {
            return Verdict::Refused;
        };
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let used = &mut *used;
        if let Some(last) = used.counts.get_mut(&number) {
            return match count.cmp(last) {
                std::cmp::Ordering::Greater => {
                    *last = count;
                    Verdict::Fresh
                }
                std::cmp::Ordering::Less => Verdict::Stale,
                std::cmp::Ordering::Equal => Verdict::Refused,
            };
        }
        if number <= used.forgotten {
            return Verdict::Stale;
        }
        used.counts.insert(number, count);
        if used.counts.len() > REMEMBERED
            && let Some((oldest, _)) = used.counts.pop_first()
        {
            used.forgotten = oldest;
        }
        Verdict::Fresh
    }

    fn tag(&self, number: u64) -> [u8; 16] {
        let mut tag = [0; 16];
        let made = hmac::sign(&self.key, &number.to_be_bytes());
        for (to, from) in tag.iter_mut().zip(made.as_ref()) {
            *to = *from;
        }
        tag
    }

    /// The number of a nonce that is ours.
    fn number(&self, nonce: &[u8]) -> Option<u64> {
        let mut bytes = [0; 24];
        if nonce.len() != 32 || STANDARD.decode_slice(nonce, &mut bytes) != Ok(24) {
            return None;
        }
        let (head, tag) = bytes.split_first_chunk::<8>()?;
        let number = u64::from_be_bytes(*head);
        verify_slices_are_equal(&self.tag(number), tag).ok().map(|()| number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_good_once_and_only_upwards() {
        let nonces = Nonces::new().unwrap();
        let nonce = nonces.issue();
        for (count, want) in [
            (0, Verdict::Refused),
            (1, Verdict::Fresh),
            (1, Verdict::Refused),
            (5, Verdict::Fresh),
            (4, Verdict::Stale),
            (5, Verdict::Refused),
            (u64::MAX, Verdict::Fresh),
        ] {
            assert_eq!(nonces.take(nonce.as_bytes(), count), want, "{count}");
        }
        assert_eq!(nonces.take(nonces.issue().as_bytes(), 1), Verdict::Fresh);
    }

    #[test]
    fn foreign_nonces_are_refused() {
        let (ours, theirs) = (Nonces::new().unwrap(), Nonces::new().unwrap());
        let nonce = ours.issue();
        let mut changed = nonce.clone().into_bytes();
        changed[9] ^= 1;
        for foreign in
            [theirs.issue().as_bytes(), &changed, &nonce.as_bytes()[1..], b"", &[b'!'; 32]]
        {
            assert_eq!(ours.take(foreign, 1), Verdict::Refused);
        }
        assert_ne!(ours.opaque(), theirs.opaque());
    }

    #[test]
    fn what_is_forgotten_is_used_up() {
        let nonces = Nonces::new().unwrap();
        let unused = nonces.issue();
        let first = nonces.issue();
        assert_eq!(nonces.take(first.as_bytes(), 7), Verdict::Fresh);
        let mut last = String::new();
        for _ in 0..REMEMBERED {
            last = nonces.issue();
            assert_eq!(nonces.take(last.as_bytes(), 1), Verdict::Fresh);
        }
        // Its count would be good again, had it been forgotten and nothing else.
        assert_eq!(nonces.take(first.as_bytes(), 7), Verdict::Stale);
        assert_eq!(nonces.take(first.as_bytes(), 8), Verdict::Stale);
        assert_eq!(nonces.take(unused.as_bytes(), 1), Verdict::Stale);
        assert_eq!(nonces.take(last.as_bytes(), 1), Verdict::Refused);
        assert_eq!(nonces.take(last.as_bytes(), 2), Verdict::Fresh);
        assert_eq!(nonces.used.lock().unwrap().counts.len(), REMEMBERED);
    }
}
