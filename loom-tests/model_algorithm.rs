//! The forty lines of `docs/algorithm.md`, as they stand there (`tests/pages.rs` compares the two).

use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use loom::thread;

use crate::explore::Model;
use crate::sync::Arc;

/// The page names std, so here is a `std` whose locks are the models'.
mod page {
    mod std {
        pub(super) use ::std::collections;

        pub(super) mod sync {
            use ::std::convert::Infallible;

            use crate::sync::{self, Deadline, MutexGuard};
            pub(in super::super) use ::std::sync::Arc;

            pub(in super::super) struct Mutex<T>(sync::Mutex<T>);

            impl<T> Mutex<T> {
                pub(in super::super) fn new(value: T) -> Self {
                    Self(sync::Mutex::new(value))
                }

                pub(in super::super) fn lock(&self) -> Result<MutexGuard<'_, T>, Infallible> {
                    Ok(self.0.lock())
                }
            }

            pub(in super::super) struct Condvar(sync::Condvar);

            impl Condvar {
                pub(in super::super) fn new() -> Self {
                    Self(sync::Condvar::new())
                }

                pub(in super::super) fn wait<'a, T>(
                    &self,
                    guard: MutexGuard<'a, T>,
                ) -> Result<MutexGuard<'a, T>, Infallible> {
                    Ok(self.0.wait(guard, Deadline::NEVER))
                }

                pub(in super::super) fn notify_all(&self) {
                    self.0.notify_all();
                }
            }
        }
    }

    include!("../docs/algorithm.rs");
}

/// Two threads, one of which calls twice: one function at a time (G1), no caller left waiting (G4),
/// and a later call gets a later run (G2).
#[test]
fn the_forty_lines() {
    Model { preemptions: None, must_reach: &["led", "followed"], executions: &[267, 414] }.explore(
        |reached| {
            let group = Arc::new(page::Group::new());
            let runs = Arc::new(AtomicUsize::new(0));
            let running = Arc::new(AtomicBool::new(false));
            let newest_returned = Arc::new(AtomicUsize::new(0));
            let call = {
                let reached = reached.clone();
                move || {
                    let before = newest_returned.load(Ordering::SeqCst);
                    let mut led = false;
                    let run = group.call("key", || {
                        led = true;
                        assert!(!running.swap(true, Ordering::Relaxed), "G1: one at a time");
                        let run = runs.load(Ordering::Relaxed) + 1;
                        runs.store(run, Ordering::Relaxed);
                        running.store(false, Ordering::Relaxed);
                        run
                    });
                    reached.mark(if led { "led" } else { "followed" });
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
        },
    );
}
