//! The bars: what a call may cost beside the literal version of the algorithm, and the release of
//! followers beside a bare broadcast. All in one run, round by round in turn, so that whatever else
//! the machine does affects all alike; medians of many rounds.
//!
//! ```text
//! cargo bench --bench bars              # a table
//! cargo bench --bench bars -- --check   # and exit code 1 where a bar is missed by over 10 %
//! ```
#![cfg_attr(loom, allow(dead_code, unused_imports))]

mod crew;
mod literal;
mod release;

use std::hint::black_box;
use std::io;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use literal::Literal;
use release::{Bare, Turns};
use shared_calls::FlightGroup;

/// The lone call: calls in a round, and rounds of each contender.
const CALLS: u32 = 5_000;
const LONE_ROUNDS: usize = 1_000;

/// Of these, called in turn.
const KEYS: usize = 1_000;

/// Followers, and pairs of rounds with so many.
const RELEASES: [(usize, usize); 3] = [(64, 200), (512, 100), (4_096, 20)];

const LONE_BAR: f64 = 0.7;
const RELEASE_BAR: f64 = 1.1;

/// By how much `--check` lets a bar be missed: ratios differ from one processor to the next.
const MARGIN: f64 = 1.1;

// Under loom there is nothing to measure.
#[cfg(loom)]
fn main() {}

#[cfg(not(loom))]
fn main() -> ExitCode {
    eprintln!("the lone call, {LONE_ROUNDS} rounds of {CALLS} calls each …");
    let [one_key, literal_one_key, in_turn, literal_in_turn, two_locks] = lone();
    println!("{:<34} {:>12}", "two lock pairs", format!("{two_locks:.1} ns"));
    let mut met = bar("lone call, one key", one_key, literal_one_key, LONE_BAR);
    met &= bar("lone call, 1,000 keys in turn", in_turn, literal_in_turn, LONE_BAR);
    for (followers, rounds) in RELEASES {
        eprintln!("the release of {followers} followers, {rounds} pairs of rounds each …");
        let [group, bare] = release(followers, rounds);
        met &= bar(&format!("release of {followers}"), group, bare, RELEASE_BAR);
    }
    println!("beside: the literal version; a bare Condvar broadcast");
    // Only on request: cargo itself passes `--bench`, and a figure is not always a test.
    if met || !std::env::args().any(|arg| arg == "--check") {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Prints a row, both figures in nanoseconds. Returns whether the bar is met within the margin.
fn bar(what: &str, measured: f64, beside: f64, bar: f64) -> bool {
    let ratio = measured / beside;
    let verdict = if ratio <= bar { "met" } else { "MISSED" };
    let [measured, beside] = [measured, beside].map(|nanos| match nanos {
        _ if nanos < 10_000.0 => format!("{nanos:.1} ns"),
        _ => format!("{:.1} µs", nanos / 1_000.0),
    });
    println!("{what:<34} {measured:>12} beside {beside:>12}: {ratio:.2}, bar {bar}: {verdict}");
    ratio <= bar * MARGIN
}

/// Nanoseconds of one lone call, of one key and of keys in turn, each by the group and by the literal
/// version; and of two lock pairs, which nothing can do without.
fn lone() -> [f64; 5] {
    let group = FlightGroup::<u64, io::Error>::new();
    let literal = Literal::<String, Result<u64, Arc<io::Error>>>::new();
    let mutex = Mutex::new(0);
    let keys: Vec<_> = (0..KEYS).map(|i| format!("user:{i:03}")).collect();
    let keys = || keys.iter().map(String::as_str).cycle();
    let one_key = || keys().take(1).cycle();
    let by_group = |key: &str| drop(black_box(group.call(key, || Ok(black_box(42)))));
    let by_literal = |key: &str| drop(black_box(literal.call(key, || Ok(black_box(42)))));
    let two_lock_pairs = |_: &str| {
        *black_box(&mutex).lock().unwrap() += 1;
        *black_box(&mutex).lock().unwrap() += 1;
    };
    medians(LONE_ROUNDS, |_| {
        [
            each(one_key(), by_group),
            each(one_key(), by_literal),
            each(keys(), by_group),
            each(keys(), by_literal),
            each(one_key(), two_lock_pairs),
        ]
    })
    .map(|round| round / f64::from(CALLS))
}

fn each<'a>(keys: impl Iterator<Item = &'a str>, call: impl Fn(&str)) -> Duration {
    let keys: Vec<_> = keys.take(CALLS as usize).collect();
    let begun = Instant::now();
    for key in keys {
        // Hidden from the optimiser, as a key that came over the network would be.
        call(black_box(key));
    }
    begun.elapsed()
}

/// Nanoseconds of the release of so many followers: the group's, and a bare broadcast. Every other
/// round has them in the other order, because the one before leaves the processors in a state of its
/// own.
fn release(followers: usize, rounds: usize) -> [f64; 2] {
    let group = || Arc::new(FlightGroup::<u64, io::Error>::new());
    let bare = || Arc::new(Bare::new());
    let turns = Turns::new(followers, vec![group(), bare(), bare(), group()]);
    medians(2 * rounds, |round| {
        let [first, second] = [turns.round(), turns.round()];
        match round % 2 {
            0 => [first, second],
            _ => [second, first],
        }
    })
}

/// The contenders' medians, in nanoseconds. `round` gets its number.
fn medians<const N: usize>(
    rounds: usize,
    mut round: impl FnMut(usize) -> [Duration; N],
) -> [f64; N] {
    // The first two only warm up.
    let rounds: Vec<_> = (0..rounds + 2).map(&mut round).skip(2).collect();
    std::array::from_fn(|contender| {
        let mut times: Vec<_> = rounds.iter().map(|round| round[contender]).collect();
        times.sort();
        times[times.len() / 2].as_secs_f64() * 1e9
    })
}
