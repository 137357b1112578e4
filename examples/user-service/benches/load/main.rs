//! A load report by a public tool, wrk: the service as a process of its own, on a PostgreSQL and a
//! Redis of its own, shared against unshared, with the cache and without.
//!
//! ```text
//! cargo bench -p user-service --bench load              # five minutes: results.md and its charts
//! cargo bench -p user-service --bench load -- --quick   # seconds; writes nothing
//! ```
//!
//! The exit code is not 0 if any request failed, or PostgreSQL's count of queries can't be right.

mod charts;
mod report;
#[path = "../../tests/common/servers.rs"]
mod servers;

use std::env;
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{bail, ensure, Context, Result};
use servers::{signal, Postgres, Redis};
use user_service::db::USERS;

const COMMAND: &str = "cargo bench -p user-service --bench load";
const CONNECTIONS: [u32; 4] = [8, 32, 128, 256];
const MANY: u32 = 128;
/// How long an entry stays in the cache, in milliseconds.
const KEEP: u32 = 1000;
/// What a slow query takes longer, in milliseconds.
const SLOWER: u32 = 5;

/// Who is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Users {
    One,
    /// As in the world: few of them often, most of them now and then.
    Zipf,
    /// All alike, so that hardly ever two ask for the same.
    Uniform,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Workload {
    pub users: Users,
    pub slow: bool,
}

impl Workload {
    const fn new(users: Users, slow: bool) -> Self {
        Self { users, slow }
    }
}

/// Those that are measured with each number of connections.
const WORKLOADS: [Workload; 3] = [
    Workload::new(Users::One, true),
    Workload::new(Users::Zipf, true),
    Workload::new(Users::Zipf, false),
];
/// The one that is not.
const ALIKE: Workload = Workload::new(Users::Uniform, false);

#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Setup {
    pub workload: Workload,
    pub cache: bool,
    pub shared: bool,
    pub connections: u32,
}

pub struct Row {
    pub setup: Setup,
    /// By wrk's count, which also tells the times, in microseconds.
    pub requests: u64,
    pub micros: u64,
    pub p50: u64,
    pub p99: u64,
    pub p999: u64,
    /// By the count of pg_stat_statements.
    pub queries: u64,
}

fn main() -> Result<()> {
    let mut quick = false;
    for argument in env::args().skip(1) {
        match &*argument {
            "--quick" => quick = true,
            "--bench" => {} // cargo's
            _ => bail!("usage: {COMMAND} [-- --quick]"),
        }
    }
    // Before five minutes are spent on what cannot be written.
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let results = here.join("results.md");
    if !quick {
        let writable = OpenOptions::new().append(true).create(true).open(&results);
        writable.with_context(|| format!("cannot write {}", results.display()))?;
    }
    let wrk = wrk_version().context("wrk is not installed")?;
    let machine = report::machine();
    let postgres = Postgres::start().context("PostgreSQL is not installed")?;
    let redis = Redis::start().context("redis-server is not installed")?;

    let setups = setups(quick);
    let mut rows = Vec::new();
    for (i, setup) in setups.iter().enumerate() {
        eprint!("{:2} of {}: {setup} ...", i + 1, setups.len());
        let row = measure(*setup, &postgres, &redis, quick)?;
        eprintln!(" {}", report::figures(&row));
        rows.push(row);
    }
    if !quick {
        let versions = report::versions(&wrk, &postgres, &redis)?;
        fs::write(results, report::markdown(&machine, &versions, &rows))?;
        for (name, svg) in charts::all(&rows)? {
            fs::write(here.join(name), svg)?;
        }
    }
    Ok(())
}

fn setups(quick: bool) -> Vec<Setup> {
    let workloads: Vec<_> = match quick {
        true => vec![(WORKLOADS[0], CONNECTIONS[1])],
        false => WORKLOADS
            .into_iter()
            .flat_map(|workload| CONNECTIONS.map(|connections| (workload, connections)))
            .chain([(ALIKE, MANY)])
            .collect(),
    };
    let mut setups = Vec::new();
    for (workload, connections) in workloads {
        for cache in [false, true] {
            // One after the other, so that both meet the same machine.
            for shared in [false, true] {
                setups.push(Setup { workload, cache, shared, connections });
            }
        }
    }
    setups
}

