//! What a call costs (G12), and what is left when a group is quiet (G11): counted, never timed.
#![cfg(not(loom))]

#[path = "common/allocator.rs"]
mod allocator;
mod common;

use std::borrow::Borrow;
use std::cell::Cell;
use std::hash::Hash;
use std::panic::{catch_unwind, panic_any, AssertUnwindSafe};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use allocator::{allocations, bytes_held};
use common::{assert_quiet, follow, gate, lead, part, run_again, watchdog};
use shared_calls::{FlightGroup, Leader, Observer};

// The lone call.

/// Counts what 1,000 lone calls on each of these keys allocate, once the group is warm.
fn lone_calls_allocate<K, Q>(
    group: &FlightGroup<u64, u64, K>,
    keys: &[&Q],
    result: Result<u64, u64>,
) -> u64
where
    K: Borrow<Q>,
    Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
{
    let rounds = |n| {
        for _ in 0..n {
            for key in keys {
                assert_eq!(group.call_ex(key, || result).followers, 0);
            }
        }
    };
    rounds(1);
    allocations(|| rounds(1_000))
}

#[test]
fn a_lone_call_allocates_nothing() {
    let by_id = FlightGroup::<_, _, u64>::new();
    assert_eq!(lone_calls_allocate(&by_id, &[&1, &2, &3], Ok(1)), 0);

    // Longest first: a retired key is written over, and grows only for a longer one.
    let by_name = FlightGroup::<_, _>::new();
    let keys = ["the longest", "shorter", ""];
    assert_eq!(lone_calls_allocate(&by_name, &keys, Ok(1)), 0);

    // Nor does it while other keys are in flight.
    let others = ["x", "y", "z"].map(|key| lead(&by_name, key));
    assert_eq!(lone_calls_allocate(&by_name, &keys, Ok(1)), 0);
    drop(others);
}

/// However the group was made, as long as nobody is told.
#[test]
fn a_lone_call_of_a_group_from_a_builder_allocates_nothing() {
    let groups = [
        FlightGroup::builder().build(),
        FlightGroup::builder().without_ages().build(),
    ];
    for group in groups {
        assert_eq!(lone_calls_allocate(&group, &["a", "b"], Ok(1)), 0);
        // Nor does it to look on.
        assert_eq!(allocations(|| assert!(group.stats().led > 0)), 0);
    }
}

/// A flight that somebody is told of is not used again, nor is its key.
#[test]
fn what_an_observer_costs_a_lone_call() {
    struct Quiet;
    impl<K> Observer<K> for Quiet {}
    // The key, in its box; the flight; and the observer, together with the key.
    let by_id = FlightGroup::<_, _, u64>::builder().observer(Quiet).build();
    assert_eq!(lone_calls_allocate(&by_id, &[&1], Ok(1)), 3 * 1_000);
    // And the key's text.
    let by_name = FlightGroup::<_, _>::builder().observer(Quiet).build();
    assert_eq!(lone_calls_allocate(&by_name, &["k"], Ok(1)), 4 * 1_000);
}

#[test]
fn a_lone_call_that_fails_allocates_its_arc() {
    let group = FlightGroup::<_, _>::new();
    assert_eq!(lone_calls_allocate(&group, &["k"], Err(1)), 1_000);
}

thread_local! {
    static CLONES: Cell<u64> = const { Cell::new(0) };
}

/// Counts its clones.
struct Value;

impl Clone for Value {
    fn clone(&self) -> Self {
        CLONES.with(|n| n.set(n.get() + 1));
        Value
    }
}

/// How many values this thread clones while `f` runs.
fn clones(f: impl FnOnce()) -> u64 {
    let before = CLONES.with(Cell::get);
    f();
    CLONES.with(Cell::get) - before
}

#[test]
fn a_lone_call_clones_nothing() {
    let group = FlightGroup::<Value, ()>::new();
    assert_eq!(clones(|| drop(group.call("k", || Ok(Value)))), 0);
    assert_eq!(clones(|| drop(lead(&group, "k").complete(Ok(Value)))), 0);
}

/// Seven clones make eight values; the last caller to ask gets the one that the function made.
#[test]
fn eight_callers_clone_seven_times() {
    let _watchdog = watchdog();
    let group = FlightGroup::<Value, ()>::new();
    let leader = lead(&group, "k");
    let followers: Vec<_> = (0..7).map(|_| follow(&group, "k")).collect();
    let cloned = clones(|| {
        let _ = leader.complete(Ok(Value));
        for follower in followers {
            let _ = follower.wait();
        }
    });
    assert_eq!(cloned, 7);
}

