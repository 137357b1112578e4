//! Callers that record what they do.

use std::any::Any;
use std::cell::Cell;
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{mpsc::Sender, Arc, Mutex};
use std::thread;
use std::time::Duration;

use shared_calls::{
    CallError, Deadlock, Flight, FlightGroup, Follower, Job, Joined, Observer, Outcome, Request,
    Role, SharedCalls, Ticket,
};

use crate::check::{is_own, Asked, Batch, Call, Got, Id, Run, Tick};

/// Values name the call whose function made them. So do errors, for each key of a batch.
pub type Group = FlightGroup<Id, Failure, u64>;
pub type Failure = Vec<(u64, Id)>;

/// Functions that ran alone have keys of their own in the history, from here on.
pub const ALONE: u64 = 1 << 32;

thread_local! {
    /// Whether this thread's last call was refused for a deadlock.
    static REFUSED: Cell<bool> = const { Cell::new(false) };
}

/// Notes which calls are refused. Groups whose calls may run alone need it.
pub struct Refusals;

impl Observer<u64> for Refusals {
    fn deadlock_refused(&self, _: &u64, _: &Deadlock) {
        REFUSED.with(|it| it.set(true));
    }
}

/// The one clock of a history.
#[derive(Clone, Default)]
pub struct Clock(Arc<AtomicU64>);

impl Clock {
    /// A moment after all that have been, on whatever thread.
    fn tick(&self) -> Tick {
        self.0.fetch_add(1, SeqCst) + 1
    }
}

/// How a function, or a leader, is to end.
#[derive(Clone, Copy)]
pub enum End {
    Value,
    Error,
    Panic,
    TextlessPanic,
}

/// The payload of a panic without a text.
struct Textless;

/// A call that a function makes, on another key or on its own.
#[derive(Clone, Copy)]
pub struct Inner {
    pub key: u64,
    pub asked: Asked,
}

/// What a function does before it ends.
#[derive(Clone, Copy)]
struct Work {
    lingers: bool,
    /// Whether it asks if its result is wanted, and fails if it is not.
    asks: bool,
    inner: Option<Inner>,
}

/// What is known of a flight whose job another thread may be running.
#[derive(Default)]
struct Led {
    /// What its function did, and what came of it.
    ran: Option<(Run, Got)>,
    /// When it had landed.
    landed: Tick,
}

/// What the worker has to do.
pub type Task = Box<dyn FnOnce() + Send>;

/// A call whose job may still be running.
pub struct Deferred {
    call: Call,
    led: Arc<Mutex<Led>>,
}

impl Deferred {
    /// To be called when all jobs have ended.
    pub fn record(self) -> Call {
        let led = self.led.lock().unwrap();
        let (ran, got) = led.ran.expect("the job has ended");
        Call { ran: Some(ran), got, returned: self.call.returned.max(led.landed), ..self.call }
    }
}

/// A thread's part in a history.
pub struct Recorder {
    clock: Clock,
    /// Where the worker takes its tasks from.
    worker: Sender<Task>,
    /// The options that the group has by default.
    defaults: Asked,
    random: u64,
    /// The keys whose functions this thread is running.
    inside: Vec<u64>,
    calls: Vec<Call>,
    deferred: Vec<Deferred>,
    /// A follower, or the ticket of one, that is to leave without waiting.
    follower: Option<(Call, Box<dyn Any + Send>)>,
}

impl Recorder {
    pub fn new(clock: Clock, worker: Sender<Task>, defaults: Asked, seed: u64) -> Self {
        Self {
            clock,
            worker,
            defaults,
            random: seed | 1,
            inside: Vec::new(),
            calls: Vec::new(),
            deferred: Vec::new(),
            follower: None,
        }
    }

    /// For the calls inside a function of this thread.
    fn nested(&self) -> Self {
        let (clock, worker) = (self.clock.clone(), self.worker.clone());
        Self::new(clock, worker, self.defaults, self.random)
    }

    /// A random number below `n` (xorshift).
    pub fn random(&mut self, n: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % n
    }

    /// A plain call, whose function ends like this, if it runs.
    pub fn call(&mut self, calls: &impl SharedCalls<Id, Failure, u64>, key: u64, end: End) {
        let work = self.work(false, None);
        self.call_by(key, end, Asked::default(), work, None, |f| {
            told(calls.call_dyn(&key, &mut || f(None)))
        });
    }

