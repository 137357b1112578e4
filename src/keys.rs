//! A `HashMap` whose keys are hashed once, by the caller, before any lock is taken.
//!
//! The map is keyed by the hash, so growing and shrinking never run user code, and an entry is
//! found and removed by its identity, without a key. User code runs in
//! [`find_or_insert`](KeyMap::find_or_insert) and [`update`](KeyMap::update) only, before
//! anything has changed: a panic there leaves the map as it was.
//!
//! A few keys of removed entries are kept, to be written over for the next ones, so that a lone
//! call allocates nothing.

use std::{
    collections::hash_map::Entry, collections::hash_map::HashMap, hash::BuildHasherDefault,
    hash::Hasher, mem,
};

use crate::lookup::Lookup;

/// A map that never held more keys than this does not shrink.
const SMALL: usize = 64;

/// A key that was looked up by something larger than this is not kept for reuse. (A form that only
/// points to its data, such as a `&String` or a struct with a `&str`, does not show how large that is,
/// so its key is kept.)
const RETIRED_KEY_BYTES: usize = 256;

/// How many keys of removed entries are kept.
const RETIRED: usize = 4;

pub(crate) type Table<K, T> = HashMap<u64, (K, T), BuildHasherDefault<Prehashed>>;

/// What is removed under the lock and is to be dropped outside: a key, because its `Drop` is user
/// code, and a table that has become too large, because to free it can take long.
pub(crate) type Garbage<K, T> = Option<(K, Option<Box<Table<K, T>>>)>;

pub(crate) struct KeyMap<K, T> {
    /// One key for each hash.
    by_hash: Table<K, T>,
    /// Keys that came while another with the same hash was in the table. There are hardly ever any.
    collided: Vec<(u64, K, T)>,
    retired: Vec<K>,
    /// The most keys that the table may have held since it last shrank. Its own `capacity()` will
    /// not do: it leaves out what removed entries still occupy.
    peak: usize,
}

impl<K, T> KeyMap<K, T> {
    pub(crate) fn new() -> Self {
        Self { by_hash: HashMap::default(), collided: Vec::new(), retired: Vec::new(), peak: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.by_hash.len() + self.collided.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &T)> {
        let collided = self.collided.iter().map(|(_, key, value)| (key, value));
        let first = self.by_hash.values().map(|(key, value)| (key, value));
        first.chain(collided)
    }

    /// Finds the key's entry. If there is none, puts one there with the value that `make` makes, and
    /// gives `None`.
    #[inline]
    pub(crate) fn find_or_insert<Q: Lookup<K> + ?Sized>(
        &mut self,
        hash: u64,
        key: &Q,
        make: impl FnOnce() -> T,
    ) -> Option<&mut T> {
        if !self.collided.is_empty() {
            let same = |other: &(u64, K, T)| other.0 == hash && key.is(&other.1);
            if let Some(i) = self.collided.iter().position(same) {
                return Some(&mut self.collided[i].2);
            }
        }
        match self.by_hash.entry(hash) {
            Entry::Vacant(slot) => {
                // Written over in its place, so that no panic drops it under the lock.
                if let Some(retired) = self.retired.last_mut() {
                    key.overwrite(retired);
                }
                let key = self.retired.pop().unwrap_or_else(|| key.to_key());
                slot.insert((key, make()));
                None
            }
            Entry::Occupied(first) if key.is(&first.get().0) => Some(&mut first.into_mut().1),
            Entry::Occupied(_) => {
                self.collided.push((hash, key.to_key(), make()));
                None
            }
        }
    }

    /// Calls `change` for the entries with this hash until it returns `Some`: the result, and whether
    /// the entry stays. The key of an entry that does not stay is kept for reuse if there is room and
    /// `key_size` is at most [`RETIRED_KEY_BYTES`].
    #[inline]
    pub(crate) fn update<R>(
        &mut self,
        hash: u64,
        key_size: usize,
        garbage: &mut Garbage<K, T>,
        mut change: impl FnMut(&K, &mut T) -> Option<(R, bool)>,
    ) -> Option<R> {
        if self.by_hash.len() > self.peak {
            self.peak = self.by_hash.len();
        }
        if let Entry::Occupied(mut first) = self.by_hash.entry(hash) {
            let (key, value) = first.get_mut();
            if let Some((changed, stays)) = change(key, value) {
                if !stays {
                    let (key, _) = first.remove();
                    if self.peak > SMALL && self.by_hash.len() <= self.peak / 8 {
                        *garbage = Some((key, Some(self.shrink())));
                    } else if key_size <= RETIRED_KEY_BYTES && self.retired.len() < RETIRED {
                        self.retired.push(key);
                    } else {
                        *garbage = Some((key, None));
                    }
                }
                return Some(changed);
            }
        }
        self.update_collided(hash, garbage, change)
    }

    #[cold]
    fn update_collided<R>(
        &mut self,
        hash: u64,
        garbage: &mut Garbage<K, T>,
        mut change: impl FnMut(&K, &mut T) -> Option<(R, bool)>,
    ) -> Option<R> {
        let mut same = (self.collided.iter_mut().enumerate()).filter(|(_, other)| other.0 == hash);
        let (i, (changed, stays)) =
            same.find_map(|(i, (_, key, value))| Some((i, change(key, value)?)))?;
        if !stays {
            *garbage = Some((self.collided.swap_remove(i).1, None));
            if self.collided.len() <= self.collided.capacity() / 8 {
                self.collided.shrink_to(self.collided.len() * 2);
            }
        }
        Some(changed)
    }

    /// Gives memory back after a spike of keys, as `HashMap` does not by itself.
    ///
    /// This moves the keys that are left once seven eighths have gone. Spread over the removals that
    /// led here, that is a constant cost for each, and the map can double before it grows again.
    #[cold]
    fn shrink(&mut self) -> Box<Table<K, T>> {
        self.peak = self.by_hash.len() * 2;
        let mut smaller = HashMap::with_capacity_and_hasher(self.peak, Default::default());
        smaller.extend(self.by_hash.drain());
        Box::new(mem::replace(&mut self.by_hash, smaller))
    }
}

/// The hasher of keys that are hashes already.
#[derive(Default)]
pub(crate) struct Prehashed(u64);

impl Hasher for Prehashed {
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only u64 keys are hashed")
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::KeyMap;

