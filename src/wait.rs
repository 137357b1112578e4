//! What becomes of a caller that arrives and does not lead at once.
//!
//! It waits on a latch: a follower for the outcome, a queued caller for its turn first. Either may
//! end up leading after all, when the turn comes, when the age limit passes, or when the caller
//! takes over after an error. All of that is to enter the map again, under its lock.
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
    keys::Lookup, latch::Awaited, leader::Lead, map::Found, observer::Event, options::Options,
    outcome::Outcome, request::Predicate, sync::Deadline, sync::Time,
};

/// What has become of a caller.
pub(crate) enum Arrival<V, E> {
    Leads(Lead),
    /// It has a place, or a refusal. With what it would lead with.
    Follows(Follower<V, E>, Lead),
}

impl<V, E, K, S> FlightGroup<V, E, K, S> {
    /// What an arriving caller does next. To be called once the map's lock is released.
    pub(crate) fn arrived(&self, mut lead: Lead, found: Found<V, E>) -> Arrival<V, E> {
        let mut follower = Follower::new(&self.shared.counts, lead.events.clone());
        match found {
            Found::Leads { gave_up } => {
                if let Some(front) = gave_up {
                    // Those who queued behind that flight follow this one now.
                    self.set_turn(front, self.latch_of(&lead));
                }
                if let Some(events) = &mut lead.events {
                    events.began = Time::now();
                }
                self.announce(&lead);
                return Arrival::Leads(lead);
            }
            Found::Refused(refusal) => follower.refuse(refusal),
            Found::Waits {
                latch,
                held_by,
                queued,
            } => {
                follower.latch = Some(latch);
                follower.held_by = held_by;
                follower.queued = queued;
                if let Some(events) = &lead.events {
                    events.tell(Event::Joined);
                }
            }
        }
        Arrival::Follows(follower, lead)
    }

    /// Tells the observer, if there is one, that a flight has begun.
    #[inline]
    pub(crate) fn announce(&self, lead: &Lead) {
        if let Some(events) = &lead.events {
            // As a part of the flight, so that an observer that asks for this very key is refused.
            deadlock::while_leading(lead.flight, || events.tell(Event::Began));
        }
    }

    /// Waits as long as the deadline, and the age of the flight in the way, allow. An age limit that
    /// has passed, or a turn that has come, is for the caller to act on.
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
            follower.latch = None;
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
        mut arrival: Arrival<V, E>,
        f: impl FnOnce(Option<&Lead>) -> Result<V, E>,
    ) -> Outcome<V, E>
    where
        V: Clone,
    {
        let deadline = options.deadline();
        let mut options = *options;
        let mut takeovers = options.takeover.unwrap_or(0);
        let takes_over = |error: &CallError<E>| match error {
            CallError::Panicked(_) | CallError::Abandoned => true,
            CallError::Failed(error) => willing.is_some_and(|willing| willing(error)),
            _ => false,
        };
        loop {
            let (mut follower, lead) = match arrival {
                Arrival::Leads(mut lead) => return self.run(&mut lead, |lead| f(Some(lead))),
                Arrival::Follows(follower, lead) => (follower, lead),
            };
            follower.deadline = deadline;
            arrival = match self.wait_for(&mut follower, &lead, options.max_age) {
                Ok(Some(Awaited::Landed(landed))) => {
                    let again = takeovers > 0
                        && landed.result.as_ref().err().is_some_and(takes_over)
                        && !deadline.has_passed();
                    if !again {
                        return follower.into_outcome(landed);
                    }
                    takeovers -= 1;
                    // All that is in flight now began after this call did.
                    options.next_flight = false;
                    drop(follower);
                    self.arrive(key, &options)
                }
                Ok(_) => self.enter_again(key, &mut options, follower, lead),
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
        }
    }

    /// Arrives, and blocks while the caller is queued. An age limit counts on arrival only.
    pub(crate) fn arrive_in_turn<Q: Lookup<K> + ?Sized>(
        &self,
        key: &Q,
        options: &Options,
    ) -> Arrival<V, E> {
        let mut arrival = self.arrive(key, options);
        let mut options = Options {
            max_age: None,
            ..*options
        };
        if let Arrival::Follows(follower, _) = &mut arrival {
            follower.deadline = options.deadline();
        }
        loop {
            arrival = match arrival {
                Arrival::Follows(mut follower, lead) if follower.queued => {
                    match self.wait_for(&mut follower, &lead, None) {
                        Ok(_) => self.enter_again(key, &mut options, follower, lead),
                        Err(refusal) => {
                            follower.queued = false;
                            follower.refuse(refusal);
                            Arrival::Follows(follower, lead)
                        }
                    }
                }
                settled => return settled,
            };
        }
    }

    /// For a caller whose turn has come, or for which the flight in the way is too old.
    fn enter_again<Q: Lookup<K> + ?Sized>(
        &self,
        key: &Q,
        options: &mut Options,
        mut follower: Follower<V, E>,
        lead: Lead,
    ) -> Arrival<V, E> {
        let latch = follower.latch.clone().expect("it has a place");
        let entered = catch_unwind(AssertUnwindSafe(|| {
            let mut map = self.map(lead.hash).lock();
            map.enter_again(lead.hash, key, lead.flight, options, &latch)
        }));
        match entered {
            Ok(Some(Found::Waits {
                held_by, queued, ..
            })) => {
                follower.held_by = held_by;
                follower.queued = queued;
                Arrival::Follows(follower, lead)
            }
            Ok(found) => {
                follower.latch = None; // It has given up its place.
                match found {
                    Some(found) => self.arrived(lead, found),
                    None => {
                        // All that is in flight now began after this call did.
                        options.next_flight = false;
                        self.arrive(key, options)
                    }
                }
            }
            Err(payload) => {
                self.leave_queue(&mut follower, &lead);
                resume_unwind(payload)
            }
        }
    }
}
