//! The followers' side: a place on a flight, and the wait for its outcome.

use std::{fmt, mem, time::Duration};

use crate::{
    counts::FollowerCounts, deadlock::refuse_own, deadlock::Waiting, error::CallError,
    error::Deadlock, leader::Caller, map::Waiter, observer::Event, outcome::Outcome, outcome::Role,
    panics::discard, panics::resume_in_drop, panics::then_drop, sync::Arc, sync::Deadline,
    sync::Mutex,
};

/// A place on a flight that another caller leads, from
/// [`FlightGroup::join`](crate::FlightGroup::join).
///
/// [Wait](Self::wait) for the outcome, or [look](Self::try_wait) for it from time to time, on any
/// thread. If a follower is dropped, the flight goes on with one follower fewer.
///
/// Threads that share a follower get the same outcome, because they are one call (G3). If one of them is
/// refused as a [deadlock](crate#deadlocks) before any of them has an outcome, all are: another one that
/// waits already learns it when its own wait ends.
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
    /// How it waits. `None` if it was refused a place, and when the call ends or leads.
    pub(crate) waiter: Option<Waiter<V, E>>,
    pub(crate) caller: Caller,
    /// `Led` for the ticket of the call that started the flight, which is not a follower.
    pub(crate) role: Role,
    pub(crate) deadline: Deadline,
    counts: Arc<FollowerCounts>,
    progress: Mutex<Progress<E>>,
}

/// How far the call of a follower has come.
struct Progress<E> {
    /// Whether it has yielded an outcome, and was counted.
    counted: bool,
    /// Set at most once, and only while no thread has an outcome. From then on it is the outcome for all
    /// threads. The place is given up when this is set, or, if threads are waiting, when the last of
    /// them stops waiting.
    refusal: Option<CallError<E>>,
    /// Threads that wait with this follower.
    waiting: usize,
}

impl<E> Progress<E> {
    /// A follower that is refused keeps its place while a thread waits with it.
    fn has_place(&self) -> bool {
        self.refusal.is_none() || self.waiting > 0
    }
}

/// What a wait ends with: the flight's outcome, or a refusal.
pub(crate) type Waited<V, E> = Result<Arc<Outcome<V, E>>, CallError<E>>;

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
        let waited = self.wait_until(self.deadline).unwrap_or_else(|| {
            // If the deadline had passed before the wait, nobody looked for a deadlock. A wait for one's
            // own flight is a deadlock all the same.
            let held_by = self.waiter.as_ref().and_then(|waiter| waiter.held_by);
            let own = held_by.and_then(|(flight, _)| refuse_own(flight));
            Err(own.map_or(CallError::TimedOut, CallError::Deadlock))
        });
        self.end(waited)
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
        self.wait_until(Deadline::after(timeout)).map(|waited| self.outcome(waited))
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
        self.ready().map(|waited| self.outcome(waited))
    }

    /// Ends this call. A caller that finds all others gone gets the value itself, every other one a
    /// clone.
    pub(crate) fn end(mut self, waited: Waited<V, E>) -> Outcome<V, E> {
        if waited.is_ok() {
            self.waiter = None;
        }
        then_drop(self, |follower| follower.outcome(waited))
    }

    fn outcome(&self, waited: Waited<V, E>) -> Outcome<V, E> {
        let landed = waited.map_err(|refusal| self.refuse(refusal)).ok();
        if let Some(refusal) = self.count() {
            return Outcome { result: Err(refusal), role: self.role, followers: 0 };
        }
        // If this thread was refused too late, the flight has landed.
        let landed = landed.or_else(|| self.waiter.as_ref()?.latch.outcome());
        Outcome::from_landed(landed.expect("it has landed"), self.role)
    }
}

impl<V, E> Follower<V, E> {
    /// Without a place yet.
    pub(crate) fn new(counts: &Arc<FollowerCounts>, caller: Caller) -> Self {
        Self {
            waiter: None,
            caller,
            role: Role::Followed,
            deadline: Deadline::NEVER,
            counts: Arc::clone(counts),
            progress: Mutex::new(Progress { counted: false, refusal: None, waiting: 0 }),
        }
    }

