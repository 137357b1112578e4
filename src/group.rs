//! The group: a map of the flights in progress, how a caller leads or joins one, and how a flight
//! ends.
//!
//! The algorithm is go-zero's. Under the map's lock, look the key up. There is a flight: join it
//! and wait. There is none: put one there, run the function outside the lock, then **unlink first,
//! land afterwards**:
//!
//! 1. close the flight, the instant the function has returned: nobody joins any more;
//! 2. under the map's lock, take it out of the map, if it is still the one there (the last that
//!    nobody followed stays, closed, which is as good as gone, for its key's next call to begin
//!    again);
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
//! whose module says why it misses none. [`Duty`] takes the steps however it ends, on a value, an
//! error, a panic or by being dropped (G4).
//!
//! *What runs under the map's lock* is in `map`, `flight` and `keys`, plus `Eq` of keys.
//! Making and dropping keys, running the function, cloning and dropping outcomes all happen outside
//! (G10).
//!
//! That is all that `call` needs. The rest is two variations on the steps above. **Giving up** a
//! flight (`forget`, `max_age`) is step 2 at another time: the flight goes on and lands, but the
//! map no longer names it. **The next flight** is one that waits behind the one in the map, and
//! takes its place in step 2 instead of leaving the key free; see `flight` for who leads it then.

use std::any::Any;
use std::borrow::Borrow;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};

use crate::calls::SharedCalls;
use crate::error::{CallError, Panicked};
use crate::flight::{Flight, Follower, Seat};
use crate::map::{Entry, Map, Part, Seen, Spare, Wish};
use crate::observer::{Ending, Endings, Landed, Reports, Tally, Tell};
use crate::outcome::{Outcome, Role};
use crate::sync::{Arc, Deadline, Epoch, Mutex};
use crate::threads::Leading;

/// A string or slice that is longer than this many bytes is not kept for reuse. Of a key that was
/// looked up by a form that owns memory, a `&String` say, this sees nothing, and keeps it.
const SPARE_KEY_BYTES: usize = 256;

