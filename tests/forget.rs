//! Giving up a flight: `forget` and `forget_unshared`.
//!
//! The first two tests are `TestForget` of `golang.org/x/sync/singleflight` and `TestForgetUnshared`
//! of the Go library's own copy of it.
#![cfg(not(loom))]

mod common;

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use common::{assert_quiet, follow, gate, lead, until, watchdog};
use shared_calls::{CallError, FlightGroup, Job, Role};

type Group = FlightGroup<u32, &'static str>;

/// `TestForget`
#[test]
fn a_call_after_forget_starts_a_new_flight() {
    let _watchdog = watchdog();
    let group = Group::new();
    let spawn = |job: Job| drop(thread::spawn(move || job.run()));
    let (first_held, first_gate) = gate();
    let (second_held, second_gate) = gate();
    thread::scope(|s| {
        let first = s.spawn(|| {
            group.call("k", || {
                first_held();
                Ok(1)
            })
        });
        first_gate.begun();
        assert!(group.forget("k"));
        let second = group.start("k", spawn, move || {
            second_held();
            Ok(2)
        });
        first_gate.open();
        assert_eq!(first.join().unwrap().unwrap(), 1);

        // The end of the first has left the second alone.
        let third = group.start("k", spawn, || Ok(3));
        second_gate.open();
        assert_eq!(second.wait().result.unwrap(), 2);
        assert_eq!(third.wait().result.unwrap(), 2);
    });
    assert_quiet(&group);
}

/// `TestForgetUnshared`
#[test]
fn forget_unshared_leaves_a_shared_flight_alone() {
    let _watchdog = watchdog();
    let group = Group::new();
    let first = lead(&group, "k");
    assert!(group.forget_unshared("k"));

    let second = lead(&group, "k");
    let follower = follow(&group, "k");
    assert!(!group.forget_unshared("k"));

    // So a third call still shares the second's flight.
    let third = follow(&group, "k");
    assert_eq!(first.complete(Ok(1)).followers, 0);
    assert_eq!(second.complete(Ok(2)).followers, 2);
    assert_eq!(follower.wait().result.unwrap(), 2);
    assert_eq!(third.wait().result.unwrap(), 2);
    assert_quiet(&group);
}

#[test]
fn forget_is_false_when_no_function_runs() {
    let group = Group::new();
    let forgets_nothing = || {
        assert!(!group.forget("k"));
        assert!(!group.forget_unshared("k"));
    };
    forgets_nothing();
    group.call("k", || Ok(1)).unwrap();
    forgets_nothing();
    group.call("k", || Err("failed")).unwrap_err();
    forgets_nothing();
    drop(lead(&group, "k"));
    forgets_nothing();
    let leader = lead(&group, "k");
    let follower = follow(&group, "k");
    let _ = leader.complete(Ok(1));
    // Landed, and not yet looked at.
    forgets_nothing();
    drop(follower);

    // Twice is once.
    let leader = lead(&group, "k");
    assert!(group.forget("k"));
    forgets_nothing();
    // Its function still runs.
    assert_eq!(group.stats().in_flight, 1);
    drop(leader);
    assert_quiet(&group);
}

/// Three flights of one key, two of them given up, end in any order. Each serves its own, and none
/// removes another's entry (G6).
#[test]
fn forgotten_flights_end_in_any_order() {
    let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    for order in orders {
        let group = Group::new();
        let mut flights = [0, 1, 2].map(|value| {
            let leader = lead(&group, "k");
            let follower = follow(&group, "k");
            if value < 2 {
                assert!(group.forget("k"));
            }
            Some((leader, follower))
        });
        let mut late = None;
        for value in order {
            if flights[2].is_some() {
                late = Some(follow(&group, "k"));
            }
            let (leader, follower) = flights[value as usize].take().unwrap();
            assert_eq!(leader.complete(Ok(value)).result.unwrap(), value);
            let outcome = follower.wait();
            assert_eq!(outcome.result.unwrap(), value);
            assert_eq!(outcome.role, Role::Followed);
        }
        // The late caller found the last one.
        assert_eq!(late.unwrap().wait().result.unwrap(), 2);
        assert_quiet(&group);
    }
}

