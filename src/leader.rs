//! The leader's side: running the function, and the flight's end, however that comes.

use std::{collections::hash_map::RandomState, fmt};

use crate::{
    error::CallError, group::Ended, group::FlightGroup, map::OptionLatch, observer::Events,
    outcome::Outcome, sync::Arc, threads::FlightId,
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
    group: &'g FlightGroup<V, E, K, S>,
    lead: Lead,
}

/// What a leader holds: nothing of the flight but its identity.
pub(crate) struct Lead {
    pub(crate) hash: u64,
    pub(crate) flight: FlightId,
    /// Whether the key is small enough to be kept for reuse.
    pub(crate) retire_key: bool,
    pub(crate) ended: bool,
    /// In a group with an observer: where the events of this call go.
    pub(crate) events: Option<Box<Events>>,
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
        let mut garbage = None;
        self.finish(result, &mut garbage).into_outcome()
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
    pub fn run(mut self, f: impl FnOnce() -> Result<V, E>) -> Outcome<V, E> {
        self.group.run(&mut self.lead, |_| f())
    }
}

impl<'g, V, E, K, S> Leader<'g, V, E, K, S> {
    pub(crate) fn new(group: &'g FlightGroup<V, E, K, S>, lead: Lead) -> Self {
        Self { group, lead }
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
        self.group.followers(&self.lead)
    }

    pub(crate) fn finish(
        mut self,
        result: Result<V, CallError<E>>,
        garbage: &mut Option<K>,
    ) -> Ended<V, E> {
        self.group.finish(&mut self.lead, result, garbage)
    }

    pub(crate) fn take_events(&mut self) -> Option<Box<Events>> {
        self.lead.events.take()
    }

    pub(crate) fn serial(&self) -> u64 {
        self.lead.flight.serial
    }

    /// Gives the lead to a holder with a group handle of its own.
    pub(crate) fn into_lead(mut self) -> Lead {
        self.lead.ended = true;
        Lead { events: self.lead.events.take(), ended: false, ..self.lead }
    }
}

impl<V, E, K, S> FlightGroup<V, E, K, S> {
    pub(crate) fn latch_of(&self, lead: &Lead) -> OptionLatch<V, E> {
        self.map(lead.hash).lock().latch_of(lead.hash, lead.flight)
    }

    pub(crate) fn followers(&self, lead: &Lead) -> usize {
        self.latch_of(lead).map_or(0, |latch| latch.followers())
    }
}

impl<V, E, K, S> Drop for Leader<'_, V, E, K, S> {
    fn drop(&mut self) {
        self.group.abandon(&mut self.lead);
    }
}

impl<V, E, K, S> fmt::Debug for Leader<'_, V, E, K, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leader").field("followers", &self.followers()).finish_non_exhaustive()
    }
}
