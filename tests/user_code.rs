//! Where user code runs: under which lock, and inside which flight. `docs/user-code.md` has the table.
//!
//! Each test has one piece of user code look at the group from where it runs. A thread that holds the
//! map's lock finds it taken. A call for the flight's key shows the rest: it is refused if the flight is
//! known to be this thread's own, it would wait if the flight is there and is not known to be, and it
//! leads if the flight has ended or has not begun. If it is refused, another thread waits for the flight,
//! and a call for what that one leads shows whether the deadlock search knows the flight as well.
//!
//! What a panic does is shown here where no other test shows it.
#![cfg(not(loom))]

#[path = "common/allocator.rs"]
mod allocator;
mod common;

use std::cell::{Cell, RefCell};
use std::hash::{BuildHasher, Hash, Hasher};
use std::panic::{catch_unwind, panic_any, AssertUnwindSafe};
use std::rc::Rc;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use allocator::bytes_held;
use common::{assert_quiet, follow, gate, lead, panic_text, until, watchdog};
use shared_calls::{CallError, Deadlock, FlightGroup, Job, Landed, Lookup, Observer, Ticket};

/// What user code finds where it runs.
#[derive(Debug, PartialEq)]
enum Finds {
    /// Its thread holds the map's lock.
    Locked,
    /// This thread is known to run the key's flight: a call for it is refused, and so is one that
    /// would close a cycle over another thread.
    Own,
    /// A call for the key is refused, but a cycle over another thread is not found.
    OwnKey,
    /// The key has a flight that is not known to be this thread's own: a call for it waits.
    Flight,
    /// The key has no flight: a call for it leads.
    Free,
}
use Finds::{Flight, Free, Locked, Own, OwnKey};

/// Where user code runs.
#[derive(Clone, Copy, Debug, PartialEq)]
enum At {
    Function,
    CaptureDrop,
    Hash,
    Is,
    ToKey,
    Overwrite,
    KeyClone,
    KeyDrop,
    /// The same while a panic unwinds.
    KeyDropInPanic,
    ValueClone,
    ValueDrop,
    ErrorDrop,
    PayloadDrop,
    Began,
    Joined,
    Landed,
    TimedOut,
    Refused,
    Overloaded,
}

type Trap = (At, Box<dyn FnOnce()>);

thread_local! {
    /// What the next code on this thread that runs `at` such a place does. Each trap goes off once.
    static TRAPS: RefCell<Vec<Trap>> = const { RefCell::new(Vec::new()) };
    static FOUND: RefCell<Vec<Finds>> = const { RefCell::new(Vec::new()) };
    /// Threads that wait for a flight of this one.
    static WAITING: RefCell<Vec<JoinHandle<()>>> = const { RefCell::new(Vec::new()) };
}

fn set_trap(at: At, trap: impl FnOnce() + 'static) {
    TRAPS.with(|traps| traps.borrow_mut().push((at, Box::new(trap))));
}

fn pass(at: At) {
    // A test that fails must not abort the others by a second panic.
    if !thread::panicking() {
        spring(at);
    }
}

fn spring(at: At) {
    // Nothing is left of it when the thread ends.
    let sprung = TRAPS.try_with(|traps| {
        let mut traps = traps.borrow_mut();
        let i = traps.iter().position(|(place, _)| *place == at)?;
        Some(traps.remove(i).1)
    });
    if let Ok(Some(sprung)) = sprung {
        sprung();
    }
}

/// What the code that runs `at` this place during `act` finds of the key's flight.
#[track_caller]
fn finds<T>(group: &'static Group, key: &Name, at: At, act: impl FnOnce() -> T) -> Finds {
    let _watchdog = watchdog();
    let id = key.id;
    set_trap(at, move || {
        let found = look(group, &Name::new(id));
        FOUND.with(|all| all.borrow_mut().push(found));
    });
    drop(act());
    for waiting in WAITING.with(RefCell::take) {
        waiting.join().expect("it has a result");
    }
    FOUND.with(|all| all.borrow_mut().pop()).expect("it runs")
}

fn look(group: &'static Group, key: &Name) -> Finds {
    if format!("{group:?}").contains("<locked>") {
        return Locked;
    }
    let ask = |key, timeout| {
        let request = group.request(key).without_defaults();
        request.timeout(timeout).call(value)
    };
    match ask(key, Duration::ZERO) {
        Ok(_) => return Free,
        Err(CallError::TimedOut) => return Flight,
        Err(CallError::Deadlock(_)) => {}
        Err(other) => panic!("unexpected: {other:?}"),
    }
    let (id, waiting) = (key.id, group.stats().waiting);
    let waits = thread::spawn(move || {
        let waits = || group.call(&Name::new(id), value);
        drop(group.call(&ANOTHER, || waits().map_err(|_| Fault)));
    });
    WAITING.with(|all| all.borrow_mut().push(waits));
    until("it waits", || group.stats().waiting > waiting);
    match ask(&ANOTHER, Duration::from_secs(1)) {
        Err(CallError::Deadlock(_)) => Own,
        Err(CallError::TimedOut) => OwnKey,
        other => panic!("unexpected: {other:?}"),
    }
}

