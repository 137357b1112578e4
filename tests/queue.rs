//! The queue of the next flight (G7): who leads when its turn comes, who follows, who leaves, and
//! that nothing of it is left behind.
#![cfg(not(loom))]

mod common;

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::{
    assert_quiet, follow, gate, lead, panic_text, the_flight, until, until_queued, until_waiting,
    watchdog,
};
use shared_calls::{CallError, FlightGroup, Joined, Role};

type Group = FlightGroup<u32, &'static str>;

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn without_a_flight_in_front_a_caller_leads_at_once() {
    let group = Group::new();
    let outcome = group.request("k").next_flight().call_ex(|| Ok(1));
    assert_eq!((outcome.result, outcome.role), (Ok(1), Role::Led));
    assert_quiet(&group);
}

/// At most one flight runs and one is queued; all that arrive meanwhile share the queued one.
#[test]
fn all_that_queue_share_one_flight() {
    const CALLERS: usize = 6;
    let _watchdog = watchdog();
    let group = Group::new();
    let front = lead(&group, "k");
    let runs = AtomicUsize::new(0);
    let outcomes: Vec<_> = thread::scope(|s| {
        let callers: Vec<_> = (0..CALLERS)
            .map(|_| {
                s.spawn(|| {
                    group.request("k").next_flight().call_ex(|| {
                        runs.fetch_add(1, SeqCst);
                        until("the others follow", || the_flight(&group).followers == CALLERS - 1);
                        Ok(2)
                    })
                })
            })
            .collect();
        until_queued(&group, CALLERS);
        let flight = the_flight(&group);
        assert_eq!((flight.followers, flight.queued, front.followers()), (0, CALLERS, 0));
        assert_eq!(group.stats().in_flight, 1);
        assert_eq!(front.complete(Ok(1)).followers, 0);
        callers.into_iter().map(|caller| caller.join().unwrap()).collect()
    });
    assert!(outcomes.iter().all(|o| o.result == Ok(2) && o.followers == CALLERS - 1));
    assert_eq!(outcomes.iter().filter(|o| o.role == Role::Led).count(), 1);
    assert_eq!(runs.into_inner(), 1);
    assert_quiet(&group);
}

/// The execution began after the call did, for every call and however they interleave.
#[test]
fn the_execution_began_after_the_call() {
    let _watchdog = watchdog();
    let group = FlightGroup::<usize, ()>::new();
    let clock = AtomicUsize::new(0);
    thread::scope(|s| {
        for t in 0..6 {
            let (group, clock) = (&group, &clock);
            s.spawn(move || {
                for i in 0..500 {
                    let called = clock.fetch_add(1, SeqCst);
                    let f = || {
                        let began = clock.fetch_add(1, SeqCst);
                        thread::yield_now();
                        Ok(began)
                    };
                    if (i + t) % 3 == 0 {
                        group.call("k", f).unwrap();
                    } else {
                        let began = group.request("k").next_flight().call(f).unwrap();
                        assert!(began > called);
                    }
                    if i % 7 == 0 {
                        group.forget("k");
                    }
                }
            });
        }
    });
    assert_quiet(&group);
    assert_eq!(group.stats().calls(), 3_000);
    assert!(group.in_flight().is_empty());
}

/// However the flight in front ends.
#[test]
fn the_turn_comes_however_the_flight_in_front_ends() {
    let _watchdog = watchdog();
    let group = Group::new();
    for end in 0..5 {
        thread::scope(|s| {
            let front = lead(&group, "k");
            let queued = s.spawn(|| group.request("k").next_flight().call(|| Ok(2)));
            until_queued(&group, 1);
            let mut kept = None;
            match end {
                0 => drop(front.complete(Ok(1))),
                1 => drop(front.complete(Err("no"))),
                2 => drop(front),
                3 => assert_eq!(panic_text(|| drop(front.run(|| panic!("lost")))), "lost"),
                _ => {
                    assert!(group.forget("k"));
                    kept = Some(front);
                }
            }
            assert_eq!(queued.join().unwrap(), Ok(2));
            drop(kept);
        });
        assert_quiet(&group);
    }
}

/// They are no followers, and one that leaves disturbs nobody.
#[test]
fn a_queued_caller_that_times_out_leaves() {
    let _watchdog = watchdog();
    let group = Group::new();
    let front = lead(&group, "k");
    thread::scope(|s| {
        let stays = s.spawn(|| group.request("k").next_flight().call_ex(|| Ok(2)));
        until_queued(&group, 1);
        for limit in [0, 3] {
            let request = group.request("k").next_flight().timeout(Duration::from_millis(limit));
            assert_eq!(request.call(|| Ok(9)), Err(CallError::TimedOut));
            assert_eq!(the_flight(&group).queued, 1);
        }
        let _ = front.complete(Ok(1));
        let outcome = stays.join().unwrap();
        assert_eq!((outcome.result, outcome.followers), (Ok(2), 0));
    });
    assert_eq!(group.stats().timed_out, 2);
    assert_quiet(&group);
}

