//! The hand-written version: what the crate is measured against.
//!
//! The obvious thing to write over a `Mutex<HashMap>`, in go-zero's order: take the call out of the
//! map, then publish its result. Each call that runs its function allocates its key and its `Arc`
//! and wakes whoever may be waiting. It has no answer to a panic. In separate steps, so that a
//! benchmark can stop between them, or take them in another order.

use std::borrow::Borrow;
use std::collections::hash_map::{HashMap, RandomState};
use std::hash::{BuildHasher, Hash};
use std::sync::{Arc, Condvar, Mutex};

pub struct Handwritten<K, T, S = RandomState> {
    calls: Mutex<HashMap<K, Arc<Call<T>>, S>>,
}

pub type Call<T> = (Mutex<Option<T>>, Condvar);

pub enum Seat<T> {
    Leader(Arc<Call<T>>),
    Follower(Arc<Call<T>>),
}

impl<K: Hash + Eq, T: Clone, S: BuildHasher + Default> Handwritten<K, T, S> {
    pub fn new() -> Self {
        Self {
            calls: Mutex::new(HashMap::default()),
        }
    }

    pub fn call<Q>(&self, key: &Q, f: impl FnOnce() -> T) -> T
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        match self.join(key) {
            Seat::Leader(call) => {
                let value = f();
                self.unlink(key);
                land(&call, value.clone());
                value
            }
            Seat::Follower(call) => wait(&call),
        }
    }

    pub fn join<Q>(&self, key: &Q) -> Seat<T>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let mut calls = self.calls.lock().unwrap();
        if let Some(call) = calls.get(key) {
            return Seat::Follower(Arc::clone(call));
        }
        let call = Arc::new((Mutex::new(None), Condvar::new()));
        calls.insert(key.to_owned(), Arc::clone(&call));
        Seat::Leader(call)
    }

    pub fn unlink<Q>(&self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.calls.lock().unwrap().remove(key);
    }
}

pub fn land<T>((value, landed): &Call<T>, result: T) {
    *value.lock().unwrap() = Some(result);
    landed.notify_all();
}

pub fn wait<T: Clone>((value, landed): &Call<T>) -> T {
    let value = value.lock().unwrap();
    let value = landed.wait_while(value, |value| value.is_none()).unwrap();
    value.clone().expect("waited for above")
}
