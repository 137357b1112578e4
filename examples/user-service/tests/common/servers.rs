//! Servers of one's own, each on a free port of this machine, in a directory that goes with it.
//! When one of these is dropped, its server is gone.
#![allow(dead_code)] // The load report uses it, too, and not everything.

use std::cmp::Reverse;
use std::fs::File;
use std::io::{stderr, ErrorKind, Result, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use postgres::NoTls;
use redis::{Commands, RedisResult};
use tempfile::TempDir;

pub struct Redis {
    process: Mutex<Child>,
    port: u16,
    directory: TempDir,
}

impl Redis {
    /// `None`, and the test is to be skipped, where redis-server is not installed. In CI it must
    /// be.
    pub fn start() -> Option<Arc<Self>> {
        loop {
            let port = free_port();
            let directory = tempfile::tempdir().unwrap();
            let process = match Self::spawn(port, &directory) {
                Ok(process) => Mutex::new(process),
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    return not_installed("redis-server");
                }
                Err(error) => panic!("{error}"),
            };
            let redis = Self { process, port, directory };
            if redis.is_up() {
                return Some(Arc::new(redis));
            }
            // Someone else took the port meanwhile. Another one, then.
        }
    }

    fn spawn(port: u16, directory: &TempDir) -> Result<Child> {
        Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
            .args(["--save", "", "--appendonly", "no", "--dir"])
            .arg(directory.path())
            .stdout(Stdio::null())
            .spawn()
    }

    fn is_up(&self) -> bool {
        is_up(&self.process, || self.connect().is_ok())
    }

    pub fn kill(&self) {
        let mut process = self.process.lock().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    pub fn restart(&self) {
        *self.process.lock().unwrap() = Self::spawn(self.port, &self.directory).unwrap();
        assert!(self.is_up());
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn connect(&self) -> RedisResult<redis::Connection> {
        let client = redis::Client::open(self.url())?;
        let mut connection = client.get_connection_with_timeout(Duration::from_secs(1))?;
        let () = connection.ping()?;
        Ok(connection)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// With pg_stat_statements, by which the server itself tells what it was asked.
pub struct Postgres {
    programs: PathBuf,
    process: Mutex<Child>,
    port: u16,
    directory: TempDir,
}

impl Postgres {
    /// `None`, and the test is to be skipped, where PostgreSQL is not installed. In CI it must be.
    pub fn start() -> Option<Arc<Self>> {
        let Some(programs) = postgres_programs() else {
            return not_installed("postgresql");
        };
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        if is_root() {
            run(Command::new("chown").arg("postgres").arg(at));
        }
        run(postgres_program(&programs, "initdb", at)
            .args(["--username=postgres", "--auth=trust", "--encoding=UTF8"])
            .args(["--no-locale", "--no-sync"]));
        let port = free_port();
        let mut postgres = Self {
            process: Mutex::new(Self::spawn(&programs, port, at)),
            programs,
            port,
            directory,
        };
        let mut attempts = 1;
        while !postgres.is_up() {
            // Someone else took the port meanwhile. Another one, then.
            let log = std::fs::read_to_string(postgres.directory.path().join("log"));
            assert!(attempts < 5, "PostgreSQL does not start: {log:?}");
            attempts += 1;
            postgres.port = free_port();
            postgres.spawn_again();
        }
        let extension = "CREATE EXTENSION pg_stat_statements";
        postgres.connect().batch_execute(extension).unwrap();
        Some(Arc::new(postgres))
    }

    fn spawn(programs: &Path, port: u16, directory: &Path) -> Child {
        let log = File::create(directory.join("log")).unwrap();
        let mut command = postgres_program(programs, "postgres", directory);
        for setting in [
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            &format!("port={port}"),
            "shared_preload_libraries=pg_stat_statements",
            // Nobody needs the data after a crash of the machine.
            "fsync=off",
        ] {
            command.args(["-c", setting]);
        }
        command.stdout(Stdio::null()).stderr(log).spawn().unwrap()
    }

    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    pub fn connect(&self) -> postgres::Client {
        self.try_connect().unwrap()
    }

    fn try_connect(&self) -> std::result::Result<postgres::Client, postgres::Error> {
        postgres::Client::connect(&self.url(), NoTls)
    }

    fn is_up(&self) -> bool {
        is_up(&self.process, || self.try_connect().is_ok())
    }

    /// How often the service's query was run, as the server counts: by all, since it started.
    pub fn queries(&self) -> i64 {
        let mut client = self.connect();
        let counted = "SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_statements
                       WHERE query = 'SELECT name::text, email::text FROM users WHERE id = $1'";
        client.query_one(counted, &[]).unwrap().get(0)
    }

    /// Stops at once, in the middle of whatever it does: as in a crash, without a word to clients.
    pub fn kill(&self) {
        let mut process = self.process.lock().unwrap();
        signal("QUIT", process.id());
        // Should it be stopped by a SIGSTOP.
        signal("CONT", process.id());
        process.wait().unwrap();
    }

    pub fn restart(&self) {
        self.spawn_again();
        assert!(self.is_up());
    }

    fn spawn_again(&self) {
        let at = self.directory.path();
        *self.process.lock().unwrap() = Self::spawn(&self.programs, self.port, at);
    }

    pub fn id(&self) -> u32 {
        self.process.lock().unwrap().id()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
    }
}

/// In front of a `Postgres`, with two connections to it, used in turn.
pub struct PgBouncer {
    process: Mutex<Child>,
    port: u16,
    program: PathBuf,
    directory: TempDir,
}

impl PgBouncer {
    /// `None`, and the test is to be skipped, where PgBouncer is not installed. In CI it must be.
    pub fn start(postgres: &Postgres, settings: &str) -> Option<Self> {
        // Debian keeps it where only root looks.
        let Some(program) = installed("pgbouncer", [PathBuf::from("/usr/sbin")]) else {
            return not_installed("pgbouncer");
        };
        loop {
            let program = program.clone();
            let port = free_port();
            let directory = tempfile::tempdir().unwrap();
            let at = directory.path();
            let users = at.join("users");
            std::fs::write(&users, "\"postgres\" \"\"\n").unwrap();
            let configuration = format!(
                "[databases]
                 postgres = host=127.0.0.1 port={}
                 [pgbouncer]
                 listen_addr = 127.0.0.1
                 listen_port = {port}
                 unix_socket_dir =
                 auth_type = trust
                 auth_file = {}
                 default_pool_size = 2
                 server_round_robin = 1
                 server_login_retry = 1
                 {settings}",
                postgres.port,
                users.display(),
            );
            let configuration = configuration.replace("                 ", "");
            std::fs::write(at.join("pgbouncer.ini"), configuration).unwrap();
            if is_root() {
                run(Command::new("chown").args(["-R", "postgres"]).arg(at));
            }
            let pgbouncer =
                Self { process: Mutex::new(Self::spawn(&program, at)), port, program, directory };
            if pgbouncer.is_up() {
                return Some(pgbouncer);
            }
            // Someone else took the port meanwhile. Another one, then.
        }
    }

    fn spawn(program: &Path, directory: &Path) -> Child {
        let log = File::create(directory.join("log")).unwrap();
        let mut command = not_as_root(program);
        command.arg(directory.join("pgbouncer.ini"));
        command.stdout(Stdio::null()).stderr(log).spawn().unwrap()
    }

    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    pub fn connect(&self) -> postgres::Client {
        postgres::Client::connect(&self.url(), NoTls).unwrap()
    }

    fn is_up(&self) -> bool {
        is_up(&self.process, || postgres::Client::connect(&self.url(), NoTls).is_ok())
    }

    pub fn kill(&self) {
        let mut process = self.process.lock().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    pub fn restart(&self) {
        *self.process.lock().unwrap() = Self::spawn(&self.program, self.directory.path());
        assert!(self.is_up());
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Where PostgreSQL's programs are: on the PATH, or where Debian has them, the newest version.
fn postgres_programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let mut versions: Vec<_> = versions.map(|version| version.unwrap().path()).collect();
    let number = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    versions.sort_by_key(|version| Reverse(number(version)));
    let initdb = installed("initdb", versions.iter().map(|version| version.join("bin")))?;
    Some(initdb.parent()?.to_owned())
}

/// A program on the PATH or in one of these directories.
fn installed(program: &str, others: impl IntoIterator<Item = PathBuf>) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain(others);
    let mut programs = directories.map(|directory| directory.join(program));
    programs.find(|program| program.exists())
}

fn postgres_program(programs: &Path, name: &str, directory: &Path) -> Command {
    let mut command = not_as_root(&programs.join(name));
    command.arg("-D").arg(directory.join("data"));
    command.current_dir(directory);
    command
}

/// PostgreSQL and PgBouncer refuse to run as root.
fn not_as_root(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
    // It ends with the thread that started it, should that be killed before it can say so.
    command.arg("--pdeathsig=QUIT");
    command.arg(program);
    command
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().unwrap();
    id.stdout == b"0\n"
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}

pub fn signal(name: &str, process: u32) {
    let command = format!("kill -{name} {process}");
    run(Command::new("sh").args(["-c", &command]));
}

fn free_port() -> u16 {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    free.local_addr().unwrap().port()
}

/// Waits until the server answers (`true`) or has ended (`false`).
fn is_up(process: &Mutex<Child>, answers: impl Fn() -> bool) -> bool {
    let mut up = false;
    until(|| {
        up = answers();
        up || process.lock().unwrap().try_wait().unwrap().is_some()
    });
    up
}

fn not_installed<T>(what: &str) -> Option<T> {
    assert!(std::env::var_os("CI").is_none(), "no {what}");
    // Not `eprintln!`, which is not shown for a test that passes.
    let _ = writeln!(stderr(), "SKIPPED: {what} is not installed");
    None
}

/// Waits for something that is bound to happen.
pub fn until(mut happened: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !happened() {
        assert!(Instant::now() < deadline, "waited in vain");
        thread::sleep(Duration::from_millis(1));
    }
}
