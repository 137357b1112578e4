//! `max_age` for those who already wait: no caller is held up behind a flight that is older than it
//! allows, now or while it waits.
//!
//! Where a test needs several callers within an age, it tries again with a greater age on a machine
//! that is too slow: see [`patiently`].
#![cfg(not(loom))]

mod common;

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use common::{
    assert_quiet, follow, gate, lead, the_flight, until, until_queued, until_waiting, watchdog,
};
use shared_calls::{CallError, FlightGroup, InFlight, Joined, Role};

type Group = FlightGroup<u32, &'static str>;

const HOUR: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(5);

/// Tries with greater and greater ages, until it works.
#[track_caller]
fn patiently(attempt: impl Fn(Duration) -> bool) {
    let mut age = Duration::from_millis(25);
    while !attempt(age) {
        age *= 2;
        assert!(age < Duration::from_secs(5), "it never works");
    }
}

fn in_the_map(group: &Group) -> InFlight<String> {
    let mut flights = group.in_flight();
    flights.retain(|flight| !flight.given_up);
    assert_eq!(flights.len(), 1);
    flights.remove(0)
}

#[test]
fn a_waiting_caller_gives_up_a_flight_that_gets_too_old() {
    let _watchdog = watchdog();
    let group = Group::new();
    let hung = lead(&group, "k");
    let begun = Instant::now();
    let outcome = group.request("k").max_age(SHORT).call_ex(|| {
        let mut flights = group.in_flight();
        flights.sort_by_key(|flight| flight.given_up);
        assert_eq!(flights.len(), 2);
        assert!(flights[1].given_up && flights[1].age.unwrap() >= SHORT);
        assert_eq!((flights[1].followers, hung.followers()), (0, 0));
        assert_eq!(flights[0].leader.as_ref().unwrap().id(), thread::current().id());
        Ok(2)
    });
    assert!(begun.elapsed() >= SHORT);
    assert_eq!((outcome.result, outcome.role), (Ok(2), Role::Led));
    assert!(the_flight(&group).given_up);
    // Its end disturbs nobody.
    let successor = lead(&group, "k");
    assert_eq!(hung.complete(Ok(1)).followers, 0);
    assert_eq!(successor.complete(Ok(3)).result, Ok(3));
    let stats = group.stats();
    assert_eq!((stats.led, stats.followed, stats.calls()), (3, 0, 3));
    assert_quiet(&group);
}

#[test]
fn of_many_exactly_one_leads_and_the_others_follow_it() {
    const CALLERS: usize = 10;
    let _watchdog = watchdog();
    patiently(|age| {
        let group = Group::new();
        let hung = lead(&group, "k");
        let runs = AtomicUsize::new(0);
        let (at_work, given_up) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let outcomes: Vec<_> = thread::scope(|s| {
            let calls: Vec<_> = (0..CALLERS)
                .map(|_| {
                    s.spawn(|| {
                        group.request("k").max_age(age).call_ex(|| {
                            runs.fetch_add(1, SeqCst);
                            at_work.fetch_add(1, SeqCst);
                            let begun = Instant::now();
                            // Until all follow, or it is itself too old.
                            until("they follow", || {
                                in_the_map(&group).followers == CALLERS - 1 || begun.elapsed() > age
                            });
                            given_up.store(group.in_flight().len() - 1, SeqCst);
                            Ok(2)
                        })
                    })
                })
                .collect();
            calls.into_iter().map(|call| call.join().unwrap()).collect()
        });
        assert!(outcomes.iter().all(|o| o.result == Ok(2)));
        let leaders = outcomes.iter().filter(|o| o.role == Role::Led).count();
        assert_eq!(leaders, runs.load(SeqCst));
        assert_eq!(hung.complete(Ok(1)).followers, 0);
        assert_quiet(&group);
        let exact = leaders == 1 && outcomes.iter().all(|o| o.followers == CALLERS - 1);
        assert!(!exact || given_up.load(SeqCst) == 1);
        exact
    });
}

