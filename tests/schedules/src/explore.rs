//! Runs schedules, and makes a plan that failed smaller.

use std::cell::{Cell, RefCell};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, Once};
use std::time::{Duration, Instant, SystemTime};
use std::{mem, panic, thread};

use shuttle::{Config, FailurePersistence, MaxSteps, Runner};

use crate::check::Tally;
use crate::perform::perform;
use crate::plan::Plan;
use crate::scheduler::Seeded;
use crate::user::pause;
use crate::world::{lock, World};
use crate::{bugs, dice, sync};

/// A schedule that takes more steps than this makes no progress.
const MAX_STEPS: usize = 100_000;

/// How many schedules of a smaller plan are tried before it is taken to be right.
const TRIES: u64 = 1_500;

std::thread_local! {
    static SUM: RefCell<Sum> = RefCell::default();
    static FAULT: RefCell<Option<String>> = const { RefCell::new(None) };
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

#[derive(Clone, Copy, Default)]
pub(crate) struct Sum {
    pub(crate) schedules: u64,
    pub(crate) tally: Tally,
}

/// Why a schedule failed. The seed replays it, with its plan or with the one that is given.
pub(crate) struct Failure {
    pub(crate) seed: u64,
    /// How many had been run by then.
    pub(crate) schedules: u64,
    pub(crate) fault: String,
}

/// The payload that ends a schedule whose fault is noted.
struct Faulty;

/// One schedule.
fn schedule(plan: &Plan, seed: u64) {
    dice::reset(seed ^ 0xD1CE);
    sync::reset(plan.spurious);
    let world = World::set_up(plan);
    let threads: Vec<_> = (plan.threads.iter().cloned())
        .map(|steps| {
            let world = world.clone();
            shuttle::thread::spawn(move || {
                let performed = catch_unwind(AssertUnwindSafe(|| {
                    for step in &steps {
                        perform(&world, step, 0);
                        pause();
                    }
                }));
                if performed.is_err() {
                    let panic = PANIC.take().unwrap_or_default();
                    world.fault(|| format!("a panic has left a call: {panic}"));
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("it catches its panics");
    }
    loop {
        let job = lock(&world.jobs).pop();
        let Some(job) = job else { break };
        job.join().expect("it catches its panics");
    }
    for deferred in mem::take(&mut *lock(&world.deferred)) {
        deferred.record(&world);
    }
    match world.tear_down() {
        Ok(tally) => SUM.with_borrow_mut(|sum| {
            sum.schedules += 1;
            sum.tally.add(&tally);
        }),
        Err(fault) => {
            FAULT.set(Some(fault));
            panic::resume_unwind(Box::new(Faulty));
        }
    }
}

fn config() -> Config {
    let mut config = Config::new();
    config.stack_size = 1 << 18;
    config.failure_persistence = FailurePersistence::None;
    config.max_steps = MaxSteps::FailAfter(MAX_STEPS);
    config.silence_warnings = true;
    config
}

/// Replaces the panic hook, and shuttle's, which it puts in when it first runs.
fn hush() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let seeds = [0];
        let mut seeds = seeds.into_iter();
        let scheduler = Seeded::new(move || seeds.next(), Rc::default());
        Runner::new(scheduler, config()).run(|| {});
        panic::set_hook(Box::new(|info| {
            let text = info.to_string();
            let _ = PANIC.try_with(|it| it.replace(Some(text)));
        }));
    });
}

/// Runs schedules with these seeds until one fails. The plan is the seed's own, unless one is given.
pub(crate) fn run(
    plan: Option<&Plan>,
    next_seed: impl FnMut() -> Option<u64> + 'static,
) -> Result<(), Failure> {
    hush();
    let current = Rc::new(Cell::new(0));
    let scheduler = Seeded::new(next_seed, Rc::clone(&current));
    std::thread_local! {
        static SEED: RefCell<Rc<Cell<u64>>> = RefCell::default();
    }
    SEED.set(Rc::clone(&current));
    let plan = plan.cloned();
    FAULT.take();
    PANIC.take();
    let ran = catch_unwind(AssertUnwindSafe(|| {
        Runner::new(scheduler, config()).run(move || {
            let seed = SEED.with_borrow(|seed| seed.get());
            match &plan {
                Some(plan) => schedule(plan, seed),
                None => schedule(&Plan::from_seed(seed), seed),
            }
        })
    }));
    match ran {
        Ok(_) => Ok(()),
        Err(_) => Err(Failure {
            seed: current.get(),
            schedules: 1,
            fault: (FAULT.take())
                .or_else(|| PANIC.take())
                .unwrap_or_else(|| "an unknown panic".to_owned()),
        }),
    }
}

/// The first words of a fault, to tell whether two are of one kind.
fn kind(fault: &str) -> &str {
    let fault = fault.split_once("rule: ").map_or(fault, |(_, rule)| rule);
    let end = fault.find(|c: char| !c.is_alphabetic() && c != ' ');
    &fault[..end.unwrap_or(fault.len())]
}

/// Drops threads, steps and options as long as some schedule of what is left fails alike.
fn shrink(seed: u64, failure: Failure, until: Instant) -> (Plan, Failure) {
    let (mut plan, mut failure) = (Plan::from_seed(seed), failure);
    'smaller: loop {
        for smaller in plan.smaller() {
            if Instant::now() > until {
                break 'smaller;
            }
            let mut seeds = [failure.seed].into_iter().chain(0..TRIES);
            let ran = run(Some(&smaller), move || seeds.next());
            if let Err(smaller_failure) = ran {
                if kind(&smaller_failure.fault) == kind(&failure.fault) {
                    (plan, failure) = (smaller, smaller_failure);
                    continue 'smaller;
                }
            }
        }
        break;
    }
    (plan, failure)
}

/// Explores on all processors until then, or until a schedule fails.
pub(crate) fn explore(first_seed: u64, until: Instant, progress: bool) -> Result<Sum, Failure> {
    let threads = thread::available_parallelism().map_or(1, |n| n.get());
    let next = std::sync::Arc::new(AtomicU64::new(first_seed));
    let stop = std::sync::Arc::new(AtomicBool::new(false));
    let failure = Mutex::new(None);
    let began = Instant::now();
    hush();
    let sums: Vec<Sum> = thread::scope(|scope| {
        let explore = || {
            let (next, stop) = (next.clone(), stop.clone());
            let next_seed = move || {
                let goes_on = !stop.load(Relaxed) && Instant::now() < until;
                goes_on.then(|| next.fetch_add(1, Relaxed))
            };
            (run(None, next_seed), SUM.take())
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(explore)).collect();
        let mut shown = began;
        while progress && !workers.iter().all(|worker| worker.is_finished()) {
            thread::sleep(Duration::from_millis(100));
            if shown.elapsed() > Duration::from_secs(15) {
                shown = Instant::now();
                let schedules = next.load(Relaxed) - first_seed;
                eprintln!("{:>5} s  {schedules} schedules", began.elapsed().as_secs());
            }
            if workers.iter().any(|worker| worker.is_finished()) {
                stop.store(true, Relaxed);
            }
        }
        let mut sums = Vec::new();
        for worker in workers {
            let (ran, sum) = worker.join().expect("it catches its panics");
            if let Err(mut fault) = ran {
                stop.store(true, Relaxed);
                fault.schedules = next.load(Relaxed) - first_seed;
                lock(&failure).get_or_insert(fault);
            }
            sums.push(sum);
        }
        sums
    });
    if let Some(failure) = failure.into_inner().unwrap_or_else(|it| it.into_inner()) {
        return Err(failure);
    }
    let mut sum = Sum::default();
    for one in sums {
        sum.schedules += one.schedules;
        sum.tally.add(&one.tally);
    }
    Ok(sum)
}

struct Arguments {
    time: Duration,
    seed: Option<u64>,
    /// The first seed to explore.
    from: u64,
    shrinks: bool,
    bugs: bool,
    patches: Option<PathBuf>,
    only: Option<String>,
}

impl Arguments {
    fn parse() -> Result<Self, String> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let mut arguments = Self {
            time: Duration::from_secs(90),
            seed: None,
            from: now.map_or(0, |now| now.as_secs()) << 24,
            shrinks: true,
            bugs: false,
            patches: None,
            only: None,
        };
        let mut rest = std::env::args().skip(1);
        while let Some(name) = rest.next() {
            let mut text = || rest.next().ok_or(format!("{name} needs a value"));
            let mut number = || {
                let number = text()?.parse::<u64>();
                number.map_err(|error| format!("{name}: {error}"))
            };
            match &*name {
                "--no-shrink" => arguments.shrinks = false,
                "--bugs" => arguments.bugs = true,
                "--patches" => arguments.patches = Some(text()?.into()),
                "--only" => arguments.only = Some(text()?),
                "--minutes" => arguments.time = Duration::from_secs(number()?.saturating_mul(60)),
                "--seconds" => arguments.time = Duration::from_secs(number()?),
                "--seed" => arguments.seed = Some(number()?),
                "--from" => arguments.from = number()?,
                _ => return Err(format!("{name} is not an option")),
            }
        }
        Ok(arguments)
    }
}

