//! Real threads make random calls and record all that they do. The record is checked against the
//! rules in [`check`].
//!
//! A million calls, over few keys: plain, split-phase and by tickets; with every option; with values,
//! errors, and panics with and without a text; with leaders and jobs that are dropped, flights that
//! are given up, and followers that leave. That the checker finds what is wrong is shown twice: in
//! [`bad`], by histories that break a rule each, and here, by a group that takes go-zero's last two
//! steps in the wrong order.
#![cfg(not(loom))]

mod bad;
mod check;
#[path = "../common/mod.rs"]
mod common;
mod record;

use std::collections::hash_map::{Entry, HashMap};
use std::panic;
use std::sync::{mpsc, Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use check::{check, Asked, Call, Id, Rule, Tally};
use common::{assert_quiet, watchdog};
use record::{Clock, Deferred, End, Failure, Fate, Group, Inner, Recorder, Refusals, Start, Task};
use shared_calls::{Outcome, Role, SharedCalls};

/// Few, so that calls meet.
const KEYS: u64 = 3;
const THREADS: u64 = 6;
/// How many steps a thread takes. A history is checked as a whole, so it must not be too long.
const STEPS: usize = 300;

/// Has all threads take their steps at once, and gives the history of all they did.
fn play(seed: u64, defaults: Asked, step: impl Fn(&mut Recorder) + Sync) -> Vec<Call> {
    let _watchdog = watchdog();
    let clock = Clock::default();
    let (jobs, worker) = mpsc::channel();
    let step = &step;
    let played = thread::scope(|s| {
        s.spawn(move || worker.into_iter().for_each(|task: Task| task()));
        let play = |thread| {
            let seed = (seed * THREADS + thread) << 20;
            let mut recorder = Recorder::new(clock.clone(), jobs.clone(), defaults, seed);
            move || {
                for _ in 0..STEPS {
                    step(&mut recorder);
                }
                recorder.finish()
            }
        };
        let players: Vec<_> = (0..THREADS).map(|thread| s.spawn(play(thread))).collect();
        drop(jobs); // The worker goes when the last player does.
        let players = players.into_iter();
        players
            .map(|player| player.join().unwrap())
            .collect::<Vec<_>>()
    });
    let mut history = Vec::new();
    for (calls, deferred) in played {
        history.extend(calls);
        history.extend(deferred.into_iter().map(Deferred::record));
    }
    history
}

/// A group, and its defaults.
struct Setting {
    group: Group,
    defaults: Asked,
    observed: bool,
}

impl Setting {
    /// Without defaults; with a cap, which all calls have then; with limits; and one whose calls may
    /// run alone.
    fn all() -> [Self; 4] {
        let none = Asked::default();
        let capped = Asked {
            max_followers: Some(2),
            ..none
        };
        let limited = Asked {
            timeout: Some(Duration::from_micros(40)),
            max_age: Some(Duration::from_micros(20)),
            takeovers: 1,
            ..none
        };
        let new = |shards, defaults: Asked| {
            let mut builder = Group::builder().shards(shards).observer(Refusals);
            if let Some(timeout) = defaults.timeout {
                builder = builder.timeout(timeout);
            }
            if let Some(age) = defaults.max_age {
                builder = builder.max_age(age);
            }
            if let Some(cap) = defaults.max_followers {
                builder = builder.max_followers(cap);
            }
            let group = builder.takeover(defaults.takeovers).build();
            Self {
                group,
                defaults,
                observed: true,
            }
        };
        let plain = Self {
            group: Group::new(),
            defaults: none,
            observed: false,
        };
        [plain, new(2, capped), new(3, limited), new(1, none)]
    }

    /// One step of anything.
    fn step(&self, recorder: &mut Recorder) {
        let group = &self.group;
        let key = recorder.random(KEYS);
        let end = match recorder.random(16) {
            0 => End::Panic,
            1 => End::TextlessPanic,
            2 | 3 => End::Error,
            _ => End::Value,
        };
        match recorder.random(20) {
            0 | 1 => recorder.leave(),
            2 => recorder.join(group, key, end, Asked::default(), false),
            3 | 4 => recorder.join(group, key, end, Asked::default(), true),
            5 => {
                let asked = self.options(recorder);
                let waits = recorder.random(4) > 0;
                recorder.join(group, key, end, asked, waits);
            }
            6..=9 => {
                let asked = self.options(recorder);
                let asks = recorder.random(2) == 0;
                let inner = self.inner(recorder);
                recorder.request(group, key, end, asked, asks, inner);
            }
            10..=12 => {
                let asked = match recorder.random(2) {
                    0 => Asked::default(),
                    _ => self.options(recorder),
                };
                let job = Start {
                    fate: [Fate::Inline, Fate::Worker, Fate::Dropped][recorder.random(3) as usize],
                    asks: recorder.random(2) == 0,
                    waits: recorder.random(3) > 0,
                };
                recorder.start(group, key, end, asked, job);
            }
            13 => {
                let unshared = recorder.random(2) == 0;
                recorder.forget(group, key, unshared);
            }
            14..=16 => {
                let n = 1 + recorder.random(4);
                let keys: Vec<_> = (0..n).map(|_| recorder.random(KEYS)).collect();
                let inner = self.inner(recorder);
                recorder.call_many(group, &keys, end, inner);
            }
            _ => recorder.call(group, key, end),
        }
    }

    /// A call of a function, now and then.
    fn inner(&self, recorder: &mut Recorder) -> Option<Inner> {
        (recorder.random(4) == 0).then(|| Inner {
            key: recorder.random(KEYS),
            asked: match recorder.random(2) {
                0 => Asked::default(),
                _ => self.options(recorder),
            },
        })
    }

    /// Any of the options together.
    fn options(&self, recorder: &mut Recorder) -> Asked {
        let micros = recorder.random(50);
        let timeout = Duration::from_micros(micros.saturating_sub(20)); // zero, often
        Asked {
            timeout: (recorder.random(3) == 0).then_some(timeout),
            next_flight: recorder.random(2) == 0,
            max_age: match recorder.random(8) {
                0 => Some(Duration::ZERO),
                1 => Some(Duration::from_micros(micros)),
                _ => None,
            },
            takeovers: recorder.random(3) as u32,
            by_error: recorder.random(2) == 0,
            max_followers: (recorder.random(4) == 0).then_some(recorder.random(3) as usize),
            // Where nobody observes the group, the record cannot tell which calls ran alone.
            alone_on_deadlock: self.observed && recorder.random(2) == 0,
            // In a group with a cap all calls have one, so that no flight has more followers.
            without_defaults: self.defaults.max_followers.is_none() && recorder.random(8) == 0,
        }
    }
}

/// How long the mix runs, if that is more than a million calls.
fn minutes() -> Option<Duration> {
    let minutes = std::env::var("HISTORY_MINUTES").ok()?;
    let minutes: u64 = minutes.parse().expect("HISTORY_MINUTES is a number");
    Some(Duration::from_secs(60 * minutes))
}

/// So that each long run makes other calls.
fn seed_of_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs() & 0xFFFF_FFFF)
}

