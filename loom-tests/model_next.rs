//! The next flight (G7): callers queue for it, and when their turn comes one of them leads.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering as StdOrdering};
use std::time::Duration;

use loom::sync::atomic::Ordering;
use loom::thread::{self, ThreadId};

use crate::explore::{first_leader, Model, Reached, Work};
use crate::sync::{self, Arc, Deadline};
use crate::{CallError, FlightGroup, Joined, Leader, Outcome, Role};

type Group = FlightGroup<usize, ()>;

const SOON: Duration = Duration::from_secs(1);

fn assert_quiet(group: &Group) {
    assert_eq!(group.stats().in_flight, 0, "the key is stuck");
    sync::take_notified();
    assert_eq!(group.call("key", || Ok(9)), Ok(9));
    assert_eq!(sync::take_notified(), 0, "G12: a lone call woke somebody");
}

/// Some callers ask for the next flight while one runs and ends.
fn callers_of_the_next(callers: usize, reached: &Reached) {
    let group = Arc::new(Group::new());
    let work = Arc::new(Work::default());
    let first = first_leader(&group);
    assert_eq!(work.run(), 1);
    let others: Vec<_> = (0..callers)
        .map(|_| {
            let (group, work) = (Arc::clone(&group), Arc::clone(&work));
            thread::spawn(move || {
                let request = group.request("key").next_flight();
                request.call_ex(|| Ok(work.run()))
            })
        })
        .collect();
    let outcome = first.complete(Ok(1));
    assert_eq!(outcome.followers, 0, "who queues does not follow");
    let mut others: Vec<_> = others.into_iter().map(|o| o.join().unwrap()).collect();
    others.sort_unstable_by_key(|outcome| outcome.result.clone().unwrap());
    let runs: Vec<_> = others.iter().map(|outcome| &outcome.result).collect();
    reached.mark(match runs[..] {
        [Ok(2)] => "one",
        [Ok(2), Ok(2)] => "shared",
        [Ok(2), Ok(3)] => "one after the other",
        _ => panic!("G7: got a run that began before the call, or two at once: {runs:?}"),
    });
    let led = others.iter().filter(|outcome| outcome.fresh()).count();
    let followed = others.len() - led;
    let followers = others.iter().map(|outcome| outcome.followers).max();
    assert_eq!(followers, Some(followed), "G3");
    let distinct = if runs.len() == 2 && runs[0] != runs[1] { 2 } else { 1 };
    assert_eq!(led, distinct, "G3, G7: each run has one leader");
    assert_quiet(&group);
}

#[test]
fn one_caller_of_the_next_flight() {
    Model { preemptions: None, must_reach: &["one"], executions: &[9, 13, 18] }
        .explore(|reached| callers_of_the_next(1, reached));
}

#[test]
fn two_callers_of_the_next_flight() {
    Model {
        preemptions: Some(5),
        must_reach: &["shared", "one after the other"],
        executions: &[35_613],
    }
    .explore(|reached| callers_of_the_next(2, reached));
}

#[test]
fn two_callers_of_the_next_flight_and_spurious_wakeups() {
    Model {
        preemptions: Some(3),
        must_reach: &["shared", "one after the other"],
        executions: &[1_153, 1_307, 1_465],
    }
    .explore(|reached| callers_of_the_next(2, reached));
}

/// Two callers that are queued share one execution, and the plain caller that comes with them has
/// either flight: never two executions at once, never two flights queued.
#[test]
fn queued_callers_share() {
    Model { preemptions: Some(4), must_reach: &["two runs", "three runs"], executions: &[12_350] }
        .explore(|reached| {
            let group = Arc::new(Group::new());
            let work = Arc::new(Work::default());
            let first = first_leader(&group);
            work.run();
            let call = |next: bool| {
                let (group, work) = (Arc::clone(&group), Arc::clone(&work));
                thread::spawn(move || {
                    let request = group.request("key");
                    let request = if next { request.next_flight() } else { request };
                    request.call(|| Ok(work.run())).unwrap()
                })
            };
            let (queued, plain) = (call(true), call(false));
            let _ = first.complete(Ok(1));
            let mine = group.request("key").next_flight().call(|| Ok(work.run()));
            assert!(mine.unwrap() > 1 && queued.join().unwrap() > 1, "G7");
            assert!(plain.join().unwrap() >= 1);
            assert_quiet(&group);
            match work.0.load(Ordering::Relaxed) {
                2 => reached.mark("two runs"),
                3 => reached.mark("three runs"),
                4 => {}
                other => panic!("{other} runs"),
            }
        });
}

