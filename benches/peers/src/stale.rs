//! How many calls get a result that was computed before they began.
//!
//! A call is *stale* if the execution whose value it gets had ended when the call began. Those who
//! keep values are left out: for them it is the purpose.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use peers::{Loaded, Peer, SharedCalls, Value};

use crate::rounds::{Effort, Progress};

const THREADS: usize = 64;

/// Ticks whenever an execution ends, and at no other time: so it counts them, too. One total order,
/// so "before" needs no clock of the machine's.
static CLOCK: AtomicU64 = AtomicU64::new(0);

/// The shared function: ends now, and its value says when that was.
fn instant() -> Loaded {
    Ok(Value(CLOCK.fetch_add(1, Ordering::SeqCst)))
}

#[derive(Clone)]
pub struct Row {
    pub name: &'static str,
    pub calls: u64,
    pub led: u64,
    pub stale: u64,
}

impl Row {
    /// Of all calls, in percent.
    pub fn share(&self) -> f64 {
        100.0 * self.stale as f64 / self.calls as f64
    }
}

/// A name, and a call of [`instant`].
type Contender<'a> = (&'static str, Box<dyn Fn() -> Loaded + Sync + 'a>);

pub const NEXT_FLIGHT: &str = "shared-calls, `next_flight`";

pub fn measure(peers: &[Arc<dyn Peer>], effort: Effort) -> Vec<Row> {
    let next = SharedCalls::<String>::default();
    let next_flight = || {
        let request = next.group.request("hot").next_flight();
        request.call(instant).map_err(|error| error.to_string())
    };
    let mut contenders: Vec<Contender> = peers
        .iter()
        .filter(|peer| !peer.keeps_values())
        .map(|peer| -> Contender { (peer.name(), Box::new(|| peer.call("hot", &mut instant))) })
        .collect();
    contenders.insert(1, (NEXT_FLIGHT, Box::new(next_flight)));

    let mut rows: Vec<_> =
        contenders.iter().map(|&(name, _)| Row { name, calls: 0, led: 0, stale: 0 }).collect();
    let length = Duration::from_millis(effort.choose(150, 500));
    let progress = Progress::begin("stale joins", effort.choose(1, 6));
    for _ in progress.rounds() {
        for (row, (_, call)) in rows.iter_mut().zip(&contenders) {
            round(call, length, row);
        }
    }
    rows
}

/// Many threads that call over and over for one round.
fn round(call: &(dyn Fn() -> Loaded + Sync), length: Duration, row: &mut Row) {
    let begin = Barrier::new(THREADS + 1);
    let over = AtomicBool::new(false);
    let caller = || {
        let (mut calls, mut stale) = (0, 0);
        begin.wait();
        while !over.load(Ordering::Relaxed) {
            let begun = CLOCK.load(Ordering::SeqCst);
            let Value(ended) = call().unwrap();
            calls += 1;
            // An execution that ends later takes its tick later, and so finds at least `begun`.
            stale += u64::from(ended < begun);
        }
        (calls, stale)
    };
    thread::scope(|scope| {
        let callers: Vec<_> = (0..THREADS).map(|_| scope.spawn(caller)).collect();
        let earlier = CLOCK.load(Ordering::SeqCst);
        begin.wait();
        thread::sleep(length);
        over.store(true, Ordering::Relaxed);
        for caller in callers {
            let (calls, stale) = caller.join().unwrap();
            row.calls += calls;
            row.stale += stale;
        }
        row.led += CLOCK.load(Ordering::SeqCst) - earlier;
    });
}
