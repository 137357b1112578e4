//! `Observer`: is told of every event, on the thread that it happens on, outside every lock; and
//! whatever it does disturbs no flight.
#![cfg(not(loom))]

mod common;

use std::cell::{Cell, RefCell};
use std::collections::hash_map::{DefaultHasher, RandomState};
use std::hash::BuildHasher;
use std::panic::panic_any;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{mpsc, Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use common::{assert_quiet, follow, gate, give_up, lead, panic_text, until, watchdog, TOO_LONG};
use shared_calls::{
    CallError, Deadlock, Ending, FlightGroup, Joined, Landed, Observer, Role, Stats,
};

const SHORT: Duration = Duration::from_millis(2);

/// Writes down what it is told.
#[derive(Default)]
struct Book(Mutex<Vec<String>>);

impl Book {
    fn write(&self, line: String) {
        self.0.lock().unwrap().push(line);
    }

    /// What was written since it was last read.
    fn read(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Observer for Book {
    fn flight_began(&self, key: &String) {
        self.write(format!("{key} began"));
    }

    fn caller_joined(&self, key: &String) {
        self.write(format!("{key} joined"));
    }

    fn flight_landed(&self, key: &String, landed: &Landed) {
        let Landed { followers, ending, .. } = landed;
        self.write(format!("{key} landed: {ending:?}, {followers}"));
    }

    fn caller_timed_out(&self, key: &String) {
        self.write(format!("{key} timed out"));
    }

    fn deadlock_refused(&self, key: &String, deadlock: &Deadlock) {
        self.write(format!("{key} refused, {}", deadlock.threads().len()));
    }

    fn overload_refused(&self, key: &String) {
        self.write(format!("{key} overloaded"));
    }
}

type Group = FlightGroup<u32, &'static str>;

fn new() -> (Arc<Group>, Arc<Book>) {
    let book = Arc::new(Book::default());
    let group = Group::builder().observer(Arc::clone(&book)).build();
    (Arc::new(group), book)
}

// What is told, and in which order.

#[test]
fn a_lone_flight_begins_and_lands() {
    let (group, book) = new();
    group.call("k", || Ok(1)).unwrap();
    assert_eq!(book.read(), ["k began", "k landed: Succeeded, 0"]);
    group.call("k", || Err("no")).unwrap_err();
    assert_eq!(book.read(), ["k began", "k landed: Failed, 0"]);
    panic_text(|| drop(group.call("k", || panic!("boom"))));
    assert_eq!(book.read(), ["k began", "k landed: Panicked, 0"]);

    let leader = lead(&group, "k");
    assert_eq!(book.read(), ["k began"]);
    let _ = leader.complete(Ok(1));
    assert_eq!(book.read(), ["k landed: Succeeded, 0"]);
    drop(lead(&group, "k"));
    assert_eq!(book.read(), ["k began", "k landed: Abandoned, 0"]);
}

#[test]
fn a_flight_has_begun_before_its_function_and_landed_before_its_call_returns() {
    let (group, book) = new();
    group
        .call("k", || {
            assert_eq!(book.read(), ["k began"]);
            Ok(1)
        })
        .unwrap();
    assert_eq!(book.read(), ["k landed: Succeeded, 0"]);
}

#[test]
fn the_flight_of_a_job_begins_before_the_job_is_spawned() {
    let (group, book) = new();
    let spawned = group.start(
        "k",
        |job| {
            assert_eq!(book.read(), ["k began"]);
            job.run();
            assert_eq!(book.read(), ["k landed: Succeeded, 0"]);
        },
        || Ok(1),
    );
    drop(spawned);
    drop(group.start("k", drop, || Ok(1)));
    assert_eq!(book.read(), ["k began", "k landed: Abandoned, 0"]);
    drop(group.start("k", |job| job.run(), || panic!("boom")));
    assert_eq!(book.read(), ["k began", "k landed: Panicked, 0"]);
}

#[test]
fn followers_join_and_are_counted_to_the_end() {
    let (group, book) = new();
    let leader = lead(&group, "k");
    let followers = [(); 3].map(|()| follow(&group, "k"));
    let ticket = group.start("k", |_| panic!("somebody leads"), || Ok(2));
    let joined = ["k began", "k joined", "k joined", "k joined", "k joined"];
    assert_eq!(book.read(), joined);
    let [first, _second, _third] = followers;
    // Who leaves is not told of, nor is it when somebody gets the outcome.
    drop(first);
    assert!(book.read().is_empty());
    let _ = leader.complete(Err("no"));
    assert_eq!(book.read(), ["k landed: Failed, 3"]);
    let _ = ticket.wait();
    assert!(book.read().is_empty());
}

#[test]
fn a_caller_whose_time_is_up_is_told_of() {
    let _watchdog = watchdog();
    let (group, book) = new();
    let leader = lead(&group, "k");
    book.read();
    group.request("k").timeout(SHORT).call(|| Ok(2)).unwrap_err();
    assert_eq!(book.read(), ["k joined", "k timed out"]);
    let queued = || group.request("k").next_flight().timeout(SHORT);
    queued().call(|| Ok(2)).unwrap_err();
    assert_eq!(book.read(), ["k joined", "k timed out"]);
    let Joined::Follower(late) = queued().join() else {
        panic!("somebody leads");
    };
    // It is told when the follower yields that outcome, as it is counted then.
    assert_eq!(book.read(), ["k joined"]);
    assert_eq!(group.stats().timed_out, 2);
    let _ = late.try_wait();
    assert_eq!(book.read(), ["k timed out"]);
    let _ = (late.try_wait(), late.wait());

    // Looking for a while is no time-out.
    let follower = follow(&group, "k");
    assert!(follower.wait_timeout(SHORT).is_none());
    assert!(follower.try_wait().is_none());
    assert_eq!(book.read(), ["k joined"]);
    drop((leader, follower));
}

#[test]
fn a_refusal_is_told_with_who_would_have_waited() {
    let _watchdog = watchdog();
    let (group, book) = new();
    // On its own key a caller is refused before it has joined.
    let refused = ["k refused, 1"];
    group
        .call("k", || {
            book.read();
            group.call("k", || Ok(2)).unwrap_err();
            assert_eq!(book.read(), refused);
            group.request("k").next_flight().call(|| Ok(2)).unwrap_err();
            assert_eq!(book.read(), refused);
            // Runs its function, and that is no flight.
            let alone = group.request("k").alone_on_deadlock();
            assert_eq!(alone.call(|| Ok(2)).unwrap(), 2);
            assert_eq!(book.read(), refused);
            let hasty = group.request("k").timeout(SHORT);
            hasty.call(|| Ok(2)).unwrap_err();
            assert_eq!(book.read(), refused);
            // A follower may be another thread's, so it is refused when it waits.
            let _ = follow(&group, "k").wait();
            assert_eq!(book.read(), ["k joined", "k refused, 1"]);
            Ok(1)
        })
        .unwrap();

    // Two threads: this one waits for the other's key, which asks for this one's.
    thread::scope(|s| {
        let (held, gate) = gate();
        let other = s.spawn(|| {
            group.call("b", || {
                held();
                let waits = || group.in_flight().iter().any(|f| f.waits_for.is_some());
                until("the other one waits", waits);
                let error = group.call("a", || Ok(2)).unwrap_err();
                let CallError::Deadlock(deadlock) = error else {
                    panic!("{error}");
                };
                assert_eq!(deadlock.threads()[0].id(), thread::current().id());
                Ok(1)
            })
        });
        gate.begun();
        book.read();
        gate.open();
        let this = group.call("a", || group.call("b", || Ok(2)).map_err(|_| "b"));
        assert_eq!(this.unwrap(), 1);
        other.join().unwrap().unwrap();
    });
    let told = book.read();
    let refused = told.iter().filter(|line| line.contains("refused"));
    assert_eq!(refused.collect::<Vec<_>>(), ["a refused, 2"]);
}

#[test]
fn a_full_flight_is_told_of() {
    let (group, book) = new();
    let leader = lead(&group, "k");
    book.read();
    let request = || group.request("k").max_followers(0);
    request().call(|| Ok(2)).unwrap_err();
    assert_eq!(book.read(), ["k overloaded"]);
    request().next_flight().call(|| Ok(2)).unwrap_err();
    assert_eq!(book.read(), ["k overloaded"]);
    let Joined::Follower(refused) = request().join() else {
        panic!("the key is in flight");
    };
    assert!(book.read().is_empty());
    let _ = (refused.try_wait(), refused.wait());
    assert_eq!(book.read(), ["k overloaded"]);
    drop(leader);
}

/// Each key of a batch is a call.
#[test]
fn the_calls_of_a_batch_are_told() {
    let (group, book) = new();
    let results = group.call_many(&["a", "b", "a"], |keys| Ok(vec![1; keys.len()]));
    assert_eq!(results, [Ok(1), Ok(1), Ok(1)]);
    let mut told = book.read();
    told.sort();
    let all = ["a began", "a landed: Succeeded, 0", "b began", "b landed: Succeeded, 0"];
    assert_eq!(told, all);
}

/// Each time that it asks again, a caller has joined or led again.
#[test]
fn takeovers_are_told_as_they_happen() {
    let _watchdog = watchdog();
    let (group, book) = new();
    let first = lead(&group, "k");
    thread::scope(|s| {
        let willing = s.spawn(|| group.request("k").takeover(1).call(|| Ok(2)));
        until("it follows", || first.followers() == 1);
        until("it waits", || group.stats().waiting == 1);
        drop(first);
        assert_eq!(willing.join().unwrap().unwrap(), 2);
    });
    let mut told = book.read();
    assert_eq!(told[..2], ["k began", "k joined"]);
    // The leader that went away and the one that comes are two threads.
    told[2..].sort();
    assert_eq!(told[2..], ["k began", "k landed: Abandoned, 1", "k landed: Succeeded, 0"]);
}

#[test]
fn a_queued_caller_joins_and_then_leads() {
    let _watchdog = watchdog();
    let (group, book) = new();
    let first = lead(&group, "k");
    thread::scope(|s| {
        let queued = s.spawn(|| group.request("k").next_flight().call(|| Ok(2)));
        until("it waits", || group.stats().waiting == 1);
        assert_eq!(book.read(), ["k began", "k joined"]);
        let _ = first.complete(Ok(1));
        assert_eq!(queued.join().unwrap().unwrap(), 2);
    });
    let mut told = book.read();
    told.sort();
    // Nobody followed the first one to its end: who is queued does not.
    let landed = "k landed: Succeeded, 0";
    assert_eq!(told, ["k began", landed, landed]);
}

#[test]
fn a_flight_that_was_given_up_lands_when_it_ends() {
    let (group, book) = new();
    let first = lead(&group, "k");
    let follower = follow(&group, "k");
    group.forget("k");
    let second = lead(&group, "k");
    let third = give_up(&group, "k");
    let told = book.read();
    assert_eq!(told[..3], ["k began", "k joined", "k began"]);
    assert_eq!(told.last().unwrap(), "k began");
    let _ = third.complete(Ok(3));
    assert_eq!(book.read(), ["k landed: Succeeded, 0"]);
    let _ = first.complete(Err("no"));
    assert_eq!(book.read(), ["k landed: Failed, 1"]);
    drop(follower);
    assert_eq!(book.read().len(), 0);
    drop(second);
    let abandoned = book.read();
    // `give_up` may have followed it at first.
    assert!(abandoned[0].starts_with("k landed: Abandoned, "));
}

#[test]
fn every_flight_tells_its_own_key() {
    let _watchdog = watchdog();
    let (group, book) = new();
    for key in ["a", "b", "a", "c"] {
        let leader = lead(&group, key);
        let follower = follow(&group, key);
        let _ = leader.complete(Ok(1));
        group.call("other", || Ok(1)).unwrap();
        drop(follower);
        group.call(key, || Ok(1)).unwrap();
        let landed = [
            format!("{key} began"),
            format!("{key} joined"),
            format!("{key} landed: Succeeded, 1"),
            "other began".into(),
            "other landed: Succeeded, 0".into(),
            format!("{key} began"),
            format!("{key} landed: Succeeded, 0"),
        ];
        assert_eq!(book.read(), landed);
    }
    assert_quiet(&*group);
}

#[test]
fn under_load_the_events_are_as_many_as_the_counts() {
    let _watchdog = watchdog();
    let (group, book) = new();
    thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| {
                for i in 0..500 {
                    let key = ["a", "b"][i % 2];
                    let request = group.request(key).takeover(1);
                    let result = || match i % 7 {
                        0 => Err("no"),
                        _ => Ok(1),
                    };
                    let _ = match i % 5 {
                        0 => request.timeout(Duration::ZERO).call(result),
                        1 => request.next_flight().call(result),
                        _ => request.call(result),
                    };
                }
            });
        }
    });
    let told = book.read();
    let count = |what: &str| told.iter().filter(|line| line.contains(what)).count() as u64;
    let stats = group.stats();
    assert_eq!(count("began"), stats.led);
    assert_eq!(count("landed"), stats.led);
    assert_eq!(count("landed: Failed"), stats.failed);
    assert_eq!(count("timed out"), stats.timed_out);
    assert_eq!(stats.calls(), 4 * 500);
    // No leader fails without an outcome, so nobody asks again. Who is queued may lead in the end.
    assert!(count("joined") >= stats.followed + stats.timed_out);
}

