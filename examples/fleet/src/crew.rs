//! What the demo and the tests play with: a Redis, a database, and workers, which are processes.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use parking_lot::{Condvar, Mutex};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

/// Nothing here takes nearly as long, unless something hangs.
pub const LIMIT: Duration = Duration::from_secs(30);
pub const PROCESSES: usize = 4;
/// Of each process.
pub const THREADS: usize = 50;

/// Waits for something that is bound to happen.
pub fn until(what: &str, mut happened: impl FnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    while !happened() {
        ensure!(Instant::now() < deadline, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// A redis-server of our own.
pub struct RedisServer {
    pub process: Process,
    port: u16,
    directory: TempDir,
}

impl RedisServer {
    /// `None` where redis-server is not installed.
    pub fn start(arguments: &[&str]) -> Result<Option<Self>> {
        loop {
            let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
            let directory = tempfile::tempdir()?;
            let process = match spawn_redis(port, directory.path(), arguments) {
                Ok(process) => process,
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error).context("cannot start redis-server"),
            };
            let mut server = Self { process, port, directory };
            if server.is_up()? {
                return Ok(Some(server));
            }
            // Another program took the port meanwhile. Another one, then.
        }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn connect(&self) -> redis::RedisResult<redis::Connection> {
        let client = redis::Client::open(self.url())?;
        client.get_connection_with_timeout(Duration::from_secs(2))
    }

    pub fn restart(&mut self) -> Result<()> {
        self.process = spawn_redis(self.port, self.directory.path(), &[])?;
        ensure!(self.is_up()?, "redis-server ended");
        Ok(())
    }

    /// Waits until it answers (`true`) or has ended (`false`).
    fn is_up(&mut self) -> Result<bool> {
        let mut up = false;
        until("redis-server answers", || {
            up = self.connect().is_ok();
            up || !matches!(self.process.0.try_wait(), Ok(None))
        })?;
        Ok(up)
    }
}

fn spawn_redis(port: u16, directory: &Path, arguments: &[&str]) -> std::io::Result<Process> {
    Command::new("redis-server")
        .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
        .args(["--save", "", "--appendonly", "no", "--dir"])
        .arg(directory)
        .args(arguments)
        .stdout(Stdio::null())
        .spawn()
        .map(Process)
}

/// A database that counts its queries. A query is a line over TCP, with the name of the process; its
/// answer is a line that names the key and the round. It answers a round when it is told to.
pub struct Database {
    pub address: SocketAddr,
    state: Arc<(Mutex<Round>, Condvar)>,
}

#[derive(Default)]
struct Round {
    number: u64,
    /// Up to this round, queries are answered.
    answered: u64,
    queries: Vec<Query>,
}

#[derive(Clone, Debug)]
pub struct Query {
    pub by: usize,
    pub at: Instant,
}

impl Database {
    /// Its threads end with the process.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let state = Arc::<(Mutex<Round>, Condvar)>::default();
        let all = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let state = Arc::clone(&all);
                // Fails if the client is killed.
                thread::spawn(move || answer(client, &state));
            }
        });
        Ok(Self { address, state })
    }

    fn begin_round(&self, number: u64) {
        let mut round = self.state.0.lock();
        round.number = number;
        round.queries.clear();
    }

    /// Answers the queries of this round: those that wait, and those that are still to come.
    pub fn answer(&self) {
        let mut round = self.state.0.lock();
        round.answered = round.number;
        self.state.1.notify_all();
    }

    /// Those of this round, in order.
    pub fn queries(&self) -> Vec<Query> {
        self.state.0.lock().queries.clone()
    }
}

fn answer(client: TcpStream, (state, answered): &(Mutex<Round>, Condvar)) -> Result<()> {
    let mut line = String::new();
    BufReader::new(&client).read_line(&mut line)?;
    let (by, key) = line.trim().split_once(' ').context("not a query")?;
    let (by, at) = (by.parse()?, Instant::now());
    let mut round = state.lock();
    let number = round.number;
    round.queries.push(Query { by, at });
    answered.wait_while(&mut round, |round| round.answered < number);
    drop(round);
    writeln!(&client, "{}", row(key, number))?;
    Ok(())
}

