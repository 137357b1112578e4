//! The build. Each target is one shared call: whoever needs it first builds it, and whoever needs
//! it meanwhile waits for that.
//!
//! There are `-j` threads, and all do the same, [`work`](Worker::work): look what may be built next
//! and ask for it. To ask is `FlightGroup::start`, whose job is run by the asking thread on the
//! spot. So it comes back when the target is built, or at once with a ticket if another thread is
//! at it. That is why it is not `call`, which would wait for the other thread there and then:
//! [`need`](Worker::need) asks for everything first, which builds what nobody is at, and waits for
//! the tickets last.
//!
//! **No thread idles while something could be built.** [`Board::next`] gives out targets whose
//! needs are all built. A thread that finds none sleeps until a target lands. Only when a single
//! target is being built, nothing else can become ready before it lands; then a thread may just as
//! well ask for a target that needs it and wait inside the call. (What a generated file asks for is
//! needed inside its generator's call. While a thread waits there, it takes up nothing else.)
//!
//! **There is always progress.** A thread that waits for a ticket waits for one that leads a
//! flight. Follow that chain: it ends at a thread that waits for no flight, because a circle is
//! refused (the library's G9). That thread runs a command, for threads that lead nothing are the
//! only ones to sleep. What it builds lands, and every landing wakes all who sleep.
//!
//! **Nothing is built twice.** A group is no cache, so what has been built in this run is looked up
//! inside the shared function, and written down there before the flight lands.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Instant, SystemTime};

use shared_calls::{CallError, FlightGroup, Job, Ticket};

use crate::command::{describe, Commands, Scratch};
use crate::depfile;
use crate::file::{self, Complaint, Target, Word};
use crate::graph::{describe_cycle, Graph};
use crate::log::{Log, What};
use crate::record::{Check, Record, Records};
use crate::screen::Screen;

/// Where a generated file has a long chain of targets, one thread may ask for all of it, each
/// inside the call of the one before. (Memory is only taken as it is used.)
const STACK: usize = 64 << 20;

/// What a target gives to those that need it: the files that it made. One without outputs passes
/// on what it needs itself.
pub struct Built {
    files: Vec<String>,
}

type Ended = Result<Arc<Built>, Broken>;

/// Why a target was not built. Whoever needs it, and whoever needs those, gets the same.
#[derive(Clone, Debug)]
pub enum Broken {
    Failed(Arc<Failure>),
    /// A generated file is wrong, or closes a cycle.
    Input(Arc<Complaint>),
    /// The build was stopped before it came to this.
    Stopped,
}

