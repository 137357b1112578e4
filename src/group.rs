//! The group and its algorithm, which is go-zero's.
//!
//! Under the map's lock, look the key up. If a flight is there, follow it: see `wait`. If none is
//! there, insert one, unlock, and run the function. Then **delete first, done later**: take the
//! flight out of the map, and only then publish its outcome. The three functions below,
//! [`arrive`](FlightGroup::arrive), [`run`](FlightGroup::run) and [`finish`](FlightGroup::finish),
//! are all of it.
//!
//! *Why in this order* (G2). A caller that knows the outcome learned it after the flight was
//! deleted, so its next call cannot find this flight again. In the other order, late callers would
//! share results that others have already got.
//!
//! *A flight that nobody shares needs no meeting place.* The map's entry says who leads. The first
//! caller that wants to wait puts a latch there. A leader that finds no latch when it deletes its
//! entry has no one to notify.
//!
//! *Why no caller is left waiting* (G4). A caller takes its place under the map's lock, on a latch
//! that the map names. The leader deletes the entry under the same lock, and publishes the outcome
//! on the latch that it finds there. A flight ends exactly once: by [`run`](FlightGroup::run), by
//! [`Leader::complete`], by a batch, or when its [`Leader`] is dropped.
//!
//! *What these functions do under the map's lock* calls no user code but a key's [`Lookup`]. The
//! function runs, and removed keys, values and errors are dropped, outside (G10).

use std::{
    collections::hash_map::RandomState, hash::BuildHasher, mem::size_of_val, mem::ManuallyDrop,
};

use crate::{
    counts::FollowerCounts, deadlock, error::CallError, join::Joined, leader::Caller,
    leader::Leader, leader::Leftovers, lookup::Lookup, map::Entry, map::Map,
    observer::GroupObserver, options::Options, outcome::Ending, outcome::Outcome, outcome::Role,
    sync::Arc, sync::Mutex, threads::FlightId,
};

/// A group of calls. Of calls with equal keys at the same time, one runs and all get its result.
///
/// `V` is the value, `E` the function's error, `K` the key and `S` the hasher. The default hasher is
/// randomly keyed, so keys may come from untrusted sources. A `FlightGroup` is a handle: a clone is
/// another handle to the same group. It is `Send` and `Sync` if all four are.
///
/// A group is not a cache: once a flight has ended, its value is not kept (G11). Each map of the group
/// keeps up to 4 retired keys for reuse, but none that was looked up by a `str` or slice of over 256
/// bytes. If your keys are large, look them up in such a form and not as a `&String`.
///
/// Callers that share a flight clone the value, each on its own thread and outside every lock; the
/// last one may get the value itself. If cloning is expensive, make `V` an `Arc`.
///
/// ```
/// use shared_calls::FlightGroup;
/// use std::io;
///
/// let users = FlightGroup::<String, io::Error>::new();
/// let name = users.call("user:42", || {
///     // Of all threads that ask for user:42 now, one runs this.
///     Ok("Ada".to_owned())
/// })?;
/// assert_eq!(name, "Ada");
/// # Ok::<(), shared_calls::CallError<io::Error>>(())
/// ```
///
/// # Keys
///
/// Keys are looked up by a borrowed form, as in a `HashMap`. The group makes the owned key itself, for
/// a caller that finds no flight to follow (and for every call, if it has an observer). For a key
/// without a borrowed form, such as a compound key, implement [`Lookup`].
///
/// ```
/// use shared_calls::FlightGroup;
///
/// let by_id = FlightGroup::<u8, std::io::Error, u64>::new();
/// assert_eq!(by_id.call(&42, || Ok(1))?, 1);
///
/// let by_tenant = FlightGroup::<u8, std::io::Error, (u32, String)>::new();
/// assert_eq!(by_tenant.call(&(7, "user:42".to_owned()), || Ok(2))?, 2);
/// # Ok::<(), shared_calls::CallError<std::io::Error>>(())
/// ```
pub struct FlightGroup<V, E, K = String, S = RandomState> {
    pub(crate) shared: Arc<Shared<V, E, K, S>>,
}

/// What all handles of a group share.
pub(crate) struct Shared<V, E, K, S> {
    /// One or more. A key belongs to one of them, by its hash.
    pub(crate) maps: Box<[Mutex<Map<V, E, K>>]>,
    pub(crate) hasher: S,
    pub(crate) defaults: Options,
    pub(crate) counts: Arc<FollowerCounts>,
    pub(crate) observer: Option<GroupObserver<K>>,
}

