//! PostgreSQL: a table, made on first use, and connections, with a time limit on everything.
//!
//! Not r2d2_postgres: the client waits for a reply without a limit, and its pool tests connections
//! the same way. Here each connection has its own thread, which may wait for ever. The caller leaves
//! when its time is up, and that connection is not used again.

use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

use postgres::error::{Severity, SqlState};
use postgres::types::Type;
use postgres::{Client, Config, NoTls};
use r2d2::{ManageConnection, Pool, PooledConnection};

use crate::db::{DbError, User, When, CONNECTIONS, CONNECTION_TIMEOUT, USERS};

/// The casts make the result the same whatever type of text or number the columns have.
const QUERY: &str = "SELECT name::text, email::text FROM users WHERE id = $1";
const UPDATE: &str = "UPDATE users SET name = $2, email = $3 WHERE id = $1";

/// How long it may take to make and fill the table, in this process or in another one.
const SETUP_TIMEOUT: Duration = Duration::from_secs(30);
/// How long to wait for a connection while there is none at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the other machine may leave what was sent unacknowledged.
const SILENCE: Duration = Duration::from_secs(10);
/// How much earlier than ours the server's own limit is. It ends the statement and keeps the
/// connection.
const GRACE: Duration = Duration::from_millis(500);

pub struct PostgresPool {
    pool: Pool<Manager>,
    timeout: Duration,
}

impl PostgresPool {
    /// Connects, and makes the table if there is none. `timeout` is for each statement.
    pub fn open(mut config: Config, timeout: Duration) -> Result<Self, DbError> {
        let millis = timeout.as_millis();
        let options = config.get_options().unwrap_or_default();
        config.options(&format!("{options} -c statement_timeout={millis}"));
        config
            .connect_timeout(CONNECT_TIMEOUT)
            // A machine that vanishes takes no thread for ever, whether it should read or reply.
            .tcp_user_timeout(SILENCE)
            .keepalives_idle(SILENCE / 2)
            .keepalives_interval(SILENCE / 2);

        let pool = Pool::builder()
            .max_size(CONNECTIONS)
            // Also the longest pause between attempts to connect, doubled.
            .connection_timeout(CONNECT_TIMEOUT)
            // `run` finds out what is broken.
            .test_on_check_out(false)
            .build_unchecked(Manager(config));
        let new = Self { pool, timeout };
        new.connection(Instant::now())?.run(SETUP_TIMEOUT + GRACE, move |session| {
            session.check_timeout(timeout)?;
            session.create_if_missing()
        })?;
        Ok(new)
    }

    pub fn user(&self, id: i64, hook: &dyn Fn(When)) -> Result<Option<User>, DbError> {
        self.run(hook, move |session| session.user(id))
    }

    pub fn update(&self, user: &User, hook: &dyn Fn(When)) -> Result<bool, DbError> {
        let user = user.clone();
        self.run(hook, move |session| session.update(&user))
    }

    /// Runs a statement that may be repeated without harm. (The client of an update has no answer
    /// yet, so it does not matter whether the first one was made.)
    fn run<T: Send + 'static>(
        &self,
        hook: &dyn Fn(When),
        statement: impl Fn(&mut Session) -> Result<T, DbError> + Clone + Send + 'static,
    ) -> Result<T, DbError> {
        let began = Instant::now();
        let mut lost = 0;
        loop {
            let mut connection = self.connection(began)?;
            hook(When::Before);
            match connection.run(self.timeout + GRACE, statement.clone()) {
                // A connection from before PostgreSQL was restarted is no reason to fail a caller.
                // There are only so many of them.
                Err(error) if is_lost(&error) && lost < CONNECTIONS => lost += 1,
                Err(error) => return Err(error),
                Ok(result) => {
                    hook(When::After);
                    return Ok(result);
                }
            }
        }
    }

    /// Waits its turn while all connections are busy, but not for long while there is none at all.
    fn connection(&self, began: Instant) -> Result<PooledConnection<Manager>, DbError> {
        loop {
            match self.pool.get() {
                Err(_)
                    if self.pool.state().connections > 0
                        && began.elapsed() < CONNECTION_TIMEOUT => {}
                result => return Ok(result?),
            }
        }
    }
}

/// Whether the error has ended the connection, and not the statement alone.
fn is_lost(error: &DbError) -> bool {
    let DbError::Postgres(error) = error else {
        return false;
    };
    let severity = |error: &postgres::error::DbError| error.parsed_severity();
    match error.as_db_error().map(severity) {
        Some(severity) => matches!(severity, Some(Severity::Fatal | Severity::Panic)),
        // The server has said nothing: it is the connection that failed.
        None => true,
    }
}

