//! What a call costs that nobody shares.
//!
//! One key again and again, where the peer lets go of its value, and 5,000 keys in turn; where it
//! keeps it, a fresh key each time, and between the rounds, off the clock, it is made to forget them
//! all.

use std::hint::black_box;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState as Foldhash;
use peers::{
    clones, ByLiteral, Cached, Coalesce, LockMaps, Moka, OnceLocks, OnceMaps, QuickCache,
    SharedCalls, Singleflight, Value,
};

use crate::allocator;
use crate::rounds::{median, Effort, Progress};

/// Calls to a round.
const CALLS: usize = 5_000;

pub struct Lone {
    /// Nanoseconds of two uncontended lock/unlock pairs: what no map under a lock can do without.
    pub floor: f64,
    pub rows: Vec<Row>,
}

pub struct Row {
    pub name: &'static str,
    pub keeps_values: bool,
    /// By a text, with the hasher that the library has by default.
    pub text: Cost,
    /// The same, of many keys in turn.
    pub turns: Option<Cost>,
    pub number: Option<Cost>,
    /// By a number, with a fast hasher.
    pub fast: Option<Cost>,
}

/// Of one call.
#[derive(Clone, Copy)]
pub struct Cost {
    pub nanos: f64,
    pub allocations: f64,
    pub clones: f64,
}

pub fn measure(effort: Effort) -> Lone {
    // As many as calls in a round, and all of one length.
    let text: Vec<_> = (0..CALLS).map(|i| format!("key{i:04}")).collect();
    let text: &Vec<&str> = &text.iter().map(String::as_str).collect();
    let number: Vec<_> = (0..CALLS as u64).collect();
    let number: &Vec<&u64> = &number.iter().collect();
    use Column::{Fast, Number, Text, Turns};
    let mut contenders = vec![
        Contender::floor(),
        Contender::new(Text, SharedCalls::<String>::default(), text),
        Contender::new(Text, ByLiteral::<String>::default(), text),
        Contender::new(Text, OnceLocks::<String>::default(), text),
        Contender::new(Text, Moka::<String>::default(), text),
        Contender::new(Text, QuickCache::<String>::default(), text),
        Contender::new(Text, Singleflight::default(), text),
        Contender::new(Text, OnceMaps::<String>::default(), text),
        Contender::new(Text, Cached, text),
        Contender::new(Text, LockMaps::<String>::default(), text),
        Contender::new(Turns, SharedCalls::<String>::default(), text),
        Contender::new(Turns, ByLiteral::<String>::default(), text),
        Contender::new(Turns, OnceLocks::<String>::default(), text),
        Contender::new(Turns, Moka::<String>::default(), text),
        Contender::new(Turns, QuickCache::<String>::default(), text),
        Contender::new(Turns, Singleflight::default(), text),
        Contender::new(Number, SharedCalls::<u64>::default(), number),
        Contender::new(Number, ByLiteral::<u64>::default(), number),
        Contender::new(Number, OnceLocks::<u64>::default(), number),
        Contender::new(Number, Moka::<u64>::default(), number),
        Contender::new(Number, QuickCache::<u64>::default(), number),
        Contender::new(Number, OnceMaps::<u64>::default(), number),
        Contender::new(Number, Cached, number),
        Contender::new(Number, LockMaps::<u64>::default(), number),
        Contender::new(Fast, SharedCalls::<u64, Foldhash>::default(), number),
        Contender::new(Fast, ByLiteral::<u64, Foldhash>::default(), number),
        Contender::new(Fast, OnceLocks::<u64, Foldhash>::default(), number),
        Contender::new(Fast, Moka::<u64, Foldhash>::default(), number),
        Contender::new(Fast, QuickCache::<u64, Foldhash>::default(), number),
        Contender::new(Fast, OnceMaps::<u64, Foldhash>::default(), number),
        Contender::new(Fast, LockMaps::<u64, Foldhash>::default(), number),
    ];
    for contender in &mut contenders {
        (contender.round)(); // Warms up.
    }
    let progress = Progress::begin("the cost of a lone call", effort.choose(20, 300));
    for _ in progress.rounds() {
        for contender in &mut contenders {
            let spent = (contender.round)();
            contender.times.push(spent.time.as_secs_f64());
        }
    }
    // Apart, so that counting costs nothing where time counts.
    let mut costs = contenders.iter_mut().map(|contender| {
        let counted = allocator::counting(|| (contender.round)());
        let each = |n| n as f64 / CALLS as f64;
        let cost = Cost {
            nanos: median(contender.times.drain(..)) * 1e9 / CALLS as f64,
            allocations: each(counted.allocations),
            clones: each(counted.clones),
        };
        (contender.column, contender.name, contender.keeps, cost)
    });

    let (.., floor) = costs.next().expect("it is the first");
    let mut rows = Vec::<Row>::new();
    for (column, name, keeps_values, cost) in costs {
        let row = rows.iter_mut().find(|row| row.name == name);
        match (column, row) {
            (Turns, Some(row)) => row.turns = Some(cost),
            (Number, Some(row)) => row.number = Some(cost),
            (Fast, Some(row)) => row.fast = Some(cost),
            _ => rows.push(Row {
                name,
                keeps_values,
                text: cost,
                turns: None,
                number: None,
                fast: None,
            }),
        }
    }
    Lone { floor: floor.nanos, rows }
}

#[derive(Clone, Copy, PartialEq)]
enum Column {
    Text,
    Turns,
    Number,
    Fast,
}

struct Contender<'a> {
    column: Column,
    name: &'static str,
    keeps: bool,
    round: Box<dyn FnMut() -> Spent + 'a>,
    times: Vec<f64>,
}

/// In one round.
struct Spent {
    time: Duration,
    allocations: u64,
    clones: u64,
}

impl<'a> Contender<'a> {
    fn new<Q, P>(column: Column, mut peer: P, keys: &'a [&Q]) -> Self
    where
        Q: ?Sized,
        P: Coalesce<Q> + 'a,
    {
        let keeps = peer.keeps_values();
        let many = keeps || column == Column::Turns;
        let keys = if many { keys } else { &keys[..1] };
        Self {
            column,
            name: peer.name(),
            keeps,
            round: Box::new(move || {
                let spent = spent(|| {
                    for key in keys.iter().cycle().take(CALLS) {
                        // Hidden from the optimiser, as a key that came over the network would be.
                        let key = black_box(*key);
                        let _ = black_box(peer.call(key, || Ok(black_box(Value(42)))));
                    }
                });
                peer.clear();
                spent
            }),
            times: Vec::new(),
        }
    }

    fn floor() -> Self {
        let mutex = Mutex::new(0);
        Self {
            column: Column::Text,
            name: "two lock/unlock pairs",
            keeps: false,
            round: Box::new(move || {
                spent(|| {
                    for _ in 0..CALLS {
                        *black_box(&mutex).lock().unwrap() += 1;
                        *black_box(&mutex).lock().unwrap() += 1;
                    }
                })
            }),
            times: Vec::new(),
        }
    }
}

fn spent(f: impl FnOnce()) -> Spent {
    let before = (allocator::allocations(), clones());
    let begun = Instant::now();
    f();
    Spent {
        time: begun.elapsed(),
        allocations: allocator::allocations() - before.0,
        clones: clones() - before.1,
    }
}