impl Broken {
    /// Whether it is the very same, not one that looks alike.
    pub fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Failed(one), Self::Failed(other)) => Arc::ptr_eq(one, other),
            (Self::Input(one), Self::Input(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

/// A command that failed.
#[derive(Debug)]
pub struct Failure {
    pub target: Word,
    pub command: String,
    pub how: String,
    /// The end of its output.
    pub output: String,
}

pub struct Options {
    pub threads: usize,
    pub keep_going: bool,
    pub check: Check,
}

pub struct Run {
    options: Options,
    flights: Arc<FlightGroup<Arc<Built>, Broken>>,
    board: Mutex<Board>,
    /// The board has changed: some target has landed, or waits; or the build is to stop.
    changed: Condvar,
    records: Mutex<Records>,
    commands: Commands,
    pub log: Log,
    pub screen: Screen,
    ran: AtomicUsize,
    up_to_date: AtomicUsize,
}

/// What is to be done, what is being done and what is done.
struct Board {
    graph: Graph,
    /// What nobody has begun, each after what it needs.
    todo: Vec<Arc<Target>>,
    at_work: HashMap<String, Phase>,
    done: HashMap<String, Ended>,
    /// For what a target that is being built asks at the moment.
    asks: HashMap<String, Word>,
    stopped: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Phase {
    /// A thread is about to ask for it.
    Given,
    Runs,
    /// For a target that another thread builds.
    Waits,
}

/// How a build ended.
#[derive(Default)]
pub struct Report {
    /// Commands that succeeded.
    pub ran: usize,
    pub up_to_date: usize,
    /// By the names of the targets.
    pub broken: Vec<(String, Broken)>,
    /// Never begun, or interrupted.
    pub left: usize,
    pub interrupted: bool,
}

impl Run {
    pub fn new(graph: Graph, todo: Vec<Arc<Target>>, options: Options, screen: Screen) -> Self {
        screen.expect(todo.len());
        Self {
            options,
            flights: Arc::default(),
            board: Mutex::new(Board {
                graph,
                todo,
                at_work: HashMap::new(),
                done: HashMap::new(),
                asks: HashMap::new(),
                stopped: false,
            }),
            changed: Condvar::new(),
            records: Mutex::new(Records::load()),
            commands: Commands::default(),
            log: Log::default(),
            screen,
            ran: AtomicUsize::new(0),
            up_to_date: AtomicUsize::new(0),
        }
    }

    /// Builds everything, on as many threads as the options say.
    pub fn build(self: &Arc<Self>) -> io::Result<Report> {
        thread::scope(|scope| {
            for number in 1..=self.options.threads {
                let run = Arc::clone(self);
                let worker = Worker { run, number };
                let builder = thread::Builder::new()
                    .name(format!("builder {number}"))
                    .stack_size(STACK);
                let begun = builder.spawn_scoped(scope, move || worker.work());
                // Those that have begun end before this returns.
                begun.inspect_err(|_| self.stop())?;
            }
            io::Result::Ok(())
        })?;
        lock(&self.records).save()?;
        Ok(self.report())
    }

    /// Begins nothing any more.
    fn stop(&self) {
        lock(&self.board).stopped = true;
        self.changed.notify_all();
    }

    /// Ends the build: what runs is sent the signal.
    pub fn interrupt(&self, signal: nix::sys::signal::Signal) {
        self.commands.interrupt(signal);
        self.stop();
    }

    fn report(&self) -> Report {
        let board = lock(&self.board);
        let mut report = Report {
            ran: self.ran.load(Ordering::Relaxed),
            up_to_date: self.up_to_date.load(Ordering::Relaxed),
            left: board.todo.len(),
            interrupted: self.commands.interrupted(),
            ..Report::default()
        };
        for (name, outcome) in &board.done {
            match outcome {
                Ok(_) => {}
                Err(Broken::Stopped) => report.left += 1,
                Err(broken) => report.broken.push((name.clone(), broken.clone())),
            }
        }
        report.broken.sort_by(|a, b| a.0.cmp(&b.0));
        report
    }
}

impl Board {
    /// A target to ask for.
    fn next(&mut self) -> Option<Arc<Target>> {
        let done = |need: &Word| self.done.contains_key(&need.text);
        let runs = |need: &Word| self.at_work.get(&need.text) == Some(&Phase::Runs);
        let mut todo = self.todo.iter();
        if let Some(ready) = todo.position(|target| target.needs.iter().all(done)) {
            return Some(self.take(ready, Phase::Given));
        }
        let busy = self.at_work.values().filter(|p| **p != Phase::Waits);
        if busy.count() == 1 {
            let mut todo = self.todo.iter();
            let next = todo.position(|t| t.needs.iter().all(|n| done(n) || runs(n)))?;
            return Some(self.take(next, Phase::Waits));
        }
        // Nothing is ready, nothing is being built: a circle of generated targets that nobody
        // needs any more. Whoever asks for one will be told.
        (self.at_work.is_empty() && !self.todo.is_empty()).then(|| self.take(0, Phase::Waits))
    }

    fn take(&mut self, index: usize, phase: Phase) -> Arc<Target> {
        let target = self.todo.remove(index);
        self.at_work.insert(target.name.text.clone(), phase);
        target
    }

    /// Those that waited for what is done now count as running before their threads have woken:
    /// they are not nothing.
    fn go_on(&mut self) {
        for (target, phase) in &mut self.at_work {
            let need = self.asks.get(target);
            if need.is_none_or(|need| self.done.contains_key(&need.text)) {
                *phase = Phase::Runs;
            }
        }
    }

    fn is_over(&self) -> bool {
        self.stopped || self.todo.is_empty() && self.at_work.is_empty()
    }
}

/// One of the threads.
#[derive(Clone)]
struct Worker {
    run: Arc<Run>,
    number: usize,
}

impl Worker {
    fn work(&self) {
        let mut board = lock(&self.run.board);
        while !board.is_over() {
            match board.next() {
                Some(target) => {
                    drop(board);
                    // How it ended is on the board, for the report and for those that need it.
                    drop(self.ask(&target.name.text));
                    board = lock(&self.run.board);
                }
                None => {
                    let changed = self.run.changed.wait(board);
                    board = changed.unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    /// Builds a target, or gets a place among those who wait for it.
    fn ask(&self, name: &str) -> Ticket<Arc<Built>, Broken> {
        let (worker, target) = (self.clone(), name.to_owned());
        let flights = &self.run.flights;
        flights.start(name, Job::run, move || worker.build(&target))
    }

    /// Gets everything that a target needs.
    fn need(&self, target: &str, needs: &[Word]) -> Result<Vec<Arc<Built>>, Broken> {
        let mut tickets = Vec::new();
        for need in needs {
            self.asks(target, need);
            tickets.push((need, self.ask(&need.text)));
        }
        let tickets = tickets.into_iter();
        // To the first that fails. What becomes of the others is no matter to this target.
        let built = tickets
            .map(|(need, ticket)| self.wait(target, need, ticket))
            .collect();
        lock(&self.run.board).asks.remove(target);
        built
    }

    fn wait(&self, target: &str, need: &Word, ticket: Ticket<Arc<Built>, Broken>) -> Ended {
        let result = if ticket.is_done() {
            ticket.wait().result
        } else {
            self.asks(target, need);
            self.phase(target, Phase::Waits);
            self.run.screen.waits(target, &need.text);
            let began = Instant::now();
            let result = ticket.wait().result;
            let what = What::Waited(need.text.clone());
            self.run.log.add(self.number, target, began, what);
            self.phase(target, Phase::Runs);
            result
        };
        result.map_err(|error| match error {
            CallError::Failed(broken) => Broken::clone(&broken),
            CallError::Deadlock(_) => Broken::Input(Arc::new(self.cycle(target))),
            // A panic. It is on the board, and has stopped the build.
            _ => Broken::Stopped,
        })
    }

    /// The library has refused a wait, because the circle is closed. Every target on it asks for
    /// the next one and can't go on, so they can be read off the board.
    fn cycle(&self, target: &str) -> Complaint {
        let board = lock(&self.run.board);
        let mut needs = vec![board.asks[target].clone()];
        while needs[needs.len() - 1].text != target {
            needs.push(board.asks[&needs[needs.len() - 1].text].clone());
        }
        describe_cycle(&needs)
    }

    fn asks(&self, target: &str, need: &Word) {
        let mut board = lock(&self.run.board);
        board.asks.insert(target.to_owned(), need.clone());
    }

    fn phase(&self, target: &str, phase: Phase) {
        let mut board = lock(&self.run.board);
        board.at_work.insert(target.to_owned(), phase);
        drop(board);
        // Those who sleep may wait as well, if that leaves a single one that runs.
        self.run.changed.notify_all();
    }

    /// The shared function.
    fn build(&self, name: &str) -> Ended {
        let target = {
            let mut board = lock(&self.run.board);
            if let Some(done) = board.done.get(name) {
                return done.clone();
            }
            if !board.at_work.contains_key(name) {
                // Not given out: somebody needs it inside another call.
                board.todo.retain(|target| target.name.text != name);
            }
            // One that is given out in order to wait has that phase already.
            if board.at_work.get(name) != Some(&Phase::Waits) {
                board.at_work.insert(name.to_owned(), Phase::Runs);
                self.run.changed.notify_all();
            }
            Arc::clone(board.graph.get(name).expect("checked when it was read"))
        };
        let mut landing = Landing {
            run: &self.run,
            name,
            outcome: Err(Broken::Stopped),
        };
        landing.outcome = self.make(&target);
        landing.outcome.clone()
    }

    fn make(&self, target: &Target) -> Ended {
        let name = &target.name.text;
        let needed = self.need(name, &target.needs)?;
        self.phase(name, Phase::Runs);
        if lock(&self.run.board).stopped {
            return Err(Broken::Stopped);
        }
        let mut files = files(&needed[..target.named]);
        self.update(target, &files)?;
        if let Some(generated) = &target.generates {
            self.load(name, &generated.text)?;
        }
        if !target.outputs.is_empty() {
            files = target.outputs.iter().map(|o| o.text.clone()).collect();
        }
        Ok(Arc::new(Built { files }))
    }

    /// Runs the target's command, unless all is up to date.
    fn update(&self, target: &Target, needed: &[String]) -> Result<(), Broken> {
        let name = &target.name.text;
        let check = self.run.options.check;
        let scratch = Scratch::new(target);
        let Some(command) = scratch.command(target) else {
            return Ok(());
        };
        let inputs = target.inputs.iter().map(|input| &input.text).chain(needed);
        let outputs = || target.outputs.iter().map(|output| &output.text);
        let mut record = Record {
            command: blake3::hash(command.as_bytes()).to_string(),
            inputs: check.stamp_all(inputs),
            found: Default::default(),
            outputs: check.stamp_all(outputs()),
        };
        let why = if target.outputs.is_empty() {
            Some("it has no outputs".to_owned())
        } else {
            let last = lock(&self.run.records).get(name).cloned();
            check.why(last.as_ref(), &record)
        };
        let Some(why) = why else {
            self.run.up_to_date.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        };

        let fail = |how: String, output: &str| {
            Broken::Failed(Arc::new(Failure {
                target: target.name.clone(),
                command: command.clone(),
                how,
                output: output.to_owned(),
            }))
        };
        let prepared = scratch.prepare();
        prepared.map_err(|e| fail(format!("no room for its outputs: {e}"), ""))?;
        let began = Instant::now();
        let clock = SystemTime::now();
        self.run.screen.begin(name, &why);
        let ended = self.run.commands.run(&command);
        self.run.log.add(self.number, name, began, What::Ran(why));
        self.run.screen.end(name);
        if self.run.commands.interrupted() {
            return Err(Broken::Stopped); // Whatever it has made goes with `scratch`.
        }
        let (status, output) = ended.map_err(|e| fail(format!("cannot run it: {e}"), ""))?;
        if !status.success() {
            return Err(fail(describe(status), &output));
        }
        if let Some(missing) = scratch.missing() {
            return Err(fail(format!("it has not made {missing}"), &output));
        }
        let found = match scratch.depfile(target) {
            Ok(text) => text.map_or_else(Vec::new, |text| depfile::parse(&text)),
            Err(e) => return Err(fail(format!("it has left no depfile: {e}"), &output)),
        };
        let kept = scratch.keep();
        kept.map_err(|e| fail(format!("its outputs can't be renamed: {e}"), &output))?;
        self.run.screen.output(name, &output);
        self.run.ran.fetch_add(1, Ordering::Relaxed);
        let found = found.into_iter().filter(|f| !record.inputs.contains_key(f));
        record.found = check.stamp_found(found.collect(), clock);
        record.outputs = check.stamp_all(outputs());
        lock(&self.run.records).put(name, record);
        Ok(())
    }

    /// Reads the build file that a target has made, and builds what that is for.
    fn load(&self, name: &str, path: &str) -> Result<(), Broken> {
        let complain = |complaint| Broken::Input(Arc::new(complaint));
        let file = file::read(path).map_err(complain)?;
        let needs = {
            let mut board = lock(&self.run.board);
            let needs = board.graph.add(file).map_err(complain)?;
            let wanted: Vec<_> = needs.iter().map(|need| need.text.clone()).collect();
            // A cycle, if there is one, shows when somebody asks for it.
            let (mut order, _) = board.graph.order(&wanted);
            order.retain(|target| {
                let name = &target.name.text;
                let known = board.done.contains_key(name) || board.at_work.contains_key(name);
                !known && !board.todo.iter().any(|todo| todo.name.text == *name)
            });
            self.run.screen.expect(order.len());
            board.todo.extend(order);
            needs
        };
        self.run.changed.notify_all();
        self.need(name, &needs).map(drop)
    }
}

/// Writes down how a target ended, before its flight lands; also if a panic ends it, lest the
/// others sleep for ever.
struct Landing<'a> {
    run: &'a Run,
    name: &'a str,
    outcome: Ended,
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        let mut board = lock(&self.run.board);
        board.at_work.remove(self.name);
        if thread::panicking() || self.outcome.is_err() && !self.run.options.keep_going {
            board.stopped = true;
        }
        let outcome = self.outcome.clone();
        board.done.insert(self.name.to_owned(), outcome);
        board.go_on();
        drop(board);
        self.run.screen.done();
        self.run.changed.notify_all();
    }
}

fn files(built: &[Arc<Built>]) -> Vec<String> {
    let files = built.iter().map(|built| built.files.clone());
    files.flatten().collect()
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