/// The value of what it was told last, for tests of one flight.
#[derive(Default)]
struct Last(Mutex<Option<Landed>>);

impl Observer for Last {
    fn flight_landed(&self, _: &String, landed: &Landed) {
        *self.0.lock().unwrap() = Some(*landed);
    }
}

#[test]
fn the_duration_is_that_of_the_flight() {
    let last = Arc::new(Last::default());
    let group = Group::builder().observer(Arc::clone(&last)).build();
    let before = Instant::now();
    let led = group.call("k", || {
        let began = Instant::now();
        until("time has passed", || began.elapsed() >= SHORT);
        Ok(1)
    });
    let all = before.elapsed();
    led.unwrap();
    let landed = last.0.lock().unwrap().take().unwrap();
    assert!(SHORT <= landed.duration && landed.duration <= all);
    let told = Landed::new(landed.duration, 0, Ending::Succeeded);
    assert_eq!(landed, told);
}

/// From when it took the lead.
#[test]
fn the_duration_of_a_next_flight_counts_from_its_turn() {
    let _watchdog = watchdog();
    let last = Arc::new(Last::default());
    let group = Group::builder().observer(Arc::clone(&last)).build();
    let first = lead(&group, "k");
    thread::scope(|s| {
        let queued = s.spawn(|| group.request("k").next_flight().call(|| Ok(2)));
        until("one is queued", || group.in_flight()[0].queued == 1);
        until("the first is old", || group.in_flight()[0].age.unwrap() >= SHORT);
        let turn = Instant::now();
        let given_up = group.forget("k");
        queued.join().unwrap().unwrap();
        let landed = last.0.lock().unwrap().take().unwrap();
        assert!(given_up && landed.duration <= turn.elapsed());
        drop(first);
        assert!(last.0.lock().unwrap().take().unwrap().duration >= SHORT);
    });
}