/// `futex` is how a thread on Linux sleeps and wakes another. A lone call has nobody to wake. The
/// system calls are counted by `strace`, on this test binary run again.
#[test]
#[cfg(target_os = "linux")]
fn a_lone_call_wakes_nobody() {
    const TEST: &str = "a_lone_call_wakes_nobody";
    match part().as_deref() {
        Some("lone calls") => {
            let group = FlightGroup::<u64, (), u64>::new();
            for i in 0..100_000 {
                group.call(&(i % 10), || Ok(i)).unwrap();
            }
        }
        // The control: a thousand futex calls for certain.
        Some("sleeps") => {
            for _ in 0..1_000 {
                thread::park_timeout(Duration::from_nanos(1));
            }
        }
        _ => {
            let Some(control) = futex_calls(TEST, "sleeps") else {
                assert!(std::env::var_os("CI").is_none(), "CI has to install strace");
                return println!("skipped: strace is missing, or not allowed to trace");
            };
            assert!(
                control >= 1_000,
                "strace counts {control} of 1,000 futex calls"
            );
            // Some belong to the harness, which starts a thread and waits for it.
            let calls = futex_calls(TEST, "lone calls").expect("it worked a moment ago");
            assert!(calls < 50, "{calls} futex calls in 100,000 lone calls");
        }
    }
}

/// How often this test calls `futex` in the given part. `None` where it cannot be traced.
#[cfg(target_os = "linux")]
fn futex_calls(test: &str, part: &str) -> Option<u64> {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-c", "-e", "trace=futex"]);
    strace.arg(std::env::current_exe().unwrap());
    let traced = run_again(&mut strace, test, part).output().ok()?;
    if !String::from_utf8_lossy(&traced.stdout).contains("1 passed") {
        return None;
    }
    // A table: % time, seconds, usecs/call, calls, [errors,] syscall. No row where there is none.
    let table = String::from_utf8_lossy(&traced.stderr);
    let row = table.lines().find(|row| row.ends_with(" futex"));
    Some(row.map_or(0, |row| {
        row.split_whitespace().nth(3).unwrap().parse().unwrap()
    }))
}

// Keys.

thread_local! {
    static KEYS_MADE: Cell<u64> = const { Cell::new(0) };
    static KEYS_ALIVE: Cell<usize> = const { Cell::new(0) };
}

/// A key as it is looked up. Counts how often it is made into a [`Key`].
#[derive(PartialEq, Eq, Hash)]
struct Name(u32);

struct Key(Name);

impl ToOwned for Name {
    type Owned = Key;
    fn to_owned(&self) -> Key {
        KEYS_MADE.with(|n| n.set(n.get() + 1));
        KEYS_ALIVE.with(|n| n.set(n.get() + 1));
        Key(Name(self.0))
    }
}

impl Borrow<Name> for Key {
    fn borrow(&self) -> &Name {
        &self.0
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        KEYS_ALIVE.with(|n| n.set(n.get() - 1));
    }
}

#[test]
fn a_follower_makes_no_key_and_allocates_nothing() {
    let _watchdog = watchdog();
    let group = FlightGroup::<u64, (), Key>::new();
    let leader = lead(&group, &Name(1));
    assert_eq!(KEYS_MADE.with(Cell::get), 1);
    let mut followers = Vec::with_capacity(10);
    let allocated = allocations(|| {
        for _ in 0..10 {
            followers.push(follow(&group, &Name(1)));
        }
    });
    assert_eq!((KEYS_MADE.with(Cell::get), allocated), (1, 0));

    let _ = leader.complete(Ok(1));
    let allocated = allocations(|| {
        for follower in followers {
            assert_eq!(follower.wait().result.unwrap(), 1);
        }
    });
    assert_eq!(allocated, 0);
}

