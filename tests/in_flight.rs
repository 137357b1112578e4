//! `in_flight()`: what an operator looks at when everything is stuck. Which keys, who leads, who
//! follows, for how long, and what the leader itself waits for.
#![cfg(not(loom))]

#[path = "common/allocator.rs"]
mod allocator;
mod common;

use std::cell::RefCell;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{mpsc, Arc};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use allocator::{at_next_allocation, bytes_held};
use common::{assert_quiet, follow, gate, give_up, lead, panic_text, all_arrived, until, watchdog};
use common::{Watched, TOO_LONG};
use shared_calls::{FlightGroup, InFlight, Joined, Observer, WaitsFor};

type Group = FlightGroup<u32, &'static str>;

struct Quiet;
impl Observer for Quiet {}

/// A group with an observer, which makes each flight tell of itself.
fn observed() -> Group {
    Group::builder().observer(Quiet).build()
}

/// The one flight of a group.
#[track_caller]
fn only<V, E, K: Clone, S>(group: &FlightGroup<V, E, K, S>) -> InFlight<K> {
    let mut all = group.in_flight();
    assert_eq!(all.len(), 1);
    all.remove(0)
}

/// The flight for this key.
#[track_caller]
fn find<V, E, K: Clone + PartialEq<Q>, S, Q: ?Sized>(
    group: &FlightGroup<V, E, K, S>,
    key: &Q,
) -> InFlight<K> {
    let mut all = group.in_flight().into_iter();
    all.find(|flight| flight.key == *key).expect("in flight")
}

fn is_me(leader: Option<Thread>) -> bool {
    leader.map(|thread| thread.id()) == Some(thread::current().id())
}

// Keys, followers, those who are queued.

#[test]
fn every_key_in_flight_is_listed_and_no_other() {
    let group = Group::new();
    let keys = || {
        let mut keys: Vec<_> = group.in_flight().into_iter().map(|f| f.key).collect();
        keys.sort();
        keys
    };
    assert!(keys().is_empty());
    group.call("gone", || Ok(1)).unwrap();
    let a = lead(&group, "a");
    let b = lead(&group, "b");
    group
        .call("c", || {
            assert_eq!(keys(), ["a", "b", "c"]);
            Ok(1)
        })
        .unwrap();
    assert_eq!(keys(), ["a", "b"]);
    let _ = b.complete(Ok(1));
    assert_eq!(keys(), ["a"]);
    drop(a);
    assert!(keys().is_empty());
}

#[test]
fn followers_and_those_who_are_queued_are_told_apart() {
    let _watchdog = watchdog();
    let group = FlightGroup::<u32, (), Watched>::new();
    let key = Watched::new("k");
    let seats = || {
        let flight = only(&group);
        (flight.followers, flight.queued)
    };
    let leader = lead(&group, &key);
    assert_eq!(seats(), (0, 0));
    let followers = [(); 2].map(|()| follow(&group, &key));
    assert_eq!(seats(), (2, 0));
    thread::scope(|s| {
        let queued = all_arrived(&group, &key, 3, || {
            [(); 3].map(|()| s.spawn(|| group.request(&key).next_flight().join()))
        });
        assert_eq!(seats(), (2, 3));
        let hasty = group.request(&key).next_flight();
        hasty.timeout(Duration::ZERO).call(|| Ok(2)).unwrap_err();
        assert_eq!(seats(), (2, 3));
        drop(followers);
        assert_eq!(seats(), (0, 3));

        // One of those who were queued leads; the others are its followers.
        let _ = leader.complete(Ok(1));
        let places = queued.map(|caller| caller.join().unwrap());
        assert_eq!(seats(), (2, 0));
        drop(places);
    });
    assert_quiet(&group);
}

#[test]
fn a_flight_that_was_given_up_is_not_listed_and_its_successor_is() {
    let group = Group::new();
    let first = lead(&group, "k");
    let follower = follow(&group, "k");
    group.forget("k");
    assert!(group.in_flight().is_empty());
    let second = lead(&group, "k");
    assert_eq!(only(&group).followers, 0);
    let third = give_up(&group, &"k".to_owned());
    let followers = [(); 2].map(|()| follow(&group, "k"));
    assert_eq!(only(&group).followers, 2);
    drop((first, second, follower));
    assert_eq!(only(&group).followers, 2);
    drop((third, followers));
    assert!(group.in_flight().is_empty());
}

