//! Several groups behind one front hold what one group holds.
#![cfg(not(loom))]

mod common;

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::Arc;
use std::thread;

use common::{assert_quiet, gate, until, watchdog};
use shared_calls::{CallError, FlightGroup, Role, ShardedGroup, SharedCalls};

#[test]
fn the_number_of_groups_is_a_power_of_two() {
    for (asked, made) in [(0, 1), (1, 1), (2, 2), (3, 4), (16, 16), (17, 32)] {
        let calls = ShardedGroup::<(), ()>::new(asked);
        assert_eq!(calls.groups().len(), made);
    }
}

#[test]
fn a_key_is_always_in_the_same_group() {
    let calls = ShardedGroup::<(), ()>::new(8);
    for key in ["a", "b", "c", ""] {
        assert!(Arc::ptr_eq(calls.group_of(key), calls.group_of(key)));
    }
}

/// A hasher that leaves a number as it is, as some people use for ids.
#[derive(Default)]
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

#[test]
fn keys_are_spread_whatever_the_hasher() {
    fn assert_spread(in_use: impl Fn(u64) -> usize) {
        let mut keys = [0; 8];
        for key in 0..8_000 {
            keys[in_use(key)] += 1;
        }
        assert!(keys.iter().all(|n| (500..2_000).contains(n)), "{keys:?}");
    }
    let random = ShardedGroup::<(), (), u64>::new(8);
    assert_spread(|key| place(&random, key));

    let hasher = BuildHasherDefault::<Identity>::default();
    let make = || FlightGroup::with_hasher(hasher.clone());
    let ids = ShardedGroup::<(), (), u64, _>::from_groups(8, hasher.clone(), make);
    assert_spread(|key| place(&ids, key));
    // Also where they differ in some of the bits only.
    for shift in [3, 8, 16, 32, 48] {
        assert_spread(|key| place(&ids, key << shift));
    }
}

fn place<S: std::hash::BuildHasher>(calls: &ShardedGroup<(), (), u64, S>, key: u64) -> usize {
    let group = calls.group_of(&key);
    let mut groups = calls.groups().iter();
    groups.position(|other| Arc::ptr_eq(other, group)).unwrap()
}

#[test]
fn calls_on_one_key_share_and_others_do_not() {
    let _watchdog = watchdog();
    let calls = ShardedGroup::<u32, ()>::from_groups(4, RandomState::new(), FlightGroup::new);
    let calls: Arc<dyn SharedCalls<u32, ()> + Send + Sync> = Arc::new(calls);
    let (runs, asked) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let (held, gate) = gate();
    thread::scope(|scope| {
        let leader = scope.spawn(|| {
            calls.call_ex("k", || {
                held();
                runs.fetch_add(1, SeqCst);
                Ok(1)
            })
        });
        gate.begun();
        assert_eq!(calls.call("other", || Ok(2)).unwrap(), 2);
        let followers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    asked.fetch_add(1, SeqCst);
                    calls.call_ex("k", || Ok(runs.fetch_add(1, SeqCst) as u32))
                })
            })
            .collect();
        until("all ask", || asked.load(SeqCst) == 3);
        gate.open();
        assert_eq!(leader.join().unwrap().role, Role::Led);
        for follower in followers {
            let outcome = follower.join().unwrap();
            assert!(outcome.role == Role::Led || outcome.result.unwrap() == 1);
        }
    });
}

#[test]
fn figures_are_those_of_all_groups() {
    let calls = ShardedGroup::<u32, ()>::new(4);
    for key in 0..100 {
        let result = calls.call(
            &key.to_string(),
            || if key % 2 == 0 { Ok(1) } else { Err(()) },
        );
        assert_eq!(result.is_ok(), key % 2 == 0);
    }
    let stats = calls.stats();
    assert_eq!((stats.led, stats.failed, stats.calls()), (100, 50, 100));

    let keys = ["a", "b", "c", "d", "e"];
    let leaders = keys.map(|key| calls.group_of(key).join(key));
    let mut seen: Vec<_> = calls.in_flight().into_iter().map(|f| f.key).collect();
    seen.sort();
    assert_eq!(seen, keys);
    assert_eq!(calls.stats().in_flight, 5);
    drop(leaders);
    for group in calls.groups() {
        assert_quiet(group);
    }
}

#[test]
fn a_deadlock_over_two_of_the_groups_is_refused() {
    let _watchdog = watchdog();
    let calls = ShardedGroup::<u32, String>::new(64);
    let outer = calls.call("a", || {
        let inner = calls.call("b", || calls.call("a", || Ok(1)).map_err(|e| e.to_string()));
        inner.map_err(|error| error.into_failed().unwrap())
    });
    let Err(CallError::Failed(why)) = outer else {
        panic!("{outer:?}")
    };
    assert!(why.ends_with("would wait for itself"), "{why}");
    assert_eq!(calls.stats().deadlocked, 1);
}
