//! How long a release takes: from the end of the function until the last of many followers has its
//! value, and until the leader's own call is back.
//!
//! Starting threads costs far more than waking them, so a [`Crew`] of followers lives on from round
//! to round. Between rounds they are parked, which costs one system call each and takes no lock
//! that they share: what they do once they have the value falls into the time measured, too.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle, Thread};
use std::time::Instant;

use peers::{Loaded, Peer, Value};

use crate::hot::until_all_wait;
use crate::rounds::{median, Effort, Progress};

pub const FOLLOWERS: [usize; 5] = [1, 8, 64, 512, 4_096];

/// The size that is quoted, of those.
pub const LARGE: usize = 3;

/// Each is released so often in a round: a release of few is soon over, and varies more.
const TIMES: [usize; 5] = [8, 8, 6, 2, 1];

pub struct Row {
    pub name: &'static str,
    pub of: [Release; FOLLOWERS.len()],
}

impl Row {
    /// Whether the followers were released: most of them, in every round. If they run their own
    /// function it is something else.
    pub fn is_one(&self, size: usize) -> bool {
        self.of[size].strays * 2 < FOLLOWERS[size]
    }

    /// How much longer the leader's return takes with many followers than with one.
    pub fn leader_ratio(&self) -> f64 {
        self.of[LARGE].leader / self.of[0].leader
    }
}

/// Of so many followers.
#[derive(Clone, Copy)]
pub struct Release {
    /// Seconds until the last follower has its value.
    pub last: f64,
    /// Seconds until the leader's call is back.
    pub leader: f64,
    /// The largest number of followers that ran their own function, in any round.
    pub strays: usize,
}

/// The first row is that of a bare broadcast.
pub fn measure(peers: &[Arc<dyn Peer>], effort: Effort) -> Vec<Row> {
    let mut contenders: Vec<Arc<dyn Peer>> = vec![Arc::new(Bare::default())];
    contenders.extend(peers.iter().cloned());
    let crews = FOLLOWERS.map(|followers| Crew::new(followers, contenders.clone()));
    let mut samples = vec![[const { Vec::new() }; FOLLOWERS.len()]; contenders.len()];

    for crew in &crews {
        crew.rounds(1, |_, _| ()); // Warms up.
    }
    let rounds = effort.choose(2, 24);
    for _ in Progress::begin("the release of followers", rounds).rounds() {
        for (i, crew) in crews.iter().enumerate() {
            crew.rounds(effort.choose(1, TIMES[i]), |contender, release| {
                samples[contender][i].push(release)
            });
        }
    }
    let rows = contenders.iter().zip(samples);
    rows.map(|(contender, samples)| Row {
        name: contender.name(),
        of: samples.map(|releases: Vec<Release>| Release {
            last: median(releases.iter().map(|release| release.last)),
            leader: median(releases.iter().map(|release| release.leader)),
            strays: releases.iter().map(|r| r.strays).max().unwrap_or(0),
        }),
    })
    .collect()
}

/// The floor: a value under a mutex and one broadcast. No map, no key, nothing to share or drop.
#[derive(Default)]
struct Bare {
    state: Mutex<State>,
    landed: Condvar,
}

#[derive(Default)]
struct State {
    led: bool,
    value: Option<u64>,
}

impl Peer for Bare {
    fn name(&self) -> &'static str {
        "bare Condvar broadcast"
    }

    fn version(&self) -> &'static str {
        "-"
    }

    fn keeps_values(&self) -> bool {
        false
    }

    fn call(&self, _key: &str, f: &mut dyn FnMut() -> Loaded) -> Loaded {
        let mut state = self.state.lock().unwrap();
        if state.led {
            let woken = self.landed.wait_while(state, |state| state.value.is_none());
            return Ok(Value(woken.unwrap().value.expect("waited for above")));
        }
        *state = State {
            led: true,
            value: None,
        };
        drop(state);
        let loaded = f()?;
        let value = Some(loaded.0);
        *self.state.lock().unwrap() = State { led: false, value };
        self.landed.notify_all();
        Ok(loaded)
    }
}

