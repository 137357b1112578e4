//! What `src/sync.rs` offers, counting what each thread does: locks, wake-ups and clock readings.

use std::any::type_name;
use std::cell::RefCell;
use std::time::{Duration, Instant};

/// What is shipped, and does the work.
#[path = "../../src/sync.rs"]
mod shipped;
pub(crate) use shipped::{global, local, thread_local, Arc, Counter, MutexGuard};

/// What a thread has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Done {
    /// Acquisitions of the lock of a group's map.
    pub(crate) map: usize,
    /// Acquisitions of other locks, by the type of what they guard.
    pub(crate) others: Vec<&'static str>,
    pub(crate) notified: usize,
    pub(crate) clock_read: usize,
}

std::thread_local! {
    static DONE: RefCell<Done> = RefCell::default();
}

/// What this thread does while `f` runs.
pub(crate) fn done<T>(f: impl FnOnce() -> T) -> (Done, T) {
    let before = DONE.take();
    let value = f();
    (DONE.replace(before), value)
}

fn count(add: impl FnOnce(&mut Done)) {
    // A thread that ends may lock once more, in the destructor of another thread-local.
    let _ = DONE.try_with(|done| add(&mut done.borrow_mut()));
}

fn count_clock_reading() {
    count(|done| done.clock_read += 1);
}

pub(crate) struct Mutex<T>(shipped::Mutex<T>);

pub(crate) type Unmodelled<T> = Mutex<T>;

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(shipped::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        count(|done| match type_name::<T>() {
            name if name.contains("::map::Map<") => done.map += 1,
            name => done.others.push(name),
        });
        self.0.lock()
    }

    pub(crate) fn lock_spinning(&self) -> MutexGuard<'_, T> {
        self.lock()
    }

    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        self.0.try_lock()
    }
}

pub(crate) struct Condvar(shipped::Condvar);

impl Condvar {
    pub(crate) fn new() -> Self {
        Self(shipped::Condvar::new())
    }

    pub(crate) fn wait<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        deadline: Deadline,
    ) -> MutexGuard<'a, T> {
        if deadline.is_finite() {
            count_clock_reading();
        }
        self.0.wait(guard, deadline.0)
    }

    pub(crate) fn notify_all(&self) {
        count(|done| done.notified += 1);
        self.0.notify_all();
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(shipped::Deadline);

impl Deadline {
    pub(crate) const NEVER: Self = Self(shipped::Deadline::NEVER);

    pub(crate) fn at(instant: Instant) -> Self {
        Self(shipped::Deadline::at(instant))
    }

    pub(crate) fn after(timeout: Duration) -> Self {
        Time::now().plus(timeout)
    }

    pub(crate) fn has_passed(self) -> bool {
        if self.is_finite() {
            count_clock_reading();
        }
        self.0.has_passed()
    }

    pub(crate) fn is_finite(self) -> bool {
        self.0.is_finite()
    }

    pub(crate) fn or_sooner(self, other: Self) -> Self {
        Self(self.0.or_sooner(other.0))
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Time(shipped::Time);

impl Time {
    pub(crate) fn now() -> Self {
        count_clock_reading();
        Self(shipped::Time::now())
    }

    pub(crate) fn plus(self, duration: Duration) -> Deadline {
        Deadline(self.0.plus(duration))
    }

    pub(crate) fn age(self) -> Duration {
        count_clock_reading();
        self.0.age()
    }
}