/// What a key is looked up by. Too large to be kept for reuse, so that each key is dropped.
#[derive(Debug)]
struct Name {
    id: u32,
    _padding: [u64; 33],
}

impl Name {
    const fn new(id: u32) -> Self {
        let _padding = [0; 33];
        Self { id, _padding }
    }
}

/// The same for keys that are kept.
struct Small(u32);

#[derive(Debug)]
struct Key(u32);

fn hash<H: Hasher>(id: u32, state: &mut H) {
    pass(At::Hash);
    id.hash(state);
}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        hash(self.id, state);
    }
}

impl Hash for Small {
    fn hash<H: Hasher>(&self, state: &mut H) {
        hash(self.0, state);
    }
}

impl Lookup<Key> for Name {
    fn is(&self, key: &Key) -> bool {
        pass(At::Is);
        self.id == key.0
    }

    fn to_key(&self) -> Key {
        pass(At::ToKey);
        Key(self.id)
    }

    fn overwrite(&self, key: &mut Key) {
        pass(At::Overwrite);
        *key = Key(self.id);
    }
}

impl Lookup<Key> for Small {
    fn is(&self, key: &Key) -> bool {
        Name::new(self.0).is(key)
    }

    fn to_key(&self) -> Key {
        Name::new(self.0).to_key()
    }

    fn overwrite(&self, key: &mut Key) {
        Name::new(self.0).overwrite(key);
    }
}

impl Clone for Key {
    fn clone(&self) -> Self {
        pass(At::KeyClone);
        Self(self.0)
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        match thread::panicking() {
            true => spring(At::KeyDropInPanic),
            false => pass(At::KeyDrop),
        }
    }
}

#[derive(Debug, PartialEq)]
struct Value;

impl Clone for Value {
    fn clone(&self) -> Self {
        pass(At::ValueClone);
        Self
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        pass(At::ValueDrop);
    }
}

#[derive(Debug, PartialEq)]
struct Fault;

impl Drop for Fault {
    fn drop(&mut self) {
        pass(At::ErrorDrop);
    }
}

struct Capture;

impl Drop for Capture {
    fn drop(&mut self) {
        pass(At::CaptureDrop);
    }
}

struct Payload;

impl Drop for Payload {
    fn drop(&mut self) {
        pass(At::PayloadDrop);
    }
}

struct Watcher;

impl Observer<Key> for Watcher {
    fn flight_began(&self, _: &Key) {
        pass(At::Began);
    }

    fn caller_joined(&self, _: &Key) {
        pass(At::Joined);
    }

    fn flight_landed(&self, _: &Key, _: &Landed) {
        pass(At::Landed);
    }

    fn caller_timed_out(&self, _: &Key) {
        pass(At::TimedOut);
    }

    fn deadlock_refused(&self, _: &Key, _: &Deadlock) {
        pass(At::Refused);
    }

    fn overload_refused(&self, _: &Key) {
        pass(At::Overloaded);
    }
}

type Group = FlightGroup<Value, Fault, Key>;

const KEY: Name = Name::new(1);
const OTHER: Name = Name::new(2);
/// Of the thread that waits for one of the others.
const ANOTHER: Name = Name::new(99);

/// A group for one test. It is leaked, so that traps may refer to it.
fn new_group() -> &'static Group {
    Box::leak(Box::default())
}

fn observed() -> &'static Group {
    Box::leak(Box::new(FlightGroup::builder().observer(Watcher).build()))
}

fn value() -> Result<Value, Fault> {
    Ok(Value)
}

fn values(keys: &[&Name]) -> Result<Vec<Value>, Fault> {
    Ok(keys.iter().map(|_| Value).collect())
}

/// A function that drops a capture when it has run.
fn capturing() -> impl FnOnce() -> Result<Value, Fault> + Send {
    let capture = Capture;
    move || {
        let _capture = capture;
        Ok(Value)
    }
}

/// Starts a job and keeps it.
fn start(
    group: &Group,
    f: impl FnOnce() -> Result<Value, Fault> + Send + 'static,
) -> (Job, Ticket<Value, Fault>) {
    let mut job = None;
    let ticket = group.start(&KEY, |it| job = Some(it), f);
    (job.expect("it leads"), ticket)
}

// The function.

