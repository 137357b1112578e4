//! Callers that record what they do.

use std::any::Any;
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{mpsc::Sender, Arc, Mutex};
use std::thread;
use std::time::Duration;

use shared_calls::{CallError, FlightGroup, Follower, Job, Joined, Outcome, Request, SharedCalls};

use crate::check::{Asked, Call, Got, Id, Run, Tick};

/// Values and errors name the call whose function made them.
pub type Group = FlightGroup<Id, Id, u64>;

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

/// A thread's part in a history.
pub struct Recorder {
    clock: Clock,
    /// Where jobs are run.
    worker: Sender<Job>,
    random: u64,
    calls: Vec<Call>,
    /// A follower that is to leave without waiting.
    follower: Option<(Call, Follower<Id, Id>)>,
}

impl Recorder {
    pub fn new(clock: Clock, worker: Sender<Job>, seed: u64) -> Self {
        Self {
            clock,
            worker,
            random: seed | 1,
            calls: Vec::new(),
            follower: None,
        }
    }

    /// A random number below `n` (xorshift).
    pub fn random(&mut self, n: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % n
    }

    /// A plain call, whose function ends like this, if it runs.
    pub fn call(&mut self, calls: &impl SharedCalls<Id, Id, u64>, key: u64, end: End) {
        self.call_by(key, end, Asked::default(), |f| calls.call_dyn(&key, f));
    }

    /// A call with options.
    pub fn request(&mut self, group: &Group, key: u64, end: End, asked: Asked) {
        self.call_by(key, end, asked, |f| request(group, &key, asked).call_ex(f));
    }

    fn call_by(
        &mut self,
        key: u64,
        end: End,
        asked: Asked,
        call: impl FnOnce(&mut dyn FnMut() -> Result<Id, Id>) -> Outcome<Id, Id>,
    ) {
        let lingers = self.lingers();
        let clock = &self.clock;
        let began = clock.tick();
        let mut ran = None;
        let mut function = || {
            ran = Some(run(clock, lingers));
            finish(began, end)
        };
        let outcome = catch_unwind(AssertUnwindSafe(|| call(&mut function)));
        let returned = clock.tick();
        let (got, told) = match outcome {
            Ok(outcome) => (got(&outcome), Some((outcome.role, outcome.followers))),
            Err(payload) => (unwound(payload), None),
        };
        self.calls.push(Call {
            id: began,
            key,
            asked,
            began,
            returned,
            ran,
            got,
            told,
        });
    }

    /// `start`, and `wait` for the ticket.
    pub fn start(&mut self, group: &Arc<Group>, key: u64, end: End, fate: Fate) {
        let lingers = self.lingers();
        let clock = self.clock.clone();
        let began = clock.tick();
        let ran = Arc::new(Mutex::new(None));
        let runs = {
            let (clock, ran) = (clock.clone(), Arc::clone(&ran));
            move || *ran.lock().unwrap() = Some(run(&clock, lingers))
        };
        let function = {
            let runs = runs.clone();
            move || {
                runs();
                finish(began, end)
            }
        };
        let spawn = |job: Job| match fate {
            Fate::Inline => job.run(),
            Fate::Worker => self.worker.send(job).unwrap(),
            Fate::Dropped => {
                runs();
                drop(job);
            }
        };
        let outcome = group.start(&key, spawn, function).wait();
        let returned = clock.tick();
        let ran = *ran.lock().unwrap();
        self.calls.push(Call {
            id: began,
            key,
            asked: Asked::default(),
            began,
            returned,
            ran,
            got: got(&outcome),
            told: Some((outcome.role, outcome.followers)),
        });
    }

    /// `forget`, or `forget_unshared`. Recorded only where it was true.
    pub fn forget(&mut self, group: &Group, key: u64, unshared: bool) {
        let began = self.clock.tick();
        let forgot = if unshared {
            group.forget_unshared(&key)
        } else {
            group.forget(&key)
        };
        let returned = self.clock.tick();
        if forgot {
            self.calls.push(Call {
                id: began,
                key,
                asked: Asked::default(),
                began,
                returned,
                ran: None,
                got: Got::Forgot,
                told: None,
            });
        }
    }

