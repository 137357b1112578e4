//! The next flight (G7), and taking over from a leader that failed.
//!
//! Where two callers queue, three threads meet at two flights, one after the other. Without a bound
//! that did not finish in a minute; with two or three preemptions it takes a second.

use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::time::Duration;

use loom::thread;

use crate::explore::{Model, Reached};
use crate::sync::{self, Arc, AtomicUsize, Ordering};
use crate::{CallError, FlightGroup, Joined, Leader};

type Group = FlightGroup<usize, ()>;

const SOON: Duration = Duration::from_secs(1);

/// Counts executions; two at once would lose a count.
#[derive(Default)]
struct Work(AtomicUsize);

impl Work {
    fn run(&self) -> usize {
        let run = self.0.load(Ordering::Relaxed) + 1;
        self.0.store(run, Ordering::Relaxed);
        run
    }
}

fn first_leader(group: &Group) -> Leader<'_, usize, ()> {
    match group.join("key") {
        Joined::Leader(leader) => leader,
        Joined::Follower(_) => unreachable!("nobody else is here yet"),
    }
}

fn assert_quiet(group: &Group) {
    sync::take_notified();
    for _ in 0..2 {
        assert_eq!(group.call("key", || Ok(9)).unwrap(), 9);
    }
    assert_eq!(sync::take_notified(), 0, "G12: a lone call woke somebody");
    assert!(
        format!("{group:?}").contains("in_flight: 0"),
        "the key is stuck"
    );
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
                request.call_ex(|| Ok(work.run())).result.unwrap()
            })
        })
        .collect();
    assert_eq!(first.complete(Ok(1)).result.unwrap(), 1);
    let mut runs: Vec<_> = others.into_iter().map(|o| o.join().unwrap()).collect();
    runs.sort_unstable();
    assert!(runs[0] > 1, "G7: got a run that began before the call");
    reached.mark(match runs[..] {
        [2] => "one",
        [2, 2] => "shared",
        [2, 3] => "one after the other",
        _ => panic!("{runs:?}"),
    });
    assert_quiet(&group);
}

#[test]
fn one_caller_of_the_next_flight() {
    Model {
        preemptions: None,
        must_reach: &["one"],
        executions: &[32, 47, 67],
    }
    .explore(|reached| callers_of_the_next(1, reached));
}

#[test]
fn two_callers_of_the_next_flight() {
    Model {
        preemptions: Some(3),
        must_reach: &["shared", "one after the other"],
        executions: &[2_425],
    }
    .explore(|reached| callers_of_the_next(2, reached));
}

