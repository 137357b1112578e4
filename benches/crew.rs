//! Threads that live on from round to round, because starting one costs far more than waking it.
//!
//! Between rounds they are parked, which costs one system call each and takes no lock that they
//! share: what they do once they are done falls into the time measured, too.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle, Thread};
use std::time::Instant;

pub struct Crew {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    /// What each of them does in a round, which it is told the number of.
    work: Box<dyn Fn(usize) + Send + Sync>,
    leader: Thread,
    /// Rounds begun so far.
    round: AtomicUsize,
    over: AtomicBool,
    /// Those that are not done with this round.
    missing: AtomicUsize,
    /// When the last of them was.
    end: Mutex<Option<Instant>>,
}

impl Crew {
    /// So many threads, with stacks of so many bytes, led by the one that makes them.
    pub fn new(threads: usize, stack: usize, work: impl Fn(usize) + Send + Sync + 'static) -> Self {
        let shared = Arc::new(Shared {
            work: Box::new(work),
            leader: thread::current(),
            round: AtomicUsize::new(0),
            over: AtomicBool::new(false),
            missing: AtomicUsize::new(0),
            end: Mutex::new(None),
        });
        let hire = || {
            let shared = Arc::clone(&shared);
            let small = thread::Builder::new().stack_size(stack);
            small.spawn(move || shared.live()).unwrap()
        };
        Self { threads: (0..threads).map(|_| hire()).collect(), shared }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.threads.len()
    }

    /// The number of the next round.
    pub fn next_round(&self) -> usize {
        self.shared.round.load(Ordering::SeqCst)
    }

    /// One round: `lead` summons the threads. Gives what that gives, and when the last of them was
    /// done. To be called on the thread that made the crew.
    pub fn round<T>(&self, lead: impl FnOnce(&dyn Fn()) -> T) -> (T, Instant) {
        self.shared.missing.store(self.len(), Ordering::SeqCst);
        let led = lead(&|| {
            self.shared.round.fetch_add(1, Ordering::SeqCst);
            self.wake_all();
        });
        loop {
            if let Some(end) = self.shared.end.lock().unwrap().take() {
                return (led, end);
            }
            thread::park();
        }
    }

    fn wake_all(&self) {
        for thread in &self.threads {
            thread.thread().unpark();
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        self.wake_all();
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

impl Shared {
    fn live(&self) {
        for round in 0.. {
            while self.round.load(Ordering::SeqCst) <= round {
                if self.over.load(Ordering::SeqCst) {
                    return;
                }
                thread::park();
            }
            (self.work)(round);
            if self.missing.fetch_sub(1, Ordering::SeqCst) == 1 {
                *self.end.lock().unwrap() = Some(Instant::now());
                self.leader.unpark();
            }
        }
    }
}
