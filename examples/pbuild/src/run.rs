//! The build. Each target is one shared call: the first thread that needs it builds it, and others
//! that need it meanwhile wait for that.
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
//! target is being built, and it generates none, nothing else can become ready before it lands;
//! then a thread may just as well ask for a target that needs it and wait inside the call. (What a
//! generated file asks for is needed inside its generator's call. While a thread waits there, it
//! takes up nothing else.)
//!
//! **There is always progress.** A thread that waits for a ticket waits for one that leads a
//! flight. Follow that chain: it ends at a thread that waits for no flight, because a circle is
//! refused (the library's G9). That thread runs a command, for threads that lead nothing are the
//! only ones to sleep. What it builds lands, and every landing wakes all who sleep.
//!
//! **Nothing is built twice.** A group is no cache, so what has been built in this run is looked up
//! inside the shared function, and written down there before the flight lands.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use nix::sys::signal::Signal;
use shared_calls::{CallError, FlightGroup, Job, Ticket};

use crate::board::{Board, Phase};
use crate::command::Commands;
use crate::file::{self, Complaint, Target, Word};
use crate::graph::{describe_cycle, forget_found, Graph};
use crate::lock;
use crate::log::{Log, What};
use crate::outcome::{Broken, Built, Ended, Report};
use crate::record::{Check, Records};
use crate::screen::Screen;

/// Where a generated file has a long chain of targets, one thread may ask for all of it, each
/// inside the call of the one before. (Memory is only taken as it is used.)
const STACK: usize = 64 << 20;

pub struct Options {
    pub threads: usize,
    pub keep_going: bool,
    pub check: Check,
}

pub struct Run {
    pub options: Options,
    flights: FlightGroup<Arc<Built>, Broken>,
    pub board: Mutex<Board>,
    /// The board has changed: some target has landed, or waits; or the build is to stop.
    changed: Condvar,
    pub records: Mutex<Records>,
    pub commands: Commands,
    pub log: Log,
    pub screen: Screen,
    pub ran: AtomicUsize,
    pub up_to_date: AtomicUsize,
}

impl Run {
    pub fn new(
        graph: Graph,
        todo: Vec<Arc<Target>>,
        records: Records,
        options: Options,
        screen: Screen,
    ) -> io::Result<Self> {
        screen.expect(todo.len());
        Ok(Self {
            options,
            flights: FlightGroup::new(),
            board: Mutex::new(Board::new(graph, todo)),
            changed: Condvar::new(),
            records: Mutex::new(records),
            commands: Commands::new()?,
            log: Log::default(),
            screen,
            ran: AtomicUsize::new(0),
            up_to_date: AtomicUsize::new(0),
        })
    }

    /// Builds everything, on as many threads as the options say.
    pub fn build(self: &Arc<Self>) -> io::Result<Report> {
        let begun = thread::scope(|scope| {
            for number in 1..=self.options.threads {
                let run = Arc::clone(self);
                let worker = Worker { run, number };
                let builder =
                    thread::Builder::new().name(format!("builder {number}")).stack_size(STACK);
                let begun = builder.spawn_scoped(scope, move || worker.work());
                // Those that have begun end before this returns.
                begun.inspect_err(|_| self.stop())?;
            }
            io::Result::Ok(())
        });
        // What was built is built, even if not all threads could begin.
        lock(&self.records).save()?;
        begun?;
        Ok(self.report())
    }

    /// Begins nothing any more.
    fn stop(&self) {
        lock(&self.board).stopped = true;
        self.changed.notify_all();
    }

