//! `call_many`: one function for all keys that nobody is loading, and the flights of the others.
#![cfg(not(loom))]

mod common;

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{mpsc, Barrier, Mutex};
use std::thread;
use std::time::Duration;

use common::{
    assert_quiet, follow, gate, lead, panic_text, the_flight, until, until_waiting, watchdog,
};
use shared_calls::{CallError, FlightGroup, Follower, Joined, Leader, Role};

type Group = FlightGroup<u32, &'static str>;
type ById = FlightGroup<u64, &'static str, u64>;

const HOUR: Duration = Duration::from_secs(3600);

fn failed<T>(error: &'static str) -> Result<T, CallError<&'static str>> {
    Err(CallError::Failed(error.into()))
}

fn lengths(keys: &[&str]) -> Result<Vec<u32>, &'static str> {
    Ok(keys.iter().map(|key| key.len() as u32).collect())
}

#[test]
fn results_come_in_the_order_of_the_keys() {
    let group = Group::new();
    let mut runs = 0;
    let results = group.call_many(&["ccc", "a", "bb"], |keys| {
        runs += 1;
        assert_eq!(keys, ["ccc", "a", "bb"]);
        lengths(keys)
    });
    assert_eq!(results, [Ok(3), Ok(1), Ok(2)]);
    assert_eq!((runs, group.stats().led, group.stats().calls()), (1, 3, 3));
    assert_quiet(&group);
}

#[test]
fn a_key_named_twice_is_one() {
    let group = Group::new();
    let results = group.call_many(&["bb", "a", "bb", "a", "ccc", "bb"], |keys| {
        assert_eq!(keys, ["bb", "a", "ccc"]);
        lengths(keys)
    });
    assert_eq!(results, [2, 1, 2, 1, 3, 2].map(Ok));
    assert_eq!(group.stats().calls(), 3);
}

#[test]
fn without_keys_the_function_does_not_run() {
    let group = Group::new();
    assert_eq!(group.call_many(&[] as &[&str], |_| panic!("no keys")), []);
    assert_eq!(group.stats().calls(), 0);
}

#[test]
fn the_flights_of_others_are_joined() {
    let _watchdog = watchdog();
    let group = Group::new();
    let (b, d) = (lead(&group, "b"), lead(&group, "d"));
    thread::scope(|s| {
        let batch = s.spawn(|| {
            group.call_many(&["a", "b", "c", "d", "b"], |keys| {
                assert_eq!(keys, ["a", "c"]);
                Ok(vec![1, 3])
            })
        });
        until("the batch's own have landed", || group.stats().led == 2);
        assert_eq!((b.followers(), d.followers()), (1, 1));
        // The first to be waited for lands last.
        let _ = d.complete(Err("no"));
        assert_eq!(b.complete(Ok(2)).followers, 1);
        assert_eq!(batch.join().unwrap(), [Ok(1), Ok(2), Ok(3), failed("no"), Ok(2)]);
    });
    let stats = group.stats();
    assert_eq!((stats.led, stats.followed, stats.failed, stats.calls()), (4, 2, 1, 6));
    assert_quiet(&group);
}

#[test]
fn if_all_are_in_flight_the_function_does_not_run() {
    let _watchdog = watchdog();
    let group = Group::new();
    let leaders = [lead(&group, "a"), lead(&group, "b")];
    thread::scope(|s| {
        let batch = s.spawn(|| group.call_many(&["b", "a"], |_| panic!("it does not run")));
        until_waiting(&group, 1);
        for (leader, value) in leaders.into_iter().zip(1..) {
            let _ = leader.complete(Ok(value));
        }
        assert_eq!(batch.join().unwrap(), [Ok(2), Ok(1)]);
    });
}

