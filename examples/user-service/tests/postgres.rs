//! The service with a real PostgreSQL, started, killed and restarted by the tests.

mod common;

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use common::servers::{signal, PgBouncer, Postgres, Redis};
use common::{all_are, dawdle, error, until, user, Site, PATIENCE};
use shared_calls::Unshared;
use user_service::cache::{Answer, Cache};
use user_service::db::{Database, Engine, User, When, USERS};
use user_service::metrics::Flights;
use user_service::postgres_pool::PostgresPool;
use user_service::service::{Calls, Expiry, Service};
use user_service::watch::Group;

const ADA: &str = r#"{"name":"Ada","email":"ada@example.com"}"#;

fn engine(postgres: &Postgres, timeout: Duration) -> Engine {
    let config = postgres.url().parse().unwrap();
    Engine::Postgres(PostgresPool::open(config, timeout).unwrap())
}

fn site(
    postgres: &Postgres,
    timeout: Duration,
    calls: impl Into<Calls>,
    cache: Cache,
    hook: impl Fn(When) + Send + Sync + 'static,
) -> Site {
    let database = Database::new(engine(postgres, timeout), Box::new(hook));
    let service =
        Service::new(calls.into(), Flights::new(), cache, database, Expiry::default(), PATIENCE);
    Site::of(service, tempfile::tempdir().unwrap())
}

fn plain(postgres: &Postgres, timeout: Duration) -> Site {
    let group = Group::new();
    site(postgres, timeout, group, Cache::memory(), |_| ())
}

/// What the clients are told whose queries can't end before `all_here` returns: the table is locked.
fn while_locked<T: Send>(
    postgres: &Postgres,
    clients: impl FnOnce() -> T + Send,
    all_here: impl FnOnce(&mut postgres::Client),
) -> T {
    let (mut holder, mut looker) = (postgres.connect(), postgres.connect());
    let mut lock = holder.transaction().unwrap();
    lock.batch_execute("LOCK TABLE users IN ACCESS EXCLUSIVE MODE").unwrap();
    thread::scope(|scope| {
        let clients = scope.spawn(clients);
        all_here(&mut looker);
        drop(lock);
        clients.join().unwrap()
    })
}

/// How many statements wait for the lock, as the server says itself.
fn waiting_for_lock(looker: &mut postgres::Client) -> i64 {
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    looker.query_one(waiting, &[]).unwrap().get(0)
}

/// The processes that the server has for the service's connections.
fn connections(looker: &mut postgres::Client) -> Vec<u32> {
    let others = "SELECT pid FROM pg_stat_activity
                  WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() ORDER BY pid";
    let rows = looker.query(others, &[]).unwrap();
    rows.iter().map(|row| row.get::<_, i32>(0) as u32).collect()
}

#[test]
fn two_hundred_callers_one_query() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let Some(redis) = Redis::start() else { return };
    let cache = Cache::redis(&redis.url(), Duration::from_secs(2)).unwrap();
    let group = Group::new();
    let site = site(&postgres, PATIENCE, group.clone(), cache, |_| ());
    let before = postgres.queries();

    let replies = while_locked(
        &postgres,
        || site.crowd(200, 401),
        |looker| {
            until(|| group.stats().waiting == 199);
            until(|| waiting_for_lock(looker) == 1);
        },
    );

    all_are(&replies, &user(401));
    assert_eq!(postgres.queries() - before, 1);
    // From Redis, from here on.
    assert_eq!(site.get(401), user(401));
    assert_eq!(postgres.queries() - before, 1);
}

/// The control: here the server counts more.
#[test]
fn unshared_two_hundred_callers_two_hundred_queries() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let Some(redis) = Redis::start() else { return };
    let cache = Cache::redis(&redis.url(), Duration::from_secs(2)).unwrap();
    let site = site(&postgres, PATIENCE, Arc::new(Unshared), cache, |_| ());
    let before = postgres.queries();

    let replies = while_locked(
        &postgres,
        || site.crowd(200, 402),
        |looker| {
            until(|| site.stats().cache_misses == 200);
            until(|| waiting_for_lock(looker) == 8);
        },
    );

    all_are(&replies, &user(402));
    assert_eq!(postgres.queries() - before, 200);
}

