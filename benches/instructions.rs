//! The lone call in instructions, as valgrind counts them. Times vary with whatever else a machine
//! does; this figure does not, so it can't creep up unseen.
//!
//! ```text
//! cargo bench --bench instructions              # needs valgrind
//! cargo bench --bench instructions -- --check   # and exit code 1 where a bar or a figure is missed
//! ```
//!
//! The figures belong to one compiler and one processor family, those that CI has. What the kernel does,
//! and the reading of the clock, for which valgrind asks the kernel, is not counted.
#![cfg_attr(loom, allow(dead_code, unused_imports))]

mod callgrind;
mod literal;

use std::collections::hash_map::DefaultHasher;
use std::env;
use std::hash::BuildHasherDefault;
use std::hint::black_box;
use std::process::ExitCode;

use callgrind::count;
use literal::Literal;
use shared_calls::FlightGroup;

/// No lone call may take more.
const BAR: u64 = 700;

/// What is counted, and what it took when this was written down (Rust 1.95, x86-64). More than 5 %
/// above that is a fault, too.
const FIGURES: [(&str, Option<u64>); 5] = [
    ("one key", Some(675)),
    ("1,000 keys in turn", Some(680)),
    ("one u64", Some(574)),
    ("literal version, one key", None),
    ("literal version, 1,000 keys", None),
];

/// To count a call, count so many and twice as many, and take the difference. A multiple of
/// [`KEYS`].
const CALLS: u64 = 10_000;

const KEYS: usize = 1_000;

#[cfg(loom)]
fn main() {}

#[cfg(not(loom))]
fn main() -> ExitCode {
    let args: Vec<_> = env::args().skip(1).collect();
    if let [what, calls] = &args[..] {
        if let Ok(calls) = calls.parse() {
            work(what, calls);
            return ExitCode::SUCCESS;
        }
    }
    println!("{:<30}{:>14}{:>14}", "lone call", "instructions", "written down");
    let mut good = true;
    for (what, written_down) in FIGURES {
        let calls = |n: u64| count(&[what, &n.to_string()]);
        let counted = match (calls(CALLS), calls(2 * CALLS)) {
            (Ok(once), Ok(twice)) => (twice - once) / CALLS,
            (Err(error), _) | (_, Err(error)) => {
                eprintln!("cannot count with valgrind: {error}");
                return ExitCode::FAILURE;
            }
        };
        let Some(written_down) = written_down else {
            println!("{what:<30}{counted:>14}");
            continue;
        };
        let verdict = if counted > BAR {
            "   over the bar"
        } else if counted * 100 > written_down * 105 {
            "   over 5 % too high"
        } else {
            ""
        };
        good &= verdict.is_empty();
        println!("{what:<30}{counted:>14}{written_down:>14}{verdict}");
    }
    println!("bar: {BAR}");
    if good || !args.iter().any(|arg| arg == "--check") {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn work(what: &str, calls: u64) {
    // Not randomly keyed, so that the map behaves the same in every run.
    type Fixed = BuildHasherDefault<DefaultHasher>;
    // Made in every case, so that it makes no difference.
    let keys: Vec<_> = (0..KEYS).map(|i| format!("user:{i:03}")).collect();
    let one_key = (0..calls).map(|_| &*keys[42]);
    let in_turn = keys.iter().map(String::as_str).cycle().take(calls as usize);
    let by_text = FlightGroup::<u64, (), String, Fixed>::with_hasher(Fixed::default());
    let by_number = FlightGroup::<u64, (), u64, Fixed>::with_hasher(Fixed::default());
    let literal = Literal::<String, Result<u64, ()>, Fixed>::new();
    let by_group = |key| by_text.call(key, || Ok(black_box(1))).unwrap();
    let by_literal = |key| literal.call(key, || Ok(black_box(1))).unwrap().unwrap();
    match what {
        "one key" => each(one_key, by_group),
        "1,000 keys in turn" => each(in_turn, by_group),
        "one u64" => each(0..calls, |_| {
            let key = black_box(&42);
            by_number.call(key, || Ok(black_box(1))).unwrap()
        }),
        "literal version, one key" => each(one_key, by_literal),
        "literal version, 1,000 keys" => each(in_turn, by_literal),
        _ => panic!("nothing is called {what}"),
    }
}

fn each<K>(keys: impl Iterator<Item = K>, call: impl Fn(K) -> u64) {
    for key in keys {
        black_box(call(black_box(key)));
    }
}
