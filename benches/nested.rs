//! A caller that waits inside the function of another flight, in instructions: the search for a cycle
//! follows the chain of threads that it waits for, and nothing else makes it longer.
//!
//! ```text
//! cargo bench --bench nested              # needs valgrind
//! cargo bench --bench nested -- --check   # and exit code 1 where a bar is missed
//! ```
//!
//! One wait with a time limit that ends by it, so that it can be repeated: the lock of the graph, the
//! search, and the way into the sleep and out of it. What the kernel does is not counted. The last column
//! says what each thread adds to the chain of one. Where each leads 100 flights, it says what these add
//! for each thread: a binary search.
#![cfg_attr(loom, allow(dead_code, unused_imports))]

mod callgrind;

use std::env;
use std::io;
use std::process::ExitCode;
use std::thread::{self, Scope};
use std::time::Duration;

use callgrind::count;
use shared_calls::{FlightGroup, Joined};

const LEVELS: [u64; 4] = [1, 10, 100, 1_000];

/// To count a wait, count so many and twice as many, and take the difference.
const WAITS: u64 = 50;

/// A thread of a chain may cost at most so many instructions, in a chain of any length. (It is looked
/// up in a tree, which is deeper for a longer chain.)
const BAR_PER_THREAD: u64 = 250;

/// And flights around the waits may cost at most so many for each thread, however many they are.
const BAR_FLIGHTS: u64 = 200;

#[cfg(loom)]
fn main() {}

#[cfg(not(loom))]
fn main() -> ExitCode {
    let args: Vec<_> = env::args().skip(1).collect();
    let numbers: Vec<_> = args.iter().filter_map(|arg| arg.parse().ok()).collect();
    if let [threads, flights, waits] = numbers[..] {
        work(threads, flights, waits);
        return ExitCode::SUCCESS;
    }
    match measure() {
        Err(error) => {
            eprintln!("cannot count with valgrind: {error}");
            ExitCode::FAILURE
        }
        Ok(good) if good || !args.iter().any(|arg| arg == "--check") => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
    }
}

/// Prints the table, and tells whether the bars are met.
fn measure() -> io::Result<bool> {
    let mut good = true;
    println!("instructions in a nested wait");
    println!(
        "{:>20}{:>20}{:>20}{:>20}",
        "threads in a chain", "flights of each", "instructions", "for each thread"
    );
    let mut row = |threads: u64, flights: u64, base: u64, bar: u64| -> io::Result<u64> {
        let all = wait(threads, flights)?;
        let each = all.saturating_sub(base) / threads;
        let verdict = if each > bar { "   over the bar" } else { "" };
        println!("{threads:>20}{flights:>20}{all:>20}{each:>20}{verdict}");
        good &= each <= bar;
        Ok(all)
    };
    let one = row(1, 1, 0, u64::MAX)?;
    for levels in &LEVELS[1..] {
        let chain = row(*levels, 1, one, BAR_PER_THREAD)?;
        row(1, *levels, one, BAR_FLIGHTS)?;
        if *levels < 1_000 {
            row(*levels, 100, chain, BAR_FLIGHTS)?;
        }
    }
    println!("bars: {BAR_PER_THREAD} for each thread, {BAR_FLIGHTS} more for all flights of it");
    Ok(good)
}

/// The instructions of one wait.
fn wait(threads: u64, flights: u64) -> io::Result<u64> {
    let count = |waits: u64| {
        let args = [threads, flights, waits].map(|n| n.to_string());
        count(&[&args[0], &args[1], &args[2]])
    };
    Ok(count(2 * WAITS)?.saturating_sub(count(WAITS)?) / WAITS)
}

/// The keys of flights that nobody waits for, those of a thread this far apart.
const OTHER_KEYS: u64 = 10_000;

type Group = FlightGroup<u64, &'static str, u64>;

/// Makes so many waits for a chain of so many threads. Each thread waits inside so many flights.
fn work(threads: u64, flights: u64, waits: u64) {
    let group = &Group::new();
    let Joined::Leader(leader) = group.join(&0) else {
        panic!("the key is free");
    };
    thread::scope(|s| {
        chain(s, group, threads, flights);
        let nested = move || {
            inside(group, threads + 1, flights, &|| {
                let Joined::Follower(follower) = group.join(&threads) else {
                    panic!("the chain leads it");
                };
                for _ in 0..waits {
                    assert!(follower.wait_timeout(Duration::from_millis(1)).is_none());
                }
            });
        };
        // A thousand calls within each other need much of a stack.
        let big = thread::Builder::new().stack_size(64 << 20);
        let caller = big.spawn_scoped(s, nested).expect("a thread");
        caller.join().expect("no wait is refused");
        drop(leader);
    });
}

/// Starts a chain of threads. The first waits for the flight of key 0, and each leads a key of its own
/// for which the next one waits.
fn chain<'s>(scope: &'s Scope<'s, '_>, group: &'s Group, threads: u64, flights: u64) {
    for key in 1..=threads {
        let waits = move || {
            inside(group, key, flights, &|| {
                drop(group.call(&(key - 1), || panic!("it follows")));
            });
        };
        let small = thread::Builder::new().stack_size(1 << 20);
        small.spawn_scoped(scope, waits).expect("a thread");
        // In order, so that each finds the flight before its own.
        while group.stats().waiting < key {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Runs `f` inside so many flights. The outermost one has this key.
fn inside(group: &Group, key: u64, flights: u64, f: &dyn Fn()) {
    if flights == 0 {
        return f();
    }
    let led = group.call(&key, || {
        inside(group, key + OTHER_KEYS, flights - 1, f);
        Ok(1)
    });
    assert_eq!(led, Ok(1));
}
