//! Giving up a flight: the map stops naming it, and it goes on for its followers.
//!
//! The flight moves to the list under the map's lock. Its leader finds it there when it ends. A
//! queue behind it stays in the map, in an entry without a leader, and its turn has come.

use std::hash::BuildHasher;

use crate::{
    deadlock, group::FlightGroup, leader::Caller, lookup::Lookup, map::followers, map::Entry,
    map::GivenUp, map::Map, map::OptionLatch, panics::drop_caught,
};

impl<V, E> Entry<V, E> {
    /// Moves the flight to the list, if there is one. The queue stays, and its turn has come: it is
    /// returned, to be woken once the map's lock is released.
    pub(crate) fn give_up<K>(
        &mut self,
        key: impl FnOnce() -> K,
        list: &mut GivenUp<V, E, K>,
    ) -> OptionLatch<V, E> {
        let leader = self.leader?;
        let key = key();
        self.leader = None;
        list.insert(leader, (key, self.latch.take()));
        let queue = self.queue.clone()?;
        // Under the lock, so that nobody finds the next flight while the deadlock graph still shows
        // its callers waiting for this one.
        queue.set_turn();
        deadlock::given_up(leader);
        Some(queue)
    }
}

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
    /// If `Hash`, `Eq`, `to_owned` or `Drop` of the key panics.
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
    pub fn forget<Q: Lookup<K> + ?Sized>(&self, key: &Q) -> bool {
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
    /// As [`forget`](Self::forget) does.
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
    pub fn forget_unshared<Q: Lookup<K> + ?Sized>(&self, key: &Q) -> bool {
        self.forget_if(key, |entry| followers(&entry.latch) == 0)
    }

    fn forget_if<Q: Lookup<K> + ?Sized>(
        &self,
        key: &Q,
        may: impl Fn(&Entry<V, E>) -> bool,
    ) -> bool {
        let hash = self.shared.hasher.hash_one(key);
        self.give_up(hash, |named, entry| key.is(named) && may(entry), || key.to_key())
    }
}

impl<V, E, K, S> FlightGroup<V, E, K, S> {
    /// Gives up the flight with this hash for which `is_it` returns `true`. Returns whether there was one.
    fn give_up(
        &self,
        hash: u64,
        is_it: impl Fn(&K, &Entry<V, E>) -> bool,
        key: impl Fn() -> K,
    ) -> bool {
        let mut garbage = None;
        let mut map = self.map(hash).lock();
        let Map { flights, given_up, .. } = &mut *map;
        let queue = flights.update(hash, usize::MAX, &mut garbage, |named, entry| {
            let gives_up = entry.leader.is_some() && is_it(named, entry);
            gives_up.then(|| (entry.give_up(&key, given_up), entry.queue.is_some()))
        });
        drop(map);
        let gave_up = queue.is_some();
        if let Some(queue) = queue.flatten() {
            queue.wake();
            // Its flight may have landed by now. A panic of that value's `Drop` must not reach this caller.
            drop_caught(queue);
        }
        gave_up
    }

    /// Whether a follower or a ticket waits for this caller's flight. If nobody does, this gives the flight
    /// up under the same lock, so that nobody can begin to.
    pub(crate) fn is_awaited(&self, caller: &Caller, key: impl Fn() -> K) -> bool {
        let awaited = |latch: &OptionLatch<V, E>| latch.as_ref().is_some_and(|it| it.is_awaited());
        let is_it = |_: &K, entry: &Entry<V, E>| {
            entry.leader == Some(caller.flight) && !awaited(&entry.latch)
        };
        if self.give_up(caller.hash, is_it, key) {
            return false;
        }
        // Either it was awaited, or it had been given up, and then nobody can join it any more.
        let map = self.map(caller.hash).lock();
        map.given_up.get(&caller.flight).map_or(true, |(_, latch)| awaited(latch))
    }
}
