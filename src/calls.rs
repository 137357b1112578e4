//! The trait, for programs that want to choose the implementation at run time, and the
//! implementation that shares nothing.

use crate::error::CallError;
use crate::outcome::{Outcome, Role};
use crate::sync::Arc;

/// Something that shares calls: what a program asks for when it does not want to name
/// [`FlightGroup`](crate::FlightGroup).
///
/// The trait is dyn-compatible: `Arc<dyn SharedCalls<User, DbError>>` works and has
/// [`call`](Self::call); write `dyn SharedCalls<..> + Send + Sync` where it crosses threads. It is
/// implemented by [`FlightGroup`](crate::FlightGroup), by [`Unshared`], and by references, boxes
/// and `Arc`s of either. (On a plain `calls: &dyn SharedCalls<..>` write `(&calls).call(..)`, since
/// a trait object itself has no generic methods.)
///
/// It has no options, such as a deadline: see
/// [the recipe](crate::recipes#options-behind-a-trait-object).
///
/// ```
/// use shared_calls::{FlightGroup, SharedCalls, Unshared};
/// use std::sync::Arc;
///
/// fn calls(shared: bool) -> Arc<dyn SharedCalls<u32, std::io::Error> + Send + Sync> {
///     if shared {
///         Arc::new(FlightGroup::<_, _>::new())
///     } else {
///         Arc::new(Unshared)
///     }
/// }
/// assert_eq!(calls(true).call("k", || Ok(1)).unwrap(), 1);
/// assert_eq!(calls(false).call("k", || Ok(1)).unwrap(), 1);
/// ```
#[doc(alias = "SingleFlight")]
pub trait SharedCalls<V, E, K: ?Sized = str> {
    /// The one method that an implementation has to bring: [`call_ex`](Self::call_ex) with the
    /// function behind a pointer. Runs `f` at most once, and only before it returns.
    ///
    /// Errors and panics are those of the implementation; see
    /// [`FlightGroup::call`](crate::FlightGroup::call).
    ///
    /// ```
    /// use shared_calls::{FlightGroup, SharedCalls};
    ///
    /// let calls: &dyn SharedCalls<u32, std::io::Error> = &FlightGroup::<_, _>::new();
    /// assert_eq!(calls.call_dyn("k", &mut || Ok(1)).result.unwrap(), 1);
    /// ```
    fn call_dyn(&self, key: &K, f: &mut dyn FnMut() -> Result<V, E>) -> Outcome<V, E>;

    /// Runs `f`, or waits for the call on an equal key that is running now, and returns the result.
    ///
    /// # Errors
    ///
    /// See [`FlightGroup::call`](crate::FlightGroup::call).
    ///
    /// ```
    /// use shared_calls::{SharedCalls, Unshared};
    /// assert_eq!(Unshared.call("k", || Ok::<_, std::io::Error>(1)).unwrap(), 1);
    /// ```
    #[doc(alias = "Do")]
    fn call(&self, key: &K, f: impl FnOnce() -> Result<V, E>) -> Result<V, CallError<E>>
    where
        Self: Sized,
    {
        self.call_ex(key, f).result
    }

    /// Like [`call`](Self::call), and tells which part this call played and how many followed.
    ///
    /// ```
    /// use shared_calls::{SharedCalls, Unshared};
    /// assert!(Unshared.call_ex("k", || Ok::<_, std::io::Error>(1)).fresh());
    /// ```
    #[doc(alias = "DoEx")]
    fn call_ex(&self, key: &K, f: impl FnOnce() -> Result<V, E>) -> Outcome<V, E>
    where
        Self: Sized,
    {
        let mut f = Some(f);
        self.call_dyn(key, &mut || {
            (f.take().expect("call_dyn runs f at most once"))()
        })
    }
}

/// Shares nothing: every call runs its own function.
///
/// The off switch, and the control in an experiment. Every outcome has
/// [`Role::Led`](crate::Role::Led) and no followers; a panic passes through.
///
/// ```
/// use shared_calls::{SharedCalls, Unshared};
///
/// let calls: Box<dyn SharedCalls<u32, std::io::Error>> = Box::new(Unshared);
/// assert_eq!(calls.call("k", || Ok(1)).unwrap(), 1);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Unshared;

impl<V, E, K: ?Sized> SharedCalls<V, E, K> for Unshared {
    fn call_dyn(&self, _key: &K, f: &mut dyn FnMut() -> Result<V, E>) -> Outcome<V, E> {
        Outcome {
            result: f().map_err(|error| CallError::Failed(Arc::new(error))),
            role: Role::Led,
            followers: 0,
        }
    }
}

/// Pointers to something that shares calls share calls, too.
macro_rules! forward {
    ($($pointer:ty),*) => {$(
        impl<V, E, K: ?Sized, C: SharedCalls<V, E, K> + ?Sized> SharedCalls<V, E, K> for $pointer {
            fn call_dyn(&self, key: &K, f: &mut dyn FnMut() -> Result<V, E>) -> Outcome<V, E> {
                (**self).call_dyn(key, f)
            }
        }
    )*};
}
forward!(&C, Box<C>, Arc<C>);
