//! What may not be shared: a flight that has ended for somebody already (G2), and an entry of the
//! map that is another flight's (G6).

use std::collections::BTreeMap;

use loom::thread;

use crate::explore::Model;
use crate::flight::Flight;
use crate::map::{meet, Part, Wish};
use crate::observer::Reports;
use crate::sync::{Arc, AtomicBool, AtomicUsize, Ordering};
use crate::{FlightGroup, Joined};

/// G2 and G6: two threads, one of them calling twice. A call gets a run that is newer than every
/// run that had been returned to anybody, leader or follower, before the call began; and no two
/// functions run at once, which they would if a leader took its successor's entry away.
#[test]
fn a_later_call_gets_a_later_run() {
    Model {
        preemptions: None,
        must_reach: &["led", "followed"],
        executions: &[9_456, 14_214, 20_558],
    }
    .explore(|reached| {
        let group = Arc::new(FlightGroup::<usize, ()>::new());
        let runs = Arc::new(AtomicUsize::new(0));
        let running = Arc::new(AtomicBool::new(false));
        let newest_returned = Arc::new(AtomicUsize::new(0));
        let call = {
            let reached = reached.clone();
            move || {
                let before = newest_returned.load(Ordering::SeqCst);
                let outcome = group.call_ex("key", || {
                    assert!(!running.swap(true, Ordering::Relaxed), "G1: one at a time");
                    let run = runs.load(Ordering::Relaxed) + 1;
                    runs.store(run, Ordering::Relaxed);
                    running.store(false, Ordering::Relaxed);
                    Ok(run)
                });
                reached.mark(if outcome.fresh() { "led" } else { "followed" });
                let run = outcome.result.unwrap();
                assert!(run > before, "G2: a run that had been returned already");
                newest_returned.fetch_max(run, Ordering::SeqCst);
            }
        };
        let other = thread::spawn({
            let call = call.clone();
            move || {
                call();
                call();
            }
        });
        call();
        other.join().unwrap();
    });
}

/// G6: a leader that ends while its successor, which found the flight closed, is in the map already
/// leaves the successor's entry alone: the next caller joins the successor and does not lead beside
/// it.
#[test]
fn a_leader_removes_only_its_own_entry() {
    Model {
        preemptions: None,
        must_reach: &[
            "joined the first",
            "led the second",
            "joined the second",
            "joined the third",
        ],
        executions: &[429],
    }
    .explore(|reached| {
        let group = Arc::new(FlightGroup::<u32, ()>::new());
        let Joined::Leader(first) = group.join("key") else {
            unreachable!("nobody else is here yet")
        };
        let second_runs = Arc::new(AtomicBool::new(false));
        let other = thread::spawn({
            let (group, reached) = (Arc::clone(&group), reached.clone());
            let second_runs = Arc::clone(&second_runs);
            move || match group.join("key") {
                Joined::Follower(follower) => reached.mark(match follower.wait().result {
                    Ok(1) => "joined the first",
                    Ok(3) => "joined the third",
                    other => panic!("{other:?}"),
                }),
                Joined::Leader(second) => {
                    second_runs.store(true, Ordering::Relaxed);
                    reached.mark("led the second");
                    second_runs.store(false, Ordering::Relaxed);
                    let _ = second.complete(Ok(2));
                }
            }
        });
        assert_eq!(first.complete(Ok(1)).result.unwrap(), 1);
        let third = group.call_ex("key", || {
            let beside = second_runs.load(Ordering::Relaxed);
            assert!(!beside, "G6: led beside the second");
            Ok(3)
        });
        if third.result.unwrap() == 2 {
            reached.mark("joined the second");
        }
        other.join().unwrap();
    });
}

/// Whoever looks at the map after a flight was closed does not board it: callers that arrive between
/// the function's return and the unlinking start afresh.
#[test]
fn nobody_boards_a_closed_flight() {
    Model {
        preemptions: None,
        must_reach: &["boarded", "refused"],
        executions: &[21],
    }
    .explore(|reached| {
        let flight = Arc::new(Flight::<(), ()>::running(Reports::to_nobody()));
        let closed = Arc::new(AtomicBool::new(false));
        let other = thread::spawn({
            let (mut named, closed) = (Arc::clone(&flight), Arc::clone(&closed));
            let reached = reached.clone();
            move || {
                let late = closed.load(Ordering::Acquire);
                let (_, part) = meet(&mut named, &mut BTreeMap::new(), Wish::default(), 1);
                let boarded = part == Part::Follows;
                assert!(!(late && boarded), "boarded a closed flight");
                reached.mark(if boarded { "boarded" } else { "refused" });
            }
        });
        flight.close();
        closed.store(true, Ordering::Release);
        other.join().unwrap();
    });
}
