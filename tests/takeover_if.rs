//! `takeover_if`: a follower may lead next after an error that is the leader's own, its deadline or
//! its credentials. One at a time, and only those who asked for it.
#![cfg(not(loom))]

mod common;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use common::{
    assert_quiet, follow, lead, panic_text, the_flight, until, until_queued, until_waiting,
    watchdog,
};
use shared_calls::{CallError, FlightGroup, Joined, Leader, Request, Role};

type Group = FlightGroup<u32, &'static str>;

const HOUR: Duration = Duration::from_secs(3600);
const MINE: &str = "the leader's own";

/// Calls on another thread, and lets the leader fail with the error once the call waits.
fn after(
    group: &Group,
    error: &'static str,
    call: impl FnOnce() -> Result<u32, CallError<&'static str>> + Send,
) -> Result<u32, CallError<&'static str>> {
    let leader = lead(group, "k");
    thread::scope(|s| {
        let caller = s.spawn(call);
        until_waiting(group, 1);
        let _ = leader.complete(Err(error));
        caller.join().unwrap()
    })
}

fn failed(error: &'static str) -> Result<u32, CallError<&'static str>> {
    Err(CallError::Failed(error.into()))
}

#[test]
fn the_predicate_decides() {
    let _watchdog = watchdog();
    let group = Group::new();
    let asked = Mutex::new(Vec::new());
    let call = || {
        let request = group.request("k").takeover_if(1, |error| {
            asked.lock().unwrap().push(*error);
            *error == MINE
        });
        request.call(|| Ok(2))
    };
    assert_eq!(after(&group, MINE, call), Ok(2));
    assert_eq!(after(&group, "not found", call), failed("not found"));
    assert_eq!(asked.into_inner().unwrap(), [MINE, "not found"]);
    // An error of the caller's own function is its result.
    let request = group.request("k").takeover_if(9, |_| true);
    assert_eq!(request.call(|| Err(MINE)), failed(MINE));
    let stats = group.stats();
    assert_eq!((stats.led, stats.followed, stats.failed), (4, 1, 3));
    assert_eq!(stats.calls(), 5);
    assert_quiet(&group);
}

/// After a value there is nothing to take over, and after a panic or without an outcome there is
/// no error to look at.
#[test]
fn the_predicate_is_asked_about_errors_only() {
    let _watchdog = watchdog();
    let group = Group::new();
    let never = |_: &&'static str| panic!("no error");
    for (end, expected) in [(Some(1), Ok(1)), (None, Ok(2))] {
        let leader = lead(&group, "k");
        thread::scope(|s| {
            let caller = s.spawn(|| group.request("k").takeover_if(1, never).call(|| Ok(2)));
            until_waiting(&group, 1);
            match end {
                Some(value) => drop(leader.complete(Ok(value))),
                None => drop(leader),
            }
            assert_eq!(caller.join().unwrap(), expected);
        });
    }
    let leader = lead(&group, "k");
    thread::scope(|s| {
        let caller = s.spawn(|| group.request("k").takeover_if(1, never).call(|| Ok(2)));
        until_waiting(&group, 1);
        assert_eq!(panic_text(|| drop(leader.run(|| panic!("lost")))), "lost");
        assert_eq!(caller.join().unwrap(), Ok(2));
    });
}

#[test]
fn takeover_and_takeover_if_set_the_same_option() {
    let _watchdog = watchdog();
    let group: Group = FlightGroup::builder().takeover(5).build();
    let request = || group.request("k");
    let yes = |_: &&'static str| true;
    let call = |request: Request<'_, '_, _, _, str>| request.call(|| Ok(2));
    assert_eq!(after(&group, MINE, || call(request().takeover(1).takeover_if(1, yes))), Ok(2));
    assert_eq!(
        after(&group, MINE, || call(request().takeover_if(1, yes).takeover(1))),
        failed(MINE)
    );
    assert_eq!(after(&group, MINE, || call(request().takeover_if(0, yes))), failed(MINE));
    let no_and_yes = || call(request().takeover_if(1, |_| false).takeover_if(1, yes));
    assert_eq!(after(&group, MINE, no_and_yes), Ok(2));
    let yes_and_no = || call(request().takeover_if(1, yes).takeover_if(1, |_| false));
    assert_eq!(after(&group, MINE, yes_and_no), failed(MINE));
}

/// Each of them at most so many times.
#[test]
fn a_caller_takes_over_no_more_often_than_it_says() {
    let _watchdog = watchdog();
    let group = Group::new();
    let leaders = Mutex::new(vec![lead(&group, "k")]);
    let asked = AtomicUsize::new(0);
    let result = thread::scope(|s| {
        let caller = s.spawn(|| {
            // Before the caller asks again, another one leads.
            let request = group.request("k").takeover_if(2, |_| {
                leaders.lock().unwrap().push(lead(&group, "k"));
                asked.fetch_add(1, SeqCst);
                true
            });
            request.call(|| panic!("it does not lead"))
        });
        for taken in 0..3 {
            until("it has asked", || asked.load(SeqCst) == taken);
            until_waiting(&group, 1);
            let leader = leaders.lock().unwrap().pop().unwrap();
            until("it follows", || leader.followers() == 1);
            let _ = leader.complete(Err(MINE));
        }
        caller.join().unwrap()
    });
    assert_eq!(result, failed(MINE));
    assert_eq!(asked.into_inner(), 2);
    // It is one call.
    let stats = group.stats();
    assert_eq!((stats.led, stats.followed), (3, 1));
    assert_quiet(&group);
}

/// The leader's own deadline does not fail fifty patient followers.
#[test]
fn one_of_fifty_leads_and_the_others_follow_it() {
    const CALLERS: usize = 50;
    let _watchdog = watchdog();
    let group = Group::new();
    let leader = lead(&group, "k");
    let runs = AtomicUsize::new(0);
    thread::scope(|s| {
        let callers: Vec<_> = (0..CALLERS)
            .map(|_| {
                s.spawn(|| {
                    let request = group.request("k").takeover_if(1, |error| *error == MINE);
                    request.call_ex(|| {
                        runs.fetch_add(1, SeqCst);
                        let all = || the_flight(&group).followers == CALLERS - 1;
                        until("the others follow", all);
                        Ok(2)
                    })
                })
            })
            .collect();
        until_waiting(&group, CALLERS as u64);
        let _ = leader.complete(Err(MINE));
        let outcomes: Vec<_> = callers.into_iter().map(|c| c.join().unwrap()).collect();
        assert!(outcomes.iter().all(|o| o.result == Ok(2) && o.followers == CALLERS - 1));
        assert_eq!(outcomes.iter().filter(|o| o.role == Role::Led).count(), 1);
    });
    assert_eq!(runs.into_inner(), 1);
    assert_quiet(&group);
}

/// Where every function fails so, each runs once, one after the other.
#[test]
fn a_chain_of_errors_ends() {
    const CALLERS: usize = 8;
    let _watchdog = watchdog();
    let group = Group::new();
    let leader = lead(&group, "k");
    let (runs, busy) = (AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|s| {
        let callers = [(); CALLERS].map(|()| {
            s.spawn(|| {
                let request = group.request("k").takeover_if(u32::MAX, |_| true);
                request.call_ex(|| {
                    assert!(!busy.swap(true, SeqCst), "two functions at once");
                    runs.fetch_add(1, SeqCst);
                    busy.store(false, SeqCst);
                    Err(MINE)
                })
            })
        });
        until_waiting(&group, CALLERS as u64);
        let _ = leader.complete(Err(MINE));
        for caller in callers {
            let outcome = caller.join().unwrap();
            assert_eq!((outcome.result, outcome.role), (failed(MINE), Role::Led));
        }
    });
    assert_eq!(runs.into_inner(), CALLERS);
    assert_quiet(&group);
}

#[test]
fn the_unwilling_get_the_error() {
    let _watchdog = watchdog();
    let group = Group::new();
    let leader = lead(&group, "k");
    let follower = follow(&group, "k");
    thread::scope(|s| {
        let plain = s.spawn(|| group.call("k", || Ok(3)));
        let takeover = s.spawn(|| group.request("k").takeover(1).call(|| Ok(3)));
        let willing = s.spawn(|| group.request("k").takeover_if(1, |_| true).call(|| Ok(2)));
        until_waiting(&group, 3);
        assert_eq!(leader.complete(Err(MINE)).followers, 4);
        assert_eq!(plain.join().unwrap(), failed(MINE));
        assert_eq!(takeover.join().unwrap(), failed(MINE));
        assert_eq!(willing.join().unwrap(), Ok(2));
    });
    assert_eq!(follower.wait().result, failed(MINE));
}

/// It unwinds out of its own call only.
#[test]
fn a_predicate_that_panics_disturbs_nobody() {
    let _watchdog = watchdog();
    let group = Group::new();
    let leader = lead(&group, "k");
    let follower = follow(&group, "k");
    thread::scope(|s| {
        let bad = s.spawn(|| {
            panic_text(|| {
                let request = group.request("k").takeover_if(1, |_| panic!("bad predicate"));
                drop(request.call(|| Ok(3)));
            })
        });
        let good = s.spawn(|| group.request("k").takeover_if(1, |_| true).call(|| Ok(2)));
        until_waiting(&group, 2);
        let _ = leader.complete(Err(MINE));
        assert_eq!(bad.join().unwrap(), "bad predicate");
        assert_eq!(good.join().unwrap(), Ok(2));
    });
    assert_eq!(follower.wait().result, failed(MINE));
    assert_eq!(group.stats().waiting, 0);
    assert_quiet(&group);
    assert_eq!(group.call("k", || Ok(4)), Ok(4));
}

/// It gets the flight's outcome: no follower does another's work after its deadline.
#[test]
fn a_caller_whose_deadline_has_passed_does_not_take_over() {
    let _watchdog = watchdog();
    let group = Group::new();
    let mut limit = Duration::from_millis(50);
    loop {
        let deadline = Instant::now() + limit;
        let result = after(&group, MINE, || {
            let request = group.request("k").deadline(deadline).takeover_if(1, |_| {
                until("the deadline has passed", || Instant::now() > deadline);
                true
            });
            request.call(|| panic!("it does not lead"))
        });
        match result {
            // A slow machine: the flight ended after the deadline.
            Err(CallError::TimedOut) => limit *= 2,
            result => break assert_eq!(result, failed(MINE)),
        }
    }
    // One that has time left does.
    let request = || group.request("k").timeout(HOUR).takeover_if(1, |_| true);
    assert_eq!(after(&group, MINE, || request().call(|| Ok(2))), Ok(2));
}

/// Whatever flight it finds began after it did, so it may join any.
#[test]
fn a_caller_of_the_next_flight_joins_any_flight_when_it_takes_over() {
    let _watchdog = watchdog();
    let group = Group::new();
    let front = lead(&group, "k");
    let third = Mutex::new(None);
    thread::scope(|s| {
        // Two queue. One leads, and fails; the other one takes over, and meets a third flight.
        let callers = [(); 2].map(|()| {
            s.spawn(|| {
                let request = group.request("k").next_flight().takeover_if(1, |_| {
                    *third.lock().unwrap() = Some(lead(&group, "k"));
                    true
                });
                request.call_ex(|| {
                    until("the other follows", || the_flight(&group).followers == 1);
                    Err(MINE)
                })
            })
        });
        until_queued(&group, 2);
        let _ = front.complete(Ok(1));
        until("it follows again", || {
            let third = third.lock().unwrap();
            third.as_ref().is_some_and(|leader: &Leader<'_, _, _>| leader.followers() == 1)
        });
        assert_eq!(the_flight(&group).queued, 0);
        let _ = third.lock().unwrap().take().unwrap().complete(Ok(3));
        let mut outcomes = callers.map(|caller| caller.join().unwrap());
        outcomes.sort_by_key(|outcome| outcome.role == Role::Followed);
        let [led, followed] = outcomes;
        assert_eq!((led.result, led.role), (failed(MINE), Role::Led));
        assert_eq!((followed.result, followed.role), (Ok(3), Role::Followed));
    });
}

/// `join` and `start` have no function left to lead with later.
#[test]
fn join_and_start_take_nothing_over() {
    let group = Group::new();
    let leader = lead(&group, "k");
    let Joined::Follower(follower) = group.request("k").takeover_if(1, |_| true).join() else {
        panic!("the key is in flight");
    };
    let request = group.request("k").takeover_if(1, |_| true);
    let ticket = request.start(|_| panic!("it follows"), || Ok(2));
    let _ = leader.complete(Err(MINE));
    assert_eq!(follower.wait().result, failed(MINE));
    assert_eq!(ticket.wait().result, failed(MINE));
    assert_quiet(&group);
}

/// The predicate may look at what the caller has.
#[test]
fn the_predicate_borrows() {
    let _watchdog = watchdog();
    let group = Group::new();
    let asked = AtomicUsize::new(0);
    let own = String::from(MINE);
    let call = || {
        let request = group.request("k").takeover_if(1, |error| {
            asked.fetch_add(1, SeqCst);
            *error == own
        });
        request.call(|| Ok(2))
    };
    assert_eq!(after(&group, MINE, call), Ok(2));
    assert_eq!(asked.into_inner(), 1);
}

/// An error that a batch fails with is an error like any other.
#[test]
fn the_error_of_a_batch_can_be_the_leaders_own() {
    let _watchdog = watchdog();
    let group = Group::new();
    thread::scope(|s| {
        let mut caller = None;
        let results = group.call_many(&["k", "other"], |_| {
            caller = Some(s.spawn(|| {
                group.request("k").takeover_if(1, |error| *error == MINE).call(|| Ok(2))
            }));
            until_waiting(&group, 1);
            Err(MINE)
        });
        assert_eq!(results, [failed(MINE), failed(MINE)]);
        assert_eq!(caller.unwrap().join().unwrap(), Ok(2));
    });
}