/// Before the first caller waits, the flight holds nobody up.
#[test]
fn the_age_counts_from_the_first_wait() {
    let group = Group::new();
    let leader = lead(&group, "k");
    assert_eq!(the_flight(&group).age, None);
    // However long that has been.
    let begun = Instant::now();
    until("time passes", || begun.elapsed() > SHORT);
    let Joined::Follower(follower) = group.request("k").max_age(SHORT).join() else {
        panic!("it is not old: nobody has waited");
    };
    assert!(the_flight(&group).age.is_some());
    drop(follower);
    // Nor does it begin anew when those have left.
    until("time passes", || the_flight(&group).age.unwrap() >= SHORT);
    let Joined::Leader(second) = group.request("k").max_age(SHORT).join() else {
        panic!("it is old");
    };
    drop((leader, second));
}

/// A refused caller has been held up as well, and so has one that queues.
#[test]
fn the_age_counts_from_a_refusal_and_from_queuing() {
    let _watchdog = watchdog();
    let group = Group::new();
    let leader = lead(&group, "k");
    let request = group.request("k").max_followers(0);
    assert_eq!(request.call(|| Ok(2)), Err(CallError::Overloaded));
    assert!(the_flight(&group).age.is_some());
    drop(leader);

    let leader = lead(&group, "k");
    let request = group.request("k").max_followers(0).next_flight();
    assert_eq!(request.call(|| Ok(2)), Err(CallError::Overloaded));
    assert!(the_flight(&group).age.is_some());
    drop(leader);

    let leader = lead(&group, "k");
    let request = group.request("k").next_flight().timeout(Duration::ZERO);
    assert_eq!(request.call(|| Ok(2)), Err(CallError::TimedOut));
    assert!(the_flight(&group).age.is_some());
    drop(leader);
}

/// A ticket waits from the start.
#[test]
fn the_age_of_a_job_counts_from_the_start() {
    let group = Group::new();
    let mut job = None;
    let ticket = group.start("k", |spawned| job = Some(spawned), || Ok(1));
    assert!(the_flight(&group).age.is_some());
    until("time passes", || the_flight(&group).age.unwrap() >= SHORT);
    let outcome = group.request("k").max_age(SHORT).call_ex(|| Ok(2));
    assert_eq!((outcome.result, outcome.role), (Ok(2), Role::Led));
    job.unwrap().run();
    assert_eq!(ticket.wait().result, Ok(1));
}

/// A flight is never older than its leader.
#[test]
fn those_who_queued_do_not_find_their_new_flight_old() {
    let _watchdog = watchdog();
    let group = Group::new();
    let front = lead(&group, "k");
    let (held, gate) = gate();
    let held = std::sync::Mutex::new(Some(held));
    let f = || {
        held.lock().unwrap().take().expect("one leads")();
        Ok(2)
    };
    thread::scope(|s| {
        let queued = [(); 3].map(|()| s.spawn(|| group.request("k").next_flight().call(f)));
        until_queued(&group, 3);
        until("time passes", || the_flight(&group).age.unwrap() >= SHORT);
        let turn = Instant::now();
        let _ = front.complete(Ok(1));
        gate.begun();
        let age = the_flight(&group).age.expect("the others wait");
        assert!(age <= turn.elapsed(), "it is older than its leader: {age:?}");
        gate.open();
        assert_eq!(queued.map(|caller| caller.join().unwrap()), [Ok(2), Ok(2), Ok(2)]);
    });
}

/// It leads the entry under the same lock, and those who queued behind the flight follow it.
#[test]
fn a_queued_caller_gives_up_the_flight_in_front() {
    let _watchdog = watchdog();
    let group = Group::new();
    let hung = lead(&group, "k");
    thread::scope(|s| {
        let patient = s.spawn(|| group.request("k").next_flight().call_ex(|| Ok(9)));
        until_queued(&group, 1);
        let outcome = group.request("k").next_flight().max_age(SHORT).call_ex(|| {
            until("the other follows", || in_the_map(&group).followers == 1);
            Ok(2)
        });
        // Whichever of the two has led, the other one followed.
        let other = patient.join().unwrap();
        assert_eq!(outcome.result, other.result);
        assert_ne!(outcome.role, other.role);
        assert_eq!(outcome.role, Role::Led, "under the same lock");
    });
    assert!(the_flight(&group).given_up);
    assert_eq!(hung.complete(Ok(1)).followers, 0);
    assert_quiet(&group);
}

