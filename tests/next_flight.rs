//! `next_flight`: read-your-writes (G7).
//!
//! A caller that has just changed what the function reads must not share an execution that may have
//! read before the change. It waits for the one after. Here "the one that runs" is mostly a [`Leader`]
//! that the test holds, and callers are known to be queued by [`all_arrived`].
//!
//! [`Leader`]: shared_calls::Leader
#![cfg(not(loom))]

#[path = "common/allocator.rs"]
mod allocator;
mod common;

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use allocator::at_next_allocation;
use common::{all_arrived, assert_quiet, follow, gate, give_up, lead, panic_text, until, watchdog};
use common::{Watched, TOO_LONG};
use shared_calls::{CallError, FlightGroup, Job, Joined, Outcome, Role};

type Group = FlightGroup<u32, &'static str, Watched>;

fn group() -> (Group, Watched) {
    (Group::new(), Watched::new("k"))
}

#[test]
fn ten_queued_callers_share_one_execution_that_began_after_they_did() {
    let _watchdog = watchdog();
    let (group, key) = group();
    let runs = AtomicUsize::new(0);
    let function = || {
        runs.fetch_add(1, SeqCst);
        Ok(2)
    };
    let running = lead(&group, &key);
    let outcomes: Vec<_> = thread::scope(|s| {
        let queued = all_arrived(&group, &key, 10, || {
            let call = || group.request(&key).next_flight().call_ex(function);
            [(); 10].map(|()| s.spawn(call))
        });
        // All ten have begun. The execution that they will share has not, and they are not on the
        // one that has.
        assert_eq!((runs.load(SeqCst), running.followers()), (0, 0));
        let first = running.complete(Ok(1));
        assert_eq!((first.result.unwrap(), first.followers), (1, 0));
        queued.map(|caller| caller.join().unwrap()).into()
    });
    assert_eq!(runs.into_inner(), 1);
    assert_eq!(outcomes.iter().filter(|o| o.fresh()).count(), 1);
    for outcome in outcomes {
        assert_eq!(outcome.followers, 9);
        assert_eq!(outcome.result.unwrap(), 2);
    }
    assert_quiet(&group);
}

#[test]
fn on_an_idle_key_the_caller_leads_at_once() {
    let (group, key) = group();
    for round in 0..3 {
        let outcome = group.request(&key).next_flight().call_ex(|| Ok(round));
        assert_eq!((outcome.role, outcome.followers), (Role::Led, 0));
        assert_eq!(outcome.result.unwrap(), round);
    }
    assert!(matches!(group.request(&key).next_flight().join(), Joined::Leader(_)));
    assert_quiet(&group);
}

#[test]
fn a_plain_caller_still_joins_the_flight_that_runs() {
    let _watchdog = watchdog();
    let (group, key) = group();
    let running = lead(&group, &key);
    thread::scope(|s| {
        let queued = all_arrived(&group, &key, 1, || {
            s.spawn(|| group.request(&key).next_flight().call(|| Ok(2)))
        });
        let plain = follow(&group, &key);
        assert_eq!(running.followers(), 1);
        assert_eq!(running.complete(Ok(1)).followers, 1);
        assert_eq!(plain.wait().result.unwrap(), 1);
        assert_eq!(queued.join().unwrap().unwrap(), 2);
    });
    assert_quiet(&group);
}

/// Each flight of the chain is asked for while the one before it runs, and is joined by a plain
/// caller while it runs itself.
#[test]
fn each_flight_of_a_chain_is_asked_for_while_the_one_before_runs() {
    let _watchdog = watchdog();
    let (group, key) = group();
    let mut running = lead(&group, &key);
    thread::scope(|s| {
        for generation in 1..=3 {
            let queued = all_arrived(&group, &key, 1, || {
                s.spawn(|| group.request(&key).next_flight().join())
            });
            let follower = follow(&group, &key);
            assert_eq!(running.complete(Ok(generation)).followers, 1);
            assert_eq!(follower.wait().result.unwrap(), generation);
            running = match queued.join().unwrap() {
                Joined::Leader(leader) => leader,
                Joined::Follower(_) => panic!("nobody else could lead"),
            };
            assert_eq!(running.followers(), 0);
        }
        assert_eq!(running.complete(Ok(4)).result.unwrap(), 4);
    });
    assert_quiet(&group);
}

