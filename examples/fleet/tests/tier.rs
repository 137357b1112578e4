//! Two tiers on one Redis, as two processes have them, and a Redis that fails.

mod common;

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Barrier, Mutex};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use common::*;
use fleet::crew::RedisServer;
use fleet::message::{self, Elsewhere};
use fleet::tier::{RedisTier, Settings};
use redis::Commands;
use serde::{Serialize, Serializer};
use shared_calls::{CallError, Role, SharedCallsExt};

fn asks_again(tier: &Tier) {
    waits_for_another(tier, || ());
}

#[track_caller]
fn assert_timed_out(call: &Answer) {
    assert!(matches!(call.result, Err(CallError::TimedOut)), "{call:?}");
}

fn elsewhere(outcome: &Answer) -> &Elsewhere {
    match &outcome.result {
        Err(CallError::Failed(error)) => match &**error {
            Failure::Elsewhere(elsewhere) => elsewhere,
            other => panic!("unexpected: {other}"),
        },
        other => panic!("unexpected: {other:?}"),
    }
}

#[test]
fn one_runs_and_the_other_is_told() {
    let _limit = limit(60);
    let Some(redis) = redis() else { return };
    let (a, b) = two(&redis, settings());
    let (ran, told) = shared(&a, &b, value("v"));
    assert_eq!((ran.result.unwrap(), ran.role), ("v".to_owned(), Role::Led));
    assert_eq!((told.result.unwrap(), told.role), ("v".to_owned(), Role::Followed));
    let keys: Vec<String> = redis.connect().unwrap().keys("*lock").unwrap();
    assert!(keys.is_empty(), "{keys:?}");
}

#[test]
fn an_error_is_told_as_text() {
    let _limit = limit(60);
    let Some(redis) = redis() else { return };
    let (a, b) = two(&redis, settings());
    let (ran, told) = shared(&a, &b, Err(Failure::NoRoute("db")));
    let error = ran.result.unwrap_err().into_failed().unwrap();
    assert!(matches!(error, Failure::NoRoute("db")));
    assert_eq!(*elsewhere(&told), Elsewhere::Failed("no route to db".to_owned()));
}

#[test]
fn a_panic_is_told_as_text_and_leaves_no_lock() {
    let _limit = limit(60);
    let Some(redis) = redis() else { return };
    let (a, b) = two(&redis, settings());
    let (function, f) = held::<()>();
    thread::scope(|scope| {
        let panics = || {
            f();
            panic!("disk on fire")
        };
        let leader = scope.spawn(|| catch_unwind(AssertUnwindSafe(|| a.call_ex("k", panics))));
        function.runs.recv().unwrap();
        let follower = scope.spawn(|| a.call_ex("k", never));
        wait("a follower", || a.local_stats().waiting == 1);
        let waits = waits_for_another(&b, || scope.spawn(|| b.call_ex("k", never)));
        function.end.send(()).unwrap();

        let payload = leader.join().unwrap().unwrap_err();
        assert_eq!(*payload.downcast::<&str>().unwrap(), "disk on fire");
        let followed = follower.join().unwrap().result;
        assert!(matches!(followed, Err(CallError::Panicked(_))), "{followed:?}");
        match waits.join().unwrap().result {
            Err(CallError::Panicked(panicked)) => {
                let text = "disk on fire (in another process)";
                assert_eq!(panicked.message(), Some(text));
            }
            other => panic!("unexpected: {other:?}"),
        }
    });
    assert_eq!(b.call("k", || value("next")).unwrap(), "next");
}

#[test]
fn a_value_that_is_not_understood_is_an_error() {
    let _limit = limit(60);
    let Some(redis) = redis() else { return };
    let a = tier(&redis, settings());
    let b = RedisTier::<u32, Failure>::new(&redis.url(), settings()).unwrap();
    let (function, f) = held();
    thread::scope(|scope| {
        scope.spawn(|| a.call("k", f).unwrap());
        function.runs.recv().unwrap();
        let waits =
            waits_for_another(&b, || scope.spawn(|| b.call("k", || unreachable!()).unwrap_err()));
        function.end.send(value("no number")).unwrap();
        let error = waits.join().unwrap().into_failed().unwrap();
        assert!(matches!(error, Failure::Elsewhere(Elsewhere::Unreadable(_))), "{error}");
    });
}

