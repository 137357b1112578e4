//! Fire now, collect later: a flight whose function another thread runs.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::time::Duration;

use crate::flight::Seat;
use crate::group::{Duty, FlightGroup, Joined};
use crate::outcome::{Outcome, Role};
use crate::sync::{Arc, Deadline};

impl<V, E, K, S> FlightGroup<V, E, K, S> {
    /// Starts `f` for the key on another thread, or joins the call that is in progress, and returns
    /// a [`Ticket`] for the outcome: x/sync's `DoChan`. Never waits for the flight.
    ///
    /// `spawn` gets a [`Job`] to run wherever it likes, and only if this call leads: on a thread
    /// pool (`|job| pool.execute(move || job.run())`), a new thread, a worker at the other end of a
    /// channel, or right here (`|job| job.run()`). It runs outside every lock. Calls and tickets
    /// for one key share one flight. The ticket of the call that leads has [`Role::Led`] and is no
    /// follower.
    ///
    /// A panic in `f` reaches all tickets and followers as
    /// [`CallError::Panicked`](crate::CallError::Panicked) and goes no further: [`Job::run`]
    /// returns. (x/sync ends the process.) A job that is dropped unrun, as by a pool that shuts
    /// down, abandons the flight: [`CallError::Abandoned`](crate::CallError::Abandoned), and the
    /// key is free at once.
    ///
    /// # Panics
    ///
    /// If `spawn` panics: the job, unless it was sent or run before, is then dropped unrun. And as
    /// [`FlightGroup::join`] does.
    ///
    /// # Hangs
    ///
    /// If `spawn` itself waits for the key before the job has run.
    ///
    /// A thread of the pool that waits for the flight takes a thread from the jobs. If all of them
    /// wait for jobs that are still in the pool's queue, none is left to run them. Let a pool
    /// either run jobs or wait for them, or wait with a time limit.
    ///
    /// ```
    /// use shared_calls::FlightGroup;
    /// use std::sync::Arc;
    /// use std::thread;
    ///
    /// let group = Arc::new(FlightGroup::<u32, std::io::Error>::new());
    /// let ticket = group.start("k", |job| drop(thread::spawn(move || job.run())), || Ok(42));
    /// // ... something else, meanwhile ...
    /// assert_eq!(ticket.wait().result.unwrap(), 42);
    /// ```
    #[doc(alias = "DoChan")]
    pub fn start<Q>(
        self: &Arc<Self>,
        key: &Q,
        spawn: impl FnOnce(Job),
        f: impl FnOnce() -> Result<V, E> + Send + 'static,
    ) -> Ticket<V, E>
    where
        K: Borrow<Q> + Send + Sync + 'static,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
        S: BuildHasher + Send + Sync + 'static,
        V: Send + Sync + 'static,
        E: Send + Sync + 'static,
    {
        match self.join(key) {
            Joined::Leader(leader) => {
                let (duty, flight) = leader.hand_over();
                let ticket = Ticket(Seat::new(flight, Role::Led));
                let mut owned = OwnedLeader {
                    group: Arc::clone(self),
                    duty,
                };
                spawn(Job(Box::new(move || owned.run(f))));
                ticket
            }
            Joined::Follower(follower) => Ticket(follower.into_seat()),
        }
    }
}

/// A [`Leader`](crate::Leader) that keeps its group alive.
struct OwnedLeader<V, E, K, S> {
    group: Arc<FlightGroup<V, E, K, S>>,
    duty: Duty<V, E>,
}

impl<V, E, K, S> OwnedLeader<V, E, K, S> {
    fn run(&mut self, f: impl FnOnce() -> Result<V, E>) {
        // The panic, if it was one, is with the ticket now.
        if let Ok(result) = self.duty.run(&self.group, f) {
            self.duty.end(&self.group, result);
        }
    }
}

impl<V, E, K, S> Drop for OwnedLeader<V, E, K, S> {
    fn drop(&mut self) {
        self.duty.abandon(&self.group);
    }
}