// Who leads.

#[test]
fn the_leader_is_the_thread_whose_function_runs() {
    let _watchdog = watchdog();
    for group in [Group::new(), observed()] {
        let (held, gate) = gate();
        thread::scope(|s| {
            let named = thread::Builder::new().name("worker-3".into());
            let function = || {
                held();
                assert!(is_me(only(&group).leader));
                Ok(1)
            };
            let worker = named.spawn_scoped(s, || group.call("k", function)).unwrap();
            gate.begun();
            let leader = only(&group).leader.expect("known");
            assert_eq!(leader.name(), Some("worker-3"));
            assert_eq!(leader.id(), worker.thread().id());
            gate.open();
            worker.join().unwrap().unwrap();
        });
    }
}

#[test]
fn a_request_s_function_is_known_too() {
    let group = Group::new();
    let asked = group.request("k").next_flight().call(|| {
        assert!(is_me(only(&group).leader));
        Ok(1)
    });
    asked.unwrap();
}

/// Of calls that one function makes inside another, each one's thread is the same.
#[test]
fn a_thread_may_lead_several() {
    let group = Group::new();
    let calls = group.call("a", || {
        let inner = group.call("b", || {
            let all = group.in_flight();
            assert_eq!(all.len(), 2);
            for flight in all {
                assert!(is_me(flight.leader) && flight.waits_for.is_none());
            }
            Ok(1)
        });
        assert!(is_me(only(&group).leader));
        Ok(inner.unwrap())
    });
    calls.unwrap();
}

/// Whatever led before, and whoever is told of it.
#[test]
fn a_leader_that_is_held_is_nobody() {
    let _watchdog = watchdog();
    for group in [Group::new(), observed()] {
        let held = lead(&group, "k");
        assert!(only(&group).leader.is_none());
        drop(held);
        // These flights ended with nobody on them: the group may use them again.
        thread::scope(|s| {
            s.spawn(|| group.call("k", || Ok(1)).unwrap())
                .join()
                .unwrap()
        });
        group.call("k", || Ok(1)).unwrap();
        for key in ["k", "another"] {
            let held = lead(&group, key);
            let found = only(&group);
            assert!(found.leader.is_none(), "{found}");
            let _ = held.complete(Ok(1));
            group.call(key, || Ok(1)).unwrap();
        }
    }
}

/// One who was queued has the lead in hand, too.
#[test]
fn a_leader_that_was_queued_is_nobody() {
    let _watchdog = watchdog();
    for group in [Group::new(), observed()] {
        thread::scope(|s| {
            let (held, gate) = gate();
            let first = s.spawn(|| {
                group.call("k", || {
                    held();
                    Ok(1)
                })
            });
            gate.begun();
            let queued = s.spawn(|| group.request("k").next_flight().join());
            until("one is queued", || only(&group).queued == 1);
            gate.open();
            let Joined::Leader(leader) = queued.join().unwrap() else {
                panic!("nobody else could lead");
            };
            first.join().unwrap().unwrap();
            let found = only(&group);
            assert!(found.leader.is_none(), "{found}");
            drop(leader);
        });
    }
}

#[test]
fn a_job_is_led_by_the_thread_that_runs_it() {
    let _watchdog = watchdog();
    for group in [Group::new(), observed()].map(Arc::new) {
        // Leaves behind what the group may use again.
        group.call("k", || Ok(1)).unwrap();
        let (jobs, worker) = mpsc::channel();
        let (held, gate) = gate();
        let function = || {
            held();
            Ok(1)
        };
        let ticket = group.start("k", |job| jobs.send(job).unwrap(), function);
        let found = only(&group);
        assert!(found.leader.is_none(), "{found}");
        assert_eq!((found.followers, found.waits_for), (0, None));
        thread::scope(|s| {
            let job = worker.recv().unwrap();
            let runner = s.spawn(|| job.run());
            gate.begun();
            let leader = only(&group).leader.expect("known");
            assert_eq!(leader.id(), runner.thread().id());
            gate.open();
        });
        assert_eq!(ticket.wait().result.unwrap(), 1);
    }
}