#[test]
fn a_value_that_cannot_be_sent_is_an_error_for_the_others() {
    let _limit = limit(60);
    let Some(redis) = redis() else { return };
    // JSON wants keys that are text.
    type Value = BTreeMap<Vec<u8>, u8>;
    let tier = || RedisTier::<Value, Failure>::new(&redis.url(), settings()).unwrap();
    let (a, b) = (tier(), tier());
    let (function, f) = held();
    thread::scope(|scope| {
        let ran = scope.spawn(|| a.call("k", f).unwrap());
        function.runs.recv().unwrap();
        let waits =
            waits_for_another(&b, || scope.spawn(|| b.call("k", || unreachable!()).unwrap_err()));
        let value = Value::from([(vec![1], 2)]);
        function.end.send(Ok(value.clone())).unwrap();
        assert_eq!(ran.join().unwrap(), value);
        let error = waits.join().unwrap().into_failed().unwrap();
        assert!(matches!(error, Failure::Elsewhere(Elsewhere::Unreadable(_))), "{error}");
    });
}

#[derive(Clone, Debug, serde::Deserialize)]
struct Unsendable;

impl Serialize for Unsendable {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        panic!("cannot be sent")
    }
}

#[test]
fn a_panic_while_the_value_is_sent_is_told_and_leaves_no_lock() {
    let _limit = limit(60);
    let Some(redis) = redis() else { return };
    let tier = || RedisTier::<Unsendable, Failure>::new(&redis.url(), settings()).unwrap();
    let (a, b) = (tier(), tier());
    let (function, f) = held();
    thread::scope(|scope| {
        let panics = scope.spawn(|| catch_unwind(AssertUnwindSafe(|| a.call("k", f))));
        function.runs.recv().unwrap();
        let waits =
            waits_for_another(&b, || scope.spawn(|| b.call("k", || unreachable!()).unwrap_err()));
        function.end.send(Ok(Unsendable)).unwrap();
        assert!(panics.join().unwrap().is_err());
        let error = waits.join().unwrap();
        assert!(matches!(error, CallError::Panicked(_)), "{error}");
    });
    let keys: Vec<String> = redis.connect().unwrap().keys("*lock").unwrap();
    assert!(keys.is_empty(), "{keys:?}");
}

#[test]
fn floats_arrive_as_they_were() {
    for _ in 0..10_000 {
        let value = f64::from_bits(fastrand::u64(..));
        if value.is_finite() {
            let json = message::encode::<_, Failure>(Ok(&Ok(value)));
            let arrived: f64 = message::decode(json.as_bytes()).unwrap();
            assert_eq!(arrived.to_bits(), value.to_bits(), "{value:e}");
        }
    }
}

#[test]
fn keys_do_not_wait_for_each_other() {
    let _limit = limit(60);
    let Some(redis) = redis() else { return };
    let (a, b) = two(&redis, settings());
    let (function, f) = held();
    thread::scope(|scope| {
        let holder = scope.spawn(|| a.call("k", f).unwrap());
        function.runs.recv().unwrap();
        let waits = waits_for_another(&b, || scope.spawn(|| b.call("k", never).unwrap()));
        // Names that look like those of the lock and the outcome are keys like any other.
        for key in ["", "k2", "k:lock", "k:outcome", "flights", "key:k", "k}", "ü\n\0"] {
            assert_eq!(a.call(key, || value(key)).unwrap(), key);
            assert_eq!(b.call(key, || value(key)).unwrap(), key);
        }
        function.end.send(value("v")).unwrap();
        assert_eq!((holder.join().unwrap(), waits.join().unwrap()), ("v".into(), "v".into()));
    });
}

#[test]
fn a_lost_lock_publishes_nothing_and_is_not_released() {
    let _limit = limit(60);
    let Some(redis) = redis() else { return };
    // Each third of this it is to be renewed.
    let lock = Duration::from_millis(600);
    let a = tier(&redis, Settings { lock, ..settings() });
    let mut connection = redis.connect().unwrap();
    let (function, f) = held();
    thread::scope(|scope| {
        let holder = scope.spawn(|| a.call("k", f).unwrap());
        function.runs.recv().unwrap();
        let () = connection.set("fleet:key:k:lock", "99:another").unwrap();
        wait("it is noticed", || a.stats().holding == 0);
        function.end.send(value("late")).unwrap();
        assert_eq!(holder.join().unwrap(), "late");
    });
    assert_eq!(a.stats().unpublished, 1);
    let lock: String = connection.get("fleet:key:k:lock").unwrap();
    assert_eq!(lock, "99:another");
    // Nor was it given a time.
    assert_eq!(connection.pttl::<_, i64>("fleet:key:k:lock").unwrap(), -1);
    assert!(!connection.exists::<_, bool>("fleet:key:k:outcome").unwrap());
}

