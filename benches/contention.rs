//! How often threads wait for a group's lock, on distinct keys: system calls counted, not times,
//! because on a shared machine two threads may have one core between them.
//!
//! ```text
//! cargo bench --bench contention   # needs strace
//! ```
//!
//! A thread that finds the lock taken spins a little and then asks the kernel to put it to sleep:
//! one `futex` call, and another one to wake it. strace stops a thread at each of them, which makes
//! those that hold the lock slower than they are: so the figures are good for comparison only.
#![cfg_attr(loom, allow(dead_code, unused_imports))]

use std::env;
use std::hint::black_box;
use std::io;
use std::process::{Command, ExitCode};
use std::sync::Barrier;
use std::thread;

use shared_calls::{FlightGroup, ShardedGroup, SharedCalls};

const CALLS: usize = 1_000_000;

#[cfg(loom)]
fn main() {}

#[cfg(not(loom))]
fn main() -> ExitCode {
    let args: Vec<_> = env::args().skip(1).filter(|arg| arg != "--bench").collect();
    if let [which, threads] = &args[..] {
        work(which, threads.parse().expect("a number of threads"));
        return ExitCode::SUCCESS;
    }
    println!("futex calls for a million calls on distinct keys");
    println!("{:>8} {:>12} {:>12}", "threads", "one group", "16 groups");
    for threads in [2, 8, 32] {
        let counts = ["one", "sharded"].map(|which| futex_calls(which, threads));
        match counts {
            [Ok(one), Ok(sharded)] => println!("{threads:>8} {one:>12} {sharded:>12}"),
            [Err(error), _] | [_, Err(error)] => {
                eprintln!("cannot count with strace: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

/// Runs this program again under strace.
fn futex_calls(which: &str, threads: usize) -> io::Result<u64> {
    let output = Command::new("strace")
        .args(["-f", "-c", "-e", "trace=futex"])
        .arg(env::current_exe()?)
        .args([which, &threads.to_string()])
        .output()?;
    let report = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(io::Error::new(io::ErrorKind::Other, report));
    }
    // `% time  seconds  usecs/call  calls  [errors]  syscall`
    let row = report
        .lines()
        .find(|line| line.trim_end().ends_with(" futex"));
    let calls = row.and_then(|row| row.split_whitespace().nth(3)?.parse().ok());
    Ok(calls.unwrap_or(0))
}

fn work(which: &str, threads: usize) {
    let calls: Box<dyn SharedCalls<u64, (), u64> + Sync> = match which {
        "one" => Box::new(FlightGroup::<u64, (), u64>::new()),
        _ => Box::new(ShardedGroup::<u64, (), u64>::new(16)),
    };
    let start = Barrier::new(threads);
    thread::scope(|scope| {
        for thread in 0..threads as u64 {
            let (calls, start) = (&*calls, &start);
            scope.spawn(move || {
                start.wait();
                for call in 0..(CALLS / threads) as u64 {
                    let key = black_box((thread << 32) | (call % 64));
                    (&calls).call(&key, || Ok(black_box(1))).unwrap();
                }
            });
        }
    });
}
