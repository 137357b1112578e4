//! What the test files share. No test here waits for time to pass: threads are put in order by
//! channels inside the shared function ([`gate`]), by places taken without waiting ([`lead`],
//! [`follow`]), or by looking until something has happened ([`until`]).

#![allow(dead_code)] // each test file uses some of it

use std::fmt::Debug;
use std::hash::{BuildHasher, Hash, Hasher};
use std::io::Write;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use shared_calls::{FlightGroup, Follower, InFlight, Joined, Leader, Lookup};

/// Far longer than any test takes. Only a test that fails waits for it.
pub const TOO_LONG: Duration = Duration::from_secs(120);

/// Leads a key that is not in flight.
pub fn lead<'g, V, E, K, Q, S>(
    group: &'g FlightGroup<V, E, K, S>,
    key: &Q,
) -> Leader<'g, V, E, K, S>
where
    Q: Lookup<K> + ?Sized,
    S: BuildHasher,
{
    match group.join(key) {
        Joined::Leader(leader) => leader,
        Joined::Follower(_) => panic!("the key is in flight"),
    }
}

/// Follows the flight of a key.
pub fn follow<V, E, K, Q, S>(group: &FlightGroup<V, E, K, S>, key: &Q) -> Follower<V, E>
where
    Q: Lookup<K> + ?Sized,
    S: BuildHasher,
{
    match group.join(key) {
        Joined::Leader(_) => panic!("the key is not in flight"),
        Joined::Follower(follower) => follower,
    }
}

/// Gives up the flight that is running and leads a new one.
pub fn give_up<'g, V, E, K, Q, S>(
    group: &'g FlightGroup<V, E, K, S>,
    key: &Q,
) -> Leader<'g, V, E, K, S>
where
    Q: Lookup<K> + ?Sized,
    S: BuildHasher,
{
    match group.request(key).max_age(Duration::ZERO).join() {
        Joined::Leader(leader) => leader,
        Joined::Follower(_) => panic!("a maximum age of zero never follows"),
    }
}

/// A key that counts how often it is compared, and so tells who has looked it up; see
/// [`all_arrived`].
#[derive(Clone, Debug)]
pub struct Watched {
    name: &'static str,
    compared: Arc<AtomicUsize>,
}

impl Watched {
    pub fn new(name: &'static str) -> Self {
        let compared = Arc::default();
        Self { name, compared }
    }

    /// How often it has been compared so far: once by each caller that found a flight for it.
    pub fn compared(&self) -> usize {
        self.compared.load(SeqCst)
    }
}

impl PartialEq for Watched {
    fn eq(&self, other: &Self) -> bool {
        self.compared.fetch_add(1, SeqCst);
        self.name == other.name
    }
}

impl Eq for Watched {}

impl Hash for Watched {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

/// Has `n` callers `arrive` on a key that is in flight, on threads of their own, and returns once
/// all of them follow its flight or are queued behind it.
pub fn all_arrived<T, V, E>(
    group: &FlightGroup<V, E, Watched>,
    key: &Watched,
    n: usize,
    arrive: impl FnOnce() -> T,
) -> T {
    let all = key.compared() + n;
    let arrived = arrive();
    until_arrived(group, key, all);
    arrived
}

/// Returns once so many callers in all have found a flight for the key and follow it or are queued.
///
/// A caller compares its key under the map's lock and takes its place before it lets go of that. So
/// once it has compared, and another caller has had the lock, it has its place.
pub fn until_arrived<V, E>(group: &FlightGroup<V, E, Watched>, key: &Watched, all: usize) {
    until("all have looked", || key.compared() >= all);
    group.forget(&Watched::new("another key"));
}

/// Asserts that the group has no flight left.
#[track_caller]
pub fn assert_quiet(group: &impl Debug) {
    let shown = format!("{group:?}");
    assert!(shown.contains("in_flight: 0"), "{shown}");
}

/// Looks again and again until `happened`, and fails after [`TOO_LONG`].
#[track_caller]
pub fn until(what: &str, happened: impl Fn() -> bool) {
    let deadline = Instant::now() + TOO_LONG;
    while !happened() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        thread::yield_now();
    }
}

/// Returns once so many callers of the group wait, for an outcome or for their turn.
#[track_caller]
pub fn until_waiting<V, E, K, S>(group: &FlightGroup<V, E, K, S>, waiting: u64) {
    until("they wait", || group.stats().waiting == waiting);
}

/// The only flight of the group.
#[track_caller]
pub fn the_flight<V, E, K: Clone, S>(group: &FlightGroup<V, E, K, S>) -> InFlight<K> {
    let mut flights = group.in_flight();
    assert_eq!(flights.len(), 1, "one flight");
    flights.remove(0)
}

/// Returns once so many callers queue behind the only flight of the group.
#[track_caller]
pub fn until_queued<V, E, K: Clone, S>(group: &FlightGroup<V, E, K, S>, queued: usize) {
    until("they queue", || the_flight(group).queued == queued);
}

/// Something to call inside a shared function: it tells the [`Gate`] that the function has begun,
/// and returns when the gate is opened.
pub fn gate() -> (impl FnOnce() + Send + 'static, Gate) {
    let (begun, begun_rx) = mpsc::channel();
    let (open, open_rx) = mpsc::channel();
    let held = move || {
        let _ = begun.send(());
        // A gate that is dropped, by a test that fails, must not hold the function for ever.
        open_rx.recv().expect("the gate is opened");
    };
    let gate = Gate { begun: begun_rx, open };
    (held, gate)
}

/// See [`gate`].
pub struct Gate {
    begun: Receiver<()>,
    open: Sender<()>,
}

impl Gate {
    /// Returns once the function runs.
    pub fn begun(&self) {
        self.begun.recv().expect("the function begins");
    }

    /// Lets the function go on.
    pub fn open(self) {
        self.open.send(()).expect("the function waits here");
    }
}

/// What `f` panicked with, as text.
#[track_caller]
pub fn panic_text(f: impl FnOnce()) -> String {
    let payload = catch_unwind(AssertUnwindSafe(f)).expect_err("a panic");
    match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => (*payload.downcast::<&str>().expect("a panic with a text")).to_owned(),
    }
}

/// Ends the process if it is not dropped in time, so that a test that hangs fails.
#[must_use]
pub struct Watchdog(Sender<()>);

pub fn watchdog() -> Watchdog {
    let (alive, gone) = mpsc::channel();
    let test = thread::current().name().unwrap_or("a test").to_owned();
    thread::spawn(move || {
        if gone.recv_timeout(TOO_LONG) == Err(RecvTimeoutError::Timeout) {
            // Not by `eprintln!`, which libtest would swallow.
            let _ = writeln!(std::io::stderr(), "{test} hangs");
            std::process::abort();
        }
    });
    Watchdog(alive)
}

/// The variable that tells a test that it runs in a child process, and for what.
const PART: &str = "SHARED_CALLS_TEST_PART";

/// The part that this process plays: `None` unless [`run_again`] started it.
pub fn part() -> Option<String> {
    std::env::var(PART).ok()
}

/// Makes a command run this test binary again, this one test alone, in the given part.
pub fn run_again<'c>(command: &'c mut Command, test: &str, part: &str) -> &'c mut Command {
    command.args([test, "--exact", "--nocapture"]).env(PART, part)
}
