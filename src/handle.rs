//! What a group's handle is, besides its methods.

use std::{fmt, panic::RefUnwindSafe, panic::UnwindSafe};

use crate::{group::FlightGroup, sync::Arc};

impl<V, E, K, S> Clone for FlightGroup<V, E, K, S> {
    /// Another handle to the same group.
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<V, E, K, S: Default> Default for FlightGroup<V, E, K, S> {
    fn default() -> Self {
        Self::with_hasher(S::default())
    }
}

// A panic cannot leave a group in a broken state.
impl<V, E, K, S> UnwindSafe for FlightGroup<V, E, K, S> {}
impl<V, E, K, S> RefUnwindSafe for FlightGroup<V, E, K, S> {}

impl<V, E, K, S> fmt::Debug for FlightGroup<V, E, K, S> {
    /// Shows the number of flights, as in [`Stats::in_flight`](crate::Stats::in_flight). Does not
    /// block: while another thread holds a lock, it says so instead.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("FlightGroup");
        let maps = self.shared.maps.iter();
        let keys: Option<usize> = maps.map(|map| map.try_lock().map(|map| map.len())).sum();
        match keys {
            Some(keys) => debug.field("in_flight", &keys),
            None => debug.field("in_flight", &format_args!("<locked>")),
        };
        debug.finish_non_exhaustive()
    }
}
