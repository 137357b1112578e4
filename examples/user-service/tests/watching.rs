//! What an operator sees: figures for Prometheus, what is in flight, and the log.

mod common;

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{mpsc, Arc, Mutex};
use std::thread;
use std::time::Duration;

use common::{all_are, error, request, until, user, Site, PATIENCE};
use rusqlite::Connection;
use shared_calls::{Joined, Unshared};
use tracing::subscriber::with_default;
use tracing::Level;
use user_service::cache::Cache;
use user_service::db::When;
use user_service::metrics::Flights;
use user_service::service::Expiry;
use user_service::watch;

fn get(site: &Site, path: &str) -> String {
    let reply = request(site.server.address(), "GET", path);
    assert_eq!(reply.status, 200, "{}", reply.body);
    reply.body
}

/// Samples by name and labels, as they are written.
type Samples = BTreeMap<String, f64>;

/// Reads the metrics as Prometheus does, and makes sure that it can: families one after another, each
/// with its type before its samples, and with no sample twice.
fn metrics(site: &Site) -> Samples {
    let text = get(site, "/metrics");
    assert!(text.ends_with('\n'), "the last line must end, too");
    let mut samples = Samples::new();
    let mut types = BTreeMap::new();
    let mut family = "";
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, _) = help.split_once(' ').expect("a text");
            family = name;
            continue;
        }
        if let Some(of) = line.strip_prefix("# TYPE ") {
            let (name, kind) = of.split_once(' ').unwrap();
            assert_eq!(name, family);
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            let before = types.insert(name.to_owned(), kind.to_owned());
            assert_eq!(before, None, "twice: {line}");
            continue;
        }
        let (sample, value) = line.rsplit_once(' ').expect("a value");
        let name = sample.split('{').next().unwrap();
        let suffixes: &[&str] = match types[family].as_str() {
            "histogram" => &["_bucket", "_sum", "_count"],
            _ => &[""],
        };
        assert!(suffixes.iter().any(|s| name == format!("{family}{s}")), "{line}, in {family}");
        let before = samples.insert(sample.to_owned(), value.parse().unwrap());
        assert_eq!(before, None, "twice: {line}");
    }
    // Of a histogram, the last bucket holds all.
    let histograms = types.iter().filter(|(_, kind)| *kind == "histogram");
    for (name, _) in histograms {
        let all = samples[&format!("{name}_bucket{{le=\"+Inf\"}}")];
        assert_eq!(all, samples[&format!("{name}_count")]);
    }
    samples
}

#[track_caller]
fn assert_samples(samples: &Samples, expected: &[(&str, f64)]) {
    for (name, value) in expected {
        assert_eq!(samples.get(*name), Some(value), "{name} in {samples:#?}");
    }
}

