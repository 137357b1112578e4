//! `start`: x/sync's `DoChan`, with the spawner and the worker as the caller likes.
//!
//! The first four tests are `TestDoChan`, `TestDoDupSuppress` in tickets, `TestPanicDoChan` and
//! `TestPanicDoSharedByDoChan` of `golang.org/x/sync/singleflight`. Where the panics of the last two
//! end the process there, here the tickets tell.
#![cfg(not(loom))]

mod common;

use std::cell::Cell;
use std::panic::resume_unwind;
use std::sync::{mpsc, Arc, OnceLock};
use std::thread;
use std::time::Duration;

use common::{assert_quiet, follow, gate, lead, panic_text, until, watchdog};
use shared_calls::{CallError, FlightGroup, Job, Outcome, Role, Ticket};

type Group = FlightGroup<String, &'static str>;
type Jobs = (mpsc::Sender<Job>, mpsc::Receiver<Job>);

fn on_a_thread(job: Job) {
    drop(thread::spawn(move || job.run()));
}

fn not_called(_: Job) {
    panic!("only the call that leads spawns");
}

fn value(value: &str) -> Result<String, &'static str> {
    Ok(value.to_owned())
}

fn message(outcome: Outcome<String, &'static str>) -> Option<String> {
    match outcome.result {
        Err(CallError::Panicked(panicked)) => panicked.message().map(str::to_owned),
        other => panic!("not a panic: {other:?}"),
    }
}

/// `TestDoChan`, and `TestDoErr` for tickets: on a thread, on a worker, and right here.
#[test]
fn a_ticket_has_the_value_or_the_error() {
    let _watchdog = watchdog();
    let group = Group::new();
    let (jobs, worker): Jobs = mpsc::channel();
    let works = thread::spawn(move || worker.into_iter().for_each(Job::run));
    let on_a_worker = |job| jobs.send(job).unwrap();
    let right_here = |job: Job| job.run();
    for spawn in [&on_a_thread as &dyn Fn(Job), &on_a_worker, &right_here] {
        let outcome = group.start("k", spawn, || value("bar")).wait();
        assert_eq!((outcome.role, outcome.followers), (Role::Led, 0));
        assert_eq!(outcome.result.unwrap(), "bar");

        let outcome = group.start("k", spawn, || Err("some error")).wait();
        assert_eq!((outcome.role, outcome.followers), (Role::Led, 0));
        let error = outcome.result.unwrap_err();
        assert_eq!(error.failed(), Some(&"some error"));
        // The job has unlinked the flight before anyone could know.
        assert_quiet(&group);
    }
    drop(jobs);
    works.join().unwrap();
}

/// `TestDoDupSuppress`, half by calls and half by tickets.
#[test]
fn calls_and_tickets_share_one_flight() {
    let _watchdog = watchdog();
    let group = Group::new();
    let (held, gate) = gate();
    let first = group.start("k", on_a_thread, move || {
        held();
        value("bar")
    });
    gate.begun();
    let tickets = [(); 5].map(|()| group.start("k", not_called, || value("not bar")));
    let followers = [(); 5].map(|()| follow(&group, "k"));
    gate.open();
    let first = first.wait();
    assert_eq!((first.role, first.followers), (Role::Led, 10));
    assert_eq!(first.result.unwrap(), "bar");
    let tickets = tickets.map(Ticket::wait);
    let followers = followers.map(|follower| follower.wait());
    for outcome in tickets.into_iter().chain(followers) {
        assert_eq!((outcome.role, outcome.followers), (Role::Followed, 10));
        assert_eq!(outcome.result.unwrap(), "bar");
    }
    assert_quiet(&group);
}

/// `TestPanicDoChan`, and the worker lives on.
#[test]
fn a_panic_reaches_all_tickets_and_followers_and_not_the_worker() {
    let _watchdog = watchdog();
    let group = Group::new();
    let (jobs, worker): Jobs = mpsc::channel();
    let send = |job| jobs.send(job).unwrap();
    let first = group.start("k", send, || resume_unwind(Box::new("invalid memory")));
    let second = group.start("k", not_called, || value("second"));
    let third = follow(&group, "k");
    let other_key = group.start("other", send, || value("other"));

    let works = thread::spawn(move || worker.into_iter().take(2).for_each(Job::run));
    let first = first.wait();
    assert_eq!((first.role, first.followers), (Role::Led, 2));
    assert_eq!(message(first).as_deref(), Some("invalid memory"));
    assert_eq!(message(second.wait()).as_deref(), Some("invalid memory"));
    assert_eq!(message(third.wait()).as_deref(), Some("invalid memory"));
    works.join().expect("the worker has not noticed");
    assert_eq!(other_key.wait().result.unwrap(), "other");
    assert_quiet(&group);
}

