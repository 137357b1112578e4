//! What a call costs in locks, wake-ups and clock readings (G12), counted in the shipped sources.
//!
//! `src/*.rs` are mounted below as they are. Only `sync`, which names the primitives, is this
//! directory's own: it counts them, on each thread apart.
#![cfg(not(loom))]
#![allow(clippy::incompatible_msrv)] // The tests need a newer Rust than the crate.
#![allow(dead_code)] // The tests use less of the crate than its users do.

mod sync;

#[path = "../../src/builder.rs"]
mod builder;
#[path = "../../src/calls.rs"]
mod calls;
#[path = "../../src/counts.rs"]
mod counts;
#[path = "../../src/deadlock.rs"]
mod deadlock;
#[path = "../../src/error.rs"]
mod error;
#[path = "../../src/flight.rs"]
mod flight;
#[path = "../../src/follower.rs"]
mod follower;
#[path = "../../src/forget.rs"]
mod forget;
#[path = "../../src/group.rs"]
mod group;
#[path = "../../src/handle.rs"]
mod handle;
#[path = "../../src/join.rs"]
mod join;
#[path = "../../src/keys.rs"]
mod keys;
#[path = "../../src/latch.rs"]
mod latch;
#[path = "../../src/leader.rs"]
mod leader;
#[path = "../../src/lookup.rs"]
mod lookup;
#[path = "../../src/many.rs"]
mod many;
#[path = "../../src/map.rs"]
mod map;
#[path = "../../src/observer.rs"]
mod observer;
#[path = "../../src/options.rs"]
mod options;
#[path = "../../src/outcome.rs"]
mod outcome;
#[path = "../../src/panics.rs"]
mod panics;
#[path = "../../src/queue.rs"]
mod queue;
#[path = "../../src/request.rs"]
mod request;
#[path = "../../src/stats.rs"]
mod stats;
#[path = "../../src/threads.rs"]
mod threads;
#[path = "../../src/ticket.rs"]
mod ticket;
#[path = "../../src/wait.rs"]
mod wait;

// Named by the sources' documentation and by the tests alike.
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
    outcome::{Ending, Outcome, Role},
    request::Request,
    stats::{InFlight, Stats, WaitsFor},
    ticket::{Job, Ticket},
};

mod followers;
mod lone_calls;
mod nested;
