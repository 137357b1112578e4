//! Who waits for whom, over all groups and threads of the process (G9).
//!
//! A thread that runs a flight's function and waits for another flight holds the first one up:
//! there is an *edge* from each flight that it leads to the one that it waits for. A flight has one
//! leader, and a thread waits for one thing at a time, so at most one edge leaves a flight. To look
//! for a cycle is to follow these edges from the flight that a caller wants to wait for, until they
//! end, or reach a flight that the caller leads: that wait would never end, and is refused.
//!
//! *Who pays.* Only a thread that leads and waits at once. Whoever leads nothing holds nobody up:
//! its wait closes no cycle and is not written down, however many wait with it.
//!
//! *Why no cycle is missed.* Edges are looked at and put in under one lock. The last thread of a
//! cycle to come finds the edges of all others; and nothing but a wait closes a cycle, for a thread
//! that takes the lead on a flight is not waiting. (One that is queued leads by itself when it is
//! woken, and then waits no more.)
//!
//! *Why there is no false alarm.* A caller that finds a cycle leads the last flight on its way. It
//! is busy here, so that flight does not land; so the thread whose edge leads there is still asleep
//! and leads what it led when it put its edge in; so the flight before that does not land either;
//! and so on, back to the flight that the caller wants. An edge that is out of date (its thread was
//! woken, and has not come to take it out) ends nowhere: the flight that it leads to has returned,
//! its leader has struck it off its list before, and puts in no edge for it again. The waiter holds
//! that flight, so nobody else's has its address. One who is queued waits for the flight in front
//! without holding it; but its [`Place`] says, from before that flight can be let go of, that it
//! has moved up, and then its edge leads nowhere. (Only this edge can be cut by a third party,
//! which gives the flight in front up. If that has not happened when the caller asks, it is not
//! waited for.)
//!
//! *Why the search ends.* An edge that is followed was found to close no cycle when it was put in,
//! under the same lock, and edges only ever vanish or go nowhere.
//!
//! A wait with a deadline ends by itself: it is written down, for those who look, but not followed.

use std::collections::BTreeMap;
use std::thread::{self, Thread};

use crate::error::Deadlock;
use crate::sync::{global, Arc, AtomicBool, Mutex, Ordering};
use crate::threads::{self, FlightId};

global! {
    /// The edges, by the flight that they leave.
    static EDGES: Mutex<BTreeMap<FlightId, Edge>> = Mutex::new(BTreeMap::new());
}

struct Edge {
    thread: Thread,
    awaited: Awaited,
    has_deadline: bool,
}

/// What a thread waits for.
#[derive(Clone)]
pub(crate) enum Awaited {
    Landing(FlightId),
    /// That the flight in front has left the map.
    Turn(Arc<Place>),
}

/// A flight's place in the queue, behind another one.
pub(crate) struct Place {
    behind: FlightId,
    /// Set under the map's lock. Relaxed: if a caller that looks for a cycle does not see it, the
    /// moving up was no earlier than the caller's asking.
    moved_up: AtomicBool,
}

impl Place {
    pub(crate) fn behind(flight: FlightId) -> Self {
        Self {
            behind: flight,
            moved_up: AtomicBool::new(false),
        }
    }

    pub(crate) fn move_up(&self) {
        self.moved_up.store(true, Ordering::Relaxed);
    }

    /// The flight in front, if there is still one. Under the map's lock this is exact.
    pub(crate) fn front(&self) -> Option<FlightId> {
        let moved_up = self.moved_up.load(Ordering::Relaxed);
        (!moved_up).then_some(self.behind)
    }
}

impl Awaited {
    /// The flight that has to go on first, if there is still one.
    fn flight(&self) -> Option<FlightId> {
        match self {
            Self::Landing(flight) => Some(*flight),
            Self::Turn(place) => place.front(),
        }
    }
}

/// A wait that is written down, until this is dropped.
pub(crate) struct Waiting {
    leads: Vec<FlightId>,
}

impl Waiting {
    /// To be called before a wait. `None` if this thread leads nothing.
    pub(crate) fn begin(
        awaited: impl FnOnce() -> Awaited,
        has_deadline: bool,
    ) -> Result<Option<Self>, Deadlock> {
        let leads = threads::leads();
        if leads.is_empty() {
            return Ok(None);
        }
        let (awaited, thread) = (awaited(), thread::current());
        let mut edges = EDGES.lock();
        if !has_deadline {
            check(&edges, &thread, &leads, &awaited)?;
        }
        for flight in &leads {
            let edge = Edge {
                thread: thread.clone(),
                awaited: awaited.clone(),
                has_deadline,
            };
            edges.insert(*flight, edge);
        }
        Ok(Some(Self { leads }))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut edges = EDGES.lock();
        for flight in &self.leads {
            edges.remove(flight);
        }
    }
}

/// Whether the wait would end, as far as can be told.
fn check(
    edges: &BTreeMap<FlightId, Edge>,
    thread: &Thread,
    leads: &[FlightId],
    awaited: &Awaited,
) -> Result<(), Deadlock> {
    let mut threads = vec![thread.clone()];
    let mut next = awaited.flight();
    while let Some(flight) = next {
        if leads.contains(&flight) {
            return Err(Deadlock::new(threads));
        }
        match edges.get(&flight) {
            Some(edge) if !edge.has_deadline => {
                threads.push(edge.thread.clone());
                next = edge.awaited.flight();
            }
            _ => return Ok(()),
        }
    }
    Ok(())
}

/// For each of these flights: the flight that its leader waits for, if it waits for one.
pub(crate) fn awaited_by(flights: impl Iterator<Item = FlightId>) -> Vec<Option<FlightId>> {
    let edges = EDGES.lock();
    flights
        .map(|flight| edges.get(&flight)?.awaited.flight())
        .collect()
}

/// How many edges there are.
#[cfg(test)]
#[allow(dead_code)] // For the models.
pub(crate) fn edges() -> usize {
    EDGES.lock().len()
}
