//! What a group's lock guards: which flight is in progress for which key.
//!
//! Nothing in here waits for more than the latch of a queued flight, which is held for moments, or
//! runs code of the user's but `Eq` and `Borrow` of keys.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::time::Duration;

use crate::flight::Flight;
use crate::keys::KeyMap;
use crate::observer::{Endings, Reports};
use crate::sync::{Arc, Epoch};
use crate::threads::FlightId;

/// How many entries a group keeps for reuse, besides the one that rests, so that a lone call
/// allocates nothing.
const SPARES: usize = 3;

pub(crate) struct Map<V, E, K> {
    /// The flights in progress. An entry is put in by a leader, put in another's place by a leader
    /// that found it closed or too old, and taken out, or replaced by the flight that is queued
    /// behind, by the leader whose flight it is.
    flights: KeyMap<K, Arc<Flight<V, E>>>,
    /// The flights that are queued, each behind one of those above, by that one's id; while anybody
    /// waits for them.
    queued: BTreeMap<FlightId, Arc<Flight<V, E>>>,
    /// The last flight that ended without a follower. Its entry is still in `flights`; but it is
    /// closed, nobody joins it, and it counts for nothing. To take it out, only to put it back for
    /// the next call on the same key, would cost a lone call a tenth more.
    resting: Option<Resting<V, E>>,
    /// Entries of others that ended so before, at most [`SPARES`]. No flight in here has ever held
    /// a value.
    spares: Vec<Spare<V, E, K>>,
    /// How flights have ended.
    pub(crate) endings: Endings,
}

/// What the map holds for a key in flight.
pub(crate) type Entry<V, E, K> = (Arc<K>, Arc<Flight<V, E>>);

/// What taking a flight out leaves: its entry, or the flight that is there now.
pub(crate) type Taken<V, E, K> = (Option<Entry<V, E, K>>, Option<Arc<Flight<V, E>>>);

/// An entry to put into the map.
pub(crate) struct Spare<V, E, K> {
    entry: Entry<V, E, K>,
    /// Its leader's handle on the flight: to clone and drop one for each flight would cost as much
    /// as a lock.
    flight: Arc<Flight<V, E>>,
}

/// A flight that is to begin again.
struct Resting<V, E> {
    hash: u64,
    /// Its leader's handle.
    flight: Arc<Flight<V, E>>,
}

/// What is to be seen of a flight in progress.
pub(crate) struct Seen<V, E, K> {
    /// Held, like the flight, so that neither becomes another key's while it is looked at. (The
    /// flight may land and begin again for this one.)
    pub(crate) key: Arc<K>,
    pub(crate) flight: Arc<Flight<V, E>>,
    pub(crate) followers: usize,
    pub(crate) queued: usize,
    /// The leader's number.
    pub(crate) thread: usize,
    pub(crate) age: Duration,
}

/// What a caller wants of a flight that it finds in progress.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wish {
    /// Not that one, but the one after it.
    pub(crate) next_flight: bool,
    /// None that is older.
    pub(crate) max_age: Option<Duration>,
}

/// What a caller is to the flight that it found.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Leads,
    Follows,
    /// The flight is queued: whoever leads it is yet to be seen.
    StandsBy,
}

impl<V, E, K> Map<V, E, K> {
    pub(crate) fn new() -> Self {
        Self {
            flights: KeyMap::new(),
            queued: BTreeMap::new(),
            resting: None,
            spares: Vec::new(),
            endings: Endings::default(),
        }
    }

    /// What is to be seen of the flights in progress.
    pub(crate) fn look(&self, now: usize) -> Vec<Seen<V, E, K>> {
        let seen = |(key, flight): &Entry<V, E, K>| Seen {
            key: Arc::clone(key),
            flight: Arc::clone(flight),
            followers: flight.followers(),
            queued: self
                .queued
                .get(&flight.id())
                .map_or(0, |next| next.followers()),
            thread: flight.thread(),
            age: flight.age(now),
        };
        let mut all = Vec::with_capacity(self.len());
        let in_flight = |(_, flight): &&Entry<V, E, K>| !is_resting(&self.resting, flight);
        all.extend(self.flights.iter().filter(in_flight).map(seen));
        all
    }

    /// How many keys are in flight.
    pub(crate) fn len(&self) -> usize {
        self.flights.len() - usize::from(self.resting.is_some())
    }

