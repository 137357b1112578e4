//! What followers count: one by one, each without a lock. Leaders count in the map.

use crate::{error::Refusal, sync::Counter};

#[derive(Default)]
pub(crate) struct FollowerCounts {
    pub(crate) followed: Counter,
    pub(crate) timed_out: Counter,
    pub(crate) deadlocked: Counter,
    pub(crate) overloaded: Counter,
    waiting: Counter,
}

impl FollowerCounts {
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
