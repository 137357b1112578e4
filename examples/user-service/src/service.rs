//! Reading through a cache to a database, all inside one shared call: go-zero's `Take`.

use std::fmt::Display;
use std::io::Write;
use std::time::Duration;

use shared_calls::{CallError, Outcome, Role, SharedCalls};
use thiserror::Error;

use crate::cache::{Answer, Cache, CacheError};
use crate::db::{Database, DbError};
use crate::stats::{Counters, Stats};

/// `FlightGroup` or `Unshared`, chosen at run time.
pub type Calls = dyn SharedCalls<Answer, LoadError> + Send + Sync;

/// Why an answer could not be had. Not knowing a user is no error: see [`Answer`].
#[derive(Debug, Error)]
pub enum LoadError {
    #[error("the cache failed: {0}")]
    Cache(#[from] CacheError),
    #[error("the database failed: {0}")]
    Database(#[from] DbError),
}

/// How long the cache keeps what.
#[derive(Clone, Copy, Debug)]
pub struct Expiry {
    pub user: Duration,
    /// Shorter, because a user who signs up should not stay unknown for long.
    pub no_such_user: Duration,
}

impl Default for Expiry {
    fn default() -> Self {
        Self {
            user: Duration::from_secs(300),
            no_such_user: Duration::from_secs(60),
        }
    }
}

pub struct Service {
    calls: Box<Calls>,
    cache: Cache,
    database: Database,
    expiry: Expiry,
    counters: Counters,
}

impl Service {
    pub fn new(calls: Box<Calls>, cache: Cache, database: Database, expiry: Expiry) -> Self {
        Self {
            calls,
            cache,
            database,
            expiry,
            counters: Counters::default(),
        }
    }

    /// What there is to know about a user.
    ///
    /// The cache is read inside the shared call, not before it: whoever arrives after a flight has
    /// landed finds what that flight put into the cache, and does not start another query.
    ///
    /// A caller waits as long as its leader takes, so everything that a leader does has a time
    /// limit: see `db.rs` and `redis_pool.rs`.
    pub fn user(&self, id: i64) -> Outcome<Answer, LoadError> {
        let key = key(id);
        let outcome = self.calls.call_ex(&key, || self.load(id, &key));
        self.counters.count(|stats| match outcome.role {
            Role::Led => stats.led += 1,
            Role::Followed => stats.followed += 1,
        });
        if let (Role::Led, Err(CallError::Failed(error))) = (outcome.role, &outcome.result) {
            // By the leader only: one flight, one line in the log.
            log(&key, &**error);
        }
        outcome
    }

    fn load(&self, id: i64, key: &str) -> Result<Answer, LoadError> {
        // If the cache fails, so does the call. Asking the database instead would send it all the
        // load that the cache was there to keep away, and take it down as well.
        if let Some(answer) = self.cached(key)? {
            return Ok(answer);
        }
        let (answer, keep) = match self.database.user(id)? {
            Some(user) => (Answer::user(&user), self.expiry.user),
            // Remembered too, or else a wrong id would reach the database each time.
            None => (Answer::NoSuchUser, self.expiry.no_such_user),
        };
        // The answer is good even if the cache does not take it; the next caller will see to that.
        if let Err(error) = self.cache.set(key, &answer, jitter(keep)) {
            self.counters.count(|stats| stats.cache_errors += 1);
            log(key, &error);
        }
        Ok(answer)
    }

    fn cached(&self, key: &str) -> Result<Option<Answer>, CacheError> {
        let cached = self.cache.get(key);
        self.counters.count(|stats| match cached {
            Ok(Some(_)) => stats.cache_hits += 1,
            Ok(None) => stats.cache_misses += 1,
            Err(_) => stats.cache_errors += 1,
        });
        cached
    }

    /// Makes the cached answer for a user expire now, for experiments that can't wait.
    pub fn expire(&self, id: i64) -> Result<(), CacheError> {
        self.cache.expire(&key(id))
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    pub fn stats(&self) -> Stats {
        Stats {
            database_queries: self.database.queries(),
            ..self.counters.now()
        }
    }
}

/// Names everything that the answer depends on, for the cache and for the shared call: two
/// requests with the same key get the same answer.
fn key(id: i64) -> String {
    format!("user-service:user:{id}")
}

/// ±5 %, so that entries written together do not expire together.
fn jitter(duration: Duration) -> Duration {
    duration.mul_f64(0.95 + 0.1 * fastrand::f64())
}

fn log(key: &str, error: &dyn Display) {
    // Not `eprintln!`, which panics when nobody reads the log.
    let _ = writeln!(std::io::stderr(), "{key}: {error}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_within_five_percent() {
        let jittered: Vec<_> = (0..1000)
            .map(|_| jitter(Duration::from_secs(100)).as_secs_f64())
            .collect();
        assert!(jittered.iter().all(|s| (95.0..=105.0).contains(s)));
        assert!(jittered.iter().any(|s| *s < 99.0) && jittered.iter().any(|s| *s > 101.0));
    }
}
