//! The group: a map of the flights in progress, how a caller leads or joins one, and how a flight
//! ends.
//!
//! The algorithm is go-zero's. Under the map's lock, look the key up. There is a flight: join it
//! and wait. There is none: put one there, run the function outside the lock, then **unlink first,
//! land afterwards**:
//!
//! 1. close the flight, the instant the function has returned: nobody joins any more;
//! 2. under the map's lock, take it out of the map, if it is still the one there;
//! 3. publish the outcome and wake the followers.
//!
//! *Why in this order.* Whoever learns the outcome learns it after step 2, so a call that it makes
//! next cannot find this flight again (G2). Swapped, and without step 1, late callers get results
//! that others had long before. Step 1 turns away those who arrive between 1 and 2, too: they would
//! be told something computed before they asked. And only unlinking makes the count of followers
//! final.
//!
//! *Why nobody is lost.* A caller becomes a follower under the map's lock, on a flight that the map
//! names. Step 2 takes the same lock, so afterwards the flight's followers are all it will ever
//! have. None: nobody waits, and step 3 is left out. Some: step 3 wakes them, through the latch,
//! whose module says why it misses none. [`Leader`] takes the steps however it ends, on a value, an
//! error, a panic or by being dropped (G4).
//!
//! *What runs under the map's lock* is in this file and `keys`, plus `Eq` of keys. Making and
//! dropping keys, running the function, cloning and dropping outcomes all happen outside (G10).

use std::borrow::Borrow;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};

use crate::calls::SharedCalls;
use crate::error::{CallError, Panicked};
use crate::flight::{Flight, Follower};
use crate::keys::KeyMap;
use crate::outcome::{Outcome, Role};
use crate::sync::{Arc, Mutex};

/// How many map entries a group keeps for reuse, so that a lone call allocates nothing.
const SPARES: usize = 4;
/// A string or slice that is longer than this many bytes is not kept for reuse. Of a key that was
/// looked up by a form that owns memory, a `&String` say, this sees nothing, and keeps it.
const SPARE_KEY_BYTES: usize = 256;

/// A group of calls: of those with equal keys at the same time, one runs and all get its result.
///
/// `V` is the value, `E` the function's error, `K` the key and `S` the hasher. The default hasher
/// is randomly keyed, so outsiders may choose the keys. Share a group between threads by
/// reference, in an [`Arc`](std::sync::Arc) or in a `static`; it is `Sync` where `V` and `E` are
/// `Send + Sync`, `K` is `Send` and `S` is `Sync`.
///
/// A group is not a cache: once a flight has ended, nothing of its value is kept (G11). It keeps up
/// to 4 retired keys for reuse. A `str` or slice of over 256 bytes is not kept; if your keys are
/// large, look them up in such a form and not as a `&String`.
///
/// Values are cloned for followers, each by itself and outside every lock. Where that is dear, make
/// `V` an `Arc`.
///
/// ```
/// use shared_calls::FlightGroup;
/// use std::io;
///
/// let users = FlightGroup::<String, io::Error>::new();
/// let name = users.call("user:42", || {
///     // Of all threads that ask for user:42 now, one comes here.
///     Ok("Ada".to_owned())
/// })?;
/// assert_eq!(name, "Ada");
/// # Ok::<(), shared_calls::CallError<io::Error>>(())
/// ```
///
/// # Keys
///
/// Any `K: Hash + Eq`, looked up by a borrowed form, as in a `HashMap`; the group makes the owned key
/// itself, so `K` has to be what the borrowed form's [`ToOwned`] gives. One is made only by a caller
/// that finds no flight to join. (Two callers that find none at the same instant may
/// both make one; the second to come back finds the first one's flight and joins it.)
///
/// ```
/// # use shared_calls::FlightGroup;
/// let by_id = FlightGroup::<u8, std::io::Error, u64>::new();
/// assert_eq!(by_id.call(&42, || Ok(1)).unwrap(), 1);
///
/// let by_tenant = FlightGroup::<u8, std::io::Error, (u32, String)>::new();
/// assert_eq!(by_tenant.call(&(7, "user:42".to_owned()), || Ok(2)).unwrap(), 2);
/// ```
#[doc(alias = "SingleFlight")]
#[doc(alias = "Group")]
pub struct FlightGroup<V, E, K = String, S = RandomState> {
    map: Mutex<Map<V, E, K>>,
    hasher: S,
}

/// What the map holds for a key in flight.
type Entry<V, E, K> = (K, Arc<Flight<V, E>>);