    /// Whether an outcome is there, so that [`wait`](Self::wait) would not block.
    ///
    /// See [`Follower`] for an example.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.ready().is_some()
    }

    pub(crate) fn is_queued(&self) -> bool {
        self.waiter.as_ref().is_some_and(|waiter| waiter.queued)
    }

    /// The outcome or the refusal, if one is there already.
    fn ready(&self) -> Option<Waited<V, E>> {
        if let Some(refusal) = &self.progress.lock().refusal {
            return Some(Err(refusal.clone()));
        }
        self.waiter.as_ref()?.latch.outcome().map(Ok)
    }

    /// Blocks until the flight has landed. Without an outcome, this returns when the deadline has
    /// passed, or the turn of a queued caller has come. Refuses a wait that would never end.
    pub(crate) fn wait_until(&self, deadline: Deadline) -> Option<Waited<V, E>> {
        let mut progress = self.progress.lock();
        if let Some(refusal) = &progress.refusal {
            return Some(Err(refusal.clone()));
        }
        progress.waiting += 1;
        drop(progress);
        let waited = self.wait_on_latch(deadline).map_err(CallError::Deadlock);
        self.update(|progress| progress.waiting -= 1);
        waited.transpose()
    }

    fn wait_on_latch(&self, deadline: Deadline) -> Result<Option<Arc<Outcome<V, E>>>, Deadlock> {
        let Some(Waiter { latch, held_by, queued }) = &self.waiter else { return Ok(None) };
        // A wait that does not block needs no look at the graph.
        let outcome = latch.outcome();
        if outcome.is_some() || deadline.has_passed() {
            return Ok(outcome);
        }
        let turn = || *queued && latch.has_turn();
        let begin = |(flight, _)| Waiting::begin(flight, deadline.is_finite(), *queued, turn);
        let _waiting = held_by.map(begin).transpose()?;
        self.counts.waiting.add(1);
        let outcome = latch.wait(deadline, *queued);
        self.counts.waiting.add(1_u64.wrapping_neg());
        Ok(outcome)
    }

    /// Refuses this call, unless it has another outcome already.
    pub(crate) fn refuse(&self, refusal: CallError<E>) {
        self.update(|progress| {
            if !progress.counted {
                progress.refusal.get_or_insert(refusal);
            }
        });
    }

    /// Changes how far this call has come, and leaves the flight if the call has lost its place by that.
    fn update(&self, change: impl FnOnce(&mut Progress<E>)) {
        let mut progress = self.progress.lock();
        let had_place = progress.has_place();
        change(&mut progress);
        let leaves = had_place && !progress.has_place();
        drop(progress);
        if leaves {
            self.leave();
        }
    }

    fn leave(&self) {
        let Some(waiter) = &self.waiter else { return };
        // The ticket of the call that started the flight has no place.
        if self.role == Role::Followed && !waiter.queued {
            waiter.latch.leave();
        }
    }

    /// Counts this call when it first yields an outcome, and tells the observer of a refusal. Returns
    /// the refusal, if that is the outcome.
    fn count(&self) -> Option<CallError<E>> {
        let mut progress = self.progress.lock();
        let refusal = progress.refusal.clone();
        if mem::replace(&mut progress.counted, true) {
            return refusal;
        }
        drop(progress);
        let (counter, event) = match &refusal {
            None => (&self.counts.followed, None),
            Some(CallError::Deadlock(it)) => (&self.counts.deadlocked, Some(Event::Deadlocked(it))),
            Some(CallError::Overloaded) => (&self.counts.overloaded, Some(Event::Overloaded)),
            Some(_) => (&self.counts.timed_out, Some(Event::TimedOut)),
        };
        // The call that started the flight is counted when that ends.
        if self.role == Role::Followed {
            counter.add(1);
        }
        if let (Some(events), Some(event)) = (&self.caller.events, event) {
            events.tell(event);
        }
        refusal
    }
}

impl<V, E> Drop for Follower<V, E> {
    fn drop(&mut self) {
        if let (Some(waiter), Role::Led) = (&self.waiter, self.role) {
            waiter.latch.set_ticket(false);
        }
        if self.progress.lock().has_place() {
            self.leave();
        }
        let events = self.caller.events.take().and_then(discard);
        resume_in_drop([self.waiter.take().and_then(discard), events]);
    }
}

impl<V, E> fmt::Debug for Follower<V, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower").finish_non_exhaustive()
    }
}
