//! The service with a real Redis, started, killed and restarted by the tests.

mod common;

use std::io::{stderr, ErrorKind, Write};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{all_are, dawdle, error, seen_by_sqlite, until, user, Counted, Held, Site, PATIENCE};
use redis::{Commands, RedisResult};
use shared_calls::FlightGroup;
use tempfile::TempDir;
use user_service::cache::Cache;
use user_service::db::USERS;
use user_service::service::{Calls, Expiry};

/// A redis-server of the test's own. When it is dropped, it is gone.
struct Redis {
    process: Mutex<Child>,
    port: u16,
    directory: TempDir,
}

impl Redis {
    /// `None`, and the test is to be skipped, where redis-server is not installed. In CI it must
    /// be.
    fn start() -> Option<Arc<Self>> {
        loop {
            let free = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = free.local_addr().unwrap().port();
            drop(free);
            let directory = tempfile::tempdir().unwrap();
            let process = match spawn(port, &directory) {
                Ok(process) => Mutex::new(process),
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    assert!(std::env::var_os("CI").is_none(), "no redis-server");
                    // Not `eprintln!`, which is not shown for a test that passes.
                    let _ = writeln!(stderr(), "SKIPPED: redis-server is not installed");
                    return None;
                }
                Err(error) => panic!("{error}"),
            };
            let redis = Self {
                process,
                port,
                directory,
            };
            if redis.is_up() {
                return Some(Arc::new(redis));
            }
            // Someone else took the port meanwhile. Another one, then.
        }
    }

    /// Waits until Redis answers (`true`) or has ended (`false`).
    fn is_up(&self) -> bool {
        let mut up = false;
        until(|| {
            up = self.connect().is_ok();
            up || self.process.lock().unwrap().try_wait().unwrap().is_some()
        });
        up
    }

    fn kill(&self) {
        let mut process = self.process.lock().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    fn restart(&self) {
        *self.process.lock().unwrap() = spawn(self.port, &self.directory).unwrap();
        assert!(self.is_up());
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    fn connect(&self) -> RedisResult<redis::Connection> {
        let client = redis::Client::open(self.url())?;
        let mut connection = client.get_connection_with_timeout(Duration::from_secs(1))?;
        let () = connection.ping()?;
        Ok(connection)
    }

    fn site(&self, calls: Arc<dyn Calls>, before_query: impl Fn() + Send + Sync + 'static) -> Site {
        // Patient, so that a busy machine is not taken for a fault; but see `when_it_hangs`.
        let cache = Cache::redis(&self.url(), Duration::from_secs(2)).unwrap();
        Site::start(calls, cache, Expiry::default(), before_query)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(port: u16, directory: &TempDir) -> std::io::Result<Child> {
    Command::new("redis-server")
        .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
        .args(["--save", "", "--appendonly", "no", "--dir"])
        .arg(directory.path())
        .stdout(Stdio::null())
        .spawn()
}

#[test]
fn two_hundred_callers_one_query() {
    let Some(redis) = Redis::start() else { return };
    let calls = Arc::new(Counted::default());
    let all_here = Arc::clone(&calls);
    let site = redis.site(calls, move || all_here.wait_for(200));

    all_are(&site.crowd(200, 201), &user(201));

    let stats = site.stats();
    assert_eq!((stats.database_queries, seen_by_sqlite(201)), (1, 1));
    assert_eq!(stats.led + stats.followed, 200);
}

#[test]
fn what_is_cached_and_for_how_long() {
    let Some(redis) = Redis::start() else { return };
    let site = redis.site(Arc::new(FlightGroup::<_, _>::new()), || ());
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
    let site = redis.site(Arc::new(FlightGroup::<_, _>::new()), || ());
    site.expire_under_load(203, 100);
}

#[test]
fn killed_before_the_cache_is_read_it_fails_the_flight_and_recovers() {
    let Some(redis) = Redis::start() else { return };
    let calls = Arc::new(Held::default());
    let site = redis.site(calls.clone(), || ());
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
    let site = redis.site(calls.clone(), move || victim.kill());

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
    let site = redis.site(Arc::new(FlightGroup::<_, _>::new()), || ());
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
    let site = redis.site(Arc::new(FlightGroup::<_, _>::new()), move || victim.kill());
    let body = r#"{"name":"Ada","email":"ada@example.com"}"#;
    let failed = error(503, "the cache does not answer");
    assert_eq!(site.put(209, body), failed);
    assert_eq!(site.stats().database_updates, 1);
}
