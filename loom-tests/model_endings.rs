//! However a flight ends, everyone on it wakes with a typed outcome, and the key is free (G4).

use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};

use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;

use crate::explore::{Model, Reached};
use crate::sync::Arc;
use crate::{CallError, FlightGroup, Joined, Role};

type Group = FlightGroup<u32, &'static str>;

/// The key works, at once, and nothing of earlier flights is left in the map.
fn assert_free(group: &Group) {
    assert_eq!(group.stats().in_flight, 0, "G4: unlinked");
    let outcome = group.call_ex("key", || Ok(9));
    assert_eq!((outcome.role, outcome.followers), (Role::Led, 0), "G4: the key is free");
    assert_eq!(outcome.result, Ok(9));
    assert_eq!(group.stats().in_flight, 0, "G11");
}

/// A flight ends badly, as `end` has it, while `callers` others call its key. Each of them has to
/// wake with an error that `is_it`, or with a value of its own flight or another caller's.
fn ends_badly(
    reached: &Reached,
    callers: usize,
    end: fn(Joined<'_, u32, &'static str>) -> Option<usize>,
    is_it: fn(&CallError<&'static str>) -> bool,
) {
    let group = Arc::new(Group::new());
    let first = group.join("key");
    let others: Vec<_> = (0..callers)
        .map(|_| {
            let (group, reached) = (Arc::clone(&group), reached.clone());
            thread::spawn(move || {
                let outcome = group.call_ex("key", || Ok(2));
                match outcome.result {
                    Ok(value) => {
                        assert_eq!(value, 2);
                        reached.mark("missed it");
                        None
                    }
                    Err(error) => {
                        assert!(is_it(&error), "{error:?}");
                        assert_eq!(outcome.role, Role::Followed);
                        reached.mark("followed it");
                        Some(outcome.followers)
                    }
                }
            })
        })
        .collect();
    let counted = end(first);
    let others = others.into_iter().map(|other| other.join().unwrap());
    let followed: Vec<_> = others.flatten().collect();
    for followers in followed.iter().chain(&counted) {
        assert_eq!(*followers, followed.len(), "G3: all learn how many");
    }
    assert_free(&group);
}

/// The panic comes from `resume_unwind`, which skips the hook: thousands of executions would each
/// print one.
fn panics(first: Joined<'_, u32, &'static str>) -> Option<usize> {
    let Joined::Leader(leader) = first else { unreachable!("nobody else was there") };
    let unwound = catch_unwind(AssertUnwindSafe(|| leader.run(|| resume_unwind(Box::new("boom")))));
    let payload = unwound.expect_err("the leader unwinds");
    assert_eq!(payload.downcast_ref(), Some(&"boom"));
    None
}

fn is_the_panic(error: &CallError<&'static str>) -> bool {
    matches!(error, CallError::Panicked(panicked) if panicked.message() == Some("boom"))
}

#[test]
fn a_panic_reaches_a_follower() {
    Model {
        preemptions: None,
        must_reach: &["followed it", "missed it"],
        executions: &[13, 23, 38],
    }
    .explore(|reached| ends_badly(reached, 1, panics, is_the_panic));
}

/// Two callers, of whom each may lead or follow, and one whose function panics.
#[test]
fn a_call_panics_beside_another() {
    Model {
        preemptions: None,
        must_reach: &["led and unwound", "followed the other", "followed the panic"],
        executions: &[49, 89, 149],
    }
    .explore(|reached| {
        let group = Arc::new(Group::new());
        let other = thread::spawn({
            let (group, reached) = (Arc::clone(&group), reached.clone());
            move || match group.call("key", || Ok(2)) {
                Ok(value) => assert_eq!(value, 2),
                Err(error) => {
                    assert!(is_the_panic(&error), "{error:?}");
                    reached.mark("followed the panic");
                }
            }
        });
        let call = || group.call("key", || resume_unwind(Box::new("boom")));
        match catch_unwind(AssertUnwindSafe(call)) {
            Ok(result) => {
                assert_eq!(result, Ok(2));
                reached.mark("followed the other");
            }
            Err(payload) => {
                assert_eq!(payload.downcast_ref(), Some(&"boom"));
                reached.mark("led and unwound");
            }
        }
        other.join().unwrap();
        assert_free(&group);
    });
}

fn is_abandoned(first: Joined<'_, u32, &'static str>) -> Option<usize> {
    drop(first);
    None
}

#[test]
fn an_abandoned_flight_wakes_its_follower() {
    Model {
        preemptions: None,
        must_reach: &["followed it", "missed it"],
        executions: &[13, 23, 38],
    }
    .explore(|reached| {
        ends_badly(reached, 1, is_abandoned, |error| matches!(error, CallError::Abandoned));
    });
}

#[test]
fn an_abandoned_flight_wakes_both_its_followers() {
    Model { preemptions: None, must_reach: &["followed it", "missed it"], executions: &[37_828] }
        .explore(|reached| {
            ends_badly(reached, 2, is_abandoned, |error| matches!(error, CallError::Abandoned));
        });
}

fn fails(first: Joined<'_, u32, &'static str>) -> Option<usize> {
    let Joined::Leader(leader) = first else { unreachable!("nobody else was there") };
    let outcome = leader.complete(Err("no"));
    assert_eq!(outcome.result.unwrap_err().failed(), Some(&"no"));
    Some(outcome.followers)
}

#[test]
fn an_error_reaches_the_follower() {
    Model {
        preemptions: None,
        must_reach: &["followed it", "missed it"],
        executions: &[13, 23, 38],
    }
    .explore(|reached| ends_badly(reached, 1, fails, |error| error.failed() == Some(&"no")));
}

#[test]
fn an_error_reaches_both_followers() {
    Model { preemptions: None, must_reach: &["followed it", "missed it"], executions: &[37_828] }
        .explore(|reached| ends_badly(reached, 2, fails, |error| error.failed() == Some(&"no")));
}

/// A follower that leaves while another one joins: the leader does not overlook the one that stays.
#[test]
fn one_leaves_while_another_joins() {
    Model { preemptions: None, must_reach: &["stayed", "led"], executions: &[2_387, 5_161, 9_910] }
        .explore(|reached| {
            let group = Arc::new(Group::new());
            let Joined::Leader(first) = group.join("key") else {
                unreachable!("nobody else is here yet")
            };
            let Joined::Follower(leaver) = group.join("key") else { panic!("G1: two leaders") };
            let leaver = thread::spawn(move || drop(leaver));
            let stayer = thread::spawn({
                let (group, reached) = (Arc::clone(&group), reached.clone());
                move || {
                    let outcome = group.call_ex("key", || Ok(2));
                    let led = outcome.fresh();
                    assert_eq!(outcome.result, Ok(if led { 2 } else { 1 }));
                    reached.mark(if led { "led" } else { "stayed" });
                }
            });
            assert_eq!(first.complete(Ok(1)).result, Ok(1));
            leaver.join().unwrap();
            stayer.join().unwrap();
            assert_free(&group);
        });
}

/// A follower that leaves disturbs nobody, whenever it leaves: the leader's end does not wait for
/// it; and once it has left it is not counted.
#[test]
fn a_follower_may_leave() {
    Model {
        preemptions: None,
        must_reach: &["left in time", "left too late", "led"],
        executions: &[136, 196, 286],
    }
    .explore(|reached| {
        let group = Arc::new(Group::new());
        let Joined::Leader(first) = group.join("key") else {
            unreachable!("nobody else is here yet")
        };
        let left = Arc::new(AtomicBool::new(false));
        let other = thread::spawn({
            let (group, reached) = (Arc::clone(&group), reached.clone());
            let left = Arc::clone(&left);
            move || match group.join("key") {
                Joined::Follower(follower) => {
                    drop(follower);
                    left.store(true, Ordering::Release);
                }
                Joined::Leader(leader) => {
                    reached.mark("led");
                    let _ = leader.complete(Ok(2));
                }
            }
        });
        let had_left = left.load(Ordering::Acquire);
        let followers = first.complete(Ok(1)).followers;
        if had_left {
            assert_eq!(followers, 0, "a follower that has left is not counted");
            reached.mark("left in time");
        } else if followers == 1 {
            reached.mark("left too late");
        }
        let outcome = group.call_ex("key", || Ok(3));
        assert!(matches!(outcome.result, Ok(2 | 3)));
        other.join().unwrap();
        assert_free(&group);
    });
}
