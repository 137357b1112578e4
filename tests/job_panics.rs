//! Panics in jobs: `Job::run` returns normally whatever the function does, and whatever the `Drop`
//! of what it leaves behind does. So a pool's worker lives on.
#![cfg(not(loom))]

mod common;

use std::collections::hash_map::DefaultHasher;
use std::hash::{BuildHasher, Hash, Hasher};
use std::panic::{catch_unwind, panic_any, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use common::{assert_quiet, follow, watchdog};
use shared_calls::{
    CallError, Ending, Flight, FlightGroup, Job, Joined, Landed, Lookup, Observer, Panicked,
};

/// Panics when it is dropped, once for each time it is told to.
#[derive(Debug)]
struct Bomb(Arc<AtomicUsize>);

impl Bomb {
    fn new() -> (Self, Arc<AtomicUsize>) {
        let drops = Arc::new(AtomicUsize::new(0));
        (Self(Arc::clone(&drops)), drops)
    }
}

impl Clone for Bomb {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl Drop for Bomb {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
        if !thread::panicking() {
            panic!("the drop panics");
        }
    }
}

/// A worker that runs the jobs that it is sent, until a job panics. Gives how many it has run.
fn worker() -> (mpsc::Sender<Job>, thread::JoinHandle<usize>) {
    let (jobs, received) = mpsc::channel::<Job>();
    let worker = thread::spawn(move || {
        let mut run = 0;
        for job in received {
            job.run();
            run += 1;
        }
        run
    });
    (jobs, worker)
}

fn panicked<V: std::fmt::Debug, E: std::fmt::Debug>(result: Result<V, CallError<E>>) -> Panicked {
    match result {
        Err(CallError::Panicked(panicked)) => panicked,
        other => panic!("unexpected: {other:?}"),
    }
}

#[test]
fn a_panic_with_a_payload_whose_drop_panics() {
    let _watchdog = watchdog();
    let group = FlightGroup::<u32, ()>::new();
    let (jobs, worker) = worker();
    let (bomb, drops) = Bomb::new();
    let ticket = group.start("k", |job| jobs.send(job).unwrap(), || panic_any(bomb));
    assert_eq!(panicked(ticket.wait().result).message(), None);
    // With no ticket left, too.
    let (bomb, more_drops) = Bomb::new();
    let ticket = group.start("k", |job| jobs.send(job).unwrap(), || panic_any(bomb));
    drop(ticket);
    let next = group.start("another", |job| jobs.send(job).unwrap(), || Ok(1));
    assert_eq!(next.wait().result, Ok(1));
    drop(jobs);
    assert_eq!(worker.join().unwrap(), 3, "the worker lives on");
    assert_eq!((drops.load(SeqCst), more_drops.load(SeqCst)), (1, 1));
    assert_quiet(&group);
    assert_eq!(group.stats().panicked, 2);
}

#[test]
fn a_value_whose_drop_panics_with_no_ticket_left() {
    let _watchdog = watchdog();
    let group = FlightGroup::<Bomb, ()>::new();
    let (jobs, worker) = worker();
    let (bomb, drops) = Bomb::new();
    let (go, held) = mpsc::channel::<()>();
    let ticket = group.start(
        "k",
        |job| jobs.send(job).unwrap(),
        move || {
            held.recv().unwrap();
            Ok(bomb)
        },
    );
    drop(ticket);
    go.send(()).unwrap();
    let numbers = FlightGroup::<u32, ()>::new();
    let next = numbers.start("k", |job| jobs.send(job).unwrap(), || Ok(1));
    assert_eq!(next.wait().result, Ok(1));
    drop(jobs);
    assert_eq!(worker.join().unwrap(), 2, "the worker lives on");
    assert_eq!(drops.load(SeqCst), 1);
    assert_quiet(&group);
    assert_eq!(group.stats().led, 1);
}

#[test]
fn an_error_whose_drop_panics_with_no_ticket_left() {
    let _watchdog = watchdog();
    let group = FlightGroup::<u32, Bomb>::new();
    let (jobs, worker) = worker();
    let (bomb, drops) = Bomb::new();
    let (go, held) = mpsc::channel::<()>();
    let f = move || {
        held.recv().unwrap();
        Err(bomb)
    };
    drop(group.start("k", |job| jobs.send(job).unwrap(), f));
    go.send(()).unwrap();
    drop(jobs);
    assert_eq!(worker.join().unwrap(), 1, "the worker lives on");
    assert_eq!(drops.load(SeqCst), 1);
    assert_quiet(&group);
    assert_eq!(group.stats().failed, 1);
}

/// What the function has captured is dropped with it.
#[test]
fn a_capture_whose_drop_panics() {
    let _watchdog = watchdog();
    let group = FlightGroup::<u32, ()>::new();
    let (jobs, worker) = worker();
    let (bomb, drops) = Bomb::new();
    let ticket = group.start(
        "k",
        |job| jobs.send(job).unwrap(),
        move || {
            let _captured = bomb;
            Ok(1)
        },
    );
    assert_eq!(panicked(ticket.wait().result).message(), Some("the drop panics"));
    let (bomb, more_drops) = Bomb::new();
    let ticket = group.request("k").start_with(
        |job| jobs.send(job).unwrap(),
        move |flight| {
            assert!(flight.is_wanted());
            let _captured = &bomb;
            Ok(1)
        },
    );
    let _ = panicked(ticket.wait().result);
    drop(jobs);
    assert_eq!(worker.join().unwrap(), 2, "the worker lives on");
    assert_eq!((drops.load(SeqCst), more_drops.load(SeqCst)), (1, 1));
    assert_quiet(&group);
}

/// The followers and the ticket have their outcome. (The worker drops the value itself if it is the
/// last to hold it.)
#[test]
fn a_value_whose_drop_panics_reaches_its_ticket_and_followers() {
    let _watchdog = watchdog();
    let group = FlightGroup::<Bomb, ()>::new();
    let (jobs, worker) = worker();
    let (bomb, drops) = Bomb::new();
    let (go, held) = mpsc::channel::<()>();
    let ticket = group.start(
        "k",
        |job| jobs.send(job).unwrap(),
        move || {
            held.recv().unwrap();
            Ok(bomb)
        },
    );
    let follower = follow(&group, "k");
    go.send(()).unwrap();
    let (led, followed) = (ticket.wait(), follower.wait());
    drop(jobs);
    assert_eq!(worker.join().unwrap(), 1, "the worker lives on");
    for outcome in [led, followed] {
        std::mem::forget(outcome.result.unwrap());
    }
    assert!(drops.load(SeqCst) <= 1);
    assert_quiet(&group);
}

/// A wait that times out drops nothing; a ticket that is dropped after the landing drops its value.
#[test]
fn a_ticket_that_is_dropped_late_drops_the_value() {
    let group = FlightGroup::<Bomb, ()>::new();
    let (bomb, drops) = Bomb::new();
    let ticket = group.start("k", Job::run, move || Ok(bomb));
    assert_eq!(drops.load(SeqCst), 0);
    let dropped = catch_unwind(AssertUnwindSafe(|| drop(ticket)));
    assert!(dropped.is_err(), "in the thread of its holder");
    assert_eq!(drops.load(SeqCst), 1);
    assert_quiet(&group);
}

/// On the caller's own thread as well: it is the spawner that runs it.
#[test]
fn a_job_that_runs_at_once_does_not_unwind_out_of_start() {
    let group = FlightGroup::<u32, ()>::new();
    let ticket = group.start("k", Job::run, || panic!("disk on fire"));
    assert_eq!(panicked(ticket.wait().result).message(), Some("disk on fire"));
    let (bomb, drops) = Bomb::new();
    let ticket = group.start("k", Job::run, || panic_any(bomb));
    assert_eq!(panicked(ticket.wait().result).message(), None);
    assert_eq!(drops.load(SeqCst), 1);
    let text = String::from("disk");
    let ticket = group.start("k", Job::run, || panic_any(text));
    assert_eq!(panicked(ticket.wait().result).message(), Some("disk"));
    assert_eq!(group.stats().panicked, 3);
}

struct PanickingObserver;

impl Observer for PanickingObserver {
    fn flight_began(&self, _: &String) {
        panic_any(Bomb::new().0);
    }

    fn flight_landed(&self, _: &String, _: &Landed) {
        panic_any(Bomb::new().0);
    }

    fn overload_refused(&self, _: &String) {
        panic_any(Bomb::new().0);
    }
}

#[test]
fn an_observer_that_panics() {
    let _watchdog = watchdog();
    let group = FlightGroup::<u32, ()>::builder().observer(PanickingObserver).build();
    let (jobs, worker) = worker();
    let ticket = group.start("k", |job| jobs.send(job).unwrap(), || Ok(1));
    assert_eq!(ticket.wait().result, Ok(1));
    let ticket = group.start("k", |job| jobs.send(job).unwrap(), || panic!("lost"));
    let _ = panicked(ticket.wait().result);
    let leader = common::lead(&group, "k");
    let request = group.request("k").max_followers(0);
    assert_eq!(request.call(|| Ok(2)), Err(CallError::Overloaded));
    drop(leader);
    drop(jobs);
    assert_eq!(worker.join().unwrap(), 2, "the worker lives on");
    assert_quiet(&group);
}

/// A key of which the copy that the group makes panics when it is dropped. It is larger than what is
/// kept for reuse.
struct Key([u64; 64]);

struct KeyCopy([u64; 64]);

impl Drop for KeyCopy {
    fn drop(&mut self) {
        if !thread::panicking() {
            panic!("the key's drop panics");
        }
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl Lookup<KeyCopy> for Key {
    fn is(&self, key: &KeyCopy) -> bool {
        self.0 == key.0
    }

    fn to_key(&self) -> KeyCopy {
        KeyCopy(self.0)
    }
}

type ByKey = FlightGroup<u32, (), KeyCopy>;

#[test]
fn a_key_whose_drop_panics() {
    let _watchdog = watchdog();
    let group = ByKey::new();
    let (jobs, worker) = worker();
    let ticket = group.start(&Key([7; 64]), |job| jobs.send(job).unwrap(), || Ok(1));
    assert_eq!(ticket.wait().result, Ok(1));
    drop(jobs);
    assert_eq!(worker.join().unwrap(), 1, "the worker lives on");
    assert_quiet(&group);
    assert_eq!(group.stats().led, 1);
}

/// `start_with` keeps a key of its own, in case that the flight is not wanted.
#[test]
fn a_key_of_start_with_whose_drop_panics() {
    let _watchdog = watchdog();
    let group = ByKey::new();
    let (jobs, worker) = worker();
    for asks in [false, true] {
        let key = Key([7; 64]);
        let request = group.request(&key);
        let f = move |flight: &Flight<'_>| Ok(u32::from(asks && flight.is_wanted()));
        let ticket = request.start_with(|job| jobs.send(job).unwrap(), f);
        assert_eq!(ticket.wait().result, Ok(u32::from(asks)));
        let ticket = group.request(&key).start_with(|job| jobs.send(job).unwrap(), f);
        drop(ticket);
        // Or the next one would follow it.
        common::until("the job has run", || group.stats().in_flight == 0);
    }
    drop(jobs);
    assert_eq!(worker.join().unwrap(), 4, "the worker lives on");
    assert_quiet(&group);
    assert_eq!(group.stats().led, 4);
}

/// The job has the last handle of a group that keeps retired keys.
#[test]
fn a_job_that_outlives_its_group_drops_the_retired_keys() {
    struct Small;
    impl Hash for Small {
        fn hash<H: Hasher>(&self, state: &mut H) {
            state.write_u8(7);
        }
    }
    impl Lookup<KeyCopy> for Small {
        fn is(&self, _: &KeyCopy) -> bool {
            true
        }
        fn to_key(&self) -> KeyCopy {
            KeyCopy([7; 64])
        }
        fn overwrite(&self, _: &mut KeyCopy) {}
    }
    let _watchdog = watchdog();
    let group = ByKey::new();
    let (jobs, worker) = worker();
    let (go, held) = mpsc::channel::<()>();
    let f = move || {
        held.recv().unwrap();
        Ok(1)
    };
    let ticket = group.start(&Small, |job| jobs.send(job).unwrap(), f);
    drop(group);
    go.send(()).unwrap();
    assert_eq!(ticket.wait().result, Ok(1));
    drop(jobs);
    assert_eq!(worker.join().unwrap(), 1, "the worker lives on");
}

struct ArmedObserver {
    _bomb: Bomb,
}

impl Observer for ArmedObserver {}

struct ArmedHasher {
    _bomb: Bomb,
}

impl BuildHasher for ArmedHasher {
    type Hasher = DefaultHasher;
    fn build_hasher(&self) -> DefaultHasher {
        DefaultHasher::new()
    }
}

/// What the builder was given is dropped with the last handle of the group, too.
#[test]
fn a_job_that_outlives_its_group_drops_the_observer_and_the_hasher() {
    let _watchdog = watchdog();
    let (jobs, worker) = worker();
    let (observers, hashers) = (Bomb::new(), Bomb::new());
    let observer = ArmedObserver { _bomb: observers.0 };
    let observed = FlightGroup::<u32, ()>::builder().observer(observer).build();
    let hashed = FlightGroup::<u32, (), String, _>::with_hasher(ArmedHasher { _bomb: hashers.0 });
    let (go, held) = mpsc::channel::<()>();
    let spawn = |job| jobs.send(job).unwrap();
    drop(observed.start("k", spawn, move || Ok(u32::from(held.recv().is_err()))));
    drop(hashed.start("k", spawn, || Ok(1)));
    drop((observed, hashed));
    drop(go);
    drop(jobs);
    assert_eq!(worker.join().unwrap(), 2, "the worker lives on");
    assert_eq!((observers.1.load(SeqCst), hashers.1.load(SeqCst)), (1, 1));
}

/// Elsewhere it unwinds out of the drop of that handle. A follower holds on to the observer, too.
#[test]
fn the_last_handle_drops_the_observer() {
    for keeps_follower in [false, true] {
        let observer = ArmedObserver { _bomb: Bomb::new().0 };
        let group = FlightGroup::<u32, ()>::builder().observer(observer).build();
        let another = group.clone();
        let leader = common::lead(&group, "k");
        let follower = follow(&group, "k");
        assert_eq!(leader.complete(Ok(1)).result, Ok(1));
        drop(another);
        let text = match keeps_follower {
            true => {
                drop(group);
                common::panic_text(|| drop(follower))
            }
            false => {
                drop(follower);
                common::panic_text(|| drop(group))
            }
        };
        assert_eq!(text, "the drop panics");
    }
}

/// A job that is dropped unrun, with what it has captured.
#[test]
fn a_dropped_job_whose_capture_panics_abandons_its_flight() {
    let group = FlightGroup::<u32, ()>::new();
    let (bomb, drops) = Bomb::new();
    let mut job = None;
    let ticket = group.start(
        "k",
        |given| job = Some(given),
        move || {
            let _captured = &bomb;
            Ok(1)
        },
    );
    let follower = follow(&group, "k");
    let dropped = catch_unwind(AssertUnwindSafe(|| drop(job)));
    assert!(dropped.is_err());
    assert_eq!(drops.load(SeqCst), 1);
    // Nobody is left waiting (G4).
    let second = ticket.wait_timeout(Duration::from_secs(60)).expect("it is abandoned");
    assert_eq!(second.result, Err(CallError::Abandoned));
    assert_eq!(follower.wait().result, Err(CallError::Abandoned));
    assert_quiet(&group);
}

/// The same of a leader that runs, for the thread of the caller: it unwinds there.
#[test]
fn a_call_unwinds_with_the_payload_itself() {
    let group = FlightGroup::<u32, ()>::new();
    let payload = catch_unwind(AssertUnwindSafe(|| group.call("k", || panic_any(42_u8))));
    assert_eq!(*payload.unwrap_err().downcast::<u8>().unwrap(), 42);
    assert_quiet(&group);
}

/// A key whose `Drop` panics once it is armed, even while its thread unwinds: that would abort.
struct ArmedKey(Arc<AtomicBool>);

impl Drop for ArmedKey {
    fn drop(&mut self) {
        assert!(!self.0.swap(false, SeqCst), "the drop of a key panics");
    }
}

struct Armed<'a>(&'a Arc<AtomicBool>);

impl Hash for Armed<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u8(1);
    }
}

