//! One flight: one execution of a function, and everyone who shares its outcome.
//!
//! ```text
//!   open ──close──▶ closed ──(unlinked from the map)──▶ landed
//! ```
//!
//! *Open*: whoever finds the flight in the map may [`board`](Flight::board) it. *Closed*: the
//! function has returned, nobody boards any more; a caller that still finds the flight in the map
//! leads a new one in its place. *Landed*: the outcome is there for every follower. Only the
//! leader moves a flight on, each step once. A flight without a follower is never landed: nobody
//! would look, so its leader keeps the value, and the flight can be used again.

use std::fmt;

use crate::latch::Latch;
use crate::outcome::{Outcome, Role};
use crate::sync::{Arc, AtomicBool, AtomicUsize, Ordering};

pub(crate) struct Flight<V, E> {
    /// Set by the leader, without a lock, the instant its function has returned. Read by arriving
    /// callers under the map's lock.
    closed: AtomicBool,
    /// Raised only under the map's lock and only while the map names the flight, so it cannot
    /// rise once the flight is unlinked. Lowered by a follower that leaves without waiting.
    followers: AtomicUsize,
    /// Set by the leader once the map no longer names the flight, and only if it has followers.
    landed: Latch<Outcome<V, E>>,
}

impl<V, E> Flight<V, E> {
    pub(crate) fn new() -> Self {
        Self {
            closed: AtomicBool::new(false),
            followers: AtomicUsize::new(0),
            landed: Latch::new(),
        }
    }

    /// Makes a flight that never had to land fit for another one. Nobody else touches it any more,
    /// and the caller publishes it through the map's lock.
    pub(crate) fn reopen(&self) {
        self.closed.store(false, Ordering::Relaxed);
    }

    /// Takes a seat as a follower, unless the function has returned already. To be called under
    /// the map's lock, on a flight that the map names.
    pub(crate) fn board(&self) -> bool {
        // Acquire: whoever sees the flight closed runs the next execution for this key, and that
        // one sees all that the closed one wrote.
        if self.closed.load(Ordering::Acquire) {
            return false;
        }
        self.followers.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// Gives up a seat taken by [`board`](Self::board).
    pub(crate) fn leave(&self) {
        self.followers.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many followers there are now.
    pub(crate) fn followers(&self) -> usize {
        self.followers.load(Ordering::Relaxed)
    }

    /// From here on nobody boards.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Publishes the outcome and wakes the followers. To be called by the leader, once, and only
    /// after the map has ceased to name the flight (G2).
    pub(crate) fn land(&self, outcome: Arc<Outcome<V, E>>) {
        self.landed.set(outcome);
    }

    /// Blocks until the flight has landed.
    pub(crate) fn wait(&self) -> Arc<Outcome<V, E>> {
        self.landed.wait()
    }
}

/// A seat on a flight that somebody else leads, from [`FlightGroup::join`](crate::FlightGroup::join).
///
/// [`wait`](Self::wait) for the outcome, on this thread or another. Dropping it disturbs nobody:
/// the flight goes on with one follower less.
///
/// ```
/// use shared_calls::{FlightGroup, Joined, Role};
///
/// let group = FlightGroup::<String, std::io::Error>::new();
/// let Joined::Leader(leader) = group.join("k") else { unreachable!() };
/// let Joined::Follower(follower) = group.join("k") else { unreachable!() };
/// drop(group.join("k")); // a follower that does not care to wait
/// assert_eq!(leader.followers(), 1);
///
/// let led = leader.complete(Ok("value".to_owned()));
/// let followed = follower.wait();
/// assert_eq!((led.role, followed.role), (Role::Led, Role::Followed));
/// assert_eq!(led.result?, followed.result?);
/// # Ok::<(), shared_calls::CallError<std::io::Error>>(())
/// ```
#[must_use = "a follower that is dropped leaves the flight"]
pub struct Follower<V, E> {
    /// `None` only once `wait` has taken it.
    flight: Option<Arc<Flight<V, E>>>,
}

impl<V, E> Follower<V, E> {
    /// For a flight that was boarded.
    pub(crate) fn new(flight: Arc<Flight<V, E>>) -> Self {
        Self {
            flight: Some(flight),
        }
    }

    /// Blocks until the flight has landed and gives the leader's outcome, with
    /// [`Role::Followed`].
    ///
    /// However the leader ends, this returns (G4). What the leader's function wrote before it
    /// returned is visible after (G5). The value is cloned on this thread, outside every lock.
    ///
    /// # Panics
    ///
    /// If the value's `Clone` panics; nobody else notices.
    ///
    /// See [`Follower`] for an example.
    pub fn wait(mut self) -> Outcome<V, E>
    where
        V: Clone,
    {
        let flight = self.flight.take().expect("taken only here");
        let landed = flight.wait();
        drop(flight);
        Outcome::of(landed, Role::Followed)
    }
}

impl<V, E> Drop for Follower<V, E> {
    fn drop(&mut self) {
        if let Some(flight) = &self.flight {
            flight.leave();
        }
    }
}

impl<V, E> fmt::Debug for Follower<V, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower").finish_non_exhaustive()
    }
}