/// Of a flight that has landed, the followers are awake before the observer is told.
#[test]
fn an_observer_that_blocks_holds_up_nobody_but_its_caller() {
    struct Blocks(Mutex<Option<Box<dyn FnOnce() + Send>>>);
    impl Observer for Blocks {
        fn flight_landed(&self, _: &String, landed: &Landed) {
            // The next flight has none, and may well land before this is told.
            if landed.followers == 1 {
                let held = self.0.lock().unwrap().take();
                held.expect("there is one such flight")();
            }
        }
    }
    let _watchdog = watchdog();
    let (held, gate) = gate();
    let blocks = Blocks(Mutex::new(Some(Box::new(held))));
    let group = Group::builder().observer(blocks).build();
    let leader = lead(&group, "k");
    let follower = follow(&group, "k");
    thread::scope(|s| {
        let queued = s.spawn(|| group.request("k").next_flight().call(|| Ok(2)));
        until("one is queued", || group.stats().waiting == 1);
        let led = s.spawn(|| leader.complete(Ok(1)));
        gate.begun();
        // The leader's call has been counted, and has not returned.
        assert_eq!(follower.wait().result.unwrap(), 1);
        assert_eq!(queued.join().unwrap().unwrap(), 2);
        assert_eq!(group.call("k", || Ok(3)).unwrap(), 3);
        assert_eq!(group.stats().led, 3);
        assert!(!led.is_finished());
        gate.open();
        let _ = led.join().unwrap();
    });
}

