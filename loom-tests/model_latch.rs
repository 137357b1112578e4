//! The latch by itself: whoever waits, wakes.

use std::time::Duration;

use loom::thread;

use crate::explore::Model;
use crate::latch::Latch;
use crate::sync::{Arc, AtomicUsize, Deadline, Ordering};

/// G4, G5: two waiters and a setter, in every order; each waiter wakes, with the value, and sees
/// what was written before the latch was set.
#[test]
fn every_waiter_wakes() {
    Model {
        preemptions: None,
        must_reach: &["woke"],
        executions: &[186, 369, 732],
    }
    .explore(|reached| {
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
        latch.change(|state| *state = 7);
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
        latch.change(|state| *state = 7);
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
