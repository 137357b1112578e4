//! `takeover`: a follower whose leader panics or goes away may lead next, with its own function.
//!
//! Other libraries let each waiter try again in turn, after every failure and without end: six
//! callers, six loads, six times the wait. Here only callers that asked for it try, one at a time,
//! and only where there is no outcome. A returned error is one, unless `takeover_if` says that it
//! was the leader's own.
#![cfg(not(loom))]

mod common;

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use common::{
    all_arrived, assert_quiet, gate, lead, panic_text, until, until_arrived, watchdog, Watched,
};
use shared_calls::{CallError, FlightGroup, Joined, Role};

type Group = FlightGroup<u32, &'static str, Watched>;

fn group() -> (Group, Watched) {
    (Group::new(), Watched::new("k"))
}

/// Counts how often it is entered, and that nobody else is inside.
#[derive(Default)]
struct AtWork {
    runs: AtomicUsize,
    busy: AtomicBool,
}

impl AtWork {
    fn run<T>(&self, f: impl FnOnce() -> T) -> T {
        assert!(!self.busy.swap(true, SeqCst), "two functions at once");
        self.runs.fetch_add(1, SeqCst);
        let result = catch_unwind(AssertUnwindSafe(f));
        self.busy.store(false, SeqCst);
        result.unwrap_or_else(|payload| std::panic::resume_unwind(payload))
    }
}

/// Five followers are willing and five are not.
#[test]
fn one_of_the_willing_leads_and_the_others_follow_it() {
    let _watchdog = watchdog();
    let (group, key) = group();
    let work = AtWork::default();
    let second = || {
        // The ten callers of before, and four of the willing again: those are on this flight.
        until_arrived(&group, &key, 10 + 4);
        Ok(2)
    };
    let (held, gate) = gate();
    thread::scope(|s| {
        let first = s.spawn(|| {
            panic_text(|| {
                let first = || {
                    held();
                    panic!("first")
                };
                drop(group.call(&key, || work.run(first)));
            })
        });
        gate.begun();
        let (willing, unwilling) = all_arrived(&group, &key, 10, || {
            let call = |times| {
                let request = group.request(&key).takeover(times);
                s.spawn(|| request.call_ex(|| work.run(second)))
            };
            ([(); 5].map(|()| call(1)), [(); 5].map(|()| call(0)))
        });
        gate.open();
        assert_eq!(first.join().unwrap(), "first");
        for caller in unwilling {
            let outcome = caller.join().unwrap();
            assert_eq!((outcome.role, outcome.followers), (Role::Followed, 10));
            let Err(CallError::Panicked(panicked)) = outcome.result else {
                panic!("not willing");
            };
            assert_eq!(panicked.message(), Some("first"));
        }
        let outcomes = willing.map(|caller| caller.join().unwrap());
        assert_eq!(outcomes.iter().filter(|o| o.fresh()).count(), 1);
        for outcome in outcomes {
            assert_eq!(outcome.followers, 4);
            assert_eq!(outcome.result.unwrap(), 2);
        }
    });
    assert_eq!(work.runs.into_inner(), 2);
    assert_quiet(&group);
}

/// Where every function panics, each runs once, one after the other, and each caller unwinds.
#[test]
fn a_chain_of_panics_ends() {
    let _watchdog = watchdog();
    let (group, key) = group();
    let work = AtWork::default();
    let leader = lead(&group, &key);
    thread::scope(|s| {
        let callers = all_arrived(&group, &key, 8, || {
            let call = || {
                panic_text(|| {
                    let request = group.request(&key).takeover(u32::MAX);
                    drop(request.call(|| work.run(|| panic!("and another"))));
                })
            };
            [(); 8].map(|()| s.spawn(call))
        });
        drop(leader);
        for caller in callers {
            assert_eq!(caller.join().unwrap(), "and another");
        }
    });
    assert_eq!(work.runs.into_inner(), 8);
    assert_quiet(&group);
}

