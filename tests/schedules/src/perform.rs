//! Callers that do what a plan says, and record what they got.

use std::any::Any;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::check::{Asked, Batch, Call, Got, Id, Run, Tick};
use crate::plan::{End, Fate, Follow, Kind, Lead, Options, Step, Willing};
use crate::user::{self, pause, unwind, Failure, Key, Name, Value};
use crate::world::{lock, ran, runs, take_refused, Watched, World};
use crate::{
    dice, sync, CallError, Flight, Follower, Job, Joined, Leader, Outcome, Request, Role,
    SharedCalls, Ticket,
};

type Asking<'g, 'k> = Request<'g, 'k, Value, Failure, Name, Key, user::Hashing>;
type Payload = Box<dyn Any + Send>;

/// Functions that ran alone have keys of their own in the history, from here on.
const ALONE: u64 = 1 << 32;

/// Does the step. `depth` is how many functions this thread runs.
pub(crate) fn perform(world: &Arc<World>, step: &Step, depth: u32) {
    let watched = &world.groups[step.group];
    let began = world.tick();
    let caller = Caller {
        world,
        watched,
        step,
        depth,
        began,
        name: Name(step.key),
        options: effective(step, watched),
    };
    // A wait of this call may be part of a cycle. The age counts on arrival only for some.
    let ages = !matches!(step.kind, Kind::Join(..) | Kind::Start { .. } | Kind::Many(_));
    let limited = caller.options.timeout.is_some() || ages && caller.options.max_age.is_some();
    let unlimited = (depth > 0 && !limited).then(|| world.waits_unlimited());
    match &step.kind {
        Kind::Call => caller.call(|f| {
            let result = watched.group.call(&caller.name, || f(None));
            (result, None)
        }),
        Kind::Dyn => caller.call(|f| {
            let calls: &dyn SharedCalls<_, _, Name> = &watched.group;
            told(calls.call_ex(&caller.name, || f(None)))
        }),
        Kind::Request => caller.call_request(|request, f| told(request.call_ex(|| f(None)))),
        Kind::CallWith => caller.call_request(|request, f| {
            let result = request.call_with(|flight| f(Some(flight)));
            (result, None)
        }),
        Kind::Join(lead, follow) => caller.join(*lead, *follow),
        Kind::Start { fate, follow, asks } => caller.start(*fate, *follow, *asks),
        Kind::Many(keys) => caller.call_many(keys),
        Kind::Forget => caller.forget(watched.group.forget(&caller.name)),
        Kind::ForgetUnshared => caller.forget(watched.group.forget_unshared(&caller.name)),
        Kind::Look => crate::world::look(),
        Kind::Sleep(nanoseconds) => {
            sync::sleep(*nanoseconds);
            pause();
        }
    }
    if let Some(unlimited) = unlimited {
        world.waited(unlimited);
    }
}

/// A request's options and the group's, as far as they apply.
fn effective(step: &Step, watched: &Watched) -> Options {
    let (own, mut defaults) = (step.options, watched.plan.defaults);
    if own.without_defaults {
        defaults = Options::default();
    }
    let takes_over = own.takeover.is_some() || own.takeover_if.is_some();
    let mut options = Options {
        timeout: own.timeout.or(defaults.timeout),
        max_age: own.max_age.or(defaults.max_age),
        max_followers: own.max_followers.or(defaults.max_followers),
        takeover: match takes_over {
            true => Some(own.takeover.unwrap_or(1)),
            false => defaults.takeover,
        },
        alone_on_deadlock: own.alone_on_deadlock || defaults.alone_on_deadlock,
        ..own
    };
    if let Kind::Join(..) | Kind::Start { .. } | Kind::Many(_) = step.kind {
        (options.takeover, options.takeover_if) = (None, None);
        options.alone_on_deadlock = false;
    }
    options
}