/// The function of a flight, for some thread to run; from [`FlightGroup::start`].
///
/// One type, whatever the group's: `Send + 'static`, so a channel or a pool can carry it. Dropped
/// unrun, it abandons its flight. Neither run nor dropped, it holds its key.
///
/// ```
/// use shared_calls::{CallError, FlightGroup};
/// use std::sync::Arc;
///
/// let group = Arc::new(FlightGroup::<u32, std::io::Error>::new());
/// let ticket = group.start("k", drop, || Ok(42));
/// assert!(matches!(ticket.wait().result, Err(CallError::Abandoned)));
/// ```
#[must_use = "a job that is dropped unrun abandons its flight"]
pub struct Job(Box<dyn FnOnce() + Send>);

impl Job {
    /// Runs the function, lands the flight and wakes everyone on it. Does not panic if the function
    /// does.
    ///
    /// ```
    /// use shared_calls::FlightGroup;
    /// use std::sync::{mpsc, Arc};
    ///
    /// let (jobs, worker) = mpsc::channel();
    /// let group = Arc::new(FlightGroup::<u32, std::io::Error>::new());
    /// let ticket = group.start("k", |job| jobs.send(job).unwrap(), || Ok(42));
    /// assert!(!ticket.is_done());
    /// worker.recv().unwrap().run();
    /// assert!(ticket.is_done());
    /// ```
    pub fn run(self) {
        (self.0)();
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").finish_non_exhaustive()
    }
}

/// A claim to the outcome of a flight, from [`FlightGroup::start`].
///
/// Dropping it disturbs nobody.
///
/// ```
/// use shared_calls::{FlightGroup, Role};
/// use std::sync::Arc;
///
/// let group = Arc::new(FlightGroup::<u32, std::io::Error>::new());
/// let ticket = group.start("k", |job| job.run(), || Ok(42));
/// let outcome = ticket.wait();
/// assert_eq!((outcome.role, outcome.followers), (Role::Led, 0));
/// ```
#[must_use = "a ticket is there to be waited for"]
pub struct Ticket<V, E>(Seat<V, E>);

impl<V: Clone, E> Ticket<V, E> {
    /// Blocks until the flight has landed and gives its outcome, however it ended (G4); or it is
    /// refused, with [`Deadlock`](crate::CallError::Deadlock), if that would
    /// [never end](crate#deadlocks) (G9): inside a function that the job waits for.
    ///
    /// # Panics
    ///
    /// If the value's `Clone` panics.
    ///
    /// See [`Ticket`] for an example.
    pub fn wait(self) -> Outcome<V, E> {
        let outcome = self.0.into_outcome_unless(Deadline::Never, |_| false);
        outcome.expect("never asks again")
    }

    /// Blocks until the flight has landed, but not longer than `timeout`: then `None`, and the
    /// ticket is good for another try. ([`Duration::MAX`] never passes: to wait that long may be
    /// refused.)
    ///
    /// # Panics
    ///
    /// If the value's `Clone` panics.
    ///
    /// ```
    /// use shared_calls::FlightGroup;
    /// use std::sync::{mpsc, Arc};
    /// use std::time::Duration;
    ///
    /// let (jobs, worker) = mpsc::channel();
    /// let group = Arc::new(FlightGroup::<u32, std::io::Error>::new());
    /// let ticket = group.start("k", |job| jobs.send(job).unwrap(), || Ok(42));
    /// assert!(ticket.wait_timeout(Duration::from_millis(1)).is_none());
    /// # drop(worker);
    /// ```
    #[must_use]
    pub fn wait_timeout(&self, timeout: Duration) -> Option<Outcome<V, E>> {
        self.0.wait_until(Deadline::after(timeout))
    }

    /// The outcome, if the flight has landed. Does not block.
    ///
    /// # Panics
    ///
    /// If the value's `Clone` panics.
    ///
    /// ```
    /// use shared_calls::FlightGroup;
    /// use std::sync::Arc;
    ///
    /// let group = Arc::new(FlightGroup::<u32, std::io::Error>::new());
    /// let ticket = group.start("k", |job| job.run(), || Ok(42));
    /// assert_eq!(ticket.try_wait().unwrap().result.unwrap(), 42);
    /// ```
    #[must_use]
    pub fn try_wait(&self) -> Option<Outcome<V, E>> {
        self.0.wait_until(Deadline::Passed)
    }
}

impl<V, E> Ticket<V, E> {
    /// Whether the flight has landed, so that `wait` would not block.
    ///
    /// See [`Job::run`] for an example.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.0.is_done()
    }
}

impl<V, E> fmt::Debug for Ticket<V, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("is_done", &self.is_done())
            .finish_non_exhaustive()
    }
}
