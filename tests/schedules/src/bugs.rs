//! Shows that the schedules can fail: builds them over the sources with one seeded bug after the
//! other, and runs each until it is caught.
//!
//! The bugs are those of `loom-tests/bugs`. Many of them are about order. What cannot be caught here
//! is listed below, with the reason.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, io, thread};

#[path = "../../../loom-tests/bugs.rs"]
mod patches;
use patches::{read_all, read_sources, Bug, Sources};

/// By the names of the files, without the ending.
const NOT_CAUGHT_HERE: [(&str, &str); 24] = [
    (
        "counts-its-own-limit-as-a-way-out",
        "a wait with a limit may end at any step, so no history can tell that the reason came late",
    ),
    (
        "does-not-read-the-turn-under-the-graphs-lock",
        "too rare: the turn has to come between two locks, in a ring",
    ),
    (
        "follows-a-wait-to-a-flight-that-has-ended",
        "too rare: a leader has to land and to wait again before its follower has woken, in a ring",
    ),
    ("forgets-and-unwinds-with-the-next-value", "no value here has a `Drop` that panics"),
    ("gives-up-the-place-of-another-waiter", "no two threads wait with the same follower here"),
    (
        "gives-the-flight-in-front-of-a-join-up",
        "an age may have passed on arrival as well, so no history can tell",
    ),
    ("gives-two-outcomes-to-one-call", "no two threads wait with the same follower here"),
    ("refuses-a-call-that-has-its-outcome", "no two threads wait with the same follower here"),
    ("lands-although-nobody-follows", "not about order: it only costs more"),
    ("lands-for-a-ticket-that-was-dropped", "not about order: it only costs more"),
    (
        "leaves-waits-for-a-flight-that-was-given-up",
        "too rare: a ring has to close before a queued caller has woken for its turn",
    ),
    (
        "lets-a-passed-deadline-beat-an-outcome",
        "a deadline may pass at any step, so no history can tell",
    ),
    (
        "lets-an-age-limit-beat-a-deadline",
        "too rare: only a call that gives flights up for ever takes too many steps",
    ),
    (
        "lets-a-turn-beat-a-deadline",
        "a deadline may pass between the look at it and the lead, so no history can tell",
    ),
    (
        "looks-and-forgets-under-two-locks",
        "where a `forget` overlaps with other calls, the checker takes what is plausible",
    ),
    (
        "looks-at-the-age-before-the-own-key",
        "not about order: the caller gives up its own flight, as `forget` may",
    ),
    ("makes-every-flight-a-latch", "not about order: it only costs more"),
    ("reads-the-clock-on-arrival", "not about order: it only costs more"),
    (
        "starts-the-deadline-again-at-a-takeover",
        "each wait may end by its deadline at any step, so the caller only waits for longer",
    ),
    (
        "starts-the-deadline-again-at-each-wake-up",
        "each wait may end by its deadline at any step, so the caller only waits for longer",
    ),
    (
        "takes-over-after-its-deadline",
        "a deadline may pass between the look at it and the lead, so no history can tell",
    ),
    (
        "tells-the-graph-of-a-turn-after-unlocking",
        "too rare: a ring has to close between two locks",
    ),
    (
        "unwinds-with-the-value-of-a-flight-that-it-gave-up",
        "no value here has a `Drop` that panics",
    ),
    ("unwinds-with-the-value-of-the-next-flight", "no value here has a `Drop` that panics"),
];

/// A workspace of its own, that is built quickly. What stays the same is built well.
const PROFILE: &str = "
[workspace]

[profile.release]
opt-level = 0
debug = 0