/// What a call gives: its result, and what it was told, if it was.
type Reply = (Result<Value, CallError<Failure>>, Option<(Role, usize)>);

fn told(outcome: Outcome<Value, Failure>) -> Reply {
    (outcome.result, Some((outcome.role, outcome.followers)))
}

/// What a function of a call gets: its flight, if it is shown.
type Function<'f> = &'f mut dyn FnMut(Option<&Flight<'_>>) -> Result<Value, Failure>;

/// One call.
struct Caller<'a> {
    world: &'a Arc<World>,
    watched: &'a Watched,
    step: &'a Step,
    depth: u32,
    began: Tick,
    name: Name,
    options: Options,
}

/// How a call ended, as far as its own thread knows.
struct Ended {
    got: Got,
    told: Option<(Role, usize)>,
    /// What it counts as, unless it led.
    refused: Option<CallError<()>>,
    counts: bool,
}

impl Caller<'_> {
    fn asked(&self) -> Asked {
        Asked {
            timeout: self.options.timeout.map(Duration::from_nanos),
            next_flight: self.options.next_flight,
            max_age: self.options.max_age.map(Duration::from_nanos),
            takeovers: self.options.takeover.unwrap_or(0),
            // Each of these is a call of its own in the history.
            by_error: false,
            max_followers: self.options.max_followers,
            alone_on_deadlock: self.options.alone_on_deadlock,
            without_defaults: self.step.options.without_defaults,
        }
    }

    /// With the step's options, but for the takeover.
    fn request(&self) -> Asking<'_, '_> {
        let own = self.step.options;
        let mut request = self.watched.group.request(&self.name);
        request = match own.timeout {
            Some(timeout) if own.as_deadline => request.deadline(sync::instant_in(timeout)),
            Some(timeout) => request.timeout(Duration::from_nanos(timeout)),
            None => request,
        };
        if let Some(age) = own.max_age {
            request = request.max_age(Duration::from_nanos(age));
        }
        if let Some(cap) = own.max_followers {
            request = request.max_followers(cap);
        }
        if own.next_flight {
            request = request.next_flight();
        }
        if own.alone_on_deadlock {
            request = request.alone_on_deadlock();
        }
        if own.without_defaults {
            request = request.without_defaults();
        }
        match (own.takeover, own.takeover_if) {
            (Some(times), None) => request.takeover(times),
            _ => request,
        }
    }

    fn call_request(&self, call: impl FnOnce(Asking<'_, '_>, Function<'_>) -> Reply) {
        // The errors after which it took over, and when.
        let taken = Mutex::new(Vec::new());
        self.call_and(&taken, |f| {
            let request = self.request();
            let Some(willing) = self.step.options.takeover_if else {
                return call(request, f);
            };
            let predicate = |error: &Failure| {
                let id = error.id(self.step.key);
                user::intrude();
                if willing == Willing::Panics {
                    unwind(user::PredicatePanic(id));
                }
                if willing == Willing::Yes {
                    lock(&taken).push((id, self.world.tick()));
                }
                willing == Willing::Yes
            };
            let times = self.options.takeover.unwrap_or(1);
            call(request.takeover_if(times, predicate), f)
        });
    }

    fn call(&self, call: impl FnOnce(Function<'_>) -> Reply) {
        self.call_and(&Mutex::default(), call);
    }

    fn call_and(&self, taken: &Mutex<Vec<(Id, Tick)>>, call: impl FnOnce(Function<'_>) -> Reply) {
        let (mut ran, mut alone) = (None, false);
        take_refused();
        user::set_clone_panics(self.step.clone_panics);
        let reply = {
            let mut function = |flight: Option<&Flight<'_>>| {
                alone = take_refused() && self.options.alone_on_deadlock;
                ran = Some(self.run(flight, self.options.timeout.is_none(), alone));
                self.finish(false)
            };
            catch_unwind(AssertUnwindSafe(|| call(&mut function)))
        };
        let returned = self.world.tick();
        user::set_clone_panics(false);
        let ended = self.ended(reply);

        let mut taken = std::mem::take(&mut *lock(taken));
        if let (None, Some((last, _))) = (ran, taken.last()) {
            if ended.got == Got::Failed(*last) {
                taken.pop(); // Its time was up before it could take over.
            }
        }
        for (i, (id, returned)) in taken.into_iter().enumerate() {
            let asked = Asked {
                next_flight: i == 0 && self.options.next_flight,
                takeovers: 0,
                ..self.asked()
            };
            let call = self.record(None, returned, Got::Failed(id), None);
            self.push(Call { asked, ..call });
        }
        if alone {
            self.world.demand(self.depth > 0, || self.says("ran alone"));
            self.push(self.record(None, returned, Got::Deadlocked, None));
            lock(&self.watched.expected).deadlocked += 1;
            let call = self.record(ran, returned, ended.got, ended.told);
            let (key, asked) = (ALONE + self.began, Asked::default());
            self.push(Call { key, asked, ..call });
            return;
        }
        self.settle(ran, returned, ended);
    }

    /// Records a call that has ended, and what it counts as.
    fn settle(&self, ran: Option<Run>, returned: Tick, ended: Ended) {
        self.count(ran.is_some(), &ended);
        self.push(self.record(ran, returned, ended.got, ended.told));
    }

    fn count(&self, led: bool, ended: &Ended) {
        match &ended.refused {
            _ if !ended.counts => {}
            Some(error) if !led => self.watched.count(false, &Err::<(), _>(error.clone())),
            _ => self.watched.count_as(led, ended.got),
        }
    }

    /// What every function does: takes its time, calls the group, asks about its flight.
    fn run(&self, flight: Option<&Flight<'_>>, must_be_wanted: bool, alone: bool) -> Run {
        self.run_for(&[self.step.key], flight, must_be_wanted, alone)
    }

    fn run_for(
        &self,
        keys: &[u64],
        flight: Option<&Flight<'_>>,
        must_be_wanted: bool,
        alone: bool,
    ) -> Run {
        let clone_panics = user::set_clone_panics(false);
        let began = self.world.tick();
        for _ in 0..dice::below(8) {
            pause();
        }
        keys.iter().for_each(|key| runs(self.step.group, *key));
        for step in &self.step.inner {
            perform(self.world, step, self.depth + 1);
        }
        keys.iter().for_each(|_| ran());
        let mut unwanted = None;
        if let Some(flight) = flight {
            if !alone {
                self.watched.demand_cap(self.world, flight.followers());
            }
            let asked = self.world.tick();
            if !flight.is_wanted() {
                unwanted = Some([asked, self.world.tick()]);
                self.world.demand(!must_be_wanted, || self.says("is not wanted"));
                let followers = flight.followers();
                let none = followers == 0;
                self.world.demand(none, || self.says("is not wanted, and is followed"));
            }
        }
        let ended = self.world.tick();
        pause();
        user::set_clone_panics(clone_panics);
        Run { began, ended, unwanted }
    }

    /// How the function ends.
    fn finish(&self, in_job: bool) -> Result<Value, Failure> {
        match self.step.end {
            End::Value => Ok(Value::new(self.began)),
            End::Error => Err(self.failure()),
            End::Panic => unwind(self.began.to_string()),
            // In a call it would be the caller's to drop.
            End::Bad if in_job => unwind(user::Bomb),
            End::TextlessPanic | End::Bad => unwind(user::Textless),
        }
    }

    fn failure(&self) -> Failure {
        Failure::new(vec![(self.step.key, self.began)])
    }

    /// What a function that ends so has brought about.
    fn brings(&self) -> Got {
        match self.step.end {
            End::Value => Got::Value(self.began),
            End::Error => Got::Failed(self.began),
            End::Panic => Got::Panicked(Some(self.began)),
            End::TextlessPanic | End::Bad => Got::Panicked(None),
        }
    }

    fn record(
        &self,
        ran: Option<Run>,
        returned: Tick,
        got: Got,
        told: Option<(Role, usize)>,
    ) -> Call {
        Call {
            id: self.began,
            key: self.step.key,
            asked: self.asked(),
            began: self.began,
            returned,
            // Groups wait for each other here, so the world looks for cycles itself.
            inside: None,
            batch: None,
            ran,
            // The function knows itself whether it must be wanted.
            let_go: Some(0),
            got,
            told,
        }
    }

    fn push(&self, call: Call) {
        if let Some((_, followers)) = call.told {
            self.watched.demand_cap(self.world, followers);
        }
        lock(&self.watched.history).push(call);
    }

    fn says(&self, what: &str) -> String {
        format!("a call of depth {} {what}: {:?}", self.depth, self.step)
    }

    /// With what no function of this plan panics with.
    fn panicked(&self, payload: &(dyn Any + Send)) {
        self.world.fault(|| self.says(&format!("has panicked, {}", text(payload))));
    }

    fn ended(&self, reply: Result<Reply, Payload>) -> Ended {
        match reply {
            Ok((result, told)) => self.ended_with(self.step.key, result, told),
            Err(payload) => self.unwound(payload),
        }
    }

    fn ended_with(
        &self,
        key: u64,
        result: Result<Value, CallError<Failure>>,
        told: Option<(Role, usize)>,
    ) -> Ended {
        let (got, refused) = match result {
            Ok(value) => (Got::Value(value.0), None),
            Err(CallError::Failed(error)) => (Got::Failed(error.id(key)), None),
            Err(CallError::Panicked(panicked)) => {
                let id = panicked.message().and_then(|text| text.parse().ok());
                (Got::Panicked(id), None)
            }
            Err(CallError::Abandoned) => (Got::Abandoned, None),
            Err(CallError::TimedOut) => (Got::TimedOut, Some(CallError::TimedOut)),
            Err(CallError::Deadlock(it)) => (Got::Deadlocked, Some(CallError::Deadlock(it))),
            Err(CallError::Overloaded) => (Got::Overloaded, Some(CallError::Overloaded)),
        };
        let plausible = match &refused {
            Some(CallError::TimedOut) => self.options.timeout.is_some(),
            Some(CallError::Overloaded) => self.options.max_followers.is_some(),
            Some(CallError::Deadlock(_)) => {
                let group = self.step.group;
                self.depth > 0 && self.world.may_be_in_a_cycle(group, key, self.began)
            }
            _ => true,
        };
        let world = self.world;
        world.demand(plausible, || self.says(&format!("was refused: {refused:?}")));
        Ended { got, told, refused, counts: true }
    }

    fn unwound(&self, payload: Payload) -> Ended {
        let mut counts = true;
        let got = if let Some(text) = payload.downcast_ref::<String>() {
            let id = text.parse().ok();
            if id.is_none() {
                self.panicked(&*payload);
            }
            Got::Panicked(id)
        } else if payload.is::<user::Textless>() {
            Got::Panicked(None)
        } else if let Some(user::ClonePanic(id)) = payload.downcast_ref() {
            Got::Value(*id)
        } else if let Some(user::PredicatePanic(id)) = payload.downcast_ref() {
            counts = false;
            Got::Failed(*id)
        } else {
            self.panicked(&*payload);
            Got::Panicked(None)
        };
        Ended { got, told: None, refused: None, counts }
    }

    fn join(&self, lead: Lead, follow: Follow) {
        let world = self.world;
        match self.request().join() {
            Joined::Leader(leader) => {
                self.watched.demand_cap(world, leader.followers());
                user::set_clone_panics(self.step.clone_panics);
                let (ran, ended) = match lead {
                    Lead::Complete => self.complete(leader),
                    Lead::Elsewhere => {
                        let completed = Mutex::new(None);
                        shuttle::thread::scope(|scope| {
                            scope.spawn(|| *lock(&completed) = Some(self.complete(leader)));
                        });
                        let completed = lock(&completed).take();
                        completed.expect("the scope waits for its thread")
                    }
                    Lead::Run => {
                        let mut ran = None;
                        let reply = catch_unwind(AssertUnwindSafe(|| {
                            told(leader.run(|| {
                                ran = Some(self.run(None, true, false));
                                self.finish(false)
                            }))
                        }));
                        (ran.expect("it leads"), self.ended(reply))
                    }
                };
                user::set_clone_panics(false);
                self.settle(Some(ran), world.tick(), ended);
            }
            Joined::Follower(follower) => {
                let seated = world.tick();
                self.follow(follower, follow, seated);
            }
        }
    }

    fn complete(&self, leader: Leader<'_, Value, Failure, Key, user::Hashing>) -> (Run, Ended) {
        let began = self.world.tick();
        for _ in 0..dice::below(8) {
            pause();
        }
        let run = Run { began, ended: self.world.tick(), unwanted: None };
        pause();
        let result = match self.step.end {
            End::Value => Ok(Value::new(self.began)),
            End::Error => Err(self.failure()),
            End::Panic | End::TextlessPanic | End::Bad => {
                drop(leader);
                return (run, self.ended(Ok((Err(CallError::Abandoned), None))));
            }
        };
        let reply = catch_unwind(AssertUnwindSafe(|| told(leader.complete(result))));
        (run, self.ended(reply))
    }

    /// A follower, or the ticket of one, waits or leaves.
    fn follow(&self, follower: impl Waits, follow: Follow, seated: Tick) {
        user::set_clone_panics(self.step.clone_panics);
        let reply = self.wait(follower, follow);
        user::set_clone_panics(false);
        let returned = self.world.tick();
        match reply {
            Reached::Outcome(reply) => self.settle(None, returned, self.ended(reply)),
            Reached::Left(leaving) => {
                let got = Got::Left { seated, leaving };
                self.push(self.record(None, returned, got, None));
            }
        }
    }

    fn wait(&self, waits: impl Waits, follow: Follow) -> Reached {
        let mut waits = Some(waits);
        let mut leaving = 0;
        let reply = catch_unwind(AssertUnwindSafe(|| {
            let it = waits.as_ref().expect("not taken yet");
            let early = match follow {
                Follow::Wait => None,
                Follow::WaitTimeout(limit) => it.wait_timeout(Duration::from_nanos(limit)),
                Follow::TryWait => it.try_wait().or_else(|| {
                    pause();
                    it.try_wait()
                }),
                Follow::Leave => {
                    pause();
                    if !it.is_done() {
                        leaving = self.world.tick();
                        drop(waits.take());
                        return None;
                    }
                    let outcome = it.try_wait();
                    self.world
                        .demand(outcome.is_some(), || self.says("is done, and has no outcome"));
                    outcome
                }
            };
            // Nothing that it keeps may count again.
            let outcome = early.or_else(|| waits.take().map(Waits::wait));
            outcome.map(told)
        }));
        match reply.transpose() {
            Some(reply) => Reached::Outcome(reply),
            None => Reached::Left(leaving),
        }
    }

    fn start(&self, fate: Fate, follow: Follow, asks: bool) {
        let world = self.world;
        let job = Arc::new(StartedJob { ran: Mutex::new(None), led: Mutex::new(false) });
        let spawn = |it: Job| {
            *lock(&job.led) = true;
            match fate {
                Fate::Inline => self.run_job(it),
                Fate::Thread => {
                    let (world, step) = (Arc::clone(world), self.step.clone());
                    let handle = shuttle::thread::spawn(move || {
                        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| it.run())) {
                            let text = text(&*payload);
                            world.fault(|| format!("Job::run has panicked, {text}: {step:?}"));
                        }
                    });
                    lock(&self.world.jobs).push(handle);
                }
                Fate::Dropped | Fate::SpawnerPanics => {
                    let began = world.tick();
                    pause();
                    let ended = world.tick();
                    *lock(&job.ran) = Some(Run { began, ended, unwanted: None });
                    if fate == Fate::SpawnerPanics {
                        unwind(user::SpawnerPanic);
                    }
                    drop(it);
                }
            }
        };
        let function = {
            let (world, step, job) = (Arc::clone(world), self.step.clone(), Arc::clone(&job));
            let (began, depth) = (self.began, self.depth);
            // Its ticket is not there yet where the spawner runs it.
            let must_be_wanted = fate == Fate::Inline;
            move |flight: Option<&Flight<'_>>| {
                let watched = &world.groups[step.group];
                let caller = Caller {
                    world: &world,
                    watched,
                    step: &step,
                    depth,
                    began,
                    name: Name(step.key),
                    options: effective(&step, watched),
                };
                let ran = caller.run(flight, must_be_wanted, false);
                *lock(&job.ran) = Some(ran);
                caller.finish(true)
            }
        };
        let request = self.request();
        let started = catch_unwind(AssertUnwindSafe(|| match asks {
            true => request.start_with(spawn, move |flight| function(Some(flight))),
            false => request.start(spawn, move || function(None)),
        }));
        let led = *lock(&job.led);
        let brings = match fate {
            Fate::Inline | Fate::Thread => self.brings(),
            Fate::Dropped | Fate::SpawnerPanics => Got::Abandoned,
        };
        let ticket = match started {
            Ok(ticket) => ticket,
            Err(payload) => {
                if !led || !payload.is::<user::SpawnerPanic>() {
                    self.panicked(&*payload);
                }
                let call = self.record(*lock(&job.ran), world.tick(), brings, None);
                self.watched.count_as(true, brings);
                return self.push(call);
            }
        };
        if !led {
            let seated = world.tick();
            return self.follow(ticket, follow, seated);
        }
        self.watched.count_as(true, brings);
        if fate == Fate::Inline {
            // Also where its time is up: an outcome that is ready beats a deadline.
            world.demand(ticket.is_done(), || self.says("has run its job, and is not done"));
        }
        user::set_clone_panics(self.step.clone_panics);
        let reached = self.wait(ticket, follow);
        user::set_clone_panics(false);
        if let Reached::Outcome(reply) = reached {
            let ended = self.ended(reply);
            if ended.refused.is_none() {
                let ran = *lock(&job.ran);
                return self.push(self.record(ran, world.tick(), ended.got, ended.told));
            }
        }
        // The flight goes on.
        lock(&world.deferred).push(Deferred {
            group: self.step.group,
            call: self.record(None, 0, brings, None),
            job,
        });
    }

    fn run_job(&self, job: Job) {
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| job.run())) {
            self.panicked(&*payload);
        }
    }

    fn call_many(&self, keys: &[u64]) {
        let world = self.world;
        let mut distinct = Vec::new();
        for key in keys {
            if !distinct.iter().any(|(other, _)| other == key) {
                distinct.push((*key, world.tick()));
            }
        }
        let id_of = |key: u64| {
            let mut ids = distinct.iter();
            ids.find(|(other, _)| *other == key).map_or(0, |(_, id)| *id)
        };
        let names: Vec<_> = keys.iter().map(|key| Name(*key)).collect();
        let names: Vec<_> = names.iter().collect();
        let (mut ran, mut led) = (None, Vec::new());
        let results = catch_unwind(AssertUnwindSafe(|| {
            self.watched.group.call_many(&names, |given| {
                led = given.iter().map(|name| name.0).collect();
                ran = Some(self.run_for(&led, None, true, false));
                let ids = given.iter().map(|name| (name.0, id_of(name.0)));
                let values = ids.clone().map(|(_, id)| Value::new(id));
                match self.step.end {
                    End::Value => Ok(values.collect()),
                    End::Error => Err(Failure::new(ids.collect())),
                    End::Panic | End::TextlessPanic => unwind(user::Textless),
                    End::Bad => Ok(values.skip(1).collect()),
                }
            })
        }));
        let returned = world.tick();
        let mut results = match results {
            Ok(results) => {
                let complete = results.len() == keys.len();
                world.demand(complete, || self.says("has another number of results"));
                Some(keys.iter().zip(results).collect::<Vec<_>>())
            }
            Err(payload) => {
                let texts = payload.downcast_ref::<String>();
                let wrong = texts.is_some_and(|it| it.starts_with("the function of a batch"));
                let ours = payload.is::<user::Textless>() || wrong;
                if !ours || led.is_empty() {
                    self.panicked(&*payload);
                }
                None
            }
        };
        for (key, id) in distinct {
            let leads = led.contains(&key);
            let mut first: Option<Ended> = None;
            while let Some(results) = &mut results {
                let Some(i) = results.iter().position(|(of, _)| **of == key) else {
                    break;
                };
                let ended = self.ended_with(key, results.remove(i).1, None);
                let same = first.as_ref().map_or(true, |first| first.got == ended.got);
                world.demand(same, || self.says("gives a key that is named twice two results"));
                first.get_or_insert(ended);
            }
            let ended = first.unwrap_or(Ended {
                got: if leads { Got::Panicked(None) } else { Got::Unwound },
                told: None,
                refused: None,
                counts: leads,
            });
            self.count(leads, &ended);
            let call = self.record(ran.filter(|_| leads), returned, ended.got, None);
            let batch =
                Some(Batch { id: self.began, ran, given: led.iter().position(|it| *it == key) });
            let it = Call { id, key, batch, ..call };
            self.push(it);
        }
    }

    fn forget(&self, forgot: bool) {
        if forgot {
            let call = self.record(None, self.world.tick(), Got::Forgot, None);
            let asked = Asked::default();
            self.push(Call { asked, ..call });
        }
    }
}

