//! The one file that names std's primitives. The models in `loom-tests/` mount every other source
//! file unchanged and put loom's primitives in this one's place.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
pub(crate) use std::sync::{Arc, MutexGuard};
use std::sync::{PoisonError, TryLockError};
pub(crate) use std::thread::yield_now;
pub(crate) use std::thread_local;
use std::time::{Duration, Instant};

/// A static that every thread shares. (In a model, that every thread of one execution shares.)
macro_rules! global {
    ($(#[$doc:meta])* static $name:ident: $type:ty = $value:expr;) => {
        $(#[$doc])* static $name: $type = $value;
    };
}
pub(crate) use global;

/// A thread-local without a `Drop`.
macro_rules! local {
    (static $name:ident: $type:ty = $value:expr;) => {
        std::thread_local! { static $name: $type = const { $value }; }
    };
}
pub(crate) use local;

/// A mutex that does not poison. The only code of a user's that ever runs under one of this
/// crate's locks is a key's `Eq` and `Borrow`, and it runs before anything is changed, so a panic
/// leaves nothing half-done for poisoning to warn of.
pub(crate) struct Mutex<T>(std::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(std::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

/// A mutex around what is for information only: the models leave it alone.
pub(crate) type Plain<T> = Mutex<T>;

/// std's `Condvar`, for guards of [`Mutex`].
pub(crate) struct Condvar(std::sync::Condvar);

impl Condvar {
    pub(crate) fn new() -> Self {
        Self(std::sync::Condvar::new())
    }

    /// Waits for a notification, at most until the deadline; may wake for no reason.
    pub(crate) fn wait<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        deadline: Deadline,
    ) -> MutexGuard<'a, T> {
        match deadline {
            Deadline::Passed => guard,
            Deadline::At(instant) => {
                let left = instant.saturating_duration_since(Instant::now());
                let woken = self.0.wait_timeout(guard, left);
                woken.unwrap_or_else(PoisonError::into_inner).0
            }
            Deadline::Never => self.0.wait(guard).unwrap_or_else(PoisonError::into_inner),
        }
    }

    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }
}

/// So many waiters are not woken by who has something else to do.
pub(crate) const CROWD: usize = 16;

/// Until when to wait. The one place, with [`Epoch`], where time comes in.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Deadline {
    Passed,
    At(Instant),
    Never,
}

impl Deadline {
    pub(crate) fn at(instant: Instant) -> Self {
        Self::At(instant)
    }

    /// So long from now; never, if that is beyond what an `Instant` can say.
    pub(crate) fn after(patience: Duration) -> Self {
        Instant::now()
            .checked_add(patience)
            .map_or(Self::Never, Self::At)
    }

    pub(crate) fn has_passed(self) -> bool {
        match self {
            Self::Passed => true,
            Self::At(instant) => instant <= Instant::now(),
            Self::Never => false,
        }
    }

    /// Whether there is nothing to wait for: it had passed before anybody asked.
    pub(crate) fn is_over(self) -> bool {
        matches!(self, Self::Passed)
    }

    /// Whether it will pass at all.
    pub(crate) fn is_finite(self) -> bool {
        !matches!(self, Self::Never)
    }
}

/// Where a group's time begins, if it has one. Times are microseconds since then, in a `usize` so
/// that an atomic of it is to be had everywhere. Where that has 32 bits they begin anew every 71
/// minutes, and ages from 35 minutes on are not told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Epoch(Option<Instant>);

impl Epoch {
    pub(crate) fn begin() -> Self {
        Self(Some(Instant::now()))
    }

    /// For a group that does not look at the clock: it is always now.
    pub(crate) fn none() -> Self {
        Self(None)
    }

    pub(crate) fn is_none(self) -> bool {
        self.0.is_none()
    }

    pub(crate) fn now(self) -> usize {
        let Some(begun) = self.0 else {
            return 0;
        };
        let elapsed = begun.elapsed();
        // In the width of a `usize`, not in that of `as_micros`, which is 128 bits.
        let seconds = elapsed.as_secs() as usize;
        let micros = elapsed.subsec_micros() as usize;
        seconds.wrapping_mul(1_000_000).wrapping_add(micros)
    }
}

/// A number that no other memory hangs on: whoever reads an old one is none the worse. So the
/// models leave it alone.
#[derive(Debug)]
pub(crate) struct Figure(AtomicUsize);

impl Figure {
    pub(crate) const fn new() -> Self {
        Self(AtomicUsize::new(0))
    }

    pub(crate) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, value: usize) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Adds one, and says how many there were before.
    pub(crate) fn add(&self) -> usize {
        self.0.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn subtract(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
