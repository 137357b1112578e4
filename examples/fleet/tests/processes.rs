//! Real processes, and a database that counts.

mod common;

use std::process::Command;

use common::{limit, program, redis};
use fleet::chaos;
use fleet::crew::{Sharing, PROCESSES, THREADS};
use fleet::demo::{stampede, takeover, TAKEOVER_LOCK};

#[test]
fn four_processes_of_fifty_threads_send_one_query() {
    let _limit = limit(60);
    let Some(redis) = redis() else { return };
    let queries = |sharing| stampede(program(), &redis.url(), sharing).unwrap();
    assert_eq!(queries(Sharing::Unshared), 200);
    assert_eq!(queries(Sharing::Local), 4);
    assert_eq!(queries(Sharing::Both), 1);
}

#[test]
fn exactly_one_takes_over_from_a_holder_that_is_killed() {
    let _limit = limit(60);
    let Some(redis) = redis() else { return };
    // Fails if more than one does, or if somebody gets a wrong answer or none.
    let rows = takeover(program(), &redis.url()).unwrap();
    let killed = rows.iter().find(|row| row.killed).unwrap().end;
    let took_over = rows
        .iter()
        .filter(|row| !row.killed)
        .find_map(|row| row.query);
    let delay = took_over.unwrap() - killed;
    // Much longer than the lock lasts, so that a busy machine is not taken for a fault; and much
    // shorter than a lock that is never released.
    assert!(delay < TAKEOVER_LOCK * 20, "{delay:?}");
}

#[test]
fn nobody_hangs_and_nobody_is_told_wrong_while_processes_are_killed() {
    let _limit = limit(120);
    let Some(redis) = redis() else { return };
    let seed = fastrand::u64(..);
    let survey = chaos::run(program(), &redis.url(), 100, seed, |_| Ok(()));
    let survey = survey.unwrap_or_else(|error| panic!("{error:#} (seed {seed})"));
    println!("seed {seed}: {survey:?}");
    assert_eq!(survey.rounds, 100);
    assert_eq!(survey.answers, (100 * PROCESSES - survey.killed) * THREADS);
    assert!(survey.killed_at_query >= 10, "{survey:?}");
    let most = 100 + survey.killed_at_query + survey.unlocked;
    assert!(survey.queries <= most, "{survey:?}");
}

#[test]
fn bad_arguments_and_no_redis_are_told_apart() {
    let _limit = limit(60);
    let run = |args: &[&str]| {
        let mut fleet = Command::new(program());
        fleet
            .env("REDIS_URL", "nonsense")
            .args(args)
            .output()
            .unwrap()
    };
    assert_eq!(run(&["chaos", "--rounds", "0"]).status.code(), Some(2));
    assert_eq!(run(&["unknown"]).status.code(), Some(2));
    let no_redis = run(&["chaos"]);
    assert_eq!(no_redis.status.code(), Some(1));
    let message = String::from_utf8(no_redis.stderr).unwrap();
    assert!(message.starts_with("fleet: REDIS_URL: "), "{message}");
}
