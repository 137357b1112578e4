//! The service with its own cache and a real SQLite file.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{mpsc, Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use common::{
    all_are, error, exchange, request, seen_by_sqlite, until, user, Counted, Held, Reply, Site,
    PATIENCE,
};
use rusqlite::Connection;
use shared_calls::Unshared;
use user_service::cache::Cache;
use user_service::db::{When, USERS};
use user_service::http::THREADS;
use user_service::routes::parse_id;
use user_service::service::jitter;
use user_service::service::{Expiry, Service};
use user_service::sqlite_pool::{SqlitePool, BUSY_TIMEOUT};
use user_service::watch::Group;

#[test]
fn two_hundred_callers_one_query() {
    let calls = Arc::new(Counted::default());
    let all_here = Arc::clone(&calls);
    let site =
        Site::start(calls, Cache::memory(), Expiry::default(), move || all_here.wait_for(200));

    all_are(&site.crowd(200, 101), &user(101));

    let stats = site.stats();
    assert_eq!((stats.database_queries, seen_by_sqlite(101)), (1, 1));
    assert_eq!(stats.led + stats.followed, 200);
    assert_eq!(stats.requests, [(200, 200)].into());
}

#[test]
fn without_a_cache_each_flight_has_a_query_of_its_own() {
    let group = Group::new();
    let site = Site::start(group, Cache::Off, Expiry::default(), || ());
    for queries in 1..=3 {
        assert_eq!(site.get(112), user(112));
        assert_eq!(seen_by_sqlite(112), queries);
    }
}

#[test]
fn unshared_each_caller_has_a_query_of_its_own() {
    let service = Arc::new(OnceLock::<Arc<Service>>::new());
    let all = Arc::clone(&service);
    let all_missed = move || until(|| all.get().unwrap().stats().cache_misses == 50);
    let site = Site::start(Arc::new(Unshared), Cache::memory(), Expiry::default(), all_missed);
    assert!(service.set(Arc::clone(&site.service)).is_ok());

    all_are(&site.crowd(50, 102), &user(102));

    let stats = site.stats();
    assert_eq!((stats.database_queries, seen_by_sqlite(102)), (50, 50));
    assert_eq!((stats.led, stats.followed), (50, 0));
}

#[test]
fn an_entry_that_expires_under_load_is_queried_once_for_each_expiry() {
    Site::plain().expire_under_load(103, 100);
}

#[test]
fn entries_expire_by_themselves() {
    let expiry = Expiry { user: Duration::from_millis(20), ..Expiry::default() };
    let group = Group::new();
    let began = Instant::now();
    let site = Site::start(group, Cache::memory(), expiry, || ());
    until(|| {
        assert_eq!(site.get(104), user(104));
        site.stats().database_queries == 5
    });
    // The earliest that jitter allows.
    assert!(began.elapsed() >= 4 * Duration::from_millis(19));
}

#[test]
fn more_clients_than_threads_are_all_answered() {
    let calls = Arc::new(Counted::default());
    let all_busy = Arc::clone(&calls);
    let site =
        Site::start(calls, Cache::memory(), Expiry::default(), move || all_busy.wait_for(THREADS));
    let clients = THREADS + 100;
    all_are(&site.crowd(clients, 105), &user(105));
    assert_eq!(seen_by_sqlite(105), 1);
}

#[test]
fn a_database_that_fails_fails_its_flight_and_recovers() {
    let calls = Arc::new(Held::default());
    let site = Site::start(calls.clone(), Cache::memory(), Expiry::default(), || ());
    let other = Arc::new(Mutex::new(Connection::open(site.database()).unwrap()));
    let execute = |sql| other.lock().unwrap().execute_batch(sql).unwrap();
    execute("BEGIN EXCLUSIVE");
    calls.hold_next(199, || ());

    let failed = error(503, "the database does not answer");
    all_are(&site.crowd(200, 106), &failed);
    let stats = site.stats();
    assert_eq!((stats.led, stats.followed), (1, 199));
    assert_eq!(stats.database_queries, 1);

    execute("ROLLBACK");
    assert_eq!(site.get(106), user(106));
}

