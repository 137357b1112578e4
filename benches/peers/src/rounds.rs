//! Rounds in turn, so that whatever else the machine is doing hits all contenders alike, and what
//! becomes of them.

use std::time::{Duration, Instant};

/// How much to do.
#[derive(Clone, Copy)]
pub struct Effort {
    pub quick: bool,
}

impl Effort {
    pub fn choose<T>(self, quick: T, full: T) -> T {
        if self.quick {
            quick
        } else {
            full
        }
    }
}

/// Says how far a measure has come, every other second.
pub struct Progress {
    what: &'static str,
    rounds: usize,
    said: Instant,
}

impl Progress {
    pub fn begin(what: &'static str, rounds: usize) -> Self {
        eprintln!("{what} …");
        Self { what, rounds, said: Instant::now() }
    }

    /// Each round's number, from 0.
    pub fn rounds(mut self) -> impl Iterator<Item = usize> {
        (0..self.rounds).inspect(move |round| {
            if self.said.elapsed() > Duration::from_secs(2) {
                eprintln!("{}: {round} of {} rounds", self.what, self.rounds);
                self.said = Instant::now();
            }
        })
    }
}

pub fn median<T: PartialOrd + Copy>(samples: impl IntoIterator<Item = T>) -> T {
    let mut samples: Vec<_> = samples.into_iter().collect();
    samples.sort_by(|a, b| a.partial_cmp(b).expect("no sample is NaN"));
    samples[samples.len() / 2]
}