/// A group of calls: of those with equal keys at the same time, one runs and all get its result.
///
/// `V` is the value, `E` the function's error, `K` the key and `S` the hasher. The default hasher
/// is randomly keyed, so outsiders may choose the keys. Share a group between threads by reference,
/// in an [`Arc`](std::sync::Arc) or in a `static`; it is `Send` and `Sync` where
/// all four are.
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
/// Any `K: Hash + Eq`, looked up by a borrowed form, as in a `HashMap`; the group makes the owned
/// key itself, so `K` has to be what the borrowed form's [`ToOwned`] gives. One is made only by a
/// caller that finds no flight to join. (Two callers that find none at the same instant may both
/// make one; the second to come back finds the first one's flight and joins it.)
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
    epoch: Epoch,
    tally: Arc<Tally>,
    tell: Option<Tell<K>>,
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
        Self::with_parts(hasher, Epoch::begin(), None)
    }

    pub(crate) fn with_parts(hasher: S, epoch: Epoch, tell: Option<Tell<K>>) -> Self {
        Self {
            map: Mutex::new(Map::new()),
            hasher,
            epoch,
            tally: Arc::new(Tally::new()),
            tell,
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
    /// [`Deadlock`](CallError::Deadlock) when this call is made inside a shared function and to
    /// wait would [never end](crate#deadlocks) (G9).
    ///
    /// # Panics
    ///
    /// If `f` ran and panicked, with the same payload; the key is free at once. Also if `Hash`,
    /// `Eq`, `Borrow`, `to_owned` or `Drop` of the key, `Clone` of the value, or `Drop` of the
    /// value or the error panics: in this call alone.
    ///
    /// For a deadline and other options see [`request`](Self::request).
    ///
    /// # Hangs
    ///
    /// For as long as the function that ran does: a follower waits for it without a limit. On a
    /// thread pool: if all its threads follow flights whose [jobs](crate::Job) wait for a thread of
    /// it. And in a circle that [can't be told](crate#deadlocks).
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
        self.board(key, Wish::default(), Deadline::Never)
    }

    /// Finds a flight to follow, or puts one there to lead. Blocks only where the wish is for the
    /// next flight, until that has begun.
    pub(crate) fn board<Q>(&self, key: &Q, wish: Wish, deadline: Deadline) -> Joined<'_, V, E, K, S>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let hash = self.hasher.hash_one(key);
        let mut made = None;
        let (flight, part) = loop {
            let now = wish.max_age.map_or(0, |_| self.epoch.now());
            let mut map = self.map.lock();
            if let Some(found) = map.enter(hash, key, &mut made, wish, now) {
                break found;
            }
            let spare = map.spare();
            drop(map);
            let reports = |key: &_| Reports::new(&self.tally, self.tell.as_ref(), key);
            made = Some(Spare::for_key(key, spare, reports));
        };
        if part == Part::Leads {
            flight.begin_at(self.epoch.now());
            flight.vacate(); // Should it have been queued: those who wait for it follow now.
        } else {
            flight.reports().joined();
        }
        let lead = |flight| {
            let leader = Leader {
                group: self,
                duty: Duty {
                    flight: Some(flight),
                    hash,
                    reuse: std::mem::size_of_val(key) <= SPARE_KEY_BYTES && self.tell.is_none(),
                    has_ticket: false,
                },
            };
            leader.announce();
            Joined::Leader(leader)
        };
        let follow = |flight| {
            let seat = Seat::new(flight, Role::Followed);
            Joined::Follower(Follower::new(Ok(seat), deadline))
        };
        let joined = match part {
            Part::Leads => lead(flight),
            Part::Follows => follow(flight),
            Part::StandsBy => match flight.stand_by(deadline) {
                Ok(true) => lead(flight),
                Ok(false) => follow(flight),
                Err(missed) => {
                    self.leave(hash, &flight);
                    flight.reports().count(Some(&missed));
                    flight.reports().tell_missed(Some(&missed));
                    Joined::Follower(Follower::new(Err(missed), deadline))
                }
            },
        };
        // Not needed if another caller's flight was found the second time around. Should the
        // key's `Drop` panic, `joined` is dropped and ends the flight.
        drop(made);
        joined
    }

    /// Gives up the flight that is in progress for the key: x/sync's `Forget`.
    ///
    /// Callers that are on it still get its outcome; later calls start a new one (G1 then holds
    /// for the new one). Its end does not touch its successor (G6). Callers that wait for the
    /// [next flight](crate::Request::next_flight) begin it at once. `false` if no function is
    /// running for the key, which includes one that has returned and one that is about to begin.
    /// Does not block.
    ///
    /// A function may give up its own flight, before it tells its result to somebody else, another
    /// process say: so that whoever learns it there, and then calls here, gets a newer one.
    ///
    /// # Panics
    ///
    /// If `Hash`, `Eq` or `Drop` of the key panics, or `Drop` of the flight's value, where this
    /// happens to be the last to let go of it.
    ///
    /// ```
    /// use shared_calls::{FlightGroup, Joined, Role};
    ///
    /// let group = FlightGroup::<u32, std::io::Error>::new();
    /// assert!(!group.forget("k"));
    /// let Joined::Leader(first) = group.join("k") else { unreachable!() };
    /// assert!(group.forget("k"));
    /// assert_eq!(group.call_ex("k", || Ok(2)).role, Role::Led);
    /// assert_eq!(first.complete(Ok(1)).result.unwrap(), 1);
    /// ```
    #[doc(alias = "Forget")]
    pub fn forget<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.forget_if(key, |_| true)
    }

    /// Like [`forget`](Self::forget), but only while the flight has no follower: resenje's and
    /// tailscale's way to drop work that nobody else waits for.
    ///
    /// Exact against a caller that joins at the same time: either it is on the flight, and this is
    /// `false`, or it starts a new one. The [ticket](crate::Ticket) of whoever started the flight
    /// is no follower.
    ///
    /// # Panics
    ///
    /// If `Hash`, `Eq` or `Drop` of the key panics.
    ///
    /// ```
    /// use shared_calls::{FlightGroup, Joined};
    ///
    /// let group = FlightGroup::<u32, std::io::Error>::new();
    /// let Joined::Leader(leader) = group.join("k") else { unreachable!() };
    /// let follower = group.join("k");
    /// assert!(!group.forget_unshared("k"));
    /// drop(follower);
    /// assert!(group.forget_unshared("k"));
    /// # drop(leader);
    /// ```
    #[doc(alias = "ForgetUnshared")]
    pub fn forget_unshared<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.forget_if(key, |flight| flight.followers() == 0)
    }

    fn forget_if<Q>(&self, key: &Q, condition: impl Fn(&Flight<V, E>) -> bool) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let hash = self.hasher.hash_one(key);
        let mut map = self.map.lock();
        let Some(flight) = map.get(hash, key) else {
            return false;
        };
        // What has ended by itself, or not begun, is not given up.
        if flight.is_closed() || flight.is_vacant() || !condition(&flight) {
            return false;
        }
        let (entry, next) = map.take_out(hash, &flight, self.epoch);
        drop(map);
        if let Some(next) = next {
            next.vacate();
        }
        drop(entry);
        true
    }
}

