//! Several groups behind one front, for very many threads on distinct keys.
//!
//! A key belongs to one of the groups, always the same; so whatever holds for a group holds for all
//! of them together, key by key. Deadlocks are refused over all groups of a process in any case.

use std::borrow::Borrow;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hash};

use crate::calls::SharedCalls;
use crate::error::CallError;
use crate::group::FlightGroup;
use crate::outcome::Outcome;
use crate::stats::{InFlight, Stats};
use crate::sync::Arc;

/// A [`FlightGroup`] with several locks in place of one.
///
/// Take a plain group first. Its lock is held for well under a microsecond, twice or three times
/// for each call that leads, so it takes many threads that do little else before they queue up for
/// it; and calls that share one key meet in one group in any case. What this costs: a second hash
/// of each key, and each group keeps its own spare entries (4 keys each, and the memory of its
/// map).
///
/// All guarantees are those of [`FlightGroup`]. For what is not repeated here, ask
/// [the key's own group](Self::group_of): `calls.group_of("k").request("k")`.
///
/// ```
/// use shared_calls::ShardedGroup;
///
/// let users = ShardedGroup::<String, std::io::Error>::new(16);
/// let name = users.call("user:42", || Ok("Ada".to_owned())).unwrap();
/// assert_eq!(name, "Ada");
/// assert!(!users.group_of("user:42").forget("user:42")); // it has landed
/// ```
pub struct ShardedGroup<V, E, K = String, S = RandomState> {
    /// A power of two of them.
    groups: Vec<Arc<FlightGroup<V, E, K, S>>>,
    hasher: S,
}

impl<V, E, K> ShardedGroup<V, E, K> {
    /// So many groups, rounded up to a power of two. A few for each core is plenty.
    ///
    /// See [`ShardedGroup`] for an example.
    #[must_use]
    pub fn new(groups: usize) -> Self {
        Self::from_groups(groups, RandomState::new(), FlightGroup::new)
    }
}

impl<V, E, K, S> ShardedGroup<V, E, K, S> {
    /// So many groups, rounded up to a power of two, each made by `make`: with a hasher, an
    /// observer, or [without ages](crate::Builder::without_ages). `hasher` says to which group a
    /// key belongs.
    ///
    /// # Panics
    ///
    /// If there are to be more groups than memory can hold.
    ///
    /// ```
    /// use shared_calls::{FlightGroup, ShardedGroup};
    /// use std::collections::hash_map::RandomState;
    ///
    /// let make = || FlightGroup::builder().without_ages().build();
    /// let users = ShardedGroup::<u32, ()>::from_groups(6, RandomState::new(), make);
    /// assert_eq!(users.groups().len(), 8);
    /// ```
    #[must_use]
    pub fn from_groups(
        groups: usize,
        hasher: S,
        mut make: impl FnMut() -> FlightGroup<V, E, K, S>,
    ) -> Self {
        let groups = groups.checked_next_power_of_two().expect("too many groups");
        Self {
            groups: (0..groups).map(|_| Arc::new(make())).collect(),
            hasher,
        }
    }

    /// The groups.
    ///
    /// See [`from_groups`](Self::from_groups) for an example.
    #[must_use]
    pub fn groups(&self) -> &[Arc<FlightGroup<V, E, K, S>>] {
        &self.groups
    }

    /// The sum of what the groups have counted; see [`FlightGroup::stats`].
    ///
    /// ```
    /// let users = shared_calls::ShardedGroup::<u32, ()>::new(4);
    /// users.call("a", || Ok(1)).unwrap();
    /// users.call("b", || Ok(2)).unwrap();
    /// assert_eq!(users.stats().led, 2);
    /// ```
    #[must_use]
    pub fn stats(&self) -> Stats {
        let all = self.groups.iter().map(|group| group.stats());
        all.fold(Stats::default(), Stats::plus)
    }

    /// What is in flight, in no order; see [`FlightGroup::in_flight`]. What a leader waits for is
    /// told by its key only where that belongs to the same group.
    ///
    /// ```
    /// let users = shared_calls::ShardedGroup::<u32, ()>::new(4);
    /// let _leader = users.group_of("a").join("a");
    /// assert_eq!(users.in_flight()[0].key, "a");
    /// ```
    #[must_use]
    pub fn in_flight(&self) -> Vec<InFlight<K>>
    where
        K: Clone,
    {
        let all = self.groups.iter();
        all.flat_map(|group| group.in_flight()).collect()
    }
}

impl<V, E, K, S: BuildHasher> ShardedGroup<V, E, K, S> {
    /// The group that a key belongs to.
    ///
    /// See [`ShardedGroup`] for an example.
    #[must_use]
    pub fn group_of<Q>(&self, key: &Q) -> &Arc<FlightGroup<V, E, K, S>>
    where
        K: Borrow<Q>,
        Q: Hash + ?Sized,
    {
        // Mixed (folded, and by Fibonacci's constant), because a user's hasher may leave most bits
        // alone; and taken from the middle, for a hash map goes by those at either end.
        let hash = self.hasher.hash_one(key);
        let mixed = (hash ^ (hash >> 32)).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        &self.groups[mixed as usize & (self.groups.len() - 1)]
    }

    /// [`FlightGroup::call`].
    ///
    /// # Errors
    ///
    /// Those of [`FlightGroup::call`], as are panics and hangs.
    ///
    /// See [`ShardedGroup`] for an example.
    #[doc(alias = "Do")]
    pub fn call<Q, F>(&self, key: &Q, f: F) -> Result<V, CallError<E>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
        F: FnOnce() -> Result<V, E>,
        V: Clone,
    {
        self.group_of(key).call(key, f)
    }

    /// [`FlightGroup::call_ex`].
    ///
    /// ```
    /// let users = shared_calls::ShardedGroup::<u32, ()>::new(4);
    /// assert!(users.call_ex("a", || Ok(1)).fresh());
    /// ```
    #[doc(alias = "DoEx")]
    pub fn call_ex<Q, F>(&self, key: &Q, f: F) -> Outcome<V, E>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
        F: FnOnce() -> Result<V, E>,
        V: Clone,
    {
        self.group_of(key).call_ex(key, f)
    }
}

impl<V, E, K, Q, S> SharedCalls<V, E, Q> for ShardedGroup<V, E, K, S>
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

impl<V, E, K, S> fmt::Debug for ShardedGroup<V, E, K, S> {
    /// Does not block, as that of [`FlightGroup`] does not.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardedGroup")
            .field("groups", &self.groups)
            .finish_non_exhaustive()
    }
}
