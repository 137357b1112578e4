//! What `GET /metrics` tells, in the text form that Prometheus reads.
//!
//! Figures come from three places. What the shared calls have counted, their group knows itself:
//! `stats()`. What is to be said of each flight, how long it took and how many shared it, an
//! [`Observer`] is told when it lands. And the service counts its answers, its queries and its cache.

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
};
use shared_calls::{Ending, FlightGroup, Landed, Observer};

use crate::service::Service;
use crate::stats::Stats;

pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// In seconds: from a hit in the cache to as long as anybody waits.
const DURATIONS: [f64; 11] = [
    0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.0, 10.0,
];
const FOLLOWERS: [f64; 9] = [0.0, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0];

/// Of every flight that has landed. A clone counts into the same figures.
#[derive(Clone)]
pub struct Flights {
    registry: Registry,
    duration: Histogram,
    followers: Histogram,
    endings: IntCounterVec,
}

impl Flights {
    pub fn new() -> Self {
        let histogram = |name, help, buckets: &[f64]| {
            let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
            Histogram::with_opts(options).expect("the buckets are in order")
        };
        let flights = Self {
            registry: Registry::new(),
            duration: histogram(
                "shared_calls_flight_duration_seconds",
                "How long flights took.",
                &DURATIONS,
            ),
            followers: histogram(
                "shared_calls_flight_followers",
                "How many callers followed each flight to its end.",
                &FOLLOWERS,
            ),
            endings: by_label(
                "shared_calls_flights_total",
                "Flights that have ended, by how.",
                "ending",
            ),
        };
        // All of them from the beginning: a rate needs a zero to start from.
        for ending in ["succeeded", "failed", "panicked", "abandoned"] {
            flights.endings.with_label_values(&[ending]);
        }
        let all: [Box<dyn Collector>; 3] = [
            Box::new(flights.duration.clone()),
            Box::new(flights.followers.clone()),
            Box::new(flights.endings.clone()),
        ];
        for collector in all {
            let registered = flights.registry.register(collector);
            registered.expect("each name once");
        }
        flights
    }
}

impl Default for Flights {
    fn default() -> Self {
        Self::new()
    }
}

impl Observer for Flights {
    fn flight_landed(&self, _: &String, landed: &Landed) {
        self.duration.observe(landed.duration.as_secs_f64());
        self.followers.observe(landed.followers as f64);
        self.endings.with_label_values(&[name(landed.ending)]).inc();
    }
}

/// How an ending is called in metrics and in the log.
pub fn name(ending: Ending) -> &'static str {
    match ending {
        Ending::Succeeded => "succeeded",
        Ending::Failed => "failed",
        Ending::Panicked => "panicked",
        Ending::Abandoned => "abandoned",
        _ => "otherwise",
    }
}

/// All that there is to tell of a service. Where nothing is shared, the figures of shared calls are 0.
pub fn text(service: &Service) -> String {
    let mut families = service.flights().registry.gather();
    let group = service.group().map(FlightGroup::stats);
    families.extend(of_group(group.unwrap_or_default()));
    families.extend(of_service(&service.stats()));
    let text = TextEncoder::new().encode_to_string(&families);
    text.expect("every family has a sample")
}

fn of_group(stats: shared_calls::Stats) -> Vec<MetricFamily> {
    let families = [
        counter("shared_calls_led_total", "Calls that led.", stats.led),
        counter(
            "shared_calls_followed_total",
            "Calls that got another call's outcome: so many loads did not run.",
            stats.followed,
        ),
        counter(
            "shared_calls_timed_out_total",
            "Calls that lost their patience.",
            stats.timed_out,
        ),
        counter(
            "shared_calls_deadlocked_total",
            "Calls that were refused, because they would have waited for ever.",
            stats.deadlocked,
        ),
        gauge(
            "shared_calls_in_flight",
            "Keys in flight now.",
            stats.in_flight,
        ),
        gauge(
            "shared_calls_waiting",
            "Threads that wait for a flight now.",
            stats.waiting,
        ),
    ];
    families.into_iter().flatten().collect()
}

fn of_service(stats: &Stats) -> Vec<MetricFamily> {
    let requests = by_label(
        "user_service_requests_total",
        "Requests that were answered, by HTTP status.",
        "status",
    );
    for (status, n) in &stats.requests {
        let requests = requests.with_label_values(&[status.to_string()]);
        requests.inc_by(*n);
    }
    let cache = by_label(
        "user_service_cache_reads_total",
        "What the cache was asked for.",
        "result",
    );
    for (result, n) in [("hit", stats.cache_hits), ("miss", stats.cache_misses)] {
        cache.with_label_values(&[result]).inc_by(n);
    }
    let families = [
        requests.collect(),
        cache.collect(),
        counter(
            "user_service_cache_errors_total",
            "Exchanges with the cache that failed.",
            stats.cache_errors,
        ),
        counter(
            "user_service_database_queries_total",
            "Queries sent to the database.",
            stats.database_queries,
        ),
        counter(
            "user_service_database_updates_total",
            "Updates sent to the database.",
            stats.database_updates,
        ),
    ];
    let families = families.into_iter().flatten();
    // Nothing has been answered yet.
    families
        .filter(|family| !family.get_metric().is_empty())
        .collect()
}

fn counter(name: &str, help: &str, n: u64) -> Vec<MetricFamily> {
    let counter = IntCounter::new(name, help).expect("a valid name");
    counter.inc_by(n);
    counter.collect()
}

fn gauge(name: &str, help: &str, n: u64) -> Vec<MetricFamily> {
    let gauge = IntGauge::new(name, help).expect("a valid name");
    gauge.set(n as i64);
    gauge.collect()
}

fn by_label(name: &str, help: &str, label: &str) -> IntCounterVec {
    IntCounterVec::new(Opts::new(name, help), &[label]).expect("valid names")
}
