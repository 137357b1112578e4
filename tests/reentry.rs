//! User code that calls the group that runs it (G10).
//!
//! The function, `Clone` and `Drop` of values and errors, and `Drop` of keys may ask the same group
//! for another key, on this thread or by way of another one that they wait for. If one of them ran
//! under a lock of the group, these tests would hang. (What makes, compares and copies keys does run
//! there, as in `HashMap::entry`; so does the `Drop` of a key that is written over.)
//!
//! For the function's own key a call is refused, and so is one of two functions that ask for each
//! other's keys: see `deadlock.rs`. What does hang, as documented, is a thread that asks for a key
//! whose `Leader` it holds, because any thread might complete that.
#![cfg(not(loom))]

mod common;

use std::cell::{Cell, RefCell};
use std::hash::{Hash, Hasher};
use std::process::{self, Command, Stdio};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Instant;

use common::{assert_quiet, follow, lead, part, run_again, until, watchdog, TOO_LONG};
use shared_calls::{FlightGroup, Job};

type Group = FlightGroup<Nosy, Nosy, Key>;

/// A value and an error, whose `Clone` and `Drop` visit a group, and a key, whose `Drop` does.
#[derive(Debug)]
struct Nosy {
    name: &'static str,
    visits: Option<&'static Group>,
}

/// Too large to be kept, so each one is dropped when its flight ends.
#[derive(Clone, Debug)]
struct Key {
    name: &'static str,
    /// Whether copies of it visit the group when they are dropped.
    visits: Option<&'static Group>,
    is_copy: IsCopy,
    _padding: [u64; 33],
}

/// Tells copies from the key that was cloned.
#[derive(Debug)]
struct IsCopy(bool);

impl Clone for IsCopy {
    fn clone(&self) -> Self {
        IsCopy(true)
    }
}

impl Key {
    /// One that visits nobody.
    fn plain(name: &'static str) -> Self {
        Self { name, visits: None, is_copy: IsCopy(false), _padding: [0; 33] }
    }

    fn new(name: &'static str, group: &'static Group) -> Self {
        let mut key = Self::plain(name);
        key.visits = Some(group);
        key
    }
}

impl Nosy {
    /// One that visits nobody.
    fn plain(name: &'static str) -> Self {
        let visits = None;
        Self { name, visits }
    }

    fn new(name: &'static str, group: &'static Group) -> Self {
        let visits = Some(group);
        Self { name, visits }
    }
}

thread_local! {
    static VISITS: Cell<usize> = const { Cell::new(0) };
    /// Something that the next `Clone` on this thread does besides.
    static IN_CLONE: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
}

/// Asks the group for another key, from this thread and then from another one.
fn visit(group: &Group) {
    VISITS.with(|n| n.set(n.get() + 1));
    let ask = || {
        let value = group.call(&Key::plain("another"), || Ok(Nosy::plain("value")));
        assert_eq!(value.unwrap().name, "value");
    };
    ask();
    thread::scope(|s| s.spawn(ask).join().unwrap());
}

/// How often this thread visits while `f` runs.
fn visits<T>(f: impl FnOnce() -> T) -> (usize, T) {
    let before = VISITS.with(Cell::get);
    let got = f();
    (VISITS.with(Cell::get) - before, got)
}

impl Clone for Nosy {
    fn clone(&self) -> Self {
        if let Some(f) = IN_CLONE.with(|f| f.borrow_mut().take()) {
            f();
        }
        self.visits.map(visit);
        Self { ..*self }
    }
}

