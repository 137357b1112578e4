//! A limit on those who wait for one flight (G13). It is exact: nobody too many, and nobody refused
//! while there is a place.

use std::time::Duration;

use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

use crate::explore::{first_leader, Model};
use crate::sync::{self, Arc};
use crate::{CallError, FlightGroup, Follower, Joined, Role, SharedCalls};

type Group = FlightGroup<u32, ()>;

const SOON: Duration = Duration::from_secs(1);

/// Joins with a cap of 1.
fn join(group: &Group) -> Follower<u32, ()> {
    match group.request("key").max_followers(1).join() {
        Joined::Follower(follower) => follower,
        Joined::Leader(_) => panic!("G1: there is a leader"),
    }
}

/// A refused `join` has its outcome already.
fn is_refused(follower: &Follower<u32, ()>) -> bool {
    match follower.try_wait() {
        Some(outcome) => {
            assert_eq!(outcome.result, Err(CallError::Overloaded));
            true
        }
        None => false,
    }
}

fn assert_quiet(group: &Group) {
    sync::take_notified();
    assert_eq!(group.call("key", || Ok(9)), Ok(9));
    assert_eq!(sync::take_notified(), 0, "a lone call woke somebody");
    assert_eq!(group.stats().in_flight, 0, "the key is stuck");
}

#[test]
fn two_arrive_where_one_has_a_place() {
    Model { preemptions: None, must_reach: &["the first", "the second"], executions: &[5] }
        .explore(|reached| {
            let group = Arc::new(Group::new());
            let leader = first_leader(&group);
            let other = thread::spawn({
                let group = Arc::clone(&group);
                move || join(&group)
            });
            let followers = [join(&group), other.join().unwrap()];
            assert_eq!(leader.followers(), 1);
            reached.mark(match followers.each_ref().map(is_refused) {
                [false, true] => "the first",
                [true, false] => "the second",
                refused => panic!("G13: one of two is refused: {refused:?}"),
            });
            let _ = leader.complete(Ok(1));
            // A refusal, once given, stays.
            for follower in followers {
                let refused = is_refused_or_done(&follower);
                assert_eq!(follower.wait().result.is_err(), refused);
            }
            assert_eq!((group.stats().followed, group.stats().overloaded), (1, 1));
            assert_quiet(&group);
        });
}

fn is_refused_or_done(follower: &Follower<u32, ()>) -> bool {
    let outcome = follower.try_wait().expect("the flight has landed");
    outcome.result == Err(CallError::Overloaded)
}

/// Two arrive while the one with the place leaves. Both are refused only if both came before that,
/// and then the place is free.
#[test]
fn two_arrive_while_one_leaves() {
    Model {
        preemptions: None,
        must_reach: &["one got the place", "both came too early"],
        executions: &[233],
    }
    .explore(|reached| {
        let group = Arc::new(Group::new());
        let leader = first_leader(&group);
        let leaving = join(&group);
        let others = [(); 2].map(|()| {
            let group = Arc::clone(&group);
            thread::spawn(move || join(&group))
        });
        drop(leaving);
        let others = others.map(|other| other.join().unwrap());
        let refused = others.iter().filter(|other| is_refused(other)).count();
        assert_eq!(leader.followers(), 2 - refused, "G13");
        // Now that nobody arrives or leaves.
        let last = is_refused(&join(&group));
        reached.mark(match (refused, last) {
            (1, true) => "one got the place",
            (2, false) => "both came too early",
            other => panic!("G13: {other:?}"),
        });
        drop(others);
        assert_eq!(leader.complete(Ok(1)).followers, 0);
        assert_quiet(&group);
    });
}

/// The same for calls, while the flight lands: nobody is refused once it has been unlinked.
#[test]
fn a_flight_lands_while_two_arrive() {
    Model {
        preemptions: None,
        must_reach: &["followed", "led", "overloaded"],
        executions: &[2_256],
    }
    .explore(|reached| {
        let group = Arc::new(Group::new());
        let leader = first_leader(&group);
        let others = [(); 2].map(|()| {
            let (group, reached) = (Arc::clone(&group), reached.clone());
            thread::spawn(move || {
                let request = group.request("key").max_followers(1);
                let outcome = request.call_ex(|| Ok(2));
                assert!(outcome.followers <= 1, "G13");
                reached.mark(match (outcome.role, outcome.result) {
                    (Role::Led, Ok(2)) => "led",
                    (Role::Followed, Ok(_)) => "followed",
                    (Role::Followed, Err(CallError::Overloaded)) => "overloaded",
                    other => panic!("{other:?}"),
                });
            })
        });
        assert!(leader.complete(Ok(1)).followers <= 1, "G13");
        for other in others {
            other.join().unwrap();
        }
        let stats = group.stats();
        assert_eq!(stats.led + stats.followed + stats.overloaded, 3);
        assert_quiet(&group);
    });
}

