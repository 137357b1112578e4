//! The lock of a key, and the outcome of its last holder, as Redis has them.
//!
//! | a key is | `KEY:lock` is | until |
//! | --- | --- | --- |
//! | free | absent | a process asks for it: `ASK`, and of all that do, one gets it |
//! | held | the holder's token | the holder publishes: `PUBLISH`; or its lease ends |
//!
//! The holder renews its lease, by `EXTEND`. `KEY:outcome` is what was published last, with its
//! token, for a while.
//!
//! A token is `NUMBER:LOCK:OUTCOME:NAME`. Each holder gets a higher number than the one before it,
//! and so than the outcome that is there, if any. The two times, in milliseconds, are those of its
//! settings: they tell processes with other settings which expiry cannot be right. The name makes a
//! token unique even where Redis forgot its numbers.
//!
//! Each change is one script, and so atomic. All but `ASK` compare the token first: a process that
//! has lost the lock changes nothing. Each may be repeated without harm if its reply is lost.

use std::time::Duration;

use redis::{RedisError, Script, Value};
use tracing::warn;

use crate::check::only_polling;
use crate::link::{Link, NoRedis};

/// No lock and no outcome lasts longer. Redis refuses a time that is too long.
pub const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A caller that has seen flight number ARGV[1] gets its outcome, or a later one; or else the lock,
/// if it is free and wanted: `SET NX PX` is the arbiter. Or else it learns who has the lock.
///
/// Other programs, and clocks that are set back, leave what a tier never would: a lock without an
/// expiry, or with one beyond its lease, or a value of another type. Those would block the key for
/// ever, so `sane` corrects them first. A holder that is alive loses nothing: it renews its lease.
///
/// One counter numbers all flights, and never expires. If it is lost all the same, the numbers still
/// go up from an outcome that is there. Lua writes up to 14 digits as an integer: anything longer
/// counts as damaged.
const ASK: &str = "
    local notes = {}
    local function damaged(reply)
        local err = type(reply) == 'table' and reply.err or ''
        return err:find('WRONGTYPE') or err:find('not an integer') or err:find('overflow')
    end
    local function sane(what, key, time)
        local value = redis.pcall('GET', key)
        if damaged(value) then
            redis.call('DEL', key)
            table.insert(notes, what .. ' was not a string: deleted')
            return false
        end
        -- Any other error comes again, and ends the script.
        if type(value) == 'table' then return redis.call('GET', key) end
        if not value then return false end
        local lock, outcome = value:match('^%d+:(%d+):(%d+):')
        local own = tonumber(what == 'lock' and lock or outcome or time)
        time = own <= tonumber(ARGV[5]) and own or tonumber(time)
        local left = redis.call('PTTL', key)
        if left < 0 or left > time then
            redis.call('PEXPIRE', key, time)
            local expiry = left < 0 and 'had no expiry' or 'had ' .. left .. ' ms left'
            table.insert(notes, what .. ' ' .. expiry .. ': shortened to ' .. time .. ' ms')
        end
        return value
    end
    local function number(value) return tonumber(value and value:match('^%d+') or 0) end

    local outcome = sane('outcome', KEYS[2], ARGV[4])
    local last = number(outcome)
    if last >= 1e14 then outcome, last = false, 0 end
    if outcome and ARGV[1] ~= '' and last >= tonumber(ARGV[1]) then
        return {outcome, false, notes}
    end
    local holder = sane('lock', KEYS[1], ARGV[3])
    if not holder and ARGV[2] ~= '' then
        local flight = redis.pcall('INCR', KEYS[3])
        if damaged(flight) or type(flight) == 'number' and flight >= 1e14 then
            redis.call('DEL', KEYS[3])
            table.insert(notes, 'counter of flights was damaged: begun anew')
        end
        if type(flight) == 'table' or flight >= 1e14 then flight = redis.call('INCR', KEYS[3]) end
        holder = table.concat({math.max(flight, last + 1), ARGV[3], ARGV[4], ARGV[2]}, ':')
        redis.call('SET', KEYS[1], holder, 'NX', 'PX', ARGV[3])
    end
    return {false, holder, notes}";

/// Renews a lock. (`pcall`, because another client may have put there what is no string.)
const EXTEND: &str = "
    if redis.pcall('GET', KEYS[1]) ~= ARGV[1] then return 0 end
    return redis.call('PEXPIRE', KEYS[1], ARGV[2])";

