//! Work stealing makes a thread that waits inside a shared function ask for what it leads.

#[path = "../../common/mod.rs"]
mod common;

use std::sync::mpsc;
use std::time::Duration;

use common::{assert_quiet, watchdog};
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use shared_calls::{CallError, FlightGroup, Role};

type Group = FlightGroup<u32, &'static str, u32>;
type Got = Result<u32, CallError<&'static str>>;

fn pool(threads: usize) -> ThreadPool {
    // Work that was taken up lies on top of the work that waits, sometimes many times over.
    let builder = ThreadPoolBuilder::new().stack_size(64 << 20);
    let named = builder.thread_name(|i| format!("worker {i}"));
    named.num_threads(threads).build().unwrap()
}

fn no_second_run() -> Result<u32, &'static str> {
    panic!("no second execution")
}

#[track_caller]
fn assert_refused(got: Got, by: &str) {
    let Err(CallError::Deadlock(deadlock)) = got else {
        panic!("not refused: {got:?}");
    };
    let names: Vec<_> = deadlock.threads().iter().map(|thread| thread.name()).collect();
    assert_eq!(names, [Some(by)]);
}

/// The one thread of the pool runs the first item, and the function takes up the second.
#[test]
fn a_function_that_yields_to_rayon_takes_up_work_that_asks_for_its_key() {
    let _watchdog = watchdog();
    let group = Group::new();
    let both = || {
        let items = (0..2).into_par_iter().map(|item| {
            group.call(&7, || {
                rayon::yield_now();
                Ok(item)
            })
        });
        items.collect::<Vec<_>>()
    };
    let mut got = pool(1).install(both).into_iter();
    assert_eq!(got.next().unwrap().unwrap(), 0);
    assert_refused(got.next().unwrap(), "worker 0");
    assert_eq!((group.stats().led, group.stats().deadlocked), (1, 1));
    assert_quiet(&group);
}

/// Each function takes up the next item, on top of the one before.
#[test]
fn alone_on_deadlock_gives_every_caller_a_value() {
    let _watchdog = watchdog();
    let group = Group::new();
    let all = || {
        let items = (0..8).into_par_iter().with_max_len(1).map(|item| {
            let request = group.request(&7).alone_on_deadlock();
            let outcome = request.call_ex(|| {
                rayon::yield_now();
                Ok(item)
            });
            assert_eq!((outcome.role, outcome.followers), (Role::Led, 0));
            outcome.result.unwrap()
        });
        items.collect::<Vec<_>>()
    };
    assert_eq!(pool(1).install(all), [0, 1, 2, 3, 4, 5, 6, 7]);
    let stats = group.stats();
    assert_eq!((stats.led, stats.deadlocked), (1, 7));
    assert_quiet(&group);
}

/// "k"'s function waits for a half of its own that the other thread has taken. While it does, its
/// thread takes up what comes in from outside.
#[test]
fn a_function_that_waits_for_rayon_takes_up_work_that_asks_for_its_key() {
    let _watchdog = watchdog();
    for alone in [false, true] {
        let group = &Group::new();
        let (begin, begun) = mpsc::channel();
        let (finish, finished) = mpsc::channel();
        let (tell, told_by) = mpsc::channel();
        let pool = pool(2);
        pool.in_place_scope(|s| {
            let (tell_leader, leader) = mpsc::channel();
            s.spawn(move |_| {
                let led = group.call(&7, || {
                    let first = move || {
                        begun.recv().unwrap();
                        tell_leader.send(rayon::current_thread_index()).unwrap();
                    };
                    let second = move || {
                        begin.send(()).unwrap();
                        finished.recv().unwrap();
                    };
                    rayon::join(first, second);
                    Ok(1)
                });
                assert_eq!(led.unwrap(), 1);
            });
            // From now on the other thread is held in the second half, until this is over.
            let leader = leader.recv().unwrap();
            s.spawn(move |_| {
                assert_eq!(rayon::current_thread_index(), leader);
                let request = group.request(&7);
                let got = match alone {
                    true => request.alone_on_deadlock().call(|| Ok(2)),
                    false => request.call(no_second_run),
                };
                tell.send(got).unwrap();
                finish.send(()).unwrap();
            });
            let got = told_by.recv().unwrap();
            match alone {
                true => assert_eq!(got.unwrap(), 2),
                false => assert_refused(got, &format!("worker {}", leader.unwrap())),
            }
        });
        assert_eq!((group.stats().led, group.stats().deadlocked), (1, 1));
        assert_quiet(group);
    }
}

