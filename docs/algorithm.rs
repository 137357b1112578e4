use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex};

/// One execution of a function, and everyone who shares its value.
struct Flight<V> {
    value: Mutex<Option<V>>,
    done: Condvar,
}

pub struct Group<V> {
    flights: Mutex<HashMap<String, Arc<Flight<V>>>>,
}

impl<V: Clone> Group<V> {
    pub fn new() -> Self {
        let flights = Mutex::new(HashMap::new());
        Self { flights }
    }

    pub fn call(&self, key: &str, f: impl FnOnce() -> V) -> V {
        let mut flights = self.flights.lock().unwrap();
        if let Some(flight) = flights.get(key) {
            let flight = Arc::clone(flight);
            drop(flights);
            let mut value = flight.value.lock().unwrap();
            while value.is_none() {
                value = flight.done.wait(value).unwrap();
            }
            return value.clone().unwrap();
        }
        let (value, done) = (Mutex::new(None), Condvar::new());
        let flight = Arc::new(Flight { value, done });
        flights.insert(key.to_owned(), Arc::clone(&flight));
        drop(flights);

        let value = f();

        self.flights.lock().unwrap().remove(key); // delete first ...
        *flight.value.lock().unwrap() = Some(value.clone());
        flight.done.notify_all(); // ... done later
        value
    }
}
