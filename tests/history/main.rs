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
use std::sync::{mpsc, Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use check::{check, Asked, Call, Id, Rule, Tally};
use common::{assert_quiet, watchdog};
use record::{Clock, End, Fate, Group, Recorder};
use shared_calls::{Job, Outcome, Role, SharedCalls};

/// Few, so that calls meet.
const KEYS: u64 = 3;
const THREADS: u64 = 6;
/// How many steps a thread takes. A history is checked as a whole, so it must not be too long.
const STEPS: usize = 1_000;

/// Has all threads take their steps at once, and gives the history of all they did.
fn play(seed: u64, step: impl Fn(&mut Recorder) + Sync) -> Vec<Call> {
    let _watchdog = watchdog();
    let clock = Clock::default();
    let (jobs, worker) = mpsc::channel();
    let step = &step;
    thread::scope(|s| {
        s.spawn(move || worker.into_iter().for_each(Job::run));
        let play = |thread| {
            let seed = (seed * THREADS + thread) << 20;
            let mut recorder = Recorder::new(clock.clone(), jobs.clone(), seed);
            move || {
                for _ in 0..STEPS {
                    step(&mut recorder);
                }
                recorder.finish()
            }
        };
        let players: Vec<_> = (0..THREADS).map(|thread| s.spawn(play(thread))).collect();
        drop(jobs); // The worker goes when the last player does.
        let calls = players
            .into_iter()
            .flat_map(|player| player.join().unwrap());
        calls.collect()
    })
}

/// One step of anything.
fn mixed_step(recorder: &mut Recorder, group: &Arc<Group>) {
    let key = recorder.random(KEYS);
    let end = match recorder.random(16) {
        0 => End::Panic,
        1 => End::TextlessPanic,
        2 | 3 => End::Error,
        _ => End::Value,
    };
    match recorder.random(16) {
        0 | 1 => recorder.leave(),
        2 => recorder.join(group, key, end, Asked::default(), false),
        3 | 4 => recorder.join(group, key, end, Asked::default(), true),
        5 => {
            let asked = options(recorder);
            recorder.join(group, key, end, asked, true);
        }
        6..=9 => {
            let asked = options(recorder);
            recorder.request(group, key, end, asked);
        }
        10 => recorder.start(group, key, end, Fate::Inline),
        11 => recorder.start(group, key, end, Fate::Worker),
        12 => recorder.start(group, key, end, Fate::Dropped),
        13 => {
            let unshared = recorder.random(2) == 0;
            recorder.forget(group, key, unshared);
        }
        _ => recorder.call(&**group, key, end),
    }
}

/// Any of the options together.
fn options(recorder: &mut Recorder) -> Asked {
    let micros = recorder.random(50);
    let timeout = Duration::from_micros(micros.saturating_sub(20)); // zero, often
    Asked {
        timeout: (recorder.random(3) == 0).then_some(timeout),
        next_flight: recorder.random(2) == 0,
        gives_up: recorder.random(8) == 0,
        takeovers: recorder.random(3) as u32,
        by_error: recorder.random(2) == 0,
        max_followers: (recorder.random(4) == 0).then_some(recorder.random(3) as usize),
    }
}

/// In a plain group, and in one whose calls have a cap by default: those that ask for none of their
/// own. Every flight then has at most so many followers.
#[test]
fn a_million_calls_keep_the_rules() {
    const CAP: usize = 2;
    let plain = Arc::new(Group::new());
    let capped = Group::builder().shards(2).max_followers(CAP).build();
    let capped = Arc::new(capped);
    let mut sum = Tally::default();
    for seed in 0.. {
        let group = if seed % 4 == 0 { &capped } else { &plain };
        let mut history = play(seed, |recorder| mixed_step(recorder, group));
        assert_quiet(&**group);
        if seed % 4 == 0 {
            for call in &mut history {
                call.asked.max_followers.get_or_insert(CAP);
            }
        }
        sum.add(&check(&history).unwrap_or_else(|fault| panic!("{fault:#?}")));
        if sum.calls >= 1_000_000 {
            break;
        }
    }
    println!("{sum:?}");
    // All that is interesting has happened, often.
    let Tally {
        calls: _,
        led,
        values,
        failures,
        panics,
        textless_panics,
        abandonments,
        left,
        left_too_late,
        timed_out,
        overloaded,
        queued,
        forgotten,
        overlaps,
    } = sum;
    for happened in [
        led,
        values,
        failures,
        panics,
        textless_panics,
        abandonments,
        left,
        left_too_late,
        timed_out,
        overloaded,
        queued,
        forgotten,
        overlaps,
    ] {
        assert!(happened > 100, "{sum:?}");
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

impl SharedCalls<Id, Id, u64> for Mini {
    fn call_dyn(&self, key: &u64, f: &mut dyn FnMut() -> Result<Id, Id>) -> Outcome<Id, Id> {
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
    let mut history = play(seed, |recorder| {
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
        fault.expect("a fault within 1,200,000 calls").rule,
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
