//! Functions that ask for other keys from within, at random, on many threads (G9).
//!
//! In no order they get into rings all the time: no thread may hang, and a caller that is refused
//! must be in a ring, which is looked up in what the threads say of themselves. In a fixed order of
//! the keys there can be no ring, and no caller may be refused.
//!
//! Each test runs for a second; `SHARED_CALLS_SECONDS=180 cargo test --test nesting` makes it three
//! minutes. A round that fails names its seed, and `SHARED_CALLS_SEED` begins with that.
#![cfg(not(loom))]

mod common;

use std::cell::RefCell;
use std::collections::HashMap;
use std::convert::Infallible;
use std::env;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Mutex};
use std::thread::{self, Builder, JoinHandle, Thread, ThreadId};
use std::time::{Duration, Instant, SystemTime};

use common::{assert_quiet, watchdog};
use shared_calls::{CallError, Deadlock, FlightGroup, Job, Joined, Outcome, Role, Stats};

const THREADS: usize = 5;
const KEYS: usize = 5;
const GROUPS: usize = 2;
/// How many calls a thread makes in a round, not counting those inside others.
const STEPS: usize = 100;
const DEPTH: usize = 4;

/// A key of one of the groups.
type Spot = (usize, usize);

/// Runs rounds until time is up, each with a seed of its own, which its threads are named after: so
/// whatever fails or hangs names it. Gives what all groups have counted.
fn play(rules: fn(u64) -> Rules) -> Sum {
    let number = |name| env::var(name).map(|text| text.parse::<u64>().expect(name));
    let seconds = number("SHARED_CALLS_SECONDS").unwrap_or(1);
    let now = || SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    let first = number("SHARED_CALLS_SEED").unwrap_or_else(|_| now());
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut sum = Sum::default();
    while sum.rounds == 0 || Instant::now() < end {
        let seed = first.wrapping_add(sum.rounds);
        let named = Builder::new().name(format!("seed {seed}"));
        let played = named.spawn(move || {
            let _watchdog = watchdog();
            round(seed, rules(seed))
        });
        let Ok(stats) = played.unwrap().join() else {
            panic!("SHARED_CALLS_SEED={seed}");
        };
        sum.rounds += 1;
        for stats in stats {
            sum.led += stats.led;
            sum.followed += stats.followed;
            sum.timed_out += stats.timed_out;
            sum.deadlocked += stats.deadlocked;
        }
    }
    println!("{sum:?}");
    sum
}

#[derive(Debug, Default)]
struct Sum {
    rounds: u64,
    led: u64,
    followed: u64,
    timed_out: u64,
    deadlocked: u64,
}

#[test]
fn random_nesting_never_hangs_and_refuses_only_those_in_a_ring() {
    let sum = play(|seed| Rules { in_order: false, gives_up: seed % 4 == 0 });
    assert!(sum.followed > 0 && sum.deadlocked > 0);
}

#[test]
fn nesting_in_a_fixed_order_of_keys_is_never_refused() {
    let sum = play(|seed| Rules { in_order: true, gives_up: seed % 4 == 0 });
    assert!(sum.followed > 0);
    assert_eq!(sum.deadlocked, 0);
}

/// All threads take their steps, until all is over.
fn round(seed: u64, rules: Rules) -> [Stats; GROUPS] {
    let round = Arc::new(Round {
        rules,
        words: Arc::default(),
        numbers: Arc::default(),
        seen: Default::default(),
        states: Mutex::default(),
        running: Mutex::default(),
    });
    let all = Barrier::new(THREADS);
    thread::scope(|s| {
        for thread in 0..THREADS {
            let (round, all) = (&round, &all);
            let named = Builder::new().name(format!("seed {seed}, thread {thread}"));
            let part = move || {
                let player = Player::new(round, seed.wrapping_mul(THREADS as u64) + thread as u64);
                all.wait();
                for _ in 0..STEPS {
                    player.step(None, DEPTH);
                }
            };
            named.spawn_scoped(s, part).unwrap();
        }
    });
    // A job may have left another one behind.
    let next = || round.running.lock().unwrap().pop();
    while let Some(running) = next() {
        running.join().unwrap();
    }

    assert_quiet(&*round.words);
    assert_quiet(&*round.numbers);
    let stats = [round.words.stats(), round.numbers.stats()];
    for (stats, seen) in stats.iter().zip(&round.seen) {
        seen.assert_counted(stats);
    }
    stats
}

/// xorshift.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        // Seeds are consecutive: spread them.
        let mut random = Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        random.below(1);
        random
    }

    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 8) as usize % n
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// What a thread says of itself, for those who are refused because of it.
#[derive(Clone, Debug, Default)]
struct State {
    /// What it leads, from the outermost on.
    leads: Vec<Lead>,
    /// What it asks for, if it is not running a function, and whether with a time limit.
    asks: Option<(Spot, bool)>,
}

#[derive(Clone, Copy, Debug)]
struct Lead {
    spot: Spot,
    /// Whether it may be running its function alone.
    perhaps_alone: bool,
}

