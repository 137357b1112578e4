//! Jobs that run elsewhere, or do not run, and the tickets for them (G3, G4).

use std::panic::resume_unwind;

use loom::thread;

use crate::explore::{Model, Reached};
use crate::sync::Arc;
use crate::{CallError, FlightGroup, Job, Role, Ticket};

type Group = FlightGroup<u32, ()>;

/// Another thread ends a job, while this one holds the ticket and a third calls the key.
fn a_job_ends(
    reached: &Reached,
    f: fn() -> Result<u32, ()>,
    end: fn(Job),
    is_it: fn(&Result<u32, CallError<()>>) -> bool,
) {
    let group = Arc::new(Group::new());
    let mut job = None;
    let ticket: Ticket<_, _> = group.start("key", |it| job = Some(it), f);
    let worker = thread::spawn(move || end(job.unwrap()));
    let caller = thread::spawn({
        let (group, reached) = (Arc::clone(&group), reached.clone());
        move || {
            let outcome = group.call_ex("key", || Ok(2));
            match outcome.role {
                Role::Led => {
                    assert_eq!(outcome.result.unwrap(), 2);
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
    assert_eq!(
        outcome.followers,
        caller.join().unwrap(),
        "the ticket is no follower"
    );
    assert!(format!("{group:?}").contains("in_flight: 0"), "G4");
}

#[test]
fn a_job_lands() {
    Model {
        preemptions: None,
        must_reach: &["followed it", "missed it"],
        executions: &[6_229, 17_734],
    }
    .explore(|reached| a_job_ends(reached, || Ok(1), Job::run, |r| matches!(r, Ok(1))));
}

#[test]
fn a_job_panics() {
    Model {
        preemptions: None,
        must_reach: &["followed it", "missed it"],
        executions: &[6_229],
    }
    .explore(|reached| {
        let boom = || resume_unwind(Box::new("boom"));
        a_job_ends(reached, boom, Job::run, |r| {
            matches!(r, Err(CallError::Panicked(_)))
        });
    });
}

#[test]
fn a_job_is_dropped() {
    Model {
        preemptions: None,
        must_reach: &["followed it", "missed it"],
        executions: &[6_229],
    }
    .explore(|reached| {
        a_job_ends(
            reached,
            || Ok(1),
            drop,
            |r| matches!(r, Err(CallError::Abandoned)),
        );
    });
}