/// `TestPanicDoSharedByDoChan`: the one who panics is a call.
#[test]
fn a_ticket_learns_of_the_panic_of_a_call() {
    let _watchdog = watchdog();
    let group = Group::new();
    let (held, gate) = gate();
    thread::scope(|s| {
        let caller = s.spawn(|| {
            panic_text(|| {
                let _ = group.call("k", || {
                    held();
                    panic!("panicking in Do")
                });
            })
        });
        gate.begun();
        let ticket = group.start("k", not_called, || value("second"));
        gate.open();
        assert_eq!(caller.join().unwrap(), "panicking in Do");
        let outcome = ticket.wait();
        assert_eq!((outcome.role, outcome.followers), (Role::Followed, 1));
        assert_eq!(message(outcome).as_deref(), Some("panicking in Do"));
    });
    assert_quiet(&group);
}

/// On this thread, `start` returns when the function panics: its ticket has the panic.
#[test]
fn a_job_that_the_spawner_runs_does_not_panic() {
    let group = Group::new();
    let ticket = group.start("k", Job::run, || resume_unwind(Box::new(7_u8)));
    assert!(ticket.is_done());
    assert_eq!(message(ticket.wait()), None);
    assert_quiet(&group);
}

/// All who wait for a job that will not run learn of it, and the key is free.
fn assert_abandoned(group: &Group, ticket: Ticket<String, &'static str>) {
    let outcome = ticket.wait();
    assert!(matches!(outcome.result, Err(CallError::Abandoned)));
    assert_quiet(group);
    assert_eq!(group.call("k", || value("again")).unwrap(), "again");
}

#[test]
fn a_job_that_is_dropped_unrun_abandons_its_flight() {
    let _watchdog = watchdog();
    let group = Group::new();
    let ticket = group.start("k", drop, || value("never"));
    assert!(ticket.is_done());
    assert_abandoned(&group, ticket);

    let kept = Cell::new(None);
    let ticket = group.start("k", |job| kept.set(Some(job)), || value("never"));
    let follower = follow(&group, "k");
    assert!(!ticket.is_done());
    drop(kept);
    assert!(matches!(follower.wait().result, Err(CallError::Abandoned)));
    assert_abandoned(&group, ticket);
}

#[test]
fn a_queue_that_is_dropped_abandons_the_flights_of_the_jobs_inside() {
    let _watchdog = watchdog();
    let group = Group::new();
    let (jobs, worker): Jobs = mpsc::channel();
    let tickets = ["k", "l", "m"]
        .map(|key| group.start(key, |job| jobs.send(job).unwrap(), || value("never")));
    drop(worker);
    for ticket in tickets {
        assert_abandoned(&group, ticket);
    }
}

/// As of a thread pool that has been shut down, or a thread that could not be made.
#[test]
fn a_spawner_that_panics_abandons_the_flight() {
    let _watchdog = watchdog();
    let group = Group::new();
    let other = Cell::new(None);
    let text = panic_text(|| {
        let no_threads = |job: Job| {
            other.set(Some(follow(&group, "k")));
            let _dropped = job;
            panic!("no threads left");
        };
        drop(group.start("k", no_threads, || value("never")));
    });
    assert_eq!(text, "no threads left");
    let follower = other.take().unwrap();
    assert!(matches!(follower.wait().result, Err(CallError::Abandoned)));
    assert_quiet(&group);
    assert!(group.start("k", Job::run, || value("again")).is_done());
}

/// The job is elsewhere by then, and runs as any other.
#[test]
fn a_spawner_that_panics_after_passing_the_job_on_abandons_nothing() {
    let group = Group::new();
    let (jobs, worker): Jobs = mpsc::channel();
    let text = panic_text(|| {
        let too_late = |job: Job| {
            jobs.send(job).unwrap();
            panic!("too late");
        };
        drop(group.start("k", too_late, || value("bar")));
    });
    assert_eq!(text, "too late");
    let follower = follow(&group, "k");
    worker.recv().unwrap().run();
    assert_eq!(follower.wait().result.unwrap(), "bar");
    assert_quiet(&group);
}

