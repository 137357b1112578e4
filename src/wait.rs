//! What becomes of a caller that arrives and does not lead at once.
//!
//! It waits on a latch: a follower for the outcome, a queued caller first for its turn. Either can
//! still come to lead: when its turn comes, when its age limit passes, or when it takes over after an
//! error. In each case it goes back to the map, under the map's lock.
//!
//! *No follower does another's work after its deadline* (G8): an outcome that is ready beats a
//! deadline that has passed, a turn to lead does not. A queued caller that leaves wakes nobody,
//! because its turn has woken all that queue with it; the last to leave removes the entry.

use std::{
    hash::BuildHasher, panic::catch_unwind, panic::resume_unwind, panic::AssertUnwindSafe,
    time::Duration,
};

use crate::{
    deadlock, error::CallError, error::Refusal, follower::Follower, group::FlightGroup,
    keys::Lookup, latch::Awaited, leader::Lead, map::Found, map::OptionLatch, observer::Event,
    options::Options, outcome::Outcome, request::Predicate, sync::Deadline, sync::Time,
};

/// What has become of a caller.
pub(crate) enum Arrival<V, E> {
    Leads(Lead),
    Follows(Follows<V, E>),
}

/// A caller that has a place or a refusal, and what it leads with if it comes to that.
pub(crate) type Follows<V, E> = (Follower<V, E>, Lead);

impl<V, E, K, S> FlightGroup<V, E, K, S> {
    /// What an arriving caller does next. To be called once the map's lock is released.
    pub(crate) fn arrived(&self, mut lead: Lead, found: Found<V, E>) -> Arrival<V, E> {
        let mut follower = Follower::new(&self.shared.counts, lead.events.clone());
        match found {
            Found::Leads { wake } => {
                self.took_lead(&mut lead, wake);
                return Arrival::Leads(lead);
            }
            Found::Refused(refusal) => follower.refuse(refusal),
            Found::Waits { latch, held_by, queued } => {
                follower.latch = Some(latch);
                follower.held_by = held_by;
                follower.queued = queued;
                if let Some(events) = &lead.events {
                    events.tell(Event::Joined);
                }
            }
        }
        Arrival::Follows((follower, lead))
    }

    /// For a caller that leads an entry which it found in the map.
    fn took_lead(&self, lead: &mut Lead, wake: OptionLatch<V, E>) {
        // Those who queued behind a flight that was given up follow this one now.
        wake.iter().for_each(|queue| queue.wake());
        if let Some(events) = &mut lead.events {
            events.began = Time::now();
        }
        self.announce(lead);
    }

    /// Tells the observer, if there is one, that a flight has begun.
    #[inline]
    pub(crate) fn announce(&self, lead: &Lead) {
        if let Some(events) = &lead.events {
            // As a part of the flight, so that an observer that calls for the same key is refused.
            deadlock::while_leading(lead.flight, || events.tell(Event::Began));
        }
    }

    /// Waits until the deadline or the age limit passes. If the age limit has passed, or the turn has
    /// come, the caller has to act on it.
    fn wait_for(
        &self,
        follower: &mut Follower<V, E>,
        lead: &Lead,
        max_age: Option<Duration>,
    ) -> Result<Option<Awaited<V, E>>, Refusal> {
        let deadline = follower.deadline;
        let too_old = match (max_age, follower.held_by) {
            (Some(age), Some((_, since))) => since.plus(age),
            _ => Deadline::Never,
        };
        let refusal = match follower.wait_for(deadline.or_sooner(too_old)) {
            Ok(Some(Awaited::Landed(landed))) => return Ok(Some(Awaited::Landed(landed))),
            Ok(awaited) if !deadline.has_passed() => return Ok(awaited),
            Ok(_) => Refusal::TimedOut,
            Err(refusal) => refusal,
        };
        self.leave_queue(follower, lead);
        Err(refusal)
    }

    fn leave_queue(&self, follower: &mut Follower<V, E>, lead: &Lead) {
        if let (Some(latch), true) = (&follower.latch, follower.queued) {
            let mut map = self.map(lead.hash).lock();
            let key = map.leave_queue(lead.hash, latch);
            drop(map);
            follower.left = true;
            follower.queued = false;
            drop(key);
        }
    }
}

