//! Other ways to have one thread work for many, behind one trait, so that each claim about them is a
//! program that anyone can run.
//!
//! ```text
//! cargo run --release -p peers               # the comparison: a table, results.md and charts
//! cargo run --release -p peers -- --quick    # all of it with few rounds, in half a minute
//! cargo run --release -p peers --bin hangs   # who hangs when functions ask for each other's keys
//! ```

pub mod guard;
mod peers;
pub mod versions;

pub use peers::*;
