//! Reading through a cache to a database, all inside one shared call: go-zero's `Take`. And
//! changing what was read, without a stale read afterwards.

use std::sync::Arc;
use std::time::{Duration, Instant};

use shared_calls::{CallError, Outcome, Request, Role, SharedCalls, Unshared};
use thiserror::Error;
use tracing::warn;

use crate::cache::{Answer, Cache, CacheError};
use crate::db::{Database, DbError, User};
use crate::metrics::Flights;
use crate::stats::{Counters, Stats};
use crate::watch::Group;

/// `FlightGroup` or `Unshared`, chosen at run time. Not the library's own trait for that, which has
/// no options.
pub trait Calls: Send + Sync {
    fn call(&self, ask: &Ask<'_>, load: Load<'_>) -> Outcome<Answer, LoadError>;

    /// For whoever looks on. `None` where nothing is shared.
    fn group(&self) -> Option<&Group> {
        None
    }
}

pub type Load<'a> = &'a mut dyn FnMut() -> Result<Answer, LoadError>;

/// A call, but for what it runs.
#[derive(Clone, Copy)]
pub struct Ask<'a> {
    pub key: &'a str,
    /// How long to wait for another's load.
    pub timeout: Duration,
    /// Whether a load that has begun already is too old.
    pub next_flight: bool,
}

impl Ask<'_> {
    pub fn of<'g>(&self, group: &'g Group) -> Request<'g, '_, Answer, LoadError, str> {
        let request = group.request(self.key).timeout(self.timeout);
        match self.next_flight {
            true => request.next_flight(),
            false => request,
        }
    }
}

impl Calls for Group {
    fn call(&self, ask: &Ask<'_>, load: Load<'_>) -> Outcome<Answer, LoadError> {
        ask.of(self).call_ex(load)
    }

    fn group(&self) -> Option<&Group> {
        Some(self)
    }
}

impl Calls for Unshared {
    /// Waits for nobody, and begins now: so the options are met.
    fn call(&self, ask: &Ask<'_>, load: Load<'_>) -> Outcome<Answer, LoadError> {
        self.call_ex(ask.key, load)
    }
}

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

impl Expiry {
    pub fn of(user: Duration) -> Self {
        let no_such_user = user / 5;
        Self { user, no_such_user }
    }
}

impl Default for Expiry {
    fn default() -> Self {
        Self::of(Duration::from_secs(300))
    }
}

pub struct Service {
    calls: Arc<dyn Calls>,
    flights: Flights,
    cache: Cache,
    database: Database,
    expiry: Expiry,
    request_timeout: Duration,
    counters: Counters,
}

impl Service {
    /// `flights` is what observes the calls, if anything does.
    pub fn new(
        calls: Arc<dyn Calls>,
        flights: Flights,
        cache: Cache,
        database: Database,
        expiry: Expiry,
        request_timeout: Duration,
    ) -> Self {
        Self {
            calls,
            flights,
            cache,
            database,
            expiry,
            request_timeout,
            counters: Counters::default(),
        }
    }

    /// What there is to know about a user.
    ///
    /// The cache is read inside the shared call, not before it: whoever arrives after a flight has
    /// landed finds what that flight put into the cache, and does not start another query.
    ///
    /// A follower waits no longer than the request's timeout. A leader can't be interrupted, so
    /// everything that it does has a time limit of its own: see `sqlite_pool.rs`, `postgres_pool.rs`
    /// and `redis_pool.rs`.
    pub fn user(&self, id: i64) -> Outcome<Answer, LoadError> {
        let key = key(id);
        let ask = Ask {
            key: &key,
            timeout: self.request_timeout,
            next_flight: false,
        };
        self.call(&ask, || self.load(id, &key))
    }

