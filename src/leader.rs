//! The leader's handle, and what identifies a caller.

use std::{collections::hash_map::RandomState, fmt, mem, mem::ManuallyDrop};

use crate::{
    deadlock, error::CallError, group::Ended, group::FlightGroup, keys::Garbage, map::followers,
    map::Entry, map::OptionLatch, observer::Event, observer::Events, outcome::Outcome,
    outcome::Role, panics::discard, panics::drop_caught, panics::resume_first,
    panics::resume_in_drop, panics::Payload, sync::Arc, sync::Time, threads::FlightId,
};

/// The lead of a flight, from [`FlightGroup::join`]: its holder has to provide the outcome.
///
/// Until it is [completed](Self::complete) or dropped, every call on the key waits for it. If it is
/// dropped, by a panic for example, it abandons the flight: followers get [`CallError::Abandoned`],
/// and the key is free. Any thread may complete it.
///
/// Do not [`forget`](std::mem::forget) it or keep it forever. Its followers and all later callers of
/// the key would wait for as long.
///
/// ```
/// use shared_calls::{CallError, FlightGroup, Joined};
///
/// let group = FlightGroup::<u32, std::io::Error>::new();
/// let Joined::Leader(leader) = group.join("k") else { unreachable!() };
/// let Joined::Follower(follower) = group.join("k") else { unreachable!() };
/// drop(leader);
/// assert!(matches!(follower.wait().result, Err(CallError::Abandoned)));
/// ```
#[must_use = "dropping a leader abandons its flight"]
pub struct Leader<'g, V, E, K = String, S = RandomState> {
    pub(crate) group: &'g FlightGroup<V, E, K, S>,
    pub(crate) caller: Caller,
}

/// One call. Its flight's identity is drawn on arrival, and not used if the caller only follows.
pub(crate) struct Caller {
    pub(crate) hash: u64,
    pub(crate) flight: FlightId,
    /// The size in bytes of what the key was looked up by.
    pub(crate) key_size: usize,
    /// Where its events go, in a group with an observer.
    pub(crate) events: Option<Box<Events>>,
}

impl Caller {
    /// The caller, with its events. What is left behind has none.
    pub(crate) fn take(&mut self) -> Self {
        Self { events: self.events.take(), ..*self }
    }
}

/// What is left of a flight that has ended, and may run user code.
pub(crate) struct Leftovers<V, E, K> {
    /// The queue whose turn has come. It may have the next flight's outcome by now, with which this
    /// call has nothing to do.
    pub(crate) queue: OptionLatch<V, E>,
    pub(crate) garbage: Garbage<K, Entry<V, E>>,
    pub(crate) events: Option<Box<Events>>,
}

impl<V, E, K> Default for Leftovers<V, E, K> {
    fn default() -> Self {
        Self { queue: None, garbage: None, events: None }
    }
}

impl<V, E, K> Leftovers<V, E, K> {
    /// Tells the observer, drops all of it, and returns the panics of the `Drop`s of the key and the
    /// events.
    #[cold]
    pub(crate) fn settle(self, ended: &Ended<V, E>) -> [Option<Payload>; 2] {
        drop_caught(self.queue);
        self.events.iter().for_each(|events| events.landed(ended));
        [self.garbage.and_then(discard), self.events.and_then(discard)]
    }

    /// The same for a flight whose function may have panicked. Then resumes one panic: that of a `Drop`
    /// rather than that of the function.
    #[inline]
    pub(crate) fn settle_after(self, ended: &mut Ended<V, E>, panic: Option<Payload>) {
        let is_some = self.queue.is_some() || self.garbage.is_some() || self.events.is_some();
        if panic.is_none() && !is_some {
            return mem::forget(self); // Saves a call: there is nothing to drop.
        }
        let settled = self.settle(ended);
        resume_first(settled.into_iter().chain([panic]), || {
            let nothing = Err(CallError::Abandoned);
            let nothing = Ok(Outcome { result: nothing, role: Role::Led, followers: 0 });
            drop_caught(mem::replace(ended, nothing));
        });
    }
}