// Outside every lock.

thread_local! {
    /// Whether this thread is inside the observer below.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Looks at the group that tells it, and asks it for another key, on this thread and another one.
#[derive(Default)]
struct Nosy {
    group: Arc<OnceLock<&'static Group>>,
    visits: AtomicUsize,
    /// Events that had not been counted. (An assertion in an observer would fail nothing.)
    early: AtomicUsize,
}

impl Nosy {
    fn visit(&self, counted: impl Fn(&Stats) -> bool) {
        let group = self.group.get().unwrap();
        if INSIDE.with(|inside| inside.replace(true)) {
            return;
        }
        if !counted(&group.stats()) {
            self.early.fetch_add(1, SeqCst);
        }
        self.visits.fetch_add(1, SeqCst);
        drop(group.in_flight());
        assert!(format!("{group:?}").contains("in_flight"));
        let ask = || group.call("another", || Ok(1)).unwrap();
        ask();
        thread::scope(|s| {
            let asked = s.spawn(|| {
                INSIDE.with(|inside| inside.set(true));
                ask()
            });
            asked.join().unwrap();
        });
        assert!(!group.forget("yet another"));
        INSIDE.with(|inside| inside.set(false));
    }
}

impl Observer for Nosy {
    fn flight_began(&self, _: &String) {
        self.visit(|stats| stats.in_flight > 0);
    }

    fn caller_joined(&self, _: &String) {
        self.visit(|_| true);
    }

    fn flight_landed(&self, _: &String, _: &Landed) {
        self.visit(|stats| stats.led > 0);
    }

    fn caller_timed_out(&self, _: &String) {
        self.visit(|stats| stats.timed_out > 0);
    }

    fn deadlock_refused(&self, _: &String, _: &Deadlock) {
        self.visit(|stats| stats.deadlocked > 0);
    }

    fn overload_refused(&self, _: &String) {
        self.visit(|stats| stats.overloaded > 0);
    }
}

/// If it were told under a lock, this would hang.
#[test]
fn an_observer_may_ask_the_group() {
    let _watchdog = watchdog();
    let nosy = Arc::new(Nosy::default());
    let group = Group::builder().observer(Arc::clone(&nosy)).build();
    let group: &Group = Box::leak(Box::new(group));
    nosy.group.set(group).unwrap();
    let visits = || nosy.visits.swap(0, SeqCst);

    let leader = lead(group, "k");
    assert_eq!(visits(), 1);
    let follower = follow(group, "k");
    assert_eq!(visits(), 1);
    let hasty = || group.request("k").timeout(SHORT);
    hasty().call(|| Ok(2)).unwrap_err();
    assert_eq!(visits(), 2);
    hasty().next_flight().call(|| Ok(2)).unwrap_err();
    assert_eq!(visits(), 2);
    hasty().max_followers(0).call(|| Ok(2)).unwrap_err();
    assert_eq!(visits(), 1);
    let _ = leader.complete(Ok(1));
    assert_eq!(visits(), 1);
    assert_eq!(follower.wait().result.unwrap(), 1);

    let outer = group.call("k", || {
        visits();
        group.call("k", || Ok(2)).unwrap_err();
        assert_eq!(visits(), 1);
        Ok(1)
    });
    outer.unwrap();
    panic_text(|| drop(group.call("k", || panic!("boom"))));
    drop(lead(group, "k"));
    assert_eq!(visits(), 1 + 2 + 2);
    assert_eq!(nosy.early.load(SeqCst), 0);
    assert_quiet(group);
}

/// Of the same key, where the flight is just beginning: the wait would never end, and is refused.
#[test]
fn an_observer_that_asks_for_the_key_that_begins_is_refused() {
    type Ask = fn(&Group);
    struct Asks {
        group: Arc<OnceLock<&'static Group>>,
        ask: Ask,
        asked: AtomicUsize,
    }
    impl Observer for Asks {
        fn flight_began(&self, _: &String) {
            (self.ask)(self.group.get().unwrap());
            self.asked.fetch_add(1, SeqCst);
        }
    }
    let asks: [Ask; 5] = [
        |group| assert!(matches!(group.call("k", || Ok(2)), Err(CallError::Deadlock(_)))),
        |group| {
            let next = group.request("k").next_flight().call(|| Ok(2));
            assert!(matches!(next, Err(CallError::Deadlock(_))));
        },
        |group| {
            let alone = group.request("k").alone_on_deadlock().call_ex(|| Ok(2));
            assert_eq!((alone.role, alone.result.unwrap()), (Role::Led, 2));
        },
        |group| {
            let hasty = group.request("k").timeout(SHORT).call(|| Ok(2));
            assert!(matches!(hasty, Err(CallError::Deadlock(_))));
        },
        |group| drop(follow(group, "k")),
    ];
    let _watchdog = watchdog();
    for ask in asks {
        let asks = Arc::new(Asks { group: Arc::default(), ask, asked: AtomicUsize::new(0) });
        let group = Group::builder().observer(Arc::clone(&asks)).build();
        let group: &Group = Box::leak(Box::new(group));
        asks.group.set(group).unwrap();
        let outcome = group.call_ex("k", || Ok(1));
        assert_eq!((outcome.result.unwrap(), outcome.followers), (1, 0));
        assert_eq!(asks.asked.load(SeqCst), 1);
        assert_quiet(group);

        // Nor is it noted for longer: the leader may go to another thread, and this one wait for it.
        let leader = lead(group, "k");
        let follower = follow(group, "k");
        thread::scope(|s| {
            s.spawn(|| leader.complete(Ok(1)));
            assert_eq!(follower.wait().result.unwrap(), 1);
        });
        assert_eq!(asks.asked.load(SeqCst), 2);
    }
}

/// When it is told of the landing, the key is free.
#[test]
fn an_observer_may_lead_the_key_that_has_landed() {
    struct Again {
        group: Arc<OnceLock<&'static Group>>,
        left: AtomicUsize,
    }
    impl Observer for Again {
        fn flight_landed(&self, key: &String, _: &Landed) {
            let left = self.left.load(SeqCst);
            if left > 0 {
                self.left.store(left - 1, SeqCst);
                let again = self.group.get().unwrap().call_ex(&**key, || Ok(2));
                assert_eq!((again.role, again.result.unwrap()), (Role::Led, 2));
            }
        }
    }
    let _watchdog = watchdog();
    let again = Arc::new(Again { group: Arc::default(), left: AtomicUsize::new(3) });
    let group = Group::builder().observer(Arc::clone(&again)).build();
    let group: &Group = Box::leak(Box::new(group));
    again.group.set(group).unwrap();
    assert_eq!(group.call("k", || Ok(1)).unwrap(), 1);
    assert_eq!((again.left.load(SeqCst), group.stats().led), (0, 4));
    assert_quiet(group);
}

/// Two observers, of two groups, each of which asks the other group for what it is just beginning.
#[test]
fn observers_of_two_groups_do_not_hang() {
    #[derive(Default)]
    struct Asks {
        other: OnceLock<&'static Group>,
        refused: AtomicUsize,
    }
    impl Observer for Asks {
        fn flight_began(&self, key: &String) {
            let asked = self.other.get().unwrap().call(&**key, || Ok(2));
            if let Err(CallError::Deadlock(_)) = asked {
                self.refused.fetch_add(1, SeqCst);
            }
        }
    }
    let _watchdog = watchdog();
    let asks = [(); 2].map(|()| Arc::new(Asks::default()));
    let groups = asks.each_ref().map(|asks| -> &'static Group {
        let group = Group::builder().observer(Arc::clone(asks)).build();
        Box::leak(Box::new(group))
    });
    asks[0].other.set(groups[1]).unwrap();
    asks[1].other.set(groups[0]).unwrap();
    assert_eq!(groups[0].call("k", || Ok(1)).unwrap(), 1);
    // The second group's observer asked the first group for the key that was beginning there.
    assert_eq!(asks.map(|asks| asks.refused.load(SeqCst)), [0, 1]);
}

