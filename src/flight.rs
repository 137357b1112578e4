//! One flight: one execution of a function, and everyone who shares its outcome.
//!
//! ```text
//!            (born by a caller that leads it)
//!                           │
//!   queued ──▶ vacant ──▶ running ──close──▶ closed ──(unlinked)──▶ landed
//!     │           │
//!     └───────────┴──▶ (gone, when the last one to wait for it leaves)
//! ```
//!
//! *Running*: the map names the flight and its function runs; whoever finds it there may
//! [`board`](Flight::board) it. *Closed*: the function has returned, nobody boards any more; a
//! caller that still finds the flight in the map leads a new one in its place. *Landed*: the
//! outcome is there for every follower. Only the leader takes these steps, each once. A flight
//! without a follower is never landed: nobody would look, so its leader keeps the value, and the
//! flight can be used again.
//!
//! *Queued*: behind a running flight, for callers that asked for the next one. It has no leader
//! yet. When the flight before it is unlinked it takes that one's place in the map and is *vacant*:
//! of those who wait for it and those who arrive, the first to look leads. Nobody waits for a
//! flight that has no leader without being able to lead it, so none is stuck.

use std::fmt;
use std::time::Duration;

use crate::deadlock::{Awaited, Place, Waiting};
use crate::error::{CallError, Missed};
use crate::latch::Latch;
use crate::observer::Reports;
use crate::outcome::{Outcome, Role};
use crate::sync::{Arc, AtomicBool, AtomicUsize, Deadline, Figure, Ordering};
use crate::threads::{self, FlightId, Leading};

pub(crate) struct Flight<V, E> {
    /// Set by the leader, without a lock, the instant its function has returned. Read by arriving
    /// callers under the map's lock.
    closed: AtomicBool,
    /// Raised only under the map's lock and only while the map names the flight, or the one that it
    /// is queued behind; so it cannot rise once the flight is unlinked. Lowered by whoever leaves,
    /// or leads after all.
    followers: AtomicUsize,
    /// When the flight began, by the group's clock, or [`JUST_NOW`]. Set by the leader, who does not
    /// read the clock under the map's lock; or, if it was queued, under that lock when its turn came.
    began: Figure,
    /// The number of the thread that runs the function; 0 for none. Set by that thread.
    thread: Figure,
    /// If the flight was made without a leader: its place behind the one that was there. If not,
    /// its phase is no concern of those who arrive.
    place: Option<Arc<Place>>,
    reports: Reports,
    phase: Latch<Phase<V, E>>,
}

/// For a flight whose leader has not looked at the clock yet.
const JUST_NOW: usize = usize::MAX;

enum Phase<V, E> {
    /// Made so under the map's lock.
    Queued,
    /// Made so by the leader before, once the map names this flight.
    Vacant,
    /// Made so by the leader.
    Running,
    /// Made so by the leader, once the map no longer names the flight.
    Landed(Arc<Outcome<V, E>>),
}

impl<V, E> Flight<V, E> {
    /// A flight that its maker leads.
    pub(crate) fn running(reports: Reports) -> Self {
        Self::new(Phase::Running, None, reports)
    }

    /// A flight that nobody leads yet, for the same key.
    pub(crate) fn queued_behind(front: &Self) -> Self {
        let place = Arc::new(Place::behind(front.id()));
        Self::new(Phase::Queued, Some(place), front.reports.clone())
    }

    fn new(phase: Phase<V, E>, place: Option<Arc<Place>>, reports: Reports) -> Self {
        Self {
            closed: AtomicBool::new(false),
            followers: AtomicUsize::new(0),
            began: Figure::new(),
            thread: Figure::new(),
            place,
            reports,
            phase: Latch::new(phase),
        }
    }

    /// The flight comes into the map: a new one, or one that never had to land and is used again.
    /// To be called under the map's lock.
    pub(crate) fn begin(&self) {
        self.closed.store(false, Ordering::Relaxed);
        self.began.set(JUST_NOW);
        self.thread.set(0);
        if let Some(place) = &self.place {
            place.move_up();
        }
    }

    /// From when the age counts.
    pub(crate) fn begin_at(&self, now: usize) {
        if self.began.get() == JUST_NOW {
            self.began.set(now.min(JUST_NOW - 1));
        }
    }

