//! Who a thread is, and which flights it leads.
//!
//! A thread keeps the list of the flights whose functions it is running in a thread-local, so a lone
//! call takes no lock for it. While the thread waits, `deadlock` has the list. Other threads can ask
//! for a thread's name at any time, by its number; that is written down once per thread.

use std::{
    cell::Cell, cell::RefCell, collections::BTreeMap, mem, num::NonZeroU64, panic::catch_unwind,
    panic::AssertUnwindSafe, thread, thread::Thread,
};

use crate::{
    error::CallError, error::Panicked, panics::Payload, sync::local, sync::thread_local, sync::Arc,
    sync::Unmodelled,
};

/// A flight's identity: no two flights of the process ever have the same.
///
/// Each caller draws one on arrival, from its thread's number and a serial of that thread, so that
/// threads share nothing to draw one. Both have 64 bits and do not wrap in the life of a process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct FlightId {
    /// The number of the thread that took the lead.
    pub(crate) thread: NonZeroU64,
    /// How many that thread has drawn, times two; and one more if the lead can pass to another
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
            let thread = NonZeroU64::new(me.number.get()).unwrap_or_else(|| me.draw_number());
            Self { thread, serial: serial | u64::from(transferable) }
        })
    }

    pub(crate) fn is_transferable(self) -> bool {
        self.serial & 1 == 1
    }
}

/// The threads that have called a group and are still there.
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
        is_nested: Cell::new(false),
    };
}

/// Has no `Drop`, so it can be used in the destructors of other thread-locals.
struct Me {
    /// 0 before the thread's first call.
    number: Cell<u64>,
    drawn: Cell<u64>,
    /// The serial of the flight whose function this thread is running. 0 for none.
    innermost: Cell<u64>,
    /// Whether there are flights around that one.
    is_nested: Cell<bool>,
}

thread_local! {
    static NESTED: RefCell<Nested> = RefCell::default();
}

#[derive(Default)]
struct Nested {
    /// The thread's number in [`THREADS`].
    number: u64,
    /// The serials of the flights around the innermost one, in ascending order: the function of each
    /// called that of the next.
    outer: Vec<u64>,
}

impl Drop for Nested {
    fn drop(&mut self) {
        THREADS.lock().by_number.remove(&self.number);
    }
}

impl Me {
    #[cold]
    fn draw_number(&self) -> NonZeroU64 {
        let mut threads = THREADS.lock();
        threads.drawn += 1;
        let number = threads.drawn;
        self.number.set(number);
        // In the destructor of another thread-local this may be gone: such a thread has a number,
        // but nobody can ask for its name.
        if NESTED.try_with(|nested| nested.borrow_mut().number = number).is_ok() {
            threads.by_number.insert(number, thread::current());
        }
        NonZeroU64::new(number).expect("numbers begin with 1")
    }

    #[inline]
    fn begin(&self, serial: u64) {
        let outer = self.innermost.replace(serial);
        if outer != 0 {
            self.with_outer(|flights| flights.push(outer));
        }
    }

    #[inline]
    fn end(&self, serial: u64) {
        match self.is_nested.get() {
            false => self.innermost.set(0),
            true => self.with_outer(|outer| match self.innermost.get() == serial {
                true => self.innermost.set(outer.pop().unwrap_or(0)),
                // Not the last to begin: the program runs coroutines on this thread.
                false => outer.retain(|other| *other != serial),
            }),
        }
    }

    /// Once the thread-local is gone, only the innermost flight is known, and not even that once a flight
    /// inside it has ended.
    #[cold]
    fn with_outer(&self, change: impl FnOnce(&mut Vec<u64>)) {
        let is_nested = NESTED.try_with(|nested| {
            let outer = &mut nested.borrow_mut().outer;
            change(outer);
            !outer.is_empty()
        });
        self.is_nested.set(is_nested.unwrap_or(false));
    }
}

/// Runs the function of the flights that have these serials on this thread. Catches its panic, and
/// gives the payload as well.
#[inline]
pub(crate) fn run_as_leader<V, E>(
    serials: &[u64],
    f: impl FnOnce() -> Result<V, E>,
) -> (Result<V, CallError<E>>, Option<Payload>) {
    ME.with(|me| serials.iter().for_each(|serial| me.begin(*serial)));
    // Nothing of the function's is looked at after a panic.
    let ran = catch_unwind(AssertUnwindSafe(f));
    ME.with(|me| serials.iter().rev().for_each(|serial| me.end(*serial)));
    match ran {
        Ok(Ok(value)) => (Ok(value), None),
        Ok(Err(error)) => (Err(CallError::Failed(Arc::new(error))), None),
        Err(payload) => (Err(CallError::Panicked(Panicked::of(&*payload))), Some(payload)),
    }
}

/// The serials of the flights that a thread leads, in ascending order.
pub(crate) type OwnFlights = Vec<u64>;

/// Takes this thread's list, without copying it. `None` if the thread leads nothing.
pub(crate) fn take_own() -> Option<OwnFlights> {
    let innermost = ME.with(|me| me.innermost.get());
    (innermost != 0).then(|| {
        let outer = NESTED.try_with(|nested| mem::take(&mut nested.borrow_mut().outer));
        let mut own = outer.unwrap_or_default();
        own.push(innermost);
        own
    })
}

/// Gives this thread its list back.
pub(crate) fn give_back(mut own: OwnFlights) {
    own.pop();
    let _ = NESTED.try_with(|nested| nested.borrow_mut().outer = own);
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
