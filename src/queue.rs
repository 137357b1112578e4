//! A caller with a place goes back to the map: when its turn to lead the next flight has come, when
//! the flight it waits for is too old, or when it leaves the queue.

use crate::{
    keys::Lookup, latch::Latch, map::Found, map::Map, map::OptionLatch, options::Options,
    sync::Arc, threads::FlightId,
};

impl<V, E, K> Map<V, E, K> {
    /// For a caller with a place on a latch, when its turn has come or its age limit has passed. Lets
    /// it lead, or returns what it waits for now. `None` if it has given up its place and has to
    /// arrive again.
    pub(crate) fn enter_again<Q: Lookup<K> + ?Sized>(
        &mut self,
        hash: u64,
        key: &Q,
        flight: FlightId,
        options: &Options,
        latch: &Arc<Latch<V, E>>,
    ) -> Option<Found<V, E>> {
        let waits = |(flight, since), queued| Found::Waits {
            latch: Arc::clone(latch),
            held_by: Some((flight, since)),
            queued,
        };
        let found = (self.flights).find(hash, |_, it| is(&it.latch, latch) || is(&it.queue, latch));
        if let Some(entry) = found {
            let leader = entry.leader;
            if let Some(leader) = leader {
                if !entry.is_older_than(options) {
                    let front = entry.latch.as_ref().unwrap_or(latch);
                    return Some(waits((leader, front.since()), is(&entry.queue, latch)));
                }
                entry.give_up(key.to_key(), &mut self.given_up);
            }
            latch.leave(); // A leader does not follow.
            return Some(entry.lead(flight, options.intent, leader.is_some()));
        }
        let mut given_up = self.given_up.iter();
        let Some((flight, _)) = given_up.find(|(_, (_, it))| is(it, latch)) else {
            return Some(Found::Waits { latch: Arc::clone(latch), held_by: None, queued: false });
        };
        if latch.is_older_than(options.max_age) {
            latch.leave();
            return None;
        }
        Some(waits((*flight, latch.since()), false))
    }

    /// Gives up a place in a queue. Returns the key of the entry if that is removed, because no caller
    /// is left to lead it.
    pub(crate) fn leave_queue(&mut self, hash: u64, latch: &Arc<Latch<V, E>>) -> Option<K> {
        if latch.leave() > 0 {
            return None;
        }
        let entry = self.flights.find(hash, |_, entry| is(&entry.queue, latch))?;
        entry.queue = None;
        self.remove_empty(hash)
    }
}

fn is<V, E>(latch: &OptionLatch<V, E>, other: &Arc<Latch<V, E>>) -> bool {
    latch.as_ref().is_some_and(|latch| Arc::ptr_eq(latch, other))
}
