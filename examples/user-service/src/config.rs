//! What the service is made of, as the command line and the environment say.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use shared_calls::Unshared;

use crate::cache::Cache;
use crate::db::{Database, When};
use crate::metrics::Flights;
use crate::service::{Calls, Expiry, Service};
use crate::watch;

/// Time limit for each exchange with Redis.
const REDIS_TIMEOUT: Duration = Duration::from_millis(500);

pub struct Config {
    pub database: PathBuf,
    /// By how much each query is made slower than it is.
    pub database_latency: Duration,
    /// `None`: the cache is in this process.
    pub redis_url: Option<String>,
    /// How long a request waits for the load of another.
    pub request_timeout: Duration,
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
        let calls: Arc<dyn Calls> = match sharing {
            Sharing::On => Arc::new(watch::group(&flights)),
            Sharing::Off => Arc::new(Unshared),
        };
        let latency = self.database_latency;
        let slow = move |_: &_, when| {
            if when == When::Before {
                thread::sleep(latency);
            }
        };
        let database = Database::open(&self.database, Box::new(slow))
            .with_context(|| format!("cannot use the database {}", self.database.display()))?;
        let cache = match &self.redis_url {
            Some(url) => Cache::redis(url, REDIS_TIMEOUT).context("cannot use REDIS_URL")?,
            None => Cache::memory(),
        };
        Ok(Service::new(
            calls,
            flights,
            cache,
            database,
            Expiry::default(),
            self.request_timeout,
        ))
    }
}
