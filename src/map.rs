//! What a group's lock guards: who leads which key, and which latches others wait on.
//!
//! Every change of a flight's state is made here, under that one lock:
//!
//! ```text
//!   arrive ──▶ in the map ──finish──▶ gone
//!                  │                   ▲
//!                  └─ give up ──▶ on the list
//! ```
//!
//! *In the map*, a flight is an [`Entry`]: a plain value with the identity of its leader. The first
//! caller that waits for it makes the latch. *On the list* is a flight that was given up: the map
//! does not name it, but its followers still get its outcome. The leader finds its flight in one of
//! the two when it ends, takes it out, and only then publishes the outcome.
//!
//! *The next flight* is a second latch in the entry, made by the first caller that queues for it.
//! When the flight in front is unlinked or given up, the entry stays without a leader. Of those who
//! queue and those who arrive, the first to take the lock leads it. So the last to leave the queue
//! of an entry without a leader removes the entry.
//!
//! The only user code that runs here is a key's [`Lookup`], and it runs before anything is changed.

use std::collections::BTreeMap;

use crate::{
    deadlock, error::Refusal, keys::KeyMap, keys::Lookup, latch::Latch, leader::Lead,
    options::Intent, options::Options, sync::Arc, sync::Time, threads::FlightId,
};

pub(crate) struct Map<V, E, K> {
    pub(crate) flights: KeyMap<K, Entry<V, E>>,
    pub(crate) given_up: GivenUp<V, E, K>,
    /// How many flights have ended, by their [`Ending`](crate::Ending).
    pub(crate) ended: [u64; 4],
}

/// What the map holds for a key.
pub(crate) struct Entry<V, E> {
    /// `None` only while there is a queue whose turn has come.
    pub(crate) leader: Option<FlightId>,
    /// For those who wait for this flight.
    pub(crate) latch: OptionLatch<V, E>,
    /// For those who wait for the next one.
    pub(crate) queue: OptionLatch<V, E>,
}

/// The list of flights that were given up and have not ended.
pub(crate) type GivenUp<V, E, K> = BTreeMap<FlightId, (K, OptionLatch<V, E>)>;

pub(crate) type OptionLatch<V, E> = Option<Arc<Latch<V, E>>>;

/// What a caller found in the map.
pub(crate) enum Found<V, E> {
    /// It leads. Callers who queued behind a flight that it gave up wait on the latch to `wake`.
    Leads {
        wake: OptionLatch<V, E>,
    },
    /// It has a place on a latch, in the queue for its turn if it is `queued`.
    Waits {
        latch: Arc<Latch<V, E>>,
        held_by: HeldBy,
        queued: bool,
    },
    Refused(Refusal),
}

/// The flight that a caller waits for, and when a caller first waited for it. `None` if the flight is
/// unlinked already: its outcome is about to arrive.
pub(crate) type HeldBy = Option<(FlightId, Time)>;

/// What is left to do once a flight is unlinked.
pub(crate) struct Unlinked<V, E> {
    /// The latch, if anyone waits on it for the outcome.
    pub(crate) latch: OptionLatch<V, E>,
    /// The queue whose turn has come.
    pub(crate) queue: OptionLatch<V, E>,
    /// Whether a spike of keys is over.
    pub(crate) outgrown: bool,
}

impl<V, E> Entry<V, E> {
    pub(crate) fn led_by(flight: FlightId, intent: Intent) -> Self {
        Self {
            leader: Some(flight),
            latch: (intent == Intent::Start).then(|| Latch::new(true)),
            queue: None,
        }
    }