/// What it says it counted is what the server counted.
#[test]
fn the_demo_on_both_servers() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let Some(redis) = Redis::start() else { return };
    let demo = Command::new(env!("CARGO_BIN_EXE_user-service"))
        // Less than it takes by default: on a busy machine nobody is to wait for too long.
        .arg("--db-latency=20")
        .env("DATABASE_URL", postgres.url())
        .env("REDIS_URL", redis.url())
        .env_remove("RUST_LOG")
        .output()
        .unwrap();
    assert!(demo.status.success(), "{demo:?}");
    let stdout = String::from_utf8(demo.stdout).unwrap();
    let queries = |name: &str| -> i64 {
        let row = stdout.lines().find(|line| line.starts_with(name)).unwrap();
        row.split_whitespace().nth(2).unwrap().parse().unwrap()
    };
    assert_eq!(queries("FlightGroup"), 1);
    // Beside those: each of the two services looks whether the table is the right one, and the
    // first fills the cache before the crowd comes.
    assert_eq!(postgres.queries(), queries("Unshared ") + 1 + 2 + 1);
}

#[test]
fn stopped_in_the_middle_of_a_flight_it_fails_all_of_it_and_resumes() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let group = Group::new();
    let site = site(&postgres, PATIENCE, group.clone(), Cache::memory(), |_| ());

    let replies = while_locked(
        &postgres,
        || site.crowd(200, 403),
        |looker| {
            until(|| group.stats().waiting == 199);
            until(|| waiting_for_lock(looker) == 1);
            postgres.kill();
        },
    );
    let failed = error(503, "the database does not answer");
    all_are(&replies, &failed);
    let stats = site.stats();
    assert_eq!((stats.led, stats.followed), (1, 199));

    // And so it is until it is back.
    all_are(&site.crowd(50, 403), &failed);
    assert_eq!(site.put(403, ADA), failed);
    postgres.restart();
    until(|| site.get(403) == user(403));
    assert_eq!(site.put(403, ADA).status, 200);
}

/// Connections that are left over from before fail no caller.
#[test]
fn restarted_between_two_flights_it_fails_nobody() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let site = plain(&postgres, PATIENCE);
    until(|| connections(&mut postgres.connect()).len() == 8);
    postgres.kill();
    postgres.restart();
    assert_eq!(site.get(404), user(404));
}

#[test]
fn when_it_hangs_callers_do_not() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let limit = Duration::from_millis(500);
    let site = plain(&postgres, limit);
    // Now the pool opens no more.
    let mut looker = postgres.connect();
    until(|| connections(&mut looker).len() == 8);
    let mut processes = connections(&mut looker);
    processes.push(postgres.id());

    let stopped = Stopped::new(processes);
    let failed = error(503, "the database does not answer");
    let began = Instant::now();
    // More often than there are connections in the pool.
    for _ in 0..10 {
        all_are(&site.crowd(20, 405), &failed);
    }
    assert!(began.elapsed() < Duration::from_secs(60));

    drop(stopped);
    until(|| site.get(405) == user(405));
}

/// Processes that do nothing, until this is dropped. The kernel takes connections and statements in
/// their name, but nobody answers.
struct Stopped(Vec<u32>);

impl Stopped {
    fn new(processes: Vec<u32>) -> Self {
        processes.iter().for_each(|process| signal("STOP", *process));
        Self(processes)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        self.0.iter().for_each(|process| signal("CONT", *process));
    }
}