/// The half that the other thread has taken waits for the function's own flight: for the crate, a
/// caller like any other. Without its time limit both would wait for ever.
#[test]
fn a_limit_ends_a_wait_that_only_rayon_knows_to_be_without_end() {
    let _watchdog = watchdog();
    let group = &Group::new();
    let led = pool(2).install(|| {
        group.call(&7, || {
            let (begin, begun) = mpsc::channel();
            let first = move || begun.recv().unwrap();
            let second = move || {
                begin.send(()).unwrap();
                let request = group.request(&7).timeout(Duration::from_millis(2));
                request.alone_on_deadlock().call(no_second_run)
            };
            let ((), got) = rayon::join(first, second);
            assert!(matches!(got, Err(CallError::TimedOut)), "{got:?}");
            Ok(1)
        })
    });
    assert_eq!(led.unwrap(), 1);
    assert_eq!((group.stats().led, group.stats().timed_out), (1, 1));
    assert_quiet(group);
}

const KEYS: u32 = 4;

/// Waits for nothing. (But gives the others time to come and take something.)
fn leaf() -> u32 {
    std::thread::yield_now();
    1
}

/// Keeps to the rule in this package's documentation: what the functions hand to rayon waits for
/// nothing.
fn ask_or_be_alone(group: &Group, number: u32, depth: u32) {
    let key = number % KEYS;
    let request = group.request(&key).alone_on_deadlock();
    let value = request.call(|| {
        assert_eq!(rayon::join(leaf, leaf), (1, 1));
        if depth > 0 {
            ask_or_be_alone(group, number / KEYS, depth - 1);
        }
        // Of two, which is split once.
        let sum: u32 = [(); 2].par_iter().map(|()| leaf()).sum();
        Ok(key + sum)
    });
    assert_eq!(value.unwrap(), key + 2);
}

/// Tasks that are spawned one by one. A thread that waits inside a function, or inside a task on
/// top of it, then waits for a [`leaf`], which ends, or for a flight; and that is seen, as it leads
/// what lies beneath.
#[test]
fn spawned_tasks_with_alone_on_deadlock_never_hang() {
    const ROUNDS: u32 = 200;
    const TASKS: u32 = 64;
    let _watchdog = watchdog();
    let pool = pool(4);
    let group = &Group::new();
    for _ in 0..ROUNDS {
        pool.scope(|s| {
            for number in 0..TASKS {
                s.spawn(move |_| ask_or_be_alone(group, number, 2));
            }
        });
        assert_quiet(group);
    }
    let stats = group.stats();
    println!("{stats:?}");
    assert!(stats.followed > 0 && stats.deadlocked > 0, "{stats:?}");
    // Those that led or ran alone asked for another one each, except the innermost.
    assert!(stats.calls() >= (ROUNDS * TASKS).into());
}

/// Breaks the rule: its parts wait for rayon and for flights. So no caller may wait without a limit.
/// Where only its own limit could end its wait it runs alone at once, and elsewhere when its time is
/// up.
fn ask_with_a_limit(group: &Group, number: u32, depth: u32) {
    let key = number % KEYS;
    let function = || {
        (0..3).into_par_iter().for_each(|part| match depth {
            0 => drop(leaf()),
            _ => ask_with_a_limit(group, number * 3 + part, depth - 1),
        });
        key
    };
    let request = group.request(&key).timeout(Duration::from_millis(1));
    let value = match request.alone_on_deadlock().call(|| Ok(function())) {
        Err(CallError::TimedOut) => function(),
        got => got.unwrap(),
    };
    assert_eq!(value, key);
}

#[test]
fn a_par_iter_of_calls_with_a_limit_never_hangs() {
    const ROUNDS: u32 = 8;
    const TASKS: u32 = 64;
    let _watchdog = watchdog();
    let pool = pool(4);
    let group = &Group::new();
    for _ in 0..ROUNDS {
        pool.install(|| {
            let numbers = (0..TASKS).into_par_iter();
            numbers.for_each(|number| ask_with_a_limit(group, number, 2));
        });
        assert_quiet(group);
    }
    let stats = group.stats();
    println!("{stats:?}");
    assert!(stats.followed > 0 && stats.timed_out > 0, "{stats:?}");
    assert!(stats.deadlocked > 0, "{stats:?}");
}