#[test]
fn who_takes_over_keeps_its_own_outcome_when_the_late_one_comes() {
    let _limit = limit(60);
    let Some(redis) = redis() else { return };
    let (a, b) = two(&redis, settings());
    let c = tier(&redis, settings());
    let mut connection = redis.connect().unwrap();
    let (slow, f) = held();
    let (quick, g) = held();
    thread::scope(|scope| {
        let late = scope.spawn(|| a.call("k", f).unwrap());
        slow.runs.recv().unwrap();
        let takes_over = waits_for_another(&b, || scope.spawn(|| b.call("k", g).unwrap()));
        // As if its time was up.
        let () = connection.del("fleet:key:k:lock").unwrap();
        quick.runs.recv().unwrap();
        let waits = waits_for_another(&c, || scope.spawn(|| c.call("k", never).unwrap()));
        slow.end.send(value("late")).unwrap();
        assert_eq!(late.join().unwrap(), "late");
        asks_again(&c);
        quick.end.send(value("in time")).unwrap();
        assert_eq!(takes_over.join().unwrap(), "in time");
        assert_eq!(waits.join().unwrap(), "in time");
    });
    assert_eq!((a.stats().unpublished, b.stats().unpublished), (1, 0));
}

#[test]
fn who_waited_for_a_dead_one_is_told_by_its_successor_however_quick_that_was() {
    let _limit = limit(60);
    let Some(redis) = redis() else { return };
    let mut another = Silent::begin(&redis);
    let b = tier(&redis, settings());
    thread::scope(|scope| {
        let waits = waits_for_another(&b, || scope.spawn(|| b.call("k", never).unwrap()));
        another.publish_as("8:successor", "v");
        assert_eq!(waits.join().unwrap(), "v");
    });
}

#[test]
fn a_later_call_gets_a_later_run() {
    let _limit = limit(60);
    let Some(redis) = redis() else { return };
    let (a, b) = two(&redis, settings());
    for i in 0..100 {
        let (first, second) = if i % 2 == 0 { (&a, &b) } else { (&b, &a) };
        assert_eq!(first.call("k", || value("old")).unwrap(), "old");
        assert_eq!(second.call("k", || value("new")).unwrap(), "new");
    }
}

/// Another process, played by the test: it runs flight 7, and publishes without telling anybody.
struct Silent(redis::Connection);

impl Silent {
    fn begin(redis: &RedisServer) -> Self {
        let mut connection = redis.connect().unwrap();
        let () = connection.set("fleet:flights", 7).unwrap();
        let () = connection.set_ex("fleet:key:k:lock", "7:silent", 20).unwrap();
        Self(connection)
    }

    fn publish(&mut self, value: &str) {
        self.publish_as("7:silent", value);
    }

