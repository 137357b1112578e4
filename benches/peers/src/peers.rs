//! The peers, each used as its documentation would have it used for this.
//!
//! Where a library keeps values and lets them be removed through `&self` without bereaving those
//! who wait, the value is removed when the call is over, as that of a flight is. Where it does not,
//! the value stays: a second call for the same key, later, runs nothing.

use std::cell::RefCell;
use std::sync::{Arc, OnceLock};

use cached::macros::cached;
use dashmap::DashMap;
use lockmap::LockMap;
use once_map::OnceMap;
use shared_calls::FlightGroup;

use crate::versions;

#[path = "../../handwritten.rs"]
mod handwritten;
use handwritten::Handwritten;

/// What a function loads, or why it could not. Text will do for an error here: it is `Clone`, which
/// half of the peers ask for.
pub type Loaded = Result<u64, String>;

/// One way to have one thread work for many.
pub trait Peer: Sync {
    fn name(&self) -> &'static str;

    fn version(&self) -> &'static str;

    /// Runs `f`, or waits for whoever runs theirs for this key. If the library itself refuses, that
    /// is an error, too.
    fn call(&self, key: &str, f: &mut dyn FnMut() -> Loaded) -> Loaded;
}

pub fn all() -> Vec<Box<dyn Peer>> {
    vec![
        Box::new(ByHand(Handwritten::new())),
        Box::new(OnceLocks(DashMap::new())),
        Box::new(Moka(moka::sync::Cache::new(0))),
        Box::new(QuickCache(quick_cache::sync::Cache::new(1_000))),
        Box::new(OnceMaps(OnceMap::new())),
        Box::new(Cached),
        Box::new(LockMaps(LockMap::new())),
        Box::new(Singleflight(singleflight::Group::new())),
        Box::new(SharedCalls(FlightGroup::new())),
    ]
}

struct ByHand(Handwritten<String, Loaded>);

impl Peer for ByHand {
    fn name(&self) -> &'static str {
        "hand-written"
    }

    fn version(&self) -> &'static str {
        "-"
    }

    fn call(&self, key: &str, f: &mut dyn FnMut() -> Loaded) -> Loaded {
        self.0.call(key, f)
    }
}

/// `get_or_try_init` is not stable, so an error is a value of the cell.
struct OnceLocks(DashMap<String, Arc<OnceLock<Loaded>>>);

impl Peer for OnceLocks {
    fn name(&self) -> &'static str {
        "std's OnceLock in a dashmap"
    }

    fn version(&self) -> &'static str {
        versions::of("dashmap")
    }

    fn call(&self, key: &str, f: &mut dyn FnMut() -> Loaded) -> Loaded {
        // In a statement of its own: the shard must not stay locked while the function runs.
        let cell = Arc::clone(&self.0.entry(key.to_owned()).or_default());
        let loaded = cell.get_or_init(f).clone();
        self.0.remove_if(key, |_, found| Arc::ptr_eq(found, &cell));
        loaded
    }
}

/// Of capacity 0: it has followers wait, and keeps nothing.
struct Moka(moka::sync::Cache<String, u64>);

impl Peer for Moka {
    fn name(&self) -> &'static str {
        "moka"
    }

    fn version(&self) -> &'static str {
        versions::of("moka")
    }

    fn call(&self, key: &str, f: &mut dyn FnMut() -> Loaded) -> Loaded {
        let loaded = self.0.try_get_with_by_ref(key, f);
        loaded.map_err(|error| String::clone(&error))
    }
}

struct QuickCache(quick_cache::sync::Cache<String, u64>);

impl Peer for QuickCache {
    fn name(&self) -> &'static str {
        "quick_cache"
    }

    fn version(&self) -> &'static str {
        versions::of("quick_cache")
    }

    fn call(&self, key: &str, f: &mut dyn FnMut() -> Loaded) -> Loaded {
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
struct OnceMaps(OnceMap<String, u64>);

impl Peer for OnceMaps {
    fn name(&self) -> &'static str {
        "once_map"
    }

    fn version(&self) -> &'static str {
        versions::of("once_map")
    }

    fn call(&self, key: &str, f: &mut dyn FnMut() -> Loaded) -> Loaded {
        self.0.try_insert_cloned(key.to_owned(), |_| f())
    }
}

/// Keeps its values, in a static: those who wait look for it there.
struct Cached;

impl Peer for Cached {
    fn name(&self) -> &'static str {
        "cached, sync_writes = \"by_key\""
    }

    fn version(&self) -> &'static str {
        versions::of("cached")
    }

    fn call(&self, key: &str, f: &mut dyn FnMut() -> Loaded) -> Loaded {
        load_cached(key, f)
    }
}

#[cached(
    key = "String",
    convert = "{ _key.to_owned() }",
    sync_writes = "by_key"
)]
fn load_cached(_key: &str, f: &mut dyn FnMut() -> Loaded) -> Loaded {
    f()
}

/// Keeps its values: each who waited for the key's lock then looks for one under it.
struct LockMaps(LockMap<String, u64>);

impl Peer for LockMaps {
    fn name(&self) -> &'static str {
        "lockmap"
    }

    fn version(&self) -> &'static str {
        versions::of("lockmap")
    }

    fn call(&self, key: &str, f: &mut dyn FnMut() -> Loaded) -> Loaded {
        let mut entry = self.0.entry_by_ref(key);
        if let Some(value) = *entry.get() {
            return Ok(value);
        }
        let value = f()?;
        entry.insert(value);
        Ok(value)
    }
}

struct Singleflight(singleflight::Group<Loaded>);

impl Peer for Singleflight {
    fn name(&self) -> &'static str {
        "singleflight"
    }

    fn version(&self) -> &'static str {
        versions::of("singleflight")
    }

    fn call(&self, key: &str, f: &mut dyn FnMut() -> Loaded) -> Loaded {
        // It asks for `Fn`, and calls it once.
        let f = RefCell::new(f);
        self.0.work(key, || f.borrow_mut()())
    }
}

struct SharedCalls(FlightGroup<u64, String>);

impl Peer for SharedCalls {
    fn name(&self) -> &'static str {
        "shared-calls"
    }

    fn version(&self) -> &'static str {
        versions::of("shared-calls")
    }

    fn call(&self, key: &str, f: &mut dyn FnMut() -> Loaded) -> Loaded {
        self.0.call(key, f).map_err(|error| error.to_string())
    }
}
