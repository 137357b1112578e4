//! Reads through a cache to a database, all inside one shared call: go-zero's `Take`. And changes
//! users without a stale read afterwards.

use std::sync::Arc;
use std::time::{Duration, Instant};

use shared_calls::{CallError, Outcome, Role, SharedCalls};
use thiserror::Error;
use tracing::warn;

use crate::cache::{key, Answer, Cache, CacheError, Entry};
use crate::db::{Database, DbError, User};
use crate::metrics::Flights;
use crate::stats::{Counters, Stats};
use crate::watch::Group;

/// How calls are shared, chosen at run time.
pub struct Calls {
    pub shared: Arc<dyn SharedCalls<Answer, LoadError>>,
    /// For what the trait does not offer: the next flight, and what operators see.
    pub group: Option<Group>,
}

/// A group is a handle, so both fields are the same group.
impl From<Group> for Calls {
    fn from(group: Group) -> Self {
        Self { shared: Arc::new(group.clone()), group: Some(group) }
    }
}

/// Without a group: `Unshared`, for example.
impl<S: SharedCalls<Answer, LoadError> + 'static> From<Arc<S>> for Calls {
    fn from(shared: Arc<S>) -> Self {
        Self { shared, group: None }
    }
}

/// Why there is no answer. An unknown user is not an error: see [`Answer`].
#[derive(Debug, Error)]
pub enum LoadError {
    #[error("the cache failed: {0}")]
    Cache(#[from] CacheError),
    #[error("the database failed: {0}")]
    Database(#[from] DbError),
}

/// How long the cache keeps an answer.
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
    calls: Calls,
    flights: Flights,
    cache: Cache,
    database: Database,
    expiry: Expiry,
    request_timeout: Duration,
    counters: Counters,
}

impl Service {
    /// `flights` are the metrics that observe the calls, if any do.
    pub fn new(
        calls: Calls,
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

    /// Looks a user up.
    ///
    /// The cache is read inside the shared call, not before it: a caller that arrives after a flight
    /// has landed finds what that flight put into the cache, and does not start another query.
    ///
    /// A follower waits no longer than the group's default time limit, and is refused if too many
    /// wait already: see `watch::group`. A leader can't be interrupted, so
    /// everything that it does has a time limit of its own: see `sqlite_pool.rs`, `postgres_pool.rs`
    /// and `redis_pool.rs`.
    pub fn user(&self, id: i64) -> Outcome<Answer, LoadError> {
        let key = key(id);
        self.call(&key, || self.load(id, &key))
    }

    /// Changes a user, and returns the new answer.
    ///
    /// Once this has returned a user, no later call returns the old row. While it runs, calls may
    /// still return the old row. After an error the change may or may not be made, and may or may
    /// not be visible: the client should send it again. (This holds within one process. Two
    /// processes with one Redis do not know of each other's flights, and without sharing there are
    /// no flights to wait for.)
    pub fn change(&self, user: &User) -> Result<Answer, CallError<LoadError>> {
        let began = Instant::now();
        let key = key(user.id);
        let failed = |error: LoadError| {
            warn!(key, %error, "change failed");
            CallError::Failed(Arc::new(error))
        };
        // First, because if the cache is down, nothing has been changed yet.
        self.remove(user.id).map_err(failed)?;
        let known = self.database.update(user);
        if !known.map_err(|error| failed(error.into()))? {
            return Ok(Answer::NoSuchUser);
        }

        // The database has the new row. A leader that read the old one may still be on its way to
        // the cache with it, so to remove the entry now would be too early.
        //
        // 1. If nothing is in flight, nobody has the old row: lead, and overwrite what is cached,
        //    which may be old.
        let outcome = self.call(&key, || self.reload(user.id));
        // Of a flight that this call left, or was refused, nothing is known.
        if let (Role::Led, _) | (_, Err(CallError::TimedOut | CallError::Overloaded)) =
            (outcome.role, &outcome.result)
        {
            return outcome.result;
        }
        // 2. Otherwise that flight has landed by now. From here on the database returns the new
        //    row to everybody, so what is removed stays removed.
        self.remove(user.id).map_err(failed)?;
        // 3. A flight that began before the removal may have found the old row in the cache, and a
        //    caller that came now would join it. So wait for the flight after it. That one reads the
        //    new row, even if a GET leads it, and callers that ask after this has returned are on a
        //    later flight still.
        let load = || self.load(user.id, &key);
        let Some(group) = &self.calls.group else {
            // `Unshared` always leads. Something else that shares has no next flight to ask for.
            return self.call(&key, load).result;
        };
        let left = self.request_timeout.saturating_sub(began.elapsed());
        let request = group.request(&*key).next_flight().timeout(left);
        self.counted(&key, request.call_ex(load)).result
    }

    fn call(
        &self,
        key: &str,
        load: impl FnOnce() -> Result<Answer, LoadError>,
    ) -> Outcome<Answer, LoadError> {
        self.counted(key, self.calls.shared.call_ex(key, load))
    }

    fn counted(
        &self,
        key: &str,
        outcome: Outcome<Answer, LoadError>,
    ) -> Outcome<Answer, LoadError> {
        self.counters.count(|stats| {
            match outcome.role {
                Role::Led => stats.led += 1,
                Role::Followed => stats.followed += 1,
            }
            match outcome.result {
                Err(CallError::TimedOut) => stats.timed_out += 1,
                Err(CallError::Overloaded) => stats.overloaded += 1,
                _ => {}
            }
        });
        if let (Role::Led, Err(CallError::Failed(error))) = (outcome.role, &outcome.result) {
            // Only the leader logs: one line for one flight.
            warn!(key, %error, "load failed");
        }
        outcome
    }

    fn load(&self, id: i64, key: &str) -> Result<Answer, LoadError> {
        // If the cache fails, so does the call. To ask the database instead would send it all the
        // load that the cache keeps away from it, and take it down as well.
        if let Some(answer) = self.cached(id, key)? {
            return Ok(answer);
        }
        let answer = self.query(id)?;
        // The answer is good even if the cache does not take it. The next caller tries again.
        if let Err(error) = self.fill(id, &answer) {
            warn!(key, %error, "the cache was not filled");
        }
        Ok(answer)
    }

    /// Ignores what is cached, which may be old, and overwrites it.
    fn reload(&self, id: i64) -> Result<Answer, LoadError> {
        let answer = self.query(id)?;
        self.fill(id, &answer)?;
        Ok(answer)
    }

    fn query(&self, id: i64) -> Result<Answer, DbError> {
        let user = self.database.user(id)?;
        Ok(user.map_or(Answer::NoSuchUser, |user| Answer::user(&user)))
    }

    /// What the cache has, if it can be used. A damaged entry is a miss: the load overwrites it.
    fn cached(&self, id: i64, key: &str) -> Result<Option<Answer>, CacheError> {
        let entry = self.cache.get(id);
        self.counters.count(|stats| match entry {
            Ok(Entry::Hit(_)) => stats.cache_hits += 1,
            Ok(Entry::Miss) => stats.cache_misses += 1,
            Ok(Entry::Damaged(_)) => stats.cache_damaged += 1,
            Err(_) => stats.cache_errors += 1,
        });
        Ok(match entry? {
            Entry::Hit(answer) => Some(answer),
            Entry::Miss => None,
            Entry::Damaged(why) => {
                warn!(key, why, "the cache entry is damaged");
                None
            }
        })
    }

    fn fill(&self, id: i64, answer: &Answer) -> Result<(), CacheError> {
        let keep = match answer {
            Answer::User(_) => self.expiry.user,
            // Cached too. Otherwise every request for a wrong id would reach the database.
            Answer::NoSuchUser => self.expiry.no_such_user,
        };
        self.counting(self.cache.set(id, answer, jitter(keep)))
    }

    fn remove(&self, id: i64) -> Result<(), LoadError> {
        Ok(self.counting(self.cache.remove(id))?)
    }

    fn counting(&self, result: Result<(), CacheError>) -> Result<(), CacheError> {
        if result.is_err() {
            self.counters.count(|stats| stats.cache_errors += 1);
        }
        result
    }

    /// Makes the cached answer for a user expire now, for experiments that can't wait.
    pub fn expire(&self, id: i64) -> Result<(), CacheError> {
        self.cache.remove(id)
    }

    /// Whether the cache answers.
    pub fn check_cache(&self) -> Result<(), CacheError> {
        self.cache.check()
    }

    /// The group, for operators. `None` where nothing is shared.
    pub fn group(&self) -> Option<&Group> {
        self.calls.group.as_ref()
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

/// ±5 %, so that entries written together do not expire together.
pub fn jitter(duration: Duration) -> Duration {
    duration.mul_f64(0.95 + 0.1 * fastrand::f64())
}