/// Each of the batch's keys is a flight that others follow.
#[test]
fn others_follow_the_flights_of_a_batch() {
    let _watchdog = watchdog();
    let group = Group::new();
    let mut followers = Vec::new();
    let results = group.call_many(&["a", "b"], |keys| {
        followers.extend(["a", "b", "b"].map(|key| follow(&group, key)));
        let in_flight = group.in_flight();
        assert_eq!(in_flight.len(), 2);
        let me = thread::current().id();
        assert!(in_flight.iter().all(|f| f.leader.as_ref().unwrap().id() == me));
        assert_eq!(keys, ["a", "b"]);
        Ok(vec![1, 2])
    });
    assert_eq!(results, [Ok(1), Ok(2)]);
    let outcomes: Vec<_> = followers.into_iter().map(Follower::wait).collect();
    assert!(outcomes.iter().all(|o| o.role == Role::Followed));
    let seen: Vec<_> = outcomes.into_iter().map(|o| (o.result.unwrap(), o.followers)).collect();
    assert_eq!(seen, [(1, 1), (2, 2), (2, 2)]);
}

/// A failing batch gives every follower its cause.
#[test]
fn an_error_is_that_of_each_key() {
    let group = Group::new();
    let mut followers = Vec::new();
    let results = group.call_many(&["a", "b", "a"], |_| {
        followers.extend(["a", "b"].map(|key| follow(&group, key)));
        Err("no route")
    });
    assert_eq!(results, [(); 3].map(|()| failed("no route")));
    for follower in followers {
        assert_eq!(follower.wait().result, failed("no route"));
    }
    assert_eq!((group.stats().led, group.stats().failed), (2, 2));
    assert_quiet(&group);
}

/// Its own keys land first; the flights that it had joined are left, and not counted.
#[test]
fn a_panic_unwinds_once_its_own_keys_have_landed() {
    let group = Group::new();
    let other = lead(&group, "other");
    let mut followers = Vec::new();
    let text = panic_text(|| {
        let results = group.call_many(&["a", "other", "b"], |_| {
            assert_eq!(other.followers(), 1);
            followers.extend(["a", "b"].map(|key| follow(&group, key)));
            panic!("disk on fire")
        });
        drop(results);
    });
    assert_eq!(text, "disk on fire");
    for follower in followers {
        assert!(follower.is_done());
        let Err(CallError::Panicked(panicked)) = follower.wait().result else {
            panic!("it has panicked");
        };
        assert_eq!(panicked.message(), Some("disk on fire"));
    }
    assert_eq!(other.followers(), 0);
    assert_eq!(other.complete(Ok(1)).followers, 0);
    let stats = group.stats();
    assert_eq!((stats.led, stats.followed, stats.panicked), (3, 2, 2));
    assert_eq!(stats.calls(), 5);
    assert_quiet(&group);
    assert_eq!(group.call("a", || Ok(1)), Ok(1));
}

/// A flight that the batch had joined has landed, and the batch is the last to let go of its value.
#[test]
fn a_value_whose_drop_panics_while_the_batch_unwinds_stops_nothing() {
    struct Value(bool);
    impl Clone for Value {
        fn clone(&self) -> Self {
            Self(false)
        }
    }
    impl Drop for Value {
        fn drop(&mut self) {
            assert!(!self.0, "the drop panics");
        }
    }
    let group = FlightGroup::<Value, ()>::new();
    let leader = lead(&group, "a");
    let text = panic_text(|| {
        drop(group.call_many(&["a", "b"], |_| {
            drop(leader.complete(Ok(Value(true))));
            panic!("the function panics")
        }));
    });
    assert_eq!(text, "the function panics");
    assert_quiet(&group);
}

