//! Keeps the locks whose functions are still running.
//!
//! Each lock is renewed when a third of its lease has passed, the one that ends first before the
//! others, and up to [`BATCH`] of them in one round trip. If all are renewed within another third,
//! there is time for a second attempt. So a process can keep `BATCH * lease / 3 / round trip` locks:
//! 25 000 for 3 s and 20 ms. What Redis can do is the other limit: see the README.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::warn;

use crate::link::{Link, NoRedis};
use crate::lock::{Locks, Token};

/// So many locks are renewed in one round trip. Redis needs some milliseconds for them.
pub const BATCH: usize = 500;

/// The locks that this process holds, by token.
#[derive(Default)]
pub struct Held(Mutex<HashMap<Token, Lock>>);

struct Lock {
    key: String,
    since: Instant,
    /// Before the last renewal was sent: the lease lasts at least until one lease after that.
    renewed: Instant,
}

impl Held {
    /// From now on the lock is renewed. It was acquired after `asked`.
    pub fn keep(&self, key: &str, token: &Token, asked: Instant) {
        let (key, since, renewed) = (key.to_owned(), asked, asked);
        let lock = Lock { key, since, renewed };
        self.0.lock().insert(token.clone(), lock);
    }

    /// The lock is not renewed any more. `false` if it is known to be lost.
    pub fn release(&self, token: &Token) -> bool {
        self.0.lock().remove(token).is_some()
    }

    pub fn count(&self) -> usize {
        self.0.lock().len()
    }

    /// Renews all locks that are due, and returns after how long it wants to be called again.
    pub fn renew_due(&self, link: &Link, locks: &Locks, max_run: Duration) -> Duration {
        let third = locks.lease() / 3;
        loop {
            let batch = self.due(third, max_run);
            if batch.is_empty() {
                let last = self.0.lock().values().map(|lock| lock.renewed).min();
                return last.map_or(third, |last| third.saturating_sub(last.elapsed()));
            }
            if let Err(NoRedis) = self.renew(link, locks, &batch) {
                // There may be a Redis again before the lease ends.
                return (third / 4).max(Duration::from_millis(1));
            }
        }
    }

    /// If a lock is due: that one and those that soon will be, the first to end first.
    fn due(&self, third: Duration, max_run: Duration) -> Vec<(String, Token)> {
        let mut due = Vec::new();
        let mut hung = Vec::new();
        for (token, lock) in &*self.0.lock() {
            let age = lock.renewed.elapsed();
            if age >= third && lock.since.elapsed() > max_run {
                hung.push(token.clone());
            } else if age >= third / 2 {
                due.push((Reverse(age), lock.key.clone(), token.clone()));
            }
        }
        for token in hung {
            self.lose(&token, "has run for too long");
        }
        due.sort_by_key(|(age, ..)| *age);
        if due.first().is_none_or(|(Reverse(age), ..)| *age < third) {
            return Vec::new();
        }
        due.truncate(BATCH);
        due.into_iter().map(|(_, key, token)| (key, token)).collect()
    }

    fn renew(&self, link: &Link, locks: &Locks, batch: &[(String, Token)]) -> Result<(), NoRedis> {
        let sent = Instant::now();
        let mut all = Ok(());
        for ((_, token), extended) in batch.iter().zip(locks.extend(link, batch)?) {
            match extended {
                Ok(true) => {
                    if let Some(lock) = self.0.lock().get_mut(token) {
                        lock.renewed = sent;
                    }
                }
                Ok(false) => self.lose(token, "has lost its lock, which ran out or was taken"),
                Err(NoRedis) => all = Err(NoRedis),
            }
        }
        all
    }

    fn lose(&self, token: &Token, why: &str) {
        // If it is not there any more, its function has ended meanwhile, and released it.
        if let Some(Lock { key, renewed, .. }) = self.0.lock().remove(token) {
            let since = renewed.elapsed();
            warn!(key, last_renewed = ?since, "the function {why}: other processes go on without it");
        }
    }
}
