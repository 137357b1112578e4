//! The trait, for programs that choose the implementation at run time, and the implementation that
//! shares nothing.

use std::{cell::Cell, hash::BuildHasher};

use crate::{
    error::CallError, group::FlightGroup, lookup::Lookup, outcome::Outcome, panics::then_drop,
    sync::Arc,
};

/// Something that shares calls: for code that is to work with more than [`FlightGroup`].
///
/// The trait is dyn-compatible and has `Send + Sync` as supertraits, so
/// `Arc<dyn SharedCalls<User, DbError>>` crosses threads as it is. On a trait object,
/// [`call`](#method.call) and [`call_ex`](#method.call_ex) need no import. Generic code imports
/// [`SharedCallsExt`].
///
/// Implemented by [`FlightGroup`], by [`Unshared`], and by references, boxes and `Arc`s of either.
/// The options of a [`Request`](crate::Request) are not part of it: set them as
/// [defaults](crate::Builder) of the group.
///
/// ```
/// use shared_calls::{FlightGroup, SharedCalls, Unshared};
/// use std::sync::Arc;
///
/// fn calls(shared: bool) -> Arc<dyn SharedCalls<u32, std::io::Error>> {
///     if shared {
///         Arc::new(FlightGroup::<_, _>::new())
///     } else {
///         Arc::new(Unshared)
///     }
/// }
/// assert_eq!(calls(true).call("k", || Ok(1))?, 1);
/// assert_eq!(calls(false).call("k", || Ok(1))?, 1);
/// # Ok::<(), shared_calls::CallError<std::io::Error>>(())
/// ```
pub trait SharedCalls<V, E, K: ?Sized = str>: Send + Sync {
    /// The one required method: `call_ex` with the function behind a pointer. An implementation calls
    /// `f` at most once, and before it returns.
    ///
    /// For errors and panics see [`FlightGroup::call`].
    ///
    /// ```
    /// use shared_calls::{FlightGroup, SharedCalls};
    ///
    /// let calls: &dyn SharedCalls<u32, std::io::Error> = &FlightGroup::<_, _>::new();
    /// assert_eq!(calls.call_dyn("k", &mut || Ok(1)).result?, 1);
    /// # Ok::<(), shared_calls::CallError<std::io::Error>>(())
    /// ```
    fn call_dyn(&self, key: &K, f: &mut dyn FnMut() -> Result<V, E>) -> Outcome<V, E>;
}

/// [`call`](Self::call) and [`call_ex`](Self::call_ex) for generic code over [`SharedCalls`].
///
/// ```
/// use shared_calls::{CallError, SharedCalls, SharedCallsExt, Unshared};
///
/// fn one<C: SharedCalls<u32, ()>>(calls: &C) -> Result<u32, CallError<()>> {
///     calls.call("k", || Ok(1))
/// }
/// assert_eq!(one(&Unshared), Ok(1));
/// ```
pub trait SharedCallsExt<V, E, K: ?Sized = str>: SharedCalls<V, E, K> {
    /// Runs `f`, or waits for the call on an equal key that is running now, and returns the result.
    ///
    /// # Errors
    ///
    /// See [`FlightGroup::call`].
    ///
    /// See [`SharedCallsExt`] for an example.
    fn call(&self, key: &K, f: impl FnOnce() -> Result<V, E>) -> Result<V, CallError<E>> {
        self.call_ex(key, f).result
    }

    /// Like [`call`](Self::call), and also returns whether this call led and how many followed.
    ///
    /// ```
    /// use shared_calls::{SharedCallsExt, Unshared};
    /// assert!(Unshared.call_ex("k", || Ok::<_, ()>(1)).fresh());
    /// ```
    fn call_ex(&self, key: &K, f: impl FnOnce() -> Result<V, E>) -> Outcome<V, E> {
        then_drop(Cell::new(Some(f)), |f| {
            self.call_dyn(key, &mut || (f.take().expect("call_dyn runs f at most once"))())
        })
    }
}

impl<V, E, K: ?Sized, C: SharedCalls<V, E, K> + ?Sized> SharedCallsExt<V, E, K> for C {}

/// The methods of trait objects, for which no trait has to be imported.
macro_rules! on_trait_objects {
    ($($object:ty),*) => {$(
        impl<V, E, K: ?Sized> $object {
            /// Runs `f`, or waits for the call on an equal key that is running now, and returns the
            /// result.
            ///
            /// # Errors
            ///
            /// See [`FlightGroup::call`].
            ///
            /// See [`SharedCalls`] for an example.
            pub fn call(&self, key: &K, f: impl FnOnce() -> Result<V, E>) -> Result<V, CallError<E>> {
                self.call_ex(key, f).result
            }

            /// Like `call`, and also returns whether this call led and how many followed.
            ///
            /// See [`SharedCalls`] for an example of `call`.
            pub fn call_ex(&self, key: &K, f: impl FnOnce() -> Result<V, E>) -> Outcome<V, E> {
                SharedCallsExt::call_ex(self, key, f)
            }
        }
    )*};
}
on_trait_objects!(dyn SharedCalls<V, E, K> + '_, dyn SharedCalls<V, E, K> + Send + Sync + '_);

/// Shares nothing: every call runs its own function.
///
/// For switching sharing off, and for tests. Every outcome has [`Role::Led`](crate::Role::Led) and no
/// followers. A panic passes through.
///
/// ```
/// use shared_calls::{SharedCalls, Unshared};
///
/// let calls: Box<dyn SharedCalls<u32, std::io::Error>> = Box::new(Unshared);
/// assert_eq!(calls.call("k", || Ok(1))?, 1);
/// # Ok::<(), shared_calls::CallError<std::io::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Unshared;

impl<V, E, K: ?Sized> SharedCalls<V, E, K> for Unshared {
    fn call_dyn(&self, _key: &K, f: &mut dyn FnMut() -> Result<V, E>) -> Outcome<V, E> {
        Outcome::alone(f())
    }
}

impl<V, E, K, Q, S> SharedCalls<V, E, Q> for FlightGroup<V, E, K, S>
where
    V: Clone + Send + Sync,
    E: Send + Sync,
    K: Send,
    Q: Lookup<K> + ?Sized,
    S: BuildHasher + Send + Sync,
{
    fn call_dyn(&self, key: &Q, f: &mut dyn FnMut() -> Result<V, E>) -> Outcome<V, E> {
        self.call_ex(key, f)
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