    /// How long ago the flight began.
    pub(crate) fn age(&self, now: usize) -> Duration {
        let began = self.began.get();
        if began == JUST_NOW {
            return Duration::ZERO;
        }
        // Signed: a caller that read the clock and then had to wait for the map's lock may find a
        // flight that is younger than itself.
        let micros = now.wrapping_sub(began) as isize;
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    }

    /// The flight as others name it, who do not hold it.
    pub(crate) fn id(&self) -> FlightId {
        self as *const Self as FlightId
    }

    /// Whom to tell what happens.
    pub(crate) fn reports(&self) -> &Reports {
        &self.reports
    }

    /// Notes, until the guard is dropped, that this thread runs the flight's function.
    pub(crate) fn lead(&self) -> Leading {
        let leading = Leading::new(self.id());
        self.thread.set(leading.thread);
        leading
    }

    /// The number of the thread that runs the function.
    pub(crate) fn thread(&self) -> usize {
        match self.is_closed() {
            true => 0,
            false => self.thread.get(),
        }
    }

    /// Whether the function has returned.
    pub(crate) fn is_closed(&self) -> bool {
        // Acquire: whoever sees the flight closed runs the next execution for this key, and that
        // one sees all that the closed one wrote.
        self.closed.load(Ordering::Acquire)
    }

    /// From here on nobody boards.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Takes a seat as a follower. To be called under the map's lock.
    pub(crate) fn board(&self) {
        self.followers.fetch_add(1, Ordering::Relaxed);
    }

    /// Gives up a seat taken by [`board`](Self::board), and says how many are left.
    pub(crate) fn leave(&self) -> usize {
        self.followers.fetch_sub(1, Ordering::Relaxed) - 1
    }

    /// How many followers there are now.
    pub(crate) fn followers(&self) -> usize {
        self.followers.load(Ordering::Relaxed)
    }

    /// The flight that this one is queued behind, if it is. To be called under the map's lock.
    pub(crate) fn front(&self) -> Option<FlightId> {
        self.place.as_ref()?.front()
    }

    /// Whether the flight was made without a leader.
    pub(crate) fn was_queued(&self) -> bool {
        self.place.is_some()
    }

    /// Whether nobody leads the flight yet.
    pub(crate) fn is_vacant(&self) -> bool {
        let vacant = |phase: &mut Phase<V, E>| matches!(phase, Phase::Queued | Phase::Vacant);
        self.was_queued() && self.phase.with(vacant)
    }

    /// Makes the caller the leader if there is none yet. To be called under the map's lock, on the
    /// flight that the map names.
    pub(crate) fn claim(&self) -> bool {
        let claim = |phase: &mut Phase<V, E>| match phase {
            Phase::Queued | Phase::Vacant => {
                *phase = Phase::Running;
                true
            }
            Phase::Running | Phase::Landed(_) => false,
        };
        self.was_queued() && self.phase.with(claim)
    }

    /// Wakes those who stand by: one of them is to lead, or, if somebody who arrived has claimed
    /// the flight, they are followers now. To be called when the map names the flight.
    pub(crate) fn vacate(&self) {
        if !self.was_queued() {
            return;
        }
        self.phase.change(self.followers(), |phase| {
            if let Phase::Queued = phase {
                *phase = Phase::Vacant;
            }
        });
    }

    /// Publishes the outcome and wakes the followers. To be called by the leader, once, and only
    /// after the map has ceased to name the flight (G2).
    pub(crate) fn land(&self, outcome: Arc<Outcome<V, E>>) {
        self.phase.change(outcome.followers, |phase| {
            debug_assert!(matches!(phase, Phase::Running), "a flight lands once");
            *phase = Phase::Landed(outcome);
        });
    }

    /// Blocks until the flight has a leader, and says whether the caller is it. To be called by one
    /// who has a seat.
    pub(crate) fn stand_by(&self, deadline: Deadline) -> Result<bool, Missed> {
        let place = self
            .place
            .as_ref()
            .expect("only a queued flight is stood by");
        let turn = || Awaited::Turn(Arc::clone(place));
        self.wait_for(turn, deadline, |phase| match phase {
            Phase::Queued => None,
            Phase::Vacant => {
                *phase = Phase::Running;
                self.leave();
                Some(true)
            }
            Phase::Running | Phase::Landed(_) => Some(false),
        })
    }