    /// The flight in progress for the key.
    pub(crate) fn get<Q>(&mut self, hash: u64, key: &Q) -> Option<Arc<Flight<V, E>>>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        self.flights
            .get_mut(hash, key)
            .map(|named| Arc::clone(named))
    }

    /// Finds the key's flight and [meets](meet) it, or leads it if it rests, or puts that of `made`
    /// there to lead. `None`: there is neither, and an entry has to be made outside the lock.
    pub(crate) fn enter<Q>(
        &mut self,
        hash: u64,
        key: &Q,
        made: &mut Option<Spare<V, E, K>>,
        wish: Wish,
        now: usize,
    ) -> Option<(Arc<Flight<V, E>>, Part)>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        if let Some(named) = self.flights.get_mut(hash, key) {
            if !is_resting(&self.resting, named) {
                return Some(meet(named, &mut self.queued, wish, now));
            }
            let Resting { flight, .. } = self.resting.take()?;
            flight.begin();
            return Some((flight, Part::Leads));
        }
        let Spare { entry, flight } = made.take()?;
        flight.begin();
        self.flights.insert(hash, entry.0, entry.1);
        Some((flight, Part::Leads))
    }

    /// Takes the flight out, if it is still there, and hands back its entry, to be dropped outside
    /// the lock. Or, if somebody waits for the next flight, puts that in its place and hands it
    /// back to be vacated.
    pub(crate) fn take_out(
        &mut self,
        hash: u64,
        flight: &Arc<Flight<V, E>>,
        epoch: Epoch,
    ) -> Taken<V, E, K> {
        let entry = self
            .flights
            .remove(hash, |named| Arc::ptr_eq(named, flight));
        match (entry, self.queued.remove(&flight.id())) {
            (Some((key, _)), Some(next)) => {
                next.begin();
                next.begin_at(epoch.now());
                self.flights.insert(hash, key, Arc::clone(&next));
                (None, Some(next))
            }
            (entry, _) => (entry, None),
        }
    }

    /// Gives up the queued flight, whether it is behind another one or has taken that one's place.
    pub(crate) fn drop_queued(
        &mut self,
        hash: u64,
        flight: &Arc<Flight<V, E>>,
        epoch: Epoch,
    ) -> Taken<V, E, K> {
        match flight.front() {
            Some(front) => {
                self.queued.remove(&front);
                (None, None)
            }
            None => self.take_out(hash, flight, epoch),
        }
    }

    /// An entry to write over, if there is one.
    pub(crate) fn spare(&mut self) -> Option<Spare<V, E, K>> {
        match self.resting.take() {
            Some(resting) => self.take_spare(resting),
            None => self.spares.pop(),
        }
    }

    fn take_spare(&mut self, resting: Resting<V, E>) -> Option<Spare<V, E, K>> {
        let Resting { hash, flight } = resting;
        let entry = self
            .flights
            .remove(hash, |named| Arc::ptr_eq(named, &flight))?;
        Some(Spare { entry, flight })
    }

    /// Whether a flight that has ended without a follower may rest: the map names it, nobody waits
    /// for the next one, and it was not queued itself, or its next leader would wake whoever stands
    /// by each time.
    pub(crate) fn may_rest(&mut self, hash: u64, flight: &Arc<Flight<V, E>>) -> bool {
        let named = |(_, named): &Entry<V, E, K>| Arc::ptr_eq(named, flight);
        !flight.was_queued()
            && !self.queued.contains_key(&flight.id())
            && self.flights.find(hash, named).is_some()
    }

    /// Lets a flight rest that [may](Self::may_rest). The entry of the one that rested before
    /// becomes a spare, or is handed back, to be dropped outside the lock.
    pub(crate) fn rest(&mut self, hash: u64, flight: Arc<Flight<V, E>>) -> Option<Entry<V, E, K>> {
        let before = self.resting.replace(Resting { hash, flight })?;
        let spare = self.take_spare(before)?;
        if self.spares.len() == SPARES {
            return Some(spare.entry);
        }
        self.spares.push(spare);
        None
    }
}

fn is_resting<V, E>(resting: &Option<Resting<V, E>>, flight: &Arc<Flight<V, E>>) -> bool {
    let is_it = |resting: &Resting<V, E>| Arc::ptr_eq(&resting.flight, flight);
    resting.as_ref().is_some_and(is_it)
}

impl<V, E, K> Spare<V, E, K> {
    /// Makes an entry for this key, of an old one if there is one. To be called outside the lock.
    pub(crate) fn for_key<Q>(
        key: &Q,
        old: Option<Self>,
        reports: impl FnOnce(&Arc<K>) -> Reports,
    ) -> Self
    where
        Q: ToOwned<Owned = K> + ?Sized,
    {
        if let Some(mut spare) = old {
            // Unless somebody is looking at it.
            if let Some(old_key) = Arc::get_mut(&mut spare.entry.0) {
                key.clone_into(old_key);
                return spare;
            }
        }
        let key = Arc::new(key.to_owned());
        let flight = Arc::new(Flight::running(reports(&key)));
        let entry = (key, Arc::clone(&flight));
        Self { entry, flight }
    }
}

/// What an arriving caller does with the flight that the map names for its key, or with the one
/// behind it.
pub(crate) fn meet<V, E>(
    named: &mut Arc<Flight<V, E>>,
    queued: &mut BTreeMap<FlightId, Arc<Flight<V, E>>>,
    wish: Wish,
    now: usize,
) -> (Arc<Flight<V, E>>, Part) {
    if named.claim() {
        return (Arc::clone(named), Part::Leads);
    }
    let too_old = wish.max_age.is_some_and(|age| named.age(now) > age);
    if too_old || named.is_closed() {
        // Given up on, or its function had returned before this call looked. The flight's leader
        // still holds it, so this drops no value.
        *named = match queued.remove(&named.id()) {
            Some(next) => {
                next.claim();
                next
            }
            None => Arc::new(Flight::running(named.reports().clone())),
        };
        named.begin();
        return (Arc::clone(named), Part::Leads);
    }
    let (flight, part) = if wish.next_flight {
        let next = queued.entry(named.id());
        let next = next.or_insert_with(|| Arc::new(Flight::queued_behind(named)));
        (Arc::clone(next), Part::StandsBy)
    } else {
        (Arc::clone(named), Part::Follows)
    };
    flight.board();
    (flight, part)
}
