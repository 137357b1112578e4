//! Where several pieces of user code panic in one call: one of the panics goes on, and nothing aborts.
//! Where a `Drop` panics as a call returns, its result is dropped and not leaked, as Rust would do.
#![cfg(not(loom))]

mod common;

use std::cell::Cell;
use std::panic::{catch_unwind, panic_any, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use common::{assert_quiet, follow, lead, panic_text, until, watchdog};
use shared_calls::{
    CallError, Flight, FlightGroup, Job, Joined, Landed, Lookup, Observer, SharedCalls,
    SharedCallsExt,
};

/// Panics whenever it is dropped, also while another panic unwinds.
struct Bomb(&'static str);

impl Bomb {
    /// For a closure that captures the bomb.
    fn name(&self) -> &'static str {
        self.0
    }
}

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("drop of {}", self.0);
    }
}

thread_local! {
    static CLONE_PANICS: Cell<bool> = const { Cell::new(false) };
}

/// A value that is counted. One that is `bad` panics whenever it is dropped.
struct Value {
    bad: bool,
    alive: Arc<AtomicUsize>,
}

impl Value {
    fn new(bad: bool, alive: &Arc<AtomicUsize>) -> Self {
        alive.fetch_add(1, SeqCst);
        Self { bad, alive: Arc::clone(alive) }
    }
}

impl Clone for Value {
    fn clone(&self) -> Self {
        assert!(!CLONE_PANICS.with(Cell::get), "clone of a value");
        Self::new(false, &self.alive)
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, SeqCst);
        assert!(!self.bad, "drop of a value");
    }
}

type Group = FlightGroup<Value, ()>;

/// Calls the group from a thread whose clones panic.
fn clones_panic(call: impl FnOnce()) -> String {
    CLONE_PANICS.with(|panics| panics.set(true));
    let text = panic_text(call);
    CLONE_PANICS.with(|panics| panics.set(false));
    text
}

#[test]
fn a_batch_clones_a_value_and_drops_another() {
    let alive = Arc::default();
    let group = Group::new();
    let values = |bad: [bool; 2]| Ok(bad.map(|bad| Value::new(bad, &alive)).into());
    // The value of "a" is shared, so the batch clones it. Then it drops that of "b".
    let mut follower = None;
    let text = clones_panic(|| {
        drop(group.call_many(&["a", "b"], |_| {
            follower = Some(follow(&group, "a"));
            values([false, true])
        }));
    });
    assert_eq!(text, "clone of a value");
    assert!(follower.unwrap().wait().result.is_ok());
    // The same where it names "a" twice.
    let text = clones_panic(|| {
        drop(group.call_many(&["b", "a", "a"], |_| values([true, false])));
    });
    assert_eq!(text, "clone of a value");
    // The same where it has followed "a".
    let leader = lead(&group, "a");
    let other = follow(&group, "a");
    let mut leader = Some(leader);
    let text = clones_panic(|| {
        drop(group.call_many(&["a", "b"], |_| {
            CLONE_PANICS.with(|panics| panics.set(false));
            drop(leader.take().unwrap().complete(Ok(Value::new(false, &alive))));
            CLONE_PANICS.with(|panics| panics.set(true));
            Ok(vec![Value::new(true, &alive)])
        }));
    });
    assert_eq!(text, "clone of a value");
    drop(other);
    assert_eq!(alive.load(SeqCst), 0);
    assert_eq!(group.stats().calls(), 8);
    assert_quiet(&group);
}

