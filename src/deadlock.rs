//! Who waits for whom, over all groups and threads of the process (G9).
//!
//! A thread that runs a flight's function and waits for another flight holds the first one up. The
//! graph has one entry for each such thread: which flight it waits for, and which flights it leads.
//! To look for a cycle is to follow the waits from the flight that a caller wants to wait for: to
//! the thread that leads it, to the flight which that thread waits for, and so on. The way ends at
//! a thread that does not wait, or at the caller itself: that wait would never end, so the caller
//! is refused.
//!
//! *Who pays for a wait.* Only a thread that leads and waits at once. A thread that leads nothing
//! holds nobody up: its wait closes no cycle and is not written down, however many wait with it.
//!
//! *Which thread leads a flight* can be read from the [`FlightId`] of a call: the thread that drew
//! it. A [`Leader`](crate::Leader) and a [`Job`](crate::Job) can move to another thread, which
//! writes down that it runs the function.
//!
//! *Why no cycle is missed.* The search and the writing down of a wait happen under one lock. The
//! last thread of a cycle finds the waits of all others.
//!
//! *Why there is no false alarm.* A flight is on its thread's list while its function runs. A leader
//! takes it off, unlinks it and publishes its outcome without waiting for a flight in between. So
//! if a thread is found waiting and the flight is not on its list, then the outcome is there, and
//! the wait that led here is about to end. Only a caller that is queued waits for a flight without
//! sharing its outcome. Where that flight is given up, [`given_up`] ends its wait.
//!
//! *Why the search ends.* It stops at a wait with a limit, and no cycle of waits without one is ever
//! written down.
//!
//! A wait with a limit ends by itself. It is written down for others to see, but a cycle that leads
//! through it is not refused. (The caller's own limit does not count: a wait that nothing but its
//! own limit could end is refused at once.)

use std::{collections::BTreeMap, thread, thread::Thread};

use crate::{
    error::CallError, error::Deadlock, panics::Payload, sync::global, sync::Mutex, threads,
    threads::FlightId, threads::OwnFlights,
};

global! {
    static GRAPH: Mutex<Graph> =
        Mutex::new(Graph { waits: BTreeMap::new(), running: BTreeMap::new() });
}

struct Graph {
    /// By the number of the thread that waits.
    waits: BTreeMap<u64, Wait>,
    /// For each flight that a [`Leader`](crate::Leader) or a [`Job`](crate::Job) runs now: the
    /// identity under which its thread runs it.
    running: BTreeMap<FlightId, FlightId>,
}

struct Wait {
    /// `None` once the wait is about to end.
    awaited: Option<FlightId>,
    queued: bool,
    limited: bool,
    own: OwnFlights,
}

impl Graph {
    /// The identity under which a thread runs the flight, if one is known to.
    fn run_as(&self, flight: FlightId) -> Option<FlightId> {
        match flight.is_transferable() {
            false => Some(flight),
            true => self.running.get(&flight).copied(),
        }
    }

    /// The wait that holds up the flight which a thread runs under this identity, if it is waiting.
    fn wait_of(&self, leader: FlightId) -> Option<&Wait> {
        let wait = self.waits.get(&leader.thread.get())?;
        wait.own.binary_search(&leader.serial).is_ok().then_some(wait)
    }

    /// The threads of the cycle that a wait for this flight would close.
    fn cycle(&self, me: u64, own: &OwnFlights, awaited: FlightId) -> Option<Vec<u64>> {
        let mut cycle = vec![me];
        let mut flight = awaited;
        loop {
            let leader = self.run_as(flight)?;
            if leader.thread.get() == me {
                return own.binary_search(&leader.serial).is_ok().then_some(cycle);
            }
            let wait = self.wait_of(leader)?;
            if wait.limited {
                return None;
            }
            cycle.push(leader.thread.get());
            flight = wait.awaited?;
        }
    }
}

/// A wait that is written down, until this is dropped. With the number of the thread.
pub(crate) struct Waiting(u64);

impl Waiting {
    /// To be called before a wait. `None` if this thread leads nothing. A queued caller waits for
    /// the flight in front, unless `turn` says, under the graph's lock, that its turn has come.
    pub(crate) fn begin(
        awaited: FlightId,
        limited: bool,
        queued: bool,
        turn: impl FnOnce() -> bool,
    ) -> Result<Option<Self>, Deadlock> {
        let Some(own) = threads::take_own() else {
            return Ok(None);
        };
        let me = threads::number();
        let mut graph = GRAPH.lock();
        let awaited = (!turn()).then_some(awaited);
        if let Some(cycle) = awaited.and_then(|flight| graph.cycle(me, &own, flight)) {
            drop(graph);
            threads::give_back(own);
            return Err(Deadlock::new(cycle.into_iter().filter_map(threads::by_number)));
        }
        graph.waits.insert(me, Wait { awaited, queued, limited, own });
        Ok(Some(Self(me)))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let wait = GRAPH.lock().waits.remove(&self.0);
        if let Some(wait) = wait {
            threads::give_back(wait.own);
        }
    }
}

/// The refusal of a wait for this flight, if the calling thread runs its function.
pub(crate) fn refuse_own(flight: FlightId) -> Option<Deadlock> {
    let leader = match flight.is_transferable() {
        false => flight,
        // A thread that runs no function does not take the lock.
        true if !threads::is_leading() => return None,
        true => GRAPH.lock().run_as(flight)?,
    };
    let is_own = leader.thread.get() == threads::number();
    is_own.then(|| Deadlock::new([thread::current()]))
}

/// Ends the waits of those who queue behind a flight that was given up. To be called after their
/// turn has been set.
pub(crate) fn given_up(front: FlightId) {
    for wait in GRAPH.lock().waits.values_mut() {
        if wait.queued && wait.awaited == Some(front) {
            wait.awaited = None;
        }
    }
}

/// Runs the function of a flight on this thread, which is known to lead the flight meanwhile.
/// Catches its panic, and gives the payload as well.
#[inline]
pub(crate) fn run_as_leader<V, E>(
    flight: FlightId,
    f: impl FnOnce() -> Result<V, E>,
) -> (Result<V, CallError<E>>, Option<Payload>) {
    if !flight.is_transferable() {
        return threads::run_as_leader(&[flight.serial], f);
    }
    let here = FlightId::draw(false);
    GRAPH.lock().running.insert(flight, here);
    let ran = threads::run_as_leader(&[here.serial], f);
    GRAPH.lock().running.remove(&flight);
    ran
}

/// What is known of each flight: the thread that runs its function, and the flight that this thread
/// waits for.
pub(crate) fn leaders(flights: &[Option<FlightId>]) -> Vec<(Option<Thread>, Option<FlightId>)> {
    let graph = GRAPH.lock();
    let leader = |flight: &Option<FlightId>| {
        let leader = flight.and_then(|flight| graph.run_as(flight));
        let thread = leader.and_then(|leader| threads::by_number(leader.thread.get()));
        let wait = leader.and_then(|leader| graph.wait_of(leader));
        (thread, wait.and_then(|wait| wait.awaited))
    };
    flights.iter().map(leader).collect()
}

/// How many waits are written down.
#[cfg(test)]
#[allow(dead_code)] // For the models.
pub(crate) fn waits() -> usize {
    GRAPH.lock().waits.len()
}
