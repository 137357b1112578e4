//! Random programs of nested calls, batches, joins, jobs and limits, over several groups, keys and
//! threads. All end; and wherever a wait is refused as a deadlock, it would have closed a cycle of
//! which no other wait has a limit (G9).
//!
//! A thread writes down which functions it is running and what it asks for. When it is refused, the
//! other threads of the cycle are still waiting, because one of them waits for this thread. So the
//! refusal can be checked against what they have written down.
#![cfg(not(loom))]

mod common;

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Barrier, Mutex};
use std::thread::{self, ThreadId};
use std::time::Duration;

use common::TOO_LONG;
use shared_calls::{CallError, Deadlock, FlightGroup, Joined, Outcome, Role, Stats};

const PROGRAMS: u64 = 2_500;

/// The seed of the first program. Set `SEED` to run one program again.
const FIRST_SEED: u64 = 0x5EED_0000;

type Group = FlightGroup<u64, u64, u64>;

/// A key of a group.
type Name = (usize, u64);

#[derive(Debug)]
enum Kind {
    Call,
    NextFlight,
    /// `join`, and then `Leader::run` or `Follower::wait`.
    Join,
    /// `start` with a job that runs at once.
    Start,
    /// With these keys besides.
    Batch(Vec<u64>),
    Forget,
}

#[derive(Debug)]
struct Op {
    kind: Kind,
    name: Name,
    timeout: Option<Duration>,
    max_age: Option<Duration>,
    cap: Option<usize>,
    ending: Ending,
    yields: u64,
    nested: Vec<Arc<Op>>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Ending {
    Value,
    Error,
    Panic,
}

#[derive(Clone, Copy, Debug)]
struct Rules {
    groups: u64,
    keys: u64,
    /// Whether flights are given up. Such a program does not queue, because a queued caller of a
    /// cycle could be freed by that, and be elsewhere when the refusal is checked.
    gives_up: bool,
    /// Whether all waits have a limit, by a default of the groups.
    all_limited: bool,
    limits: bool,
    caps: bool,
}

/// Xorshift.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        let mut random = Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        for _ in 0..8 {
            random.next();
        }
        random
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 33) % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn rules(&mut self) -> Rules {
        Rules {
            groups: 1 + self.below(2),
            keys: 2 + self.below(3),
            gives_up: self.one_in(4),
            all_limited: self.one_in(8),
            limits: self.one_in(2),
            caps: self.one_in(4),
        }
    }

    fn ops(&mut self, rules: Rules, depth: u64) -> Vec<Arc<Op>> {
        let n = if depth == 0 { 3 } else { self.below(3) };
        (0..n).map(|_| Arc::new(self.op(rules, depth))).collect()
    }

    fn op(&mut self, rules: Rules, depth: u64) -> Op {
        let kind = match self.below(10) {
            0 | 1 if !rules.gives_up => Kind::NextFlight,
            0 if rules.gives_up => Kind::Forget,
            2 | 3 => Kind::Batch((0..1 + self.below(3)).map(|_| self.below(rules.keys)).collect()),
            4 => Kind::Join,
            5 => Kind::Start,
            _ => Kind::Call,
        };
        let with_options = matches!(kind, Kind::Call | Kind::NextFlight | Kind::Join);
        let is_batch = matches!(kind, Kind::Batch(_));
        let limited = with_options && rules.limits && self.one_in(3);
        Op {
            name: (self.below(rules.groups) as usize, self.below(rules.keys)),
            timeout: limited.then(|| Duration::from_micros(self.below(1_500))),
            max_age: (rules.gives_up && matches!(kind, Kind::Call) && self.one_in(3))
                .then(|| Duration::from_micros(self.below(1_000))),
            cap: (with_options && rules.caps && self.one_in(3)).then(|| self.below(2) as usize),
            ending: match self.below(8) {
                0 => Ending::Error,
                1 if !is_batch => Ending::Panic,
                _ => Ending::Value,
            },
            yields: self.below(12),
            nested: match depth {
                3 => Vec::new(),
                _ => self.ops(rules, depth + 1),
            },
            kind,
        }
    }
}

/// What a thread is doing, from the outside in.
#[derive(Debug)]
enum Frame {
    Runs(Vec<Name>),
    /// Waits for one of these, or leads.
    Asks(Vec<Name>, Limited),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Limited {
    Yes,
    No,
}

struct World {
    rules: Rules,
    groups: Vec<Group>,
    frames: Mutex<HashMap<ThreadId, Vec<Frame>>>,
    /// What the callers of each group have seen.
    seen: Vec<Mutex<Stats>>,
    /// By the number of threads in the cycle.
    refusals: Mutex<HashMap<usize, u64>>,
}

/// A frame, until this is dropped.
struct Entered<'w>(&'w World);

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let mut frames = self.0.frames.lock().unwrap();
        frames.get_mut(&thread::current().id()).unwrap().pop();
    }
}