/// Followers that have captured a bomb, and do not run their function.
#[test]
fn a_follower_whose_capture_panics_leaks_no_value() {
    let _watchdog = watchdog();
    let alive = Arc::default();
    let group = &Group::new();
    type Call = fn(&Group, Bomb) -> bool;
    let calls: [(&str, Call); 5] = [
        ("call", |group, bomb| {
            let f = move || panic!("it follows {}", bomb.name());
            group.call("k", f).is_ok()
        }),
        ("call_with", |group, bomb| {
            let request = group.request("k");
            request.call_with(move |_| panic!("it follows {}", bomb.name())).is_ok()
        }),
        ("call_many", |group, bomb| {
            let results = group.call_many(&["k"], move |_| panic!("it follows {}", bomb.name()));
            results[0].is_ok()
        }),
        ("dyn SharedCalls", |group, bomb| {
            let calls: &dyn SharedCalls<Value, ()> = group;
            calls.call("k", move || panic!("it follows {}", bomb.name())).is_ok()
        }),
        ("SharedCallsExt", |group, bomb| {
            SharedCallsExt::call(group, "k", move || panic!("it follows {}", bomb.name())).is_ok()
        }),
    ];
    for (name, call) in calls {
        let leader = lead(group, "k");
        thread::scope(|scope| {
            let text = scope.spawn(move || panic_text(|| assert!(call(group, Bomb("a capture")))));
            until("it follows", || leader.followers() == 1);
            assert!(leader.complete(Ok(Value::new(false, &alive))).result.is_ok());
            assert_eq!(text.join().unwrap(), "drop of a capture", "{name}");
        });
        assert_eq!(alive.load(SeqCst), 0, "{name} leaks a value");
        assert_quiet(group);
    }
    assert_eq!(group.stats().followed, 5);
}

#[test]
fn a_predicate_whose_capture_panics_leaks_no_value() {
    let _watchdog = watchdog();
    let alive = Arc::default();
    let group = Group::new();
    let request = || {
        let bomb = Bomb("the predicate");
        group.request("k").takeover_if(1, move |()| bomb.name().is_empty())
    };
    let f = || Ok(Value::new(false, &alive));
    assert_eq!(panic_text(|| drop(request().call(f))), "drop of the predicate");
    assert_eq!(alive.load(SeqCst), 0, "a leader leaks a value");
    let leader = lead(&group, "k");
    thread::scope(|scope| {
        let text = scope.spawn(|| panic_text(|| drop(request().call(f))));
        until("it follows", || leader.followers() == 1);
        assert!(leader.complete(f()).result.is_ok());
        assert_eq!(text.join().unwrap(), "drop of the predicate");
    });
    assert_eq!(alive.load(SeqCst), 0, "a follower leaks a value");
    // The function panics first.
    let text = panic_text(|| drop(request().call(|| panic!("the function"))));
    assert_eq!(text, "the function");
    // What the function has captured panics first.
    let leader = lead(&group, "k");
    let bomb = Bomb("a capture");
    let f = move || panic!("it follows {}", bomb.name());
    let text = panic_text(|| drop(request().timeout(Duration::ZERO).call(f)));
    assert_eq!(text, "drop of a capture");
    assert_eq!(leader.followers(), 0);
    drop(leader);
    assert_quiet(&group);
}

/// A value may hold the lead of another flight, which nobody else can end.
#[test]
fn a_value_that_nobody_gets_is_dropped() {
    let _watchdog = watchdog();
    let inner: &'static FlightGroup<u32, ()> = Box::leak(Box::default());
    let group = FlightGroup::<Arc<Joined<'static, u32, ()>>, ()>::new();
    let leader = lead(&group, "k");
    thread::scope(|scope| {
        let text = scope.spawn(|| {
            let bomb = Bomb("a capture");
            panic_text(|| drop(group.call("k", move || panic!("it follows {}", bomb.name()))))
        });
        until("it follows", || leader.followers() == 1);
        drop(leader.complete(Ok(Arc::new(inner.join("k")))));
        text.join().unwrap();
    });
    assert_quiet(inner);
}

#[test]
fn what_start_does_not_use_panics_twice() {
    let group = FlightGroup::<u32, ()>::new();
    let leader = lead(&group, "k");
    let text = panic_text(|| {
        let (spawner, function) = (Bomb("the spawner"), Bomb("the function"));
        let spawn = move |_: Job| panic!("it follows {}", spawner.name());
        drop(group.start("k", spawn, move || panic!("it follows {}", function.name())));
    });
    assert_eq!(text, "drop of the spawner");
    assert_eq!(leader.followers(), 0);
    drop(leader);
    assert_quiet(&group);
}

/// Keys that panic whenever they are dropped.
#[derive(Hash)]
struct Name(u32);

