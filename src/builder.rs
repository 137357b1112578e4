//! A group with other than the default parts.

use std::{
    collections::hash_map::RandomState, fmt, marker::PhantomData, panic::RefUnwindSafe,
    panic::UnwindSafe, time::Duration,
};

use crate::{
    group::FlightGroup, group::Shared, map::Map, observer::GroupObserver, observer::Observer,
    options::Options, options::TimeLimit, sync::Arc, sync::Mutex,
};

/// Builds a group with options. From [`FlightGroup::builder`].
///
/// The options for calls are options of a [`Request`](crate::Request) and hold for every call of the
/// group, also behind a trait object. A request can replace those that have a value, or drop
/// [all](crate::Request::without_defaults).
///
/// ```
/// use shared_calls::{FlightGroup, SharedCalls};
/// use std::io;
/// use std::sync::Arc;
/// use std::time::Duration;
///
/// let users: Arc<dyn SharedCalls<String, io::Error>> = Arc::new(
///     FlightGroup::builder()
///         .timeout(Duration::from_millis(200))
///         .max_followers(64)
///         .build(),
/// );
/// assert_eq!(users.call("user:42", || Ok("Ada".to_owned()))?, "Ada");
/// # Ok::<(), shared_calls::CallError<io::Error>>(())
/// ```
#[must_use = "a builder does nothing until it is built"]
pub struct Builder<V, E, K = String, S = RandomState> {
    shards: usize,
    hasher: S,
    defaults: Options,
    observer: Option<GroupObserver<K>>,
    results: PhantomData<fn() -> (V, E)>,
}

impl<V, E, K> FlightGroup<V, E, K> {
    /// Returns a builder, for a group with options.
    ///
    /// See [`Builder`] for an example.
    pub fn builder() -> Builder<V, E, K> {
        Builder {
            shards: 1,
            hasher: RandomState::new(),
            defaults: Options::default(),
            observer: None,
            results: PhantomData,
        }
    }
}

impl<V, E, K, S> Builder<V, E, K, S> {
    /// Sets the hasher of keys. See [`FlightGroup::with_hasher`].
    ///
    /// ```
    /// use std::collections::hash_map::DefaultHasher;
    /// use std::hash::BuildHasherDefault;
    ///
    /// let hasher = BuildHasherDefault::<DefaultHasher>::default();
    /// let group = shared_calls::FlightGroup::<u32, (), u64>::builder().hasher(hasher).build();
    /// assert_eq!(group.call(&1, || Ok(1)), Ok(1));
    /// ```
    pub fn hasher<T>(self, hasher: T) -> Builder<V, E, K, T> {
        let Self { shards, defaults, observer, results, .. } = self;
        Builder { shards, hasher, defaults, observer, results }
    }

    /// Sets the observer, which is told of every event. A second call replaces the first.
    ///
    /// With an observer, each call makes a key of its own and allocates, and each flight reads the
    /// clock. A group without one pays nothing.
    ///
    /// See [`Observer`] for an example.
    pub fn observer(mut self, observer: impl Observer<K> + 'static) -> Self
    where
        K: Send + Sync + 'static,
    {
        self.observer = Some(GroupObserver::new(observer));
        self
    }

    /// Splits the map into this many maps, each with a lock of its own. The default is 1.
    ///
    /// This is for very many threads on distinct keys, so measure first. A call that leads takes the
    /// lock twice, each time for well under a microsecond, and calls that share a key use the same
    /// map in any case. Each map keeps up to 4 retired keys.
    ///
    /// # Panics
    ///
    /// If `shards` is 0.
    ///
    /// ```
    /// let group = shared_calls::FlightGroup::<u32, ()>::builder().shards(16).build();
    /// assert_eq!(group.call("k", || Ok(1)), Ok(1));
    /// ```
    pub fn shards(mut self, shards: usize) -> Self {
        assert!(shards > 0, "a group needs at least one shard");
        self.shards = shards;
        self
    }

    /// [`Request::timeout`](crate::Request::timeout) for every call.
    ///
    /// See [`Builder`] for an example.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.defaults.time_limit = Some(TimeLimit::For(timeout));
        self
    }

    /// [`Request::max_age`](crate::Request::max_age) for every call.
    ///
    /// ```
    /// use shared_calls::{FlightGroup, Role};
    /// use std::time::Duration;
    ///
    /// let group = FlightGroup::<u32, ()>::builder().max_age(Duration::from_millis(2)).build();
    /// let hung = group.join("k");
    /// assert_eq!(group.call_ex("k", || Ok(1)).role, Role::Led);
    /// # drop(hung);
    /// ```
    pub fn max_age(mut self, age: Duration) -> Self {
        self.defaults.max_age = Some(age);
        self
    }

    /// [`Request::max_followers`](crate::Request::max_followers) for every call.
    ///
    /// See [`Builder`] for an example.
    pub fn max_followers(mut self, followers: usize) -> Self {
        self.defaults.max_followers = Some(followers);
        self
    }

    /// [`Request::takeover`](crate::Request::takeover) for every call.
    ///
    /// ```
    /// let group = shared_calls::FlightGroup::<u32, ()>::builder().takeover(1).build();
    /// assert_eq!(group.call("k", || Ok(1)), Ok(1));
    /// ```
    pub fn takeover(mut self, times: u32) -> Self {
        self.defaults.takeover = Some(times);
        self
    }

    /// [`Request::alone_on_deadlock`](crate::Request::alone_on_deadlock) for every call.
    ///
    /// ```
    /// let group = shared_calls::FlightGroup::<u32, ()>::builder().alone_on_deadlock().build();
    /// let outer = group.call("k", || Ok(group.call("k", || Ok(1)).unwrap() + 1));
    /// assert_eq!(outer, Ok(2));
    /// ```
    pub fn alone_on_deadlock(mut self) -> Self {
        self.defaults.alone_on_deadlock = true;
        self
    }

    /// Builds the group.
    ///
    /// See [`Builder`] for an example.
    #[must_use]
    pub fn build(self) -> FlightGroup<V, E, K, S> {
        let Self { shards, hasher, defaults, observer, .. } = self;
        let maps = (0..shards).map(|_| Mutex::new(Map::new())).collect();
        let counts = Arc::default();
        FlightGroup { shared: Arc::new(Shared { maps, hasher, defaults, counts, observer }) }
    }
}

// A panic cannot leave it in a broken state.
impl<V, E, K, S> UnwindSafe for Builder<V, E, K, S> {}
impl<V, E, K, S> RefUnwindSafe for Builder<V, E, K, S> {}

impl<V, E, K, S> fmt::Debug for Builder<V, E, K, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("shards", &self.shards)
            .field("defaults", &self.defaults)
            .field("observer", &self.observer.is_some())
            .finish_non_exhaustive()
    }
}
