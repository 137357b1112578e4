//! How many calls get a result that was computed before they began.
//!
//! A call is *stale* if the execution whose value it gets had ended when the call began. The rule
//! that nobody shares a flight one of whose callers has returned (G2) does not exclude that: the
//! function has returned, its leader has not yet come to the map, and a caller still finds the
//! flight there. The time between is a few instructions, unless the leader has to wait for the
//! map's lock, or for its turn on a processor. Closing the flight the instant its function has
//! returned leaves the few instructions and takes the rest away.
#![cfg_attr(loom, allow(dead_code, unused_imports))]

mod handwritten;

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use handwritten::{land, wait, Handwritten, Seat};
use shared_calls::FlightGroup;

const THREADS: usize = 64;
const ROUNDS: usize = 8;
const ROUND: Duration = Duration::from_millis(800);

/// Ticks whenever an execution ends, and at no other time: so it counts them, too. One total order,
/// so "before" needs no clock of the machine's.
static CLOCK: AtomicU64 = AtomicU64::new(0);

/// The shared function: ends now, and its value says when that was.
fn instant() -> u64 {
    CLOCK.fetch_add(1, Ordering::SeqCst)
}

// Under loom there is nothing to measure.
#[cfg(loom)]
fn main() {}

#[cfg(not(loom))]
fn main() {
    let group = FlightGroup::<u64, Infallible>::new();
    let unlink_first = Handwritten::<String, u64>::new();
    let land_first = Handwritten::<String, u64>::new();
    let contenders: [(&str, &(dyn Fn() -> u64 + Sync)); 3] = [
        ("closed, unlinked, landed (FlightGroup)", &|| {
            group.call("k", || Ok(instant())).unwrap()
        }),
        ("unlinked, landed (go-zero)", &|| {
            unlink_first.call("k", instant)
        }),
        ("landed, unlinked (groupcache)", &|| {
            call_landing_first(&land_first)
        }),
    ];
    let mut counts = [Count::default(); 3];
    for round in 1..=ROUNDS {
        eprintln!("round {round} of {ROUNDS}, {THREADS} threads on one key …");
        for (count, (_, call)) in counts.iter_mut().zip(contenders) {
            count.add(measure(call));
        }
    }
    println!("{:38}       calls    followed       stale    of calls", "");
    for (count, (name, _)) in counts.iter().zip(contenders) {
        let Count { calls, led, stale } = count;
        let share = 100.0 * *stale as f64 / *calls as f64;
        let followed = calls - led;
        println!("{name:38} {calls:>11} {followed:>11} {stale:>11} {share:>9.3} %");
    }
}

/// The order of groupcache, and of x/sync before 2021: done, then delete.
fn call_landing_first(calls: &Handwritten<String, u64>) -> u64 {
    match calls.join("k") {
        Seat::Leader(call) => {
            let value = instant();
            land(&call, value);
            calls.unlink("k");
            value
        }
        Seat::Follower(call) => wait(&call),
    }
}

#[derive(Clone, Copy, Default)]
struct Count {
    calls: u64,
    led: u64,
    stale: u64,
}

impl Count {
    fn add(&mut self, other: Self) {
        self.calls += other.calls;
        self.led += other.led;
        self.stale += other.stale;
    }
}

/// Many threads that call over and over for one round.
fn measure(call: &(dyn Fn() -> u64 + Sync)) -> Count {
    let begin = Barrier::new(THREADS + 1);
    let over = AtomicBool::new(false);
    let caller = || {
        let mut count = Count::default();
        begin.wait();
        while !over.load(Ordering::Relaxed) {
            let begun = CLOCK.load(Ordering::SeqCst);
            let ended = call();
            count.calls += 1;
            // An execution that ends later takes its tick later, and so finds at least `begun`.
            count.stale += u64::from(ended < begun);
        }
        count
    };
    thread::scope(|scope| {
        let callers: Vec<_> = (0..THREADS).map(|_| scope.spawn(caller)).collect();
        let mut sum = Count::default();
        let earlier = CLOCK.load(Ordering::SeqCst);
        begin.wait();
        thread::sleep(ROUND);
        over.store(true, Ordering::Relaxed);
        for caller in callers {
            sum.add(caller.join().unwrap());
        }
        sum.led = CLOCK.load(Ordering::SeqCst) - earlier;
        sum
    })
}