/// The server ends the statement; the connection stays.
#[test]
fn a_statement_that_takes_too_long_is_given_up() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let limit = Duration::from_millis(500);
    let site = plain(&postgres, limit);
    let mut looker = postgres.connect();
    until(|| connections(&mut looker).len() == 8);
    let before = connections(&mut looker);
    let failed = error(503, "the database does not answer");
    while_locked(&postgres, || (), |_| assert_eq!(site.get(406), failed));
    assert_eq!(site.get(406), user(406));
    // The tests' own connections come and go.
    let now = connections(&mut looker);
    assert!(before.iter().all(|process| now.contains(process)));
}

/// Nothing that a connection remembers goes stale: no flight fails, on none of the connections.
#[test]
fn altering_the_table_fails_nobody() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let database = Database::new(engine(&postgres, PATIENCE), Box::new(|_| ()));
    let mut looker = postgres.connect();
    let citext = "CREATE EXTENSION citext";
    looker.batch_execute(citext).unwrap();
    until(|| connections(&mut looker).len() == 8);
    let ada = User { id: 1, name: "Ada".to_owned(), email: "ada@example.com".to_owned() };
    // Each connection is used, for the pool takes them in turn.
    let all_go_well = || {
        for _ in 0..20 {
            assert!(database.update(&ada).unwrap());
            assert_eq!(database.user(1).unwrap().unwrap().name, "Ada");
        }
    };
    all_go_well();
    for alter in [
        "ALTER COLUMN name TYPE VARCHAR(200)",
        "ALTER COLUMN name TYPE CHAR(20)",
        "ALTER COLUMN name TYPE TEXT, ALTER COLUMN email TYPE VARCHAR(99)",
        "ALTER COLUMN email TYPE CITEXT",
        "ALTER COLUMN id TYPE INTEGER",
        "ALTER COLUMN id TYPE NUMERIC",
        "ALTER COLUMN id TYPE BIGINT",
        "ADD COLUMN age INTEGER",
        "DROP COLUMN age",
        "DROP CONSTRAINT users_pkey",
    ] {
        let alter = format!("ALTER TABLE users {alter}");
        looker.batch_execute(&alter).unwrap();
        all_go_well();
    }
}

#[test]
fn altering_the_table_under_load_fails_nobody() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    // Without a cache, so that each flight has a query.
    let group = Group::new();
    let site = site(&postgres, PATIENCE, group, Cache::Off, |_| ());
    let (done, asked) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut looker = postgres.connect();
    thread::scope(|scope| {
        for id in 1..=16 {
            let (site, done, asked) = (&site, &done, &asked);
            scope.spawn(move || {
                while !done.load(SeqCst) {
                    let answer = site.service.user(id).result;
                    done.fetch_or(answer.is_err(), SeqCst);
                    assert!(answer.is_ok(), "{answer:?}");
                    asked.fetch_add(1, SeqCst);
                }
            });
        }
        for round in 1..=20 {
            let kind = ["VARCHAR(200)", "TEXT"][round % 2];
            let alter = format!("ALTER TABLE users ALTER COLUMN name TYPE {kind}");
            looker.batch_execute(&alter).unwrap();
            until(|| done.load(SeqCst) || asked.load(SeqCst) >= 100 * round as u64);
        }
        done.store(true, SeqCst);
    });
}

/// A table that was there already may hold anything. That is no reason to drop the connection.
#[test]
fn a_row_that_cannot_be_read_fails_its_own_flights_only() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let site = plain(&postgres, PATIENCE);
    let mut looker = postgres.connect();
    until(|| connections(&mut looker).len() == 8);
    let before = connections(&mut looker);
    let spoil = "ALTER TABLE users ALTER COLUMN name DROP NOT NULL;
                 UPDATE users SET name = NULL WHERE id = 408";
    looker.batch_execute(spoil).unwrap();
    let failed = error(500, "the user cannot be read");
    assert_eq!(site.get(408), failed);
    assert_eq!(site.stats().database_queries, 1);
    assert_eq!(site.get(409), user(409));
    assert_eq!(site.put(408, ADA).status, 200);
    // The tests' own connections come and go.
    let now = connections(&mut looker);
    assert!(before.iter().all(|process| now.contains(process)));
}

