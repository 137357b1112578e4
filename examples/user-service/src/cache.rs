//! The cache: in this process, or Redis, or none.

use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::Cmd;
use thiserror::Error;

use crate::db::User;
use crate::redis_pool::RedisPool;

/// What there is to know about an id, as it is cached, shared between callers and sent.
///
/// Sharing hands one value to many callers. So a user is encoded once, and the bytes are behind an
/// `Arc`: a clone costs nothing, and no caller can change what the others see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    User(Arc<[u8]>),
    /// The placeholder: the database was asked, and has no such user.
    NoSuchUser,
}

impl Answer {
    pub fn user(user: &User) -> Self {
        let json = serde_json::to_vec(user).expect("numbers and text are always valid JSON");
        Self::User(Arc::from(json))
    }

    /// How Redis keeps it. The placeholder is go-zero's, and no JSON.
    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::User(json) => json,
            Self::NoSuchUser => b"*",
        }
    }

    fn from_bytes(bytes: Vec<u8>) -> Self {
        match bytes.as_slice() {
            b"*" => Self::NoSuchUser,
            _ => Self::User(Arc::from(bytes)),
        }
    }
}

#[derive(Debug, Error)]
pub enum CacheError {
    #[error("no connection to Redis: {0}")]
    Pool(#[from] r2d2::Error),
    #[error(transparent)]
    Redis(#[from] redis::RedisError),
}

pub enum Cache {
    /// Keeps nothing, to see what sharing does by itself.
    Off,
    /// moka could share loads itself (`get_with`); here it is what Redis is, a place to keep things.
    Memory(moka::sync::Cache<String, Entry>),
    Redis(RedisPool),
}

impl Cache {
    pub fn memory() -> Self {
        Self::Memory(
            moka::sync::Cache::builder()
                .max_capacity(100_000)
                .expire_after(EachItsOwn)
                .build(),
        )
    }

    /// Does not connect yet. `timeout` is for each step of an exchange with Redis.
    pub fn redis(url: &str, timeout: Duration) -> Result<Self, CacheError> {
        RedisPool::new(url, timeout).map(Self::Redis)
    }

    pub fn get(&self, key: &str) -> Result<Option<Answer>, CacheError> {
        match self {
            Self::Off => Ok(None),
            Self::Memory(memory) => Ok(memory.get(key).map(|entry| entry.answer)),
            Self::Redis(pool) => {
                let bytes: Option<Vec<u8>> = pool.query(&Cmd::get(key))?;
                Ok(bytes.map(Answer::from_bytes))
            }
        }
    }

    pub fn set(&self, key: &str, answer: &Answer, keep: Duration) -> Result<(), CacheError> {
        match self {
            Self::Off => {}
            Self::Memory(memory) => {
                let answer = answer.clone();
                memory.insert(key.to_owned(), Entry { answer, keep });
            }
            Self::Redis(pool) => {
                // Redis refuses to keep something for no time.
                let millis = keep.as_millis().max(1).try_into().unwrap_or(u64::MAX);
                pool.query::<()>(&Cmd::pset_ex(key, answer.as_bytes(), millis))?;
            }
        }
        Ok(())
    }

    /// Lets an entry expire now.
    pub fn expire(&self, key: &str) -> Result<(), CacheError> {
        match self {
            Self::Off => {}
            Self::Memory(memory) => memory.invalidate(key),
            Self::Redis(pool) => {
                pool.query::<()>(&Cmd::del(key))?;
            }
        }
        Ok(())
    }
}

#[derive(Clone)]
pub struct Entry {
    answer: Answer,
    keep: Duration,
}

/// Tells moka that every entry has its own time to live.
struct EachItsOwn;

impl moka::Expiry<String, Entry> for EachItsOwn {
    fn expire_after_create(&self, _: &String, entry: &Entry, _: Instant) -> Option<Duration> {
        Some(entry.keep)
    }

    fn expire_after_update(
        &self,
        _: &String,
        entry: &Entry,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(entry.keep)
    }
}
