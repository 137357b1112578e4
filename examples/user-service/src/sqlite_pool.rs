//! SQLite: a real file, made on first use, and connections to it.

use std::io;
use std::path::Path;
use std::time::Duration;

use r2d2::Pool;
use r2d2_sqlite::SqliteConnectionManager;
use rusqlite::{Connection, OpenFlags, OptionalExtension};
use tempfile::NamedTempFile;

use crate::db::{DbError, User, When, CONNECTIONS, CONNECTION_TIMEOUT, USERS};

/// How long to wait while another program has the file locked.
pub const BUSY_TIMEOUT: Duration = Duration::from_secs(1);

const QUERY: &str = "SELECT id, name, email FROM users WHERE id = ?1";
const UPDATE: &str = "UPDATE users SET name = ?2, email = ?3 WHERE id = ?1";

pub struct SqlitePool(Pool<SqliteConnectionManager>);

impl SqlitePool {
    /// Opens the file at `path`, and makes it first if there is none. `init` runs on each new
    /// connection.
    pub fn open(path: &Path, init: fn(&Connection)) -> Result<Self, DbError> {
        // SQLite would take names such as ":memory:" for something other than a file.
        let path = &Path::new(".").join(path);
        create_if_missing(path)?;
        // Without SQLITE_OPEN_CREATE: if the file vanishes, an empty one is no replacement.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        // A file that is not such a database is better found now than by the first caller.
        let first = Connection::open_with_flags(path, flags)?;
        first.busy_timeout(BUSY_TIMEOUT)?;
        first.prepare(QUERY)?;

        let manager =
            SqliteConnectionManager::file(path).with_flags(flags).with_init(move |connection| {
                init(connection);
                connection.busy_timeout(BUSY_TIMEOUT)
            });
        let pool = Pool::builder()
            .max_size(CONNECTIONS)
            .connection_timeout(CONNECTION_TIMEOUT)
            // A file does not hang up.
            .test_on_check_out(false)
            .build(manager)?;
        Ok(Self(pool))
    }

    pub fn user(&self, id: i64, hook: &dyn Fn(When)) -> Result<Option<User>, DbError> {
        self.run(hook, |connection| {
            let mut query = connection.prepare_cached(QUERY)?;
            let user = query.query_row([id], |row| {
                Ok(User { id: row.get(0)?, name: row.get(1)?, email: row.get(2)? })
            });
            user.optional()
        })
    }

    pub fn update(&self, user: &User, hook: &dyn Fn(When)) -> Result<bool, DbError> {
        self.run(hook, |connection| {
            let mut update = connection.prepare_cached(UPDATE)?;
            let rows = update.execute((user.id, &user.name, &user.email))?;
            Ok(rows > 0)
        })
    }

    fn run<T>(
        &self,
        hook: &dyn Fn(When),
        statement: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, DbError> {
        let connection = self.0.get()?;
        hook(When::Before);
        let result = statement(&connection).map_err(|error| match error {
            rusqlite::Error::InvalidColumnType(..) => DbError::unreadable(error),
            error => error.into(),
        })?;
        hook(When::After);
        Ok(result)
    }
}

/// The file is filled under a temporary name and then renamed, so that neither a later run nor
/// another process sees half of it.
fn create_if_missing(path: &Path) -> Result<(), DbError> {
    if path.exists() {
        return Ok(());
    }
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if !directory.is_dir() {
        return Err(DbError::NoDirectory(directory.to_owned()));
    }
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
        // Another process was quicker. Its file is the same.
        Err(refused) if refused.error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(refused) => Err(refused.error.into()),
    }
}
