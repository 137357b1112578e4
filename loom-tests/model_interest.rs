//! A function asks whether anyone will look at its result. No is final: nobody joins work that is
//! about to stop.

use std::time::Duration;

use loom::thread;

use crate::explore::Model;
use crate::sync::Arc;
use crate::{CallError, Flight, FlightGroup, Follower, Job, Joined, Role};

/// The function of a flight fails with this when it was told that nobody wants its result.
#[derive(Debug, PartialEq)]
struct Cancelled;

type Group = FlightGroup<u32, Cancelled>;

fn follower(group: &Group) -> Follower<u32, Cancelled> {
    match group.join("key") {
        Joined::Follower(follower) => follower,
        Joined::Leader(_) => panic!("expected to follow"),
    }
}

/// Stops when nobody is left.
fn work(flight: &Flight<'_>) -> Result<u32, Cancelled> {
    if flight.is_wanted() {
        return Ok(1);
    }
    assert_eq!(flight.followers(), 0, "given up with a follower");
    assert!(!flight.is_wanted(), "no is final");
    Err(Cancelled)
}

fn assert_over(group: &Group) {
    assert_eq!(group.stats().in_flight, 0, "the key is stuck");
}

/// The last follower leaves while another caller arrives and the function asks. The leader itself
/// does not wait: its time was up when it came.
#[test]
fn the_last_leaves_while_another_arrives() {
    Model {
        preemptions: None,
        must_reach: &["followed", "led after the end", "led beside it", "wanted by nobody"],
        executions: &[25_746],
    }
    .explore(|reached| {
        let group = Arc::new(Group::new());
        let mut others = None;
        let request = group.request("key").timeout(Duration::ZERO);
        let result = request.call_with(|flight| {
            let last = follower(&group);
            let leaving = thread::spawn(move || drop(last));
            let arriving = thread::spawn({
                let group = Arc::clone(&group);
                move || group.call_ex("key", || Ok(2))
            });
            others = Some((leaving, arriving));
            work(flight)
        });
        let (leaving, arriving) = others.expect("the function ran");
        leaving.join().unwrap();
        let other = arriving.join().unwrap();
        reached.mark(match (&result, other.role, &other.result) {
            (Ok(1), Role::Followed, Ok(1)) => "followed",
            (Ok(1), Role::Led, Ok(2)) => "led after the end",
            (Err(CallError::Failed(_)), Role::Led, Ok(2)) => "led beside it",
            (_, Role::Followed, Err(_)) => panic!("joined work that was about to stop"),
            other => panic!("{other:?}"),
        });
        if result.is_err() {
            reached.mark("wanted by nobody");
        }
        assert_over(&group);
    });
}

/// A job runs while the only ticket for it is dropped and a caller arrives.
#[test]
fn a_ticket_is_dropped_while_a_caller_arrives() {
    Model {
        preemptions: None,
        must_reach: &["followed", "led", "cancelled"],
        executions: &[5_870],
    }
    .explore(|reached| {
        let group = Arc::new(Group::new());
        let mut worker = None;
        let spawn = |job: Job| worker = Some(thread::spawn(move || job.run()));
        let ticket = group.request("key").start_with(spawn, work);
        let arriving = thread::spawn({
            let group = Arc::clone(&group);
            move || group.call_ex("key", || Ok(2))
        });
        drop(ticket);
        let other = arriving.join().unwrap();
        worker.expect("spawned").join().unwrap();
        reached.mark(match (other.role, &other.result) {
            (Role::Followed, Ok(1)) => "followed",
            (Role::Led, Ok(2)) => "led",
            (Role::Followed, Err(_)) => panic!("joined work that was about to stop"),
            other => panic!("{other:?}"),
        });
        if group.stats().failed == 1 {
            reached.mark("cancelled");
        }
        assert_over(&group);
    });
}

/// Who queues does not want this flight's result. No gives the flight up, so the queue goes on at
/// once, before the function has returned.
#[test]
fn a_queue_does_not_wait_for_work_that_stops() {
    Model { preemptions: None, must_reach: &["came later", "queued"], executions: &[812, 1_352] }
        .explore(|reached| {
            let group = Arc::new(Group::new());
            let request = group.request("key").timeout(Duration::ZERO);
            let result = request.call_with(|flight| {
                let other = thread::spawn({
                    let group = Arc::clone(&group);
                    move || group.request("key").next_flight().call_ex(|| Ok(2))
                });
                let queued = group.in_flight()[0].queued;
                let result = work(flight);
                // Not before the other has its result: it must not wait for this function.
                let other = other.join().unwrap();
                assert_eq!((other.role, other.result), (Role::Led, Ok(2)));
                reached.mark(if queued == 1 { "queued" } else { "came later" });
                result
            });
            assert_eq!(result, Err(CallError::Failed(Arc::new(Cancelled))));
            assert_over(&group);
        });
}

/// A flight that was given up is wanted as long as its own followers are there.
#[test]
fn a_forgotten_flight_counts_its_own_followers() {
    Model { preemptions: None, must_reach: &["wanted", "not wanted"], executions: &[16] }.explore(
        |reached| {
            let group = Arc::new(Group::new());
            let mut leaving = None;
            let request = group.request("key").timeout(Duration::ZERO);
            let result = request.call_with(|flight| {
                let own = follower(&group);
                assert!(group.forget("key"));
                // A follower of the successor is none of this flight's.
                let Joined::Leader(successor) = group.join("key") else {
                    panic!("the key is free")
                };
                let others = follower(&group);
                leaving = Some(thread::spawn(move || drop(own)));
                let result = work(flight);
                assert_eq!(successor.followers(), 1);
                drop(others);
                assert_eq!(successor.complete(Ok(3)).result, Ok(3));
                result
            });
            leaving.expect("the function ran").join().unwrap();
            reached.mark(match result {
                Ok(_) => "wanted",
                Err(_) => "not wanted",
            });
            assert_over(&group);
        },
    );
}
