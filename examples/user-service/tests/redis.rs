//! The service with a real Redis, started, killed and restarted by the tests.

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::servers::Redis;
use common::{
    all_are, dawdle, error, request, seen_by_sqlite, until, user, Counted, Held, Site, PATIENCE,
};
use redis::{Commands, RedisResult};
use user_service::cache::Cache;
use user_service::db::USERS;
use user_service::service::{Calls, Expiry};
use user_service::watch::Group;

/// Patient, so that a busy machine is not taken for a fault; but see `when_it_hangs`.
fn site(
    redis: &Redis,
    calls: impl Into<Calls>,
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
    let site = site(&redis, Group::new(), || ());
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
    let site = site(&redis, Group::new(), || ());
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
    let calls = Group::new();
    let site = Site::start(calls, cache, Expiry::default(), || ());
    until(|| site.get(206) == user(206));

    // For a minute Redis takes connections and commands, but answers none.
    let mut connection = redis.connect().unwrap();
    let pause: RedisResult<()> =
        redis::cmd("CLIENT").arg(&["PAUSE", "60000"]).query(&mut connection);
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
    let group = Group::new();
    let site = Site::start_with(group, cache, Expiry::default(), PATIENCE, dawdle);
    site.change_under_load(207, 100);
}

#[test]
fn a_change_that_the_cache_does_not_hear_of_is_not_made() {
    let Some(redis) = Redis::start() else { return };
    let site = site(&redis, Group::new(), || ());
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
    let site = site(&redis, Group::new(), move || victim.kill());
    let body = r#"{"name":"Ada","email":"ada@example.com"}"#;
    let failed = error(503, "the cache does not answer");
    assert_eq!(site.put(209, body), failed);
    assert_eq!(site.stats().database_updates, 1);
}

/// Each is a miss: answered from the database, overwritten, and counted.
#[test]
fn a_damaged_entry_is_a_miss_and_is_overwritten() {
    let Some(redis) = Redis::start() else { return };
    let site = site(&redis, Group::new(), || ());
    let mut connection = redis.connect().unwrap();
    let key = "user-service:user:210";
    let good = user(210).body;
    let other = user(211).body;
    let entries: [&[u8]; 14] = [
        b"",
        br#"{"id":42,"na"#,
        &good.as_bytes()[..good.len() - 1],
        &[good.as_bytes(), b"}"].concat(),
        &[good.as_bytes(), good.as_bytes()].concat(),
        &good.as_bytes().iter().map(|b| b ^ 0x80).collect::<Vec<_>>(),
        other.as_bytes(),
        br#"{"id":"210","name":"User 210","email":"e"}"#,
        br#"{"id":210,"name":null,"email":"e"}"#,
        br#"{"id":210,"name":"User 210"}"#,
        b"null",
        b"{}",
        b"**",
        b"\0",
    ];
    for (n, entry) in (1..).zip(entries) {
        let () = connection.set(key, entry).unwrap();
        let shown = String::from_utf8_lossy(entry);
        assert_eq!(site.get(210), user(210), "{shown}");
        assert_eq!(connection.get::<_, String>(key).unwrap(), good, "{shown}");
        assert!(connection.pttl::<_, i64>(key).unwrap() > 0, "{shown}");
        let stats = site.stats();
        assert_eq!((stats.cache_damaged, stats.database_queries), (n, n));
    }
    // A value of another type.
    let () = connection.del(key).unwrap();
    let () = connection.rpush(key, "item").unwrap();
    assert_eq!(site.get(210), user(210));
    assert_eq!(connection.get::<_, String>(key).unwrap(), good);

    let page = request(site.server.address(), "GET", "/metrics").body;
    for line in [
        r#"user_service_cache_reads_total{result="damaged"} 15"#,
        r#"user_service_cache_reads_total{result="miss"} 0"#,
        r#"user_service_cache_reads_total{result="hit"} 0"#,
        "user_service_cache_errors_total 0",
    ] {
        assert!(page.contains(&format!("{line}\n")), "{line} in {page}");
    }
    // And a good one is a hit.
    assert_eq!(site.get(210), user(210));
    assert_eq!(site.stats().cache_hits, 1);
}

#[test]
fn a_damaged_entry_of_an_unknown_user_becomes_the_placeholder() {
    let Some(redis) = Redis::start() else { return };
    let site = site(&redis, Group::new(), || ());
    let mut connection = redis.connect().unwrap();
    let id = USERS + 212;
    let key = format!("user-service:user:{id}");
    let () = connection.set(&key, "* ").unwrap();
    assert_eq!(site.get(id), error(404, "no such user"));
    assert_eq!(connection.get::<_, String>(&key).unwrap(), "*");
    assert_eq!(site.stats().cache_damaged, 1);
}

#[test]
fn two_hundred_callers_and_a_damaged_entry_one_query() {
    let Some(redis) = Redis::start() else { return };
    let calls = Arc::new(Counted::default());
    let all_here = Arc::clone(&calls);
    let site = site(&redis, calls, move || all_here.wait_for(200));
    let mut connection = redis.connect().unwrap();
    let () = connection.set("user-service:user:213", "{").unwrap();
    all_are(&site.crowd(200, 213), &user(213));
    assert_eq!(seen_by_sqlite(213), 1);
    assert_eq!(site.stats().cache_damaged, 1);
}

/// An older or a newer version of the service may have written it.
#[test]
fn an_entry_with_a_field_that_is_not_known_is_a_hit() {
    let Some(redis) = Redis::start() else { return };
    let site = site(&redis, Group::new(), || ());
    let mut connection = redis.connect().unwrap();
    let entry = r#" {"email":"user214@example.com","age":9,"name":"User 214","id":214}"#;
    let () = connection.set("user-service:user:214", entry).unwrap();
    assert_eq!(site.get(214), user(214));
    assert_eq!((site.stats().cache_hits, seen_by_sqlite(214)), (1, 0));
}

#[test]
fn a_change_overwrites_a_damaged_entry() {
    let Some(redis) = Redis::start() else { return };
    let site = site(&redis, Group::new(), || ());
    let mut connection = redis.connect().unwrap();
    let key = "user-service:user:215";
    let () = connection.rpush(key, "item").unwrap();
    let body = r#"{"name":"Ada","email":"e"}"#;
    let changed = site.put(215, body);
    assert_eq!(changed.status, 200);
    assert_eq!(connection.get::<_, String>(key).unwrap(), changed.body);
}
