//! Whatever panics, no caller is left waiting, and the key is free at once (G4).
//!
//! First the shared function, as in the panic tests of `golang.org/x/sync/singleflight`
//! (`TestPanicDo`, `TestPanicDoSharedByDoChan`; for `TestGoexitDo`, which has no counterpart among
//! threads, a dropped `Leader` is the nearest). Then all other code of the user's that a group
//! runs: `Hash`, `Eq`, `Borrow`, `to_owned` and `Drop` of keys, `Clone` and `Drop` of values, `Drop`
//! of errors.
#![cfg(not(loom))]

mod common;

use std::any::Any;
use std::borrow::Borrow;
use std::cell::RefCell;
use std::hash::{Hash, Hasher};
use std::panic::{catch_unwind, panic_any, AssertUnwindSafe};
use std::sync::{mpsc, Arc, Mutex};
use std::thread;
use std::time::Duration;

use common::{
    assert_quiet, follow, gate, lead, panic_text, until, until_queued, until_waiting, watchdog,
};
use shared_calls::{CallError, FlightGroup, Joined, Landed, Observer, Outcome, Panicked, Role};

type Group = FlightGroup<u32, ()>;

/// A call whose function panics when it has three followers. Gives what the leader unwound with
/// and what each follower learned.
fn panic_with_three_followers(
    payload: impl Any + Send,
) -> (Box<dyn Any + Send>, Vec<Outcome<u32, ()>>) {
    let _watchdog = watchdog();
    let group = Group::new();
    let (held, gate) = gate();
    thread::scope(|s| {
        let leader = s.spawn(|| {
            group.call("k", || {
                held();
                panic_any(payload)
            })
        });
        gate.begun();
        let followers = [0; 3].map(|_| follow(&group, "k"));
        gate.open();
        let outcomes = followers.map(|follower| {
            let outcome = follower.wait();
            // A caller that knows of the panic finds the key free.
            assert!(group.call_ex("k", || Ok(1)).fresh());
            outcome
        });
        let unwound = leader.join().expect_err("the leader panics");
        assert_quiet(&group);
        (unwound, outcomes.into())
    })
}

#[track_caller]
fn panicked(outcome: Outcome<u32, ()>) -> Panicked {
    assert_eq!((outcome.role, outcome.followers), (Role::Followed, 3));
    match outcome.result {
        Err(CallError::Panicked(panicked)) => panicked,
        other => panic!("unexpected: {other:?}"),
    }
}

#[test]
fn a_joined_leader_that_runs_its_function_panics_like_a_call() {
    let _watchdog = watchdog();
    let group = Group::new();
    let Joined::Leader(leader) = group.join("k") else { unreachable!("nobody is there") };
    let Joined::Follower(follower) = group.join("k") else { unreachable!("it is led, above") };
    let unwound = panic_text(|| drop(leader.run(|| panic!("disk on fire"))));
    assert_eq!(unwound, "disk on fire");
    match follower.wait().result {
        Err(CallError::Panicked(panicked)) => assert_eq!(panicked.message(), Some("disk on fire")),
        other => panic!("unexpected: {other:?}"),
    }
    assert_quiet(&group);
}

#[test]
fn a_panic_with_a_static_text_reaches_all_callers() {
    let (unwound, followers) = panic_with_three_followers("disk on fire");
    assert_eq!(*unwound.downcast::<&str>().unwrap(), "disk on fire");
    for outcome in followers {
        let panicked = panicked(outcome);
        assert_eq!(panicked.message(), Some("disk on fire"));
        assert_eq!(panicked.to_string(), "the leader of the shared call panicked: disk on fire");
    }
}

#[test]
fn a_panic_with_a_formatted_text_reaches_all_callers() {
    let (unwound, followers) = panic_with_three_followers(format!("disk {} on fire", 2));
    assert_eq!(*unwound.downcast::<String>().unwrap(), "disk 2 on fire");
    for outcome in followers {
        assert_eq!(panicked(outcome).message(), Some("disk 2 on fire"));
    }
}

#[test]
fn any_other_payload_reaches_only_the_leader() {
    #[derive(Debug, PartialEq)]
    struct Odd(Vec<u8>);

    let (unwound, followers) = panic_with_three_followers(Odd(vec![1, 2]));
    assert_eq!(*unwound.downcast::<Odd>().unwrap(), Odd(vec![1, 2]));
    for outcome in followers {
        let panicked = panicked(outcome);
        assert_eq!(panicked.message(), None);
        assert_eq!(panicked.to_string(), "the leader of the shared call panicked");
    }
}

