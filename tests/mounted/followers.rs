//! A flight with followers: the leader wakes them all at once, and no follower wakes another one, so
//! none depends on another to go on.

use std::sync::Barrier;
use std::thread;

use crate::sync::{done, Done};
use crate::{FlightGroup, Joined, Leader};

type Group = FlightGroup<u32, &'static str>;

fn lead(group: &Group) -> Leader<'_, u32, &'static str> {
    match group.join("k") {
        Joined::Leader(leader) => leader,
        Joined::Follower(_) => panic!("the key is in flight"),
    }
}

fn until(happened: impl Fn() -> bool) {
    while !happened() {
        thread::yield_now();
    }
}

#[test]
fn the_leader_wakes_all_followers_by_one_notification_and_no_follower_wakes_any() {
    for n in [1, 2, 16, 64] {
        let group = Group::new();
        let leader = lead(&group);
        thread::scope(|s| {
            let call = || done(|| group.call("k", || panic!("it follows")));
            let followers: Vec<_> = (0..n).map(|_| s.spawn(call)).collect();
            until(|| group.stats().waiting == n);
            let (landed, outcome) = done(|| leader.complete(Ok(1)));
            assert_eq!((landed.map, landed.notified), (1, 1));
            assert_eq!(outcome.followers as u64, n);
            for follower in followers {
                let (followed, result) = follower.join().unwrap();
                assert_eq!((followed.map, followed.notified, result), (1, 0, Ok(1)));
            }
        });
    }
}

/// Of the callers in a queue the one that leads wakes the others, and only that one does.
#[test]
fn queued_callers_wake_no_other() {
    const QUEUED: u64 = 16;
    let group = Group::new();
    let leader = lead(&group);
    let function = || {
        until(|| group.in_flight()[0].followers as u64 == QUEUED - 1);
        Ok(2)
    };
    thread::scope(|s| {
        let call = || done(|| group.request("k").next_flight().call_ex(function));
        let queued = [(); QUEUED as usize].map(|()| s.spawn(call));
        until(|| group.stats().waiting == QUEUED);
        // Nobody follows it: this is the turn of the queue.
        assert_eq!(done(|| leader.complete(Ok(1))).0.notified, 1);
        for caller in queued {
            let (called, outcome) = caller.join().unwrap();
            assert_eq!(called.notified, usize::from(outcome.fresh()));
        }
    });
}

/// Only the first follower, from which the flight's age counts, reads the clock.
#[test]
fn followers_without_a_limit_read_no_clock() {
    let group = Group::new();
    let leader = lead(&group);
    assert!(done(|| drop(group.join("k"))).0.clock_read <= 1);
    thread::scope(|s| {
        let call = || done(|| group.call("k", || panic!("it follows"))).0;
        let follower = s.spawn(call);
        until(|| group.stats().waiting == 1);
        let _ = leader.complete(Ok(1));
        assert_eq!(follower.join().unwrap().clock_read, 0);
    });
}

/// A follower that leaves tells nobody.
#[test]
fn a_follower_that_leaves_wakes_nobody_and_leaves_the_map_alone() {
    let group = Group::new();
    let leader = lead(&group);
    let followers = [(); 3].map(|()| group.join("k"));
    let (left, ()) = done(|| drop(followers));
    assert_eq!((left.map, left.notified, left.clock_read), (0, 0, 0));
    // The flight has a latch, and nobody to wake.
    let (landed, _) = done(|| leader.complete(Ok(1)));
    assert_eq!((landed.map, landed.notified), (1, 0));
}

/// The lock of the deadlock graph is one for all groups. Only a thread that leads and waits takes it.
#[test]
fn a_thread_that_leads_nothing_does_not_take_the_lock_of_the_graph() {
    let takes = |done: &Done| done.others.iter().any(|name| name.contains("deadlock::"));
    let group = Group::new();
    let leader = lead(&group);
    let both = Barrier::new(2);
    thread::scope(|s| {
        let leads_nothing = s.spawn(|| done(|| group.call("k", || panic!("it follows"))).0);
        let leads = s.spawn(|| {
            group.call("other", || {
                both.wait();
                let (done, value) = done(|| group.call("k", || panic!("it follows")));
                assert!(takes(&done), "{done:?}");
                value.map_err(|_| "refused")
            })
        });
        both.wait();
        until(|| group.stats().waiting == 2);
        let _ = leader.complete(Ok(1));
        let done = leads_nothing.join().unwrap();
        assert!(!takes(&done), "{done:?}");
        assert_eq!(leads.join().unwrap(), Ok(1));
    });
}
