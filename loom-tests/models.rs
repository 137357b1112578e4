//! `cargo models`: runs every model over the shipped sources, where it has to pass, and the models
//! named with each seeded bug over sources with that bug, where each has to fail. Prints a table of
//! both, and fails if a model fails or a bug is not caught.
//!
//! `cargo models WORD` takes only the bugs whose names contain the word, and no other model.

mod bugs;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use std::{env, fs, io, thread};

use bugs::{Bug, Sources};

/// For one model. The longest takes less than two minutes on an idle machine, and no bug is caught
/// by taking long.
const LIMIT: Duration = Duration::from_secs(300);

fn main() -> ExitCode {
    let only = env::args().skip(1).find(|arg| !arg.starts_with('-'));
    match run(only.as_deref()) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(failures) => {
            eprintln!("{failures} failed");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Returns the number of models that failed and of bugs that were not caught.
fn run(only: Option<&str>) -> io::Result<usize> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources = bugs::read_sources(root)?;
    // All bugs have to apply before any model runs.
    let bugs = read_bugs(root, &sources, only)?;
    let workshop = Workshop::new(root)?;
    let begun = Instant::now();
    let mut failed = 0;
    if only.is_none() {
        let caught: BTreeSet<_> = bugs.iter().flat_map(|(bug, _)| &bug.caught_by).collect();
        failed += run_models(&workshop, &sources, |model| caught.contains(model))?;
        println!();
    }
    failed += run_bugs(&workshop, &bugs, only.is_some());
    println!("\n{failed} failed, {} s", begun.elapsed().as_secs());
    Ok(failed)
}

/// The bugs that were asked for, each with the sources that have it.
fn read_bugs(
    root: &Path,
    sources: &Sources,
    only: Option<&str>,
) -> io::Result<Vec<(Bug, Sources)>> {
    let only = only.unwrap_or_default().to_lowercase();
    let mut seeded = Vec::new();
    for (file, bug) in bugs::read_all(root)? {
        let fault = |why| io::Error::new(io::ErrorKind::InvalidData, format!("{file}: {why}"));
        let bug = bug.map_err(fault)?;
        let mut sources = sources.clone();
        bug.apply(&mut sources).map_err(fault)?;
        if bug.name.to_lowercase().contains(&only) {
            seeded.push((bug, sources));
        }
    }
    if seeded.is_empty() {
        return Err(io::Error::other("no seeded bug has that in its name"));
    }
    Ok(seeded)
}

/// Runs every model over the sources as they are. Returns the number that failed.
fn run_models(
    workshop: &Workshop,
    sources: &Sources,
    is_caught: impl Fn(&String) -> bool,
) -> io::Result<usize> {
    eprintln!("building the models …");
    let models = workshop.build("shipped", sources, Build::Fast)?;
    println!("{:<60}{:>26}{:>9}{:>7}", "model", "executions", "seconds", "bound");
    let names = models.names()?;
    let mut failed = 0;
    in_parallel(
        &names,
        |_, model| models.run(model),
        |model, report| {
            let seconds = report.time.as_secs_f32();
            match &report.verdict {
                Verdict::Passed { executions, bound } => {
                    println!("{model:<60}{executions:>26}{seconds:>9.1}{bound:>7}");
                }
                Verdict::Failed(why) | Verdict::Unknown(why) => {
                    println!("{model:<60}{:>26}{seconds:>9.1}  {why}", "FAILED");
                    failed += 1;
                }
            }
        },
    );
    println!("executions: with 0, 1 and 2 spurious wake-ups; bound: preemptions of a thread");
    for model in names.iter().filter(|model| !is_caught(model)) {
        println!("no seeded bug names {model}");
    }
    Ok(failed)
}

/// Runs the models that have to catch each bug. Returns the number that did not.
fn run_bugs(workshop: &Workshop, bugs: &[(Bug, Sources)], say_why: bool) -> usize {
    println!("{:<52}caught by", "seeded bug");
    let mut failed = 0;
    in_parallel(
        bugs,
        |worker, (bug, sources)| {
            let needed = Build::Only(&bug.caught_by);
            let models = workshop.build(&format!("seeded-{worker}"), sources, needed)?;
            let reports = bug.caught_by.iter().map(|model| models.run(model));
            Ok(reports.collect::<Vec<_>>())
        },
        |(bug, _), reports: io::Result<_>| {
            let name = &bug.name;
            match reports {
                Err(error) => {
                    println!("{name:<52}NOT at all: {error}");
                    failed += 1;
                }
                Ok(reports) => {
                    for (i, (model, report)) in bug.caught_by.iter().zip(reports).enumerate() {
                        let name = if i == 0 { name } else { "" };
                        match report.verdict {
                            Verdict::Failed(why) => {
                                println!("{name:<52}{model}: {why}");
                                continue;
                            }
                            Verdict::Passed { .. } => println!("{name:<52}NOT by {model}"),
                            Verdict::Unknown(why) => println!("{name:<52}NOT by {model}: {why}"),
                        }
                        failed += 1;
                    }
                }
            }
            if say_why {
                println!("{}\n", bug.why);
            }
        },
    );
    failed
}

/// Does `work` for each item, as many at once as there are processors, and calls `done` with the
/// results in the order of the items. Each worker has a number.
fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    work: impl Fn(usize, &T) -> R + Sync,
    mut done: impl FnMut(&T, R),
) {
    let next = AtomicUsize::new(0);
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let (results, received) = mpsc::channel();
    thread::scope(|scope| {
        for worker in 0..workers {
            let (next, work, results) = (&next, &work, results.clone());
            scope.spawn(move || {
                while let Some((i, item)) = take_next(items, next) {
                    let result = work(worker, item);
                    results.send((i, result)).expect("received until all end");
                }
            });
        }
        drop(results);
        let mut early = BTreeMap::new();
        let mut left = items.iter().enumerate().peekable();
        for (i, result) in received {
            early.insert(i, result);
            while let Some(result) = left.peek().and_then(|(i, _)| early.remove(i)) {
                let (_, item) = left.next().expect("it was there");
                done(item, result);
            }
        }
    });
}