/// A follower that gives a flight up leads those who queued behind it.
#[test]
fn a_follower_that_gives_up_leads_the_queue() {
    let _watchdog = watchdog();
    let group = Group::new();
    let hung = lead(&group, "k");
    thread::scope(|s| {
        let queued = s.spawn(|| group.request("k").next_flight().call_ex(|| panic!("it follows")));
        until_queued(&group, 1);
        let outcome = group.request("k").max_age(SHORT).call_ex(|| {
            until("the queue follows", || in_the_map(&group).followers == 1);
            Ok(2)
        });
        assert_eq!((outcome.result, outcome.role, outcome.followers), (Ok(2), Role::Led, 1));
        let queued = queued.join().unwrap();
        assert_eq!((queued.result, queued.role), (Ok(2), Role::Followed));
    });
    drop(hung);
    assert_quiet(&group);
}

#[test]
fn a_deadline_before_the_age_times_out() {
    let _watchdog = watchdog();
    let group = Group::new();
    let leader = lead(&group, "k");
    for limit in [Duration::ZERO, SHORT] {
        let request = || group.request("k").timeout(limit).max_age(HOUR);
        assert_eq!(request().call(|| Ok(2)), Err(CallError::TimedOut));
        assert_eq!(request().next_flight().call(|| Ok(2)), Err(CallError::TimedOut));
    }
    assert!(!the_flight(&group).given_up);
    drop(leader);
}

/// The deadline is the earlier of two that have both passed when the caller looks.
#[test]
fn a_deadline_takes_precedence_over_an_age_limit() {
    let _watchdog = watchdog();
    let group = Group::new();
    for next_flight in [false, true] {
        let leader = lead(&group, "k");
        let deadline = Instant::now() + SHORT;
        // The age begins to count after that, so it passes later; but just.
        let mut request = group.request("k").deadline(deadline).max_age(SHORT);
        if next_flight {
            request = request.next_flight();
        }
        assert_eq!(request.call(|| Ok(2)), Err(CallError::TimedOut));
        assert!(!the_flight(&group).given_up);
        drop(leader);
    }
    assert_quiet(&group);
}

#[test]
fn an_age_before_the_deadline_leads() {
    let _watchdog = watchdog();
    let group = Group::new();
    let hung = lead(&group, "k");
    let outcome = group.request("k").timeout(HOUR).max_age(SHORT).call_ex(|| Ok(2));
    assert_eq!((outcome.result, outcome.role), (Ok(2), Role::Led));
    drop(hung);
}

/// An outcome that is there in time is taken.
#[test]
fn a_flight_that_lands_in_time_is_followed() {
    let _watchdog = watchdog();
    let group = Group::new();
    let leader = lead(&group, "k");
    thread::scope(|s| {
        let caller = s.spawn(|| group.request("k").max_age(HOUR).call_ex(|| Ok(2)));
        until_waiting(&group, 1);
        let _ = leader.complete(Ok(1));
        let outcome = caller.join().unwrap();
        assert_eq!((outcome.result, outcome.role), (Ok(1), Role::Followed));
    });
    assert!(group.in_flight().is_empty());
}

#[test]
fn an_age_that_never_passes() {
    let _watchdog = watchdog();
    let group = Group::new();
    let leader = lead(&group, "k");
    thread::scope(|s| {
        let caller = s.spawn(|| group.request("k").max_age(Duration::MAX).call(|| Ok(2)));
        until_waiting(&group, 1);
        let _ = leader.complete(Ok(1));
        assert_eq!(caller.join().unwrap(), Ok(1));
    });
}