/// Two want the one place in the queue. One has it and leads when its turn comes; the other is
/// refused at once, while the flight in front is still running.
#[test]
fn the_queue_has_one_place() {
    Model { preemptions: None, must_reach: &["one queued, one refused"], executions: &[23_204] }
        .explore(|reached| {
            let group = Arc::new(Group::new());
            let first = first_leader(&group);
            let refused = Arc::new(AtomicUsize::new(0));
            let call = {
                let (group, refused) = (Arc::clone(&group), Arc::clone(&refused));
                move || {
                    let request = group.request("key").next_flight().max_followers(1);
                    match request.call_ex(|| Ok(2)).result {
                        Ok(2) => 1,
                        Err(CallError::Overloaded) => {
                            refused.fetch_add(1, Ordering::Relaxed);
                            0
                        }
                        other => panic!("{other:?}"),
                    }
                }
            };
            let others = [thread::spawn(call.clone()), thread::spawn(call)];
            while refused.load(Ordering::Relaxed) == 0 {
                thread::yield_now();
            }
            let _ = first.complete(Ok(1));
            let served: usize = others.into_iter().map(|other| other.join().unwrap()).sum();
            assert_eq!((served, refused.load(Ordering::Relaxed)), (1, 1), "G13");
            reached.mark("one queued, one refused");
            assert_quiet(&group);
        });
}

/// A queued caller leaves, which removes the queue, while another arrives: that one has a place, or
/// came before the first had left. The first place in the new queue is a place like any other.
#[test]
fn one_leaves_the_queue_while_another_arrives() {
    Model { preemptions: None, must_reach: &["overloaded", "served"], executions: &[176, 290] }
        .explore(|reached| {
            let group = Arc::new(Group::new());
            let first = first_leader(&group);
            let request = |group: &Group, hasty: bool| {
                let request = group.request("key").next_flight().max_followers(1);
                let request = if hasty { request.timeout(SOON) } else { request };
                request.call(|| Ok(2))
            };
            let other = thread::spawn({
                let group = Arc::clone(&group);
                move || request(&group, false)
            });
            // Never led, as the first does not end before it has left.
            let hasty = request(&group, true);
            assert!(matches!(hasty, Err(CallError::TimedOut | CallError::Overloaded)));
            let _ = first.complete(Ok(1));
            reached.mark(match other.join().unwrap() {
                Ok(2) => "served",
                Err(CallError::Overloaded) => {
                    assert_eq!(hasty, Err(CallError::TimedOut), "G13: there was a place");
                    "overloaded"
                }
                other => panic!("{other:?}"),
            });
            assert_quiet(&group);
        });
}

/// A queued caller whose turn comes leads and gives up its place to do so. Another one has it then.
#[test]
fn one_who_leads_after_queueing_takes_no_place() {
    Model { preemptions: None, must_reach: &["came later", "queued"], executions: &[28, 46, 71] }
        .explore(|reached| {
            let group = Arc::new(Group::new());
            let first = first_leader(&group);
            let other = thread::spawn({
                let group = Arc::clone(&group);
                move || {
                    let request = group.request("key").next_flight().max_followers(1);
                    request.call_with(|flight| {
                        let before = flight.followers();
                        let follower = join(&group);
                        assert!(!is_refused(&follower), "G13: the leader has no place");
                        assert_eq!((before, flight.followers()), (0, 1));
                        drop(follower);
                        Ok(2)
                    })
                }
            });
            let queued = group.in_flight()[0].queued;
            let _ = first.complete(Ok(1));
            assert_eq!(other.join().unwrap(), Ok(2));
            let stats = group.stats();
            assert_eq!((stats.led, stats.followed), (2, 0));
            reached.mark(match queued {
                0 => "came later",
                _ => "queued",
            });
            assert_quiet(&group);
        });
}

/// With a cap of 0 nobody queues, and no queue is left behind.
#[test]
fn nobody_queues_at_a_cap_of_zero() {
    Model { preemptions: None, must_reach: &["overloaded"], executions: &[1] }.explore(|reached| {
        let group = Group::new();
        let first = first_leader(&group);
        let request = group.request("key").next_flight().max_followers(0);
        assert_eq!(request.call(|| Ok(2)), Err(CallError::Overloaded));
        reached.mark("overloaded");
        let _ = first.complete(Ok(1));
        assert_quiet(&group);
    });
}

/// What the builder was given holds for a caller that knows nothing but the trait.
#[test]
fn a_default_holds_behind_a_trait_object() {
    Model { preemptions: None, must_reach: &["overloaded", "timed out"], executions: &[1] }
        .explore(|reached| {
            let full = FlightGroup::<u32, ()>::builder().max_followers(0).build();
            let first = first_leader(&full);
            let calls: &(dyn SharedCalls<u32, ()> + Send + Sync) = &full;
            assert_eq!(calls.call("key", || Ok(2)), Err(CallError::Overloaded));
            reached.mark("overloaded");
            let _ = first.complete(Ok(1));

            let hasty = FlightGroup::<u32, ()>::builder().timeout(SOON).build();
            let first = first_leader(&hasty);
            let calls: &(dyn SharedCalls<u32, ()> + Send + Sync) = &hasty;
            assert_eq!(calls.call("key", || Ok(2)), Err(CallError::TimedOut));
            reached.mark("timed out");
            let _ = first.complete(Ok(1));
        });
}
