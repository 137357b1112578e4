//! `Lookup`: what a key is looked up by. Compound keys and an `Arc<str>` by its text cost no
//! allocation, retired keys are written over, and a panic in any method leaves the group as it was.
#![cfg(not(loom))]

mod common;

use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use common::{assert_quiet, follow, lead, panic_text, the_flight, until_waiting, watchdog};
use shared_calls::{CallError, FlightGroup, Joined, Lookup, Role, SharedCalls, SharedCallsExt};

/// A key without `Hash`, `Eq`, `Borrow` or `Clone`.
struct Page {
    tenant: u32,
    path: String,
}

#[derive(Clone, Copy, Hash)]
struct PageRef<'a> {
    tenant: u32,
    path: &'a str,
}

impl Lookup<Page> for PageRef<'_> {
    fn is(&self, key: &Page) -> bool {
        self.tenant == key.tenant && self.path == key.path
    }

    fn to_key(&self) -> Page {
        Page { tenant: self.tenant, path: self.path.to_owned() }
    }
}

impl Hash for Page {
    fn hash<H: Hasher>(&self, _: &mut H) {
        panic!("the key itself is never hashed");
    }
}

fn page(tenant: u32, path: &str) -> PageRef<'_> {
    PageRef { tenant, path }
}

#[test]
fn a_compound_key_is_looked_up_by_its_parts() {
    let group = FlightGroup::<u32, &str, Page>::new();
    let leader = lead(&group, &page(1, "/"));
    assert_eq!(group.call(&page(2, "/"), || Ok(2)), Ok(2));
    assert_eq!(group.call(&page(1, "/x"), || Ok(3)), Ok(3));
    let follower = follow(&group, &page(1, &String::from("/")));
    let _ = leader.complete(Ok(1));
    assert_eq!(follower.wait().result, Ok(1));
    assert_eq!(group.stats().followed, 1);
}

/// Every method takes it.
#[test]
fn every_method_takes_a_lookup() {
    let group: FlightGroup<u32, &str, Page> = FlightGroup::builder().shards(3).build();
    let key = page(1, "/");
    assert_eq!(group.call(&key, || Ok(1)), Ok(1));
    assert_eq!(group.call_ex(&key, || Ok(1)).role, Role::Led);
    let twice = [&page(1, "/"), &page(2, "/"), &page(1, "/")];
    let results = group.call_many(&twice, |keys| Ok(keys.iter().map(|key| key.tenant).collect()));
    assert_eq!(results, [Ok(1), Ok(2), Ok(1)]);
    assert_eq!(group.stats().led, 4);
    let leader = lead(&group, &key);
    assert!(!group.forget_unshared(&page(2, "/")));
    assert!(group.forget_unshared(&page(1, "/")));
    assert!(!group.forget(&key));
    drop(leader);
    assert_eq!(group.start(&key, |job| job.run(), || Ok(1)).wait().result, Ok(1));
    let request = || group.request(&key).timeout(Duration::from_secs(3600));
    assert_eq!(request().call(|| Ok(1)), Ok(1));
    assert_eq!(request().call_with(|flight| Ok(flight.followers() as u32)), Ok(0));
    let ticket = request().start_with(|job| job.run(), |flight| Ok(u32::from(flight.is_wanted())));
    assert_eq!(ticket.wait().result, Ok(1));
    let Joined::Leader(leader) = request().join() else {
        panic!("the key is free");
    };
    drop(leader);
    let calls: &dyn SharedCalls<u32, &str, PageRef<'_>> = &group;
    assert_eq!(calls.call(&key, || Ok(1)), Ok(1));
    assert_eq!(SharedCallsExt::call(&group, &key, || Ok(1)), Ok(1));
    assert_quiet(&group);
}

/// An `Arc<str>` by its text. (`str` itself cannot: its `to_owned` is a `String`.)
#[derive(Hash)]
struct Text<'a>(&'a str);

impl Lookup<Arc<str>> for Text<'_> {
    fn is(&self, key: &Arc<str>) -> bool {
        *self.0 == **key
    }

    fn to_key(&self) -> Arc<str> {
        Arc::from(self.0)
    }
}