impl Lookup<ArmedKey> for Armed<'_> {
    fn is(&self, _: &ArmedKey) -> bool {
        true
    }
    fn to_key(&self) -> ArmedKey {
        ArmedKey(Arc::clone(self.0))
    }
}

#[test]
fn a_panic_of_the_function_and_then_of_the_drop_of_the_jobs_key() {
    let _watchdog = watchdog();
    let group = FlightGroup::<u32, (), ArmedKey>::new();
    let armed = Arc::new(AtomicBool::new(false));
    let (jobs, worker) = worker();
    let f = {
        let armed = Arc::clone(&armed);
        move |_: &Flight<'_>| -> Result<u32, ()> {
            armed.store(true, SeqCst);
            panic!("the function panics")
        }
    };
    let ticket = group.request(&Armed(&armed)).start_with(|job| jobs.send(job).unwrap(), f);
    assert_eq!(panicked(ticket.wait().result).message(), Some("the function panics"));
    drop(jobs);
    assert_eq!(worker.join().unwrap(), 1, "the worker lives on");
    assert!(!armed.load(SeqCst), "a key was dropped");
    assert_eq!(group.stats().panicked, 1);
}

/// Each `Drop` panics while it is armed, even while its thread unwinds, and is counted.
#[derive(Clone)]
struct CountedKey(Arc<AtomicBool>, Arc<AtomicUsize>);
impl Drop for CountedKey {
    fn drop(&mut self) {
        if self.0.load(SeqCst) {
            self.1.fetch_add(1, SeqCst);
            panic!("the drop of a key panics");
        }
    }
}
impl Hash for CountedKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u8(1);
    }
}
impl PartialEq for CountedKey {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl Eq for CountedKey {}

/// Each `Drop` of a key that is left of the flight panics, and so does that of the payload.
#[test]
fn panics_of_several_drops_in_a_job() {
    struct Silent;
    impl Observer<CountedKey> for Silent {}
    /// The ticket is dropped, so the job has the value.
    struct Value;
    impl Clone for Value {
        fn clone(&self) -> Self {
            unreachable!("nobody shares it")
        }
    }
    impl Drop for Value {
        fn drop(&mut self) {
            panic!("the drop of the value panics");
        }
    }

    let _watchdog = watchdog();
    for function_panics in [false, true] {
        let group = FlightGroup::<Value, (), CountedKey>::builder().observer(Silent).build();
        let (armed, drops) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let key = CountedKey(Arc::clone(&armed), Arc::clone(&drops));
        let (jobs, worker) = worker();
        let (bomb, _) = Bomb::new();
        let f = {
            let armed = Arc::clone(&armed);
            move || {
                armed.store(true, SeqCst);
                match function_panics {
                    true => panic_any(bomb),
                    false => drop(catch_unwind(AssertUnwindSafe(|| drop(bomb)))),
                }
                Ok(Value)
            }
        };
        let (go, held) = mpsc::channel::<()>();
        drop(group.start(
            &key,
            |job| jobs.send(job).unwrap(),
            move || {
                held.recv().unwrap();
                f()
            },
        ));
        assert!(group.forget(&key), "so the key in the list is dropped at the end");
        go.send(()).unwrap();
        drop(jobs);
        assert_eq!(worker.join().unwrap(), 1, "the worker lives on");
        armed.store(false, SeqCst);
        assert_eq!(drops.load(SeqCst), 2, "that of the list and that of the events");
        assert_quiet(&group);
    }
}

/// A job that is dropped unrun drops a key, what its function has captured, and, with the last handle of the
/// group, a retired key. Each `Drop` panics, and one panic goes on.
#[test]
fn panics_of_several_drops_in_a_job_that_is_dropped() {
    let group = FlightGroup::<u32, (), CountedKey>::new();
    let (armed, drops) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let key = CountedKey(Arc::clone(&armed), Arc::clone(&drops));
    group.call(&key, || Ok(0)).unwrap();
    let (mut job, captured) = (None, key.clone());
    let f = move || {
        let _captured = &captured;
        Ok(1)
    };
    let ticket = group.start(&key, |it| job = Some(it), f);
    assert!(group.forget(&key), "so the key in the list is dropped at the end");
    drop(group.join(&key));
    drop(group);
    armed.store(true, SeqCst);
    let text = common::panic_text(|| drop(job));
    armed.store(false, SeqCst);
    assert_eq!(text, "the drop of a key panics");
    assert_eq!(drops.load(SeqCst), 3, "that of the list, the captured one and a retired one");
    assert_eq!(ticket.wait().result, Err(CallError::Abandoned));
}

/// The job has the last handle, so it drops the retired key, after the key of its own. Both panic.
#[test]
fn a_job_of_start_with_that_outlives_its_group() {
    let _watchdog = watchdog();
    let group = FlightGroup::<u32, (), CountedKey>::new();
    let (armed, drops) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let key = CountedKey(Arc::clone(&armed), Arc::clone(&drops));
    let (jobs, worker) = worker();
    let (go, held) = mpsc::channel::<()>();
    let f = move |_: &Flight<'_>| {
        held.recv().unwrap();
        Ok(1)
    };
    let ticket = group.request(&key).start_with(|job| jobs.send(job).unwrap(), f);
    drop(group);
    armed.store(true, SeqCst);
    go.send(()).unwrap();
    assert_eq!(ticket.wait().result, Ok(1));
    drop(jobs);
    assert_eq!(worker.join().unwrap(), 1, "the worker lives on");
    armed.store(false, SeqCst);
    assert_eq!(drops.load(SeqCst), 2, "its own key and the retired one");
}

