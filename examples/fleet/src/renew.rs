//! Keeps the locks whose functions are still running.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::warn;

use crate::link::Link;
use crate::lock::{Locks, Token};

/// The locks that this process holds, by token.
#[derive(Default)]
pub struct Held(Mutex<HashMap<Token, Lock>>);

#[derive(Clone)]
struct Lock {
    key: String,
    since: Instant,
}

/// As long as this is there, the lock is renewed.
pub struct Renewal<'h> {
    held: &'h Held,
    token: &'h Token,
}

impl Held {
    pub fn renew<'h>(&'h self, key: &str, token: &'h Token) -> Renewal<'h> {
        let (key, since) = (key.to_owned(), Instant::now());
        self.lock().insert(token.clone(), Lock { key, since });
        Renewal { held: self, token }
    }

    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// Renews each lock once, at every third of a lock's time.
    pub fn renew_all(&self, link: &Link, locks: &Locks, max_run: Duration) {
        let held: Vec<_> = self.lock().clone().into_iter().collect();
        for (token, Lock { key, since }) in held {
            let why = if since.elapsed() > max_run {
                "has run for too long"
            } else if let Ok(false) = locks.extend(link, &key, &token) {
                "has lost its lock"
            } else {
                continue; // Renewed; or there is no Redis now, but may be again in time.
            };
            // If it is not there any more, its function has ended meanwhile, and released it.
            if self.lock().remove(&token).is_some() {
                warn!(
                    key,
                    "the function {why}: other processes go on without its outcome"
                );
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Token, Lock>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Renewal<'_> {
    fn drop(&mut self) {
        self.held.lock().remove(self.token);
    }
}
