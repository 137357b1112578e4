//! What a function may ask about the flight that it runs for.

use std::fmt;

use crate::leader::Leader;

/// The flight that a function runs for, as [`Request::call_with`](crate::Request::call_with) and
/// [`Request::start_with`](crate::Request::start_with) show it to the function.
///
/// A long load can ask [`is_wanted`](Self::is_wanted) between its steps and stop when nobody waits
/// for its result any more. Whether to stop is the function's decision.
///
/// Each question may take the lock of the group's map.
///
/// ```
/// use shared_calls::FlightGroup;
/// use std::sync::mpsc;
///
/// let group = FlightGroup::<u32, &str>::new();
/// let (jobs, worker) = mpsc::channel();
/// let ticket = group.request("report").start_with(
///     |job| jobs.send(job).unwrap(),
///     |flight| {
///         let mut sum = 0;
///         for row in 0..1_000_000 {
///             if row % 1_000 == 0 && !flight.is_wanted() {
///                 return Err("cancelled");
///             }
///             sum += row;
///         }
///         Ok(sum)
///     },
/// );
/// drop(ticket); // Nobody wants the report any more.
/// worker.recv().unwrap().run();
/// assert_eq!(group.stats().failed, 1);
/// ```
pub struct Flight<'a> {
    followers: &'a dyn Fn() -> usize,
    is_wanted: &'a dyn Fn() -> bool,
}

impl Flight<'_> {
    /// How many callers follow the flight now. Callers that queue for the next flight do not count,
    /// and neither does the ticket of the call that started this one.
    ///
    /// ```
    /// let group = shared_calls::FlightGroup::<usize, ()>::new();
    /// let followers = group.request("k").call_with(|flight| Ok(flight.followers()));
    /// assert_eq!(followers, Ok(0));
    /// ```
    #[must_use]
    pub fn followers(&self) -> usize {
        (self.followers)()
    }

    /// Whether anyone will look at the result.
    ///
    /// `false` once no follower and no ticket is left and, in a call, the leader's own time limit
    /// has passed. (Without a limit the leader of a call always wants its result.)
    ///
    /// `false` is final: it gives the flight up under the lock that finds it unwanted, as
    /// [`forget`](crate::FlightGroup::forget) does. So no caller joins work that is about to stop.
    ///
    /// See [`Flight`] for an example.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        (self.is_wanted)()
    }

    /// Runs a function for a flight, or without one for a call that runs alone. `leader_wants` says
    /// whether its caller still wants the result, `key` makes the key for the list of given-up
    /// flights.
    pub(crate) fn show<V, E, K, S, R>(
        leader: Option<&Leader<'_, V, E, K, S>>,
        leader_wants: impl Fn() -> bool,
        key: impl Fn() -> K,
        f: impl FnOnce(&Flight<'_>) -> R,
    ) -> R {
        let awaited =
            |leader: &Leader<'_, V, E, K, S>| leader.group.is_awaited(&leader.caller, &key);
        f(&Flight {
            followers: &|| leader.map_or(0, Leader::followers),
            is_wanted: &|| leader_wants() || leader.is_some_and(awaited),
        })
    }
}

impl fmt::Debug for Flight<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flight").finish_non_exhaustive()
    }
}
