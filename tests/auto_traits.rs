//! What may be sent, shared and looked at from where. Most of it is decided at compile time: that
//! this file compiles is the test.
#![cfg(not(loom))]

mod common;

use std::cell::{Cell, RefCell};
use std::collections::hash_map::RandomState;
use std::error::Error;
use std::hash::{Hash, Hasher};
use std::io;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::rc::Rc;
use std::sync::MutexGuard;
use std::thread;

use common::{follow, gate, lead, watchdog};
use shared_calls::{
    Builder, CallError, Deadlock, Ending, FlightGroup, Follower, InFlight, Job, Joined, Landed,
    Leader, Observer, Outcome, Panicked, Request, Role, SharedCalls, Stats, StdError, Ticket,
    Unshared, WaitsFor,
};

/// Whether a type has a trait. An inherent constant hides one of the same name that a trait
/// provides, and `Probe` has the inherent one only where the type has the trait.
macro_rules! has {
    ($type:ty: $trait:ident) => {{
        #[allow(dead_code)]
        trait No {
            const HAS: bool = false;
        }
        struct Probe<T: ?Sized>(std::marker::PhantomData<T>);
        impl<T: ?Sized> No for Probe<T> {}
        #[allow(dead_code)]
        impl<T: $trait + ?Sized> Probe<T> {
            const HAS: bool = true;
        }
        <Probe<$type>>::HAS
    }};
}

macro_rules! assert_has {
    ($($type:ty: $($trait:ident),+;)*) => {$($(
        const _: () = assert!(has!($type: $trait), stringify!($type must be $trait));
    )+)*};
}

macro_rules! assert_lacks {
    ($($type:ty: $($trait:ident),+;)*) => {$($(
        const _: () = assert!(!has!($type: $trait), stringify!($type must not be $trait));
    )+)*};
}

type Boxed = Box<dyn Error + Send + Sync>;
type LeaderOf<V, E> = Leader<'static, V, E, String, RandomState>;
type JoinedOf<V, E> = Joined<'static, V, E, String, RandomState>;
type RequestOf<V, E> = Request<'static, 'static, V, E, str>;
type Guard = MutexGuard<'static, ()>;

assert_has! {
    // `Boxed` and `io::Error` are not unwind safe. A group of them is, because a panic leaves nothing
    // of it half-changed.
    FlightGroup<String, io::Error>: Send, Sync, Clone, UnwindSafe, RefUnwindSafe;
    FlightGroup<String, Boxed>: Send, Sync, UnwindSafe, RefUnwindSafe;
    FlightGroup<Cell<u8>, ()>: UnwindSafe, RefUnwindSafe;
    // One thread at a time looks at a key.
    FlightGroup<(), (), Cell<u8>>: Send, Sync;
    // A handle is cloned without what it holds.
    FlightGroup<Guard, Guard, Guard, Guard>: Clone;
    // The trait has them as supertraits.
    dyn SharedCalls<String, Boxed>: Send, Sync;

    LeaderOf<String, Boxed>: Send, Sync;
    Follower<String, Boxed>: Send, Sync;
    JoinedOf<String, Boxed>: Send, Sync;
    Ticket<String, Boxed>: Send, Sync;
    // It may be made on one thread and called on another.
    RequestOf<String, Boxed>: Send;
    Job: Send;
    Outcome<String, Boxed>: Send, Sync;
    Outcome<String, u8>: Clone, PartialEq, Eq;
    CallError<Boxed>: Send, Sync, Clone;
    CallError<u8>: PartialEq, Eq;
    StdError<Boxed>: Send, Sync, Error, Clone;
    Deadlock: Send, Sync, UnwindSafe, RefUnwindSafe, PartialEq, Eq;
    Builder<String, Boxed>: Send, Sync, UnwindSafe, RefUnwindSafe;
    // It holds neither a value nor an error.
    Builder<Guard, Cell<u8>>: Send, Sync;
    Stats: Send, Sync, UnwindSafe, RefUnwindSafe, Copy, PartialEq, Eq;
    InFlight<String>: Send, Sync, UnwindSafe, RefUnwindSafe, Clone, PartialEq, Eq;
    WaitsFor<String>: Send, Sync, UnwindSafe, RefUnwindSafe, Clone;
    Landed: Send, Sync, UnwindSafe, RefUnwindSafe, Clone;
    Ending: Send, Sync, UnwindSafe, RefUnwindSafe, Copy;
    dyn Observer<String>: Send, Sync;
    dyn Observer<Cell<u8>>: Send, Sync;
    Panicked: Send, Sync, UnwindSafe, RefUnwindSafe, PartialEq, Eq;
    Role: Send, Sync, UnwindSafe, RefUnwindSafe;
    Unshared: Send, Sync, UnwindSafe, RefUnwindSafe;
}

