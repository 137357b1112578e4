//! What the threads did, and when: for `--explain` and `--trace`.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::lock;

pub struct Log {
    epoch: Instant,
    events: Mutex<Vec<Event>>,
}

/// What one thread did for one target.
#[derive(Clone)]
struct Event {
    thread: usize,
    target: String,
    what: What,
    /// Both since the build began.
    began: Duration,
    ended: Duration,
}

#[derive(Clone)]
pub enum What {
    /// Ran its command, and why.
    Ran(String),
    /// Waited for a target that another thread was building.
    Waited(String),
}

impl Default for Log {
    fn default() -> Self {
        Self { epoch: Instant::now(), events: Mutex::default() }
    }
}

impl Log {
    /// Something that ended just now.
    pub fn add(&self, thread: usize, target: &str, began: Instant, what: What) {
        let event = Event {
            thread,
            target: target.to_owned(),
            what,
            began: began - self.epoch,
            ended: self.epoch.elapsed(),
        };
        lock(&self.events).push(event);
    }

    /// In the order in which they began.
    fn events(&self) -> Vec<Event> {
        let mut events = lock(&self.events).clone();
        events.sort_by_key(|event| event.began);
        events
    }

    /// As Perfetto and other viewers of Chrome's traces read it.
    pub fn trace(&self) -> String {
        let event = |event: &Event| {
            let (kind, why) = match &event.what {
                What::Ran(why) => ("ran", why.clone()),
                What::Waited(other) => ("waited", format!("waits for {other}")),
            };
            let [began, ended] = [event.began, event.ended].map(|time| time.as_micros() as u64);
            json!({
                "ph": "X", "pid": 1, "tid": event.thread, "name": event.target, "cat": kind,
                "ts": began, "dur": ended - began, "args": { "why": why },
            })
        };
        json!(self.events().iter().map(event).collect::<Vec<_>>()).to_string()
    }

    /// A line for each target that others waited for, in the order in which it ran.
    pub fn who_waited(&self) -> Vec<String> {
        let events = self.events();
        let waiters = |target: &str| {
            let waits = events.iter().filter_map(|event| match &event.what {
                What::Waited(other) if other == target => {
                    let seconds = (event.ended - event.began).as_secs_f64();
                    Some(format!("{} ({seconds:.2} s)", event.target))
                }
                _ => None,
            });
            waits.collect::<Vec<_>>().join(", ")
        };
        let ran = events.iter().filter(|e| matches!(e.what, What::Ran(_)));
        let lines = ran.map(|event| (&event.target, waiters(&event.target)));
        lines
            .filter(|(_, waiters)| !waiters.is_empty())
            .map(|(target, waiters)| format!("{target} was waited for by {waiters}"))
            .collect()
    }
}
