//! The text of `GET /metrics`, in the format that Prometheus reads.
//!
//! The figures come from three places. The group counts its calls itself: `stats()`. Each flight's
//! duration and number of followers come from the observer in `watch.rs`, when the flight lands. The
//! service counts its answers, its queries and its use of the cache.

use std::fmt::Write;

use prometheus::core::Collector;
use prometheus::{Histogram, HistogramOpts, IntCounterVec, Opts, Registry, TextEncoder};
use shared_calls::{Ending, FlightGroup, Landed};

use crate::service::Service;

pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// In seconds: from a cache hit to the longest wait.
const DURATIONS: [f64; 11] = [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.0, 10.0];
const FOLLOWERS: [f64; 9] = [0.0, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0];

/// Figures of all flights that have landed. A clone counts into the same figures.
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
        let endings =
            Opts::new("shared_calls_flights_total", "Flights that have landed, by ending.");
        let flights = Self {
            registry: Registry::new(),
            duration: histogram(
                "shared_calls_flight_duration_seconds",
                "How long flights took.",
                &DURATIONS,
            ),
            followers: histogram(
                "shared_calls_flight_followers",
                "How many callers followed each flight until it landed.",
                &FOLLOWERS,
            ),
            endings: IntCounterVec::new(endings, &["ending"]).expect("valid names"),
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

    pub fn count(&self, landed: &Landed) {
        self.duration.observe(landed.duration.as_secs_f64());
        self.followers.observe(landed.followers as f64);
        self.endings.with_label_values(&[name(landed.ending)]).inc();
    }
}

impl Default for Flights {
    fn default() -> Self {
        Self::new()
    }
}

/// The name of an ending in metrics and in the log.
pub fn name(ending: Ending) -> &'static str {
    match ending {
        Ending::Succeeded => "succeeded",
        Ending::Failed => "failed",
        Ending::Panicked => "panicked",
        Ending::Abandoned => "abandoned",
        _ => "otherwise",
    }
}

/// All figures of a service. Where nothing is shared, those of shared calls are 0.
pub fn text(service: &Service) -> String {
    let families = service.flights().registry.gather();
    let text = TextEncoder::new().encode_to_string(&families);
    let mut text = Text(text.expect("every family has a sample"));

    let calls = service.group().map(FlightGroup::stats).unwrap_or_default();
    text.counter("shared_calls_led_total", "Calls that led.", calls.led);
    text.counter(
        "shared_calls_followed_total",
        "Calls that got another call's outcome: loads that did not run.",
        calls.followed,
    );
    text.counter("shared_calls_timed_out_total", "Calls whose time limit passed.", calls.timed_out);
    text.counter(
        "shared_calls_deadlocked_total",
        "Calls that were refused because they would have waited for ever.",
        calls.deadlocked,
    );
    text.counter(
        "shared_calls_overloaded_total",
        "Calls that were refused because too many waited already.",
        calls.overloaded,
    );
    let in_flight = "shared_calls_in_flight";
    text.family(in_flight, "gauge", "Flights now.");
    text.sample(in_flight, "", calls.in_flight);
    let waiting = "shared_calls_waiting";
    text.family(waiting, "gauge", "Threads that wait for a flight now.");
    text.sample(waiting, "", calls.waiting);

    let stats = service.stats();
    if !stats.requests.is_empty() {
        let name = "user_service_requests_total";
        text.family(name, "counter", "Requests answered, by HTTP status.");
        for (status, n) in stats.requests {
            text.sample(name, &format!("{{status=\"{status}\"}}"), n);
        }
    }
    let name = "user_service_cache_reads_total";
    text.family(name, "counter", "Reads of the cache, by result.");
    for (result, n) in
        [("hit", stats.cache_hits), ("miss", stats.cache_misses), ("damaged", stats.cache_damaged)]
    {
        text.sample(name, &format!("{{result=\"{result}\"}}"), n);
    }
    text.counter(
        "user_service_cache_errors_total",
        "Exchanges with the cache that failed.",
        stats.cache_errors,
    );
    text.counter(
        "user_service_database_queries_total",
        "Queries sent to the database.",
        stats.database_queries,
    );
    text.counter(
        "user_service_database_updates_total",
        "Updates sent to the database.",
        stats.database_updates,
    );
    text.0
}

/// Figures that are counted elsewhere need no registry, only lines of text.
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let lines = format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
        self.0.push_str(&lines);
    }

    fn sample(&mut self, name: &str, labels: &str, n: u64) {
        writeln!(self.0, "{name}{labels} {n}").expect("a string takes everything");
    }

    fn counter(&mut self, name: &str, help: &str, n: u64) {
        self.family(name, "counter", help);
        self.sample(name, "", n);
    }
}
