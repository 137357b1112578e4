//! What the service counts and shows at `GET /stats`.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

#[derive(Clone, Debug, Default, Serialize)]
pub struct Stats {
    /// Answers by HTTP status.
    pub requests: BTreeMap<u16, u64>,
    /// Shared calls that ran the load, and calls that waited for another's outcome.
    pub led: u64,
    pub followed: u64,
    /// Followers whose time limit passed.
    pub timed_out: u64,
    /// Calls that were refused because too many waited already.
    pub overloaded: u64,
    /// As counted by the database layer.
    pub database_queries: u64,
    pub database_updates: u64,
    /// Followers read no cache, so these are counted once per flight.
    pub cache_hits: u64,
    pub cache_misses: u64,
    /// Entries that were no answer. Each is overwritten.
    pub cache_damaged: u64,
    pub cache_errors: u64,
}

#[derive(Debug, Default)]
pub struct Counters(Mutex<Stats>);

impl Counters {
    pub fn count(&self, change: impl FnOnce(&mut Stats)) {
        // Poison means nothing here: every state of the counters is valid.
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub fn now(&self) -> Stats {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
