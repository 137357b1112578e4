//! Builds the service from what the command line and the environment say.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{bail, Context, Result};
use shared_calls::Unshared;

use crate::cache::Cache;
use crate::db::{Database, Engine, When};
use crate::metrics::Flights;
use crate::postgres_pool::PostgresPool;
use crate::service::{Calls, Expiry, Service};
use crate::sqlite_pool::SqlitePool;
use crate::watch;

/// Time limit for each exchange with Redis.
const REDIS_TIMEOUT: Duration = Duration::from_millis(500);
/// Time limit for each statement of PostgreSQL. Shorter than a request's, so that all callers of a
/// flight get its error.
const POSTGRES_TIMEOUT: Duration = Duration::from_secs(1);

pub enum Store {
    Sqlite(PathBuf),
    Postgres(Box<postgres::Config>),
}

impl Store {
    /// Parses DATABASE_URL. Errors do not show it, because it may hold a password.
    pub fn from_url(url: &str) -> Result<Self> {
        let ours = ["postgres://", "postgresql://"];
        if !ours.iter().any(|scheme| url.starts_with(scheme)) {
            bail!("it does not begin with postgres:// or postgresql://");
        }
        Ok(Self::Postgres(Box::new(url.parse()?)))
    }

    fn open(&self) -> Result<Engine> {
        Ok(match self {
            Self::Sqlite(path) => {
                let pool = SqlitePool::open(path, |_| ())
                    .with_context(|| format!("cannot use the database {}", path.display()))?;
                Engine::Sqlite(pool)
            }
            Self::Postgres(config) => {
                let pool = PostgresPool::open(*config.clone(), POSTGRES_TIMEOUT)
                    .context("cannot use DATABASE_URL")?;
                Engine::Postgres(pool)
            }
        })
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sqlite(_) => "SQLite (PostgreSQL: set DATABASE_URL)",
            Self::Postgres(_) => "PostgreSQL, at DATABASE_URL",
        })
    }
}

pub enum Caching {
    Off,
    Memory,
    /// At this URL.
    Redis(String),
}

impl fmt::Display for Caching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "none",
            Self::Memory => "in this process (Redis: set REDIS_URL)",
            Self::Redis(_) => "Redis, at REDIS_URL",
        })
    }
}

pub struct Config {
    pub store: Store,
    /// How much slower each query is made.
    pub database_latency: Duration,
    pub caching: Caching,
    pub expiry: Expiry,
    /// How long a request waits for another's load.
    pub request_timeout: Duration,
    /// How many requests may wait for one load.
    pub max_followers: usize,
}

#[derive(Clone, Copy, Debug)]
pub enum Sharing {
    On,
    /// Every request does its own load.
    Off,
}

impl Config {
    pub fn service(&self, sharing: Sharing) -> Result<Service> {
        let flights = Flights::new();
        let calls = match sharing {
            Sharing::On => {
                let group = watch::group(&flights, self.request_timeout, self.max_followers);
                Calls::from(group)
            }
            Sharing::Off => Calls::from(Arc::new(Unshared)),
        };
        let latency = self.database_latency;
        let slow = move |when| {
            if when == When::Before {
                thread::sleep(latency);
            }
        };
        let database = Database::new(self.store.open()?, Box::new(slow));
        let cache = match &self.caching {
            Caching::Off => Cache::Off,
            Caching::Memory => Cache::memory(),
            Caching::Redis(url) => {
                Cache::redis(url, REDIS_TIMEOUT).context("cannot use REDIS_URL")?
            }
        };
        Ok(Service::new(calls, flights, cache, database, self.expiry, self.request_timeout))
    }
}