    /// Blocks until the flight has landed.
    pub(crate) fn wait(&self, deadline: Deadline) -> Result<Arc<Outcome<V, E>>, Missed> {
        let landing = || Awaited::Landing(self.id());
        self.wait_for(landing, deadline, |phase| match phase {
            Phase::Landed(outcome) => Some(Arc::clone(outcome)),
            _ => None,
        })
    }

    fn wait_for<R>(
        &self,
        awaited: impl FnOnce() -> Awaited,
        deadline: Deadline,
        mut look: impl FnMut(&mut Phase<V, E>) -> Option<R>,
    ) -> Result<R, Missed> {
        let mut wait = |deadline| self.phase.wait(deadline, &mut look).ok_or(Missed::TimedOut);
        if deadline.is_over() {
            return wait(deadline);
        }
        if threads::is_leading() {
            // What is there already need not be written down first, which takes whoever leads many
            // flights the longer.
            if let Ok(found) = wait(Deadline::Passed) {
                return Ok(found);
            }
        }
        let _waiting = Waiting::begin(awaited, deadline.is_finite()).map_err(Missed::Deadlock)?;
        self.reports.while_waiting(|| wait(deadline))
    }
}

/// A place on a flight that has a leader: what [`Follower`] and `Ticket` have in common.
pub(crate) struct Seat<V, E> {
    /// `None` only once the outcome was taken.
    flight: Option<Arc<Flight<V, E>>>,
    /// Whoever started the flight has a ticket, too, and is no follower.
    role: Role,
    /// Not 0 once the call of this seat has ended.
    ended: Figure,
}

impl<V, E> Seat<V, E> {
    /// For a flight that was boarded, or that the caller leads.
    pub(crate) fn new(flight: Arc<Flight<V, E>>, role: Role) -> Self {
        Self {
            flight: Some(flight),
            role,
            ended: Figure::new(),
        }
    }

    fn landed(&self, deadline: Deadline) -> Result<Arc<Outcome<V, E>>, Missed> {
        let flight = self.flight.as_ref().expect("the outcome is taken last");
        flight.wait(deadline)
    }

    pub(crate) fn is_done(&self) -> bool {
        self.landed(Deadline::Passed).is_ok()
    }

    /// `None`: it takes longer, and may be waited for again.
    pub(crate) fn wait_until(&self, deadline: Deadline) -> Option<Outcome<V, E>>
    where
        V: Clone,
    {
        let landed = self.landed(deadline);
        if let Err(Missed::TimedOut) = landed {
            return None;
        }
        self.report(&landed);
        Some(self.outcome(landed))
    }

    /// The last one to ask in this way gets the value itself, the others clones. `None`: the flight
    /// failed in a way after which the caller asks `again`, so that its call has not ended.
    pub(crate) fn into_outcome_unless(
        mut self,
        deadline: Deadline,
        again: impl FnOnce(&CallError<E>) -> bool,
    ) -> Option<Outcome<V, E>>
    where
        V: Clone,
    {
        let landed = self.landed(deadline);
        if let Ok(Err(error)) = landed.as_ref().map(|landed| landed.result.as_ref()) {
            if again(error) {
                return None;
            }
        }
        self.report(&landed);
        if landed.is_ok() {
            self.flight = None;
        }
        Some(self.outcome(landed))
    }

    fn outcome(&self, landed: Result<Arc<Outcome<V, E>>, Missed>) -> Outcome<V, E>
    where
        V: Clone,
    {
        match landed {
            Ok(landed) => Outcome::of(landed, self.role),
            Err(missed) => Outcome {
                role: self.role,
                ..Outcome::missed(missed)
            },
        }
    }

    fn report(&self, landed: &Result<Arc<Outcome<V, E>>, Missed>) {
        let Some(flight) = &self.flight else { return };
        if self.ended.add() == 0 {
            let missed = landed.as_ref().err();
            // The one who started the flight is counted when that ends.
            if self.role == Role::Followed {
                flight.reports.count(missed);
            }
            flight.reports.tell_missed(missed);
        }
    }
}

impl<V, E> Drop for Seat<V, E> {
    fn drop(&mut self) {
        if let (Some(flight), Role::Followed) = (&self.flight, self.role) {
            flight.leave();
        }
    }
}

