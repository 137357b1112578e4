//! Flights that are given up: by `forget`, or for their age (G1 with its exception, G6).

use std::time::Duration;

use loom::thread;

use crate::explore::Model;
use crate::sync::Arc;
use crate::{FlightGroup, Joined, Role};

type Group = FlightGroup<u32, ()>;

fn leader(joined: Joined<'_, u32, ()>) -> crate::Leader<'_, u32, ()> {
    match joined {
        Joined::Leader(leader) => leader,
        Joined::Follower(_) => panic!("expected to lead"),
    }
}

/// G6: the end of a forgotten flight, while its successor is in the map, leaves that alone: a third
/// caller joins the second flight, also after the first has ended. The followers of each get its
/// own outcome.
#[test]
fn a_forgotten_flight_leaves_its_successor_alone() {
    Model {
        preemptions: None,
        must_reach: &["joined the first", "joined the second"],
        executions: &[272],
    }
    .explore(|reached| {
        let group = Arc::new(Group::new());
        let first = leader(group.join("key"));
        let other = thread::spawn({
            let (group, reached) = (Arc::clone(&group), reached.clone());
            move || {
                let outcome = group.call_ex("key", || panic!("both are in flight"));
                assert_eq!((outcome.role, outcome.followers), (Role::Followed, 1));
                reached.mark(match outcome.result.unwrap() {
                    1 => "joined the first",
                    _ => "joined the second",
                });
            }
        });
        // Forgotten and begun anew under this model's eyes in one go, as no caller is to lead.
        let second = leader(group.request("key").max_age(Duration::ZERO).join());
        let firsts = first.complete(Ok(1)).followers;
        let third = group.join("key");
        assert!(
            matches!(third, Joined::Follower(_)),
            "G6: the second is there"
        );
        drop(third);
        while second.followers() + firsts == 0 {
            thread::yield_now();
        }
        let _ = second.complete(Ok(2));
        other.join().unwrap();
        assert!(format!("{group:?}").contains("in_flight: 0"));
    });
}

/// `forget_unshared` against a caller that joins: either that is on the flight, and nothing is
/// given up, or it leads a new one.
#[test]
fn forget_unshared_is_exact() {
    Model {
        preemptions: None,
        must_reach: &["joined, kept", "forgotten, led", "forgotten, came later"],
        executions: &[15],
    }
    .explore(|reached| {
        let group = Arc::new(Group::new());
        let first = leader(group.join("key"));
        let other = thread::spawn({
            let group = Arc::clone(&group);
            move || group.call_ex("key", || Ok(2)).role
        });
        let forgotten = group.forget_unshared("key");
        let followers = first.complete(Ok(1)).followers;
        let role = other.join().unwrap();
        if forgotten {
            assert_eq!(
                (followers, role),
                (0, Role::Led),
                "forgot one that was shared"
            );
            reached.mark("forgotten, led");
        }
        reached.mark(match (forgotten, role) {
            (true, _) => "forgotten, came later",
            (false, Role::Followed) => "joined, kept",
            // It joined after the look, or came when the first had ended.
            (false, Role::Led) => "joined, kept",
        });
    });
}

/// Two callers that give up on whatever is older than themselves: one leads, and the other follows
/// it if it has come before that one began, or else gives up on it, too.
#[test]
fn one_of_two_gives_up_on_an_old_flight() {
    Model {
        preemptions: None,
        must_reach: &["both led", "one followed"],
        executions: &[68],
    }
    .explore(|reached| {
        let group = Arc::new(Group::new());
        let hung = leader(group.join("key"));
        let call = {
            let group = Arc::clone(&group);
            move || {
                let request = group.request("key").max_age(Duration::ZERO);
                let outcome = request.call_ex(|| Ok(2));
                assert_eq!(outcome.result.unwrap(), 2, "not the hung one's");
                outcome.role
            }
        };
        let other = thread::spawn(call.clone());
        reached.mark(match [call(), other.join().unwrap()] {
            [Role::Led, Role::Led] => "both led",
            [Role::Followed, Role::Followed] => panic!("nobody led"),
            _ => "one followed",
        });
        let outcome = hung.complete(Ok(1));
        assert_eq!((outcome.result.unwrap(), outcome.followers), (1, 0));
        assert!(format!("{group:?}").contains("in_flight: 0"));
    });
}