/// The settings with which PgBouncer accepts the service's connections.
const IGNORE: &str = "ignore_startup_parameters = options";

fn limit_role(postgres: &Postgres) {
    let alter = "ALTER ROLE postgres SET statement_timeout = '500ms'";
    postgres.connect().batch_execute(alter).unwrap();
}

#[test]
fn a_pooler_that_drops_the_time_limit_is_refused_at_start() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    for settings in [
        "pool_mode = session",
        "pool_mode = transaction",
        &format!("pool_mode = transaction\n{IGNORE}"),
        &format!("pool_mode = session\n{IGNORE}"),
    ] {
        let Some(pgbouncer) = PgBouncer::start(&postgres, settings) else {
            return;
        };
        // The demo, because it would end by itself.
        let demo = Command::new(env!("CARGO_BIN_EXE_user-service"))
            .arg("--db-latency=1")
            .env("DATABASE_URL", pgbouncer.url())
            .env_remove("REDIS_URL")
            .output()
            .unwrap();
        assert_eq!(demo.status.code(), Some(1), "{demo:?}");
        let stderr = String::from_utf8(demo.stderr).unwrap();
        let sentence = "statements have no time limit there. Connect to PostgreSQL itself, or, if \
                        this is PgBouncer, set `ignore_startup_parameters = options` there and a \
                        `statement_timeout` of one second for the role (ALTER ROLE ... SET)\n";
        assert!(stderr.ends_with(sentence), "{settings}: {stderr}");
    }
}

#[test]
fn it_works_through_pgbouncer() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    limit_role(&postgres);
    // With a session for each client there must be as many connections as clients.
    for mode in ["transaction", "session\ndefault_pool_size = 8"] {
        let settings = format!("pool_mode = {mode}\n{IGNORE}");
        let Some(pgbouncer) = PgBouncer::start(&postgres, &settings) else {
            return;
        };
        let config = pgbouncer.url().parse().unwrap();
        let pool = PostgresPool::open(config, PATIENCE).unwrap();
        // A type that the client would have to look up, with statements of its own.
        let citext = "CREATE EXTENSION IF NOT EXISTS citext;
                      ALTER TABLE users ALTER COLUMN email TYPE CITEXT";
        postgres.connect().batch_execute(citext).unwrap();
        let database = Database::new(Engine::Postgres(pool), Box::new(|_| ()));
        thread::scope(|scope| {
            for id in 1..=16 {
                let database = &database;
                scope.spawn(move || {
                    for n in 0..50 {
                        let name = format!("{mode} {n}");
                        let email = "e".to_owned();
                        let changed = User { id, name, email };
                        assert!(database.update(&changed).unwrap());
                        let read = database.user(id).unwrap().unwrap();
                        assert_eq!(read.name, changed.name);
                    }
                });
            }
        });
    }
}

/// The control: on the same PgBouncer what a client has prepared is gone a moment later.
#[test]
fn a_prepared_statement_does_not_survive_pgbouncer() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let Some(pgbouncer) = PgBouncer::start(&postgres, "pool_mode = transaction") else {
        return;
    };
    let (mut client, mut other) = (pgbouncer.connect(), pgbouncer.connect());
    // Now there are two connections to PostgreSQL.
    let mut transaction = other.transaction().unwrap();
    transaction.batch_execute("SELECT 1").unwrap();
    client.batch_execute("SELECT 1").unwrap();
    transaction.commit().unwrap();
    let statement = client.prepare("SELECT 1").unwrap();
    assert!((0..10).any(|_| client.query(&statement, &[]).is_err()));
}