/// The leader before is dropped only when the next one is in its place: so the caller follows, and
/// follows, until it has had enough.
#[test]
fn a_caller_takes_over_at_most_so_many_times() {
    let _watchdog = watchdog();
    for times in 0..4 {
        let (group, key) = group();
        let mut leader = lead(&group, &key);
        thread::scope(|s| {
            let request = group.request(&key).takeover(times);
            let caller = s.spawn(|| request.call(|| panic!("it only follows")));
            for _ in 0..times {
                until("it follows", || leader.followers() == 1);
                assert!(group.forget(&key));
                let next = lead(&group, &key);
                drop(std::mem::replace(&mut leader, next));
            }
            until("it follows", || leader.followers() == 1);
            drop(leader);
            let error = caller.join().unwrap().unwrap_err();
            assert!(matches!(error, CallError::Abandoned));
        });
        assert_quiet(&group);
    }
}

#[test]
fn an_abandoned_flight_is_taken_over() {
    let _watchdog = watchdog();
    let (group, key) = group();
    let leader = lead(&group, &key);
    thread::scope(|s| {
        let request = group.request(&key).takeover(1);
        let willing = s.spawn(|| request.call_ex(|| Ok(2)));
        until("it follows", || leader.followers() == 1);
        drop(leader);
        let outcome = willing.join().unwrap();
        assert_eq!((outcome.role, outcome.followers), (Role::Led, 0));
        assert_eq!(outcome.result.unwrap(), 2);
    });
    assert_quiet(&group);
}

/// A caller that took over and panics is a leader like any other: it unwinds, and does not ask again.
#[test]
fn a_leader_that_took_over_and_panics_unwinds() {
    let _watchdog = watchdog();
    let (group, key) = group();
    let leader = lead(&group, &key);
    thread::scope(|s| {
        let request = group.request(&key).takeover(9);
        let willing = s.spawn(|| panic_text(|| drop(request.call(|| panic!("second")))));
        until("it follows", || leader.followers() == 1);
        drop(leader);
        assert_eq!(willing.join().unwrap(), "second");
    });
    assert_quiet(&group);
}

#[test]
fn a_returned_error_is_not_taken_over() {
    let _watchdog = watchdog();
    let (group, key) = group();
    let leader = lead(&group, &key);
    thread::scope(|s| {
        let callers = [1, 2, 3].map(|times| {
            let request = group.request(&key).takeover(times);
            s.spawn(|| request.call(|| panic!("no second execution")))
        });
        until("they follow", || leader.followers() == 3);
        let _ = leader.complete(Err("an outcome"));
        for caller in callers {
            let error = caller.join().unwrap().unwrap_err();
            assert_eq!(error.failed(), Some(&"an outcome"));
        }
    });
    assert_quiet(&group);
}

/// It has no function to lead with.
#[test]
fn a_join_does_not_take_over() {
    let (group, key) = group();
    let leader = lead(&group, &key);
    let Joined::Follower(follower) = group.request(&key).takeover(9).join() else {
        panic!("somebody leads");
    };
    drop(leader);
    assert!(matches!(follower.wait().result, Err(CallError::Abandoned)));
    assert_quiet(&group);
}

/// Of an option that is given twice the last counts.
#[test]
fn the_last_takeover_counts() {
    let _watchdog = watchdog();
    let (group, key) = group();
    let leader = lead(&group, &key);
    thread::scope(|s| {
        let unwilling = group.request(&key).takeover(9).takeover(0);
        let unwilling = s.spawn(|| unwilling.call(|| panic!("not willing")));
        until("it follows", || leader.followers() == 1);
        drop(leader);
        let error = unwilling.join().unwrap().unwrap_err();
        assert!(matches!(error, CallError::Abandoned));
    });
}

// Errors that are the leader's own.

