//! Time limits: how long a caller waits as a follower concerns no other caller (G8).
//!
//! Callers that leave, and what the others see of it, are from the tests of resenje.org/singleflight
//! (`TestDo_cancelContext`, `TestDo_cancelContextSecond`) and of tailscale's `util/singleflight`
//! (`TestDoChanContext`). Where these end a function that nobody waits for any more, ours goes on.
//!
//! The times are short, and a machine that is slow makes a caller later, never wrong.
#![cfg(not(loom))]

mod common;

use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use common::{assert_quiet, follow, lead, until, watchdog, TOO_LONG};
use shared_calls::{CallError, FlightGroup, Follower, Joined, Outcome, Request, Role};

type Group = FlightGroup<u32, &'static str>;
type Asked<'g, 'k> = Request<'g, 'k, u32, &'static str, str>;

const SHORT: Duration = Duration::from_millis(2);

fn no_second_run() -> Result<u32, &'static str> {
    panic!("no second execution")
}

#[track_caller]
fn assert_timed_out(outcome: &Outcome<u32, &'static str>) {
    assert!(matches!(outcome.result, Err(CallError::TimedOut)));
    assert_eq!((outcome.role, outcome.followers), (Role::Followed, 0));
}

fn join_as_follower(request: Asked<'_, '_>) -> Follower<u32, &'static str> {
    match request.join() {
        Joined::Follower(follower) => follower,
        Joined::Leader(_) => panic!("nobody leads"),
    }
}

/// In every way in which time can be up.
#[test]
fn a_caller_whose_time_is_up_leaves_and_disturbs_no_other() {
    let _watchdog = watchdog();
    type Hurry = fn(Asked<'_, '_>) -> Outcome<u32, &'static str>;
    let hurry: [Hurry; 9] = [
        |r| r.timeout(Duration::ZERO).call_ex(no_second_run),
        |r| r.timeout(Duration::from_nanos(1)).call_ex(no_second_run),
        |r| r.timeout(SHORT).call_ex(no_second_run),
        |r| r.deadline(Instant::now()).call_ex(no_second_run),
        |r| r.deadline(Instant::now() + SHORT).call_ex(no_second_run),
        |r| r.timeout(SHORT).takeover(9).call_ex(no_second_run),
        |r| r.timeout(SHORT).max_age(TOO_LONG).call_ex(no_second_run),
        |r| join_as_follower(r.timeout(SHORT)).wait(),
        |r| r.timeout(SHORT).start(|_| panic!("it leads"), no_second_run).wait(),
    ];
    let group = Group::new();
    let leader = lead(&group, "k");
    let before = follow(&group, "k");
    for hurry in hurry {
        assert_timed_out(&hurry(group.request("k")));
        assert_eq!(leader.followers(), 1);
    }
    let after = follow(&group, "k");
    // A caller that left is not counted.
    assert_eq!(leader.complete(Ok(1)).followers, 2);
    assert_eq!(before.wait().result.unwrap(), 1);
    assert_eq!(after.wait().result.unwrap(), 1);
    assert_quiet(&group);
}

/// A deadline that was over before the call began.
#[test]
fn a_deadline_may_have_passed_before_the_call() {
    let group = Group::new();
    let leader = lead(&group, "k");
    let past = Instant::now();
    until("a later instant", || Instant::now() > past + SHORT);
    let late = group.request("k").deadline(past).call_ex(no_second_run);
    assert_timed_out(&late);
    assert_eq!(leader.followers(), 0);
}

#[test]
fn a_caller_with_time_gets_the_value() {
    let _watchdog = watchdog();
    let patient: [for<'a> fn(Asked<'a, 'a>) -> Asked<'a, 'a>; 5] = [
        |r| r,
        |r| r.timeout(TOO_LONG),
        |r| r.timeout(Duration::MAX),
        |r| r.deadline(Instant::now() + TOO_LONG),
        |r| r.deadline(Instant::now() + TOO_LONG * 1_000_000),
    ];
    let group = Group::new();
    let leader = lead(&group, "k");
    thread::scope(|s| {
        let callers = patient.map(|patient| {
            let request = patient(group.request("k"));
            s.spawn(|| request.call_ex(no_second_run))
        });
        until("all follow", || leader.followers() == patient.len());
        let _ = leader.complete(Ok(1));
        for caller in callers {
            let outcome = caller.join().unwrap();
            assert_eq!((outcome.result.unwrap(), outcome.followers), (1, 5));
        }
    });
    assert_quiet(&group);
}

