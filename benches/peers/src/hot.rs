//! Many callers on one key: how many of them does one execution serve?

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use peers::{Peer, Value};

use crate::rounds::{Effort, Progress};

const THREADS: usize = 8;

/// Stands for a query: it waits for somebody else's computer.
const WORK: Duration = Duration::from_millis(1);

pub const CROWDS: [usize; 2] = [1_000, 10_000];

pub struct Row {
    pub name: &'static str,
    /// Eight threads that call over and over.
    pub calls_per_run: f64,
    /// A crowd that calls at once: the most executions of all rounds. The larger one takes a second,
    /// and is spared the peers in a hurry.
    pub runs_of_crowds: [Option<usize>; CROWDS.len()],
}

pub fn measure(peers: &[Arc<dyn Peer>], effort: Effort) -> Vec<Row> {
    let mut runs = vec![0; peers.len()];
    let calls = effort.choose(100, 1_000);
    let rounds = effort.choose(1, 2);
    for round in Progress::begin("a hot key, eight threads", rounds).rounds() {
        for (runs, peer) in runs.iter_mut().zip(peers) {
            *runs += eight_threads(&**peer, round, calls);
        }
    }
    let mut crowds = vec![[None; CROWDS.len()]; peers.len()];
    let [small, large] = CROWDS;
    let progress = Progress::begin("a hot key, a thousand threads", effort.choose(1, 3));
    for round in progress.rounds() {
        for (most, peer) in crowds.iter_mut().zip(peers) {
            let runs = crowd_at_once(&**peer, round, small);
            most[0] = most[0].max(Some(runs));
        }
    }
    let contenders = effort.choose(1, peers.len());
    let progress = Progress::begin("a hot key, ten thousand threads", contenders);
    for i in progress.rounds() {
        crowds[i][1] = Some(crowd_at_once(&*peers[i], 0, large));
    }
    let rows = peers.iter().zip(runs).zip(crowds);
    rows.map(|((peer, runs), runs_of_crowds)| Row {
        name: peer.name(),
        calls_per_run: (rounds * THREADS * calls) as f64 / runs as f64,
        runs_of_crowds,
    })
    .collect()
}

/// Executions of so many calls by each of eight threads.
fn eight_threads(peer: &dyn Peer, round: usize, calls: usize) -> usize {
    let runs = AtomicUsize::new(0);
    let begin = Barrier::new(THREADS);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                begin.wait();
                for call in 0..calls {
                    let key = if peer.keeps_values() {
                        format!("hot {round} {call}")
                    } else {
                        "hot".to_owned()
                    };
                    let called = peer.call(&key, &mut || {
                        runs.fetch_add(1, Ordering::Relaxed);
                        thread::sleep(WORK);
                        Ok(Value(42))
                    });
                    assert_eq!(called, Ok(Value(42)));
                }
            });
        }
    });
    runs.into_inner()
}

/// Executions of one call by each of many threads, the first of which ends when all have called.
fn crowd_at_once(peer: &dyn Peer, round: usize, crowd: usize) -> usize {
    let runs = AtomicUsize::new(0);
    let called = AtomicUsize::new(0);
    let key = format!("crowd {crowd} {round}");
    thread::scope(|scope| {
        for _ in 0..crowd {
            let caller = || {
                called.fetch_add(1, Ordering::SeqCst);
                let got = peer.call(&key, &mut || {
                    if runs.fetch_add(1, Ordering::SeqCst) == 0 {
                        until_all_wait(crowd, &called);
                        // And more: one that comes late fails the run of CI.
                        thread::sleep(Duration::from_millis(100));
                    }
                    Ok(Value(42))
                });
                assert_eq!(got, Ok(Value(42)));
            };
            // Thousands of them: leave the address space alone.
            let small = thread::Builder::new().stack_size(128 * 1024);
            small.spawn_scoped(scope, caller).unwrap();
        }
    });
    runs.into_inner()
}

/// Returns when so many have `called`, and have had the time to fall asleep. How many a peer has
/// seated nobody can see from outside: those who were interrupted between the count and their seat
/// are given some microseconds each, since it may be a lock that they queue for.
pub fn until_all_wait(callers: usize, called: &AtomicUsize) {
    while called.load(Ordering::SeqCst) < callers {
        thread::sleep(Duration::from_micros(100));
    }
    thread::sleep(Duration::from_millis(2) + callers as u32 * Duration::from_micros(10));
}
