//! The latch by itself: all who wait, wake.

use std::time::Duration;

use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

use crate::explore::Model;
use crate::latch::{Awaited, Latch};
use crate::sync::{Arc, Deadline};
use crate::{Outcome, Role};

fn seven() -> Arc<Outcome<u32, ()>> {
    Arc::new(Outcome {
        result: Ok(7),
        role: Role::Led,
        followers: 0,
    })
}

/// Waits for the outcome, as a follower does.
fn wait(latch: &Latch<u32, ()>, deadline: Deadline) -> Option<u32> {
    match latch.wait(deadline, false)? {
        Awaited::Landed(outcome) => Some(outcome.result.clone().unwrap()),
        Awaited::Turn => panic!("a follower has no turn"),
    }
}

/// G4, G5: two waiters and a leader, in every order; each waiter wakes, with the value, and sees
/// what was written before the landing.
#[test]
fn every_waiter_wakes() {
    Model {
        preemptions: None,
        must_reach: &["woke"],
        executions: &[186, 369, 732],
    }
    .explore(|reached| {
        let latch = Latch::new(false);
        let written = Arc::new(AtomicUsize::new(0));
        let waiters: Vec<_> = (0..2)
            .map(|_| {
                let (latch, written) = (Arc::clone(&latch), Arc::clone(&written));
                thread::spawn(move || {
                    assert_eq!(wait(&latch, Deadline::Never), Some(7));
                    assert_eq!(written.load(Ordering::Relaxed), 1, "G5");
                })
            })
            .collect();
        written.store(1, Ordering::Relaxed);
        latch.land(seven());
        for waiter in waiters {
            waiter.join().unwrap();
        }
        reached.mark("woke");
    });
}

/// G8: a waiter whose deadline passes wakes too, with the value if that is there by then.
#[test]
fn a_waiter_may_time_out() {
    Model {
        preemptions: None,
        must_reach: &["woke", "timed out"],
        executions: &[14, 15, 16],
    }
    .explore(|reached| {
        let latch = Latch::new(false);
        let has_landed = Arc::new(AtomicUsize::new(0));
        let waiter = thread::spawn({
            let (latch, has_landed) = (Arc::clone(&latch), Arc::clone(&has_landed));
            let reached = reached.clone();
            move || {
                let deadline = Deadline::after(Duration::from_secs(1));
                let had_landed = has_landed.load(Ordering::Acquire) == 1;
                match wait(&latch, deadline) {
                    Some(value) => {
                        assert_eq!(value, 7);
                        reached.mark("woke");
                    }
                    None => {
                        assert!(!had_landed, "G8: an outcome that is there beats a deadline");
                        reached.mark("timed out");
                    }
                }
            }
        });
        latch.land(seven());
        has_landed.store(1, Ordering::Release);
        waiter.join().unwrap();
        let found = wait(&latch, Deadline::Passed);
        assert_eq!(
            found,
            Some(7),
            "G8: an outcome that is there beats a deadline"
        );
    });
}

/// One waiter times out while another waits without a limit: the landing wakes the one that stays.
#[test]
fn one_wakes_while_another_times_out() {
    Model {
        preemptions: None,
        must_reach: &["timed out", "woke"],
        executions: &[243, 498, 1_005],
    }
    .explore(|reached| {
        let latch = Latch::new(false);
        let hasty = thread::spawn({
            let latch = Arc::clone(&latch);
            move || wait(&latch, Deadline::after(Duration::from_secs(1)))
        });
        let patient = thread::spawn({
            let latch = Arc::clone(&latch);
            move || wait(&latch, Deadline::Never)
        });
        latch.land(seven());
        assert_eq!(patient.join().unwrap(), Some(7));
        reached.mark(match hasty.join().unwrap() {
            Some(_) => "woke",
            None => "timed out",
        });
    });
}

/// Both waiters of a queue wake for their turn, and again for the outcome.
#[test]
fn a_queue_wakes_for_its_turn_and_for_the_outcome() {
    Model {
        preemptions: None,
        must_reach: &["found the turn", "found the outcome"],
        executions: &[41_607, 114_162],
    }
    .explore(|reached| {
        let latch = Latch::new(false);
        let waiters: Vec<_> = (0..2)
            .map(|_| {
                let (latch, reached) = (Arc::clone(&latch), reached.clone());
                thread::spawn(move || match latch.wait(Deadline::Never, true) {
                    Some(Awaited::Turn) => {
                        reached.mark("found the turn");
                        assert_eq!(wait(&latch, Deadline::Never), Some(7));
                    }
                    Some(Awaited::Landed(outcome)) => {
                        reached.mark("found the outcome");
                        assert_eq!(outcome.result, Ok(7));
                    }
                    None => panic!("there was no deadline"),
                })
            })
            .collect();
        latch.set_turn();
        latch.land(seven());
        for waiter in waiters {
            waiter.join().unwrap();
        }
    });
}

/// An arriving caller takes the lead and lands before the leader in front has set the turn. The
/// outcome stays.
#[test]
fn a_turn_that_comes_late_leaves_the_outcome() {
    Model {
        preemptions: None,
        must_reach: &["found the turn", "found the outcome"],
        executions: &[1_196, 2_844, 5_649],
    }
    .explore(|reached| {
        let latch = Latch::new(false);
        let front = thread::spawn({
            let latch = Arc::clone(&latch);
            move || latch.set_turn()
        });
        let leader = thread::spawn({
            let latch = Arc::clone(&latch);
            move || latch.land(seven())
        });
        match latch.wait(Deadline::Never, true) {
            Some(Awaited::Turn) => reached.mark("found the turn"),
            Some(Awaited::Landed(_)) => reached.mark("found the outcome"),
            None => panic!("there was no deadline"),
        }
        assert_eq!(wait(&latch, Deadline::Never), Some(7));
        front.join().unwrap();
        leader.join().unwrap();
        assert_eq!(
            wait(&latch, Deadline::Passed),
            Some(7),
            "the outcome is gone"
        );
    });
}