/// Two callers that are queued share one execution, and the plain caller that comes with them has
/// either flight: never two executions at once, never two flights queued.
#[test]
fn queued_callers_share() {
    Model {
        preemptions: Some(2),
        must_reach: &["two runs", "three runs"],
        executions: &[636],
    }
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

/// The last caller in the queue times out while the flight before it ends: the queued flight goes
/// with it, or it leads, and the key is never stuck.
#[test]
fn the_last_in_the_queue_times_out() {
    Model {
        preemptions: None,
        must_reach: &["timed out", "led"],
        executions: &[665, 1_220],
    }
    .explore(|reached| {
        let group = Arc::new(Group::new());
        let first = first_leader(&group);
        let other = thread::spawn({
            let (group, reached) = (Arc::clone(&group), reached.clone());
            move || {
                let request = group.request("key").next_flight().timeout(SOON);
                match request.call(|| Ok(2)) {
                    Ok(run) => {
                        assert_eq!(run, 2);
                        reached.mark("led");
                    }
                    Err(CallError::TimedOut) => reached.mark("timed out"),
                    Err(other) => panic!("{other:?}"),
                }
            }
        });
        let _ = first.complete(Ok(1));
        other.join().unwrap();
        assert_quiet(&group);
        assert_eq!(group.call("key", || Ok(3)).unwrap(), 3);
    });
}

/// One of two in the queue times out: the other has its flight all the same.
#[test]
fn one_of_two_in_the_queue_times_out() {
    Model {
        preemptions: Some(3),
        must_reach: &["timed out", "served"],
        executions: &[2_150],
    }
    .explore(|reached| {
        let group = Arc::new(Group::new());
        let first = first_leader(&group);
        let hasty = thread::spawn({
            let (group, reached) = (Arc::clone(&group), reached.clone());
            move || {
                let request = group.request("key").next_flight().timeout(SOON);
                reached.mark(match request.call(|| Ok(2)) {
                    Ok(run) if run > 1 => "served",
                    Err(CallError::TimedOut) => "timed out",
                    other => panic!("{other:?}"),
                });
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
        hasty.join().unwrap();
        patient.join().unwrap();
        assert_quiet(&group);
    });
}

/// A flight that is forgotten with one queued behind it: the queued one begins, and the two ends do
/// not disturb each other.
#[test]
fn a_queued_flight_outlives_a_forgotten_one() {
    Model {
        preemptions: None,
        must_reach: &["forgotten"],
        executions: &[6],
    }
    .explore(|reached| {
        let group = Arc::new(Group::new());
        let first = first_leader(&group);
        let other = thread::spawn({
            let group = Arc::clone(&group);
            move || {
                let run = group.request("key").next_flight().call(|| Ok(2));
                assert_eq!(run.unwrap(), 2);
            }
        });
        assert!(group.forget("key"));
        reached.mark("forgotten");
        // Not before the other has its result: it must not wait for the first.
        other.join().unwrap();
        let _ = first.complete(Ok(1));
        assert_quiet(&group);
    });
}

/// A caller that arrives begins the flight that others are queued for: they wake and follow, and do
/// not wait until it has landed.
#[test]
fn a_queued_caller_wakes_when_another_begins() {
    Model {
        preemptions: None,
        must_reach: &["woke", "came later"],
        executions: &[84],
    }
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
        // Gives the first up and begins the one behind it, if there is one.
        let Joined::Leader(second) = group.request("key").max_age(Duration::ZERO).join() else {
            panic!("the first is old")
        };
        if second.followers() == 1 {
            let follower = other.join().unwrap().expect("the second is there");
            assert_eq!(second.complete(Ok(2)).result.unwrap(), 2);
            assert_eq!(follower.wait().result.unwrap(), 2);
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

/// A leader panics; the willing follower goes on with its own function, the unwilling gets the
/// error, the leader unwinds, and no two functions run at once.
#[test]
fn a_willing_follower_takes_over() {
    Model {
        preemptions: None,
        must_reach: &["gave up", "missed it", "was willing"],
        executions: &[225_486],
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
        let unwound = catch_unwind(AssertUnwindSafe(|| {
            first.run(|| resume_unwind(Box::new("boom")))
        }));
        assert!(unwound.is_err());
        assert!(willing.join().unwrap().is_ok());
        reached.mark("was willing");
        match unwilling.join().unwrap() {
            Ok(_) => reached.mark("missed it"),
            Err(CallError::Panicked(_)) => reached.mark("gave up"),
            Err(other) => panic!("{other:?}"),
        }
        assert!(work.0.load(Ordering::Relaxed) <= 2);
        assert_quiet(&group);
    });
}

/// The same with nobody willing: the follower gets the error, whatever else it asked for.
#[test]
fn an_unwilling_follower_does_not_take_over() {
    Model {
        preemptions: None,
        must_reach: &["gave up", "missed it"],
        executions: &[32, 47, 67],
    }
    .explore(|reached| {
        let group = Arc::new(Group::new());
        let first = first_leader(&group);
        let other = thread::spawn({
            let group = Arc::clone(&group);
            move || group.request("key").call(|| Ok(2))
        });
        let unwound = catch_unwind(AssertUnwindSafe(|| {
            first.run(|| resume_unwind(Box::new("boom")))
        }));
        assert!(unwound.is_err());
        match other.join().unwrap() {
            Ok(value) => {
                assert_eq!(value, 2);
                reached.mark("missed it");
            }
            Err(CallError::Panicked(_)) => reached.mark("gave up"),
            Err(other) => panic!("{other:?}"),
        }
        assert_quiet(&group);
    });
}
