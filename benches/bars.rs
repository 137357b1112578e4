//! The bars: how dear the crate may be beside the hand-written version and beside the bare
//! primitives that nothing can do without. All in one run, round by round in turn, so that
//! whatever else the machine is doing hits all alike; medians of many rounds.
//!
//! ```text
//! cargo bench --bench bars              # a table
//! cargo bench --bench bars -- --check   # and exit code 1 where a bar is missed
//! ```
#![cfg_attr(loom, allow(dead_code, unused_imports))]

mod crew;
mod handwritten;
mod release;

use std::hint::black_box;
use std::io;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use handwritten::Handwritten;
use release::{Bare, ByHand, Nested, Turns};
use shared_calls::FlightGroup;

/// The lone call: so many calls to a round, and rounds of each contender.
const CALLS: u32 = 5_000;
const LONE_ROUNDS: usize = 1_000;

const FOLLOWERS: usize = 512;
const RELEASE_ROUNDS: usize = 200;

// Under loom there is nothing to measure.
#[cfg(loom)]
fn main() {}

#[cfg(not(loom))]
fn main() -> ExitCode {
    eprintln!("the lone call, {LONE_ROUNDS} rounds of {CALLS} calls each …");
    let [lone, ageless, lone_by_hand, two_locks] = lone();
    eprintln!("the release of {FOLLOWERS} followers, {RELEASE_ROUNDS} rounds each …");
    let [release, nested, release_by_hand, broadcast] = release();

    print("lone call", lone);
    print("  without ages", ageless);
    print("  hand-written", lone_by_hand);
    print("  two lock pairs", two_locks);
    print("release of 512 followers", release);
    print("  inside other flights", nested);
    print("  hand-written", release_by_hand);
    print("  bare broadcast", broadcast);
    println!();
    let bars = [
        ("lone call / hand-written", lone, lone_by_hand, 0.5),
        ("lone call / two lock pairs", lone, two_locks, 5.0),
        ("release of 512 / bare broadcast", release, broadcast, 1.2),
    ];
    let mut all_met = true;
    for (what, measured, against, bar) in bars {
        let ratio = measured / against;
        let met = ratio <= bar;
        all_met &= met;
        let verdict = if met { "met" } else { "MISSED" };
        println!("{what:<32} {ratio:>5.2}   bar ≤ {bar:.1}   {verdict}");
    }
    // Only on request: cargo itself passes `--bench`, and a figure is not always a test.
    if all_met || !std::env::args().any(|arg| arg == "--check") {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn print(what: &str, nanos: f64) {
    if nanos < 10_000.0 {
        println!("{what:<26} {nanos:>8.1} ns");
    } else {
        println!("{what:<26} {:>8.1} µs", nanos / 1_000.0);
    }
}

/// Nanoseconds of one lone call: the group's, that of one without ages, the hand-written version's,
/// two lock pairs.
fn lone() -> [f64; 4] {
    let group = FlightGroup::<u64, io::Error>::new();
    let ageless = FlightGroup::<u64, io::Error>::builder()
        .without_ages()
        .build();
    let by_hand = Handwritten::<String, Result<u64, Arc<io::Error>>>::new();
    let mutex = Mutex::new(0);
    // Hidden from the optimiser, as a key that came over the network would be.
    let key = || black_box("user:42");
    medians(LONE_ROUNDS, || {
        [
            each(|| group.call(key(), || Ok(black_box(42)))),
            each(|| ageless.call(key(), || Ok(black_box(42)))),
            each(|| by_hand.call(key(), || Ok(black_box(42)))),
            each(|| {
                *black_box(&mutex).lock().unwrap() += 1;
                *black_box(&mutex).lock().unwrap() += 1;
            }),
        ]
    })
    .map(|round| round / f64::from(CALLS))
}

fn each<T>(mut call: impl FnMut() -> T) -> Duration {
    let begun = Instant::now();
    for _ in 0..CALLS {
        black_box(call());
    }
    begun.elapsed()
}

/// Nanoseconds of the release of all followers: the group's, that of followers inside other flights,
/// the hand-written version's, a bare broadcast.
fn release() -> [f64; 4] {
    let turns = Turns::new(
        FOLLOWERS,
        vec![
            Arc::new(FlightGroup::<u64, io::Error>::new()),
            Arc::new(Nested::new()),
            Arc::new(ByHand::new()),
            Arc::new(Bare::new()),
        ],
    );
    medians(RELEASE_ROUNDS, || [(); 4].map(|()| turns.round()))
}

/// The contenders' medians, in nanoseconds.
fn medians<const N: usize>(rounds: usize, mut round: impl FnMut() -> [Duration; N]) -> [f64; N] {
    round(); // Warms up.
    let rounds: Vec<_> = (0..rounds).map(|_| round()).collect();
    std::array::from_fn(|contender| {
        let mut times: Vec<_> = rounds.iter().map(|round| round[contender]).collect();
        times.sort();
        times[times.len() / 2].as_secs_f64() * 1e9
    })
}