#[test]
fn the_function_runs_in_its_flight() {
    let group = new_group();
    let at_function = || {
        pass(At::Function);
        Ok(Value)
    };
    let call = || group.call(&KEY, at_function);
    assert_eq!(finds(group, &KEY, At::Function, call), Own);
    let run = || lead(group, &KEY).run(at_function);
    assert_eq!(finds(group, &KEY, At::Function, run), Own);
    let job = || group.start(&KEY, Job::run, at_function);
    assert_eq!(finds(group, &KEY, At::Function, job), Own);
    for key in [&KEY, &OTHER] {
        let batch = || {
            group.call_many(&[&KEY, &OTHER], |keys| {
                pass(At::Function);
                values(keys)
            })
        };
        assert_eq!(finds(group, key, At::Function, batch), Own);
    }
    assert_quiet(group);
}

/// It runs in the flights around it. A panic in it is an error of its own call only.
#[test]
fn a_function_that_runs_alone_has_no_flight() {
    let group = new_group();
    let alone = |f: fn(&Group)| {
        let request = || group.request(&KEY).alone_on_deadlock();
        let call = || {
            request().call(|| {
                f(group);
                Ok(Value)
            })
        };
        group.call(&KEY, || call().map_err(|_| Fault))
    };
    let shown = alone(|group| assert_eq!(group.in_flight().len(), 1, "the outer one"));
    assert_eq!(shown, Ok(Value));
    let looks = || alone(|_| pass(At::Function));
    assert_eq!(finds(group, &KEY, At::Function, looks), Own);
    assert_eq!(panic_text(|| drop(alone(|_| panic!("alone")))), "alone");
    assert_eq!(group.stats().panicked, 1, "it unwinds out of the outer one");
    assert_quiet(group);
}

#[test]
fn what_a_function_has_captured_is_dropped_with_it() {
    let group = new_group();
    let call = || group.call(&KEY, capturing());
    assert_eq!(finds(group, &KEY, At::CaptureDrop, call), Own);
    let job = || group.start(&KEY, Job::run, capturing());
    assert_eq!(finds(group, &KEY, At::CaptureDrop, job), Own);

    // A function that does not run is dropped when its call ends.
    let leader = lead(group, &KEY);
    let late = || group.request(&KEY).timeout(Duration::ZERO).call(capturing());
    assert_eq!(finds(group, &KEY, At::CaptureDrop, late), Flight);
    let text = panic_text(|| {
        set_trap(At::CaptureDrop, || panic!("capture"));
        drop(late());
    });
    assert_eq!((text.as_str(), leader.followers()), ("capture", 0));
    drop(leader);
    assert_quiet(group);
}

/// Before the flight is abandoned.
#[test]
fn what_a_job_has_captured_is_dropped_with_the_job() {
    let group = new_group();
    let (job, ticket) = start(group, capturing());
    assert_eq!(finds(group, &KEY, At::CaptureDrop, || drop(job)), Free);
    assert_eq!(ticket.wait().result, Err(CallError::Abandoned));
    assert_quiet(group);
}

// Spawners, predicates, observers.

/// A call for the key waits for the job, so a spawner that waits for it before the job has run hangs.
#[test]
fn a_spawner_runs_beside_the_flight() {
    let group = new_group();
    let spawn = |job: Job| {
        pass(At::Function);
        drop(group.call(&OTHER, value));
        job.run();
    };
    let started = || group.start(&KEY, spawn, value);
    assert_eq!(finds(group, &KEY, At::Function, started), Flight);
    assert_quiet(group);
}

#[test]
fn a_predicate_runs_after_the_flight() {
    let _watchdog = watchdog();
    let group = new_group();
    let leader = lead(group, &KEY);
    let found = thread::scope(|s| {
        let follower = s.spawn(|| {
            let willing = |_: &Fault| {
                pass(At::Function);
                false
            };
            let call = || group.request(&KEY).takeover_if(1, willing).call(value);
            finds(group, &KEY, At::Function, call)
        });
        until("it follows", || leader.followers() == 1);
        drop(leader.complete(Err(Fault)));
        follower.join().unwrap()
    });
    assert_eq!(found, Free);
    assert_quiet(group);
}

#[test]
fn what_a_predicate_has_captured_is_dropped_with_its_request() {
    let group = new_group();
    let request = || {
        let capture = Capture;
        group.request(&KEY).takeover_if(1, move |_: &Fault| {
            let _captured = &capture;
            true
        })
    };
    let call = || request().call(value);
    assert_eq!(finds(group, &KEY, At::CaptureDrop, call), Free);
    let start = || request().start(Job::run, value);
    assert_eq!(finds(group, &KEY, At::CaptureDrop, start), Free);
    let join = || request().join();
    assert_eq!(finds(group, &KEY, At::CaptureDrop, join), Free);
    set_trap(At::CaptureDrop, || panic!("capture"));
    assert_eq!(panic_text(|| drop(join())), "capture");
    assert_quiet(group);
    let leader = lead(group, &KEY);
    let late = || request().timeout(Duration::ZERO).call(value);
    assert_eq!(finds(group, &KEY, At::CaptureDrop, late), Flight);
    set_trap(At::CaptureDrop, || panic!("capture"));
    assert_eq!(panic_text(|| drop(late())), "capture");
    assert_eq!(leader.followers(), 0);
    drop(leader);
    assert_quiet(group);
}

