//! What a call gets back.

use crate::{error::CallError, panics::then_drop, sync::Arc};

/// What one call got: the result, whether the call led or followed, and how many followed.
///
/// Every call gets exactly one outcome, and exactly one call of a flight has [`Role::Led`] (G3).
///
/// [`fresh`](Self::fresh) and [`shared`](Self::shared) answer different questions: the leader of a
/// flight with followers has a result that is both fresh and shared.
///
/// The fields are public and the struct is exhaustive, so that other implementations of
/// [`SharedCalls`](crate::SharedCalls) can construct it.
///
/// ```
/// use shared_calls::{FlightGroup, Role};
///
/// let group = FlightGroup::<u32, std::io::Error>::new();
/// let outcome = group.call_ex("answer", || Ok(42));
/// assert_eq!(outcome.role, Role::Led);
/// assert_eq!(outcome.followers, 0);
/// assert!(outcome.fresh() && !outcome.shared());
/// assert_eq!(outcome.result?, 42);
/// # Ok::<(), shared_calls::CallError<std::io::Error>>(())
/// ```
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct Outcome<V, E> {
    /// The function's value, or why there is none.
    pub result: Result<V, CallError<E>>,
    /// Whether this call ran the function or waited for the one that did.
    pub role: Role,
    /// How many followers the flight had when its outcome was published: the same number for all of
    /// its callers. A follower that had left by then is not counted. One that is about to leave,
    /// because its time is up or its wait is refused, may still be. 0 for a call that got no outcome
    /// of a flight.
    pub followers: usize,
}

/// Whether a call led or followed.
///
/// A call that was refused or timed out has not led, unless it then ran alone. The
/// [`Ticket`](crate::Ticket) of the call that started a flight is [`Led`](Self::Led) however the
/// flight or the wait ends.
///
/// ```
/// use shared_calls::{FlightGroup, Role};
///
/// let group = FlightGroup::<u32, std::io::Error>::new();
/// assert_eq!(group.call_ex("k", || Ok(1)).role, Role::Led);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The flight was this call's own, or the call ran alone.
    Led,
    /// The flight was another call's, or there was none to share.
    Followed,
}

impl<V, E> Outcome<V, E> {
    /// Whether this call's own function ran: go-zero's `fresh`.
    ///
    /// ```
    /// let group = shared_calls::FlightGroup::<u32, std::io::Error>::new();
    /// assert!(group.call_ex("k", || Ok(1)).fresh());
    /// ```
    #[must_use]
    pub fn fresh(&self) -> bool {
        self.role == Role::Led
    }

    /// Whether the flight had followers: `golang.org/x/sync/singleflight`'s `shared`. It is `true` for
    /// the leader as well as for the followers.
    ///
    /// ```
    /// let group = shared_calls::FlightGroup::<u32, std::io::Error>::new();
    /// assert!(!group.call_ex("k", || Ok(1)).shared());
    /// ```
    #[must_use]
    pub fn shared(&self) -> bool {
        self.followers > 0
    }
}

impl<V: Clone, E> Outcome<V, E> {
    /// What the leader gets of a flight that has ended.
    pub(crate) fn of_leader(ended: Result<Self, Arc<Self>>) -> Self {
        ended.unwrap_or_else(|landed| Self::from_landed(landed, Role::Led))
    }

    /// A landed outcome, as a caller in this role sees it. A caller that finds all others gone gets
    /// the value itself, every other one a clone.
    pub(crate) fn from_landed(landed: Arc<Self>, role: Role) -> Self {
        let clone = |shared: Arc<Self>| then_drop(shared, |shared| Self::clone(shared));
        let outcome = Arc::try_unwrap(landed).unwrap_or_else(clone);
        Self { role, ..outcome }
    }
}

impl<V, E> Outcome<V, E> {
    /// For a call that nobody can share.
    pub(crate) fn alone(result: Result<V, E>) -> Self {
        let result = result.map_err(|error| CallError::Failed(Arc::new(error)));
        Self { result, role: Role::Led, followers: 0 }
    }
}

// By hand, because a derive would ask for `E: Clone`.
impl<V: Clone, E> Clone for Outcome<V, E> {
    fn clone(&self) -> Self {
        Self { result: self.result.clone(), role: self.role, followers: self.followers }
    }
}

/// How a flight ended.
///
/// ```
/// use shared_calls::Ending;
/// assert_eq!(format!("{:?}", Ending::Panicked), "Panicked");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Ending {
    /// The function returned a value.
    Succeeded,
    /// The function returned an error: [`CallError::Failed`].
    Failed,
    /// The function panicked: [`CallError::Panicked`].
    Panicked,
    /// The leader went away: [`CallError::Abandoned`].
    Abandoned,
}

impl Ending {
    pub(crate) fn of<V, E>(result: &Result<V, CallError<E>>) -> Self {
        match result {
            Ok(_) => Self::Succeeded,
            Err(CallError::Failed(_)) => Self::Failed,
            Err(CallError::Panicked(_)) => Self::Panicked,
            Err(_) => Self::Abandoned,
        }
    }
}
