//! Giving up a flight: the map stops naming it, and it goes on for its followers.
//!
//! The flight moves to the list under the map's lock. Its leader finds it there when it ends. A
//! queue behind it stays in the map, in an entry without a leader, and its turn has come.

use std::hash::BuildHasher;

use crate::{
    group::FlightGroup, keys::Lookup, leader::Lead, map::Entry, map::Map, map::OptionLatch,
};

impl<V, E, K, S: BuildHasher> FlightGroup<V, E, K, S> {
    /// Gives up the flight that is in progress for the key: x/sync's `Forget`.
    ///
    /// Its followers still get its outcome. Later calls start a new flight, which the end of the old
    /// one does not affect (G6). Callers that queue for the
    /// [next flight](crate::Request::next_flight) begin it now. Returns `false` if the key had no
    /// flight, or only one that nobody leads yet. Does not block.
    ///
    /// A function may give up its own flight, for example before it publishes its result elsewhere.
    /// A caller that learns the result there and then calls here gets a newer one.
    ///
    /// # Panics
    ///
    /// If `Hash`, `Eq` or `Drop` of the key panics, or `Drop` of the flight's value, where this
    /// happens to be the last to let go of it.
    ///
    /// ```
    /// use shared_calls::{FlightGroup, Joined, Role};
    ///
    /// let group = FlightGroup::<u32, std::io::Error>::new();
    /// assert!(!group.forget("k"));
    /// let Joined::Leader(first) = group.join("k") else { unreachable!() };
    /// assert!(group.forget("k"));
    /// assert_eq!(group.call_ex("k", || Ok(2)).role, Role::Led);
    /// assert_eq!(first.complete(Ok(1)).result?, 1);
    /// # Ok::<(), shared_calls::CallError<std::io::Error>>(())
    /// ```
    #[doc(alias = "Forget")]
    pub fn forget<Q>(&self, key: &Q) -> bool
    where
        Q: Lookup<K> + ?Sized,
    {
        self.forget_if(key, |_| true)
    }

    /// Like [`forget`](Self::forget), but only if the flight has no follower.
    ///
    /// This is exact if a caller arrives at the same time: either it follows the flight, and this
    /// returns `false`, or it starts a new one. The [ticket](crate::Ticket) of the call that started
    /// the flight is not a follower, and neither is a caller in the queue.
    ///
    /// # Panics
    ///
    /// If `Hash`, `Eq` or `Drop` of the key panics.
    ///
    /// ```
    /// use shared_calls::{FlightGroup, Joined};
    ///
    /// let group = FlightGroup::<u32, std::io::Error>::new();
    /// let Joined::Leader(leader) = group.join("k") else { unreachable!() };
    /// let follower = group.join("k");
    /// assert!(!group.forget_unshared("k"));
    /// drop(follower);
    /// assert!(group.forget_unshared("k"));
    /// # drop(leader);
    /// ```
    #[doc(alias = "ForgetUnshared")]
    pub fn forget_unshared<Q>(&self, key: &Q) -> bool
    where
        Q: Lookup<K> + ?Sized,
    {
        self.forget_if(key, |latch| latch.as_ref().map_or(0, |it| it.followers()) == 0)
    }

    fn forget_if<Q: Lookup<K> + ?Sized>(
        &self,
        key: &Q,
        may: impl FnOnce(&OptionLatch<V, E>) -> bool,
    ) -> bool {
        let hash = self.shared.hasher.hash_one(key);
        let is_it = |named: &K, _: &Entry<V, E>| key.is(named);
        let given_up = (self.map(hash).lock()).give_up(hash, is_it, may, || key.to_key());
        self.gave_up(given_up)
    }
}

impl<V, E, K, S> FlightGroup<V, E, K, S> {
    /// What is left to do for a flight that was given up, once the map's lock is released. Tells
    /// whether one was.
    fn gave_up(&self, given_up: Option<(OptionLatch<V, E>, Option<K>)>) -> bool {
        let Some((queue, key)) = given_up else {
            return false;
        };
        queue.iter().for_each(|queue| queue.wake());
        drop(key);
        true
    }

    /// Whether a follower or a ticket waits for the flight. If nobody does, it is given up, so that
    /// nobody will.
    pub(crate) fn is_awaited(&self, lead: &Lead, key: impl FnOnce() -> K) -> bool {
        let (hash, flight) = (lead.hash, lead.flight);
        let mut map = self.map(hash).lock();
        let latch = map.latch_of(hash, flight);
        let awaited = latch.is_some_and(|latch| latch.is_awaited());
        if !awaited {
            // Under the same lock. Nothing to do if it was given up before.
            let given_up = map.give_up(hash, |_, it| it.leader == Some(flight), |_| true, key);
            drop(map);
            self.gave_up(given_up);
        }
        awaited
    }
}

impl<V, E, K> Map<V, E, K> {
    /// Gives up the flight with this hash that `is_it`, if `may` allows. Gives the queue whose turn
    /// has come, and the key of an entry without one.
    pub(crate) fn give_up(
        &mut self,
        hash: u64,
        is_it: impl Fn(&K, &Entry<V, E>) -> bool,
        may: impl FnOnce(&OptionLatch<V, E>) -> bool,
        key: impl FnOnce() -> K,
    ) -> Option<(OptionLatch<V, E>, Option<K>)> {
        let entry = self.flights.find(hash, is_it)?;
        if entry.leader.is_none() || !may(&entry.latch) {
            return None;
        }
        entry.give_up(key(), &mut self.given_up);
        let queue = entry.queue.clone();
        Some((queue, self.remove_empty(hash)))
    }

    /// Removes the entry that has neither a leader nor a queue any more, if there is one.
    pub(crate) fn remove_empty(&mut self, hash: u64) -> Option<K> {
        let mut key = None;
        self.flights.remove(hash, false, &mut key, |entry| {
            (entry.leader.is_none() && entry.queue.is_none()).then_some(())
        });
        key
    }
}
