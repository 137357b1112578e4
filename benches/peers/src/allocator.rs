//! The system's allocator, counting while it is told to, for each thread apart. The only `unsafe`
//! here.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};

/// Off where time is measured.
static COUNTS: AtomicBool = AtomicBool::new(false);

thread_local! {
    // Made at compile time and without a destructor: to use them allocates nothing.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    static BYTES: Cell<i64> = const { Cell::new(0) };
}

#[global_allocator]
static COUNTING: Counting = Counting;

struct Counting;

fn note(allocations: u64, bytes: i64) {
    if COUNTS.load(Ordering::Relaxed) {
        ALLOCATIONS.with(|n| n.set(n.get() + allocations));
        BYTES.with(|n| n.set(n.get() + bytes));
    }
}

// SAFETY: every request is passed on to `System` as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(1, layout.size() as i64);
        System.alloc(layout)
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        note(0, -(layout.size() as i64));
        System.dealloc(memory, layout);
    }

    // `alloc_zeroed` and `realloc` come as GlobalAlloc makes them from these two.
}

/// Counts while `f` runs. Not for two threads at a time.
pub fn counting<T>(f: impl FnOnce() -> T) -> T {
    COUNTS.store(true, Ordering::Relaxed);
    let done = f();
    COUNTS.store(false, Ordering::Relaxed);
    done
}

/// How often this thread has allocated while it was counted.
pub fn allocations() -> u64 {
    ALLOCATIONS.with(Cell::get)
}

/// How many more bytes this thread has allocated than freed, while it was counted.
pub fn bytes_held() -> i64 {
    BYTES.with(Cell::get)
}