/// The last to leave removes the queue, so that the flight in front ends as one without.
#[test]
fn the_last_to_leave_removes_the_queue() {
    let _watchdog = watchdog();
    let group = Group::new();
    let front = lead(&group, "k");
    for _ in 0..3 {
        let request = group.request("k").next_flight().timeout(Duration::from_millis(1));
        assert_eq!(request.call(|| Ok(9)), Err(CallError::TimedOut));
    }
    let flight = the_flight(&group);
    assert_eq!((flight.queued, flight.followers), (0, 0));
    assert_eq!(front.complete(Ok(1)).followers, 0);
    assert_quiet(&group);
    assert_eq!(group.call_ex("k", || Ok(2)).role, Role::Led);
    // And of a flight that was given up nothing stays in the map.
    let front = lead(&group, "k");
    let request = group.request("k").next_flight().timeout(Duration::from_millis(1));
    assert_eq!(request.call(|| Ok(9)), Err(CallError::TimedOut));
    assert!(group.forget("k"));
    assert_eq!(group.in_flight().len(), 1);
    drop(front);
    assert_quiet(&group);
}

/// A turn to lead does not beat a deadline: then the entry without a leader goes with the last.
#[test]
fn nobody_leads_after_its_deadline() {
    let _watchdog = watchdog();
    let group = Group::new();
    for _ in 0..60 {
        let front = lead(&group, "k");
        let limit = Duration::from_millis(2);
        let begun = Instant::now();
        let (led, late) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|s| {
            for _ in 0..3 {
                s.spawn(|| {
                    let deadline = Instant::now() + limit;
                    let request = group.request("k").next_flight().deadline(deadline);
                    let looked = Mutex::new(None);
                    let result = request.call(|| {
                        *looked.lock().unwrap() = Some(Instant::now());
                        led.fetch_add(1, SeqCst);
                        Ok(2)
                    });
                    match result {
                        Ok(2) => {}
                        Err(CallError::TimedOut) => {
                            assert!(Instant::now() >= deadline);
                            assert!(looked.into_inner().unwrap().is_none());
                            late.fetch_add(1, SeqCst);
                        }
                        other => panic!("unexpected: {other:?}"),
                    }
                });
            }
            // About the time when the turn and the deadline meet.
            until("the time is nearly up", || begun.elapsed() >= limit);
            let _ = front.complete(Ok(1));
        });
        assert!(led.into_inner() > 0 || late.into_inner() == 3);
        assert_quiet(&group);
        assert!(group.in_flight().is_empty());
    }
    let stats = group.stats();
    assert_eq!(stats.calls(), 60 * 4);
}

/// `forget` returns false for an entry without a leader, because nothing has begun.
///
/// Between the end of the flight in front and the lead of the next one there is such an entry, for
/// a moment that no test can hold. So here a thread forgets as fast as it can: it never takes more
/// than was begun.
#[test]
fn forget_gives_up_only_what_has_begun() {
    const ROUNDS: usize = 300;
    let _watchdog = watchdog();
    let group = Group::new();
    let (begun, forgotten) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|s| {
        let calls = [(); 3].map(|()| {
            s.spawn(|| {
                for _ in 0..ROUNDS {
                    let result = group.request("k").next_flight().call(|| {
                        begun.fetch_add(1, SeqCst);
                        thread::yield_now();
                        Ok(1)
                    });
                    assert_eq!(result, Ok(1));
                }
            })
        });
        while !calls.iter().all(|call| call.is_finished()) {
            if group.forget("k") {
                forgotten.fetch_add(1, SeqCst);
            }
            assert!(group.stats().waiting <= 3);
        }
    });
    assert!(forgotten.into_inner() <= begun.into_inner());
    assert_quiet(&group);
    assert!(group.in_flight().is_empty());
}