/// The database waits until all are there.
#[test]
fn the_metrics_of_a_stampede() {
    let site = Site::shared(PATIENCE, |group, when| {
        if when == When::Before {
            until(|| group.in_flight()[0].followers == 49);
        }
    });
    all_are(&site.crowd(50, 301), &user(301));

    let samples = metrics(&site);
    assert_samples(
        &samples,
        &[
            ("shared_calls_led_total", 1.0),
            ("shared_calls_followed_total", 49.0),
            ("shared_calls_timed_out_total", 0.0),
            ("shared_calls_deadlocked_total", 0.0),
            ("shared_calls_overloaded_total", 0.0),
            ("shared_calls_in_flight", 0.0),
            ("shared_calls_waiting", 0.0),
            (r#"shared_calls_flights_total{ending="succeeded"}"#, 1.0),
            (r#"shared_calls_flights_total{ending="failed"}"#, 0.0),
            (r#"shared_calls_flights_total{ending="panicked"}"#, 0.0),
            (r#"shared_calls_flights_total{ending="abandoned"}"#, 0.0),
            ("shared_calls_flight_duration_seconds_count", 1.0),
            ("shared_calls_flight_followers_count", 1.0),
            ("shared_calls_flight_followers_sum", 49.0),
            (r#"shared_calls_flight_followers_bucket{le="20"}"#, 0.0),
            (r#"shared_calls_flight_followers_bucket{le="50"}"#, 1.0),
            (r#"user_service_requests_total{status="200"}"#, 50.0),
            ("user_service_database_queries_total", 1.0),
            (r#"user_service_cache_reads_total{result="miss"}"#, 1.0),
            (r#"user_service_cache_reads_total{result="hit"}"#, 0.0),
        ],
    );
    assert!(samples["shared_calls_flight_duration_seconds_sum"] > 0.0);

    // Counters go on from there, this one by the request for the metrics.
    site.get(301);
    let samples = metrics(&site);
    assert_samples(
        &samples,
        &[
            ("shared_calls_led_total", 2.0),
            (r#"shared_calls_flights_total{ending="succeeded"}"#, 2.0),
            (r#"shared_calls_flight_followers_bucket{le="0"}"#, 1.0),
            (r#"user_service_requests_total{status="200"}"#, 52.0),
            (r#"user_service_cache_reads_total{result="hit"}"#, 1.0),
        ],
    );
}

#[test]
fn the_metrics_of_loads_that_fail() {
    let panics = Arc::new(AtomicBool::new(true));
    let in_load = Arc::clone(&panics);
    let site = Site::shared(PATIENCE, move |_, _| {
        if in_load.load(Ordering::SeqCst) {
            panic!("this panic is part of the test");
        }
    });
    assert_eq!(site.get(302), error(500, "the load panicked"));
    panics.store(false, Ordering::SeqCst);
    let other = Connection::open(site.database()).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    assert_eq!(site.get(302), error(503, "the database does not answer"));
    let samples = metrics(&site);
    assert_samples(
        &samples,
        &[
            (r#"shared_calls_flights_total{ending="panicked"}"#, 1.0),
            (r#"user_service_requests_total{status="500"}"#, 1.0),
            (r#"shared_calls_flights_total{ending="failed"}"#, 1.0),
            (r#"user_service_requests_total{status="503"}"#, 1.0),
        ],
    );
}

#[test]
fn without_sharing_there_are_metrics_too() {
    let site = Site::start(Arc::new(Unshared), Cache::memory(), Expiry::default(), || ());
    // Before the first request nothing has been answered yet.
    let samples = metrics(&site);
    assert!(!samples.keys().any(|name| name.contains("requests_total")));
    all_are(&site.crowd(5, 303), &user(303));
    let samples = metrics(&site);
    assert_samples(
        &samples,
        &[
            ("shared_calls_led_total", 0.0),
            ("shared_calls_followed_total", 0.0),
            ("shared_calls_in_flight", 0.0),
            ("shared_calls_flight_duration_seconds_count", 0.0),
            (r#"shared_calls_flights_total{ending="succeeded"}"#, 0.0),
            (r#"user_service_requests_total{status="200"}"#, 6.0),
        ],
    );
    assert_eq!(get(&site, "/in-flight"), "");
}

#[test]
fn a_load_that_is_stuck_is_in_sight() {
    let (entered, in_query) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let site = Site::shared(PATIENCE, move |_, when| {
        if when == When::Before {
            entered.send(()).unwrap();
            released.lock().unwrap().recv().unwrap();
        }
    });
    assert_eq!(get(&site, "/in-flight"), "");
    let (site, group) = (&site, site.service.group().unwrap());
    let (text, samples) = thread::scope(|scope| {
        let clients = [304, 305, 305, 305].map(|id| {
            let client = scope.spawn(move || (id, site.get(id)));
            if id == 304 {
                in_query.recv().unwrap();
            }
            client
        });
        in_query.recv().unwrap();
        until(|| group.stats().waiting == 2);
        let seen = (get(site, "/in-flight"), metrics(site));
        for _ in 0..2 {
            release.send(()).unwrap();
        }
        for client in clients {
            let (id, reply) = client.join().unwrap();
            assert_eq!(reply, user(id));
        }
        seen
    });

    // The one that others wait for is first.
    let lines: Vec<_> = text.lines().collect();
    let [first, second] = lines[..] else {
        panic!("{text}");
    };
    let begins = |id| format!(r#""user-service:user:{id}" led by thread 'http-"#);
    assert!(first.starts_with(&begins(305)), "{text}");
    assert!(first.contains(" for "), "{text}");
    assert!(first.ends_with(", 2 followers"), "{text}");
    assert!(second.starts_with(&begins(304)), "{text}");
    assert!(!second.contains(" for "), "{text}");
    assert!(!second.contains("follower"), "{text}");
    let stuck = [("shared_calls_in_flight", 2.0), ("shared_calls_waiting", 2.0)];
    assert_samples(&samples, &stuck);
    assert_eq!(get(site, "/in-flight"), "");
}

/// What is logged at this level, by this thread, while `f` runs.
fn logged(level: Level, f: impl FnOnce()) -> Vec<String> {
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);
    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(move || writer.clone())
        .with_target(false)
        .with_ansi(false)
        .without_time()
        .finish();
    with_default(subscriber, f);
    let bytes = std::mem::take(&mut *log.0.lock().unwrap());
    let text = String::from_utf8(bytes).unwrap();
    text.lines().map(|line| line.trim().to_owned()).collect()
}

/// A caller follows, one is in a hurry, one is too many, and the leader goes away; a load asks for
/// itself.
fn two_flights() {
    let group = watch::group(&Flights::new(), PATIENCE, 2);
    let Joined::Leader(leader) = group.join("k") else {
        panic!("nobody leads yet");
    };
    let follower = group.join("k");
    let hasty = group.request("k").timeout(Duration::ZERO);
    assert!(hasty.call(|| panic!("somebody leads")).is_err());
    let one_too_many = group.request("k").max_followers(1);
    assert!(one_too_many.call(|| panic!("somebody leads")).is_err());
    drop(leader);
    drop(follower);
    let outer = group.call("self", || {
        assert!(group.call("self", || panic!("refused")).is_err());
        Ok(user_service::cache::Answer::NoSuchUser)
    });
    assert!(outer.is_ok());
}

#[test]
fn the_log_tells_what_happens_to_a_flight() {
    let mut lines = logged(Level::DEBUG, two_flights);
    // How long it took is another one each time.
    for line in &mut lines {
        if let Some((before, after)) = line.split_once(" duration=") {
            let (_, after) = after.split_once(' ').unwrap();
            *line = format!("{before} {after}");
        }
        // Nor is the name of this thread the test's affair.
        if let Some((before, _)) = line.split_once(" deadlock=") {
            *line = before.to_owned();
        }
    }
    assert_eq!(
        lines,
        [
            r#"DEBUG flight began key="k""#,
            r#"DEBUG caller joined key="k""#,
            r#"DEBUG caller joined key="k""#,
            r#"DEBUG caller timed out key="k""#,
            r#"DEBUG caller refused, too many wait key="k""#,
            r#"WARN flight landed key="k" ending="abandoned" followers=1"#,
            r#"DEBUG flight began key="self""#,
            r#"ERROR caller refused key="self""#,
            r#"DEBUG flight landed key="self" ending="succeeded" followers=0"#,
        ]
    );
}

/// What goes well is a detail.
#[test]
fn by_default_the_log_tells_only_what_goes_wrong() {
    let lines = logged(Level::INFO, two_flights);
    let wrong = ["WARN flight landed", "ERROR caller refused"];
    assert_eq!(lines.len(), wrong.len(), "{lines:?}");
    for (line, wrong) in lines.iter().zip(wrong) {
        assert!(line.starts_with(wrong), "{line}");
    }
    assert!(lines[1].contains("would wait for itself"), "{}", lines[1]);
}
