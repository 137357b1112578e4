//! The same stampede again and again, while one process in ten is killed.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};

use crate::crew::{row, until, Database, Job, Sharing, Worker, THREADS};
use crate::demo::{cold_key, PROCESSES};

/// Short, because each process that dies with a lock holds its round up for so long; and long for
/// a process that is alive, even on a machine that is busy.
const LOCK: Duration = Duration::from_millis(500);

/// What happened. What should not have is an error instead.
#[derive(Debug, Default)]
pub struct Survey {
    pub rounds: u64,
    pub answers: usize,
    pub queries: usize,
    pub killed: usize,
    /// So many of them while the database was at their query: another process had to take over.
    pub killed_at_query: usize,
    /// Functions that ran without a lock, because Redis was too slow, or a process.
    pub unlocked: usize,
}

/// `progress` is told what has happened so far, after each round.
pub fn run(
    program: &Path,
    redis: &str,
    rounds: u64,
    seed: u64,
    mut progress: impl FnMut(&Survey) -> io::Result<()>,
) -> Result<Survey> {
    let database = Database::start()?;
    let start = |name| {
        let (database, redis) = (database.address, redis.to_owned());
        let (sharing, lock) = (Sharing::Both, LOCK);
        let job = Job {
            name,
            database,
            sharing,
            redis,
            lock,
        };
        Worker::start(program, &job)
    };
    let workers = (0..PROCESSES).map(start).collect::<Result<_>>()?;
    let random = fastrand::Rng::with_seed(seed);
    let mut chaos = Chaos {
        database: &database,
        workers,
        random,
        key: cold_key(),
        survey: Survey::default(),
    };
    for number in 1..=rounds {
        let killed = chaos
            .round(number)
            .with_context(|| format!("in round {number}"))?;
        progress(&chaos.survey)?;
        for name in killed {
            chaos.workers[name] = start(name)?;
        }
    }
    Ok(chaos.survey)
}

struct Chaos<'d> {
    database: &'d Database,
    workers: Vec<Worker>,
    random: fastrand::Rng,
    key: String,
    survey: Survey,
}

impl Chaos<'_> {
    /// The names of those who were killed.
    fn round(&mut self, number: u64) -> Result<Vec<usize>> {
        self.database.begin_round(number);
        // Of three, so that a key has an outcome from before, and the others have other ones.
        let key = format!("{}:{}", self.key, number % 3);
        for worker in &mut self.workers {
            worker.order(&key)?;
        }
        let killed = self.kill(number)?;
        for (name, worker) in self.workers.iter().enumerate() {
            if !killed.contains_key(&name) {
                worker.all_in()?;
            }
        }
        if killed.len() < PROCESSES {
            until("somebody who is alive asks the database", || {
                let queries = self.database.queries();
                queries.iter().any(|query| !killed.contains_key(&query.by))
            })?;
        }
        self.database.answer();

        let mut unlocked = 0;
        for (name, worker) in self.workers.iter().enumerate() {
            if !killed.contains_key(&name) {
                unlocked += worker.done(&row(&key, number))?;
                self.survey.answers += THREADS;
            }
        }
        self.check_queries(&killed, unlocked)?;
        self.survey.rounds += 1;
        self.survey.killed += killed.len();
        self.survey.unlocked += unlocked;
        Ok(killed.into_keys().collect())
    }

    /// One process in ten, at a random moment; and every tenth round the one that is at its query,
    /// whoever that is, so that it happens often enough.
    fn kill(&mut self, number: u64) -> Result<HashMap<usize, Instant>> {
        let mut names: Vec<_> = (0..PROCESSES)
            .filter(|_| self.random.u8(..10) == 0)
            .collect();
        let tenth = number.is_multiple_of(10);
        if tenth || self.random.bool() {
            until("a query", || !self.database.queries().is_empty())?;
        }
        if tenth {
            names.push(self.database.queries()[0].by);
        }
        let mut killed = HashMap::new();
        for name in names {
            sleep(Duration::from_micros(self.random.u64(..20_000)));
            // Before, since nobody takes over from one that is still there.
            let at = Instant::now();
            self.workers[name].kill();
            // The first time, if it is killed twice.
            killed.entry(name).or_insert(at);
        }
        Ok(killed)
    }

    /// One query, and one more for each process that was killed during its own: begun after that.
    fn check_queries(&mut self, killed: &HashMap<usize, Instant>, unlocked: usize) -> Result<()> {
        let queries = self.database.queries();
        let taken_over = queries.windows(2).filter(|pair| {
            let died = killed.get(&pair[0].by);
            died.is_some_and(|died| *died < pair[1].at)
        });
        let taken_over = taken_over.count();
        let in_excess = queries.len().saturating_sub(1 + taken_over);
        ensure!(
            in_excess <= unlocked,
            "{queries:?}, killed: {killed:?}, unlocked: {unlocked}"
        );
        self.survey.queries += queries.len();
        self.survey.killed_at_query += killed
            .keys()
            .filter(|name| queries.iter().any(|query| query.by == **name))
            .count();
        Ok(())
    }
}
