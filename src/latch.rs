//! A value that is set once and that any number of threads may wait for.
//!
//! Two states, shut and open. Only [`Latch::set`] changes them, once, under the lock. A waiter
//! looks under the same lock and gives the lock up only inside `Condvar::wait`, which releases and
//! sleeps in one step; so `set` comes either before the look, which then sees the value, or after
//! the sleep has begun, and then its notification wakes the sleeper. No wake-up can fall between.
//!
//! The value itself is read without the lock: once set it never changes, so woken waiters can
//! clone it side by side.

use crate::sync::{Condvar, Mutex, OnceLock};

pub(crate) struct Latch<T> {
    /// Written once, with `lock` held; read by anyone at any time.
    value: OnceLock<T>,
    lock: Mutex<()>,
    opened: Condvar,
}

impl<T> Latch<T> {
    pub(crate) fn new() -> Self {
        Self {
            value: OnceLock::new(),
            lock: Mutex::new(()),
            opened: Condvar::new(),
        }
    }

    /// Opens the latch and wakes every waiter. Only the first call has an effect.
    pub(crate) fn set(&self, value: T) {
        let guard = self.lock.lock();
        let refused = self.value.set(value);
        drop(guard);
        // Notified after unlocking: a waiter that woke under the lock would only block on it.
        self.opened.notify_all();
        debug_assert!(refused.is_ok(), "a latch is set once");
    }

    /// Blocks until the latch is open.
    pub(crate) fn wait(&self) -> &T {
        if let Some(value) = self.value.get() {
            return value;
        }
        let mut guard = self.lock.lock();
        loop {
            if let Some(value) = self.value.get() {
                return value;
            }
            // A loop, because a condition variable may wake without having been notified.
            guard = self.opened.wait(guard);
        }
    }

    pub(crate) fn into_inner(self) -> Option<T> {
        self.value.into_inner()
    }
}
