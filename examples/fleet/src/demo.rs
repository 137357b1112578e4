//! The demo: 4 processes of 50 threads each ask for one cold key, in three ways.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{ensure, Result};
use uuid::Uuid;

use crate::crew::{row, until, Database, Job, Sharing, Worker};

pub const PROCESSES: usize = 4;
pub const THREADS: usize = 50;

/// How many queries the database got.
pub fn stampede(program: &Path, redis: &str, sharing: Sharing) -> Result<usize> {
    let database = Database::start()?;
    let job = |name| Job {
        name,
        database: database.address,
        sharing,
        redis: redis.to_owned(),
        prefix: format!("fleet-demo-{}:", Uuid::new_v4()),
        lock_millis: 3000,
        threads: THREADS,
    };
    let prefix = job(0).prefix;
    let job = |name| Job {
        prefix: prefix.clone(),
        ..job(name)
    };
    let workers = (0..PROCESSES).map(|name| Worker::start(program, &job(name)));
    let mut workers = workers.collect::<Result<Vec<_>>>()?;
    database.begin_round(1);
    for worker in &mut workers {
        worker.order(1, "hot")?;
    }
    for worker in &workers {
        worker.all_in(1)?;
    }
    until("a query", || !database.queries().is_empty())?;
    database.answer();
    for worker in &workers {
        let report = worker.done(1)?;
        let right = BTreeMap::from([(row("hot", 1), THREADS)]);
        ensure!(report.answers == right, "wrong answers: {report:?}");
    }
    Ok(database.queries().len())
}
