//! What a map's lock guards: who leads which key, and which latches others wait on.
//!
//! A flight is in one of these places, and moves under that lock:
//!
//! ```text
//!   arrive ──▶ in the map ──finish──▶ gone
//!                  │                   ▲
//!                  └─ give up ──▶ on the list
//! ```
//!
//! *In the map*, a flight is an [`Entry`]: a plain value with the identity of its leader. The first
//! caller that wants to wait for it makes the latch. *On the list* is a flight that was given up: the map
//! does not name it, but its followers still get its outcome. The leader finds its flight in one of
//! the two when it ends, takes it out, and only then publishes the outcome.
//!
//! *The next flight* is a second latch in the entry, made by the first caller that queues for it.
//! When the flight in front is unlinked or given up, the entry stays, without a leader until the first
//! caller, queued or new, takes the lock and leads it. If all queued callers leave before, the last one
//! removes the entry.
//!
//! The only user code that runs here is a key's [`Lookup`], and it runs before anything is changed.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    deadlock, error::CallError, keys::Garbage, keys::KeyMap, latch::Latch, leader::Caller,
    lookup::Lookup, options::Options, sync::Arc, sync::Time, threads::FlightId,
};

pub(crate) struct Map<V, E, K> {
    pub(crate) flights: KeyMap<K, Entry<V, E>>,
    pub(crate) given_up: GivenUp<V, E, K>,
    /// How many flights have ended, by their [`Ending`](crate::Ending).
    pub(crate) ended: [u64; 4],
}

/// What the map holds for a key.
pub(crate) struct Entry<V, E> {
    /// `None` only while there is a queue whose turn has come, or is about to.
    pub(crate) leader: Option<FlightId>,
    /// For those who wait for this flight, and for its age.
    pub(crate) latch: OptionLatch<V, E>,
    /// For those who wait for the next one.
    pub(crate) queue: OptionLatch<V, E>,
}

/// The list of flights that were given up and have not ended.
pub(crate) type GivenUp<V, E, K> = BTreeMap<FlightId, (K, OptionLatch<V, E>)>;

pub(crate) type OptionLatch<V, E> = Option<Arc<Latch<V, E>>>;

/// How many callers have a place on the latch.
pub(crate) fn followers<V, E>(latch: &OptionLatch<V, E>) -> usize {
    latch.as_ref().map_or(0, |latch| latch.followers())
}

/// What a caller found in the map.
pub(crate) enum Found<V, E> {
    /// It leads. With the latch to wake, of callers that queued behind a flight that it gave up.
    Leads(OptionLatch<V, E>),
    Waits(Waiter<V, E>),
    Refused(CallError<E>),
}

/// How a caller waits.
pub(crate) struct Waiter<V, E> {
    pub(crate) latch: Arc<Latch<V, E>>,
    /// The flight that this caller waits for, and since when callers have waited for it, as this caller
    /// last found it in the map. For a queued caller, the flight in front. `None` if the flight was
    /// unlinked by then.
    pub(crate) held_by: Option<(FlightId, Time)>,
    /// Whether its place is in the queue. The map gives such a place up, under its lock.
    pub(crate) queued: bool,
}

impl<V, E> Entry<V, E> {
    /// A caller that arrives and finds the entry leads it, takes a place, or is refused.
    pub(crate) fn enter<Q: Lookup<K> + ?Sized, K>(
        &mut self,
        key: &Q,
        flight: FlightId,
        options: &Options,
        given_up: &mut GivenUp<V, E, K>,
    ) -> Found<V, E> {
        if let Some(leader) = self.leader {
            // A caller that only joins is refused when it waits: that may be on another thread.
            if options.next_flight || !options.transferable {
                if let Some(deadlock) = deadlock::refuse_own(leader) {
                    return Found::Refused(CallError::Deadlock(deadlock));
                }
            }
            if !self.is_too_old(options) {
                return self.add_waiter(leader, options);
            }
        }
        let wake = self.give_up(|| key.to_key(), given_up);
        self.lead(flight);
        Found::Leads(wake)
    }

    fn add_waiter(&mut self, leader: FlightId, options: &Options) -> Found<V, E> {
        let max_followers = options.max_followers.unwrap_or(usize::MAX);
        // The flight's age counts from here, because a caller waits or is refused a place.
        let mut latch = self.latch.get_or_insert_with(Latch::new);
        let held_by = Some((leader, latch.since()));
        let queued = options.next_flight;
        // A queue is not made for a caller that gets no place in it.
        if queued && max_followers > 0 {
            latch = self.queue.get_or_insert_with(Latch::new);
        }
        match latch.join(max_followers) {
            true => Found::Waits(Waiter { latch: Arc::clone(latch), held_by, queued }),
            false => Found::Refused(CallError::Overloaded),
        }
    }

    /// Whether the flight is older than this caller accepts. A caller with a limit of zero never follows.
    pub(crate) fn is_too_old(&self, options: &Options) -> bool {
        options.max_age == Some(Duration::ZERO)
            || self.latch.as_ref().is_some_and(|latch| options.is_too_old(latch.since()))
    }

    /// Gives the entry a leader. Callers in the queue become its followers.
    pub(crate) fn lead(&mut self, flight: FlightId) {
        self.leader = Some(flight);
        self.latch = self.queue.take().filter(|queue| queue.begin());
    }
}

impl<V, E, K> Map<V, E, K> {
    pub(crate) fn new() -> Self {
        Self { flights: KeyMap::new(), given_up: BTreeMap::new(), ended: [0; 4] }
    }

    /// How many flights there are, given-up ones and entries without a leader included.
    pub(crate) fn len(&self) -> usize {
        self.flights.len() + self.given_up.len()
    }

    /// Takes a flight out of the map, or off the list. By its identity, so that a successor with the
    /// same key stays (G6). An entry with a queue stays, too, without a leader.
    ///
    /// Gives the latch, if anyone waits on it for the outcome, and the queue whose turn has come.
    #[inline]
    pub(crate) fn unlink(
        &mut self,
        caller: &Caller,
        garbage: &mut Garbage<K, Entry<V, E>>,
    ) -> (OptionLatch<V, E>, OptionLatch<V, E>) {
        let unlink = |_: &K, entry: &mut Entry<V, E>| {
            (entry.leader == Some(caller.flight)).then(|| {
                entry.leader = None;
                ((entry.latch.take(), entry.queue.clone()), entry.queue.is_some())
            })
        };
        let unlinked = self.flights.update(caller.hash, caller.key_size, garbage, unlink);
        let (latch, queue) = unlinked.unwrap_or_else(|| {
            let (key, latch) = self.given_up.remove(&caller.flight).unzip();
            *garbage = key.map(|key| (key, None));
            (latch.flatten(), None)
        });
        // No caller can join any more, so none that waits is missed.
        (latch.filter(|latch| latch.is_awaited()), queue)
    }

    /// Calls `f` with the latch of this caller's flight. `None` if the flight has ended.
    pub(crate) fn with_latch<R>(
        &mut self,
        caller: &Caller,
        f: impl Fn(&mut OptionLatch<V, E>) -> R,
    ) -> Option<R> {
        if let Some((_, latch)) = self.given_up.get_mut(&caller.flight) {
            return Some(f(latch));
        }
        self.flights.update(caller.hash, 0, &mut None, |_, entry| {
            (entry.leader == Some(caller.flight)).then(|| (f(&mut entry.latch), true))
        })
    }
}