#[test]
fn a_wrong_number_of_values_is_a_panic_that_names_both() {
    let group = Group::new();
    for values in [vec![], vec![1], vec![1, 2, 3, 4]] {
        let n = values.len();
        let mut follower = None;
        let text = panic_text(|| {
            let results = group.call_many(&["a", "b", "c", "a"], |_| {
                follower = Some(follow(&group, "c"));
                Ok(values)
            });
            drop(results);
        });
        assert!(text.contains('3') && text.contains(&n.to_string()), "{text}");
        let Err(CallError::Panicked(panicked)) = follower.unwrap().wait().result else {
            panic!("it has panicked");
        };
        assert_eq!(panicked.message(), Some(&*text));
        assert_quiet(&group);
    }
    assert_eq!(group.stats().panicked, 9);
}

/// The values are dropped before the batch panics, each with its own panic caught.
#[test]
fn a_wrong_number_of_values_whose_drop_panics() {
    #[derive(Clone)]
    struct Value;
    impl Drop for Value {
        fn drop(&mut self) {
            panic!("the drop of a value panics");
        }
    }
    let group = FlightGroup::<Value, ()>::new();
    let text = panic_text(|| drop(group.call_many(&["a", "b"], |_| Ok(vec![Value; 3]))));
    assert!(text.contains("2 keys") && text.contains("3 values"), "{text}");
    assert_eq!((group.stats().panicked, group.stats().in_flight), (2, 0));
}

/// It is refused, whether a call or a batch leads it, and not given to the function.
#[test]
fn a_key_that_this_thread_leads_is_a_deadlock() {
    let group = Group::new();
    let refused = |results: &[Result<u32, CallError<&'static str>>]| {
        assert!(matches!(
            results,
            [Err(CallError::Deadlock(_)), Ok(1), Err(CallError::Deadlock(_))]
        ));
    };
    let outer = group.call("own", || {
        let results = group.call_many(&["own", "a", "own"], |keys| {
            assert_eq!(keys, ["a"]);
            Ok(vec![1])
        });
        refused(&results);
        let results = group.call_many(&["own"], |_| panic!("no keys are left"));
        assert!(matches!(results[..], [Err(CallError::Deadlock(_))]));
        Ok(2)
    });
    assert_eq!(outer, Ok(2));
    let outer = group.call_many(&["own", "too"], |_| {
        let results = group.call_many(&["too", "a", "own"], |keys| {
            assert_eq!(keys, ["a"]);
            Ok(vec![1])
        });
        refused(&results);
        assert!(matches!(group.call("own", || Ok(1)), Err(CallError::Deadlock(_))));
        assert!(matches!(follow(&group, "too").wait().result, Err(CallError::Deadlock(_))));
        Ok(vec![5, 6])
    });
    assert_eq!(outer, [Ok(5), Ok(6)]);
    assert_eq!(group.stats().deadlocked, 6);
    assert_quiet(&group);
}

/// A cycle of a batch's function and another thread is refused as any other.
#[test]
fn a_cycle_through_the_function_of_a_batch_is_refused() {
    let _watchdog = watchdog();
    let group = Group::new();
    let both_lead = Barrier::new(2);
    thread::scope(|s| {
        let other = s.spawn(|| {
            group.call("c", || {
                both_lead.wait();
                // It waits for a flight in the middle of the batch.
                Ok(group.call("a", || Ok(0)).unwrap() + 10)
            })
        });
        let results = group.call_many(&["b", "a", "d"], |keys| {
            assert_eq!(keys, ["b", "a", "d"]);
            both_lead.wait();
            until_waiting(&group, 1);
            let refused = group.call_many(&["e", "c"], |_| Ok(vec![7]));
            assert!(matches!(refused[..], [Ok(7), Err(CallError::Deadlock(_))]));
            Ok(vec![1, 2, 3])
        });
        assert_eq!(results, [Ok(1), Ok(2), Ok(3)]);
        assert_eq!(other.join().unwrap(), Ok(12));
    });
    assert_quiet(&group);
}