/// Batches with too few values make the group panic, and that would fill the test's output.
fn hush_batches() {
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if !info.to_string().contains("the function of a batch") {
            report(info);
        }
    }));
}

#[test]
fn a_million_calls_keep_the_rules() {
    hush_batches();
    let settings = Setting::all();
    let (began, minutes) = (Instant::now(), minutes());
    let mut sum = Tally::default();
    let mut reported = 0;
    let first = minutes.map_or(0, |_| seed_of_now());
    for seed in first.. {
        let setting = &settings[(seed % 4) as usize];
        let history = play(seed, setting.defaults, |recorder| setting.step(recorder));
        assert_quiet(&setting.group);
        sum.add(&check(&history).unwrap_or_else(|fault| panic!("seed {seed}: {fault:#?}")));
        let enough = match minutes {
            Some(minutes) => began.elapsed() >= minutes,
            None => sum.calls >= 1_000_000,
        };
        if enough {
            break;
        }
        let seconds = began.elapsed().as_secs();
        if seconds >= reported + 10 {
            reported = seconds;
            println!("{seconds:>6} s {:>12} calls, and no fault", sum.calls);
        }
    }
    println!(
        "{} calls in {:.1?}, and no fault",
        sum.calls,
        began.elapsed()
    );
    println!("{sum:#?}");
    // All that is interesting has happened, often.
    for (what, happened) in sum.counts() {
        assert!(happened > 100, "{what}: {sum:#?}");
    }
}

/// go-zero's algorithm in its smallest form: no errors, no panics, no counting of followers.
struct Mini {
    flights: Mutex<HashMap<u64, Arc<MiniFlight>>>,
    /// Whether the outcome is published before the map lets go of the flight: the wrong order.
    done_before_delete: bool,
}

#[derive(Default)]
struct MiniFlight {
    value: Mutex<Option<Id>>,
    done: Condvar,
}

impl Mini {
    fn new(done_before_delete: bool) -> Self {
        let flights = Mutex::default();
        Self {
            flights,
            done_before_delete,
        }
    }
}

impl SharedCalls<Id, Failure, u64> for Mini {
    fn call_dyn(
        &self,
        key: &u64,
        f: &mut dyn FnMut() -> Result<Id, Failure>,
    ) -> Outcome<Id, Failure> {
        let (flight, role) = match self.flights.lock().unwrap().entry(*key) {
            Entry::Occupied(flight) => (Arc::clone(flight.get()), Role::Followed),
            Entry::Vacant(vacant) => (Arc::clone(vacant.insert(Arc::default())), Role::Led),
        };
        if role == Role::Led {
            let value = f().unwrap();
            let done = || {
                *flight.value.lock().unwrap() = Some(value);
                flight.done.notify_all();
            };
            let delete = || drop(self.flights.lock().unwrap().remove(key));
            if self.done_before_delete {
                done();
                delete();
            } else {
                delete();
                done();
            }
        }
        let value = flight.value.lock().unwrap();
        let value = flight
            .done
            .wait_while(value, |value| value.is_none())
            .unwrap();
        let result = Ok(value.unwrap());
        Outcome {
            result,
            role,
            followers: 0,
        }
    }
}

/// A history of [`Mini`]'s.
fn play_mini(seed: u64, mini: &Mini) -> Vec<Call> {
    let mut history = play(seed, Asked::default(), |recorder| {
        let key = recorder.random(KEYS);
        recorder.call(mini, key, End::Value);
    });
    for call in &mut history {
        call.told = None; // It does not count.
    }
    history
}

#[test]
fn the_wrong_order_is_found() {
    let mini = Mini::new(true);
    let mut calls = 0;
    let fault = (0..200).find_map(|seed| {
        let history = play_mini(seed, &mini);
        calls += history.len();
        check(&history).err()
    });
    println!("found within {calls} calls");
    assert_eq!(
        fault.expect("a fault within 360,000 calls").rule,
        Rule::NotTooLate
    );
}

/// The control: it is the order, and not the rest of [`Mini`].
#[test]
fn the_right_order_is_not_blamed() {
    let mini = Mini::new(false);
    for seed in 0..20 {
        check(&play_mini(seed, &mini)).unwrap_or_else(|fault| panic!("{fault:#?}"));
    }
}
