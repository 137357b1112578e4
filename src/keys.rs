//! A `HashMap` whose keys are hashed once, by the caller, before any lock is taken.
//!
//! It differs from `HashMap<K, T>` in what runs under the lock that guards it: of the user's code
//! only `Eq` and `Borrow`, only in [`get_mut`](KeyMap::get_mut), and that changes nothing. So no
//! panic of the user's can leave the map half-changed, growing and shrinking never call `Hash`, and
//! an entry is removed by identity, without a key.
//!
//! Keys are behind an `Arc`, so that an entry is small, moving it in and out costs next to nothing,
//! and a key can be told outside the lock.

use std::borrow::Borrow;
use std::collections::hash_map::{Entry, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

use crate::sync::Arc;

/// A map that never held more keys than this does not shrink.
const KEPT: usize = 64;

type Table<T> = HashMap<u64, T, BuildHasherDefault<AsIs>>;

pub(crate) struct KeyMap<K, T> {
    /// The key with this hash: there is nearly always but one.
    by_hash: Table<(Arc<K>, T)>,
    /// Keys with a hash that another key had when they came.
    collided: Table<Vec<(Arc<K>, T)>>,
    len: usize,
    /// The most keys held since the map last shrank. The table's own `capacity()` will not do: it
    /// leaves out what removed entries still occupy.
    peak: usize,
}

impl<K, T> KeyMap<K, T> {
    pub(crate) fn new() -> Self {
        Self {
            by_hash: HashMap::default(),
            collided: HashMap::default(),
            len: 0,
            peak: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &(Arc<K>, T)> {
        let collided = self.collided.values().flatten();
        self.by_hash.values().chain(collided)
    }

    pub(crate) fn get_mut<Q>(&mut self, hash: u64, key: &Q) -> Option<&mut T>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        self.find(hash, |(named, _)| (**named).borrow() == key)
    }

    /// The first value with this hash whose entry `is_it`.
    pub(crate) fn find(
        &mut self,
        hash: u64,
        is_it: impl Fn(&(Arc<K>, T)) -> bool,
    ) -> Option<&mut T> {
        let first = self.by_hash.get_mut(&hash);
        let mut found = first.filter(|entry| is_it(entry));
        if found.is_none() && !self.collided.is_empty() {
            let others = self.collided.get_mut(&hash)?;
            found = others.iter_mut().find(|entry| is_it(entry));
        }
        found.map(|(_, value)| value)
    }

    /// Adds an entry for a key that the map does not have.
    pub(crate) fn insert(&mut self, hash: u64, key: Arc<K>, value: T) {
        match self.by_hash.entry(hash) {
            Entry::Vacant(slot) => {
                slot.insert((key, value));
            }
            Entry::Occupied(_) => self.collided.entry(hash).or_default().push((key, value)),
        }
        self.len += 1;
        self.peak = self.peak.max(self.len);
    }

    /// Removes the entry with this hash whose value `is_it`. The entry is handed back, not
    /// dropped: a key's `Drop` is the user's code.
    pub(crate) fn remove(&mut self, hash: u64, is_it: impl Fn(&T) -> bool) -> Option<(Arc<K>, T)> {
        let removed = match self.by_hash.entry(hash) {
            Entry::Occupied(first) if is_it(&first.get().1) => first.remove(),
            _ => self.remove_collided(hash, is_it)?,
        };
        self.len -= 1;
        self.shrink();
        Some(removed)
    }

    fn remove_collided(&mut self, hash: u64, is_it: impl Fn(&T) -> bool) -> Option<(Arc<K>, T)> {
        let others = self.collided.get_mut(&hash)?;
        let i = others.iter().position(|(_, value)| is_it(value))?;
        let removed = others.swap_remove(i);
        if others.is_empty() {
            self.collided.remove(&hash);
        }
        Some(removed)
    }

    /// Gives memory back after a spike of keys, which `HashMap` never does by itself. It moves the
    /// keys that are left when seven eighths have gone, so the cost, spread over the removals that
    /// led here, is a constant for each, and the map can double before it grows again.
    fn shrink(&mut self) {
        if self.peak > KEPT && self.len <= self.peak / 8 {
            self.by_hash.shrink_to(self.len * 2);
            self.collided.shrink_to(self.len * 2);
            self.peak = self.len * 2;
        }
    }
}

/// The hasher of keys that are hashes already.
#[derive(Default)]
struct AsIs(u64);

impl Hasher for AsIs {
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
    use crate::sync::Arc;

    #[test]
    fn keys_with_the_same_hash_stay_apart() {
        let mut map = KeyMap::new();
        for key in 0..4u64 {
            map.insert(7, Arc::new(key), key * 10);
        }
        assert_eq!(map.get_mut(7, &2), Some(&mut 20));
        assert_eq!(map.get_mut(8, &2), None);
        assert_eq!(map.remove(7, |v| *v == 99), None);
        for key in [0, 3, 1, 2] {
            assert_eq!(
                map.remove(7, |v| *v == key * 10),
                Some((Arc::new(key), key * 10))
            );
            assert_eq!(map.get_mut(7, &key), None);
        }
        assert_eq!(map.len(), 0);
        assert!(map.by_hash.is_empty() && map.collided.is_empty());
    }

    #[test]
    fn capacity_comes_back_after_a_spike() {
        let mut map = KeyMap::new();
        for key in 0..100_000u64 {
            map.insert(key, Arc::new(key), key);
        }
        for key in 0..100_000u64 {
            assert_eq!(map.get_mut(key, &key), Some(&mut key.clone()));
            assert_eq!(map.remove(key, |v| *v == key), Some((Arc::new(key), key)));
        }
        assert!(map.peak <= super::KEPT);
        assert!(map.by_hash.capacity() <= 2 * super::KEPT);
    }

    #[test]
    fn a_map_of_steady_size_does_not_shrink() {
        let mut map = KeyMap::new();
        for key in 0..1_000u64 {
            map.insert(key, Arc::new(key), ());
        }
        for key in 0..10_000u64 {
            map.remove(key, |()| true);
            map.insert(key + 1_000, Arc::new(key + 1_000), ());
        }
        assert_eq!((map.len(), map.peak), (1_000, 1_000));
    }
}
