//! Taking over from a leader that failed.

use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::time::Duration;

use loom::sync::atomic::Ordering;
use loom::thread;

use crate::explore::{first_leader, Model, Work};
use crate::sync::{self, Arc, Deadline};
use crate::{CallError, FlightGroup, Joined, Leader, Outcome, Role};

type Group = FlightGroup<usize, &'static str>;

const SOON: Duration = Duration::from_secs(1);

fn panic_in(leader: Leader<'_, usize, &'static str>) {
    let unwound = catch_unwind(AssertUnwindSafe(|| leader.run(|| resume_unwind(Box::new("boom")))));
    assert!(unwound.is_err(), "the leader unwinds");
}

fn assert_over(group: &Group, calls: u64) {
    let stats = group.stats();
    assert_eq!((stats.in_flight, stats.waiting), (0, 0), "the key is stuck");
    let counted = stats.led + stats.followed + stats.timed_out + stats.overloaded;
    assert_eq!(counted, calls, "each call is counted once: {stats:?}");
}

/// A leader panics. One follower is willing and goes on with its own function; the other gets the
/// panic.
#[test]
fn a_willing_follower_takes_over_from_a_panic() {
    Model {
        preemptions: None,
        must_reach: &["gave up", "missed it", "was willing"],
        executions: &[45_049],
    }
    .explore(|reached| {
        let group = Arc::new(Group::new());
        let work = Arc::new(Work::default());
        let first = first_leader(&group);
        let caller = |takeovers| {
            let (group, work) = (Arc::clone(&group), Arc::clone(&work));
            thread::spawn(move || {
                let request = group.request("key").takeover(takeovers);
                request.call(|| Ok(work.run()))
            })
        };
        let (willing, unwilling) = (caller(1), caller(0));
        panic_in(first);
        assert!(willing.join().unwrap().is_ok());
        reached.mark("was willing");
        match unwilling.join().unwrap() {
            Ok(_) => reached.mark("missed it"),
            Err(CallError::Panicked(_)) => reached.mark("gave up"),
            Err(other) => panic!("{other:?}"),
        }
        assert!(work.0.load(Ordering::Relaxed) <= 2);
        assert_over(&group, 3);
    });
}

/// Two are willing when the lead is dropped: one leads, and the other follows it or comes after it.
/// With a limit of one follower, neither is refused: the place on the first flight does not count
/// on the second.
#[test]
fn two_take_over_from_a_dropped_leader() {
    Model {
        preemptions: Some(5),
        must_reach: &["both led", "one followed"],
        executions: &[12_736, 19_946],
    }
    .explore(|reached| {
        let group = Arc::new(Group::new());
        let work = Arc::new(Work::default());
        let first = first_leader(&group);
        let call = {
            let (group, work) = (Arc::clone(&group), Arc::clone(&work));
            move || {
                let request = group.request("key").takeover(1).max_followers(2);
                request.call_ex(|| Ok(work.run()))
            }
        };
        let others = [thread::spawn(call.clone()), thread::spawn(call)];
        drop(first);
        let outcomes = others.map(|other| other.join().unwrap());
        let followers = outcomes.iter().map(|outcome| outcome.followers).max();
        reached.mark(match outcomes.each_ref().map(|outcome| outcome.role) {
            [Role::Led, Role::Led] => "both led",
            [Role::Followed, Role::Followed] => panic!("nobody led"),
            _ => "one followed",
        });
        let followed = outcomes.iter().filter(|outcome| !outcome.fresh()).count();
        assert_eq!(followers, Some(followed), "a place counted twice");
        assert!(outcomes.iter().all(|outcome| outcome.result.is_ok()));
        assert_over(&group, 3);
    });
}

/// Taking over after an error, if that is the leader's own.
#[test]
fn a_follower_takes_over_after_some_errors() {
    Model {
        preemptions: None,
        must_reach: &["got the error", "led", "took over"],
        executions: &[169, 529, 1_444],
    }
    .explore(|reached| {
        for error in ["the leader's own", "everybody's"] {
            let group = Arc::new(Group::new());
            let first = first_leader(&group);
            let other = thread::spawn({
                let group = Arc::clone(&group);
                move || {
                    let is_own = |error: &&str| *error == "the leader's own";
                    let request = group.request("key").takeover_if(1, is_own);
                    request.call_ex(|| Ok(2))
                }
            });
            let followers = first.complete(Err(error)).followers;
            let outcome = other.join().unwrap();
            reached.mark(match (followers, error, outcome.role, outcome.result) {
                (0, _, Role::Led, Ok(2)) => "led",
                (1, "the leader's own", Role::Led, Ok(2)) => "took over",
                (1, "everybody's", Role::Followed, Err(CallError::Failed(got))) => {
                    assert_eq!(*got, error);
                    "got the error"
                }
                other => panic!("{other:?}"),
            });
            assert_over(&group, 2);
        }
    });
}

