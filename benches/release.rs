//! How long a release takes: from the end of the leader's function until the last of many
//! followers has the value.
//!
//! Starting threads costs far more than waking them, so a [`Crew`] of followers lives on from round
//! to round. Between rounds they are parked, which costs one system call each and takes no lock
//! that they share: what they do once they have the value falls into the time measured, too.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle, Thread, ThreadId};
use std::time::{Duration, Instant};

use shared_calls::{FlightGroup, Joined};

use crate::handwritten::{self, Handwritten, Seat};

const KEY: &str = "user:42";
const VALUE: u64 = 42;

/// One way to have followers wait and to release them.
pub trait Release: Send + Sync {
    /// Takes the lead, `summon`s the followers, releases them once all are waiting, and says when
    /// that began.
    fn lead(&self, followers: usize, summon: &dyn Fn()) -> Instant;

    /// Waits for the leader's value.
    fn follow(&self) -> u64;
}

/// Returns when `seated` says that all followers are, and have had the time to fall asleep.
fn until_all_wait(followers: usize, seated: impl Fn() -> usize) {
    while seated() < followers {
        thread::sleep(Duration::from_micros(100));
    }
    thread::sleep(Duration::from_millis(1));
}

impl Release for FlightGroup<u64, io::Error> {
    fn lead(&self, followers: usize, summon: &dyn Fn()) -> Instant {
        let Joined::Leader(leader) = self.join(KEY) else {
            unreachable!("the last round is over")
        };
        summon();
        until_all_wait(followers, || leader.followers());
        let begun = Instant::now();
        assert_eq!(leader.complete(Ok(VALUE)).followers, followers);
        begun
    }

    fn follow(&self) -> u64 {
        let Joined::Follower(follower) = self.join(KEY) else {
            unreachable!("the leader waits for all followers")
        };
        follower.wait().result.unwrap()
    }
}

/// The same from inside another flight's function, each follower in one of its own: such waits are
/// written into the graph of who waits for whom.
pub struct Nested {
    outer: FlightGroup<u64, io::Error, ThreadId>,
    hot: FlightGroup<u64, io::Error>,
}

impl Nested {
    pub fn new() -> Self {
        Self {
            outer: FlightGroup::new(),
            hot: FlightGroup::new(),
        }
    }
}

impl Release for Nested {
    fn lead(&self, followers: usize, summon: &dyn Fn()) -> Instant {
        self.hot.lead(followers, summon)
    }

    fn follow(&self) -> u64 {
        let own = thread::current().id();
        self.outer.call(&own, || Ok(self.hot.follow())).unwrap()
    }
}

pub struct ByHand {
    calls: Handwritten<String, Result<u64, Arc<io::Error>>>,
    seated: AtomicUsize,
}

impl ByHand {
    pub fn new() -> Self {
        Self {
            calls: Handwritten::new(),
            seated: AtomicUsize::new(0),
        }
    }
}

impl Release for ByHand {
    fn lead(&self, followers: usize, summon: &dyn Fn()) -> Instant {
        let Seat::Leader(call) = self.calls.join(KEY) else {
            unreachable!("the last round is over")
        };
        self.seated.store(0, Ordering::SeqCst);
        summon();
        until_all_wait(followers, || self.seated.load(Ordering::SeqCst));
        let begun = Instant::now();
        self.calls.unlink(KEY);
        handwritten::land(&call, Ok(VALUE));
        begun
    }

    fn follow(&self) -> u64 {
        let Seat::Follower(call) = self.calls.join(KEY) else {
            unreachable!("the leader waits for all followers")
        };
        self.seated.fetch_add(1, Ordering::SeqCst);
        handwritten::wait(&call).unwrap()
    }
}

/// The floor: a value under a mutex and one broadcast. No map, no key, nothing to share or drop.
pub struct Bare {
    state: Mutex<State>,
    landed: Condvar,
}

struct State {
    seated: usize,
    value: Option<u64>,
}

impl Bare {
    pub fn new() -> Self {
        Self {
            state: Mutex::new(State {
                seated: 0,
                value: None,
            }),
            landed: Condvar::new(),
        }
    }
}

impl Release for Bare {
    fn lead(&self, followers: usize, summon: &dyn Fn()) -> Instant {
        *self.state.lock().unwrap() = State {
            seated: 0,
            value: None,
        };
        summon();
        until_all_wait(followers, || self.state.lock().unwrap().seated);
        let begun = Instant::now();
        self.state.lock().unwrap().value = Some(VALUE);
        self.landed.notify_all();
        begun
    }

    fn follow(&self) -> u64 {
        let mut state = self.state.lock().unwrap();
        state.seated += 1;
        let woken = self.landed.wait_while(state, |state| state.value.is_none());
        woken.unwrap().value.expect("waited for above")
    }
}

/// Threads that follow, and whoever makes the crew as their leader.
pub struct Crew {
    shared: Arc<Shared>,
    followers: Vec<JoinHandle<()>>,
}

struct Shared {
    /// They take turns, one round each.
    contenders: Vec<Arc<dyn Release>>,
    leader: Thread,
    /// Rounds begun so far.
    round: AtomicUsize,
    over: AtomicBool,
    /// Followers that do not have this round's value yet.
    missing: AtomicUsize,
    /// When the last of them got it.
    end: Mutex<Option<Instant>>,
}

impl Crew {
    pub fn new(followers: usize, contenders: Vec<Arc<dyn Release>>) -> Self {
        let shared = Arc::new(Shared {
            contenders,
            leader: thread::current(),
            round: AtomicUsize::new(0),
            over: AtomicBool::new(false),
            missing: AtomicUsize::new(0),
            end: Mutex::new(None),
        });
        let follower = || {
            let shared = Arc::clone(&shared);
            // Hundreds of them: leave the address space alone.
            let small = thread::Builder::new().stack_size(64 * 1024);
            small.spawn(move || shared.follow()).unwrap()
        };
        Self {
            followers: (0..followers).map(|_| follower()).collect(),
            shared,
        }
    }

    /// One round of the contender whose turn it is. To be called on the thread that made the crew.
    pub fn round(&self) -> Duration {
        let Shared { round, missing, .. } = &*self.shared;
        missing.store(self.followers.len(), Ordering::SeqCst);
        let summon = || {
            round.fetch_add(1, Ordering::SeqCst);
            self.wake_all();
        };
        let begun = self
            .shared
            .contender(round.load(Ordering::SeqCst))
            .lead(self.followers.len(), &summon);
        loop {
            if let Some(end) = self.shared.end.lock().unwrap().take() {
                return end - begun;
            }
            thread::park();
        }
    }

    fn wake_all(&self) {
        for follower in &self.followers {
            follower.thread().unpark();
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        self.wake_all();
        for follower in self.followers.drain(..) {
            follower.join().unwrap();
        }
    }
}

impl Shared {
    fn contender(&self, round: usize) -> &dyn Release {
        &*self.contenders[round % self.contenders.len()]
    }

    /// A follower's life.
    fn follow(&self) {
        for round in 0.. {
            while self.round.load(Ordering::SeqCst) <= round {
                if self.over.load(Ordering::SeqCst) {
                    return;
                }
                thread::park();
            }
            assert_eq!(self.contender(round).follow(), VALUE);
            if self.missing.fetch_sub(1, Ordering::SeqCst) == 1 {
                *self.end.lock().unwrap() = Some(Instant::now());
                self.leader.unpark();
            }
        }
    }
}
