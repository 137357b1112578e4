//! The command line: `user-service` is the demo, `user-service serve` the service.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{mpsc, Arc};
use std::time::Duration;

use anyhow::{bail, Context, Result};
use clap::{Parser, Subcommand};
use tracing::info;
use user_service::config::{Caching, Config, Sharing, Store};
use user_service::demo;
use user_service::http::Server;
use user_service::service::Expiry;
use user_service::trace;

/// A user-information service that reads through a cache to a database.
///
/// The cache is in the process, or Redis where the environment variable REDIS_URL names one, such
/// as redis://127.0.0.1:6379. The database is SQLite, or PostgreSQL where DATABASE_URL names one,
/// such as postgres://user:password@127.0.0.1/database.
///
/// The log goes to stderr. The environment variable RUST_LOG says what is in it, such as
/// user_service=debug for every flight [default: info].
#[derive(Parser)]
#[command(version)]
struct Args {
    /// What to do [default: demo]
    #[command(subcommand)]
    command: Option<Command>,
    /// The SQLite file, made if missing [default: in the directory for temporary files]
    #[arg(long, global = true, value_name = "PATH")]
    db: Option<PathBuf>,
    /// Make each database query this much slower [default: 100 for the demo, else 0]
    #[arg(long, global = true, value_name = "MILLISECONDS")]
    db_latency: Option<u64>,
}

#[derive(Subcommand)]
enum Command {
    /// 200 clients at one user, with and without sharing
    Demo,
    /// Serve GET and PUT /users/{id}, and GET /stats, /metrics and /in-flight, until Ctrl-C
    Serve {
        #[arg(long, default_value = "127.0.0.1:8080")]
        addr: SocketAddr,
        /// Let every request do its own load (a GET may then be stale, also after a PUT)
        #[arg(long)]
        unshared: bool,
        /// Keep nothing: let every load ask the database, whatever REDIS_URL says
        #[arg(long, conflicts_with = "cache_ttl")]
        no_cache: bool,
        /// How long the cache keeps a user; a day at most
        #[arg(long, value_name = "MILLISECONDS", default_value_t = 300_000)]
        #[arg(value_parser = clap::value_parser!(u64).range(1..=86_400_000))]
        cache_ttl: u64,
        /// How long a request may wait for the load of another, before it is answered 504
        #[arg(long, value_name = "MILLISECONDS", default_value_t = 2000)]
        request_timeout: u64,
    },
}

fn main() -> ExitCode {
    // Ends the process with code 2 if the arguments are wrong.
    let args = Args::parse();
    trace::init();
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("user-service: {error:#}");
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
    let request_timeout = match command {
        // Whoever is patient enough for `--db-latency` gets an answer.
        Command::Demo => demo::CLIENT_TIMEOUT,
        Command::Serve {
            request_timeout, ..
        } => Duration::from_millis(request_timeout),
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
    };
    match command {
        Command::Demo => demo::run(&config),
        Command::Serve { addr, unshared, .. } => serve(&config, addr, unshared),
    }
}

/// `None` where it is not set, or empty.
fn variable(name: &str) -> Result<Option<String>> {
    let value = std::env::var_os(name).filter(|value| !value.is_empty());
    let text = value.map(|value| value.into_string()).transpose();
    text.ok().with_context(|| format!("{name} is not UTF-8"))
}

fn store(path: Option<PathBuf>) -> Result<Store> {
    match (path, variable("DATABASE_URL")?) {
        (None, Some(url)) => Store::from_url(&url).context("cannot use DATABASE_URL"),
        (Some(_), Some(_)) => bail!("--db is for SQLite, and DATABASE_URL is set: drop one"),
        (Some(path), None) => Ok(Store::Sqlite(path)),
        (None, None) => {
            let temporary = std::env::temp_dir();
            let path = temporary.join("user-service").join("users.sqlite3");
            Ok(Store::Sqlite(path))
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
        // Fails for a second Ctrl-C, when nobody listens any more: the service is stopping.
        let _ = interrupted.send(());
    })
    .context("cannot catch Ctrl-C")?;
    let server =
        Server::start(addr, service).with_context(|| format!("cannot listen on {addr}"))?;

    let mut out = std::io::stdout();
    writeln!(
        out,
        "listening on http://{} (Ctrl-C stops)",
        server.address()
    )?;
    interrupt.recv().context("nobody is left to say stop")?;
    info!("stopping");
    drop(server);
    Ok(())
}
