//! PostgreSQL: a table, made on first use, and connections, with a time limit on everything.
//!
//! Not r2d2_postgres: the client has no limit on how long it waits for a reply, and its pool tests a
//! connection without one. Here each connection has a thread of its own, which may wait for ever;
//! whoever asked leaves when the time is up, and that connection is not used again.

use std::collections::hash_map::{Entry, HashMap};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

use postgres::error::Severity;
use postgres::{Client, Config, NoTls, Statement};
use r2d2::{ManageConnection, Pool, PooledConnection};

use crate::db::{DbError, User, When, CONNECTIONS, CONNECTION_TIMEOUT, USERS};

const QUERY: &str = "SELECT id, name, email FROM users WHERE id = $1";
const UPDATE: &str = "UPDATE users SET name = $2, email = $3 WHERE id = $1";

/// How long making and filling the table may take, for this process or one that was quicker.
const SETUP_TIMEOUT: Duration = Duration::from_secs(30);
/// How long to wait for a connection while there is none at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the other machine may not even acknowledge what was sent.
const SILENCE: Duration = Duration::from_secs(10);
/// By how much the server's own limit comes first. It ends the statement in an orderly way.
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
            // A machine that is gone without a word takes no thread for ever: whether it is to take
            // in what was sent, or to reply.
            .tcp_user_timeout(SILENCE)
            .keepalives_idle(SILENCE / 2)
            .keepalives_interval(SILENCE / 2);

        let pool = Pool::builder()
            .max_size(CONNECTIONS)
            // Also the longest pause between attempts to connect, doubled.
            .connection_timeout(CONNECT_TIMEOUT)
            // What is broken is found when it is used: see `run`.
            .test_on_check_out(false)
            .build_unchecked(Manager(config));
        let new = Self { pool, timeout };
        new.connection(Instant::now())?
            .run(SETUP_TIMEOUT + GRACE, Session::create_if_missing)?;
        Ok(new)
    }

    pub fn user(&self, id: i64, hook: &dyn Fn(When)) -> Result<Option<User>, DbError> {
        self.run(hook, move |session| session.user(id))
    }

    pub fn update(&self, user: &User, hook: &dyn Fn(When)) -> Result<bool, DbError> {
        let user = user.clone();
        self.run(hook, move |session| session.update(&user))
    }

    /// Runs a statement that may be repeated without harm. (The caller of an update has not been
    /// answered yet, so nobody knows of the first one.)
    fn run<T: Send + 'static>(
        &self,
        hook: &dyn Fn(When),
        statement: impl Fn(&mut Session) -> Result<T, postgres::Error> + Clone + Send + 'static,
    ) -> Result<T, DbError> {
        let began = Instant::now();
        let mut lost = 0;
        loop {
            let mut connection = self.connection(began)?;
            hook(When::Before);
            match connection.run(self.timeout + GRACE, statement.clone()) {
                // Left over from before PostgreSQL was restarted. That is no reason to fail a
                // caller; and there are only so many of them.
                Err(DbError::Postgres(error)) if is_lost(&error) && lost < CONNECTIONS => lost += 1,
                Err(error) => return Err(error),
                Ok(result) => {
                    hook(When::After);
                    return Ok(result);
                }
            }
        }
    }

    /// While all connections are busy, waits its turn; while there is none at all, not for long.
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

/// Did this end the connection, rather than the statement alone?
fn is_lost(error: &postgres::Error) -> bool {
    let severity = |error: &postgres::error::DbError| error.parsed_severity();
    match error.as_db_error().map(severity) {
        Some(severity) => matches!(severity, Some(Severity::Fatal | Severity::Panic)),
        // The server has said nothing: it is the connection that failed.
        None => true,
    }
}

/// What a connection's thread has: the client, and what is prepared when it is first used.
struct Session {
    client: Client,
    prepared: HashMap<&'static str, Statement>,
}

impl Session {
    fn user(&mut self, id: i64) -> Result<Option<User>, postgres::Error> {
        let row = self.run(QUERY, |client, query| client.query_opt(query, &[&id]))?;
        row.map(|row| {
            Ok(User {
                id: row.try_get(0)?,
                name: row.try_get(1)?,
                email: row.try_get(2)?,
            })
        })
        .transpose()
    }

    fn update(&mut self, user: &User) -> Result<bool, postgres::Error> {
        let rows = self.run(UPDATE, |client, update| {
            client.execute(update, &[&user.id, &user.name, &user.email])
        })?;
        Ok(rows > 0)
    }

    /// Runs something with the statement prepared.
    fn run<T>(
        &mut self,
        sql: &'static str,
        run: impl FnOnce(&mut Client, &Statement) -> Result<T, postgres::Error>,
    ) -> Result<T, postgres::Error> {
        let statement = match self.prepared.entry(sql) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(self.client.prepare(sql)?),
        };
        let result = run(&mut self.client, statement);
        if result.is_err() {
            // It may be that the table has been altered, and what was prepared is no good any more.
            self.prepared.remove(sql);
        }
        result
    }

    /// All of it or nothing; and of processes that start at once, one does it and the others wait.
    fn create_if_missing(&mut self) -> Result<(), postgres::Error> {
        let mut transaction = self.client.transaction()?;
        // The number is our own choice: it names this lock.
        transaction.batch_execute(&format!(
            "SET LOCAL statement_timeout = {};
             SELECT pg_advisory_xact_lock(20261122);",
            SETUP_TIMEOUT.as_millis()
        ))?;
        let missing = transaction.query_one("SELECT to_regclass('users') IS NULL", &[])?;
        if missing.try_get(0)? {
            transaction.batch_execute(&format!(
                "CREATE TABLE users (id BIGINT PRIMARY KEY, name TEXT NOT NULL, email TEXT NOT NULL);
                 INSERT INTO users
                 SELECT id, 'User ' || id, 'user' || id || '@example.com'
                 FROM generate_series(1, {USERS}) AS id;"
            ))?;
        }
        transaction.commit()?;
        // A table of that name that is another one is better found now than by the first caller.
        self.user(1)?;
        Ok(())
    }
}

struct Manager(Config);

type Job = Box<dyn FnOnce(&mut Session) + Send>;

/// The way to a connection's thread, which ends when this is dropped.
struct Connection {
    jobs: Sender<Job>,
    broken: bool,
}

impl Connection {
    fn run<T: Send + 'static>(
        &mut self,
        timeout: Duration,
        statement: impl FnOnce(&mut Session) -> Result<T, postgres::Error> + Send + 'static,
    ) -> Result<T, DbError> {
        let (reply, replied) = mpsc::channel();
        let job = Box::new(move |session: &mut Session| {
            // Nobody may be there any more to take it.
            let _ = reply.send(statement(session));
        });
        // If the thread is gone, so is `reply`.
        let _ = self.jobs.send(job);
        let result = replied.recv_timeout(timeout);
        self.broken = match &result {
            Ok(Ok(_)) => false,
            Ok(Err(error)) => is_lost(error),
            Err(_) => true,
        };
        Ok(result.map_err(|_| DbError::NoReply(timeout))??)
    }
}

impl ManageConnection for Manager {
    type Connection = Connection;
    type Error = DbError;

    fn connect(&self) -> Result<Connection, DbError> {
        let mut session = Session {
            client: self.0.connect(NoTls)?,
            prepared: HashMap::new(),
        };
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

    /// Asked whenever a connection comes back; a broken one is dropped.
    fn has_broken(&self, connection: &mut Connection) -> bool {
        connection.broken
    }
}
