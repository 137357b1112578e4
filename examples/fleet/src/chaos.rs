//! The same stampede again and again, while one process in ten is killed.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};

use crate::crew::{row, until, Crew, Query, Sharing, PROCESSES, THREADS};
use crate::demo::cold_key;

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
    let mut chaos = Chaos {
        crew: Crew::start(program, redis, Sharing::Both, LOCK)?,
        random: fastrand::Rng::with_seed(seed),
        key: cold_key(),
        survey: Survey::default(),
    };
    for number in 1..=rounds {
        let killed = chaos.round(number);
        let killed = killed.with_context(|| format!("in round {number}"))?;
        progress(&chaos.survey)?;
        for name in killed {
            chaos.crew.replace(name)?;
        }
    }
    Ok(chaos.survey)
}

struct Chaos {
    crew: Crew,
    random: fastrand::Rng,
    key: String,
    survey: Survey,
}

impl Chaos {
    /// The names of those who were killed.
    fn round(&mut self, number: u64) -> Result<Vec<usize>> {
        // Of three, so that a key has an outcome from before, and the others have other ones.
        let key = format!("{}:{}", self.key, number % 3);
        self.crew.order(number, &key)?;
        let killed = self.kill(number)?;
        for (name, worker) in self.crew.workers.iter().enumerate() {
            if !killed.contains_key(&name) {
                worker.all_in()?;
            }
        }
        if killed.len() < PROCESSES {
            let alive = |query: &Query| !killed.contains_key(&query.by);
            let asks = || self.crew.database.queries().iter().any(alive);
            until("a process that is alive asks the database", asks)?;
        }
        self.crew.database.answer();

        let mut unlocked = 0;
        for (name, worker) in self.crew.workers.iter().enumerate() {
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

    /// One process in ten, at a random moment; and every tenth round the one that is at its query.
    fn kill(&mut self, number: u64) -> Result<HashMap<usize, Instant>> {
        let mut names = Vec::from_iter(0..PROCESSES);
        names.retain(|_| self.random.u8(..10) == 0);
        let tenth = number.is_multiple_of(10);
        if tenth || self.random.bool() {
            until("a query", || !self.crew.database.queries().is_empty())?;
        }
        if tenth {
            names.push(self.crew.database.queries()[0].by);
        }
        let mut killed = HashMap::new();
        for name in names {
            sleep(Duration::from_micros(self.random.u64(..20_000)));
            // Before, since nobody takes over from one that is still there.
            let at = Instant::now();
            self.crew.workers[name].process.kill();
            // The first time, if it is killed twice.
            killed.entry(name).or_insert(at);
        }
        Ok(killed)
    }

    /// One query, and one more for each process that was killed during its own: begun after that.
    fn check_queries(&mut self, killed: &HashMap<usize, Instant>, unlocked: usize) -> Result<()> {
        let queries = self.crew.database.queries();
        let took_over =
            |pair: &&[Query]| killed.get(&pair[0].by).is_some_and(|at| *at < pair[1].at);
        let taken_over = queries.windows(2).filter(took_over);
        let most = 1 + taken_over.count() + unlocked;
        ensure!(queries.len() <= most, "{queries:?}, killed: {killed:?}, unlocked: {unlocked}");
        self.survey.queries += queries.len();
        let at_query = |name: &&usize| queries.iter().any(|query| query.by == **name);
        self.survey.killed_at_query += killed.keys().filter(at_query).count();
        Ok(())
    }
}