/// `TestPanicDo`: five callers at once, in whatever order. In Go all five panic; here those that
/// followed get an error. Nobody hangs.
#[test]
fn callers_in_any_order_all_learn_of_a_panic() {
    let _watchdog = watchdog();
    let group = Group::new();
    for _ in 0..100 {
        thread::scope(|s| {
            for _ in 0..5 {
                s.spawn(|| {
                    let call = || group.call("k", || panic_any(7_u8));
                    match catch_unwind(AssertUnwindSafe(call)) {
                        Err(payload) => assert_eq!(payload.downcast_ref(), Some(&7_u8)),
                        Ok(result) => assert!(matches!(result, Err(CallError::Panicked(_)))),
                    }
                });
            }
        });
        assert_quiet(&group);
    }
}

#[test]
fn other_keys_do_not_notice() {
    let _watchdog = watchdog();
    let group = Group::new();
    let other = lead(&group, "other");
    let follower = follow(&group, "other");
    assert_eq!(panic_text(|| drop(group.call("k", || panic!("k fell")))), "k fell");
    assert_eq!(other.followers(), 1);
    assert_eq!(other.complete(Ok(1)).result.unwrap(), 1);
    assert_eq!(follower.wait().result.unwrap(), 1);
    assert_quiet(&group);
}

/// `TestGoexitDo`, as near as threads come to it: the leader goes away, by `drop` or by a panic
/// that is none of its function's.
#[test]
fn a_dropped_leader_abandons_its_five_followers() {
    let _watchdog = watchdog();
    let group = Group::new();
    for by_panic in [false, true] {
        let leader = lead(&group, "k");
        thread::scope(|s| {
            let followers = [0; 5].map(|_| s.spawn(|| group.call_ex("k", || Ok(1))));
            until("five followers", || leader.followers() == 5);
            if by_panic {
                let unwinds = || {
                    let _leader = leader;
                    panic!("in the middle of something else")
                };
                panic_text(unwinds);
            } else {
                drop(leader);
            }
            assert!(group.call_ex("k", || Ok(2)).fresh(), "the key is free at once");
            for follower in followers {
                let outcome = follower.join().unwrap();
                assert!(matches!(outcome.result, Err(CallError::Abandoned)));
                assert_eq!((outcome.role, outcome.followers), (Role::Followed, 5));
            }
        });
        assert_quiet(&group);
    }
}

// From here on: panics in code of the user's other than the function.

/// Where the next panic is to happen.
#[derive(Clone, Copy, Debug, PartialEq)]
enum At {
    Hash,
    Eq,
    Borrow,
    ToOwned,
    KeyDrop,
    ValueClone,
    ValueDrop,
    ErrorDrop,
}

/// What the traps below do when code runs into them.
type Trap = (At, Box<dyn FnOnce()>);

thread_local! {
    /// The traps that are set on this thread. Each goes off once.
    static TRAPS: RefCell<Vec<Trap>> = const { RefCell::new(Vec::new()) };
}

fn set_trap(at: At, trap: impl FnOnce() + 'static) {
    TRAPS.with(|traps| traps.borrow_mut().push((at, Box::new(trap))));
}

/// The next code on this thread that comes by `at` panics.
fn arm(at: At) {
    set_trap(at, move || panic!("in {at:?}"));
}

fn pass(at: At) {
    // A test that fails must not abort the others by a second panic.
    if thread::panicking() {
        return;
    }
    let sprung = TRAPS.with(|traps| {
        let mut traps = traps.borrow_mut();
        let i = traps.iter().position(|(place, _)| *place == at)?;
        Some(traps.remove(i).1)
    });
    if let Some(sprung) = sprung {
        sprung();
    }
}

/// A key as it is looked up, and as it is owned. Two types, so that `Borrow` and `to_owned` are user
/// code as well.
#[derive(Debug)]
struct Name(u32);
struct Key(Name);

/// The names that a group keeps no key of, because it has enough.
const FILL: [Name; 4] = [Name(91), Name(92), Name(93), Name(94)];

/// Makes a group keep as many retired keys as it does, so that the next one is dropped.
fn fill(group: &Trapped) {
    let leaders: Vec<_> = FILL.iter().map(|name| lead(group, name)).collect();
    leaders.into_iter().for_each(drop);
}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        pass(At::Hash);
        self.0.hash(state);
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        pass(At::Eq);
        self.0 == other.0
    }
}

impl Eq for Name {}

