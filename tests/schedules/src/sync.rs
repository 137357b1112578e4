//! What `src/sync.rs` offers, made of shuttle's primitives.
//!
//! Time is virtual: a number that never grows by itself. Wherever the crate looks at the clock or
//! waits for a deadline, a throw of the dice may let that deadline pass. So a waiter can expire at
//! any step, also in the instant in which it is notified.
//!
//! A wait may wake without a notification. But in half of the schedules it never does, because
//! a spurious wake-up hides a lost one.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{OnceLock, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use crate::dice;

pub(crate) use shuttle::thread_local;
pub(crate) use std::sync::Arc;

/// What is shipped, for what the schedules do not explore.
#[path = "../../../src/sync.rs"]
#[allow(dead_code, unused_imports, unused_macros)]
mod shipped;
pub(crate) use shipped::{Counter, Unmodelled};

/// Made anew for each schedule.
macro_rules! global {
    ($(#[$doc:meta])* static $name:ident: $type:ty = $value:expr;) => {
        shuttle::lazy_static! { $(#[$doc])* static ref $name: $type = $value; }
    };
}
pub(crate) use global;

/// One for each of shuttle's threads, which all run on one of the system's.
macro_rules! local {
    (static $name:ident: $type:ty = $value:expr;) => {
        shuttle::thread_local! { static $name: $type = $value; }
    };
}
pub(crate) use local;

std::thread_local! {
    // All threads of a schedule run on the thread that explores it, so these belong to one schedule.
    static NOW: Cell<u64> = const { Cell::new(0) };
    static SPURIOUS: Cell<bool> = const { Cell::new(false) };
}

/// To be called at the beginning of each schedule.
pub(crate) fn reset(spurious: bool) {
    NOW.set(0);
    SPURIOUS.set(spurious);
}

/// Lets time pass, at least until then.
fn pass(until: u64) {
    NOW.set(NOW.get().max(until));
}

/// Lets that much time pass.
pub(crate) fn sleep(nanoseconds: u64) {
    pass(NOW.get().saturating_add(nanoseconds));
}

/// An instant that lies so far ahead.
pub(crate) fn instant_in(nanoseconds: u64) -> Instant {
    epoch() + Duration::from_nanos(NOW.get() + nanoseconds)
}

fn epoch() -> Instant {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    *EPOCH.get_or_init(Instant::now)
}

pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(shuttle::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        MutexGuard { mutex: self, inner }
    }

    pub(crate) fn lock_spinning(&self) -> MutexGuard<'_, T> {
        self.lock()
    }

    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        let inner = match self.0.try_lock() {
            Ok(inner) => inner,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(MutexGuard { mutex: self, inner })
    }
}

/// Knows its mutex, unlike shuttle's, so that [`Condvar::wait`] can take it anew.
pub(crate) struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    inner: shuttle::sync::MutexGuard<'a, T>,
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

pub(crate) struct Condvar {
    inner: shuttle::sync::Condvar,
    /// Those that wait with a deadline: whether they are notified. One of std's mutexes, which is
    /// never held where another thread may run.
    limited: std::sync::Mutex<Vec<Arc<AtomicBool>>>,
}

impl Condvar {
    pub(crate) fn new() -> Self {
        Self { inner: shuttle::sync::Condvar::new(), limited: std::sync::Mutex::default() }
    }

    pub(crate) fn wait<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        deadline: Deadline,
    ) -> MutexGuard<'a, T> {
        let mutex = guard.mutex;
        if SPURIOUS.get() && dice::one_in(8) {
            drop(guard);
            return mutex.lock();
        }
        match deadline {
            Deadline::Never => MutexGuard {
                mutex,
                inner: (self.inner.wait(guard.inner)).unwrap_or_else(PoisonError::into_inner),
            },
            Deadline::Passed => guard,
            Deadline::At(at) => {
                // No other thread runs between the unlock and the next line.
                drop(guard);
                self.wait_until(at);
                mutex.lock()
            }
        }
    }

    /// Such a thread is never blocked, as far as shuttle knows. When it is scheduled and has not
    /// been notified, its deadline may pass.
    fn wait_until(&self, at: u64) {
        let notified = Arc::new(AtomicBool::new(false));
        self.limited().push(Arc::clone(&notified));
        loop {
            shuttle::thread::yield_now();
            if dice::one_in(6) {
                pass(at);
            }
            if notified.load(Relaxed) || NOW.get() >= at {
                break;
            }
        }
        self.limited().retain(|it| !Arc::ptr_eq(it, &notified));
    }

    fn limited(&self) -> std::sync::MutexGuard<'_, Vec<Arc<AtomicBool>>> {
        self.limited.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn notify_all(&self) {
        self.inner.notify_all();
        self.limited().iter().for_each(|it| it.store(true, Relaxed));
    }

    /// For a seeded bug.
    #[allow(dead_code)]
    pub(crate) fn notify_one(&self) {
        let first = self.limited().first().cloned();
        match first {
            Some(first) if dice::one_in(2) => first.store(true, Relaxed),
            _ => self.inner.notify_one(),
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Deadline {
    Passed,
    At(u64),
    Never,
}

impl Deadline {
    pub(crate) const NEVER: Self = Self::Never;

    pub(crate) fn at(instant: Instant) -> Self {
        let since = instant.saturating_duration_since(epoch());
        Self::At(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }

    pub(crate) fn after(timeout: Duration) -> Self {
        Time::now().plus(timeout)
    }

    pub(crate) fn has_passed(self) -> bool {
        let at = match self {
            Self::Passed => return true,
            Self::At(at) => at,
            Self::Never => return false,
        };
        if dice::one_in(16) {
            pass(at);
        }
        NOW.get() >= at
    }

    pub(crate) fn is_finite(self) -> bool {
        !matches!(self, Self::Never)
    }

    pub(crate) fn or_sooner(self, other: Self) -> Self {
        match (self, other) {
            (Self::Passed, _) | (_, Self::Passed) => Self::Passed,
            (Self::At(a), Self::At(b)) => Self::At(a.min(b)),
            (deadline, Self::Never) | (Self::Never, deadline) => deadline,
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Time(u64);

impl Time {
    pub(crate) fn now() -> Self {
        if dice::one_in(8) {
            sleep(dice::below(40));
        }
        Self(NOW.get())
    }

    pub(crate) fn plus(self, duration: Duration) -> Deadline {
        let nanoseconds = u64::try_from(duration.as_nanos()).ok();
        let at = nanoseconds.and_then(|nanoseconds| self.0.checked_add(nanoseconds));
        at.map_or(Deadline::Never, Deadline::At)
    }

    pub(crate) fn age(self) -> Duration {
        Duration::from_nanos(Self::now().0 - self.0)
    }
}