impl State {
    fn leads(&self, spot: Spot) -> bool {
        self.leads.iter().any(|lead| lead.spot == spot)
    }
}

/// How calls of one group have ended, as their callers saw it.
#[derive(Default)]
struct Seen {
    led: AtomicU64,
    /// Led, or ran alone.
    led_or_alone: AtomicU64,
    followed: AtomicU64,
    timed_out: AtomicU64,
    refused: AtomicU64,
}

impl Seen {
    fn assert_counted(&self, stats: &Stats) {
        let [led, led_or_alone, followed, timed_out, refused] =
            [&self.led, &self.led_or_alone, &self.followed, &self.timed_out, &self.refused]
                .map(|seen| seen.load(SeqCst));
        let calls = led + led_or_alone + followed + timed_out + refused;
        assert_eq!(stats.calls(), calls, "{stats:?}");
        assert_eq!((stats.followed, stats.timed_out), (followed, timed_out));
        // The others are those that led or were alone.
        assert!(stats.led >= led && stats.deadlocked >= refused, "{stats:?}");
        assert_eq!((stats.in_flight, stats.waiting), (0, 0));
        assert_eq!((stats.failed, stats.panicked, stats.abandoned), (0, 0, 0));
    }
}

/// What may be asked.
#[derive(Clone, Copy)]
struct Rules {
    /// Whether a function asks only for what comes after its own key.
    in_order: bool,
    /// Whether flights are given up. Then a ring may break before it has been looked up.
    gives_up: bool,
}

/// What is known of a call before it ends.
#[derive(Clone, Copy)]
struct Asked {
    spot: Spot,
    /// Whether the caller leads the flight that it asks for.
    own: bool,
    hurried: bool,
    /// Whether it would rather be alone than refused.
    alone: bool,
}

struct Round {
    rules: Rules,
    /// Two groups with nothing in common.
    words: Arc<FlightGroup<String, Infallible>>,
    numbers: Arc<FlightGroup<usize, String, (u8, usize)>>,
    seen: [Seen; GROUPS],
    states: Mutex<HashMap<ThreadId, Arc<Mutex<State>>>>,
    /// Threads that run jobs.
    running: Mutex<Vec<JoinHandle<()>>>,
}

/// A thread of a round.
struct Player {
    round: Arc<Round>,
    state: Arc<Mutex<State>>,
    /// Functions use it while their caller does.
    random: RefCell<Random>,
}

impl Player {
    /// For this thread.
    fn new(round: &Arc<Round>, seed: u64) -> Self {
        let state = Arc::default();
        let mut states = round.states.lock().unwrap();
        states.insert(thread::current().id(), Arc::clone(&state));
        Self { round: Arc::clone(round), state, random: RefCell::new(Random::new(seed)) }
    }

    fn below(&self, n: usize) -> usize {
        self.random.borrow_mut().below(n)
    }

