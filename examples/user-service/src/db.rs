//! The database: SQLite or PostgreSQL, a table of users, made on first use.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::postgres_pool::PostgresPool;
use crate::sqlite_pool::SqlitePool;

/// How many users a new table gets.
pub const USERS: i64 = 10_000;
/// A database serves only so many queries at a time. In a stampede of 200 queries on 8 connections
/// most of the queries wait.
pub const CONNECTIONS: u32 = 8;
/// How long to wait for a free connection.
pub const CONNECTION_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct User {
    pub id: i64,
    pub name: String,
    pub email: String,
}

/// For all but an unreadable row the next attempt may succeed, so the service answers 503.
#[derive(Debug, Error)]
pub enum DbError {
    #[error("no connection: {0}")]
    Pool(String),
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error("{}", with_causes(.0))]
    Postgres(postgres::Error),
    #[error("no reply within {0:?}")]
    NoReply(Duration),
    #[error(
        "statements have no time limit there. Connect to PostgreSQL itself, or, if this is PgBouncer, \
         set `ignore_startup_parameters = options` there and a `statement_timeout` of one second \
         for the role (ALTER ROLE ... SET)"
    )]
    NoTimeLimit,
    #[error("there is no directory {}", .0.display())]
    NoDirectory(PathBuf),
    #[error("the row cannot be read: {0}")]
    Unreadable(String),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl DbError {
    pub fn unreadable(error: impl std::fmt::Display) -> Self {
        Self::Unreadable(error.to_string())
    }
}

// What `Display` shows is not a `source` as well, or it would be shown twice.
impl From<r2d2::Error> for DbError {
    fn from(error: r2d2::Error) -> Self {
        Self::Pool(no_connection(&error))
    }
}

impl From<postgres::Error> for DbError {
    fn from(error: postgres::Error) -> Self {
        Self::Postgres(error)
    }
}

/// Why a pool has no connection. It says first that it waited for one.
pub fn no_connection(error: &r2d2::Error) -> String {
    let text = error.to_string();
    let cause = text.split_once(": ").map(|(_, cause)| cause);
    cause.unwrap_or("all are busy").to_owned()
}

/// The error by itself says only "db error".
fn with_causes(error: &postgres::Error) -> String {
    let errors = anyhow::Chain::new(error).map(ToString::to_string);
    errors.collect::<Vec<_>>().join(": ")
}

pub enum Engine {
    Sqlite(SqlitePool),
    Postgres(PostgresPool),
}

/// Runs before and after each statement, on the caller's thread, which holds a connection. The demo
/// uses it to make the database slow; tests use it to wait, to panic and to observe.
pub type Hook = dyn Fn(When) + Send + Sync;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    Before,
    /// The row has been read, or the change committed. Nothing is locked.
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
        Self { engine, hook, queries: AtomicU64::new(0), updates: AtomicU64::new(0) }
    }

    pub fn user(&self, id: i64) -> Result<Option<User>, DbError> {
        let hook = self.counting(&self.queries);
        match &self.engine {
            Engine::Sqlite(pool) => pool.user(id, &hook),
            Engine::Postgres(pool) => pool.user(id, &hook),
        }
    }

    /// Changes a user. Returns `false` if there is none with this id.
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