impl<V, E, K, S> FlightGroup<V, E, K, S> {
    /// Takes this flight out of the map, if the map still names it (G6), and counts its followers,
    /// which are final from here on. If nobody waits for it, it rests in the map instead, or is
    /// dropped.
    fn unlink(
        &self,
        duty: &Duty<V, E>,
        flight: Arc<Flight<V, E>>,
        ending: Ending,
    ) -> Unlinked<V, E, K> {
        let mut map = self.map.lock();
        map.endings.count(ending);
        // Final: nobody joins a closed flight.
        let followers = flight.followers();
        let alone = followers == 0 && !duty.has_ticket;
        if alone && duty.reuse && map.may_rest(duty.hash, &flight) {
            return Unlinked {
                followers,
                to_land: None,
                next: None,
                entry: map.rest(duty.hash, flight),
            };
        }
        let (entry, next) = map.take_out(duty.hash, &flight, self.epoch);
        Unlinked {
            followers,
            to_land: Some(flight).filter(|_| !alone),
            next,
            entry,
        }
    }

    /// Gives up a seat on a flight that may not have a leader. The last one to leave takes the
    /// flight along: there is nobody left to lead it.
    fn leave(&self, hash: u64, flight: &Arc<Flight<V, E>>) {
        let mut map = self.map.lock();
        if flight.leave() > 0 || !flight.is_vacant() {
            return;
        }
        let taken = map.drop_queued(hash, flight, self.epoch);
        drop(map);
        drop(taken);
    }

    /// What leaders have counted, and how many keys are in flight.
    pub(crate) fn endings(&self) -> (Endings, usize) {
        let map = self.map.lock();
        (map.endings, map.len())
    }

    /// What followers have counted.
    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// What is to be seen of the flights in progress.
    pub(crate) fn look(&self) -> Vec<Seen<V, E, K>> {
        let map = self.map.lock();
        map.look(self.epoch.now())
    }

    pub(crate) fn has_ages(&self) -> bool {
        !self.epoch.is_none()
    }
}

/// What the leader has left to do, outside the lock, in this order.
struct Unlinked<V, E, K> {
    followers: usize,
    /// The flight, if somebody waits for it.
    to_land: Option<Arc<Flight<V, E>>>,
    /// The flight that is in the map now, with nobody to lead it.
    next: Option<Arc<Flight<V, E>>>,
    /// To be dropped last: a key's `Drop` may panic.
    entry: Option<Entry<V, E, K>>,
}

impl<V, E, K, S> fmt::Debug for FlightGroup<V, E, K, S> {
    /// Shows the number of keys in flight. Does not block: while another thread is at the map, it
    /// says so instead.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("FlightGroup");
        match self.map.try_lock().map(|map| map.len()) {
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
/// Don't [`forget`](std::mem::forget) it, or keep it for ever: its followers and all later callers
/// of the key would wait for as long.
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
    duty: Duty<V, E>,
}

/// What a leader knows of its flight.
pub(crate) struct Duty<V, E> {
    /// `None` only once the flight has ended.
    flight: Option<Arc<Flight<V, E>>>,
    hash: u64,
    /// Whether the key is small enough to be kept for reuse.
    reuse: bool,
    /// Whether a ticket, which is no follower, waits for the outcome, too.
    has_ticket: bool,
}

/// Where the outcome is once the flight has ended.
pub(crate) enum Ended<V, E> {
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
        match self.duty.end(self.group, result) {
            Ended::Alone(outcome) => outcome,
            Ended::Shared(landed) => Outcome::of(landed, Role::Led),
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
        let flight = self.duty.flight.as_ref();
        flight.map_or(0, |flight| flight.followers())
    }

    /// Tells the observer that the flight has begun.
    fn announce(&self) {
        if let (Some(flight), true) = (&self.duty.flight, self.group.tell.is_some()) {
            // Noted, lest an observer that asks for the same key hangs.
            let _leading = Leading::new(flight.id());
            flight.reports().began();
        }
    }

