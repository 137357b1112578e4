//! The one file that names std's primitives. The models in `loom-tests/` mount every other source
//! file unchanged and put loom's primitives in this one's place.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
pub(crate) use std::sync::{Arc, MutexGuard};
use std::sync::{PoisonError, TryLockError};
use std::time::{Duration, Instant};

/// A mutex that does not poison. The only code of a user's that ever runs under one of this
/// crate's locks is a key's `Eq` and `Borrow`, and it runs before anything is changed, so a panic
/// leaves nothing half-done for poisoning to warn of.
pub(crate) struct Mutex<T>(std::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
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

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }
}

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
}

/// Where a group's time begins. Times are microseconds since then, in a `usize` so that an atomic of
/// it is to be had everywhere. Where that has 32 bits they begin anew every 71 minutes, and ages
/// from 35 minutes on are not told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Epoch(Instant);

impl Epoch {
    pub(crate) fn begin() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(self) -> usize {
        let elapsed = self.0.elapsed();
        // In the width of a `usize`, not in that of `as_micros`, which is 128 bits.
        let seconds = elapsed.as_secs() as usize;
        let micros = elapsed.subsec_micros() as usize;
        seconds.wrapping_mul(1_000_000).wrapping_add(micros)
    }
}
