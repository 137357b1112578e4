//! A Redis for each test, and a limit for each test.
#![allow(dead_code)] // No test file uses everything.

use std::fs;
use std::io::{self, stderr, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{abort, Command};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Mutex, MutexGuard, Once};
use std::thread;
use std::time::{Duration, Instant};

use fleet::crew::{until, RedisServer};
use fleet::message::Elsewhere;
use fleet::tier::{RedisTier, Settings};
use shared_calls::{Outcome, SharedCallsExt};
use thiserror::Error;

pub fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_fleet"))
}

/// `None`, and the test is to be skipped, where redis-server is not installed. In CI it must be.
pub fn redis() -> Option<RedisServer> {
    redis_with(&[])
}

pub fn redis_with(arguments: &[&str]) -> Option<RedisServer> {
    let redis = RedisServer::start(arguments).unwrap();
    if redis.is_none() {
        assert!(std::env::var_os("CI").is_none(), "no redis-server");
        // Not `eprintln!`, which is not shown for a test that passes.
        let _ = writeln!(stderr(), "SKIPPED: redis-server is not installed");
    }
    redis
}

/// `STOP`: it takes connections and commands, but answers none. Until `CONT`.
pub fn signal(redis: &RedisServer, name: &str) {
    let pid = redis.process.0.id().to_string();
    let status = Command::new("kill").args(["-s", name, &pid]).status();
    assert!(status.unwrap().success(), "kill -s {name} {pid}");
}

/// Nothing that hangs hangs CI: unless this is dropped in time, the tests are aborted, and the
/// processes that they have started are killed.
pub fn limit(seconds: u64) -> Sender<()> {
    let (in_time, dropped) = mpsc::channel();
    let test = thread::current().name().unwrap_or("a test").to_owned();
    thread::spawn(move || {
        if dropped.recv_timeout(Duration::from_secs(seconds)) == Err(RecvTimeoutError::Timeout) {
            let _ = writeln!(stderr(), "{test} hangs");
            let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
            for children in threads.map(|thread| fs::read_to_string(thread.path().join("children")))
            {
                for child in children.unwrap_or_default().split_whitespace() {
                    let _ = Command::new("kill").args(["-9", child]).status();
                }
            }
            abort();
        }
    });
    in_time
}