#[test]
fn an_outcome_that_is_there_beats_a_deadline_that_has_passed() {
    let group = Group::new();
    let leader = lead(&group, "k");
    let zero = join_as_follower(group.request("k").timeout(Duration::ZERO));
    let past = join_as_follower(group.request("k").deadline(Instant::now()));
    let short = join_as_follower(group.request("k").timeout(SHORT));
    let all_passed = Instant::now() + SHORT;
    until("it has passed", || Instant::now() > all_passed);
    // They have not looked yet, so they are still followers.
    assert_eq!(leader.complete(Ok(1)).followers, 3);
    for late in [zero, past, short] {
        let outcome = late.wait();
        assert_eq!((outcome.result.unwrap(), outcome.followers), (1, 3));
    }
    assert_quiet(&group);
}

/// Nothing interrupts a function.
#[test]
fn a_leader_is_not_interrupted_by_its_own_time_limit() {
    let _watchdog = watchdog();
    let group = Group::new();
    let slow = |deadline: Instant| {
        until("it has passed", || Instant::now() > deadline);
        Ok(1)
    };
    let deadline = Instant::now() + SHORT;
    let by_timeout = group.request("k").timeout(SHORT).call(|| slow(deadline));
    assert_eq!(by_timeout.unwrap(), 1);
    let by_deadline = group.request("k").deadline(deadline).call(|| slow(deadline));
    assert_eq!(by_deadline.unwrap(), 1);
    let by_zero = group.request("k").timeout(Duration::ZERO).call(|| Ok(2));
    assert_eq!(by_zero.unwrap(), 2);
    assert_quiet(&group);
}

/// A follower's time goes on while the leader fails and the next one, and the next: each time it is
/// woken and finds itself on the next flight, which is there already. If its time began anew with
/// each, it would never return before the flight that it follows has been there for as long as its
/// limit. One attempt in which it does is enough.
#[test]
fn a_takeover_does_not_begin_the_time_anew() {
    let _watchdog = watchdog();
    assert!((0..10).any(|_| times_out_on_a_young_flight()), "its time began anew");
}

fn times_out_on_a_young_flight() -> bool {
    const LIMIT: Duration = Duration::from_millis(20);
    let group = Group::new();
    let begun = Instant::now();
    let back = OnceLock::new();
    // When the last two flights began: it may not follow the last one yet.
    let mut ages = [begun; 2];
    let mut leader = lead(&group, "k");
    let outcome = thread::scope(|s| {
        let follower = s.spawn(|| {
            let request = group.request("k").timeout(LIMIT).takeover(u32::MAX);
            let outcome = request.call_ex(no_second_run);
            back.set(Instant::now()).unwrap();
            outcome
        });
        while back.get().is_none() && begun.elapsed() < 20 * LIMIT {
            until("it follows, or has left", || leader.followers() == 1 || back.get().is_some());
            ages = [ages[1], Instant::now()];
            assert!(group.forget("k"));
            let next = lead(&group, "k");
            drop(std::mem::replace(&mut leader, next));
        }
        drop(leader.complete(Ok(1)));
        follower.join().unwrap()
    });
    assert_quiet(&group);
    // Its time is up while it waits, or when it is woken: then it has the outcome that is there.
    let timed_out = matches!(outcome.result, Err(CallError::TimedOut | CallError::Abandoned));
    timed_out && back.get().unwrap().duration_since(ages[0]) < LIMIT
}

#[test]
fn of_timeout_and_deadline_the_last_counts() {
    let _watchdog = watchdog();
    let group = Group::new();
    let leader = lead(&group, "k");
    let ask = || group.request("k");
    let late = Instant::now();
    let far = late + TOO_LONG;
    assert_timed_out(&ask().deadline(far).timeout(SHORT).call_ex(no_second_run));
    assert_timed_out(&ask().timeout(TOO_LONG).deadline(late).call_ex(no_second_run));
    assert_timed_out(&ask().timeout(TOO_LONG).timeout(SHORT).call_ex(no_second_run));
    thread::scope(|s| {
        let patient = [
            ask().timeout(Duration::ZERO).deadline(far),
            ask().deadline(late).timeout(TOO_LONG),
            ask().deadline(late).deadline(far),
        ];
        let patient = patient.map(|request| s.spawn(|| request.call(no_second_run)));
        until("all follow", || leader.followers() == 3);
        // Time to leave, for a caller that is wrong about it.
        let passed = Instant::now() + SHORT;
        until("it has passed", || Instant::now() > passed);
        let _ = leader.complete(Ok(1));
        for caller in patient {
            assert_eq!(caller.join().unwrap().unwrap(), 1);
        }
    });
    assert_quiet(&group);
}

