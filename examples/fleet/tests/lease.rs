//! Leases: how they are renewed, and what becomes of locks and outcomes that would never expire.

mod common;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use common::*;
use fleet::crew::RedisServer;
use fleet::link::Link;
use fleet::lock::{Answer, Locks, Token};
use fleet::renew;
use fleet::tier::Settings;
use redis::{Commands, Connection};
use shared_calls::SharedCallsExt;

const ROUND_TRIP: Duration = Duration::from_millis(20);
const LEASE: Duration = Duration::from_secs(3);
const LOCK: &str = "fleet:key:k:lock";
const OUTCOME: &str = "fleet:key:k:outcome";

#[test]
fn a_tier_keeps_140_locks_of_3_seconds_at_a_round_trip_of_20_ms() {
    let log = log();
    let _limit = limit(120);
    let Some(redis) = redis() else { return };
    let url = proxy(&redis, ROUND_TRIP, |_| {});
    let settings = Settings { lock: LEASE, ..settings() };
    let a = Tier::new(&url, settings).unwrap();
    let (running, runs) = mpsc::channel();
    thread::scope(|scope| {
        let mut ends = Vec::new();
        for i in 0..140 {
            let (end, ended) = mpsc::channel::<()>();
            ends.push(end);
            let (a, running) = (&a, running.clone());
            let function = move || {
                running.send(()).unwrap();
                // Until the sender is dropped.
                let _ = ended.recv();
                value("v")
            };
            scope.spawn(move || a.call(&format!("key {i}"), function).unwrap());
        }
        for _ in 0..140 {
            runs.recv().unwrap();
        }
        let began = Instant::now();
        wait("they run for longer than a lease", || began.elapsed() > LEASE * 2);
        assert_eq!(a.stats().holding, 140);
    });
    let stats = a.stats();
    assert_eq!((stats.locked, stats.alone, stats.unpublished), (140, 0, 0));
    log.assert_silent();
}

/// Many locks, without as many threads.
fn acquire(redis: &RedisServer, locks: &Locks, number: usize) -> Vec<(String, Token, Instant)> {
    let link = Link::new(&redis.url(), Duration::from_secs(5)).unwrap();
    let acquire = |i: usize| {
        let (key, name) = (format!("{i}"), format!("name-{i}"));
        let asked = Instant::now();
        match locks.ask(&link, &key, None, Some(&name)) {
            Ok(Answer::Acquired(token)) => (key, token, asked),
            _ => panic!("the key is not free"),
        }
    };
    (0..number).map(acquire).collect()
}

#[test]
fn a_lease_of_3_seconds_bears_5000_locks_at_a_round_trip_of_20_ms() {
    let _limit = limit(120);
    let Some(redis) = redis() else { return };
    let locks = Locks::new("fleet:", Duration::from_secs(60), NEVER);
    let acquired = acquire(&redis, &locks, 5000);
    // As if they had been acquired with this one.
    let locks = Locks::new("fleet:", LEASE, NEVER);
    let held = renew::Held::default();
    for (key, token, _) in &acquired {
        held.keep(key, token, Instant::now() - LEASE / 3);
    }
    let link = Link::new(&proxy(&redis, ROUND_TRIP, |_| {}), Duration::from_secs(5)).unwrap();
    let began = Instant::now();
    held.renew_due(&link, &locks, NEVER);
    let took = began.elapsed();
    println!("5000 renewals took {took:?}");
    // So much of the lease is left when a lock is due.
    assert!(took < LEASE * 2 / 3, "{took:?}");
    assert_eq!(held.count(), 5000);
    let mut connection = redis.connect().unwrap();
    for (key, ..) in &acquired {
        let left: i64 = connection.pttl(format!("fleet:key:{key}:lock")).unwrap();
        assert!((1..=3000).contains(&left), "{key}: {left}");
    }
}

