//! The followers' side: a place on a flight, and the wait for its outcome.

use std::{fmt, time::Duration};

use crate::{
    counts::FollowerCounts, deadlock::refuse_own, deadlock::Waiting, error::Refusal,
    latch::Awaited, latch::Latch, map::HeldBy, observer::Event, observer::Events, outcome::Outcome,
    outcome::Role, sync::Arc, sync::Deadline, sync::Unmodelled,
};

/// A place on a flight that another caller leads, from
/// [`FlightGroup::join`](crate::FlightGroup::join).
///
/// [Wait](Self::wait) for the outcome, or [look](Self::try_wait) for it from time to time, on any
/// thread. If a follower is dropped, the flight goes on with one follower fewer.
///
/// A [request](crate::Request) that is refused gives a follower that has its outcome already.
///
/// ```
/// use shared_calls::{FlightGroup, Joined, Role};
///
/// let group = FlightGroup::<String, std::io::Error>::new();
/// let Joined::Leader(leader) = group.join("k") else { unreachable!() };
/// let Joined::Follower(follower) = group.join("k") else { unreachable!() };
/// drop(group.join("k")); // a follower that does not wait
/// assert_eq!(leader.followers(), 1);
/// assert!(!follower.is_done());
///
/// let led = leader.complete(Ok("value".to_owned()));
/// let followed = follower.wait();
/// assert_eq!((led.role, followed.role), (Role::Led, Role::Followed));
/// assert_eq!(led.result?, followed.result?);
/// # Ok::<(), shared_calls::CallError<std::io::Error>>(())
/// ```
#[must_use = "a follower that is dropped leaves the flight"]
pub struct Follower<V, E> {
    /// Where it has a place. `None` if that was refused, or is not needed any more.
    pub(crate) latch: Option<Arc<Latch<V, E>>>,
    pub(crate) held_by: HeldBy,
    /// Whether it is a place in the queue. That is given up under the map's lock, not by a drop.
    pub(crate) queued: bool,
    /// Whether the place was given up already.
    pub(crate) left: bool,
    /// The ticket of the call that started the flight is no follower.
    pub(crate) role: Role,
    pub(crate) deadline: Deadline,
    counts: Arc<FollowerCounts>,
    events: Option<Box<Events>>,
    ended: Unmodelled<Ended>,
}

/// How far the call of a follower has come.
#[derive(Default)]
struct Ended {
    /// Whether it has yielded an outcome, and was counted.
    counted: bool,
    /// Once given, it stays, and the place is given up.
    refusal: Option<Refusal>,
}

impl<V: Clone, E> Follower<V, E> {
    /// Blocks until the flight has landed, and returns the leader's outcome, with
    /// [`Role::Followed`].
    ///
    /// This returns however the leader ends (G4). What the leader's function wrote is visible
    /// afterwards (G5). The value is cloned on this thread, outside every lock.
    ///
    /// If the [`Request`](crate::Request) had a time limit and that passes first, the outcome is
    /// [`TimedOut`](crate::CallError::TimedOut). An outcome that is ready beats a deadline that has
    /// passed. If the wait would [never end](crate#deadlocks), the outcome is
    /// [`Deadlock`](crate::CallError::Deadlock) (G9).
    ///
    /// # Panics
    ///
    /// If the value's `Clone` panics. No other caller is affected.
    ///
    /// See [`Follower`] for an example.
    pub fn wait(self) -> Outcome<V, E> {
        match self.wait_for(self.deadline) {
            Ok(Some(Awaited::Landed(landed))) => self.into_outcome(landed),
            // A caller that led the flight could not have had an outcome in any time.
            Ok(_) => match self.held_by.map(|(flight, _)| refuse_own(flight)) {
                Some(Err(deadlock)) => self.refused(Refusal::Deadlock(deadlock)),
                _ => self.refused(Refusal::TimedOut),
            },
            Err(refusal) => self.refused(refusal),
        }
    }

    /// Blocks until the flight has landed, but not longer than `timeout`. Returns `None` if that has
    /// passed; the follower can then wait again.
    ///
    /// The request's own time limit does not apply here, unless it passed before there was a flight
    /// to follow: then the outcome is [`TimedOut`](crate::CallError::TimedOut). [`Duration::MAX`]
    /// never passes, so a wait of that length can be refused as a [deadlock](crate#deadlocks).
    ///
    /// # Panics
    ///
    /// If the value's `Clone` panics.
    ///
    /// ```
    /// use shared_calls::{FlightGroup, Joined};
    /// use std::time::Duration;
    ///
    /// let group = FlightGroup::<u32, std::io::Error>::new();
    /// let Joined::Leader(leader) = group.join("k") else { unreachable!() };
    /// let Joined::Follower(follower) = group.join("k") else { unreachable!() };
    /// assert!(follower.wait_timeout(Duration::from_millis(1)).is_none());
    /// let _ = leader.complete(Ok(1));
    /// assert_eq!(follower.wait_timeout(Duration::ZERO).unwrap().result?, 1);
    /// # Ok::<(), shared_calls::CallError<std::io::Error>>(())
    /// ```
    #[must_use]
    pub fn wait_timeout(&self, timeout: Duration) -> Option<Outcome<V, E>> {
        self.wait_until(Deadline::after(timeout))
    }