fn take_next<'a, T>(items: &'a [T], next: &AtomicUsize) -> Option<(usize, &'a T)> {
    let i = next.fetch_add(1, Ordering::Relaxed);
    Some((i, items.get(i)?))
}

/// Builds the models over sources that may have a bug, below the target directory.
///
/// It calls the compiler itself. So each build takes only the models that it needs, and all of them
/// share the loom that cargo has built for this program.
struct Workshop {
    root: &'static Path,
    /// Where the builds go.
    folder: PathBuf,
    loom: PathBuf,
}

/// What a build is for.
#[derive(Clone, Copy)]
enum Build<'a> {
    /// All models, which run long.
    Fast,
    /// Some models, which fail soon: then most of the time would go into optimising.
    Only(&'a [String]),
}

impl Workshop {
    fn new(root: &'static Path) -> io::Result<Self> {
        // .../target/loom/release/deps/models-0123 -> .../target/loom
        let exe = env::current_exe()?;
        let target = exe.ancestors().nth(3).expect("cargo puts it there");
        // Has nothing to build, and says where everything is.
        let output = Command::new(env!("CARGO"))
            .args(["models", "--no-run", "--message-format", "json"])
            .current_dir(root)
            .stderr(Stdio::inherit())
            .output()?;
        let loom = library(&String::from_utf8_lossy(&output.stdout), "loom");
        Ok(Self {
            root,
            folder: target.join("models"),
            loom: loom.ok_or_else(|| io::Error::other("cargo names no loom"))?,
        })
    }

    fn build(&self, name: &str, sources: &Sources, build: Build) -> io::Result<Models> {
        let package = self.folder.join(name);
        for folder in ["src", "loom-tests", "docs"] {
            fs::create_dir_all(package.join(folder))?;
        }
        // The version that the page on the algorithm begins with has a model of its own.
        let page = "docs/algorithm.rs";
        fs::copy(self.root.join(page), package.join(page))?;
        for (file, text) in sources {
            fs::write(package.join(file), text)?;
        }
        for entry in fs::read_dir(self.root.join("loom-tests"))? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                let text = fs::read(entry.path())?;
                fs::write(package.join("loom-tests").join(entry.file_name()), text)?;
            }
        }
        let main = package.join("loom-tests/main.rs");
        let mut rustc = Command::new(env::var_os("RUSTC").unwrap_or("rustc".into()));
        match build {
            Build::Fast => {
                rustc.args(["-C", "opt-level=3"]);
            }
            Build::Only(models) => {
                let text = fs::read_to_string(&main)?;
                fs::write(&main, with_models(&text, models))?;
                rustc.arg(join("-Cincremental=", &package.join("incremental")));
            }
        }
        let binary = package.join("models");
        let output = rustc
            .args(["--edition", "2021", "--crate-name", "models", "--test"])
            .args(["--cfg", "loom", "-C", "debug-assertions", "-A", "warnings"])
            .arg(join("--extern=loom=", &self.loom))
            .arg(join("-Ldependency=", self.loom.parent().expect("a file")))
            .arg("-o")
            .args([&binary, &main])
            .output()?;
        if output.status.success() {
            return Ok(Models { binary });
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let place = package.display();
        Err(io::Error::other(format!("{place} does not build:\n{said}")))
    }
}