#[test]
fn renew_due_renews_the_lock_that_ends_first_before_the_others() {
    let _limit = limit(60);
    let Some(redis) = redis() else { return };
    let lease = Duration::from_secs(60);
    let locks = Locks::new("fleet:", lease, NEVER);
    let number = renew::BATCH + 100;
    let acquired = acquire(&redis, &locks, number);
    let held = renew::Held::default();
    let now = Instant::now();
    for (i, (key, token, _)) in acquired.iter().enumerate() {
        // In a scattered order: 7 and the number of locks have no common divisor.
        let age = lease / 3 + Duration::from_millis((i * 7 % number) as u64);
        held.keep(key, token, now - age);
    }
    let mut monitor = TcpStream::connect(redis.url().replace("redis://", "")).unwrap();
    monitor.write_all(b"MONITOR\r\n").unwrap();
    let mut monitor = BufReader::new(monitor).lines().map(Result::unwrap);
    assert_eq!(monitor.next().unwrap(), "+OK");

    let link = Link::new(&redis.url(), Duration::from_secs(5)).unwrap();
    let again = held.renew_due(&link, &locks, NEVER);
    assert!(again > lease / 4 && again <= lease / 3, "{again:?}");
    let renewed: Vec<usize> = monitor
        .filter(|line| line.contains("EVALSHA"))
        .map(|line| {
            let key = line.split("fleet:key:").nth(1).unwrap();
            key.split(':').next().unwrap().parse().unwrap()
        })
        .take(number)
        .collect();
    let ages: Vec<usize> = renewed.iter().map(|i| i * 7 % number).collect();
    let oldest_first: Vec<usize> = (0..number).rev().collect();
    assert_eq!(ages, oldest_first);
}

#[test]
fn one_lock_that_was_lost_does_not_cost_the_others() {
    let log = log();
    let _limit = limit(60);
    let Some(redis) = redis() else { return };
    let locks = Locks::new("fleet:", Duration::from_secs(60), NEVER);
    let acquired = acquire(&redis, &locks, 4);
    let held = renew::Held::default();
    let due = Instant::now() - Duration::from_secs(30);
    for (key, token, _) in &acquired {
        held.keep(key, token, due);
    }
    let mut connection = redis.connect().unwrap();
    let () = connection.set("fleet:key:1:lock", "another").unwrap();
    let () = connection.del("fleet:key:2:lock").unwrap();
    let () = connection.lpush("fleet:key:2:lock", "a list").unwrap();
    let link = Link::new(&redis.url(), Duration::from_secs(5)).unwrap();
    held.renew_due(&link, &locks, NEVER);
    assert_eq!(held.count(), 2);
    let released = acquired.iter().map(|(_, token, _)| held.release(token));
    let released: Vec<bool> = released.collect();
    assert_eq!(released, [true, false, false, true]);
    let lines = log.lines();
    assert_eq!(lines.len(), 2, "{lines:#?}");
    assert!(lines.iter().all(|line| line.contains("has lost its lock")));
}

#[test]
fn a_redis_that_forgot_the_scripts_renews_all_the_same() {
    let _limit = limit(60);
    let Some(redis) = redis() else { return };
    let locks = Locks::new("fleet:", Duration::from_secs(60), NEVER);
    let acquired = acquire(&redis, &locks, 1);
    let held = renew::Held::default();
    let (key, token, _) = &acquired[0];
    held.keep(key, token, Instant::now() - Duration::from_secs(30));
    let mut flush = redis::cmd("SCRIPT");
    let () = flush.arg("FLUSH").query(&mut redis.connect().unwrap()).unwrap();
    let link = Link::new(&redis.url(), Duration::from_secs(5)).unwrap();
    let again = held.renew_due(&link, &locks, NEVER);
    assert!(again > Duration::from_secs(19), "{again:?}");
    assert!(held.release(token));
}

#[test]
fn a_lock_outlives_a_redis_that_hangs_for_less_than_its_lease() {
    // What it logs is not for the other tests.
    let _log = log();
    let _limit = limit(120);
    let Some(redis) = redis() else { return };
    let lock = Duration::from_secs(9);
    let reply = Duration::from_millis(500);
    let settings = Settings { lock, reply, ..settings() };
    let (a, b) = two(&redis, settings);
    subscribed(&redis, 2);
    let (function, f) = held();
    thread::scope(|scope| {
        let holder = scope.spawn(|| a.call("k", f).unwrap());
        function.runs.recv().unwrap();
        let began = Instant::now();
        signal(&redis, "STOP");
        // A renewal is due after a third of the lease, and gets no reply.
        wait("a renewal fails", || !a.stats().connected);
        signal(&redis, "CONT");
        for tier in [&a, &b] {
            wait("connected", || tier.stats().connected);
        }
        wait("it runs for longer than a lease", || began.elapsed() > lock);
        let waits = waits_for_another(&b, || scope.spawn(|| b.call("k", never).unwrap()));
        function.end.send(value("v")).unwrap();
        assert_eq!(holder.join().unwrap(), "v");
        assert_eq!(waits.join().unwrap(), "v");
    });
    assert_eq!((a.stats().unpublished, b.stats().locked), (0, 0));
}

