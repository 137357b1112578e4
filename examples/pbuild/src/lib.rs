//! A small parallel build tool, in which every target is one shared call.
//!
//! Read `run` first: the threads, the calls, and why they never hang; with `board` (what a thread
//! does next) and `outcome`. Then `update`, one target: `record` (up to date or not), `depfile` and
//! `command` (temporary names, process groups). `file` is the TOML, and where a complaint points;
//! `graph` tells who needs whom, and of cycles; `name` which file is which. `log` and `screen` are
//! what one sees of it, `signals` what ends it; `cli` puts it together.

#![forbid(unsafe_code)]

mod board;
pub mod cli;
mod command;
pub mod depfile;
mod file;
mod graph;
mod log;
mod name;
mod outcome;
pub mod record;
mod run;
mod screen;
mod signals;
mod update;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A panic elsewhere is no reason not to go on: nothing is left half-done under these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