#[test]
fn a_ticket_that_is_dropped_disturbs_nobody() {
    let group = Group::new();
    let (jobs, worker): Jobs = mpsc::channel();
    let start = || group.start("k", |job| jobs.send(job).unwrap(), || value("bar"));
    // The starter's own.
    drop(start());
    let second = start();
    drop(start());
    worker.recv().unwrap().run();
    let outcome = second.wait();
    assert_eq!((outcome.role, outcome.followers), (Role::Followed, 1));
    assert_eq!(outcome.result.unwrap(), "bar");

    // All of them: the function runs all the same.
    drop([start(), start()]);
    let follower = follow(&group, "k");
    worker.recv().unwrap().run();
    assert_eq!(follower.wait().followers, 1);
    drop(start());
    worker.recv().unwrap().run();
    assert!(worker.try_recv().is_err());
    assert_quiet(&group);
}

/// The followers of a flight that a call leads are counted, tickets or not.
#[test]
fn a_ticket_on_the_flight_of_a_call_is_a_follower() {
    let group = Group::new();
    let leader = lead(&group, "k");
    let ticket = group.start("k", not_called, || value("second"));
    assert_eq!(leader.followers(), 1);
    let other = group.start("k", not_called, || value("third"));
    assert_eq!(leader.followers(), 2);
    drop(other);
    assert_eq!(leader.followers(), 1);
    assert_eq!(leader.complete(value("bar")).followers, 1);
    let outcome = ticket.wait();
    assert_eq!((outcome.role, outcome.followers), (Role::Followed, 1));
    assert_quiet(&group);
}

#[test]
fn a_ticket_may_be_looked_at_many_times() {
    let _watchdog = watchdog();
    let group = Group::new();
    let (jobs, worker): Jobs = mpsc::channel();
    let ticket = group.start("k", |job| jobs.send(job).unwrap(), || value("bar"));
    for _ in 0..3 {
        assert!(!ticket.is_done());
        assert!(ticket.try_wait().is_none());
        assert!(ticket.wait_timeout(Duration::ZERO).is_none());
        assert!(ticket.wait_timeout(Duration::from_millis(1)).is_none());
    }
    thread::scope(|s| {
        let waits = s.spawn(|| ticket.wait_timeout(Duration::MAX).expect("an outcome"));
        worker.recv().unwrap().run();
        assert_eq!(waits.join().unwrap().result.unwrap(), "bar");
    });
    assert!(ticket.is_done());
    for _ in 0..3 {
        let outcome = ticket.try_wait().expect("an outcome");
        assert_eq!((outcome.role, outcome.followers), (Role::Led, 0));
        assert!(ticket.wait_timeout(Duration::ZERO).is_some());
    }
    assert_eq!(ticket.wait().result.unwrap(), "bar");
}

/// G2: a caller that has the outcome by its ticket starts a new flight next.
#[test]
fn a_start_after_the_outcome_leads() {
    let _watchdog = watchdog();
    let group = Group::new();
    for round in 0..200 {
        let ticket = group.start("k", on_a_thread, move || Ok(round.to_string()));
        until("it is done", || ticket.is_done());
        let outcome = ticket.wait();
        assert_eq!(outcome.role, Role::Led);
        assert_eq!(outcome.result.unwrap(), round.to_string());
    }
}

/// Neither the value nor the function is kept (G11).
#[test]
fn nothing_is_kept_when_it_is_over() {
    type Values = FlightGroup<Arc<()>, ()>;
    let group = Values::new();
    let made = Arc::new(());
    let start = |spawn: fn(Job)| {
        let made = Arc::clone(&made);
        group.start("k", spawn, move || Ok(made))
    };
    let ticket = start(Job::run);
    // The ticket's flight has it, and nobody else.
    assert_eq!(Arc::strong_count(&made), 2);
    drop(ticket.wait());
    assert_eq!(Arc::strong_count(&made), 1);
    // A ticket that is not asked, and a function that does not run.
    drop(start(Job::run));
    drop(start(drop));
    assert_eq!(Arc::strong_count(&made), 1);
    assert_quiet(&group);
}

