//! Flights that are given up: by `forget`, or for their age (G1 with its exception, G6).

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use loom::thread::{self, ThreadId};

use crate::explore::Model;
use crate::sync::{Arc, Mutex};
use crate::{CallError, FlightGroup, Follower, Joined, Leader, Observer, Role};

type Group = FlightGroup<u32, ()>;

const SOON: Duration = Duration::from_secs(1);

fn leader(joined: Joined<'_, u32, ()>) -> Leader<'_, u32, ()> {
    match joined {
        Joined::Leader(leader) => leader,
        Joined::Follower(_) => panic!("expected to lead"),
    }
}

fn follower(joined: Joined<'_, u32, ()>) -> Follower<u32, ()> {
    match joined {
        Joined::Leader(_) => panic!("expected to follow"),
        Joined::Follower(follower) => follower,
    }
}

fn assert_over(group: &Group) {
    let stats = group.stats();
    assert_eq!((stats.in_flight, stats.waiting), (0, 0), "the key is stuck");
}

/// In a model in which flights are given up for their age only: each of them has held somebody up,
/// for as long as that.
fn assert_given_up_for_age(group: &Group) {
    for flight in group.in_flight().iter().filter(|flight| flight.given_up) {
        let is_old = flight.age.is_some_and(|age| age > Duration::ZERO);
        assert!(is_old, "given up although it held nobody up");
    }
}

/// G6: the end of a forgotten flight, while its successor is in the map, leaves that alone: a third
/// caller joins the second flight, also after the first has ended. The followers of each get its
/// own outcome.
#[test]
fn a_forgotten_flight_leaves_its_successor_alone() {
    Model {
        preemptions: None,
        must_reach: &["joined the first", "joined the second"],
        executions: &[956, 2_466, 5_706],
    }
    .explore(|reached| {
        let group = Arc::new(Group::new());
        let first = leader(group.join("key"));
        let other = thread::spawn({
            let (group, reached) = (Arc::clone(&group), reached.clone());
            move || {
                let outcome = group.call_ex("key", || panic!("both are in flight"));
                assert_eq!((outcome.role, outcome.followers), (Role::Followed, 1));
                reached.mark(match outcome.result.unwrap() {
                    1 => "joined the first",
                    _ => "joined the second",
                });
            }
        });
        // Given up and begun anew in one go, as the other is not to lead.
        let second = leader(group.request("key").max_age(Duration::ZERO).join());
        let firsts = first.complete(Ok(1)).followers;
        // G6: the second is there.
        drop(follower(group.join("key")));
        while second.followers() + firsts == 0 {
            thread::yield_now();
        }
        let _ = second.complete(Ok(2));
        other.join().unwrap();
        assert_over(&group);
    });
}

/// A flight is forgotten while it ends, and a follower waits: the follower has its outcome, however
/// the two meet, and nothing stays on the list.
#[test]
fn a_flight_is_forgotten_while_it_ends() {
    Model {
        preemptions: None,
        must_reach: &["came later", "followed", "forgotten", "too late"],
        executions: &[631],
    }
    .explore(|reached| {
        let group = Arc::new(Group::new());
        let first = leader(group.join("key"));
        let other = thread::spawn({
            let group = Arc::clone(&group);
            move || group.call_ex("key", || Ok(2))
        });
        let forgets = thread::spawn({
            let group = Arc::clone(&group);
            move || group.forget("key")
        });
        let followers = first.complete(Ok(1)).followers;
        let outcome = other.join().unwrap();
        reached.mark(match (followers, outcome.role, outcome.result) {
            (1, Role::Followed, Ok(1)) => "followed",
            (0, Role::Led, Ok(2)) => "came later",
            other => panic!("{other:?}"),
        });
        // It may have been the second that was forgotten.
        reached.mark(match forgets.join().unwrap() {
            true => "forgotten",
            false => "too late",
        });
        assert_over(&group);
    });
}

/// `forget_unshared` against a caller that joins: either that is on the flight, and nothing is
/// given up, or it leads a new one.
#[test]
fn forget_unshared_is_exact() {
    Model { preemptions: None, must_reach: &["forgotten", "kept"], executions: &[25, 45, 80] }
        .explore(|reached| {
            let group = Arc::new(Group::new());
            let first = leader(group.join("key"));
            let other = thread::spawn({
                let group = Arc::clone(&group);
                move || group.call_ex("key", || Ok(2)).role
            });
            let forgotten = group.forget_unshared("key");
            let followers = first.complete(Ok(1)).followers;
            reached.mark(match (forgotten, followers, other.join().unwrap()) {
                (true, 0, Role::Led) => "forgotten",
                (false, 1, Role::Followed) => "kept",
                other => panic!("forgot one that was shared: {other:?}"),
            });
            assert_over(&group);
        });
}

/// Two callers follow nobody: each gives up what it finds.
#[test]
fn an_age_of_zero_follows_nobody() {
    Model { preemptions: None, must_reach: &["both led"], executions: &[14, 14, 14] }.explore(
        |reached| {
            let group = Arc::new(Group::new());
            let hung = leader(group.join("key"));
            let call = {
                let group = Arc::clone(&group);
                move || {
                    let request = group.request("key").max_age(Duration::ZERO);
                    let outcome = request.call_ex(|| Ok(2));
                    assert_eq!((outcome.role, outcome.result), (Role::Led, Ok(2)));
                }
            };
            let other = thread::spawn(call.clone());
            call();
            other.join().unwrap();
            reached.mark("both led");
            let outcome = hung.complete(Ok(1));
            assert_eq!((outcome.result, outcome.followers), (Ok(1), 0));
            assert_over(&group);
        },
    );
}

/// Two wait for a flight that hangs, until it is too old for both. One gives it up and leads; the
/// other leaves it and follows that one, or comes after it. Nobody gives up a flight that is not old.
#[test]
fn two_wait_until_a_flight_is_too_old() {
    Model {
        preemptions: Some(5),
        must_reach: &["both led", "one followed"],
        executions: &[11_953],
    }
    .explore(|reached| {
        let group = Arc::new(Group::new());
        let hung = leader(group.join("key"));
        let call = {
            let group = Arc::clone(&group);
            move || {
                let request = group.request("key").max_age(SOON);
                let outcome = request.call_ex(|| {
                    assert_given_up_for_age(&group);
                    Ok(2)
                });
                assert_eq!(outcome.result, Ok(2), "got the hung one's");
                outcome.role
            }
        };
        let other = thread::spawn(call.clone());
        reached.mark(match [call(), other.join().unwrap()] {
            [Role::Led, Role::Led] => "both led",
            [Role::Followed, Role::Followed] => panic!("nobody led"),
            _ => "one followed",
        });
        assert_eq!(group.stats().in_flight, 1, "the hung one");
        assert_eq!(hung.complete(Ok(1)).followers, 0, "both have left");
        assert_over(&group);
    });
}

/// A flight is given up by somebody else while a caller waits for it. When it is too old for that
/// one, too, the caller leaves it and asks again; it does not give up the successor.
#[test]
fn a_waiter_leaves_a_flight_that_another_gave_up() {
    Model {
        preemptions: None,
        must_reach: &[
            "followed the second",
            "led after the second",
            "led alone",
            "led beside the second",
        ],
        executions: &[578, 1_150],
    }
    .explore(|reached| {
        let group = Arc::new(Group::new());
        let hung = leader(group.join("key"));
        // So that the first has held somebody up before it is given up.
        let waiting = follower(group.join("key"));
        let other = thread::spawn({
            let group = Arc::clone(&group);
            move || {
                let request = group.request("key").max_age(SOON);
                let mut beside = 0;
                let outcome = request.call_ex(|| {
                    assert_given_up_for_age(&group);
                    beside = group.stats().in_flight;
                    Ok(3)
                });
                (outcome, beside)
            }
        });
        // Leads only if the other has waited, and has not given the first up yet.
        let Joined::Leader(second) = group.request("key").max_age(SOON).join() else {
            let (outcome, beside) = other.join().unwrap();
            assert_eq!((outcome.result, beside), (Ok(3), 2));
            reached.mark("led alone");
            let _ = hung.complete(Ok(1));
            return assert_over(&group);
        };
        let followers = second.complete(Ok(2)).followers;
        let (outcome, beside) = other.join().unwrap();
        reached.mark(match (outcome.role, outcome.result, followers) {
            (Role::Followed, Ok(2), 1) => "followed the second",
            (Role::Led, Ok(3), 0) if beside == 3 => "led beside the second",
            (Role::Led, Ok(3), 0) => "led after the second",
            other => panic!("{other:?}"),
        });
        assert_eq!(hung.complete(Ok(1)).followers, 1, "the other has left");
        drop(waiting);
        assert_over(&group);
    });
}

/// A flight becomes too old for a waiter while it ends. If it is unlinked by then, the waiter stays
/// for the outcome that is about to arrive, and is counted.
#[test]
fn a_flight_ends_while_it_becomes_too_old() {
    Model { preemptions: None, must_reach: &["followed", "led"], executions: &[49, 75, 109] }
        .explore(|reached| {
            let group = Arc::new(Group::new());
            let first = leader(group.join("key"));
            let other = thread::spawn({
                let group = Arc::clone(&group);
                move || group.request("key").max_age(SOON).call_ex(|| Ok(2))
            });
            let followers = first.complete(Ok(1)).followers;
            let outcome = other.join().unwrap();
            reached.mark(match (followers, outcome.role, outcome.result) {
                (1, Role::Followed, Ok(1)) => "followed",
                (0, Role::Led, Ok(2)) => "led",
                other => panic!("{other:?}"),
            });
            assert_over(&group);
        });
}

/// A flight that hangs is given up by a waiter, with a follower that has no such limit: that one
/// stays, and has the outcome in the end.
#[test]
fn a_patient_follower_stays_with_a_flight_that_was_given_up() {
    Model {
        preemptions: None,
        must_reach: &["followed the first", "followed the second", "led"],
        executions: &[3_046],
    }
    .explore(|reached| {
        let group = Arc::new(Group::new());
        let first = leader(group.join("key"));
        let patient = thread::spawn({
            let group = Arc::clone(&group);
            move || group.call_ex("key", || Ok(3))
        });
        let mine = group.request("key").max_age(SOON).call_ex(|| Ok(2));
        assert_eq!(mine.role, Role::Led);
        let followers = first.complete(Ok(1)).followers;
        let patient = patient.join().unwrap();
        reached.mark(match (followers, patient.role, patient.result) {
            (1, Role::Followed, Ok(1)) => "followed the first",
            (0, Role::Followed, Ok(2)) => "followed the second",
            (0, Role::Led, Ok(3)) => "led",
            other => panic!("{other:?}"),
        });
        assert_over(&group);
    });
}

/// A deadline and an age limit: the deadline takes precedence, and nobody leads after it.
#[test]
fn a_deadline_takes_precedence_over_an_age() {
    Model { preemptions: None, must_reach: &["led", "timed out"], executions: &[4_423] }.explore(
        |reached| {
            let group = Arc::new(Group::new());
            let hung = leader(group.join("key"));
            let call = |limited: bool| {
                let group = Arc::clone(&group);
                move || {
                    let request = group.request("key").max_age(SOON);
                    let request = match limited {
                        true => request.timeout(Duration::ZERO),
                        false => request,
                    };
                    request.call(|| Ok(2))
                }
            };
            let other = thread::spawn(call(true));
            assert_eq!(call(false)(), Ok(2), "nobody else leads");
            match other.join().unwrap() {
                Err(CallError::TimedOut) => reached.mark("timed out"),
                // It found no flight, or one that was old already.
                Ok(2) => reached.mark("led"),
                other => panic!("{other:?}"),
            }
            let _ = hung.complete(Ok(1));
            assert_over(&group);
        },
    );
}

/// Panics where it is dropped on this thread, and notes it. Copies do not.
struct Value(Option<(ThreadId, Arc<AtomicBool>)>);

impl Clone for Value {
    fn clone(&self) -> Self {
        Self(None)
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        match &self.0 {
            Some((thread, last)) if thread::current().id() == *thread => {
                last.store(true, Ordering::Relaxed);
                resume_unwind(Box::new("the value of the flight that was given up"));
            }
            _ => {}
        }
    }
}

/// Comes to a lock before the function of a flight runs. What another thread does before it takes the lock
/// is over by then, in some executions.
struct Meets(Arc<Mutex<()>>);

impl Observer for Meets {
    fn flight_began(&self, _: &String) {
        drop(self.0.lock());
    }
}

/// A caller gives a flight up for its age and leads the next one. It may be the last to let go of the old
/// value, the `Drop` of which panics: the caller has its own result all the same.
#[test]
fn the_old_value_panics_where_one_that_gave_it_up_drops_it() {
    Model {
        preemptions: None,
        must_reach: &["followed", "led alone", "was the last", "was not"],
        executions: &[713, 1_151, 1_757],
    }
    .explore(|reached| {
        let lock = Arc::new(Mutex::new(()));
        let observer = Meets(Arc::clone(&lock));
        let group = FlightGroup::<Value, ()>::builder().observer(observer).build();
        let last = Arc::new(AtomicBool::new(false));
        let value = Value(Some((thread::current().id(), Arc::clone(&last))));
        let mut old = None;
        let ticket = group.start("key", |job| old = Some(job), || Ok(value));
        let old = thread::spawn(move || {
            old.unwrap().run();
            drop(ticket);
            drop(lock.lock());
        });
        let mut flights = 0;
        let outcome = group.request("key").max_age(SOON).call_ex(|| {
            flights = group.stats().in_flight;
            Ok(Value(None))
        });
        assert!(outcome.result.is_ok());
        reached.mark(match (outcome.role, flights, last.load(Ordering::Relaxed)) {
            (Role::Followed, ..) => "followed",
            (Role::Led, _, true) => "was the last",
            (Role::Led, 2, false) => "was not",
            (Role::Led, ..) => "led alone",
        });
        // It may be the old value, which is this caller's own then.
        std::mem::forget(outcome);
        old.join().unwrap();
        assert_eq!(group.stats().in_flight, 0, "the key is stuck");
    });
}
