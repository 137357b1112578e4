//! The operator's view: a group that tells what it does, and what is in flight when all is stuck.

use std::cmp::Reverse;

use shared_calls::{Deadlock, FlightGroup, Landed, Observer};

use crate::cache::Answer;
use crate::metrics::Flights;
use crate::service::LoadError;
use crate::trace::Trace;

pub type Group = FlightGroup<Answer, LoadError>;

/// A group that is seen in the metrics and in the log.
pub fn group(flights: &Flights) -> Group {
    let observer = Both(flights.clone(), Trace);
    FlightGroup::builder().observer(observer).build()
}

/// A line for each key in flight, the oldest first: who loads, for how long, and who waits.
pub fn in_flight(group: Option<&Group>) -> String {
    let mut flights = group.map(Group::in_flight).unwrap_or_default();
    flights.sort_by_key(|flight| Reverse(flight.age));
    flights.iter().map(|flight| format!("{flight}\n")).collect()
}

/// A group has one observer, and this is two.
struct Both<A, B>(A, B);

impl<A: Observer, B: Observer> Observer for Both<A, B> {
    fn flight_began(&self, key: &String) {
        self.0.flight_began(key);
        self.1.flight_began(key);
    }

    fn caller_joined(&self, key: &String) {
        self.0.caller_joined(key);
        self.1.caller_joined(key);
    }

    fn flight_landed(&self, key: &String, landed: &Landed) {
        self.0.flight_landed(key, landed);
        self.1.flight_landed(key, landed);
    }

    fn caller_timed_out(&self, key: &String) {
        self.0.caller_timed_out(key);
        self.1.caller_timed_out(key);
    }

    fn deadlock_refused(&self, key: &String, deadlock: &Deadlock) {
        self.0.deadlock_refused(key, deadlock);
        self.1.deadlock_refused(key, deadlock);
    }
}
