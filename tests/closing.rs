//! The instant after the function has returned: its flight is closed, and still in the map.
//!
//! A call that comes now must not share that flight, which may have computed its outcome before the
//! call began; it leads a new one in its place. And the old leader, when it comes to unlink, must
//! leave its successor's entry alone (G6). In real life this lasts some nanoseconds. Here the old
//! leader is stopped where it allocates its error's `Arc`.
#![cfg(not(loom))]

#[path = "common/allocator.rs"]
mod allocator;
mod common;

use std::cell::{Cell, RefCell};
use std::thread;

use allocator::at_next_allocation;
use common::{assert_quiet, follow, gate, lead, panic_text, watchdog};
use shared_calls::{FlightGroup, Role};

type Group = FlightGroup<u32, &'static str>;

#[test]
fn a_call_that_comes_after_the_function_returned_leads() {
    let _watchdog = watchdog();
    let group = Group::new();
    let (held, gate) = gate();
    thread::scope(|s| {
        let old = s.spawn(|| {
            group.call_ex("k", || {
                at_next_allocation(held);
                Err("old")
            })
        });
        gate.begun();
        let new = lead(&group, "k");
        let follower = follow(&group, "k");
        gate.open();

        let old = old.join().unwrap();
        assert_eq!((old.role, old.followers), (Role::Led, 0));
        assert_eq!(old.result.unwrap_err().failed(), Some(&"old"));

        // The old leader has unlinked. The new flight is still there to be joined.
        let late = follow(&group, "k");
        assert_eq!(new.complete(Ok(2)).followers, 2);
        assert_eq!(follower.wait().result.unwrap(), 2);
        assert_eq!(late.wait().result.unwrap(), 2);
    });
    assert_quiet(&group);
}

#[test]
fn the_followers_of_a_replaced_flight_get_its_outcome() {
    let _watchdog = watchdog();
    let group = Group::new();
    let (running, runs) = gate();
    let (held, gate) = gate();
    thread::scope(|s| {
        let old = s.spawn(|| {
            group.call_ex("k", || {
                running();
                at_next_allocation(held);
                Err("old")
            })
        });
        runs.begun();
        let follower = follow(&group, "k");
        runs.open();
        gate.begun();
        let new = lead(&group, "k");
        gate.open();

        let followed = follower.wait();
        assert_eq!(followed.followers, 1);
        assert_eq!(followed.result.unwrap_err().failed(), Some(&"old"));
        assert_eq!(old.join().unwrap().followers, 1);
        assert_eq!(new.followers(), 0);
        assert_eq!(new.complete(Ok(2)).result.unwrap(), 2);
    });
    assert_quiet(&group);
}

thread_local! {
    static PAUSE: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
    static DROP_PANICS: Cell<bool> = const { Cell::new(false) };
}

/// Pauses once in `to_owned` and panics once in `Drop`, where it is told to.
#[derive(PartialEq, Eq, Hash)]
struct Key;

/// The key to ask for. A static, which is never dropped.
static KEY: Key = Key;

impl Clone for Key {
    fn clone(&self) -> Self {
        if let Some(pause) = PAUSE.with(|p| p.borrow_mut().take()) {
            pause();
        }
        Key
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        if DROP_PANICS.with(Cell::take) {
            panic!("in drop");
        }
    }
}

/// A caller has made a key, for it found nobody. Back under the lock it finds a closed flight, takes
/// its place and has a key too many, whose `Drop` panics. It must not hold the key for ever.
#[test]
fn a_caller_that_panics_while_it_takes_over_leaves_the_key_free() {
    let _watchdog = watchdog();
    let group = FlightGroup::<u32, &str, Key>::new();
    let (looked, has_looked) = gate();
    let (held, gate) = gate();
    thread::scope(|s| {
        let successor = s.spawn(|| {
            PAUSE.with(|p| *p.borrow_mut() = Some(Box::new(looked)));
            panic_text(|| {
                DROP_PANICS.with(|d| d.set(true));
                drop(group.call(&KEY, || Ok(2)));
            })
        });
        has_looked.begun();
        let old = s.spawn(|| {
            group.call(&KEY, || {
                at_next_allocation(held);
                Err("old")
            })
        });
        gate.begun();
        has_looked.open();
        assert_eq!(successor.join().unwrap(), "in drop");
        gate.open();
        assert!(old.join().unwrap().is_err());
    });
    assert_quiet(&group);
}
