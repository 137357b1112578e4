//! A call with options: how long to wait, which flight to take part in, what to do when it fails.

use std::{
    collections::hash_map::RandomState, fmt, hash::BuildHasher, time::Duration, time::Instant,
};

use crate::{
    error::CallError, flight::Flight, group::FlightGroup, join::Joined, leader::Leader,
    lookup::Lookup, options::Options, options::TimeLimit, outcome::Outcome, panics::then_drop,
    sync::Deadline,
};

/// A call with options, from [`FlightGroup::request`].
///
/// The options are independent and may be given in any order. If one is given twice, the last counts.
/// [`timeout`](Self::timeout) and [`deadline`](Self::deadline) set the same option.
///
/// ```
/// use shared_calls::FlightGroup;
/// use std::time::Duration;
///
/// let users = FlightGroup::<String, std::io::Error>::new();
/// let user = users
///     .request("user:42")
///     .timeout(Duration::from_millis(200)) // as a follower
///     .max_age(Duration::from_secs(5)) // give up a flight that is older
///     .takeover(1) // if the leader panics, try once more
///     .call(|| Ok("Ada".to_owned()))?;
/// # assert_eq!(user, "Ada");
/// # Ok::<(), shared_calls::CallError<std::io::Error>>(())
/// ```
#[must_use = "a request does nothing until it is called or joined"]
pub struct Request<'g, 'k, V, E, Q: ?Sized, K = String, S = RandomState> {
    group: &'g FlightGroup<V, E, K, S>,
    key: &'k Q,
    own: Options,
    defaults: Options,
    willing: Option<Predicate<'k, E>>,
}

/// Says after which errors of the function a call takes over.
pub(crate) type Predicate<'k, E> = Box<dyn Fn(&E) -> bool + Send + 'k>;

impl<V, E, K, S> FlightGroup<V, E, K, S> {
    /// Begins a call with options.
    ///
    /// See [`Request`] for an example.
    pub fn request<'g, 'k, Q: ?Sized>(&'g self, key: &'k Q) -> Request<'g, 'k, V, E, Q, K, S> {
        let (own, defaults) = (Options::default(), self.shared.defaults);
        Request { group: self, key, own, defaults, willing: None }
    }
}