#[test]
fn an_arc_of_a_text_is_looked_up_by_the_text() {
    let group = FlightGroup::<u32, &str, Arc<str>>::new();
    let leader = lead(&group, &Text("k"));
    let flight = the_flight(&group);
    assert_eq!(&*flight.key, "k");
    let follower = follow(&group, &Text(&String::from("k")));
    let _ = leader.complete(Ok(1));
    assert_eq!(follower.wait().result, Ok(1));
    // What is kept for reuse is written over, and not in the hands of those who look.
    let leader = lead(&group, &Text("other"));
    assert_eq!((&*flight.key, &*the_flight(&group).key), ("k", "other"));
    drop(leader);
}

/// The common borrowed forms are lookups without further ado.
#[test]
fn borrowed_forms_are_lookups() {
    let by_text = FlightGroup::<u32, &str>::new();
    assert_eq!(by_text.call("k", || Ok(1)), Ok(1));
    assert_eq!(by_text.call(&String::from("k"), || Ok(1)), Ok(1));
    let leader = lead(&by_text, "k");
    drop(follow(&by_text, &String::from("k")));
    drop(leader);
    let by_number = FlightGroup::<u32, &str, u64>::new();
    assert_eq!(by_number.call(&7, || Ok(1)), Ok(1));
    let by_bytes = FlightGroup::<u32, &str, Vec<u8>>::new();
    assert_eq!(by_bytes.call(&b"k"[..], || Ok(1)), Ok(1));
    let by_pair = FlightGroup::<u32, &str, (u32, String)>::new();
    assert_eq!(by_pair.call(&(1, "k".to_owned()), || Ok(1)), Ok(1));
}

/// Counts what is called, and panics in one method if it is told to.
#[derive(Default)]
struct Calls {
    is: AtomicUsize,
    to_key: AtomicUsize,
    overwrite: AtomicUsize,
}

impl Calls {
    fn take(&self) -> (usize, usize, usize) {
        let take = |n: &AtomicUsize| n.swap(0, SeqCst);
        (take(&self.is), take(&self.to_key), take(&self.overwrite))
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Bad {
    Nothing,
    Hash,
    Is,
    ToKey,
    Overwrite,
}

struct Counting<'a> {
    name: &'a str,
    calls: &'a Calls,
    bad: Bad,
}

impl Counting<'_> {
    fn called(&self, n: &AtomicUsize, bad: Bad) {
        n.fetch_add(1, SeqCst);
        assert!(self.bad != bad, "bad {bad:?}");
    }
}

impl Hash for Counting<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        assert!(self.bad != Bad::Hash, "bad {:?}", Bad::Hash);
        self.name.hash(state);
    }
}

impl Lookup<String> for Counting<'_> {
    fn is(&self, key: &String) -> bool {
        self.called(&self.calls.is, Bad::Is);
        self.name == key
    }

    fn to_key(&self) -> String {
        self.called(&self.calls.to_key, Bad::ToKey);
        self.name.to_owned()
    }

    fn overwrite(&self, key: &mut String) {
        // Half of the work is done by then.
        key.clear();
        self.called(&self.calls.overwrite, Bad::Overwrite);
        key.push_str(self.name);
    }
}

#[test]
fn retired_keys_are_written_over() {
    let group = FlightGroup::<u32, &str>::new();
    let calls = Calls::default();
    let key = |name| Counting { name, calls: &calls, bad: Bad::Nothing };
    assert_eq!(group.call(&key("a"), || Ok(1)), Ok(1));
    assert_eq!(calls.take(), (0, 1, 0));
    for name in ["a", "b", "a much longer name than before", ""] {
        let outcome = group.call(&key(name), || {
            assert_eq!(the_flight(&group).key, name);
            Ok(1)
        });
        assert_eq!(outcome, Ok(1));
        assert_eq!(calls.take(), (0, 0, 1), "{name}");
    }
    // A caller that finds a flight compares, and makes nothing.
    let leader = lead(&group, &key("k"));
    let _ = calls.take();
    drop(follow(&group, &key("k")));
    assert_eq!(calls.take(), (1, 0, 0));
    // A flight that is given up needs a key for each of two places.
    assert!(group.forget(&key("k")));
    assert_eq!(calls.take(), (1, 1, 0));
    drop(leader);
}

type Group = FlightGroup<u32, &'static str>;