#[test]
fn what_a_spawner_has_captured_is_dropped_with_it() {
    let group = new_group();
    let spawner = || {
        let capture = Capture;
        move |job: Job| {
            let _capture = capture;
            job.run();
        }
    };
    // The job has run by then.
    let start = || group.start(&KEY, spawner(), value);
    assert_eq!(finds(group, &KEY, At::CaptureDrop, start), Free);
    // A spawner that does not run is dropped when `start` returns.
    let leader = lead(group, &KEY);
    assert_eq!(finds(group, &KEY, At::CaptureDrop, start), Flight);
    set_trap(At::CaptureDrop, || panic!("capture"));
    assert_eq!(panic_text(|| drop(start())), "capture");
    assert_eq!(leader.followers(), 0);
    drop(leader);
    assert_quiet(group);
}

#[test]
fn an_observer_is_told_of_the_beginning_inside_the_flight() {
    let group = observed();
    let call = || group.call(&KEY, value);
    assert_eq!(finds(group, &KEY, At::Began, call), Own);
    let batch = || group.call_many(&[&OTHER, &KEY], values);
    assert_eq!(finds(group, &OTHER, At::Began, batch), Own);
    // The keys that the batch leads already are not known to the search.
    set_trap(At::Began, || ());
    assert_eq!(finds(group, &OTHER, At::Began, batch), OwnKey);
    // The payload of a panic is dropped there, too.
    set_trap(At::Began, || panic_any(Payload));
    assert_eq!(finds(group, &KEY, At::PayloadDrop, call), Own);
    assert_quiet(group);
}

#[test]
fn an_observer_is_told_of_the_landing_after_the_flight() {
    let group = observed();
    let call = || group.call(&KEY, value);
    assert_eq!(finds(group, &KEY, At::Landed, call), Free);
    let job = || group.start(&KEY, Job::run, value);
    assert_eq!(finds(group, &KEY, At::Landed, job), Free);
    for key in [&KEY, &OTHER] {
        let batch = || group.call_many(&[&KEY, &OTHER], values);
        assert_eq!(finds(group, key, At::Landed, batch), Free);
    }
    assert_quiet(group);
}

#[test]
fn an_observer_is_told_of_other_callers_outside_the_flight() {
    let group = observed();
    let leader = lead(group, &KEY);
    let join = || group.join(&KEY);
    assert_eq!(finds(group, &KEY, At::Joined, join), Flight);
    let late = || group.request(&KEY).timeout(Duration::ZERO).call(value);
    assert_eq!(finds(group, &KEY, At::TimedOut, late), Flight);
    let refused = || group.request(&KEY).max_followers(0).call(value);
    assert_eq!(finds(group, &KEY, At::Overloaded, refused), Flight);
    drop(leader);
    // Its caller runs the function of the flight.
    let own = || group.call(&KEY, || group.call(&KEY, value).map_err(|_| Fault));
    assert_eq!(finds(group, &KEY, At::Refused, own), Own);
    assert_quiet(group);
}

// Keys.

#[test]
fn hash_runs_before_anything() {
    let group = new_group();
    let call = || group.call(&KEY, value);
    assert_eq!(finds(group, &KEY, At::Hash, call), Free);
    let batch = || group.call_many(&[&KEY, &OTHER], values);
    assert_eq!(finds(group, &KEY, At::Hash, batch), Free);
    let leader = lead(group, &KEY);
    assert_eq!(finds(group, &KEY, At::Hash, || group.forget(&KEY)), Flight);
    drop(leader);
    assert_quiet(group);
}

#[test]
fn comparing_runs_under_the_lock() {
    let group = new_group();
    let leader = lead(group, &KEY);
    let join = || drop(group.join(&KEY));
    assert_eq!(finds(group, &KEY, At::Is, join), Locked);
    let timed = group.request(&KEY).timeout(Duration::ZERO);
    assert_eq!(finds(group, &KEY, At::Is, || timed.call(value)), Locked);
    assert_eq!(finds(group, &KEY, At::Is, || group.forget(&KEY)), Locked);
    drop(leader);
    // A batch compares its own keys first, under no lock, with a key that it makes for that.
    let twice = || group.call_many(&[&KEY, &KEY], values);
    assert_eq!(finds(group, &KEY, At::Is, twice), Free);
    assert_eq!(finds(group, &KEY, At::ToKey, twice), Free);
    assert_eq!(finds(group, &KEY, At::KeyDrop, twice), Free);
    assert_quiet(group);
}