/// A caller arrives when the flight in front has been unlinked, leads the queued one, and ends it
/// before the turn is set. The turn does not undo that.
#[test]
fn the_turn_is_set_after_the_flight_has_landed() {
    Model {
        preemptions: None,
        must_reach: &["led itself", "the turn came first", "the turn came late"],
        executions: &[165_457],
    }
    .explore(|reached| {
        let group = Arc::new(Group::new());
        let first = first_leader(&group);
        let queued = thread::spawn({
            let group = Arc::clone(&group);
            move || group.request("key").next_flight().call_ex(|| Ok(2))
        });
        let arriving = thread::spawn({
            let (group, reached) = (Arc::clone(&group), reached.clone());
            move || {
                sync::take_notified();
                let outcome = group.call_ex("key", || Ok(3));
                if outcome.fresh() && outcome.followers == 1 {
                    // Its own is one of them.
                    reached.mark(match sync::take_notified() {
                        1 => "the turn came late",
                        _ => "the turn came first",
                    });
                }
            }
        });
        assert_eq!(first.complete(Ok(1)).result, Ok(1));
        arriving.join().unwrap();
        let outcome = queued.join().unwrap();
        match (outcome.role, outcome.result) {
            (Role::Led, Ok(2)) => reached.mark("led itself"),
            (Role::Followed, Ok(3)) => {}
            other => panic!("G7: {other:?}"),
        }
        assert_quiet(&group);
    });
}

/// The last caller in the queue times out while the flight in front ends: the queue goes with it, or
/// it leads, and the key is never stuck.
#[test]
fn the_last_in_the_queue_times_out() {
    Model { preemptions: None, must_reach: &["timed out", "led"], executions: &[23, 30, 38] }
        .explore(|reached| {
            let group = Arc::new(Group::new());
            let first = first_leader(&group);
            let other = thread::spawn({
                let group = Arc::clone(&group);
                move || {
                    let request = group.request("key").next_flight().timeout(SOON);
                    request.call_ex(|| {
                        // There is no other limit in this model.
                        let late = (0..64).any(|n| Deadline::During(n).has_passed());
                        assert!(!late, "G8: a turn to lead does not beat a deadline");
                        Ok(2)
                    })
                }
            });
            let _ = first.complete(Ok(1));
            mark_hasty(&other.join().unwrap(), reached);
            assert_quiet(&group);
        });
}

/// The same while a third caller arrives.
#[test]
fn the_last_in_the_queue_times_out_while_another_arrives() {
    Model {
        preemptions: None,
        must_reach: &["timed out", "led", "followed"],
        executions: &[309_509],
    }
    .explore(|reached| {
        let group = Arc::new(Group::new());
        let first = first_leader(&group);
        let hasty = thread::spawn({
            let group = Arc::clone(&group);
            move || {
                let request = group.request("key").next_flight().timeout(SOON);
                request.call_ex(|| Ok(2))
            }
        });
        let arriving = thread::spawn({
            let group = Arc::clone(&group);
            move || group.call("key", || Ok(3)).unwrap()
        });
        let _ = first.complete(Ok(1));
        mark_hasty(&hasty.join().unwrap(), reached);
        assert!((1..=3).contains(&arriving.join().unwrap()));
        assert_quiet(&group);
    });
}

fn mark_hasty(hasty: &Outcome<usize, ()>, reached: &Reached) {
    reached.mark(match (hasty.role, &hasty.result) {
        (Role::Led, Ok(2)) => "led",
        (Role::Followed, Ok(3)) => "followed",
        (Role::Followed, Err(CallError::TimedOut)) => "timed out",
        other => panic!("{other:?}"),
    });
}