/// Of those who find that the error was the leader's own, one leads and the others follow it.
#[test]
fn an_error_of_the_leader_alone_is_taken_over() {
    let _watchdog = watchdog();
    let (group, key) = group();
    let work = AtWork::default();
    let leader = lead(&group, &key);
    thread::scope(|s| {
        let (willing, unwilling) = all_arrived(&group, &key, 6, || {
            let call = |error: &'static str| {
                let request = group.request(&key).takeover_if(1, move |e| *e == error);
                s.spawn(|| {
                    request.call_ex(|| {
                        work.run(|| {
                            until("the others follow", || group.in_flight()[0].followers == 2);
                            Ok(2)
                        })
                    })
                })
            };
            ([(); 3].map(|()| call("cancelled")), [(); 3].map(|()| call("another")))
        });
        let _ = leader.complete(Err("cancelled"));
        for caller in unwilling {
            let outcome = caller.join().unwrap();
            assert_eq!((outcome.role, outcome.followers), (Role::Followed, 6));
            assert_eq!(outcome.result.unwrap_err().failed(), Some(&"cancelled"));
        }
        let outcomes = willing.map(|caller| caller.join().unwrap());
        assert_eq!(outcomes.iter().filter(|o| o.fresh()).count(), 1);
        for outcome in outcomes {
            assert_eq!((outcome.result, outcome.followers), (Ok(2), 2));
        }
    });
    assert_eq!(work.runs.into_inner(), 1);
    let stats = group.stats();
    assert_eq!((stats.led, stats.failed, stats.followed), (2, 1, 5));
    assert_quiet(&group);
}

/// It is not asked about a panic or an abandoned flight, which are taken over in any case.
#[test]
fn takeover_if_takes_over_without_an_error_as_well() {
    let _watchdog = watchdog();
    let (group, key) = group();
    let leader = lead(&group, &key);
    thread::scope(|s| {
        let request = group.request(&key).takeover_if(1, |_| panic!("no error"));
        let willing = s.spawn(|| request.call(|| Ok(2)));
        until("it follows", || leader.followers() == 1);
        drop(leader);
        assert_eq!(willing.join().unwrap(), Ok(2));
    });
    assert_quiet(&group);
}

/// Its own error is not the error of another leader.
#[test]
fn a_leader_does_not_take_over_its_own_error() {
    let (group, key) = group();
    let request = group.request(&key).takeover_if(9, |_| true);
    let failed = request.call(|| Err("cancelled")).unwrap_err();
    assert_eq!(failed.failed(), Some(&"cancelled"));
    assert_eq!(group.stats().led, 1);
}

#[test]
fn of_takeover_and_takeover_if_the_last_call_wins() {
    let _watchdog = watchdog();
    let (group, key) = group();
    let leader = lead(&group, &key);
    thread::scope(|s| {
        let plain = group.request(&key).takeover_if(9, |_| true).takeover(1);
        let by_error = group.request(&key).takeover(0).takeover_if(1, |_| true);
        let plain = s.spawn(|| plain.call(|| panic!("not for an error")));
        let by_error = s.spawn(|| by_error.call(|| Ok(2)));
        until("both follow", || leader.followers() == 2);
        let _ = leader.complete(Err("cancelled"));
        assert_eq!(plain.join().unwrap().unwrap_err().failed(), Some(&"cancelled"));
        assert_eq!(by_error.join().unwrap(), Ok(2));
    });
    assert_quiet(&group);
}

/// An outcome that is there beats the deadline. A caller whose time is up does not do another's work.
#[test]
fn a_caller_whose_deadline_has_passed_gets_the_outcome_and_does_not_take_over() {
    let _watchdog = watchdog();
    let (group, key) = group();
    let leader = lead(&group, &key);
    thread::scope(|s| {
        // It is held in its predicate until the deadline has passed.
        let deadline = Instant::now() + Duration::from_millis(20);
        let past = move |_: &&str| {
            until("the deadline has passed", || Instant::now() > deadline);
            true
        };
        let request = group.request(&key).deadline(deadline).takeover_if(1, past);
        let late = s.spawn(|| request.call(|| panic!("its time is up")));
        until("it follows", || leader.followers() == 1);
        let _ = leader.complete(Err("cancelled"));
        // On a machine that is busy elsewhere its time may have been up before.
        match late.join().unwrap().unwrap_err() {
            CallError::Failed(error) => assert_eq!(*error, "cancelled"),
            other => assert_eq!(other, CallError::TimedOut),
        }
    });
    assert_quiet(&group);
}