#[test]
fn a_panic_where_a_batch_compares_its_own_keys_begins_nothing() {
    for at in [At::Is, At::ToKey, At::KeyDrop] {
        let group = new_group();
        set_trap(at, || panic!("no"));
        let twice = || drop(group.call_many(&[&KEY, &KEY], values));
        assert_eq!(panic_text(twice), "no");
        assert_eq!(group.stats().calls(), 0, "{at:?}");
        assert_quiet(group);
    }
}

#[test]
fn a_key_is_made_under_the_lock() {
    let group = new_group();
    let call = || group.call(&KEY, value);
    assert_eq!(finds(group, &KEY, At::ToKey, call), Locked);
    let leader = lead(group, &KEY);
    assert_eq!(finds(group, &KEY, At::ToKey, || group.forget(&KEY)), Locked);
    let young = lead(group, &KEY);
    let old = || drop(group.request(&KEY).max_age(Duration::ZERO).join());
    assert_eq!(finds(group, &KEY, At::ToKey, old), Locked);
    drop((leader, young));
    let call = group.request(&KEY).timeout(Duration::ZERO);
    let asks = call.call_with(|flight| {
        let asks = || flight.is_wanted();
        assert_eq!(finds(group, &KEY, At::ToKey, asks), Locked);
        Ok(Value)
    });
    assert_eq!(asks, Ok(Value));
    assert_quiet(group);
}

/// For an observer before anything, and for the function of `start_with` after it has the lead.
#[test]
fn some_keys_are_made_outside_the_lock() {
    let group = observed();
    let call = || group.call(&KEY, value);
    assert_eq!(finds(group, &KEY, At::ToKey, call), Free);
    let group = new_group();
    let start = || {
        // The first key is that of the map.
        let request = group.request(&KEY);
        request.start_with(Job::run, |_| value())
    };
    set_trap(At::ToKey, || ());
    assert_eq!(finds(group, &KEY, At::ToKey, start), Flight);
    // A panic abandons the flight.
    set_trap(At::ToKey, || ());
    set_trap(At::ToKey, || panic!("own key"));
    assert_eq!(panic_text(|| drop(start())), "own key");
    assert_eq!(group.stats().abandoned, 1);
    assert_quiet(group);
}

#[test]
fn a_key_is_written_over_under_the_lock() {
    let group = new_group();
    let call = || group.call(&Small(1), value);
    drop(call());
    assert_eq!(finds(group, &KEY, At::Overwrite, call), Locked);
    // What it replaces is dropped there.
    assert_eq!(finds(group, &KEY, At::KeyDrop, call), Locked);
    assert_quiet(group);
}

#[test]
fn keys_are_cloned_for_in_flight_under_the_lock() {
    let group = new_group();
    let leader = lead(group, &KEY);
    let shows = || drop(group.in_flight());
    assert_eq!(finds(group, &KEY, At::KeyClone, shows), Locked);
    // The copies belong to the caller.
    assert_eq!(finds(group, &KEY, At::KeyDrop, shows), Flight);
    drop(leader);
    assert_quiet(group);
}

#[test]
fn the_key_of_a_lone_call_is_dropped_after_its_flight() {
    let group = new_group();
    let call = || group.call(&KEY, value);
    assert_eq!(finds(group, &KEY, At::KeyDrop, call), Free);
    let fails = || group.call(&KEY, || Err(Fault));
    assert_eq!(finds(group, &KEY, At::KeyDrop, fails), Free);
    let panics = || {
        let call = || group.call(&KEY, || panic_any(Payload));
        catch_unwind(AssertUnwindSafe(call))
    };
    assert_eq!(finds(group, &KEY, At::KeyDrop, panics), Free);
    let completes = || lead(group, &KEY).complete(value());
    assert_eq!(finds(group, &KEY, At::KeyDrop, completes), Free);
    let abandons = || drop(lead(group, &KEY));
    assert_eq!(finds(group, &KEY, At::KeyDrop, abandons), Free);
    let group = observed();
    let call = || group.call(&KEY, value);
    assert_eq!(finds(group, &KEY, At::KeyDrop, call), Free);
    assert_quiet(group);
}

#[test]
fn the_key_of_a_shared_call_is_dropped_after_its_flight() {
    let group = new_group();
    let leader = lead(group, &KEY);
    let follower = follow(group, &KEY);
    let completes = || leader.complete(value());
    assert_eq!(finds(group, &KEY, At::KeyDrop, completes), Free);
    assert_eq!(follower.wait().result, Ok(Value));
    // Given up: the one in the map goes at once, that of the list when the flight ends.
    let leader = lead(group, &KEY);
    let forgets = || group.forget(&KEY);
    assert_eq!(finds(group, &KEY, At::KeyDrop, forgets), Free);
    assert_eq!(finds(group, &KEY, At::KeyDrop, || drop(leader)), Free);
    assert_quiet(group);
}

