//! Start now, collect later: a flight whose function another thread runs.

use std::{
    cell::Cell, fmt, hash::BuildHasher, mem::ManuallyDrop, panic::catch_unwind,
    panic::AssertUnwindSafe, time::Duration,
};

use crate::{
    flight::Flight, follower::Follower, group::FlightGroup, join::Joined, latch::Latch,
    leader::Caller, leader::Leader, lookup::Lookup, map::Waiter, options::Options,
    outcome::Outcome, outcome::Role, panics::discard, panics::drop_caught, panics::drop_payload,
    panics::resume_in_drop, panics::then_drop, panics::SafeDrop, request::Request, sync::Arc,
};

impl<V, E, K, S> FlightGroup<V, E, K, S> {
    /// Starts `f` for the key on another thread, or follows the call that is in progress, and
    /// returns a [`Ticket`] for the outcome: x/sync's `DoChan`. Does not wait for the flight.
    ///
    /// If this call leads, `spawn` gets a [`Job`] to run: on a thread pool
    /// (`|job| pool.execute(move || job.run())`), a new thread, a worker at the other end of a
    /// channel, or on this thread (`|job| job.run()`). `spawn` is called outside every lock. Calls
    /// and tickets for one key share one flight. The ticket of the call that leads has
    /// [`Role::Led`] and is not a follower.
    ///
    /// A panic in `f` reaches all tickets and followers as
    /// [`CallError::Panicked`](crate::CallError::Panicked) and goes no further: [`Job::run`]
    /// returns. (In x/sync it ends the process.) A job that is dropped unrun, as by a pool that shuts
    /// down, abandons the flight: its callers get
    /// [`CallError::Abandoned`](crate::CallError::Abandoned), and the key is free.
    ///
    /// # Panics
    ///
    /// If `spawn` panics. A job that it has not passed on is then dropped unrun. Also as
    /// [`FlightGroup::join`] does.
    ///
    /// # Hangs
    ///
    /// If `spawn` itself waits for the key before the job has run.
    ///
    /// A thread of the pool that waits for a flight runs no job meanwhile. If all of them wait for
    /// jobs that are still in the pool's queue, they hang. Let a pool either run jobs or wait for
    /// them, or wait with a time limit.
    ///
    /// ```
    /// use shared_calls::FlightGroup;
    /// use std::thread;
    ///
    /// let group = FlightGroup::<u32, std::io::Error>::new();
    /// let ticket = group.start("k", |job| drop(thread::spawn(move || job.run())), || Ok(42));
    /// // ... something else, meanwhile ...
    /// assert_eq!(ticket.wait().result?, 42);
    /// # Ok::<(), shared_calls::CallError<std::io::Error>>(())
    /// ```
    #[doc(alias = "DoChan")]
    pub fn start<Q: Lookup<K> + ?Sized>(
        &self,
        key: &Q,
        spawn: impl FnOnce(Job),
        f: impl FnOnce() -> Result<V, E> + Send + 'static,
    ) -> Ticket<V, E>
    where
        S: BuildHasher,
        Self: Send + 'static,
    {
        self.request(key).start(spawn, f)
    }
}