// Panics.

/// A payload that panics when it is dropped, too.
struct Vicious;

impl Drop for Vicious {
    fn drop(&mut self) {
        panic!("in Drop of the payload");
    }
}

/// Panics at every event.
struct Panics {
    vicious: bool,
    events: AtomicUsize,
}

impl Panics {
    fn panic(&self) {
        self.events.fetch_add(1, SeqCst);
        if self.vicious {
            panic_any(Vicious);
        }
        panic!("in the observer");
    }
}

impl Observer for Panics {
    fn flight_began(&self, _: &String) {
        self.panic();
    }

    fn caller_joined(&self, _: &String) {
        self.panic();
    }

    fn flight_landed(&self, _: &String, _: &Landed) {
        self.panic();
    }

    fn caller_timed_out(&self, _: &String) {
        self.panic();
    }

    fn deadlock_refused(&self, _: &String, _: &Deadlock) {
        self.panic();
    }

    fn overload_refused(&self, _: &String) {
        self.panic();
    }
}

fn panicking() -> [(Arc<Group>, Arc<Panics>); 2] {
    [false, true].map(|vicious| {
        let events = AtomicUsize::new(0);
        let panics = Arc::new(Panics { vicious, events });
        let group = Group::builder().observer(Arc::clone(&panics)).build();
        (Arc::new(group), panics)
    })
}

