//! What a group tells: figures, and, to a group's observer, each event.
//!
//! Nothing here blocks. Figures of leaders are kept under the map's lock, which they take anyway;
//! those of followers are atomic and counted one by one.

use std::any::Any;
use std::panic::{catch_unwind, AssertUnwindSafe, RefUnwindSafe, UnwindSafe};
use std::time::Duration;

use crate::error::{CallError, Deadlock, Missed};
use crate::sync::{Arc, Figure};

/// Is told what happens in a group; given to it by [`Builder::observer`](crate::Builder::observer).
///
/// Every method has a default that does nothing. They run on the thread that the event happens on,
/// outside every lock, after the event has been counted: so they may ask the group for its
/// [stats](crate::FlightGroup::stats), log, or call it with another key. One that blocks holds up
/// the caller that it runs on, and whoever follows that one. A panic in one is caught and disturbs
/// nothing: also that of an assertion, so in a test write down what you see and look at it later.
/// One that brings about the event that it is told of, again and again, never ends.
///
/// Events of one flight come from several threads, in no fixed order: a follower may be told of
/// before its leader is, and after the landing; and the next flight of a key may have begun, and
/// even landed, when the landing of the one before is told.
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
/// group.call("k", || Ok(1)).unwrap();
/// assert_eq!(flights.0.load(Ordering::Relaxed), 1);
/// ```
pub trait Observer<K = String>: Send + Sync {
    /// A caller leads a new flight; its function is about to run, or its job to be spawned.
    fn flight_began(&self, key: &K) {
        let _ = key;
    }

    /// A caller follows a flight, or is queued for the next one.
    fn caller_joined(&self, key: &K) {
        let _ = key;
    }

    /// A flight has ended, whichever way. Its followers are awake, and the leader's call is about
    /// to return.
    fn flight_landed(&self, key: &K, landed: &Landed) {
        let _ = (key, landed);
    }

    /// A caller has lost its patience, as a follower or queued.
    fn caller_timed_out(&self, key: &K) {
        let _ = key;
    }

    /// A caller was [refused](CallError::Deadlock), because its wait would never have ended. (The
    /// [ticket](crate::Ticket) of the call that started the flight, too; but that call is counted
    /// as one that led.)
    fn deadlock_refused(&self, key: &K, deadlock: &Deadlock) {
        let _ = (key, deadlock);
    }
}

/// Pointers to an observer observe, too.
macro_rules! forward {
    ($($pointer:ty),*) => {$(
        impl<K, O: Observer<K> + ?Sized> Observer<K> for $pointer {
            fn flight_began(&self, key: &K) {
                (**self).flight_began(key);
            }

            fn caller_joined(&self, key: &K) {
                (**self).caller_joined(key);
            }

            fn flight_landed(&self, key: &K, landed: &Landed) {
                (**self).flight_landed(key, landed);
            }

            fn caller_timed_out(&self, key: &K) {
                (**self).caller_timed_out(key);
            }

            fn deadlock_refused(&self, key: &K, deadlock: &Deadlock) {
                (**self).deadlock_refused(key, deadlock);
            }
        }
    )*};
}
forward!(&O, Box<O>, Arc<O>);

/// What an [`Observer`] learns of a flight that has ended.
///
/// See [`Observer`] for an example.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Landed {
    /// From when the flight began, or from its turn if it was queued, until its function had
    /// returned, in whole microseconds.
    pub duration: Duration,
    /// How many callers followed it to the end.
    pub followers: usize,
    /// How it ended.
    pub ending: Ending,
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

/// What leaders count, under the map's lock.
#[derive(Clone, Copy, Default)]
pub(crate) struct Endings {
    pub(crate) all: u64,
    pub(crate) failed: u64,
    pub(crate) panicked: u64,
    pub(crate) abandoned: u64,
}

impl Endings {
    pub(crate) fn count(&mut self, ending: Ending) {
        self.all += 1;
        match ending {
            Ending::Succeeded => {}
            Ending::Failed => self.failed += 1,
            Ending::Panicked => self.panicked += 1,
            Ending::Abandoned => self.abandoned += 1,
        }
    }
}

/// What followers count.
pub(crate) struct Tally {
    pub(crate) followed: Figure,
    pub(crate) timed_out: Figure,
    pub(crate) deadlocked: Figure,
    /// How many are waiting now.
    pub(crate) waiting: Figure,
}

impl Tally {
    pub(crate) fn new() -> Self {
        Self {
            followed: Figure::new(),
            timed_out: Figure::new(),
            deadlocked: Figure::new(),
            waiting: Figure::new(),
        }
    }
}

