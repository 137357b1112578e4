//! What the threads of a schedule share: the groups, their history, and what the groups should have
//! counted.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shuttle::scheduler::TaskId;

use crate::check::{check, Call, Got, Tally, Tick};
use crate::perform::Deferred;
use crate::plan::{GroupPlan, Options, Plan};
use crate::user::{self, intrude, Failure, Hashing, Key, Name, Value};
use crate::{CallError, Deadlock, FlightGroup, Landed, Observer, Role, Stats};

pub(crate) type Group = FlightGroup<Value, Failure, Key, Hashing>;

/// What user code that looks at a group calls it with. Not in the history.
const PROBE: u64 = 99;

pub(crate) struct World {
    pub(crate) groups: Vec<Watched>,
    clock: AtomicU64,
    /// The threads that run jobs.
    pub(crate) jobs: Mutex<Vec<shuttle::thread::JoinHandle<()>>>,
    /// Calls that are recorded when their jobs have ended.
    pub(crate) deferred: Mutex<Vec<Deferred>>,
    /// Of the calls inside a function that have no limit: the thread, and when they were at work.
    unlimited: Mutex<Vec<(TaskId, Tick, Tick)>>,
    fault: Mutex<Option<String>>,
}

pub(crate) struct Watched {
    pub(crate) group: Group,
    pub(crate) plan: GroupPlan,
    pub(crate) history: Mutex<Vec<Call>>,
    pub(crate) expected: Mutex<Stats>,
}

std::thread_local! {
    /// That of the schedule which this thread explores.
    static WORLD: RefCell<Option<Arc<World>>> = const { RefCell::new(None) };
}

shuttle::thread_local! {
    static LOOKS: Cell<bool> = Cell::new(false);
    /// Whether the last call of this thread was refused for a deadlock.
    static REFUSED: Cell<bool> = Cell::new(false);
    /// Group and key of the functions that this thread runs.
    static RUNS: RefCell<Vec<(usize, u64)>> = RefCell::default();
}

