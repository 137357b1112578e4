//! The peers, each used as its documentation would have it used for this.
//!
//! Where a library keeps values and lets them be removed through `&self` without bereaving those
//! who wait, the value is removed when the call is over, as that of a flight is. Where it does not,
//! the value stays: a second call for the same key, later, runs nothing.

use std::borrow::Borrow;
use std::cell::Cell;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Arc, OnceLock};

use cached::macros::cached;
use cached::Cached as _;
use dashmap::DashMap;
use lockmap::LockMap;
use once_map::OnceMap;
use quick_cache::sync::DefaultLifecycle;
use quick_cache::UnitWeighter;
use shared_calls::FlightGroup;

use crate::versions;

#[path = "../../literal.rs"]
#[allow(clippy::new_without_default)] // it is nobody's library where it comes from
mod literal;
pub use literal::{Call, Joined, Literal};

/// What a function loads, or why it could not. Text will do for an error here: it is `Clone`, which
/// half of the peers ask for.
pub type Loaded = Result<Value, String>;

/// A number that counts how often it is cloned.
#[derive(Debug, PartialEq, Eq)]
pub struct Value(pub u64);

thread_local! {
    static CLONES: Cell<u64> = const { Cell::new(0) };
}

impl Clone for Value {
    fn clone(&self) -> Self {
        CLONES.with(|n| n.set(n.get() + 1));
        Self(self.0)
    }
}

/// How many values this thread has cloned.
pub fn clones() -> u64 {
    CLONES.with(Cell::get)
}

/// One way to have one thread work for many, for keys that are looked up as `Q`.
pub trait Coalesce<Q: ?Sized>: Send + Sync {
    fn name(&self) -> &'static str;

    fn version(&self) -> &'static str;

    /// It does, what nobody can take away from it but by `clear`.
    fn keeps_values(&self) -> bool {
        false
    }

    /// Drops the values of one that keeps them.
    fn clear(&mut self) {}

    /// Runs `f`, or waits for the caller that runs its own for this key. If the library itself
    /// refuses, that is an error, too.
    fn call(&self, key: &Q, f: impl FnOnce() -> Loaded) -> Loaded;
}

/// The same for text, behind a pointer.
pub trait Peer: Send + Sync {
    fn name(&self) -> &'static str;

    fn version(&self) -> &'static str;

    fn keeps_values(&self) -> bool;

    fn call(&self, key: &str, f: &mut dyn FnMut() -> Loaded) -> Loaded;
}

impl<P: Coalesce<str>> Peer for P {
    fn name(&self) -> &'static str {
        Coalesce::name(self)
    }

    fn version(&self) -> &'static str {
        Coalesce::version(self)
    }

    fn keeps_values(&self) -> bool {
        Coalesce::keeps_values(self)
    }

    fn call(&self, key: &str, f: &mut dyn FnMut() -> Loaded) -> Loaded {
        Coalesce::call(self, key, f)
    }
}

pub fn all() -> Vec<Box<dyn Peer>> {
    vec![
        Box::<ByLiteral>::default(),
        Box::<OnceLocks>::default(),
        Box::<Moka>::default(),
        Box::<QuickCache>::default(),
        Box::<OnceMaps>::default(),
        Box::<Cached>::default(),
        Box::<LockMaps>::default(),
        Box::<Singleflight>::default(),
        Box::<SharedCalls>::default(),
    ]
}

/// The main peer: the algorithm that shared-calls has, and nothing else.
pub struct ByLiteral<K = String, S = RandomState>(Literal<K, Loaded, S>);

/// Its name; the program singles it out.
pub const LITERAL: &str = "go-zero's algorithm, literally";

impl<K: Hash + Eq, S: BuildHasher + Default> Default for ByLiteral<K, S> {
    fn default() -> Self {
        Self(Literal::new())
    }
}

impl<K, Q, S> Coalesce<Q> for ByLiteral<K, S>
where
    K: Borrow<Q> + Hash + Eq + Send,
    Q: ToOwned<Owned = K> + Hash + Eq + ?Sized,
    S: BuildHasher + Default + Send + Sync,
{
    fn name(&self) -> &'static str {
        LITERAL
    }

    fn version(&self) -> &'static str {
        "-"
    }

    fn call(&self, key: &Q, f: impl FnOnce() -> Loaded) -> Loaded {
        let called = self.0.call(key, f);
        called.unwrap_or_else(|_| Err("the leader panicked".to_owned()))
    }
}