fn measure(setup: Setup, postgres: &Postgres, redis: &Redis, quick: bool) -> Result<Row> {
    let () = redis::cmd("FLUSHALL").query(&mut redis.connect()?)?;
    let service = Service::start(setup, postgres, redis)?;
    let seconds = if quick { 1 } else { 4 };
    // To warm up.
    wrk(setup, &service.url, 1)?;
    let before = postgres.queries();
    let [requests, micros, errors, p50, p99, p999] = wrk(setup, &service.url, seconds)?;
    // With all that wrk did not wait for.
    service.stop()?;
    let queries = (postgres.queries() - before) as u64;

    ensure!(errors == 0, "{errors} of {requests} requests failed");
    let each_its_own = !setup.cache && !setup.shared;
    ensure!(
        !each_its_own || queries >= requests,
        "PostgreSQL counts {queries} queries for {requests} requests"
    );
    let one_for_all = !setup.cache && setup.shared && setup.workload.users == Users::One;
    ensure!(
        !one_for_all || (1..requests / 2).contains(&queries),
        "shared, PostgreSQL counts {queries} queries for {requests} requests"
    );
    Ok(Row { setup, requests, micros, p50, p99, p999, queries })
}

fn wrk_version() -> Result<String> {
    let output = Command::new("wrk").arg("-v").output()?;
    let text = String::from_utf8(output.stdout)?;
    let version = text.split_whitespace().nth(1).context("no version")?;
    Ok(version.to_owned())
}

/// What the script prints when it is done.
fn wrk(setup: Setup, url: &str, seconds: u32) -> Result<[u64; 6]> {
    let (users, exponent) = match setup.workload.users {
        Users::One => (1, 0),
        Users::Zipf => (USERS, 1),
        Users::Uniform => (USERS, 0),
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/load/users.lua");
    let output = Command::new("wrk")
        .args(["--threads=1", "--timeout=10s"])
        .arg(format!("--connections={}", setup.connections))
        .arg(format!("--duration={seconds}s"))
        .arg("--script")
        .arg(script)
        .args([url, "--", &users.to_string(), &exponent.to_string()])
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    let figures = text.lines().find_map(|line| line.strip_prefix("figures "));
    let figures = figures.with_context(|| format!("wrk says: {text}"))?;
    let figures: Result<Vec<u64>, _> = figures.split(' ').map(str::parse).collect();
    figures?.try_into().ok().context("not as many figures as the script prints")
}

/// The service, as a user starts it. When this is dropped, it is gone.
struct Service {
    process: Child,
    url: String,
}

impl Service {
    fn start(setup: Setup, postgres: &Postgres, redis: &Redis) -> Result<Self> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_user-service"));
        // No request is to be refused: all connections ask for one user.
        command.args(["serve", "--addr=127.0.0.1:0", "--max-followers=256"]);
        for (name, value) in
            [("DATABASE_URL", &*postgres.url()), ("REDIS_URL", &*redis.url()), ("RUST_LOG", "warn")]
        {
            command.env(name, value);
        }
        match setup.cache {
            true => command.arg(format!("--cache-ttl={KEEP}")),
            false => command.arg("--no-cache"),
        };
        if !setup.shared {
            command.arg("--unshared");
        }
        if setup.workload.slow {
            command.arg(format!("--db-latency={SLOWER}"));
        }
        let mut process = command.stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        let stdout = process.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut line)?;
        let url = line.split(' ').find(|word| word.starts_with("http://"));
        let url = url.unwrap_or_default().to_owned();
        let service = Self { process, url };
        ensure!(!service.url.is_empty(), "the service did not start");
        Ok(service)
    }

    /// What it has begun, it ends.
    fn stop(mut self) -> Result<()> {
        signal("INT", self.process.id());
        let status = self.process.wait()?;
        ensure!(status.success(), "the service ended with {status}");
        Ok(())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Fails if it has ended, which is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