/// Three callers are queued and one of them gives up, in whatever place it is.
#[test]
fn a_queued_caller_that_times_out_leaves_the_others_their_flight() {
    let _watchdog = watchdog();
    for hasty in 0..3 {
        let (group, key) = group();
        let running = lead(&group, &key);
        thread::scope(|s| {
            let mut patient = Vec::new();
            let mut gone = Vec::new();
            for place in 0..3 {
                all_arrived(&group, &key, 1, || {
                    let request = group.request(&key).next_flight();
                    if place == hasty {
                        let request = request.timeout(Duration::from_millis(1));
                        gone.push(s.spawn(move || request.call_ex(|| Ok(3))));
                    } else {
                        patient.push(s.spawn(move || request.call_ex(|| Ok(2))));
                    }
                });
            }
            let gone = gone.pop().unwrap().join().unwrap();
            assert!(matches!(gone.result, Err(CallError::TimedOut)));
            assert_eq!((gone.role, gone.followers), (Role::Followed, 0));
            let _ = running.complete(Ok(1));
            for caller in patient {
                let outcome = caller.join().unwrap();
                assert_eq!((outcome.result.unwrap(), outcome.followers), (2, 1));
            }
        });
        assert_quiet(&group);
    }
}

#[test]
fn when_all_queued_callers_have_timed_out_nothing_is_queued() {
    let _watchdog = watchdog();
    // Milliseconds, in all orders of arrival.
    let orders = [[1, 2, 9], [1, 9, 2], [2, 1, 9], [2, 9, 1], [9, 1, 2], [9, 2, 1]];
    for order in orders {
        let (group, key) = group();
        let running = lead(&group, &key);
        thread::scope(|s| {
            for patience in order {
                let request = group.request(&key).next_flight();
                let request = request.timeout(Duration::from_millis(patience));
                s.spawn(|| {
                    let outcome = request.call(|| panic!("nothing is started"));
                    assert!(matches!(outcome, Err(CallError::TimedOut)));
                });
            }
        });
        // The flight that they were queued behind has not noticed.
        let follower = follow(&group, &key);
        assert_eq!(running.complete(Ok(1)).followers, 1);
        assert_eq!(follower.wait().result.unwrap(), 1);
        assert_quiet(&group);
        assert_eq!(group.call_ex(&key, || Ok(2)).role, Role::Led);
    }
}

/// The same, with the end of the flight before coming at the same time.
#[test]
fn a_queued_caller_times_out_or_has_a_value() {
    let _watchdog = watchdog();
    let (group, key) = group();
    for round in 0..500 {
        let running = lead(&group, &key);
        thread::scope(|s| {
            let queued = [0, 1, 2].map(|place| {
                let patience = Duration::from_micros(round % 100 * place);
                let request = group.request(&key).next_flight().timeout(patience);
                s.spawn(|| request.call(|| Ok(2)))
            });
            let _ = running.complete(Ok(1));
            for caller in queued {
                match caller.join().unwrap() {
                    Ok(value) => assert_eq!(value, 2),
                    Err(error) => assert!(matches!(error, CallError::TimedOut)),
                }
            }
        });
        assert_quiet(&group);
    }
}

#[test]
fn the_followers_of_a_queued_flight_learn_of_its_leaders_panic() {
    let _watchdog = watchdog();
    let (group, key) = group();
    let running = lead(&group, &key);
    thread::scope(|s| {
        let call = || {
            let request = group.request(&key).next_flight();
            catch_unwind(AssertUnwindSafe(|| request.call(|| panic!("second"))))
        };
        let queued = all_arrived(&group, &key, 3, || [(); 3].map(|()| s.spawn(call)));
        assert_eq!(running.complete(Ok(1)).result.unwrap(), 1);
        let mut unwound = 0;
        for caller in queued {
            match caller.join().unwrap() {
                Err(payload) => {
                    unwound += 1;
                    assert_eq!(*payload.downcast::<&str>().unwrap(), "second");
                }
                Ok(Err(CallError::Panicked(panicked))) => {
                    assert_eq!(panicked.message(), Some("second"));
                }
                Ok(other) => panic!("unexpected: {other:?}"),
            }
        }
        assert_eq!(unwound, 1);
    });
    assert_quiet(&group);
}

#[test]
fn the_followers_of_a_queued_flight_learn_that_it_was_abandoned() {
    let _watchdog = watchdog();
    let (group, key) = group();
    let running = lead(&group, &key);
    thread::scope(|s| {
        let queued = all_arrived(&group, &key, 3, || {
            [(); 3].map(|()| s.spawn(|| group.request(&key).next_flight().join()))
        });
        let _ = running.complete(Ok(1));
        let joined = queued.map(|caller| caller.join().unwrap());
        let mut followers = Vec::new();
        for joined in joined {
            match joined {
                Joined::Leader(leader) => drop(leader),
                Joined::Follower(follower) => followers.push(follower),
            }
        }
        assert_eq!(followers.len(), 2);
        for follower in followers {
            let outcome = follower.wait();
            assert!(matches!(outcome.result, Err(CallError::Abandoned)));
            assert_eq!(outcome.followers, 2);
        }
    });
    assert_quiet(&group);
}