impl<V, E, K> FlightGroup<V, E, K> {
    /// An empty group.
    ///
    /// ```
    /// let group = shared_calls::FlightGroup::<u32, std::io::Error>::new();
    /// assert_eq!(group.call("k", || Ok(1))?, 1);
    /// # Ok::<(), shared_calls::CallError<std::io::Error>>(())
    /// ```
    ///
    /// Default type parameters count only where the type is written. Where it is inferred, write
    /// `<_, _>` for the value and the error:
    ///
    /// ```
    /// use shared_calls::{FlightGroup, SharedCalls};
    ///
    /// let calls: Box<dyn SharedCalls<u32, std::io::Error>> = Box::new(FlightGroup::<_, _>::new());
    /// ```
    #[must_use]
    #[doc(alias("NewSharedCalls", "NewSingleFlight"))]
    pub fn new() -> Self {
        Self::builder().build()
    }
}

impl<V, E, K, S> FlightGroup<V, E, K, S> {
    /// An empty group that hashes keys with `hasher`.
    ///
    /// A hasher that is not randomly keyed may be faster, but an attacker who chooses the keys can
    /// make all of them collide.
    ///
    /// ```
    /// use std::collections::hash_map::DefaultHasher;
    /// use std::hash::BuildHasherDefault;
    ///
    /// let hasher = BuildHasherDefault::<DefaultHasher>::default();
    /// let group = shared_calls::FlightGroup::<u32, std::io::Error, u64, _>::with_hasher(hasher);
    /// assert_eq!(group.call(&1, || Ok(1))?, 1);
    /// # Ok::<(), shared_calls::CallError<std::io::Error>>(())
    /// ```
    #[must_use]
    pub fn with_hasher(hasher: S) -> Self {
        FlightGroup::builder().hasher(hasher).build()
    }

    /// The map that a key with this hash belongs to.
    pub(crate) fn map(&self, hash: u64) -> &Mutex<Map<V, E, K>> {
        match &*self.shared.maps {
            [map] => map,
            // The high half of a product with 2⁶⁴ / φ, because a weak hasher leaves most bits unused.
            maps => {
                let mixed = hash.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
                &maps[((mixed * maps.len() as u64) >> 32) as usize]
            }
        }
    }
}

impl<V, E, K, S: BuildHasher> FlightGroup<V, E, K, S> {
    /// Runs `f`, or waits for the call on an equal key that is running now, and returns the result:
    /// go-zero's and x/sync's `Do`.
    ///
    /// At most one function per key runs at a time, but for the exceptions that G1 names. What it wrote
    /// is visible to every caller that gets its result (G5). A call that starts after another call
    /// has got a flight's outcome never shares that flight (G2).
    ///
    /// For a time limit and other options, see [`request`](Self::request).
    ///
    /// # Errors
    ///
    /// - [`Failed`](CallError::Failed): the function that ran returned an error.
    /// - [`Panicked`](CallError::Panicked): this call followed, and the leader's function panicked.
    /// - [`Abandoned`](CallError::Abandoned): this call followed, and the [`Leader`](crate::Leader)
    ///   or [`Job`](crate::Job) was dropped.
    /// - [`Deadlock`](CallError::Deadlock): this call was made inside a shared function, and its wait
    ///   would [never have ended](crate#deadlocks) (G9).
    /// - [`TimedOut`](CallError::TimedOut), [`Overloaded`](CallError::Overloaded): in a group with
    ///   such [defaults](crate::Builder).
    ///
    /// # Panics
    ///
    /// If `f` ran and panicked, with the same payload, after the flight has ended. Also if `Hash`,
    /// `Eq`, `Borrow`, `to_owned` or `Drop` of the key, `Clone` of the value, or `Drop` of the
    /// value or the error panics; other calls are not affected.
    ///
    /// # Hangs
    ///
    /// A follower waits for as long as the function runs. If all threads of a pool follow flights
    /// whose [jobs](crate::Job) are in that pool's queue, they hang, and so does a cycle that is
    /// [not detected](crate#deadlocks).
    ///
    /// ```
    /// use shared_calls::FlightGroup;
    /// use std::{fs, io};
    ///
    /// let files = FlightGroup::<usize, io::Error>::new();
    /// let lines = files.call("Cargo.toml", || {
    ///     let text = fs::read_to_string("Cargo.toml")?;
    ///     Ok(text.lines().count())
    /// })?;
    /// assert!(lines > 0);
    /// # Ok::<(), shared_calls::CallError<io::Error>>(())
    /// ```
    #[doc(alias = "Do")]
    pub fn call<Q, F>(&self, key: &Q, f: F) -> Result<V, CallError<E>>
    where
        Q: Lookup<K> + ?Sized,
        F: FnOnce() -> Result<V, E>,
        V: Clone,
    {
        self.call_ex(key, f).result
    }