    fn publish_as(&mut self, token: &str, value: &str) {
        let outcome = format!(r#"{token} {{"Ok":"{value}"}}"#);
        let mut both = redis::pipe();
        both.atomic().set("fleet:key:k:outcome", outcome);
        let _: redis::Value = both.del("fleet:key:k:lock").query(&mut self.0).unwrap();
    }
}

#[test]
fn an_outcome_from_before_is_not_for_those_who_wait_now() {
    let _limit = limit(60);
    let Some(redis) = redis() else { return };
    let (a, b) = two(&redis, settings());
    for forgets_its_numbers in [false, true] {
        for _ in 0..3 {
            assert_eq!(a.call("k", || value("old")).unwrap(), "old");
        }
        if forgets_its_numbers {
            let () = redis.connect().unwrap().del("fleet:flights").unwrap();
        }
        let (function, f) = held();
        thread::scope(|scope| {
            let holder = scope.spawn(|| a.call("k", f).unwrap());
            function.runs.recv().unwrap();
            let waits = waits_for_another(&b, || scope.spawn(|| b.call("k", never).unwrap()));
            asks_again(&b);
            asks_again(&b);
            function.end.send(value("new")).unwrap();
            assert_eq!(holder.join().unwrap(), "new");
            assert_eq!(waits.join().unwrap(), "new");
        });
    }
}

#[test]
fn numbers_that_redis_forgot_keep_nobody_waiting() {
    let _limit = limit(60);
    let Some(redis) = redis() else { return };
    let mut another = Silent::begin(&redis);
    let b = tier(&redis, settings());
    thread::scope(|scope| {
        let waits = waits_for_another(&b, || scope.spawn(|| b.call("k", never).unwrap()));
        let () = another.0.set("fleet:key:k:lock", "2:silent").unwrap();
        // It may be asking while that is done, but not the second time.
        asks_again(&b);
        asks_again(&b);
        another.publish_as("2:silent", "v");
        assert_eq!(waits.join().unwrap(), "v");
    });
}

#[test]
fn who_joins_after_the_publication_asks_again() {
    let _limit = limit(60);
    let Some(redis) = redis() else { return };
    let mut another = Silent::begin(&redis);
    let b = tier(&redis, Settings { poll: Duration::from_secs(2), ..settings() });
    thread::scope(|scope| {
        let in_time = waits_for_another(&b, || scope.spawn(|| b.call("k", never).unwrap()));
        another.publish("old");
        // The caller that asked there may have returned by now.
        let later = scope.spawn(|| b.call_ex("k", || value("new")));
        assert_eq!(in_time.join().unwrap(), "old");
        let later = later.join().unwrap();
        assert_eq!((later.result.unwrap(), later.role), ("new".to_owned(), Role::Led));
    });
}

#[test]
fn who_was_there_before_is_told_what_the_leader_is_told() {
    let _limit = limit(60);
    let Some(redis) = redis() else { return };
    let mut another = Silent::begin(&redis);
    let b = tier(&redis, settings());
    thread::scope(|scope| {
        let calls: Vec<_> = (0..20).map(|_| scope.spawn(|| b.call("k", never).unwrap())).collect();
        wait("followers", || b.local_stats().waiting == 19);
        asks_again(&b);
        asks_again(&b);
        another.publish("v");
        assert!(calls.into_iter().all(|call| call.join().unwrap() == "v"));
    });
    assert_eq!(b.stats().asked_again, 0);
}

/// A value that takes as long to be sent as a test wants.
#[derive(Clone, Debug, serde::Deserialize)]
struct Slow(u8);
static SLOW: Mutex<Option<(Sender<()>, Receiver<()>)>> = Mutex::new(None);

impl Serialize for Slow {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let slow = SLOW.lock().unwrap().take();
        if let Some((sending, go_on)) = slow {
            sending.send(()).unwrap();
            go_on.recv().unwrap();
        }
        serializer.serialize_newtype_struct("Slow", &self.0)
    }
}

#[test]
fn who_comes_while_an_outcome_is_published_asks_redis() {
    let _limit = limit(60);
    let Some(redis) = redis() else { return };
    let a = RedisTier::<Slow, Failure>::new(&redis.url(), settings()).unwrap();
    let (sending, sends) = mpsc::channel();
    let (go_on, goes_on) = mpsc::channel();
    *SLOW.lock().unwrap() = Some((sending, goes_on));
    thread::scope(|scope| {
        let holder = scope.spawn(|| a.call_ex("k", || Ok(Slow(1))));
        sends.recv().unwrap();
        // It does not join a flight whose outcome others may have before it has landed.
        let later = waits_for_another(&a, || scope.spawn(|| a.call_ex("k", || Ok(Slow(2)))));
        go_on.send(()).unwrap();
        assert_eq!(holder.join().unwrap().followers, 0);
        // This time it was in time.
        assert_eq!(later.join().unwrap().result.unwrap().0, 1);
    });
}

#[test]
fn messages_wake() {
    let _limit = limit(60);
    let Some(redis) = redis() else { return };
    let (a, b) = two(&redis, patient());
    subscribed(&redis, 2);
    for _ in 0..200 {
        let (_, told) = shared(&a, &b, value("v"));
        assert_eq!(told.result.unwrap(), "v");
    }
}

#[test]
fn no_wake_up_is_lost() {
    let _limit = limit(60);
    let Some(redis) = redis() else { return };
    let (a, b) = two(&redis, patient());
    subscribed(&redis, 2);
    let round = Barrier::new(2);
    let call = |tier: &Tier, later: fn(u64) -> u64| {
        for i in 0..4000 {
            round.wait();
            // So that each moment of the one meets each of the other.
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_micros(later(i)) {}
            tier.call("k", || value("v")).unwrap();
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| call(&a, |_| 0));
        scope.spawn(|| call(&b, |i| i % 400));
    });
    assert!(b.stats().asked > 100, "they did not meet: {:?}", b.stats());
}

