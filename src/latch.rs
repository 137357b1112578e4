//! A state under a lock, and a condition variable for those who wait for it to change.
//!
//! A waiter looks at the state under the lock and gives the lock up only inside `Condvar::wait`,
//! which releases and sleeps in one step. Whoever changes the state does so under the lock and
//! notifies afterwards. So a change comes either before the look, which then sees it, or after the
//! sleep has begun, and then its notification wakes the sleeper. No wake-up can fall between.
//!
//! To wake a crowd takes long, some microseconds each, and then it takes every processor; who has
//! changed the state has better things to do. So it wakes one, and leaves word under the lock that
//! the others are asleep still. Whoever is the next to wake, for whatever reason and whatever it
//! waits for, finds that word, removes it and wakes all. One does: if anybody slept when the state
//! changed, the notification has woken one of those.

use crate::sync::{yield_now, Condvar, Deadline, Mutex, CROWD};

pub(crate) struct Latch<T> {
    inner: Mutex<Inner<T>>,
    changed: Condvar,
}

struct Inner<T> {
    state: T,
    /// Whether the next to wake has to wake the others. Set by whoever has changed the state and
    /// woken one.
    others_sleep: bool,
}

impl<T> Latch<T> {
    pub(crate) fn new(state: T) -> Self {
        Self {
            inner: Mutex::new(Inner {
                state,
                others_sleep: false,
            }),
            changed: Condvar::new(),
        }
    }

    /// Looks at the state, and may change it without waking anybody.
    pub(crate) fn with<R>(&self, look: impl FnOnce(&mut T) -> R) -> R {
        look(&mut self.inner.lock().state)
    }

    /// Changes the state and wakes every waiter. How many there may be decides only who does it.
    pub(crate) fn change(&self, waiters: usize, change: impl FnOnce(&mut T)) {
        let crowd = waiters >= CROWD;
        let mut inner = self.inner.lock();
        change(&mut inner.state);
        inner.others_sleep = crowd;
        // Notified after unlocking: a waiter that woke under the lock would only block on it.
        drop(inner);
        if crowd {
            self.changed.notify_one();
        } else {
            self.changed.notify_all();
        }
    }

    /// Blocks until `look` finds what it is looking for, or the deadline has passed. What is there
    /// by then is found, however late it is.
    pub(crate) fn wait<R>(
        &self,
        deadline: Deadline,
        mut look: impl FnMut(&mut T) -> Option<R>,
    ) -> Option<R> {
        let mut inner = self.inner.lock();
        loop {
            let found = look(&mut inner.state);
            if found.is_some() || deadline.has_passed() {
                return found;
            }
            // A loop, because a condition variable may wake without having been notified.
            inner = self.changed.wait(inner, deadline);
            if inner.others_sleep {
                inner.others_sleep = false;
                drop(inner);
                // Who has changed the state may be waiting for the processor that we have got. It
                // comes before the crowd.
                yield_now();
                self.changed.notify_all();
                inner = self.inner.lock();
            }
        }
    }
}
