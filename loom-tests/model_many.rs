//! Batches: one function for all keys that nobody is loading.

use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};

use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

use crate::deadlock;
use crate::explore::Model;
use crate::sync::Arc;
use crate::{CallError, FlightGroup};

type Group = FlightGroup<u32, (), u32>;

fn assert_over(group: &Group, calls: u64) {
    let stats = group.stats();
    assert_eq!((stats.in_flight, stats.waiting), (0, 0));
    assert_eq!(stats.led + stats.followed, calls, "each key is a call");
    assert_eq!(deadlock::waits(), 0, "a wait was left behind");
}

/// Two batches with the same keys in opposite order: neither waits for the other in a circle, and no
/// key is loaded twice at once.
#[test]
fn two_batches_in_opposite_order() {
    Model {
        preemptions: None,
        must_reach: &["both led all", "each led one", "one led all", "one led one"],
        executions: &[784, 1_344],
    }
    .explore(|reached| {
        let group = Arc::new(Group::new());
        let loading = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
        let batch = |keys: [u32; 2]| {
            let (group, loading) = (Arc::clone(&group), Arc::clone(&loading));
            move || {
                let mut led = 0;
                let results = group.call_many(&[&keys[0], &keys[1]], |keys| {
                    led = keys.len();
                    let counts = || keys.iter().map(|key| &loading[**key as usize]);
                    for count in counts() {
                        assert_eq!(count.fetch_add(1, Ordering::Relaxed), 0, "G1");
                    }
                    for count in counts() {
                        count.fetch_sub(1, Ordering::Relaxed);
                    }
                    Ok(keys.iter().map(|key| **key + 10).collect())
                });
                assert_eq!(results, keys.map(|key| Ok(key + 10)));
                led
            }
        };
        let other = thread::spawn(batch([1, 0]));
        let mine = batch([0, 1])();
        reached.mark(match (mine, other.join().unwrap()) {
            (1, 1) => "each led one",
            (2, 2) => "both led all",
            (2, 0) | (0, 2) => "one led all",
            (2, 1) | (1, 2) => "one led one",
            led => panic!("a key that nobody loaded: {led:?}"),
        });
        assert_over(&group, 4);
    });
}

/// A batch leads one key and follows another, whose function asks for the first. It does not wait
/// before its own have landed.
#[test]
fn a_batch_waits_after_its_own_have_landed() {
    Model {
        preemptions: None,
        must_reach: &["followed by the other", "followed the other", "led both"],
        executions: &[1_960, 6_462],
    }
    .explore(|reached| {
        let group = Arc::new(Group::new());
        let other = thread::spawn({
            let group = Arc::clone(&group);
            move || {
                let mut inner = None;
                let _ = group.call(&1, || {
                    let outcome = group.call_ex(&0, || Ok(10));
                    inner = Some(!outcome.fresh());
                    Ok(outcome.result.expect("nothing to refuse") + 1)
                });
                inner
            }
        });
        let mut led = 0;
        let results = group.call_many(&[&0, &1], |keys| {
            led = keys.len();
            Ok(keys.iter().map(|key| **key + 10).collect())
        });
        assert_eq!(results, [Ok(10), Ok(11)]);
        match (led, other.join().unwrap()) {
            (1, Some(true)) => {
                reached.mark("followed by the other");
                reached.mark("followed the other");
            }
            (2, _) => reached.mark("led both"),
            _ => {}
        }
        let calls = group.stats();
        assert_over(&group, calls.led + calls.followed);
    });
}

/// A batch panics: a caller that shares a key with it gets the reason, and no key is stuck.
#[test]
fn a_batch_panics() {
    Model {
        preemptions: None,
        must_reach: &["got the panic", "missed it"],
        executions: &[180, 316],
    }
    .explore(|reached| {
        let group = Arc::new(Group::new());
        let other = thread::spawn({
            let group = Arc::clone(&group);
            move || group.call(&1, || Ok(2))
        });
        // Without the messages of the default hook, which would come once for each execution.
        let unwound = catch_unwind(AssertUnwindSafe(|| {
            group.call_many(&[&0, &1], |keys| match keys.len() {
                2 => resume_unwind(Box::new("boom")),
                _ => Ok(vec![1]),
            })
        }));
        match (unwound, other.join().unwrap()) {
            (Err(_), Err(CallError::Panicked(_))) => reached.mark("got the panic"),
            (_, Ok(2)) => reached.mark("missed it"),
            (_, other) => panic!("{other:?}"),
        }
        assert_eq!(group.call(&0, || Ok(3)), Ok(3));
        assert_eq!(group.call(&1, || Ok(3)), Ok(3));
        let stats = group.stats();
        assert_eq!((stats.in_flight, stats.waiting), (0, 0));
    });
}

/// The function of a batch leads all of its keys: one that waits for any of them and leads what the
/// function asks for is part of a cycle.
#[test]
fn a_ring_through_a_batch() {
    Model {
        preemptions: None,
        must_reach: &["nobody refused", "the batch", "the other"],
        executions: &[1_116, 2_264],
    }
    .explore(|reached| {
        let group = Arc::new(Group::new());
        let is_refused = |result: &Result<u32, CallError<()>>| match result {
            Ok(_) | Err(CallError::Failed(_)) => false,
            Err(CallError::Deadlock(_)) => true,
            Err(other) => panic!("{other:?}"),
        };
        let other = thread::spawn({
            let group = Arc::clone(&group);
            move || {
                let mut refused = false;
                let _ = group.call(&2, || {
                    let inner = group.call(&0, || Ok(10));
                    refused = is_refused(&inner);
                    inner.map_err(drop)
                });
                refused
            }
        });
        let mut refused = false;
        let results = group.call_many(&[&0, &1], |keys| {
            let inner = group.call(&2, || Ok(12));
            refused = is_refused(&inner);
            Ok(vec![inner.map_err(drop)?; keys.len()])
        });
        reached.mark(match (refused, other.join().unwrap()) {
            (false, false) => "nobody refused",
            (true, false) => "the batch",
            (false, true) => "the other",
            (true, true) => panic!("both were refused"),
        });
        assert_eq!(results.len(), 2);
        let stats = group.stats();
        assert_eq!((stats.in_flight, stats.waiting), (0, 0));
        assert_eq!(deadlock::waits(), 0, "a wait was left behind");
    });
}