#[test]
fn polling_is_the_net_where_messages_are_lost() {
    let _limit = limit(60);
    let Some(redis) = redis() else { return };
    let mut another = Silent::begin(&redis);
    let b = tier(&redis, settings());
    thread::scope(|scope| {
        let waits = waits_for_another(&b, || scope.spawn(|| b.call("k", never).unwrap()));
        another.publish("v");
        assert_eq!(waits.join().unwrap(), "v");
    });
}

#[test]
fn a_lost_subscription_comes_back() {
    let _limit = limit(60);
    let Some(redis) = redis() else { return };
    let (a, b) = two(&redis, patient());
    subscribed(&redis, 2);
    let mut kill = redis::cmd("CLIENT");
    kill.arg(&["KILL", "TYPE", "pubsub"]);
    let killed: usize = kill.query(&mut redis.connect().unwrap()).unwrap();
    assert_eq!(killed, 2);
    subscribed(&redis, 2);
    assert_eq!(shared(&a, &b, value("v")).1.result.unwrap(), "v");
    // It was no reason to go on without Redis.
    assert_eq!((a.stats().alone, b.stats().alone), (0, 0));
}

#[test]
fn a_lock_is_renewed_while_the_function_runs() {
    let _limit = limit(60);
    let Some(redis) = redis() else { return };
    let lock = Duration::from_millis(1500);
    let settings = || Settings { lock, ..settings() };
    let (a, b) = two(&redis, settings());
    let (function, f) = held();
    thread::scope(|scope| {
        let holder = scope.spawn(|| a.call("k", f).unwrap());
        function.runs.recv().unwrap();
        let began = Instant::now();
        let waits = waits_for_another(&b, || scope.spawn(|| b.call("k", never).unwrap()));
        wait("it has run for longer than a lock lasts", || began.elapsed() > lock * 2);
        function.end.send(value("v")).unwrap();
        assert_eq!((holder.join().unwrap(), waits.join().unwrap()), ("v".into(), "v".into()));
    });
    assert_eq!(a.stats().unpublished, 0);
}

#[test]
fn a_function_that_hangs_does_not_hold_the_others_up_for_ever() {
    let _limit = limit(60);
    let Some(redis) = redis() else { return };
    let settings =
        || Settings { lock: Duration::from_millis(600), max_run: Duration::ZERO, ..settings() };
    let (a, b) = two(&redis, settings());
    let (function, f) = held();
    thread::scope(|scope| {
        let hung = scope.spawn(|| a.call("k", f).unwrap());
        function.runs.recv().unwrap();
        assert_eq!(b.call("k", || value("b")).unwrap(), "b");
        function.end.send(value("late")).unwrap();
        assert_eq!(hung.join().unwrap(), "late");
    });
    assert_eq!((a.stats().unpublished, b.stats().unpublished), (1, 0));
}

#[test]
fn a_function_that_asks_for_its_own_key_is_refused() {
    let _limit = limit(60);
    let Some(redis) = redis() else { return };
    let a = tier(&redis, settings());
    let outer = a.call("k", || {
        let inner = a.call("k", never);
        assert!(matches!(inner, Err(CallError::Deadlock(_))), "{inner:?}");
        value("v")
    });
    assert_eq!(outer.unwrap(), "v");
}

fn after(time: Duration) -> Option<Instant> {
    Some(Instant::now() + time)
}

#[test]
fn a_deadline_ends_the_wait_for_another_process() {
    let _limit = limit(60);
    let Some(redis) = redis() else { return };
    let _another = Silent::begin(&redis);
    let b = tier(&redis, patient());
    for time in [Duration::from_millis(100), Duration::ZERO] {
        let late = b.call_until("k", after(time), never);
        assert_timed_out(&late);
        assert_eq!((late.role, late.followers), (Role::Followed, 0));
    }
    // A caller that waits for no one is never late.
    let leads = b.call_until("free", after(Duration::ZERO), || value("v"));
    assert_eq!(leads.result.unwrap(), "v");
}