fn join(option: &str, path: &Path) -> OsString {
    let mut joined = OsString::from(option);
    joined.push(path);
    joined
}

/// `main.rs` without the files of models that are not needed.
fn with_models(main: &str, needed: &[String]) -> String {
    let is_needed = |line: &&str| match line.strip_prefix("mod model_") {
        Some(rest) => needed.iter().any(|model| {
            let (file, _) = model.split_once("::").expect("checked by seeded_bugs.rs");
            file.strip_prefix("model_") == rest.strip_suffix(';')
        }),
        None => true,
    };
    let lines = main.lines().filter(is_needed);
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// Finds `"…/libNAME-0123.rlib"` in cargo's messages.
fn library(messages: &str, name: &str) -> Option<PathBuf> {
    let strings = messages.split('"').map(Path::new);
    let mut libraries = strings.filter(|path| path.extension().is_some_and(|e| e == "rlib"));
    let found = libraries.find(|path| {
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        let stem = stem.and_then(|stem| stem.strip_prefix("lib"));
        stem.and_then(|stem| stem.rsplit_once('-')).is_some_and(|(stem, _)| stem == name)
    });
    found.map(Path::to_owned)
}

/// The models, built. Each runs in a process of its own, because loom aborts on a deadlock.
struct Models {
    binary: PathBuf,
}

struct Report {
    verdict: Verdict,
    time: Duration,
}

enum Verdict {
    /// With what `explore.rs` prints.
    Passed { executions: String, bound: String },
    /// And why.
    Failed(String),
    /// It took too long, or could not be run.
    Unknown(String),
}

impl Models {
    fn names(&self) -> io::Result<Vec<String>> {
        let output = Command::new(&self.binary).arg("--list").output()?;
        let list = String::from_utf8_lossy(&output.stdout);
        let names = list.lines().filter_map(|line| line.strip_suffix(": test"));
        Ok(names.map(str::to_owned).collect())
    }

    fn run(&self, model: &str) -> Report {
        let begun = Instant::now();
        let verdict = self.verdict(model);
        Report {
            verdict: verdict.unwrap_or_else(|error| Verdict::Unknown(error.to_string())),
            time: begun.elapsed(),
        }
    }

    fn verdict(&self, model: &str) -> io::Result<Verdict> {
        let child = Command::new(&self.binary)
            .args(["--exact", model, "--nocapture"])
            .env("RUST_BACKTRACE", "0")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let output = output_within(child, LIMIT)?;
        if !output.status.success() {
            let why = why(&String::from_utf8_lossy(&output.stderr));
            // Nearly any change has that effect: it is no proof that the model can fail.
            if why == "executions, by spurious wake-ups" {
                return Err(io::Error::other("only the number of executions changed"));
            }
            return Ok(Verdict::Failed(why));
        }
        let stdout = String::from_utf8_lossy(&output.stdout);
        if !stdout.contains("1 passed") {
            return Err(io::Error::other("there is no such model"));
        }
        let find = |what| stdout.lines().find_map(|line| line.split_once(what));
        let value = |what| find(what).map_or("", |(_, value)| value).to_owned();
        Ok(Verdict::Passed { executions: value("executions: "), bound: value("bound: ") })
    }
}

/// The first panic's message, on one line. The line before it names the thread and the place.
fn why(stderr: &str) -> String {
    let mut lines = stderr.lines().skip_while(|line| !line.contains("panicked at"));
    let message = lines.nth(1).unwrap_or("died without a message").trim();
    match message.strip_prefix("assertion `left == right` failed: ") {
        Some(assertion) => assertion.to_owned(),
        None if message.starts_with("deadlock") => "deadlock".to_owned(),
        None => message.to_owned(),
    }
}

/// Waits for the child, and ends it when it takes too long: then that is an error, neither a pass
/// nor a catch.
fn output_within(mut child: Child, limit: Duration) -> io::Result<Output> {
    let (mut stdout, mut stderr) = (child.stdout.take(), child.stderr.take());
    let out = thread::spawn(move || stdout.as_mut().map(read_all));
    let err = thread::spawn(move || stderr.as_mut().map(read_all));
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if begun.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            let seconds = limit.as_secs();
            return Err(io::Error::other(format!("took over {seconds} s")));
        }
        thread::sleep(Duration::from_millis(5));
    };
    Ok(Output {
        status,
        stdout: out.join().expect("reads").unwrap_or_default(),
        stderr: err.join().expect("reads").unwrap_or_default(),
    })
}

fn read_all(from: &mut impl io::Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    // What cannot be read is not reported; the exit status still is.
    let _ = from.read_to_end(&mut bytes);
    bytes
}
