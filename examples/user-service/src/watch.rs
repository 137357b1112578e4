//! The operator's view: a group that reports what it does to the metrics and the log, and what is in
//! flight when everything is stuck.

use std::cmp::Reverse;
use std::io::{self, IsTerminal};
use std::time::Duration;

use shared_calls::{Deadlock, Ending, FlightGroup, Landed, Observer};
use tracing::{debug, error, warn};
use tracing_subscriber::filter::{EnvFilter, LevelFilter};

use crate::cache::Answer;
use crate::metrics::{self, Flights};
use crate::service::LoadError;

pub type Group = FlightGroup<Answer, LoadError>;

/// A group that shows in the metrics and in the log. Its limits hold for every call, so also behind
/// the trait object.
///
/// Without a `max_age`: every load has time limits of its own, and a flight that was given up could
/// fill the cache with an old row after a change.
pub fn group(flights: &Flights, timeout: Duration, max_followers: usize) -> Group {
    FlightGroup::builder()
        .observer(Watch(flights.clone()))
        .timeout(timeout)
        .max_followers(max_followers)
        .build()
}

/// A line for each flight: who loads, how long others have waited for it, and how many do. The
/// longest wait is first. Flights that nobody has waited for are last.
pub fn in_flight(group: Option<&Group>) -> String {
    let mut flights = group.map(Group::in_flight).unwrap_or_default();
    flights.sort_by_key(|flight| Reverse(flight.age));
    flights.iter().map(|flight| format!("{flight}\n")).collect()
}

/// Logs to stderr what `RUST_LOG` lets through. The default leaves out details.
pub fn init_log() {
    let filter =
        EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).from_env_lossy();
    let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    // Unlike `eprintln!`, this does not panic when stderr is closed.
    let subscriber =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(colour);
    subscriber.init();
}

/// A group has one observer. This one counts and logs.
///
/// What goes well is a detail, and is logged with `RUST_LOG=user_service=debug` only.
struct Watch(Flights);

impl Observer for Watch {
    fn flight_began(&self, key: &String) {
        debug!(key, "flight began");
    }

    fn caller_joined(&self, key: &String) {
        debug!(key, "caller joined");
    }

    fn flight_landed(&self, key: &String, landed: &Landed) {
        self.0.count(landed);
        let Landed { duration, followers, ending, .. } = landed;
        let how = metrics::name(*ending);
        match ending {
            // The service logs the error.
            Ending::Succeeded | Ending::Failed => {
                debug!(key, ending = how, ?duration, followers, "flight landed");
            }
            _ => {
                warn!(key, ending = how, ?duration, followers, "flight landed");
            }
        }
    }

    fn caller_timed_out(&self, key: &String) {
        debug!(key, "caller timed out");
    }

    /// A detail, because in an overload there are many.
    fn overload_refused(&self, key: &String) {
        debug!(key, "caller refused, too many wait");
    }

    /// A bug in the program: a load asks for itself.
    fn deadlock_refused(&self, key: &String, deadlock: &Deadlock) {
        error!(key, %deadlock, "caller refused");
    }
}
