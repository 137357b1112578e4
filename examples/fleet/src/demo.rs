//! The demo: 4 processes of 50 threads each ask for one cold key, in three ways; and once more,
//! with a kill.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{ensure, Result};
use uuid::Uuid;

use crate::crew::{row, until, Database, Job, Sharing, Worker};

pub const PROCESSES: usize = 4;
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

/// How many queries the database got from all of them. Everybody got its answer.
pub fn stampede(program: &Path, redis: &str, sharing: Sharing) -> Result<usize> {
    let crowd = Crowd::ask(program, redis, sharing, Duration::from_secs(3))?;
    crowd.database.answer();
    for name in 0..PROCESSES {
        crowd.answered(name)?;
    }
    Ok(crowd.database.queries().len())
}

/// The process that runs the query is killed in the middle of it. Only the picture needs the
/// pauses: a query that takes its time.
pub fn takeover(program: &Path, redis: &str) -> Result<Vec<Row>> {
    let mut crowd = Crowd::ask(program, redis, Sharing::Both, TAKEOVER_LOCK)?;
    sleep(PAUSE);
    let victim = crowd.database.queries()[0].by;
    crowd.workers[victim].kill();
    let killed = crowd.began.elapsed();
    until("another query", || crowd.database.queries().len() > 1)?;
    sleep(PAUSE);
    crowd.database.answer();

    let mut rows = Vec::new();
    for name in 0..PROCESSES {
        let dead = name == victim;
        if !dead {
            crowd.answered(name)?;
        }
        let queries = crowd.database.queries();
        let query = queries.iter().find(|query| query.by == name);
        rows.push(Row {
            query: query.map(|query| query.at - crowd.began),
            end: if dead { killed } else { crowd.began.elapsed() },
            killed: dead,
        });
    }
    let queries = crowd.database.queries().len();
    ensure!(queries == 2, "{} processes took over, not 1", queries - 1);
    Ok(rows)
}

/// A key that nobody has asked for yet, also in a Redis that others use.
pub fn cold_key() -> String {
    format!("hot-{}", Uuid::new_v4().simple())
}

/// The workers, all of whose threads ask for one cold key. None of them has an answer yet.
struct Crowd {
    began: Instant,
    database: Database,
    workers: Vec<Worker>,
    key: String,
}

impl Crowd {
    fn ask(program: &Path, redis: &str, sharing: Sharing, lock: Duration) -> Result<Self> {
        let database = Database::start()?;
        database.begin_round(1);
        let start = |name| {
            let (database, redis) = (database.address, redis.to_owned());
            let job = Job {
                name,
                database,
                sharing,
                redis,
                lock,
            };
            Worker::start(program, &job)
        };
        let mut workers: Vec<_> = (0..PROCESSES).map(start).collect::<Result<_>>()?;
        let key = cold_key();
        let began = Instant::now();
        for worker in &mut workers {
            worker.order(&key)?;
        }
        for worker in &workers {
            worker.all_in()?;
        }
        until("a query", || !database.queries().is_empty())?;
        let crowd = Self {
            began,
            database,
            workers,
            key,
        };
        Ok(crowd)
    }

    fn answered(&self, name: usize) -> Result<()> {
        self.workers[name].done(&row(&self.key, 1))?;
        Ok(())
    }
}
