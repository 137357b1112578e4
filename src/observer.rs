//! What a group tells its observer.
//!
//! A group without an observer passes by all of this. With one, each call makes a key of its own,
//! so that the observer can be told of it outside every lock.

use std::{any::Any, time::Duration};

use crate::{
    error::Deadlock, group::Ended, outcome::Ending, panics::drop_payload, panics::panic_of,
    panics::SafeDrop, sync::Arc, sync::Time,
};

/// Is told what happens in a group. Pass it to [`Builder::observer`](crate::Builder::observer).
///
/// Every method has a default that does nothing. A method runs on the thread of the event, outside
/// every lock, after the event has been counted. So it may ask the group for its
/// [stats](crate::FlightGroup::stats), write a log, or call the group with another key. A method
/// that blocks holds up its caller and that caller's followers. A panic in a method is caught and
/// has no effect. This includes a failed assertion: in a test, record what you see and check it
/// later. An observer that triggers its own event recurses forever.
///
/// The events of one flight come from several threads, in no fixed order. A follower can be
/// announced before its leader, or after the landing. The next flight of a key can begin and even
/// land before the landing of the previous one is announced.
///
/// ```
/// use shared_calls::{FlightGroup, Landed, Observer};
/// use std::sync::atomic::{AtomicUsize, Ordering};
/// use std::sync::Arc;
///
/// #[derive(Default)]
/// struct Flights(AtomicUsize);
///
/// impl Observer for Flights {
///     fn flight_landed(&self, key: &String, landed: &Landed) {
///         println!("{key}: {:?} after {:?}", landed.ending, landed.duration);
///         self.0.fetch_add(1, Ordering::Relaxed);
///     }
/// }
///
/// let flights = Arc::new(Flights::default());
/// let group = FlightGroup::<u32, ()>::builder().observer(Arc::clone(&flights)).build();
/// group.call("k", || Ok(1))?;
/// assert_eq!(flights.0.load(Ordering::Relaxed), 1);
/// # Ok::<(), shared_calls::CallError<()>>(())
/// ```
#[allow(unused_variables)] // By the methods' defaults, which do nothing.
pub trait Observer<K = String>: Send + Sync {
    /// A caller leads a new flight; its function is about to run, or its job to be spawned.
    fn flight_began(&self, key: &K) {}

    /// A caller follows a flight, or is queued for the next one.
    fn caller_joined(&self, key: &K) {}

    /// A flight has ended, in whatever way. Its followers have been notified, and the leader's call
    /// is about to return.
    fn flight_landed(&self, key: &K, landed: &Landed) {}

    /// A caller's time limit has passed while it followed or was queued.
    fn caller_timed_out(&self, key: &K) {}

    /// A caller was [refused](crate::CallError::Deadlock) because its wait would never have ended.
    ///
    /// This can also be the [ticket](crate::Ticket) of the call that started the flight, which still
    /// counts as [led](crate::Stats::led).
    fn deadlock_refused(&self, key: &K, deadlock: &Deadlock) {}

    /// A caller was [refused](crate::CallError::Overloaded) because too many were waiting already.
    fn overload_refused(&self, key: &K) {}
}

/// Pointers to an observer observe, too.
macro_rules! forward {
    ($($pointer:ty),*) => {$(
        impl<K, O: Observer<K> + ?Sized> Observer<K> for $pointer {
            fn flight_began(&self, key: &K) { (**self).flight_began(key); }
            fn caller_joined(&self, key: &K) { (**self).caller_joined(key); }
            fn flight_landed(&self, key: &K, landed: &Landed) { (**self).flight_landed(key, landed); }
            fn caller_timed_out(&self, key: &K) { (**self).caller_timed_out(key); }
            fn deadlock_refused(&self, key: &K, by: &Deadlock) { (**self).deadlock_refused(key, by); }
            fn overload_refused(&self, key: &K) { (**self).overload_refused(key); }
        }
    )*};
}
forward!(&O, Box<O>, Arc<O>);

/// What an [`Observer`] is told about a flight that has ended.
///
/// See [`Observer`] for an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Landed {
    /// The time from taking the lead until the flight ended.
    pub duration: Duration,
    /// How many callers were following when the outcome was published: as
    /// [`Outcome::followers`](crate::Outcome::followers).
    pub followers: usize,
    /// How it ended.
    pub ending: Ending,
}

impl Landed {
    /// For tests of an observer.
    ///
    /// ```
    /// use shared_calls::{Ending, Landed};
    /// use std::time::Duration;
    ///
    /// let landed = Landed::new(Duration::from_millis(20), 3, Ending::Succeeded);
    /// assert_eq!(landed.followers, 3);
    /// ```
    #[must_use]
    pub fn new(duration: Duration, followers: usize, ending: Ending) -> Self {
        Self { duration, followers, ending }
    }
}

/// A group's observer, whose type only `with_key` knows.
///
/// Not a `dyn Observer<K>`: that might drop a `K`, as far as the compiler knows, so no key could
/// borrow from what is declared after its group.
pub(crate) struct GroupObserver<K> {
    observer: Erased,
    with_key: fn(&Erased, K) -> Notify,
}

type Erased = SafeDrop<Arc<dyn Any + Send + Sync>>;
type Notify = Arc<dyn Fn(Event<'_>) + Send + Sync>;

pub(crate) enum Event<'a> {
    Began,
    Joined,
    Landed(&'a Landed),
    TimedOut,
    Overloaded,
    Deadlocked(&'a Deadlock),
}

impl<K> GroupObserver<K> {
    pub(crate) fn new<O: Observer<K> + 'static>(observer: O) -> Self
    where
        K: Send + Sync + 'static,
    {
        Self {
            observer: SafeDrop::new(Arc::new(observer)),
            with_key: |observer, key| {
                let observer = Arc::clone(observer).downcast::<O>();
                let observer = SafeDrop::new(observer.expect("the observer of `new`"));
                let key = SafeDrop::new(key);
                Arc::new(move |event| match event {
                    Event::Began => observer.flight_began(&key),
                    Event::Joined => observer.caller_joined(&key),
                    Event::Landed(landed) => observer.flight_landed(&key, landed),
                    Event::TimedOut => observer.caller_timed_out(&key),
                    Event::Overloaded => observer.overload_refused(&key),
                    Event::Deadlocked(deadlock) => observer.deadlock_refused(&key, deadlock),
                })
            },
        }
    }

    pub(crate) fn with_key(&self, key: K) -> Box<Events> {
        Box::new(Events { tell: (self.with_key)(&self.observer, key), began: Time::now() })
    }
}

/// Where the events of one call go: to the group's observer, with the call's key.
#[derive(Clone)]
pub(crate) struct Events {
    tell: Notify,
    /// When the call arrived, or took the lead.
    pub(crate) began: Time,
}

impl Events {
    pub(crate) fn landed<V, E>(&self, ended: &Ended<V, E>) {
        let outcome = ended.as_ref().unwrap_or_else(|landed| landed);
        let (followers, ending) = (outcome.followers, Ending::of(&outcome.result));
        self.tell(Event::Landed(&Landed { duration: self.began.age(), followers, ending }));
    }

    pub(crate) fn tell(&self, event: Event<'_>) {
        panic_of(|| (self.tell)(event)).into_iter().for_each(drop_payload);
    }
}
