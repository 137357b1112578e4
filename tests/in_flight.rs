//! `in_flight()`: what an operator looks at when everything is stuck. Which keys, who leads, who
//! follows, for how long, and what the leader itself waits for.
#![cfg(not(loom))]

#[path = "common/allocator.rs"]
mod allocator;
mod common;

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{mpsc, Arc};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use allocator::bytes_held;
use common::{all_arrived, assert_quiet, follow, gate, give_up, lead, panic_text, until, watchdog};
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
fn followers_and_queued_callers_are_counted_apart() {
    let _watchdog = watchdog();
    let group = FlightGroup::<u32, (), Watched>::new();
    let key = Watched::new("k");
    let places = || {
        let flight = only(&group);
        (flight.followers, flight.queued)
    };
    let leader = lead(&group, &key);
    assert_eq!(places(), (0, 0));
    let followers = [(); 2].map(|()| follow(&group, &key));
    assert_eq!(places(), (2, 0));
    thread::scope(|s| {
        let queued = all_arrived(&group, &key, 3, || {
            [(); 3].map(|()| s.spawn(|| group.request(&key).next_flight().join()))
        });
        assert_eq!(places(), (2, 3));
        let hasty = group.request(&key).next_flight();
        hasty.timeout(Duration::ZERO).call(|| Ok(2)).unwrap_err();
        assert_eq!(places(), (2, 3));
        drop(followers);
        assert_eq!(places(), (0, 3));

        // One of those who were queued leads; the others are its followers.
        let _ = leader.complete(Ok(1));
        let joined = queued.map(|caller| caller.join().unwrap());
        assert_eq!(places(), (2, 0));
        drop(joined);
    });
    assert_quiet(&group);
}

#[test]
fn a_given_up_flight_is_listed_and_marked_until_its_function_returns() {
    let group = Group::new();
    let listed = || {
        let all = group.in_flight();
        assert_eq!(group.stats().in_flight, all.len() as u64);
        let mut all: Vec<_> = all.iter().map(|f| (f.given_up, f.followers)).collect();
        all.sort();
        all
    };
    let first = lead(&group, "k");
    let follower = follow(&group, "k");
    assert!(group.forget("k"));
    assert_eq!(listed(), [(true, 1)]);
    let second = lead(&group, "k");
    assert_eq!(listed(), [(false, 0), (true, 1)]);
    let third = give_up(&group, "k");
    let followers = [(); 2].map(|()| follow(&group, "k"));
    assert_eq!(listed(), [(false, 2), (true, 0), (true, 1)]);
    let _ = first.complete(Ok(1));
    assert_eq!(listed(), [(false, 2), (true, 0)]);
    drop((second, follower));
    assert_eq!(listed(), [(false, 2)]);
    drop((third, followers));
    assert!(listed().is_empty());
}

