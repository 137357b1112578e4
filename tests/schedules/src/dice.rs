//! Random numbers that repeat with the seed.

use std::cell::RefCell;

/// SplitMix64.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

std::thread_local! {
    /// All threads of a schedule run on one of the system's and share these.
    static SHARED: RefCell<Dice> = const { RefCell::new(Dice(0)) };
}

/// To be called at the beginning of each schedule.
pub(crate) fn reset(seed: u64) {
    SHARED.set(Dice::new(seed));
}

pub(crate) fn below(n: u64) -> u64 {
    SHARED.with_borrow_mut(|dice| dice.below(n))
}

pub(crate) fn one_in(n: u64) -> bool {
    below(n) == 0
}