    /// A call with options. Its function may ask whether its result is wanted, and call the group.
    pub fn request(
        &mut self,
        group: &Group,
        key: u64,
        end: End,
        asked: Asked,
        asks: bool,
        inner: Option<Inner>,
    ) {
        let work = self.work(asks, inner);
        self.call_by(key, end, asked, work, Some(group), |f| {
            let request = request(group, &key, asked);
            match asks {
                true => (request.call_with(|flight| f(Some(flight))), None),
                false => told(request.call_ex(|| f(None))),
            }
        });
    }

    fn call_by(
        &mut self,
        key: u64,
        end: End,
        asked: Asked,
        work: Work,
        group: Option<&Group>,
        call: impl FnOnce(&mut dyn FnMut(Option<&Flight<'_>>) -> Result<Id, Failure>) -> Reply,
    ) {
        let asked = self.effective(asked);
        let mut nested = self.nested();
        let began = self.clock.tick();
        let (mut ran, mut alone) = (None, false);
        REFUSED.with(|it| it.set(false));
        let mut function = |flight: Option<&Flight<'_>>| {
            alone = REFUSED.with(Cell::take) && asked.alone_on_deadlock;
            nested.inside.clone_from(&self.inside);
            nested.inside.push(key);
            let run = nested.run(work, flight, group);
            ran = Some(run);
            finish(key, began, ends(run, end))
        };
        let reply = catch_unwind(AssertUnwindSafe(|| call(&mut function)));
        let returned = self.clock.tick();
        let (got, told) = match reply {
            Ok((result, told)) => (got(key, &result), told),
            Err(payload) => (unwound(payload), None),
        };
        let mut record = Call {
            returned,
            ran,
            let_go: asked.timeout.map(|_| began),
            got,
            told,
            ..self.begun(key, asked, began)
        };
        if alone {
            // It was refused, and ran beside the flights of its key.
            self.calls.push(Call { ran: None, got: Got::Deadlocked, told: None, ..record.clone() });
            record.key = ALONE + began;
            record.asked = Asked::default();
        }
        self.calls.push(record);
        self.calls.append(&mut nested.calls);
    }

    /// Many keys at once. A key that is named twice has to get the same twice.
    pub fn call_many(&mut self, group: &Group, keys: &[u64], end: End, inner: Option<Inner>) {
        let work = self.work(false, inner);
        let asked = Asked { takeovers: 0, alone_on_deadlock: false, ..self.defaults };
        let mut nested = self.nested();
        let mut distinct = Vec::<(u64, Id)>::new();
        for key in keys {
            if distinct.iter().all(|(other, _)| other != key) {
                distinct.push((*key, self.clock.tick()));
            }
        }
        let id_of = |key: u64| distinct.iter().find(|(it, _)| *it == key).unwrap().1;
        let (mut ran, mut led) = (None, Vec::new());
        let named: Vec<&u64> = keys.iter().collect();
        let results = catch_unwind(AssertUnwindSafe(|| {
            group.call_many(&named, |given| {
                led = given.iter().map(|key| **key).collect();
                nested.inside.clone_from(&self.inside);
                nested.inside.extend(&led);
                ran = Some(nested.run(work, None, Some(group)));
                let values = led.iter().map(|key| id_of(*key));
                match end {
                    End::Value => Ok(values.collect()),
                    End::Error => Err(led.iter().map(|key| (*key, id_of(*key))).collect()),
                    End::Panic => Ok(values.skip(1).collect()), // the group's panic
                    End::TextlessPanic => resume_unwind(Box::new(Textless)),
                }
            })
        }));
        let returned = self.clock.tick();
        let results = results.map_err(|payload| {
            let got = unwound(payload);
            assert_eq!(got, Got::Panicked(None), "of a batch");
        });
        for (key, id) in &distinct {
            let given = led.iter().position(|it| it == key);
            let mut of_key = results.iter().flat_map(|results| {
                assert_eq!(results.len(), keys.len());
                let of_key = keys.iter().zip(results).filter(|(it, _)| *it == key);
                of_key.map(|(_, result)| got(*key, result))
            });
            let first = of_key.next().unwrap_or(match given {
                Some(_) => Got::Panicked(None),
                None => Got::Unwound,
            });
            assert!(of_key.all(|again| again == first), "a key named twice");
            self.calls.push(Call {
                returned,
                batch: Some(Batch { id: distinct[0].1, ran, given }),
                ran: ran.filter(|_| given.is_some()),
                got: first,
                ..self.begun(*key, asked, *id)
            });
        }
        self.calls.append(&mut nested.calls);
    }

    /// `start` with options, whose function may ask whether its result is wanted. The ticket waits,
    /// or it is dropped.
    pub fn start(&mut self, group: &Group, key: u64, end: End, asked: Asked, job: Start) {
        let Start { fate, asks, waits } = job;
        let work = self.work(asks, None);
        let asked_for = asked;
        let asked = self.effective_without_function(asked);
        let led = Arc::<Mutex<Led>>::default();
        let began = self.clock.tick();
        let mut function = {
            // Other threads run it, and a thread that waits for nothing is in no cycle.
            let (mut nested, led) = (self.nested(), Arc::clone(&led));
            move |flight: Option<&Flight<'_>>| {
                let run = nested.run(work, flight, None);
                let end = ends(run, end);
                led.lock().unwrap().ran = Some((run, brings(began, end)));
                finish(key, began, end)
            }
        };
        let mut leads = false;
        let spawn = |job: Job| {
            leads = true;
            let (clock, landed) = (self.clock.clone(), Arc::clone(&led));
            let run_job = move || {
                job.run();
                landed.lock().unwrap().landed = clock.tick();
            };
            match fate {
                Fate::Inline => run_job(),
                Fate::Worker => self.worker.send(Box::new(run_job)).unwrap(),
                Fate::Dropped => {
                    let work = Work { asks: false, ..work };
                    let run = self.nested().run(work, None, None);
                    led.lock().unwrap().ran = Some((run, Got::Abandoned));
                    drop(run_job);
                }
            }
        };
        let request = request(group, &key, asked_for);
        let ticket = match asks {
            true => request.start_with(spawn, move |flight| function(Some(flight))),
            false => request.start(spawn, move || function(None)),
        };
        let call = self.begun(key, asked, began);
        if !leads && !waits && !ticket.is_done() {
            return self.leave_later(call, ticket);
        }
        let let_go = self.clock.tick();
        let outcome = if waits || !leads {
            Some(self.wait(ticket))
        } else {
            drop(ticket);
            None
        };
        let call = Call {
            returned: self.clock.tick(),
            let_go: (!waits || asked.timeout.is_some()).then_some(let_go),
            got: outcome.as_ref().map_or(Got::TimedOut, |it| got(key, &it.result)),
            told: outcome.map(|outcome| (outcome.role, outcome.followers)),
            ..call
        };
        if !leads {
            self.calls.push(call);
        } else if call.got == Got::TimedOut {
            // The flight goes on.
            let call = Call { told: None, ..call };
            self.deferred.push(Deferred { call, led });
        } else {
            let ran = led.lock().unwrap().ran.map(|(ran, _)| ran);
            self.calls.push(Call { ran, ..call });
        }
    }