/// The queue's turn has come when the flight in front is forgotten, and only one is front again.
#[test]
fn forget_with_a_queue_begins_the_next_flight() {
    let _watchdog = watchdog();
    let group = Group::new();
    let first = lead(&group, "k");
    let on_first = follow(&group, "k");
    let (held, gate) = gate();
    let held = Mutex::new(Some(held));
    let f = || {
        held.lock().unwrap().take().expect("one leads")();
        Ok(2)
    };
    thread::scope(|s| {
        let queued = [(); 2].map(|()| s.spawn(|| group.request("k").next_flight().call(f)));
        until_queued(&group, 2);
        // With followers it is not unshared; those who queue are not looked at.
        assert!(!group.forget_unshared("k"));
        assert!(group.forget("k"));
        gate.begun();
        let in_map = || group.in_flight().into_iter().find(|flight| !flight.given_up);
        until("the other follows", || in_map().unwrap().followers == 1);
        assert_eq!(first.followers(), 1);
        // A new queue begins behind the new flight.
        let third = s.spawn(|| group.request("k").next_flight().call(|| Ok(3)));
        until("it queues", || in_map().unwrap().queued == 1);
        gate.open();
        for caller in queued {
            assert_eq!(caller.join().unwrap(), Ok(2));
        }
        assert_eq!(third.join().unwrap(), Ok(3));
    });
    assert_eq!(first.complete(Ok(1)).followers, 1);
    assert_eq!(on_first.wait().result, Ok(1));
    assert_quiet(&group);
}

/// `forget_unshared` does not look at the queue.
#[test]
fn a_flight_with_a_queue_only_is_unshared() {
    let _watchdog = watchdog();
    let group = Group::new();
    let front = lead(&group, "k");
    thread::scope(|s| {
        let queued = s.spawn(|| group.request("k").next_flight().call(|| Ok(2)));
        until_queued(&group, 1);
        assert!(group.forget_unshared("k"));
        assert_eq!(queued.join().unwrap(), Ok(2));
    });
    drop(front);
    assert_quiet(&group);
}

/// Of the waiting and the arriving the first to take the lock leads; a plain call that arrives is
/// one of them, and the queue follows it.
#[test]
fn an_arriving_caller_may_lead_the_queue() {
    let _watchdog = watchdog();
    let group = Group::new();
    let arrived_first = AtomicUsize::new(0);
    for _ in 0..200 {
        let front = lead(&group, "k");
        let go = Barrier::new(2);
        thread::scope(|s| {
            let queued = s.spawn(|| group.request("k").next_flight().call_ex(|| Ok(2)));
            until_queued(&group, 1);
            let arriving = s.spawn(|| {
                go.wait();
                group.call_ex("k", || Ok(3))
            });
            go.wait();
            let _ = front.complete(Ok(1));
            let (queued, arriving) = (queued.join().unwrap(), arriving.join().unwrap());
            // Never the outcome of the flight in front, which began before the queued call did.
            assert!(matches!(queued.result, Ok(2 | 3)));
            if queued.role == Role::Followed {
                assert_eq!((queued.result, arriving.result), (Ok(3), Ok(3)));
                arrived_first.fetch_add(1, SeqCst);
            } else {
                assert!(matches!(arriving.result, Ok(1..=3)));
            }
        });
        assert_quiet(&group);
    }
}

/// `join` blocks until its turn; then it leads or follows.
#[test]
fn queued_joins() {
    let _watchdog = watchdog();
    let group = Group::new();
    let front = lead(&group, "k");
    thread::scope(|s| {
        let joins = [(); 3].map(|()| {
            s.spawn(|| match group.request("k").next_flight().timeout(HOUR).join() {
                Joined::Leader(leader) => {
                    until("the others follow", || leader.followers() == 2);
                    leader.complete(Ok(2))
                }
                Joined::Follower(follower) => follower.wait(),
            })
        });
        until_queued(&group, 3);
        until_waiting(&group, 3);
        assert!(joins.iter().all(|join| !join.is_finished()));
        let _ = front.complete(Ok(1));
        let outcomes = joins.map(|join| join.join().unwrap());
        assert!(outcomes.iter().all(|o| o.result == Ok(2)));
        assert_eq!(outcomes.iter().filter(|o| o.role == Role::Led).count(), 1);
    });
    assert_quiet(&group);
}

/// Timed out while it was queued: a follower whose outcome is there already.
#[test]
fn a_queued_join_that_times_out_is_refused() {
    let _watchdog = watchdog();
    let group = Group::new();
    let front = lead(&group, "k");
    for limit in [0, 3] {
        let request = group.request("k").next_flight().timeout(Duration::from_millis(limit));
        let Joined::Follower(follower) = request.join() else {
            panic!("the key is in flight");
        };
        assert!(follower.is_done());
        assert_eq!(the_flight(&group).queued, 0);
        assert_eq!(follower.wait_timeout(HOUR).unwrap().result, Err(CallError::TimedOut));
        assert_eq!(follower.wait().result, Err(CallError::TimedOut));
    }
    assert_eq!(group.stats().timed_out, 2);
    drop(front);
}