impl Drop for Nosy {
    fn drop(&mut self) {
        // A test that fails must not abort the others by a second panic.
        if !thread::panicking() {
            self.visits.map(visit);
        }
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        if self.is_copy.0 && !thread::panicking() {
            self.visits.map(visit);
        }
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

/// A group for one test. It is leaked, so that what it holds may refer to it.
fn new_group() -> &'static Group {
    Box::leak(Box::default())
}

#[test]
fn the_function_asks_for_another_key() {
    let _watchdog = watchdog();
    let group = new_group();
    let (visited, value) = visits(|| {
        group.call(&Key::plain("k"), || {
            visit(group);
            Ok(Nosy::plain("outer"))
        })
    });
    assert_eq!((visited, value.unwrap().name), (1, "outer"));
    assert_quiet(group);
}

#[test]
fn clone_and_drop_of_the_value_ask_for_another_key() {
    let _watchdog = watchdog();
    let group = new_group();
    let key = Key::plain("k");
    let leader = lead(group, &key);
    let followers = [(); 3].map(|()| follow(group, &key));

    // The leader clones: its followers still hold the flight.
    let (visited, led) = visits(|| leader.complete(Ok(Nosy::new("v", group))));
    assert_eq!(visited, 1);
    let [first, second, last] = followers;
    // A follower clones, one leaves, and the last to leave drops the value.
    let (visited, followed) = visits(|| first.wait());
    assert_eq!(visited, 1);
    assert_eq!(visits(|| drop(second)).0, 0);
    assert_eq!(visits(|| drop(last)).0, 1);

    assert_eq!(led.result.unwrap().name, "v");
    assert_eq!(followed.result.unwrap().name, "v");
    assert_quiet(group);
}

#[test]
fn drop_of_the_error_asks_for_another_key() {
    let _watchdog = watchdog();
    let group = new_group();
    let key = Key::plain("k");
    let leader = lead(group, &key);
    let follower = follow(group, &key);
    let (visited, led) = visits(|| leader.complete(Err(Nosy::new("e", group))));
    assert_eq!(visited, 0);
    drop(led);
    assert_eq!(visits(|| drop(follower)).0, 1);
    assert_quiet(group);
}

/// However the flight ends: the leader drops the key.
#[test]
fn drop_of_the_key_asks_for_another_key() {
    let _watchdog = watchdog();
    let group = new_group();
    let key = Key::new("k", group);
    let value = || Ok(Nosy::plain("v"));

    assert_eq!(visits(|| drop(group.call(&key, value))).0, 1);
    assert_eq!(visits(|| drop(lead(group, &key))).0, 1);
    assert_eq!(visits(|| drop(group.start(&key, Job::run, value))).0, 1);

    let (leader, follower) = (lead(group, &key), follow(group, &key));
    assert_eq!(visits(|| drop(leader.complete(value()))).0, 1);
    drop(follower);

    // Given up: the list has a copy, too.
    let leader = lead(group, &key);
    let (forgotten, _) = visits(|| group.forget(&key));
    let (ended, _) = visits(|| drop(leader));
    assert_eq!(forgotten + ended, 2);

    let two = [&key, &Key::new("l", group)];
    let batch = || group.call_many(&two, |_| Ok(vec![Nosy::plain("v"), Nosy::plain("w")]));
    assert_eq!(visits(batch).0, 2);
    assert_quiet(group);
}

/// Nobody learns an outcome before the key is free (G2): neither the leader nor a follower.
#[test]
fn the_key_is_free_when_the_value_is_cloned() {
    let _watchdog = watchdog();
    let group = new_group();
    let key = Key::plain("k");
    let leads = move || {
        IN_CLONE.with(|f| {
            *f.borrow_mut() = Some(Box::new(|| {
                VISITS.with(|n| n.set(n.get() + 1));
                drop(lead(group, &Key::plain("k")));
            }));
        });
    };
    let leader = lead(group, &key);
    let [first, _second] = [follow(group, &key), follow(group, &key)];
    leads();
    let (visited, _) = visits(|| leader.complete(Ok(Nosy::plain("v"))));
    assert_eq!(visited, 1);
    leads();
    let (visited, _) = visits(|| first.wait());
    assert_eq!(visited, 1);
    assert_quiet(group);
}

/// Nobody waits until others have cloned: here each waits, in `Clone`, for all to be there.
#[test]
fn values_are_cloned_side_by_side() {
    struct Meeting(Arc<Barrier>);
    impl Clone for Meeting {
        fn clone(&self) -> Self {
            self.0.wait();
            Self(Arc::clone(&self.0))
        }
    }

    let _watchdog = watchdog();
    let group = FlightGroup::<Meeting, ()>::new();
    let leader = lead(&group, "k");
    let followers = [follow(&group, "k"), follow(&group, "k")];
    // Holds on to the flight, so that the other three have to clone.
    let _another = follow(&group, "k");
    thread::scope(|s| {
        for follower in followers {
            s.spawn(|| follower.wait());
        }
        let _ = leader.complete(Ok(Meeting(Arc::new(Barrier::new(3)))));
    });
}

// What hangs: a call for a key whose `Leader` is held by the thread that asks, or by one that waits
// for it. It does so in a child process, which ends itself once it is certain that it would hang
// for ever: when all who could complete a `Leader` wait. A caller that counts as waiting was not
// refused.

const HANGS: i32 = 42;

/// Runs this test again in a child process, and expects it to hang there.
fn assert_hangs_in_child(test: &str) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let mut child = run_again(&mut command, test, "hang").stdout(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + TOO_LONG;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("the child neither got to hang nor came to an end");
        }
        thread::yield_now();
    };
    assert_eq!(status.code(), Some(HANGS), "the child came to an end");
}

#[test]
fn asking_for_a_key_whose_leader_one_holds_hangs() {
    if part().is_none() {
        return assert_hangs_in_child("asking_for_a_key_whose_leader_one_holds_hangs");
    }
    let group = FlightGroup::<u32, ()>::new();
    thread::scope(|s| {
        s.spawn(|| {
            until("it waits for itself", || group.stats().waiting == 1);
            process::exit(HANGS);
        });
        // Also in the midst of a function of its own.
        let _ = group.call("another", || {
            let leader = lead(&group, "k");
            let value = group.call("k", || Ok(1));
            let _ = leader.complete(value.clone().map_err(|_| ()));
            value.map_err(|_| ())
        });
        process::exit(0);
    });
}

#[test]
fn asking_for_keys_whose_leaders_they_hold_for_each_other_hangs_both() {
    if part().is_none() {
        return assert_hangs_in_child(
            "asking_for_keys_whose_leaders_they_hold_for_each_other_hangs_both",
        );
    }
    let group = FlightGroup::<u32, ()>::new();
    let both_lead = Barrier::new(2);
    let ask = |own: &str, others: &str| {
        let leader = lead(&group, own);
        both_lead.wait();
        let _ = group.call(others, || Ok(1));
        drop(leader);
        process::exit(0);
    };
    thread::scope(|s| {
        s.spawn(|| {
            until("each waits for the other", || group.stats().waiting == 2);
            process::exit(HANGS);
        });
        s.spawn(|| ask("a", "b"));
        s.spawn(|| ask("b", "a"));
    });
}