#[test]
fn the_thread_of_a_given_up_flight_is_known() {
    let group = Group::new();
    let called = group.call("k", || {
        assert!(group.forget("k"));
        let found = only(&group);
        assert!(found.given_up && is_me(found.leader));
        Ok(1)
    });
    assert_eq!(called, Ok(1));
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
fn the_function_of_a_request_is_known() {
    let group = Group::new();
    let asked = group.request("k").next_flight().call(|| {
        assert!(is_me(only(&group).leader));
        Ok(1)
    });
    asked.unwrap();
}

/// Of calls that one function makes inside another, each one's thread is the same.
#[test]
fn a_thread_may_lead_several_flights() {
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

/// Whatever led before.
#[test]
fn a_leader_that_is_held_is_no_known_thread() {
    let _watchdog = watchdog();
    for group in [Group::new(), observed()] {
        let held = lead(&group, "k");
        assert!(only(&group).leader.is_none());
        drop(held);
        thread::scope(|s| s.spawn(|| group.call("k", || Ok(1)).unwrap()).join().unwrap());
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
fn a_leader_that_was_queued_is_no_known_thread() {
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
        assert_eq!(line, format!("\"k\" led by thread {id:?}"));
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
            self.0.call("k", || Ok(only(self.0).followers as u32)).unwrap();
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

const SHORT: Duration = Duration::from_millis(2);

/// An age that began no earlier than `earliest`.
#[track_caller]
fn assert_counts_from(earliest: Instant, age: Option<Duration>) {
    assert!(age.expect("a caller has waited") <= earliest.elapsed());
}

#[test]
fn a_flight_that_nobody_waits_for_has_no_age() {
    for group in [Group::new(), observed()] {
        let leader = lead(&group, "k");
        assert_eq!(only(&group).age, None);
        drop(leader);
        let called = group.call("k", || {
            assert_eq!(only(&group).age, None);
            Ok(1)
        });
        assert_eq!(called, Ok(1));
    }
}

/// A follower, a queued caller, and one that was refused a place: each has been held up.
#[test]
fn the_age_counts_from_the_first_caller_that_was_held_up() {
    let _watchdog = watchdog();
    type HeldUp = fn(&Group);
    let held_up: [HeldUp; 5] = [
        |group| drop(follow(group, "k")),
        |group| drop(group.request("k").timeout(Duration::ZERO).call(|| Ok(2))),
        |group| {
            let queued = group.request("k").next_flight().timeout(Duration::ZERO);
            drop(queued.call(|| Ok(2)));
        },
        |group| drop(group.request("k").max_followers(0).call(|| Ok(2))),
        |group| {
            let queued = group.request("k").next_flight().max_followers(0);
            drop(queued.call(|| Ok(2)));
        },
    ];
    let group = Group::new();
    for held_up in held_up {
        let leader = lead(&group, "k");
        let led = Instant::now();
        until("it runs for a while", || led.elapsed() > SHORT);
        assert_eq!(only(&group).age, None);
        let first = Instant::now();
        held_up(&group);
        assert_counts_from(first, only(&group).age);
        // It grows, also if the first caller has left; another one does not begin it anew.
        until("it is old", || only(&group).age.unwrap() > SHORT);
        let age = only(&group).age;
        drop(follow(&group, "k"));
        assert!(only(&group).age >= age);
        drop(leader);
    }
}

#[test]
fn a_ticket_waits_from_the_start() {
    let group = Group::new();
    let (jobs, worker) = mpsc::channel();
    let started = Instant::now();
    let ticket = group.start("k", |job| jobs.send(job).unwrap(), || Ok(1));
    assert_counts_from(started, only(&group).age);
    drop(ticket);
    assert!(only(&group).age.is_some());
    drop(worker);
    assert_quiet(&group);
}

/// From when it has a leader and callers that wait for it, not from when it was asked for.
#[test]
fn the_age_of_a_next_flight_counts_from_its_turn() {
    let _watchdog = watchdog();
    for forget in [false, true] {
        let group = Group::new();
        let first = lead(&group, "k");
        thread::scope(|s| {
            let queued = [(); 2].map(|()| s.spawn(|| group.request("k").next_flight().join()));
            until("both are queued", || only(&group).queued == 2);
            until("the first is old", || only(&group).age.unwrap() > SHORT);
            let turn = Instant::now();
            if forget {
                group.forget("k");
            } else {
                drop(first);
            }
            let _next = queued.map(|caller| caller.join().unwrap());
            let next = || group.in_flight().into_iter().find(|flight| !flight.given_up);
            assert_counts_from(turn, next().unwrap().age);
            until("the next is old", || next().unwrap().age.unwrap() > SHORT);
            let impatient = group.request("k").max_age(SHORT);
            assert!(matches!(impatient.join(), Joined::Leader(_)));
        });
    }
}

/// The caller that was queued leads it, so nobody waits for it.
#[test]
fn a_next_flight_that_nobody_follows_has_no_age() {
    let _watchdog = watchdog();
    let group = Group::new();
    let first = lead(&group, "k");
    thread::scope(|s| {
        let queued = s.spawn(|| group.request("k").next_flight().join());
        until("one is queued", || only(&group).queued == 1);
        drop(first);
        let next = queued.join().unwrap();
        assert!(matches!(next, Joined::Leader(_)));
        assert_eq!(only(&group).age, None);
    });
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
fn waiting_for_a_given_up_flight_is_waiting_elsewhere() {
    let _watchdog = watchdog();
    let group = Group::new();
    let old = lead(&group, "b");
    while_it_waits(
        &group,
        "a",
        || drop(group.call("b", || Ok(2))),
        || {
            group.forget("b");
            assert_eq!(find(&group, "a").waits_for, Some(WaitsFor::Elsewhere));
            // The key is in flight again, and that is another flight.
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
        assert_eq!((found.leader.is_none(), found.age), (true, None));
        // A queued caller is not a follower until its flight begins.
        assert_eq!((found.followers, found.queued), (0, 1));
        assert_eq!((found.waits_for, found.given_up), (None, false));
        assert_eq!(group.stats().in_flight, 1);
        // Nothing has begun that could be given up.
        assert!(!group.forget("k"));
        gate.open();
        assert_eq!(queued.join().unwrap().unwrap(), 2);
    });
    assert_quiet(&group);
}

// As text.

/// The text of a flight, without its age.
fn line(flight: &InFlight<String>) -> String {
    let mut flight = flight.clone();
    flight.age = None;
    flight.to_string()
}

#[test]
fn display_shows_all_that_is_known() {
    let _watchdog = watchdog();
    let group = Group::new();
    let line = |key: &str| line(&find(&group, key));
    let b = lead(&group, "b");
    assert_eq!(line("b"), r#""b" led by no known thread"#);
    let one = follow(&group, "b");
    assert_eq!(line("b"), r#""b" led by no known thread, 1 follower"#);
    let two = follow(&group, "b");
    assert_eq!(line("b"), r#""b" led by no known thread, 2 followers"#);
    thread::scope(|s| {
        s.spawn(|| group.request("b").next_flight().call(|| Ok(2)));
        until("one is queued", || find(&group, "b").queued == 1);
        let places = "2 followers, 1 queued for the next";
        let expected = format!(r#""b" led by no known thread, {places}"#);
        assert_eq!(line("b"), expected);

        let worker = thread::Builder::new().name("worker-3".into());
        let call = || group.call("a", || group.call("b", || Ok(2)).map_err(|_| "b"));
        worker.spawn_scoped(s, call).unwrap();
        until("it waits", || find(&group, "b").followers == 3);
        until("it is seen to wait", || {
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
fn display_shows_the_age_and_that_a_flight_was_given_up() {
    let group = Group::new();
    let _leader = lead(&group, "k");
    let _follower = follow(&group, "k");
    let found = only(&group);
    let expected = format!("\"k\" led by no known thread for {:?}, 1 follower", found.age.unwrap());
    assert_eq!(found.to_string(), expected);
    group.forget("k");
    let expected = r#""k" led by no known thread, 1 follower, given up"#;
    assert_eq!(line(&only(&group)), expected);
}

// Keys are the user's code.

thread_local! {
    static CLONE_PANICS: Cell<bool> = const { Cell::new(false) };
}

/// A key whose `Clone` panics where it is told to.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Key(&'static str);

impl Clone for Key {
    fn clone(&self) -> Self {
        assert!(!CLONE_PANICS.with(Cell::take), "in Clone");
        Self(self.0)
    }
}

/// Keys are cloned under the map's lock: a panic there leaves the group as it was.
#[test]
fn a_panic_in_clone_of_a_key_leaves_the_group_as_it_was() {
    let group = FlightGroup::<u32, (), Key>::new();
    let leader = lead(&group, &Key("k"));
    let follower = follow(&group, &Key("k"));
    CLONE_PANICS.with(|panics| panics.set(true));
    assert_eq!(panic_text(|| drop(group.in_flight())), "in Clone");
    let found = only(&group);
    assert_eq!((found.key, found.followers), (Key("k"), 1));
    let _ = leader.complete(Ok(1));
    assert_eq!(follower.wait().result, Ok(1));
    assert_quiet(&group);
}

/// What a reader has got is its own, whatever becomes of the flight and of its key.
#[test]
fn a_listed_key_is_a_copy() {
    let group = Group::new();
    let leader = lead(&group, "first");
    let listed = only(&group);
    let _ = leader.complete(Ok(1));
    // Written over the key of before, with a text that is no longer.
    let _leader = lead(&group, "other");
    assert_eq!(listed.key, "first");
    assert_eq!(only(&group).key, "other");
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

/// Key 1 waits for key 2, again and again. Both threads lead other keys meanwhile, and none of these
/// is taken for the one that waits.
#[test]
fn only_the_leader_that_waits_is_shown_to_wait() {
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
                1 => {
                    matches!(flight.waits_for, None | Some(WaitsFor::Key(2) | WaitsFor::Elsewhere))
                }
                _ => flight.waits_for.is_none(),
            })
        });
        done.store(true, SeqCst);
        assert!(right, "in look {looks}");
    });
    assert_quiet(&group);
}