impl<'g, 'k, V, E, Q: ?Sized, K, S> Request<'g, 'k, V, E, Q, K, S> {
    /// Limits how long this caller waits for another call's outcome. After that it gets
    /// [`CallError::TimedOut`].
    ///
    /// In a call, the limit counts from where the caller begins to wait, and does not bind a caller
    /// that leads: nothing interrupts a function. With [`start`](Self::start) it counts from there
    /// and binds the caller that leads as well.
    ///
    /// A follower that times out leaves. The flight goes on, nobody else is disturbed, and no second
    /// execution starts (G8). An outcome that is ready beats a deadline that has passed.
    /// [`Duration::MAX`] never passes. A wait that nothing but this limit could end is
    /// [refused](crate#deadlocks) at once.
    ///
    /// ```
    /// use shared_calls::{CallError, FlightGroup};
    /// use std::time::Duration;
    ///
    /// let group = FlightGroup::<u32, std::io::Error>::new();
    /// let leader = group.join("k");
    /// let request = group.request("k").timeout(Duration::from_millis(1));
    /// assert!(matches!(request.call(|| Ok(1)), Err(CallError::TimedOut)));
    /// # drop(leader);
    /// ```
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.own.time_limit = Some(TimeLimit::For(timeout));
        self
    }

    /// Like [`timeout`](Self::timeout), with the instant at which the wait ends: for example the
    /// deadline of the HTTP request that this call serves.
    ///
    /// ```
    /// use shared_calls::{CallError, FlightGroup};
    /// use std::time::Instant;
    ///
    /// let group = FlightGroup::<u32, std::io::Error>::new();
    /// let leader = group.join("k");
    /// let late = group.request("k").deadline(Instant::now());
    /// assert!(matches!(late.call(|| Ok(1)), Err(CallError::TimedOut)));
    /// # drop(leader);
    /// ```
    pub fn deadline(mut self, deadline: Instant) -> Self {
        self.own.time_limit = Some(TimeLimit::Until(Deadline::at(deadline)));
        self
    }

    /// Shares only an execution that begins after this call did (G7). This is read-your-writes, for
    /// a caller that has just changed what the function reads.
    ///
    /// While a flight is running for the key, all such calls share the one that is queued behind it:
    /// at most one runs and at most one is queued. When the first has ended, one of the queued
    /// callers leads the next, with its own function, or a caller that arrives just then does, even
    /// one without this option. So functions for one key should all do the same. If nothing is
    /// running, the call leads at once.
    ///
    /// ```
    /// use shared_calls::{FlightGroup, Joined};
    /// use std::sync::Mutex;
    ///
    /// let database = Mutex::new("Ada");
    /// let group = FlightGroup::<&str, std::io::Error>::new();
    /// let read = || Ok(*database.lock().unwrap());
    ///
    /// // Another thread has read the old name and is not done yet.
    /// let Joined::Leader(slow) = group.join("user:42") else { unreachable!() };
    /// let old = read();
    ///
    /// *database.lock().unwrap() = "Grace";
    /// std::thread::scope(|scope| {
    ///     let writer = scope.spawn(|| group.request("user:42").next_flight().call(read).unwrap());
    ///     assert_eq!(slow.complete(old).result.unwrap(), "Ada");
    ///     assert_eq!(writer.join().unwrap(), "Grace");
    /// });
    /// ```
    pub fn next_flight(mut self) -> Self {
        self.own.next_flight = true;
        self
    }

    /// Gives up a flight that is older than this, as [`forget`](FlightGroup::forget) does, and leads
    /// a new one. So a leader that hangs does not hold the key forever. (nginx has this as
    /// `proxy_cache_lock_age`.)
    ///
    /// The limit applies on arrival and while the call waits. Of many such calls one gives the flight
    /// up and leads. The others follow the new flight, or arrive again if that has ended. The old
    /// flight still serves the callers that stay with it.
    ///
    /// The age counts from when a caller first waited for the flight, queued behind it, or was
    /// refused a place. Before that, the flight held nobody up. The age of a flight that was
    /// [started](Self::start) counts from its start. With an age of zero this call never follows.
    ///
    /// A leader that hangs keeps its thread. While a backend hangs, each such period takes one more
    /// thread. If a [`timeout`](Self::timeout) passes first, the call gets
    /// [`CallError::TimedOut`].
    ///
    /// For [`join`](Self::join) and [`start`](Self::start) the limit applies on arrival only,
    /// because they have no function left to lead with later.
    ///
    /// ```
    /// use shared_calls::{FlightGroup, Role};
    /// use std::time::Duration;
    ///
    /// let group = FlightGroup::<u32, std::io::Error>::new();
    /// let hung = group.join("k");
    /// let request = group.request("k").max_age(Duration::from_millis(2));
    /// let outcome = request.call_ex(|| Ok(1)); // waits for two milliseconds
    /// assert_eq!(outcome.role, Role::Led);
    /// # drop(hung);
    /// ```
    pub fn max_age(mut self, age: Duration) -> Self {
        self.own.max_age = Some(age);
        self
    }

    /// Refuses this call at once, with [`CallError::Overloaded`], if this many callers are waiting
    /// for the flight already (G13). So one slow key does not take all threads of a pool.
    ///
    /// The number is exact, however many callers arrive at the same time. A caller has its place until
    /// it has left, also while it finds out that its wait is a deadlock. Callers in the queue for
    /// the [next flight](Self::next_flight) are counted separately. Tickets that follow count; the
    /// ticket of the call that leads does not. Each call applies its own number. With 0, this call
    /// leads or is refused.
    ///
    /// ```
    /// use shared_calls::{CallError, FlightGroup};
    ///
    /// let group = FlightGroup::<u32, std::io::Error>::new();
    /// let leader = group.join("k");
    /// let follower = group.join("k");
    /// let refused = group.request("k").max_followers(1).call(|| Ok(1));
    /// assert!(matches!(refused, Err(CallError::Overloaded)));
    /// # drop(leader);
    /// ```
    pub fn max_followers(mut self, followers: usize) -> Self {
        self.own.max_followers = Some(followers);
        self
    }

    /// If the leader panics or abandons the flight, this call asks again instead of returning that
    /// error, at most this many times.
    ///
    /// Of the followers with this option, one leads next, with its own function. The others follow
    /// it or lead after it: never two at once. A leader that panics still unwinds, even one that took
    /// over. An error that the function *returned* is not tried again; see
    /// [`takeover_if`](Self::takeover_if).
    /// The deadline keeps running: if it has passed when the flight fails, the call gets that
    /// flight's error, and if it passes later, [`CallError::TimedOut`].
    ///
    /// For calls only. [`join`](Self::join) and [`start`](Self::start) have no function to take over
    /// with.
    ///
    /// ```
    /// use shared_calls::{FlightGroup, Joined};
    ///
    /// let group = FlightGroup::<u32, std::io::Error>::new();
    /// let Joined::Leader(leader) = group.join("k") else { unreachable!() };
    /// std::thread::scope(|scope| {
    ///     let follower = scope.spawn(|| group.request("k").takeover(1).call(|| Ok(2)));
    ///     while leader.followers() < 1 {
    ///         std::thread::yield_now();
    ///     }
    ///     drop(leader); // Without the option, the follower would get `Abandoned`.
    ///     assert_eq!(follower.join().unwrap().unwrap(), 2);
    /// });
    /// ```
    pub fn takeover(mut self, times: u32) -> Self {
        self.own.takeover = Some(times);
        self.willing = None;
        self
    }

    /// Like [`takeover`](Self::takeover), and also takes over after an error of the function for
    /// which `willing` returns `true`. That is for errors that are the leader's own, such as its
    /// deadline or its credentials.
    ///
    /// The two set the same option, and the last one given counts. `willing` runs on this caller's
    /// thread, outside every lock. A panic in it unwinds out of this call only.
    ///
    /// ```
    /// use shared_calls::{FlightGroup, Joined};
    ///
    /// #[derive(Debug, PartialEq)]
    /// enum QueryError {
    ///     Cancelled,
    ///     NotFound,
    /// }
    ///
    /// let group = FlightGroup::<u32, QueryError>::new();
    /// let Joined::Leader(leader) = group.join("k") else { unreachable!() };
    /// std::thread::scope(|scope| {
    ///     let willing = scope.spawn(|| {
    ///         let request = group.request("k").takeover_if(1, |e| *e == QueryError::Cancelled);
    ///         request.call(|| Ok(2))
    ///     });
    ///     while leader.followers() < 1 {
    ///         std::thread::yield_now();
    ///     }
    ///     let _ = leader.complete(Err(QueryError::Cancelled));
    ///     assert_eq!(willing.join().unwrap(), Ok(2));
    /// });
    /// ```
    pub fn takeover_if(mut self, times: u32, willing: impl Fn(&E) -> bool + Send + 'k) -> Self {
        self.own.takeover = Some(times);
        self.willing = Some(Box::new(willing));
        self
    }

    /// If the wait would be a deadlock, runs this caller's own function, unshared, instead of
    /// returning [`CallError::Deadlock`].
    ///
    /// For functions that may ask for each other in a cycle, and for rayon, where a thread that
    /// waits inside the function takes up other work meanwhile, which may ask for the same key. See
    /// [the recipe](crate::recipes#on-rayon) for what is not detected there.
    ///
    /// The function runs beside the flight that it would have waited for. This gives up G1 for this
    /// call alone, and its own function is not one of the executions that G5 orders. Nobody follows
    /// it. The outcome has [`Role::Led`](crate::Role::Led), and [`Stats`](crate::Stats) count it as
    /// deadlocked. A function that asks for its own key in this
    /// way without end overflows its stack, like any recursion.
    ///
    /// For calls only. [`join`](Self::join) and [`start`](Self::start) have no function left to run.
    ///
    /// ```
    /// let group = shared_calls::FlightGroup::<u32, ()>::new();
    /// let outer = group.call("k", || {
    ///     let inner = group.request("k").alone_on_deadlock().call(|| Ok(1));
    ///     Ok(inner.unwrap() + 1)
    /// });
    /// assert_eq!(outer.unwrap(), 2);
    /// ```
    pub fn alone_on_deadlock(mut self) -> Self {
        self.own.alone_on_deadlock = true;
        self
    }

    /// Drops the group's [defaults](crate::Builder). The request's own options stay, wherever this
    /// stands among them.
    ///
    /// ```
    /// use shared_calls::FlightGroup;
    /// use std::time::Duration;
    ///
    /// let group = FlightGroup::<u32, ()>::builder().timeout(Duration::ZERO).build();
    /// let request = group.request("k").without_defaults();
    /// assert_eq!(request.call(|| Ok(1)), Ok(1));
    /// ```
    pub fn without_defaults(mut self) -> Self {
        self.defaults = Options::default();
        self
    }

    fn options(&self) -> Options {
        self.own.or(&self.defaults)
    }

    pub(crate) fn into_parts(self) -> (&'g FlightGroup<V, E, K, S>, &'k Q, Options) {
        (self.group, self.key, self.options())
    }
}

