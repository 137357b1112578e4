//! Jobs that run elsewhere, or do not run, and the tickets for them (G3, G4).

use std::panic::resume_unwind;
use std::time::Duration;

use loom::thread;

use crate::explore::{Model, Reached};
use crate::sync::Arc;
use crate::{CallError, FlightGroup, Job, Role, Ticket};

type Group = FlightGroup<u32, ()>;

/// A job that has not run yet, and its ticket.
fn start(group: &Group, f: fn() -> Result<u32, ()>) -> (Job, Ticket<u32, ()>) {
    let mut job = None;
    let ticket = group.start("key", |it| job = Some(it), f);
    (job.expect("nobody else leads"), ticket)
}

/// Another thread ends a job, while this one holds the ticket and a third calls the key.
fn a_job_ends(
    reached: &Reached,
    f: fn() -> Result<u32, ()>,
    end: fn(Job),
    is_it: fn(&Result<u32, CallError<()>>) -> bool,
) {
    let group = Arc::new(Group::new());
    let (job, ticket) = start(&group, f);
    let worker = thread::spawn(move || end(job));
    let caller = thread::spawn({
        let (group, reached) = (Arc::clone(&group), reached.clone());
        move || {
            let outcome = group.call_ex("key", || Ok(2));
            match outcome.role {
                Role::Led => {
                    assert_eq!(outcome.result, Ok(2));
                    reached.mark("missed it");
                    0
                }
                Role::Followed => {
                    assert!(is_it(&outcome.result), "{:?}", outcome.result);
                    reached.mark("followed it");
                    1
                }
            }
        }
    });
    let outcome = ticket.wait();
    assert!(is_it(&outcome.result), "{:?}", outcome.result);
    assert_eq!(outcome.role, Role::Led, "G3");
    worker.join().unwrap();
    assert_eq!(outcome.followers, caller.join().unwrap(), "the ticket is no follower");
    assert_eq!(group.stats().in_flight, 0, "G4");
}

#[test]
fn a_job_lands() {
    Model { preemptions: None, must_reach: &["followed it", "missed it"], executions: &[28_147] }
        .explore(|reached| a_job_ends(reached, || Ok(1), Job::run, |r| matches!(r, Ok(1))));
}

#[test]
fn a_job_panics() {
    Model { preemptions: None, must_reach: &["followed it", "missed it"], executions: &[28_147] }
        .explore(|reached| {
            let boom = || resume_unwind(Box::new("boom"));
            a_job_ends(reached, boom, Job::run, |r| matches!(r, Err(CallError::Panicked(_))));
        });
}

#[test]
fn a_job_is_dropped() {
    Model {
        preemptions: None,
        must_reach: &["followed it", "missed it"],
        executions: &[28_147, 121_331],
    }
    .explore(|reached| {
        a_job_ends(reached, || Ok(1), drop, |r| matches!(r, Err(CallError::Abandoned)));
    });
}

/// The ticket is dropped while the outcome lands. The follower gets the outcome all the same.
#[test]
fn a_ticket_is_dropped_as_its_flight_lands() {
    Model {
        preemptions: None,
        must_reach: &["followed it", "missed it"],
        executions: &[1_411, 2_765],
    }
    .explore(|reached| {
        let group = Arc::new(Group::new());
        let (job, ticket) = start(&group, || Ok(1));
        let worker = thread::spawn(move || job.run());
        let caller = thread::spawn({
            let group = Arc::clone(&group);
            move || group.call_ex("key", || Ok(2))
        });
        drop(ticket);
        let outcome = caller.join().unwrap();
        worker.join().unwrap();
        match outcome.role {
            Role::Led => {
                assert_eq!(outcome.result, Ok(2));
                reached.mark("missed it");
            }
            Role::Followed => {
                assert_eq!((outcome.result, outcome.followers), (Ok(1), 1));
                reached.mark("followed it");
            }
        }
        let stats = group.stats();
        assert_eq!((stats.led + stats.followed, stats.in_flight), (2, 0));
    });
}

/// Two threads start the same key: one job runs, and both tickets have an outcome.
#[test]
fn two_tickets() {
    Model {
        preemptions: None,
        must_reach: &["shared", "nobody shared"],
        executions: &[476, 1_045, 2_070],
    }
    .explore(|reached| {
        let group = Arc::new(Group::new());
        let call = {
            let group = Arc::clone(&group);
            move |value| {
                let ticket = group.start("key", Job::run, move || Ok(value));
                ticket.wait()
            }
        };
        let other = thread::spawn({
            let call = call.clone();
            move || call(2)
        });
        let mine = call(1);
        let others = other.join().unwrap();
        let led = [&mine, &others].map(|outcome| outcome.role == Role::Led);
        match led {
            [true, true] => {
                assert_eq!((mine.result, others.result), (Ok(1), Ok(2)));
                reached.mark("nobody shared");
            }
            [true, false] | [false, true] => {
                assert_eq!(mine.result, others.result);
                assert_eq!((mine.followers, others.followers), (1, 1));
                reached.mark("shared");
            }
            [false, false] => panic!("G3: nobody led"),
        }
        assert_eq!(group.stats().in_flight, 0, "G11");
    });
}

/// A ticket that has waited in vain has the outcome once it is there, and so has one that only asks.
#[test]
fn a_ticket_that_has_waited_in_vain_waits_again() {
    Model { preemptions: None, must_reach: &["at once", "later"], executions: &[30, 55, 91] }
        .explore(|reached| {
            let group = Arc::new(Group::new());
            let (job, ticket) = start(&group, || Ok(1));
            let worker = thread::spawn(move || job.run());
            match ticket.wait_timeout(Duration::from_secs(1)) {
                Some(outcome) => {
                    assert_eq!(outcome.result, Ok(1));
                    reached.mark("at once");
                }
                None => reached.mark("later"),
            }
            worker.join().unwrap();
            assert!(ticket.is_done());
            let outcome = ticket.try_wait().expect("the outcome stays");
            assert_eq!((outcome.result, outcome.role), (Ok(1), Role::Led));
        });
}