impl<V: Clone, E, K, S> Leader<'_, V, E, K, S> {
    /// Ends the flight with this result, and returns the leader's own outcome.
    ///
    /// The key is free before any follower learns the result (G2). With no follower, the value comes
    /// back without having been cloned (G12).
    ///
    /// # Panics
    ///
    /// If the value's `Clone` or the key's `Drop` panics. Followers get their outcome all the same.
    ///
    /// ```
    /// use shared_calls::{FlightGroup, Joined};
    ///
    /// let group = FlightGroup::<u32, std::io::Error>::new();
    /// let Joined::Leader(leader) = group.join("k") else { unreachable!() };
    /// let outcome = leader.complete(Ok(1));
    /// assert_eq!((outcome.result?, outcome.followers), (1, 0));
    /// # Ok::<(), shared_calls::CallError<std::io::Error>>(())
    /// ```
    pub fn complete(self, result: Result<V, E>) -> Outcome<V, E> {
        let result = result.map_err(|error| CallError::Failed(Arc::new(error)));
        let mut leader = ManuallyDrop::new(self);
        let mut leftovers = Leftovers::default();
        let mut ended = leader.group.finish(&mut leader.caller, result, &mut leftovers);
        leftovers.settle_after(&mut ended, None);
        Outcome::of_leader(ended)
    }

    /// Runs the function, and ends the flight with its result, as [`FlightGroup::call_ex`] does for
    /// a caller that leads.
    ///
    /// This has two advantages over doing the work and then calling [`complete`](Self::complete).
    /// The thread is known to run the flight's function, so a wait inside `f` that would never end is
    /// [refused](crate#deadlocks). And a panic reaches followers as [`CallError::Panicked`], not as
    /// [`Abandoned`](CallError::Abandoned).
    ///
    /// # Panics
    ///
    /// If `f` panics, with the same payload, after the flight has ended. Also as
    /// [`complete`](Self::complete) does.
    ///
    /// ```
    /// use shared_calls::{FlightGroup, Joined};
    ///
    /// let group = FlightGroup::<u32, std::io::Error>::new();
    /// // First does what nobody else is doing, and only then waits for the others.
    /// let joined = ["a", "b"].map(|key| match group.join(key) {
    ///     Joined::Leader(leader) => Ok(leader.run(|| Ok(1))),
    ///     Joined::Follower(follower) => Err(follower),
    /// });
    /// let outcomes = joined.map(|joined| joined.unwrap_or_else(|follower| follower.wait()));
    /// assert!(outcomes.iter().all(|outcome| outcome.fresh()));
    /// ```
    pub fn run(self, f: impl FnOnce() -> Result<V, E>) -> Outcome<V, E> {
        Outcome::of_leader(self.group.run(self, |_| f()))
    }
}

impl<'g, V, E, K, S> Leader<'g, V, E, K, S> {
    /// Begins to lead. `wake` is the latch of callers who queued behind a flight that was given up,
    /// and follow this one now.
    #[inline]
    pub(crate) fn new(
        group: &'g FlightGroup<V, E, K, S>,
        mut caller: Caller,
        wake: OptionLatch<V, E>,
    ) -> Self {
        wake.iter().for_each(|queue| queue.wake());
        if let Some(events) = &mut caller.events {
            events.began = Time::now();
            // As a part of the flight, so that an observer that calls for the same key is refused.
            drop(deadlock::run_as_leader(caller.flight, || {
                events.tell(Event::Began);
                Ok::<(), ()>(())
            }));
        }
        Self { group, caller }
    }

    /// How many followers the flight has now. Other threads may change the number at any time.
    ///
    /// ```
    /// use shared_calls::{FlightGroup, Joined};
    ///
    /// let group = FlightGroup::<u32, std::io::Error>::new();
    /// let Joined::Leader(leader) = group.join("k") else { unreachable!() };
    /// assert_eq!(leader.followers(), 0);
    /// let follower = group.join("k");
    /// assert_eq!(leader.followers(), 1);
    /// # drop(leader);
    /// ```
    #[must_use]
    pub fn followers(&self) -> usize {
        self.with_latch(|latch| followers(latch)).unwrap_or(0)
    }

    /// Looks at the flight's latch, under the map's lock.
    pub(crate) fn with_latch<R>(&self, f: impl Fn(&mut OptionLatch<V, E>) -> R) -> Option<R> {
        self.group.map(self.caller.hash).lock().with_latch(&self.caller, f)
    }
}

impl<V, E, K, S> Drop for Leader<'_, V, E, K, S> {
    fn drop(&mut self) {
        let mut leftovers = Leftovers::default();
        let ended = self.group.finish(&mut self.caller, Err(CallError::Abandoned), &mut leftovers);
        resume_in_drop(leftovers.settle(&ended));
    }
}

impl<V, E, K, S> fmt::Debug for Leader<'_, V, E, K, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leader").field("followers", &self.followers()).finish_non_exhaustive()
    }
}
