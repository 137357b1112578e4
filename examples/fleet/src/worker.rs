//! One process of the fleet: at each order, all its threads ask for one key.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Error, Result};
use shared_calls::{FlightGroup, SharedCalls, Unshared};

use crate::crew::{query, until, Job, Said, Sharing, THREADS};
use crate::tier::{RedisTier, Settings, Stats};

/// The program only knows the trait. Which of the three it is decides who else does its queries.
type Calls = Arc<dyn SharedCalls<String, Error>>;

pub fn run(job: &Job) -> Result<()> {
    let group = FlightGroup::<String, Error>::new();
    let settings = Settings {
        lock: job.lock,
        // A crowd on a small machine is not to be taken for a fault.
        reply: Duration::from_secs(5),
        ..Settings::default()
    };
    let (mut tier, mut calls): (_, Calls) = (None, Arc::new(group.clone()));
    match job.sharing {
        Sharing::Unshared => calls = Arc::new(Unshared),
        Sharing::Local => {}
        Sharing::Both => {
            let both = Arc::new(RedisTier::<String, Error>::new(&job.redis, settings)?);
            (tier, calls) = (Some(both.clone()), both);
        }
    }
    let others = THREADS as u64 - 1;
    let stats = || tier.as_ref().map(|tier| tier.stats()).unwrap_or_default();
    let waiting = || match (&tier, job.sharing) {
        (_, Sharing::Unshared) => others,
        (_, Sharing::Local) => group.stats().waiting,
        (tier, Sharing::Both) => tier.as_ref().map_or(0, |tier| tier.local_stats().waiting),
    };
    let ran = |stats: Stats| stats.locked + stats.alone;
    let all_in = |before: Stats| {
        until("all threads in the call", || waiting() == others)?;
        // If Redis is asked in vain from now on, the last of them is in time, too. It may be being
        // asked already; the time after that is from now on.
        let asked = stats().asked + 2;
        let in_time = || tier.is_none() || stats().asked >= asked || ran(stats()) > ran(before);
        until("in time", in_time)
    };

    for line in std::io::stdin().lines() {
        let key = line?;
        let ask = || calls.call(&key, || query(job.database, job.name, &key));
        let mut answers = BTreeMap::new();
        let before = stats();
        thread::scope(|scope| -> Result<()> {
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(ask)).collect();
            all_in(before)?;
            say(&Said::AllIn)?;
            for thread in threads {
                let answer = thread.join().expect("nothing panics here");
                let answer = answer.unwrap_or_else(|error| format!("error: {error}"));
                *answers.entry(answer).or_default() += 1;
            }
            Ok(())
        })?;
        let unlocked = |stats: Stats| (stats.alone + stats.unpublished) as usize;
        let unlocked = unlocked(stats()) - unlocked(before);
        say(&Said::Done { answers, unlocked })?;
    }
    Ok(())
}

fn say(said: &Said) -> Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{}", serde_json::to_string(said)?)?;
    Ok(out.flush()?)
}
