//! The command line: `user-service` is the demo, `user-service serve` the service.

use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{mpsc, Arc};
use std::time::Duration;

use anyhow::{bail, Context, Result};
use clap::{Parser, Subcommand};
use tracing::{info, warn};
use user_service::config::{Caching, Config, Sharing, Store};
use user_service::demo;
use user_service::http::{Server, MAX_FOLLOWERS};
use user_service::service::Expiry;
use user_service::watch;

/// A user-information service that reads through a cache to a database.
///
/// The cache is in the process. Set the environment variable REDIS_URL to use Redis instead, as in
/// redis://127.0.0.1:6379. The database is SQLite. Set DATABASE_URL to use PostgreSQL instead, as in
/// postgres://user:password@127.0.0.1/database.
///
/// The log goes to stderr. Set RUST_LOG to choose what is logged, as in user_service=debug for every
/// flight [default: info].
#[derive(Parser)]
#[command(version)]
struct Args {
    /// What to do [default: demo]
    #[command(subcommand)]
    command: Option<Command>,
    /// The SQLite file, made if missing [default: user-service/users.sqlite3 in the directory for
    /// temporary files]
    #[arg(long, global = true, value_name = "PATH")]
    db: Option<PathBuf>,
    /// Make each database query this much slower; at most 60000, and 150 for the demo [default: 100
    /// for the demo, else 0]
    #[arg(long, global = true, value_name = "MILLISECONDS")]
    #[arg(value_parser = clap::value_parser!(u64).range(..=60_000))]
    db_latency: Option<u64>,
}

#[derive(Subcommand)]
enum Command {
    /// Let 200 clients ask for one user, with and without sharing
    Demo,
    /// Serve GET and PUT /users/{id}, and GET /stats, /metrics and /in-flight, until Ctrl-C
    Serve {
        /// Where to listen; with port 0 the system chooses a port
        #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:8080")]
        addr: SocketAddr,
        /// Let every request do its own load; a GET after a PUT may then be stale
        #[arg(long)]
        unshared: bool,
        /// Let every load ask the database, even if REDIS_URL is set
        #[arg(long, conflicts_with = "cache_ttl")]
        no_cache: bool,
        /// How long the cache keeps a user; from 1 to 86400000 (a day)
        #[arg(long, value_name = "MILLISECONDS", default_value_t = 300_000)]
        #[arg(value_parser = clap::value_parser!(u64).range(1..=86_400_000))]
        cache_ttl: u64,
        /// How long a request waits for another's load before it is answered 504; from 1 to 60000
        #[arg(long, value_name = "MILLISECONDS", default_value_t = 2000)]
        #[arg(value_parser = clap::value_parser!(u64).range(1..=60_000))]
        request_timeout: u64,
        /// How many requests may wait for one load before the next is answered 503; at most 10000
        #[arg(long, value_name = "NUMBER", default_value_t = MAX_FOLLOWERS as u64)]
        #[arg(value_parser = clap::value_parser!(u64).range(0..=10_000))]
        max_followers: u64,
    },
}

fn main() -> ExitCode {
    // Ends the process with code 2 if the arguments are wrong.
    let args = Args::parse();
    watch::init_log();
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        // `user-service | head` has read enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // Not `eprintln!`, which panics when stderr is closed.
            let _ = writeln!(io::stderr(), "user-service: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Result<()> {
    let command = args.command.unwrap_or(Command::Demo);
    let latency = args.db_latency.unwrap_or(match command {
        Command::Demo => 100,
        Command::Serve { .. } => 0,
    });
    if matches!(command, Command::Demo) && Duration::from_millis(latency) > demo::MAX_LATENCY {
        bail!("--db-latency is at most {} for the demo", demo::MAX_LATENCY.as_millis());
    }
    let request_timeout = match command {
        // All clients wait as long as their own time limit allows.
        Command::Demo => demo::CLIENT_TIMEOUT,
        Command::Serve { request_timeout, .. } => Duration::from_millis(request_timeout),
    };
    let config = Config {
        store: store(args.db)?,
        database_latency: Duration::from_millis(latency),
        caching: match (&command, variable("REDIS_URL")?) {
            (Command::Serve { no_cache: true, .. }, _) => Caching::Off,
            (_, Some(url)) => Caching::Redis(url),
            (_, None) => Caching::Memory,
        },
        expiry: match command {
            Command::Demo => Expiry::default(),
            Command::Serve { cache_ttl, .. } => Expiry::of(Duration::from_millis(cache_ttl)),
        },
        request_timeout,
        max_followers: match command {
            Command::Demo => MAX_FOLLOWERS,
            Command::Serve { max_followers, .. } => max_followers as usize,
        },
    };
    match command {
        Command::Demo => demo::run(&config),
        Command::Serve { addr, unshared, .. } => serve(&config, addr, unshared),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// `None` if it is not set, or empty.
fn variable(name: &str) -> Result<Option<String>> {
    let value = std::env::var_os(name).filter(|value| !value.is_empty());
    let text = value.map(|value| value.into_string()).transpose();
    text.ok().with_context(|| format!("{name} is not UTF-8"))
}

fn store(path: Option<PathBuf>) -> Result<Store> {
    match (path, variable("DATABASE_URL")?) {
        (None, Some(url)) => Store::from_url(&url).context("cannot use DATABASE_URL"),
        (Some(_), Some(_)) => {
            bail!("--db is for SQLite, but DATABASE_URL is set: drop one of them")
        }
        (Some(path), None) => Ok(Store::Sqlite(path)),
        (None, None) => {
            let directory = std::env::temp_dir().join("user-service");
            fs::create_dir_all(&directory)
                .with_context(|| format!("cannot make the directory {}", directory.display()))?;
            Ok(Store::Sqlite(directory.join("users.sqlite3")))
        }
    }
}

fn serve(config: &Config, addr: SocketAddr, unshared: bool) -> Result<()> {
    let sharing = match unshared {
        true => Sharing::Off,
        false => Sharing::On,
    };
    let service = Arc::new(config.service(sharing)?);
    let (interrupted, interrupt) = mpsc::channel();
    ctrlc::set_handler(move || {
        // Fails at a second Ctrl-C, when the service is stopping.
        let _ = interrupted.send(());
    })
    .context("cannot catch Ctrl-C")?;
    let server = Server::start(addr, Arc::clone(&service))
        .with_context(|| format!("cannot listen on {addr}"))?;

    if let Err(error) = service.check_cache() {
        warn!(%error, "the cache does not answer; until it does, users are answered 503");
    }
    // A closed stdout is no reason not to serve.
    let _ = writeln!(io::stdout(), "listening on http://{} (Ctrl-C stops)", server.address());
    interrupt.recv().context("the handler of Ctrl-C is gone")?;
    info!("stopping");
    drop(server);
    Ok(())
}