/// Asks with a key of which one method panics, and checks that this has changed nothing. "k" is
/// `in_flight`, with a follower, or not. A retired key is there only for `overwrite`.
fn with_panics_in(bad: Bad, in_flight: bool, ask: impl Fn(&Group, &Counting<'_>)) {
    let _watchdog = watchdog();
    let calls = Calls::default();
    let key = |bad| Counting { name: "k", calls: &calls, bad };
    let group = Group::new();
    assert_eq!(group.call("retired", || Ok(1)), Ok(1));
    let _uses_it_up = (bad != Bad::Overwrite).then(|| lead(&group, "another"));
    let shared = in_flight.then(|| (lead(&group, "k"), follow(&group, "k")));

    let before = group.stats();
    let text = panic_text(|| ask(&group, &key(bad)));
    assert_eq!(text, format!("bad {bad:?}"));
    assert_eq!(group.stats(), before, "nothing has happened");

    // The group works, also for this key.
    if let Some((leader, follower)) = shared {
        assert_eq!(leader.followers(), 1);
        let second = follow(&group, &key(Bad::Nothing));
        assert_eq!(leader.complete(Ok(1)).followers, 2);
        assert_eq!((follower.wait().result, second.wait().result), (Ok(1), Ok(1)));
    }
    assert_eq!(group.call_ex(&key(Bad::Nothing), || Ok(2)).role, Role::Led);
    assert_eq!(group.call("a third", || Ok(3)), Ok(3));
}

fn ask_all(bad: Bad, in_flight: bool) {
    with_panics_in(bad, in_flight, |group, key| drop(group.call(key, || Ok(9))));
    with_panics_in(bad, in_flight, |group, key| drop(group.call_ex(key, || Ok(9))));
    with_panics_in(bad, in_flight, |group, key| drop(group.join(key)));
    with_panics_in(bad, in_flight, |group, key| drop(group.start(key, drop, || Ok(9))));
    with_panics_in(bad, in_flight, |group, key| {
        drop(group.request(key).next_flight().call(|| Ok(9)));
    });
    with_panics_in(bad, in_flight, |group, key| {
        drop(group.request(key).call_with(|_| Ok(9)));
    });
    with_panics_in(bad, in_flight, |group, key| {
        drop(group.call_many(&[key], |_| Ok(vec![9])));
    });
}

#[test]
fn a_panic_in_hash_leaves_the_group_as_it_was() {
    for in_flight in [false, true] {
        ask_all(Bad::Hash, in_flight);
        with_panics_in(Bad::Hash, in_flight, |group, key| {
            group.forget(key);
        });
        with_panics_in(Bad::Hash, in_flight, |group, key| {
            group.forget_unshared(key);
        });
    }
}

#[test]
fn a_panic_in_is_leaves_the_group_as_it_was() {
    ask_all(Bad::Is, true);
    with_panics_in(Bad::Is, true, |group, key| {
        group.forget(key);
    });
    with_panics_in(Bad::Is, true, |group, key| {
        group.forget_unshared(key);
    });
}

#[test]
fn a_panic_in_to_key_leaves_the_group_as_it_was() {
    ask_all(Bad::ToKey, false);
    // To give a flight up takes a key.
    with_panics_in(Bad::ToKey, true, |group, key| {
        group.forget(key);
    });
    with_panics_in(Bad::ToKey, true, |group, key| {
        drop(group.request(key).max_age(Duration::ZERO).call(|| Ok(9)));
    });
    with_panics_in(Bad::ToKey, true, |group, key| {
        drop(group.request(key).max_age(Duration::ZERO).join());
    });
}

#[test]
fn a_panic_in_overwrite_leaves_the_group_as_it_was() {
    ask_all(Bad::Overwrite, false);
}

/// A waiting caller makes a key when it gives the flight up by age.
#[test]
fn a_panic_in_to_key_at_the_age_limit_leaves_the_group_as_it_was() {
    let _watchdog = watchdog();
    let calls = Calls::default();
    for next_flight in [false, true] {
        let group = Group::new();
        let leader = lead(&group, "k");
        let key = Counting { name: "k", calls: &calls, bad: Bad::ToKey };
        let text = panic_text(|| {
            let request = group.request(&key).max_age(Duration::from_millis(5));
            let request = match next_flight {
                true => request.next_flight(),
                false => request,
            };
            drop(request.call(|| Ok(9)));
        });
        assert_eq!(text, "bad ToKey");
        let flight = the_flight(&group);
        assert_eq!((flight.given_up, flight.followers, flight.queued), (false, 0, 0));
        assert_eq!(leader.complete(Ok(1)).followers, 0);
        assert_quiet(&group);
    }
}

/// `is_wanted` makes a key for the list of given-up flights.
#[test]
fn a_panic_in_to_key_inside_is_wanted_leaves_the_group_as_it_was() {
    let group = Group::new();
    let calls = Calls::default();
    let retired = lead(&group, "retired");
    drop(retired);
    let key = Counting { name: "k", calls: &calls, bad: Bad::ToKey };
    // The retired key is written over, so that this one leads.
    let outcome = group.request(&key).timeout(Duration::ZERO).call_with(|flight| {
        let text = panic_text(|| {
            let _ = flight.is_wanted();
        });
        assert_eq!(text, "bad ToKey");
        assert!(!the_flight(&group).given_up);
        let follower = follow(&group, "k");
        assert!(flight.is_wanted());
        assert_eq!(flight.followers(), 1);
        drop(follower);
        Ok(1)
    });
    assert_eq!(outcome, Ok(1));
    assert_quiet(&group);
}

/// A batch that panics on the way has led some of its keys already: those are free again.
#[test]
fn a_panic_in_the_middle_of_a_batch_frees_its_keys() {
    let group = Group::new();
    let calls = Calls::default();
    let key = |name, bad| Counting { name, calls: &calls, bad };
    let other = lead(&group, "c");
    let (a, bad) = (key("a", Bad::Nothing), key("c", Bad::Is));
    let text = panic_text(|| drop(group.call_many(&[&a, &bad], |_| Ok(vec![9, 9]))));
    assert_eq!(text, "bad Is");
    assert_eq!(group.in_flight().len(), 1);
    assert_eq!(other.followers(), 0);
    assert_eq!(group.call("a", || Ok(1)), Ok(1));
    drop(other);
    assert_quiet(&group);
}

#[derive(Clone, Default)]
struct OneHash;

impl Hasher for OneHash {
    fn write(&mut self, _: &[u8]) {}

    fn finish(&self) -> u64 {
        7
    }
}

impl BuildHasher for OneHash {
    type Hasher = Self;

    fn build_hasher(&self) -> Self {
        Self
    }
}

/// `is` tells keys with the same hash apart.
#[test]
fn keys_that_collide_stay_apart() {
    let _watchdog = watchdog();
    let group = FlightGroup::<u32, &str, Page, OneHash>::with_hasher(OneHash);
    let leaders = [(1, "/"), (2, "/"), (1, "/x")].map(|(t, path)| lead(&group, &page(t, path)));
    let followers = [(1, "/x"), (1, "/"), (2, "/")].map(|(t, path)| follow(&group, &page(t, path)));
    assert!(group.forget(&page(2, "/")));
    let successor = lead(&group, &page(2, "/"));
    thread::scope(|s| {
        let late = s.spawn(|| group.call(&page(2, "/"), || Ok(9)));
        until_waiting(&group, 1);
        for (leader, value) in leaders.into_iter().zip(1..) {
            let _ = leader.complete(Ok(value));
        }
        let values = followers.map(|follower| follower.wait().result);
        assert_eq!(values, [Ok(3), Ok(1), Ok(2)]);
        let _ = successor.complete(Ok(4));
        assert_eq!(late.join().unwrap(), Ok(4));
    });
    assert_quiet(&group);
    assert_eq!(group.call(&page(1, "/"), || Err("no")), Err(CallError::Failed(Arc::new("no"))));
}

/// Equality is that of the lookup: case does not matter here.
#[test]
fn a_lookup_may_be_laxer_than_the_key() {
    struct NoCase(&'static str);
    impl Hash for NoCase {
        fn hash<H: Hasher>(&self, state: &mut H) {
            self.0.to_lowercase().hash(state);
        }
    }
    impl Lookup<String> for NoCase {
        fn is(&self, key: &String) -> bool {
            self.0.eq_ignore_ascii_case(key)
        }
        fn to_key(&self) -> String {
            self.0.to_owned()
        }
    }
    let group = FlightGroup::<u32, &str>::new();
    let leader = lead(&group, &NoCase("Key"));
    drop(follow(&group, &NoCase("kEY")));
    assert_eq!(the_flight(&group).key, "Key");
    let results = group.call_many(&[&NoCase("b"), &NoCase("B")], |keys| Ok(vec![1; keys.len()]));
    assert_eq!(results, [Ok(1), Ok(1)]);
    drop(leader);
    assert_eq!(group.stats().led, 2);
}
