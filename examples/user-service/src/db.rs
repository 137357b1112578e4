//! The database: SQLite or PostgreSQL, a table of users, made on first use.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;
use thiserror::Error;

use crate::postgres_pool::PostgresPool;
use crate::sqlite_pool::SqlitePool;

/// How many users a new table gets.
pub const USERS: i64 = 10_000;
/// A database serves only so many at a time. That is what a stampede runs into: with 200 queries
/// and 8 connections, most of the queries wait for others.
pub const CONNECTIONS: u32 = 8;
/// How long to wait for a free connection.
pub const CONNECTION_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, Serialize)]
pub struct User {
    pub id: i64,
    pub name: String,
    pub email: String,
}

/// Whatever it is, a moment later it may go well: the service answers 503.
#[derive(Debug, Error)]
pub enum DbError {
    #[error("no free connection: {0}")]
    Pool(r2d2::Error),
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error("{}", with_causes(.0))]
    Postgres(postgres::Error),
    #[error("no reply within {0:?}")]
    NoReply(Duration),
    #[error(transparent)]
    Io(#[from] io::Error),
}

// What `Display` tells is no `source` as well, or else it would be told twice.
impl From<r2d2::Error> for DbError {
    fn from(error: r2d2::Error) -> Self {
        Self::Pool(error)
    }
}

impl From<postgres::Error> for DbError {
    fn from(error: postgres::Error) -> Self {
        Self::Postgres(error)
    }
}

/// By itself the error says no more than "db error".
fn with_causes(error: &postgres::Error) -> String {
    let errors = anyhow::Chain::new(error).map(ToString::to_string);
    errors.collect::<Vec<_>>().join(": ")
}

pub enum Engine {
    Sqlite(SqlitePool),
    Postgres(PostgresPool),
}

/// Runs before and after each statement, on the caller's thread, which has a connection for itself.
/// The demo makes the database slow with it; tests make it wait, panic, and tell what it does.
pub type Hook = dyn Fn(When) + Send + Sync;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    Before,
    /// What was read is in hand, what was written is there for others to read. Nothing is locked.
    After,
}

pub struct Database {
    engine: Engine,
    hook: Box<Hook>,
    queries: AtomicU64,
    updates: AtomicU64,
}

impl Database {
    pub fn new(engine: Engine, hook: Box<Hook>) -> Self {
        Self {
            engine,
            hook,
            queries: AtomicU64::new(0),
            updates: AtomicU64::new(0),
        }
    }

    pub fn user(&self, id: i64) -> Result<Option<User>, DbError> {
        let hook = self.counting(&self.queries);
        match &self.engine {
            Engine::Sqlite(pool) => pool.user(id, &hook),
            Engine::Postgres(pool) => pool.user(id, &hook),
        }
    }

    /// Changes a user. `false`: there is none with this id.
    pub fn update(&self, user: &User) -> Result<bool, DbError> {
        let hook = self.counting(&self.updates);
        match &self.engine {
            Engine::Sqlite(pool) => pool.update(user, &hook),
            Engine::Postgres(pool) => pool.update(user, &hook),
        }
    }

    fn counting<'a>(&'a self, counter: &'a AtomicU64) -> impl Fn(When) + 'a {
        move |when| {
            if when == When::Before {
                counter.fetch_add(1, Ordering::Relaxed);
            }
            (self.hook)(when);
        }
    }

    /// How many queries were sent.
    pub fn queries(&self) -> u64 {
        self.queries.load(Ordering::Relaxed)
    }

    /// How many updates were sent.
    pub fn updates(&self) -> u64 {
        self.updates.load(Ordering::Relaxed)
    }
}
