//! Flights that were given up: `in_flight` shows them, marked, until their function returns, and
//! their end touches no successor (G6).
#![cfg(not(loom))]

mod common;

use std::sync::{mpsc, Barrier};
use std::thread;
use std::time::Duration;

use common::{
    assert_quiet, follow, gate, give_up, lead, panic_text, the_flight, until_queued, until_waiting,
    watchdog,
};
use shared_calls::{CallError, FlightGroup, InFlight, WaitsFor};

type Group = FlightGroup<u32, &'static str>;

/// What is in flight: first what the map names.
#[track_caller]
fn look(group: &Group) -> Vec<InFlight<String>> {
    let mut flights = group.in_flight();
    assert_eq!(group.stats().in_flight, flights.len() as u64);
    flights.sort_by_key(|flight| flight.given_up);
    flights
}

#[test]
fn a_forgotten_flight_is_shown_until_it_ends() {
    let group = Group::new();
    let leader = lead(&group, "k");
    let follower = follow(&group, "k");
    assert!(!the_flight(&group).given_up);
    assert!(group.forget("k"));
    let [flight] = &look(&group)[..] else {
        panic!("one flight");
    };
    assert!(flight.given_up && flight.age.is_some());
    assert_eq!((&*flight.key, flight.followers, flight.queued), ("k", 1, 0));
    assert!(flight.to_string().contains("given up"));
    assert_eq!(leader.complete(Ok(1)).followers, 1);
    assert!(look(&group).is_empty());
    assert_eq!(follower.wait().result, Ok(1));
    assert_quiet(&group);
}

#[test]
fn one_without_followers_is_shown_too() {
    let group = Group::new();
    let leader = lead(&group, "k");
    assert!(group.forget_unshared("k"));
    let flight = the_flight(&group);
    assert!(flight.given_up);
    assert_eq!((flight.followers, flight.age), (0, None));
    drop(leader);
    assert!(look(&group).is_empty());
}

/// However it ends.
#[test]
fn it_is_gone_however_it_ends() {
    let group = Group::new();
    let seen = |group: &Group| look(group).iter().map(|flight| flight.given_up).collect::<Vec<_>>();
    assert_eq!(
        group.call("k", || {
            assert!(group.forget("k"));
            assert_eq!(seen(&group), [true]);
            Ok(1)
        }),
        Ok(1)
    );
    assert!(look(&group).is_empty());
    assert!(group
        .call("k", || {
            group.forget("k");
            Err("no")
        })
        .is_err());
    assert!(look(&group).is_empty());
    let text = panic_text(|| {
        let result = group.call("k", || {
            group.forget("k");
            panic!("lost")
        });
        drop(result);
    });
    assert_eq!(text, "lost");
    assert!(look(&group).is_empty());
    let (jobs, worker) = mpsc::channel();
    let ticket = group.start("k", |job| jobs.send(job).unwrap(), || Ok(2));
    group.forget("k");
    assert_eq!(seen(&group), [true]);
    drop(worker.recv().unwrap());
    assert!(look(&group).is_empty());
    assert_eq!(ticket.wait().result, Err(CallError::Abandoned));
}

/// By its number, not by its key.
#[test]
fn its_end_leaves_its_successors_alone() {
    let group = Group::new();
    let first = lead(&group, "k");
    let on_first = follow(&group, "k");
    let second = give_up(&group, "k");
    let on_second = follow(&group, "k");
    let third = give_up(&group, "k");
    let on_third = [follow(&group, "k"), follow(&group, "k")];
    let seen: Vec<_> = look(&group).iter().map(|f| (f.given_up, f.followers)).collect();
    assert_eq!(seen[0], (false, 2));
    assert_eq!(seen[1..], [(true, 1), (true, 1)]);
    // In any order.
    assert_eq!(second.complete(Ok(2)).followers, 1);
    assert_eq!(third.followers(), 2);
    assert_eq!((look(&group).len(), first.followers()), (2, 1));
    drop(first);
    assert_eq!(third.followers(), 2);
    let fourth = follow(&group, "k");
    assert_eq!(third.complete(Ok(3)).followers, 3);
    assert_eq!(on_first.wait().result, Err(CallError::Abandoned));
    assert_eq!(on_second.wait().result, Ok(2));
    for follower in on_third.into_iter().chain([fourth]) {
        assert_eq!(follower.wait().result, Ok(3));
    }
    assert!(look(&group).is_empty());
}

/// The successor ends first, and there is another one after it.
#[test]
fn a_successor_that_ends_first_is_not_missed() {
    let group = Group::new();
    let old = lead(&group, "k");
    assert!(group.forget("k"));
    assert_eq!(group.call("k", || Ok(2)), Ok(2));
    let third = lead(&group, "k");
    let follower = follow(&group, "k");
    assert_eq!(old.complete(Ok(1)).followers, 0);
    assert_eq!(third.complete(Ok(3)).followers, 1);
    assert_eq!(follower.wait().result, Ok(3));
    assert_quiet(&group);
}