impl World {
    fn enter(&self, frame: Frame) -> Entered<'_> {
        let mut frames = self.frames.lock().unwrap();
        frames.entry(thread::current().id()).or_default().push(frame);
        Entered(self)
    }

    fn run_all(self: &Arc<Self>, ops: &[Arc<Op>]) {
        ops.iter().for_each(|op| self.ask(op));
    }

    /// The function of a flight.
    fn run(self: &Arc<Self>, op: &Op, names: Vec<Name>) -> Result<u64, u64> {
        let _frame = self.enter(Frame::Runs(names));
        (0..op.yields).for_each(|_| thread::yield_now());
        self.run_all(&op.nested);
        match op.ending {
            Ending::Value => Ok(op.name.1),
            Ending::Error => Err(op.name.1),
            Ending::Panic => resume_unwind(Box::new(op.name.1)),
        }
    }

    fn ask(self: &Arc<Self>, op: &Arc<Op>) {
        let (in_group, key) = op.name;
        let group = &self.groups[in_group];
        let limited = match (self.rules.all_limited, op.timeout, op.max_age) {
            (false, None, None) => Limited::No,
            _ => Limited::Yes,
        };
        let names = match &op.kind {
            Kind::Batch(keys) => {
                let keys = keys.iter().chain([&key]);
                keys.map(|key| (in_group, *key)).collect()
            }
            _ => vec![op.name],
        };
        let _frame = self.enter(Frame::Asks(names.clone(), limited));
        if let Kind::Batch(_) = op.kind {
            return self.ask_batch(op, &names);
        }
        let mut request = group.request(&key);
        if let Some(timeout) = op.timeout {
            request = request.timeout(timeout);
        }
        if let Some(max_age) = op.max_age {
            request = request.max_age(max_age);
        }
        if let Some(cap) = op.cap {
            request = request.max_followers(cap);
        }
        let f = || self.run(op, names);
        let outcome = catch_unwind(AssertUnwindSafe(|| match op.kind {
            Kind::Call => Some(request.call_ex(f)),
            Kind::NextFlight => Some(request.next_flight().call_ex(f)),
            Kind::Join => Some(match request.join() {
                Joined::Leader(leader) => leader.run(f),
                Joined::Follower(follower) => follower.wait(),
            }),
            Kind::Start => {
                let (world, op) = (Arc::clone(self), Arc::clone(op));
                let f = move || world.run(&op, vec![op.name]);
                Some(group.start(&key, |job| job.run(), f).wait())
            }
            Kind::Batch(_) => unreachable!("asked above"),
            Kind::Forget => {
                group.forget(&key);
                None
            }
        }));
        match outcome {
            Ok(Some(outcome)) => self.saw(op, op.name, &outcome.result, Some(&outcome)),
            Ok(None) => {}
            Err(_) => self.seen[in_group].lock().unwrap().led += 1,
        }
    }

    fn ask_batch(self: &Arc<Self>, op: &Op, names: &[Name]) {
        let keys: Vec<&u64> = names.iter().map(|(_, key)| key).collect();
        let in_group = op.name.0;
        let results = self.groups[in_group].call_many(&keys, |keys| {
            let names: Vec<Name> = keys.iter().map(|key| (in_group, **key)).collect();
            let distinct: HashSet<_> = names.iter().collect();
            assert_eq!(distinct.len(), names.len(), "a key named twice is one");
            self.run(op, names)?;
            Ok(keys.iter().map(|key| **key).collect())
        });
        assert_eq!(results.len(), names.len());
        let mut distinct = HashMap::new();
        for (name, result) in names.iter().zip(&results) {
            let first: &mut &Result<_, _> = distinct.entry(name).or_insert(result);
            assert_eq!(*first, result, "a key named twice is one");
        }
        for (name, result) in distinct {
            self.saw(op, *name, result, None);
        }
    }

    /// Counts the outcome of a call, and checks it.
    fn saw(
        &self,
        op: &Op,
        name: Name,
        result: &Result<u64, CallError<u64>>,
        outcome: Option<&Outcome<u64, u64>>,
    ) {
        let mut seen = self.seen[name.0].lock().unwrap();
        match result {
            Err(CallError::TimedOut) => seen.timed_out += 1,
            Err(CallError::Overloaded) => seen.overloaded += 1,
            Err(CallError::Deadlock(_)) => seen.deadlocked += 1,
            _ if outcome.map_or(true, |outcome| outcome.role == Role::Followed) => {
                seen.followed += 1;
            }
            _ => seen.led += 1,
        }
        drop(seen);
        match result {
            Ok(value) => assert_eq!(*value, name.1, "the value of another key"),
            Err(CallError::Deadlock(deadlock)) => self.verify(name, deadlock),
            Err(CallError::TimedOut)
                if !self.rules.gives_up && !matches!(op.kind, Kind::Join | Kind::Start) =>
            {
                // A caller's own key is refused, whatever its limit.
                let me = thread::current().id();
                assert!(!runs(&self.frames.lock().unwrap()[&me], &[name]));
            }
            Err(_) => {}
        }
    }

    /// Checks that a wait for this key would have closed the cycle that the refusal names, and that
    /// no other wait of the cycle has a limit.
    fn verify(&self, asked: Name, deadlock: &Deadlock) {
        let frames = self.frames.lock().unwrap();
        let threads: Vec<_> = deadlock.threads().iter().map(|thread| thread.id()).collect();
        let me = thread::current().id();
        let context = || format!("{me:?} asked for {asked:?}: {deadlock}\n{:#?}", *frames);
        assert_eq!(threads.first(), Some(&me), "{}", context());
        let distinct: HashSet<_> = threads.iter().collect();
        assert_eq!(distinct.len(), threads.len(), "{}", context());
        let mut awaited = vec![asked];
        for thread in threads[1..].iter().chain([&me]) {
            let frames = &frames[thread];
            assert!(runs(frames, &awaited), "{thread:?} does not lead: {}", context());
            if thread == &me {
                break;
            }
            let Some(Frame::Asks(names, Limited::No)) = frames.last() else {
                panic!("{thread:?} does not wait without a limit: {}", context());
            };
            awaited.clone_from(names);
        }
        *self.refusals.lock().unwrap().entry(threads.len()).or_default() += 1;
    }
}

