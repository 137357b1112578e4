//! What each thread leads just now, and what the threads are called.
//!
//! A thread keeps to itself which flights' functions it is running: nobody else reads that list, so
//! it costs a lone call no lock. What others may ask for is a thread's name, by its number; those
//! are written down once for each thread, not for each call.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::thread::{self, Thread};

use crate::sync::{local, thread_local, Figure, Plain};

/// A flight's address, while somebody holds the flight. Never 0.
pub(crate) type FlightId = usize;

/// The threads that have led a flight and are still there.
static THREADS: Plain<BTreeMap<usize, Thread>> = Plain::new(BTreeMap::new());

/// Numbers begin with 1; 0 is nobody's.
static NUMBERS: Figure = Figure::new();

local! {
    static ME: Me = Me {
        number: Cell::new(0),
        innermost: Cell::new(0),
        outer: Cell::new(0),
    };
}

/// Has no `Drop`, for such a thread-local costs next to nothing to get at.
struct Me {
    /// 0 before the thread's first flight.
    number: Cell<usize>,
    /// The flight whose function this thread is running; 0 for none.
    innermost: Cell<FlightId>,
    /// How many there are in [`OUTER`].
    outer: Cell<usize>,
}

thread_local! {
    /// The flights around the innermost one: each one's function called the next one's.
    static OUTER: RefCell<Vec<FlightId>> = RefCell::default();
    static NAME: Name = Name::new();
}

/// A thread's entry in [`THREADS`].
struct Name {
    number: usize,
}

impl Name {
    fn new() -> Self {
        let number = NUMBERS.add() + 1;
        THREADS.lock().insert(number, thread::current());
        Self { number }
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        THREADS.lock().remove(&self.number);
    }
}

/// From here until it is dropped, on the same thread, this thread runs the flight's function.
pub(crate) struct Leading {
    flight: FlightId,
    /// This thread's number; 0 if it has none any more, because it is about to end.
    pub(crate) thread: usize,
}

impl Leading {
    pub(crate) fn new(flight: FlightId) -> Self {
        let thread = ME.with(|me| {
            let around = me.innermost.replace(flight);
            if around != 0 {
                me.enter(around);
            }
            if me.number.get() == 0 {
                me.number
                    .set(NAME.try_with(|name| name.number).unwrap_or(0));
            }
            me.number.get()
        });
        Self { flight, thread }
    }
}

impl Drop for Leading {
    fn drop(&mut self) {
        ME.with(|me| {
            if me.outer.get() == 0 {
                me.innermost.set(0);
            } else {
                me.leave(self.flight);
            }
        });
    }
}

impl Me {
    #[cold]
    fn enter(&self, around: FlightId) {
        let entered = OUTER.try_with(|outer| {
            outer.borrow_mut().push(around);
            outer.borrow().len()
        });
        // If the thread is about to end, its outer flights are not known any more.
        self.outer.set(entered.unwrap_or(0));
    }

    #[cold]
    fn leave(&self, flight: FlightId) {
        let left = OUTER.try_with(|outer| {
            let mut outer = outer.borrow_mut();
            if self.innermost.get() == flight {
                self.innermost.set(outer.pop().unwrap_or(0));
            } else {
                // Not the last one to come: the program switches stacks under our feet.
                outer.retain(|led| *led != flight);
            }
            outer.len()
        });
        self.outer.set(left.unwrap_or(0));
    }
}

/// Whether this thread is running any flight's function.
pub(crate) fn is_leading() -> bool {
    ME.with(|me| me.innermost.get() != 0)
}

/// The flights whose functions this thread is running.
pub(crate) fn leads() -> Vec<FlightId> {
    if !is_leading() {
        return Vec::new();
    }
    ME.with(|me| {
        let outer = OUTER.try_with(|outer| outer.borrow().clone());
        let mut leads = outer.unwrap_or_default();
        leads.push(me.innermost.get());
        leads
    })
}

/// The thread with that number, while it is there.
pub(crate) fn by_number(number: usize) -> Option<Thread> {
    THREADS.lock().get(&number).cloned()
}
