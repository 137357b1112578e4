//! What a call costs (G12), and what is left when a group is quiet (G11): counted, never timed.
//!
//! Locks, clock readings and wake-ups are counted in `mounted`.
#![cfg(not(loom))]

#[path = "common/allocator.rs"]
mod allocator;
mod common;

use std::borrow::Borrow;
use std::cell::{Cell, RefCell};
use std::mem::size_of;
use std::panic::{catch_unwind, panic_any, AssertUnwindSafe};
use std::process::Command;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use allocator::{allocations, at_next_free_of, bytes_held};
use common::{assert_quiet, follow, gate, lead, part, run_again, watchdog};
use shared_calls::{FlightGroup, Leader, Lookup, Observer};

// The lone call.

/// Counts what 1,000 lone calls on each of these keys allocate, once the group is warm.
fn lone_calls_allocate<K, Q>(
    group: &FlightGroup<u64, u64, K>,
    keys: &[&Q],
    result: Result<u64, u64>,
) -> u64
where
    Q: Lookup<K> + ?Sized,
{
    let rounds = |n| {
        for _ in 0..n {
            for key in keys {
                assert_eq!(group.call_ex(*key, || result).followers, 0);
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

/// Whatever the defaults.
#[test]
fn a_lone_call_of_a_group_from_a_builder_allocates_nothing() {
    const SECOND: Duration = Duration::from_secs(1);
    let groups = [
        FlightGroup::builder().build(),
        FlightGroup::builder().shards(8).build(),
        FlightGroup::builder()
            .timeout(SECOND)
            .max_age(SECOND)
            .max_followers(1)
            .takeover(1)
            .alone_on_deadlock()
            .build(),
    ];
    for group in groups {
        assert_eq!(lone_calls_allocate(&group, &["a", "b"], Ok(1)), 0);
        // Neither does reading the counts.
        assert_eq!(allocations(|| assert!(group.stats().led > 0)), 0);
    }
}

/// Whatever it asks for.
#[test]
fn a_lone_request_allocates_nothing() {
    const SECOND: Duration = Duration::from_secs(1);
    let group = FlightGroup::<u64, ()>::new();
    let ask = || {
        let request = group.request("k").timeout(SECOND).max_age(SECOND);
        let request = request.next_flight().max_followers(1).takeover(1);
        assert_eq!(request.alone_on_deadlock().call(|| Ok(1)), Ok(1));
        let request = group.request("k").timeout(SECOND);
        let asked = request.call_with(|flight| Ok(flight.followers() as u64));
        assert_eq!(asked, Ok(0));
    };
    ask();
    assert_eq!(allocations(ask), 0);
}

/// A lookup that is made of the parts of a key needs no key of its own.
#[test]
fn a_lone_call_with_a_compound_key_allocates_nothing() {
    #[derive(Hash)]
    struct Page<'a>(u32, &'a str);

    impl Lookup<(u32, String)> for Page<'_> {
        fn is(&self, (tenant, path): &(u32, String)) -> bool {
            self.0 == *tenant && self.1 == path
        }
        fn to_key(&self) -> (u32, String) {
            (self.0, self.1.to_owned())
        }
        fn overwrite(&self, (tenant, path): &mut (u32, String)) {
            *tenant = self.0;
            self.1.clone_into(path);
        }
    }

    let group = FlightGroup::new();
    let keys = [&Page(1, "/index"), &Page(2, "/index"), &Page(2, "/")];
    assert_eq!(lone_calls_allocate(&group, &keys, Ok(1)), 0);
}

/// The key, for the observer; what keeps it; and what the call has to tell.
#[test]
fn an_observer_costs_a_lone_call_at_most_three_allocations() {
    struct Quiet;
    impl<K> Observer<K> for Quiet {}
    let by_id = FlightGroup::<_, _, u64>::builder().observer(Quiet).build();
    assert!(lone_calls_allocate(&by_id, &[&1], Ok(1)) <= 2 * 1_000);
    let by_name = FlightGroup::<_, _>::builder().observer(Quiet).build();
    assert!(lone_calls_allocate(&by_name, &["k"], Ok(1)) <= 3 * 1_000);
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
            assert!(control >= 1_000, "strace counts {control} of 1,000 futex calls");
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
    Some(row.map_or(0, |row| row.split_whitespace().nth(3).unwrap().parse().unwrap()))
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
fn a_follower_makes_no_key_and_only_the_first_one_allocates() {
    let _watchdog = watchdog();
    let group = FlightGroup::<u64, (), Key>::new();
    let leader = lead(&group, &Name(1));
    assert_eq!(KEYS_MADE.with(Cell::get), 1);
    let mut followers = Vec::with_capacity(10);
    // The latch, where all followers of the flight wait.
    assert_eq!(allocations(|| followers.push(follow(&group, &Name(1)))), 1);
    let others = allocations(|| {
        for _ in 1..10 {
            followers.push(follow(&group, &Name(1)));
        }
    });
    assert_eq!((KEYS_MADE.with(Cell::get), others), (1, 0));

    let _ = leader.complete(Ok(1));
    let allocated = allocations(|| {
        for follower in followers {
            assert_eq!(follower.wait().result, Ok(1));
        }
    });
    assert_eq!(allocated, 0);
}

/// However many follow: the latch and the outcome; and the error, if it is one.
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
        assert_eq!((flight(Ok(1), n), flight(Err(1), n)), (2, 3));
    }
}

#[test]
fn at_most_four_keys_are_kept() {
    let group = FlightGroup::<u64, (), Key>::new();
    let alive = || KEYS_ALIVE.with(Cell::get);
    let assert_few = || assert!(alive() <= 4, "{} keys are kept", alive());
    let leaders: Vec<_> = (0..100).map(|i| lead(&group, &Name(i))).collect();
    assert_eq!(alive(), 100);
    drop(leaders);
    assert_few();
    for i in 0..100 {
        group.call(&Name(i), || Ok(1)).unwrap();
        assert_few();
    }
    // Flights with followers, with a queue, and given up.
    for i in 0..100 {
        let name = Name(i);
        let (leader, follower) = (lead(&group, &name), follow(&group, &name));
        let queued = group.request(&name).next_flight();
        queued.timeout(Duration::ZERO).call(|| Ok(2)).unwrap_err();
        if i % 2 == 0 {
            group.forget(&name);
        }
        let _ = leader.complete(Ok(1));
        drop(follower);
        assert_few();
    }
    drop(group);
    assert_eq!(alive(), 0);
}

/// A key that was kept is written over for the next call, which then makes none.
#[test]
fn keys_of_up_to_256_bytes_are_kept() {
    for (length, kept) in [(256, true), (257, false)] {
        let key = "k".repeat(length);
        let group = FlightGroup::new();
        let allocated = lone_calls_allocate(&group, &[&*key], Ok(1));
        assert_eq!(allocated, if kept { 0 } else { 1_000 });
    }
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
    let leaders: Vec<_> = (0..100_000).map(|i| lead(&group, &*format!("key {i}"))).collect();
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

/// The table shrinks to what is left, and does not wait for the last key to go.
#[test]
fn a_spike_that_leaves_some_keys_leaves_their_memory_only() {
    let group = FlightGroup::<u64, (), u64>::new();
    group.call(&0, || Ok(1)).unwrap();
    let before = bytes_held();
    let mut leaders: Vec<_> = (0..100_000).map(|key| lead(&group, &key)).collect();
    for leader in leaders.drain(1_000..) {
        let _ = leader.complete(Ok(1));
    }
    leaders.shrink_to_fit();
    let more = bytes_held() - before;
    assert!(more <= 1_000 * 500, "{more} bytes for 1,000 keys");
}

/// Flights with followers, which are given up halfway: they leave nothing either.
#[test]
fn a_spike_of_shared_flights_leaves_nothing() {
    let group = FlightGroup::<u64, (), u64>::new();
    group.call(&0, || Ok(1)).unwrap();
    let before = bytes_held();
    let spike = |key| {
        let (leader, follower) = (lead(&group, &key), follow(&group, &key));
        if key % 2 == 0 {
            group.forget(&key);
        }
        (leader, follower)
    };
    let spike: Vec<_> = (0..20_000).map(spike).collect();
    for (leader, follower) in spike {
        let _ = leader.complete(Ok(1));
        assert_eq!(follower.wait().result, Ok(1));
    }
    let more = bytes_held() - before;
    assert!(more <= NEAR, "{more} bytes more than before the spike");
    assert_quiet(&group);
}

/// A group knows the threads that have led, for the names in a refusal, until they end.
#[test]
fn a_thread_that_has_ended_is_forgotten() {
    let group = FlightGroup::<u64, (), u64>::new();
    let lead_once = |n| {
        let (group, name) = (group.clone(), format!("{n:10000}"));
        let call = move || group.call(&n, || Ok(n)).unwrap();
        thread::Builder::new().name(name).spawn(call).unwrap().join().unwrap();
    };
    lead_once(0);
    let before = bytes_held();
    (1..=100).for_each(lead_once);
    let more = bytes_held() - before;
    assert!(more <= 100 * 1_000, "{more} bytes more than before the threads");
}

/// Counted where a table has just grown, and has the most free slots for each key.
#[test]
fn a_key_in_flight_costs_at_most_150_bytes() {
    const KEYS: usize = (1 << 17) * 7 / 8 + 1;
    let group = FlightGroup::<u64, (), u64>::new();
    let mut leaders = Vec::with_capacity(KEYS);
    let before = bytes_held();
    leaders.extend((0..KEYS as u64).map(|key| lead(&group, &key)));
    let each = (bytes_held() - before) as usize / KEYS - size_of::<u64>();
    assert!(each <= 150, "{each} bytes a key");
}

/// To free the table of a spike takes long, so no other caller may have to wait for it.
#[test]
fn the_table_of_a_spike_is_freed_outside_the_lock() {
    type Group = FlightGroup<u64, (), u64>;
    let group: &Group = Box::leak(Box::new(Group::new()));
    let leaders: Vec<_> = (0..100_000).map(|key| lead(group, &key)).collect();
    let shown = Rc::new(RefCell::new(String::new()));
    let show = Rc::clone(&shown);
    at_next_free_of(1 << 20, move || *show.borrow_mut() = format!("{group:?}"));
    for leader in leaders {
        drop(leader);
    }
    let shown = shown.take();
    assert!(shown.contains("in_flight: ") && !shown.contains("locked"), "{shown}");
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
