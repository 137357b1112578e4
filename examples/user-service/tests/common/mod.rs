//! A site of its own for each test: server, SQLite file, cache; and clients.
#![allow(dead_code)] // No test file uses everything.

pub mod servers;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;

pub use servers::until;

use rusqlite::trace::{TraceEvent, TraceEventCodes};
use shared_calls::{Joined, Outcome, SharedCalls};
use tempfile::TempDir;
use user_service::cache::{Answer, Cache};
use user_service::db::{Database, Engine, When};
use user_service::http::{Server, MAX_FOLLOWERS};
use user_service::metrics::Flights;
use user_service::routes::ROLE_HEADER;
use user_service::service::{Calls, Expiry, LoadError, Service};
use user_service::sqlite_pool::SqlitePool;
use user_service::stats::Stats;
use user_service::watch::{self, Group};

pub struct Site {
    pub server: Server,
    pub service: Arc<Service>,
    pub directory: TempDir,
}

impl Site {
    pub fn start(
        calls: impl Into<Calls>,
        cache: Cache,
        expiry: Expiry,
        before_query: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        let hook = move |when| {
            if when == When::Before {
                before_query();
            }
        };
        Self::start_with(calls, cache, expiry, PATIENCE, hook)
    }

    pub fn start_with(
        calls: impl Into<Calls>,
        cache: Cache,
        expiry: Expiry,
        request_timeout: Duration,
        hook: impl Fn(When) + Send + Sync + 'static,
    ) -> Self {
        Self::watched(calls, Flights::new(), cache, expiry, request_timeout, hook)
    }

    /// With the flights of the calls.
    pub fn watched(
        calls: impl Into<Calls>,
        flights: Flights,
        cache: Cache,
        expiry: Expiry,
        request_timeout: Duration,
        hook: impl Fn(When) + Send + Sync + 'static,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let sqlite = SqlitePool::open(&directory.path().join("users"), |connection| {
            connection.trace_v2(TraceEventCodes::SQLITE_TRACE_STMT, Some(record));
        });
        let database = Database::new(Engine::Sqlite(sqlite.unwrap()), Box::new(hook));
        let calls = calls.into();
        let service = Service::new(calls, flights, cache, database, expiry, request_timeout);
        Self::of(service, directory)
    }

    pub fn of(service: Service, directory: TempDir) -> Self {
        let service = Arc::new(service);
        let server = Server::start(([127, 0, 0, 1], 0).into(), Arc::clone(&service)).unwrap();
        Self { server, service, directory }
    }

    /// As shipped: a `FlightGroup`, the cache in memory, an unhindered database.
    pub fn plain() -> Self {
        Self::shared(PATIENCE, |_, _| ())
    }

    /// As shipped, with a hook that is given the group.
    pub fn shared(
        request_timeout: Duration,
        hook: impl Fn(&Group, When) + Send + Sync + 'static,
    ) -> Self {
        Self::limited(request_timeout, MAX_FOLLOWERS, hook)
    }

    pub fn limited(
        request_timeout: Duration,
        max_followers: usize,
        hook: impl Fn(&Group, When) + Send + Sync + 'static,
    ) -> Self {
        let flights = Flights::new();
        let group = watch::group(&flights, request_timeout, max_followers);
        let hook = {
            let group = group.clone();
            move |when| hook(&group, when)
        };
        let cache = Cache::memory();
        Self::watched(group, flights, cache, Expiry::default(), request_timeout, hook)
    }

    pub fn database(&self) -> PathBuf {
        self.directory.path().join("users")
    }

    pub fn get(&self, id: i64) -> Reply {
        request(self.server.address(), "GET", &format!("/users/{id}"))
    }

    pub fn put(&self, id: i64, body: &str) -> Reply {
        let path = format!("/users/{id}");
        exchange(self.server.address(), "PUT", &path, body).0
    }

    /// So many clients ask at once; all answers.
    pub fn crowd(&self, clients: usize, id: i64) -> Vec<Reply> {
        let start = Barrier::new(clients);
        let client = || {
            start.wait();
            self.get(id)
        };
        thread::scope(|scope| {
            let clients: Vec<_> = (0..clients).map(|_| scope.spawn(client)).collect();
            clients.into_iter().map(|c| c.join().unwrap()).collect()
        })
    }

    pub fn stats(&self) -> Stats {
        self.service.stats()
    }

    /// Clients that keep asking while the entry expires again and again.
    pub fn expire_under_load(&self, id: i64, expiries: u64) {
        let (done, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        assert_eq!(self.get(id), user(id));
                        asked.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            for i in 0..expiries as usize {
                until(|| asked.load(Ordering::Relaxed) >= i * 25);
                self.service.expire(id).unwrap();
            }
            done.store(true, Ordering::Relaxed);
        });
        let queries = self.stats().database_queries;
        assert!(queries >= 2, "the entry never expired");
        assert!(queries <= expiries + 1, "{queries} queries");
        assert_eq!(queries, seen_by_sqlite(id));
    }

    /// Clients that keep asking while the user is changed again and again: a client that
    /// asks after a change has been answered sees that change, or a later one.
    pub fn change_under_load(&self, id: i64, changes: u64) {
        let (done, answered) = (AtomicBool::new(false), AtomicU64::new(0));
        let version = |reply: &Reply| -> u64 {
            let user: serde_json::Value = serde_json::from_str(&reply.body).unwrap();
            user["name"].as_str().unwrap().parse().unwrap_or(0)
        };
        thread::scope(|scope| {
            for _ in 0..12 {
                scope.spawn(|| {
                    while !done.load(Ordering::SeqCst) {
                        let oldest = answered.load(Ordering::SeqCst);
                        let seen = version(&self.get(id));
                        assert!(seen >= oldest, "{seen}, after {oldest}");
                    }
                });
            }
            for i in 1..=changes {
                // So that there are leaders between the database and the cache.
                self.service.expire(id).unwrap();
                let reply = self.put(id, &format!(r#"{{"name":"{i}","email":"e"}}"#));
                let seen = version(&reply);
                // Stops the others, should this fail.
                done.store(seen != i, Ordering::SeqCst);
                assert_eq!(seen, i, "{reply:?}");
                answered.store(i, Ordering::SeqCst);
            }
            done.store(true, Ordering::SeqCst);
        });
    }
}

/// For requests that are not to time out, however busy the machine is.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Holds one in four for a while, on the way from the database, for races to happen in.
pub fn dawdle(when: When) {
    if when == When::After && fastrand::u8(..4) == 0 {
        thread::sleep(Duration::from_millis(3));
    }
}

/// What a client got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    pub body: String,
}

