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

/// Runs before each query, on the query's thread and with its connection. The demo makes the
/// database slow with it; tests make it wait, panic, and tell what it does.
pub type BeforeQuery = dyn Fn(&Connection) + Send + Sync;

pub struct Database {
    pool: Pool<SqliteConnectionManager>,
    before_query: Box<BeforeQuery>,
    queries: AtomicU64,
}

impl Database {
    /// Opens the file at `path`, and makes it first if there is none.
    pub fn open(path: &Path, before_query: Box<BeforeQuery>) -> Result<Self, DbError> {
        create_if_missing(path)?;
        // The service only reads.
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
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
            before_query,
            queries: AtomicU64::new(0),
        })
    }

    pub fn user(&self, id: i64) -> Result<Option<User>, DbError> {
        let connection = self.pool.get()?;
        self.queries.fetch_add(1, Ordering::Relaxed);
        (self.before_query)(&connection);
        let user = connection
            .prepare_cached(QUERY)?
            .query_row([id], |row| {
                Ok(User {
                    id: row.get(0)?,
                    name: row.get(1)?,
                    email: row.get(2)?,
                })
            })
            .optional()?;
        Ok(user)
    }

    /// How many queries were sent.
    pub fn queries(&self) -> u64 {
        self.queries.load(Ordering::Relaxed)
    }
}

const QUERY: &str = "SELECT id, name, email FROM users WHERE id = ?1";

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
