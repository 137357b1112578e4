//! How a key is looked up without being made.

use std::{borrow::Borrow, hash::Hash};

/// What a key of type `K` is looked up by: its borrowed form, as in a `HashMap`, or a struct of the
/// parts of a compound key.
///
/// Every `Q: Hash + Eq + ToOwned<Owned = K>` with `K: Borrow<Q>` implements it: `str` for a `String`,
/// `u64` for a `u64`. Implement it yourself where a key has no borrowed form, so that a look-up does
/// not allocate:
///
/// ```
/// use shared_calls::{FlightGroup, Lookup};
///
/// #[derive(Hash)]
/// struct Page<'a> {
///     tenant: u32,
///     path: &'a str,
/// }
///
/// impl Lookup<(u32, String)> for Page<'_> {
///     fn is(&self, (tenant, path): &(u32, String)) -> bool {
///         self.tenant == *tenant && self.path == path
///     }
///     fn to_key(&self) -> (u32, String) {
///         (self.tenant, self.path.to_owned())
///     }
///     fn overwrite(&self, (tenant, path): &mut (u32, String)) {
///         *tenant = self.tenant;
///         self.path.clone_into(path);
///     }
/// }
///
/// let pages = FlightGroup::<u32, std::io::Error, (u32, String)>::new();
/// let page = Page { tenant: 7, path: "/" };
/// assert_eq!(pages.call(&page, || Ok(1))?, 1);
/// # Ok::<(), shared_calls::CallError<std::io::Error>>(())
/// ```
///
/// # Laws
///
/// All lookups of one key hash alike: if `a.is(&b.to_key())`, then `a` and `b` have the same
/// [`Hash`]. A stored key is never hashed. `a.is(&a.to_key())` holds, and `overwrite` leaves the key
/// that `to_key` makes. A lookup that breaks this can start a second flight for a key, or join the
/// flight of another key and get its value.
///
/// The three methods may run under the group's lock, as those of a key in `HashMap::entry` would under
/// yours. They must not call the group. A panic in one of them leaves the group as it was.
pub trait Lookup<K>: Hash {
    /// Whether this is the key that is looked for.
    fn is(&self, key: &K) -> bool;

    /// Makes the key, for a flight that begins.
    fn to_key(&self) -> K;

    /// Makes the key in place of a retired one, to save its allocation.
    fn overwrite(&self, key: &mut K) {
        *key = self.to_key();
    }
}

impl<K, Q> Lookup<K> for Q
where
    K: Borrow<Q>,
    Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
{
    fn is(&self, key: &K) -> bool {
        key.borrow() == self
    }

    fn to_key(&self) -> K {
        self.to_owned()
    }

    fn overwrite(&self, key: &mut K) {
        self.clone_into(key);
    }
}
