//! The command line.

use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};
use clap::Parser;

use crate::file::{self, Complaint, Target};
use crate::graph::{describe_cycle, forget_found, Graph};
use crate::outcome::{log_file, Broken, Failure, Report};
use crate::record::{Check, Records};
use crate::run::{Options, Run};
use crate::screen::{Screen, DIM, GREEN, RED};
use crate::signals;

/// Builds the targets of a TOML file, in parallel.
///
/// Exit code: 0 all is built, 1 a command failed, 2 the input is wrong, 130 interrupted.
#[derive(Parser)]
#[command(name = "pbuild", version)]
struct Args {
    /// What to build [default: what the file's `needs` say, or else all]
    targets: Vec<String>,
    /// The build file
    #[arg(short, long, default_value = "pbuild.toml")]
    file: String,
    /// Go there before anything else (but `--trace` is where you are)
    #[arg(short = 'C', long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// How many threads build [default: one for each processor]
    #[arg(short, long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
    /// When a command fails, build whatever does not need its target
    #[arg(short, long)]
    keep_going: bool,
    /// Look at the contents of files, not at their times
    #[arg(long)]
    hash: bool,
    /// Say why each target ran and who waited for it
    #[arg(long)]
    explain: bool,
    /// Show each command, and all of the output of those that fail
    #[arg(short, long)]
    verbose: bool,
    /// Write what the threads did, for Perfetto or chrome://tracing
    #[arg(long, value_name = "JSON")]
    trace: Option<PathBuf>,
}

/// The exit code of a build that was interrupted.
pub const INTERRUPTED: u8 = 130;
/// So many lines of a failed command's output are shown of its beginning, and so many of its end.
const LINES: usize = 10;
/// So much of a failed command.
const COMMAND: usize = 2000;

/// The program. The first argument is its name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    // Ends the process with code 2 if the arguments are wrong.
    let args = Args::parse_from(arguments);
    match build(&args) {
        Ok(code) => code,
        Err(error) => {
            complain(&format!("{error:#}"));
            let input = error.downcast_ref::<Complaint>().is_some();
            ExitCode::from(if input { 2 } else { 1 })
        }
    }
}

