//! Who hangs when a function asks for a key whose function is running?
//!
//! Two probes of each peer: a function that asks for its own key, and two whose functions ask for
//! each other's. Each runs in a child process, because a thread that hangs cannot be ended.
//!
//! ```text
//! cargo run --release -p peers --bin hangs   # a table; exit code 1 if shared-calls hangs
//! ```

use std::any::Any;
use std::env;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use peers::guard::{self, Guarded};
use peers::{all, Peer, Value, SHARED_CALLS};
use shared_calls::Panicked;

type Probe = (&'static str, fn(&dyn Peer));

const PROBES: [Probe; 2] = [("own key", own_key), ("each other's keys", each_others)];

/// Who has not come back this long after asking hangs.
const LIMIT: Duration = Duration::from_secs(3);

/// A library that runs one function at a time, whatever its key, never has two meet.
const TO_MEET: Duration = Duration::from_secs(2);

fn main() -> io::Result<ExitCode> {
    let args: Vec<_> = env::args().skip(1).collect();
    match &args[..] {
        [] => table(),
        [peer, probe] => {
            child(peer, probe);
            Ok(ExitCode::SUCCESS)
        }
        _ => {
            eprintln!("usage: hangs [PEER PROBE]");
            Ok(ExitCode::FAILURE)
        }
    }
}

// The parent.

fn table() -> io::Result<ExitCode> {
    let mut rows = Vec::new();
    let mut remarks = Vec::new();
    let mut well = true;
    for peer in all() {
        eprintln!("{} …", peer.name());
        let [own, others] = thread::scope(|scope| {
            PROBES
                .map(|(probe, _)| (peer.name(), probe))
                .map(|(peer, probe)| scope.spawn(move || guard::run(&[peer, probe], LIMIT)))
                .map(|guarded| guarded.join().expect("it does not panic"))
        });
        let verdicts = [verdict(&own?, &["a"]), verdict(&others?, &["a", "b"])];
        for ((probe, _), verdict) in PROBES.iter().zip(&verdicts) {
            let remark = |remark| format!("{}, {probe}: {remark}", peer.name());
            remarks.extend(verdict.remarks.iter().map(remark));
            well &= peer.name() != SHARED_CALLS || !verdict.hangs;
        }
        let [own, others] = verdicts.map(|verdict| verdict.words);
        rows.push([peer.name(), peer.version(), &own, &others].map(str::to_owned));
    }

    let [own, others] = PROBES.map(|(probe, _)| probe);
    rows.insert(0, ["", "version", own, others].map(str::to_owned));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let [name, version, own] = [0, 1, 2].map(|column| width(column).unwrap_or(0));
    for [a, b, c, d] in &rows {
        println!("{a:name$}   {b:version$}   {c:own$}   {d}");
    }
    if !remarks.is_empty() {
        println!("\n{}", remarks.join("\n"));
    }
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct Verdict {
    words: String,
    remarks: Vec<String>,
    hangs: bool,
}

/// What became of those who asked, by what they said.
fn verdict(guarded: &Guarded, askers: &[&str]) -> Verdict {
    let mut remarks = Vec::new();
    let mut fates: Vec<_> = askers.iter().map(|asker| fate(guarded, asker, &mut remarks)).collect();
    // Which of the two it hits is chance.
    fates.sort_by_key(|fate| fate == GOES_ON);
    fates.dedup();
    let words = match &fates[..] {
        [one, other] => format!("one {one}, the other {other}"),
        _ => fates.concat(),
    };
    Verdict { hangs: words.contains(HANGS), words, remarks }
}

const HANGS: &str = "hangs";

/// What became of one who asked: in a word or two, and whatever takes more is a remark.
fn fate(Guarded { lines, status }: &Guarded, asker: &str, remarks: &mut Vec<String>) -> String {
    let mut words = Vec::new();
    let mut over = false;
    for said in lines.iter().filter_map(|line| line.strip_prefix(asker)?.strip_prefix(' ')) {
        match said {
            ASKS => {}
            ALONE => remarks
                .push("the other's function did not even begin while this one's ran".to_owned()),
            OVER => over = true,
            outcome => {
                words.push(outcome.split(": ").next().unwrap_or(outcome).to_owned());
                if outcome.contains(": ") {
                    remarks.push(outcome.to_owned());
                }
            }
        }
    }
    match status {
        None if !over => words.push(HANGS.to_owned()),
        Some(status) if !status.success() => words.push(format!("dies ({status})")),
        _ => {}
    }
    words.join(", then ")
}

// The child. Of each that asks, it prints how far it came.

const ASKS: &str = "asks";
const ALONE: &str = "alone";
const GOES_ON: &str = "goes on";
const OVER: &str = "over";

fn child(peer: &str, probe: &str) {
    guard::end_with_parent();
    // A panic is an outcome here, and printed as one.
    panic::set_hook(Box::new(|_| ()));
    let peers = all();
    let peer = peers.iter().find(|known| known.name() == peer);
    let probe = PROBES.iter().find(|(known, _)| *known == probe);
    let (_, probe) = probe.expect("the parent knows the probes");
    probe(&**peer.expect("the parent knows the peers"));
}

/// A function that asks for its own key, on the same thread.
fn own_key(peer: &dyn Peer) {
    let own = Asker::new("a");
    own.call(peer, || own.ask(peer, &own));
}

/// Two threads, whose functions ask for each other's keys once both are running.
fn each_others(peer: &dyn Peer) {
    let (a, b) = (Asker::new("a"), Asker::new("b"));
    thread::scope(|scope| {
        for (own, other) in [(&a, &b), (&b, &a)] {
            scope.spawn(move || {
                own.call(peer, || {
                    if !other.begins() {
                        own.says(ALONE);
                    }
                    own.ask(peer, other);
                })
            });
        }
    });
}

/// A caller for the key that is its name. In its function it asks for another.
struct Asker {
    name: &'static str,
    /// Its function has begun; it may have ended.
    begun: AtomicBool,
    running: AtomicBool,
}

impl Asker {
    fn new(name: &'static str) -> Self {
        Self { name, begun: AtomicBool::new(false), running: AtomicBool::new(false) }
    }

    fn call(&self, peer: &dyn Peer, inside: impl Fn()) {
        let called = panic::catch_unwind(AssertUnwindSafe(|| {
            peer.call(self.name, &mut || {
                self.running.store(true, Ordering::SeqCst);
                self.begun.store(true, Ordering::SeqCst);
                inside();
                self.running.store(false, Ordering::SeqCst);
                Ok(Value(1))
            })
        }));
        match called {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => self.says(&format!("fails: {error}")),
            Err(payload) => self.says(&panics(&*payload)),
        }
        self.says(OVER);
    }

    fn ask(&self, peer: &dyn Peer, other: &Self) {
        let mut twice = false;
        self.says(ASKS);
        let asked = panic::catch_unwind(AssertUnwindSafe(|| {
            peer.call(other.name, &mut || {
                twice = other.running.load(Ordering::SeqCst);
                Ok(Value(2))
            })
        }));
        self.says(&match asked {
            Ok(_) if twice => "runs twice".to_owned(),
            Ok(Ok(_)) => GOES_ON.to_owned(),
            Ok(Err(error)) => format!("refused: {error}"),
            Err(payload) => panics(&*payload),
        });
    }

    /// Waits until this one's function has begun. False if it does not come to that.
    fn begins(&self) -> bool {
        let asked = Instant::now();
        while !self.begun.load(Ordering::SeqCst) {
            if asked.elapsed() > TO_MEET {
                return false;
            }
            thread::sleep(Duration::from_millis(1));
        }
        true
    }

    fn says(&self, what: &str) {
        println!("{} {}", self.name, what.replace('\n', " "));
    }
}

fn panics(payload: &(dyn Any + Send)) -> String {
    let panicked = Panicked::of(payload);
    format!("panics: {}", panicked.message().unwrap_or("(no text)"))
}
