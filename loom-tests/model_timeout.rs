//! Callers that run out of patience (G8).

use std::time::Duration;

use loom::thread;

use crate::explore::Model;
use crate::sync::{Arc, AtomicBool, Ordering};
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
        executions: &[1_463, 3_332],
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
                        assert_eq!(value.unwrap(), 2);
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
        assert_eq!(
            patient.wait().result.unwrap(),
            1,
            "G8: disturbed by the other"
        );
        hasty.join().unwrap();
        assert!(format!("{group:?}").contains("in_flight: 0"));
    });
}

/// A follower that has timed out is not counted, does not take the flight along, and can come again.
#[test]
fn one_that_has_timed_out_is_gone() {
    Model {
        preemptions: None,
        must_reach: &["nobody else", "shared"],
        executions: &[559],
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
        assert!(matches!(gone, Err(CallError::TimedOut)));
        let again = group.join("key");
        assert!(
            matches!(again, Joined::Follower(_)),
            "G8: a second execution"
        );
        drop(again);
        let followers = leader.complete(Ok(1)).followers;
        assert!(followers <= 1, "one that has left is counted");
        assert_eq!(other.join().unwrap(), followers);
        reached.mark(if followers == 0 {
            "nobody else"
        } else {
            "shared"
        });
    });
}