/// All that the group's lock guards.
struct Map<V, E, K> {
    /// The flights in progress. An entry is put in by a leader, put in another's place by a leader
    /// that found it closed, and taken out by the leader whose flight it is.
    flights: KeyMap<K, Arc<Flight<V, E>>>,
    /// Entries of flights that ended without a follower, at most [`SPARES`]. No flight in here has
    /// ever held a value.
    spares: Vec<Entry<V, E, K>>,
}

impl<V, E, K> FlightGroup<V, E, K> {
    /// An empty group. Allocates nothing until the first call.
    ///
    /// ```
    /// let group = shared_calls::FlightGroup::<u32, std::io::Error>::new();
    /// assert_eq!(group.call("k", || Ok(1)).unwrap(), 1);
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
    #[doc(alias = "NewSharedCalls")]
    #[doc(alias = "NewSingleFlight")]
    pub fn new() -> Self {
        Self::with_hasher(RandomState::new())
    }
}

impl<V, E, K, S: Default> Default for FlightGroup<V, E, K, S> {
    fn default() -> Self {
        Self::with_hasher(S::default())
    }
}

impl<V, E, K, S> FlightGroup<V, E, K, S> {
    /// An empty group that hashes keys with `hasher`.
    ///
    /// A hasher that is not randomly keyed is faster and lets whoever chooses the keys make all of
    /// them collide.
    ///
    /// ```
    /// use std::collections::hash_map::DefaultHasher;
    /// use std::hash::BuildHasherDefault;
    ///
    /// let hasher = BuildHasherDefault::<DefaultHasher>::default();
    /// let group = shared_calls::FlightGroup::<u32, std::io::Error, u64, _>::with_hasher(hasher);
    /// assert_eq!(group.call(&1, || Ok(1)).unwrap(), 1);
    /// ```
    #[must_use]
    pub fn with_hasher(hasher: S) -> Self {
        Self {
            map: Mutex::new(Map {
                flights: KeyMap::new(),
                spares: Vec::new(),
            }),
            hasher,
        }
    }
}

impl<V, E, K, S: BuildHasher> FlightGroup<V, E, K, S> {
    /// Runs `f`, or waits for the call on an equal key that is running now, and returns the result:
    /// go-zero's and x/sync's `Do`.
    ///
    /// At most one function per key runs at a time (G1). What it wrote is visible to every caller
    /// that gets its result (G5). A call that starts after another call on that key has returned
    /// never gets that call's result (G2).
    ///
    /// # Errors
    ///
    /// [`Failed`](CallError::Failed) when the function that ran returned an error; and to a
    /// follower [`Panicked`](CallError::Panicked) when the leader's function panicked and
    /// [`Abandoned`](CallError::Abandoned) when a [`Leader`] was dropped.
    ///
    /// # Panics
    ///
    /// If `f` ran and panicked, with the same payload; the key is free at once. Also if `Hash`, `Eq`,
    /// `Borrow`, `to_owned` or `Drop` of the key, `Clone` of the value, or `Drop` of the value or
    /// the error panics: in this call alone.
    ///
    /// # Hangs
    ///
    /// If `f` calls the group with its own key, or two functions ask for each other's keys. Or for
    /// as long as the function that ran does: a follower waits for it without a limit.
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
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
        F: FnOnce() -> Result<V, E>,
        V: Clone,
    {
        self.call_ex(key, f).result
    }

    /// Like [`call`](Self::call), and tells which part this call played and how many followed:
    /// go-zero's `DoEx`.
    ///
    /// Errors, panics and hangs are those of [`call`](Self::call).
    ///
    /// ```
    /// let group = shared_calls::FlightGroup::<u32, std::io::Error>::new();
    /// let outcome = group.call_ex("k", || Ok(1));
    /// assert!(outcome.fresh());
    /// assert_eq!(outcome.result.unwrap(), 1);
    /// ```
    #[doc(alias = "DoEx")]
    pub fn call_ex<Q, F>(&self, key: &Q, f: F) -> Outcome<V, E>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
        F: FnOnce() -> Result<V, E>,
        V: Clone,
    {
        match self.join(key) {
            Joined::Leader(leader) => leader.run(f),
            Joined::Follower(follower) => follower.wait(),
        }
    }

