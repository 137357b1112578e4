//! A value that is set once and that any number of threads may wait for.
//!
//! Two states, shut and open. Only [`Latch::set`] changes them, once, under the lock. A waiter
//! looks under the same lock and gives the lock up only inside `Condvar::wait`, which releases and
//! sleeps in one step; so `set` comes either before the look, which then sees the value, or after
//! the sleep has begun, and then its notification wakes the sleeper. No wake-up can fall between.

use crate::sync::{Arc, Condvar, Mutex};

pub(crate) struct Latch<T> {
    /// `None` while shut. In an `Arc`, so that under the lock a waiter only counts itself in, and
    /// whatever it does with the value then, it does beside the others.
    value: Mutex<Option<Arc<T>>>,
    opened: Condvar,
}

impl<T> Latch<T> {
    pub(crate) fn new() -> Self {
        Self {
            value: Mutex::new(None),
            opened: Condvar::new(),
        }
    }

    /// Opens the latch and wakes every waiter. To be called once.
    pub(crate) fn set(&self, value: Arc<T>) {
        let mut guard = self.value.lock();
        debug_assert!(guard.is_none(), "a latch is set once");
        *guard = Some(value);
        drop(guard);
        // Notified after unlocking: a waiter that woke under the lock would only block on it.
        self.opened.notify_all();
    }

    /// Blocks until the latch is open.
    pub(crate) fn wait(&self) -> Arc<T> {
        let mut guard = self.value.lock();
        loop {
            if let Some(value) = &*guard {
                return Arc::clone(value);
            }
            // A loop, because a condition variable may wake without having been notified.
            guard = self.opened.wait(guard);
        }
    }
}
