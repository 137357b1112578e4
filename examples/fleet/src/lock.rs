//! The lock of a key, and the outcome of whoever held it, as Redis has them.
//!
//! | state of a key | `{key}:lock` | left by |
//! | --- | --- | --- |
//! | free | absent | [`acquire`](Locks::acquire) |
//! | run by the holder of token *t*, until its time is up | *t* | [`extend`](Locks::extend), [`publish`](Locks::publish), time |
//! | the same, published | absent, and `{key}:outcome:t` for a while | as free |
//!
//! Each change is one script, so it is atomic, and each but the first needs the token: whoever
//! has lost the lock changes nothing any more. Each may be repeated without harm, in case its reply
//! is lost.

use std::time::Duration;

use redis::{cmd, Script};

use crate::link::{Link, NoRedis};

/// `SET NX PX` is the arbiter: of all who find the lock free, one gets it. Says who has it now.
const ACQUIRE: &str = "
    if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return ARGV[1] end
    return redis.call('GET', KEYS[1])";

/// Compare, and extend.
const EXTEND: &str = "
    if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
    return redis.call('PEXPIRE', KEYS[1], ARGV[2])";

/// Compare, and then all at once: the outcome is there, the lock is not, and all are told. Nobody
/// can see a lock that is gone and an outcome that is not there yet.
const PUBLISH: &str = "
    if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
    redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
    redis.call('DEL', KEYS[1])
    redis.call('PUBLISH', ARGV[4], ARGV[1])
    return 1";

/// What there is to see of the flight that has a certain token.
pub enum Seen {
    Running,
    Outcome(Vec<u8>),
    /// Neither: its process died or lost the lock, or the outcome is not kept any more.
    Gone,
}

pub struct Locks {
    prefix: String,
    time: u64,
    outcome_time: u64,
    acquire: Script,
    extend: Script,
    publish: Script,
}

impl Locks {
    pub fn new(prefix: &str, time: Duration, outcome_time: Duration) -> Self {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self {
            prefix: prefix.to_owned(),
            time: millis(time),
            outcome_time: millis(outcome_time),
            acquire: Script::new(ACQUIRE),
            extend: Script::new(EXTEND),
            publish: Script::new(PUBLISH),
        }
    }

    /// Takes the lock if it is free. The token of whoever has it now.
    pub fn acquire(&self, link: &Link, key: &str, token: &str) -> Result<String, NoRedis> {
        link.run(|connection| {
            let mut acquire = self.acquire.key(self.lock(key));
            acquire.arg(token).arg(self.time).invoke(connection)
        })
    }

    /// `false` if the lock is no longer that token's.
    pub fn extend(&self, link: &Link, key: &str, token: &str) -> Result<bool, NoRedis> {
        link.run(|connection| {
            let mut extend = self.extend.key(self.lock(key));
            extend.arg(token).arg(self.time).invoke(connection)
        })
    }

    /// Publishes and releases. `false`, and nothing was published, if the lock is no longer that
    /// token's.
    pub fn publish(
        &self,
        link: &Link,
        key: &str,
        token: &str,
        json: &str,
    ) -> Result<bool, NoRedis> {
        link.run(|connection| {
            let mut publish = self.publish.key(self.lock(key));
            publish.key(self.outcome(key, token)).arg(token).arg(json);
            publish.arg(self.outcome_time).arg(self.channel());
            publish.invoke(connection)
        })
    }

    /// One command, and so one instant, for both.
    pub fn look(&self, link: &Link, key: &str, token: &str) -> Result<Seen, NoRedis> {
        let mut look = cmd("MGET");
        look.arg(self.lock(key)).arg(self.outcome(key, token));
        let (lock, outcome): (Option<String>, Option<Vec<u8>>) =
            link.run(|connection| look.query(connection))?;
        Ok(match (lock, outcome) {
            (_, Some(json)) => Seen::Outcome(json),
            (Some(holder), None) if holder == token => Seen::Running,
            _ => Seen::Gone,
        })
    }

    /// A write that disturbs nobody, to see whether Redis would do ours: a replica and one that is
    /// full answer a `PING`, too.
    pub fn probe(&self, connection: &mut redis::Connection) -> redis::RedisResult<()> {
        let mut probe = self.acquire.key(format!("{}probe", self.prefix));
        probe.arg("probe").arg(1).invoke(connection)
    }

    /// Where tokens are announced whose outcome is there.
    pub fn channel(&self) -> String {
        format!("{}published", self.prefix)
    }

    // In braces, so that a Redis Cluster would keep both in one place.
    fn lock(&self, key: &str) -> String {
        format!("{}{{{key}}}:lock", self.prefix)
    }

    fn outcome(&self, key: &str, token: &str) -> String {
        format!("{}{{{key}}}:outcome:{token}", self.prefix)
    }
}
