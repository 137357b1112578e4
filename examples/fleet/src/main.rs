//! The command line: `fleet` is the demo, `fleet chaos` the same with kills.

use std::io::{self, stderr, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail, Context, Result};
use clap::{Parser, Subcommand};
use fleet::check::check;
use fleet::crew::{RedisServer, PROCESSES, THREADS};
use fleet::demo::{stampede, takeover, TAKEOVER_LOCK, WAYS};
use fleet::link::Link;
use fleet::lock::Locks;
use fleet::{chaos, worker};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

/// Shared calls in two tiers: 4 processes of 50 threads ask for one cold key.
///
/// Starts a redis-server of its own, unless the environment variable REDIS_URL names one, such as
/// redis://127.0.0.1:6379. RUST_LOG=info shows who takes over.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// What to do [default: demo]
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Without sharing, with the local tier, and with both; and a takeover
    Demo,
    /// The same again and again, while one process in ten is killed
    Chaos {
        /// How often all processes ask
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
        rounds: u64,
        /// Decides who is killed, and when (the rest stays random)
        /// [default: a random one, which is printed]
        #[arg(long, verbatim_doc_comment)]
        seed: Option<u64>,
    },
    /// One process of the fleet; started by the others
    #[command(hide = true)]
    Worker { job: String },
}

fn main() -> ExitCode {
    // Ends the process with code 2 if the arguments are wrong.
    let args = Args::parse();
    match run(args.command.unwrap_or(Command::Demo)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fleet: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::WARN.into());
    let log = tracing_subscriber::fmt().with_writer(stderr);
    let colours = stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let filter = filter.from_env().map_err(|error| anyhow!("RUST_LOG: {error}"))?;
    log.with_ansi(colours).with_env_filter(filter).init();
    if let Command::Worker { job } = command {
        let job = serde_json::from_str(&job).context("workers are started by the demo")?;
        return worker::run(&job);
    }
    let program = std::env::current_exe()?;
    let own;
    let redis = match std::env::var("REDIS_URL") {
        Ok(url) if !url.is_empty() => {
            // The tier would do without. That is not what is to be seen here.
            usable(&url).map_err(|error| anyhow!("REDIS_URL: {error}"))?;
            url
        }
        _ => {
            let started = RedisServer::start(&[])?;
            own = started.context("no redis-server: install it, or name a Redis in REDIS_URL")?;
            own.url()
        }
    };
    match command {
        Command::Chaos { rounds, seed } => {
            let seed = seed.unwrap_or_else(|| fastrand::u64(..));
            run_chaos(&program, &redis, rounds, seed)
        }
        _ => run_demo(&program, &redis),
    }
}

fn usable(url: &str) -> Result<()> {
    let link = Link::new(url, Duration::from_secs(2))?;
    let locks = Locks::new("fleet:", Duration::ZERO, Duration::ZERO);
    let reason = check(&mut link.connect()?, &locks)?.unusable;
    reason.map_or(Ok(()), |reason| bail!(reason))
}

/// Not `println!`, which panics when nobody reads on: `fleet | head`.
macro_rules! say {
    ($($text:tt)*) => { writeln!(io::stdout(), $($text)*) };
}

fn number(n: usize, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

fn run_demo(program: &Path, redis: &str) -> Result<()> {
    say!("{PROCESSES} processes of {THREADS} threads ask at once for one cold key.\n")?;
    for (name, sharing) in WAYS {
        let queries = number(stampede(program, redis, sharing)?, "query", "queries");
        say!("{name:<22} {queries:>11}, counted by the database")?;
    }
    let rows = takeover(program, redis)?;
    let lock = TAKEOVER_LOCK.as_millis();
    say!("\nAgain; the process that runs the query is killed.")?;
    say!("Its lock lasts {lock} ms.\n")?;
    for (i, row) in rows.iter().enumerate() {
        let what = match (row.query, row.killed) {
            (_, true) => "ran the query, killed".to_owned(),
            (Some(at), _) => format!("took over at {} ms, answered", at.as_millis()),
            (None, _) => "waited, answered".to_owned(),
        };
        let (process, end) = (i + 1, row.end.as_millis());
        say!("process {process}: {what} at {end} ms")?;
    }
    Ok(())
}

fn run_chaos(program: &Path, redis: &str, rounds: u64, seed: u64) -> Result<()> {
    let processes = |n| number(n, "process", "processes");
    let queries = |n| number(n, "query", "queries");
    let all = number(rounds as usize, "round", "rounds");
    say!("{all} of {PROCESSES} processes of {THREADS} threads at one key;")?;
    say!("in each, one process in ten is killed.")?;
    say!("Seed {seed} (--seed).")?;
    let began = Instant::now();
    let mut tenths = 0;
    let survey = chaos::run(program, redis, rounds, seed, |so_far| {
        let (round, before) = (so_far.rounds, tenths);
        tenths = round * 10 / rounds;
        if tenths == before || round == rounds {
            return Ok(());
        }
        let (killed, queries) = (processes(so_far.killed), queries(so_far.queries));
        say!("round {round} of {rounds}: {killed} killed, {queries}")
    })?;
    let (killed, at_query) = (processes(survey.killed), survey.killed_at_query);
    let (queries, unlocked) = (queries(survey.queries), survey.unlocked);
    let calls = number(survey.answers, "call", "calls");
    let took = began.elapsed().as_secs_f64();
    say!("{killed} killed, {at_query} of them at their query.")?;
    say!("{queries}: one a round, and one for each takeover ({unlocked} without a lock).")?;
    say!("{calls}, each with the right answer. {took:.1} s.")?;
    Ok(())
}