#[test]
fn followers_of_a_forgotten_flight_get_its_outcome() {
    let _watchdog = watchdog();
    let group = Group::new();
    let leader = lead(&group, "k");
    let follower = follow(&group, "k");
    assert!(group.forget("k"));
    drop(leader);
    assert!(matches!(follower.wait().result, Err(CallError::Abandoned)));

    let leader = lead(&group, "k");
    let follower = follow(&group, "k");
    assert!(group.forget("k"));
    let outcome = leader.complete(Err("failed"));
    assert_eq!(outcome.result.unwrap_err().failed(), Some(&"failed"));
    let outcome = follower.wait();
    assert_eq!(outcome.result.unwrap_err().failed(), Some(&"failed"));
    assert_quiet(&group);
}

/// A function may give up its own flight: what it is computing is out of date already, say.
#[test]
fn a_function_may_forget_its_own_flight() {
    let group = Group::new();
    let outer = group.call_ex("k", || {
        assert!(group.forget_unshared("k"));
        let inner = group.call_ex("k", || Ok(1));
        assert_eq!(inner.role, Role::Led);
        Ok(inner.result.unwrap() + 1)
    });
    assert_eq!((outer.role, outer.result.unwrap()), (Role::Led, 2));
    assert_quiet(&group);
}

#[test]
fn a_follower_that_left_does_not_share() {
    let group = Group::new();
    let leader = lead(&group, "k");
    let dropped = follow(&group, "k");
    assert!(!group.forget_unshared("k"));
    drop(dropped);
    for timeout in [Duration::ZERO, Duration::from_millis(1)] {
        let late = group.request("k").timeout(timeout).call(|| Ok(2));
        assert!(matches!(late, Err(CallError::TimedOut)));
    }
    assert!(group.forget_unshared("k"));
    assert_eq!(leader.complete(Ok(1)).followers, 0);
    assert_quiet(&group);
}

#[test]
fn the_ticket_of_the_leading_call_does_not_share() {
    let _watchdog = watchdog();
    let group = Group::new();
    let (jobs, worker) = mpsc::channel();
    let first = group.start("k", |job| jobs.send(job).unwrap(), || Ok(1));
    assert!(group.forget_unshared("k"));

    // Another's does.
    let second = group.start("k", |job| jobs.send(job).unwrap(), || Ok(2));
    let other = group.start("k", |_| panic!("it leads not"), || Ok(3));
    assert!(!group.forget_unshared("k"));
    drop(other);
    assert!(group.forget_unshared("k"));
    assert_eq!(group.stats().in_flight, 2);

    for _ in 0..2 {
        worker.recv().unwrap().run();
    }
    assert_quiet(&group);
    assert_eq!(first.wait().result.unwrap(), 1);
    assert_eq!(second.wait().result.unwrap(), 2);
}

#[test]
fn forget_leaves_other_keys_alone() {
    let group = Group::new();
    let leaders = ["a", "b", "c"].map(|key| lead(&group, key));
    assert!(group.forget("b"));
    let followers = ["a", "c"].map(|key| follow(&group, key));
    assert!(!group.forget_unshared("b"));
    for leader in leaders {
        let _ = leader.complete(Ok(1));
    }
    for follower in followers {
        assert_eq!(follower.wait().result.unwrap(), 1);
    }
    assert_quiet(&group);
}

/// The queue stays, and its turn has come.
#[test]
fn forget_unshared_does_not_look_at_the_queue() {
    let _watchdog = watchdog();
    let group = Group::new();
    let leader = lead(&group, "k");
    thread::scope(|s| {
        let queued = s.spawn(|| group.request("k").next_flight().call(|| Ok(2)));
        until("one is queued", || group.in_flight()[0].queued == 1);
        assert!(group.forget_unshared("k"));
        assert_eq!(queued.join().unwrap(), Ok(2));
    });
    assert_eq!(leader.complete(Ok(1)).followers, 0);
    assert_quiet(&group);
}

/// `forget_unshared` against callers that join at the same time: whenever it was true, nobody
/// followed.
#[test]
fn forget_unshared_is_exact() {
    let _watchdog = watchdog();
    let group = Group::new();
    let mut forgotten = 0;
    for _ in 0..2_000 {
        let leader = lead(&group, "k");
        thread::scope(|s| {
            let joins = s.spawn(|| group.call_ex("k", || Ok(2)));
            let unshared = group.forget_unshared("k");
            let led = leader.complete(Ok(1));
            if unshared {
                assert_eq!(led.followers, 0);
                assert_eq!(joins.join().unwrap().role, Role::Led);
                forgotten += 1;
            }
        });
    }
    println!("{forgotten} of 2000 were forgotten");
    assert_quiet(&group);
}