/// In opposite orders, on several threads.
#[test]
fn batches_that_overlap_in_any_order_all_end() {
    let _watchdog = watchdog();
    let group = Group::new();
    let keys: Vec<String> = (0..64).map(|i| i.to_string()).collect();
    let forth: Vec<&str> = keys.iter().map(String::as_str).collect();
    let back: Vec<&str> = forth.iter().rev().copied().collect();
    let value = |keys: &[&str]| Ok(keys.iter().map(|key| key.parse().unwrap()).collect());
    thread::scope(|s| {
        for keys in [&forth, &back, &forth, &back] {
            let group = &group;
            s.spawn(move || {
                for _ in 0..200 {
                    let results = group.call_many(keys, |keys| {
                        thread::yield_now();
                        value(keys)
                    });
                    let wanted: Vec<u32> = value(keys).unwrap_or_else(|e: &str| panic!("{e}"));
                    assert_eq!(results.into_iter().collect::<Result<Vec<_>, _>>(), Ok(wanted));
                }
            });
        }
    });
    let stats = group.stats();
    assert_eq!((stats.deadlocked, stats.in_flight), (0, 0));
    assert_eq!(stats.calls(), 4 * 200 * 64);
    assert!(stats.followed > 0, "they do overlap");
}

/// Each of them leads what the other one waits for.
#[test]
fn two_batches_that_wait_for_each_other_both_end() {
    let _watchdog = watchdog();
    let group = Group::new();
    let arrived = Barrier::new(2);
    let (first_runs, both_run) = mpsc::channel();
    thread::scope(|s| {
        let (group, arrived) = (&group, &arrived);
        // Three keys each, of which one is in flight for a while, so that both have places on
        // flights of others before either function returns.
        let hung = lead(group, "hung");
        let one = s.spawn(move || {
            group.call_many(&["a", "hung"], |keys| {
                first_runs.send(()).unwrap();
                arrived.wait();
                lengths(keys)
            })
        });
        both_run.recv().unwrap();
        let two = s.spawn(move || {
            group.call_many(&["a", "bb", "hung"], |keys| {
                assert_eq!(keys, ["bb"]);
                arrived.wait();
                lengths(keys)
            })
        });
        until("both wait for the key that hangs", || hung.followers() == 2);
        until("both have landed their own", || group.stats().led == 2);
        let _ = hung.complete(Ok(7));
        assert_eq!(one.join().unwrap(), [Ok(1), Ok(7)]);
        assert_eq!(two.join().unwrap(), [Ok(1), Ok(2), Ok(7)]);
    });
    assert_eq!(group.stats().deadlocked, 0);
}

/// The first of two keys hangs until the second has been loaded by a batch that waits for the first.
#[test]
fn a_batch_lands_its_own_before_it_waits() {
    let _watchdog = watchdog();
    let group = Group::new();
    let slow = lead(&group, "slow");
    thread::scope(|s| {
        let batch = s.spawn(|| group.call_many(&["slow", "quick"], lengths));
        until_waiting(&group, 1);
        assert_eq!(group.stats().led, 1, "its own has landed");
        assert_eq!(group.call("quick", || Ok(9)), Ok(9), "and its key is free");
        let _ = slow.complete(Ok(1));
        assert_eq!(batch.join().unwrap(), [Ok(1), Ok(5)]);
    });
}

#[test]
fn the_time_limit_is_one_for_the_whole_batch() {
    let _watchdog = watchdog();
    let group: Group = FlightGroup::builder().timeout(Duration::from_millis(10)).build();
    let hung = [lead(&group, "a"), lead(&group, "b"), lead(&group, "c")];
    let begun = std::time::Instant::now();
    let results = group.call_many(&["a", "x", "b", "c"], |keys| {
        // It is not interrupted, and by its end the others' time is up.
        until("time passes", || begun.elapsed() > Duration::from_millis(10));
        lengths(keys)
    });
    let late = || Err(CallError::TimedOut);
    assert_eq!(results, [late(), Ok(1), late(), late()]);
    let stats = group.stats();
    assert_eq!((stats.led, stats.timed_out, stats.calls()), (1, 3, 4));
    assert_eq!(hung.map(|leader| leader.followers()), [0, 0, 0]);
    assert_quiet(&group);
}

