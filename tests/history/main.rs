//! Real threads make random calls and record all that they do. The record is checked against the
//! rules in [`check`].
//!
//! A million calls, over few keys: plain, split-phase, by tickets and in batches; with every option,
//! and with a group's defaults; with functions that call the group and that ask whether their results
//! are wanted; with values, errors, and panics with and without a text; with leaders, jobs and tickets
//! that are dropped, flights that are given up, and followers that leave. That the checker finds what
//! is wrong is shown twice: in [`bad`], by histories that break a rule each, and here, by a group that
//! takes go-zero's last two steps in the wrong order.
//!
//! With `HISTORY_MINUTES=30` in the environment it goes on for that long, with other calls each time.
#![cfg(not(loom))]

mod bad;
mod check;
#[path = "../common/mod.rs"]
mod common;
mod mix;
mod record;

use std::collections::hash_map::{Entry, HashMap};
use std::panic;
use std::sync::{mpsc, Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use check::{check, Asked, Call, Got, Id, Rule, Tally};
use common::{assert_quiet, watchdog};
use mix::{Setting, KEYS};
use record::{Clock, Deferred, End, Failure, Recorder, Task, ALONE};
use shared_calls::{Outcome, Role, SharedCalls, Stats};

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
        players.map(|player| player.join().unwrap()).collect::<Vec<_>>()
    });
    let mut history = Vec::new();
    for (calls, deferred) in played {
        history.extend(calls);
        history.extend(deferred.into_iter().map(Deferred::record));
    }
    history
}

/// Every call counts once. Not those that have left, nor a follower whose batch unwound.
fn add_to_stats(stats: &mut Stats, history: &[Call]) {
    // A function that ran alone counts as the refused deadlock that is recorded beside it.
    for call in history.iter().filter(|call| call.key < ALONE) {
        let led = u64::from(call.ran.is_some());
        match call.got {
            Got::Left { .. } | Got::Unwound | Got::Forgot => continue,
            Got::TimedOut => stats.timed_out += 1,
            Got::Overloaded => stats.overloaded += 1,
            Got::Deadlocked => stats.deadlocked += 1,
            _ => stats.followed += 1 - led,
        }
        stats.led += led;
        match call.got {
            Got::Failed(_) => stats.failed += led,
            Got::Panicked(_) => stats.panicked += led,
            Got::Abandoned => stats.abandoned += led,
            _ => {}
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
    let mut stats = [Stats::default(); 4];
    let mut sum = Tally::default();
    let mut reported = 0;
    let first = minutes.map_or(0, |_| seed_of_now());
    for seed in first.. {
        let setting = &settings[(seed % 4) as usize];
        let history = play(seed, setting.defaults, |recorder| setting.step(recorder));
        assert_quiet(&setting.group);
        add_to_stats(&mut stats[(seed % 4) as usize], &history);
        assert_eq!(setting.group.stats(), stats[(seed % 4) as usize], "seed {seed}");
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
    println!("{} calls in {:.1?}, and no fault", sum.calls, began.elapsed());
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
        Self { flights, done_before_delete }
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
        let value = flight.done.wait_while(value, |value| value.is_none()).unwrap();
        let result = Ok(value.unwrap());
        Outcome { result, role, followers: 0 }
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
    assert_eq!(fault.expect("a fault within 360,000 calls").rule, Rule::NotTooLate);
}

/// The control: it is the order, and not the rest of [`Mini`].
#[test]
fn the_right_order_is_not_blamed() {
    let mini = Mini::new(false);
    for seed in 0..20 {
        check(&play_mini(seed, &mini)).unwrap_or_else(|fault| panic!("{fault:#?}"));
    }
}
