//! `builder().shards(n)`: several maps behind one group, and every method works as with one.
#![cfg(not(loom))]

mod common;

use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::{mpsc, Arc, Barrier};
use std::thread;
use std::time::Duration;

use common::{assert_quiet, follow, lead, until, watchdog};
use shared_calls::{CallError, FlightGroup, Lookup, Role, SharedCalls};

type Group = FlightGroup<u32, &'static str>;

fn sharded() -> Group {
    Group::builder().shards(8).build()
}

/// Enough to be spread over all shards.
fn keys() -> [String; 100] {
    std::array::from_fn(|i| format!("key {i}"))
}

#[test]
#[should_panic(expected = "a group needs at least one shard")]
fn a_group_needs_at_least_one_shard() {
    let _ = Group::builder().shards(0);
}

#[test]
fn any_other_number_of_shards_will_do() {
    for shards in [1, 2, 3, 5, 7, 64, 1_000] {
        let group = Group::builder().shards(shards).build();
        let leaders = keys().map(|key| (lead(&group, &*key), key));
        assert_eq!(group.stats().in_flight, 100);
        for (leader, key) in leaders {
            let follower = follow(&group, &*key);
            assert_eq!(leader.complete(Ok(1)).followers, 1);
            assert_eq!(follower.wait().result, Ok(1));
        }
        assert_quiet(&group);
    }
}

/// A hasher that leaves a number as it is, as some people use for ids.
#[derive(Clone, Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn write(&mut self, _: &[u8]) {
        unimplemented!("for numbers only")
    }

    fn write_u64(&mut self, id: u64) {
        self.0 = id;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Whatever the bits in which they differ: keys with hashes like these stay apart.
#[test]
fn keys_of_a_weak_hasher_stay_apart() {
    let hasher = BuildHasherDefault::<Identity>::default();
    let builder = FlightGroup::<u64, (), u64>::builder().shards(8);
    let group = builder.hasher(hasher).build();
    for shift in [0, 3, 8, 16, 32, 48, 60] {
        let leaders: Vec<_> = (0..16).map(|i| lead(&group, &(i << shift))).collect();
        for (i, leader) in (0..16).zip(leaders) {
            let follower = follow(&group, &(i << shift));
            assert_eq!(leader.complete(Ok(i)).followers, 1);
            assert_eq!(follower.wait().result, Ok(i));
        }
    }
    assert_quiet(&group);
}

/// A key that lets the test do something while the group makes it, under the lock of its shard.
struct Meanwhile<'f>(u64, &'f dyn Fn());

impl Hash for Meanwhile<'_> {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.0.hash(hasher);
    }
}

impl Lookup<u64> for Meanwhile<'_> {
    fn is(&self, key: &u64) -> bool {
        *key == self.0
    }

    fn to_key(&self) -> u64 {
        (self.1)();
        self.0
    }
}

/// While one of 16 shards is locked, most keys go on, whichever of their hashes' bits differ.
#[test]
fn keys_of_a_weak_hasher_are_spread_over_the_shards() {
    let _watchdog = watchdog();
    for shift in [0, 20, 56] {
        let hasher = BuildHasherDefault::<Identity>::default();
        let group = FlightGroup::<u32, &str, u64>::builder().shards(16).hasher(hasher).build();
        let group = &group;
        let (done, returned) = mpsc::channel();
        thread::scope(|s| {
            let most_return = || {
                for key in 1..=64 {
                    let done = done.clone();
                    s.spawn(move || {
                        assert_eq!(group.call(&(key << shift), || Ok(1)), Ok(1));
                        done.send(()).unwrap();
                    });
                }
                returned.iter().take(48).for_each(drop);
            };
            assert_eq!(group.call(&Meanwhile(0, &most_return), || Ok(1)), Ok(1));
        });
        assert_quiet(group);
    }
}

#[test]
fn calls_on_one_key_share_and_others_do_not() {
    let _watchdog = watchdog();
    let group = sharded();
    let calls: Arc<dyn SharedCalls<u32, &'static str>> = Arc::new(group.clone());
    for key in &keys() {
        let leader = lead(&group, &**key);
        thread::scope(|s| {
            let follower = s.spawn(|| calls.call_ex(key, || Ok(2)));
            until("it follows", || leader.followers() == 1);
            assert_eq!(calls.call("other", || Ok(3)), Ok(3));
            let _ = leader.complete(Ok(1));
            let outcome = follower.join().unwrap();
            assert_eq!((outcome.role, outcome.result), (Role::Followed, Ok(1)));
        });
    }
    assert_quiet(&group);
}

#[test]
fn counts_are_those_of_all_shards() {
    let group = sharded();
    for (i, key) in keys().iter().enumerate() {
        let result = || if i % 2 == 0 { Ok(1) } else { Err("no") };
        assert_eq!(group.call(&**key, result).is_ok(), i % 2 == 0);
    }
    let stats = group.stats();
    assert_eq!((stats.led, stats.failed, stats.calls()), (100, 50, 100));

    let keys = ["a", "b", "c", "d", "e"];
    let leaders = keys.map(|key| lead(&group, key));
    let mut listed: Vec<_> = group.in_flight().into_iter().map(|f| f.key).collect();
    listed.sort();
    assert_eq!(listed, keys);
    assert_eq!(group.stats().in_flight, 5);
    assert!(format!("{group:?}").contains("in_flight: 5"));
    drop(leaders);
    assert_eq!(group.stats().abandoned, 5);
    assert_quiet(&group);
}