    /// Takes a place on the key's flight without running or waiting for anything: the split-phase
    /// form of [`call_ex`](Self::call_ex).
    ///
    /// Gives a [`Leader`] to the caller that now has to bring the outcome, and a [`Follower`] to
    /// everyone else until the leader is done. Does not block.
    ///
    /// # Panics
    ///
    /// If `Hash`, `Eq`, `to_owned` or `Drop` of the key panics. No flight is left behind.
    ///
    /// ```
    /// use shared_calls::{FlightGroup, Joined};
    ///
    /// let group = FlightGroup::<u32, std::io::Error>::new();
    /// let outcome = match group.join("k") {
    ///     Joined::Leader(leader) => leader.complete(Ok(1)),
    ///     Joined::Follower(follower) => follower.wait(),
    /// };
    /// assert_eq!(outcome.result.unwrap(), 1);
    /// ```
    pub fn join<Q>(&self, key: &Q) -> Joined<'_, V, E, K, S>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let hash = self.hasher.hash_one(key);
        let lead = |flight| {
            Joined::Leader(Leader {
                group: self,
                flight: Some(flight),
                hash,
                reuse: std::mem::size_of_val(key) <= SPARE_KEY_BYTES,
            })
        };
        let mut entry = None; // Made outside the lock, for the second time around.
        let joined = loop {
            let mut map = self.map.lock();
            if let Some(flight) = map.flights.get_mut(hash, key) {
                break if flight.board() {
                    Joined::Follower(Follower::new(Arc::clone(flight)))
                } else {
                    // Closed and not yet unlinked: its function had returned before this call
                    // looked. Its leader still holds it, so this drops no value.
                    *flight = Arc::new(Flight::new());
                    lead(Arc::clone(flight))
                };
            }
            if let Some((key, flight)) = entry.take() {
                map.flights.insert(hash, key, Arc::clone(&flight));
                break lead(flight);
            }
            let spare = map.spares.pop();
            drop(map);
            entry = Some(match spare {
                Some((mut owned, flight)) => {
                    key.clone_into(&mut owned);
                    flight.reopen();
                    (owned, flight)
                }
                None => (key.to_owned(), Arc::new(Flight::new())),
            });
        };
        // Not needed where another caller's flight was found the second time around. Should the
        // key's `Drop` panic, `joined` is dropped and ends the flight.
        drop(entry);
        joined
    }
}

impl<V, E, K, S> FlightGroup<V, E, K, S> {
    /// Takes this flight out of the map, if the map still names it (G6), and counts its followers,
    /// which are final from here on. The entry comes back where it is not kept as a spare: dropping
    /// a key may panic, so that has to wait until the flight has landed.
    fn unlink(
        &self,
        hash: u64,
        flight: &Arc<Flight<V, E>>,
        reuse: bool,
    ) -> (usize, Option<Entry<V, E, K>>) {
        let mut map = self.map.lock();
        let entry = map.flights.remove(hash, |named| Arc::ptr_eq(named, flight));
        let followers = flight.followers();
        match entry {
            Some(entry) if followers == 0 && reuse && map.spares.len() < SPARES => {
                map.spares.push(entry);
                (0, None)
            }
            entry => (followers, entry),
        }
    }
}

impl<V, E, K, S> fmt::Debug for FlightGroup<V, E, K, S> {
    /// Shows the number of keys in flight. Does not block: while another thread is at the map, it
    /// says so instead.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("FlightGroup");
        match self.map.try_lock().map(|map| map.flights.len()) {
            Some(keys) => debug.field("in_flight", &keys),
            None => debug.field("in_flight", &format_args!("<locked>")),
        };
        debug.finish_non_exhaustive()
    }
}

impl<V, E, K, Q, S> SharedCalls<V, E, Q> for FlightGroup<V, E, K, S>
where
    V: Clone,
    K: Borrow<Q>,
    Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    S: BuildHasher,
{
    fn call_dyn(&self, key: &Q, f: &mut dyn FnMut() -> Result<V, E>) -> Outcome<V, E> {
        self.call_ex(key, f)
    }
}

/// A place on a flight, from [`FlightGroup::join`].
///
/// ```
/// use shared_calls::{FlightGroup, Joined};
///
/// let group = FlightGroup::<u32, std::io::Error>::new();
/// let Joined::Leader(leader) = group.join("k") else { unreachable!() };
/// assert!(matches!(group.join("k"), Joined::Follower(_)));
/// assert!(matches!(group.join("other"), Joined::Leader(_)));
/// # drop(leader);
/// ```
#[derive(Debug)]
#[must_use = "dropping a leader abandons its flight"]
pub enum Joined<'g, V, E, K = String, S = RandomState> {
    /// Nobody was at it: this caller brings the outcome.
    Leader(Leader<'g, V, E, K, S>),
    /// Somebody is at it: this caller may wait for the outcome.
    Follower(Follower<V, E>),
}

