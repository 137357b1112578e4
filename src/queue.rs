//! A caller with a place goes back to the map: when its turn to lead the next flight has come, when
//! the flight it waits for is too old, or when it leaves the queue.

use crate::{
    keys::Garbage, latch::Latch, leader::Caller, lookup::Lookup, map::Entry, map::Found, map::Map,
    map::OptionLatch, map::Waiter, options::Options, sync::Arc,
};

impl<V, E, K> Map<V, E, K> {
    /// For a caller with a place, when its turn has come or its age limit has passed. Lets it lead, or
    /// returns how it waits now. `None` if it has given up its place and has to arrive again.
    pub(crate) fn enter_again<Q: Lookup<K> + ?Sized>(
        &mut self,
        key: &Q,
        caller: &Caller,
        options: &Options,
        latch: &Arc<Latch<V, E>>,
    ) -> Option<Found<V, E>> {
        let waits =
            |held_by, queued| Found::Waits(Waiter { latch: Arc::clone(latch), held_by, queued });
        let Self { flights, given_up, .. } = self;
        let found = flights.update(caller.hash, usize::MAX, &mut None, |_, entry| {
            let queued = is_same(&entry.queue, latch);
            if !queued && !is_same(&entry.latch, latch) {
                return None;
            }
            if let (Some(leader), false) = (entry.leader, entry.is_too_old(options)) {
                let front = entry.latch.as_ref().unwrap_or(latch);
                return Some((waits(Some((leader, front.since())), queued), true));
            }
            let wake = entry.give_up(|| key.to_key(), given_up);
            latch.leave(); // A leader does not follow.
            entry.lead(caller.flight);
            Some((Found::Leads(wake), true))
        });
        if found.is_some() {
            return found;
        }
        let flight =
            given_up.iter().find(|(_, (_, it))| is_same(it, latch)).map(|(flight, _)| *flight);
        if flight.is_some() && options.is_too_old(latch.since()) {
            latch.leave();
            return None;
        }
        Some(waits(flight.map(|flight| (flight, latch.since())), false))
    }

    /// Gives up a place in a queue. The last to leave removes the queue, and the entry if that has no
    /// leader.
    pub(crate) fn leave_queue(
        &mut self,
        hash: u64,
        latch: &Arc<Latch<V, E>>,
        garbage: &mut Garbage<K, Entry<V, E>>,
    ) {
        if latch.leave() == 0 {
            self.flights.update(hash, usize::MAX, garbage, |_, entry| {
                is_same(&entry.queue, latch).then(|| {
                    entry.queue = None;
                    ((), entry.leader.is_some())
                })
            });
        }
    }
}

fn is_same<V, E>(latch: &OptionLatch<V, E>, other: &Arc<Latch<V, E>>) -> bool {
    latch.as_ref().is_some_and(|latch| Arc::ptr_eq(latch, other))
}