    /// `join`. A leader ends like this, or, for a panic, is dropped. A follower waits or leaves.
    pub fn join(&mut self, group: &Group, key: u64, end: End, asked: Asked, waits: bool) {
        let lingers = self.lingers();
        let clock = self.clock.clone();
        let began = clock.tick();
        let (ran, outcome) = match request(group, &key, asked).join() {
            Joined::Leader(leader) => {
                let ran = run(&clock, lingers);
                let outcome = match end {
                    End::Value => Some(leader.complete(Ok(began))),
                    End::Error => Some(leader.complete(Err(began))),
                    End::Panic | End::TextlessPanic => {
                        drop(leader);
                        None
                    }
                };
                (Some(ran), outcome)
            }
            // One that was refused has its outcome already, and nothing to leave.
            Joined::Follower(follower) if waits || follower.is_done() => {
                (None, Some(follower.wait()))
            }
            Joined::Follower(follower) => {
                let seated = clock.tick();
                let call = Call {
                    id: began,
                    key,
                    asked,
                    began,
                    returned: 0,
                    ran: None,
                    got: Got::Left { seated, leaving: 0 },
                    told: None,
                };
                self.leave();
                self.follower = Some((call, follower));
                return;
            }
        };
        let returned = clock.tick();
        self.calls.push(Call {
            id: began,
            key,
            asked,
            began,
            returned,
            ran,
            got: outcome.as_ref().map_or(Got::Abandoned, got),
            told: outcome.map(|outcome| (outcome.role, outcome.followers)),
        });
    }

    /// Drops the follower that `join` has got, if there is one.
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
    pub fn finish(mut self) -> Vec<Call> {
        self.leave();
        self.calls
    }

    /// Whether the function takes its time.
    fn lingers(&mut self) -> bool {
        self.random(2) == 0
    }
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
) -> Request<'g, 'k, Id, Id, u64, u64> {
    let mut request = group.request(key);
    request = match asked.by_error {
        true => request.takeover_if(asked.takeovers, |_| true),
        false => request.takeover(asked.takeovers),
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
    if asked.gives_up {
        request = request.max_age(Duration::ZERO);
    }
    request
}

/// How the function of a call ends.
fn finish(id: Id, end: End) -> Result<Id, Id> {
    match end {
        End::Value => Ok(id),
        End::Error => Err(id),
        // Not by `panic!`, which would fill the test's output, and hide what does not belong there.
        End::Panic => resume_unwind(Box::new(id.to_string())),
        End::TextlessPanic => resume_unwind(Box::new(Textless)),
    }
}

/// What every function does: nothing, or let other threads come along.
fn run(clock: &Clock, lingers: bool) -> Run {
    let began = clock.tick();
    if lingers {
        thread::yield_now();
    }
    let ended = clock.tick();
    Run { began, ended }
}

fn got(outcome: &Outcome<Id, Id>) -> Got {
    match &outcome.result {
        Ok(id) => Got::Value(*id),
        Err(CallError::Failed(id)) => Got::Failed(**id),
        Err(CallError::Panicked(panicked)) => Got::Panicked(panicked.message().map(id_in)),
        Err(CallError::Abandoned) => Got::Abandoned,
        Err(CallError::TimedOut) => Got::TimedOut,
        Err(CallError::Overloaded) => Got::Overloaded,
        Err(other) => panic!("unexpected: {other}"),
    }
}

/// What a leader unwound with. A panic that is not the function's is a failure of the test.
fn unwound(payload: Box<dyn Any + Send>) -> Got {
    match payload.downcast_ref::<String>() {
        Some(text) => Got::Panicked(Some(id_in(text))),
        None if payload.is::<Textless>() => Got::Panicked(None),
        None => resume_unwind(payload),
    }
}

fn id_in(text: &str) -> Id {
    text.parse()
        .unwrap_or_else(|_| panic!("not one of ours: {text}"))
}