/// One of two in the queue times out: the other has its flight all the same.
#[test]
fn one_of_two_in_the_queue_times_out() {
    Model {
        preemptions: Some(6),
        must_reach: &["timed out", "led", "followed"],
        executions: &[77_001],
    }
    .explore(|reached| {
        let group = Arc::new(Group::new());
        let first = first_leader(&group);
        let hasty = thread::spawn({
            let group = Arc::clone(&group);
            move || {
                let request = group.request("key").next_flight().timeout(SOON);
                request.call_ex(|| Ok(2))
            }
        });
        let patient = thread::spawn({
            let group = Arc::clone(&group);
            move || {
                let run = group.request("key").next_flight().call(|| Ok(3));
                assert!(run.unwrap() > 1, "G7");
            }
        });
        let _ = first.complete(Ok(1));
        mark_hasty(&hasty.join().unwrap(), reached);
        patient.join().unwrap();
        assert_quiet(&group);
    });
}

/// `join` blocks while it is queued. It is refused there, and not later, if its deadline passes.
#[test]
fn a_queued_join_times_out() {
    Model { preemptions: None, must_reach: &["led", "timed out"], executions: &[23, 30] }.explore(
        |reached| {
            let group = Arc::new(Group::new());
            let first = first_leader(&group);
            let other = thread::spawn({
                let group = Arc::clone(&group);
                move || match group.request("key").next_flight().timeout(SOON).join() {
                    Joined::Leader(leader) => leader.complete(Ok(2)),
                    Joined::Follower(follower) => {
                        assert!(follower.is_done(), "a refusal is an outcome");
                        follower.wait()
                    }
                }
            });
            let _ = first.complete(Ok(1));
            mark_hasty(&other.join().unwrap(), reached);
            assert_quiet(&group);
        },
    );
}

/// A flight is forgotten with a queue behind it: the queued flight begins, and the two ends do not
/// disturb each other.
#[test]
fn a_queue_outlives_a_forgotten_flight() {
    Model { preemptions: None, must_reach: &["came later", "queued"], executions: &[28, 46, 71] }
        .explore(|reached| {
            let group = Arc::new(Group::new());
            let first = first_leader(&group);
            let other = thread::spawn({
                let group = Arc::clone(&group);
                move || {
                    let outcome = group.request("key").next_flight().call_ex(|| Ok(2));
                    assert_eq!((outcome.role, outcome.result), (Role::Led, Ok(2)));
                }
            });
            let queued = group.in_flight()[0].queued;
            assert!(group.forget("key"));
            // Not before the other has its result: it must not wait for the first.
            other.join().unwrap();
            let _ = first.complete(Ok(1));
            reached.mark(match queued {
                0 => "came later",
                _ => "queued",
            });
            assert_quiet(&group);
        });
}

/// A caller that arrives gives the flight in front up and leads the one that others are queued for.
/// They wake, and follow it.
#[test]
fn a_queued_caller_wakes_when_another_begins() {
    Model { preemptions: None, must_reach: &["woke", "came later"], executions: &[103, 155, 220] }
        .explore(|reached| {
            let group = Arc::new(Group::new());
            let first = first_leader(&group);
            let other = thread::spawn({
                let group = Arc::clone(&group);
                move || match group.request("key").next_flight().join() {
                    Joined::Follower(follower) => Some(follower),
                    Joined::Leader(leader) => {
                        let _ = leader.complete(Ok(3));
                        None
                    }
                }
            });
            let Joined::Leader(second) = group.request("key").max_age(Duration::ZERO).join() else {
                panic!("nobody follows at an age of 0")
            };
            if second.followers() == 1 {
                let follower = other.join().unwrap().expect("the second is there");
                assert_eq!(second.complete(Ok(2)).result, Ok(2));
                assert_eq!(follower.wait().result, Ok(2));
                reached.mark("woke");
            } else {
                let _ = second.complete(Ok(2));
                other.join().unwrap();
                reached.mark("came later");
            }
            let _ = first.complete(Ok(1));
            assert_quiet(&group);
        });
}

