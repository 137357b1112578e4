//! Random schedules of five to eight threads over the shipped sources.
//!
//! The models in `loom-tests/` exhaust two and three threads. Here more threads do everything that
//! is public, in one random order of their steps after the other, and a history of what they got is
//! checked against the rules of `tests/history`. See the README.
#![allow(dead_code)] // The schedules use less of the crate than its users do.
#![allow(clippy::large_enum_variant)] // shuttle's locks are large.

// The rules name the crate so.
extern crate self as shared_calls;

mod sync;

#[path = "../../../src/builder.rs"]
mod builder;
#[path = "../../../src/calls.rs"]
mod calls;
#[path = "../../../src/counts.rs"]
mod counts;
#[path = "../../../src/deadlock.rs"]
mod deadlock;
#[path = "../../../src/error.rs"]
mod error;
#[path = "../../../src/flight.rs"]
mod flight;
#[path = "../../../src/follower.rs"]
mod follower;
#[path = "../../../src/forget.rs"]
mod forget;
#[path = "../../../src/group.rs"]
mod group;
#[path = "../../../src/handle.rs"]
mod handle;
#[path = "../../../src/join.rs"]
mod join;
mod keys {
    // `src/keys.rs`, with small sizes; see `build.rs`.
    include!(concat!(env!("OUT_DIR"), "/keys.rs"));
}
#[path = "../../../src/latch.rs"]
mod latch;
#[path = "../../../src/leader.rs"]
mod leader;
#[path = "../../../src/lookup.rs"]
mod lookup;
#[path = "../../../src/many.rs"]
mod many;
#[path = "../../../src/map.rs"]
mod map;
#[path = "../../../src/observer.rs"]
mod observer;
#[path = "../../../src/options.rs"]
mod options;
#[path = "../../../src/outcome.rs"]
mod outcome;
#[path = "../../../src/panics.rs"]
mod panics;
#[path = "../../../src/queue.rs"]
mod queue;
#[path = "../../../src/request.rs"]
mod request;
#[path = "../../../src/stats.rs"]
mod stats;
#[path = "../../../src/threads.rs"]
mod threads;
#[path = "../../../src/ticket.rs"]
mod ticket;
#[path = "../../../src/wait.rs"]
mod wait;

// Named by the sources' documentation and by the schedules alike.
#[allow(unused_imports)]
pub(crate) use {
    builder::Builder,
    calls::{SharedCalls, SharedCallsExt, Unshared},
    error::{CallError, Deadlock, StdError},
    flight::Flight,
    follower::Follower,
    group::FlightGroup,
    join::Joined,
    leader::Leader,
    lookup::Lookup,
    observer::{Landed, Observer},
    outcome::{Ending, Outcome},
    request::Request,
    stats::{InFlight, Stats, WaitsFor},
    ticket::{Job, Ticket},
};
// The rules reach it by the crate's name.
pub use outcome::Role;

#[path = "../../history/check.rs"]
mod check;

mod bugs;
mod dice;
mod explore;
mod perform;
mod plan;
mod scheduler;
mod user;
mod world;

fn main() -> std::process::ExitCode {
    explore::main()
}
