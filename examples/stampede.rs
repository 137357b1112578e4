//! A stampede: the cache entry that everybody wants has expired, and 200 requests miss at once.
//!
//! The same service runs twice, without shared calls and with them. Its database has eight
//! connections and takes 50 ms for a query.
//!
//! ```sh
//! cargo run --release --example stampede
//! ```

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Barrier, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use shared_calls::{CallError, FlightGroup, SharedCalls, Unshared};

const REQUESTS: usize = 200;
const CONNECTIONS: usize = 8;
const QUERY: Duration = Duration::from_millis(50);

fn main() -> io::Result<()> {
    println!("{REQUESTS} requests miss the same expired cache entry at once. The database has");
    let ms = QUERY.as_millis();
    println!("{CONNECTIONS} connections and takes {ms} ms for a query.\n");

    let without = stampede("without shared calls", &Unshared)?;
    let with = stampede("with shared calls", &FlightGroup::<_, _>::new())?;

    table(&without, &with);
    let span = without.last().max(with.last());
    picture("without", &without, span);
    picture("with", &with, span);
    Ok(())
}

/// A service that reads through its cache to its database. Only `calls` differs between the runs.
struct Service<'a> {
    calls: &'a dyn SharedCalls<String, io::Error>,
    cache: Mutex<Option<String>>,
    database: Database,
}

impl Service<'_> {
    fn user(&self) -> Result<String, CallError<io::Error>> {
        self.calls.call("user:42", || {
            if let Some(user) = self.cached() {
                return Ok(user); // Another call has filled the cache in the meantime.
            }
            let user = self.database.query()?;
            *self.cache.lock().unwrap() = Some(user.clone());
            Ok(user)
        })
    }

    fn cached(&self) -> Option<String> {
        self.cache.lock().unwrap().clone()
    }
}

/// Runs as many queries at a time as it has connections. The others wait.
struct Database {
    free: Mutex<usize>,
    freed: Condvar,
    queries: AtomicUsize,
}

impl Database {
    fn query(&self) -> io::Result<String> {
        let free = self.free.lock().unwrap();
        *self.freed.wait_while(free, |free| *free == 0).unwrap() -= 1;
        self.queries.fetch_add(1, Ordering::Relaxed);
        thread::sleep(QUERY);
        *self.free.lock().unwrap() += 1;
        self.freed.notify_one();
        Ok("Ada".to_owned())
    }
}

struct Report {
    queries: usize,
    /// How long each request took, the fastest first.
    latencies: Vec<Duration>,
}

impl Report {
    fn last(&self) -> Duration {
        self.latencies[REQUESTS - 1]
    }
}

/// Runs the requests, each on a thread of its own, and shows how many have been answered.
fn stampede(name: &str, calls: &dyn SharedCalls<String, io::Error>) -> io::Result<Report> {
    let service = Service {
        calls,
        cache: Mutex::new(None),
        database: Database {
            free: Mutex::new(CONNECTIONS),
            freed: Condvar::new(),
            queries: AtomicUsize::new(0),
        },
    };
    let all_have_missed = Barrier::new(REQUESTS);
    let answered = AtomicUsize::new(0);
    let request = || {
        assert_eq!(service.cached(), None);
        all_have_missed.wait();
        let begin = Instant::now();
        assert_eq!(service.user().unwrap(), "Ada");
        answered.fetch_add(1, Ordering::Relaxed);
        begin.elapsed()
    };
    let mut latencies = thread::scope(|scope| -> io::Result<Vec<_>> {
        let requests: Vec<_> = (0..REQUESTS).map(|_| scope.spawn(request)).collect();
        show_progress(name, &answered)?;
        let requests = requests.into_iter();
        Ok(requests.map(|request| request.join().unwrap()).collect())
    })?;
    latencies.sort_unstable();
    Ok(Report { queries: service.database.queries.into_inner(), latencies })
}

/// On a terminal, a line that is updated until all are answered. Otherwise, a line at the end.
fn show_progress(name: &str, answered: &AtomicUsize) -> io::Result<()> {
    let mut out = io::stdout();
    loop {
        let n = answered.load(Ordering::Relaxed);
        let line = format!("{name}: {n} of {REQUESTS} requests answered");
        if out.is_terminal() {
            write!(out, "\r{line:<70}")?;
            out.flush()?;
        }
        if n == REQUESTS {
            match out.is_terminal() {
                true => writeln!(out)?,
                false => writeln!(out, "{line}")?,
            }
            return Ok(());
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn table(without: &Report, with: &Report) {
    let row = |name, a: String, b: String| println!("{name:<26}{a:>12}{b:>12}");
    let latency = |name, i: usize| {
        let of = |report: &Report| format!("{} ms", report.latencies[i].as_millis());
        row(name, of(without), of(with));
    };
    println!();
    row("", "without".to_owned(), "with".to_owned());
    let queries = |report: &Report| report.queries.to_string();
    row("queries to the database", queries(without), queries(with));
    latency("first answer", 0);
    latency("half of the answers", REQUESTS / 2 - 1);
    latency("last answer", REQUESTS - 1);
}

/// How many requests are still waiting, over time. Without a terminal the picture is plain ASCII.
fn picture(name: &str, report: &Report, span: Duration) {
    const WIDTH: usize = 60;
    const HEIGHT: usize = 5;
    let levels: &[char] = match io::stdout().is_terminal() {
        true => &[' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'],
        false => &[' ', '#'],
    };
    let full = levels.len() - 1;
    let waiting_at = |column: usize| {
        let now = span * column as u32 / WIDTH as u32;
        report.latencies.partition_point(|latency| *latency <= now)
    };
    println!("\n{name}: requests still waiting");
    for row in (0..HEIGHT).rev() {
        let axis = match row == HEIGHT - 1 {
            true => REQUESTS.to_string(),
            false => String::new(),
        };
        let cell = |column| {
            let waiting = REQUESTS - waiting_at(column);
            // Rounded up, so that a single request is seen.
            let height = (waiting * HEIGHT * full + REQUESTS - 1) / REQUESTS;
            levels[height.saturating_sub(row * full).min(full)]
        };
        let cells: String = (0..WIDTH).map(cell).collect();
        println!("{axis:>5} |{}", cells.trim_end());
    }
    let (begin, end) = ("0 ms", format!("{} ms", span.as_millis()));
    println!("    0 +{}", "-".repeat(WIDTH));
    println!("       {begin}{end:>width$}", width = WIDTH - begin.len());
}