/// `get_or_try_init` is not stable, so an error is a value of the cell.
#[derive(Default)]
pub struct OnceLocks<K = String, S = RandomState>(DashMap<K, Arc<OnceLock<Loaded>>, S>)
where
    K: Hash + Eq,
    S: BuildHasher + Clone;

impl<K, Q, S> Coalesce<Q> for OnceLocks<K, S>
where
    K: Borrow<Q> + Hash + Eq + Send + Sync,
    Q: ToOwned<Owned = K> + Hash + Eq + ?Sized,
    S: BuildHasher + Clone + Send + Sync,
{
    fn name(&self) -> &'static str {
        "std's OnceLock in a dashmap"
    }

    fn version(&self) -> &'static str {
        versions::of("dashmap")
    }

    fn call(&self, key: &Q, f: impl FnOnce() -> Loaded) -> Loaded {
        // In a statement of its own: the shard must not stay locked while the function runs.
        let cell = Arc::clone(&self.0.entry(key.to_owned()).or_default());
        let loaded = cell.get_or_init(f).clone();
        self.0.remove_if(key, |_, found| Arc::ptr_eq(found, &cell));
        loaded
    }
}

/// Of capacity 0: it has followers wait, and keeps nothing.
pub struct Moka<K = String, S = RandomState>(moka::sync::Cache<K, Value, S>);

impl<K, S> Default for Moka<K, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    S: BuildHasher + Default + Clone + Send + Sync + 'static,
{
    fn default() -> Self {
        let cache = moka::sync::Cache::builder().max_capacity(0);
        Self(cache.build_with_hasher(S::default()))
    }
}

impl<K, Q, S> Coalesce<Q> for Moka<K, S>
where
    K: Borrow<Q> + Hash + Eq + Send + Sync + 'static,
    Q: ToOwned<Owned = K> + Hash + Eq + ?Sized,
    S: BuildHasher + Clone + Send + Sync + 'static,
{
    fn name(&self) -> &'static str {
        "moka"
    }

    fn version(&self) -> &'static str {
        versions::of("moka")
    }

    fn call(&self, key: &Q, f: impl FnOnce() -> Loaded) -> Loaded {
        let loaded = self.0.try_get_with_by_ref(key, f);
        loaded.map_err(|error| String::clone(&error))
    }
}

pub struct QuickCache<K = String, S = quick_cache::DefaultHashBuilder>(
    quick_cache::sync::Cache<K, Value, UnitWeighter, S, DefaultLifecycle<K, Value>>,
);

impl<K: Hash + Eq, S: BuildHasher + Default + Clone> Default for QuickCache<K, S> {
    fn default() -> Self {
        const ROOM: usize = 1_000;
        Self(quick_cache::sync::Cache::with(
            ROOM,
            ROOM as u64,
            UnitWeighter,
            S::default(),
            DefaultLifecycle::default(),
        ))
    }
}

impl<K, Q, S> Coalesce<Q> for QuickCache<K, S>
where
    K: Borrow<Q> + Hash + Eq + Send + Sync,
    Q: ToOwned<Owned = K> + Hash + Eq + ?Sized,
    S: BuildHasher + Clone + Send + Sync,
{
    fn name(&self) -> &'static str {
        "quick_cache"
    }

    fn version(&self) -> &'static str {
        versions::of("quick_cache")
    }

    fn call(&self, key: &Q, f: impl FnOnce() -> Loaded) -> Loaded {
        let mut led = false;
        let loaded = self.0.get_or_insert_with(key, || {
            led = true;
            f()
        });
        if led {
            self.0.remove(key);
        }
        loaded
    }
}

/// Keeps its values: to remove one takes `&mut self`.
#[derive(Default)]
pub struct OnceMaps<K = String, S = once_map::RandomState>(OnceMap<K, Value, S>);

impl<K, Q, S> Coalesce<Q> for OnceMaps<K, S>
where
    K: Borrow<Q> + Hash + Eq + Send + Sync,
    Q: ToOwned<Owned = K> + Hash + Eq + ?Sized,
    S: BuildHasher + Send + Sync,
{
    fn name(&self) -> &'static str {
        "once_map"
    }

    fn version(&self) -> &'static str {
        versions::of("once_map")
    }

    fn keeps_values(&self) -> bool {
        true
    }

    fn clear(&mut self) {
        self.0.clear();
    }

    fn call(&self, key: &Q, f: impl FnOnce() -> Loaded) -> Loaded {
        let made = |_: &K| f();
        self.0.map_try_insert_ref(key, Q::to_owned, made, |_, value| value.clone())
    }
}