    /// A caller that arrives and finds the entry leads it, takes a place, or is refused.
    pub(crate) fn enter<Q: Lookup<K> + ?Sized, K>(
        &mut self,
        key: &Q,
        flight: FlightId,
        options: &Options,
        given_up: &mut GivenUp<V, E, K>,
    ) -> Found<V, E> {
        let Some(leader) = self.leader else {
            return self.lead(flight, options.intent, false);
        };
        // A caller that only joins is refused when it waits: that may be on another thread.
        if options.next_flight || options.intent == Intent::Call {
            if let Err(deadlock) = deadlock::refuse_own(leader) {
                return Found::Refused(Refusal::Deadlock(deadlock));
            }
        }
        if self.is_older_than(options) {
            self.give_up(key.to_key(), given_up);
            return self.lead(flight, options.intent, true);
        }
        // The flight's age counts from here, because a caller waits or is refused a place.
        let mut latch = self.latch.get_or_insert_with(|| Latch::new(false));
        let held_by = Some((leader, latch.since()));
        let max_followers = options.max_followers.unwrap_or(usize::MAX);
        if options.next_flight {
            // A queue is not made for a caller that gets no place in it.
            if max_followers == 0 {
                return Found::Refused(Refusal::Overloaded);
            }
            latch = self.queue.get_or_insert_with(|| Latch::new(false));
        }
        if !latch.join(max_followers) {
            return Found::Refused(Refusal::Overloaded);
        }
        Found::Waits { latch: Arc::clone(latch), held_by, queued: options.next_flight }
    }

    /// Whether others have waited for the flight for too long. With a limit of zero, nobody follows.
    pub(crate) fn is_older_than(&self, options: &Options) -> bool {
        let latch = self.latch.as_ref();
        options.max_age.is_some_and(|age| age.is_zero())
            || latch.is_some_and(|latch| latch.is_older_than(options.max_age))
    }

    /// Gives the entry a leader. Callers in the queue become its followers.
    pub(crate) fn lead(&mut self, flight: FlightId, intent: Intent, gave_up: bool) -> Found<V, E> {
        let ticket = intent == Intent::Start;
        let queue = self.queue.take();
        self.leader = Some(flight);
        self.latch = queue.filter(|queue| queue.begin(ticket));
        if ticket {
            self.latch.get_or_insert_with(|| Latch::new(true));
        }
        let wake = self.latch.clone().filter(|_| gave_up);
        Found::Leads { wake }
    }

    /// Moves the flight to the list. The queue stays, and its turn has come: it is to be woken once
    /// the map's lock is released.
    pub(crate) fn give_up<K>(&mut self, key: K, list: &mut GivenUp<V, E, K>) {
        let Some(leader) = self.leader.take() else {
            return;
        };
        if let Some(queue) = &self.queue {
            // Under the lock, so that nobody meets the next flight while the graph still has its
            // callers wait for this one.
            queue.set_turn();
            deadlock::given_up(leader);
        }
        list.insert(leader, (key, self.latch.take()));
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
    /// same key stays (G6).
    #[inline]
    pub(crate) fn unlink(&mut self, lead: &Lead, garbage: &mut Option<K>) -> Unlinked<V, E> {
        let removed = (self.flights).remove(lead.hash, lead.retire_key, garbage, |entry| {
            let last = entry.leader == Some(lead.flight) && entry.queue.is_none();
            last.then(|| entry.latch.take())
        });
        let (latch, queue) = match removed {
            Some(latch) => (latch, None),
            None => self.unlink_special(lead, garbage),
        };
        // No caller can join any more, so none that waits is missed.
        let latch = latch.filter(|latch| latch.is_awaited());
        let outgrown = self.flights.is_outgrown();
        Unlinked { latch, queue, outgrown }
    }

    /// The same for a flight that has a queue, or that was given up.
    #[cold]
    fn unlink_special(
        &mut self,
        lead: &Lead,
        garbage: &mut Option<K>,
    ) -> (OptionLatch<V, E>, OptionLatch<V, E>) {
        let is_it = |_: &K, entry: &Entry<V, E>| entry.leader == Some(lead.flight);
        if let Some(entry) = self.flights.find(lead.hash, is_it) {
            entry.leader = None;
            return (entry.latch.take(), entry.queue.clone());
        }
        let given_up = self.given_up.remove(&lead.flight);
        let latch = given_up.and_then(|(key, latch)| {
            *garbage = Some(key);
            latch
        });
        (latch, None)
    }

    /// The latch of this flight, if it has one.
    pub(crate) fn latch_of(&mut self, hash: u64, flight: FlightId) -> OptionLatch<V, E> {
        match self.given_up.get(&flight) {
            Some((_, latch)) => latch.clone(),
            None => {
                let entry = self.flights.find(hash, |_, it| it.leader == Some(flight));
                entry.and_then(|entry| entry.latch.clone())
            }
        }
    }
}
