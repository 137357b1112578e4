//! Instructions, as valgrind counts them. Times vary with whatever else a machine does; this figure
//! hardly does.

use std::env;
use std::io;
use std::process::Command;

/// The most threads that a program may have here. Valgrind allows 500 unless it is told.
const THREADS: &str = "--max-threads=2000";

/// Counts the instructions of this program when it is run with these arguments.
pub fn count(args: &[&str]) -> io::Result<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", THREADS])
        .arg(env::current_exe()?)
        .args(args)
        .output()?;
    let report = String::from_utf8_lossy(&output.stderr);
    // `==123== Collected : 4567`
    let collected = report
        .lines()
        .find_map(|line| line.split_once("Collected :"))
        .and_then(|(_, n)| n.trim().parse().ok());
    collected.ok_or_else(|| io::Error::new(io::ErrorKind::Other, report.clone()))
}
