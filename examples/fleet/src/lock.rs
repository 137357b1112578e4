//! The lock of a key, and the outcome of whoever held it last, as Redis has them.
//!
//! | a key is | `KEY:lock` is | until |
//! | --- | --- | --- |
//! | free | absent | somebody asks for it: `ASK`, and of all who do, one gets it |
//! | held | the holder's token | the holder publishes: `PUBLISH`; or its time is up |
//!
//! The holder puts the end of that time off, by `EXTEND`. `KEY:outcome` is what was published last,
//! with its token, for a while.
//!
//! A token is a number and a random name. Who gets the lock gets a higher number than whoever had
//! it before, and so than the outcome that is there, if any. The name makes a token unique even
//! where Redis forgot its numbers.
//!
//! Each change is one script, and so atomic. All but `ASK` compare the token first: who has lost
//! the lock changes nothing any more. Each may be repeated without harm, should its reply be lost.

use std::time::Duration;

use redis::Script;

use crate::link::{Link, NoRedis};

/// Whoever has seen flight number ARGV[1] gets its outcome, or a later one; or else the lock, if
/// it is free and wanted: `SET NX PX` is the arbiter. Or else learns who has it.
///
/// The numbers come from one counter for all keys, which never expires. Should it be lost all the
/// same, evicted for want of memory, they still go up from an outcome that is there.
const ASK: &str = "
    local outcome = redis.call('GET', KEYS[2])
    local last = outcome and tonumber(string.match(outcome, '^%d+')) or 0
    if ARGV[1] ~= '' and last >= tonumber(ARGV[1]) then return {outcome, false} end
    local holder = redis.call('GET', KEYS[1])
    if not holder and ARGV[2] ~= '' then
        holder = math.max(redis.call('INCR', KEYS[3]), last + 1) .. ':' .. ARGV[2]
        redis.call('SET', KEYS[1], holder, 'NX', 'PX', ARGV[3])
    end
    return {false, holder}";

/// Renews a lock.
const EXTEND: &str = "
    if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
    return redis.call('PEXPIRE', KEYS[1], ARGV[2])";

/// All at once: the outcome is there, the lock is not, and those who wait are told. Nobody can see
/// the key free and the outcome not there yet. (If it is there, this is the second time of asking.)
const PUBLISH: &str = "
    if redis.call('GET', KEYS[1]) ~= ARGV[1] then
        local there = string.match(redis.call('GET', KEYS[2]) or '', '^%S+')
        return there == ARGV[1] and 1 or 0
    end
    redis.call('SET', KEYS[2], ARGV[1] .. ' ' .. ARGV[2], 'PX', ARGV[3])
    redis.call('DEL', KEYS[1])
    redis.call('PUBLISH', ARGV[4], ARGV[5])
    return 1";

pub enum Answer {
    /// Of the flight that was seen before, or of one that had the lock after it.
    Outcome(Vec<u8>),
    /// Ours now.
    Acquired(Token),
    /// By the flight of that number.
    Held(u64),
    Free,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Token(String);

pub struct Locks {
    prefix: String,
    time: u64,
    outcome_time: u64,
    ask: Script,
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
            ask: Script::new(ASK),
            extend: Script::new(EXTEND),
            publish: Script::new(PUBLISH),
        }
    }

    /// What of the flight that was `seen`, if any? Without a `name` this only looks, and does not
    /// take the lock. The name has to be a new one for each call that wants the lock.
    pub fn ask(
        &self,
        link: &Link,
        key: &str,
        seen: Option<u64>,
        name: Option<&str>,
    ) -> Result<Answer, NoRedis> {
        let mut ask = self.ask.key(self.lock(key));
        ask.key(self.outcome(key)).key(self.name("flights"));
        ask.arg(seen.map(|number| number.to_string()).unwrap_or_default());
        ask.arg(name.unwrap_or_default()).arg(self.time);
        type Reply = (Option<Vec<u8>>, Option<String>);
        let (outcome, holder): Reply = link.run(|connection| ask.invoke(connection))?;
        Ok(match (outcome, holder) {
            (Some(mut outcome), _) => {
                let json = outcome.iter().position(|byte| *byte == b' ');
                Answer::Outcome(outcome.split_off(json.unwrap_or_default()))
            }
            // Also when this is the second time of asking.
            (None, Some(holder)) => match name {
                Some(name) if holder.ends_with(name) => Answer::Acquired(Token(holder)),
                _ => Answer::Held(number(&holder)),
            },
            (None, None) => Answer::Free,
        })
    }

    /// `false` if the lock is no longer that token's.
    pub fn extend(&self, link: &Link, key: &str, token: &Token) -> Result<bool, NoRedis> {
        let mut extend = self.extend.key(self.lock(key));
        extend.arg(&token.0).arg(self.time);
        link.run(|connection| extend.invoke(connection))
    }

    /// Publishes and releases. `false`, and neither was done, if the lock is no longer that
    /// token's.
    pub fn publish(
        &self,
        link: &Link,
        key: &str,
        token: &Token,
        json: &str,
    ) -> Result<bool, NoRedis> {
        let mut publish = self.publish.key(self.lock(key));
        publish.key(self.outcome(key)).arg(&token.0).arg(json);
        publish.arg(self.outcome_time).arg(self.channel()).arg(key);
        link.run(|connection| publish.invoke(connection))
    }

    /// A script and a write that disturb nobody, to see whether Redis would do ours: a replica, or
    /// a Redis that is full, answers a `PING`, too.
    pub fn probe(&self, connection: &mut redis::Connection) -> redis::RedisResult<()> {
        let mut probe = self.extend.key(self.name("probe"));
        let _: bool = probe.arg("").arg(0).invoke(connection)?;
        let mut probe = redis::cmd("SET");
        probe.arg(self.name("probe")).arg("").arg("PX").arg(1);
        probe.query(connection)
    }

    /// Where keys are announced whose outcome is there.
    pub fn channel(&self) -> String {
        self.name("published")
    }

    fn lock(&self, key: &str) -> String {
        format!("{}key:{key}:lock", self.prefix)
    }

    fn outcome(&self, key: &str) -> String {
        format!("{}key:{key}:outcome", self.prefix)
    }

    fn name(&self, what: &str) -> String {
        format!("{}{what}", self.prefix)
    }
}

/// One that is not ours is later than all.
fn number(token: &str) -> u64 {
    let number = token.split(':').next().unwrap_or_default();
    number.parse().unwrap_or(u64::MAX)
}