[profile.release.package.\"*\"]
opt-level = 2
";

/// How long a bug is looked for that is not expected to be found.
const FEW_SECONDS: u64 = 10;

/// Looks for each bug for so many `seconds`. `patches` is a checkout of the project whose bugs are
/// used, if it is not this one. `only` is a part of a name.
pub(crate) fn main(seconds: u64, patches: Option<PathBuf>, only: Option<&str>) -> ExitCode {
    match all(seconds, patches, only) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

fn all(seconds: u64, patches: Option<PathBuf>, only: Option<&str>) -> io::Result<bool> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let workshop = Workshop::set_up(&root)?;
    let sources = read_sources(&root)?;
    let mut fine = true;
    println!("| bug | schedules until it is caught | by |\n|---|---|---|");
    for (file, bug) in read_all(&patches.unwrap_or(root))? {
        let name = file.rsplit('/').next().unwrap_or(&file);
        let name = name.trim_end_matches(".patch");
        if only.is_some_and(|only| !name.contains(only)) {
            continue;
        }
        let reason = NOT_CAUGHT_HERE.iter().find(|(of, _)| *of == name);
        let limit = match reason {
            None => seconds,
            Some(_) => FEW_SECONDS.min(seconds),
        };
        let found = workshop.try_bug(&sources, bug, limit)?;
        let (schedules, by) = match (found, reason) {
            (Found::Caught { schedules, by }, None) => (schedules, by),
            (Found::Caught { schedules, by }, Some((_, reason)))
                if reason.starts_with("too rare") =>
            {
                (schedules, by)
            }
            (Found::Caught { schedules, by }, Some(_)) => {
                fine = false;
                (schedules, format!("{by} (is listed as not to be caught)"))
            }
            (Found::NotCaught(schedules), Some((_, reason))) => {
                (format!("not in {schedules}"), (*reason).to_owned())
            }
            (Found::NotCaught(schedules), None) => {
                fine = false;
                (format!("**not in {schedules}**"), String::new())
            }
            (Found::NotBuilt(why), _) => {
                fine = false;
                ("-".to_owned(), why)
            }
        };
        println!("| {name} | {schedules} | {by} |");
    }
    Ok(fine)
}

enum Found {
    Caught { schedules: String, by: String },
    NotCaught(String),
    NotBuilt(String),
}

/// A copy of what is needed to build this package.
struct Workshop {
    root: PathBuf,
}

impl Workshop {
    fn set_up(project: &Path) -> io::Result<Self> {
        let root = project.join("target/schedules-bugs");
        for folder in ["src", "tests/schedules/src", "tests/history", "loom-tests"] {
            fs::create_dir_all(root.join(folder))?;
        }
        let mut files = vec![
            "tests/history/check.rs".to_owned(),
            "tests/schedules/Cargo.toml".to_owned(),
            "tests/schedules/build.rs".to_owned(),
            "loom-tests/bugs.rs".to_owned(),
        ];
        for entry in fs::read_dir(project.join("tests/schedules/src"))? {
            let name = entry?.file_name();
            files.push(format!("tests/schedules/src/{}", name.to_string_lossy()));
        }
        let workshop = Self { root };
        for file in files {
            let mut text = fs::read_to_string(project.join(&file))?;
            if file.ends_with("Cargo.toml") {
                text.push_str(PROFILE);
            }
            workshop.write(&file, &text)?;
        }
        Ok(workshop)
    }

    /// Not if it is there already, so that cargo has less to build.
    fn write(&self, file: &str, text: &str) -> io::Result<()> {
        let path = self.root.join(file);
        match fs::read_to_string(&path) {
            Ok(old) if old == text => Ok(()),
            _ => fs::write(path, text),
        }
    }

    fn try_bug(
        &self,
        sources: &Sources,
        bug: Result<Bug, String>,
        seconds: u64,
    ) -> io::Result<Found> {
        let mut sources = sources.clone();
        if let Err(why) = bug.and_then(|bug| bug.apply(&mut sources)) {
            let first = why.lines().next().unwrap_or_default();
            return Ok(Found::NotBuilt(format!("does not apply: {first}")));
        }
        for (file, text) in &sources {
            self.write(file, text)?;
        }
        let cargo = env::var_os("CARGO").unwrap_or("cargo".into());
        let built = Command::new(cargo)
            .args(["build", "--release", "--quiet", "--target-dir", "target"])
            .args(["--manifest-path", "tests/schedules/Cargo.toml"])
            .current_dir(&self.root)
            .output()?;
        if !built.status.success() {
            let errors = String::from_utf8_lossy(&built.stderr);
            let first = errors.lines().find(|line| line.starts_with("error"));
            let first = first.unwrap_or("cargo failed");
            return Ok(Found::NotBuilt(format!("does not compile: {first}")));
        }
        self.run(seconds)
    }

    fn run(&self, seconds: u64) -> io::Result<Found> {
        let output = self.root.join("output");
        let mut child = Command::new(self.root.join("target/release/schedules"))
            .args(["--no-shrink", "--from", "0", "--seconds", &seconds.to_string()])
            .stdout(fs::File::create(&output)?)
            .stderr(Stdio::null())
            .spawn()?;
        // A bug may make a thread loop without an end and without a step.
        let guard = Instant::now() + Duration::from_secs(seconds + 15);
        let status = loop {
            match child.try_wait()? {
                Some(status) => break Some(status),
                None if Instant::now() > guard => {
                    child.kill()?;
                    child.wait()?;
                    break None;
                }
                None => thread::sleep(Duration::from_millis(20)),
            }
        };
        let text = fs::read_to_string(&output)?;
        let words = |text: &str| text.split_whitespace().next().unwrap_or_default().to_owned();
        let Some(status) = status else {
            return Ok(Found::Caught {
                schedules: "some".to_owned(),
                by: "it runs for ever".to_owned(),
            });
        };
        if status.success() {
            return Ok(Found::NotCaught(words(&text)));
        }
        let failure = text.split_once(" fails after ");
        let Some((schedules, fault)) = failure.and_then(|(_, it)| it.split_once(" schedules: "))
        else {
            return Ok(Found::Caught {
                schedules: "some".to_owned(),
                by: format!("the process ends with {status}"),
            });
        };
        Ok(Found::Caught { schedules: words(schedules), by: short(fault) })
    }
}

/// A fault in a few words.
fn short(fault: &str) -> String {
    if let Some((_, rule)) = fault.split_once("rule: ") {
        let rule = rule.split(',').next().unwrap_or_default();
        return format!("the rule `{rule}`");
    }
    if fault.contains("deadlock!") {
        return "a thread that waits for ever".to_owned();
    }
    let line = fault.lines().next().unwrap_or_default();
    let line = line.split(": Step").next().unwrap_or_default();
    line.chars().take(90).collect::<String>().replace('|', "/")
}
