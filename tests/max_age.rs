//! `max_age`: a leader that hangs does not hold the key for ever.
#![cfg(not(loom))]

mod common;

use std::cell::RefCell;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use common::{assert_quiet, follow, gate, give_up, lead, all_arrived, until, watchdog, Watched};
use shared_calls::{CallError, FlightGroup, Joined, Role};

type Group = FlightGroup<u32, &'static str>;

const AGE: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

/// Returns when all flights that have begun are older than [`AGE`].
fn grow_old() {
    let began = Instant::now();
    until("older", || began.elapsed() > 2 * AGE);
}

#[test]
fn of_ten_callers_that_give_up_a_hung_leader_one_leads() {
    let _watchdog = watchdog();
    let group = Group::new();
    let age = Duration::from_millis(200);
    let hung = lead(&group, "k");
    let stuck = follow(&group, "k");
    let began = Instant::now();
    until("older than that", || began.elapsed() > age + AGE);

    // Ten callers find it too old. The first gives it up, and the others follow that one, unless
    // this machine is so slow that it looks hung, too: it ends when all have joined.
    let all = Barrier::new(10);
    let roles = thread::scope(|s| {
        let callers = [(); 10].map(|()| {
            s.spawn(|| match group.request("k").max_age(age).join() {
                Joined::Leader(leader) => {
                    all.wait();
                    leader.complete(Ok(2))
                }
                Joined::Follower(follower) => {
                    all.wait();
                    follower.wait()
                }
            })
        });
        callers.map(|caller| {
            let outcome = caller.join().unwrap();
            assert_eq!(outcome.result.unwrap(), 2);
            outcome.role
        })
    });
    let led = roles.iter().filter(|role| **role == Role::Led).count();
    let took = began.elapsed() - age;
    assert!(led == 1 || took > age, "{led} led");

    // The old one still serves its own.
    assert_eq!(hung.complete(Ok(1)).followers, 1);
    assert_eq!(stuck.wait().result.unwrap(), 1);
    assert_quiet(&group);
}

#[test]
fn a_young_flight_is_followed() {
    let group = Group::new();
    let leader = lead(&group, "k");
    for age in [HOUR, Duration::MAX] {
        let request = group.request("k").max_age(age);
        assert!(matches!(request.join(), Joined::Follower(_)));
        // It counts whatever else is asked.
        let request = group.request("k").max_age(age).timeout(Duration::ZERO);
        let outcome = request.call(|| panic!("no second execution"));
        assert!(matches!(outcome, Err(CallError::TimedOut)));
    }
    // Whoever sets no limit follows a flight of any age.
    grow_old();
    drop(follow(&group, "k"));
    drop(leader);
    assert_quiet(&group);
}

#[test]
fn the_old_flights_end_does_not_touch_its_successor() {
    let group = Group::new();
    let old = lead(&group, "k");
    let before = follow(&group, "k");
    grow_old();
    let Joined::Leader(new) = group.request("k").max_age(AGE).join() else {
        panic!("it is too old");
    };
    let after = follow(&group, "k");
    assert_eq!(old.complete(Ok(1)).followers, 1);
    let late = follow(&group, "k");
    assert_eq!(new.complete(Ok(2)).followers, 2);
    assert_eq!(before.wait().result.unwrap(), 1);
    assert_eq!(after.wait().result.unwrap(), 2);
    assert_eq!(late.wait().result.unwrap(), 2);
    assert_quiet(&group);
}

/// A group that has been there for longer than a flight may be, and a flight that was used before:
/// the age is that of the execution.
#[test]
fn the_age_is_counted_from_the_functions_beginning() {
    let group = Group::new();
    group.call("k", || Ok(0)).unwrap();
    let began = Instant::now();
    let age = Duration::from_millis(50);
    until("the group is old", || began.elapsed() > age);
    let led = Instant::now();
    let leader = lead(&group, "k");
    let joined = group.request("k").max_age(age).join();
    let follows = matches!(joined, Joined::Follower(_));
    // Unless this machine has just been busy elsewhere.
    assert!(follows || led.elapsed() > age);
    drop(leader);
}

/// The age of a flight that was queued is that of its function, too.
#[test]
fn waiting_in_the_queue_does_not_count() {
    let _watchdog = watchdog();
    let group = FlightGroup::<u32, &str, Watched>::new();
    let key = Watched::new("k");
    let age = Duration::from_millis(50);
    let running = lead(&group, &key);
    thread::scope(|s| {
        let queued = all_arrived(&group, &key, 1, || {
            s.spawn(|| group.request(&key).next_flight().join())
        });
        let since = Instant::now();
        until("it has waited", || since.elapsed() > age);
        let begins = Instant::now();
        let _ = running.complete(Ok(1));
        let next = queued.join().unwrap();
        assert!(matches!(next, Joined::Leader(_)));
        let joined = group.request(&key).max_age(age).join();
        let follows = matches!(joined, Joined::Follower(_));
        assert!(follows || begins.elapsed() > age);
    });
    assert_quiet(&group);
}

/// Whoever gives up the flight that runs, while another is queued behind, leads that one: those who
/// are queued have waited for nothing else.
#[test]
fn the_queued_flight_takes_the_old_ones_place() {
    let _watchdog = watchdog();
    let group = FlightGroup::<u32, &str, Watched>::new();
    let key = Watched::new("k");
    let hung = lead(&group, &key);
    thread::scope(|s| {
        let queued = all_arrived(&group, &key, 3, || {
            [(); 3].map(|()| s.spawn(|| group.request(&key).next_flight().call_ex(|| Ok(3))))
        });
        let leader = give_up(&group, &key);
        assert_eq!(leader.followers(), 3);
        assert_eq!(leader.complete(Ok(2)).followers, 3);
        for caller in queued {
            let outcome = caller.join().unwrap();
            assert_eq!((outcome.result.unwrap(), outcome.role), (2, Role::Followed));
        }
    });
    assert_eq!(hung.complete(Ok(1)).followers, 0);
    assert_quiet(&group);
}

thread_local! {
    static PAUSE: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
}

/// Pauses once in `to_owned`, where it is told to.
#[derive(PartialEq, Eq, Hash)]
struct Key;

impl Clone for Key {
    fn clone(&self) -> Self {
        if let Some(pause) = PAUSE.with(|p| p.borrow_mut().take()) {
            pause();
        }
        Key
    }
}

/// The caller finds nobody, and makes its key. Meanwhile somebody else leads. That flight is younger
/// than the caller, and no reason to lead another.
#[test]
fn a_flight_that_began_after_the_caller_is_not_too_old() {
    let _watchdog = watchdog();
    let group = FlightGroup::<u32, &str, Key>::new();
    let (looked, has_looked) = gate();
    thread::scope(|s| {
        let caller = s.spawn(|| {
            PAUSE.with(|p| *p.borrow_mut() = Some(Box::new(looked)));
            group.request(&Key).max_age(HOUR).join()
        });
        has_looked.begun();
        let leader = lead(&group, &Key);
        has_looked.open();
        let joined = caller.join().unwrap();
        assert!(matches!(joined, Joined::Follower(_)));
        assert_eq!(leader.followers(), 1);
    });
}