#[test]
fn the_key_of_a_job_is_dropped_after_its_flight() {
    let group = new_group();
    let runs = || group.start(&KEY, Job::run, value);
    assert_eq!(finds(group, &KEY, At::KeyDrop, runs), Free);
    let (job, _ticket) = start(group, value);
    assert_eq!(finds(group, &KEY, At::KeyDrop, || drop(job)), Free);
    let own = || group.request(&KEY).start_with(Job::run, |_| value());
    set_trap(At::KeyDrop, || ());
    assert_eq!(finds(group, &KEY, At::KeyDrop, own), Free);
    assert_quiet(group);
}

/// That of a group with an observer: each caller has a key of its own.
#[test]
fn the_key_of_a_follower_is_dropped_while_the_flight_goes_on() {
    let group = observed();
    let leader = lead(group, &KEY);
    let leaves = || drop(group.join(&KEY));
    assert_eq!(finds(group, &KEY, At::KeyDrop, leaves), Flight);
    let late = || group.request(&KEY).timeout(Duration::ZERO).call(value);
    assert_eq!(finds(group, &KEY, At::KeyDrop, late), Flight);
    set_trap(At::KeyDrop, || panic!("key"));
    let timed_out = group.stats().timed_out;
    assert_eq!(panic_text(|| drop(late())), "key");
    assert_eq!((group.stats().timed_out, leader.followers()), (timed_out + 1, 0));
    drop(leader);
    assert_quiet(group);
}

/// The ticket of the call that started a flight keeps the observer's key when the job has ended.
#[test]
fn the_key_of_a_ticket_is_dropped_with_it() {
    let group = observed();
    let done = || {
        let (job, ticket) = start(group, value);
        job.run();
        ticket
    };
    let ticket = done();
    assert_eq!(finds(group, &KEY, At::KeyDrop, || ticket.wait()), Free);
    let ticket = done();
    assert_eq!(finds(group, &KEY, At::KeyDrop, || drop(ticket)), Free);
    let ticket = done();
    set_trap(At::KeyDrop, || panic!("key"));
    assert_eq!(panic_text(|| drop(ticket.wait())), "key");
    assert_quiet(group);
}

/// The last to leave a queue whose turn has come takes the entry away.
#[test]
fn the_key_of_a_queue_is_dropped_by_the_last_to_leave() {
    let _watchdog = watchdog();
    let group = observed();
    for panics in [false, true] {
        let front = lead(group, &KEY);
        let (held, gate) = gate();
        thread::scope(|s| {
            let queued = s.spawn(move || {
                set_trap(At::Joined, held);
                let request = || group.request(&KEY).next_flight().timeout(Duration::ZERO);
                let leaves = || assert_eq!(request().call(value), Err(CallError::TimedOut));
                if panics {
                    set_trap(At::KeyDrop, || panic!("it is caught"));
                    leaves();
                    TRAPS.with(|traps| assert!(traps.borrow().is_empty(), "it was dropped"));
                } else {
                    assert_eq!(finds(group, &KEY, At::KeyDrop, leaves), Free);
                }
            });
            gate.begun();
            drop(front);
            assert_eq!(group.in_flight().len(), 1, "the queue");
            gate.open();
            queued.join().unwrap();
        });
        assert_quiet(group);
    }
    assert_eq!(group.stats().timed_out, 2);
}

/// A follower drops a value and a key. If both panic, one panic goes on.
#[test]
fn a_follower_whose_drops_all_panic_does_not_abort() {
    for waits in [false, true] {
        let group = observed();
        let leader = lead(group, &KEY);
        let follower = follow(group, &KEY);
        drop(leader.complete(value()));
        set_trap(At::ValueDrop, || panic!("value"));
        // Where it runs while the first panic unwinds, this aborts.
        set_trap(At::KeyDrop, || panic!("key"));
        set_trap(At::KeyDropInPanic, || panic!("key"));
        let text = panic_text(|| match waits {
            true => drop(follower.wait()),
            false => drop(follower),
        });
        assert_eq!(text, if waits { "key" } else { "value" });
        assert_quiet(group);
        TRAPS.with(RefCell::take);
    }
}

/// `start_with` keeps a key of its own among what its function has captured.
#[test]
fn the_own_key_of_a_dropped_job_is_dropped_after_the_flight_is_abandoned() {
    let group = new_group();
    let mut job = None;
    let request = group.request(&KEY);
    let ticket = request.start_with(|it| job = Some(it), |_| value());
    assert_eq!(finds(group, &KEY, At::KeyDrop, || drop(job)), Free);
    assert_eq!(ticket.wait().result, Err(CallError::Abandoned));
    assert_quiet(group);
}

