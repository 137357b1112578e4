//! Shared calls between processes: [`tier::RedisTier`], an example to copy, not a part of the crate.
//! What to copy, in reading order:
//!
//! - [`tier`]: the algorithm, and why it is right. The heart.
//! - [`lock`]: a key's lock and outcome in Redis, and the scripts that change them.
//! - [`message`]: an outcome on its way to other processes.
//! - [`wake`] and [`renew`]: the two threads. One hears of outcomes, the other keeps locks.
//! - [`link`]: connections, and what is done while there is no Redis.
//! - [`check`]: what Redis must be able to do, and what is said where it is not.
//!
//! What shows it:
//!
//! - [`worker`]: a program that uses it, one process of a fleet.
//! - [`crew`]: the fleet, with a Redis and a database that counts.
//! - [`demo`] and [`chaos`]: what is done with them.

#![forbid(unsafe_code)]

pub mod chaos;
pub mod check;
pub mod crew;
pub mod demo;
pub mod link;
pub mod lock;
pub mod message;
pub mod renew;
pub mod tier;
pub mod wake;
pub mod worker;

/// So that what the README says compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