/// The time begins with `call` or `join`, not with `timeout`: a request may be made in advance.
#[test]
fn the_time_begins_with_the_call() {
    let _watchdog = watchdog();
    let group = Group::new();
    let limit = Duration::from_millis(20);
    let leader = lead(&group, "k");
    let request = group.request("k").timeout(limit);
    let made = Instant::now();
    until("the limit would have passed", || made.elapsed() > limit);
    let began = Instant::now();
    assert_timed_out(&request.call_ex(no_second_run));
    assert!(began.elapsed() >= limit);
    drop(leader);
}

/// After `wait_timeout` and `try_wait` it is still a follower.
#[test]
fn a_follower_may_look_many_times() {
    let _watchdog = watchdog();
    let group = Group::new();
    let leader = lead(&group, "k");
    // The request's deadline plays no part in these.
    let follower = join_as_follower(group.request("k").timeout(Duration::ZERO));
    for _ in 0..3 {
        assert!(!follower.is_done());
        assert!(follower.try_wait().is_none());
        assert!(follower.wait_timeout(Duration::ZERO).is_none());
        assert!(follower.wait_timeout(SHORT).is_none());
    }
    assert_eq!(leader.followers(), 1);
    thread::scope(|s| {
        let waits = s.spawn(|| follower.wait_timeout(Duration::MAX).expect("an outcome"));
        assert_eq!(leader.complete(Err("failed")).followers, 1);
        let outcome = waits.join().unwrap();
        assert_eq!(outcome.result.unwrap_err().failed(), Some(&"failed"));
    });
    assert!(follower.is_done());
    for _ in 0..3 {
        let outcome = follower.try_wait().expect("an outcome");
        assert_eq!((outcome.role, outcome.followers), (Role::Followed, 1));
        assert!(follower.wait_timeout(Duration::ZERO).is_some());
    }
    assert!(follower.wait().result.is_err());
    assert_quiet(&group);
}

/// Callers whose time is up just when the flight lands have one or the other.
#[test]
fn a_caller_times_out_or_has_the_value() {
    let _watchdog = watchdog();
    let group = Group::new();
    for round in 0..500 {
        let leader = lead(&group, "k");
        thread::scope(|s| {
            let callers = [0, 1, 2].map(|place| {
                let request = group.request("k");
                let request = request.timeout(Duration::from_micros(round % 100 * place));
                s.spawn(|| request.call(|| Ok(2)))
            });
            let led = leader.complete(Ok(1));
            let results = callers.map(|caller| caller.join().unwrap());
            let got_it = results.iter().filter(|r| matches!(r, Ok(1))).count();
            // A follower that was there when the flight was unlinked is counted.
            assert!(got_it <= led.followers);
            for result in results {
                assert!(matches!(result, Ok(1 | 2) | Err(CallError::TimedOut)));
            }
        });
        assert_quiet(&group);
    }
}

/// The defaults of a group have limits, too: a request replaces them one by one, or all.
#[test]
fn a_request_replaces_the_default_time_limit() {
    let _watchdog = watchdog();
    let group = Group::builder().timeout(SHORT).build();
    let leader = lead(&group, "k");
    assert_timed_out(&group.call_ex("k", no_second_run));
    let patient: [for<'a> fn(Asked<'a, 'a>) -> Asked<'a, 'a>; 4] = [
        |r| r.timeout(TOO_LONG),
        |r| r.deadline(Instant::now() + TOO_LONG),
        |r| r.without_defaults(),
        |r| r.timeout(TOO_LONG).without_defaults(),
    ];
    thread::scope(|s| {
        let callers = patient.map(|patient| {
            let request = patient(group.request("k"));
            s.spawn(|| request.call(no_second_run))
        });
        until("all follow", || leader.followers() == 4);
        let passed = Instant::now() + SHORT;
        until("the default has passed", || Instant::now() > passed);
        assert_eq!(leader.complete(Ok(1)).followers, 4);
        for caller in callers {
            assert_eq!(caller.join().unwrap(), Ok(1));
        }
    });
    assert_quiet(&group);
}

/// `without_defaults` keeps the request's own options, wherever it stands.
#[test]
fn without_defaults_keeps_the_requests_own_time_limit() {
    let group = Group::builder().timeout(TOO_LONG).max_followers(0).build();
    let leader = lead(&group, "k");
    let ask = || group.request("k");
    assert_timed_out(&ask().without_defaults().timeout(SHORT).call_ex(no_second_run));
    assert_timed_out(&ask().timeout(SHORT).without_defaults().call_ex(no_second_run));
    let full = ask().timeout(SHORT).call(no_second_run);
    assert_eq!(full, Err(CallError::Overloaded));
    drop(leader);
    assert_quiet(&group);
}
