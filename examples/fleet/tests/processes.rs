//! Real processes, and a database that counts.

mod common;

use std::process::{Command, Output};

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
    let took_over = rows.iter().filter(|row| !row.killed).find_map(|row| row.query);
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

/// Runs the program with a Redis of its own.
fn fleet(arguments: &[&str], log: &str) -> Output {
    let mut fleet = Command::new(program());
    fleet.env_remove("REDIS_URL").env("RUST_LOG", log);
    fleet.args(arguments).output().unwrap()
}

/// What it prints. Its log has no escape sequences where it is no terminal.
fn prints(arguments: &[&str]) -> String {
    let output = fleet(arguments, "info");
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{log}");
    assert!(!log.contains('\x1b'), "{log}");
    let printed = String::from_utf8(output.stdout).unwrap();
    let widest = printed.lines().map(|line| line.chars().count()).max();
    assert!(widest <= Some(80), "{printed}");
    printed
}

/// Fails before it starts anything.
fn refuses(arguments: &[&str], log: &str, code: i32, words: &str) {
    let output = fleet(arguments, log);
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{message}");
    assert!(message.starts_with(words), "{message}");
    assert_eq!(output.stdout, b"");
}

#[test]
fn the_demo_counts_one_query_and_many_queries() {
    let _limit = limit(60);
    if redis().is_none() {
        return;
    }
    for arguments in [&["demo"][..], &[]] {
        let printed = prints(arguments);
        for line in [
            "unshared               200 queries, counted by the database",
            "local tier               4 queries, counted by the database",
            "local tier and Redis       1 query, counted by the database",
        ] {
            assert!(printed.lines().any(|it| it == line), "{line}: {printed}");
        }
        assert_eq!(printed.matches("took over at").count(), 1, "{printed}");
    }
}

#[test]
fn chaos_prints_its_seed_and_its_progress() {
    let _limit = limit(60);
    if redis().is_none() {
        return;
    }
    let printed = prints(&["chaos", "--rounds", "1", "--seed", "7"]);
    assert!(printed.starts_with("1 round of 4 processes"), "{printed}");
    assert!(printed.contains("\nSeed 7 (--seed).\n"), "{printed}");
    let printed = prints(&["chaos", "--rounds", "12", "--seed", "7"]);
    let progress = printed.lines().filter(|line| line.starts_with("round "));
    let progress: Vec<_> = progress.collect();
    assert_eq!(progress.len(), 9, "{printed}");
    assert!(progress[0].starts_with("round 2 of 12: "), "{printed}");
    // No seed that looks as if it were always the same.
    let help = prints(&["chaos", "--help"]);
    assert!(help.contains("[default: a random one"), "{help}");
    assert!(help.contains("[default: 100]"), "{help}");
}

#[test]
fn bad_arguments_are_refused_by_name() {
    let _limit = limit(60);
    refuses(&["chaos", "--rounds", "0"], "", 2, "error: invalid value");
    refuses(&["chaos", "--seed", "x"], "", 2, "error: invalid value");
    refuses(&["unknown"], "", 2, "error: unrecognized subcommand");
    refuses(&["demo"], "a=b=c", 1, "fleet: RUST_LOG: ");
    refuses(&["worker", "x"], "", 1, "fleet: workers are started by ");
}

#[test]
fn a_redis_url_that_leads_nowhere_is_refused_by_name() {
    let _limit = limit(60);
    for (url, words) in [
        ("nonsense", "fleet: REDIS_URL: Redis URL did not parse"),
        ("redis://127.0.0.1:1", "fleet: REDIS_URL: Connection refused"),
    ] {
        let mut fleet = Command::new(program());
        let fleet = fleet.env("REDIS_URL", url).output().unwrap();
        assert_eq!(fleet.status.code(), Some(1));
        let message = String::from_utf8(fleet.stderr).unwrap();
        assert!(message.starts_with(words), "{message}");
        assert_eq!(message.lines().count(), 1, "{message}");
        let words = message.matches("refused").count();
        assert!(words <= 1, "{message}");
    }
}