/// What a connection's thread owns.
///
/// Statements are not prepared ahead: each is parsed when it runs, in the same round trip, with its
/// parameters' types given. So nothing becomes invalid when the table is altered, and nothing is lost
/// when PgBouncer gives every transaction another connection.
struct Session(Client);

impl Session {
    fn user(&mut self, id: i64) -> Result<Option<User>, DbError> {
        let row = self.0.query_typed_opt(QUERY, &[(&id, Type::INT8)])?;
        row.map(|row| {
            Ok(User {
                id,
                name: row.try_get(0).map_err(DbError::unreadable)?,
                email: row.try_get(1).map_err(DbError::unreadable)?,
            })
        })
        .transpose()
    }

    fn update(&mut self, user: &User) -> Result<bool, DbError> {
        let rows = self.0.execute_typed(
            UPDATE,
            &[(&user.id, Type::INT8), (&user.name, Type::TEXT), (&user.email, Type::TEXT)],
        )?;
        Ok(rows > 0)
    }

    /// PgBouncer can be told to ignore what a client asks for when it connects.
    fn check_timeout(&mut self, timeout: Duration) -> Result<(), DbError> {
        let sql = "SELECT setting::bigint FROM pg_settings WHERE name = 'statement_timeout'";
        let millis: i64 = self.0.query_typed_one(sql, &[])?.try_get(0)?;
        match (1..=timeout.as_millis() as i64).contains(&millis) {
            true => Ok(()),
            false => Err(DbError::NoTimeLimit),
        }
    }

    /// All of it or nothing. Of several processes that start at once, one does it and the others
    /// wait.
    fn create_if_missing(&mut self) -> Result<(), DbError> {
        let mut transaction = self.0.transaction()?;
        // The number is arbitrary: it names this lock.
        transaction.batch_execute(&format!(
            "SET LOCAL statement_timeout = {};
             SELECT pg_advisory_xact_lock(20261122);",
            SETUP_TIMEOUT.as_millis()
        ))?;
        let missing = "SELECT to_regclass('users') IS NULL";
        if transaction.query_typed_one(missing, &[])?.try_get(0)? {
            transaction.batch_execute(&format!(
                "CREATE TABLE users (id BIGINT PRIMARY KEY, name TEXT NOT NULL, email TEXT NOT NULL);
                 INSERT INTO users
                 SELECT id, 'User ' || id, 'user' || id || '@example.com'
                 FROM generate_series(1, {USERS}) AS id;"
            ))?;
        }
        transaction.commit()?;
        // A table of that name with other columns is better found now than by the first caller.
        self.user(1)?;
        Ok(())
    }
}

struct Manager(Config);

/// PgBouncer refuses the time limit for statements with these words, unless it is told to ignore it.
fn refused(error: postgres::Error) -> DbError {
    let refused = error.as_db_error().is_some_and(|error| {
        *error.code() == SqlState::PROTOCOL_VIOLATION
            && error.message().contains("startup parameter")
    });
    match refused {
        true => DbError::NoTimeLimit,
        false => error.into(),
    }
}

type Job = Box<dyn FnOnce(&mut Session) + Send>;

/// Sends jobs to a connection's thread, which ends when this is dropped.
struct Connection {
    jobs: Sender<Job>,
    broken: bool,
}

impl Connection {
    fn run<T: Send + 'static>(
        &mut self,
        timeout: Duration,
        statement: impl FnOnce(&mut Session) -> Result<T, DbError> + Send + 'static,
    ) -> Result<T, DbError> {
        let (reply, replied) = mpsc::channel();
        let job = Box::new(move |session: &mut Session| {
            // Fails if the caller has left.
            let _ = reply.send(statement(session));
        });
        // Fails if the thread is gone. Then `replied` fails, too.
        let _ = self.jobs.send(job);
        let result = replied.recv_timeout(timeout);
        self.broken = match &result {
            Ok(Ok(_)) => false,
            Ok(Err(error)) => is_lost(error),
            Err(_) => true,
        };
        result.map_err(|_| DbError::NoReply(timeout))?
    }
}

impl ManageConnection for Manager {
    type Connection = Connection;
    type Error = DbError;

    fn connect(&self) -> Result<Connection, DbError> {
        let mut session = Session(self.0.connect(NoTls).map_err(refused)?);
        let (jobs, to_do) = mpsc::channel::<Job>();
        thread::Builder::new()
            .name("postgres".to_owned())
            .spawn(move || to_do.into_iter().for_each(|job| job(&mut session)))?;
        let broken = false;
        Ok(Connection { jobs, broken })
    }

    fn is_valid(&self, _: &mut Connection) -> Result<(), DbError> {
        Ok(())
    }

    /// Called when a connection comes back. A broken one is dropped.
    fn has_broken(&self, connection: &mut Connection) -> bool {
        connection.broken
    }
}