/// The flight that runs fails, which is nothing to those who are queued. Theirs fails too, and is
/// taken over.
#[test]
fn a_queued_flight_is_taken_over() {
    let _watchdog = watchdog();
    let (group, key) = group();
    let runs = AtomicUsize::new(0);
    let running = lead(&group, &key);
    thread::scope(|s| {
        let call = || {
            let request = group.request(&key).next_flight().takeover(1);
            let function = || match runs.fetch_add(1, SeqCst) {
                0 => panic!("the first to run"),
                _ => Ok(2),
            };
            catch_unwind(AssertUnwindSafe(|| request.call(function)))
        };
        let queued = all_arrived(&group, &key, 4, || [(); 4].map(|()| s.spawn(call)));
        drop(running);
        let results = queued.map(|caller| caller.join().unwrap());
        assert_eq!(results.iter().filter(|r| r.is_err()).count(), 1);
        for value in results.into_iter().flatten() {
            assert_eq!(value.unwrap(), 2);
        }
    });
    // One run failed. Of the three others, those who came back together shared.
    assert!((2..=4).contains(&runs.into_inner()));
    assert_quiet(&group);
}

#[test]
fn forgetting_the_flight_that_runs_begins_the_queued_one() {
    let _watchdog = watchdog();
    let (group, key) = group();
    let hung = lead(&group, &key);
    let old_follower = follow(&group, &key);
    thread::scope(|s| {
        let queued = all_arrived(&group, &key, 2, || {
            let call = || group.request(&key).next_flight().call_ex(|| Ok(2));
            [s.spawn(call), s.spawn(call)]
        });
        assert!(group.forget(&key));
        for caller in queued {
            let outcome = caller.join().unwrap();
            assert_eq!((outcome.result.unwrap(), outcome.followers), (2, 1));
        }
    });
    // It goes on, for its own follower.
    assert!(!old_follower.is_done());
    assert_eq!(hung.complete(Ok(1)).followers, 1);
    assert_eq!(old_follower.wait().result.unwrap(), 1);
    assert_quiet(&group);
}

/// A caller is queued by `join`, and another one gives up the flight in front and leads. The queued
/// caller is back as soon as that has happened, as its follower.
#[test]
fn a_queued_join_is_back_when_the_flight_in_front_is_given_up() {
    let _watchdog = watchdog();
    let (group, key) = group();
    let hung = lead(&group, &key);
    let (back, is_back) = mpsc::channel();
    thread::scope(|s| {
        let (group, key) = (&group, &key);
        all_arrived(group, key, 1, || {
            s.spawn(move || drop(back.send(group.request(key).next_flight().join())))
        });
        assert!(is_back.try_recv().is_err());
        let next = give_up(group, key);
        // It may be back only now, while `next` has not ended.
        let queued = is_back.recv_timeout(TOO_LONG).expect("it is back");
        let Joined::Follower(follower) = queued else {
            panic!("two leaders");
        };
        assert_eq!(next.followers(), 1);
        assert!(!follower.is_done());
        let _ = next.complete(Ok(2));
        assert_eq!(follower.wait().result, Ok(2));
    });
    assert_eq!(hung.complete(Ok(1)).followers, 0);
    assert_quiet(&group);
}

/// A queued `start` blocks, too. Then it spawns its job, or follows.
#[test]
fn a_queued_start_spawns_when_its_turn_has_come() {
    let _watchdog = watchdog();
    let group = FlightGroup::<u32, &'static str>::new();
    let running = lead(&group, "k");
    let spawned = AtomicUsize::new(0);
    thread::scope(|s| {
        let queued = [(); 3].map(|()| {
            s.spawn(|| {
                let spawn = |job: Job| {
                    spawned.fetch_add(1, SeqCst);
                    until("the others follow", || group.in_flight()[0].followers == 2);
                    job.run();
                };
                group.request("k").next_flight().start(spawn, || Ok(2))
            })
        });
        until("all are queued", || group.in_flight()[0].queued == 3);
        assert_eq!(spawned.load(SeqCst), 0);
        assert_eq!(running.complete(Ok(1)).followers, 0);
        for ticket in queued {
            let outcome = ticket.join().unwrap().wait();
            assert_eq!((outcome.result, outcome.followers), (Ok(2), 2));
        }
    });
    assert_eq!(spawned.into_inner(), 1);
    assert_quiet(&group);
}

