//! Callers with a time limit (G8).

use std::time::Duration;

use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;

use crate::explore::Model;
use crate::sync::Arc;
use crate::{CallError, FlightGroup, Joined, Role};

type Group = FlightGroup<u32, ()>;

const SOON: Duration = Duration::from_secs(1);

/// A follower times out while the flight lands: it gets the outcome or it leaves, and either way the
/// leader and the other follower have theirs, and no second execution starts.
#[test]
fn a_follower_times_out() {
    Model {
        preemptions: None,
        must_reach: &["led", "followed", "timed out"],
        executions: &[739, 1_228, 1_914],
    }
    .explore(|reached| {
        let group = Arc::new(Group::new());
        let Joined::Leader(leader) = group.join("key") else {
            unreachable!("nobody else is here yet")
        };
        let Joined::Follower(patient) = group.join("key") else {
            unreachable!("the leader is there")
        };
        let landed = Arc::new(AtomicBool::new(false));
        let hasty = thread::spawn({
            let (group, reached) = (Arc::clone(&group), reached.clone());
            let landed = Arc::clone(&landed);
            move || {
                let is_over = landed.load(Ordering::Acquire);
                let outcome = group.request("key").timeout(SOON).call_ex(|| Ok(2));
                match (outcome.role, outcome.result) {
                    (Role::Led, value) => {
                        assert_eq!(value, Ok(2));
                        reached.mark("led");
                    }
                    (Role::Followed, Ok(value)) => {
                        assert_eq!(value, 1);
                        reached.mark("followed");
                    }
                    (Role::Followed, Err(CallError::TimedOut)) => {
                        assert!(!is_over, "there was nothing to wait for");
                        reached.mark("timed out");
                    }
                    other => panic!("{other:?}"),
                }
            }
        });
        assert!(leader.followers() >= 1);
        let outcome = leader.complete(Ok(1));
        landed.store(true, Ordering::Release);
        assert!((1..=2).contains(&outcome.followers));
        let patient = patient.wait();
        assert_eq!(patient.result, Ok(1), "G8: disturbed by the other");
        assert_eq!(patient.followers, outcome.followers, "G3: all learn how many");
        hasty.join().unwrap();
        assert_eq!(group.stats().in_flight, 0, "G11");
    });
}

/// The only follower times out while the flight ends: the leader keeps its value for itself, or
/// lands it for a follower that may be about to leave.
#[test]
fn the_only_follower_times_out() {
    Model {
        preemptions: None,
        must_reach: &["led", "followed", "timed out"],
        executions: &[127, 201, 301],
    }
    .explore(|reached| {
        let group = Arc::new(Group::new());
        let runs = Arc::new(AtomicBool::new(false));
        let hasty = thread::spawn({
            let (group, runs) = (Arc::clone(&group), Arc::clone(&runs));
            move || {
                let request = group.request("key").timeout(SOON);
                let outcome = request.call_ex(|| {
                    assert!(!runs.load(Ordering::Relaxed), "G8: a second execution");
                    Ok(2)
                });
                (outcome.role, outcome.result)
            }
        });
        let outcome = group.call_ex("key", || {
            runs.store(true, Ordering::Relaxed);
            runs.store(false, Ordering::Relaxed);
            Ok(1)
        });
        match hasty.join().unwrap() {
            (Role::Led, value) => {
                assert_eq!(value, Ok(2));
                reached.mark("led");
            }
            (Role::Followed, Ok(value)) => {
                assert_eq!((value, outcome.followers), (1, 1));
                reached.mark("followed");
            }
            (Role::Followed, Err(error)) => {
                assert_eq!((error, outcome.result), (CallError::TimedOut, Ok(1)));
                reached.mark("timed out");
            }
        }
        assert_eq!(group.stats().in_flight, 0, "G11");
    });
}

/// A follower that has timed out is not counted, does not take the flight along, and can come again.
#[test]
fn one_that_has_timed_out_is_gone() {
    Model {
        preemptions: None,
        must_reach: &["nobody else", "shared"],
        executions: &[10_997, 21_363, 39_311],
    }
    .explore(|reached| {
        let group = Arc::new(Group::new());
        let Joined::Leader(leader) = group.join("key") else {
            unreachable!("nobody else is here yet")
        };
        let other = thread::spawn({
            let group = Arc::clone(&group);
            move || group.call_ex("key", || Ok(1)).followers
        });
        let gone = group.request("key").timeout(SOON).call(|| Ok(9));
        assert_eq!(gone, Err(CallError::TimedOut));
        let again = group.join("key");
        assert!(matches!(again, Joined::Follower(_)), "G8: a second execution");
        drop(again);
        let followers = leader.complete(Ok(1)).followers;
        assert!(followers <= 1, "one that has left is counted");
        assert_eq!(other.join().unwrap(), followers);
        reached.mark(if followers == 0 { "nobody else" } else { "shared" });
    });
}

/// A follower that has waited in vain keeps its place, and waits again.
#[test]
fn one_that_has_waited_in_vain_waits_again() {
    Model { preemptions: None, must_reach: &["at once", "later"], executions: &[28, 36, 45] }
        .explore(|reached| {
            let group = Arc::new(Group::new());
            let Joined::Leader(leader) = group.join("key") else {
                unreachable!("nobody else is here yet")
            };
            let Joined::Follower(follower) = group.join("key") else {
                unreachable!("the leader is there")
            };
            let other = thread::spawn({
                let reached = reached.clone();
                move || {
                    let first = follower.wait_timeout(SOON);
                    reached.mark(if first.is_some() { "at once" } else { "later" });
                    let outcome = first.unwrap_or_else(|| follower.wait());
                    assert_eq!((outcome.result, outcome.followers), (Ok(1), 1));
                }
            });
            assert_eq!(leader.complete(Ok(1)).followers, 1, "it has kept its place");
            other.join().unwrap();
        });
}
