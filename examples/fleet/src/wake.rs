//! Wakes those who wait for another process, when Redis says that it has published.
//!
//! One subscription for the whole process, to one channel on which tokens are announced. A message
//! is no more than a hint to look now: it may be lost, when the connection is, and then whoever
//! waits looks a little later all the same.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use redis::RedisResult;
use tracing::debug;

use crate::link::Link;
use crate::lock::Locks;

/// How often the subscriber's thread looks up from a silent channel.
const TICK: Duration = Duration::from_millis(100);
/// How long it rests before it connects again: at first, and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// For each token that somebody here waits for: whether it has been announced.
#[derive(Default)]
pub struct Bell {
    tokens: Mutex<HashMap<String, bool>>,
    rung: Condvar,
}

/// A place at the bell. Taken before the first look: what is published after that look rings.
pub struct Place<'b> {
    bell: &'b Bell,
    token: &'b str,
}

impl Bell {
    pub fn listen<'b>(&'b self, token: &'b str) -> Place<'b> {
        self.tokens().insert(token.to_owned(), false);
        Place { bell: self, token }
    }

    fn ring(&self, token: &str) {
        if let Some(rung) = self.tokens().get_mut(token) {
            *rung = true;
            // There are few: one for each key that this process waits for.
            self.rung.notify_all();
        }
    }

    fn tokens(&self) -> MutexGuard<'_, HashMap<String, bool>> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place<'_> {
    /// Until the token is announced, but no longer than this.
    pub fn wait(&self, at_most: Duration) {
        let tokens = self.bell.tokens();
        let silent = |tokens: &mut HashMap<String, bool>| tokens.get(self.token) == Some(&false);
        drop(self.bell.rung.wait_timeout_while(tokens, at_most, silent));
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.bell.tokens().remove(self.token);
    }
}

/// The subscriber's thread: listens, connects again when it must, and says when there is a Redis
/// again. Until `open` says no.
pub fn listen(link: &Link, locks: &Locks, bell: &Bell, open: impl Fn() -> bool) {
    let mut backoff = BACKOFF.0;
    while open() {
        if let Err(error) = subscription(link, locks, bell, &open, || backoff = BACKOFF.0) {
            // Those who wait look by themselves, and find out whether there is still a Redis.
            debug!(%error, "no subscription");
            thread::sleep(backoff);
            backoff = (backoff * 2).min(BACKOFF.1);
        }
    }
}

fn subscription(
    link: &Link,
    locks: &Locks,
    bell: &Bell,
    open: impl Fn() -> bool,
    begun: impl FnOnce(),
) -> RedisResult<()> {
    let mut connection = link.connect()?;
    locks.probe(&mut connection)?;
    let mut channel = connection.as_pubsub();
    channel.subscribe(locks.channel())?;
    channel.set_read_timeout(Some(TICK))?;
    link.up();
    begun();
    // When others found Redis wanting, this connection may just be silent: it is tried anew.
    while open() && link.is_up() {
        match channel.get_message() {
            Ok(message) => bell.ring(&message.get_payload::<String>()?),
            Err(error) if error.is_timeout() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