#[test]
fn an_unknown_id_reaches_the_database_once() {
    let calls = Arc::new(Counted::default());
    let all_here = Arc::clone(&calls);
    let site =
        Site::start(calls, Cache::memory(), Expiry::default(), move || all_here.wait_for(100));
    let unknown = error(404, "no such user");

    all_are(&site.crowd(100, USERS + 7), &unknown);
    assert_eq!(seen_by_sqlite(USERS + 7), 1);
    // From the placeholder.
    assert_eq!(site.get(USERS + 7), unknown);
    assert_eq!(seen_by_sqlite(USERS + 7), 1);
}

#[test]
fn a_load_that_panics_fails_its_flight_and_nothing_else() {
    let calls = Arc::new(Counted::default());
    let broken = Arc::new(AtomicBool::new(true));
    let (all, is_broken) = (Arc::clone(&calls), Arc::clone(&broken));
    let site = Site::start(calls.clone(), Cache::memory(), Expiry::default(), move || {
        if is_broken.load(Ordering::SeqCst) {
            all.wait_for(10);
            panic!("this panic is part of the test");
        }
    });
    let address = site.server.address();
    let failed = error(500, "the load panicked");

    // Ten callers, again until one was seen to follow: each has called, but that it boards before
    // the panic is likely only.
    until(|| {
        calls.calls.store(0, Ordering::SeqCst);
        let get = || exchange(address, "GET", "/users/107", "");
        let replies: Vec<_> = thread::scope(|scope| {
            let clients: Vec<_> = (0..10).map(|_| scope.spawn(get)).collect();
            clients.into_iter().map(|c| c.join().unwrap()).collect()
        });
        assert!(replies.iter().all(|(reply, _)| *reply == failed));
        replies.iter().any(|(_, role)| role.as_deref() == Some("followed"))
    });

    broken.store(false, Ordering::SeqCst);
    all_are(&site.crowd(THREADS, 107), &user(107));
}

#[test]
fn bad_requests() {
    let site = Site::plain();
    let request = |method, path: &str| request(site.server.address(), method, path);
    let bad_id = error(400, "the id must be a positive number");
    for id in ["", "0", "-1", "abc", "1.5", "%31", "99999999999999999999"] {
        assert_eq!(request("GET", &format!("/users/{id}")), bad_id, "{id}");
    }
    assert_eq!(request("GET", &format!("/users/{}", "1".repeat(5000))), bad_id);
    for path in ["/", "/users", "/users/1/friends", "/admin"] {
        assert_eq!(request("GET", path), error(404, "no such page"), "{path}");
    }
    let no_such_method = error(405, "only GET, HEAD and PUT are served");
    assert_eq!(request("DELETE", "/users/1"), no_such_method);
    for path in ["/stats", "/metrics", "/in-flight"] {
        assert_eq!(request("PUT", path), error(405, "only GET and HEAD are served"));
    }
    assert_eq!(request("GET", "/users/108?verbose=1"), user(108));

    // What no client library would send.
    let too_long = format!("GET /users/1 HTTP/1.1\r\nX: {}", "x".repeat(10_000));
    for (nonsense, status) in [
        ("\u{1}\u{2}\r\n\r\n", "400 Bad Request"),
        ("GET /users/1\r\n\r\n", "400 Bad Request"),
        (&*too_long, "431 Request Header Fields Too Large"),
    ] {
        let mut stream = TcpStream::connect(site.server.address()).unwrap();
        stream.write_all(nonsense.as_bytes()).unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        let expected = format!("HTTP/1.1 {status}\r\n");
        assert!(reply.starts_with(&expected), "{nonsense}: {reply}");
    }
    assert_eq!(site.stats().database_queries, 1);
}

#[test]
fn stats_are_served() {
    let site = Site::plain();
    site.get(109);
    site.get(109);
    assert_eq!(
        request(site.server.address(), "GET", "/stats").body,
        r#"{"requests":{"200":2},"led":2,"followed":0,"timed_out":0,"overloaded":0,"database_queries":1,"database_updates":0,"cache_hits":1,"cache_misses":1,"cache_damaged":0,"cache_errors":0}"#
    );
}

