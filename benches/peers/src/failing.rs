//! The fate of one failing load with six callers: who is told of the failure, and who tries again?

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use peers::Peer;

use crate::rounds::{median, Effort, Progress};

pub const CALLERS: usize = 6;

/// How long a load takes before it fails.
const LOAD: Duration = Duration::from_millis(20);

pub struct Row {
    pub name: &'static str,
    pub runs: usize,
    /// Until the last of the callers is back, as a multiple of what one load takes.
    pub loads_long: f64,
}

pub fn measure(peers: &[Arc<dyn Peer>], effort: Effort) -> Vec<Row> {
    let mut samples = vec![Vec::new(); peers.len()];
    let rounds = effort.choose(2, 15);
    for round in Progress::begin("a load that fails, six callers", rounds).rounds() {
        for (samples, peer) in samples.iter_mut().zip(peers) {
            samples.push(fail(&**peer, round));
        }
    }
    let rows = peers.iter().zip(samples);
    rows.map(|(peer, samples)| Row {
        name: peer.name(),
        runs: median(samples.iter().map(|(runs, _)| *runs)),
        loads_long: median(samples.iter().map(|(_, loads)| *loads)),
    })
    .collect()
}

fn fail(peer: &dyn Peer, round: usize) -> (usize, f64) {
    let key = format!("fails {round}");
    let begin = Barrier::new(CALLERS);
    let runs = AtomicUsize::new(0);
    let caller = || {
        begin.wait();
        let begun = Instant::now();
        let mut load = None;
        let called = peer.call(&key, &mut || {
            runs.fetch_add(1, Ordering::SeqCst);
            let begun = Instant::now();
            thread::sleep(LOAD);
            load = Some(begun.elapsed());
            Err("the database is down".to_owned())
        });
        assert!(called.is_err());
        (begun, load, Instant::now())
    };
    let callers = thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS).map(|_| scope.spawn(caller)).collect();
        let callers = callers.into_iter().map(|caller| caller.join().unwrap());
        callers.collect::<Vec<_>>()
    });
    let begun = callers.iter().map(|(begun, ..)| *begun).min();
    let end = callers.iter().map(|(.., end)| *end).max();
    let total = end.expect("six") - begun.expect("six");
    // A busy machine oversleeps.
    let loads = callers.iter().filter_map(|(_, load, _)| *load);
    let load = median(loads);
    let runs = runs.into_inner();
    (runs, total.as_secs_f64() / load.as_secs_f64())
}
