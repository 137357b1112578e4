//! A call with options: how long to wait, which flight to take part in, what to do when it fails.

use std::borrow::Borrow;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::time::{Duration, Instant};

use crate::calls::{SharedCalls, Unshared};
use crate::error::CallError;
use crate::group::{FlightGroup, Joined};
use crate::map::Wish;
use crate::outcome::Outcome;
use crate::sync::Deadline;

/// A call on its way, with options; from [`FlightGroup::request`].
///
/// The options are independent and may be given in any order; of one option given twice the last
/// counts, and [`timeout`](Self::timeout) and [`deadline`](Self::deadline) are one option.
///
/// ```
/// use shared_calls::FlightGroup;
/// use std::time::Duration;
///
/// let users = FlightGroup::<String, std::io::Error>::new();
/// let user = users
///     .request("user:42")
///     .timeout(Duration::from_millis(200)) // as a follower
///     .max_age(Duration::from_secs(5)) // don't follow a leader that has been at it for longer
///     .takeover(1) // if the leader panics, try once more
///     .call(|| Ok("Ada".to_owned()))?;
/// # assert_eq!(user, "Ada");
/// # Ok::<(), shared_calls::CallError<std::io::Error>>(())
/// ```
#[must_use = "a request does nothing until it is called or joined"]
pub struct Request<'g, 'k, V, E, Q: ?Sized, K = String, S = RandomState> {
    group: &'g FlightGroup<V, E, K, S>,
    key: &'k Q,
    wish: Wish,
    patience: Patience,
    takeovers: u32,
    alone_on_deadlock: bool,
}

#[derive(Clone, Copy, Debug)]
enum Patience {
    For(Duration),
    Until(Deadline),
}

impl<V, E, K, S> FlightGroup<V, E, K, S> {
    /// Begins a call with options.
    ///
    /// See [`Request`] for an example.
    pub fn request<'g, 'k, Q: ?Sized>(&'g self, key: &'k Q) -> Request<'g, 'k, V, E, Q, K, S> {
        Request {
            group: self,
            key,
            wish: Wish::default(),
            patience: Patience::Until(Deadline::Never),
            takeovers: 0,
            alone_on_deadlock: false,
        }
    }
}

impl<'g, V, E, Q: ?Sized, K, S> Request<'g, '_, V, E, Q, K, S> {
    /// How long this caller waits as a follower, counted from `call`, `call_ex` or `join`; then it
    /// gets [`CallError::TimedOut`].
    ///
    /// Whoever leads is not bound by it: nothing interrupts a function. A follower that times out
    /// leaves; the flight goes on, nobody else is disturbed, and no second execution starts (G8).
    /// An outcome that is ready beats a deadline that has passed, so a timeout of zero asks "is
    /// nobody at it, or are they done?". [`Duration::MAX`] never passes. A wait that
    /// ends in this way is never [refused](crate#deadlocks).
    ///
    /// ```
    /// use shared_calls::{CallError, FlightGroup};
    /// use std::time::Duration;
    ///
    /// let group = FlightGroup::<u32, std::io::Error>::new();
    /// let leader = group.join("k");
    /// let hasty = group.request("k").timeout(Duration::from_millis(1));
    /// assert!(matches!(hasty.call(|| Ok(1)), Err(CallError::TimedOut)));
    /// # drop(leader);
    /// ```
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.patience = Patience::For(timeout);
        self
    }

    /// Like [`timeout`](Self::timeout), with the instant given: that of the request that this call
    /// serves, say.
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
        self.patience = Patience::Until(Deadline::at(deadline));
        self
    }

    /// Takes part only in an execution that begins after this call did (G7): read-your-writes, for
    /// whoever has just changed what the function reads.
    ///
    /// While a flight is running for the key, all such calls share the one that is queued behind
    /// it: at most one runs, at most one is queued. When the first has ended, one of those who wait
    /// leads the next, with its own function; or another caller that arrives just then does, also
    /// one that did not ask for the next flight. So functions for one key should all do the same:
    /// if yours reads past a cache and theirs does not, take care of the cache by itself. If
    /// nothing is running the call leads at once, as any other.
    ///
    /// ```
    /// use shared_calls::{FlightGroup, Joined};
    /// use std::sync::Mutex;
    ///
    /// let database = Mutex::new("Ada");
    /// let group = FlightGroup::<&str, std::io::Error>::new();
    /// let read = || Ok(*database.lock().unwrap());
    ///
    /// // Somebody has read the old name and is not done yet.
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
        self.wish.next_flight = true;
        self
    }

    /// Gives up a flight that is older than this, as [`forget`](FlightGroup::forget) does, and
    /// leads a new one: so that a hung leader does not hold the key for ever. nginx calls it the
    /// lock's age.
    ///
    /// Of many such calls one leads, and the others follow it. The old flight still serves its own.
    /// The age is that of the leader's call, and is looked at when this call arrives and not while
    /// it waits: combine it with a [`timeout`](Self::timeout). A leader that hangs still has its
    /// thread: where a backend stays hung, every so often one more does. Ages are whole
    /// microseconds. On a queued flight the age is counted from when that took its place.
    ///
    /// ```
    /// use shared_calls::{FlightGroup, Role};
    /// use std::time::Duration;
    ///
    /// let group = FlightGroup::<u32, std::io::Error>::new();
    /// let hung = group.join("k");
    /// std::thread::sleep(Duration::from_millis(2));
    /// let impatient = group.request("k").max_age(Duration::from_millis(1));
    /// assert_eq!(impatient.call_ex(|| Ok(1)).role, Role::Led);
    /// # drop(hung);
    /// ```
    pub fn max_age(mut self, age: Duration) -> Self {
        self.wish.max_age = Some(age);
        self
    }

    /// If the leader panics or abandons the flight, asks again instead of giving that error, at
    /// most so many times.
    ///
    /// Of the followers that are willing, one leads next, with its own function, and the others
    /// follow it: never two at once. A leader that panicked still unwinds, also one that took over.
    /// An error that the function *returned* is an outcome like any other and is not tried again. A
    /// deadline that passes meanwhile counts: then the call gets [`CallError::TimedOut`].
    /// For `call` and `call_ex`; a [`join`](Self::join) has no function to take over with and
    /// ignores it.
    ///
    /// ```
    /// use shared_calls::{FlightGroup, Joined};
    ///
    /// let group = FlightGroup::<u32, std::io::Error>::new();
    /// let Joined::Leader(leader) = group.join("k") else { unreachable!() };
    /// std::thread::scope(|scope| {
    ///     let willing = scope.spawn(|| group.request("k").takeover(1).call(|| Ok(2)));
    ///     while leader.followers() < 1 {
    ///         std::thread::yield_now();
    ///     }
    ///     drop(leader); // Abandoned, for those who are not willing.
    ///     assert_eq!(willing.join().unwrap().unwrap(), 2);
    /// });
    /// ```
    pub fn takeover(mut self, times: u32) -> Self {
        self.takeovers = times;
        self
    }

    /// Where to wait would never end, runs this caller's own function, unshared, instead of giving
    /// [`CallError::Deadlock`].
    ///
    /// For functions that may ask for each other in a circle, and for rayon, where a thread that
    /// waits inside the function takes up other work meanwhile, which may ask for the same key; see
    /// [the recipe](crate::recipes#on-rayon) for what is not caught there. The function then runs
    /// beside the flight that it would have waited for, so this gives up G1, for this call alone:
    /// nobody follows it, and the group does not know of it. The outcome has
    /// [`Role::Led`](crate::Role::Led), and [`Stats`](crate::Stats) count it as deadlocked. A
    /// function that asks for its own key in this way without end overflows its stack, as any
    /// recursion. With a [`timeout`](Self::timeout) this does nothing: such a wait is never
    /// refused. For `call` and `call_ex`; a [`join`](Self::join) has no function to run and ignores
    /// it.
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
        self.alone_on_deadlock = true;
        self
    }
}

