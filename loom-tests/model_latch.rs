//! The latch by itself: whoever waits, wakes.

use loom::thread;

use crate::explore::Model;
use crate::latch::Latch;
use crate::sync::{Arc, AtomicUsize, Ordering};

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
        let latch = Arc::new(Latch::new());
        let written = Arc::new(AtomicUsize::new(0));
        let waiters: Vec<_> = (0..2)
            .map(|_| {
                let (latch, written) = (Arc::clone(&latch), Arc::clone(&written));
                thread::spawn(move || {
                    assert_eq!(*latch.wait(), 7);
                    assert_eq!(written.load(Ordering::Relaxed), 1);
                })
            })
            .collect();
        written.store(1, Ordering::Relaxed);
        latch.set(Arc::new(7));
        for waiter in waiters {
            waiter.join().unwrap();
        }
        reached.mark("woke");
    });
}