    /// Ends the build: what runs is sent the signal.
    pub fn interrupt(&self, signal: Signal) {
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

/// One of the threads.
#[derive(Clone)]
pub struct Worker {
    pub run: Arc<Run>,
    pub number: usize,
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
    pub fn need(&self, target: &str, needs: &[Word]) -> Result<Vec<Arc<Built>>, Broken> {
        let mut tickets = Vec::new();
        for need in needs {
            self.asks(target, need);
            tickets.push((need, self.ask(&need.text)));
        }
        let tickets = tickets.into_iter();
        // To the first that fails. What becomes of the others is no matter to this target.
        let built = tickets.map(|(need, ticket)| self.wait(target, need, ticket)).collect();
        lock(&self.run.board).asks.remove(target);
        built
    }

    fn wait(&self, target: &str, need: &Word, ticket: Ticket<Arc<Built>, Broken>) -> Ended {
        let result = if ticket.is_done() || !self.has_to_wait(target, need) {
            ticket.wait().result
        } else {
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

    /// Writes down that a target waits for another one, unless that is on the board already, and
    /// has only to be told by its thread. Under one lock with the look, so that what lands just
    /// then finds it, see [`Board::go_on`].
    fn has_to_wait(&self, target: &str, need: &Word) -> bool {
        let mut board = lock(&self.run.board);
        if board.done.contains_key(&need.text) {
            return false;
        }
        board.asks.insert(target.to_owned(), need.clone());
        board.at_work.insert(target.to_owned(), Phase::Waits);
        drop(board);
        // Those who sleep may wait as well, if that leaves a single one that runs.
        self.run.changed.notify_all();
        true
    }

    /// The library has refused a wait, because the circle is closed. Every target on it asks for
    /// the next one and can't go on, so they can be read off the board.
    fn cycle(&self, target: &str) -> Complaint {
        let board = lock(&self.run.board);
        let mut needs = vec![board.asks[target].clone()];
        while needs[needs.len() - 1].text != target {
            needs.push(board.asks[&needs[needs.len() - 1].text].clone());
        }
        forget_found(&needs, &mut lock(&self.run.records));
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
                let before = board.todo.len();
                board.todo.retain(|target| target.name.text != name);
                self.run.screen.expect((board.todo.len() == before).into());
            }
            // One that is given out in order to wait has that phase already.
            if board.at_work.get(name) != Some(&Phase::Waits) {
                board.at_work.insert(name.to_owned(), Phase::Runs);
                self.run.changed.notify_all();
            }
            Arc::clone(board.graph.get(name).expect("checked when it was read"))
        };
        let mut landing = Landing { run: &self.run, name, outcome: Err(Broken::Stopped) };
        landing.outcome = self.make(&target);
        landing.outcome.clone()
    }

    fn make(&self, target: &Target) -> Ended {
        let name = &target.name.text;
        let needed = self.need(name, &target.needs)?;
        self.phase(name, Phase::Runs);
        self.update(target, &files(&needed[..target.named]))?;
        let own = |files: &[Word]| files.iter().map(|file| file.text.clone()).collect();
        let mut made: Vec<_> = own(&target.outputs);
        if made.is_empty() {
            made = own(&target.inputs);
            made.extend(files(&needed));
        }
        if let Some(generated) = &target.generates {
            made.extend(files(&self.load(name, &generated.text)?));
        }
        Ok(Arc::new(Built { files: made }))
    }

    /// Reads the build file that a target has made, and builds what that is for.
    fn load(&self, name: &str, path: &str) -> Result<Vec<Arc<Built>>, Broken> {
        let complain = |complaint| Broken::Input(Arc::new(complaint));
        let file = file::read(path).map_err(complain)?;
        let needs = {
            let mut board = lock(&self.run.board);
            let records = lock(&self.run.records);
            let needs = board.graph.add(file, &records).map_err(complain)?;
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
        self.need(name, &needs)
    }
}

/// Writes down how a target ended, before its flight lands. Also if a panic ends it: the other
/// threads would sleep for ever.
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
        self.run.screen.done(self.name, &self.outcome);
        self.run.changed.notify_all();
    }
}

fn files(built: &[Arc<Built>]) -> Vec<String> {
    let files = built.iter().map(|built| built.files.clone());
    files.flatten().collect()
}
