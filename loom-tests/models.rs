//! `cargo models`: runs every model over the shipped sources, where it has to pass, and the models
//! named with each seeded bug over sources that have it, where each has to fail. Prints a table of
//! both and fails if either disappoints.
//!
//! `cargo models WORD` takes only the bugs whose names contain the word, and no other model.

mod bugs;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Output, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, io, thread};

use bugs::{Edit, BUGS};

/// No model takes longer than some two minutes, and none is caught by taking long.
const PATIENCE: Duration = Duration::from_secs(600);

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

/// Gives the number of models that failed and of bugs that were not caught.
fn run(only: Option<&str>) -> io::Result<usize> {
    let workshop = Workshop::new()?;
    let (mut passed, mut failed) = (0, 0);
    let mut count = |good: bool| if good { passed += 1 } else { failed += 1 };

    if only.is_none() {
        let models = workshop.build(&[])?;
        println!(
            "{:<58}{:>8}  executions, by spurious wake-ups",
            "model", "seconds"
        );
        for model in models.names()? {
            let begun = Instant::now();
            let report = models.run(&model)?;
            let seconds = begun.elapsed().as_secs_f32();
            let verdict = match &report {
                Report::Passed { executions } => executions.as_str(),
                Report::Failed { why } => why.as_str(),
            };
            println!("{model:<58}{seconds:>8.1}  {verdict}");
            count(matches!(report, Report::Passed { .. }));
        }
        println!();
    }

    println!("{:<52}caught by", "seeded bug");
    for bug in BUGS {
        if only.is_some_and(|word| !bug.name.contains(word)) {
            continue;
        }
        print!("{:<52}", bug.name);
        io::stdout().flush()?;
        let models = workshop.build(bug.edits)?;
        for (i, model) in bug.caught_by.iter().enumerate() {
            let indent = if i == 0 { 0 } else { 52 };
            let report = models.run(model)?;
            match &report {
                Report::Passed { .. } => println!("{:indent$}NOT by {model}", ""),
                Report::Failed { why } => println!("{:indent$}{model}: {why}", ""),
            }
            count(matches!(report, Report::Failed { .. }));
        }
    }
    if passed + failed == 0 {
        return Err(io::Error::other("no seeded bug has that in its name"));
    }
    println!("\n{passed} passed, {failed} failed");
    Ok(failed)
}

/// A package of its own below the target directory, in which the models are built over sources that
/// may have a bug.
struct Workshop {
    package: PathBuf,
    target: PathBuf,
}

impl Workshop {
    fn new() -> io::Result<Self> {
        // .../target/loom/release/deps/models-0123 -> .../target/loom
        let exe = env::current_exe()?;
        let target = exe.ancestors().nth(3).expect("cargo puts it there");
        let package = target.join("seeded");
        fs::create_dir_all(&package)?;
        // The same loom as the models themselves were built with.
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let manifest = fs::read_to_string(root.join("Cargo.toml"))?;
        let loom = manifest.lines().find(|line| line.starts_with("loom = "));
        let loom = loom.expect("loom is a dev-dependency");
        fs::write(
            package.join("Cargo.toml"),
            format!(
                "[package]\nname = \"seeded\"\nedition = \"2021\"\n[dependencies]\n{loom}\n\
                 [lib]\npath = \"empty.rs\"\n[workspace]\n\
                 [profile.dev]\ndebug = false\n[profile.dev.package.loom]\nopt-level = 3\n\
                 [[test]]\nname = \"loom\"\npath = \"loom-tests/main.rs\"\n"
            ),
        )?;
        fs::write(package.join("empty.rs"), "")?;
        Ok(Self {
            target: package.join("target"),
            package,
        })
    }