/// Where a flight reports to.
#[derive(Clone)]
pub(crate) struct Reports {
    tally: Arc<Tally>,
    /// An observer, together with the key of this flight.
    observer: Option<Arc<dyn Told>>,
}

/// Makes the [`Told`] of a key's flights. Not a `dyn Fn(&Arc<K>)`, because that might hold a `K`,
/// as far as the compiler knows, and no key could borrow from what is declared after its group.
pub(crate) struct Tell<K> {
    observer: AssertUnwindSafe<Erased>,
    of_key: fn(&Erased, &Arc<K>) -> Arc<dyn Told>,
}

/// An observer whose type only [`Tell::of_key`] knows.
type Erased = Arc<dyn Any + Send + Sync>;

impl Reports {
    /// For a flight that is tested by itself.
    #[cfg(test)]
    #[allow(dead_code)] // Under loom only the models use it.
    pub(crate) fn to_nobody() -> Self {
        Self::new(&Arc::new(Tally::new()), None, &Arc::new(()))
    }

    pub(crate) fn new<K>(tally: &Arc<Tally>, tell: Option<&Tell<K>>, key: &Arc<K>) -> Self {
        Self {
            tally: Arc::clone(tally),
            observer: tell.map(|tell| (tell.of_key)(&tell.observer, key)),
        }
    }

    pub(crate) fn began(&self) {
        self.tell(|observer| observer.began());
    }

    pub(crate) fn joined(&self) {
        self.tell(|observer| observer.joined());
    }

    pub(crate) fn landed(&self, landed: &Landed) {
        self.tell(|observer| observer.landed(landed));
    }

    /// Somebody waits, as long as `wait` takes.
    pub(crate) fn while_waiting<R>(&self, wait: impl FnOnce() -> R) -> R {
        self.tally.waiting.add();
        let waited = wait();
        self.tally.waiting.subtract();
        waited
    }

    /// A call that did not lead has ended.
    pub(crate) fn count(&self, missed: Option<&Missed>) {
        let figure = match missed {
            None => &self.tally.followed,
            Some(Missed::TimedOut) => &self.tally.timed_out,
            Some(Missed::Deadlock(_)) => &self.tally.deadlocked,
        };
        figure.add();
    }

    pub(crate) fn tell_missed(&self, missed: Option<&Missed>) {
        match missed {
            None => {}
            Some(Missed::TimedOut) => self.tell(|observer| observer.timed_out()),
            Some(Missed::Deadlock(deadlock)) => self.tell(|observer| observer.deadlocked(deadlock)),
        }
    }

    fn tell(&self, what: impl FnOnce(&dyn Told)) {
        if let Some(observer) = &self.observer {
            // Nothing that the closure changes is looked at afterwards.
            let told = catch_unwind(AssertUnwindSafe(|| what(&**observer)));
            if let Err(payload) = told {
                // Its `Drop` may panic, too, and then once more: enough is enough.
                let dropped = catch_unwind(AssertUnwindSafe(|| drop(payload)));
                dropped.unwrap_or_else(std::mem::forget);
            }
        }
    }
}

/// An [`Observer`] that knows which key is spoken of: for a flight, which does not.
pub(crate) trait Told: Send + Sync + UnwindSafe + RefUnwindSafe {
    fn began(&self);
    fn joined(&self);
    fn landed(&self, landed: &Landed);
    fn timed_out(&self);
    fn deadlocked(&self, deadlock: &Deadlock);
}

struct OfKey<K, O> {
    // Panics of the observer's are its own affair; nobody else looks at it.
    observer: AssertUnwindSafe<Arc<O>>,
    key: AssertUnwindSafe<Arc<K>>,
}

impl<K: Send + Sync, O: Observer<K>> Told for OfKey<K, O> {
    fn began(&self) {
        self.observer.flight_began(&self.key);
    }

    fn joined(&self) {
        self.observer.caller_joined(&self.key);
    }

    fn landed(&self, landed: &Landed) {
        self.observer.flight_landed(&self.key, landed);
    }

    fn timed_out(&self) {
        self.observer.caller_timed_out(&self.key);
    }

    fn deadlocked(&self, deadlock: &Deadlock) {
        self.observer.deadlock_refused(&self.key, deadlock);
    }
}

pub(crate) fn tell<K, O>(observer: O) -> Tell<K>
where
    K: Send + Sync + 'static,
    O: Observer<K> + 'static,
{
    Tell {
        observer: AssertUnwindSafe(Arc::new(observer)),
        of_key: |observer, key| {
            let observer = Arc::clone(observer).downcast::<O>();
            Arc::new(OfKey {
                observer: AssertUnwindSafe(observer.expect("it is the one above")),
                key: AssertUnwindSafe(Arc::clone(key)),
            })
        },
    }
}