#[test]
fn pgbouncer_and_what_is_behind_it_may_be_restarted() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    limit_role(&postgres);
    let settings = format!("pool_mode = transaction\n{IGNORE}");
    let Some(pgbouncer) = PgBouncer::start(&postgres, &settings) else {
        return;
    };
    let config = pgbouncer.url().parse().unwrap();
    let pool = PostgresPool::open(config, Duration::from_secs(2)).unwrap();
    let database = Database::new(Engine::Postgres(pool), Box::new(|_| ()));
    assert!(database.user(1).is_ok());

    pgbouncer.kill();
    assert!(database.user(1).is_err());
    pgbouncer.restart();
    until(|| database.user(1).is_ok());

    postgres.kill();
    assert!(database.user(1).is_err());
    postgres.restart();
    until(|| database.user(1).is_ok());

    // The role's limit ends a statement.
    while_locked(
        &postgres,
        || (),
        |_| {
            let error = database.user(1).unwrap_err().to_string();
            assert!(error.contains("statement timeout"), "{error}");
        },
    );
    assert!(database.user(1).is_ok());
}

#[test]
fn many_processes_may_make_the_same_table() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let database = Database::new(engine(&postgres, PATIENCE), Box::new(|_| ()));
                assert!(database.user(USERS).unwrap().is_some());
                assert!(database.user(USERS + 1).unwrap().is_none());
            });
        }
    });
    let count = "SELECT count(*) FROM users";
    let users: i64 = postgres.connect().query_one(count, &[]).unwrap().get(0);
    assert_eq!(users, USERS);
}

#[test]
fn a_table_that_is_another_one_is_refused() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let another = "CREATE TABLE users (id INT PRIMARY KEY)";
    postgres.connect().batch_execute(another).unwrap();
    let config = postgres.url().parse().unwrap();
    let Err(error) = PostgresPool::open(config, PATIENCE) else {
        panic!("what does it read?");
    };
    assert!(error.to_string().contains("\"name\""), "{error}");
}

#[test]
fn no_stale_read_after_a_change_a_thousand_times() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    assert_eq!(race(&postgres, Group::new(), 1000), None);
}

/// The control: the same race finds stale reads where there are some.
#[test]
fn unshared_the_same_race_ends_with_a_stale_read() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    assert_ne!(race(&postgres, Arc::new(Unshared), 1000), None);
}

/// A change races 100 reads, so many times, and when it has been answered each of the 100 reads
/// again. The first round in which somebody was told something older than a change that had been
/// answered before they asked.
fn race(postgres: &Postgres, calls: impl Into<Calls>, rounds: u64) -> Option<u64> {
    const READERS: usize = 100;
    const ID: i64 = 407;
    let site = site(postgres, PATIENCE, calls, Cache::memory(), dawdle);
    let service = &*site.service;
    let (answered, stale) = (AtomicU64::new(0), AtomicBool::new(false));
    let done = AtomicBool::new(false);
    let gate = Barrier::new(READERS + 1);
    // No thread may panic, or the others would wait for it for ever.
    let read = || {
        let oldest = answered.load(SeqCst);
        let seen = service.user(ID).result.ok().and_then(|user| version(&user));
        if seen.is_none_or(|seen| seen < oldest) {
            stale.store(true, SeqCst);
        }
    };
    let reader = || loop {
        gate.wait();
        if done.load(SeqCst) {
            break;
        }
        read();
        gate.wait();
        read();
    };
    thread::scope(|scope| {
        for _ in 0..READERS {
            scope.spawn(reader);
        }
        let mut round = 0;
        while round < rounds && !stale.load(SeqCst) {
            round += 1;
            // So that there are leaders between the database and the cache.
            service.expire(ID).unwrap();
            gate.wait();
            let changed =
                service.change(&User { id: ID, name: round.to_string(), email: "e".to_owned() });
            if changed.ok().and_then(|user| version(&user)) != Some(round) {
                stale.store(true, SeqCst);
            }
            answered.store(round, SeqCst);
            gate.wait();
        }
        done.store(true, SeqCst);
        gate.wait();
        stale.load(SeqCst).then_some(round)
    })
}

/// Which change this is: its number is the user's name.
fn version(answer: &Answer) -> Option<u64> {
    let Answer::User(json) = answer else {
        return None;
    };
    let user: serde_json::Value = serde_json::from_slice(json).ok()?;
    Some(user["name"].as_str()?.parse().unwrap_or(0))
}