/// Two queue behind a flight that hangs, with a limit to its age: one gives it up and leads, and the
/// other follows that one or comes after it.
#[test]
fn a_queue_behind_a_flight_that_hangs() {
    Model {
        preemptions: None,
        must_reach: &["one after the other", "shared"],
        executions: &[81_934],
    }
    .explore(|reached| {
        let group = Arc::new(Group::new());
        let hung = first_leader(&group);
        let call = |limited: bool, value| {
            let group = Arc::clone(&group);
            move || {
                let request = group.request("key").next_flight();
                let request = if limited { request.max_age(SOON) } else { request };
                request.call_ex(|| Ok(value))
            }
        };
        let other = thread::spawn(call(false, 2));
        let mine = call(true, 3)();
        let other = other.join().unwrap();
        reached.mark(match (mine.role, other.role) {
            (Role::Led, Role::Led) => "one after the other",
            (Role::Followed, Role::Followed) => panic!("nobody led"),
            _ => "shared",
        });
        assert!(mine.result.unwrap() > 1 && other.result.unwrap() > 1);
        assert_eq!(group.stats().in_flight, 1, "the hung one");
        assert_eq!(hung.complete(Ok(1)).followers, 0);
        assert_quiet(&group);
    });
}

/// The next flight begins and ends before the caller that set its turn is done. That caller may be the
/// last to let go of the value, and its own call must not suffer from that value's `Drop`.
fn the_value_of_the_next_flight_panics(
    reached: &Reached,
    end: fn(&FlightGroup<Value, ()>, Leader<'_, Value, ()>),
) {
    let group = Arc::new(FlightGroup::new());
    let Joined::Leader(first) = group.join("key") else { panic!("G11: the group is not empty") };
    let (here, last) = (thread::current().id(), Arc::default());
    let value = Value(Some((here, Arc::clone(&last))));
    let next = |value| {
        let group = Arc::clone(&group);
        move || drop(group.request("key").next_flight().call(|| Ok(value)))
    };
    // Two, so that they share the value.
    let others = [thread::spawn(next(value.clone())), thread::spawn(next(value))];
    end(&group, first);
    others.into_iter().for_each(|other| other.join().unwrap());
    reached.mark(if last.load(StdOrdering::Relaxed) { "was the last" } else { "was not" });
    assert_eq!(group.stats().in_flight, 0, "the key is stuck");
}

/// Panics where it is dropped on this thread, and notes it.
#[derive(Clone)]
struct Value(Option<(ThreadId, Arc<AtomicBool>)>);

impl Drop for Value {
    fn drop(&mut self) {
        match &self.0 {
            Some((thread, last)) if thread::current().id() == *thread => {
                last.store(true, StdOrdering::Relaxed);
                resume_unwind(Box::new("the value of the next flight"));
            }
            _ => {}
        }
    }
}

#[test]
fn the_next_value_panics_where_a_leader_drops_it() {
    Model {
        preemptions: Some(3),
        must_reach: &["was the last", "was not"],
        executions: &[1_153, 1_307, 1_465],
    }
    .explore(|reached| {
        the_value_of_the_next_flight_panics(reached, |_, first| {
            assert!(first.complete(Ok(Value(None))).result.is_ok());
        });
    });
}

#[test]
fn the_next_value_panics_where_one_that_forgets_drops_it() {
    Model { preemptions: Some(5), must_reach: &["was the last", "was not"], executions: &[49_486] }
        .explore(|reached| {
            the_value_of_the_next_flight_panics(reached, |group, first| {
                assert!(group.forget("key"));
                assert!(first.complete(Ok(Value(None))).result.is_ok());
            });
        });
}

/// A caller that only joins has an age limit for its arrival. While it is queued, it gives nothing up.
#[test]
fn a_join_that_queues_gives_nothing_up() {
    Model { preemptions: None, must_reach: &["it leads"], executions: &[9, 13] }.explore(
        |reached| {
            let group = Arc::new(Group::new());
            let Joined::Leader(front) = group.join("k") else {
                unreachable!("nobody else is here")
            };
            let ends = Arc::new(loom::sync::atomic::AtomicBool::new(false));
            let caller = thread::spawn({
                let (group, ends) = (Arc::clone(&group), Arc::clone(&ends));
                move || {
                    let request = group.request("k").next_flight().max_age(SOON);
                    let Joined::Leader(leader) = request.join() else {
                        unreachable!("it is alone")
                    };
                    assert!(ends.load(Ordering::SeqCst), "it gave the flight in front up");
                    drop(leader);
                }
            });
            ends.store(true, Ordering::SeqCst);
            drop(front);
            caller.join().unwrap();
            reached.mark("it leads");
        },
    );
}