/// However many follow: the key and its box, the flight and its outcome; and the error, if it is one.
#[test]
fn what_a_shared_flight_allocates() {
    let _watchdog = watchdog();
    let group = FlightGroup::<u64, u64>::new();
    let mut followers = Vec::with_capacity(100);
    let mut flight = |result, n| {
        allocations(|| {
            let leader = lead(&group, "key");
            followers.extend((0..n).map(|_| follow(&group, "key")));
            assert_eq!(leader.complete(result).followers, n);
            for follower in followers.drain(..) {
                let _ = follower.wait();
            }
        })
    };
    flight(Ok(1), 1);
    for n in [1, 10, 100] {
        assert_eq!((flight(Ok(1), n), flight(Err(1), n)), (4, 5));
    }
}

#[test]
fn at_most_four_keys_are_kept() {
    let group = FlightGroup::<u64, (), Key>::new();
    let alive = || KEYS_ALIVE.with(Cell::get);
    let leaders: Vec<_> = (0..100).map(|i| lead(&group, &Name(i))).collect();
    assert_eq!(alive(), 100);
    drop(leaders);
    assert!(alive() <= 4, "{} keys are kept", alive());
    for i in 0..100 {
        group.call(&Name(i), || Ok(1)).unwrap();
        assert!(alive() <= 4, "{} keys are kept", alive());
    }
    drop(group);
    assert_eq!(alive(), 0);
}

// What a quiet group holds.

/// "Near what it was."
const NEAR: isize = 64 << 10;

/// Puts 100,000 keys in flight at once, ends the flights in the order that `end` chooses, and
/// asserts that the group then holds no more than it did before.
fn assert_spike_leaves_nothing(end: impl FnOnce(Vec<Leader<'_, u64, u64>>)) {
    let group = FlightGroup::new();
    group.call("warm", || Ok(1)).unwrap();
    let before = bytes_held();
    let leaders: Vec<_> = (0..100_000)
        .map(|i| lead(&group, &*format!("key {i}")))
        .collect();
    assert!(bytes_held() - before > 100 * NEAR, "the spike is one");
    end(leaders);
    let more = bytes_held() - before;
    assert!(more <= NEAR, "{more} bytes more than before the spike");
    assert_quiet(&group);
}

#[test]
fn a_spike_of_keys_leaves_nothing() {
    assert_spike_leaves_nothing(|leaders| {
        for leader in leaders {
            let _ = leader.complete(Ok(1));
        }
    });
    assert_spike_leaves_nothing(|leaders| {
        for leader in leaders.into_iter().rev() {
            let _ = leader.complete(Err(1));
        }
    });
    assert_spike_leaves_nothing(|leaders| drop(leaders));
}

/// Ten keys of a mebibyte each, called one after another and then all at once.
#[test]
fn huge_keys_are_not_kept() {
    let huge = ('0'..='9').map(|digit| digit.to_string().repeat(1 << 20));
    let keys: Vec<Box<str>> = huge.map(String::into_boxed_str).collect();
    let group = FlightGroup::<u64, u64>::new();
    let before = bytes_held();
    for key in &keys {
        group.call(&**key, || Ok(1)).unwrap();
    }
    let leaders: Vec<_> = keys.iter().map(|key| lead(&group, &**key)).collect();
    drop(leaders);
    let kept = bytes_held() - before;
    assert!(kept <= NEAR, "{kept} bytes of keys are kept");
}

/// Whatever way a flight ends, once its callers have dropped what they got, nobody holds its value,
/// its error, its panic's payload, or a function that ran or that did not.
#[test]
fn values_errors_and_functions_are_dropped() {
    let _watchdog = watchdog();
    // Every copy of this is something that a group might keep.
    let thing = Arc::new(());
    let group = FlightGroup::<Arc<()>, Arc<()>>::new();

    for end in 0..3 {
        thread::scope(|s| {
            let (held, gate) = gate();
            let [in_function, in_other_function] = [(); 2].map(|()| Arc::clone(&thing));
            s.spawn(|| {
                let function = || {
                    held();
                    match end {
                        0 => Ok(in_function),
                        1 => Err(in_function),
                        _ => panic_any(in_function),
                    }
                };
                let _ = catch_unwind(AssertUnwindSafe(|| group.call("k", function)));
            });
            gate.begun();
            let followers = [follow(&group, "k"), follow(&group, "k")];
            drop(follow(&group, "k"));
            s.spawn(|| group.call("k", || Ok(in_other_function)));
            gate.open();
            for follower in followers {
                drop(follower.wait());
            }
        });
        assert_eq!(Arc::strong_count(&thing), 1);
    }
    assert_quiet(&group);
}