impl<V, E, K, S: BuildHasher> FlightGroup<V, E, K, S> {
    /// A call that does not lead at once: waits, and takes the lead where it has to. `willing` says
    /// after which errors of the function it takes over.
    #[cold]
    pub(crate) fn wait<Q: Lookup<K> + ?Sized>(
        &self,
        key: &Q,
        options: &Options,
        willing: Option<&Predicate<'_, E>>,
        (mut follower, mut lead): Follows<V, E>,
        f: impl FnOnce(Option<&Lead>) -> Result<V, E>,
    ) -> Outcome<V, E>
    where
        V: Clone,
    {
        let mut options = *options;
        let mut takeovers = options.takeover.unwrap_or(0);
        let takes_over = |error: &CallError<E>| match error {
            CallError::Panicked(_) | CallError::Abandoned => true,
            CallError::Failed(error) => willing.is_some_and(|willing| willing(error)),
            _ => false,
        };
        follower.deadline = options.deadline();
        loop {
            let leads = match self.wait_for(&mut follower, &lead, options.max_age) {
                Ok(Some(Awaited::Landed(landed))) => {
                    let again = takeovers > 0
                        && landed.result.as_ref().err().is_some_and(takes_over)
                        && !follower.deadline.has_passed();
                    if !again {
                        return follower.into_outcome(landed);
                    }
                    takeovers -= 1;
                    drop(landed);
                    self.ask_again(key, &mut options, &mut follower, &mut lead)
                }
                Ok(_) => self.enter_again(key, &mut options, &mut follower, &mut lead),
                Err(refusal) => {
                    let alone = options.alone_on_deadlock;
                    let alone = alone && matches!(refusal, Refusal::Deadlock(_));
                    let refused = follower.refused(refusal);
                    drop(follower);
                    return match alone {
                        true => Outcome::alone(f(None)),
                        false => refused,
                    };
                }
            };
            if leads {
                // The follower is dropped afterwards: it may hold the last outcome of a flight that
                // was given up, and a panic in its `Drop` must not lose the lead.
                return self.run(&mut lead, |lead| f(Some(lead)));
            }
        }
    }

    /// Arrives, and blocks while the caller is queued. An age limit counts on arrival only.
    pub(crate) fn arrive_in_turn<Q: Lookup<K> + ?Sized>(
        &self,
        key: &Q,
        options: &Options,
    ) -> Arrival<V, E> {
        let (mut follower, mut lead) = match self.arrive(key, options) {
            Arrival::Follows(follows) => follows,
            leads => return leads,
        };
        let mut options = Options { max_age: None, ..*options };
        follower.deadline = options.deadline();
        while follower.queued {
            match self.wait_for(&mut follower, &lead, None) {
                Err(refusal) => follower.refuse(refusal),
                Ok(_) => {
                    if self.enter_again(key, &mut options, &mut follower, &mut lead) {
                        return Arrival::Leads(lead);
                    }
                }
            }
        }
        Arrival::Follows((follower, lead))
    }

    /// Arrives anew, with the deadline that the caller had. Tells whether it leads.
    fn ask_again<Q: Lookup<K> + ?Sized>(
        &self,
        key: &Q,
        options: &mut Options,
        follower: &mut Follower<V, E>,
        lead: &mut Lead,
    ) -> bool {
        // All that is in flight now began after this call did.
        options.next_flight = false;
        let deadline = follower.deadline;
        // Dropped first: their `Drop` is user code, and a panic in it must not lose a new lead.
        *follower = Follower::new(&self.shared.counts, None);
        lead.events = None;
        match self.arrive(key, options) {
            Arrival::Leads(new) => {
                *lead = new;
                true
            }
            Arrival::Follows(new) => {
                (*follower, *lead) = new;
                follower.deadline = deadline;
                false
            }
        }
    }

    /// For a caller whose turn has come, or for which the flight in the way is too old. Tells
    /// whether it leads.
    fn enter_again<Q: Lookup<K> + ?Sized>(
        &self,
        key: &Q,
        options: &mut Options,
        follower: &mut Follower<V, E>,
        lead: &mut Lead,
    ) -> bool {
        let latch = follower.latch.as_ref().expect("it has a place");
        let entered = catch_unwind(AssertUnwindSafe(|| {
            let mut map = self.map(lead.hash).lock();
            map.enter_again(lead.hash, key, lead.flight, options, latch)
        }));
        match entered {
            Err(payload) => {
                self.leave_queue(follower, lead);
                resume_unwind(payload)
            }
            Ok(Some(Found::Waits { held_by, queued, .. })) => {
                follower.held_by = held_by;
                follower.queued = queued;
                false
            }
            Ok(found) => {
                // The map has given the place up.
                follower.left = true;
                follower.queued = false;
                match found {
                    Some(Found::Leads { wake }) => {
                        self.took_lead(lead, wake);
                        true
                    }
                    _ => self.ask_again(key, options, follower, lead),
                }
            }
        }
    }
}