#[test]
fn flights_of_all_shards_can_be_given_up() {
    let group = sharded();
    for key in &keys() {
        let key = &**key;
        assert!(!group.forget(key));
        let old = lead(&group, key);
        assert!(group.forget_unshared(key));
        let new = lead(&group, key);
        let follower = follow(&group, key);
        assert!(!group.forget_unshared(key));
        let newest = group.request(key).max_age(Duration::ZERO);
        assert_eq!(newest.call(|| Ok(3)), Ok(3));
        assert_eq!(old.complete(Ok(1)).followers, 0);
        assert_eq!(new.complete(Ok(2)).followers, 1);
        assert_eq!(follower.wait().result, Ok(2));
    }
    assert_quiet(&group);
}

#[test]
fn every_option_works_with_shards() {
    let _watchdog = watchdog();
    let group = sharded();
    for key in keys().iter().take(16) {
        let key = &**key;
        let leader = lead(&group, key);
        let request = || group.request(key);
        let late = request().timeout(Duration::ZERO).call(|| Ok(2));
        assert_eq!(late, Err(CallError::TimedOut));
        let full = request().max_followers(0).call(|| Ok(2));
        assert_eq!(full, Err(CallError::Overloaded));
        thread::scope(|s| {
            let queued = s.spawn(|| request().next_flight().call_ex(|| Ok(2)));
            until("one is queued", || group.in_flight()[0].queued == 1);
            let willing = s.spawn(|| request().takeover(1).call(|| Ok(3)));
            until("one follows", || leader.followers() == 1);
            drop(leader);
            let queued = queued.join().unwrap();
            // Of the two, one leads, and the other may come too late to follow.
            assert!(matches!(queued.result, Ok(2 | 3)));
            assert!(matches!(willing.join().unwrap(), Ok(2 | 3)));
        });
        let alone = group.call(key, || {
            let refused = group.call(key, || Ok(2));
            assert!(matches!(refused, Err(CallError::Deadlock(_))));
            let alone = request().alone_on_deadlock().call(|| Ok(4));
            alone.map_err(|_| "refused")
        });
        assert_eq!(alone, Ok(4));
        let asked = request().call_with(|flight| Ok(u32::from(flight.is_wanted())));
        assert_eq!(asked, Ok(1));
    }
    assert_quiet(&group);
}

#[test]
fn jobs_and_tickets_work_with_shards() {
    let group = sharded();
    let (jobs, worker) = mpsc::channel();
    let start = |key: &String| group.start(&**key, |job| jobs.send(job).unwrap(), || Ok(1));
    let tickets = keys().map(|key| (start(&key), start(&key)));
    drop(group);
    for _ in 0..tickets.len() {
        worker.recv().unwrap().run();
    }
    for (led, followed) in tickets {
        let (led, followed) = (led.wait(), followed.wait());
        assert_eq!((led.role, followed.role), (Role::Led, Role::Followed));
        assert_eq!((led.result, followed.result), (Ok(1), Ok(1)));
    }
}

/// A batch over all shards, of which half the keys are in flight.
#[test]
fn a_batch_spans_all_shards() {
    let _watchdog = watchdog();
    let group = FlightGroup::<u64, (), u64>::builder().shards(8).build();
    let keys: Vec<u64> = (0..1_000).collect();
    let leaders: Vec<_> = keys.iter().step_by(2).map(|key| lead(&group, key)).collect();
    thread::scope(|s| {
        let batch = s.spawn(|| {
            let keys: Vec<&u64> = keys.iter().collect();
            group.call_many(&keys, |led| Ok(led.iter().map(|key| **key + 1).collect()))
        });
        until("its own have landed", || group.stats().led == 500);
        for (leader, key) in leaders.into_iter().zip(keys.iter().step_by(2)) {
            assert_eq!(leader.complete(Ok(*key)).followers, 1);
        }
        for (key, result) in (0..).zip(batch.join().unwrap()) {
            assert_eq!(result, Ok(key + key % 2));
        }
    });
    let stats = group.stats();
    assert_eq!((stats.led, stats.followed), (1_000, 500));
    assert_quiet(&group);
}

#[test]
fn a_deadlock_across_shards_is_refused() {
    let _watchdog = watchdog();
    let group = Group::builder().shards(64).build();
    let outer = group.call("a", || {
        let inner = group.call("b", || match group.call("a", || Ok(1)) {
            Err(CallError::Deadlock(deadlock)) => Ok(deadlock.threads().len() as u32),
            other => panic!("not refused: {other:?}"),
        });
        inner.map_err(|_| "b")
    });
    assert_eq!((outer, group.stats().deadlocked), (Ok(1), 1));

    let both_lead = Barrier::new(2);
    thread::scope(|s| {
        let part = |own: &'static str, other: &'static str| {
            let (group, both_lead) = (&group, &both_lead);
            s.spawn(move || {
                group.call(own, || {
                    both_lead.wait();
                    Ok(group.call(other, || Ok(1)).is_err() as u32)
                })
            })
        };
        let parts = [part("c", "d"), part("d", "c")];
        let refused: u32 = parts.map(|part| part.join().unwrap().unwrap()).iter().sum();
        assert_eq!(refused, 1);
    });
    assert_quiet(&group);
}