/// The key that an observer's events have is dropped when the flight has ended, once.
#[test]
fn a_flight_whose_observers_key_panics_when_it_is_dropped_has_ended_once() {
    struct Landings(Arc<AtomicUsize>);
    impl Observer<ArmedKey> for Landings {
        fn flight_landed(&self, _: &ArmedKey, landed: &Landed) {
            assert_eq!(landed.ending, Ending::Succeeded);
            self.0.fetch_add(1, SeqCst);
        }
    }
    let landings = Arc::new(AtomicUsize::new(0));
    let observer = Landings(Arc::clone(&landings));
    let group = FlightGroup::<u32, (), ArmedKey>::builder().observer(observer).build();
    let armed = Arc::new(AtomicBool::new(false));
    let key = Armed(&armed);
    let called = catch_unwind(AssertUnwindSafe(|| {
        group.call(&key, || {
            armed.store(true, SeqCst);
            Ok(1)
        })
    }));
    assert!(called.is_err(), "the drop of the key panics out of the call");
    let completed = catch_unwind(AssertUnwindSafe(|| {
        let Joined::Leader(leader) = group.join(&key) else { panic!("nobody leads") };
        armed.store(true, SeqCst);
        leader.complete(Ok(1))
    }));
    assert!(completed.is_err());
    let stats = group.stats();
    assert_eq!((stats.led, stats.abandoned, landings.load(SeqCst)), (2, 0, 2));
    assert_quiet(&group);
}
