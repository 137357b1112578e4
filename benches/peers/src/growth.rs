//! Very many keys in flight at once: what they cost a call for another key, what they hold, and what
//! is left of them afterwards.
//!
//! Only of those who can have a key in flight without a thread for it.

use std::hint::black_box;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use peers::{Joined as LiteralJoined, Literal, Loaded, Value, LITERAL, SHARED_CALLS};
use shared_calls::{FlightGroup, Joined, Leader};

use crate::allocator::{bytes_held, counting};
use crate::rounds::{median, Effort, Progress};

/// So many keys are in flight when a call is measured. From the second on each is just beyond what a
/// table of a power of two has room for, so that a key takes the most memory it ever takes.
const SIZES: [usize; 4] = [1, 1_000, 120_000, 1_000_000];

/// Calls that are measured at each size, and to how many keys.
const CALLS: usize = 4_096;

pub struct Row {
    pub name: &'static str,
    pub sizes: Vec<Size>,
    /// Seconds of the slowest single step that takes up a key, and of the slowest that lets one go.
    pub slowest_join: f64,
    pub slowest_land: f64,
    /// Bytes held after the spike that were not held before.
    pub left: i64,
}

#[derive(Clone, Copy)]
pub struct Size {
    pub keys: usize,
    /// Nanoseconds of a call, of one other key again and again.
    pub same: f64,
    /// And of other keys in turn: each finds its place in the map cold.
    pub others: f64,
    /// Beside the bytes of its text.
    pub bytes_per_key: f64,
}

pub fn measure(effort: Effort) -> Vec<Row> {
    let sizes = &SIZES[..effort.choose(SIZES.len() - 1, SIZES.len())];
    let keys = Keys {
        // Made before anything is counted.
        spike: (0..sizes[sizes.len() - 1]).map(|i| format!("key {i:07}")).collect(),
        others: (0..CALLS).map(|i| format!("other {i:05}")).collect(),
    };
    let spikes: [fn(&Keys, &[usize]) -> Row; 3] = [
        spike::<FlightGroup<Value, String>>,
        spike::<Literal<String, Loaded>>,
        spike::<DashMap<String, Arc<OnceLock<Value>>>>,
    ];
    let mut samples = [const { Vec::new() }; 3];
    let progress = Progress::begin("a million keys in flight", effort.choose(1, 7));
    for _ in progress.rounds() {
        for (samples, spike) in samples.iter_mut().zip(spikes) {
            samples.push(counting(|| spike(&keys, sizes)));
        }
    }
    samples.map(|samples: Vec<Row>| medians(&samples)).into()
}

fn medians(samples: &[Row]) -> Row {
    let of = |figure: &dyn Fn(&Row) -> f64| median(samples.iter().map(figure));
    let size = |i: usize| Size {
        keys: samples[0].sizes[i].keys,
        same: of(&|row| row.sizes[i].same),
        others: of(&|row| row.sizes[i].others),
        bytes_per_key: of(&|row| row.sizes[i].bytes_per_key),
    };
    Row {
        name: samples[0].name,
        sizes: (0..samples[0].sizes.len()).map(size).collect(),
        slowest_join: of(&|row| row.slowest_join),
        slowest_land: of(&|row| row.slowest_land),
        left: samples.iter().map(|row| row.left).max().unwrap_or(0),
    }
}

struct Keys {
    spike: Vec<String>,
    others: Vec<String>,
}

/// Takes up all keys, stopping at each size for calls, and lets them go again in that order.
fn spike<F: Fleet>(keys: &Keys, sizes: &[usize]) -> Row {
    let fleet = F::new();
    let mut flights = Vec::with_capacity(keys.spike.len());
    let mut row = Row {
        name: F::NAME,
        sizes: Vec::with_capacity(sizes.len()),
        slowest_join: 0.0,
        slowest_land: 0.0,
        left: 0,
    };
    fleet.call("warm");
    let before = bytes_held();
    for &size in sizes {
        for key in &keys.spike[flights.len()..size] {
            let begun = Instant::now();
            let flight = fleet.join(key);
            row.slowest_join = begun.elapsed().as_secs_f64().max(row.slowest_join);
            flights.push((key, flight));
        }
        let text: usize = keys.spike[..size].iter().map(String::len).sum();
        let bytes_per_key = (bytes_held() - before - text as i64) as f64 / size as f64;
        row.sizes.push(Size {
            keys: size,
            same: each_call(&fleet, &keys.others[..1]),
            others: each_call(&fleet, &keys.others),
            bytes_per_key,
        });
    }
    // The vector of flights was there before them, and is there after them.
    for (key, flight) in flights.drain(..) {
        let begun = Instant::now();
        fleet.land(key, flight);
        row.slowest_land = begun.elapsed().as_secs_f64().max(row.slowest_land);
    }
    row.left = bytes_held() - before;
    row
}

/// Nanoseconds of a call, of so many for these keys in turn.
fn each_call<F: Fleet>(fleet: &F, keys: &[String]) -> f64 {
    let round = || {
        let begun = Instant::now();
        for key in keys.iter().cycle().take(CALLS) {
            fleet.call(black_box(key));
        }
        begun.elapsed()
    };
    round(); // Warms up.
    let rounds: [Duration; 5] = std::array::from_fn(|_| round());
    median(rounds).as_secs_f64() * 1e9 / CALLS as f64
}

/// One who coalesces calls in separate steps.
trait Fleet {
    const NAME: &'static str;

    type Flight<'a>
    where
        Self: 'a;

    fn new() -> Self;
    fn join(&self, key: &str) -> Self::Flight<'_>;
    fn land(&self, key: &str, flight: Self::Flight<'_>);

    fn call(&self, key: &str) {
        self.land(key, self.join(key));
    }
}

const ALONE: &str = "nobody else has this key";

impl Fleet for FlightGroup<Value, String> {
    const NAME: &'static str = SHARED_CALLS;

    type Flight<'a> = Leader<'a, Value, String>;

    fn new() -> Self {
        Self::new()
    }

    fn join(&self, key: &str) -> Self::Flight<'_> {
        match self.join(key) {
            Joined::Leader(leader) => leader,
            Joined::Follower(_) => unreachable!("{ALONE}"),
        }
    }

    fn land(&self, _key: &str, leader: Self::Flight<'_>) {
        let _ = black_box(leader.complete(Ok(Value(42))));
    }
}

impl Fleet for Literal<String, Loaded> {
    const NAME: &'static str = LITERAL;

    type Flight<'a> = Arc<peers::Call<Loaded>>;

    fn new() -> Self {
        Self::new()
    }

    fn join(&self, key: &str) -> Self::Flight<'_> {
        match self.join(key) {
            LiteralJoined::Leader(call) => call,
            LiteralJoined::Follower(_) => unreachable!("{ALONE}"),
        }
    }

    fn land(&self, key: &str, call: Self::Flight<'_>) {
        self.delete(key);
        call.done(Ok(Ok(Value(42))));
    }
}

impl Fleet for DashMap<String, Arc<OnceLock<Value>>> {
    const NAME: &'static str = "std's OnceLock in a dashmap";

    type Flight<'a> = Arc<OnceLock<Value>>;

    fn new() -> Self {
        Self::new()
    }

    fn join(&self, key: &str) -> Self::Flight<'_> {
        Arc::clone(&self.entry(key.to_owned()).or_default())
    }

    fn land(&self, key: &str, cell: Self::Flight<'_>) {
        cell.get_or_init(|| Value(42));
        self.remove_if(key, |_, found| Arc::ptr_eq(found, &cell));
    }
}