#[test]
fn a_deadline_that_passes_as_the_lock_comes_free_runs_nothing() {
    let _limit = limit(60);
    let Some(redis) = redis() else { return };
    let mut another = Silent::begin(&redis);
    let b = tier(&redis, patient());
    thread::scope(|scope| {
        let call = || b.call_until("k", after(Duration::from_secs(2)), never);
        let waits = waits_for_another(&b, || scope.spawn(call));
        let () = another.0.del("fleet:key:k:lock").unwrap();
        let late = waits.join().unwrap();
        assert_timed_out(&late);
    });
}

#[test]
fn the_deadline_of_a_local_leader_is_not_that_of_its_followers() {
    let _limit = limit(60);
    let Some(redis) = redis() else { return };
    let mut another = Silent::begin(&redis);
    let b = tier(&redis, settings());
    thread::scope(|scope| {
        let hasty = || b.call_until("k", after(Duration::from_secs(1)), never);
        let hasty = waits_for_another(&b, || scope.spawn(hasty));
        let patient = |until| b.call_until("k", until, never).result.unwrap();
        let patient: Vec<ScopedJoinHandle<_>> =
            [None, after(NEVER), None].map(|until| scope.spawn(move || patient(until))).into();
        wait("followers", || b.local_stats().waiting == 3);
        let hasty = hasty.join().unwrap();
        assert_timed_out(&hasty);
        // One of them leads now, and waits on.
        wait("followers", || b.local_stats().waiting == 2);
        asks_again(&b);
        asks_again(&b);
        another.publish("v");
        assert!(patient.into_iter().all(|call| call.join().unwrap() == "v"));
    });
}

#[test]
fn a_local_follower_leaves_at_its_deadline() {
    let _limit = limit(60);
    let Some(redis) = redis() else { return };
    let mut another = Silent::begin(&redis);
    let b = tier(&redis, settings());
    thread::scope(|scope| {
        let leader = waits_for_another(&b, || scope.spawn(|| b.call("k", never).unwrap()));
        let late = b.call_until("k", after(Duration::from_millis(50)), never);
        assert_timed_out(&late);
        another.publish("v");
        assert_eq!(leader.join().unwrap(), "v");
    });
}

#[test]
fn an_outcome_that_is_there_beats_a_deadline_that_has_passed() {
    let _limit = limit(60);
    let Some(redis) = redis() else { return };
    let mut another = Silent::begin(&redis);
    let b = tier(&redis, patient());
    thread::scope(|scope| {
        let call = || b.call_until("k", after(Duration::from_secs(2)), never);
        let waits = waits_for_another(&b, || scope.spawn(call));
        another.publish("v");
        assert_eq!(waits.join().unwrap().result.unwrap(), "v");
    });
}

/// Twenty threads, of which one runs.
fn shares_locally(tier: &Tier) {
    let (function, f) = held();
    thread::scope(|scope| {
        let leader = scope.spawn(|| tier.call("local", f).unwrap());
        function.runs.recv().unwrap();
        let call = || scope.spawn(|| tier.call("local", never).unwrap());
        let followers: Vec<_> = (0..19).map(|_| call()).collect();
        wait("followers", || tier.local_stats().waiting == 19);
        function.end.send(value("v")).unwrap();
        assert_eq!(leader.join().unwrap(), "v");
        assert!(followers.into_iter().all(|call| call.join().unwrap() == "v"));
    });
}

fn connected(tiers: [&Tier; 2], are: bool) {
    wait("connected or not", || tiers.iter().all(|tier| tier.stats().connected == are));
}

#[test]
fn without_redis_it_shares_locally_until_there_is_one() {
    let _limit = limit(60);
    let Some(mut redis) = redis() else { return };
    redis.process.kill();
    let (a, b) = two(&redis, settings());
    assert!(!a.stats().connected);
    shares_locally(&a);
    assert_eq!((a.stats().alone, a.stats().locked), (1, 0));

    redis.restart().unwrap();
    connected([&a, &b], true);
    assert_eq!(shared(&a, &b, value("v")).1.result.unwrap(), "v");
}

#[test]
fn that_there_is_no_redis_is_said_once() {
    let _limit = limit(60);
    let Some(mut redis) = redis() else { return };
    let log = tempfile::NamedTempFile::new().unwrap();
    let subscriber =
        tracing_subscriber::fmt().with_ansi(false).with_writer(Mutex::new(log.reopen().unwrap()));
    tracing::subscriber::with_default(subscriber.finish(), || {
        let a = tier(&redis, settings());
        assert_eq!(a.call("k", || value("v")).unwrap(), "v");
        redis.process.kill();
        for _ in 0..10 {
            assert_eq!(a.call("k", || value("v")).unwrap(), "v");
        }
        assert_eq!(a.stats().alone, 10);
    });
    let log = std::fs::read_to_string(log.path()).unwrap();
    assert_eq!(log.lines().count(), 1, "{log}");
    assert!(log.contains("no Redis: calls are shared within this process only"), "{log}");
}