/// Keeps its values, in statics: those who wait look for them there.
#[derive(Default)]
pub struct Cached;

/// A function for each type of key, with a static of the same name, which holds what it loaded.
macro_rules! cached_by {
    ($Q:ty, $load:ident, $STATIC:ident, $key:literal) => {
        impl Coalesce<$Q> for Cached {
            fn name(&self) -> &'static str {
                "cached, sync_writes = \"by_key\""
            }

            fn version(&self) -> &'static str {
                versions::of("cached")
            }

            fn keeps_values(&self) -> bool {
                true
            }

            fn clear(&mut self) {
                $STATIC.write().cache_clear();
            }

            fn call(&self, key: &$Q, f: impl FnOnce() -> Loaded) -> Loaded {
                $load(key, f)
            }
        }

        // Of a `Result` it keeps no error; but it does not see through an alias for one.
        #[cached(key = $key, convert = "{ _key.to_owned() }", sync_writes = "by_key")]
        fn $load<F: FnOnce() -> Loaded>(_key: &$Q, f: F) -> Result<Value, String> {
            f()
        }
    };
}

cached_by!(str, load_by_text, LOAD_BY_TEXT, "String");
cached_by!(u64, load_by_number, LOAD_BY_NUMBER, "u64");

/// Keeps its values: each who waited for the key's lock then looks for one under it.
#[derive(Default)]
pub struct LockMaps<K: Hash + Eq = String, S: BuildHasher = foldhash::fast::RandomState>(
    LockMap<K, Value, S>,
);

impl<K: Hash + Eq, S: BuildHasher> LockMaps<K, S> {
    fn load(mut entry: lockmap::Entry<'_, K, Value, S>, f: impl FnOnce() -> Loaded) -> Loaded {
        if let Some(value) = entry.get() {
            return Ok(value.clone());
        }
        let value = f()?;
        entry.insert(value.clone());
        Ok(value)
    }
}

/// What the two below have in common.
macro_rules! lockmap_by {
    ($Q:ty, $K:ty, |$map:ident, $key:ident| $entry:expr) => {
        impl<S: BuildHasher + Send + Sync> Coalesce<$Q> for LockMaps<$K, S> {
            fn name(&self) -> &'static str {
                "lockmap"
            }

            fn version(&self) -> &'static str {
                versions::of("lockmap")
            }

            fn keeps_values(&self) -> bool {
                true
            }

            fn clear(&mut self) {
                self.0.clear();
            }

            fn call(&self, $key: &$Q, f: impl FnOnce() -> Loaded) -> Loaded {
                let $map = &self.0;
                Self::load($entry, f)
            }
        }
    };
}

lockmap_by!(str, String, |map, key| map.entry_by_ref(key));
lockmap_by!(u64, u64, |map, key| map.entry(*key));

/// For text only, and without a choice of hasher.
pub struct Singleflight(singleflight::Group<Loaded>);

impl Default for Singleflight {
    fn default() -> Self {
        Self(singleflight::Group::new())
    }
}

impl Coalesce<str> for Singleflight {
    fn name(&self) -> &'static str {
        "singleflight"
    }

    fn version(&self) -> &'static str {
        versions::of("singleflight")
    }

    fn call(&self, key: &str, f: impl FnOnce() -> Loaded) -> Loaded {
        // It asks for `Fn`, and calls it once.
        let f = Cell::new(Some(f));
        self.0.work(key, || f.take().expect("called once")())
    }
}

pub struct SharedCalls<K = String, S = RandomState> {
    pub group: FlightGroup<Value, String, K, S>,
}

impl<K, S: Default> Default for SharedCalls<K, S> {
    fn default() -> Self {
        Self { group: FlightGroup::default() }
    }
}

/// Its name; the program singles it out.
pub const SHARED_CALLS: &str = "shared-calls";

impl<K, Q, S> Coalesce<Q> for SharedCalls<K, S>
where
    K: Borrow<Q> + Hash + Eq + Send + Sync,
    Q: ToOwned<Owned = K> + Hash + Eq + ?Sized,
    S: BuildHasher + Send + Sync,
{
    fn name(&self) -> &'static str {
        SHARED_CALLS
    }

    fn version(&self) -> &'static str {
        versions::of("shared-calls")
    }

    fn call(&self, key: &Q, f: impl FnOnce() -> Loaded) -> Loaded {
        let called = self.group.call(key, f);
        called.map_err(|error| error.to_string())
    }
}