/// A seat on a flight that somebody else leads, from
/// [`FlightGroup::join`](crate::FlightGroup::join).
///
/// [`wait`](Self::wait) for the outcome, or look for it now and then, on this thread or another.
/// Dropping it disturbs nobody: the flight goes on with one follower less.
///
/// ```
/// use shared_calls::{FlightGroup, Joined, Role};
///
/// let group = FlightGroup::<String, std::io::Error>::new();
/// let Joined::Leader(leader) = group.join("k") else { unreachable!() };
/// let Joined::Follower(follower) = group.join("k") else { unreachable!() };
/// drop(group.join("k")); // a follower that does not care to wait
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
    /// The error is for one that was queued, and will have no flight to sit in.
    seat: Result<Seat<V, E>, Missed>,
    deadline: Deadline,
}

impl<V, E> Follower<V, E> {
    pub(crate) fn new(seat: Result<Seat<V, E>, Missed>, deadline: Deadline) -> Self {
        Self { seat, deadline }
    }

    /// For one that did not ask for the next flight.
    pub(crate) fn into_seat(self) -> Seat<V, E> {
        match self.seat {
            Ok(seat) => seat,
            Err(_) => unreachable!("only a queued caller can be too late"),
        }
    }

    /// [`wait`](Self::wait), for one who may ask again instead: see [`Seat::into_outcome_unless`].
    pub(crate) fn wait_unless(
        self,
        again: impl FnOnce(&CallError<E>) -> bool,
    ) -> Option<Outcome<V, E>>
    where
        V: Clone,
    {
        match self.seat {
            Ok(seat) => seat.into_outcome_unless(self.deadline, again),
            Err(error) => Some(Outcome::missed(error)),
        }
    }

    /// Blocks until the flight has landed and gives the leader's outcome, with
    /// [`Role::Followed`].
    ///
    /// However the leader ends, this returns (G4); or it is refused, with
    /// [`Deadlock`](crate::CallError::Deadlock), if that would [never end](crate#deadlocks) (G9).
    /// What the leader's function wrote before it returned is visible after (G5). The value is
    /// cloned on this thread, outside every lock. If the follower comes from a
    /// [`Request`](crate::Request) with a deadline, it waits no longer than that and then gives
    /// [`TimedOut`](crate::CallError::TimedOut); an outcome that is there beats a deadline that has
    /// passed.
    ///
    /// # Panics
    ///
    /// If the value's `Clone` panics; nobody else notices.
    ///
    /// See [`Follower`] for an example.
    pub fn wait(self) -> Outcome<V, E>
    where
        V: Clone,
    {
        let outcome = self.wait_unless(|_| false);
        outcome.expect("never asks again")
    }

    /// Blocks until the flight has landed, but not longer than `timeout`: then `None`, and the
    /// follower may wait again. ([`Duration::MAX`] never passes: to wait that long may be refused,
    /// as [`wait`](Self::wait) may be.) A request's deadline plays no part here, unless it had
    /// passed before there was a flight to follow: then this is
    /// [`TimedOut`](crate::CallError::TimedOut) at once.
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
    /// assert_eq!(follower.wait_timeout(Duration::ZERO).unwrap().result.unwrap(), 1);
    /// ```
    #[must_use]
    pub fn wait_timeout(&self, timeout: Duration) -> Option<Outcome<V, E>>
    where
        V: Clone,
    {
        self.wait_until(Deadline::after(timeout))
    }

    /// The outcome, if the flight has landed. Does not block.
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
    pub fn try_wait(&self) -> Option<Outcome<V, E>>
    where
        V: Clone,
    {
        self.wait_until(Deadline::Passed)
    }

    fn wait_until(&self, deadline: Deadline) -> Option<Outcome<V, E>>
    where
        V: Clone,
    {
        match &self.seat {
            Ok(seat) => seat.wait_until(deadline),
            Err(error) => Some(Outcome::missed(error.clone())),
        }
    }

    /// Whether an outcome is there, so that [`wait`](Self::wait) would not block.
    ///
    /// See [`Follower`] for an example.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.seat.as_ref().map_or(true, Seat::is_done)
    }
}

impl<V, E> fmt::Debug for Follower<V, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower").finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_flight_may_be_younger_than_who_asks() {
        let flight = Flight::<(), ()>::running(Reports::to_nobody());
        flight.begin();
        assert_eq!(flight.age(100), Duration::ZERO);
        flight.begin_at(100);
        assert_eq!(flight.age(150), Duration::from_micros(50));
        assert_eq!(flight.age(99), Duration::ZERO);
        assert_eq!(flight.age(usize::MAX / 2 + 102), Duration::ZERO);
    }
}
