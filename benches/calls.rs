//! What a call costs, beside the literal version and beside the bare primitives. For figures
//! over time; `bars` compares them within one run.
//!
//! ```text
//! cargo bench -p calls            # about two minutes
//! cargo bench -p calls -- lone    # one group of them
//! ```

mod crew;
mod literal;
mod release;

fn main() {
    benches::benches();
    criterion::Criterion::default().configure_from_args().final_summary();
}

mod benches {
    use std::hint::black_box;
    use std::io;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Barrier, Mutex};
    use std::thread::{self, ThreadId};
    use std::time::{Duration, Instant};

    use criterion::{criterion_group, BenchmarkId, Criterion, SamplingMode, Throughput};
    use shared_calls::FlightGroup;

    use crate::literal::{self, Literal};
    use crate::release::{until_all_wait, Bare, Release, Turns, KEY, VALUE};

    type ByKey<K> = Literal<K, Result<u64, Arc<io::Error>>>;

    criterion_group! {
        name = benches;
        config = Criterion::default()
            .warm_up_time(Duration::from_millis(500))
            .measurement_time(Duration::from_secs(2))
            .sample_size(50);
        targets = lone, same_key, distinct_keys, release
    }

    /// One thread, nobody to share with.
    fn lone(c: &mut Criterion) {
        let mut lone = c.benchmark_group("lone");

        let group = FlightGroup::<u64, io::Error>::new();
        lone.bench_function("str/group", |b| {
            b.iter(|| group.call(black_box("user:42"), || Ok(black_box(42))))
        });
        let literal = ByKey::<String>::new();
        lone.bench_function("str/literal", |b| {
            b.iter(|| literal.call(black_box("user:42"), || Ok(black_box(42))))
        });
        let group = FlightGroup::<u64, io::Error, u64>::new();
        lone.bench_function("u64/group", |b| {
            b.iter(|| group.call(black_box(&42), || Ok(black_box(42))))
        });
        let literal = ByKey::<u64>::new();
        lone.bench_function("u64/literal", |b| {
            b.iter(|| literal.call(black_box(&42), || Ok(black_box(42))))
        });
        let mutex = Mutex::new(0);
        lone.bench_function("two_lock_pairs", |b| b.iter(|| two_lock_pairs(&mutex, || ())));
    }

    const THREADS: u64 = 8;

    /// Eight threads that all ask for one thing, which takes about a microsecond.
    fn same_key(c: &mut Criterion) {
        let mut same_key = c.benchmark_group("same_key");
        same_key.throughput(Throughput::Elements(THREADS));

        let group = FlightGroup::<u64, io::Error>::new();
        same_key.bench_function("group", |b| {
            b.iter_custom(|calls| from_threads(calls, |_| group.call("user:42", || Ok(short()))))
        });
        let literal = ByKey::<String>::new();
        same_key.bench_function("literal", |b| {
            b.iter_custom(|calls| from_threads(calls, |_| literal.call("user:42", || Ok(short()))))
        });
        let mutex = Mutex::new(0);
        same_key.bench_function("two_lock_pairs", |b| {
            b.iter_custom(|calls| from_threads(calls, |_| two_lock_pairs(&mutex, short)))
        });
    }

    /// Eight threads that each ask for a thing of their own: all they share is the map's lock.
    fn distinct_keys(c: &mut Criterion) {
        let mut distinct_keys = c.benchmark_group("distinct_keys");
        distinct_keys.throughput(Throughput::Elements(THREADS));
        let keys: Vec<String> = (0..THREADS).map(|i| format!("user:{i}")).collect();

        let group = FlightGroup::<u64, io::Error>::new();
        distinct_keys.bench_function("group", |b| {
            b.iter_custom(|calls| from_threads(calls, |i| group.call(&*keys[i], || Ok(short()))))
        });
        let literal = ByKey::<String>::new();
        distinct_keys.bench_function("literal", |b| {
            b.iter_custom(|calls| from_threads(calls, |i| literal.call(&*keys[i], || Ok(short()))))
        });
        let mutex = Mutex::new(0);
        distinct_keys.bench_function("two_lock_pairs", |b| {
            b.iter_custom(|calls| from_threads(calls, |_| two_lock_pairs(&mutex, short)))
        });
    }

    /// From the end of the leader's function until the last follower has the value.
    fn release(c: &mut Criterion) {
        let mut release = c.benchmark_group("release");
        // Having the followers wait takes many times longer than releasing them and is not counted,
        // so little time measured is much time spent.
        release
            .sampling_mode(SamplingMode::Flat)
            .warm_up_time(Duration::from_millis(10))
            .sample_size(20);
        for followers in [8, 64, 512] {
            release.measurement_time(Duration::from_millis(40 + followers / 2));
            let contenders: [(&str, Arc<dyn Release>); 4] = [
                ("group", Arc::new(FlightGroup::<u64, io::Error>::new())),
                ("nested", Arc::new(Nested::new())),
                ("literal", Arc::new(ByLiteral::new())),
                ("bare_broadcast", Arc::new(Bare::new())),
            ];
            for (name, contender) in contenders {
                let turns = Turns::new(followers as usize, vec![contender]);
                release.bench_function(BenchmarkId::new(name, followers), |b| {
                    b.iter_custom(|rounds| (0..rounds).map(|_| turns.round()).sum())
                });
            }
        }
    }

    /// The same from inside another flight's function, each follower in one of its own: such waits are
    /// written into the graph of who waits for whom.
    pub struct Nested {
        outer: FlightGroup<u64, io::Error, ThreadId>,
        hot: FlightGroup<u64, io::Error>,
    }

    impl Nested {
        pub fn new() -> Self {
            Self { outer: FlightGroup::new(), hot: FlightGroup::new() }
        }
    }

    impl Release for Nested {
        fn lead(&self, followers: usize, summon: &dyn Fn()) -> Instant {
            self.hot.lead(followers, summon)
        }

        fn follow(&self) -> u64 {
            let own = thread::current().id();
            self.outer.call(&own, || Ok(self.hot.follow())).unwrap()
        }
    }

    pub struct ByLiteral {
        calls: ByKey<String>,
        seated: AtomicUsize,
    }

    impl ByLiteral {
        pub fn new() -> Self {
            Self { calls: Literal::new(), seated: AtomicUsize::new(0) }
        }
    }

    impl Release for ByLiteral {
        fn lead(&self, followers: usize, summon: &dyn Fn()) -> Instant {
            let literal::Joined::Leader(call) = self.calls.join(KEY) else {
                unreachable!("the last round is over")
            };
            self.seated.store(0, Ordering::SeqCst);
            summon();
            until_all_wait(followers, || self.seated.load(Ordering::SeqCst));
            let begun = Instant::now();
            self.calls.delete(KEY);
            call.done(Ok(Ok(VALUE)));
            begun
        }

        fn follow(&self) -> u64 {
            let literal::Joined::Follower(call) = self.calls.join(KEY) else {
                unreachable!("the leader waits for all followers")
            };
            self.seated.fetch_add(1, Ordering::SeqCst);
            call.wait().unwrap().unwrap()
        }
    }

    /// What even the barest singleflight has to do: look a call up, and take it out again.
    fn two_lock_pairs<T>(mutex: &Mutex<u64>, between: impl FnOnce() -> T) -> T {
        *black_box(mutex).lock().unwrap() += 1;
        let value = between();
        *black_box(mutex).lock().unwrap() += 1;
        value
    }

    /// A function of about a microsecond.
    fn short() -> u64 {
        (0..1_000).fold(0, |sum, i| black_box(sum + i))
    }

    /// How long the threads take to call so many times each. `call` gets the thread's number.
    fn from_threads<T>(calls: u64, call: impl Fn(usize) -> T + Sync) -> Duration {
        let barrier = Barrier::new(THREADS as usize);
        let caller = |thread| {
            barrier.wait();
            let begin = Instant::now();
            for _ in 0..calls {
                black_box(call(thread));
            }
            (begin, Instant::now())
        };
        let caller = &caller;
        thread::scope(|scope| {
            let threads: Vec<_> =
                (0..THREADS as usize).map(|thread| scope.spawn(move || caller(thread))).collect();
            // The clock is read by the callers, since this thread may have to wait for a processor.
            let spans = threads.into_iter().map(|thread| thread.join().unwrap());
            let (begin, end) =
                spans.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))).expect("there are threads");
            end - begin
        })
    }
}
