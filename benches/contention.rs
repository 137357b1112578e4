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

mod literal;

use std::env;
use std::hint::black_box;
use std::io;
use std::process::{Command, ExitCode};
use std::sync::Barrier;
use std::thread;

use literal::Literal;
use shared_calls::FlightGroup;

const CALLS: usize = 1_000_000;

const CONTENDERS: [&str; 3] = ["group", "16 shards", "literal"];

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
    print!("{:>8}", "threads");
    for which in CONTENDERS {
        print!(" {which:>12}");
    }
    println!();
    for threads in [2, 8, 32] {
        print!("{threads:>8}");
        for which in CONTENDERS {
            match futex_calls(which, threads) {
                Ok(calls) => print!(" {calls:>12}"),
                Err(error) => {
                    eprintln!("cannot count with strace: {error}");
                    return ExitCode::FAILURE;
                }
            }
        }
        println!();
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
    let row = report.lines().find(|line| line.trim_end().ends_with(" futex"));
    let calls = row.and_then(|row| row.split_whitespace().nth(3)?.parse().ok());
    Ok(calls.unwrap_or(0))
}

fn work(which: &str, threads: usize) {
    match which {
        "group" => group(threads, FlightGroup::new()),
        "16 shards" => group(threads, FlightGroup::builder().shards(16).build()),
        "literal" => {
            let literal = Literal::<u64, u64>::new();
            from_threads(threads, |key| literal.call(key, || black_box(1)).unwrap());
        }
        _ => panic!("nobody is called {which}"),
    }
}

fn group(threads: usize, group: FlightGroup<u64, (), u64>) {
    from_threads(threads, |key| group.call(key, || Ok(black_box(1))).unwrap());
}

fn from_threads(threads: usize, call: impl Fn(&u64) -> u64 + Sync) {
    let start = Barrier::new(threads);
    thread::scope(|scope| {
        for thread in 0..threads as u64 {
            let (call, start) = (&call, &start);
            scope.spawn(move || {
                start.wait();
                for i in 0..(CALLS / threads) as u64 {
                    black_box(call(black_box(&((thread << 32) | (i % 64)))));
                }
            });
        }
    });
}