/// `max_age(0)` never follows, though many arrive at once.
#[test]
fn an_age_of_zero_never_follows() {
    const THREADS: usize = 6;
    let _watchdog = watchdog();
    let group = Group::new();
    let (begun, all_run) = (Barrier::new(THREADS), Barrier::new(THREADS));
    thread::scope(|s| {
        for _ in 0..THREADS {
            s.spawn(|| {
                begun.wait();
                let outcome = group.request("k").max_age(Duration::ZERO).call_ex(|| {
                    all_run.wait();
                    Ok(1)
                });
                assert_eq!((outcome.role, outcome.followers), (Role::Led, 0));
            });
        }
    });
    assert_quiet(&group);
    let leader = lead(&group, "k");
    let request = group.request("k").max_age(Duration::ZERO).next_flight();
    assert_eq!(request.call_ex(|| Ok(1)).role, Role::Led);
    assert!(the_flight(&group).given_up);
    drop(leader);
}

/// Nobody else is disturbed: who waits without an age gets the outcome in the end.
#[test]
fn patient_followers_stay_with_the_flight() {
    let _watchdog = watchdog();
    let group = Group::new();
    let hung = lead(&group, "k");
    let (patient, waiting) = (follow(&group, "k"), follow(&group, "k"));
    thread::scope(|s| {
        let waiting = s.spawn(move || waiting.wait().result);
        until_waiting(&group, 1);
        assert_eq!(group.request("k").max_age(SHORT).call(|| Ok(2)), Ok(2));
        assert_eq!(hung.followers(), 2);
        assert!(patient.try_wait().is_none());
        assert_eq!(hung.complete(Ok(1)).followers, 2);
        assert_eq!((waiting.join().unwrap(), patient.wait().result), (Ok(1), Ok(1)));
    });
}

/// Once its age limit passes, it leaves the flight and asks again; it may follow what it finds.
#[test]
fn a_flight_that_another_thread_gave_up_is_left_at_the_age_limit() {
    let _watchdog = watchdog();
    for next_flight in [false, true] {
        patiently(|age| {
            let group = Group::new();
            let hung = lead(&group, "k");
            let outcome = thread::scope(|s| {
                let caller = s.spawn(|| group.request("k").max_age(age).call_ex(|| Ok(9)));
                until("it follows", || hung.followers() == 1);
                // Another thread gives the flight up, while the caller has time left.
                if !group.forget("k") {
                    return caller.join().unwrap();
                }
                // It stays for now.
                let stays = hung.followers() == 1;
                let successor = lead(&group, "k");
                if next_flight {
                    until_half(&group, age);
                    // A third caller queues behind the new flight. The first one is none of those.
                    s.spawn(|| group.request("k").next_flight().call(|| Ok(4)));
                    until_queued_in_the_map(&group);
                }
                let begun = Instant::now();
                until("it follows the new one", || {
                    successor.followers() == 1 || begun.elapsed() > 2 * age
                });
                assert!(stays || hung.followers() == 0);
                let _ = successor.complete(Ok(3));
                caller.join().unwrap()
            });
            assert_eq!(hung.complete(Ok(1)).followers, 0, "it has left");
            outcome.result == Ok(3) && outcome.role == Role::Followed
        });
    }
}

/// Lets half of the age pass, so that whatever begins then is young when the whole has passed.
fn until_half(group: &Group, age: Duration) {
    let old = |flight: &InFlight<_>| flight.given_up && flight.age.unwrap() > age / 2;
    until("time passes", || group.in_flight().iter().any(old));
}

fn until_queued_in_the_map(group: &Group) {
    until("it queues", || in_the_map(group).queued == 1);
}

/// Or leads, if it finds nothing.
#[test]
fn a_caller_that_leaves_a_given_up_flight_may_lead() {
    let _watchdog = watchdog();
    let group = Group::new();
    let hung = lead(&group, "k");
    thread::scope(|s| {
        let caller = s.spawn(|| group.request("k").max_age(SHORT).call_ex(|| Ok(2)));
        until("it has arrived", || the_flight(&group).age.is_some());
        group.forget("k");
        let outcome = caller.join().unwrap();
        assert_eq!((outcome.result, outcome.role), (Ok(2), Role::Led));
    });
    assert_eq!(hung.followers(), 0);
    drop(hung);
    assert_quiet(&group);
}