/// What the database has for a key in a round: a caller that is told anything else was
/// told wrong.
pub fn row(key: &str, round: u64) -> String {
    format!("{key} in round {round}")
}

/// The query, as a worker sends it.
pub fn query(database: SocketAddr, by: usize, key: &str) -> Result<String> {
    let mut connection = TcpStream::connect(database)?;
    writeln!(connection, "{by} {key}")?;
    let mut row = String::new();
    BufReader::new(connection).read_line(&mut row)?;
    ensure!(row.ends_with('\n'), "the database has gone away");
    Ok(row.trim().to_owned())
}

/// What a worker is to do. Its only argument, as JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    pub name: usize,
    pub database: SocketAddr,
    pub sharing: Sharing,
    pub redis: String,
    pub lock: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sharing {
    Unshared,
    Local,
    Both,
}

/// What a worker says: a line of JSON. What it is told is a key.
#[derive(Debug, Serialize, Deserialize)]
pub enum Said {
    /// All threads of the worker are in the call, and none of them came too late to share.
    AllIn,
    Done {
        /// How many threads got which answer, or which error.
        answers: BTreeMap<String, usize>,
        /// Functions that ran without a lock, or lost it.
        unlocked: usize,
    },
}

/// The processes of a fleet, and their database.
pub struct Crew {
    pub database: Database,
    pub workers: Vec<Worker>,
    program: PathBuf,
    job: Job,
}

impl Crew {
    pub fn start(program: &Path, redis: &str, sharing: Sharing, lock: Duration) -> Result<Self> {
        let database = Database::start()?;
        let job =
            Job { name: 0, database: database.address, sharing, redis: redis.to_owned(), lock };
        let workers = (0..PROCESSES).map(|name| Worker::start(program, &job, name));
        Ok(Self {
            workers: workers.collect::<Result<_>>()?,
            program: program.to_owned(),
            database,
            job,
        })
    }

    pub fn replace(&mut self, name: usize) -> Result<()> {
        self.workers[name] = Worker::start(&self.program, &self.job, name)?;
        Ok(())
    }

    /// All threads of all workers ask.
    pub fn order(&mut self, round: u64, key: &str) -> Result<()> {
        self.database.begin_round(round);
        let mut workers = self.workers.iter_mut();
        workers.try_for_each(|worker| worker.order(key))
    }
}

/// A worker process.
pub struct Worker {
    pub process: Process,
    orders: ChildStdin,
    said: Receiver<Said>,
}

impl Worker {
    fn start(program: &Path, job: &Job, name: usize) -> Result<Self> {
        let job = Job { name, ..job.clone() };
        let mut process = Command::new(program)
            .args(["worker", &serde_json::to_string(&job)?])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start a worker")?;
        let orders = process.stdin.take().context("no stdin")?;
        let lines = BufReader::new(process.stdout.take().context("no stdout")?).lines();
        let (say, said) = mpsc::channel();
        thread::spawn(move || {
            // Ends with the worker, and the receiver then learns that nothing more will come.
            let said = lines.map_while(|line| serde_json::from_str(&line.ok()?).ok());
            let _ = said.map(|said| say.send(said)).find(Result::is_err);
        });
        Ok(Self { process: Process(process), orders, said })
    }

    fn order(&mut self, key: &str) -> Result<()> {
        writeln!(self.orders, "{key}").context("a worker has ended")
    }

    fn hear(&self) -> Result<Said> {
        let said = self.said.recv_timeout(LIMIT);
        said.context("a worker hangs or has ended")
    }

    pub fn all_in(&self) -> Result<()> {
        let said = self.hear()?;
        ensure!(matches!(said, Said::AllIn), "not in turn: {said:?}");
        Ok(())
    }

    /// All its threads have this answer. Returns how many functions ran without a lock.
    pub fn done(&self, answer: &str) -> Result<usize> {
        let Said::Done { answers, unlocked } = self.hear()? else {
            bail!("not in turn");
        };
        let right = BTreeMap::from([(answer.to_owned(), THREADS)]);
        ensure!(answers == right, "wrong answers: {answers:?}");
        Ok(unlocked)
    }
}

/// A process that does not outlive this.
pub struct Process(pub Child);

impl Process {
    /// `kill -9`.
    pub fn kill(&mut self) {
        // Fails if it has ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