impl<V: Clone, E, Q: Lookup<K> + ?Sized, K, S: BuildHasher> Request<'_, '_, V, E, Q, K, S> {
    /// [`FlightGroup::call`] with these options.
    ///
    /// # Errors
    ///
    /// Those of [`FlightGroup::call`], and [`CallError::TimedOut`] and [`CallError::Overloaded`] with
    /// such options.
    ///
    /// # Panics
    ///
    /// As [`FlightGroup::call`] does.
    ///
    /// ```
    /// let group = shared_calls::FlightGroup::<u32, std::io::Error>::new();
    /// assert_eq!(group.request("k").call(|| Ok(1))?, 1);
    /// # Ok::<(), shared_calls::CallError<std::io::Error>>(())
    /// ```
    pub fn call(self, f: impl FnOnce() -> Result<V, E>) -> Result<V, CallError<E>> {
        self.call_ex(f).result
    }

    /// [`FlightGroup::call_ex`] with these options. Errors and panics are those of
    /// [`call`](Self::call).
    ///
    /// ```
    /// let group = shared_calls::FlightGroup::<u32, std::io::Error>::new();
    /// assert!(group.request("k").call_ex(|| Ok(1)).fresh());
    /// ```
    pub fn call_ex(self, f: impl FnOnce() -> Result<V, E>) -> Outcome<V, E> {
        let options = self.options();
        self.call_as(options, |_| f())
    }

