//! What may not be shared: a flight that has ended for somebody already (G2), and an entry of the
//! map that is another flight's (G6).

use std::hash::{BuildHasherDefault, Hasher};

use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use loom::thread;

use crate::explore::Model;
use crate::sync::Arc;
use crate::{FlightGroup, Joined};

/// G2 and G6: two threads, one of them calling twice. A call gets a run that is newer than every
/// run that had been returned to anybody, leader or follower, before the call began; and no two
/// functions run at once, which they would if a leader took its successor's entry away.
#[test]
fn a_later_call_gets_a_later_run() {
    Model { preemptions: None, must_reach: &["led", "followed"], executions: &[610, 1_100, 1_835] }
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

/// G6: a flight that was given up ends while its successor is in the map. It takes itself off the
/// list and leaves the successor's entry alone: the next caller follows the successor and does not
/// lead beside it.
#[test]
fn a_leader_removes_only_its_own_entry() {
    Model {
        preemptions: None,
        must_reach: &[
            "followed the first",
            "led the second",
            "followed the second",
            "followed the third",
        ],
        executions: &[184, 334, 559],
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
                    Ok(1) => "followed the first",
                    Ok(3) => "followed the third",
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
        assert!(group.forget("key"), "the first was in the map");
        assert_eq!(first.complete(Ok(1)).result, Ok(1));
        let third = group.call_ex("key", || {
            let beside = second_runs.load(Ordering::Relaxed);
            assert!(!beside, "G6: led beside the second");
            Ok(3)
        });
        if third.result.unwrap() == 2 {
            reached.mark("followed the second");
        }
        other.join().unwrap();
        assert_eq!(group.stats().in_flight, 0, "G11");
    });
}

/// All keys collide.
#[derive(Default)]
struct Zero;

impl Hasher for Zero {
    fn write(&mut self, _: &[u8]) {}

    fn finish(&self) -> u64 {
        0
    }
}

/// G6: the flights of two keys with the same hash are told apart by identity. Each thread calls a
/// key of its own, and then both call the first.
#[test]
fn keys_with_the_same_hash_are_kept_apart() {
    Model { preemptions: None, must_reach: &["led", "followed"], executions: &[78, 138, 228] }
        .explore(|reached| {
            let hasher = BuildHasherDefault::<Zero>::default();
            let group = Arc::new(FlightGroup::<u32, (), u32, _>::with_hasher(hasher));
            let running = Arc::new([AtomicBool::new(false), AtomicBool::new(false)]);
            let call = {
                let group = Arc::clone(&group);
                move |key: u32| {
                    let running = &running[key as usize];
                    let outcome = group.call_ex(&key, || {
                        assert!(!running.swap(true, Ordering::Relaxed), "G1: one at a time");
                        running.store(false, Ordering::Relaxed);
                        Ok(key)
                    });
                    assert_eq!(outcome.result, Ok(key), "another key's outcome");
                    outcome.role
                }
            };
            let other = thread::spawn({
                let call = call.clone();
                move || {
                    assert_eq!(call(1), crate::Role::Led);
                    call(0)
                }
            });
            call(0);
            let led = other.join().unwrap() == crate::Role::Led;
            reached.mark(if led { "led" } else { "followed" });
            assert_eq!(group.stats().in_flight, 0, "G11");
        });
}
