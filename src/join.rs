//! The split-phase form of a call: first a place on a flight, then the waiting or the work.

use std::{collections::hash_map::RandomState, hash::BuildHasher};

use crate::{follower::Follower, group::FlightGroup, leader::Leader, lookup::Lookup};

impl<V, E, K, S: BuildHasher> FlightGroup<V, E, K, S> {
    /// Takes a place on the key's flight, without running a function or waiting: the split-phase form
    /// of [`call_ex`](Self::call_ex).
    ///
    /// The first caller gets the [`Leader`] and has to provide the outcome. Until it has done so, all
    /// others get a [`Follower`]. Does not block.
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
    /// assert_eq!(outcome.result?, 1);
    /// # Ok::<(), shared_calls::CallError<std::io::Error>>(())
    /// ```
    pub fn join<Q: Lookup<K> + ?Sized>(&self, key: &Q) -> Joined<'_, V, E, K, S> {
        self.request(key).join()
    }
}

/// A caller's role in a flight, from [`FlightGroup::join`].
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
    /// There was no flight. This caller provides the outcome.
    Leader(Leader<'g, V, E, K, S>),
    /// There is a flight. This caller can wait for its outcome.
    Follower(Follower<V, E>),
}
