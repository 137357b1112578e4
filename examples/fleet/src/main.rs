//! The command line: `fleet` is the demo, `fleet chaos` the same with kills.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail, Context, Result};
use clap::{Parser, Subcommand};
use fleet::check::check;
use fleet::crew::{RedisServer, Sharing};
use fleet::demo::{stampede, takeover, PROCESSES, THREADS};
use fleet::link::Link;
use fleet::lock::Locks;
use fleet::{chaos, picture, worker};
use tracing_subscriber::EnvFilter;

/// Shared calls in two tiers: 4 processes of 50 threads ask for one cold key.
///
/// Starts a redis-server of its own, unless the environment variable REDIS_URL names one, such as
/// redis://127.0.0.1:6379.
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
    Demo {
        /// Draws a picture of it
        #[arg(long, value_name = "SVG")]
        picture: Option<PathBuf>,
    },
    /// The same again and again, while one process in ten is killed
    Chaos {
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
        rounds: u64,
        /// Of what is random here (not all is: threads and processes run as they please)
        #[arg(long, default_value_t = fastrand::u64(..))]
        seed: u64,
    },
    /// One process of the fleet; started by the others
    #[command(hide = true)]
    Worker { job: String },
}

fn main() -> ExitCode {
    // Ends the process with code 2 if the arguments are wrong.
    let args = Args::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    match run(args.command.unwrap_or(Command::Demo { picture: None })) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fleet: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    if let Command::Worker { job } = command {
        return worker::run(&serde_json::from_str(&job)?);
    }
    let program = std::env::current_exe()?;
    // Lives as long as it is needed.
    let own;
    let redis = match std::env::var("REDIS_URL") {
        Ok(url) if !url.is_empty() => {
            // The tier would do without. That is not what is to be seen here.
            usable(&url).map_err(|reason| anyhow!("REDIS_URL: {reason}"))?;
            url
        }
        _ => {
            let started = RedisServer::start(&[])?;
            own = started.context("no redis-server: install it, or name a Redis in REDIS_URL")?;
            own.url()
        }
    };
    match command {
        Command::Chaos { rounds, seed } => run_chaos(&program, &redis, rounds, seed),
        Command::Demo { picture } => run_demo(&program, &redis, picture.as_deref()),
        Command::Worker { .. } => unreachable!("has been run"),
    }
}

fn usable(url: &str) -> Result<()> {
    let link = Link::new(url, Duration::from_secs(2))?;
    let locks = Locks::new("fleet:", Duration::ZERO, Duration::ZERO);
    match check(&mut link.connect()?, &locks)?.unusable {
        Some(reason) => bail!(reason),
        None => Ok(()),
    }
}

fn run_demo(program: &Path, redis: &str, file: Option<&Path>) -> Result<()> {
    // Not `println!`, which panics when nobody reads on: `fleet | head`.
    let mut out = std::io::stdout();
    writeln!(
        out,
        "{PROCESSES} processes of {THREADS} threads ask at once for one cold key.\n"
    )?;
    let mut bars = Vec::new();
    for (name, sharing) in [
        ("unshared", Sharing::Unshared),
        ("local tier", Sharing::Local),
        ("local tier and Redis", Sharing::Both),
    ] {
        let queries = stampede(program, redis, sharing)?;
        writeln!(
            out,
            "{name:<22} {queries:>4} queries, counted by the database"
        )?;
        bars.push((name, queries));
    }
    let lock = Duration::from_millis(500);
    let rows = takeover(program, redis, lock)?;
    writeln!(
        out,
        "\nAgain; the one that runs the query is killed, its lock lasts {lock:?}:\n"
    )?;
    for (i, row) in rows.iter().enumerate() {
        let what = match (row.query, row.killed) {
            (_, true) => "ran the query, killed".to_owned(),
            (Some(at), _) => format!("took over at {} ms, answered", at.as_millis()),
            (None, _) => "waited, answered".to_owned(),
        };
        writeln!(
            out,
            "process {}: {what} at {} ms",
            i + 1,
            row.end.as_millis()
        )?;
    }
    if let Some(file) = file {
        std::fs::write(file, picture::draw(&bars, &rows, lock))
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

fn run_chaos(program: &Path, redis: &str, rounds: u64, seed: u64) -> Result<()> {
    let mut out = std::io::stdout();
    writeln!(
        out,
        "{rounds} rounds of {PROCESSES} processes of {THREADS} threads at one key; in each, one \
         process in ten is killed.\nSeed {seed} (--seed)."
    )?;
    let began = Instant::now();
    let survey = chaos::run(program, redis, rounds, seed)?;
    writeln!(
        out,
        "{} processes killed, {} of them at their query.\n\
         {} queries: one a round, and one for each that was taken over ({} without a lock).\n\
         {} calls, each with the right answer. {:.1} s.",
        survey.killed,
        survey.killed_at_query,
        survey.queries,
        survey.unlocked,
        survey.answers,
        began.elapsed().as_secs_f64(),
    )?;
    Ok(())
}