/// One holds the lock and one waits for it, when Redis goes away.
fn redis_goes_away(a: &Tier, b: &Tier, go: impl FnOnce()) {
    let (function, f) = held();
    thread::scope(|scope| {
        let holder = scope.spawn(|| a.call("k", f).unwrap());
        function.runs.recv().unwrap();
        let waits = waits_for_another(b, || scope.spawn(|| b.call("k", || value("b")).unwrap()));
        go();
        assert_eq!(waits.join().unwrap(), "b");
        function.end.send(value("a")).unwrap();
        assert_eq!(holder.join().unwrap(), "a");
    });
    assert_eq!((a.stats().unpublished, b.stats().alone), (1, 1));
    connected([a, b], false);
}

#[test]
fn redis_killed_while_they_hold_and_wait() {
    let _limit = limit(60);
    let Some(mut redis) = redis() else { return };
    let (a, b) = two(&redis, settings());
    subscribed(&redis, 2);
    redis_goes_away(&a, &b, || redis.process.kill());
    shares_locally(&a);
    redis.restart().unwrap();
    connected([&a, &b], true);
    assert_eq!(shared(&a, &b, value("v")).1.result.unwrap(), "v");
}

#[test]
fn redis_hung_while_they_hold_and_wait() {
    let _limit = limit(120);
    let Some(redis) = redis() else { return };
    let reply = Duration::from_millis(500);
    let settings = || Settings {
        reply,
        // What it could not release is in the way for so long.
        lock: Duration::from_secs(2),
        ..settings()
    };
    let (a, b) = two(&redis, settings());
    subscribed(&redis, 2);
    redis_goes_away(&a, &b, || signal(&redis, "STOP"));
    shares_locally(&a);
    // Not each of them finds out for itself.
    let began = Instant::now();
    for _ in 0..100 {
        assert_eq!(a.call("k", || value("v")).unwrap(), "v");
    }
    assert!(began.elapsed() < reply * 20, "{:?}", began.elapsed());
    signal(&redis, "CONT");
    connected([&a, &b], true);
    assert_eq!(shared(&a, &b, value("v")).1.result.unwrap(), "v");
}

#[test]
fn redis_that_hangs_past_a_deadline_runs_nothing() {
    let _limit = limit(60);
    let Some(redis) = redis() else { return };
    let _another = Silent::begin(&redis);
    let settings = Settings { reply: Duration::from_secs(2), ..settings() };
    let b = tier(&redis, settings);
    thread::scope(|scope| {
        let call = || b.call_until("k", after(Duration::from_secs(1)), never);
        let waits = waits_for_another(&b, || scope.spawn(call));
        signal(&redis, "STOP");
        // It is asking, or will ask, when the deadline passes.
        let late = waits.join().unwrap();
        assert_timed_out(&late);
    });
    signal(&redis, "CONT");
}

#[test]
fn connections_that_redis_closed_are_no_fault() {
    let _limit = limit(60);
    let Some(redis) = redis() else { return };
    let a = tier(&redis, settings());
    subscribed(&redis, 1);
    assert_eq!(a.call("k", || value("v")).unwrap(), "v");
    let mut kill = redis::cmd("CLIENT");
    kill.arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"]);
    let killed: usize = kill.query(&mut redis.connect().unwrap()).unwrap();
    assert!(killed > 0);
    assert_eq!(a.call("k", || value("v")).unwrap(), "v");
    let stats = a.stats();
    assert_eq!((stats.locked, stats.alone), (2, 0));
}

