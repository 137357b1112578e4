//! What `src/sync.rs` offers, made of loom's primitives.
//!
//! loom's `Condvar` never wakes without a notification, so code that does not loop would pass. The
//! one here has a budget of spurious wake-ups: as long as it lasts, a wait is an unlock and a lock,
//! which to its caller is a wake-up after an arbitrary delay. With a budget of zero every wait is a
//! real one: only that finds a lost wake-up. So models run with 0, 1 and 2.
//!
//! Time does not pass by itself. A deadline passes while somebody waits for it, and such a wait, too,
//! is an unlock and a lock: whatever the other threads can do in between, they do in some execution.
//! A deadline that is made anew after each wake-up never passes, and the model says so.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::AtomicUsize as StdAtomicUsize;
use std::time::{Duration, Instant};

pub(crate) use loom::thread_local;

/// What is shipped, for what the models leave alone.
#[path = "../src/sync.rs"]
#[allow(unused_imports, unused_macros)]
mod shipped;
pub(crate) use shipped::{Figure, Plain};

/// Whoever else may run has its turn in some execution all the same.
pub(crate) fn yield_now() {}

pub(crate) use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
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
    /// Every look at the clock is a microsecond after the one before.
    static NOW: Cell<usize> = const { Cell::new(0) };
    /// The deadlines made so far; one bit each says whether it has passed.
    static DEADLINES: Cell<(u32, u64)> = const { Cell::new((0, 0)) };
}

/// To be called at the beginning of each execution.
pub(crate) fn reset() {
    NOTIFIED.set(0);
    DEADLINES.set((0, 0));
}

/// Sets how many spurious wake-ups every condition variable made from now on has to spend.
pub(crate) fn set_budget(spurious: usize) {
    BUDGET.set(spurious);
}

/// How often `notify_all` was called since the last time this was asked.
pub(crate) fn take_notified() -> usize {
    NOTIFIED.take()
}

pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard {
            mutex: self,
            inner: self.0.lock().expect("loom does not poison"),
        }
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
        Self {
            inner: loom::sync::Condvar::new(),
            spurious: StdAtomicUsize::new(BUDGET.get()),
        }
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
            let (made, passed) = DEADLINES.get();
            DEADLINES.set((made, passed | 1 << number));
            return mutex.lock();
        }
        MutexGuard {
            mutex,
            inner: self.inner.wait(guard.inner).expect("loom does not poison"),
        }
    }

    pub(crate) fn notify_all(&self) {
        NOTIFIED.set(NOTIFIED.get() + 1);
        self.inner.notify_all();
    }

    pub(crate) fn notify_one(&self) {
        NOTIFIED.set(NOTIFIED.get() + 1);
        self.inner.notify_one();
    }
}

/// Small, that models of a few threads have a crowd.
pub(crate) const CROWD: usize = 2;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Deadline {
    Passed,
    /// Passes during the first real wait for it.
    During(u32),
    Never,
}

impl Deadline {
    pub(crate) fn at(_: Instant) -> Self {
        let (number, passed) = DEADLINES.get();
        DEADLINES.set((number + 1, passed));
        assert!(number < 64, "a deadline was made anew, again and again");
        Self::During(number)
    }

    pub(crate) fn after(patience: Duration) -> Self {
        match patience {
            Duration::ZERO => Self::Passed,
            Duration::MAX => Self::Never,
            _ => Self::at(Instant::now()),
        }
    }

    pub(crate) fn has_passed(self) -> bool {
        match self {
            Self::Passed => true,
            Self::During(number) => DEADLINES.get().1 & 1 << number != 0,
            Self::Never => false,
        }
    }

    pub(crate) fn is_over(self) -> bool {
        matches!(self, Self::Passed)
    }

    pub(crate) fn is_finite(self) -> bool {
        !matches!(self, Self::Never)
    }
}

/// No two looks at the clock see the same time, so all that began is older than an age of zero.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Epoch;

impl Epoch {
    pub(crate) fn begin() -> Self {
        Self
    }

    pub(crate) fn none() -> Self {
        Self
    }

    pub(crate) fn is_none(self) -> bool {
        false
    }

    pub(crate) fn now(self) -> usize {
        NOW.set(NOW.get() + 1);
        NOW.get()
    }
}