#[test]
fn an_observer_that_panics_disturbs_no_flight() {
    let _watchdog = watchdog();
    for (group, panics) in panicking() {
        let events = || panics.events.swap(0, SeqCst);
        assert_eq!(group.call("k", || Ok(1)).unwrap(), 1);
        assert_eq!(events(), 2);

        let leader = lead(&group, "k");
        let follower = follow(&group, "k");
        assert_eq!(events(), 2);
        let hasty = group.request("k").timeout(SHORT).call(|| Ok(2));
        assert!(matches!(hasty, Err(CallError::TimedOut)));
        let queued = group.request("k").next_flight().timeout(SHORT);
        assert!(matches!(queued.call(|| Ok(2)), Err(CallError::TimedOut)));
        let full = group.request("k").max_followers(1).call(|| Ok(2));
        assert_eq!(full, Err(CallError::Overloaded));
        assert_eq!((events(), leader.followers()), (5, 1));
        thread::scope(|s| {
            let next = s.spawn(|| group.request("k").next_flight().call_ex(|| Ok(2)));
            until("one is queued", || group.in_flight()[0].queued == 1);
            until("it waits", || group.stats().waiting == 1);
            let led = leader.complete(Ok(1));
            assert_eq!((led.result.unwrap(), led.followers), (1, 1));
            let next = next.join().unwrap();
            assert_eq!((next.role, next.result.unwrap()), (Role::Led, 2));
        });
        assert_eq!(follower.wait().result.unwrap(), 1);
        // Joined; landed; began, landed.
        assert_eq!(events(), 4);

        let outer = group.call("k", || {
            assert!(matches!(group.call("k", || Ok(2)), Err(CallError::Deadlock(_))));
            let alone = group.request("k").alone_on_deadlock();
            Ok(alone.call(|| Ok(3)).unwrap())
        });
        // Began, landed; refused, twice.
        assert_eq!((outer.unwrap(), events()), (3, 4));

        let ticket = group.start("k", |job| job.run(), || Err("no"));
        assert_eq!(ticket.wait().result.unwrap_err().failed(), Some(&"no"));
        let ticket = group.start("k", drop, || Ok(1));
        let abandoned = ticket.wait().result;
        assert!(matches!(abandoned, Err(CallError::Abandoned)));
        assert_eq!(events(), 4);
        let stats = group.stats();
        assert_eq!((stats.led, stats.followed, stats.timed_out), (6, 1, 2));
        assert_eq!(stats.deadlocked, 2);
        assert_quiet(&*group);
    }
}

