//! Which calls have the same key: by `Eq` of what is looked up, whatever it is borrowed from and
//! however it is hashed.
#![cfg(not(loom))]

mod common;

use std::borrow::Borrow;
use std::collections::hash_map::DefaultHasher;
use std::ffi::{OsStr, OsString};
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::path::{Path, PathBuf};

use common::{assert_quiet, follow, lead, watchdog};
use shared_calls::FlightGroup;

/// Asserts that a caller with an equal key finds the flight, and one with another key does not.
fn assert_found<K, Q>(key: &Q, equal: &Q, other: &Q)
where
    K: Borrow<Q>,
    Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
{
    let _watchdog = watchdog();
    let group = FlightGroup::<u32, (), K>::new();
    for _ in 0..2 {
        let leader = lead(&group, key);
        let follower = follow(&group, equal);
        let elsewhere = lead(&group, other);
        assert_eq!(elsewhere.complete(Ok(2)).followers, 0);
        assert_eq!(leader.complete(Ok(1)).followers, 1);
        assert_eq!(follower.wait().result.unwrap(), 1);
        assert_quiet(&group);
        // The next round writes its keys over retired ones; the last to retire, an `other`, first.
        drop([lead(&group, key), lead(&group, other)]);
    }
}

#[test]
fn keys_are_looked_up_in_borrowed_form() {
    assert_found::<String, str>("user:42", &["user", "42"].join(":"), "user:4");
    assert_found::<Vec<u8>, [u8]>(&[1, 2], &[1, 2], &[1]);
    assert_found::<PathBuf, Path>(Path::new("a/b"), Path::new("a//b"), Path::new("a"));
    assert_found::<OsString, OsStr>(OsStr::new("a"), OsStr::new("a"), OsStr::new("b"));
}

#[test]
fn keys_that_are_cloned_are_looked_up_as_they_are() {
    let [ada, grace] = ["ada", "grace"].map(str::to_owned);
    assert_found::<u64, u64>(&42, &42, &43);
    assert_found::<String, String>(&ada, &ada.clone(), &grace);
    assert_found::<(u32, String), (u32, String)>(&(7, ada.clone()), &(7, ada.clone()), &(8, ada));
}

/// A host's name, which is the same in capitals.
struct Host(&'static str);

/// What a group keeps of a [`Host`]. It borrows as one, and need not be `Eq` itself.
struct HostBuf(Host);

impl PartialEq for Host {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(other.0)
    }
}

impl Eq for Host {}

impl Hash for Host {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.to_ascii_lowercase().hash(state);
    }
}

impl ToOwned for Host {
    type Owned = HostBuf;
    fn to_owned(&self) -> HostBuf {
        HostBuf(Host(self.0))
    }
}

impl Borrow<Host> for HostBuf {
    fn borrow(&self) -> &Host {
        &self.0
    }
}

#[test]
fn the_users_own_eq_decides() {
    assert_found::<HostBuf, Host>(&Host("a.example"), &Host("A.Example"), &Host("b.example"));
}

#[test]
fn the_hasher_may_be_chosen() {
    let _watchdog = watchdog();
    let hasher = BuildHasherDefault::<DefaultHasher>::default();
    let group = FlightGroup::<u32, (), String, _>::with_hasher(hasher);
    let leader = lead(&group, "k");
    let follower = follow(&group, "k");
    let _ = leader.complete(Ok(1));
    assert_eq!(follower.wait().result.unwrap(), 1);
}

/// The worst of hashers: all keys collide.
#[derive(Default)]
struct Same;

impl Hasher for Same {
    fn write(&mut self, _: &[u8]) {}
    fn finish(&self) -> u64 {
        7
    }
}

#[test]
fn keys_that_collide_stay_apart() {
    let _watchdog = watchdog();
    let group = FlightGroup::<u64, (), u64, BuildHasherDefault<Same>>::default();
    let mut leaders: Vec<_> = (0..50).map(|key| (key, lead(&group, &key))).collect();
    let mut followers: Vec<_> = (0..50).map(|key| (key, follow(&group, &key))).collect();
    // End the first, the middle and the last one in turn, so that entries of every kind of place are
    // taken out, and see each time that all others are still there.
    for turn in (0..3).cycle() {
        let Some(last) = leaders.len().checked_sub(1) else {
            break;
        };
        let i = last * turn / 2;
        let (key, leader) = leaders.remove(i);
        assert_eq!(leader.complete(Ok(key)).followers, 1);
        assert_eq!(group.call(&key, || Ok(key + 100)).unwrap(), key + 100);
        for (other, leader) in &leaders {
            drop(follow(&group, other));
            assert_eq!(leader.followers(), 1);
        }
        let (key, follower) = followers.remove(i);
        assert_eq!(follower.wait().result.unwrap(), key);
    }
    assert_quiet(&group);
}

/// As in a `HashMap`: that this compiles is the test.
#[test]
#[allow(clippy::needless_late_init)]
fn a_key_may_borrow_from_what_is_declared_after_its_group() {
    let group;
    let name = String::from("k");
    group = FlightGroup::<u32, (), &str>::new();
    assert_eq!(group.call(&name.as_str(), || Ok(1)).unwrap(), 1);
}