/// In its own function a caller would queue behind itself.
#[test]
fn a_caller_that_would_queue_behind_itself_is_refused() {
    let group = Group::new();
    let outer = group.call("k", || {
        let queued = group.request("k").next_flight().call(|| Ok(9));
        assert!(matches!(queued, Err(CallError::Deadlock(_))));
        let flight = the_flight(&group);
        assert_eq!((flight.queued, flight.followers), (0, 0));
        Ok(1)
    });
    assert_eq!(outer, Ok(1));
    assert_quiet(&group);
}

/// A refused one leaves nothing behind in the queue, where others wait.
#[test]
fn a_queued_caller_that_is_refused_leaves() {
    let _watchdog = watchdog();
    let group = Group::new();
    let both_lead = Barrier::new(2);
    thread::scope(|s| {
        let other = s.spawn(|| {
            group.call("a", || {
                both_lead.wait();
                Ok(group.call("b", || Ok(9)).unwrap() + 1)
            })
        });
        let outer = group.call("b", || {
            both_lead.wait();
            until_waiting(&group, 1);
            let a = || group.in_flight().into_iter().find(|flight| flight.key == "a").unwrap();
            let queued = s.spawn(|| group.request("a").next_flight().call_ex(|| Ok(5)));
            until("it queues", || a().queued == 1);
            let refused = group.request("a").next_flight().call(|| Ok(9));
            assert!(matches!(refused, Err(CallError::Deadlock(_))));
            assert_eq!(a().queued, 1);
            drop(queued);
            Ok(1)
        });
        assert_eq!((outer, other.join().unwrap()), (Ok(1), Ok(2)));
    });
    assert_quiet(&group);
    assert_eq!(group.stats().deadlocked, 1);
}

/// Callers that come, queue for a random time and go, while flights begin, end and are forgotten.
#[test]
fn a_queue_in_motion_loses_nobody() {
    let _watchdog = watchdog();
    let group = FlightGroup::<u32, (), u32>::builder().shards(2).build();
    let outcomes = AtomicUsize::new(0);
    thread::scope(|s| {
        for t in 0..6_u64 {
            let (group, outcomes) = (&group, &outcomes);
            s.spawn(move || {
                let mut random = t * 7_919 + 1;
                for _ in 0..400 {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    let key = (random % 2) as u32;
                    let request = group.request(&key);
                    let request = match random >> 8 & 7 {
                        0 => request,
                        1 | 2 => request.next_flight(),
                        3 => request.next_flight().max_followers(1),
                        4 => {
                            request.next_flight().max_age(Duration::from_micros(random >> 16 & 255))
                        }
                        _ => {
                            request.next_flight().timeout(Duration::from_micros(random >> 16 & 255))
                        }
                    };
                    let result = request.call(|| {
                        thread::yield_now();
                        Ok(key)
                    });
                    match result {
                        Ok(value) => assert_eq!(value, key),
                        Err(CallError::TimedOut | CallError::Overloaded) => {}
                        Err(other) => panic!("unexpected: {other:?}"),
                    }
                    outcomes.fetch_add(1, SeqCst);
                    if random >> 32 & 15 == 0 {
                        group.forget(&key);
                    }
                }
            });
        }
    });
    assert_eq!(outcomes.into_inner(), 2_400);
    let stats = group.stats();
    assert_eq!((stats.calls(), stats.in_flight, stats.waiting), (2_400, 0, 0));
    assert!(group.in_flight().is_empty());
}

/// A `join` that queues looks at the age of the flight in front when it arrives, and not at that of
/// the flight that it queues for.
#[test]
fn max_age_counts_on_arrival_for_a_join_that_queues() {
    let _watchdog = watchdog();
    for _ in 0..100 {
        let group = FlightGroup::<u32, ()>::new();
        let front = lead(&group, "k");
        thread::scope(|s| {
            s.spawn(|| {
                match group.request("k").next_flight().max_age(Duration::from_nanos(1)).join() {
                    Joined::Leader(leader) => leader.complete(Ok(1)),
                    Joined::Follower(follower) => follower.wait(),
                }
            });
            until_queued(&group, 1);
            s.spawn(|| {
                group.request("k").next_flight().call_with(|flight| {
                    // It leads, so the other one must follow.
                    while flight.followers() == 0 {
                        thread::yield_now();
                    }
                    Ok(2)
                })
            });
            until_queued(&group, 2);
            let _ = front.complete(Ok(0));
        });
        assert_eq!((group.stats().led, group.stats().followed), (2, 1));
    }
}
