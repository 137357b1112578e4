//! When many threads ask for the same thing at the same time, one of them does the work and all of
//! them get the result.

#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![warn(missing_debug_implementations)]

mod calls;
mod error;
mod flight;
mod group;
mod keys;
mod latch;
mod outcome;
mod sync;

pub use calls::{SharedCalls, Unshared};
pub use error::{CallError, Panicked};
pub use flight::Follower;
pub use group::{FlightGroup, Joined, Leader};
pub use outcome::{Outcome, Role};