fn text(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("without a text")
}

/// What a caller with a place has come to.
enum Reached {
    Outcome(Result<Reply, Payload>),
    /// It has left since then.
    Left(Tick),
}

/// The job of a call that started a flight.
pub(crate) struct StartedJob {
    ran: Mutex<Option<Run>>,
    led: Mutex<bool>,
}

/// A call that led by a job and did not wait for it.
pub(crate) struct Deferred {
    group: usize,
    /// When its function ran, and when it was over, is not known yet.
    call: Call,
    job: Arc<StartedJob>,
}

impl Deferred {
    pub(crate) fn record(self, world: &World) {
        let (ran, returned) = (*lock(&self.job.ran), world.tick());
        let call = Call { ran, returned, ..self.call };
        lock(&world.groups[self.group].history).push(call);
    }
}

/// A follower or a ticket.
trait Waits: Sized {
    fn wait(self) -> Outcome<Value, Failure>;
    fn wait_timeout(&self, timeout: Duration) -> Option<Outcome<Value, Failure>>;
    fn try_wait(&self) -> Option<Outcome<Value, Failure>>;
    fn is_done(&self) -> bool;
}

macro_rules! waits {
    ($($type:ident),*) => {$(
        impl Waits for $type<Value, Failure> {
            fn wait(self) -> Outcome<Value, Failure> {
                $type::wait(self)
            }

            fn wait_timeout(&self, timeout: Duration) -> Option<Outcome<Value, Failure>> {
                $type::wait_timeout(self, timeout)
            }

            fn try_wait(&self) -> Option<Outcome<Value, Failure>> {
                $type::try_wait(self)
            }

            fn is_done(&self) -> bool {
                $type::is_done(self)
            }
        }
    )*};
}
waits!(Follower, Ticket);