/// Threads that follow, and whoever makes the crew as their leader.
struct Crew {
    shared: Arc<Shared>,
    followers: Vec<JoinHandle<()>>,
}

struct Shared {
    /// They take turns, one round each.
    contenders: Vec<Arc<dyn Peer>>,
    leader: Thread,
    /// Rounds begun so far.
    round: AtomicUsize,
    over: AtomicBool,
    /// Followers that are about to call, or have called, in this round.
    called: AtomicUsize,
    /// Those whose own function ran.
    strays: AtomicUsize,
    /// Followers that do not have this round's value yet.
    missing: AtomicUsize,
    /// When the last of them got it.
    end: Mutex<Option<Instant>>,
}

impl Crew {
    fn new(followers: usize, contenders: Vec<Arc<dyn Peer>>) -> Self {
        let shared = Arc::new(Shared {
            contenders,
            leader: thread::current(),
            round: AtomicUsize::new(0),
            over: AtomicBool::new(false),
            called: AtomicUsize::new(0),
            strays: AtomicUsize::new(0),
            missing: AtomicUsize::new(0),
            end: Mutex::new(None),
        });
        let follower = || {
            let shared = Arc::clone(&shared);
            // Thousands of them: leave the address space alone.
            let small = thread::Builder::new().stack_size(128 * 1024);
            small.spawn(move || shared.follow()).unwrap()
        };
        Self {
            followers: (0..followers).map(|_| follower()).collect(),
            shared,
        }
    }

    /// So many rounds of each contender, which `took` is told the number of.
    fn rounds(&self, rounds: usize, mut took: impl FnMut(usize, Release)) {
        for _ in 0..rounds {
            for contender in 0..self.shared.contenders.len() {
                took(contender, self.round());
            }
        }
    }

    /// One round of the contender whose turn it is. To be called on the thread that made the crew.
    fn round(&self) -> Release {
        let shared = &*self.shared;
        let round = shared.round.load(Ordering::SeqCst);
        shared.called.store(0, Ordering::SeqCst);
        shared.strays.store(0, Ordering::SeqCst);
        shared.missing.store(self.followers.len(), Ordering::SeqCst);
        let mut ended = None;
        let (contender, key) = shared.contender(round);
        let led = contender.call(&key, &mut || {
            shared.round.fetch_add(1, Ordering::SeqCst);
            self.wake_all();
            until_all_wait(self.followers.len(), &shared.called);
            ended = Some(Instant::now());
            Ok(Value(round as u64))
        });
        let returned = Instant::now();
        assert_eq!(led, Ok(Value(round as u64)));
        let ended = ended.expect("nobody else has begun to lead");
        let last = loop {
            if let Some(end) = shared.end.lock().unwrap().take() {
                break end;
            }
            thread::park();
        };
        Release {
            last: (last - ended).as_secs_f64(),
            leader: (returned - ended).as_secs_f64(),
            strays: shared.strays.load(Ordering::SeqCst),
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
    /// Whose round it is, and the key.
    fn contender(&self, round: usize) -> (&dyn Peer, String) {
        let contender = &*self.contenders[round % self.contenders.len()];
        let key = if contender.keeps_values() {
            // Several crews share the contenders.
            format!("release {round} {:?}", std::ptr::from_ref(self))
        } else {
            "release".to_owned()
        };
        (contender, key)
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
            let (contender, key) = self.contender(round);
            self.called.fetch_add(1, Ordering::SeqCst);
            let got = contender.call(&key, &mut || {
                self.strays.fetch_add(1, Ordering::SeqCst);
                Ok(Value(round as u64))
            });
            assert_eq!(got, Ok(Value(round as u64)));
            if self.missing.fetch_sub(1, Ordering::SeqCst) == 1 {
                *self.end.lock().unwrap() = Some(Instant::now());
                self.leader.unpark();
            }
        }
    }
}