    /// Copies the sources, makes the edits and builds the models.
    fn build(&self, edits: &[Edit]) -> io::Result<Models> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        for folder in ["src", "loom-tests"] {
            copy(&root.join(folder), &self.package.join(folder))?;
        }
        for (file, from, to) in edits {
            let path = self.package.join("src").join(file);
            let text = fs::read_to_string(&path)?;
            let places = text.matches(from).count();
            if places != 1 {
                return Err(io::Error::other(format!(
                    "{file} has this text {places} times, not once; bring the bug up to date:\n{from}"
                )));
            }
            fs::write(&path, text.replace(from, to))?;
        }
        // A bug is caught soon: then most of the time would go into optimising the build.
        let profile = if edits.is_empty() { "release" } else { "dev" };
        let output = Command::new(env!("CARGO"))
            .args(["test", "--profile", profile, "--test", "loom", "--no-run"])
            .args(["--message-format", "json-render-diagnostics"])
            .arg("--target-dir")
            .arg(&self.target)
            .env("RUSTFLAGS", "--cfg loom -C debug-assertions -A warnings")
            .current_dir(&self.package)
            .stderr(Stdio::piped())
            .output()?;
        let binary = executable(&String::from_utf8_lossy(&output.stdout));
        match binary {
            Some(binary) if output.status.success() => Ok(Models { binary }),
            _ => Err(io::Error::other(format!(
                "does not build:\n{}",
                String::from_utf8_lossy(&output.stderr)
            ))),
        }
    }
}

/// Finds `"executable":"…"` in cargo's messages.
fn executable(messages: &str) -> Option<PathBuf> {
    let (_, rest) = messages.rsplit_once("\"executable\":\"")?;
    let (path, _) = rest.split_once('"')?;
    Some(PathBuf::from(path))
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::write(to.join(entry.file_name()), fs::read(entry.path())?)?;
    }
    Ok(())
}

/// The models, built. Each runs in a process of its own, because loom aborts on a deadlock.
struct Models {
    binary: PathBuf,
}

enum Report {
    Passed { executions: String },
    Failed { why: String },
}

impl Models {
    fn names(&self) -> io::Result<Vec<String>> {
        let output = Command::new(&self.binary).arg("--list").output()?;
        let list = String::from_utf8_lossy(&output.stdout);
        let names = list.lines().filter_map(|line| line.strip_suffix(": test"));
        Ok(names.map(str::to_owned).collect())
    }

    fn run(&self, model: &str) -> io::Result<Report> {
        let child = Command::new(&self.binary)
            .args(["--exact", model, "--nocapture"])
            .env("RUST_BACKTRACE", "0")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let output = output_within(child, PATIENCE)?;
        let stdout = String::from_utf8_lossy(&output.stdout);
        let stderr = String::from_utf8_lossy(&output.stderr);
        if output.status.success() {
            if !stdout.contains("1 passed") {
                return Err(io::Error::other(format!("there is no model {model}")));
            }
            let executions = stdout
                .lines()
                .find_map(|line| line.split_once("executions: "));
            let executions = executions.map_or("", |(_, counts)| counts).to_owned();
            return Ok(Report::Passed { executions });
        }
        Ok(Report::Failed { why: why(&stderr) })
    }
}

/// The first panic's message, on one line. The line before it names the thread and the place.
fn why(stderr: &str) -> String {
    let mut lines = stderr
        .lines()
        .skip_while(|line| !line.contains("panicked at"));
    let message = lines.nth(1).unwrap_or("died without a message").trim();
    match message.strip_prefix("assertion `left == right` failed: ") {
        Some(assertion) => assertion.to_owned(),
        None if message.starts_with("deadlock") => "deadlock".to_owned(),
        None => message.to_owned(),
    }
}

/// Waits for the child, and ends it when it takes too long: then that is an error, neither a pass
/// nor a catch.
fn output_within(mut child: Child, patience: Duration) -> io::Result<Output> {
    let id = child.id();
    let (mut stdout, mut stderr) = (child.stdout.take(), child.stderr.take());
    let out = thread::spawn(move || stdout.as_mut().map(read_all));
    let err = thread::spawn(move || stderr.as_mut().map(read_all));
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if begun.elapsed() > patience {
            child.kill()?;
            child.wait()?;
            return Err(io::Error::other(format!(
                "process {id} took over {patience:?}"
            )));
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