/// They have no function left to lead with later. Their waits do not end by age.
#[test]
fn join_start_and_call_many_look_at_the_age_on_arrival_only() {
    let _watchdog = watchdog();
    patiently(|age| {
        let group: Group = FlightGroup::builder().max_age(age).build();
        let leader = lead(&group, "k");
        let Joined::Follower(follower) = group.join("k") else {
            panic!("nobody has waited before");
        };
        let Joined::Follower(waiting) = group.join("k") else {
            return false;
        };
        let ticket = group.start("k", |_| {}, || Ok(9));
        thread::scope(|s| {
            let waiting = s.spawn(move || waiting.wait().result);
            let batch = s.spawn(|| group.call_many(&["k"], |_| Ok(vec![9])));
            until("it is too old", || {
                let flights = group.in_flight();
                flights.iter().any(|flight| flight.age.is_some_and(|it| it > 2 * age))
            });
            let on_time = leader.followers() == 4;
            assert!(follower.try_wait().is_none());
            let _ = leader.complete(Ok(1));
            let waiting = waiting.join().unwrap();
            let batch = batch.join().unwrap();
            let ticket = ticket.wait().result;
            if !on_time {
                return false;
            }
            assert_eq!(group.stats().led, 1, "nobody gave it up");
            assert_eq!((follower.wait().result, waiting, ticket), (Ok(1), Ok(1), Ok(1)));
            assert_eq!(batch, [Ok(1)]);
            true
        })
    });
}

/// A queued `join` does not give up the flight in front either, once it has arrived.
#[test]
fn a_queued_join_waits_for_its_turn_however_old_the_flight() {
    let _watchdog = watchdog();
    let group = Group::new();
    let front = lead(&group, "k");
    thread::scope(|s| {
        let joins = s.spawn(|| {
            let request = group.request("k").next_flight().max_age(SHORT);
            match request.join() {
                Joined::Leader(leader) => leader.complete(Ok(2)),
                Joined::Follower(_) => panic!("nobody else queues"),
            }
        });
        until_queued(&group, 1);
        until("it is too old", || the_flight(&group).age.unwrap() > 2 * SHORT);
        assert!(!the_flight(&group).given_up);
        let _ = front.complete(Ok(1));
        assert_eq!(joins.join().unwrap().result, Ok(2));
    });
}

/// Each key of a hundred hangs once, and every caller of it is led out.
#[test]
fn hung_flights_hold_nobody_up() {
    let _watchdog = watchdog();
    let group = FlightGroup::<u32, (), u32>::builder().max_age(SHORT).shards(4).build();
    let hung: Vec<_> = (0..20).map(|key| lead(&group, &key)).collect();
    thread::scope(|s| {
        for _ in 0..3 {
            s.spawn(|| {
                for key in 0..20 {
                    assert_eq!(group.call(&key, || Ok(key)), Ok(key));
                }
            });
        }
    });
    assert_eq!(group.in_flight().len(), 20);
    assert!(group.in_flight().iter().all(|flight| flight.given_up));
    drop(hung);
    assert_eq!(group.stats().in_flight, 0);
}

/// It is a new arrival, for the cap as well.
#[test]
fn a_caller_that_asks_again_by_age_can_be_refused() {
    let _watchdog = watchdog();
    patiently(|age| {
        let group = Group::new();
        let hung = lead(&group, "k");
        let result = thread::scope(|s| {
            let caller = s.spawn(|| {
                let request = group.request("k").max_age(age).max_followers(1);
                request.call(|| Ok(9))
            });
            until("it follows", || hung.followers() == 1);
            if !group.forget("k") {
                return caller.join().unwrap();
            }
            let Joined::Leader(successor) = group.join("k") else {
                return caller.join().unwrap();
            };
            until_half(&group, age);
            let follower = group.join("k");
            let result = caller.join().unwrap();
            drop((successor, follower));
            result
        });
        drop(hung);
        assert!(matches!(result, Ok(9) | Err(CallError::Overloaded)), "{result:?}");
        result == Err(CallError::Overloaded)
    });
}
