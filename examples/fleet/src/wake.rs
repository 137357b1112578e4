//! Wakes those who wait for another process, when Redis says that it has published.
//!
//! One subscription for the whole process, to one channel on which keys are announced. A message
//! is a hint to ask now. If it is lost, those who wait ask a little later all the same.

use std::collections::HashMap;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use redis::{ErrorKind, RedisResult, Value};
use tracing::debug;

use crate::check::{check, only_polling};
use crate::link::{is_refusal, Link, NoRedis};
use crate::lock::Locks;

/// How often the subscriber's thread looks up from a silent channel.
const TICK: Duration = Duration::from_millis(100);
/// How long it rests before it connects again: at first, and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// How long it waits before it asks again for a subscription that was refused.
const REFUSED: Duration = Duration::from_secs(10);

/// For each key for which this process waits: whether it has been announced.
#[derive(Default)]
pub struct Bell {
    keys: Mutex<HashMap<String, bool>>,
    rung: Condvar,
}

/// A place at the bell. There is one for each key, for the leader of the key's local flight.
pub struct Place<'b> {
    bell: &'b Bell,
    key: &'b str,
}

impl Bell {
    /// To be done before one asks: what is published after the answer rings.
    pub fn take_place<'b>(&'b self, key: &'b str) -> Place<'b> {
        self.keys.lock().insert(key.to_owned(), false);
        Place { bell: self, key }
    }

    fn ring(&self, key: &str) {
        if let Some(rung) = self.keys.lock().get_mut(key) {
            *rung = true;
            // There are few who wait: one for each key.
            self.rung.notify_all();
        }
    }
}

impl Place<'_> {
    /// Until the key is announced, but no longer than this.
    pub fn wait(&self, at_most: Duration) {
        let mut keys = self.bell.keys.lock();
        let silent = |keys: &mut HashMap<String, bool>| keys.get(self.key) == Some(&false);
        self.bell.rung.wait_while_for(&mut keys, silent, at_most);
        if let Some(rung) = keys.get_mut(self.key) {
            *rung = false;
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.bell.keys.lock().remove(self.key);
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
    if let Err(NoRedis) = link.admit(check(&mut connection, locks)?) {
        return Err((ErrorKind::Client, "this Redis cannot be used").into());
    }
    begun();
    // Not by `PubSub::subscribe`, which takes a refusal for a success.
    let (mut subscribe, channel) = (redis::cmd("SUBSCRIBE"), locks.name("published"));
    match subscribe.arg(&channel).query::<Value>(&mut connection) {
        Err(error) if is_refusal(&error) => {
            link.say_once(only_polling("SUBSCRIBE", &channel, &error.to_string()));
            let refused = Instant::now();
            while open() && link.is_up() && refused.elapsed() < REFUSED {
                thread::sleep(TICK);
            }
            return Ok(());
        }
        subscribed => subscribed?,
    };
    let mut messages = connection.as_pubsub();
    messages.set_read_timeout(Some(TICK))?;
    // When a command found Redis away, this connection may just be silent: it is tried anew.
    while open() && link.is_up() {
        match messages.get_message() {
            Ok(message) => bell.ring(&message.get_payload::<String>()?),
            Err(error) if error.is_timeout() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
