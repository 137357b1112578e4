//! Keys, values, errors and panics as a program may have them: they take their time where they are
//! cloned and dropped, look at the group there, and panic now and then.

use std::any::Any;
use std::cell::Cell;
use std::hash::{BuildHasher, Hash, Hasher};
use std::panic::resume_unwind;
use std::time::Duration;

use crate::check::Id;
use crate::{dice, world, Lookup};

std::thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
}

shuttle::thread_local! {
    /// Whether the next clone of a value panics on this thread.
    static CLONE_PANICS: Cell<bool> = Cell::new(false);
}

/// How many values and errors there are. To be taken at the end of each schedule.
pub(crate) fn take_live() -> isize {
    LIVE.take()
}

/// Sets whether the next clone of a value panics on this thread, and tells whether it would have.
pub(crate) fn set_clone_panics(panics: bool) -> bool {
    CLONE_PANICS.with(|it| it.replace(panics))
}

/// Lets other threads run, as any operation of theirs does.
pub(crate) fn pause() {
    shuttle::thread::sleep(Duration::ZERO);
}

/// What user code does where the crate calls it.
pub(crate) fn intrude() {
    // Another thread may be the one that unwinds. Shuttle cannot tell them apart either.
    if std::thread::panicking() {
        return;
    }
    match dice::below(16) {
        0 => world::look(),
        1..=4 => pause(),
        _ => {}
    }
}

#[derive(Debug)]
pub(crate) struct Value(pub(crate) Id);

impl Value {
    pub(crate) fn new(id: Id) -> Self {
        LIVE.set(LIVE.get() + 1);
        Self(id)
    }
}

impl Clone for Value {
    fn clone(&self) -> Self {
        let panics = set_clone_panics(false);
        intrude();
        if panics {
            resume_unwind(Box::new(ClonePanic(self.0)));
        }
        Self::new(self.0)
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        LIVE.set(LIVE.get() - 1);
        intrude();
    }
}

/// Names a flight for each key: those of a batch share one error.
#[derive(Debug)]
pub(crate) struct Failure(Vec<(u64, Id)>);

impl Failure {
    pub(crate) fn new(ids: Vec<(u64, Id)>) -> Self {
        LIVE.set(LIVE.get() + 1);
        Self(ids)
    }

    /// 0 if it does not come from a flight of this key.
    pub(crate) fn id(&self, key: u64) -> Id {
        let mut ids = self.0.iter();
        ids.find(|(of, _)| *of == key).map_or(0, |(_, id)| *id)
    }
}

impl Drop for Failure {
    fn drop(&mut self) {
        LIVE.set(LIVE.get() - 1);
        intrude();
    }
}

pub(crate) struct ClonePanic(pub(crate) Id);
pub(crate) struct PredicatePanic(pub(crate) Id);
pub(crate) struct SpawnerPanic;
pub(crate) struct Textless;

/// Panics when it is dropped.
pub(crate) struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            resume_unwind(Box::new(Textless));
        }
    }
}

/// Ends with a panic, but not by `panic!`, whose hook is for what does not belong here.
pub(crate) fn unwind(payload: impl Any + Send) -> ! {
    resume_unwind(Box::new(payload))
}

#[derive(Debug, PartialEq)]
pub(crate) struct Key(pub(crate) u64);

impl Clone for Key {
    fn clone(&self) -> Self {
        pause(); // Under the map's lock.
        Self(self.0)
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        intrude();
    }
}

/// What keys are looked up by.
#[derive(Hash)]
pub(crate) struct Name(pub(crate) u64);

impl Lookup<Key> for Name {
    fn is(&self, key: &Key) -> bool {
        self.0 == key.0
    }

    fn to_key(&self) -> Key {
        Key(self.0)
    }

    fn overwrite(&self, key: &mut Key) {
        pause(); // Under the map's lock.
        key.0 = self.0;
    }
}

/// Gives all keys one hash, or each its own.
#[derive(Clone, Copy)]
pub(crate) struct Hashing {
    pub(crate) collides: bool,
}

pub(crate) struct Number(u64, bool);

impl BuildHasher for Hashing {
    type Hasher = Number;
    fn build_hasher(&self) -> Number {
        Number(0, self.collides)
    }
}

impl Hasher for Number {
    fn finish(&self) -> u64 {
        if self.1 {
            7
        } else {
            self.0.wrapping_mul(0x9E37_79B9_7F4A_7C15)
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0 << 8 | u64::from(*byte);
        }
    }
}
