//! What outlives a reload: keyed things that the next table takes over from the running one.
//!
//! The map holds weak references only. The next table is compiled while the running one still
//! holds its parts, so continuity comes from ordinary `Arc` counting, and what no table names any
//! more is gone. Settings belong into the key: a changed limit starts fresh, an untouched one
//! goes on.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::convert::Infallible;

use crate::sync::{Arc, Mutex, PoisonError, Weak};

type Key = (TypeId, Box<str>);

/// See the module.
#[derive(Default)]
pub struct SharedState {
    kept: Mutex<HashMap<Key, Weak<dyn Any + Send + Sync>>>,
}

impl SharedState {
    /// The value of this type that is alive under `key`, or the one that `make` makes.
    pub fn carry_over<T, F>(&self, key: &str, make: F) -> Arc<T>
    where
        T: Any + Send + Sync,
        F: FnOnce() -> T,
    {
        match self.try_carry_over(key, || Ok::<T, Infallible>(make())) {
            Ok(value) => value,
            Err(never) => match never {},
        }
    }

    /// The same where making may fail: then nothing is kept, and the next one tries again.
    pub fn try_carry_over<T, E, F>(&self, key: &str, make: F) -> Result<Arc<T>, E>
    where
        T: Any + Send + Sync,
        F: FnOnce() -> Result<T, E>,
    {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (TypeId::of::<T>(), Box::from(key));
        if let Some(value) = kept.get(&key).and_then(Weak::upgrade)
            && let Ok(value) = value.downcast::<T>()
        {
            return Ok(value);
        }
        let value = Arc::new(make()?);
        let weak: Weak<T> = Arc::downgrade(&value);
        kept.insert(key, weak);
        Ok(value)
    }

    /// Forgets the keys of what is gone. Called after each publish.
    pub fn sweep(&self) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|_, value| value.strong_count() > 0);
    }

    /// How many things are alive.
    pub fn len(&self) -> usize {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.values().filter(|value| value.strong_count() > 0).count()
    }

    /// Whether nothing is alive.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_living_value_is_carried_over() {
        let state = SharedState::default();
        let first = state.carry_over("bucket", || 1_u32);
        assert_eq!(*state.carry_over("bucket", || 2_u32), 1);
        assert_eq!(*state.carry_over("other", || 3_u32), 3);
        drop(first);
        assert_eq!(*state.carry_over("bucket", || 4_u32), 4);
    }

    #[test]
    fn what_cannot_be_made_is_tried_again() {
        let state = SharedState::default();
        assert_eq!(state.try_carry_over("x", || Err::<u32, _>("no")), Err("no"));
        let made = state.try_carry_over("x", || Ok::<_, &str>(1_u32)).unwrap();
        assert_eq!(state.try_carry_over("x", || Err("no")), Ok(made));
    }

    #[test]
    fn types_do_not_share_keys() {
        let state = SharedState::default();
        let _number = state.carry_over("x", || 1_u32);
        assert_eq!(*state.carry_over("x", String::new), "");
    }

    #[test]
    fn sweeping_forgets_the_dead() {
        let state = SharedState::default();
        drop(state.carry_over("x", || 1_u32));
        state.sweep();
        assert!(state.is_empty());
    }
}