/// Another client makes a mistake, before or after a tier with a short lease connects.
fn after_a_mistake(mistake: impl Fn(&mut Connection), said: &[&str]) {
    for before in [false, true] {
        after_a_mistake_made(before, &mistake, said);
    }
}

fn after_a_mistake_made(before: bool, mistake: impl Fn(&mut Connection), said: &[&str]) {
    let log = log();
    let _limit = limit(60);
    let Some(redis) = redis() else { return };
    let lock = Duration::from_millis(500);
    if before {
        mistake(&mut redis.connect().unwrap());
    }
    let a = tier(&redis, Settings { lock, ..settings() });
    // What it checks at first is over.
    subscribed(&redis, 1);
    if !before {
        mistake(&mut redis.connect().unwrap());
    }
    let began = Instant::now();
    assert_eq!(a.call("k", || value("v")).unwrap(), "v");
    // Much longer than a lease, so that a busy machine is not taken for a fault; and much shorter
    // than what another client has left there.
    assert!(began.elapsed() < lock * 20, "{:?}", began.elapsed());
    let stats = a.stats();
    assert_eq!((stats.locked, stats.alone, stats.unpublished), (1, 0, 0));
    assert!(stats.connected);
    let lines = log.lines();
    for (line, words) in lines.iter().zip(said) {
        assert!(line.contains(words), "{words}: {line}");
    }
    assert_eq!(lines.len(), said.len(), "{lines:#?}");
    // And nothing of it is left.
    assert_eq!(a.call("k", || value("next")).unwrap(), "next");
    assert_eq!(log.lines().len(), said.len());
    let left: i64 = redis.connect().unwrap().pttl(OUTCOME).unwrap();
    assert!((1..=60_000).contains(&left), "{left}");
}

const NO_EXPIRY: &str = "the lock had no expiry: shortened to 500 ms";
const TAKES_OVER: &str = "takes over";

#[test]
fn a_lock_without_expiry_is_shortened_and_taken_over() {
    let tokens: [&[u8]; 9] = [
        b"7:3000:10000:another",
        b"7:another",
        b"",
        b"0:another",
        b"-1:another",
        b"99999999999999999999:another",
        b"7:99999999999999999999:10000:another",
        b"another tool's lock",
        b"\xff\xfe",
    ];
    for (i, token) in tokens.into_iter().enumerate() {
        // Its own lease, where it names one.
        let shortened = match i {
            0 => "the lock had no expiry: shortened to 3000 ms",
            _ => NO_EXPIRY,
        };
        println!("{:?}", String::from_utf8_lossy(token));
        after_a_mistake(|c| c.set(LOCK, token).unwrap(), &[shortened, TAKES_OVER]);
    }
}

#[test]
fn a_lock_with_an_expiry_beyond_its_lease_is_shortened_and_taken_over() {
    // An hour: a clock that was set back, or seconds taken for milliseconds.
    let hour = |c: &mut Connection| c.pset_ex(LOCK, "7:another", 3_600_000).unwrap();
    let said = ["ms left: shortened to 500 ms", TAKES_OVER];
    after_a_mistake(hour, &said);
    let longest = |c: &mut Connection| c.pset_ex(LOCK, "7:another", 1 << 61).unwrap();
    after_a_mistake(longest, &said);
}

#[test]
fn a_lock_that_is_no_string_is_deleted() {
    after_a_mistake(|c| c.lpush(LOCK, "a list").unwrap(), &["the lock was not a string: deleted"]);
}

#[test]
fn an_outcome_that_never_expires_is_shortened() {
    for outcome in ["7:500:60000:another {}", "7:another {}", "nonsense", ""] {
        after_a_mistake(
            |c| c.set(OUTCOME, outcome).unwrap(),
            &["the outcome had no expiry: shortened to 60000 ms"],
        );
    }
    after_a_mistake(
        |c| c.pset_ex(OUTCOME, "7:500:60000:another {}", 3_600_000).unwrap(),
        &["ms left: shortened to 60000 ms"],
    );
    after_a_mistake(
        |c| c.lpush(OUTCOME, "a list").unwrap(),
        &["the outcome was not a string: deleted"],
    );
}

#[test]
fn an_outcome_with_a_number_that_no_flight_has_is_for_nobody() {
    let both = |c: &mut Connection| {
        let () = c.pset_ex(LOCK, "7:another", 300).unwrap();
        let outcome = r#"99999999999999999999:another {"Ok":"wrong"}"#;
        c.pset_ex(OUTCOME, outcome, 10_000).unwrap()
    };
    after_a_mistake(both, &[TAKES_OVER]);
}