/// The leader's own panic goes on, and its followers learn of that one.
#[test]
fn an_observer_may_panic_while_the_leader_unwinds() {
    let _watchdog = watchdog();
    for (group, panics) in panicking() {
        let (held, gate) = gate();
        thread::scope(|s| {
            let leader = s.spawn(|| {
                panic_text(|| {
                    let function = || {
                        held();
                        panic!("the function's own")
                    };
                    drop(group.call("k", function));
                })
            });
            gate.begun();
            let follower = follow(&group, "k");
            gate.open();
            assert_eq!(leader.join().unwrap(), "the function's own");
            let Err(CallError::Panicked(panicked)) = follower.wait().result else {
                panic!("it panicked");
            };
            assert_eq!(panicked.message(), Some("the function's own"));
        });
        assert_eq!(panics.events.load(SeqCst), 3);

        // A guard that is dropped while its thread unwinds: a panic that got out of there would end
        // the process.
        let text = panic_text(|| {
            let _leader = lead(&group, "k");
            panic!("the holder's own");
        });
        assert_eq!(text, "the holder's own");
        // And a job that is, by a spawner that panics.
        let text = panic_text(|| {
            let ticket = group.start("k", |_job| panic!("the spawner's own"), || Ok(1));
            drop(ticket);
        });
        assert_eq!(text, "the spawner's own");
        assert_eq!(panics.events.load(SeqCst), 3 + 2 + 2);

        // And calls that a destructor makes, while its thread unwinds.
        struct Calls<'g>(&'g Group);
        impl Drop for Calls<'_> {
            fn drop(&mut self) {
                assert_eq!(self.0.call("k", || Ok(1)).unwrap(), 1);
                let leader = lead(self.0, "k");
                let hasty = self.0.request("k").timeout(Duration::ZERO);
                hasty.call(|| Ok(2)).unwrap_err();
                drop(leader);
            }
        }
        let text = panic_text(|| {
            let _calls = Calls(&group);
            panic!("the caller's own");
        });
        assert_eq!(text, "the caller's own");
        assert_eq!(panics.events.load(SeqCst), 7 + 2 + 4);
        assert_quiet(&*group);
    }
}

// Who is told.

#[test]
fn an_observer_need_not_listen() {
    struct Quiet;
    impl Observer for Quiet {}
    let group = Group::builder().observer(Quiet).build();
    let leader = lead(&group, "k");
    let hasty = group.request("k").timeout(Duration::ZERO);
    hasty.call(|| Ok(2)).unwrap_err();
    let _ = leader.complete(Ok(1));
    group.call("k", || Ok(group.call("k", || Ok(1)).is_err() as u32)).unwrap();
    assert_eq!(group.stats().deadlocked, 1);
}

/// By the observer's own type, as one of several, and twice over.
#[test]
fn an_arc_of_an_observer_is_one() {
    let _watchdog = watchdog();
    let book = Arc::new(Book::default());
    let shared: Arc<dyn Observer> = book.clone();
    let twice = Arc::new(Arc::clone(&book));
    let groups = [
        Group::builder().observer(Arc::clone(&book)).build(),
        Group::builder().observer(shared).build(),
        Group::builder().observer(twice).build(),
    ];
    for group in groups {
        group
            .call("k", || {
                group.call("k", || Ok(1)).unwrap_err();
                let hasty = follow(&group, "k");
                assert!(hasty.try_wait().is_none());
                let full = group.request("l").max_followers(0);
                let other = lead(&group, "l");
                full.call(|| Ok(1)).unwrap_err();
                let late = group.request("l").timeout(Duration::ZERO);
                late.call(|| Ok(1)).unwrap_err();
                drop(other);
                Ok(1)
            })
            .unwrap();
        let all = [
            "k began",
            "k refused, 1",
            "k joined",
            "l began",
            "l overloaded",
            "l joined",
            "l timed out",
            "l landed: Abandoned, 0",
            "k landed: Succeeded, 0",
        ];
        assert_eq!(book.read(), all);
    }
}

/// Any key will do.
#[test]
fn an_observer_of_other_keys() {
    #[derive(Default)]
    struct Sum(AtomicUsize);
    impl Observer<(u8, usize)> for Sum {
        fn flight_began(&self, (_, n): &(u8, usize)) {
            self.0.fetch_add(*n, SeqCst);
        }
    }
    let sum = Arc::new(Sum::default());
    let builder = FlightGroup::<u32, (), (u8, usize)>::builder();
    let group = builder.observer(Arc::clone(&sum)).build();
    for n in 1..=3 {
        group.call(&(0, n), || Ok(1)).unwrap();
    }
    assert_eq!(sum.0.load(SeqCst), 6);
}

#[test]
fn of_two_observers_the_last_one_is_told() {
    let books = [(); 2].map(|()| Arc::new(Book::default()));
    let [first, last] = books.each_ref().map(Arc::clone);
    let group = Group::builder().observer(first).observer(last).build();
    group.call("k", || Ok(1)).unwrap();
    assert_eq!(books.map(|book| book.read().len()), [0, 2]);
}

/// Counts what it hashes.
#[derive(Clone, Default)]
struct Hashes(Arc<AtomicUsize>);

impl BuildHasher for Hashes {
    type Hasher = DefaultHasher;
    fn build_hasher(&self) -> DefaultHasher {
        self.0.fetch_add(1, SeqCst);
        DefaultHasher::new()
    }
}