    /// Changes a user, and gives what there is to know about them now.
    ///
    /// Once this has returned a user, nobody who asks gets what was before the change. While it is
    /// at it they may, and after an error: then the change may be made or not, seen or not, and is
    /// to be asked for again. (All of this is about one process. Two of them with one Redis do not
    /// know of each other's flights; and without sharing there are none to wait for.)
    pub fn change(&self, user: &User) -> Result<Answer, CallError<LoadError>> {
        let began = Instant::now();
        let key = key(user.id);
        let failed = |error: LoadError| {
            warn!(key, %error, "change failed");
            CallError::Failed(Arc::new(error))
        };
        // The entry has to go in any case; and if the cache is down, nothing has been changed yet.
        self.remove(&key).map_err(failed)?;
        let known = self.database.update(user);
        if !known.map_err(|error| failed(error.into()))? {
            return Ok(Answer::NoSuchUser);
        }

        // The database has the new row. A leader that read the old one may still be on its way to
        // the cache with it, so to remove the entry now would be too early.
        //
        // 1. If nobody is at it, nobody has the old row, for one at a time loads: lead, and
        //    overwrite what is cached, which may be old.
        let ask = Ask {
            key: &key,
            timeout: self.request_timeout,
            next_flight: false,
        };
        let outcome = self.call(&ask, || self.reload(user.id, &key));
        if let (Role::Led, _) | (_, Err(CallError::TimedOut)) = (outcome.role, &outcome.result) {
            return outcome.result;
        }
        // 2. Otherwise the one who was at it is done by now, however it ended. Whoever has the row
        //    from the database from here on has the new one, so what is removed stays removed.
        self.remove(&key).map_err(failed)?;
        // 3. A flight that began before that may have found the old row in the cache, and whoever
        //    came now would join it. So wait for the one after it. That reads the new row, also if
        //    a GET that comes at the right moment leads it; and those who ask when this has
        //    returned are on a later flight still.
        let ask = Ask {
            timeout: self.request_timeout.saturating_sub(began.elapsed()),
            next_flight: true,
            ..ask
        };
        self.call(&ask, || self.load(user.id, &key)).result
    }

    fn call(
        &self,
        ask: &Ask<'_>,
        mut load: impl FnMut() -> Result<Answer, LoadError>,
    ) -> Outcome<Answer, LoadError> {
        let outcome = self.calls.call(ask, &mut load);
        self.counters.count(|stats| {
            match outcome.role {
                Role::Led => stats.led += 1,
                Role::Followed => stats.followed += 1,
            }
            if let Err(CallError::TimedOut) = outcome.result {
                stats.timed_out += 1;
            }
        });
        if let (Role::Led, Err(CallError::Failed(error))) = (outcome.role, &outcome.result) {
            // By the leader only: one flight, one line in the log.
            warn!(key = ask.key, %error, "load failed");
        }
        outcome
    }

    fn load(&self, id: i64, key: &str) -> Result<Answer, LoadError> {
        // If the cache fails, so does the call. Asking the database instead would send it all the
        // load that the cache was there to keep away, and take it down as well.
        if let Some(answer) = self.cached(key)? {
            return Ok(answer);
        }
        let answer = self.query(id)?;
        // The answer is good even if the cache does not take it; the next caller will see to that.
        if let Err(error) = self.fill(key, &answer) {
            warn!(key, %error, "the cache was not filled");
        }
        Ok(answer)
    }

    /// Past the cache, and over what is there: that may be old, and must not stay.
    fn reload(&self, id: i64, key: &str) -> Result<Answer, LoadError> {
        let answer = self.query(id)?;
        self.fill(key, &answer)?;
        Ok(answer)
    }

    fn query(&self, id: i64) -> Result<Answer, DbError> {
        let user = self.database.user(id)?;
        Ok(user.map_or(Answer::NoSuchUser, |user| Answer::user(&user)))
    }

    fn fill(&self, key: &str, answer: &Answer) -> Result<(), CacheError> {
        let keep = match answer {
            Answer::User(_) => self.expiry.user,
            // Remembered too, or else a wrong id would reach the database each time.
            Answer::NoSuchUser => self.expiry.no_such_user,
        };
        let filled = self.cache.set(key, answer, jitter(keep));
        self.count_error(&filled);
        filled
    }

    fn remove(&self, key: &str) -> Result<(), LoadError> {
        let removed = self.cache.expire(key);
        self.count_error(&removed);
        Ok(removed?)
    }

    fn count_error(&self, result: &Result<(), CacheError>) {
        if result.is_err() {
            self.counters.count(|stats| stats.cache_errors += 1);
        }
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

    /// For whoever looks on. `None` where nothing is shared.
    pub fn group(&self) -> Option<&Group> {
        self.calls.group()
    }

    pub fn flights(&self) -> &Flights {
        &self.flights
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    pub fn stats(&self) -> Stats {
        Stats {
            database_queries: self.database.queries(),
            database_updates: self.database.updates(),
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