#[test]
fn the_keys_of_a_batch_are_dropped_after_all_its_flights() {
    let group = new_group();
    let batch = || group.call_many(&[&KEY, &OTHER], values);
    for key in [&KEY, &OTHER] {
        assert_eq!(finds(group, key, At::KeyDrop, batch), Free);
    }
    // A panic unwinds out of the batch, and all its flights have landed.
    let followers = RefCell::new(Vec::new());
    let text = panic_text(|| {
        let f = |keys: &[&Name]| {
            followers.borrow_mut().extend(keys.iter().map(|key| follow(group, *key)));
            set_trap(At::KeyDrop, || panic!("key"));
            values(keys)
        };
        drop(group.call_many(&[&KEY, &OTHER], f));
    });
    assert_eq!(text, "key");
    for follower in followers.into_inner() {
        assert_eq!(follower.wait().result, Ok(Value));
    }
    assert_quiet(group);
}

/// A batch that panics before its function runs abandons its flights one after the other, and drops the
/// key of each. A call for one that is still led is refused.
#[test]
fn the_keys_of_a_batch_that_panics_on_the_way_are_dropped_one_by_one() {
    const THIRD: Name = Name::new(3);
    for (key, found) in [(&KEY, Free), (&OTHER, OwnKey)] {
        let group = new_group();
        let third = lead(group, &THIRD);
        let batch = || {
            set_trap(At::Is, || panic!("is"));
            panic_text(|| drop(group.call_many(&[&KEY, &OTHER, &THIRD], values)))
        };
        assert_eq!(finds(group, key, At::KeyDropInPanic, batch), found);
        assert_eq!(group.stats().abandoned, 2);
        drop(third);
        assert_quiet(group);
    }
}

/// While a panic unwinds, that of a key's `Drop` is caught.
#[test]
fn a_key_whose_drop_panics_while_a_batch_unwinds_stops_nothing() {
    let group = new_group();
    let other = lead(group, &OTHER);
    set_trap(At::Is, || panic!("is"));
    let dropped = Rc::new(Cell::new(false));
    set_trap(At::KeyDropInPanic, {
        let dropped = Rc::clone(&dropped);
        move || {
            dropped.set(true);
            panic!("the key panics")
        }
    });
    let text = panic_text(|| drop(group.call_many(&[&KEY, &OTHER], values)));
    assert_eq!(text, "is");
    assert!(dropped.get());
    assert_eq!(group.stats().abandoned, 1);
    drop(other);
    assert_quiet(group);
}

/// In the midst of other flights, they are known, like those of any call.
#[test]
fn a_key_may_be_dropped_inside_other_flights() {
    let group = new_group();
    let inner = || group.call(&OTHER, value);
    let outer = || group.call(&KEY, || inner().map_err(|_| Fault));
    assert_eq!(finds(group, &KEY, At::KeyDrop, outer), Own);
    // A leader that its thread holds is not known: a call for its key waits for ever.
    let leader = lead(group, &KEY);
    assert_eq!(finds(group, &KEY, At::KeyDrop, inner), Flight);
    drop(leader);
    assert_quiet(group);
}

// Values, errors, payloads.

#[test]
fn values_are_cloned_after_the_flight() {
    let group = new_group();
    let leader = lead(group, &KEY);
    let [first, _second] = [follow(group, &KEY), follow(group, &KEY)];
    let completes = || leader.complete(value());
    assert_eq!(finds(group, &KEY, At::ValueClone, completes), Free);
    assert_eq!(finds(group, &KEY, At::ValueClone, || first.wait()), Free);
    let twice = || group.call_many(&[&KEY, &OTHER, &KEY], values);
    for key in [&KEY, &OTHER] {
        assert_eq!(finds(group, key, At::ValueClone, twice), Free);
    }
    assert_quiet(group);
}

#[test]
fn values_are_dropped_after_the_flight() {
    let group = new_group();
    let leader = lead(group, &KEY);
    let follower = follow(group, &KEY);
    drop(leader.complete(value()));
    assert_eq!(finds(group, &KEY, At::ValueDrop, || drop(follower)), Free);
    let (job, ticket) = start(group, value);
    drop(ticket);
    assert_eq!(finds(group, &KEY, At::ValueDrop, || job.run()), Free);
    assert_quiet(group);
}