/// All of them got this.
pub fn all_are(replies: &[Reply], expected: &Reply) {
    for reply in replies {
        assert_eq!(reply, expected);
    }
}

/// The right answer for a user.
pub fn user(id: i64) -> Reply {
    Reply {
        status: 200,
        body: format!(r#"{{"id":{id},"name":"User {id}","email":"user{id}@example.com"}}"#),
    }
}

pub fn error(status: u16, message: &str) -> Reply {
    Reply { status, body: format!(r#"{{"error":"{message}"}}"#) }
}

pub fn request(server: SocketAddr, method: &str, path: &str) -> Reply {
    exchange(server, method, path, "").0
}

/// With the part that the request played in its shared call.
pub fn exchange(
    server: SocketAddr,
    method: &str,
    path: &str,
    body: &str,
) -> (Reply, Option<String>) {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(Duration::from_secs(30)))
        .http_status_as_error(false)
        .build()
        .into();
    let request = ureq::http::Request::builder()
        .method(method)
        .uri(format!("http://{server}{path}"))
        .body(body)
        .unwrap();
    let mut response = agent.run(request).expect("every request is answered");
    let role = response.headers().get(ROLE_HEADER);
    let role = role.map(|role| role.to_str().unwrap().to_owned());
    let reply = Reply {
        status: response.status().as_u16(),
        body: response.body_mut().read_to_string().unwrap(),
    };
    (reply, role)
}

/// The statements that SQLite itself says it ran, by their text with the id filled in.
static TRACE: Mutex<Option<HashMap<String, u64>>> = Mutex::new(None);

fn record(event: TraceEvent<'_>) {
    if let TraceEvent::Stmt(statement, _) = event {
        let sql = statement.expanded_sql().unwrap();
        let mut trace = TRACE.lock().unwrap();
        *trace.get_or_insert_default().entry(sql).or_default() += 1;
    }
}

/// How many queries for this id SQLite ran, in all of the process: each test has an id of its own.
pub fn seen_by_sqlite(id: i64) -> u64 {
    let sql = format!("SELECT id, name, email FROM users WHERE id = {id}");
    let trace = TRACE.lock().unwrap();
    *trace.as_ref().and_then(|t| t.get(&sql)).unwrap_or(&0)
}

pub type Load<'a> = &'a mut dyn FnMut() -> Result<Answer, LoadError>;

/// A `FlightGroup` that counts the calls that came to it.
#[derive(Default)]
pub struct Counted {
    group: Group,
    pub calls: AtomicUsize,
}

impl Counted {
    /// For a database to wait for, before its query.
    pub fn wait_for(&self, calls: usize) {
        until(|| self.calls.load(Ordering::SeqCst) >= calls);
    }
}

impl SharedCalls<Answer, LoadError> for Counted {
    fn call_dyn(&self, key: &str, load: Load<'_>) -> Outcome<Answer, LoadError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.group.call_ex(key, load)
    }
}

/// A `FlightGroup` that can be told to hold its next flight until so many have boarded it, and to
/// do something else before the load begins.
#[derive(Default)]
pub struct Held {
    group: Group,
    next: Mutex<Option<Hold>>,
}

struct Hold {
    followers: usize,
    then: Box<dyn FnOnce() + Send>,
}

impl Held {
    pub fn hold_next(&self, followers: usize, then: impl FnOnce() + Send + 'static) {
        let then = Box::new(then);
        *self.next.lock().unwrap() = Some(Hold { followers, then });
    }
}

impl SharedCalls<Answer, LoadError> for Held {
    fn call_dyn(&self, key: &str, load: Load<'_>) -> Outcome<Answer, LoadError> {
        match self.group.join(key) {
            Joined::Follower(follower) => follower.wait(),
            Joined::Leader(leader) => {
                let hold = self.next.lock().unwrap().take();
                if let Some(hold) = hold {
                    until(|| leader.followers() == hold.followers);
                    (hold.then)();
                }
                leader.complete(load())
            }
        }
    }
}