    /// Like [`call`](Self::call), and also returns whether this call led and how many followed:
    /// go-zero's `DoEx`.
    ///
    /// Errors, panics and hangs are those of [`call`](Self::call).
    ///
    /// ```
    /// let group = shared_calls::FlightGroup::<u32, std::io::Error>::new();
    /// let outcome = group.call_ex("k", || Ok(1));
    /// assert!(outcome.fresh());
    /// assert_eq!(outcome.result?, 1);
    /// # Ok::<(), shared_calls::CallError<std::io::Error>>(())
    /// ```
    #[doc(alias = "DoEx")]
    #[inline]
    pub fn call_ex<Q, F>(&self, key: &Q, f: F) -> Outcome<V, E>
    where
        Q: Lookup<K> + ?Sized,
        F: FnOnce() -> Result<V, E>,
        V: Clone,
    {
        let defaults = &self.shared.defaults;
        match self.arrive(key, defaults) {
            Joined::Leader(leader) => Outcome::of_leader(self.run(leader, |_| f())),
            Joined::Follower(follower) => self.wait(key, defaults, None, follower, |_| f()),
        }
    }

    /// Looks the key up, and inserts a flight if none is there.
    #[inline]
    pub(crate) fn arrive<Q>(&self, key: &Q, options: &Options) -> Joined<'_, V, E, K, S>
    where
        Q: Lookup<K> + ?Sized,
    {
        let caller = Caller {
            hash: self.shared.hasher.hash_one(key),
            flight: FlightId::draw(options.transferable),
            key_size: size_of_val(key),
            events: self.shared.observer.as_ref().map(|it| it.with_key(key.to_key())),
        };
        let mut map = self.map(caller.hash).lock();
        let Map { flights, given_up, .. } = &mut *map;
        let new = || Entry { leader: Some(caller.flight), latch: None, queue: None };
        let found = flights.find_or_insert(caller.hash, key, new); // look up; insert
        let Some(entry) = found else {
            drop(map); // unlock
            return Joined::Leader(Leader::new(self, caller, None)); // for `run`
        };
        let entered = entry.enter(key, caller.flight, options, given_up);
        drop(map);
        self.arrived(caller, entered, options)
    }
}

impl<V, E, K, S> FlightGroup<V, E, K, S> {
    /// Runs the function of a flight, and ends the flight with its result.
    #[inline]
    pub(crate) fn run(
        &self,
        leader: Leader<'_, V, E, K, S>,
        f: impl FnOnce(&Leader<'_, V, E, K, S>) -> Result<V, E>,
    ) -> Ended<V, E> {
        let mut leader = ManuallyDrop::new(leader); // It does not abandon a flight that ends here.
        let (result, panic) = deadlock::run_as_leader(leader.caller.flight, || f(&leader)); // run
        let mut leftovers = Leftovers::default();
        let mut ended = self.finish(&mut leader.caller, result, &mut leftovers);
        leftovers.settle_after(&mut ended, panic);
        ended
    }

    /// Ends a flight: takes it out of the map, and only then publishes its outcome. Runs no user code:
    /// that waits among the leftovers.
    pub(crate) fn finish(
        &self,
        caller: &mut Caller,
        result: Result<V, CallError<E>>,
        leftovers: &mut Leftovers<V, E, K>,
    ) -> Ended<V, E> {
        // Spins, because until the entry is deleted callers still follow, and get a result that is
        // older than their call.
        let mut map = self.map(caller.hash).lock_spinning();
        map.ended[Ending::of(&result) as usize] += 1;
        let (latch, queue) = map.unlink(caller, &mut leftovers.garbage); // delete
        drop(map);
        let ended = match latch {
            // Nobody to wake.
            None => Ok(Outcome { result, role: Role::Led, followers: 0 }),
            Some(latch) => Err(latch.land(result)), // done
        };
        if let Some(queue) = &queue {
            queue.set_turn();
            queue.wake();
        }
        leftovers.queue = queue;
        leftovers.events = caller.events.take();
        ended
    }
}

/// The outcome of a flight that has ended. As from [`Arc::try_unwrap`]: the leader's own if nobody
/// waited, and otherwise shared with the followers.
pub(crate) type Ended<V, E> = Result<Outcome<V, E>, Arc<Outcome<V, E>>>;