/// After the function has returned there is none, though the key is still in flight.
#[test]
fn a_function_that_has_returned_leads_nothing() {
    let _watchdog = watchdog();
    let group = Group::new();
    let (held, gate) = gate();
    thread::scope(|s| {
        let old = s.spawn(|| {
            group.call("k", || {
                // It allocates its error's `Arc` after it has returned.
                at_next_allocation(held);
                Err("old")
            })
        });
        gate.begun();
        assert!(only(&group).leader.is_none());
        gate.open();
        old.join().unwrap().unwrap_err();
    });
}

#[test]
fn a_thread_without_a_name_has_its_id() {
    let _watchdog = watchdog();
    let group = Group::new();
    let (held, gate) = gate();
    thread::scope(|s| {
        let worker = s.spawn(|| {
            group.call("k", || {
                held();
                Ok(1)
            })
        });
        gate.begun();
        let found = only(&group);
        let id = worker.thread().id();
        assert_eq!(found.leader.as_ref().unwrap().name(), None);
        let line = found.to_string();
        assert!(line.starts_with(&format!("\"k\" led by thread {id:?} for ")));
        gate.open();
    });
}

/// A leader in a thread-local's `Drop`, when the thread is as good as gone.
#[test]
fn a_thread_that_ends_may_lead() {
    let _watchdog = watchdog();
    struct AtEnd(&'static Group);
    impl Drop for AtEnd {
        fn drop(&mut self) {
            self.0
                .call("k", || Ok(only(self.0).followers as u32))
                .unwrap();
        }
    }
    thread_local! {
        static AT_END: RefCell<Option<AtEnd>> = const { RefCell::new(None) };
    }
    let group: &Group = Box::leak(Box::new(Group::new()));
    for called_before in [false, true] {
        let thread = thread::spawn(move || {
            AT_END.with(|end| *end.borrow_mut() = Some(AtEnd(group)));
            if called_before {
                group.call("k", || Ok(1)).unwrap();
            }
        });
        thread.join().unwrap();
    }
    assert_eq!(group.stats().led, 3);
    assert_quiet(group);
}

// For how long.

#[test]
fn age_grows() {
    let _watchdog = watchdog();
    let group = Group::new();
    let before = Instant::now();
    let leader = lead(&group, "k");
    let old = Duration::from_millis(2);
    until("it is old", || only(&group).age.unwrap() >= old);
    let first = only(&group).age.unwrap();
    let later = only(&group).age.unwrap();
    assert!(first <= later && later <= before.elapsed() + Duration::from_micros(1));
    drop(leader);
    // The next one is no older than it can be, though it may be of the same parts.
    let before = Instant::now();
    let leader = lead(&group, "k");
    let age = only(&group).age.unwrap();
    assert!(age <= before.elapsed() + Duration::from_micros(1));
    drop(leader);
}

#[test]
fn ages_are_told_where_a_clock_is_read() {
    let without = Group::builder().build();
    let _leader = lead(&without, "k");
    assert_eq!(only(&without).age, None);
    // An observer is told durations, so there is a clock in any case.
    let observed = Group::builder().observer(Quiet).build();
    let _leader = lead(&observed, "k");
    assert!(only(&observed).age.is_some());
}

/// From when it took its place, not from when it was asked for.
#[test]
fn the_age_of_a_next_flight_counts_from_its_turn() {
    let _watchdog = watchdog();
    for forget in [false, true] {
        let group = Group::new();
        let first = lead(&group, "k");
        thread::scope(|s| {
            let queued = s.spawn(|| group.request("k").next_flight().join());
            until("one is queued", || only(&group).queued == 1);
            let old = Duration::from_millis(2);
            until("the first is old", || only(&group).age.unwrap() >= old);
            let turn = Instant::now();
            if forget {
                group.forget("k");
            } else {
                drop(first);
            }
            let next = queued.join().unwrap();
            let age = only(&group).age.unwrap();
            assert!(age <= turn.elapsed() + Duration::from_micros(1));
            // And from there on it grows.
            until("the next is old", || only(&group).age.unwrap() >= old);
            let impatient = group.request("k").max_age(Duration::from_millis(1));
            assert!(matches!(impatient.join(), Joined::Leader(_)));
            drop(next);
        });
    }
}

// What the leader waits for.

/// Has a thread lead `key` and, inside its function, do what `inside` says, which waits. Then looks.
fn while_it_waits(group: &Group, key: &str, inside: impl FnOnce() + Send, look: impl FnOnce()) {
    thread::scope(|s| {
        let outer = s.spawn(|| {
            group.call(key, || {
                inside();
                Ok(1)
            })
        });
        let waits = || {
            let all = group.in_flight();
            all.iter().any(|f| f.key == key && f.waits_for.is_some())
        };
        until("it waits", waits);
        look();
        outer.join().unwrap().unwrap();
    });
}

#[test]
fn a_leader_that_waits_for_another_key_is_seen_to() {
    let _watchdog = watchdog();
    let group = Group::new();
    type Asks = fn(&Group);
    let asks: [Asks; 5] = [
        |group| drop(group.call("b", || Ok(2))),
        |group| drop(group.request("b").timeout(TOO_LONG).call(|| Ok(2))),
        |group| drop(group.request("b").alone_on_deadlock().call(|| Ok(2))),
        |group| drop(follow(group, "b").wait()),
        |group| drop(follow(group, "b").wait_timeout(TOO_LONG)),
    ];
    for ask in asks {
        let b = lead(&group, "b");
        while_it_waits(
            &group,
            "a",
            || {
                ask(&group);
                assert_eq!(find(&group, "a").waits_for, None);
            },
            || {
                assert_eq!(find(&group, "a").waits_for, Some(WaitsFor::Key("b".into())));
                assert_eq!(find(&group, "b").waits_for, None);
                assert_eq!(find(&group, "b").followers, 1);
                let _ = b.complete(Ok(1));
            },
        );
    }
}

/// One that is queued waits for the flight in front, whose key is the same.
#[test]
fn a_leader_that_is_queued_for_another_key_is_seen_to_wait_for_it() {
    let _watchdog = watchdog();
    let group = Group::new();
    let b = lead(&group, "b");
    while_it_waits(
        &group,
        "a",
        || drop(group.request("b").next_flight().call(|| Ok(2))),
        || {
            assert_eq!(find(&group, "a").waits_for, Some(WaitsFor::Key("b".into())));
            assert_eq!(find(&group, "b").queued, 1);
            drop(b);
        },
    );
}

/// Every flight that the thread leads is held up.
#[test]
fn the_outer_flights_of_a_leader_that_waits_wait_too() {
    let _watchdog = watchdog();
    let group = Group::new();
    let c = lead(&group, "c");
    while_it_waits(
        &group,
        "a",
        || drop(group.call("b", || group.call("c", || Ok(2)).map_err(|_| "c"))),
        || {
            for key in ["a", "b"] {
                let found = find(&group, key);
                assert_eq!(found.waits_for, Some(WaitsFor::Key("c".into())));
            }
            drop(c);
        },
    );
}

#[test]
fn a_leader_that_waits_for_another_group_waits_elsewhere() {
    let _watchdog = watchdog();
    let (group, other) = (Group::new(), FlightGroup::<(), (), u64>::new());
    let there = lead(&other, &7);
    while_it_waits(
        &group,
        "a",
        || drop(other.call(&7, || Ok(()))),
        || {
            assert_eq!(only(&group).waits_for, Some(WaitsFor::Elsewhere));
            assert_eq!(only(&other).waits_for, None);
            drop(there);
        },
    );
}

#[test]
fn a_leader_that_waits_for_a_flight_that_was_given_up_waits_elsewhere() {
    let _watchdog = watchdog();
    let group = Group::new();
    let old = lead(&group, "b");
    while_it_waits(
        &group,
        "a",
        || drop(group.call("b", || Ok(2))),
        || {
            group.forget("b");
            assert_eq!(only(&group).waits_for, Some(WaitsFor::Elsewhere));
            // There is a flight for that key, and it is another one.
            let new = lead(&group, "b");
            assert_eq!(find(&group, "a").waits_for, Some(WaitsFor::Elsewhere));
            drop((old, new));
        },
    );
}

/// Not the caller that would close the circle: it is told so. The other one waits, and is seen to.
#[test]
fn a_caller_that_is_refused_does_not_wait() {
    let _watchdog = watchdog();
    let group = Group::new();
    let outer = group.call("k", || {
        group.call("k", || Ok(2)).unwrap_err();
        assert_eq!(only(&group).waits_for, None);
        Ok(1)
    });
    outer.unwrap();
}

#[test]
fn a_leader_whose_time_is_up_does_not_wait() {
    let _watchdog = watchdog();
    let group = Group::new();
    let b = lead(&group, "b");
    let outer = group.call("a", || {
        let hasty = || group.request("b").timeout(Duration::from_millis(1));
        hasty().call(|| Ok(2)).unwrap_err();
        hasty().next_flight().call(|| Ok(2)).unwrap_err();
        assert_eq!(find(&group, "a").waits_for, None);
        Ok(1)
    });
    outer.unwrap();
    drop(b);
}

// A flight that nobody leads yet.

/// Stops the thread that it is told to stop, when it has joined a flight.
struct Stops(RefCellOfThread);

type RefCellOfThread = std::sync::Mutex<Option<Box<dyn FnOnce() + Send>>>;

impl Observer for Stops {
    fn caller_joined(&self, _: &String) {
        let stop = self.0.lock().unwrap().take();
        if let Some(stop) = stop {
            stop();
        }
    }
}

/// The one that is to lead it has been stopped on its way to the wait, in its observer.
#[test]
fn a_flight_without_a_leader_is_listed() {
    let _watchdog = watchdog();
    let (held, gate) = gate();
    let stops = Stops(RefCellOfThread::new(Some(Box::new(held))));
    let group = Group::builder().observer(stops).build();
    let first = lead(&group, "k");
    thread::scope(|s| {
        let queued = s.spawn(|| group.request("k").next_flight().call(|| Ok(2)));
        gate.begun();
        let _ = first.complete(Ok(1));
        let found = only(&group);
        assert!(found.leader.is_none() && found.age.is_some());
        assert_eq!(
            (found.followers, found.queued, found.waits_for),
            (1, 0, None)
        );
        // It is nobody's to give up.
        assert!(!group.forget("k"));
        gate.open();
        assert_eq!(queued.join().unwrap().unwrap(), 2);
    });
    assert_quiet(&group);
}

// As text.

#[test]
fn a_line_says_it_all() {
    let _watchdog = watchdog();
    let group = Group::builder().build();
    let line = |key: &str| find(&group, key).to_string();
    let b = lead(&group, "b");
    assert_eq!(line("b"), r#""b" led by an unknown thread"#);
    let one = follow(&group, "b");
    assert_eq!(line("b"), r#""b" led by an unknown thread, 1 follower"#);
    let two = follow(&group, "b");
    assert_eq!(line("b"), r#""b" led by an unknown thread, 2 followers"#);
    thread::scope(|s| {
        s.spawn(|| group.request("b").next_flight().call(|| Ok(2)));
        until("one is queued", || find(&group, "b").queued == 1);
        let seats = "2 followers, 1 queued for the next";
        let expected = format!(r#""b" led by an unknown thread, {seats}"#);
        assert_eq!(line("b"), expected);

        let worker = thread::Builder::new().name("worker-3".into());
        let call = || group.call("a", || group.call("b", || Ok(2)).map_err(|_| "b"));
        worker.spawn_scoped(s, call).unwrap();
        until("it waits", || {
            let all = group.in_flight();
            all.iter().any(|flight| flight.waits_for.is_some())
        });
        let expected = r#""a" led by thread 'worker-3', waits for "b""#;
        assert_eq!(line("a"), expected);
        group.forget("b");
        let expected = r#""a" led by thread 'worker-3', waits for a flight elsewhere"#;
        assert_eq!(line("a"), expected);
        drop((one, two, b));
    });
}

#[test]
fn a_line_tells_the_age() {
    let group = Group::new();
    let _leader = lead(&group, "k");
    let found = only(&group);
    let expected = format!(
        "\"k\" led by an unknown thread for {:?}",
        found.age.unwrap()
    );
    assert_eq!(found.to_string(), expected);
}

// Keys are the user's code.

thread_local! {
    static IN_CLONE: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
}

/// Something that the next `Clone` of a [`Key`] on this thread does first.
fn in_next_clone(f: impl FnOnce() + 'static) {
    IN_CLONE.with(|c| *c.borrow_mut() = Some(Box::new(f)));
}

/// A key with a count of its copies.
#[derive(Debug, PartialEq, Eq)]
struct Key {
    name: &'static str,
    copies: Arc<()>,
}

impl Key {
    fn new(name: &'static str) -> Self {
        let copies = Arc::default();
        Self { name, copies }
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl Clone for Key {
    fn clone(&self) -> Self {
        let (name, copies) = (self.name, Arc::clone(&self.copies));
        if let Some(f) = IN_CLONE.with(|c| c.borrow_mut().take()) {
            f();
        }
        // Of now, not of before: nobody changed it meanwhile.
        assert_eq!((self.name, &self.copies), (name, &copies));
        Self { name, copies }
    }
}

type KeyedGroup = FlightGroup<u32, (), Key>;

fn leaked() -> &'static KeyedGroup {
    Box::leak(Box::default())
}

/// If its lock were held, this would hang.
#[test]
fn clone_of_a_key_may_ask_the_group() {
    let _watchdog = watchdog();
    let group = leaked();
    let key = Key::new("k");
    let leader = lead(group, &key);
    in_next_clone(|| {
        let another = Key::new("another");
        group.call(&another, || Ok(1)).unwrap();
        thread::scope(|s| {
            s.spawn(|| group.call(&another, || Ok(1)).unwrap())
                .join()
                .unwrap()
        });
        drop(follow(group, &Key::new("k")));
        assert_eq!(group.in_flight().len(), 1);
        assert_eq!(group.stats().led, 2);
    });
    assert_eq!(only(group).key.name, "k");
    drop(leader);
}

/// Nor is the lock held that all groups share: waits inside functions go on.
#[test]
fn clone_of_a_key_may_block() {
    let _watchdog = watchdog();
    let group = leaked();
    let others = Group::new();
    let (held, gate) = gate();
    let leader = lead(group, &Key::new("k"));
    thread::scope(|s| {
        let reader = s.spawn(|| {
            in_next_clone(held);
            only(group).key.name
        });
        gate.begun();
        group.call(&Key::new("another"), || Ok(1)).unwrap();
        let b = lead(&others, "b");
        while_it_waits(
            &others,
            "a",
            || drop(others.call("b", || Ok(2))),
            || drop(b),
        );
        let _ = leader.complete(Ok(1));
        gate.open();
        // It has left meanwhile.
        assert_eq!(reader.join().unwrap(), "k");
    });
    assert_quiet(group);
}

#[test]
fn clone_of_a_key_may_panic() {
    let group = leaked();
    let leader = lead(group, &Key::new("k"));
    in_next_clone(|| panic!("in Clone"));
    assert_eq!(panic_text(|| drop(group.in_flight())), "in Clone");
    assert_eq!(only(group).key.name, "k");
    let _ = leader.complete(Ok(1));
    assert_quiet(group);
}

/// A group writes new keys over retired ones, for its lone calls. Not over one that is looked at.
#[test]
fn a_key_that_is_looked_at_is_not_written_over() {
    let _watchdog = watchdog();
    let group = leaked();
    let key = Key::new("k");
    for ends_with_others in [false, true] {
        let (held, gate) = gate();
        let leader = lead(group, &key);
        thread::scope(|s| {
            let reader = s.spawn(|| {
                in_next_clone(held);
                only(group).key
            });
            gate.begun();
            let _ = leader.complete(Ok(1));
            // Now the entry is a spare one. These want it, more of them than are kept.
            let names = ["a", "b", "c", "d", "e", "f"];
            for name in names {
                group.call(&Key::new(name), || Ok(1)).unwrap();
            }
            let leaders = ends_with_others.then(|| names.map(|name| lead(group, &Key::new(name))));
            gate.open();
            let seen = reader.join().unwrap();
            assert_eq!(seen, key);
            drop(leaders);
        });
    }
    assert_quiet(group);
}

// Nothing is kept (G11).

#[test]
fn the_list_keeps_nothing_of_the_group() {
    // Looked up by a slice, which tells its size: these are too long to be kept for reuse.
    let copies = Arc::new(());
    let long = vec![Arc::clone(&copies); 100];
    let group = FlightGroup::<Arc<()>, (), Vec<Arc<()>>>::new();
    let value = Arc::new(());
    let made = group.call(&long[..], || {
        let before = Arc::strong_count(&copies);
        let list = group.in_flight();
        assert_eq!(Arc::strong_count(&copies), before + 100);
        drop(list);
        assert_eq!(Arc::strong_count(&copies), before);
        Ok(Arc::clone(&value))
    });
    drop(made);
    assert_eq!(Arc::strong_count(&copies), 1 + 100);
    assert_eq!(Arc::strong_count(&value), 1);

    // A list that stays holds copies of its own.
    let leader = lead(&group, &long[..]);
    let list = group.in_flight();
    let follower = follow(&group, &long[..]);
    let _ = leader.complete(Ok(Arc::clone(&value)));
    drop(follower.wait());
    assert_eq!(Arc::strong_count(&value), 1);
    assert_eq!(Arc::strong_count(&copies), 1 + 2 * 100);
    drop(list);
    assert_eq!(Arc::strong_count(&copies), 1 + 100);
}

#[test]
fn a_thousand_looks_leave_no_memory_behind() {
    let group = Group::new();
    let leaders: Vec<_> = (0..100).map(|i| lead(&group, &i.to_string())).collect();
    drop(group.in_flight());
    let before = bytes_held();
    for _ in 0..1_000 {
        assert_eq!(group.in_flight().len(), 100);
    }
    assert_eq!(bytes_held(), before);
    drop(leaders);
}

// While calls come and go.

/// Three threads make lone calls, each with keys of its own, numbered on and on: so a key that is
/// listed tells which call it was, and that one has to have been on its way.
#[test]
fn while_lone_calls_come_and_go_only_their_keys_are_listed() {
    let _watchdog = watchdog();
    const CALLS: u64 = 5_000;
    let group = FlightGroup::<u64, (), (usize, u64)>::new();
    let begun = [const { AtomicU64::new(0) }; 3];
    let ended = [const { AtomicU64::new(0) }; 3];
    let now = |of: &[AtomicU64; 3]| of.each_ref().map(|n| n.load(SeqCst));
    thread::scope(|s| {
        for thread in 0..3 {
            let (group, begun, ended) = (&group, &begun[thread], &ended[thread]);
            s.spawn(move || {
                for n in 1..=CALLS {
                    begun.store(n, SeqCst);
                    group.call(&(thread, n), || Ok(n)).unwrap();
                    ended.store(n, SeqCst);
                }
            });
        }
        while now(&ended) != [CALLS; 3] {
            let before = now(&ended);
            let list = group.in_flight();
            let after = now(&begun);
            let mut seen = [false; 3];
            for flight in list {
                let (thread, n) = flight.key;
                assert!(!std::mem::replace(&mut seen[thread], true), "two at once");
                assert!(before[thread] < n && n <= after[thread], "{flight}");
                assert_eq!((flight.followers, flight.waits_for), (0, None));
            }
        }
    });
    assert_quiet(&group);
}

/// Key 1 waits for key 2, again and again. Flights and their memory are used again for other keys
/// meanwhile, by both threads, so whoever looks must not take one for the other.
#[test]
fn nobody_else_is_seen_to_wait() {
    let _watchdog = watchdog();
    let group = FlightGroup::<u64, (), u64>::new();
    let done = AtomicBool::new(false);
    let again = |f: &dyn Fn()| {
        while !done.load(SeqCst) {
            f();
        }
    };
    let call = |key, f: &dyn Fn()| {
        group.call(&key, || {
            f();
            Ok(key)
        })
    };
    thread::scope(|s| {
        s.spawn(|| {
            again(&|| {
                call(1, &|| drop(call(2, &|| ()))).unwrap();
                call(3, &|| ()).unwrap();
                call(4, &|| ()).unwrap();
            });
        });
        s.spawn(|| {
            again(&|| {
                call(2, &thread::yield_now).unwrap();
                call(5, &|| ()).unwrap();
                call(6, &|| ()).unwrap();
            });
        });
        let mut looks = 0;
        let right = (0..200_000).all(|_| {
            looks += 1;
            group.in_flight().iter().all(|flight| match flight.key {
                1 => matches!(
                    flight.waits_for,
                    None | Some(WaitsFor::Key(2) | WaitsFor::Elsewhere)
                ),
                _ => flight.waits_for.is_none(),
            })
        });
        done.store(true, SeqCst);
        assert!(right, "in look {looks}");
    });
    assert_quiet(&group);
}
