//! The one file that names std's primitives. The models in `loom-tests/` mount every other source
//! file unchanged and put loom's primitives in this one's place.

pub(crate) use std::sync::{Arc, MutexGuard};
use std::sync::{PoisonError, TryLockError};
pub(crate) use std::thread_local;
use std::time::{Duration, Instant};

/// A static that all threads share. (In a model: that all threads of one execution share.)
macro_rules! global {
    ($(#[$doc:meta])* static $name:ident: $type:ty = $value:expr;) => {
        $(#[$doc])* static $name: $type = $value;
    };
}
pub(crate) use global;

/// A thread-local without a `Drop`, which costs next to nothing to get at.
macro_rules! local {
    (static $name:ident: $type:ty = $value:expr;) => {
        std::thread_local! { static $name: $type = const { $value }; }
    };
}
pub(crate) use local;

/// A mutex that does not poison. User code that runs under one of this crate's locks (a key's
/// [`Lookup`](crate::Lookup)) runs before anything is changed, so a panic leaves nothing half-done.
#[derive(Default)]
pub(crate) struct Mutex<T>(std::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(std::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks, and spins a little before it sleeps: for a thread that keeps others from working while
    /// it sleeps. `lock` does not spin if any thread sleeps already.
    #[inline]
    pub(crate) fn lock_spinning(&self) -> MutexGuard<'_, T> {
        for _ in 0..100 {
            if let Some(guard) = self.try_lock() {
                return guard;
            }
            std::hint::spin_loop();
        }
        self.lock()
    }

    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

/// A mutex that the models do not explore: what it guards is for information only.
pub(crate) type Unmodelled<T> = Mutex<T>;

/// std's `Condvar`, for guards of [`Mutex`].
pub(crate) struct Condvar(std::sync::Condvar);

impl Condvar {
    pub(crate) fn new() -> Self {
        Self(std::sync::Condvar::new())
    }

    /// Waits for a notification, at most until the deadline. May return without either.
    pub(crate) fn wait<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        deadline: Deadline,
    ) -> MutexGuard<'a, T> {
        let Some(instant) = deadline.0 else {
            return self.0.wait(guard).unwrap_or_else(PoisonError::into_inner);
        };
        let left = instant.saturating_duration_since(Instant::now());
        self.0.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }
}

/// When a wait ends, if it does. Time enters the crate here and in [`Time`] only.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Option<Instant>);

impl Deadline {
    pub(crate) const NEVER: Self = Self(None);

    pub(crate) fn at(instant: Instant) -> Self {
        Self(Some(instant))
    }

    /// That long from now.
    pub(crate) fn after(timeout: Duration) -> Self {
        Time::now().plus(timeout)
    }

    /// Reads the clock only if there is an instant to compare with.
    pub(crate) fn has_passed(self) -> bool {
        self.0.is_some_and(|instant| instant <= Instant::now())
    }

    pub(crate) fn is_finite(self) -> bool {
        self.0.is_some()
    }

    pub(crate) fn or_sooner(self, other: Self) -> Self {
        Self([self.0, other.0].into_iter().flatten().min())
    }
}

/// An instant that an age counts from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Time(Instant);

impl Time {
    pub(crate) fn now() -> Self {
        Self(Instant::now())
    }

    /// Never, if an `Instant` cannot hold it.
    pub(crate) fn plus(self, duration: Duration) -> Deadline {
        Deadline(self.0.checked_add(duration))
    }

    pub(crate) fn age(self) -> Duration {
        self.0.elapsed()
    }
}

/// A count that no other memory depends on, so every access is relaxed and the models do not
/// explore it.
#[derive(Default)]
pub(crate) struct Counter(Count);

#[cfg(target_has_atomic = "64")]
type Count = std::sync::atomic::AtomicU64;
#[cfg(not(target_has_atomic = "64"))]
type Count = Mutex<u64>;

impl Counter {
    /// Adds to the count, modulo 2⁶⁴, and gives what it was.
    pub(crate) fn add(&self, n: u64) -> u64 {
        #[cfg(target_has_atomic = "64")]
        return self.0.fetch_add(n, std::sync::atomic::Ordering::Relaxed);
        #[cfg(not(target_has_atomic = "64"))]
        {
            let mut count = self.0.lock();
            *count = count.wrapping_add(n);
            count.wrapping_sub(n)
        }
    }

    pub(crate) fn get(&self) -> u64 {
        self.add(0)
    }
}
