//! What a call gets back.

use crate::error::{CallError, Missed};
use crate::sync::Arc;

/// What one call got: the result, which part the call played, and how many shared it.
///
/// Returned by [`FlightGroup::call_ex`](crate::FlightGroup::call_ex) and by everything else that
/// ends a flight. Every call gets exactly one outcome, and exactly one call of a flight has
/// [`Role::Led`] (G3).
///
/// [`fresh`](Self::fresh) and [`shared`](Self::shared) answer different questions: the leader of a
/// flight with followers has a result that is both fresh and shared.
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
#[derive(Debug)]
#[must_use]
pub struct Outcome<V, E> {
    /// The function's value, or why there is none.
    pub result: Result<V, CallError<E>>,
    /// Whether this call ran the function or waited for the one that did.
    pub role: Role,
    /// How many followers the flight had when it was unlinked, the same number for everyone on it.
    /// A follower that had left by then is not counted. 0 for one that timed out or was refused.
    pub followers: usize,
}

/// The part a call played in its flight.
///
/// ```
/// use shared_calls::{FlightGroup, Role};
///
/// let group = FlightGroup::<u32, std::io::Error>::new();
/// assert_eq!(group.call_ex("k", || Ok(1)).role, Role::Led);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// This call's function ran.
    Led,
    /// This call waited and got the leader's result.
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

    /// Whether the result went to more than one caller: `golang.org/x/sync/singleflight`'s
    /// `shared`. The leader's is `true` too when somebody followed.
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
    /// A landed outcome, as one in this role sees it. One that finds all others gone gets the value
    /// itself, everyone else a clone.
    pub(crate) fn of(landed: Arc<Self>, role: Role) -> Self {
        let outcome = Arc::try_unwrap(landed).unwrap_or_else(|shared| Self::clone(&shared));
        Self { role, ..outcome }
    }
}

impl<V, E> Outcome<V, E> {
    /// The outcome of one who did not wait for the flight to land.
    pub(crate) fn missed(why: Missed) -> Self {
        Self {
            result: Err(why.into()),
            role: Role::Followed,
            followers: 0,
        }
    }
}

// By hand, because a derive would ask for `E: Clone`.
impl<V: Clone, E> Clone for Outcome<V, E> {
    fn clone(&self) -> Self {
        Self {
            result: self.result.clone(),
            role: self.role,
            followers: self.followers,
        }
    }
}