    /// `forget`, or `forget_unshared`. Recorded only where it was true.
    pub fn forget(&mut self, group: &Group, key: u64, unshared: bool) {
        let began = self.clock.tick();
        let forgot = if unshared { group.forget_unshared(&key) } else { group.forget(&key) };
        if forgot {
            self.calls.push(Call {
                returned: self.clock.tick(),
                got: Got::Forgot,
                ..self.begun(key, Asked::default(), began)
            });
        }
    }

    /// `join`. A leader runs a function that ends like this, or ends like this without one: for a
    /// panic, it is dropped. A follower waits or leaves.
    pub fn join(
        &mut self,
        group: &Group,
        key: u64,
        end: End,
        asked: Asked,
        inner: Option<Inner>,
        waits: bool,
    ) {
        let work = self.work(false, None);
        let asked_for = asked;
        let asked = self.effective_without_function(asked);
        let began = self.clock.tick();
        let call = self.begun(key, asked, began);
        let (ran, outcome) = match request(group, &key, asked_for).join() {
            Joined::Leader(leader) if self.random(2) == 0 => {
                let mut nested = self.nested();
                nested.inside.clone_from(&self.inside);
                nested.inside.push(key);
                let mut ran = None;
                let function = || {
                    let work = Work { inner, ..work };
                    ran = Some(nested.run(work, None, Some(group)));
                    finish(key, began, end)
                };
                let outcome = catch_unwind(AssertUnwindSafe(|| leader.run(function)));
                self.calls.append(&mut nested.calls);
                let got = match outcome {
                    Ok(outcome) => return self.joined(call, ran, Some(outcome)),
                    Err(payload) => unwound(payload),
                };
                let returned = self.clock.tick();
                return self.calls.push(Call { returned, ran, got, ..call });
            }
            Joined::Leader(leader) => {
                let ran = self.nested().run(work, None, None);
                let outcome = match end {
                    End::Value => Some(leader.complete(Ok(began))),
                    End::Error => Some(leader.complete(Err(vec![(key, began)]))),
                    End::Panic | End::TextlessPanic => {
                        drop(leader);
                        None
                    }
                };
                (Some(ran), outcome)
            }
            // One that was refused has its outcome already, and nothing to leave.
            Joined::Follower(follower) if waits || follower.is_done() => {
                (None, Some(self.wait(follower)))
            }
            Joined::Follower(follower) => return self.leave_later(call, follower),
        };
        self.joined(call, ran, outcome);
    }