assert_lacks! {
    // All callers of a flight clone one value, side by side: it has to be `Sync`.
    FlightGroup<Cell<u8>, ()>: Send, Sync;
    LeaderOf<Cell<u8>, ()>: Send, Sync;
    Follower<Cell<u8>, ()>: Send, Sync;
    JoinedOf<Cell<u8>, ()>: Send, Sync;
    // And it goes from thread to thread: it has to be `Send`.
    FlightGroup<Guard, ()>: Send, Sync;
    Follower<Guard, ()>: Send, Sync;
    // The same holds for errors, in their `Arc`.
    FlightGroup<(), Cell<u8>>: Send, Sync;
    FlightGroup<(), Guard>: Send, Sync;
    CallError<Cell<u8>>: Send, Sync;
    CallError<Guard>: Send, Sync;
    // Any thread may drop a key.
    FlightGroup<(), (), Rc<str>>: Send, Sync;
    InFlight<Rc<str>>: Send, Sync;
    // Errors compare where the function's own do.
    CallError<io::Error>: PartialEq;
    // Any thread uses the hasher.
    FlightGroup<(), (), String, Cell<u8>>: Sync;
}

#[test]
fn a_group_has_a_default_where_its_hasher_has_one() {
    let group: FlightGroup<u32, ()> = Default::default();
    assert_eq!(group.call("k", || Ok(1)).unwrap(), 1);
}

/// No type of the user has to be `Debug`.
#[test]
fn every_type_is_debug_whatever_its_parameters() {
    struct Plain;
    impl Clone for Plain {
        fn clone(&self) -> Self {
            Plain
        }
    }
    let group = FlightGroup::<Plain, Plain>::new();
    assert_eq!(format!("{group:?}"), "FlightGroup { in_flight: 0, .. }");
    let leader = lead(&group, "k");
    let follower = follow(&group, "k");
    assert_eq!(format!("{group:?}"), "FlightGroup { in_flight: 1, .. }");
    assert_eq!(format!("{leader:?}"), "Leader { followers: 1, .. }");
    assert!(format!("{:?}", group.request("k")).starts_with("Request { "));
    assert_eq!(format!("{follower:?}"), "Follower { .. }");
    let flight = group.request("own").call_with(|flight| {
        assert_eq!(format!("{flight:?}"), "Flight { .. }");
        Ok(Plain)
    });
    assert!(flight.is_ok());
    let builder = FlightGroup::<Plain, Plain>::builder().shards(2);
    assert!(format!("{builder:?}").starts_with("Builder { shards: 2, "));
}

#[test]
fn a_job_and_a_ticket_are_debug() {
    let group = FlightGroup::<u32, ()>::new();
    let run = |job: Job| {
        assert_eq!(format!("{job:?}"), "Job { .. }");
        job.run();
    };
    let ticket = group.start("k", run, || Ok(1));
    assert_eq!(format!("{ticket:?}"), "Ticket { is_done: true, .. }");
}

thread_local! {
    static PAUSE: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
}

/// A key that pauses, once, where it is told to, when it is compared.
#[derive(Clone)]
struct Key;

impl Hash for Key {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

impl PartialEq for Key {
    fn eq(&self, _: &Self) -> bool {
        if let Some(pause) = PAUSE.with(|p| p.borrow_mut().take()) {
            pause();
        }
        true
    }
}

impl Eq for Key {}

/// `Debug` does not wait for the map's lock. A caller that looks for what is stuck would be stuck, too.
#[test]
fn a_locked_group_can_be_formatted() {
    let _watchdog = watchdog();
    let group = FlightGroup::<u32, (), Key>::new();
    let (held, gate) = gate();
    let leader = lead(&group, &Key);
    thread::scope(|s| {
        // `Eq` runs under the lock.
        let follower = s.spawn(|| {
            PAUSE.with(|p| *p.borrow_mut() = Some(Box::new(held)));
            follow(&group, &Key)
        });
        gate.begun();
        assert_eq!(format!("{group:?}"), "FlightGroup { in_flight: <locked>, .. }");
        gate.open();
        let follower = follower.join().unwrap();
        let _ = leader.complete(Ok(1));
        assert_eq!(follower.wait().result.unwrap(), 1);
    });
}
