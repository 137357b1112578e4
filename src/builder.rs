//! A group with other than the default parts.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::marker::PhantomData;

use crate::group::FlightGroup;
use crate::observer::{tell, Observer, Tell};
use crate::sync::Epoch;

/// What a group is to be made of; from [`FlightGroup::builder`].
///
/// ```
/// use shared_calls::{FlightGroup, Observer};
///
/// struct Quiet;
/// impl Observer for Quiet {}
///
/// let group = FlightGroup::<u32, std::io::Error>::builder().observer(Quiet).build();
/// assert_eq!(group.call("k", || Ok(1)).unwrap(), 1);
/// ```
#[must_use = "a builder does nothing until it is built"]
pub struct Builder<V, E, K = String, S = RandomState> {
    hasher: S,
    ages: bool,
    tell: Option<Tell<K>>,
    results: PhantomData<fn() -> (V, E)>,
}

impl<V, E, K> FlightGroup<V, E, K> {
    /// Begins a group with other than the default parts.
    ///
    /// See [`Builder`] for an example.
    pub fn builder() -> Builder<V, E, K> {
        Builder {
            hasher: RandomState::new(),
            ages: true,
            tell: None,
            results: PhantomData,
        }
    }
}

impl<V, E, K, S> Builder<V, E, K, S> {
    /// What hashes the keys; see [`FlightGroup::with_hasher`].
    ///
    /// ```
    /// use std::collections::hash_map::DefaultHasher;
    /// use std::hash::BuildHasherDefault;
    ///
    /// let hasher = BuildHasherDefault::<DefaultHasher>::default();
    /// let group = shared_calls::FlightGroup::<u32, (), u64>::builder().hasher(hasher).build();
    /// assert_eq!(group.call(&1, || Ok(1)).unwrap(), 1);
    /// ```
    pub fn hasher<T>(self, hasher: T) -> Builder<V, E, K, T> {
        Builder {
            hasher,
            ages: self.ages,
            tell: self.tell,
            results: self.results,
        }
    }

    /// Who is told of every event. Of two, the last one given is.
    ///
    /// It costs a lone call some four allocations, because nothing is used again, and a second
    /// reading of the clock; a group without one pays nothing. With an observer there are
    /// [ages](Self::without_ages) in any case.
    ///
    /// See [`Observer`] for an example.
    pub fn observer(mut self, observer: impl Observer<K> + 'static) -> Self
    where
        K: Send + Sync + 'static,
    {
        self.tell = Some(tell(observer));
        self
    }

    /// Doesn't look at the clock when a flight begins: a fifth less for a lone call.
    ///
    /// All flights are then of age zero: [`max_age`](crate::Request::max_age) gives none up, and
    /// [`in_flight`](FlightGroup::in_flight) tells no ages.
    ///
    /// ```
    /// let group = shared_calls::FlightGroup::<u32, ()>::builder().without_ages().build();
    /// let _leader = group.join("k");
    /// assert_eq!(group.in_flight()[0].age, None);
    /// ```
    pub fn without_ages(mut self) -> Self {
        self.ages = false;
        self
    }

    /// The group. Allocates nothing until the first call.
    ///
    /// See [`Builder`] for an example.
    #[must_use]
    pub fn build(self) -> FlightGroup<V, E, K, S> {
        let epoch = match (self.ages, &self.tell) {
            (false, None) => Epoch::none(),
            _ => Epoch::begin(),
        };
        FlightGroup::with_parts(self.hasher, epoch, self.tell)
    }
}

impl<V, E, K, S> fmt::Debug for Builder<V, E, K, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("ages", &self.ages)
            .field("observer", &self.tell.is_some())
            .finish_non_exhaustive()
    }
}