/// Between a tier and its Redis. When it is told to, it loses a reply, and the connection with it.
fn lossy_proxy(redis: &RedisServer) -> (String, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let server = redis.url().replace("redis://", "");
    let lose = Arc::new(AtomicBool::new(false));
    let loses = Arc::clone(&lose);
    // Its threads end with the process, or with the connection.
    thread::spawn(move || {
        for client in listener.incoming().map(Result::unwrap) {
            let server = TcpStream::connect(&server).unwrap();
            let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || io::copy(&mut &from, &mut &to));
            let loses = Arc::clone(&loses);
            thread::spawn(move || {
                let mut reply = [0; 4096];
                while let Ok(n @ 1..) = (&server).read(&mut reply) {
                    let reply = &reply[..n];
                    // What is announced is no reply.
                    let announced = reply.windows(9).any(|name| name == b"published");
                    let lost = !announced && loses.swap(false, SeqCst);
                    if lost || (&client).write_all(reply).is_err() {
                        break;
                    }
                }
                let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
            });
        }
    });
    (url, lose)
}

#[test]
fn a_reply_that_is_lost_does_no_harm() {
    let _limit = limit(60);
    let Some(redis) = redis() else { return };
    let (url, lose) = lossy_proxy(&redis);
    let a = Tier::new(&url, settings()).unwrap();
    subscribed(&redis, 1);
    assert_eq!(a.call("k", || value("v")).unwrap(), "v");
    // To the question: the lock that it has is its own.
    lose.store(true, SeqCst);
    assert_eq!(a.call("k", || value("v")).unwrap(), "v");
    assert!(!lose.load(SeqCst));
    // To the publication: it was done.
    let loses = || {
        lose.store(true, SeqCst);
        value("v")
    };
    assert_eq!(a.call("k", loses).unwrap(), "v");
    assert!(!lose.load(SeqCst));
    let stats = a.stats();
    assert_eq!((stats.locked, stats.alone), (3, 0));
    assert_eq!((stats.asked, stats.unpublished), (0, 0));
}

#[test]
fn what_it_leaves_expires() {
    let _limit = limit(60);
    let Some(redis) = redis() else { return };
    let a = tier(&redis, settings());
    a.call("k", || value("v")).unwrap();
    let mut connection = redis.connect().unwrap();
    let left: Vec<String> = connection.keys("*key:*").unwrap();
    assert_eq!(left, ["fleet:key:k:outcome"]);
    let time: i64 = connection.pttl("fleet:key:k:outcome").unwrap();
    assert!((1..=60_000).contains(&time), "{time}");
}

#[test]
fn a_redis_that_refuses_to_write_is_none() {
    let _limit = limit(60);
    let Some(redis) = redis() else { return };
    let a = tier(&redis, settings());
    let mut connection = redis.connect().unwrap();
    let mut config = |limit: &str| -> () {
        let mut set = redis::cmd("CONFIG");
        set.arg(&["SET", "maxmemory", limit]).query(&mut connection).unwrap()
    };
    config("1");
    assert_eq!(a.call("k", || value("v")).unwrap(), "v");
    let mut connection = redis.connect().unwrap();
    let checks = |connection: &mut redis::Connection| {
        let mut info = redis::cmd("INFO");
        let info: String = info.arg("commandstats").query(connection).unwrap();
        let script = info.lines().find(|line| line.starts_with("cmdstat_script"));
        let calls = script.and_then(|line| line.split(['=', ',']).nth(1));
        calls.unwrap().parse::<u64>().unwrap()
    };
    let checked = checks(&mut connection);
    wait("it has been tried again", || {
        // One check loads four scripts. The first may have begun before.
        checks(&mut connection) >= checked + 8
    });
    assert_eq!((a.stats().alone, a.stats().connected), (1, false));
    config("0");
    wait("connected", || a.stats().connected);
    assert_eq!(a.call("k", || value("v")).unwrap(), "v");
    assert_eq!(a.stats().locked, 1);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let nothing = Settings { lock: Duration::ZERO, ..Settings::default() };
    assert!(Tier::new("redis://127.0.0.1:1", nothing).is_err());
    assert!(Tier::new("http://127.0.0.1:1", Settings::default()).is_err());
}

#[test]
fn its_threads_and_connections_end_with_it() {
    let _limit = limit(60);
    let Some(redis) = redis() else { return };
    let lock = NEVER;
    let a = tier(&redis, Settings { lock, ..settings() });
    subscribed(&redis, 1);
    assert_eq!(a.call("k", || value("v")).unwrap(), "v");
    drop(a);
    subscribed(&redis, 0);
    let mut connection = redis.connect().unwrap();
    wait("no connection but this", || {
        let clients: String = redis::cmd("CLIENT").arg("LIST").query(&mut connection).unwrap();
        clients.lines().count() == 1
    });
}
