//! A small parallel build tool, in which every target is one shared call.
//!
//! Read `run` first: the threads, the calls, and why they never hang. Then `file` (the TOML, and
//! where a complaint points), `graph` (who needs whom; cycles), `record` (up to date or not) with
//! `depfile`, and `command` (temporary names, process groups). `log`, `screen` and `timeline` are
//! what one sees of it, `cli` puts it together.

#![forbid(unsafe_code)]

pub mod cli;
mod command;
mod depfile;
mod file;
mod graph;
mod log;
mod record;
mod run;
mod screen;
mod timeline;