/// An outcome that is there beats a deadline that has passed.
#[test]
fn a_batch_without_time_takes_what_is_there() {
    let group: Group = FlightGroup::builder().timeout(Duration::ZERO).build();
    let mut leaders = vec![lead(&group, "a"), lead(&group, "b")];
    let results = group.call_many(&["a", "x", "b"], |keys| {
        // While the batch is at its own keys, one of the others lands.
        let _ = leaders.remove(0).complete(Ok(7));
        lengths(keys)
    });
    assert_eq!(results, [Ok(7), Ok(1), Err(CallError::TimedOut)]);
}

#[test]
fn a_flight_that_is_too_old_on_arrival_is_given_up() {
    let group: Group = FlightGroup::builder().max_age(Duration::ZERO).build();
    let hung = lead(&group, "a");
    let results = group.call_many(&["a", "b"], |keys| {
        assert_eq!(keys, ["a", "b"]);
        Ok(vec![1, 2])
    });
    assert_eq!(results, [Ok(1), Ok(2)]);
    assert!(the_flight(&group).given_up);
    drop(hung);
    assert_quiet(&group);
}

/// `takeover` and `alone_on_deadlock` have no function left.
#[test]
fn takeover_and_alone_on_deadlock_do_not_apply() {
    let _watchdog = watchdog();
    let group: Group = FlightGroup::builder().takeover(9).alone_on_deadlock().build();
    let leader = lead(&group, "a");
    thread::scope(|s| {
        let batch = s.spawn(|| group.call_many(&["a"], |_| panic!("it does not run")));
        until_waiting(&group, 1);
        drop(leader);
        assert_eq!(batch.join().unwrap(), [Err(CallError::Abandoned)]);
    });
    let outer = group.call("k", || {
        let results = group.call_many(&["k"], |_| panic!("it does not run"));
        assert!(matches!(results[..], [Err(CallError::Deadlock(_))]));
        Ok(1)
    });
    assert_eq!(outer, Ok(1));
}

/// A key that is refused has that as its result, and the others go on.
#[test]
fn each_key_has_an_error_of_its_own() {
    let _watchdog = watchdog();
    let group: Group = FlightGroup::builder().max_followers(1).build();
    let (full, free) = (lead(&group, "full"), lead(&group, "free"));
    let first = follow(&group, "full");
    let gone = lead(&group, "gone");
    thread::scope(|s| {
        let batch = s.spawn(|| {
            group.call("own", || {
                let keys = ["full", "free", "own", "new", "gone"];
                let results = group.call_many(&keys, |keys| {
                    assert_eq!(keys, ["new"]);
                    Ok(vec![3])
                });
                let [full, free, own, new, gone] = results.try_into().unwrap();
                assert_eq!([full, free, new], [Err(CallError::Overloaded), Ok(2), Ok(3)]);
                assert!(matches!(own, Err(CallError::Deadlock(_))));
                assert_eq!(gone, Err(CallError::Abandoned));
                Ok(9)
            })
        });
        until_waiting(&group, 1);
        drop(gone);
        let _ = free.complete(Ok(2));
        assert_eq!(batch.join().unwrap(), Ok(9));
    });
    let _ = full.complete(Ok(1));
    assert_eq!(first.wait().result, Ok(1));
    let stats = group.stats();
    assert_eq!((stats.led, stats.followed), (5, 3));
    assert_eq!((stats.overloaded, stats.deadlocked, stats.abandoned), (1, 1, 1));
    assert_quiet(&group);
}