const USAGE: &str = "usage: schedules [--minutes N | --seconds N] [--from SEED] [--seed SEED] \
                     [--no-shrink]\n       schedules --bugs [--seconds N] [--only NAME] [--patches CHECKOUT]";

pub(crate) fn main() -> ExitCode {
    let arguments = match Arguments::parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("{error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    if arguments.bugs {
        let seconds = arguments.time.as_secs();
        return bugs::main(seconds, arguments.patches, arguments.only.as_deref());
    }
    let began = Instant::now();
    let explored = match arguments.seed {
        Some(seed) => {
            let mut seeds = [seed].into_iter();
            run(None, move || seeds.next()).map(|()| SUM.take())
        }
        None => explore(arguments.from, began + arguments.time, true),
    };
    match explored {
        Ok(sum) => {
            let seconds = began.elapsed().as_secs_f64();
            println!("{} schedules in {seconds:.1} s, and no fault", sum.schedules);
            println!("{:#?}", sum.tally);
            ExitCode::SUCCESS
        }
        Err(failure) => {
            report(failure, arguments.shrinks);
            ExitCode::FAILURE
        }
    }
}

fn report(failure: Failure, shrinks: bool) {
    let seed = failure.seed;
    let (schedules, fault) = (failure.schedules, &failure.fault);
    println!("seed {seed} fails after {schedules} schedules: {fault}");
    println!("to replay it: cargo run --release -p schedules -- --seed {seed}");
    if shrinks {
        println!("making it smaller, for a minute at most");
        let until = Instant::now() + Duration::from_secs(60);
        let (plan, failure) = shrink(seed, failure, until);
        println!("{plan}");
        println!("fails with the schedule {}: {}", failure.seed, failure.fault);
    } else {
        println!("{}", Plan::from_seed(seed));
    }
}

#[test]
fn a_few_schedules_keep_the_rules() {
    let mut seeds = 0..400;
    if let Err(failure) = run(None, move || seeds.next()) {
        report(failure, true);
        panic!("a schedule failed");
    }
    let Sum { schedules, tally } = SUM.take();
    println!("{tally:#?}");
    assert_eq!(schedules, 400);
    let Tally {
        led,
        values,
        failures,
        panics,
        textless_panics,
        abandonments,
        left,
        timed_out,
        overloaded,
        queued,
        forgotten,
        overlaps,
        ..
    } = tally;
    for happened in [
        led,
        values,
        failures,
        panics,
        textless_panics,
        abandonments,
        left,
        timed_out,
        overloaded,
        queued,
        forgotten,
        overlaps,
    ] {
        assert!(happened > 5, "{tally:#?}");
    }
}
