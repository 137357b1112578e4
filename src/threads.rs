//! Who a thread is, and which flights it leads.
//!
//! A thread keeps the list of the flights whose functions it is running in a thread-local, so a lone
//! call takes no lock for it. While the thread waits, `deadlock` has the list. Other threads can ask
//! for a thread's name at any time, by its number; that is written down once per thread.

use std::{
    any::Any, cell::Cell, cell::RefCell, collections::BTreeMap, mem, num::NonZeroU64,
    panic::catch_unwind, panic::AssertUnwindSafe, thread, thread::Thread,
};

use crate::{
    error::CallError, error::Panicked, sync::local, sync::thread_local, sync::Arc, sync::Unmodelled,
};

/// A flight's identity: no two flights of the process ever have the same.
///
/// The thread that takes the lead draws it, from its own number and a serial of its own, so that
/// threads share nothing to draw one. Both have 64 bits and do not wrap in the life of a process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct FlightId {
    /// The number of the thread that took the lead.
    pub(crate) thread: NonZeroU64,
    /// How many that thread had drawn before, times two; and one if the lead can pass to another
    /// thread, as that of a [`Leader`](crate::Leader) or a [`Job`](crate::Job) can.
    pub(crate) serial: u64,
}

impl FlightId {
    /// `transferable` if it is not known yet which thread will run the function.
    #[inline]
    pub(crate) fn draw(transferable: bool) -> Self {
        ME.with(|me| {
            let serial = me.drawn.get() + 2;
            me.drawn.set(serial);
            let number = NonZeroU64::new(me.number.get());
            let thread = number.unwrap_or_else(|| me.draw_number());
            Self { thread, serial: serial | u64::from(transferable) }
        })
    }

    pub(crate) fn is_transferable(self) -> bool {
        self.serial & 1 == 1
    }
}

/// The threads that have led a flight and are still there.
static THREADS: Unmodelled<Threads> =
    Unmodelled::new(Threads { drawn: 0, by_number: BTreeMap::new() });

struct Threads {
    drawn: u64,
    by_number: BTreeMap<u64, Thread>,
}

local! {
    static ME: Me = Me {
        number: Cell::new(0),
        drawn: Cell::new(0),
        innermost: Cell::new(0),
        has_outer: Cell::new(false),
    };
}

/// Has no `Drop`, so it can be used in the destructors of other thread-locals.
struct Me {
    /// 0 before the thread's first flight.
    number: Cell<u64>,
    drawn: Cell<u64>,
    /// The serial of the flight whose function this thread is running. 0 for none.
    innermost: Cell<u64>,
    /// Whether [`OUTER`] is not empty.
    has_outer: Cell<bool>,
}

thread_local! {
    /// The serials of the flights around the innermost one, in ascending order: the function of each
    /// called that of the next.
    static OUTER: RefCell<Vec<u64>> = RefCell::default();
    static NAME: RefCell<Option<Name>> = RefCell::default();
}

/// A thread's entry in [`THREADS`].
struct Name(u64);

impl Drop for Name {
    fn drop(&mut self) {
        THREADS.lock().by_number.remove(&self.0);
    }
}

impl Me {
    #[cold]
    fn draw_number(&self) -> NonZeroU64 {
        let mut threads = THREADS.lock();
        threads.drawn += 1;
        let number = threads.drawn;
        self.number.set(number);
        // In the destructor of another thread-local the name may be gone: such a thread has a
        // number, but nobody can ask for its name.
        let named = NAME.try_with(|name| *name.borrow_mut() = Some(Name(number)));
        if named.is_ok() {
            threads.by_number.insert(number, thread::current());
        }
        NonZeroU64::new(number).expect("numbers begin with 1")
    }
}

/// Runs the function of the flight that has this serial on this thread. Catches its panic, and gives
/// the payload as well.
#[inline]
pub(crate) fn run_as_leader<V, E>(
    serial: u64,
    f: impl FnOnce() -> Result<V, E>,
) -> (Result<V, CallError<E>>, Option<Payload>) {
    begin(serial);
    // Nothing of the function's is looked at after a panic.
    let ran = catch_unwind(AssertUnwindSafe(f));
    end(serial);
    match ran {
        Ok(Ok(value)) => (Ok(value), None),
        Ok(Err(error)) => (Err(CallError::Failed(Arc::new(error))), None),
        Err(payload) => {
            let panicked = Panicked::of(&*payload);
            (Err(CallError::Panicked(panicked)), Some(payload))
        }
    }
}

/// The same for all flights of a batch.
pub(crate) fn run_as_leader_of_all<V, E>(
    serials: &[u64],
    f: impl FnOnce() -> Result<V, E>,
) -> (Result<V, CallError<E>>, Option<Payload>) {
    let [others @ .., last] = serials else {
        unreachable!("a batch that runs leads a flight");
    };
    others.iter().for_each(|serial| begin(*serial));
    let ran = run_as_leader(*last, f);
    others.iter().rev().for_each(|serial| end(*serial));
    ran
}

/// What a function panicked with.
pub(crate) type Payload = Box<dyn Any + Send>;

#[inline]
fn begin(serial: u64) {
    ME.with(|me| {
        let outer = me.innermost.replace(serial);
        if outer != 0 {
            me.nest(outer);
        }
    });
}

#[inline]
fn end(serial: u64) {
    ME.with(|me| match me.has_outer.get() {
        false => me.innermost.set(0),
        true => me.unnest(serial),
    });
}

impl Me {
    #[cold]
    fn nest(&self, outer: u64) {
        // Once the thread-local is gone, the flights around the innermost one are not known.
        let pushed = OUTER.try_with(|all| all.borrow_mut().push(outer));
        self.has_outer.set(pushed.is_ok());
    }

    #[cold]
    fn unnest(&self, serial: u64) {
        let left = OUTER.try_with(|outer| {
            let mut outer = outer.borrow_mut();
            if self.innermost.get() == serial {
                self.innermost.set(outer.pop().unwrap_or(0));
            } else {
                // Not the last to begin: the program runs coroutines on this thread.
                outer.retain(|other| *other != serial);
            }
            !outer.is_empty()
        });
        self.has_outer.set(left.unwrap_or(false));
    }
}

/// The serials of the flights that a thread leads.
pub(crate) struct OwnFlights {
    innermost: u64,
    outer: Vec<u64>,
}

impl OwnFlights {
    /// Takes this thread's list, without copying it. `None` if the thread leads nothing.
    pub(crate) fn take() -> Option<Self> {
        let innermost = ME.with(|me| me.innermost.get());
        if innermost == 0 {
            return None;
        }
        let outer = OUTER.try_with(|outer| mem::take(&mut *outer.borrow_mut()));
        let outer = outer.unwrap_or_default();
        Some(Self { innermost, outer })
    }

    /// Gives this thread its list back.
    pub(crate) fn give_back(self) {
        let _ = OUTER.try_with(|outer| *outer.borrow_mut() = self.outer);
    }

    pub(crate) fn contain(&self, serial: u64) -> bool {
        self.innermost == serial || self.outer.binary_search(&serial).is_ok()
    }
}

/// Whether this thread runs the function of any flight.
pub(crate) fn is_leading() -> bool {
    ME.with(|me| me.innermost.get() != 0)
}

/// This thread's number. 0 if it has called nothing yet.
pub(crate) fn number() -> u64 {
    ME.with(|me| me.number.get())
}

/// The thread with that number, while it is there.
pub(crate) fn by_number(number: u64) -> Option<Thread> {
    THREADS.lock().by_number.get(&number).cloned()
}