impl ToOwned for Name {
    type Owned = Key;
    fn to_owned(&self) -> Key {
        pass(At::ToOwned);
        Key(Name(self.0))
    }
}

impl Borrow<Name> for Key {
    fn borrow(&self) -> &Name {
        pass(At::Borrow);
        &self.0
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        pass(At::KeyDrop);
    }
}

#[derive(Debug, PartialEq)]
struct Value(u32);

impl Clone for Value {
    fn clone(&self) -> Self {
        pass(At::ValueClone);
        Value(self.0)
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        pass(At::ValueDrop);
    }
}

#[derive(Debug)]
struct Fault;

impl Drop for Fault {
    fn drop(&mut self) {
        pass(At::ErrorDrop);
    }
}

type Trapped = FlightGroup<Value, Fault, Key>;

const KEY: Name = Name(1);
const OTHER: Name = Name(2);
const RETIRED: Name = Name(3);

/// Runs `act` on a group that has another flight with a follower, expects it to panic `at` the place
/// armed by [`arm`], and the group to be as good as ever afterwards.
fn survives(at: At, act: impl FnOnce(&Trapped)) {
    let _watchdog = watchdog();
    let group = Trapped::new();
    let leader = lead(&group, &OTHER);
    let follower = follow(&group, &OTHER);

    assert_eq!(panic_text(|| act(&group)), format!("in {at:?}"));

    // Another thread finds the lock free and the key, too.
    thread::scope(|s| {
        s.spawn(|| assert!(group.call_ex(&KEY, || Ok(Value(1))).fresh()));
    });
    // The flight that was under way all the time has not noticed.
    let led = leader.complete(Ok(Value(2)));
    assert_eq!((led.result.unwrap(), led.followers), (Value(2), 1));
    assert_eq!(follower.wait().result.unwrap(), Value(2));
    assert_quiet(&group);
}

/// Calls on `KEY` with the trap armed; the function must not run.
fn call_trapped(group: &Trapped, at: At) {
    arm(at);
    let _ = group.call(&KEY, || unreachable!("the key panics first"));
}

#[test]
fn hash_panics() {
    survives(At::Hash, |group| call_trapped(group, At::Hash));
}

#[test]
fn to_owned_panics() {
    survives(At::ToOwned, |group| call_trapped(group, At::ToOwned));
}

/// The same where the group has a retired key to write over.
#[test]
fn to_owned_panics_in_a_warm_group() {
    survives(At::ToOwned, |group| {
        let _ = group.call(&RETIRED, || Ok(Value(1)));
        call_trapped(group, At::ToOwned);
    });
}

/// Writing over a retired key drops what it was.
#[test]
fn drop_of_a_retired_key_panics() {
    survives(At::KeyDrop, |group| {
        let _ = group.call(&RETIRED, || Ok(Value(1)));
        call_trapped(group, At::KeyDrop);
    });
}

/// `Eq` and `Borrow` run under the map's lock, and only where there is a flight to compare with.
#[test]
fn comparing_panics() {
    for at in [At::Eq, At::Borrow] {
        survives(at, |group| {
            let leader = lead(group, &KEY);
            let panic = panic_text(|| call_trapped(group, at));
            // The caller that panicked is no follower, and the flight goes on.
            assert_eq!(leader.followers(), 0);
            let follower = follow(group, &KEY);
            let _ = leader.complete(Ok(Value(1)));
            assert_eq!(follower.wait().result.unwrap(), Value(1));
            panic!("{panic}");
        });
    }
}

/// A key that is not kept is dropped by the leader, however the flight ends.
#[test]
fn drop_of_the_key_panics() {
    survives(At::KeyDrop, |group| {
        let leader = lead(group, &KEY);
        fill(group);
        let follower = follow(group, &KEY);
        arm(At::KeyDrop);
        let panic = panic_text(|| drop(leader.complete(Ok(Value(1)))));
        assert_eq!(follower.wait().result.unwrap(), Value(1));
        panic!("{panic}");
    });
}

#[test]
fn drop_of_an_abandoned_key_panics() {
    survives(At::KeyDrop, |group| {
        let leader = lead(group, &KEY);
        fill(group);
        let follower = follow(group, &KEY);
        arm(At::KeyDrop);
        let panic = panic_text(|| drop(leader));
        assert!(matches!(follower.wait().result, Err(CallError::Abandoned)));
        panic!("{panic}");
    });
}