/// Nobody is willing: the follower gets the panic.
#[test]
fn an_unwilling_follower_does_not_take_over() {
    Model { preemptions: None, must_reach: &["gave up", "missed it"], executions: &[13, 23, 38] }
        .explore(|reached| {
            let group = Arc::new(Group::new());
            let first = first_leader(&group);
            let other = thread::spawn({
                let group = Arc::clone(&group);
                move || group.call("key", || Ok(2))
            });
            panic_in(first);
            match other.join().unwrap() {
                Ok(value) => {
                    assert_eq!(value, 2);
                    reached.mark("missed it");
                }
                Err(CallError::Panicked(_)) => reached.mark("gave up"),
                Err(other) => panic!("{other:?}"),
            }
            assert_over(&group, 2);
        });
}

/// The panic and the deadline come at the same time: the function does not run after the deadline.
#[test]
fn nobody_takes_over_after_its_deadline() {
    Model {
        preemptions: None,
        must_reach: &["got the panic", "led", "timed out", "took over"],
        executions: &[208, 339, 521],
    }
    .explore(|reached| {
        let group = Arc::new(Group::new());
        let first = first_leader(&group);
        let other = thread::spawn({
            let group = Arc::clone(&group);
            move || -> (Outcome<_, _>, bool) {
                let request = group.request("key").timeout(SOON).takeover(1);
                let mut late = false;
                let outcome = request.call_ex(|| {
                    // There is no other limit in this model.
                    late = (0..64).any(|n| Deadline::During(n).has_passed());
                    Ok(2)
                });
                (outcome, late)
            }
        });
        let joined = first.followers();
        panic_in(first);
        let (outcome, late) = other.join().unwrap();
        assert!(!late, "took over after its deadline");
        reached.mark(match (outcome.role, outcome.result) {
            (Role::Led, Ok(2)) if joined == 1 => "took over",
            (Role::Led, Ok(2)) => "led",
            (Role::Followed, Err(CallError::Panicked(_))) => "got the panic",
            (Role::Followed, Err(CallError::TimedOut)) => "timed out",
            other => panic!("{other:?}"),
        });
        assert_over(&group, 2);
    });
}

/// One that queued and takes over joins any flight: all of them began after it did. It does not
/// queue again.
#[test]
fn one_that_queued_takes_over() {
    Model { preemptions: None, must_reach: &["came later", "took over"], executions: &[1_534] }
        .explore(|reached| {
            let group = Arc::new(Group::new());
            let first = first_leader(&group);
            let other = thread::spawn({
                let group = Arc::clone(&group);
                move || {
                    let request = group.request("key").next_flight().takeover(1);
                    request.call_ex(|| Ok(3))
                }
            });
            // Gives the first up and leads what the other is queued for.
            let request = group.request("key").max_age(Duration::ZERO);
            let Joined::Leader(second) = request.join() else {
                panic!("nobody follows at an age of 0")
            };
            let queued = second.followers();
            drop(second);
            // The first hangs: nobody waits for it.
            let outcome = other.join().unwrap();
            assert_eq!((outcome.role, outcome.result), (Role::Led, Ok(3)));
            reached.mark(match queued {
                0 => "came later",
                _ => "took over",
            });
            let _ = first.complete(Ok(1));
            assert_over(&group, 3);
        });
}

/// A follower's flight is abandoned, and it arrives again. Its deadline is the one that it had.
#[test]
fn a_takeover_keeps_the_deadline() {
    Model {
        preemptions: None,
        must_reach: &["abandoned", "led", "shared", "timed out"],
        executions: &[654, 1_956],
    }
    .explore(|reached| {
        let group = Arc::new(Group::new());
        let first = first_leader(&group);
        let caller = thread::spawn({
            let group = Arc::clone(&group);
            move || group.request("key").timeout(SOON).takeover(1).call(|| Ok(2))
        });
        drop(first);
        if let Joined::Leader(second) = group.join("key") {
            drop(second.complete(Ok(1)));
        }
        reached.mark(match caller.join().unwrap() {
            Ok(1) => "shared",
            Ok(_) => "led",
            Err(CallError::Abandoned) => "abandoned",
            Err(CallError::TimedOut) => "timed out",
            Err(other) => panic!("{other:?}"),
        });
        assert!(sync::take_deadlines() <= 1, "its time began anew");
    });
}
