//! go-zero's algorithm, written out literally: what the crate is measured against.
//!
//! A map of calls under a mutex. The first caller of a key leads: it runs its function, deletes the
//! key, and then publishes what came of it. This is the algorithm at its best: a wake-up is a system
//! call, so there is one only if somebody waits; and a panic reaches the followers as an error. Each
//! call that leads allocates its key and its `Arc`. In separate steps, so that a benchmark can stop
//! between them, or take them in another order.

use std::borrow::Borrow;
use std::collections::hash_map::{HashMap, RandomState};
use std::hash::{BuildHasher, Hash};
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::sync::{Arc, Condvar, Mutex};

pub struct Literal<K, T, S = RandomState> {
    calls: Mutex<HashMap<K, Arc<Call<T>>, S>>,
}

pub struct Call<T> {
    state: Mutex<State<T>>,
    landed: Condvar,
}

struct State<T> {
    outcome: Option<Result<T, Panicked>>,
    waiters: usize,
}

/// What followers get if the leader's function panics.
#[derive(Clone, Debug)]
pub struct Panicked;

pub enum Joined<T> {
    Leader(Arc<Call<T>>),
    Follower(Arc<Call<T>>),
}

impl<K: Hash + Eq, T: Clone, S: BuildHasher + Default> Literal<K, T, S> {
    pub fn new() -> Self {
        Self { calls: Mutex::new(HashMap::default()) }
    }

    pub fn call<Q>(&self, key: &Q, f: impl FnOnce() -> T) -> Result<T, Panicked>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        match self.join(key) {
            Joined::Follower(call) => call.wait(),
            Joined::Leader(call) => {
                let result = catch_unwind(AssertUnwindSafe(f));
                self.delete(key);
                call.done(result.as_ref().map(T::clone).map_err(|_| Panicked));
                result.map_err(|payload| resume_unwind(payload))
            }
        }
    }

    pub fn join<Q>(&self, key: &Q) -> Joined<T>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let mut calls = self.calls.lock().unwrap();
        if let Some(call) = calls.get(key) {
            return Joined::Follower(Arc::clone(call));
        }
        let call = Arc::new(Call::new());
        calls.insert(key.to_owned(), Arc::clone(&call));
        Joined::Leader(call)
    }

    pub fn delete<Q>(&self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.calls.lock().unwrap().remove(key);
    }
}

impl<T: Clone> Call<T> {
    fn new() -> Self {
        Self { state: Mutex::new(State { outcome: None, waiters: 0 }), landed: Condvar::new() }
    }

    pub fn done(&self, outcome: Result<T, Panicked>) {
        let mut state = self.state.lock().unwrap();
        state.outcome = Some(outcome);
        let waiters = state.waiters;
        drop(state);
        if waiters > 0 {
            self.landed.notify_all();
        }
    }

    pub fn wait(&self) -> Result<T, Panicked> {
        let mut state = self.state.lock().unwrap();
        state.waiters += 1;
        loop {
            if let Some(outcome) = &state.outcome {
                return outcome.clone();
            }
            state = self.landed.wait(state).unwrap();
        }
    }
}
