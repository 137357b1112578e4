//! Changing a user, and what those who ask meanwhile and afterwards get.

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread;

use common::{dawdle, error, until, user, Load, Reply, Site, PATIENCE};
use rusqlite::Connection;
use shared_calls::{Joined, Outcome, SharedCalls, Unshared};
use user_service::cache::{Answer, Cache};
use user_service::db::{When, USERS};
use user_service::service::{Calls, Expiry, LoadError};
use user_service::watch::Group;

const ADA: &str = r#"{"name":"Ada","email":"ada@example.com"}"#;

fn ada(id: i64) -> Reply {
    Reply { status: 200, body: format!(r#"{{"id":{id},"name":"Ada","email":"ada@example.com"}}"#) }
}

#[test]
fn a_change_is_seen_and_stays() {
    let site = Site::plain();
    assert_eq!(site.get(301), user(301));
    assert_eq!(site.put(301, ADA), ada(301));
    assert_eq!(site.get(301), ada(301));
    site.service.expire(301).unwrap();
    assert_eq!(site.get(301), ada(301));
    assert_eq!(site.get(302), user(302));
    assert_eq!(site.stats().database_updates, 1);
}

#[test]
fn unshared_it_is_seen_too() {
    let site = Site::start(Arc::new(Unshared), Cache::memory(), Expiry::default(), || ());
    assert_eq!(site.get(303), user(303));
    assert_eq!(site.put(303, ADA), ada(303));
    assert_eq!(site.get(303), ada(303));
}

#[test]
fn bad_changes() {
    let site = Site::plain();
    let bad_body = error(400, "the body must be JSON with a name and an email");
    for body in [
        "",
        "Ada",
        "[]",
        r#"{"name":"Ada"}"#,
        r#"{"name":"Ada","email":""}"#,
        r#"{"name":"","email":"e"}"#,
        r#"{"name":1,"email":"e"}"#,
        r#"{"name":"Ada\u0000","email":"e"}"#,
        r#"{"name":"Ada","email":"e","id":1}"#,
        r#"{"name":"Ada","email":"e"} and more"#,
    ] {
        assert_eq!(site.put(304, body), bad_body, "{body}");
    }
    let long = format!(r#"{{"name":"{}","email":"e"}}"#, "x".repeat(8 * 1024));
    assert_eq!(site.put(304, &long), error(413, "the body is too long"));
    let bad_id = error(400, "the id must be a positive number");
    assert_eq!(site.put(-1, ADA), bad_id);
    assert_eq!(site.get(304), user(304));

    let unknown = error(404, "no such user");
    assert_eq!(site.put(USERS + 304, ADA), unknown);
    assert_eq!(site.get(USERS + 304), unknown);

    // What no client library would send.
    for (length, status) in [
        ("ten", 400),
        ("-1", 400),
        ("18446744073709551615", 431),
        ("99999999999999999999", 400),
        ("1", 400),
        ("40", 200),
    ] {
        let mut stream = TcpStream::connect(site.server.address()).unwrap();
        // In two parts, as the network may deliver it.
        write!(stream, "PUT /users/304 HTTP/1.1\r\nContent-Length: {length}\r\n").unwrap();
        stream.flush().unwrap();
        write!(stream, "\r\n{ADA}").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        let expected = format!("HTTP/1.1 {status} ");
        assert!(reply.starts_with(&expected), "{length}: {reply}");
    }
    assert_eq!(site.get(304), ada(304));
}

#[test]
fn while_the_database_is_down_nothing_changes() {
    let site = Site::plain();
    let other = Connection::open(site.database()).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let failed = error(503, "the database does not answer");
    assert_eq!(site.put(305, ADA), failed);
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(site.get(305), user(305));
    assert_eq!(site.put(305, ADA), ada(305));
}

#[test]
fn no_stale_read_after_a_change_under_load() {
    let group = Group::new();
    let site = Site::start_with(group, Cache::memory(), Expiry::default(), PATIENCE, dawdle);
    site.change_under_load(306, 200);
}

#[test]
fn what_was_read_before_a_change_is_gone_after_it() {
    let (put, afterwards) = play(307, true);
    assert_eq!((put, afterwards), (ada(307), ada(307)));
}

/// The control: the PUT is told what was before itself.
#[test]
fn without_next_flight_the_same_play_ends_with_a_stale_read() {
    let (put, _) = play(308, false);
    assert_eq!(put, user(308));
}

/// The worst that can happen to a PUT, step by step. A leader reads the old row before the change
/// and takes it to the cache after; another one finds it there before the PUT has removed it. What
/// the PUT is answered, and a GET afterwards.
fn play(id: i64, next_flight: bool) -> (Reply, Reply) {
    let stage = Arc::new(Stage::default());
    let in_database = Arc::clone(&stage);
    let group = Group::new();
    let calls = Arc::new(Staged {
        group: group.clone(),
        calls: AtomicUsize::new(0),
        stage: Arc::clone(&stage),
    });
    let calls = Calls { group: next_flight.then_some(group), shared: calls };
    let site = Site::start_with(calls, Cache::memory(), Expiry::default(), PATIENCE, move |when| {
        // The first one only: nobody else is at the database before.
        if when == When::After && !in_database.reached(OLD_ROW_READ) {
            in_database.enter(OLD_ROW_READ);
            in_database.wait(PUT_FOLLOWS);
        }
    });
    thread::scope(|scope| {
        let first = scope.spawn(|| site.get(id));
        stage.wait(OLD_ROW_READ);
        let put = scope.spawn(|| site.put(id, ADA));
        stage.wait(OLD_ROW_CACHED);
        let second = scope.spawn(|| site.get(id));
        // Allowed, for the PUT has not been answered yet.
        assert_eq!(first.join().unwrap(), user(id));
        assert_eq!(second.join().unwrap(), user(id));
        let put = put.join().unwrap();
        (put, site.get(id))
    })
}

const OLD_ROW_READ: usize = 1;
const PUT_FOLLOWS: usize = 2;
const OLD_ROW_CACHED: usize = 3;
const OLD_ROW_FOUND: usize = 4;

/// How far the play has got.
#[derive(Default)]
struct Stage(AtomicUsize);

impl Stage {
    fn enter(&self, stage: usize) {
        self.0.store(stage, Ordering::SeqCst);
    }

    fn reached(&self, stage: usize) -> bool {
        self.0.load(Ordering::SeqCst) >= stage
    }

    fn wait(&self, stage: usize) {
        until(|| self.reached(stage));
    }
}

struct Staged {
    group: Group,
    calls: AtomicUsize,
    stage: Arc<Stage>,
}

impl Staged {
    /// The PUT waits for the next flight, or, in the control, follows the second GET.
    fn put_asks_again(&self) -> bool {
        let flights = self.group.in_flight();
        flights.iter().any(|flight| flight.queued + flight.followers > 0)
    }
}

impl SharedCalls<Answer, LoadError> for Staged {
    fn call_dyn(&self, key: &str, load: Load<'_>) -> Outcome<Answer, LoadError> {
        match self.calls.fetch_add(1, Ordering::SeqCst) {
            // The PUT, the first time.
            1 => {
                let Joined::Follower(follower) = self.group.join(key) else {
                    panic!("the first GET was to be held");
                };
                self.stage.enter(PUT_FOLLOWS);
                let outcome = follower.wait();
                self.stage.enter(OLD_ROW_CACHED);
                self.stage.wait(OLD_ROW_FOUND);
                outcome
            }
            // The second GET.
            2 => self.group.call_ex(key, || {
                let found = load();
                self.stage.enter(OLD_ROW_FOUND);
                until(|| self.put_asks_again());
                found
            }),
            _ => self.group.call_ex(key, load),
        }
    }
}
