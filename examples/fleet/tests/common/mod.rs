//! A Redis for each test, and a limit for each test.
#![allow(dead_code)] // No test file uses everything.

use std::fs;
use std::io::{stderr, Write};
use std::path::Path;
use std::process::{abort, Command};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use fleet::crew::RedisServer;

pub fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_fleet"))
}

/// `None`, and the test is to be skipped, where redis-server is not installed. In CI it must be.
pub fn redis() -> Option<RedisServer> {
    let redis = RedisServer::start().unwrap();
    if redis.is_none() {
        assert!(std::env::var_os("CI").is_none(), "no redis-server");
        // Not `eprintln!`, which is not shown for a test that passes.
        let _ = writeln!(stderr(), "SKIPPED: redis-server is not installed");
    }
    redis
}

/// Nothing that hangs hangs CI: unless this is dropped in time, the tests are aborted, and the
/// processes that they have started are killed.
pub fn limit(seconds: u64) -> Sender<()> {
    let (in_time, dropped) = mpsc::channel();
    let test = thread::current().name().unwrap_or("a test").to_owned();
    thread::spawn(move || {
        if dropped.recv_timeout(Duration::from_secs(seconds)) == Err(RecvTimeoutError::Timeout) {
            let _ = writeln!(stderr(), "{test} hangs");
            let threads = fs::read_dir("/proc/self/task")
                .into_iter()
                .flatten()
                .flatten();
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