#[test]
fn a_counter_of_flights_that_is_damaged_is_begun_anew() {
    let said = ["the counter of flights was damaged: begun anew"];
    for counter in ["many", "", "1.5", "9223372036854775807", "100000000000000"] {
        after_a_mistake(|c| c.set("fleet:flights", counter).unwrap(), &said);
    }
    let list = |c: &mut Connection| {
        let () = c.del("fleet:flights").unwrap();
        c.lpush("fleet:flights", "a list").unwrap()
    };
    after_a_mistake(list, &said);
}

#[test]
fn a_holder_that_is_alive_keeps_a_lock_whose_expiry_was_damaged() {
    let log = log();
    let _limit = limit(60);
    let Some(redis) = redis() else { return };
    let lock = Duration::from_millis(1500);
    let settings = Settings { lock, ..settings() };
    let (a, b) = two(&redis, settings);
    let mut connection = redis.connect().unwrap();
    let (function, f) = held();
    thread::scope(|scope| {
        let holder = scope.spawn(|| a.call("k", f).unwrap());
        function.runs.recv().unwrap();
        let () = connection.persist(LOCK).unwrap();
        let waits = waits_for_another(&b, || scope.spawn(|| b.call("k", never).unwrap()));
        let () = connection.pexpire(LOCK, 3_600_000).unwrap();
        wait("its lease again", || {
            let left: i64 = connection.pttl(LOCK).unwrap();
            (1..=1500).contains(&left)
        });
        let began = Instant::now();
        wait("it runs for longer than a lease", || began.elapsed() > lock * 2);
        function.end.send(value("v")).unwrap();
        assert_eq!(holder.join().unwrap(), "v");
        assert_eq!(waits.join().unwrap(), "v");
    });
    assert_eq!((a.stats().unpublished, b.stats().locked), (0, 0));
    let lines = log.lines();
    let shortened = |line: &String| line.contains("shortened to 1500 ms");
    assert!(!lines.is_empty() && lines.iter().all(shortened), "{lines:#?}");
}

#[test]
fn a_lease_and_an_outcome_of_other_settings_are_left_alone() {
    let log = log();
    let _limit = limit(60);
    let Some(redis) = redis() else { return };
    let a = tier(&redis, settings());
    let brief = Settings {
        lock: Duration::from_millis(200),
        outcome: Duration::from_millis(500),
        ..settings()
    };
    let b = tier(&redis, brief);
    let (_, told) = shared(&a, &b, value("v"));
    assert_eq!(told.result.unwrap(), "v");
    let (function, f) = held();
    thread::scope(|scope| {
        let holder = scope.spawn(|| a.call("k", f).unwrap());
        function.runs.recv().unwrap();
        let waits = waits_for_another(&b, || scope.spawn(|| b.call("k", never).unwrap()));
        let mut connection = redis.connect().unwrap();
        for (key, least) in [(LOCK, 1_000), (OUTCOME, 20_000)] {
            let left: i64 = connection.pttl(key).unwrap();
            assert!(left > least, "{key}: {left}");
        }
        function.end.send(value("w")).unwrap();
        assert_eq!(holder.join().unwrap(), "w");
        assert_eq!(waits.join().unwrap(), "w");
    });
    log.assert_silent();
}

#[test]
fn a_lock_lost_to_a_pause_is_said_when_the_function_returns() {
    let log = log();
    let _limit = limit(60);
    let Some(redis) = redis() else { return };
    // A lease so long that the renewals notice nothing.
    let a = tier(&redis, settings());
    let loses = || {
        let () = redis.connect().unwrap().del(LOCK).unwrap();
        value("v")
    };
    assert_eq!(a.call("k", loses).unwrap(), "v");
    assert_eq!(a.stats().unpublished, 1);
    log.assert_said_once(&["the lock was lost", "key=\"k\""]);
}

#[test]
fn times_that_redis_would_refuse_are_refused() {
    for time in [Duration::MAX, Duration::from_secs(366 * 24 * 60 * 60)] {
        let url = "redis://127.0.0.1:1";
        let lock = Settings { lock: time, ..Settings::default() };
        assert!(Tier::new(url, lock).is_err());
        let outcome = Settings { outcome: time, ..Settings::default() };
        assert!(Tier::new(url, outcome).is_err());
    }
}