/// The function panics, and then the key does: the followers learn of the function's panic.
#[test]
fn drop_of_the_key_panics_after_the_function_has() {
    let _watchdog = watchdog();
    let group = Trapped::new();
    let (held, gate) = gate();
    thread::scope(|s| {
        let leader = s.spawn(|| {
            group.call(&KEY, || {
                held();
                arm(At::KeyDrop);
                panic!("in the function")
            })
        });
        gate.begun();
        fill(&group);
        let follower = follow(&group, &KEY);
        gate.open();
        match follower.wait().result {
            Err(CallError::Panicked(p)) => assert_eq!(p.message(), Some("in the function")),
            other => panic!("unexpected: {other:?}"),
        }
        assert!(leader.join().is_err());
    });
    assert!(group.call_ex(&KEY, || Ok(Value(1))).fresh());
    assert_quiet(&group);
}

/// `forget` and `max_age` make a key for the list of given-up flights, under the lock.
#[test]
fn to_owned_panics_where_a_flight_is_given_up() {
    survives(At::ToOwned, |group| {
        let leader = lead(group, &KEY);
        arm(At::ToOwned);
        let forgets = panic_text(|| assert!(!group.forget(&KEY)));
        assert_eq!(forgets, "in ToOwned");
        arm(At::ToOwned);
        let request = group.request(&KEY).max_age(Duration::ZERO);
        let panic = panic_text(|| drop(request.join()));
        // The flight was not given up.
        assert_eq!(leader.followers(), 0);
        let follower = follow(group, &KEY);
        assert_eq!(leader.complete(Ok(Value(1))).followers, 1);
        assert_eq!(follower.wait().result.unwrap(), Value(1));
        panic!("{panic}");
    });
}

/// The predicate of `takeover_if` panics in its own call only.
#[test]
fn a_predicate_panics_in_its_own_call() {
    let _watchdog = watchdog();
    let group = FlightGroup::<u32, &str>::new();
    let leader = lead(&group, "k");
    thread::scope(|s| {
        let panics = s.spawn(|| {
            let request = group.request("k").takeover_if(1, |_| panic!("predicate"));
            panic_text(|| drop(request.call(|| Ok(2))))
        });
        let plain = s.spawn(|| group.call("k", || Ok(2)));
        until("both follow", || leader.followers() == 2);
        let _ = leader.complete(Err("no"));
        assert_eq!(panics.join().unwrap(), "predicate");
        assert_eq!(plain.join().unwrap().unwrap_err().failed(), Some(&"no"));
    });
    assert_quiet(&group);
}

#[test]
fn clone_of_the_value_panics_in_the_leader() {
    survives(At::ValueClone, |group| {
        let leader = lead(group, &KEY);
        let follower = follow(group, &KEY);
        arm(At::ValueClone);
        // The follower, who holds on to the flight, is why the leader has to clone.
        let panic = panic_text(|| drop(leader.complete(Ok(Value(1)))));
        assert_eq!(follower.wait().result.unwrap(), Value(1));
        panic!("{panic}");
    });
}

/// moka 0.12 loses the key for good here.
#[test]
fn clone_of_the_value_panics_in_a_follower() {
    survives(At::ValueClone, |group| {
        let leader = lead(group, &KEY);
        let [first, second] = [follow(group, &KEY), follow(group, &KEY)];
        let led = leader.complete(Ok(Value(1)));
        arm(At::ValueClone);
        let panic = panic_text(|| drop(first.wait()));
        assert_eq!(second.wait().result.unwrap(), Value(1));
        assert_eq!(led.result.unwrap(), Value(1));
        panic!("{panic}");
    });
}

/// A follower that leaves a landed flight as the last one drops the value.
#[test]
fn drop_of_the_value_panics() {
    survives(At::ValueDrop, |group| {
        let leader = lead(group, &KEY);
        let follower = follow(group, &KEY);
        let _led = leader.complete(Ok(Value(1)));
        arm(At::ValueDrop);
        drop(follower);
    });
}

/// A caller makes a copy while all others let go of the value, and is left with the value itself. However
/// many of these panic, one panic goes on.
#[test]
fn clone_and_drop_of_one_value_panic() {
    struct Value {
        clone_panics: bool,
    }
    impl Clone for Value {
        fn clone(&self) -> Self {
            pass(At::ValueClone);
            assert!(!self.clone_panics, "clone");
            Self { ..*self }
        }
    }
    impl Drop for Value {
        fn drop(&mut self) {
            // While another panic unwinds, this aborts.
            panic!("drop");
        }
    }
    for clone_panics in [true, false] {
        let group = FlightGroup::<Value, ()>::new();
        let leader = lead(&group, "k");
        let follower = follow(&group, "k");
        set_trap(At::ValueClone, || drop(follower));
        let complete = || drop(leader.complete(Ok(Value { clone_panics })));
        assert_eq!(panic_text(complete), if clone_panics { "clone" } else { "drop" });
        assert_quiet(&group);
    }
}