/// A job in a queue keeps its group alive.
#[test]
fn a_job_may_outlive_all_other_handles_of_its_group() {
    let (jobs, worker): Jobs = mpsc::channel();
    let group = Group::new();
    let ticket = group.start("k", |job| jobs.send(job).unwrap(), || value("bar"));
    drop(group);
    worker.recv().unwrap().run();
    assert_eq!(ticket.wait().result.unwrap(), "bar");
}

// Options.

/// In a `call` the leader is not interrupted. A ticket's wait ends, and the job goes on.
#[test]
fn a_time_limit_ends_the_wait_of_the_ticket_that_leads() {
    let _watchdog = watchdog();
    let group = Group::new();
    let (jobs, worker): Jobs = mpsc::channel();
    let start = || {
        let request = group.request("k").timeout(Duration::from_millis(2));
        request.start(|job| jobs.send(job).unwrap(), || value("bar"))
    };
    let (leads, follows) = (start(), start());
    let outcome = leads.wait();
    assert_eq!(outcome.result, Err(CallError::TimedOut));
    assert_eq!((outcome.role, outcome.followers), (Role::Led, 0));
    let outcome = follows.wait();
    assert_eq!(outcome.result, Err(CallError::TimedOut));
    assert_eq!((outcome.role, outcome.followers), (Role::Followed, 0));
    let late = follow(&group, "k");
    worker.recv().unwrap().run();
    assert_eq!(late.wait().result.unwrap(), "bar");
    let stats = group.stats();
    assert_eq!((stats.led, stats.followed, stats.timed_out), (1, 1, 1));
    assert_quiet(&group);
}

/// An outcome that is there beats a deadline that has passed. `wait_timeout` has a limit of its own.
#[test]
fn the_deadline_of_a_request_ends_wait_only() {
    let _watchdog = watchdog();
    let group = Group::new();
    let (jobs, worker): Jobs = mpsc::channel();
    let request = group.request("k").timeout(Duration::ZERO);
    let ticket = request.start(|job| jobs.send(job).unwrap(), || value("bar"));
    assert!(ticket.try_wait().is_none());
    assert!(ticket.wait_timeout(Duration::from_millis(1)).is_none());
    worker.recv().unwrap().run();
    let outcome = ticket.wait();
    assert_eq!((outcome.role, outcome.result.unwrap()), (Role::Led, "bar".to_owned()));
}

/// The ticket of the call that leads takes no place.
#[test]
fn following_tickets_count_for_max_followers() {
    let group = Group::new();
    let (jobs, worker): Jobs = mpsc::channel();
    let start = |spawn: &dyn Fn(Job)| {
        let request = group.request("k").max_followers(1);
        request.start(spawn, || value("bar"))
    };
    let leads = start(&|job| jobs.send(job).unwrap());
    let follows = start(&not_called);
    let refused = start(&not_called);
    assert!(refused.is_done() && !follows.is_done());
    let outcome = refused.wait();
    assert_eq!(outcome.result, Err(CallError::Overloaded));
    assert_eq!((outcome.role, outcome.followers), (Role::Followed, 0));
    drop(follows);
    let follows = start(&not_called);
    worker.recv().unwrap().run();
    assert_eq!(leads.wait().followers, 1);
    assert_eq!(follows.wait().result.unwrap(), "bar");
    assert_quiet(&group);
}

/// `takeover` has no function left to run, and so has `alone_on_deadlock`.
#[test]
fn a_ticket_does_not_take_over() {
    let group = Group::new();
    let leader = lead(&group, "k");
    let request = group.request("k").takeover(9).alone_on_deadlock();
    let ticket = request.start(not_called, || value("bar"));
    drop(leader);
    assert_eq!(ticket.wait().result, Err(CallError::Abandoned));
    assert_quiet(&group);
}

/// `start` needs a handle only, and any will do.
#[test]
fn start_works_by_every_handle() {
    static GROUP: OnceLock<Group> = OnceLock::new();
    let group = GROUP.get_or_init(Group::new);
    let clone = group.clone();
    let (jobs, worker): Jobs = mpsc::channel();
    let leads = group.start("k", |job| jobs.send(job).unwrap(), || value("bar"));
    let follows = clone.start("k", not_called, || value("other"));
    drop(clone);
    worker.recv().unwrap().run();
    assert_eq!((leads.wait().role, follows.wait().role), (Role::Led, Role::Followed));
}