/// As a program of one's own would have it.
#[derive(Debug, Error)]
pub enum Failure {
    #[error("no route to {0}")]
    NoRoute(&'static str),
    #[error(transparent)]
    Elsewhere(#[from] Elsewhere),
}

pub type Tier = RedisTier<String, Failure>;

/// So long that nothing in a test is due to it.
pub const NEVER: Duration = Duration::from_secs(600);

/// Nothing is in a hurry, so that a busy machine is not taken for a fault.
pub fn settings() -> Settings {
    Settings {
        lock: Duration::from_secs(20),
        outcome: Duration::from_secs(60),
        reply: Duration::from_secs(5),
        ..Settings::default()
    }
}

/// Only messages wake those who wait.
pub fn patient() -> Settings {
    Settings { poll: NEVER, ..settings() }
}

pub fn tier(redis: &RedisServer, settings: Settings) -> Tier {
    RedisTier::new(&redis.url(), settings).unwrap()
}

pub fn two(redis: &RedisServer, settings: Settings) -> (Tier, Tier) {
    (tier(redis, settings.clone()), tier(redis, settings))
}

pub fn wait(what: &str, happened: impl FnMut() -> bool) {
    until(what, happened).unwrap();
}

/// A function that says when it runs, and ends when it is told how.
pub struct Held<T> {
    pub runs: Receiver<()>,
    pub end: Sender<T>,
}

pub fn held<T: Send>() -> (Held<T>, impl FnOnce() -> T + Send) {
    let (running, runs) = mpsc::channel();
    let (end, ends) = mpsc::channel();
    let f = move || {
        running.send(()).unwrap();
        ends.recv().unwrap()
    };
    (Held { runs, end }, f)
}

pub type Answer = Outcome<String, Failure>;

pub fn value(value: &str) -> Result<String, Failure> {
    Ok(value.to_owned())
}

pub fn never() -> Result<String, Failure> {
    panic!("another's function is running")
}

/// One tier runs a function with the lock, and the other waits for it. Then the function ends so.
pub fn shared(a: &Tier, b: &Tier, end: Result<String, Failure>) -> (Answer, Answer) {
    thread::scope(|scope| {
        let (function, f) = held();
        let holder = scope.spawn(|| a.call_ex("k", f));
        function.runs.recv().unwrap();
        let waits = waits_for_another(b, || scope.spawn(|| b.call_ex("k", never)));
        function.end.send(end).unwrap();
        (holder.join().unwrap(), waits.join().unwrap())
    })
}

/// A call that waits for another process, once it does.
pub fn waits_for_another<V, E, T>(tier: &RedisTier<V, E>, call: impl FnOnce() -> T) -> T {
    let asked = tier.stats().asked;
    let call = call();
    wait("asks in vain", || tier.stats().asked > asked);
    call
}

/// Waits until so many listen.
pub fn subscribed(redis: &RedisServer, tiers: usize) {
    let mut connection = redis.connect().unwrap();
    let mut ask = redis::cmd("PUBSUB");
    ask.arg("NUMSUB").arg("fleet:published");
    wait("subscribers", || {
        let (_, listen): (String, usize) = ask.query(&mut connection).unwrap();
        listen == tiers
    });
}

/// What is logged, by all threads. One test at a time has it.
pub struct Log(#[allow(dead_code)] MutexGuard<'static, ()>);

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

pub fn log() -> Log {
    static LOGS: Once = Once::new();
    struct Lines;
    impl Write for Lines {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            let text = String::from_utf8_lossy(line).trim().to_owned();
            LINES.lock().unwrap().push(text);
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    LOGS.call_once(|| {
        let subscriber = tracing_subscriber::fmt().with_ansi(false).without_time();
        subscriber.with_writer(|| Lines).init();
    });
    // A test that failed leaves nothing behind that harms the next.
    let log = Log(ONE_AT_A_TIME.lock().unwrap_or_else(|error| error.into_inner()));
    LINES.lock().unwrap().clear();
    log
}

impl Log {
    pub fn lines(&self) -> Vec<String> {
        LINES.lock().unwrap().clone()
    }

    /// Exactly one line, with these words in it.
    #[track_caller]
    pub fn assert_said_once(&self, words: &[&str]) {
        let lines = self.lines();
        let has = |line: &String| words.iter().all(|word| line.contains(word));
        assert!(lines.len() == 1 && has(&lines[0]), "{words:?}: {lines:#?}");
    }

    #[track_caller]
    pub fn assert_silent(&self) {
        assert_eq!(self.lines(), Vec::<String>::new());
    }
}

/// The URL of a proxy before a Redis, which delays everything by half of this in each direction, and
/// may change what Redis replies.
pub fn proxy(redis: &RedisServer, round_trip: Duration, change: fn(&mut [u8])) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let server = redis.url().replace("redis://", "");
    // Its threads end with the process, or with the connection.
    thread::spawn(move || {
        for client in listener.incoming().map(Result::unwrap) {
            let server = TcpStream::connect(&server).unwrap();
            for stream in [&client, &server] {
                stream.set_nodelay(true).unwrap();
            }
            let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            delay(from, to, round_trip / 2, |_| {});
            delay(server, client, round_trip / 2, change);
        }
    });
    url
}

/// Two threads, so that what comes meanwhile is not delayed twice.
fn delay(mut from: TcpStream, mut to: TcpStream, by: Duration, change: fn(&mut [u8])) {
    let (send, sent) = mpsc::channel::<(Instant, Vec<u8>)>();
    thread::spawn(move || {
        let mut bytes = [0; 64 * 1024];
        while let Ok(n @ 1..) = from.read(&mut bytes) {
            change(&mut bytes[..n]);
            if send.send((Instant::now() + by, bytes[..n].to_vec())).is_err() {
                break;
            }
        }
    });
    thread::spawn(move || {
        for (due, bytes) in sent {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        // Fails if the other side has closed it.
        let _ = to.shutdown(Shutdown::Both);
    });
}