/// Whether a thread is running a function for one of these keys.
fn runs(frames: &[Frame], names: &[Name]) -> bool {
    let runs = |frame: &Frame| match frame {
        Frame::Runs(of) => of.iter().any(|name| names.contains(name)),
        Frame::Asks(..) => false,
    };
    frames.iter().any(runs)
}

/// Runs a program to its end, and gives how many refusals there were by the length of the cycle.
fn run_program(seed: u64) -> HashMap<usize, u64> {
    let mut random = Random::new(seed);
    let rules = random.rules();
    let group = |_| {
        let builder = FlightGroup::builder().shards(1 + random.below(3) as usize);
        match rules.all_limited {
            false => builder.build(),
            true => builder.timeout(Duration::from_micros(500)).build(),
        }
    };
    let groups: Vec<Group> = (0..rules.groups).map(group).collect();
    let world = Arc::new(World {
        rules,
        seen: groups.iter().map(|_| Mutex::default()).collect(),
        groups,
        frames: Mutex::default(),
        refusals: Mutex::default(),
    });
    let threads: Vec<_> = (0..2 + random.below(3)).map(|_| random.ops(rules, 0)).collect();
    let barrier = Barrier::new(threads.len());
    thread::scope(|s| {
        for ops in &threads {
            s.spawn(|| {
                barrier.wait();
                world.run_all(ops);
            });
        }
    });
    for (group, seen) in world.groups.iter().zip(&world.seen) {
        let stats = group.stats();
        let seen = *seen.lock().unwrap();
        assert_eq!((stats.in_flight, stats.waiting), (0, 0));
        assert!(group.in_flight().is_empty());
        assert_eq!(stats.calls(), seen.calls(), "{stats:?} {seen:?}");
        let refused = |stats: &Stats| (stats.timed_out, stats.deadlocked, stats.overloaded);
        assert_eq!(refused(&stats), refused(&seen), "{stats:?} {seen:?}");
        // The callers of a batch do not see who led.
        assert!(stats.led >= seen.led);
    }
    let refusals = world.refusals.lock().unwrap();
    refusals.clone()
}

/// The seed of the program that is running, to run a failed one again.
struct Running(&'static AtomicU64);

impl Running {
    fn set(&self, seed: u64) {
        self.0.store(seed, SeqCst);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if thread::panicking() {
            let seed = self.0.load(SeqCst);
            let _ = writeln!(std::io::stderr(), "failed: run it again with SEED={seed}");
        }
    }
}

#[test]
fn random_programs_end_and_every_refusal_in_them_is_right() {
    static SEED: AtomicU64 = AtomicU64::new(0);
    let running = Running(&SEED);
    let (_alive, gone) = mpsc::channel::<()>();
    thread::spawn(move || {
        if gone.recv_timeout(TOO_LONG) == Err(RecvTimeoutError::Timeout) {
            let seed = SEED.load(SeqCst);
            let _ = writeln!(std::io::stderr(), "hangs: run it again with SEED={seed}");
            std::process::abort();
        }
    });
    if let Some(seed) = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()) {
        running.set(seed);
        for _ in 0..1_000 {
            run_program(seed);
        }
        return;
    }
    let mut refusals = HashMap::new();
    for seed in FIRST_SEED..FIRST_SEED + PROGRAMS {
        running.set(seed);
        for (threads, n) in run_program(seed) {
            *refusals.entry(threads).or_default() += n;
        }
    }
    // The programs are of the kind that has deadlocks, of one thread and of several.
    let several: u64 = (refusals.iter().filter(|(threads, _)| **threads > 1)).map(|(_, n)| n).sum();
    assert!(refusals[&1] > 100 && several > 20, "{refusals:?}");
}