/// Its flight has begun after the call did: any flight will do for the one that takes over.
#[test]
fn a_queued_caller_that_takes_over_may_join_any_flight() {
    let _watchdog = watchdog();
    let (group, key) = group();
    let first = lead(&group, &key);
    thread::scope(|s| {
        let willing = all_arrived(&group, &key, 1, || {
            let request = group.request(&key).next_flight().takeover(1);
            s.spawn(|| request.call_ex(|| panic!("it only follows")))
        });
        // It follows the second flight. The third is there when that is abandoned.
        let second = give_up(&group, &key);
        until("it follows", || second.followers() == 1);
        until("it waits", || group.stats().waiting == 1);
        assert!(group.forget(&key));
        let third = lead(&group, &key);
        drop(second);
        until("it follows the third", || third.followers() == 1);
        let _ = third.complete(Ok(3));
        assert_eq!(willing.join().unwrap().result, Ok(3));
    });
    drop(first);
    assert_quiet(&group);
}

/// The instant between the function's return and the end of its flight: here the leader is stopped
/// where it allocates its error's `Arc`. A call that begins now must not share what was computed
/// before.
#[test]
fn a_call_after_the_function_has_returned_gets_an_execution_of_its_own() {
    let _watchdog = watchdog();
    let (group, key) = group();
    let (held, gate) = gate();
    thread::scope(|s| {
        let old = s.spawn(|| {
            group.call_ex(&key, || {
                at_next_allocation(held);
                Err("old")
            })
        });
        gate.begun();
        let queued = all_arrived(&group, &key, 1, || {
            s.spawn(|| group.request(&key).next_flight().call_ex(|| Ok(2)))
        });
        gate.open();
        let old = old.join().unwrap();
        assert_eq!((old.role, old.followers), (Role::Led, 0));
        assert_eq!(old.result.unwrap_err().failed(), Some(&"old"));
        let queued = queued.join().unwrap();
        assert_eq!((queued.role, queued.result), (Role::Led, Ok(2)));
    });
    assert_quiet(&group);
}

#[test]
fn a_queued_join_is_back_when_the_flight_before_has_ended() {
    let _watchdog = watchdog();
    let (group, key) = group();
    let running = lead(&group, &key);
    let (back, is_back) = mpsc::channel();
    thread::scope(|s| {
        all_arrived(&group, &key, 2, || {
            for _ in 0..2 {
                let (group, key, back) = (&group, &key, back.clone());
                s.spawn(move || drop(back.send(group.request(key).next_flight().join())));
            }
        });
        let _ = running.complete(Ok(1));
        // One leads and one follows. Both are back before that flight has ended.
        let mut leaders = Vec::new();
        let mut followers = Vec::new();
        for _ in 0..2 {
            match is_back.recv_timeout(TOO_LONG).expect("it is back") {
                Joined::Leader(leader) => leaders.push(leader),
                Joined::Follower(follower) => followers.push(follower),
            }
        }
        assert_eq!((leaders.len(), followers.len()), (1, 1));
        let leader = leaders.pop().unwrap();
        until("one follower", || leader.followers() == 1);
        let _ = leader.complete(Ok(2));
        assert_eq!(followers.pop().unwrap().wait().result.unwrap(), 2);
    });
    assert_quiet(&group);
}

#[test]
fn a_queued_join_that_times_out_has_its_outcome() {
    let (group, key) = group();
    let running = lead(&group, &key);
    let request = group.request(&key).next_flight().timeout(Duration::ZERO);
    let Joined::Follower(late) = request.join() else {
        panic!("somebody leads");
    };
    let timed_out = |outcome: Outcome<u32, &str>| {
        assert!(matches!(outcome.result, Err(CallError::TimedOut)));
        assert_eq!((outcome.role, outcome.followers), (Role::Followed, 0));
    };
    assert!(late.is_done());
    timed_out(late.try_wait().unwrap());
    timed_out(late.wait_timeout(Duration::MAX).unwrap());
    timed_out(late.wait());
    assert_eq!(running.complete(Ok(1)).followers, 0);
    assert_quiet(&group);
}

/// The function of a queued flight panics where nobody follows it.
#[test]
fn a_lone_queued_caller_unwinds_with_its_own_panic() {
    let _watchdog = watchdog();
    let (group, key) = group();
    let running = lead(&group, &key);
    thread::scope(|s| {
        let queued = all_arrived(&group, &key, 1, || {
            s.spawn(|| {
                panic_text(|| {
                    let request = group.request(&key).next_flight().takeover(9);
                    drop(request.call(|| panic!("mine")));
                })
            })
        });
        let _ = running.complete(Ok(1));
        assert_eq!(queued.join().unwrap(), "mine");
    });
    assert_quiet(&group);
}