    fn insert(map: &mut KeyMap<u64, u64>, hash: u64, key: u64) {
        assert!(map.find_or_insert(hash, &key, || key * 10).is_none());
    }

    fn find(map: &mut KeyMap<u64, u64>, hash: u64, key: u64) -> Option<u64> {
        map.update(hash, 0, &mut None, |named, value| (*named == key).then_some((*value, true)))
    }

    fn remove(map: &mut KeyMap<u64, u64>, hash: u64, key: u64, retire_key: bool) {
        let mut garbage = None;
        map.update(hash, if retire_key { 0 } else { usize::MAX }, &mut garbage, |_, value| {
            (*value == key * 10).then_some(((), false))
        })
        .expect("it is there");
        assert_eq!(garbage.map(|(key, _)| key), (!retire_key).then_some(key));
    }

    #[test]
    fn keys_with_the_same_hash_stay_apart() {
        let mut map = KeyMap::new();
        for key in 0..4 {
            insert(&mut map, 7, key);
        }
        assert_eq!(map.find_or_insert(7, &2, || panic!("it is there")), Some(&mut 20));
        assert_eq!(find(&mut map, 8, 2), None);
        assert_eq!(find(&mut map, 7, 99), None);
        for key in [0, 3, 1, 2] {
            assert_eq!(find(&mut map, 7, key), Some(key * 10));
            remove(&mut map, 7, key, false);
            assert_eq!(find(&mut map, 7, key), None);
        }
        assert_eq!(map.len(), 0);
        assert!(map.by_hash.is_empty() && map.collided.is_empty());
    }

    #[test]
    fn capacity_comes_back_after_a_spike() {
        for collide in [false, true] {
            let hash = |key| if collide { key % 100 } else { key };
            let keys = if collide { 5_000 } else { 100_000 };
            let mut map = KeyMap::new();
            for key in 0..keys {
                insert(&mut map, hash(key), key);
            }
            for key in 0..keys {
                remove(&mut map, hash(key), key, false);
            }
            assert!(map.peak <= super::SMALL);
            assert!(map.by_hash.capacity() <= 2 * super::SMALL);
            assert!(map.collided.capacity() <= 2 * super::SMALL);
        }
    }

    #[test]
    fn a_map_of_steady_size_does_not_shrink() {
        let mut map = KeyMap::new();
        for key in 0..1_000 {
            insert(&mut map, key, key);
        }
        for key in 0..10_000 {
            remove(&mut map, key, key, true);
            insert(&mut map, key + 1_000, key + 1_000);
        }
        assert_eq!((map.len(), map.peak), (1_000, 1_000));
    }
}