/// All at once: the outcome is there, the lock is not, and those who wait are told. Nobody can see
/// the key free and the outcome not there yet. (If it is there, this request is a repetition.)
/// Where `PUBLISH` is refused, the outcome is there all the same: those who wait ask for it.
const PUBLISH: &str = "
    if redis.pcall('GET', KEYS[1]) ~= ARGV[1] then
        local there = redis.pcall('GET', KEYS[2])
        there = type(there) == 'string' and there:match('^%S+')
        return {there == ARGV[1] and 1 or 0, false}
    end
    redis.call('SET', KEYS[2], ARGV[1] .. ' ' .. ARGV[2], 'PX', ARGV[3])
    redis.call('DEL', KEYS[1])
    local told = redis.pcall('PUBLISH', ARGV[4], ARGV[5])
    return {1, type(told) == 'table' and told.err}";

pub enum Answer {
    /// Of the flight that was seen before, or of one that had the lock after it.
    Outcome(Vec<u8>),
    /// Ours now.
    Acquired(Token),
    /// By the flight of that number; or it is free, and was not wanted.
    Held(u64),
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
        let millis = |time: Duration| time.min(LONGEST).as_millis() as u64;
        Self {
            prefix: prefix.to_owned(),
            time: millis(time),
            outcome_time: millis(outcome_time),
            ask: Script::new(ASK),
            extend: Script::new(EXTEND),
            publish: Script::new(PUBLISH),
        }
    }

    /// How long a lock lasts unless it is renewed.
    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.time)
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
        let seen = seen.map(|number| number.to_string()).unwrap_or_default();
        let mut ask = self.ask.key(self.lock(key));
        ask.key(self.outcome(key)).key(self.name("flights"));
        ask.arg(seen).arg(name.unwrap_or_default()).arg(self.time);
        ask.arg(self.outcome_time).arg(LONGEST.as_millis() as u64);
        type Reply = (Option<Vec<u8>>, Option<Vec<u8>>, Vec<String>);
        let (outcome, holder, notes): Reply = link.run(|connection| ask.invoke(connection))?;
        for note in notes {
            warn!(key, "another client's mistake, or a clock's: the {note}");
        }
        if let Some(mut outcome) = outcome {
            let json = outcome.iter().position(|byte| *byte == b' ');
            return Ok(Answer::Outcome(outcome.split_off(json.unwrap_or_default())));
        }
        let holder = String::from_utf8_lossy(&holder.unwrap_or_default()).into_owned();
        // Also when this request is a repetition.
        if name.is_some_and(|name| holder.ends_with(name)) {
            return Ok(Answer::Acquired(Token(holder)));
        }
        // A token that is not ours, or none, counts as later than all.
        let number = holder.split(':').next().and_then(|number| number.parse().ok());
        Ok(Answer::Held(number.unwrap_or(u64::MAX)))
    }

    /// Renews many locks in one round trip. For each: `false` if the lock is no longer that
    /// token's; an error if Redis refused to say.
    pub fn extend(
        &self,
        link: &Link,
        locks: &[(String, Token)],
    ) -> Result<Vec<Result<bool, NoRedis>>, NoRedis> {
        let mut pipe = redis::pipe();
        // A pipeline cannot react to a script that is missing.
        pipe.ignore_errors().cmd("SCRIPT").arg("LOAD").arg(EXTEND).ignore();
        for (key, token) in locks {
            pipe.cmd("EVALSHA").arg(self.extend.get_hash()).arg(1);
            pipe.arg(self.lock(key)).arg(&token.0).arg(self.time);
        }
        let replies: Vec<Value> = link.run(|connection| pipe.query(connection))?;
        let extended = replies.into_iter().map(|reply| match reply {
            Value::ServerError(error) => Err(link.fault(&RedisError::from(error))),
            reply => Ok(reply == Value::Int(1)),
        });
        Ok(extended.collect())
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
        let channel = self.name("published");
        publish.arg(self.outcome_time).arg(&channel).arg(key);
        let (published, untold): (bool, Option<String>) =
            link.run(|connection| publish.invoke(connection))?;
        if let Some(why) = untold {
            link.say_once(only_polling("PUBLISH", &channel, &why));
        }
        Ok(published)
    }

    /// The scripts, to be loaded before they are needed.
    pub fn scripts(&self) -> [&'static str; 3] {
        [ASK, EXTEND, PUBLISH]
    }

    /// `flights` is the counter that numbers them; keys are announced on the channel `published`; no
    /// call uses the key `probe`.
    pub fn name(&self, what: &str) -> String {
        format!("{}{what}", self.prefix)
    }

    fn lock(&self, key: &str) -> String {
        format!("{}key:{key}:lock", self.prefix)
    }

    fn outcome(&self, key: &str) -> String {
        format!("{}key:{key}:outcome", self.prefix)
    }
}
