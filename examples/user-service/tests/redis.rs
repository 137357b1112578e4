//! The service with a real Redis, started, killed and restarted by the tests.

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::servers::Redis;
use common::{all_are, dawdle, error, seen_by_sqlite, until, user, Counted, Held, Site, PATIENCE};
use redis::{Commands, RedisResult};
use shared_calls::FlightGroup;
use user_service::cache::Cache;
use user_service::db::USERS;
use user_service::service::{Calls, Expiry};

/// Patient, so that a busy machine is not taken for a fault; but see `when_it_hangs`.
fn site(
    redis: &Redis,
    calls: Arc<dyn Calls>,
    before_query: impl Fn() + Send + Sync + 'static,
) -> Site {
    let cache = Cache::redis(&redis.url(), Duration::from_secs(2)).unwrap();
    Site::start(calls, cache, Expiry::default(), before_query)
}

#[test]
fn two_hundred_callers_one_query() {
    let Some(redis) = Redis::start() else { return };
    let calls = Arc::new(Counted::default());
    let all_here = Arc::clone(&calls);
    let site = site(&redis, calls, move || all_here.wait_for(200));

    all_are(&site.crowd(200, 201), &user(201));

    let stats = site.stats();
    assert_eq!((stats.database_queries, seen_by_sqlite(201)), (1, 1));
    assert_eq!(stats.led + stats.followed, 200);
}

#[test]
fn what_is_cached_and_for_how_long() {
    let Some(redis) = Redis::start() else { return };
    let site = site(&redis, Arc::new(FlightGroup::<_, _>::new()), || ());
    let unknown = USERS + 202;
    assert_eq!(site.get(202), user(202));
    assert_eq!(site.get(unknown), error(404, "no such user"));

    let mut connection = redis.connect().unwrap();
    let mut cached = |id: i64| -> (String, f64) {
        let key = format!("user-service:user:{id}");
        let millis: i64 = connection.pttl(&key).unwrap();
        (connection.get(&key).unwrap(), millis as f64 / 1000.0)
    };
    let (json, seconds) = cached(202);
    assert_eq!(json, user(202).body);
    // Five minutes, less 5 % and what has passed since.
    assert!((265.0..=315.0).contains(&seconds), "{seconds}");
    let (placeholder, seconds) = cached(unknown);
    assert_eq!(placeholder, "*");
    assert!((37.0..=63.0).contains(&seconds), "{seconds}");

    // Both are read from there.
    assert_eq!(site.get(202), user(202));
    assert_eq!(site.get(unknown), error(404, "no such user"));
    assert_eq!((seen_by_sqlite(202), seen_by_sqlite(unknown)), (1, 1));
}

#[test]
fn an_entry_that_expires_under_load_is_queried_once_for_each_expiry() {
    let Some(redis) = Redis::start() else { return };
    let site = site(&redis, Arc::new(FlightGroup::<_, _>::new()), || ());
    site.expire_under_load(203, 100);
}

#[test]
fn killed_before_the_cache_is_read_it_fails_the_flight_and_recovers() {
    let Some(redis) = Redis::start() else { return };
    let calls = Arc::new(Held::default());
    let site = site(&redis, calls.clone(), || ());
    assert_eq!(site.get(204), user(204));

    let victim = Arc::clone(&redis);
    calls.hold_next(199, move || victim.kill());
    let failed = error(503, "the cache does not answer");
    all_are(&site.crowd(200, 204), &failed);
    // The storm was not passed on.
    assert_eq!(seen_by_sqlite(204), 1);
    let stats = site.stats();
    assert_eq!((stats.led, stats.followed), (2, 199));

    redis.restart();
    until(|| site.get(204) == user(204));
    all_are(&site.crowd(200, 204), &user(204));
    assert_eq!(seen_by_sqlite(204), 2);
}

#[test]
fn killed_after_the_cache_was_read_it_fails_nobody_but_the_next() {
    let Some(redis) = Redis::start() else { return };
    let calls = Arc::new(Held::default());
    let victim = Arc::clone(&redis);
    let site = site(&redis, calls.clone(), move || victim.kill());

    calls.hold_next(99, || ());
    all_are(&site.crowd(100, 205), &user(205));
    assert_eq!(site.get(205), error(503, "the cache does not answer"));
    assert_eq!((seen_by_sqlite(205), site.stats().cache_errors), (1, 2));
}

#[test]
fn when_it_hangs_callers_do_not() {
    let Some(redis) = Redis::start() else { return };
    let cache = Cache::redis(&redis.url(), Duration::from_millis(200)).unwrap();
    let calls = Arc::new(FlightGroup::<_, _>::new());
    let site = Site::start(calls, cache, Expiry::default(), || ());
    until(|| site.get(206) == user(206));

    // For a minute Redis takes connections and commands, but answers none.
    let mut connection = redis.connect().unwrap();
    let pause: RedisResult<()> = redis::cmd("CLIENT")
        .arg(&["PAUSE", "60000"])
        .query(&mut connection);
    pause.unwrap();
    let began = Instant::now();
    let failed = error(503, "the cache does not answer");
    all_are(&site.crowd(50, 206), &failed);
    assert!(began.elapsed() < Duration::from_secs(30));
    assert_eq!(seen_by_sqlite(206), 1);

    redis.kill();
    redis.restart();
    until(|| site.get(206) == user(206));
}

#[test]
fn no_stale_read_after_a_change() {
    let Some(redis) = Redis::start() else { return };
    let cache = Cache::redis(&redis.url(), Duration::from_secs(2)).unwrap();
    let group = Arc::new(FlightGroup::<_, _>::new());
    let site = Site::start_with(group, cache, Expiry::default(), PATIENCE, dawdle);
    site.change_under_load(207, 100);
}

#[test]
fn a_change_that_the_cache_does_not_hear_of_is_not_made() {
    let Some(redis) = Redis::start() else { return };
    let site = site(&redis, Arc::new(FlightGroup::<_, _>::new()), || ());
    redis.kill();
    let body = r#"{"name":"Ada","email":"ada@example.com"}"#;
    let failed = error(503, "the cache does not answer");
    assert_eq!(site.put(208, body), failed);
    assert_eq!(site.stats().database_updates, 0);

    redis.restart();
    until(|| site.get(208) == user(208));
    assert_eq!(site.put(208, body).status, 200);
}

#[test]
fn a_change_that_was_not_put_into_the_cache_is_no_success() {
    let Some(redis) = Redis::start() else { return };
    let victim = Arc::clone(&redis);
    let site = site(&redis, Arc::new(FlightGroup::<_, _>::new()), move || {
        victim.kill()
    });
    let body = r#"{"name":"Ada","email":"ada@example.com"}"#;
    let failed = error(503, "the cache does not answer");
    assert_eq!(site.put(209, body), failed);
    assert_eq!(site.stats().database_updates, 1);
}
