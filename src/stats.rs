//! Sight: what a group has counted, and what is in flight.

use std::collections::HashMap;
use std::fmt;
use std::thread::Thread;
use std::time::Duration;

use crate::deadlock;
use crate::error::Named;
use crate::group::FlightGroup;
use crate::threads;

/// What a group has counted since it was made; from [`FlightGroup::stats`].
///
/// The calls that have ended are `led + followed + timed_out + deadlocked`: each is counted once,
/// before it returns. So the sum is exact when the group is quiet; while calls are on their way,
/// the figures are not all of the same instant. A [`Follower`](crate::Follower) or a
/// [`Ticket`](crate::Ticket) counts when it first gives its outcome; one that is dropped before is
/// not counted. (A caller that was queued and has missed its flight is counted at once.) (On
/// machines with 32 bits the figures of followers begin anew at 2³².)
///
/// ```
/// let group = shared_calls::FlightGroup::<u32, &str>::new();
/// group.call("a", || Ok(1)).unwrap();
/// group.call("b", || Err("no route")).unwrap_err();
/// let stats = group.stats();
/// assert_eq!((stats.led, stats.failed), (2, 1));
/// assert_eq!(stats.calls(), 2);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Calls that led a flight which has ended, whichever way.
    pub led: u64,
    /// Calls that got another call's outcome. What was saved: so many executions did not run.
    pub followed: u64,
    /// Calls that lost their patience: [`CallError::TimedOut`](crate::CallError::TimedOut).
    pub timed_out: u64,
    /// Calls that were refused, [`CallError::Deadlock`](crate::CallError::Deadlock), or
    /// [ran alone](crate::Request::alone_on_deadlock) instead.
    pub deadlocked: u64,
    /// Flights whose function returned an error.
    pub failed: u64,
    /// Flights whose function panicked.
    pub panicked: u64,
    /// Flights whose [`Leader`](crate::Leader) or [`Job`](crate::Job) was dropped.
    pub abandoned: u64,
    /// Keys in flight now.
    pub in_flight: u64,
    /// Threads that wait for a flight of this group now, given-up flights included.
    pub waiting: u64,
}

impl Stats {
    /// How many calls have ended.
    ///
    /// See [`Stats`] for an example.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.led + self.followed + self.timed_out + self.deadlocked
    }

    /// Both together.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            led: self.led + other.led,
            followed: self.followed + other.followed,
            timed_out: self.timed_out + other.timed_out,
            deadlocked: self.deadlocked + other.deadlocked,
            failed: self.failed + other.failed,
            panicked: self.panicked + other.panicked,
            abandoned: self.abandoned + other.abandoned,
            in_flight: self.in_flight + other.in_flight,
            waiting: self.waiting + other.waiting,
        }
    }
}

/// A key in flight; from [`FlightGroup::in_flight`].
///
/// What an operator prints when everything is stuck. `Display`, for a key that is `Debug`, is a
/// line such as `"user:42" led by thread 'worker-3' for 12.5s, 17 followers, waits for "user:7"`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct InFlight<K> {
    /// The key.
    pub key: K,
    /// Callers that have a seat on the flight.
    pub followers: usize,
    /// Callers that are queued for the [next flight](crate::Request::next_flight).
    pub queued: usize,
    /// The thread that runs the function, with its name and id. `None` where no thread is known to:
    /// somebody holds a [`Leader`](crate::Leader), a [`Job`](crate::Job) has not been run yet, or
    /// the function has returned this instant.
    pub leader: Option<Thread>,
    /// How long ago the flight began. `None` in a group [without
    /// ages](crate::Builder::without_ages).
    pub age: Option<Duration>,
    /// What the leader itself waits for, if it is inside another call of this crate.
    pub waits_for: Option<WaitsFor<K>>,
}

/// What the leader of an [`InFlight`] waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WaitsFor<K> {
    /// A flight of the same group, which is in flight for this key.
    Key(K),
    /// A flight of another group, or one that was given up.
    Elsewhere,
}

impl<V, E, K, S> FlightGroup<V, E, K, S> {
    /// What the group has counted so far.
    ///
    /// Takes the map's lock for as long as it takes to copy a few numbers.
    ///
    /// See [`Stats`] for an example.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let (endings, in_flight) = self.endings();
        let tally = self.tally();
        Stats {
            led: endings.all,
            followed: tally.followed.get() as u64,
            timed_out: tally.timed_out.get() as u64,
            deadlocked: tally.deadlocked.get() as u64,
            failed: endings.failed,
            panicked: endings.panicked,
            abandoned: endings.abandoned,
            in_flight: in_flight as u64,
            waiting: tally.waiting.get() as u64,
        }
    }

    /// What is in flight, in no order: the keys, who leads, who waits.
    ///
    /// A flight that was given up, by [`forget`](Self::forget) or
    /// [`max_age`](crate::Request::max_age), is not among them, whether its function still runs or
    /// not. Takes the map's lock for as long as it takes to copy a few words for each key; keys are
    /// cloned outside it.
    ///
    /// # Panics
    ///
    /// If `Clone` of a key panics, or `Drop` of a key or a value, where this happens to be the last
    /// to let go of a flight that has ended meanwhile.
    ///
    /// ```
    /// let group = shared_calls::FlightGroup::<u32, ()>::new();
    /// group.call("user:42", || {
    ///     for flight in group.in_flight() {
    ///         eprintln!("{flight}"); // "user:42" led by thread 'main' for 12µs
    ///     }
    ///     assert_eq!(group.in_flight()[0].key, "user:42");
    ///     Ok(1)
    /// });
    /// ```
    #[must_use]
    pub fn in_flight(&self) -> Vec<InFlight<K>>
    where
        K: Clone,
    {
        let seen = self.look();
        let awaited = deadlock::awaited_by(seen.iter().map(|seen| seen.flight.id()));
        let by_id: HashMap<_, _> = seen.iter().map(|s| (s.flight.id(), &s.key)).collect();
        let waits_for = |id| match by_id.get(&id) {
            Some(key) => WaitsFor::Key(K::clone(key)),
            None => WaitsFor::Elsewhere,
        };
        let in_flight = seen.iter().zip(awaited).map(|(flight, awaited)| InFlight {
            key: K::clone(&flight.key),
            followers: flight.followers,
            queued: flight.queued,
            leader: threads::by_number(flight.thread),
            age: self.has_ages().then_some(flight.age),
            waits_for: awaited.map(waits_for),
        });
        in_flight.collect()
    }
}

impl<K: fmt::Debug> fmt::Display for InFlight<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} led by ", self.key)?;
        match &self.leader {
            Some(thread) => Named(thread).fmt(f)?,
            None => f.write_str("an unknown thread")?,
        }
        if let Some(age) = self.age {
            write!(f, " for {age:?}")?;
        }
        match self.followers {
            0 => {}
            1 => f.write_str(", 1 follower")?,
            n => write!(f, ", {n} followers")?,
        }
        if self.queued > 0 {
            write!(f, ", {} queued for the next", self.queued)?;
        }
        match &self.waits_for {
            None => Ok(()),
            Some(WaitsFor::Key(key)) => write!(f, ", waits for {key:?}"),
            Some(WaitsFor::Elsewhere) => f.write_str(", waits for a flight elsewhere"),
        }
    }
}