impl<V, E, Q, K, S> Request<'_, '_, V, E, Q, K, S>
where
    Q: Lookup<K> + ?Sized,
    S: BuildHasher,
    FlightGroup<V, E, K, S>: Send + 'static,
{
    /// [`FlightGroup::start`], with these options.
    ///
    /// The time limit counts from here and ends the ticket's [`wait`](Ticket::wait), with
    /// [`CallError::TimedOut`](crate::CallError::TimedOut), while the job goes on. So it binds the
    /// caller whose job leads as well, unlike in a [`call`](Request::call), which does not interrupt
    /// its own function.
    ///
    /// For [`next_flight`](Request::next_flight) this blocks until the flight in front has ended or
    /// was given up, or the time limit has passed. A refused request gives a ticket that has its
    /// outcome already. [`takeover`](Request::takeover) and
    /// [`alone_on_deadlock`](Request::alone_on_deadlock) have no function left to run and do not
    /// apply.
    ///
    /// ```
    /// use shared_calls::{CallError, FlightGroup};
    /// use std::sync::mpsc;
    /// use std::time::Duration;
    ///
    /// let group = FlightGroup::<u32, std::io::Error>::new();
    /// let (jobs, worker) = mpsc::channel();
    /// let request = group.request("k").timeout(Duration::from_millis(1));
    /// let ticket = request.start(|job| jobs.send(job).unwrap(), || Ok(42));
    /// assert!(matches!(ticket.wait().result, Err(CallError::TimedOut)));
    /// worker.recv().unwrap().run(); // The job goes on.
    /// assert_eq!(group.stats().led, 1);
    /// ```
    pub fn start(
        self,
        spawn: impl FnOnce(Job),
        f: impl FnOnce() -> Result<V, E> + Send + 'static,
    ) -> Ticket<V, E> {
        let f = SafeDrop::new(f);
        let run = |leader: Leader<'_, _, _, _, _>| run_job(leader, |_| f.into_inner()());
        self.start_as(spawn, |_| run)
    }

    /// Like [`start`](Self::start), for a function that asks whether anyone waits for its result, in
    /// order to stop early.
    ///
    /// See [`Flight`] for an example.
    pub fn start_with(
        self,
        spawn: impl FnOnce(Job),
        f: impl FnOnce(&Flight<'_>) -> Result<V, E> + Send + 'static,
    ) -> Ticket<V, E>
    where
        K: Send + 'static,
    {
        let f = SafeDrop::new(f);
        self.start_as(spawn, |key| {
            // For the list of given-up flights, should the function find that nobody waits.
            let own = SafeDrop::new(Cell::new(Some(key.to_key())));
            move |leader: Leader<'_, _, _, _, _>| {
                let key = || own.take().expect("a flight is given up once");
                let f = f.into_inner();
                let f = |it: &Leader<'_, _, _, _, _>| Flight::show(Some(it), || false, key, f);
                run_job(leader, f);
                drop_caught(own);
            }
        })
    }

    /// `job` makes what runs the function and ends the flight.
    fn start_as<R>(self, spawn: impl FnOnce(Job), job: impl FnOnce(&Q) -> R) -> Ticket<V, E>
    where
        R: FnOnce(Leader<'_, V, E, K, S>) + Send + 'static,
    {
        let spawn = SafeDrop::new(spawn);
        let (group, key, options) = self.into_parts();
        let mut options = Options { transferable: true, ..options };
        let deadline = options.fix_deadline();
        let leader = match group.arrive_in_turn(key, &options) {
            Joined::Leader(leader) => leader,
            Joined::Follower(follower) => {
                // Here, because a `Drop` that panics on return leaks what is returned.
                return then_drop((spawn, job), |_| Ticket(follower));
            }
        };
        let run = job(key);
        let flight = leader.caller.flight;
        let events = leader.caller.events.clone();
        let mut ticket = Follower::new(&group.shared.counts, Caller { events, ..leader.caller });
        ticket.role = Role::Led;
        ticket.deadline = deadline;
        ticket.waiter = leader.with_latch(|latch| {
            let latch = latch.get_or_insert_with(Latch::new);
            latch.set_ticket(true);
            let held_by = Some((flight, latch.since()));
            Waiter { latch: Arc::clone(latch), held_by, queued: false }
        });
        let caller = ManuallyDrop::new(leader).caller.take();
        let mut started = Started { group: Some(group.clone()), caller, run: Some(run) };
        spawn.into_inner()(Job(Box::new(move || {
            if let Some(run) = started.run.take() {
                started.lead().map(run);
            }
        })));
        Ticket(ticket)
    }
}

/// Runs the function on the thread of a pool. A panic ends here, so that what the job holds is not
/// dropped while unwinding. A function's panic is with the tickets and followers by then.
fn run_job<V, E, K, S>(
    leader: Leader<'_, V, E, K, S>,
    f: impl FnOnce(&Leader<'_, V, E, K, S>) -> Result<V, E>,
) {
    let ran = catch_unwind(AssertUnwindSafe(|| leader.group.run(leader, f)));
    ran.map_or_else(drop_payload, drop_caught);
}

/// What a job holds: a lead, the group, and what runs the function.
struct Started<V, E, K, S, R> {
    group: Option<FlightGroup<V, E, K, S>>,
    caller: Caller,
    /// `None` once it has run.
    run: Option<R>,
}

impl<V, E, K, S, R> Started<V, E, K, S, R> {
    fn lead(&mut self) -> Option<Leader<'_, V, E, K, S>> {
        Some(Leader { group: self.group.as_ref()?, caller: self.caller.take() })
    }
}

impl<V, E, K, S, R> Drop for Started<V, E, K, S, R> {
    /// A job that has not run abandons its flight, before the `Drop` of what its function has captured.
    fn drop(&mut self) {
        let abandoned = if self.run.is_some() { discard(self.lead()) } else { None };
        let run = self.run.take().and_then(discard);
        resume_in_drop([abandoned, run, self.group.take().and_then(discard)]);
    }
}

/// The function of a flight, for another thread to run. From [`FlightGroup::start`].
///
/// It has no type parameters and is `Send + 'static`, so any channel or pool can carry it. If it is
/// dropped unrun, it abandons its flight. Until it is run or dropped, its key is taken.
///
/// ```
/// use shared_calls::{CallError, FlightGroup};
///
/// let group = FlightGroup::<u32, std::io::Error>::new();
/// let ticket = group.start("k", drop, || Ok(42));
/// assert!(matches!(ticket.wait().result, Err(CallError::Abandoned)));
/// ```
#[must_use = "a job that is dropped unrun abandons its flight"]
pub struct Job(Box<dyn FnOnce() + Send>);

impl Job {
    /// Runs the function and ends the flight with its result. Does not panic if the function does.
    ///
    /// ```
    /// use shared_calls::FlightGroup;
    /// use std::sync::mpsc;
    ///
    /// let (jobs, worker) = mpsc::channel();
    /// let group = FlightGroup::<u32, std::io::Error>::new();
    /// let ticket = group.start("k", |job| jobs.send(job).unwrap(), || Ok(42));
    /// assert!(!ticket.is_done());
    /// worker.recv().unwrap().run();
    /// assert!(ticket.is_done());
    /// ```
    pub fn run(self) {
        // The flight has ended by then, whatever panics: keys and the group itself may be dropped.
        let ran = catch_unwind(AssertUnwindSafe(self.0));
        ran.unwrap_or_else(drop_payload);
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").finish_non_exhaustive()
    }
}

/// A handle to the outcome of a flight, from [`FlightGroup::start`].
///
/// Dropping it does not affect the flight, unless the function asks whether its result
/// [is wanted](crate::Flight::is_wanted).
///
/// ```
/// use shared_calls::{FlightGroup, Role};
///
/// let group = FlightGroup::<u32, std::io::Error>::new();
/// let ticket = group.start("k", |job| job.run(), || Ok(42));
/// let outcome = ticket.wait();
/// assert_eq!((outcome.role, outcome.followers), (Role::Led, 0));
/// ```
#[must_use = "a ticket is there to be waited for"]
pub struct Ticket<V, E>(Follower<V, E>);

impl<V: Clone, E> Ticket<V, E> {
    /// Blocks until the flight has landed, and returns its outcome, however it ended (G4).
    ///
    /// If the request had a time limit and that passes first, the outcome is
    /// [`TimedOut`](crate::CallError::TimedOut). If the wait would [never end](crate#deadlocks), it
    /// is [`Deadlock`](crate::CallError::Deadlock) (G9).
    ///
    /// # Panics
    ///
    /// If the value's `Clone` panics.
    ///
    /// See [`Ticket`] for an example.
    pub fn wait(self) -> Outcome<V, E> {
        self.0.wait()
    }

    /// Blocks until the flight has landed, but not longer than `timeout`. Returns `None` if that has
    /// passed; the ticket can then wait again.
    ///
    /// The request's own time limit does not apply here, unless it passed before there was a flight to
    /// share: then the outcome is [`TimedOut`](crate::CallError::TimedOut). [`Duration::MAX`] never
    /// passes, so a wait of that length can be refused as a [deadlock](crate#deadlocks).
    ///
    /// # Panics
    ///
    /// If the value's `Clone` panics.
    ///
    /// ```
    /// use shared_calls::FlightGroup;
    /// use std::sync::mpsc;
    /// use std::time::Duration;
    ///
    /// let (jobs, worker) = mpsc::channel();
    /// let group = FlightGroup::<u32, std::io::Error>::new();
    /// let ticket = group.start("k", |job| jobs.send(job).unwrap(), || Ok(42));
    /// assert!(ticket.wait_timeout(Duration::from_millis(1)).is_none());
    /// # drop(worker);
    /// ```
    #[must_use]
    pub fn wait_timeout(&self, timeout: Duration) -> Option<Outcome<V, E>> {
        self.0.wait_timeout(timeout)
    }

    /// Returns the outcome if the flight has landed. Does not block.
    ///
    /// # Panics
    ///
    /// If the value's `Clone` panics.
    ///
    /// ```
    /// use shared_calls::FlightGroup;
    ///
    /// let group = FlightGroup::<u32, std::io::Error>::new();
    /// let ticket = group.start("k", |job| job.run(), || Ok(42));
    /// assert_eq!(ticket.try_wait().unwrap().result?, 42);
    /// # Ok::<(), shared_calls::CallError<std::io::Error>>(())
    /// ```
    #[must_use]
    pub fn try_wait(&self) -> Option<Outcome<V, E>> {
        self.0.try_wait()
    }
}

impl<V, E> Ticket<V, E> {
    /// Whether an outcome is there, so that `wait` would not block.
    ///
    /// See [`Job::run`] for an example.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.0.is_done()
    }
}

impl<V, E> fmt::Debug for Ticket<V, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("is_done", &self.is_done()).finish_non_exhaustive()
    }
}
