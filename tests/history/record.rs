//! Callers that record what they do.

use std::any::Any;
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;

use shared_calls::{CallError, FlightGroup, Follower, Joined, Outcome, SharedCalls};

use crate::check::{Call, Got, Id, Run, Tick};

/// Values and errors name the call whose function made them.
pub type Group = FlightGroup<Id, Id, u64>;

/// The one clock of a history.
#[derive(Default)]
pub struct Clock(AtomicU64);

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
pub struct Recorder<'c> {
    clock: &'c Clock,
    random: u64,
    calls: Vec<Call>,
    /// A follower's seat that is to be left without waiting.
    seat: Option<(Call, Follower<Id, Id>)>,
}

impl<'c> Recorder<'c> {
    pub fn new(clock: &'c Clock, seed: u64) -> Self {
        Self {
            clock,
            random: seed | 1,
            calls: Vec::new(),
            seat: None,
        }
    }

    /// A random number below `n` (xorshift).
    pub fn random(&mut self, n: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % n
    }

    /// `call_ex`, whose function ends like this, if it runs.
    pub fn call(&mut self, calls: &impl SharedCalls<Id, Id, u64>, key: u64, end: End) {
        let clock = self.clock;
        let lingers = self.lingers();
        let began = clock.tick();
        let id = began;
        let mut ran = None;
        let function = || {
            ran = Some(run(clock, lingers));
            match end {
                End::Value => Ok(id),
                End::Error => Err(id),
                // Not by `panic!`, which would fill the test's output, and hide what does not
                // belong there.
                End::Panic => resume_unwind(Box::new(id.to_string())),
                End::TextlessPanic => resume_unwind(Box::new(Textless)),
            }
        };
        let outcome = catch_unwind(AssertUnwindSafe(|| calls.call_ex(&key, function)));
        let returned = clock.tick();
        let (got, told) = match outcome {
            Ok(outcome) => (got(&outcome), Some((outcome.role, outcome.followers))),
            Err(payload) => (unwound(payload), None),
        };
        self.calls.push(Call {
            id,
            key,
            began,
            returned,
            ran,
            got,
            told,
        });
    }

    /// `join`. A leader ends like this, or, for a panic, is dropped. A follower waits or leaves.
    pub fn join(&mut self, group: &Group, key: u64, end: End, waits: bool) {
        let clock = self.clock;
        let lingers = self.lingers();
        let began = clock.tick();
        let (ran, outcome) = match group.join(&key) {
            Joined::Leader(leader) => {
                let ran = run(clock, lingers);
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
            Joined::Follower(follower) if waits => (None, Some(follower.wait())),
            Joined::Follower(follower) => {
                let seated = clock.tick();
                let call = Call {
                    id: began,
                    key,
                    began,
                    returned: 0,
                    ran: None,
                    got: Got::Left { seated, leaving: 0 },
                    told: None,
                };
                self.leave();
                self.seat = Some((call, follower));
                return;
            }
        };
        let returned = clock.tick();
        self.calls.push(Call {
            id: began,
            key,
            began,
            returned,
            ran,
            got: outcome.as_ref().map_or(Got::Abandoned, got),
            told: outcome.map(|outcome| (outcome.role, outcome.followers)),
        });
    }

    /// Leaves the seat that `join` has taken, if there is one.
    pub fn leave(&mut self) {
        if let Some((mut call, follower)) = self.seat.take() {
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