#[test]
fn a_thousand_keys_of_which_half_are_in_flight() {
    let _watchdog = watchdog();
    for shards in [1, 16] {
        let group: ById = FlightGroup::builder().shards(shards).timeout(HOUR).build();
        let keys: Vec<u64> = (0..1_000).collect();
        let by_ref: Vec<&u64> = keys.iter().collect();
        let odd: Vec<(u64, Leader<'_, _, _, _, _>)> =
            (0..500).map(|i| 2 * i + 1).map(|key| (key, lead(&group, &key))).collect();
        thread::scope(|s| {
            let batch = s.spawn(|| {
                group.call_many(&by_ref, |keys| {
                    assert!(keys.len() == 500 && keys.iter().all(|key| **key % 2 == 0));
                    assert!(keys.windows(2).all(|pair| pair[0] < pair[1]), "in order");
                    Ok(keys.iter().map(|key| **key * 10).collect())
                })
            });
            until("its own have landed", || group.stats().led == 500);
            for (key, leader) in odd {
                assert_eq!(leader.complete(Ok(key * 10)).followers, 1);
            }
            let results = batch.join().unwrap();
            assert!(results.into_iter().zip(&keys).all(|(result, key)| result == Ok(key * 10)));
        });
        let stats = group.stats();
        assert_eq!((stats.led, stats.followed, stats.calls()), (1_000, 500, 1_500));
        assert_eq!((stats.in_flight, stats.waiting), (0, 0));
    }
}

/// As in a map whose keys all collide.
#[test]
fn keys_with_the_same_hash_are_told_apart() {
    use std::hash::{BuildHasher, Hasher};
    #[derive(Default)]
    struct Same;
    impl Hasher for Same {
        fn write(&mut self, _: &[u8]) {}
        fn finish(&self) -> u64 {
            7
        }
    }
    impl BuildHasher for Same {
        type Hasher = Self;
        fn build_hasher(&self) -> Self {
            Self
        }
    }
    let _watchdog = watchdog();
    let group = FlightGroup::<u64, &str, u64>::builder().hasher(Same).shards(3).build();
    let three = lead(&group, &3);
    thread::scope(|s| {
        let batch = s.spawn(|| {
            group.call_many(&[&1, &3, &2, &1], |keys| Ok(keys.iter().map(|key| **key).collect()))
        });
        until_waiting(&group, 1);
        let _ = three.complete(Ok(3));
        assert_eq!(batch.join().unwrap(), [1, 3, 2, 1].map(Ok));
    });
    assert_quiet(&group);
}

/// Exactly one function loads each key, however many batches and calls there are.
#[test]
fn batches_and_calls_share_each_other() {
    const THREADS: usize = 6;
    const KEYS: u64 = 12;
    let _watchdog = watchdog();
    let group = ById::new();
    let busy: Vec<AtomicUsize> = (0..KEYS).map(|_| AtomicUsize::new(0)).collect();
    let loads = |keys: &[&u64]| {
        for key in keys {
            assert_eq!(busy[**key as usize].fetch_add(1, SeqCst), 0, "two at a time");
        }
        thread::yield_now();
        for key in keys {
            busy[**key as usize].fetch_sub(1, SeqCst);
        }
        Ok(keys.iter().map(|key| **key + 100).collect::<Vec<_>>())
    };
    thread::scope(|s| {
        for t in 0..THREADS as u64 {
            let (group, loads) = (&group, &loads);
            s.spawn(move || {
                for i in 0..300 {
                    let keys: Vec<u64> = (0..1 + i % 5).map(|j| (i * t + j * 5) % KEYS).collect();
                    let by_ref: Vec<&u64> = keys.iter().collect();
                    for (key, result) in keys.iter().zip(group.call_many(&by_ref, loads)) {
                        assert_eq!(result, Ok(key + 100));
                    }
                    let key = i % KEYS;
                    assert_eq!(group.call(&key, || Ok(loads(&[&key])?[0])), Ok(key + 100));
                }
            });
        }
    });
    assert_quiet(&group);
    assert_eq!(group.stats().deadlocked, 0);
}

/// The batch waits for one flight after the other, but all are joined from the beginning.
#[test]
fn all_flights_are_joined_before_the_function_runs() {
    let _watchdog = watchdog();
    let group = Group::new();
    let leaders = ["a", "b", "c"].map(|key| lead(&group, key));
    let (held, gate) = gate();
    thread::scope(|s| {
        let batch = s.spawn(|| {
            group.call_many(&["a", "x", "b", "c"], |keys| {
                held();
                lengths(keys)
            })
        });
        gate.begun();
        let outcomes = leaders.map(|leader| leader.complete(Ok(7)).followers);
        assert_eq!(outcomes, [1, 1, 1]);
        // The flights have landed, and new ones begin that are none of the batch's.
        let later = lead(&group, "a");
        gate.open();
        assert_eq!(batch.join().unwrap(), [Ok(7), Ok(1), Ok(7), Ok(7)]);
        assert_eq!(later.followers(), 0);
    });
}

/// The values are cloned for followers only, and the batch gets its own back.
#[test]
fn a_value_is_cloned_for_followers_only() {
    static CLONES: AtomicUsize = AtomicUsize::new(0);
    #[derive(Debug, PartialEq)]
    struct Counted(u32);
    impl Clone for Counted {
        fn clone(&self) -> Self {
            CLONES.fetch_add(1, SeqCst);
            Self(self.0)
        }
    }
    let group = FlightGroup::<Counted, &str>::new();
    let results = group.call_many(&["a", "b"], |_| Ok(vec![Counted(1), Counted(2)]));
    assert_eq!(results, [Ok(Counted(1)), Ok(Counted(2))]);
    assert_eq!(CLONES.load(SeqCst), 0);
    // One for the second result of the key that is named twice.
    let results = group.call_many(&["a", "a"], |_| Ok(vec![Counted(1)]));
    assert_eq!(results, [Ok(Counted(1)), Ok(Counted(1))]);
    assert_eq!(CLONES.load(SeqCst), 1);
}

/// They have landed, so nobody is left waiting for them.
#[test]
fn a_clone_that_panics_leaves_no_key_behind() {
    #[derive(Debug)]
    struct Bad(&'static Mutex<bool>);
    impl Clone for Bad {
        fn clone(&self) -> Self {
            assert!(!*self.0.lock().unwrap_or_else(|e| e.into_inner()), "bad clone");
            Self(self.0)
        }
    }
    static PANICS: Mutex<bool> = Mutex::new(true);
    let group = FlightGroup::<Bad, &str>::new();
    let mut followers = Vec::new();
    let text = panic_text(|| {
        let results = group.call_many(&["a", "b"], |_| {
            followers.extend(["a", "b"].map(|key| follow(&group, key)));
            Ok(vec![Bad(&PANICS), Bad(&PANICS)])
        });
        drop(results);
    });
    assert_eq!(text, "bad clone");
    assert_quiet(&group);
    *PANICS.lock().unwrap_or_else(|e| e.into_inner()) = false;
    for follower in followers {
        assert!(follower.is_done());
        follower.wait().result.unwrap();
    }
}

/// A batch inside the function of a batch.
#[test]
fn batches_nest() {
    let group = Group::new();
    let results = group.call_many(&["a", "b"], |outer| {
        let inner = group.call_many(&["x", "y"], |keys| {
            assert_eq!(group.in_flight().len(), 4);
            lengths(keys)
        });
        assert_eq!(inner, [Ok(1), Ok(1)]);
        assert_eq!(group.in_flight().len(), 2);
        // Both keys of the outer batch are still this thread's own.
        for key in outer {
            assert!(matches!(group.call(*key, || Ok(1)), Err(CallError::Deadlock(_))));
        }
        lengths(outer)
    });
    assert_eq!(results, [Ok(1), Ok(1)]);
    // And they are not any more.
    let Joined::Leader(leader) = group.join("a") else {
        panic!("the key is free");
    };
    drop(leader);
}