/// And the error, which all share, when it is the last one to hold it.
#[test]
fn drop_of_the_error_panics() {
    survives(At::ErrorDrop, |group| {
        let leader = lead(group, &KEY);
        let follower = follow(group, &KEY);
        drop(leader.complete(Err(Fault)));
        arm(At::ErrorDrop);
        drop(follower);
    });
}

/// While the leader's observer is told, the next flight begins and ends. What becomes of its value does
/// not concern the leader, even if it happens to be the last to let go of it.
#[test]
fn a_leader_keeps_nothing_of_the_next_flight() {
    #[derive(Clone)]
    struct Value(u32);
    impl Drop for Value {
        fn drop(&mut self) {
            let here = thread::current().name() == Some("first");
            assert!(!(here && self.0 == 2), "the value of the next flight is dropped here");
        }
    }
    struct Holds(Mutex<mpsc::Receiver<()>>);
    impl Observer for Holds {
        fn flight_landed(&self, _: &String, _: &Landed) {
            // The next flight may land before this thread comes here.
            if thread::current().name() == Some("first") {
                self.0.lock().unwrap().recv().unwrap();
            }
        }
    }

    let _watchdog = watchdog();
    let (over, is_over) = mpsc::channel();
    let observer = Arc::new(Holds(Mutex::new(is_over)));
    let group = FlightGroup::<Value, ()>::builder().observer(Arc::clone(&observer)).build();
    let (entered, opens) = gate();
    thread::scope(|s| {
        let group = &group;
        let first = thread::Builder::new().name("first".into());
        let first = first.spawn_scoped(s, || {
            group.call("k", || {
                entered();
                Ok(Value(1))
            })
        });
        opens.begun();
        let queued: Vec<_> = (0..2)
            .map(|_| {
                s.spawn(|| group.request("k").next_flight().call(|| Ok(Value(2))).map(|v| v.0))
            })
            .collect();
        until_queued(group, 2);
        opens.open();
        for queued in queued {
            assert_eq!(queued.join().unwrap(), Ok(2));
        }
        over.send(()).unwrap();
        assert_eq!(first.unwrap().join().unwrap().map(|value| value.0), Ok(1));
    });
    drop(group);
    assert_eq!(Arc::strong_count(&observer), 1, "nothing is leaked");
}

/// A flight of a batch ends, and an arriving caller leads the next one to its end before the batch has
/// let go of it. The drop of that value may panic in the batch, which neither loses its results nor
/// keeps its other flights from landing.
#[test]
fn a_batch_lands_whatever_becomes_of_the_next_flight() {
    #[derive(Clone, Debug)]
    struct Value(u32);
    impl Drop for Value {
        fn drop(&mut self) {
            if self.0 == 2 && thread::current().name() == Some("batch") && !thread::panicking() {
                panic!("the value of the next flight is dropped here");
            }
        }
    }
    fn load<E>() -> Result<Value, E> {
        Ok(Value(3))
    }

    let _watchdog = watchdog();
    for _ in 0..5 {
        let group = FlightGroup::<Value, ()>::new();
        let (entered, opens) = gate();
        thread::scope(|s| {
            let group = &group;
            let batch = thread::Builder::new().name("batch".into()).spawn_scoped(s, move || {
                let load = |_: &[&str]| {
                    entered();
                    Ok(vec![Value(1), Value(1)])
                };
                group.call_many(&["a", "b"], load)
            });
            opens.begun();
            // Many to wake, so that the next flight is over before the batch is done with "a".
            for _ in 0..100 {
                s.spawn(|| group.call("a", load).unwrap());
            }
            let other = s.spawn(|| group.call("b", load));
            s.spawn(|| group.request("a").next_flight().call(|| Ok(Value(2))).unwrap());
            until_waiting(group, 102);
            s.spawn(|| loop {
                let next = group.request("a").max_followers(0).call(|| Ok(Value(2)));
                if !matches!(next, Err(CallError::Overloaded)) {
                    break;
                }
            });
            opens.open();
            assert_eq!(other.join().unwrap().unwrap().0, 1, "the flight of b has landed");
            let results = batch.unwrap().join().unwrap();
            assert!(results.into_iter().all(|result| result.unwrap().0 == 1));
        });
        assert_quiet(&group);
    }
}
