//! The service with a real PostgreSQL, started, killed and restarted by the tests.

mod common;

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use common::servers::{Postgres, Redis};
use common::{all_are, until, user, Site, PATIENCE};
use shared_calls::Unshared;
use user_service::cache::Cache;
use user_service::db::{Database, Engine, When};
use user_service::metrics::Flights;
use user_service::postgres_pool::PostgresPool;
use user_service::service::{Calls, Expiry, Service};
use user_service::watch::Group;

fn database(postgres: &Postgres, timeout: Duration) -> Engine {
    let config = postgres.url().parse().unwrap();
    Engine::Postgres(PostgresPool::open(config, timeout).unwrap())
}

fn site(
    postgres: &Postgres,
    timeout: Duration,
    calls: Arc<dyn Calls>,
    cache: Cache,
    hook: impl Fn(When) + Send + Sync + 'static,
) -> Site {
    let database = Database::new(database(postgres, timeout), Box::new(hook));
    let service = Service::new(
        calls,
        Flights::new(),
        cache,
        database,
        Expiry::default(),
        PATIENCE,
    );
    Site::of(service, tempfile::tempdir().unwrap())
}

/// Clients whose query cannot end before all of them are there: the table is locked, and nobody's
/// but the caller's to open.
fn while_locked<T: Send>(
    postgres: &Postgres,
    clients: impl FnOnce() -> T + Send,
    all_here: impl FnOnce(&mut postgres::Client),
) -> T {
    let (mut holder, mut looker) = (postgres.connect(), postgres.connect());
    let mut lock = holder.transaction().unwrap();
    lock.batch_execute("LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
        .unwrap();
    thread::scope(|scope| {
        let clients = scope.spawn(clients);
        all_here(&mut looker);
        drop(lock);
        clients.join().unwrap()
    })
}

/// Of all connections to the server, as it says itself, those that wait for the lock.
fn wait_for_lock(looker: &mut postgres::Client) -> i64 {
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    looker.query_one(waiting, &[]).unwrap().get(0)
}

#[test]
fn two_hundred_callers_one_query() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let Some(redis) = Redis::start() else { return };
    let cache = Cache::redis(&redis.url(), Duration::from_secs(2)).unwrap();
    let group = Arc::new(Group::new());
    let site = site(&postgres, PATIENCE, group.clone(), cache, |_| ());
    let before = postgres.queries();

    let replies = while_locked(
        &postgres,
        || site.crowd(200, 401),
        |looker| {
            until(|| group.stats().waiting == 199);
            until(|| wait_for_lock(looker) == 1);
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
            until(|| wait_for_lock(looker) == 8);
        },
    );

    all_are(&replies, &user(402));
    assert_eq!(postgres.queries() - before, 200);
}