fn build(args: &Args) -> Result<ExitCode> {
    let began = Instant::now();
    let trace = args.trace.as_ref().map(std::path::absolute).transpose()?;
    if let Some(directory) = &args.directory {
        std::env::set_current_dir(directory).map_err(|error| {
            Complaint::new(format!("cannot go to {}: {error}", directory.display()))
        })?;
    }
    file::read(&args.file)?; // Or nothing is locked.
    let _lock = only_one()?;
    let mut records = Records::load();
    let (graph, order) = plan(args, &mut records)?;
    let threads = match args.jobs {
        Some(jobs) => jobs,
        None => thread::available_parallelism().context("cannot count the processors")?,
    }
    .get();
    let options = Options {
        threads,
        keep_going: args.keep_going,
        check: if args.hash { Check::Hash } else { Check::Time },
    };
    let signals = signals::block().context("cannot block signals")?;
    let screen = Screen::new(args.explain, args.verbose);
    let run = Run::new(graph, order, records, options, screen).context("cannot build")?;
    let run = Arc::new(run);
    signals::answer(signals, Arc::clone(&run));
    let report = run.build();
    run.screen.finish();
    let report = report.context("cannot build")?;

    if args.explain {
        let lines = run.log.who_waited();
        lines.iter().for_each(|line| run.screen.print(line));
    }
    let errors = errors(&report);
    errors.iter().for_each(|(broken, names)| tell(broken, names, args.verbose));
    let summary = summary(&report, errors.len(), began.elapsed());
    let code = code(&report);
    let colour = if code == 0 { GREEN } else { RED };
    let _ = writeln!(anstream::stdout(), "{colour}pbuild:{colour:#} {summary}");
    if let Some(path) = &trace {
        fs::write(path, run.log.trace())
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(ExitCode::from(code))
}

/// All targets, and what is to be built, each after what it needs.
fn plan(args: &Args, records: &mut Records) -> Result<(Graph, Vec<Arc<Target>>), Complaint> {
    loop {
        let mut graph = Graph::default();
        let needs = graph.add(file::read(&args.file)?, records)?;
        let mut wanted = args.targets.clone();
        if let Some(unknown) = wanted.iter().find(|name| graph.get(name).is_none()) {
            let message = format!("there is no target `{unknown}` in {}", args.file);
            return Err(Complaint::new(message));
        }
        if wanted.is_empty() {
            wanted = needs.into_iter().map(|need| need.text).collect();
        }
        let (order, cycle) = graph.order(&wanted);
        match cycle {
            None => return Ok((graph, order)),
            Some(cycle) if forget_found(&cycle, records) => {}
            Some(cycle) => return Err(describe_cycle(&cycle)),
        }
    }
}

/// Two builds in one directory would get in each other's way.
fn only_one() -> Result<File> {
    let path = ".pbuild.lock";
    let file = File::create(path).with_context(|| format!("cannot write {path}"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!("another pbuild is at work in this directory"),
        Err(TryLockError::Error(error)) => Err(error).context(format!("cannot lock {path}")),
    }
}

/// Everything that went wrong, each thing once, with the targets that were not built for it.
fn errors(report: &Report) -> Vec<(&Broken, Vec<&str>)> {
    let mut errors: Vec<(&Broken, Vec<&str>)> = Vec::new();
    for (name, broken) in &report.broken {
        match errors.iter_mut().find(|(other, _)| other.is(broken)) {
            Some((_, names)) => names.push(name),
            None => errors.push((broken, vec![name])),
        }
    }
    errors
}

fn tell(broken: &Broken, names: &[&str], verbose: bool) {
    let mut names = names.to_vec();
    match broken {
        Broken::Failed(failure) => {
            complain(&describe(failure, verbose));
            names.retain(|name| *name != failure.target.text);
        }
        Broken::Input(complaint) => complain(&complaint.to_string()),
        Broken::Stopped => {}
    }
    if !names.is_empty() {
        let names = names.join(", ");
        let _ = writeln!(anstream::stderr(), "not built because of that: {names}");
    }
}

fn code(report: &Report) -> u8 {
    let input = |(_, broken): &(_, Broken)| matches!(broken, Broken::Input(_));
    if report.interrupted {
        INTERRUPTED
    } else if report.broken.iter().any(input) {
        2
    } else if !report.broken.is_empty() || report.left > 0 {
        1
    } else {
        0
    }
}

fn describe(failure: &Failure, verbose: bool) -> String {
    let Failure { target, command, how, output } = failure;
    let (name, at) = (&target.text, &target.at);
    let mut lines: Vec<_> = output.lines().map(|line| format!("\n  | {line}")).collect();
    let mut command = command.clone();
    let log = log_file(name);
    if !verbose && lines.len() > 2 * LINES {
        let hidden = lines.len() - 2 * LINES;
        let note = format!("\n  | ({hidden} lines more in {})", log.display());
        lines.splice(LINES..LINES + hidden, [note]);
    }
    if let (false, Some((end, _))) = (verbose, command.char_indices().nth(COMMAND)) {
        command.replace_range(end.., &format!("… (all of it in {})", log.display()));
    }
    let lines = lines.concat();
    format!("`{name}` ({at}) failed, {how}:\n{DIM}  {command}{DIM:#}{lines}")
}

fn summary(report: &Report, errors: usize, took: Duration) -> String {
    let mut summary = format!("{} built, {} up to date", report.ran, report.up_to_date);
    if errors > 0 {
        summary += &format!(", {errors} failed");
    }
    let left = report.broken.len() - errors + report.left;
    if left > 0 {
        summary += &format!(", {left} not built");
    }
    if report.interrupted {
        summary += ", interrupted";
    }
    summary + &format!(" in {:.2} s", took.as_secs_f64())
}

fn complain(message: &str) {
    let _ = writeln!(anstream::stderr(), "{RED}error:{RED:#} {message}");
}
