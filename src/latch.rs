//! A state under a lock, and a condition variable for those who wait for it to change.
//!
//! A waiter looks at the state under the lock and gives the lock up only inside `Condvar::wait`,
//! which releases and sleeps in one step. Whoever changes the state does so under the lock and
//! notifies afterwards. So a change comes either before the look, which then sees it, or after the
//! sleep has begun, and then its notification wakes the sleeper. No wake-up can fall between.

use crate::sync::{Condvar, Deadline, Mutex};

pub(crate) struct Latch<T> {
    state: Mutex<T>,
    changed: Condvar,
}

impl<T> Latch<T> {
    pub(crate) fn new(state: T) -> Self {
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    /// Looks at the state, and may change it without waking anybody.
    pub(crate) fn with<R>(&self, look: impl FnOnce(&mut T) -> R) -> R {
        look(&mut self.state.lock())
    }

    /// Changes the state and wakes every waiter.
    pub(crate) fn change(&self, change: impl FnOnce(&mut T)) {
        self.with(change);
        // Notified after unlocking: a waiter that woke under the lock would only block on it.
        self.changed.notify_all();
    }

    /// Blocks until `look` finds what it is looking for, or the deadline has passed. What is there
    /// by then is found, however late it is.
    pub(crate) fn wait<R>(
        &self,
        deadline: Deadline,
        mut look: impl FnMut(&mut T) -> Option<R>,
    ) -> Option<R> {
        let mut state = self.state.lock();
        loop {
            let found = look(&mut state);
            if found.is_some() || deadline.has_passed() {
                return found;
            }
            // A loop, because a condition variable may wake without having been notified.
            state = self.changed.wait(state, deadline);
        }
    }
}
