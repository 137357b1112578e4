//! `max_age`: a leader that hangs does not hold the key for ever.
#![cfg(not(loom))]

mod common;

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use common::{all_arrived, assert_quiet, follow, give_up, lead, until, watchdog, Watched};
use shared_calls::{CallError, FlightGroup, Joined, Role};

type Group = FlightGroup<u32, &'static str>;

const AGE: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

/// Returns when all flights that hold a caller up are older than [`AGE`].
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
    // A caller without a limit follows a flight of any age.
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

/// A leader may have run for long before anybody waits for it: it has held nobody up.
#[test]
fn the_age_counts_from_the_first_waiter() {
    let group = Group::new();
    let leader = lead(&group, "k");
    grow_old();
    let first = Instant::now();
    let age = Duration::from_millis(50);
    for _ in 0..2 {
        let joined = group.request("k").max_age(age).join();
        let follows = matches!(joined, Joined::Follower(_));
        // Unless this machine has just been busy elsewhere.
        assert!(follows || first.elapsed() > age);
    }
    drop(leader);
}

/// It does not matter whether those who were held up are still there.
#[test]
fn a_caller_that_was_refused_or_has_left_was_held_up() {
    let group = Group::new();
    let held_up: [fn(&Group); 3] = [
        |group| drop(follow(group, "k")),
        |group| drop(group.request("k").max_followers(0).call(|| Ok(2))),
        |group| {
            let queued = group.request("k").next_flight().timeout(Duration::ZERO);
            drop(queued.call(|| Ok(2)));
        },
    ];
    for held_up in held_up {
        let old = lead(&group, "k");
        held_up(&group);
        grow_old();
        assert!(matches!(group.request("k").max_age(AGE).join(), Joined::Leader(_)));
        drop(old);
        assert_quiet(&group);
    }
}

/// With a maximum age of zero nobody follows, whatever the flight.
#[test]
fn a_maximum_age_of_zero_never_follows() {
    let group = Group::new();
    let leader = lead(&group, "k");
    let anew = group.request("k").max_age(Duration::ZERO).call_ex(|| Ok(2));
    assert_eq!((anew.role, anew.result), (Role::Led, Ok(2)));
    assert_eq!(leader.complete(Ok(1)).followers, 0);
    assert_quiet(&group);
}

/// Not on arrival only: the one that waits leads once the flight is too old.
#[test]
fn a_waiting_caller_gives_up_a_flight_that_grows_too_old() {
    let _watchdog = watchdog();
    let group = Group::new();
    let hung = lead(&group, "k");
    let patient = follow(&group, "k");
    let outcome = group.request("k").max_age(20 * AGE).call_ex(|| Ok(2));
    assert_eq!((outcome.role, outcome.result), (Role::Led, Ok(2)));
    // The follower that has no limit stays with the old flight.
    assert!(!patient.is_done());
    assert_eq!(hung.complete(Ok(1)).followers, 1);
    assert_eq!(patient.wait().result, Ok(1));
    assert_quiet(&group);
}

/// All of them wait for the same hung leader, and their limit passes at the same time.
#[test]
fn of_ten_waiting_callers_one_gives_up_the_flight_and_the_others_follow_it() {
    let _watchdog = watchdog();
    let group = Group::new();
    let age = Duration::from_millis(300);
    let hung = lead(&group, "k");
    let roles = thread::scope(|s| {
        let callers = [(); 10].map(|()| {
            s.spawn(|| {
                let request = group.request("k").max_age(age);
                request.call_ex(|| {
                    // The hung flight has none left, so all have come here.
                    until("the others follow", || {
                        let flights = group.in_flight();
                        flights.iter().any(|f| !f.given_up && f.followers == 9)
                    });
                    Ok(2)
                })
            })
        });
        callers.map(|caller| {
            let outcome = caller.join().unwrap();
            assert_eq!((outcome.result, outcome.followers), (Ok(2), 9));
            outcome.role
        })
    });
    assert_eq!(roles.iter().filter(|role| **role == Role::Led).count(), 1);
    assert_eq!(hung.complete(Ok(1)).followers, 0);
    let stats = group.stats();
    assert_eq!((stats.led, stats.followed, stats.timed_out), (2, 9, 0));
    assert_quiet(&group);
}