fn me() -> TaskId {
    shuttle::current::me()
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn take_refused() -> bool {
    REFUSED.with(Cell::take)
}

/// Notes that this thread runs a function, until [`ran`].
pub(crate) fn runs(group: usize, key: u64) {
    RUNS.with(|it| it.borrow_mut().push((group, key)));
}

pub(crate) fn ran() {
    RUNS.with(|it| it.borrow_mut().pop());
}

/// Looks at a group, and calls it.
pub(crate) fn look() {
    let world = WORLD.with_borrow(Option::clone);
    let Some(world) = world else { return };
    if LOOKS.with(|it| it.replace(true)) {
        return;
    }
    let panics = user::set_clone_panics(false);
    world.groups.iter().for_each(|watched| watched.look(&world));
    user::set_clone_panics(panics);
    LOOKS.with(|it| it.set(false));
}

impl World {
    /// To be called at the beginning of a schedule.
    pub(crate) fn set_up(plan: &Plan) -> Arc<Self> {
        let groups = plan.groups.iter().map(Watched::new).collect();
        let world = Arc::new(Self {
            groups,
            clock: AtomicU64::new(1),
            jobs: Mutex::default(),
            deferred: Mutex::default(),
            unlimited: Mutex::default(),
            fault: Mutex::default(),
        });
        // What a schedule that failed has left must not run again, not even its drops.
        let left = WORLD.replace(Some(Arc::clone(&world)));
        mem::forget(left);
        user::take_live();
        // Makes the graph of who waits for whom. While a thread unwinds shuttle cannot make a static.
        drop(world.groups[0].group.in_flight());
        world
    }

    /// A moment after all that have been, on whatever thread.
    pub(crate) fn tick(&self) -> Tick {
        self.clock.fetch_add(1, Relaxed)
    }

    /// Only the first one counts.
    pub(crate) fn fault(&self, fault: impl FnOnce() -> String) {
        lock(&self.fault).get_or_insert_with(fault);
    }

    pub(crate) fn demand(&self, holds: bool, fault: impl FnOnce() -> String) {
        if !holds {
            self.fault(fault);
        }
    }

    /// Notes a call inside a function that has no limit. Gives what `waited` is to be told.
    pub(crate) fn waits_unlimited(&self) -> usize {
        let mut unlimited = lock(&self.unlimited);
        unlimited.push((me(), self.tick(), Tick::MAX));
        unlimited.len() - 1
    }

    pub(crate) fn waited(&self, i: usize) {
        lock(&self.unlimited)[i].2 = self.tick();
    }

    /// Whether a wait since then may have been refused for a deadlock: this thread runs a function
    /// for the key, or some other thread inside a function waited without a limit meanwhile.
    pub(crate) fn may_be_in_a_cycle(&self, group: usize, key: u64, since: Tick) -> bool {
        let own = RUNS.with(|it| it.borrow().contains(&(group, key)));
        let unlimited = lock(&self.unlimited);
        let mut others = unlimited.iter().filter(|(thread, ..)| *thread != me());
        own || others.any(|(_, _, until)| *until > since)
    }

    /// To be called at the end of a schedule, when its threads and jobs have ended.
    pub(crate) fn tear_down(self: Arc<Self>) -> Result<Tally, String> {
        let mut sum = Tally::default();
        for (i, watched) in self.groups.iter().enumerate() {
            watched.check_quiet(&self, i);
            if lock(&self.fault).is_none() {
                match check(&lock(&watched.history)) {
                    Ok(tally) => sum.add(&tally),
                    Err(fault) => self.fault(|| format!("group {i}: {fault:#?}")),
                }
            }
        }
        let live = user::take_live();
        self.demand(live == 0, || format!("G11: the quiet groups hold {live} values and errors"));
        WORLD.take();
        let fault = lock(&self.fault).take();
        fault.map_or(Ok(sum), Err)
    }
}

impl Watched {
    fn new(plan: &GroupPlan) -> Self {
        let hashing = Hashing { collides: plan.collides };
        let mut builder = FlightGroup::<Value, Failure, Key>::builder().hasher(hashing);
        let Options { timeout, max_age, max_followers, takeover, alone_on_deadlock, .. } =
            plan.defaults;
        if let Some(timeout) = timeout {
            builder = builder.timeout(Duration::from_nanos(timeout));
        }
        if let Some(age) = max_age {
            builder = builder.max_age(Duration::from_nanos(age));
        }
        if let Some(cap) = max_followers {
            builder = builder.max_followers(cap);
        }
        if let Some(times) = takeover {
            builder = builder.takeover(times);
        }
        if alone_on_deadlock {
            builder = builder.alone_on_deadlock();
        }
        if let Some(shards) = plan.shards {
            builder = builder.shards(shards);
        }
        if plan.observed {
            builder = builder.observer(Intruder);
        }
        Self {
            group: builder.build(),
            plan: plan.clone(),
            history: Mutex::default(),
            expected: Mutex::default(),
        }
    }

    /// As any thread may at any time.
    fn look(&self, world: &World) {
        let mut led = HashSet::new();
        for flight in self.group.in_flight() {
            let key = flight.key.0;
            if key == PROBE {
                continue;
            }
            let twice = !flight.given_up && !led.insert(key);
            world.demand(!twice, || format!("G1: two flights in the map: {flight:?}"));
            self.demand_cap(world, flight.followers);
            self.demand_cap(world, flight.queued);
        }
        let probe = self.group.request(&Name(PROBE)).without_defaults();
        let outcome = probe.timeout(Duration::ZERO).call_ex(|| Ok(Value::new(0)));
        self.count(outcome.role == Role::Led, &outcome.result);
    }

    /// G13, where all calls of the group have a cap.
    pub(crate) fn demand_cap(&self, world: &World, followers: usize) {
        let cap = self.plan.defaults.max_followers.unwrap_or(usize::MAX);
        world.demand(followers <= cap, || {
            format!("G13: {followers} followers, and the cap is {cap}")
        });
    }

    /// Notes what the group has to count for a call that led, or did not, and got this.
    pub(crate) fn count<V, E>(&self, led: bool, result: &Result<V, CallError<E>>) {
        let mut expected = lock(&self.expected);
        let stats = &mut *expected;
        if led {
            stats.led += 1;
            match result {
                Ok(_) => {}
                Err(CallError::Failed(_)) => stats.failed += 1,
                Err(CallError::Panicked(_)) => stats.panicked += 1,
                Err(_) => stats.abandoned += 1,
            }
            return;
        }
        match result {
            Err(CallError::TimedOut) => stats.timed_out += 1,
            Err(CallError::Deadlock(_)) => stats.deadlocked += 1,
            Err(CallError::Overloaded) => stats.overloaded += 1,
            _ => stats.followed += 1,
        }
    }

    /// The same for a call whose result is known from the history.
    pub(crate) fn count_as(&self, led: bool, got: Got) {
        let mut expected = lock(&self.expected);
        let stats = &mut *expected;
        if led {
            stats.led += 1;
            match got {
                Got::Failed(_) => stats.failed += 1,
                Got::Panicked(_) => stats.panicked += 1,
                Got::Abandoned => stats.abandoned += 1,
                _ => {}
            }
        } else {
            stats.followed += 1;
        }
    }

    fn check_quiet(&self, world: &World, i: usize) {
        let in_flight = self.group.in_flight();
        world.demand(in_flight.is_empty(), || {
            format!("G4, G11: group {i} is quiet, and in flight is {in_flight:?}")
        });
        let (stats, expected) = (self.group.stats(), *lock(&self.expected));
        world.demand(stats == expected, || {
            format!("group {i} has counted {stats:#?}, and should have {expected:#?}")
        });
    }
}

/// An observer that looks at the groups, and notes refusals.
struct Intruder;

impl Observer<Key> for Intruder {
    fn flight_began(&self, _: &Key) {
        intrude();
    }

    fn caller_joined(&self, _: &Key) {
        intrude();
    }

    fn flight_landed(&self, _: &Key, _: &Landed) {
        intrude();
    }

    fn caller_timed_out(&self, _: &Key) {
        intrude();
    }

    fn deadlock_refused(&self, _: &Key, _: &Deadlock) {
        intrude();
        REFUSED.with(|it| it.set(true));
    }

    fn overload_refused(&self, _: &Key) {
        intrude();
        if crate::dice::one_in(4) {
            user::unwind(user::Textless); // Caught, and without effect.
        }
    }
}
