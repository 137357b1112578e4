//! What followers count: one by one, each without a lock. Leaders count in the map.

use crate::sync::Counter;

#[derive(Default)]
pub(crate) struct FollowerCounts {
    pub(crate) followed: Counter,
    pub(crate) timed_out: Counter,
    pub(crate) deadlocked: Counter,
    pub(crate) overloaded: Counter,
    /// Callers that wait now.
    pub(crate) waiting: Counter,
}
