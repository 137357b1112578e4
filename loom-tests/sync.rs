//! What `src/sync.rs` offers, made of loom's primitives.
//!
//! loom's `Condvar` never wakes without a notification, so code that does not loop would pass. The
//! one here has a budget of spurious wake-ups: as long as it lasts, a wait is an unlock and a lock,
//! which to its caller is a wake-up after an arbitrary delay. With a budget of zero every wait is a
//! real one: only that finds a lost wake-up. So models run with 0, 1 and 2.
//!
//! Time does not pass by itself. A deadline passes while somebody waits for it, and such a wait, too,
//! is an unlock and a lock: whatever the other threads can do in between, they do in some execution.
//! A deadline that is made anew after each wake-up never passes, and the model says so. The age of a
//! flight grows in the same way: a limit of zero is always exceeded, `Duration::MAX` never is, and
//! any other is exceeded once somebody has waited for it to pass.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize as StdAtomicUsize, Ordering};
use std::time::{Duration, Instant};

pub(crate) use loom::thread_local;

/// What is shipped, for what the models do not explore.
#[path = "../src/sync.rs"]
#[allow(unused_imports, unused_macros)]
mod shipped;
pub(crate) use shipped::{Counter, Unmodelled};

// loom's own `Arc` would multiply the executions and find nothing: no ordering hangs on a count.
pub(crate) use std::sync::Arc;

/// Made anew for each execution.
macro_rules! global {
    ($(#[$doc:meta])* static $name:ident: $type:ty = $value:expr;) => {
        loom::lazy_static! { $(#[$doc])* static ref $name: $type = $value; }
    };
}
pub(crate) use global;

/// One for each of loom's threads, which all run on one of the system's.
macro_rules! local {
    (static $name:ident: $type:ty = $value:expr;) => {
        loom::thread_local! { static $name: $type = $value; }
    };
}
pub(crate) use local;

std::thread_local! {
    // All threads of a model run on the thread that explores it, so these belong to one model.
    static BUDGET: Cell<usize> = const { Cell::new(0) };
    static NOTIFIED: Cell<usize> = const { Cell::new(0) };
    static LOCKED: Cell<usize> = const { Cell::new(0) };
    static CLOCK_READ: Cell<usize> = const { Cell::new(0) };
    static DEADLINES: Cell<usize> = const { Cell::new(0) };
    /// The instants made so far. One bit each says whether somebody has waited for a deadline that
    /// counts from it.
    static INSTANTS: Cell<(u32, u64)> = const { Cell::new((0, 0)) };
}

/// To be called at the beginning of each execution.
pub(crate) fn reset() {
    NOTIFIED.set(0);
    LOCKED.set(0);
    CLOCK_READ.set(0);
    DEADLINES.set(0);
    INSTANTS.set((0, 0));
}

/// Sets how many spurious wake-ups every condition variable made from now on has to spend.
pub(crate) fn set_budget(spurious: usize) {
    BUDGET.set(spurious);
}

/// How often `notify_all` was called since the last time this was asked.
pub(crate) fn take_notified() -> usize {
    NOTIFIED.take()
}

/// How often a mutex was locked since the last time this was asked.
pub(crate) fn take_locked() -> usize {
    LOCKED.take()
}

/// How many deadlines were made of a duration since the last time this was asked.
pub(crate) fn take_deadlines() -> usize {
    DEADLINES.take()
}

/// How often the clock was read since the last time this was asked.
pub(crate) fn take_clock_read() -> usize {
    CLOCK_READ.take()
}

pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        LOCKED.set(LOCKED.get() + 1);
        MutexGuard { mutex: self, inner: self.0.lock().expect("loom does not poison") }
    }

    pub(crate) fn lock_spinning(&self) -> MutexGuard<'_, T> {
        self.lock()
    }

    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        let inner = self.0.try_lock().ok()?;
        Some(MutexGuard { mutex: self, inner })
    }
}

/// Knows its mutex, unlike loom's, so that [`Condvar::wait`] can take it anew.
pub(crate) struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    inner: loom::sync::MutexGuard<'a, T>,
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
    inner: loom::sync::Condvar,
    spurious: StdAtomicUsize,
}

impl Condvar {
    pub(crate) fn new() -> Self {
        Self { inner: loom::sync::Condvar::new(), spurious: StdAtomicUsize::new(BUDGET.get()) }
    }

    pub(crate) fn wait<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        deadline: Deadline,
    ) -> MutexGuard<'a, T> {
        let mutex = guard.mutex;
        let left = self.spurious.load(Ordering::Relaxed);
        if left > 0 {
            self.spurious.store(left - 1, Ordering::Relaxed);
            drop(guard);
            return mutex.lock();
        }
        if let Deadline::During(number) = deadline {
            drop(guard);
            let (made, passed) = INSTANTS.get();
            INSTANTS.set((made, passed | 1 << number));
            return mutex.lock();
        }
        MutexGuard { mutex, inner: self.inner.wait(guard.inner).expect("loom does not poison") }
    }

    pub(crate) fn notify_all(&self) {
        NOTIFIED.set(NOTIFIED.get() + 1);
        self.inner.notify_all();
    }

    /// For a seeded bug.
    pub(crate) fn notify_one(&self) {
        NOTIFIED.set(NOTIFIED.get() + 1);
        self.inner.notify_one();
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Deadline {
    Passed,
    /// Passes during the first real wait for it. With the number of the instant it counts from.
    During(u32),
    Never,
}

impl Deadline {
    pub(crate) const NEVER: Self = Self::Never;

    pub(crate) fn at(_: Instant) -> Self {
        Self::During(Time::now().0)
    }

    pub(crate) fn after(timeout: Duration) -> Self {
        DEADLINES.set(DEADLINES.get() + 1);
        match timeout {
            Duration::ZERO => Self::Passed,
            Duration::MAX => Self::Never,
            _ => Time::now().plus(timeout),
        }
    }

    pub(crate) fn has_passed(self) -> bool {
        match self {
            Self::Passed => true,
            Self::During(number) => has_passed(number),
            Self::Never => false,
        }
    }

    pub(crate) fn is_finite(self) -> bool {
        !matches!(self, Self::Never)
    }

    /// Of two that pass while somebody waits, the one that is not over yet.
    pub(crate) fn or_sooner(self, other: Self) -> Self {
        match (self, other) {
            (Self::Passed, _) | (_, Self::Passed) => Self::Passed,
            (deadline, Self::Never) | (Self::Never, deadline) => deadline,
            (Self::During(number), other) => match has_passed(number) {
                true => self,
                false => other,
            },
        }
    }
}

fn has_passed(number: u32) -> bool {
    INSTANTS.get().1 & 1 << number != 0
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Time(u32);

impl Time {
    pub(crate) fn now() -> Self {
        CLOCK_READ.set(CLOCK_READ.get() + 1);
        let (number, passed) = INSTANTS.get();
        assert!(number < 64, "a deadline was made anew, again and again");
        INSTANTS.set((number + 1, passed));
        Self(number)
    }

    pub(crate) fn plus(self, duration: Duration) -> Deadline {
        match duration {
            Duration::MAX => Deadline::Never,
            _ => Deadline::During(self.0),
        }
    }

    pub(crate) fn age(self) -> Duration {
        match has_passed(self.0) {
            true => Duration::MAX - Duration::from_nanos(1),
            false => Duration::ZERO,
        }
    }
}