/// The waiter leaves the flight that was given up, and finds the new one.
#[test]
fn a_waiter_whose_flight_was_given_up_by_another_caller_follows_the_new_one() {
    let _watchdog = watchdog();
    let group = Group::new();
    let hung = lead(&group, "k");
    thread::scope(|s| {
        let waiter = s.spawn(|| {
            let request = group.request("k").max_age(20 * AGE);
            request.call_ex(|| panic!("another caller leads"))
        });
        until("it waits", || group.stats().waiting == 1);
        let new = give_up(&group, "k");
        until("it follows the new one", || new.followers() == 1);
        assert_eq!(new.complete(Ok(2)).followers, 1);
        let outcome = waiter.join().unwrap();
        assert_eq!((outcome.role, outcome.result), (Role::Followed, Ok(2)));
    });
    assert_eq!(hung.complete(Ok(1)).followers, 0);
    assert_quiet(&group);
}

/// Its own limit does not begin anew with each flight that it follows, but that of the flight does.
#[test]
fn a_time_limit_takes_precedence_over_an_age_limit() {
    let _watchdog = watchdog();
    let group = Group::new();
    let hung = lead(&group, "k");
    let _first = follow(&group, "k");
    for age in [HOUR, 20 * AGE] {
        let request = group.request("k").max_age(age).timeout(AGE);
        let late = request.call(|| panic!("its time is up"));
        assert_eq!(late, Err(CallError::TimedOut));
    }
    drop(hung);
    assert_quiet(&group);
}

/// A `join` and a `start` have no function left to lead with later.
#[test]
fn the_age_counts_on_arrival_only_for_join_and_start() {
    let _watchdog = watchdog();
    let group = Group::new();
    let leader = lead(&group, "k");
    let Joined::Follower(joined) = group.request("k").max_age(AGE).join() else {
        panic!("nobody was held up before");
    };
    let request = group.request("k").max_age(HOUR);
    let started = request.start(|_| panic!("it follows"), || Ok(2));
    grow_old();
    assert!(joined.try_wait().is_none() && started.try_wait().is_none());
    assert_eq!(leader.complete(Ok(1)).followers, 2);
    assert_eq!((joined.wait().result, started.wait().result), (Ok(1), Ok(1)));

    // On arrival it counts for them, too.
    let old = lead(&group, "k");
    drop(follow(&group, "k"));
    grow_old();
    let request = group.request("k").max_age(AGE);
    let started = request.start(|job| job.run(), || Ok(3));
    assert_eq!(started.wait().result, Ok(3));
    drop(old);
    assert_quiet(&group);
}

/// The queued caller has waited for the flight in front: it gives that up, and leads.
#[test]
fn a_queued_caller_gives_up_the_flight_in_front_when_it_grows_too_old() {
    let _watchdog = watchdog();
    let group = Group::new();
    let hung = lead(&group, "k");
    let request = group.request("k").next_flight().max_age(20 * AGE);
    let outcome = request.call_ex(|| Ok(2));
    assert_eq!((outcome.role, outcome.result), (Role::Led, Ok(2)));
    assert_eq!(hung.complete(Ok(1)).followers, 0);
    assert_quiet(&group);
}

/// The age of a flight that was queued counts from when it has a leader.
#[test]
fn waiting_in_the_queue_does_not_count() {
    let _watchdog = watchdog();
    let group = FlightGroup::<u32, &str, Watched>::new();
    let key = Watched::new("k");
    let age = Duration::from_millis(50);
    let running = lead(&group, &key);
    thread::scope(|s| {
        let queued =
            all_arrived(&group, &key, 1, || s.spawn(|| group.request(&key).next_flight().join()));
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

/// A caller that gives up the flight that runs leads the one that is queued behind it.
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