#[test]
fn the_parts_of_a_group_may_be_given_in_any_order() {
    let hashes = Hashes::default();
    let book = Arc::new(Book::default());
    let (h, o) = (|| hashes.clone(), || Arc::clone(&book));
    let b = Group::builder;
    let groups = [
        b().hasher(h()).observer(o()).shards(2).max_followers(0).build(),
        b().shards(2).hasher(h()).max_followers(0).observer(o()).build(),
        b().observer(o()).max_followers(0).hasher(h()).shards(2).build(),
        b().max_followers(0).observer(o()).shards(2).hasher(h()).build(),
    ];
    for group in groups {
        group.call("k", || Ok(1)).unwrap();
        assert_eq!(book.read(), ["k began", "k landed: Succeeded, 0"]);
        assert_eq!(hashes.0.swap(0, SeqCst), 1);
        let leader = lead(&group, "k");
        assert_eq!(group.call("k", || Ok(2)), Err(CallError::Overloaded));
        assert_eq!(book.read(), ["k began", "k overloaded"]);
        drop(leader);
        assert_eq!(book.read(), ["k landed: Abandoned, 0"]);
        hashes.0.store(0, SeqCst);
    }

    // A hasher that is given again replaces the first.
    let unused = Hashes::default();
    let group = b().hasher(unused.clone()).shards(2).hasher(h()).build();
    let _leader = lead(&group, "k");
    assert_eq!((unused.0.load(SeqCst), hashes.0.load(SeqCst)), (0, 1));
    let plain: FlightGroup<u32, (), u8, RandomState> = FlightGroup::builder().build();
    assert_eq!(plain.call(&1, || Ok(1)).unwrap(), 1);
}

#[test]
fn a_builder_is_debug() {
    let builder = Group::builder();
    let shown = format!("{builder:?}");
    assert!(shown.starts_with("Builder { shards: 1, "), "{shown}");
    assert!(shown.contains("observer: false"), "{shown}");
    let builder = builder.shards(16).observer(Book::default());
    let shown = format!("{builder:?}");
    assert!(shown.starts_with("Builder { shards: 16, "), "{shown}");
    assert!(shown.contains("observer: true"), "{shown}");
}

// What is kept.

/// A key that counts its copies.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key(Arc<()>);

/// It is the group's, and goes with it; and a key is there for as long as its flight.
#[test]
fn nothing_is_kept() {
    struct Holds(#[allow(dead_code)] Arc<()>);
    impl Observer<Key> for Holds {}
    let held = Arc::new(());
    let key = Key(Arc::new(()));
    let keys = || Arc::strong_count(&key.0);
    let builder = FlightGroup::<u32, (), Key>::builder();
    let group = builder.observer(Holds(Arc::clone(&held))).build();
    for _ in 0..10 {
        group.call(&key, || Ok(1)).unwrap();
        drop(lead(&group, &key));
    }
    // A group keeps a few retired keys, and nothing for the observer.
    assert!(keys() <= 1 + 4);
    assert_eq!(Arc::strong_count(&held), 2);

    let leader = lead(&group, &key);
    let follower = follow(&group, &key);
    let _ = leader.complete(Ok(1));
    drop(group);
    assert_eq!(follower.wait().result.unwrap(), 1);
    assert_eq!((keys(), Arc::strong_count(&held)), (1, 1));
}

thread_local! {
    static IN_DROP: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
}

/// A key whose `Drop` does what it is told to.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Drops;

impl Drop for Drops {
    fn drop(&mut self) {
        if let Some(f) = IN_DROP.with(|f| f.borrow_mut().take()) {
            f();
        }
    }
}

/// With an observer, flights share their key; whichever lets go of it last does so outside the
/// locks.
#[test]
fn drop_of_a_key_that_is_told_may_ask_the_group() {
    struct Quiet;
    impl Observer<Drops> for Quiet {}
    let _watchdog = watchdog();
    type Keyed = FlightGroup<u32, (), Drops>;
    type End = fn(&'static Keyed, shared_calls::Leader<'static, u32, (), Drops>);
    let ends: [End; 5] = [
        |_, leader| drop(leader.complete(Ok(1))),
        |_, leader| drop(leader),
        |group, leader| {
            group.forget(&Drops);
            drop(leader);
        },
        |group, leader| {
            let new = give_up(group, &Drops);
            drop(leader);
            drop(new);
        },
        |group, leader| {
            let follower = follow(group, &Drops);
            let _ = leader.complete(Ok(1));
            drop(follower);
        },
    ];
    for end in ends {
        let group = Keyed::builder().observer(Quiet).build();
        let group: &Keyed = Box::leak(Box::new(group));
        let leader = lead(group, &Drops);
        let (asked, has_asked) = mpsc::channel();
        IN_DROP.with(|f| {
            *f.borrow_mut() = Some(Box::new(move || {
                let looked = thread::scope(|s| s.spawn(|| group.stats().led).join().unwrap());
                asked.send(looked).unwrap();
            }));
        });
        end(group, leader);
        assert!(has_asked.recv_timeout(TOO_LONG).is_ok());
    }
}