impl<'g, V, E, Q, K, S> Request<'g, '_, V, E, Q, K, S>
where
    K: Borrow<Q>,
    Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    S: BuildHasher,
{
    /// [`FlightGroup::call`], as the options have it.
    ///
    /// # Errors
    ///
    /// Those of [`FlightGroup::call`], and [`CallError::TimedOut`]. With a timeout or a deadline
    /// that will pass there is no [`CallError::Deadlock`].
    ///
    /// # Panics
    ///
    /// As [`FlightGroup::call`] does.
    ///
    /// ```
    /// let group = shared_calls::FlightGroup::<u32, std::io::Error>::new();
    /// assert_eq!(group.request("k").call(|| Ok(1)).unwrap(), 1);
    /// ```
    pub fn call(self, f: impl FnOnce() -> Result<V, E>) -> Result<V, CallError<E>>
    where
        V: Clone,
    {
        self.call_ex(f).result
    }

    /// [`FlightGroup::call_ex`], as the options have it. Errors and panics are those of
    /// [`call`](Self::call).
    ///
    /// ```
    /// let group = shared_calls::FlightGroup::<u32, std::io::Error>::new();
    /// assert!(group.request("k").call_ex(|| Ok(1)).fresh());
    /// ```
    pub fn call_ex(mut self, f: impl FnOnce() -> Result<V, E>) -> Outcome<V, E>
    where
        V: Clone,
    {
        let deadline = self.patience.begin();
        loop {
            let follower = match self.group.board(self.key, self.wish, deadline) {
                Joined::Leader(leader) => return leader.run(f),
                Joined::Follower(follower) => follower,
            };
            let outcome = follower.wait_unless(|error| {
                self.takeovers > 0 && matches!(error, CallError::Panicked(_) | CallError::Abandoned)
            });
            let Some(outcome) = outcome else {
                self.takeovers -= 1;
                // Whatever is in flight now began after the one that has just failed, and so after
                // this call.
                self.wish.next_flight = false;
                continue;
            };
            let deadlocked = matches!(outcome.result, Err(CallError::Deadlock(_)));
            if deadlocked && self.alone_on_deadlock {
                return Unshared.call_ex(self.key, f);
            }
            return outcome;
        }
    }

    /// [`FlightGroup::join`], as the options have it. The [`Follower`](crate::Follower) waits no
    /// longer than the deadline.
    ///
    /// For [`next_flight`](Self::next_flight) this blocks until that flight has begun, or the
    /// deadline has passed, or would never end: the follower then has [`CallError::TimedOut`] or
    /// [`CallError::Deadlock`] for its outcome.
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
        let deadline = self.patience.begin();
        self.group.board(self.key, self.wish, deadline)
    }
}

impl Patience {
    /// One instant, fixed at the call: no wake-up starts the time again.
    fn begin(self) -> Deadline {
        match self {
            Self::For(patience) => Deadline::after(patience),
            Self::Until(deadline) => deadline,
        }
    }
}

impl<V, E, Q: ?Sized, K, S> fmt::Debug for Request<'_, '_, V, E, Q, K, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("wish", &self.wish)
            .field("patience", &self.patience)
            .field("takeovers", &self.takeovers)
            .field("alone_on_deadlock", &self.alone_on_deadlock)
            .finish_non_exhaustive()
    }
}
