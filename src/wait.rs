//! What becomes of a caller that arrives and does not lead at once.
//!
//! It waits on a latch: a follower for the outcome, a queued caller first for its turn. Either can
//! still come to lead: when its turn comes, when its age limit passes, or when it takes over after an
//! error. In each case it goes back to the map, under the map's lock.
//!
//! *No follower takes the lead after its deadline* (G8). An outcome that is ready beats a deadline that
//! has passed; a turn to lead does not. A queued caller that leaves need not wake another, because the
//! turn wakes all of them. The last to leave removes the entry, if that has no leader.

use std::hash::BuildHasher;

use crate::{
    error::CallError, follower::Follower, follower::Waited, group::FlightGroup, join::Joined,
    leader::Caller, leader::Leader, lookup::Lookup, map::Found, map::Waiter, observer::Event,
    options::Options, options::TimeLimit, outcome::Outcome, panics::drop_caught, panics::panic_of,
    panics::resume_first, panics::then_drop, panics::SafeDrop, request::Predicate, sync::Deadline,
};

/// What comes next for a caller that does not lead.
enum Next<'g, V, E, K, S> {
    Leads(Leader<'g, V, E, K, S>),
    Waits,
    Ends(Waited<V, E>),
}

impl<V, E, K, S> FlightGroup<V, E, K, S> {
    /// Makes a leader or a follower of what a caller has found in the map. To be called once the map's
    /// lock is released.
    pub(crate) fn arrived(
        &self,
        caller: Caller,
        found: Found<V, E>,
        options: &Options,
    ) -> Joined<'_, V, E, K, S> {
        let mut follower = Follower::new(&self.shared.counts, caller);
        match found {
            Found::Leads(wake) => {
                return Joined::Leader(Leader::new(self, follower.caller.take(), wake));
            }
            Found::Refused(refusal) => follower.refuse(refusal),
            Found::Waits(waiter) => {
                follower.waiter = Some(waiter);
                follower.deadline = options.deadline();
                follower.caller.events.iter().for_each(|it| it.tell(Event::Joined));
            }
        }
        Joined::Follower(follower)
    }

    /// Gives up the caller's place in the queue, if it has one there. To be called once, when it is refused
    /// or unwinds.
    fn leave_queue(&self, follower: &Follower<V, E>) {
        if let Some(Waiter { latch, queued: true, .. }) = &follower.waiter {
            let hash = follower.caller.hash;
            let mut garbage = None;
            self.map(hash).lock().leave_queue(hash, latch, &mut garbage);
            // A panic of the key's `Drop` must not replace the outcome of this call.
            drop_caught(garbage);
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
        mut follower: Follower<V, E>,
        f: impl FnOnce(Option<&Leader<'_, V, E, K, S>>) -> Result<V, E>,
    ) -> Outcome<V, E>
    where
        V: Clone,
    {
        let f = SafeDrop::new(f);
        let mut takeovers = options.takeover.unwrap_or(0);
        let takes_over = |error: &CallError<E>| match error {
            CallError::Panicked(_) | CallError::Abandoned => true,
            CallError::Failed(error) => willing.is_some_and(|willing| willing(error)),
            _ => false,
        };
        let mut next = Next::Waits;
        loop {
            next = match next {
                Next::Leads(leader) => {
                    let ended = self.run(leader, |leader| {
                        // Inside the flight, because this may drop the value of one that was given up: if
                        // that `Drop` calls for this key, it is refused and does not hang.
                        drop_caught(follower.waiter.take());
                        f.into_inner()(Some(leader))
                    });
                    return Outcome::of_leader(ended);
                }
                Next::Waits => self.wait_once(key, options, &mut follower),
                Next::Ends(Ok(landed))
                    if takeovers > 0
                        && landed.result.as_ref().err().is_some_and(takes_over)
                        && !follower.deadline.has_passed() =>
                {
                    takeovers -= 1;
                    drop_caught(landed);
                    self.arrive_again(key, options, &mut follower)
                }
                Next::Ends(waited @ Err(CallError::Deadlock(_))) if options.alone_on_deadlock => {
                    drop(follower.end(waited));
                    return Outcome::alone(f.into_inner()(None));
                }
                Next::Ends(waited) => return then_drop(f, |_| follower.end(waited)),
            };
        }
    }

    /// Arrives, and blocks while the caller is queued. An age limit counts on arrival only.
    pub(crate) fn arrive_in_turn<Q: Lookup<K> + ?Sized>(
        &self,
        key: &Q,
        options: &Options,
    ) -> Joined<'_, V, E, K, S> {
        let mut follower = match self.arrive(key, options) {
            Joined::Follower(follower) => follower,
            leads => return leads,
        };
        let options = &Options { max_age: None, ..*options };
        while follower.is_queued() {
            match self.wait_once(key, options, &mut follower) {
                Next::Leads(leader) => return Joined::Leader(leader),
                Next::Waits => {}
                // It is refused, or the next flight has come and gone.
                Next::Ends(_) => break,
            }
        }
        Joined::Follower(follower)
    }

    /// Waits until there is an outcome, or the caller has to act: its turn has come, or its deadline
    /// or age limit has passed.
    fn wait_once<Q: Lookup<K> + ?Sized>(
        &self,
        key: &Q,
        options: &Options,
        follower: &mut Follower<V, E>,
    ) -> Next<'_, V, E, K, S> {
        let deadline = follower.deadline;
        let held_by = follower.waiter.as_ref().and_then(|waiter| waiter.held_by);
        let too_old = match (options.max_age, held_by) {
            (Some(age), Some((_, since))) => since.plus(age),
            _ => Deadline::NEVER,
        };
        let refusal = match follower.wait_until(deadline.or_sooner(too_old)) {
            Some(Ok(landed)) => return Next::Ends(Ok(landed)),
            Some(Err(refusal)) => refusal,
            None if deadline.has_passed() => CallError::TimedOut,
            None => return self.enter_again(key, options, follower),
        };
        self.leave_queue(follower);
        follower.refuse(refusal.clone());
        Next::Ends(Err(refusal))
    }

    /// Goes back to the map, to lead or to wait on: the caller's turn has come, or the flight in the way
    /// is too old for it.
    fn enter_again<Q: Lookup<K> + ?Sized>(
        &self,
        key: &Q,
        options: &Options,
        follower: &mut Follower<V, E>,
    ) -> Next<'_, V, E, K, S> {
        let caller = &follower.caller;
        let latch = &follower.waiter.as_ref().expect("it waits").latch;
        let mut found = None;
        let enter =
            || found = self.map(caller.hash).lock().enter_again(key, caller, options, latch);
        resume_first([panic_of(enter)], || self.leave_queue(follower));
        match found {
            // The map has given the place up.
            Some(Found::Leads(wake)) => {
                Next::Leads(Leader::new(self, follower.caller.take(), wake))
            }
            Some(Found::Waits(waiter)) => {
                follower.waiter = Some(waiter);
                Next::Waits
            }
            _ => self.arrive_again(key, options, follower),
        }
    }

    /// Arrives again, with the deadline that the caller had.
    fn arrive_again<Q: Lookup<K> + ?Sized>(
        &self,
        key: &Q,
        options: &Options,
        follower: &mut Follower<V, E>,
    ) -> Next<'_, V, E, K, S> {
        // First, because this may drop a value, an error or a key. A panic of that `Drop` must neither
        // lose a new lead nor end a call that goes on.
        drop_caught(follower.waiter.take());
        drop_caught(follower.caller.events.take());
        // All that is in flight now began after this call did.
        let time_limit = Some(TimeLimit::Until(follower.deadline));
        match self.arrive(key, &Options { next_flight: false, time_limit, ..*options }) {
            Joined::Leader(leader) => Next::Leads(leader),
            Joined::Follower(new) => {
                *follower = new;
                Next::Waits
            }
        }
    }
}