/// A caller that gives a flight up by age, and leads the next one, may be the last to let go of the old
/// flight. It does so inside its own flight, so that a `Drop` which calls the group cannot hang, and its
/// own result is safe.
#[test]
fn the_value_of_a_flight_that_was_too_old_is_dropped_inside_the_next_flight() {
    let _watchdog = watchdog();
    for panics in [false, true] {
        let mut limits = (0..8).map(|i| Duration::from_millis(10 << i));
        // A caller that comes later than its limit gives the flight up on arrival, and has no place.
        assert!(limits.any(|age| drops_the_old_value(panics, age)), "it comes too late");
    }
}

/// Whether the caller has waited for the old flight.
fn drops_the_old_value(panics: bool, age: Duration) -> bool {
    let group = observed();
    let old = lead(group, &KEY);
    let follower = follow(group, &KEY);
    let (held, gate) = gate();
    let waited = thread::scope(|s| {
        let young = s.spawn(move || {
            // It leads, and has not begun to run.
            set_trap(At::Began, held);
            let call = || group.request(&KEY).max_age(age).call(value);
            if !panics {
                // Where it has not waited, its own value is the first that is dropped.
                let found = finds(group, &KEY, At::ValueDrop, call);
                assert!(matches!(found, Own | Free), "{found:?}");
                return found == Own;
            }
            set_trap(At::ValueDrop, || panic!("the old value"));
            let result = call();
            let left = TRAPS.with(RefCell::take);
            assert_eq!(result, Ok(Value));
            left.is_empty()
        });
        gate.begun();
        drop(old.complete(value()));
        drop(follower);
        gate.open();
        young.join().unwrap()
    });
    assert_quiet(group);
    waited
}

#[test]
fn errors_are_dropped_after_the_flight() {
    let group = new_group();
    let leader = lead(group, &KEY);
    let follower = follow(group, &KEY);
    drop(leader.complete(Err(Fault)));
    assert_eq!(finds(group, &KEY, At::ErrorDrop, || drop(follower)), Free);
    let (job, ticket) = start(group, || Err(Fault));
    drop(ticket);
    assert_eq!(finds(group, &KEY, At::ErrorDrop, || job.run()), Free);
    assert_quiet(group);
}

/// A caller that takes over lets go of the error before it has the lead. A panic of that is caught.
#[test]
fn the_error_that_is_taken_over_is_dropped_between_the_flights() {
    let _watchdog = watchdog();
    for panics in [false, true] {
        let group = new_group();
        let leader = lead(group, &KEY);
        // The leader lets go of the error first.
        let (dropped, is_dropped) = mpsc::channel();
        thread::scope(|s| {
            let follower = s.spawn(move || {
                let willing = move |_: &Fault| is_dropped.recv().is_ok();
                let request = group.request(&KEY).takeover_if(1, willing);
                if panics {
                    set_trap(At::ErrorDrop, || panic!("error"));
                    assert_eq!(request.call(value).unwrap(), Value);
                } else {
                    let call = || request.call(value);
                    assert_eq!(finds(group, &KEY, At::ErrorDrop, call), Free);
                }
            });
            until("it follows", || leader.followers() == 1);
            drop(leader.complete(Err(Fault)));
            dropped.send(()).unwrap();
            follower.join().unwrap();
        });
        assert_quiet(group);
    }
}

#[test]
fn the_payload_of_a_job_is_dropped_after_the_flight() {
    let group = new_group();
    let (job, ticket) = start(group, || panic_any(Payload));
    assert_eq!(finds(group, &KEY, At::PayloadDrop, || job.run()), Free);
    assert!(matches!(ticket.wait().result, Err(CallError::Panicked(_))));
    // In a call it is the caller's.
    let call = || group.call(&KEY, || panic_any(Payload));
    let caught = catch_unwind(AssertUnwindSafe(call)).unwrap_err();
    assert!(caught.is::<Payload>());
    assert_quiet(group);
}

// Memory.

/// Half a megabyte stayed with a hasher that is constant.
#[test]
fn twenty_thousand_keys_with_one_hash_leave_nothing() {
    #[derive(Clone, Copy)]
    struct Constant;
    impl BuildHasher for Constant {
        type Hasher = Self;
        fn build_hasher(&self) -> Self {
            *self
        }
    }
    impl Hasher for Constant {
        fn write(&mut self, _: &[u8]) {}
        fn finish(&self) -> u64 {
            7
        }
    }
    const NEAR: isize = 16 << 10;

    let group = FlightGroup::<u32, (), u64, _>::with_hasher(Constant);
    group.call(&0, || Ok(1)).unwrap();
    let before = bytes_held();
    let leaders: Vec<_> = (0..20_000).map(|key| lead(&group, &key)).collect();
    assert!(bytes_held() > before + 20 * NEAR, "all are there");
    for leader in leaders {
        drop(leader.complete(Ok(1)));
    }
    let more = bytes_held() - before;
    assert!(more < NEAR, "{more} bytes more than before");
    assert_quiet(&group);
}
