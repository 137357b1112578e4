//! How long a release takes: from the end of the leader's function until the last of many
//! followers has the value.

use std::io;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use shared_calls::{FlightGroup, Joined};

use crate::crew::Crew;

pub const KEY: &str = "user:42";
pub const VALUE: u64 = 42;

/// One way to have followers wait and to release them.
pub trait Release: Send + Sync {
    /// Takes the lead, `summon`s the followers, releases them once all are waiting, and says when
    /// that began.
    fn lead(&self, followers: usize, summon: &dyn Fn()) -> Instant;

    /// Waits for the leader's value.
    fn follow(&self) -> u64;
}

/// Returns when `seated` says that all followers are, and have had the time to fall asleep.
pub fn until_all_wait(followers: usize, seated: impl Fn() -> usize) {
    while seated() < followers {
        thread::sleep(Duration::from_micros(100));
    }
    thread::sleep(Duration::from_millis(1));
}

impl Release for FlightGroup<u64, io::Error> {
    fn lead(&self, followers: usize, summon: &dyn Fn()) -> Instant {
        let Joined::Leader(leader) = self.join(KEY) else { unreachable!("the last round is over") };
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
        Self { state: Mutex::new(State { seated: 0, value: None }), landed: Condvar::new() }
    }
}

impl Release for Bare {
    fn lead(&self, followers: usize, summon: &dyn Fn()) -> Instant {
        *self.state.lock().unwrap() = State { seated: 0, value: None };
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

/// Contenders that take turns, one round each, with the same followers.
pub struct Turns {
    crew: Crew,
    contenders: Arc<[Arc<dyn Release>]>,
}

impl Turns {
    pub fn new(followers: usize, contenders: Vec<Arc<dyn Release>>) -> Self {
        let contenders: Arc<[_]> = contenders.into();
        let follow = {
            let contenders = Arc::clone(&contenders);
            move |round| assert_eq!(turn(&contenders, round).follow(), VALUE)
        };
        Self {
            // Hundreds of them: leave the address space alone.
            crew: Crew::new(followers, 64 * 1024, follow),
            contenders,
        }
    }

    /// One round of the contender whose turn it is. To be called on the thread that made this.
    pub fn round(&self) -> Duration {
        let contender = turn(&self.contenders, self.crew.next_round());
        let lead = |summon: &dyn Fn()| contender.lead(self.crew.len(), summon);
        let (begun, end) = self.crew.round(lead);
        end - begun
    }
}

fn turn(contenders: &[Arc<dyn Release>], round: usize) -> &dyn Release {
    &*contenders[round % contenders.len()]
}