    /// Returns the outcome if the flight has landed. Does not block.
    ///
    /// # Panics
    ///
    /// If the value's `Clone` panics.
    ///
    /// ```
    /// use shared_calls::{FlightGroup, Joined};
    ///
    /// let group = FlightGroup::<u32, std::io::Error>::new();
    /// let Joined::Leader(leader) = group.join("k") else { unreachable!() };
    /// let Joined::Follower(follower) = group.join("k") else { unreachable!() };
    /// assert!(follower.try_wait().is_none());
    /// # drop(leader);
    /// ```
    #[must_use]
    pub fn try_wait(&self) -> Option<Outcome<V, E>> {
        self.wait_until(Deadline::Passed)
    }

    fn wait_until(&self, deadline: Deadline) -> Option<Outcome<V, E>> {
        match self.wait_for(deadline) {
            Ok(Some(Awaited::Landed(landed))) => {
                self.count(None);
                Some(Outcome::from_landed(landed, self.role))
            }
            Ok(_) => None,
            Err(refusal) => Some(self.refused(refusal)),
        }
    }

    /// The end of this call with an outcome. The last caller to come here gets the value itself, the
    /// others get clones.
    pub(crate) fn into_outcome(mut self, landed: Arc<Outcome<V, E>>) -> Outcome<V, E> {
        self.count(None);
        self.latch = None;
        Outcome::from_landed(landed, self.role)
    }
}

impl<V, E> Follower<V, E> {
    /// Without a place yet.
    pub(crate) fn new(counts: &Arc<FollowerCounts>, events: Option<Box<Events>>) -> Self {
        Self {
            latch: None,
            held_by: None,
            queued: false,
            left: false,
            role: Role::Followed,
            deadline: Deadline::Never,
            counts: Arc::clone(counts),
            events,
            ended: Unmodelled::new(Ended::default()),
        }
    }

    /// Whether an outcome is there, so that [`wait`](Self::wait) would not block.
    ///
    /// See [`Follower`] for an example.
    #[must_use]
    pub fn is_done(&self) -> bool {
        !matches!(self.wait_for(Deadline::Passed), Ok(None))
    }

    /// Blocks until the outcome is there, or the turn for a queued caller, or the deadline has
    /// passed. Refuses a wait that would never end.
    pub(crate) fn wait_for(&self, deadline: Deadline) -> Result<Option<Awaited<V, E>>, Refusal> {
        if let Some(refusal) = &self.ended.lock().refusal {
            return Err(refusal.clone());
        }
        let Some(latch) = &self.latch else {
            return Ok(None);
        };
        // A wait that does not block needs no look at the graph.
        let there = latch.wait(Deadline::Passed, self.queued);
        if there.is_some() || deadline.has_passed() {
            return Ok(there);
        }
        let _waiting = match self.held_by {
            None => None,
            Some((flight, _)) => {
                let turn = || self.queued && latch.has_turn();
                Waiting::begin(flight, deadline.is_finite(), self.queued, turn)
                    .map_err(Refusal::Deadlock)?
            }
        };
        let wait = || latch.wait(deadline, self.queued);
        Ok(self.counts.while_waiting(wait))
    }

    pub(crate) fn refuse(&self, refusal: Refusal) {
        let before = self.ended.lock().refusal.replace(refusal);
        if before.is_none() {
            self.leave();
        }
    }

    fn leave(&self) {
        let left = self.left || self.queued || self.role == Role::Led;
        if let (Some(latch), false) = (&self.latch, left) {
            latch.leave();
        }
    }

    /// The end of this call without one.
    pub(crate) fn refused(&self, refusal: Refusal) -> Outcome<V, E> {
        self.refuse(refusal.clone());
        self.count(Some(&refusal));
        Outcome::refused(refusal, self.role)
    }

    /// Counts this call when it first yields an outcome.
    fn count(&self, refusal: Option<&Refusal>) {
        if std::mem::replace(&mut self.ended.lock().counted, true) {
            return;
        }
        // The call that started the flight is counted when that ends.
        if self.role == Role::Followed {
            self.counts.add(refusal);
        }
        if let (Some(events), Some(refusal)) = (&self.events, refusal) {
            events.tell(Event::Refused(refusal));
        }
    }
}

impl<V, E> Drop for Follower<V, E> {
    fn drop(&mut self) {
        if let (Some(latch), Role::Led) = (&self.latch, self.role) {
            latch.drop_ticket();
        }
        if self.ended.lock().refusal.is_none() {
            self.leave();
        }
    }
}

impl<V, E> fmt::Debug for Follower<V, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower").finish_non_exhaustive()
    }
}
