//! The lone call in instructions, as valgrind counts them. Times vary with whatever else a machine
//! does; this figure does not, so it can't creep up unseen.
//!
//! ```text
//! cargo bench --bench instructions              # needs valgrind
//! cargo bench --bench instructions -- --check   # and exit code 1 where a figure is over 5 % too high
//! ```
//!
//! The figures belong to one compiler and one processor family, those that CI has. What the kernel does,
//! and the reading of the clock, for which valgrind asks the kernel, is not counted.
#![cfg_attr(loom, allow(dead_code, unused_imports))]

use std::collections::hash_map::DefaultHasher;
use std::env;
use std::hash::BuildHasherDefault;
use std::hint::black_box;
use std::io;
use std::process::{Command, ExitCode};

use shared_calls::FlightGroup;

/// What a lone call took when this was written down (Rust 1.95, x86-64).
const FIGURES: [(&str, u64); 3] = [("default", 906), ("without ages", 807), ("u64 keys", 784)];

/// To count a call, count so many and twice as many, and take the difference.
const CALLS: u64 = 10_000;

#[cfg(loom)]
fn main() {}

#[cfg(not(loom))]
fn main() -> ExitCode {
    let args: Vec<_> = env::args().skip(1).collect();
    if let [which, calls] = &args[..] {
        if let Ok(calls) = calls.parse() {
            work(which, calls);
            return ExitCode::SUCCESS;
        }
    }
    let check = args.iter().any(|arg| arg == "--check");
    let mut good = true;
    println!(
        "{:<14}{:>14}{:>14}",
        "lone call", "instructions", "written down"
    );
    for (which, written_down) in FIGURES {
        let counted = match (count(which, CALLS), count(which, 2 * CALLS)) {
            (Ok(once), Ok(twice)) => (twice - once) / CALLS,
            (Err(error), _) | (_, Err(error)) => {
                eprintln!("cannot count with valgrind: {error}");
                return ExitCode::FAILURE;
            }
        };
        let met = counted * 100 <= written_down * 105;
        good &= met;
        let verdict = if met { "" } else { "   over 5 % too high" };
        println!("{which:<14}{counted:>14}{written_down:>14}{verdict}");
    }
    if good || !check {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Counts the instructions of this program, making so many calls.
fn count(which: &str, calls: u64) -> io::Result<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(env::current_exe()?)
        .args([which, &calls.to_string()])
        .output()?;
    let report = String::from_utf8_lossy(&output.stderr);
    // `==123== Collected : 4567`
    let collected = report
        .lines()
        .find_map(|line| line.split_once("Collected :"))
        .and_then(|(_, n)| n.trim().parse().ok());
    collected.ok_or_else(|| io::Error::new(io::ErrorKind::Other, report.clone()))
}

fn work(which: &str, calls: u64) {
    // Not randomly keyed, so that the map behaves the same in every run.
    type Fixed = BuildHasherDefault<DefaultHasher>;
    let builder = FlightGroup::<u64, ()>::builder().hasher(Fixed::default());
    match which {
        "default" => by_name(&builder.build(), calls),
        "without ages" => by_name(&builder.without_ages().build(), calls),
        _ => {
            let group = FlightGroup::<u64, (), u64, _>::with_hasher(Fixed::default());
            for _ in 0..calls {
                black_box(group.call(black_box(&42), || Ok(black_box(1)))).unwrap();
            }
        }
    }

    fn by_name(group: &FlightGroup<u64, (), String, Fixed>, calls: u64) {
        for _ in 0..calls {
            black_box(group.call(black_box("user:42"), || Ok(black_box(1)))).unwrap();
        }
    }
}
