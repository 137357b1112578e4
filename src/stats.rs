//! What a group shows: its counts, and what is in flight.

use std::{collections::HashMap, fmt, thread::Thread, time::Duration};

use crate::{deadlock, error::name, group::FlightGroup, map::followers};

/// What a group has counted since it was made, from [`FlightGroup::stats`].
///
/// Each call is counted once, before it returns: `led + followed + timed_out + deadlocked +
/// overloaded` is the number of calls that have ended. The sum is exact when the group is quiet.
/// While calls are under way, the counts are not all of the same instant. A
/// [`Follower`](crate::Follower) or a [`Ticket`](crate::Ticket) counts when it first yields an
/// outcome, and not at all if it is dropped before. The ticket of a call that leads counts when its
/// flight lands. A call that does not lead, and unwinds before it has an outcome, is not counted.
///
/// All fields are public and there is a `Default`, so tests can make one.
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
    /// Calls that led a flight which has ended, in whatever way.
    pub led: u64,
    /// Calls that got another call's outcome: the executions that were saved.
    pub followed: u64,
    /// Calls that ended with [`CallError::TimedOut`](crate::CallError::TimedOut).
    pub timed_out: u64,
    /// Calls that were refused with [`CallError::Deadlock`](crate::CallError::Deadlock), or
    /// [ran alone](crate::Request::alone_on_deadlock) instead.
    pub deadlocked: u64,
    /// Calls that were refused with [`CallError::Overloaded`](crate::CallError::Overloaded).
    pub overloaded: u64,
    /// Flights whose function returned an error.
    pub failed: u64,
    /// Flights whose function panicked.
    pub panicked: u64,
    /// Flights whose [`Leader`](crate::Leader) or [`Job`](crate::Job) was dropped.
    pub abandoned: u64,
    /// Flights in progress now: as many as [`in_flight`](FlightGroup::in_flight) returns.
    pub in_flight: u64,
    /// Callers that are waiting for a flight of this group now.
    pub waiting: u64,
}

impl Stats {
    /// How many calls have ended.
    ///
    /// See [`Stats`] for an example.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.led + self.followed + self.timed_out + self.deadlocked + self.overloaded
    }
}

/// A flight, from [`FlightGroup::in_flight`].
///
/// For finding out why a program is stuck. If the key is `Debug`, it displays as a line such as
/// `"user:42" led by thread 'worker-3' for 12.5s, 17 followers, waits for "user:7"`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct InFlight<K> {
    /// The key.
    pub key: K,
    /// Callers that follow the flight.
    pub followers: usize,
    /// Callers that queue for the [next flight](crate::Request::next_flight).
    pub queued: usize,
    /// The thread that runs the function. `None` if no thread is known to run it: a
    /// [`Leader`](crate::Leader) is held, a [`Job`](crate::Job) has not begun, or the flight in front
    /// has ended and no queued caller has taken the lead yet.
    pub leader: Option<Thread>,
    /// How long ago a caller first waited for the flight, queued behind it or was refused a place, or
    /// how long ago the flight was [started](FlightGroup::start). `None` if none of this has happened.
    pub age: Option<Duration>,
    /// Whether the flight was given up, by [`forget`](FlightGroup::forget),
    /// [`max_age`](crate::Request::max_age) or [`is_wanted`](crate::Flight::is_wanted). It is shown
    /// until its function has returned.
    pub given_up: bool,
    /// What the leader itself waits for, if it is inside another call of this crate.
    pub waits_for: Option<WaitsFor<K>>,
}

impl<K: PartialEq> PartialEq for InFlight<K> {
    fn eq(&self, other: &Self) -> bool {
        let id = |it: &Self| it.leader.as_ref().map(Thread::id);
        let rest = |it: &Self| (it.followers, it.queued, id(it), it.age, it.given_up);
        self.key == other.key && self.waits_for == other.waits_for && rest(self) == rest(other)
    }
}

impl<K: Eq> Eq for InFlight<K> {}

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
    /// Takes the map's lock briefly. With several [shards](crate::Builder::shards), it takes one lock
    /// after the other.
    ///
    /// See [`Stats`] for an example.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let counts = &self.shared.counts;
        let mut stats = Stats {
            followed: counts.followed.get(),
            timed_out: counts.timed_out.get(),
            deadlocked: counts.deadlocked.get(),
            overloaded: counts.overloaded.get(),
            waiting: counts.waiting.get(),
            ..Stats::default()
        };
        for map in self.shared.maps.iter() {
            let map = map.lock();
            stats.in_flight += map.len() as u64;
            let [_succeeded, failed, panicked, abandoned] = map.ended;
            stats.led += map.ended.iter().sum::<u64>();
            stats.failed += failed;
            stats.panicked += panicked;
            stats.abandoned += abandoned;
        }
        stats
    }

    /// What is in flight, in no particular order: the keys, who leads, how many wait.
    ///
    /// This includes flights that were given up, until their functions return. Keys are cloned under
    /// the map's lock, so their `Clone` must not call the group.
    ///
    /// # Panics
    ///
    /// If `Clone` of a key panics.
    ///
    /// ```
    /// let group = shared_calls::FlightGroup::<u32, ()>::new();
    /// let result = group.call("user:42", || {
    ///     for flight in group.in_flight() {
    ///         eprintln!("{flight}"); // "user:42" led by thread 'main'
    ///     }
    ///     assert_eq!(group.in_flight()[0].key, "user:42");
    ///     Ok(1)
    /// });
    /// assert_eq!(result, Ok(1));
    /// ```
    #[must_use]
    pub fn in_flight(&self) -> Vec<InFlight<K>>
    where
        K: Clone,
    {
        let mut flights = Vec::new();
        let mut in_flight = Vec::new();
        for map in self.shared.maps.iter() {
            let map = map.lock();
            let named = map.flights.iter().map(|(key, entry)| {
                (key, entry.leader, &entry.latch, followers(&entry.queue), false)
            });
            let given_up = (map.given_up.iter())
                .map(|(flight, (key, latch))| (key, Some(*flight), latch, 0, true));
            for (key, flight, latch, queued, given_up) in named.chain(given_up) {
                flights.push(flight);
                in_flight.push(InFlight {
                    key: key.clone(),
                    followers: followers(latch),
                    queued,
                    leader: None,
                    age: latch.as_ref().map(|latch| latch.since().age()),
                    given_up,
                    waits_for: None,
                });
            }
        }
        // A flight that was given up is not the one that its key names.
        let named = (flights.iter().zip(0..)).filter(|(_, i)| !in_flight[*i].given_up);
        let by_flight: HashMap<_, _> = named.collect();
        for (i, (leader, awaited)) in deadlock::leaders(&flights).into_iter().enumerate() {
            in_flight[i].leader = leader;
            in_flight[i].waits_for = awaited.map(|awaited| {
                let key = by_flight.get(&Some(awaited)).map(|j| in_flight[*j].key.clone());
                key.map_or(WaitsFor::Elsewhere, WaitsFor::Key)
            });
        }
        in_flight
    }
}

impl<K: fmt::Debug> fmt::Display for InFlight<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let leader = self.leader.as_ref().map_or("no known thread".to_owned(), name);
        write!(f, "{:?} led by {leader}", self.key)?;
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
        if self.given_up {
            f.write_str(", given up")?;
        }
        match &self.waits_for {
            None => Ok(()),
            Some(WaitsFor::Key(key)) => write!(f, ", waits for {key:?}"),
            Some(WaitsFor::Elsewhere) => f.write_str(", waits for a flight elsewhere"),
        }
    }
}
