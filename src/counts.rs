//! What a group counts.
//!
//! Leaders count under the map's lock, which they hold anyway. Followers count one by one, each
//! without a lock.

use crate::{error::CallError, error::Refusal, sync::Counter};

/// What leaders count, under the map's lock.
#[derive(Clone, Copy, Default)]
pub(crate) struct LeaderCounts {
    pub(crate) led: u64,
    pub(crate) failed: u64,
    pub(crate) panicked: u64,
    pub(crate) abandoned: u64,
}

impl LeaderCounts {
    /// A flight has ended.
    #[inline]
    pub(crate) fn add<V, E>(&mut self, result: &Result<V, CallError<E>>) {
        self.led += 1;
        match result {
            Ok(_) => {}
            Err(CallError::Failed(_)) => self.failed += 1,
            Err(CallError::Panicked(_)) => self.panicked += 1,
            Err(_) => self.abandoned += 1,
        }
    }
}

/// What everyone else counts.
pub(crate) struct FollowerCounts {
    pub(crate) followed: Counter,
    pub(crate) timed_out: Counter,
    pub(crate) deadlocked: Counter,
    pub(crate) overloaded: Counter,
    waiting: Counter,
}

impl FollowerCounts {
    pub(crate) fn new() -> Self {
        Self {
            followed: Counter::new(),
            timed_out: Counter::new(),
            deadlocked: Counter::new(),
            overloaded: Counter::new(),
            waiting: Counter::new(),
        }
    }

    /// A call that did not lead has ended: with an outcome, or refused.
    pub(crate) fn add(&self, refusal: Option<&Refusal>) {
        let counter = match refusal {
            None => &self.followed,
            Some(Refusal::TimedOut) => &self.timed_out,
            Some(Refusal::Deadlock(_)) => &self.deadlocked,
            Some(Refusal::Overloaded) => &self.overloaded,
        };
        counter.add(1);
    }

    /// A caller waits, for as long as `wait` takes.
    pub(crate) fn while_waiting<R>(&self, wait: impl FnOnce() -> R) -> R {
        self.waiting.add(1);
        let waited = wait();
        self.waiting.add(1_u64.wrapping_neg());
        waited
    }

    pub(crate) fn waiting(&self) -> u64 {
        self.waiting.get()
    }
}
