//! The cache: in this process, or Redis, or none.

use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::Cmd;
use thiserror::Error;

use crate::db::{no_connection, User};
use crate::redis_pool::RedisPool;

/// The answer to a request for a user, as it is cached, shared between callers and sent.
///
/// Sharing hands one value to many callers. So a user is encoded once, and the bytes are behind an
/// `Arc`: a clone is cheap, and no caller can change what the others see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    User(Arc<[u8]>),
    /// The placeholder: the database has no such user.
    NoSuchUser,
}

impl Answer {
    pub fn user(user: &User) -> Self {
        let json = serde_json::to_vec(user).expect("numbers and text are always valid JSON");
        Self::User(Arc::from(json))
    }

    /// The entry in Redis. The placeholder is go-zero's; it is not JSON.
    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::User(json) => json,
            Self::NoSuchUser => b"*",
        }
    }

    /// The inverse of `as_bytes`. Redis is shared with other programs and other versions of this
    /// one, so an entry is parsed before it is believed.
    fn parse(id: i64, bytes: &[u8]) -> Result<Self, String> {
        if bytes == b"*" {
            return Ok(Self::NoSuchUser);
        }
        let user: User = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if user.id != id {
            return Err(format!("it holds user {}", user.id));
        }
        Ok(Self::user(&user))
    }
}

/// What the cache has for a user.
pub enum Entry {
    Hit(Answer),
    Miss,
    /// Something that is not an answer for this user, and why. To be overwritten.
    Damaged(String),
}

#[derive(Debug, Error)]
pub enum CacheError {
    #[error("no connection to Redis: {}", no_connection(.0))]
    Pool(r2d2::Error),
    #[error(transparent)]
    Redis(#[from] redis::RedisError),
}

impl From<r2d2::Error> for CacheError {
    fn from(error: r2d2::Error) -> Self {
        Self::Pool(error)
    }
}

pub enum Cache {
    /// Stores nothing, to show what sharing does by itself.
    Off,
    /// moka could share loads itself (`get_with`). Here it only stores, as Redis does.
    Memory(moka::sync::Cache<String, Kept>),
    Redis(RedisPool),
}

impl Cache {
    pub fn memory() -> Self {
        Self::Memory(
            moka::sync::Cache::builder().max_capacity(100_000).expire_after(EachItsOwn).build(),
        )
    }

    /// Does not connect yet. `timeout` is for each step of an exchange with Redis.
    pub fn redis(url: &str, timeout: Duration) -> Result<Self, CacheError> {
        RedisPool::new(url, timeout).map(Self::Redis)
    }

    pub fn get(&self, id: i64) -> Result<Entry, CacheError> {
        let key = key(id);
        match self {
            Self::Off => Ok(Entry::Miss),
            Self::Memory(memory) => {
                let kept = memory.get(&key);
                Ok(kept.map_or(Entry::Miss, |kept| Entry::Hit(kept.answer)))
            }
            Self::Redis(pool) => match pool.query::<Option<Vec<u8>>>(&Cmd::get(&key)) {
                Ok(Some(bytes)) => {
                    Ok(Answer::parse(id, &bytes).map_or_else(Entry::Damaged, Entry::Hit))
                }
                Ok(None) => Ok(Entry::Miss),
                // A list, for example.
                Err(CacheError::Redis(error)) if error.code() == Some("WRONGTYPE") => {
                    Ok(Entry::Damaged(error.to_string()))
                }
                Err(error) => Err(error),
            },
        }
    }

    /// Replaces whatever is there, of whatever type.
    pub fn set(&self, id: i64, answer: &Answer, keep: Duration) -> Result<(), CacheError> {
        match self {
            Self::Off => {}
            Self::Memory(memory) => {
                let answer = answer.clone();
                memory.insert(key(id), Kept { answer, keep });
            }
            Self::Redis(pool) => {
                // Redis refuses an expiry of zero.
                let millis = keep.as_millis().max(1).try_into().unwrap_or(u64::MAX);
                pool.query::<()>(&Cmd::pset_ex(key(id), answer.as_bytes(), millis))?;
            }
        }
        Ok(())
    }

    /// Removes an entry now.
    pub fn remove(&self, id: i64) -> Result<(), CacheError> {
        match self {
            Self::Off => Ok(()),
            Self::Memory(memory) => {
                memory.invalidate(&key(id));
                Ok(())
            }
            Self::Redis(pool) => pool.query(&Cmd::del(key(id))),
        }
    }

    /// Whether the cache can be reached at all.
    pub fn check(&self) -> Result<(), CacheError> {
        match self {
            Self::Off | Self::Memory(_) => Ok(()),
            Self::Redis(pool) => pool.query(&redis::cmd("PING")),
        }
    }
}

/// The key of a user, in the cache and of the shared call: two requests with the same key get the
/// same answer.
pub fn key(id: i64) -> String {
    format!("user-service:user:{id}")
}

#[derive(Clone)]
pub struct Kept {
    answer: Answer,
    keep: Duration,
}

/// Gives every entry in moka its own time to live.
struct EachItsOwn;

impl moka::Expiry<String, Kept> for EachItsOwn {
    fn expire_after_create(&self, _: &String, kept: &Kept, _: Instant) -> Option<Duration> {
        Some(kept.keep)
    }

    fn expire_after_update(
        &self,
        _: &String,
        kept: &Kept,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(kept.keep)
    }
}