    /// Records a call that has joined and has its outcome, or was dropped.
    fn joined(&mut self, call: Call, ran: Option<Run>, outcome: Option<Outcome<Id, Failure>>) {
        self.calls.push(Call {
            returned: self.clock.tick(),
            ran,
            got: (outcome.as_ref()).map_or(Got::Abandoned, |it| got(call.key, &it.result)),
            told: outcome.map(|outcome| (outcome.role, outcome.followers)),
            ..call
        });
    }

    /// Waits: to the end, for short times, or with a look before.
    fn wait(&mut self, it: impl Waits) -> Outcome<Id, Failure> {
        match self.random(4) {
            0 => loop {
                if let Some(outcome) = it.wait_timeout(Duration::from_micros(20)) {
                    return outcome;
                }
            },
            1 => it.try_wait().unwrap_or_else(|| it.wait()),
            _ => it.wait(),
        }
    }

    /// Keeps a follower until [`leave`](Self::leave).
    fn leave_later(&mut self, mut call: Call, follower: impl Any + Send) {
        let seated = self.clock.tick();
        call.got = Got::Left { seated, leaving: 0 };
        self.leave();
        self.follower = Some((call, Box::new(follower)));
    }

    /// Drops the follower that this thread has, if there is one.
    pub fn leave(&mut self) {
        if let Some((mut call, follower)) = self.follower.take() {
            if let Got::Left { leaving, .. } = &mut call.got {
                *leaving = self.clock.tick();
            }
            drop(follower);
            call.returned = self.clock.tick();
            self.calls.push(call);
        }
    }

    /// All that this thread has done.
    pub fn finish(mut self) -> (Vec<Call>, Vec<Deferred>) {
        self.leave();
        (self.calls, self.deferred)
    }

    fn work(&mut self, asks: bool, inner: Option<Inner>) -> Work {
        Work { lingers: self.random(2) == 0, asks, inner }
    }

    /// A call that has just begun.
    fn begun(&self, key: u64, asked: Asked, began: Tick) -> Call {
        Call {
            id: began,
            key,
            asked,
            began,
            returned: 0,
            inside: Some(self.inside.clone()),
            batch: None,
            ran: None,
            let_go: None,
            got: Got::TimedOut,
            told: None,
        }
    }

    /// These options, and for each that is not given the group's.
    fn effective(&self, asked: Asked) -> Asked {
        let defaults = match asked.without_defaults {
            true => Asked::default(),
            false => self.defaults,
        };
        Asked {
            timeout: asked.timeout.or(defaults.timeout),
            max_age: asked.max_age.or(defaults.max_age),
            max_followers: asked.max_followers.or(defaults.max_followers),
            takeovers: match asked.takeovers {
                0 => defaults.takeovers,
                own => own,
            },
            alone_on_deadlock: asked.alone_on_deadlock || defaults.alone_on_deadlock,
            ..asked
        }
    }

    /// The same for `join` and `start`, which cannot take over.
    fn effective_without_function(&self, asked: Asked) -> Asked {
        Asked { takeovers: 0, ..self.effective(asked) }
    }

    /// What every function does: nothing, or let other threads come along, call, and ask.
    fn run(&mut self, work: Work, flight: Option<&Flight<'_>>, group: Option<&Group>) -> Run {
        let began = self.clock.tick();
        if work.lingers {
            thread::yield_now();
        }
        if let (Some(Inner { key, asked }), Some(group)) = (work.inner, group) {
            self.request(group, key, End::Value, asked, false, None);
        }
        let flight = flight.filter(|_| work.asks);
        let unwanted = flight.and_then(|flight| {
            let asked = self.clock.tick();
            if flight.is_wanted() {
                return None;
            }
            let answered = self.clock.tick();
            thread::yield_now();
            assert!(!flight.is_wanted(), "the answer is final");
            Some([asked, answered])
        });
        let ended = self.clock.tick();
        Run { began, ended, unwanted }
    }
}

/// A follower or a ticket.
trait Waits {
    fn wait(self) -> Outcome<Id, Failure>;
    fn wait_timeout(&self, timeout: Duration) -> Option<Outcome<Id, Failure>>;
    fn try_wait(&self) -> Option<Outcome<Id, Failure>>;
}

