//! However a flight ends, everyone on it wakes with a typed outcome, and the key is free (G4).

use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};

use loom::thread;

use crate::explore::{Model, Reached};
use crate::sync::{Arc, AtomicBool, Ordering};
use crate::{CallError, FlightGroup, Joined, Role};

type Group = FlightGroup<u32, &'static str>;

/// The key works, at once, and nothing of earlier flights is left in the map.
fn assert_free(group: &Group) {
    assert!(
        format!("{group:?}").contains("in_flight: 0"),
        "G4: unlinked"
    );
    let outcome = group.call_ex("key", || Ok(9));
    assert_eq!(
        (outcome.role, outcome.followers),
        (Role::Led, 0),
        "G4: the key is free"
    );
    assert_eq!(outcome.result.unwrap(), 9);
    assert!(format!("{group:?}").contains("in_flight: 0"), "G11");
}

/// A flight ends badly, as `end` has it, while `callers` others call its key. Each of them has to
/// wake with an error that `is_it`, or with a value of its own flight or another caller's.
fn ends_badly(
    reached: &Reached,
    callers: usize,
    end: fn(Joined<'_, u32, &'static str>),
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
                    }
                    Err(error) => {
                        assert!(is_it(&error), "{error:?}");
                        assert_eq!(outcome.role, Role::Followed);
                        reached.mark("followed it");
                    }
                }
            })
        })
        .collect();
    end(first);
    for other in others {
        other.join().unwrap();
    }
    assert_free(&group);
}

/// The panic comes from `resume_unwind`, which skips the hook: thousands of executions would each
/// print one.
fn panics(first: Joined<'_, u32, &'static str>) {
    let Joined::Leader(leader) = first else {
        unreachable!("nobody else was there")
    };
    let unwound = catch_unwind(AssertUnwindSafe(|| {
        leader.run(|| resume_unwind(Box::new("boom")))
    }));
    let payload = unwound.expect_err("the leader unwinds");
    assert_eq!(payload.downcast_ref(), Some(&"boom"));
}

fn is_the_panic(error: &CallError<&'static str>) -> bool {
    matches!(error, CallError::Panicked(panicked) if panicked.message() == Some("boom"))
}

#[test]
fn a_panic_reaches_a_follower() {
    Model {
        preemptions: None,
        must_reach: &["followed it", "missed it"],
        executions: &[32, 47, 67],
    }
    .explore(|reached| ends_badly(reached, 1, panics, is_the_panic));
}

#[test]
fn a_panic_reaches_two_followers() {
    Model {
        preemptions: None,
        must_reach: &["followed it", "missed it"],
        executions: &[42_009],
    }
    .explore(|reached| ends_badly(reached, 2, panics, is_the_panic));
}

#[test]
fn an_abandoned_flight_wakes_its_followers() {
    Model {
        preemptions: None,
        must_reach: &["followed it", "missed it"],
        executions: &[42_009, 139_999],
    }
    .explore(|reached| {
        ends_badly(
            reached,
            2,
            |first| drop(first),
            |error| matches!(error, CallError::Abandoned),
        );
    });
}

#[test]
fn an_error_reaches_the_followers() {
    Model {
        preemptions: None,
        must_reach: &["followed it", "missed it"],
        executions: &[42_009, 139_999],
    }
    .explore(|reached| {
        let fails = |first: Joined<'_, u32, &'static str>| match first {
            Joined::Leader(leader) => {
                let error = leader.complete(Err("no")).result.unwrap_err();
                assert_eq!(error.failed(), Some(&"no"));
            }
            Joined::Follower(_) => unreachable!("nobody else was there"),
        };
        ends_badly(reached, 2, fails, |error| error.failed() == Some(&"no"));
    });
}

/// A follower that leaves while another one boards: the leader does not overlook the one that stays.
#[test]
fn one_leaves_while_another_boards() {
    Model {
        preemptions: None,
        must_reach: &["stayed", "led"],
        executions: &[32_861],
    }
    .explore(|reached| {
        let group = Arc::new(Group::new());
        let first = group.join("key");
        let leaver = thread::spawn({
            let group = Arc::clone(&group);
            move || drop(group.join("key"))
        });
        let stayer = thread::spawn({
            let (group, reached) = (Arc::clone(&group), reached.clone());
            move || match group.join("key") {
                Joined::Follower(follower) => match follower.wait().result {
                    Ok(value) => {
                        assert_eq!(value, 1);
                        reached.mark("stayed");
                    }
                    // The leaver may have led, and dropped that.
                    Err(error) => assert!(matches!(error, CallError::Abandoned)),
                },
                Joined::Leader(leader) => {
                    reached.mark("led");
                    let _ = leader.complete(Ok(2));
                }
            }
        });
        let Joined::Leader(first) = first else {
            unreachable!("nobody else was there")
        };
        let _ = first.complete(Ok(1));
        leaver.join().unwrap();
        stayer.join().unwrap();
        assert_free(&group);
    });
}

/// A follower that leaves disturbs nobody, whenever it leaves: the leader's end neither waits for
/// it nor uses the flight again while it is aboard; and once it has left it is not counted.
#[test]
fn a_follower_may_leave() {
    Model {
        preemptions: None,
        must_reach: &["left in time", "left too late", "led"],
        executions: &[892],
    }
    .explore(|reached| {
        let group = Arc::new(Group::new());
        let first = group.join("key");
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
        let Joined::Leader(first) = first else {
            unreachable!("nobody else was there")
        };
        let had_left = left.load(Ordering::Acquire);
        let followers = first.complete(Ok(1)).followers;
        if had_left {
            assert_eq!(followers, 0, "a follower that has left is not counted");
            reached.mark("left in time");
        } else if followers == 1 {
            reached.mark("left too late");
        }
        // The next flight, which uses the first one again where that had no follower.
        let outcome = group.call_ex("key", || Ok(3));
        assert!(matches!(outcome.result, Ok(2 | 3)));
        other.join().unwrap();
        assert_free(&group);
    });
}
