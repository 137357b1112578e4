//! The demo: 4 processes of 50 threads each ask for one cold key, in three ways; and once more,
//! with a kill.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{ensure, Result};
use uuid::Uuid;

use crate::crew::{row, until, Crew, Sharing, PROCESSES};

/// The three ways to ask.
pub const WAYS: [(&str, Sharing); 3] = [
    ("unshared", Sharing::Unshared),
    ("local tier", Sharing::Local),
    ("local tier and Redis", Sharing::Both),
];
/// How long the lock lasts whose holder is killed.
pub const TAKEOVER_LOCK: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(200);

/// What one process did, in time since all were asked.
pub struct Row {
    /// Its own query.
    pub query: Option<Duration>,
    pub end: Duration,
    pub killed: bool,
}

/// How many queries the database got from all of them. All threads got its answer.
pub fn stampede(program: &Path, redis: &str, sharing: Sharing) -> Result<usize> {
    let mut crew = Crew::start(program, redis, sharing, Duration::from_secs(3))?;
    let answer = ask(&mut crew)?;
    crew.database.answer();
    for worker in &crew.workers {
        worker.done(&answer)?;
    }
    Ok(crew.database.queries().len())
}

/// All threads ask for one cold key, and none of them has its answer yet.
fn ask(crew: &mut Crew) -> Result<String> {
    let key = cold_key();
    crew.order(1, &key)?;
    for worker in &crew.workers {
        worker.all_in()?;
    }
    until("a query", || !crew.database.queries().is_empty())?;
    Ok(row(&key, 1))
}

/// The process that runs the query is killed. Only the picture needs the pauses.
pub fn takeover(program: &Path, redis: &str) -> Result<Vec<Row>> {
    let mut crew = Crew::start(program, redis, Sharing::Both, TAKEOVER_LOCK)?;
    let began = Instant::now();
    let answer = ask(&mut crew)?;
    sleep(PAUSE);
    let victim = crew.database.queries()[0].by;
    crew.workers[victim].process.kill();
    let killed = began.elapsed();
    until("another query", || crew.database.queries().len() > 1)?;
    sleep(PAUSE);
    crew.database.answer();

    let mut rows = Vec::new();
    for name in 0..PROCESSES {
        let dead = name == victim;
        if !dead {
            crew.workers[name].done(&answer)?;
        }
        let queries = crew.database.queries();
        let query = queries.iter().find(|query| query.by == name);
        rows.push(Row {
            query: query.map(|query| query.at - began),
            end: if dead { killed } else { began.elapsed() },
            killed: dead,
        });
    }
    let queries = crew.database.queries().len();
    ensure!(queries == 2, "{} processes took over, not 1", queries - 1);
    Ok(rows)
}

/// A key that nobody has asked for yet, also in a Redis that others use.
pub fn cold_key() -> String {
    format!("hot-{}", Uuid::new_v4().simple())
}
