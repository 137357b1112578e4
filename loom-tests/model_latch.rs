//! The latch by itself: whoever waits, wakes.

use std::time::Duration;

use loom::thread;

use crate::explore::{Model, Reached};
use crate::latch::Latch;
use crate::sync::{Arc, AtomicUsize, Deadline, Ordering, CROWD};

/// G4, G5: two waiters and a setter, in every order; each waiter wakes, with the value, and sees
/// what was written before the latch was set.
#[test]
fn every_waiter_wakes() {
    Model {
        preemptions: None,
        must_reach: &["woke"],
        executions: &[186, 369, 732],
    }
    .explore(|reached| two_waiters(CROWD - 1, reached));
}

/// The same where the setter wakes only one, who wakes the other.
#[test]
fn every_waiter_of_a_crowd_wakes() {
    Model {
        preemptions: None,
        must_reach: &["woke"],
        executions: &[278, 926, 2_251],
    }
    .explore(|reached| two_waiters(CROWD, reached));
}

fn two_waiters(as_many_as: usize, reached: &Reached) {
    let latch = Arc::new(Latch::new(0));
    let written = Arc::new(AtomicUsize::new(0));
    let waiters: Vec<_> = (0..2)
        .map(|_| {
            let (latch, written) = (Arc::clone(&latch), Arc::clone(&written));
            thread::spawn(move || {
                assert_eq!(latch.wait(Deadline::Never, seven), Some(7));
                assert_eq!(written.load(Ordering::Relaxed), 1);
            })
        })
        .collect();
    written.store(1, Ordering::Relaxed);
    latch.change(as_many_as, |state| *state = 7);
    for waiter in waiters {
        waiter.join().unwrap();
    }
    reached.mark("woke");
}

/// Of a crowd, whoever wakes first wakes the others: also one that waits for something else.
#[test]
fn a_crowd_may_wait_for_different_things() {
    Model {
        preemptions: None,
        must_reach: &["both woke"],
        executions: &[2_579, 11_125, 30_961],
    }
    .explore(|reached| {
        let latch = Arc::new(Latch::new(0));
        let waiter = |least: u32| {
            let latch = Arc::clone(&latch);
            let at_least = move |state: &mut u32| (*state >= least).then_some(*state);
            thread::spawn(move || latch.wait(Deadline::Never, at_least).unwrap())
        };
        let (seven, eight) = (waiter(7), waiter(8));
        latch.change(CROWD, |state| *state = 7);
        assert_eq!(seven.join().unwrap(), 7);
        latch.change(CROWD, |state| *state = 8);
        assert_eq!(eight.join().unwrap(), 8);
        reached.mark("both woke");
    });
}

/// The same where the one that is woken may be about to time out.
#[test]
fn a_crowd_wakes_though_one_times_out() {
    Model {
        preemptions: None,
        must_reach: &["timed out", "woke"],
        executions: &[659, 1_725],
    }
    .explore(|reached| {
        let latch = Arc::new(Latch::new(0));
        let hasty = thread::spawn({
            let latch = Arc::clone(&latch);
            move || latch.wait(Deadline::after(Duration::from_secs(1)), seven)
        });
        let patient = thread::spawn({
            let latch = Arc::clone(&latch);
            move || latch.wait(Deadline::Never, seven)
        });
        latch.change(CROWD, |state| *state = 7);
        assert_eq!(patient.join().unwrap(), Some(7));
        match hasty.join().unwrap() {
            Some(_) => reached.mark("woke"),
            None => reached.mark("timed out"),
        }
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
        let latch = Arc::new(Latch::new(0));
        let is_set = Arc::new(AtomicUsize::new(0));
        let waiter = thread::spawn({
            let (latch, is_set) = (Arc::clone(&latch), Arc::clone(&is_set));
            let reached = reached.clone();
            move || {
                let deadline = Deadline::after(Duration::from_secs(1));
                let was_set = is_set.load(Ordering::Acquire) == 1;
                match latch.wait(deadline, seven) {
                    Some(seven) => {
                        assert_eq!(seven, 7);
                        reached.mark("woke");
                    }
                    None => {
                        assert!(!was_set, "what is there beats a deadline");
                        reached.mark("timed out");
                    }
                }
            }
        });
        latch.change(1, |state| *state = 7);
        is_set.store(1, Ordering::Release);
        waiter.join().unwrap();
        assert_eq!(
            latch.wait(Deadline::Passed, seven),
            Some(7),
            "what is there beats a deadline"
        );
    });
}

fn seven(state: &mut u32) -> Option<u32> {
    (*state == 7).then_some(7)
}