#[test]
fn what_was_given_up_cannot_be_forgotten_again() {
    let group = Group::new();
    let leader = lead(&group, "k");
    assert!(group.forget("k"));
    assert!(!group.forget("k"));
    assert!(!group.forget_unshared("k"));
    drop(leader);
    assert!(!group.forget("k"));
}

#[test]
fn a_flight_that_is_not_wanted_is_shown_until_its_function_returns() {
    let group = Group::new();
    let outcome = group.request("k").timeout(Duration::ZERO).call_with(|flight| {
        assert!(!flight.is_wanted());
        let given_up = the_flight(&group);
        assert!(given_up.given_up);
        assert_eq!(given_up.leader.unwrap().id(), thread::current().id());
        Ok(1)
    });
    assert_eq!(outcome, Ok(1));
    assert!(look(&group).is_empty());
}

/// Who leads it, and what it waits for, is known of it as of any other.
#[test]
fn its_leader_and_its_wait_are_shown() {
    let _watchdog = watchdog();
    let group = Group::new();
    let other = lead(&group, "other");
    thread::scope(|s| {
        let caller = thread::Builder::new().name("the caller".to_owned());
        let caller = caller
            .spawn_scoped(s, || group.call("k", || Ok(group.call("other", || Ok(9)).unwrap() + 1)))
            .unwrap();
        until_waiting(&group, 1);
        assert!(group.forget("k"));
        let flights = look(&group);
        let flight = &flights[1];
        assert!(flight.given_up);
        assert_eq!(flight.leader.as_ref().unwrap().name(), Some("the caller"));
        assert_eq!(flight.waits_for, Some(WaitsFor::Key("other".to_owned())));
        let _ = other.complete(Ok(1));
        assert_eq!(caller.join().unwrap(), Ok(2));
    });
    assert!(look(&group).is_empty());
}

/// Its followers are still in the deadlock graph.
#[test]
fn a_cycle_through_a_given_up_flight_is_refused() {
    let _watchdog = watchdog();
    let group = Group::new();
    let both_lead = Barrier::new(2);
    thread::scope(|s| {
        let other = s.spawn(|| {
            group.call("a", || {
                both_lead.wait();
                Ok(group.call("b", || Ok(9)).unwrap() + 1)
            })
        });
        let outer = group.call("b", || {
            both_lead.wait();
            until_waiting(&group, 1);
            assert!(group.forget("b"));
            assert!(matches!(group.call("a", || Ok(9)), Err(CallError::Deadlock(_))));
            // Its own key is free for it now.
            assert_eq!(group.call("b", || Ok(5)), Ok(5));
            Ok(1)
        });
        assert_eq!((outer, other.join().unwrap()), (Ok(1), Ok(2)));
    });
    assert_quiet(&group);
}

/// An entry without a leader is one of what is in flight, too.
#[test]
fn the_counts_agree_all_the_time() {
    let _watchdog = watchdog();
    let group = Group::new();
    let leader = lead(&group, "k");
    let (held, gate) = gate();
    thread::scope(|s| {
        let queued = s.spawn(|| {
            group.request("k").next_flight().call(|| {
                held();
                Ok(2)
            })
        });
        until_queued(&group, 1);
        assert_eq!(look(&group).len(), 1);
        assert!(group.forget("k"));
        // With a leader by now, or without.
        assert_eq!(look(&group).len(), 2);
        gate.begun();
        let flights = look(&group);
        assert!(flights[0].leader.is_some() && !flights[0].given_up && flights[1].given_up);
        gate.open();
        assert_eq!(queued.join().unwrap(), Ok(2));
    });
    assert_eq!(look(&group).len(), 1);
    drop(leader);
    assert!(look(&group).is_empty());
}

/// With shards, and many of them.
#[test]
fn many_given_up_flights() {
    let group = FlightGroup::<u32, (), u32>::builder().shards(4).build();
    let mut leaders = Vec::new();
    for key in 0..50 {
        leaders.push(lead(&group, &key));
        for _ in 0..3 {
            leaders.push(give_up(&group, &key));
        }
    }
    let flights = group.in_flight();
    assert_eq!((flights.len(), group.stats().in_flight), (200, 200));
    assert_eq!(flights.iter().filter(|flight| flight.given_up).count(), 150);
    for key in 0..50 {
        assert_eq!(flights.iter().filter(|flight| flight.key == key).count(), 4);
    }
    drop(leaders);
    assert!(group.in_flight().is_empty());
    assert_eq!(group.stats().abandoned, 200);
}

/// Threads that forget, call and look. At the end nothing is left.
#[test]
fn nothing_is_left_on_the_list() {
    let _watchdog = watchdog();
    let group = Group::new();
    thread::scope(|s| {
        for t in 0..4 {
            let group = &group;
            s.spawn(move || {
                for i in 0..500 {
                    let result = group.call(["a", "b"][(i + t) % 2], || {
                        group.forget("a");
                        thread::yield_now();
                        Ok(1)
                    });
                    assert_eq!(result, Ok(1));
                    group.forget_unshared("b");
                    drop(group.in_flight());
                }
            });
        }
    });
    assert!(look(&group).is_empty());
    assert_eq!(group.stats().calls(), 2_000);
}