macro_rules! waits {
    ($($type:ident),*) => {$(
        impl Waits for $type<Id, Failure> {
            fn wait(self) -> Outcome<Id, Failure> {
                self.wait()
            }
            fn wait_timeout(&self, timeout: Duration) -> Option<Outcome<Id, Failure>> {
                self.wait_timeout(timeout)
            }
            fn try_wait(&self) -> Option<Outcome<Id, Failure>> {
                self.try_wait()
            }
        }
    )*};
}
waits!(Follower, Ticket);

/// How a ticket comes about, and whether it waits.
#[derive(Clone, Copy)]
pub struct Start {
    pub fate: Fate,
    pub asks: bool,
    pub waits: bool,
}

/// What becomes of a job.
#[derive(Clone, Copy)]
pub enum Fate {
    Inline,
    Worker,
    Dropped,
}

fn request<'g, 'k>(
    group: &'g Group,
    key: &'k u64,
    asked: Asked,
) -> Request<'g, 'k, Id, Failure, u64, u64> {
    let mut request = group.request(key);
    request = match (asked.takeovers, asked.by_error) {
        (0, _) => request,
        (times, true) => request.takeover_if(times, |error| is_own(id_of(error, *key))),
        (times, false) => request.takeover(times),
    };
    if let Some(n) = asked.max_followers {
        request = request.max_followers(n);
    }
    if let Some(timeout) = asked.timeout {
        request = request.timeout(timeout);
    }
    if asked.next_flight {
        request = request.next_flight();
    }
    if let Some(age) = asked.max_age {
        request = request.max_age(age);
    }
    if asked.alone_on_deadlock {
        request = request.alone_on_deadlock();
    }
    if asked.without_defaults {
        request = request.without_defaults();
    }
    request
}

/// How a function ends that would end like this. One whose result is not wanted is cancelled.
fn ends(run: Run, end: End) -> End {
    match run.unwanted {
        Some(_) => End::Error,
        None => end,
    }
}

/// Ends the function of a call.
fn finish(key: u64, id: Id, end: End) -> Result<Id, Failure> {
    match end {
        End::Value => Ok(id),
        End::Error => Err(vec![(key, id)]),
        // Not by `panic!`, which would fill the test's output, and hide what does not belong there.
        End::Panic => resume_unwind(Box::new(id.to_string())),
        End::TextlessPanic => resume_unwind(Box::new(Textless)),
    }
}

/// What a function that ends like this has brought about.
fn brings(id: Id, end: End) -> Got {
    match end {
        End::Value => Got::Value(id),
        End::Error => Got::Failed(id),
        End::Panic => Got::Panicked(Some(id)),
        End::TextlessPanic => Got::Panicked(None),
    }
}

/// What a call gives: its result, and what it was told, if it was.
type Reply = (Result<Id, CallError<Failure>>, Option<(Role, usize)>);

fn told(outcome: Outcome<Id, Failure>) -> Reply {
    (outcome.result, Some((outcome.role, outcome.followers)))
}

fn got(key: u64, result: &Result<Id, CallError<Failure>>) -> Got {
    match result {
        Ok(id) => Got::Value(*id),
        Err(CallError::Failed(failure)) => Got::Failed(id_of(failure, key)),
        Err(CallError::Panicked(panicked)) => Got::Panicked(panicked.message().and_then(id_in)),
        Err(CallError::Abandoned) => Got::Abandoned,
        Err(CallError::TimedOut) => Got::TimedOut,
        Err(CallError::Overloaded) => Got::Overloaded,
        Err(CallError::Deadlock(_)) => Got::Deadlocked,
        Err(other) => panic!("unexpected: {other:?}"),
    }
}

fn id_of(failure: &Failure, key: u64) -> Id {
    let of_key = failure.iter().find(|(it, _)| *it == key);
    of_key.expect("an error of this key").1
}

/// What a leader unwound with. A panic that is not the function's is a failure of the test.
fn unwound(payload: Box<dyn Any + Send>) -> Got {
    match payload.downcast_ref::<String>() {
        Some(text) => Got::Panicked(id_in(text)),
        None if payload.is::<Textless>() => Got::Panicked(None),
        None => resume_unwind(payload),
    }
}

/// `None` if it is the panic of a batch that had too few values.
fn id_in(text: &str) -> Option<Id> {
    let of_batch = text.starts_with("the function of a batch");
    (!of_batch).then(|| text.parse().unwrap_or_else(|_| panic!("not one of ours: {text}")))
}