    fn one_in(&self, n: usize) -> bool {
        self.random.borrow_mut().one_in(n)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap())
    }

    /// Asks for something that may be asked for after this, if there is anything left.
    fn step(&self, after: Option<Spot>, depth: usize) {
        let number = |(group, key): Spot| key * GROUPS + group;
        let first = match after {
            Some(spot) if self.round.rules.in_order => number(spot) + 1,
            _ => 0,
        };
        if first == KEYS * GROUPS {
            return;
        }
        let chosen = first + self.below(KEYS * GROUPS - first);
        let (key, group) = (chosen / GROUPS, chosen % GROUPS);
        let Round { words, numbers, .. } = &*self.round;
        let spot = (group, key);
        match group {
            0 => self.ask(words, &format!("key {key}"), format!("value {key}"), spot, depth),
            _ => self.ask(numbers, &(7, key), key, spot, depth),
        }
    }

    /// What every function does.
    fn function<V, E>(
        &self,
        spot: Spot,
        perhaps_alone: bool,
        value: V,
        depth: usize,
    ) -> Result<V, E> {
        let lead = Lead { spot, perhaps_alone };
        self.change(|state| {
            state.asks = None;
            state.leads.push(lead);
        });
        if self.one_in(2) {
            thread::yield_now();
        }
        if depth > 0 {
            for _ in 0..self.below(3) {
                self.step(Some(spot), depth - 1);
            }
        }
        self.change(|state| state.leads.pop());
        Ok(value)
    }

    fn ask<V, E, K>(
        &self,
        group: &Arc<FlightGroup<V, E, K>>,
        key: &K,
        value: V,
        spot: Spot,
        depth: usize,
    ) where
        V: Clone + Debug + PartialEq + Send + Sync + 'static,
        E: Debug + Send + Sync + 'static,
        K: Hash + Eq + Clone + Send + Sync + 'static,
    {
        let way = self.below(12);
        let hurried = way == 0;
        let alone = way == 1;
        if way == 2 && self.round.rules.gives_up {
            group.forget(key);
            return;
        }
        // What I lead for certain; and nobody gives it up.
        let own = self.change(|state| {
            state.asks = Some((spot, hurried));
            let is_own = |lead: &Lead| lead.spot == spot && !lead.perhaps_alone;
            state.leads.iter().any(is_own)
        });
        let own = own && !self.round.rules.gives_up;

        let f = || self.function(spot, alone, value.clone(), depth);
        let mut request = group.request(key);
        let outcome = match way {
            0 => {
                let micros = self.below(100).saturating_sub(20) as u64;
                request = request.timeout(Duration::from_micros(micros));
                if self.one_in(2) {
                    request = request.next_flight();
                }
                request.call_ex(f)
            }
            1 => {
                if self.one_in(2) {
                    request = request.next_flight();
                }
                request.alone_on_deadlock().call_ex(f)
            }
            3..=5 => request.next_flight().call_ex(f),
            6 => request.takeover(3).timeout(Duration::MAX).call_ex(f),
            7 if self.round.rules.gives_up => request.max_age(Duration::ZERO).call_ex(f),
            8 => match group.join(key) {
                // A `Leader` is nobody's. It gets away before anybody could find out.
                Joined::Leader(leader) => leader.complete(Ok(value.clone())),
                Joined::Follower(follower) => follower.wait(),
            },
            9 => {
                let outcome = self.start(group, key, value.clone(), spot, depth);
                match outcome {
                    Some(outcome) => outcome,
                    None => return,
                }
            }
            _ => group.call_ex(key, f),
        };
        let asked = Asked { spot, own, hurried, alone };
        self.count(asked, &value, &outcome);
        self.change(|state| state.asks = None);
    }

    /// A job that another thread runs. `None`: it was refused what it has started itself, which
    /// does not make it a call that was refused.
    fn start<V, E, K>(
        &self,
        group: &Arc<FlightGroup<V, E, K>>,
        key: &K,
        value: V,
        spot: Spot,
        depth: usize,
    ) -> Option<Outcome<V, E>>
    where
        V: Clone + Debug + Send + Sync + 'static,
        E: Debug + Send + Sync + 'static,
        K: Hash + Eq + Clone + Send + Sync + 'static,
    {
        let (round, seed) = (Arc::clone(&self.round), self.below(usize::MAX) as u64);
        let function = move || Player::new(&round, seed).function(spot, false, value, depth);
        let mut leads = false;
        let spawn = |job: Job| {
            leads = true;
            let name = thread::current().name().map(|name| format!("{name}, job"));
            let named = Builder::new().name(name.unwrap_or_default());
            let running = named.spawn(move || job.run()).unwrap();
            // Not to be waited for here: nobody would know.
            self.round.running.lock().unwrap().push(running);
        };
        let outcome = group.start(key, spawn, function).wait();
        match &outcome.result {
            Err(CallError::Deadlock(deadlock)) if leads => {
                self.assert_in_a_ring(spot, deadlock);
                self.change(|state| state.asks = None);
                self.round.seen[spot.0].led.fetch_add(1, SeqCst);
                None
            }
            _ => Some(outcome),
        }
    }

    /// Counts how a call has ended, and fails if it was not to end like this.
    fn count<V: Debug + PartialEq, E: Debug>(&self, asked: Asked, value: &V, got: &Outcome<V, E>) {
        let Asked { spot, own, hurried, alone } = asked;
        let seen = &self.round.seen[spot.0];
        let seen = match (&got.result, got.role) {
            (Ok(got), role) => {
                assert_eq!(got, value);
                assert!(!own || alone, "its own key: {spot:?}");
                match role {
                    Role::Led if alone => &seen.led_or_alone,
                    Role::Led => &seen.led,
                    Role::Followed => &seen.followed,
                }
            }
            (Err(CallError::TimedOut), Role::Followed) if hurried && !own => &seen.timed_out,
            (Err(CallError::Deadlock(deadlock)), Role::Followed) if !alone => {
                self.assert_in_a_ring(spot, deadlock);
                &seen.refused
            }
            _ => panic!("unexpected: {got:?}"),
        };
        seen.fetch_add(1, SeqCst);
    }

    /// Each thread of the ring asks for something that the next one leads, and only this one may have
    /// a time limit. As long as this one does not end what it leads, the others sleep, so what they
    /// say of themselves stays true.
    fn assert_in_a_ring(&self, spot: Spot, deadlock: &Deadlock) {
        assert!(!self.round.rules.in_order, "{deadlock}");
        if self.round.rules.gives_up {
            return;
        }
        let threads = deadlock.threads();
        assert_eq!(threads[0].id(), thread::current().id());
        let states = self.round.states.lock().unwrap();
        let state = |thread: &Thread| states[&thread.id()].lock().unwrap().clone();
        let ring: Vec<_> = threads.iter().map(state).collect();
        assert_eq!(ring[0].asks.map(|(asks, _)| asks), Some(spot));
        for (i, one) in ring.iter().enumerate() {
            let next = &ring[(i + 1) % ring.len()];
            let (asks, limited) = one.asks.expect("it waits");
            assert!(i == 0 || !limited, "{deadlock}: {ring:?}");
            assert!(next.leads(asks), "{deadlock}: {ring:?}");
        }
    }
}
