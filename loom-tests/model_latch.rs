//! The latch by itself: all who wait, wake.

use std::time::Duration;

use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

use crate::explore::Model;
use crate::latch::Latch;
use crate::sync::{Arc, Deadline};

/// Waits for the outcome, as a follower does.
fn wait(latch: &Latch<u32, ()>, deadline: Deadline) -> Option<u32> {
    Some(latch.wait(deadline, false)?.result.clone().unwrap())
}

/// G4, G5: two waiters and a leader, in every order; each waiter wakes, with the value, and sees
/// what was written before the landing.
#[test]
fn every_waiter_wakes() {
    Model { preemptions: None, must_reach: &["woke"], executions: &[186, 369, 732] }.explore(
        |reached| {
            let latch = Latch::new();
            let written = Arc::new(AtomicUsize::new(0));
            let waiters: Vec<_> = (0..2)
                .map(|_| {
                    let (latch, written) = (Arc::clone(&latch), Arc::clone(&written));
                    thread::spawn(move || {
                        assert_eq!(wait(&latch, Deadline::NEVER), Some(7));
                        assert_eq!(written.load(Ordering::Relaxed), 1, "G5");
                    })
                })
                .collect();
            written.store(1, Ordering::Relaxed);
            latch.land(Ok(7));
            for waiter in waiters {
                waiter.join().unwrap();
            }
            reached.mark("woke");
        },
    );
}

/// G8: a waiter whose deadline passes wakes too, with the value if that is there by then.
#[test]
fn a_waiter_may_time_out() {
    Model { preemptions: None, must_reach: &["woke", "timed out"], executions: &[14, 15, 16] }
        .explore(|reached| {
            let latch = Latch::new();
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
            latch.land(Ok(7));
            has_landed.store(1, Ordering::Release);
            waiter.join().unwrap();
            let found = wait(&latch, Deadline::after(Duration::ZERO));
            assert_eq!(found, Some(7), "G8: an outcome that is there beats a deadline");
        });
}

/// All waiters of a queue wake for their turn, before there is an outcome.
#[test]
fn a_queue_wakes_for_its_turn() {
    Model { preemptions: None, must_reach: &["woke"], executions: &[186, 369, 732] }.explore(
        |reached| {
            let latch = Latch::<u32, ()>::new();
            let waiters: Vec<_> = (0..2)
                .map(|_| {
                    let latch = Arc::clone(&latch);
                    thread::spawn(move || {
                        assert_eq!(latch.wait(Deadline::NEVER, true), None, "it has its turn");
                    })
                })
                .collect();
            latch.set_turn();
            latch.wake();
            for waiter in waiters {
                waiter.join().unwrap();
            }
            reached.mark("woke");
        },
    );
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
        let latch = Latch::new();
        let front = thread::spawn({
            let latch = Arc::clone(&latch);
            move || {
                latch.set_turn();
                latch.wake();
            }
        });
        let leader = thread::spawn({
            let latch = Arc::clone(&latch);
            move || latch.land(Ok(7))
        });
        match latch.wait(Deadline::NEVER, true) {
            None => reached.mark("found the turn"),
            Some(_) => reached.mark("found the outcome"),
        }
        assert_eq!(wait(&latch, Deadline::NEVER), Some(7));
        front.join().unwrap();
        leader.join().unwrap();
        assert!(latch.outcome().is_some(), "the outcome is gone");
    });
}