/// The duty to bring a flight's outcome, from [`FlightGroup::join`].
///
/// Until it is [completed](Self::complete) or dropped, every call on the key waits for it. Dropped,
/// also by a panic, it abandons the flight: followers get [`CallError::Abandoned`] and the key is
/// free at once. It may be completed by another thread than the one that joined.
///
/// Don't [`forget`](std::mem::forget) it: its followers and all later callers of the key would
/// wait for ever.
///
/// ```
/// use shared_calls::{CallError, FlightGroup, Joined};
///
/// let group = FlightGroup::<u32, std::io::Error>::new();
/// let Joined::Leader(leader) = group.join("k") else { unreachable!() };
/// let Joined::Follower(follower) = group.join("k") else { unreachable!() };
/// drop(leader);
/// assert!(matches!(follower.wait().result, Err(CallError::Abandoned)));
/// ```
#[must_use = "dropping a leader abandons its flight"]
pub struct Leader<'g, V, E, K = String, S = RandomState> {
    group: &'g FlightGroup<V, E, K, S>,
    /// `None` only once the flight has ended.
    flight: Option<Arc<Flight<V, E>>>,
    hash: u64,
    /// Whether the key is small enough to be kept for reuse.
    reuse: bool,
}

/// Where the outcome is once the flight has ended.
enum Ended<V, E> {
    /// Still in the leader's hands: nobody followed.
    Alone(Outcome<V, E>),
    /// With the followers, for all of them and the leader to clone.
    Shared(Arc<Outcome<V, E>>),
}

impl<V, E, K, S> Leader<'_, V, E, K, S> {
    /// Ends the flight with this result and gives the leader's own outcome.
    ///
    /// The key is free, and no longer leads here, before any follower learns the result (G2). With
    /// no follower the value comes back without having been cloned, and nothing is woken (G12).
    ///
    /// # Panics
    ///
    /// If the value's `Clone`, or the key's `Drop`, panics; the followers have their outcome all
    /// the same.
    ///
    /// ```
    /// use shared_calls::{FlightGroup, Joined};
    ///
    /// let group = FlightGroup::<u32, std::io::Error>::new();
    /// let Joined::Leader(leader) = group.join("k") else { unreachable!() };
    /// let outcome = leader.complete(Ok(1));
    /// assert_eq!((outcome.result.unwrap(), outcome.followers), (1, 0));
    /// ```
    pub fn complete(mut self, result: Result<V, E>) -> Outcome<V, E>
    where
        V: Clone,
    {
        match self.end(|| result.map_err(|error| CallError::Failed(Arc::new(error)))) {
            Some(Ended::Alone(outcome)) => outcome,
            Some(Ended::Shared(landed)) => Outcome::of(landed, Role::Led),
            None => unreachable!("ended only here or by drop"),
        }
    }

    /// How many followers the flight has now. The number may have changed by the time it is read.
    ///
    /// ```
    /// use shared_calls::{FlightGroup, Joined};
    ///
    /// let group = FlightGroup::<u32, std::io::Error>::new();
    /// let Joined::Leader(leader) = group.join("k") else { unreachable!() };
    /// assert_eq!(leader.followers(), 0);
    /// let follower = group.join("k");
    /// assert_eq!(leader.followers(), 1);
    /// # drop(leader);
    /// ```
    #[must_use]
    pub fn followers(&self) -> usize {
        self.flight.as_ref().map_or(0, |flight| flight.followers())
    }

    /// Runs the leader's function. A panic lands as [`CallError::Panicked`] before it goes on.
    pub(crate) fn run(mut self, f: impl FnOnce() -> Result<V, E>) -> Outcome<V, E>
    where
        V: Clone,
    {
        // Nothing of the function's is looked at after it panicked: the panic is passed on.
        match catch_unwind(AssertUnwindSafe(f)) {
            Ok(result) => self.complete(result),
            Err(payload) => {
                self.end(|| Err(CallError::Panicked(Panicked::new(&*payload))));
                resume_unwind(payload)
            }
        }
    }

    /// Close, unlink, land: in this order, once. `None` if that was done before.
    fn end(&mut self, result: impl FnOnce() -> Result<V, CallError<E>>) -> Option<Ended<V, E>> {
        let flight = self.flight.take()?;
        flight.close();
        let result = result();
        let (followers, entry) = self.group.unlink(self.hash, &flight, self.reuse);
        let outcome = Outcome {
            result,
            role: Role::Led,
            followers,
        };
        let ended = if followers == 0 {
            Ended::Alone(outcome)
        } else {
            let outcome = Arc::new(outcome);
            flight.land(Arc::clone(&outcome));
            Ended::Shared(outcome)
        };
        drop(entry);
        Some(ended)
    }
}

impl<V, E, K, S> Drop for Leader<'_, V, E, K, S> {
    fn drop(&mut self) {
        self.end(|| Err(CallError::Abandoned));
    }
}

impl<V, E, K, S> fmt::Debug for Leader<'_, V, E, K, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leader")
            .field("followers", &self.followers())
            .finish_non_exhaustive()
    }
}
