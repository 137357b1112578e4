//! How long a release takes: from the end of the function until the last of many followers has its
//! value, and until the leader's own call is back.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use peers::{Loaded, Peer, Value};

use crate::crew::Crew;
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
    let turns = FOLLOWERS.map(|followers| Turns::new(followers, contenders.clone()));
    let mut samples = vec![[const { Vec::new() }; FOLLOWERS.len()]; contenders.len()];

    for turns in &turns {
        turns.rounds(1, |_, _| ()); // Warms up.
    }
    let rounds = effort.choose(2, 24);
    for _ in Progress::begin("the release of followers", rounds).rounds() {
        for (i, turns) in turns.iter().enumerate() {
            turns.rounds(effort.choose(1, TIMES[i]), |contender, release| {
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
        *state = State { led: true, value: None };
        drop(state);
        let loaded = f()?;
        let value = Some(loaded.0);
        *self.state.lock().unwrap() = State { led: false, value };
        self.landed.notify_all();
        Ok(loaded)
    }
}

/// Contenders that take turns, one round each, with the same followers.
struct Turns {
    crew: Crew,
    shared: Arc<Shared>,
}

struct Shared {
    contenders: Vec<Arc<dyn Peer>>,
    /// Whose turn it is. Set between rounds.
    turn: AtomicUsize,
    /// Followers that are about to call, or have called, in this round.
    called: AtomicUsize,
    /// Those whose own function ran.
    strays: AtomicUsize,
}

impl Turns {
    fn new(followers: usize, contenders: Vec<Arc<dyn Peer>>) -> Self {
        let shared = Arc::new(Shared {
            contenders,
            turn: AtomicUsize::new(0),
            called: AtomicUsize::new(0),
            strays: AtomicUsize::new(0),
        });
        let follow = {
            let shared = Arc::clone(&shared);
            move |round| shared.follow(round)
        };
        Self {
            // Thousands of them: leave the address space alone.
            crew: Crew::new(followers, 128 * 1024, follow),
            shared,
        }
    }

    /// So many rounds of each contender, which `took` is told the number of; each time in another
    /// order, for how the one before leaves the processors makes a difference of a third.
    fn rounds(&self, rounds: usize, mut took: impl FnMut(usize, Release)) {
        let mut order: Vec<_> = (0..self.shared.contenders.len()).collect();
        for _ in 0..rounds {
            fastrand::shuffle(&mut order);
            for &contender in &order {
                took(contender, self.round(contender));
            }
        }
    }

    /// One round of that contender. To be called on the thread that made this.
    fn round(&self, contender: usize) -> Release {
        let (crew, shared) = (&self.crew, &*self.shared);
        let round = crew.next_round();
        shared.turn.store(contender, Ordering::SeqCst);
        shared.called.store(0, Ordering::SeqCst);
        shared.strays.store(0, Ordering::SeqCst);
        let (contender, key) = shared.contender(round);
        let lead = |summon: &dyn Fn()| {
            let mut ended = None;
            let led = contender.call(&key, &mut || {
                summon();
                until_all_wait(crew.len(), &shared.called);
                ended = Some(Instant::now());
                Ok(Value(round as u64))
            });
            let returned = Instant::now();
            assert_eq!(led, Ok(Value(round as u64)));
            (ended.expect("nobody else has begun to lead"), returned)
        };
        let ((ended, returned), last) = crew.round(lead);
        Release {
            last: (last - ended).as_secs_f64(),
            leader: (returned - ended).as_secs_f64(),
            strays: shared.strays.load(Ordering::SeqCst),
        }
    }
}

impl Shared {
    /// Whose round it is, and the key.
    fn contender(&self, round: usize) -> (&dyn Peer, String) {
        let contender = &*self.contenders[self.turn.load(Ordering::SeqCst)];
        let key = if contender.keeps_values() {
            // Several crews share the contenders.
            format!("release {round} {:?}", std::ptr::from_ref(self))
        } else {
            "release".to_owned()
        };
        (contender, key)
    }

    fn follow(&self, round: usize) {
        let (contender, key) = self.contender(round);
        self.called.fetch_add(1, Ordering::SeqCst);
        let got = contender.call(&key, &mut || {
            self.strays.fetch_add(1, Ordering::SeqCst);
            Ok(Value(round as u64))
        });
        assert_eq!(got, Ok(Value(round as u64)));
    }
}