#[test]
fn who_would_follow_for_too_long_is_told_so_and_the_flight_goes_on() {
    let (entered, in_query) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let site = Site::shared(Duration::from_millis(20), move |_, when| {
        if when == When::Before {
            entered.send(()).unwrap();
            released.lock().unwrap().recv().unwrap();
        }
    });
    thread::scope(|scope| {
        let leader = scope.spawn(|| site.get(111));
        in_query.recv().unwrap();
        // All of these come back while the leader is held: its release is yet to be sent.
        let too_long = error(504, "the load takes too long");
        all_are(&site.crowd(20, 111), &too_long);
        let stats = site.stats();
        assert_eq!((stats.led, stats.followed, stats.timed_out), (0, 20, 20));

        release.send(()).unwrap();
        assert_eq!(leader.join().unwrap(), user(111));
    });
    // From the cache: another query would wait for ever.
    assert_eq!(site.get(111), user(111));
    let stats = site.stats();
    assert_eq!(stats.requests, [(200, 2), (504, 20)].into());
    assert_eq!((stats.cache_hits, seen_by_sqlite(111)), (1, 1));
}

#[test]
fn one_follower_too_many_is_refused_at_once_and_so_is_a_change() {
    let (entered, in_query) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let first = Mutex::new(Some((entered, released)));
    let site = Site::limited(PATIENCE, 3, move |_, _| {
        let first = first.lock().unwrap().take();
        if let Some((entered, released)) = first {
            entered.send(()).unwrap();
            released.recv().unwrap();
        }
    });
    let group = site.service.group().unwrap();
    let too_many = error(503, "too many requests wait for this user");
    let eve = Reply { status: 200, body: r#"{"id":140,"name":"Eve","email":"e"}"#.to_owned() };
    thread::scope(|scope| {
        let leader = scope.spawn(|| site.get(140));
        in_query.recv().unwrap();
        let followers = scope.spawn(|| site.crowd(3, 140));
        until(|| group.stats().waiting == 3);
        // All of these come back while the leader is held: its release is yet to be sent.
        all_are(&site.crowd(20, 140), &too_many);
        assert_eq!(site.put(140, r#"{"name":"Eve","email":"e"}"#), too_many);
        // Another key is not affected.
        assert_eq!(site.get(141), user(141));
        release.send(()).unwrap();
        // The change was made before the leader's query.
        assert_eq!(leader.join().unwrap(), eve);
        all_are(&followers.join().unwrap(), &eve);
    });
    assert_eq!(site.get(140), eve);
    let stats = site.stats();
    assert_eq!((stats.led, stats.overloaded), (3, 21));
    assert_eq!(stats.requests, [(200, 6), (503, 21)].into());
    let metrics = request(site.server.address(), "GET", "/metrics").body;
    assert!(metrics.contains("\nshared_calls_overloaded_total 21\n"), "{metrics}");
}

#[test]
fn stopping_answers_what_was_accepted() {
    let (entered, in_query) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let group = Group::new();
    let Site { server, .. } = Site::start(group, Cache::memory(), Expiry::default(), move || {
        entered.send(()).unwrap();
        released.lock().unwrap().recv().unwrap();
    });
    let address = server.address();
    thread::scope(|scope| {
        let client = scope.spawn(move || request(address, "GET", "/users/110"));
        in_query.recv().unwrap();
        let stop = scope.spawn(move || drop(server));
        release.send(()).unwrap();
        assert_eq!(client.join().unwrap(), user(110));
        stop.join().unwrap();
    });
    assert!(TcpStream::connect(address).is_err());
}

/// More callers than there are connections, each with a query or an update of its own.
#[test]
fn while_another_program_has_the_file_locked_all_are_answered_503_in_time() {
    let site = Site::plain();
    let other = Connection::open(site.database()).unwrap();
    let failed = error(503, "the database does not answer");
    for lock in ["BEGIN EXCLUSIVE", "BEGIN IMMEDIATE"] {
        other.execute_batch(lock).unwrap();
        let began = Instant::now();
        thread::scope(|scope| {
            for id in 113..133 {
                let (site, failed) = (&site, &failed);
                scope.spawn(move || {
                    // The second kind of lock lets others read.
                    let expected = match lock {
                        "BEGIN EXCLUSIVE" => failed,
                        _ => &user(id),
                    };
                    assert_eq!(site.get(id), *expected);
                    let body = r#"{"name":"Ada","email":"e"}"#;
                    assert_eq!(site.put(id, body), *failed);
                });
            }
        });
        assert!(began.elapsed() >= BUSY_TIMEOUT, "{:?}", began.elapsed());
        // Forty waits on eight connections, and much more for a busy machine.
        assert!(began.elapsed() < BUSY_TIMEOUT * 20, "{:?}", began.elapsed());
        other.execute_batch("ROLLBACK").unwrap();
    }
    all_are(&site.crowd(20, 133), &user(133));
}

/// Which is no error, if the lock goes in time.
#[test]
fn a_load_waits_while_another_program_has_the_file_locked() {
    let (entered, in_query) = mpsc::channel();
    let site = Site::start(Group::new(), Cache::memory(), Expiry::default(), move || {
        entered.send(()).unwrap()
    });
    let other = Connection::open(site.database()).unwrap();
    // Again, should the machine be so busy that the lock does not go in time.
    until(|| {
        other.execute_batch("BEGIN EXCLUSIVE").unwrap();
        thread::scope(|scope| {
            let client = scope.spawn(|| site.get(134));
            in_query.recv().unwrap();
            other.execute_batch("ROLLBACK").unwrap();
            client.join().unwrap() == user(134)
        })
    });
}

#[test]
fn a_file_that_is_locked_at_start_is_refused_in_time() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("users");
    drop(SqlitePool::open(&path, |_| ()).unwrap());
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let began = Instant::now();
    let Err(error) = SqlitePool::open(&path, |_| ()) else {
        panic!("it is locked");
    };
    assert_eq!(error.to_string(), "database is locked");
    assert!(began.elapsed() < BUSY_TIMEOUT * 20, "{:?}", began.elapsed());
}

/// What a connection has prepared, SQLite prepares again.
#[test]
fn altering_the_table_fails_nobody() {
    let site = Site::plain();
    let other = Connection::open(site.database()).unwrap();
    for (id, alter) in (137..).zip([
        "ADD COLUMN age INTEGER",
        "DROP COLUMN age",
        "RENAME COLUMN email TO mail",
        "RENAME COLUMN mail TO email",
    ]) {
        let alter = format!("ALTER TABLE users {alter}");
        other.execute_batch(&alter).unwrap();
        if !alter.ends_with("TO mail") {
            all_are(&site.crowd(20, id), &user(id));
        }
    }
}

#[test]
fn a_row_that_cannot_be_read_fails_its_own_flights_only() {
    let site = Site::plain();
    let other = Connection::open(site.database()).unwrap();
    let spoil = "UPDATE users SET name = x'00' WHERE id = 135";
    other.execute_batch(spoil).unwrap();
    assert_eq!(site.get(135), error(500, "the user cannot be read"));
    assert_eq!(site.get(136), user(136));
}

#[test]
fn many_processes_may_make_the_same_database() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("users");
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let database = SqlitePool::open(&path, |_| ()).unwrap();
                assert!(database.user(USERS, &|_| ()).unwrap().is_some());
            });
        }
    });
    let left = std::fs::read_dir(path.parent().unwrap()).unwrap().count();
    assert_eq!(left, 1, "temporary files are left behind");
}

#[test]
fn a_file_that_is_no_database_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "not SQLite".repeat(1000)).unwrap();
    assert!(SqlitePool::open(file.path(), |_| ()).is_err());
}

#[test]
fn ids_are_positive_numbers() {
    assert_eq!(parse_id("42"), Some(42));
    assert_eq!(parse_id("9223372036854775807"), Some(i64::MAX));
    let too_long = "0".repeat(1000) + "1";
    let bad = ["", "0", "-1", "+1", "1.0", "abc", "1%30", "9223372036854775808", &too_long];
    for id in bad {
        assert_eq!(parse_id(id), None, "{id:?}");
    }
}

#[test]
fn jitter_stays_within_five_percent() {
    let jittered: Vec<_> =
        (0..1000).map(|_| jitter(Duration::from_secs(100)).as_secs_f64()).collect();
    assert!(jittered.iter().all(|s| (95.0..=105.0).contains(s)));
    assert!(jittered.iter().any(|s| *s < 99.0) && jittered.iter().any(|s| *s > 101.0));
}
