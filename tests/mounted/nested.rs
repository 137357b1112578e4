//! A caller that waits inside the function of another flight: what it does does not grow with the
//! flights around it, nor with the threads of the chain that it waits for, but for the search itself
//! (`benches/nested.rs` counts that). No handle of a thread is cloned unless there is a cycle to report.

use std::thread::{self, Scope};

use crate::sync::{done, Done};
use crate::{CallError, FlightGroup, Joined};

type Group = FlightGroup<u32, &'static str, usize>;

const LEVELS: [usize; 4] = [1, 10, 100, 1_000];

fn until(happened: impl Fn() -> bool) {
    while !happened() {
        thread::yield_now();
    }
}

/// Starts a chain of threads. The first waits for the flight of key 0, and each leads a key of its own
/// for which the next one waits.
fn chain<'s>(scope: &'s Scope<'s, '_>, group: &'s Group, threads: usize) {
    for key in 1..=threads {
        scope.spawn(move || {
            let waits = || group.call(&(key - 1), || panic!("it follows"));
            group.call(&key, || waits().map_err(|_| "no value"))
        });
        // In order, so that each finds the flight before its own.
        until(|| group.stats().waiting == key as u64);
    }
}

/// Runs `f` inside so many flights, whose keys follow `key`.
fn inside<T>(group: &Group, key: usize, flights: usize, f: &dyn Fn() -> T) -> T {
    if flights == 0 {
        return f();
    }
    let mut got = None;
    let led = group.call(&(key + 1), || {
        got = Some(inside(group, key + 1, flights - 1, f));
        Ok(1)
    });
    assert_eq!(led, Ok(1));
    got.expect("the function has run")
}

/// What a nested wait does, inside so many flights, for a chain of so many threads.
fn nested_wait(threads: usize, flights: usize) -> Done {
    let group = Group::new();
    let Joined::Leader(leader) = group.join(&0) else {
        panic!("the key is free");
    };
    thread::scope(|s| {
        chain(s, &group, threads);
        let group = &group;
        let waits = move || done(|| group.call(&threads, || panic!("it follows")));
        let nested = move || inside(group, threads, flights, &waits);
        // A thousand calls within each other need more than a test's thread has.
        let big = thread::Builder::new().stack_size(256 << 20);
        let caller = big.spawn_scoped(s, nested).unwrap();
        until(|| group.stats().waiting == threads as u64 + 1);
        let _ = leader.complete(Ok(1));
        let (done, value) = caller.join().unwrap();
        assert_eq!(value, Ok(1));
        done
    })
}

fn locks(done: &Done, of: &str) -> usize {
    done.others.iter().filter(|name| name.contains(of)).count()
}

#[test]
fn a_nested_wait_does_the_same_at_every_level() {
    let shallow = nested_wait(1, 1);
    assert_eq!((shallow.map, shallow.notified), (1, 0));
    assert_eq!(locks(&shallow, "deadlock::"), 2, "{shallow:?}");
    assert_eq!(locks(&shallow, "threads::"), 0, "{shallow:?}");
    for levels in LEVELS {
        for (threads, flights) in [(levels, 1), (1, levels)] {
            let done = nested_wait(threads, flights);
            assert_eq!(done, shallow, "{threads} threads, {flights} flights");
        }
    }
}

/// A handle is cloned under the lock of the list of threads. Only the report of a cycle takes it, once
/// for each thread of the cycle.
#[test]
fn handles_of_threads_are_cloned_for_a_cycle_only() {
    for threads in [1, 10, 100] {
        let group = Group::new();
        let outcome = thread::scope(|s| {
            group.call(&0, || {
                chain(s, &group, threads);
                let (refused, value) = done(|| group.call(&threads, || panic!("it is led")));
                let Err(CallError::Deadlock(deadlock)) = value else {
                    panic!("unexpected: {value:?}");
                };
                assert_eq!(deadlock.threads().len(), threads + 1);
                assert_eq!(locks(&refused, "threads::"), threads + 1);
                Ok(1)
            })
        });
        assert_eq!(outcome, Ok(1));
    }
}
