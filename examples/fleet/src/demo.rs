//! The demo: 4 processes of 50 threads each ask for one cold key, in three ways; and once more,
//! with a kill.

use std::collections::BTreeMap;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{ensure, Result};
use uuid::Uuid;

use crate::crew::{row, until, Database, Job, Sharing, Worker};

pub const PROCESSES: usize = 4;
pub const THREADS: usize = 50;
const KEY: &str = "hot";

/// What one process did, in time since all were asked.
pub struct Row {
    /// Its own query.
    pub query: Option<Duration>,
    pub end: Duration,
    pub killed: bool,
}

/// How many queries the database got from all of them. Everybody got its answer.
pub fn stampede(program: &Path, redis: &str, sharing: Sharing) -> Result<usize> {
    let (database, mut workers) = begin(program, redis, sharing, Duration::from_secs(3))?;
    order(&mut workers)?;
    for worker in &workers {
        worker.all_in(1)?;
    }
    until("a query", || !database.queries().is_empty())?;
    database.answer();
    for worker in &workers {
        done(worker)?;
    }
    Ok(database.queries().len())
}

/// The process that runs the query is killed in the middle of it. Only the picture needs the
/// pauses: a query that takes its time.
pub fn takeover(program: &Path, redis: &str, lock: Duration) -> Result<Vec<Row>> {
    let (database, mut workers) = begin(program, redis, Sharing::Both, lock)?;
    let began = Instant::now();
    order(&mut workers)?;
    for worker in &workers {
        worker.all_in(1)?;
    }
    until("a query", || !database.queries().is_empty())?;
    sleep(Duration::from_millis(200));
    let victim = database.queries()[0].by;
    workers[victim].kill();
    let killed = began.elapsed();
    until("another query", || database.queries().len() > 1)?;
    sleep(Duration::from_millis(200));
    database.answer();

    let mut rows = Vec::new();
    for (name, worker) in workers.iter().enumerate() {
        let dead = name == victim;
        if !dead {
            done(worker)?;
        }
        let queries = database.queries();
        let query = queries.iter().find(|query| query.by == name);
        rows.push(Row {
            query: query.map(|query| query.at - began),
            end: if dead { killed } else { began.elapsed() },
            killed: dead,
        });
    }
    ensure!(database.queries().len() == 2, "more than one took over");
    Ok(rows)
}

/// A name of one's own, in a Redis that others may use.
pub fn prefix() -> String {
    format!("fleet-{}:", Uuid::new_v4())
}

fn begin(
    program: &Path,
    redis: &str,
    sharing: Sharing,
    lock: Duration,
) -> Result<(Database, Vec<Worker>)> {
    let database = Database::start()?;
    database.begin_round(1);
    let mut job = Job {
        name: 0,
        threads: THREADS,
        database: database.address,
        sharing,
        redis: redis.to_owned(),
        prefix: prefix(),
        lock,
    };
    let mut workers = Vec::new();
    for name in 0..PROCESSES {
        job.name = name;
        workers.push(Worker::start(program, &job)?);
    }
    Ok((database, workers))
}

fn order(workers: &mut [Worker]) -> Result<()> {
    workers
        .iter_mut()
        .try_for_each(|worker| worker.order(1, KEY))
}

fn done(worker: &Worker) -> Result<()> {
    let report = worker.done(1)?;
    let right = BTreeMap::from([(row(KEY, 1), THREADS)]);
    ensure!(report.answers == right, "wrong answers: {report:?}");
    Ok(())
}