    /// Like [`call`](Self::call), for a function that asks whether anyone waits for its result, in
    /// order to stop early.
    ///
    /// A time limit counts from here.
    ///
    /// See [`Flight`] for an example.
    pub fn call_with(self, f: impl FnOnce(&Flight<'_>) -> Result<V, E>) -> Result<V, CallError<E>> {
        let mut options = self.options();
        let deadline = options.fix_deadline();
        let key = self.key;
        let outcome = self.call_as(options, |leader| {
            Flight::show(leader, || !deadline.has_passed(), || key.to_key(), f)
        });
        outcome.result
    }

    fn call_as(
        self,
        options: Options,
        f: impl FnOnce(Option<&Leader<'_, V, E, K, S>>) -> Result<V, E>,
    ) -> Outcome<V, E> {
        let Self { group, key, willing, .. } = self;
        then_drop(willing, |willing| match group.arrive(key, &options) {
            Joined::Leader(leader) => {
                Outcome::of_leader(group.run(leader, |leader| f(Some(leader))))
            }
            Joined::Follower(follower) => group.wait(key, &options, willing.as_ref(), follower, f),
        })
    }
}

impl<'g, V, E, Q: Lookup<K> + ?Sized, K, S: BuildHasher> Request<'g, '_, V, E, Q, K, S> {
    /// [`FlightGroup::join`] with these options. The [`Follower`](crate::Follower) waits no longer
    /// than the deadline, which counts from here.
    ///
    /// With [`next_flight`](Self::next_flight) this blocks until that flight has begun or the
    /// deadline has passed. A refused join (overloaded, deadlocked, or timed out in the queue) is a
    /// `Follower` that has its outcome already.
    ///
    /// # Panics
    ///
    /// As [`FlightGroup::join`] does.
    ///
    /// ```
    /// use shared_calls::{CallError, FlightGroup, Joined};
    /// use std::time::Duration;
    ///
    /// let group = FlightGroup::<u32, std::io::Error>::new();
    /// let leader = group.join("k");
    /// let request = group.request("k").timeout(Duration::from_millis(1));
    /// let Joined::Follower(follower) = request.join() else { unreachable!() };
    /// assert!(matches!(follower.wait().result, Err(CallError::TimedOut)));
    /// # drop(leader);
    /// ```
    pub fn join(self) -> Joined<'g, V, E, K, S> {
        // The predicate is dropped here: a `Drop` that panics on return leaks what is returned.
        let (group, key, options) = self.into_parts();
        group.arrive_in_turn(key, &Options { transferable: true, ..options })
    }
}

impl<V, E, Q: ?Sized, K, S> fmt::Debug for Request<'_, '_, V, E, Q, K, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("options", &self.options()).finish_non_exhaustive()
    }
}
