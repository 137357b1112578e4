//! The database: SQLite, a real file, made on first use.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use r2d2::Pool;
use r2d2_sqlite::SqliteConnectionManager;
use rusqlite::{Connection, OpenFlags, OptionalExtension};
use serde::Serialize;
use tempfile::NamedTempFile;
use thiserror::Error;

/// How many users a new file gets.
pub const USERS: i64 = 10_000;
/// A database serves only so many at a time. That is what a stampede runs into: with 200 queries
/// and 8 connections, most of the queries wait for others.
pub const CONNECTIONS: u32 = 8;
/// How long to wait for a free connection.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait while someone else has the file locked.
const BUSY_TIMEOUT: Duration = Duration::from_millis(250);

#[derive(Debug, Serialize)]
pub struct User {
    pub id: i64,
    pub name: String,
    pub email: String,
}

#[derive(Debug, Error)]
pub enum DbError {
    #[error("no free connection: {0}")]
    Pool(#[from] r2d2::Error),
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error(transparent)]
    File(#[from] io::Error),
}

/// Runs before and after each statement, on its thread and with its connection. The demo makes the
/// database slow with it; tests make it wait, panic, and tell what it does.
pub type Hook = dyn Fn(&Connection, When) + Send + Sync;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    Before,
    /// What was read is in hand, what was written is there for others to read. Nothing is locked.
    After,
}

pub struct Database {
    pool: Pool<SqliteConnectionManager>,
    hook: Box<Hook>,
    queries: AtomicU64,
    updates: AtomicU64,
}

impl Database {
    /// Opens the file at `path`, and makes it first if there is none.
    pub fn open(path: &Path, hook: Box<Hook>) -> Result<Self, DbError> {
        create_if_missing(path)?;
        // Without SQLITE_OPEN_CREATE: should the file vanish, an empty one is no replacement.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        // A file that is no such database is better found now than by the first caller.
        Connection::open_with_flags(path, flags)?.prepare(QUERY)?;

        let manager = SqliteConnectionManager::file(path)
            .with_flags(flags)
            .with_init(|connection| connection.busy_timeout(BUSY_TIMEOUT));
        let pool = Pool::builder()
            .max_size(CONNECTIONS)
            .connection_timeout(CONNECTION_TIMEOUT)
            // A file does not hang up; there is nothing to test.
            .test_on_check_out(false)
            .build(manager)?;
        Ok(Self {
            pool,
            hook,
            queries: AtomicU64::new(0),
            updates: AtomicU64::new(0),
        })
    }

    pub fn user(&self, id: i64) -> Result<Option<User>, DbError> {
        self.run(&self.queries, |connection| {
            let mut query = connection.prepare_cached(QUERY)?;
            let user = query.query_row([id], |row| {
                Ok(User {
                    id: row.get(0)?,
                    name: row.get(1)?,
                    email: row.get(2)?,
                })
            });
            user.optional()
        })
    }

    /// Changes a user. `false`: there is none with this id.
    pub fn update(&self, user: &User) -> Result<bool, DbError> {
        self.run(&self.updates, |connection| {
            let mut update = connection.prepare_cached(UPDATE)?;
            let rows = update.execute((user.id, &user.name, &user.email))?;
            Ok(rows > 0)
        })
    }

    fn run<T>(
        &self,
        counter: &AtomicU64,
        statement: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, DbError> {
        let connection = self.pool.get()?;
        counter.fetch_add(1, Ordering::Relaxed);
        (self.hook)(&connection, When::Before);
        let result = statement(&connection)?;
        (self.hook)(&connection, When::After);
        Ok(result)
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

const QUERY: &str = "SELECT id, name, email FROM users WHERE id = ?1";
const UPDATE: &str = "UPDATE users SET name = ?2, email = ?3 WHERE id = ?1";

/// The file is filled under a temporary name and then renamed, so that nobody ever sees half of
/// it: not the next run after an interrupted first one, not another process started beside it.
fn create_if_missing(path: &Path) -> Result<(), DbError> {
    if path.exists() {
        return Ok(());
    }
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(directory)?;
    let file = NamedTempFile::new_in(directory)?;
    Connection::open(file.path())?.execute_batch(&format!(
        "BEGIN;
         CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT NOT NULL, email TEXT NOT NULL);
         WITH RECURSIVE ids(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM ids WHERE id < {USERS})
         INSERT INTO users SELECT id, 'User ' || id, 'user' || id || '@example.com' FROM ids;
         COMMIT;"
    ))?;
    match file.persist_noclobber(path) {
        Ok(_) => Ok(()),
        // Another process was quicker. Its file is as good as ours.
        Err(refused) if refused.error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(refused) => Err(refused.error.into()),
    }
}
