//! Anything that a caller can do, at random.

use std::time::Duration;

use crate::check::Asked;
use crate::record::{End, Fate, Group, Inner, Recorder, Refusals, Start};

/// Few, so that calls meet.
pub const KEYS: u64 = 3;

/// A group, and its defaults.
pub struct Setting {
    pub group: Group,
    pub defaults: Asked,
    observed: bool,
}

impl Setting {
    /// Without defaults; with a cap, which all calls have then; with limits; and one whose calls run
    /// alone instead of waiting for ever.
    pub fn all() -> [Self; 4] {
        let none = Asked::default();
        let capped = Asked { max_followers: Some(2), ..none };
        let limited = Asked {
            timeout: Some(Duration::from_micros(40)),
            max_age: Some(Duration::from_micros(20)),
            takeovers: 1,
            ..none
        };
        let alone = Asked { alone_on_deadlock: true, ..none };
        let new = |shards, defaults: Asked| {
            let mut builder = Group::builder().shards(shards).observer(Refusals);
            if let Some(timeout) = defaults.timeout {
                builder = builder.timeout(timeout);
            }
            if let Some(age) = defaults.max_age {
                builder = builder.max_age(age);
            }
            if let Some(cap) = defaults.max_followers {
                builder = builder.max_followers(cap);
            }
            if defaults.alone_on_deadlock {
                builder = builder.alone_on_deadlock();
            }
            let group = builder.takeover(defaults.takeovers).build();
            Self { group, defaults, observed: true }
        };
        let plain = Self { group: Group::new(), defaults: none, observed: false };
        [plain, new(2, capped), new(3, limited), new(1, alone)]
    }

    /// One step of anything.
    pub fn step(&self, recorder: &mut Recorder) {
        let group = &self.group;
        let key = recorder.random(KEYS);
        let end = match recorder.random(16) {
            0 => End::Panic,
            1 => End::TextlessPanic,
            2 | 3 => End::Error,
            _ => End::Value,
        };
        match recorder.random(20) {
            0 | 1 => recorder.leave(),
            2..=4 => {
                let inner = self.inner(recorder);
                let waits = recorder.random(3) > 0;
                recorder.join(group, key, end, Asked::default(), inner, waits);
            }
            5 => {
                let asked = self.options(recorder);
                let inner = self.inner(recorder);
                let waits = recorder.random(4) > 0;
                recorder.join(group, key, end, asked, inner, waits);
            }
            6..=9 => {
                let asked = self.options(recorder);
                let asks = recorder.random(2) == 0;
                let inner = self.inner(recorder);
                recorder.request(group, key, end, asked, asks, inner);
            }
            10..=12 => {
                let asked = match recorder.random(2) {
                    0 => Asked::default(),
                    _ => self.options(recorder),
                };
                let job = Start {
                    fate: [Fate::Inline, Fate::Worker, Fate::Dropped][recorder.random(3) as usize],
                    asks: recorder.random(2) == 0,
                    waits: recorder.random(3) > 0,
                };
                recorder.start(group, key, end, asked, job);
            }
            13 => {
                let unshared = recorder.random(2) == 0;
                recorder.forget(group, key, unshared);
            }
            14..=16 => {
                let n = 1 + recorder.random(4);
                let keys: Vec<_> = (0..n).map(|_| recorder.random(KEYS)).collect();
                let inner = self.inner(recorder);
                recorder.call_many(group, &keys, end, inner);
            }
            _ => recorder.call(group, key, end),
        }
    }

    /// A call of a function, now and then.
    fn inner(&self, recorder: &mut Recorder) -> Option<Inner> {
        (recorder.random(4) == 0).then(|| Inner {
            key: recorder.random(KEYS),
            asked: match recorder.random(2) {
                0 => Asked::default(),
                _ => self.options(recorder),
            },
        })
    }

    /// Any of the options together.
    fn options(&self, recorder: &mut Recorder) -> Asked {
        let micros = recorder.random(50);
        let timeout = Duration::from_micros(micros.saturating_sub(20)); // zero, often
        Asked {
            timeout: (recorder.random(3) == 0).then_some(timeout),
            next_flight: recorder.random(2) == 0,
            max_age: match recorder.random(8) {
                0 => Some(Duration::ZERO),
                1 => Some(Duration::from_micros(micros)),
                _ => None,
            },
            takeovers: recorder.random(3) as u32,
            by_error: recorder.random(2) == 0,
            max_followers: (recorder.random(4) == 0).then_some(recorder.random(3) as usize),
            // Where nobody observes the group, the record cannot tell which calls ran alone.
            alone_on_deadlock: self.observed && recorder.random(2) == 0,
            // In a group with a cap all calls have one, so that no flight has more followers.
            without_defaults: self.defaults.max_followers.is_none() && recorder.random(8) == 0,
        }
    }
}
