//! The system's allocator, counting for each thread apart, so that tests which run side by side do
//! not disturb one another. The only `unsafe` of this package.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

type Interrupt = &'static dyn Fn();

thread_local! {
    // Made at compile time and without a destructor: to use them allocates nothing.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    static BYTES: Cell<isize> = const { Cell::new(0) };
    static INTERRUPT: Cell<Option<Interrupt>> = const { Cell::new(None) };
    static AT_FREE: Cell<Option<(usize, Interrupt)>> = const { Cell::new(None) };
}

#[global_allocator]
static COUNTING: Counting = Counting;

struct Counting;

impl Counting {
    fn allocates(&self, bytes: usize) {
        ALLOCATIONS.with(|n| n.set(n.get() + 1));
        BYTES.with(|n| n.set(n.get() + bytes as isize));
        if let Some(interrupt) = INTERRUPT.with(Cell::take) {
            interrupt();
        }
    }

    fn frees(&self, bytes: usize) {
        BYTES.with(|n| n.set(n.get() - bytes as isize));
        if let Some((at_least, interrupt)) = AT_FREE.with(Cell::get) {
            if bytes >= at_least {
                AT_FREE.with(|at| at.set(None));
                interrupt();
            }
        }
    }
}

// SAFETY: every request is passed on to `System` as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.allocates(layout.size());
        System.alloc(layout)
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        self.frees(layout.size());
        System.dealloc(memory, layout);
    }

    // `alloc_zeroed` and `realloc` come as GlobalAlloc makes them from these two.
}

/// How often this thread allocates while `f` runs.
#[allow(dead_code)] // each test file uses some of it
pub fn allocations(f: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.with(Cell::get);
    f();
    ALLOCATIONS.with(Cell::get) - before
}

/// How many more bytes this thread has allocated than freed.
#[allow(dead_code)]
pub fn bytes_held() -> isize {
    BYTES.with(Cell::get)
}

/// Runs `f` inside the next allocation on this thread: a way to stop at a point of the group's own
/// code where it runs none of the user's.
#[allow(dead_code)]
pub fn at_next_allocation(f: impl FnOnce() + 'static) {
    INTERRUPT.with(|i| i.set(Some(once(f))));
}

/// Runs `f` when this thread next frees a block of at least so many bytes.
#[allow(dead_code)]
pub fn at_next_free_of(bytes: usize, f: impl FnOnce() + 'static) {
    AT_FREE.with(|at| at.set(Some((bytes, once(f)))));
}

fn once(f: impl FnOnce() + 'static) -> Interrupt {
    let f = Cell::new(Some(f));
    Box::leak(Box::new(move || {
        if let Some(f) = f.take() {
            f();
        }
    }))
}