struct Key(u32, #[allow(dead_code)] Bomb);

impl Lookup<Key> for Name {
    fn is(&self, key: &Key) -> bool {
        self.0 == key.0
    }
    fn to_key(&self) -> Key {
        Key(self.0, Bomb("a key"))
    }
    fn overwrite(&self, key: &mut Key) {
        key.0 = self.0;
    }
}

#[test]
fn an_unrun_job_of_start_with_drops_its_key_and_its_function() {
    let group = FlightGroup::<u32, (), Key>::new();
    let bomb = Bomb("the function");
    let mut job = None;
    let f = move |_: &Flight<'_>| panic!("it is not run {}", bomb.name());
    let ticket = group.request(&Name(1)).start_with(|it| job = Some(it), f);
    assert_eq!(panic_text(|| drop(job)), "drop of a key");
    assert!(matches!(ticket.wait().result, Err(CallError::Abandoned)));
    assert_quiet(&group);
    // Its retired key panics, too.
    assert_eq!(panic_text(|| drop(group)), "drop of a key");
}

struct BadObserver(#[allow(dead_code)] Bomb);

impl Observer<Key> for BadObserver {
    fn flight_landed(&self, key: &Key, landed: &Landed) {
        assert_eq!((key.0, landed.followers), (1, 0));
    }
}

type BadGroup = FlightGroup<u32, (), Key>;

fn with_bad_observer() -> BadGroup {
    FlightGroup::builder().observer(BadObserver(Bomb("the observer"))).build()
}

/// A ticket that outlives its group lets go of the observer and of its key.
#[test]
fn a_ticket_drops_the_observer_and_a_key() {
    let group = with_bad_observer();
    let mut job = None;
    let ticket = group.request(&Name(1)).start(|it| job = Some(it), || Ok(1));
    job.unwrap().run();
    assert_eq!(panic_text(|| drop(group)), "drop of a key");
    assert_eq!(panic_text(|| drop(ticket)), "drop of the observer");
}

/// The last handle lets go of the observer and of a retired key.
#[test]
fn the_last_handle_drops_the_observer_and_a_key() {
    let group = with_bad_observer();
    let call = || drop(group.call(&Name(1), || Ok(1)));
    assert_eq!(panic_text(call), "drop of a key");
    assert_eq!(panic_text(|| drop(group)), "drop of a key");
    // In a job, which goes on.
    let group = with_bad_observer();
    let mut job = None;
    drop(catch_unwind(AssertUnwindSafe(|| {
        drop(group.request(&Name(1)).start(|it| job = Some(it), || Ok(1)));
    })));
    drop(group);
    job.unwrap().run();
}

/// A caller that takes over goes on whatever the `Drop`s of its old key, the value and the error do.
#[test]
fn a_caller_that_takes_over_is_not_disturbed() {
    let _watchdog = watchdog();
    struct Error(#[allow(dead_code)] Bomb);
    struct Silent;
    impl Observer<Key> for Silent {}
    let group: FlightGroup<u32, Error, Key> = FlightGroup::builder().observer(Silent).build();
    let (text, stats) = thread::scope(|scope| {
        let Joined::Leader(leader) = group.join(&Name(1)) else { unreachable!() };
        let follower = scope.spawn(|| {
            let request = group.request(&Name(1)).takeover_if(1, |_| true);
            // Its own key panics when its flight has ended.
            let text = panic_text(|| drop(request.call(|| Ok(2))));
            (text, group.stats())
        });
        until("it follows", || leader.followers() == 1);
        let text = panic_text(|| drop(leader.complete(Err(Error(Bomb("an error"))))));
        assert!(text.starts_with("drop of"), "{text}");
        follower.join().unwrap()
    });
    assert_eq!(text, "drop of a key");
    assert_eq!((stats.calls(), stats.led, stats.failed), (2, 2, 1));
    assert_quiet(&group);
    drop(catch_unwind(AssertUnwindSafe(|| drop(group))));
}

/// The payload of the function's panic is dropped, because a key's `Drop` panics in its place.
#[test]
fn a_payload_and_a_key_panic_in_a_plain_call() {
    let group = FlightGroup::<u32, (), Key>::new();
    // Too large a look-up form for its key to be kept.
    #[derive(Hash)]
    struct Large([u64; 33]);
    impl Lookup<Key> for Large {
        fn is(&self, key: &Key) -> bool {
            self.0[0] == u64::from(key.0)
        }
        fn to_key(&self) -> Key {
            Key(1, Bomb("a key"))
        }
    }
    let call = || drop(group.call(&Large([1; 33]), || panic_any(Bomb("a payload"))));
    assert_eq!(panic_text(call), "drop of a key");
    assert_eq!(group.stats().panicked, 1);
    assert_quiet(&group);
}

thread_local! {
    /// How often a key can still be made, and which key's comparison panics.
    static KEYS: Cell<usize> = const { Cell::new(usize::MAX) };
    static BAD: Cell<u32> = const { Cell::new(0) };
}

/// A name whose methods panic when they are told to.
#[derive(Hash)]
struct Fragile(u32);

impl Lookup<u32> for Fragile {
    fn is(&self, key: &u32) -> bool {
        assert!(self.0 != BAD.with(Cell::get), "comparing");
        self.0 == *key
    }
    fn to_key(&self) -> u32 {
        let left = KEYS.with(Cell::get).checked_sub(1).expect("making a key");
        KEYS.with(|keys| keys.set(left));
        self.0
    }
}

/// A call that has begun something unwinds with one panic, while the `Drop` of what its function has
/// captured panics as well.
#[test]
fn a_capture_panics_while_its_call_unwinds() {
    let _watchdog = watchdog();
    let group = FlightGroup::<u32, (), u32>::new();
    let f = |bomb: Bomb| move || -> Result<u32, ()> { panic!("it is not run {}", bomb.name()) };
    let capture = || f(Bomb("a capture"));

    // A batch leads key 1 already.
    let other = lead(&group, &Fragile(2));
    BAD.with(|bad| bad.set(2));
    let text = panic_text(|| {
        let f = capture();
        drop(group.call_many(&[&Fragile(1), &Fragile(2)], move |_| f().map(|value| vec![value])));
    });
    assert_eq!(text, "comparing");
    BAD.with(|bad| bad.set(0));
    drop(other);
    assert_quiet(&group);

    // A predicate panics.
    let leader = lead(&group, &Fragile(1));
    thread::scope(|scope| {
        let call = || {
            let request = group.request(&Fragile(1)).takeover_if(1, |()| panic!("the predicate"));
            panic_text(|| drop(request.call(capture())))
        };
        let text = scope.spawn(call);
        until("it follows", || leader.followers() == 1);
        drop(leader.complete(Err(())));
        assert_eq!(text.join().unwrap(), "the predicate");
    });

    // A caller gives a flight up for its age. That counts from when the caller began to wait.
    let leader = lead(&group, &Fragile(1));
    KEYS.with(|keys| keys.set(0));
    let request = group.request(&Fragile(1)).max_age(Duration::from_nanos(1));
    assert!(panic_text(|| drop(request.call(capture()))).contains("making a key"));
    assert_eq!(leader.followers(), 0);
    drop(leader);
    assert_quiet(&group);

    // `start_with` leads, and makes its second key.
    for spawner in [false, true] {
        KEYS.with(|keys| keys.set(1));
        let request = || group.request(&Fragile(3));
        let text = panic_text(|| {
            if spawner {
                let bomb = Bomb("the spawner");
                let spawn = move |_: Job| panic!("it is not run {}", bomb.name());
                drop(request().start_with(spawn, |_| Ok(1)));
            } else {
                let f = capture();
                drop(request().start_with(drop, move |_| f()));
            }
        });
        assert!(text.contains("making a key"), "{text}");
        assert_quiet(&group);
    }
    KEYS.with(|keys| keys.set(usize::MAX));
}

/// A batch compares its own keys with ones that it makes for that.
#[test]
fn a_batch_panics_where_it_compares_its_own_keys() {
    #[derive(Hash)]
    struct Bad;
    impl Lookup<Key> for Bad {
        fn is(&self, _: &Key) -> bool {
            panic!("comparing")
        }
        fn to_key(&self) -> Key {
            Key(1, Bomb("a key"))
        }
    }
    let group = FlightGroup::<u32, (), Key>::new();
    let call = || drop(group.call_many(&[&Bad, &Bad], |_| unreachable!()));
    assert_eq!(panic_text(call), "comparing");
    assert_quiet(&group);
}
