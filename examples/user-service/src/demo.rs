//! The demo: 200 clients ask for one user whose cache entry has just expired, once without and
//! once with sharing.

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};
use ureq::http::Response;
use ureq::{Agent, Body};

use crate::config::{Config, Sharing};
use crate::db;
use crate::http::Server;
use crate::picture;
use crate::routes::{MICROS_HEADER, ROLE_HEADER};
use crate::service::Service;

const CLIENTS: usize = 200;
const HOT_USER: i64 = 42;
/// How long a client waits for its answer.
pub const CLIENT_TIMEOUT: Duration = Duration::from_secs(10);
/// With a slower database, unshared clients would wait for a free connection in vain: the last of
/// them has 24 queries before its own.
pub const MAX_LATENCY: Duration = Duration::from_millis(150);

/// What one client saw.
pub struct Caller {
    /// Since the first client began, like `ended`.
    pub began: Duration,
    pub ended: Duration,
    pub led: bool,
    /// How much of that was spent in the shared call, by the service's clock.
    pub in_call: Duration,
}

impl Caller {
    pub fn latency(&self) -> Duration {
        self.ended - self.began
    }
}

struct Run {
    name: &'static str,
    callers: Vec<Caller>,
    queries: u64,
}

pub fn run(config: &Config) -> Result<()> {
    // Before anything is printed, what may be wrong with the arguments.
    let [unshared, shared] = [Sharing::Off, Sharing::On].map(|sharing| config.service(sharing));
    let (unshared, shared) = (unshared?, shared?);
    unshared.check_cache().context("cannot use REDIS_URL")?;

    // Not `println!`, which panics when stdout is closed: `user-service | head`.
    let mut out = std::io::stdout();
    let width = picture::width(&out);
    writeln!(
        out,
        "{CLIENTS} clients ask at once for user {HOT_USER},\n\
         whose cache entry has just expired.\n\
         Cache:    {}\n\
         Database: {}\n\
         {} connections to it, each query {} ms slower (--db-latency)\n",
        config.caching,
        config.store,
        db::CONNECTIONS,
        config.database_latency.as_millis(),
    )?;
    let runs = [stampede("Unshared", unshared)?, stampede("FlightGroup", shared)?];
    let colour = out.is_terminal() && std::env::var_os("NO_COLOR").is_none();

    writeln!(out, "\n            callers  queries  wall time       p50       p99")?;
    for run in &runs {
        writeln!(out, "{}", row(run))?;
    }
    for run in &runs {
        let led = run.callers.iter().filter(|caller| caller.led).count() as u64;
        if led > run.queries {
            let late = led - run.queries;
            writeln!(out, "({}: {late} came after the cache was filled)", run.name)?;
        }
    }
    for run in &runs {
        writeln!(out, "\n{}", picture::draw(run.name, &run.callers, width, colour))?;
    }
    Ok(())
}

fn stampede(name: &'static str, service: Service) -> Result<Run> {
    let service = Arc::new(service);
    let server = Server::start(([127, 0, 0, 1], 0).into(), Arc::clone(&service))
        .context("cannot start the server")?;

    // One request fills the cache. Then the entry expires, just before the crowd comes.
    let agent = agent();
    get(&agent, server.address())?;
    service.expire(HOT_USER)?;
    let queries_before = service.stats().database_queries;

    // Only progress: the demo does not depend on it.
    let _ = writeln!(std::io::stderr(), "{name}: {CLIENTS} clients ...");
    let callers = crowd(&agent, server.address())?;
    Ok(Run { name, callers, queries: service.stats().database_queries - queries_before })
}

/// All clients at once. It is an error if a single one gets no answer.
fn crowd(agent: &Agent, server: SocketAddr) -> Result<Vec<Caller>> {
    let gate = Barrier::new(CLIENTS);
    let epoch = Instant::now();
    let client = || {
        gate.wait();
        let began = epoch.elapsed();
        let mut response = get(agent, server)?;
        response.body_mut().read_to_vec()?;
        let ended = epoch.elapsed();
        let header = |name| response.headers().get(name).and_then(|v| v.to_str().ok());
        let micros = header(MICROS_HEADER).context("no time in the answer")?;
        anyhow::Ok(Caller {
            began,
            ended,
            led: header(ROLE_HEADER) == Some("led"),
            in_call: Duration::from_micros(micros.parse()?),
        })
    };
    let mut callers = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        let answers = clients.into_iter().map(|client| match client.join() {
            Ok(answer) => answer,
            Err(_) => bail!("a client panicked"),
        });
        answers.collect::<Result<Vec<Caller>>>()
    })?;

    callers.sort_by_key(|caller| caller.began);
    let first = callers[0].began;
    for caller in &mut callers {
        caller.began -= first;
        caller.ended -= first;
    }
    Ok(callers)
}

fn agent() -> Agent {
    Agent::config_builder()
        .timeout_global(Some(CLIENT_TIMEOUT))
        .http_status_as_error(false)
        .build()
        .into()
}

fn get(agent: &Agent, server: SocketAddr) -> Result<Response<Body>> {
    let mut response = agent.get(format!("http://{server}/users/{HOT_USER}")).call()?;
    if response.status() != 200 {
        let body = response.body_mut().read_to_string().unwrap_or_default();
        bail!("the service answers {} {body}", response.status());
    }
    Ok(response)
}

fn row(run: &Run) -> String {
    let mut latencies: Vec<_> = run.callers.iter().map(Caller::latency).collect();
    latencies.sort();
    // The latency that `p` per cent of the callers did not exceed.
    let percentile = |p: usize| latencies[(latencies.len() * p).div_ceil(100) - 1];
    let wall = run.callers.iter().map(|caller| caller.ended).max();
    format!(
        "{:<11} {:>7} {:>8} {:>10} {:>9} {:>9}",
        run.name,
        run.callers.len(),
        run.queries,
        picture::time(wall.unwrap_or_default()),
        picture::time(percentile(50)),
        picture::time(percentile(99)),
    )
}
