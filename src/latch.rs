//! Where the followers of a flight wait for its outcome: a state under a lock, and a condition
//! variable.
//!
//! A flight has a latch only if a caller has wanted to wait for it. The first such caller makes it,
//! under the map's lock, even if it then queues or is refused a place: the flight's age counts from
//! there.
//!
//! ```text
//!             (made by the first to queue)
//!                         │
//!                       queued ── turn ──▶ turn ──┐
//!                         └───────────────────────┼── land ──▶ landed
//!   (made by the first to follow) ────▶ running ──┘
//!    (or with a job and its ticket)
//! ```
//!
//! (A caller that arrives can lead a queued flight to its end before its turn is set.)
//!
//! *Why no wake-up is lost.* A waiter looks at the state under the lock and gives the lock up only
//! inside `Condvar::wait`, which releases it and sleeps in one step. A change is made under the lock
//! and notified afterwards. So a change comes either before the look, which then sees it, or after
//! the sleep has begun, and then its notification wakes the sleeper. `notify_all` wakes every
//! waiter, and none depends on another to go on.

use crate::{
    error::CallError, outcome::Outcome, outcome::Role, sync::Arc, sync::Condvar, sync::Deadline,
    sync::Mutex, sync::Time,
};

pub(crate) struct Latch<V, E> {
    state: Mutex<State<V, E>>,
    changed: Condvar,
}

struct State<V, E> {
    phase: Phase<V, E>,
    /// Callers that have a place here. Incremented only under the map's lock, while the map names the
    /// latch. So it cannot grow once the flight is unlinked.
    followers: usize,
    /// Whether the ticket of the caller that started the flight is still there.
    ticket: bool,
    /// When a caller first wanted to wait for the flight, or got a ticket. For a queue, when its flight
    /// began: set by its leader, under the map's lock.
    since: Time,
}

enum Phase<V, E> {
    /// The outcome is not there yet. For a queue: its turn has not come.
    Pending,
    /// Set once by the caller that ended or gave up the flight in front. The queued flight has a
    /// leader, or any of its callers can take the lead.
    Turn,
    /// Set once by the leader, after the map has ceased to name the flight.
    Landed(Arc<Outcome<V, E>>),
}

impl<V, E> Latch<V, E> {
    pub(crate) fn new() -> Arc<Self> {
        let state =
            State { phase: Phase::Pending, followers: 0, ticket: false, since: Time::now() };
        Arc::new(Self { state: Mutex::new(state), changed: Condvar::new() })
    }

    /// Takes a place, unless `max_followers` are taken. To be called under the map's lock.
    pub(crate) fn join(&self, max_followers: usize) -> bool {
        let mut state = self.state.lock();
        let free = state.followers < max_followers;
        state.followers += usize::from(free);
        free
    }

    /// Gives up a place that [`join`](Self::join) took, and returns how many followers remain.
    pub(crate) fn leave(&self) -> usize {
        let mut state = self.state.lock();
        state.followers -= 1;
        state.followers
    }

    pub(crate) fn set_ticket(&self, ticket: bool) {
        self.state.lock().ticket = ticket;
    }

    pub(crate) fn followers(&self) -> usize {
        self.state.lock().followers
    }

    /// Whether a follower or a ticket is there.
    pub(crate) fn is_awaited(&self) -> bool {
        let state = self.state.lock();
        state.followers > 0 || state.ticket
    }

    pub(crate) fn since(&self) -> Time {
        self.state.lock().since
    }

    /// Starts the age of a queued flight, which has just got a leader, and returns whether anyone waits
    /// for it. To be called under the map's lock.
    pub(crate) fn begin(&self) -> bool {
        let mut state = self.state.lock();
        state.since = Time::now();
        state.followers > 0
    }

    /// Ends the wait for the flight in front. To be followed by [`wake`](Self::wake).
    pub(crate) fn set_turn(&self) {
        let mut state = self.state.lock();
        // A caller that arrived may have led the flight to its end already.
        if let Phase::Pending = state.phase {
            state.phase = Phase::Turn;
        }
    }

    /// Wakes everyone. To be called without the map's lock, on which they would only block.
    pub(crate) fn wake(&self) {
        self.changed.notify_all();
    }

    /// Publishes the outcome and wakes everyone. To be called by the leader, once, after the map
    /// has ceased to name the flight (G2).
    pub(crate) fn land(&self, result: Result<V, CallError<E>>) -> Arc<Outcome<V, E>> {
        let mut state = self.state.lock();
        // Nobody can join any more. A follower that leaves from here on is still counted.
        let outcome = Arc::new(Outcome { result, role: Role::Led, followers: state.followers });
        state.phase = Phase::Landed(Arc::clone(&outcome));
        // Unlock first, or the waiters that wake would only block on the lock.
        drop(state);
        self.wake();
        outcome
    }

    /// The outcome, if it is there.
    pub(crate) fn outcome(&self) -> Option<Arc<Outcome<V, E>>> {
        match &self.state.lock().phase {
            Phase::Landed(outcome) => Some(Arc::clone(outcome)),
            _ => None,
        }
    }

    pub(crate) fn has_turn(&self) -> bool {
        !matches!(self.state.lock().phase, Phase::Pending)
    }

    /// Blocks until the outcome is there. Returns `None` if the deadline passes first, or the turn of a
    /// caller that is `queued` comes. An outcome that is ready beats both.
    pub(crate) fn wait(&self, deadline: Deadline, queued: bool) -> Option<Arc<Outcome<V, E>>> {
        let mut state = self.state.lock();
        loop {
            match &state.phase {
                Phase::Landed(outcome) => return Some(Arc::clone(outcome)),
                Phase::Turn if queued => return None,
                _ if deadline.has_passed() => return None,
                // A loop, because a condition variable may wake without a notification.
                _ => state = self.changed.wait(state, deadline),
            }
        }
    }
}