    /// Runs the function, and ends the flight with its result: what [`FlightGroup::call_ex`] does
    /// for a caller that leads.
    ///
    /// For whoever joins first and sees then what there is to do. Unlike with a function that is
    /// run by hand before [`complete`](Self::complete), it is known which thread runs it, so a wait
    /// inside it that would never end is [refused](crate#deadlocks); and its panic reaches the
    /// followers as [`CallError::Panicked`], not as [`Abandoned`](CallError::Abandoned).
    ///
    /// # Panics
    ///
    /// If `f` panics, with the same payload, once the flight has ended. And as
    /// [`complete`](Self::complete) does.
    ///
    /// ```
    /// use shared_calls::{FlightGroup, Joined};
    ///
    /// let group = FlightGroup::<u32, std::io::Error>::new();
    /// // Leads what nobody is at, and only then waits for what somebody is.
    /// let joined = ["a", "b"].map(|key| match group.join(key) {
    ///     Joined::Leader(leader) => Ok(leader.run(|| Ok(1))),
    ///     Joined::Follower(follower) => Err(follower),
    /// });
    /// let outcomes = joined.map(|joined| joined.unwrap_or_else(|follower| follower.wait()));
    /// assert!(outcomes.iter().all(|outcome| outcome.fresh()));
    /// ```
    pub fn run(mut self, f: impl FnOnce() -> Result<V, E>) -> Outcome<V, E>
    where
        V: Clone,
    {
        match self.duty.run(self.group, f) {
            Ok(result) => self.complete(result),
            Err(payload) => resume_unwind(payload),
        }
    }

    /// Gives the duty to somebody who has a group of their own to do it with, and the flight for a
    /// ticket on it.
    pub(crate) fn hand_over(mut self) -> (Duty<V, E>, Arc<Flight<V, E>>) {
        let flight = self.duty.flight.take().expect("not ended yet");
        let duty = Duty {
            flight: Some(Arc::clone(&flight)),
            has_ticket: true,
            ..self.duty
        };
        (duty, flight)
    }
}

impl<V, E> Duty<V, E> {
    /// Runs the function. If it panics, the flight has ended with that.
    pub(crate) fn run<K, S>(
        &mut self,
        group: &FlightGroup<V, E, K, S>,
        f: impl FnOnce() -> Result<V, E>,
    ) -> Result<Result<V, E>, Box<dyn Any + Send>> {
        let flight = self.flight.as_ref().expect("not ended yet");
        // Nothing of the function's is looked at after it panicked: the panic is passed on.
        let leading = flight.lead();
        let result = catch_unwind(AssertUnwindSafe(f));
        drop(leading);
        result.map_err(|payload| {
            self.land(group, || Err(CallError::Panicked(Panicked::of(&*payload))));
            payload
        })
    }

    pub(crate) fn end<K, S>(
        &mut self,
        group: &FlightGroup<V, E, K, S>,
        result: Result<V, E>,
    ) -> Ended<V, E> {
        self.land(group, || {
            result.map_err(|error| CallError::Failed(Arc::new(error)))
        })
        .expect("ended only once")
    }

    /// For when there will be no result. Does nothing if the flight has ended.
    pub(crate) fn abandon<K, S>(&mut self, group: &FlightGroup<V, E, K, S>) {
        self.land(group, || Err(CallError::Abandoned));
    }

    /// Close, unlink, land: in this order, once. `None` if that was done before.
    fn land<K, S>(
        &mut self,
        group: &FlightGroup<V, E, K, S>,
        result: impl FnOnce() -> Result<V, CallError<E>>,
    ) -> Option<Ended<V, E>> {
        let flight = self.flight.take()?;
        flight.close();
        let result = result();
        let ending = Ending::of(&result);
        let observed = group.tell.is_some().then(|| {
            let duration = flight.age(group.epoch.now());
            (Arc::clone(&flight), duration)
        });
        let unlinked = group.unlink(self, flight, ending);
        let outcome = Outcome {
            result,
            role: Role::Led,
            followers: unlinked.followers,
        };
        let ended = match unlinked.to_land {
            None => Ended::Alone(outcome),
            Some(flight) => {
                let outcome = Arc::new(outcome);
                flight.land(Arc::clone(&outcome));
                Ended::Shared(outcome)
            }
        };
        if let Some(next) = unlinked.next {
            next.vacate();
        }
        if let Some((flight, duration)) = observed {
            flight.reports().landed(&Landed {
                duration,
                followers: unlinked.followers,
                ending,
            });
        }
        drop(unlinked.entry);
        Some(ended)
    }
}

impl<V, E, K, S> Drop for Leader<'_, V, E, K, S> {
    fn drop(&mut self) {
        self.duty.abandon(self.group);
    }
}

impl<V, E, K, S> fmt::Debug for Leader<'_, V, E, K, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leader")
            .field("followers", &self.followers())
            .finish_non_exhaustive()
    }
}
