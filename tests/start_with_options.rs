//! `start` with options. The ticket's wait ends at the deadline, so the caller whose job leads has
//! one, too.
#![cfg(not(loom))]

mod common;

use std::cell::RefCell;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use common::{
    assert_quiet, follow, lead, panic_text, the_flight, until, until_queued, until_waiting,
    watchdog,
};
use shared_calls::{CallError, FlightGroup, Job, Role, Ticket};

type Group = FlightGroup<u32, &'static str>;

const HOUR: Duration = Duration::from_secs(3600);

/// A spawner that keeps its jobs until they are wanted.
fn pool() -> (impl Fn(Job), Receiver<Job>) {
    let (jobs, worker) = mpsc::channel();
    (move |job| jobs.send(job).unwrap(), worker)
}

fn no_job(_: Job) {
    panic!("it does not lead");
}

#[test]
fn the_deadline_binds_the_caller_whose_job_leads() {
    let _watchdog = watchdog();
    let group = Group::new();
    let (spawn, worker) = pool();
    let begun = Instant::now();
    let ticket = group.request("k").timeout(Duration::from_millis(10)).start(&spawn, || Ok(1));
    let outcome = ticket.wait();
    assert!(begun.elapsed() >= Duration::from_millis(10));
    assert_eq!(outcome.result, Err(CallError::TimedOut));
    // The job goes on, and others get its value.
    let follower = follow(&group, "k");
    assert_eq!(group.stats().timed_out, 0);
    worker.recv().unwrap().run();
    assert_eq!(follower.wait().result, Ok(1));
    // The ticket's call counts as led, once, whatever its wait returned.
    let stats = group.stats();
    assert_eq!((stats.led, stats.followed, stats.timed_out), (1, 1, 0));

    let request = group.request("k").deadline(Instant::now());
    let ticket = request.start(&spawn, || Ok(1));
    assert_eq!(ticket.wait().result, Err(CallError::TimedOut));
    worker.recv().unwrap().run();
    assert_eq!(group.stats().calls(), 3);
}

#[test]
fn the_deadline_binds_a_following_ticket() {
    let group = Group::new();
    let leader = lead(&group, "k");
    let ticket = group.request("k").timeout(Duration::ZERO).start(no_job, || Ok(2));
    assert_eq!(leader.followers(), 1);
    let outcome = ticket.wait();
    assert_eq!((outcome.result, outcome.role), (Err(CallError::TimedOut), Role::Followed));
    assert_eq!(leader.complete(Ok(1)).followers, 0);
    let stats = group.stats();
    assert_eq!((stats.led, stats.followed, stats.timed_out), (1, 0, 1));
}

#[test]
fn an_outcome_that_is_there_beats_a_deadline_that_has_passed() {
    let group = Group::new();
    let request = || group.request("k").timeout(Duration::ZERO);
    let ticket = request().start(|job| job.run(), || Ok(1));
    let outcome = ticket.wait();
    assert_eq!((outcome.result, outcome.role), (Ok(1), Role::Led));
    let leader = lead(&group, "k");
    let ticket = request().start(no_job, || Ok(2));
    let _ = leader.complete(Ok(3));
    assert_eq!(ticket.wait().result, Ok(3));
}

/// `wait_timeout` and `try_wait` use their own limit.
#[test]
fn the_deadline_is_that_of_wait_only() {
    let _watchdog = watchdog();
    let group = Group::new();
    let (spawn, worker) = pool();
    let ticket = group.request("k").timeout(Duration::ZERO).start(&spawn, || Ok(1));
    assert!(ticket.try_wait().is_none());
    assert!(ticket.wait_timeout(Duration::from_micros(1)).is_none());
    assert!(!ticket.is_done());
    let job = worker.recv().unwrap();
    thread::scope(|s| {
        s.spawn(|| {
            until_waiting(&group, 1);
            job.run();
        });
        assert_eq!(ticket.wait_timeout(HOUR).unwrap().result, Ok(1));
    });
    assert_eq!(ticket.wait().result, Ok(1));
}

#[test]
fn the_default_of_the_group_binds_a_ticket_and_a_request_replaces_it() {
    let _watchdog = watchdog();
    let group: Group = FlightGroup::builder().timeout(Duration::ZERO).build();
    let (spawn, worker) = pool();
    assert_eq!(group.start("k", &spawn, || Ok(1)).wait().result, Err(CallError::TimedOut));
    let tickets = [
        group.request("k").timeout(HOUR).start(no_job, || Ok(2)),
        group.request("k").without_defaults().start(no_job, || Ok(2)),
    ];
    thread::scope(|s| {
        let waits = tickets.map(|ticket| s.spawn(|| ticket.wait().result));
        until_waiting(&group, 2);
        worker.recv().unwrap().run();
        assert_eq!(waits.map(|wait| wait.join().unwrap()), [Ok(1), Ok(1)]);
    });
}

/// It blocks until the flight in front is unlinked; then it leads, and spawns, or follows.
#[test]
fn next_flight_waits_for_its_turn() {
    let _watchdog = watchdog();
    let group = Group::new();
    let front = lead(&group, "k");
    let ends = |tickets: Vec<Ticket<u32, &'static str>>| -> Vec<_> {
        tickets.into_iter().map(|ticket| ticket.wait()).collect()
    };
    thread::scope(|s| {
        let (jobs, worker) = mpsc::channel();
        let starts = [(); 2].map(|()| {
            let (group, jobs) = (&group, jobs.clone());
            s.spawn(move || {
                let request = group.request("k").next_flight().timeout(HOUR);
                request.start(move |job| jobs.send(job).unwrap(), || Ok(2))
            })
        });
        drop(jobs);
        until_queued(&group, 2);
        until_waiting(&group, 2);
        assert!(worker.try_recv().is_err(), "nothing is spawned before its turn");
        let _ = front.complete(Ok(1));
        let tickets: Vec<_> = starts.into_iter().map(|start| start.join().unwrap()).collect();
        assert!(tickets.iter().all(|ticket| !ticket.is_done()));
        worker.recv().unwrap().run();
        assert!(worker.recv().is_err(), "one job for both");
        let outcomes = ends(tickets);
        assert!(outcomes.iter().all(|o| o.result == Ok(2) && o.followers == 1));
        assert_eq!(outcomes.iter().filter(|o| o.role == Role::Led).count(), 1);
    });
    let stats = group.stats();
    assert_eq!((stats.led, stats.followed), (2, 1));
    assert_quiet(&group);
}

/// A turn to lead does not beat a deadline. The ticket is refused, and nothing was spawned.
#[test]
fn next_flight_blocks_no_longer_than_the_deadline() {
    let _watchdog = watchdog();
    let group = Group::new();
    let front = lead(&group, "k");
    for limit in [Duration::ZERO, Duration::from_millis(5)] {
        let request = group.request("k").next_flight().timeout(limit);
        let ticket = request.start(no_job, || Ok(2));
        assert!(ticket.is_done());
        assert_eq!(the_flight(&group).queued, 0);
        let outcome = ticket.wait();
        assert_eq!((outcome.result, outcome.role), (Err(CallError::TimedOut), Role::Followed));
    }
    assert_eq!(group.stats().timed_out, 2);
    let _ = front.complete(Ok(1));
    assert_quiet(&group);
}

#[test]
fn max_age_counts_on_arrival() {
    let group = Group::new();
    let old = lead(&group, "k");
    let request = group.request("k").max_age(Duration::ZERO);
    let ticket = request.start(|job| job.run(), || Ok(2));
    assert_eq!((ticket.try_wait().unwrap().role, ticket.wait().result), (Role::Led, Ok(2)));
    assert!(the_flight(&group).given_up);
    drop(old);
    assert_quiet(&group);
}

#[test]
fn max_followers() {
    let group = Group::new();
    let leader = lead(&group, "k");
    let request = group.request("k").max_followers(0);
    let ticket = request.start(no_job, || Ok(2));
    assert!(ticket.is_done());
    assert_eq!(ticket.wait().result, Err(CallError::Overloaded));
    drop(leader);
}

/// On arrival only if it would have to queue; otherwise the wait refuses.
#[test]
fn a_deadlock_is_refused_where_the_wait_is() {
    let group = Group::new();
    let outer = group.call("k", || {
        let ticket = group.start("k", no_job, || Ok(2));
        assert!(!ticket.is_done());
        assert_eq!(the_flight(&group).followers, 1);
        assert!(matches!(ticket.wait().result, Err(CallError::Deadlock(_))));
        let ticket = group.request("k").next_flight().start(no_job, || Ok(2));
        assert!(ticket.is_done());
        assert!(matches!(ticket.wait().result, Err(CallError::Deadlock(_))));
        Ok(1)
    });
    assert_eq!(outer, Ok(1));
    assert_eq!(group.stats().deadlocked, 2);
    assert_quiet(&group);
}

/// Another thread may do the waiting.
#[test]
fn a_ticket_for_the_callers_own_key_may_be_waited_for_elsewhere() {
    let _watchdog = watchdog();
    let group = Group::new();
    thread::scope(|s| {
        let mut wait = None;
        let outer = group.call("k", || {
            let ticket = group.start("k", no_job, || Ok(2));
            wait = Some(s.spawn(|| ticket.wait().result));
            until_waiting(&group, 1);
            Ok(1)
        });
        assert_eq!(outer, Ok(1));
        assert_eq!(wait.unwrap().join().unwrap(), Ok(1));
    });
}

/// There is no function left to run.
#[test]
fn takeover_and_alone_on_deadlock_do_not_apply() {
    let group = Group::new();
    let leader = lead(&group, "k");
    let ticket = group.request("k").takeover(9).start(no_job, || Ok(2));
    drop(leader);
    assert_eq!(ticket.wait().result, Err(CallError::Abandoned));
    let outer = group.call("k", || {
        let request = group.request("k").alone_on_deadlock();
        let ticket = request.start(no_job, || Ok(2));
        assert!(matches!(ticket.wait().result, Err(CallError::Deadlock(_))));
        let request = group.request("k").alone_on_deadlock().next_flight();
        let ticket = request.start(no_job, || Ok(2));
        assert!(matches!(ticket.wait().result, Err(CallError::Deadlock(_))));
        Ok(1)
    });
    assert_eq!(outer, Ok(1));
}

/// Each is one call, counted once, or not at all.
#[test]
fn tickets_count_when_they_first_yield_an_outcome() {
    let group = Group::new();
    let leader = lead(&group, "k");
    let start = || group.start("k", no_job, || Ok(2));
    let (dropped, looked_at, waited) = (start(), start(), start());
    let refuse = || group.request("k").max_followers(0).start(no_job, || Ok(2));
    let (refused_dropped, refused) = (refuse(), refuse());
    drop((dropped, refused_dropped));
    let _ = leader.complete(Ok(1));
    assert_eq!(group.stats().calls(), 1);
    assert_eq!(looked_at.try_wait().unwrap().result, Ok(1));
    assert_eq!(looked_at.try_wait().unwrap().result, Ok(1));
    assert_eq!(group.stats().followed, 1);
    assert_eq!(looked_at.wait().result, Ok(1));
    assert_eq!(waited.wait().result, Ok(1));
    assert_eq!(refused.try_wait().unwrap().result, Err(CallError::Overloaded));
    assert_eq!(refused.wait().result, Err(CallError::Overloaded));
    let stats = group.stats();
    assert_eq!((stats.led, stats.followed, stats.overloaded), (1, 2, 1));
    assert_eq!(stats.calls(), 4);
}

/// It counts when its flight lands, whatever becomes of the ticket.
#[test]
fn a_leading_ticket_counts_as_led() {
    let group = Group::new();
    let (spawn, worker) = pool();
    drop(group.start("k", &spawn, || Ok(1)));
    assert_eq!(group.stats().calls(), 0);
    worker.recv().unwrap().run();
    assert_eq!((group.stats().led, group.stats().calls()), (1, 1));
    let ticket = group.start("k", &spawn, || Ok(1));
    worker.recv().unwrap().run();
    let _ = (ticket.try_wait(), ticket.try_wait(), ticket.wait());
    assert_eq!((group.stats().led, group.stats().calls()), (2, 2));
}

#[test]
fn a_spawner_that_panics_unwinds_out_of_start() {
    let group = Group::new();
    let follower = RefCell::new(None);
    let text = panic_text(|| {
        let ticket = group.start(
            "k",
            |job| {
                *follower.borrow_mut() = Some(follow(&group, "k"));
                drop(job);
                panic!("no threads left")
            },
            || Ok(1),
        );
        drop(ticket);
    });
    assert_eq!(text, "no threads left");
    let follower = follower.into_inner().unwrap();
    assert_eq!(follower.wait().result, Err(CallError::Abandoned));
    assert_quiet(&group);

    // The job is dropped by the unwinding itself.
    let text = panic_text(|| {
        let ticket = group.start("k", |_job| panic!("no threads left"), || Ok(1));
        drop(ticket);
    });
    assert_eq!(text, "no threads left");
    assert_quiet(&group);
    assert_eq!(group.stats().abandoned, 2);

    // A job that it has handed on lives.
    let (jobs, worker) = mpsc::channel();
    let text = panic_text(|| {
        let spawn = |job| {
            jobs.send(job).unwrap();
            panic!("too late")
        };
        drop(group.start("k", spawn, || Ok(1)));
    });
    assert_eq!(text, "too late");
    let follower = follow(&group, "k");
    worker.recv().unwrap().run();
    assert_eq!(follower.wait().result, Ok(1));
}

/// The group lives as long as its job.
#[test]
fn a_job_keeps_its_group_alive() {
    let group = Group::new();
    let (spawn, worker) = pool();
    let ticket = group.request("k").timeout(HOUR).start(&spawn, || Ok(1));
    drop(group);
    worker.recv().unwrap().run();
    assert_eq!(ticket.wait().result, Ok(1));
}

/// The limit counts from `start`, whatever happens between that and `wait`.
#[test]
fn the_limit_counts_from_start() {
    let _watchdog = watchdog();
    let group = Group::new();
    let (spawn, worker) = pool();
    let mut limit = Duration::from_millis(20);
    loop {
        let begun = Instant::now();
        let ticket = group.request("k").timeout(limit).start(&spawn, || Ok(1));
        until("the time is up", || begun.elapsed() > limit);
        let waited = Instant::now();
        assert_eq!(ticket.wait().result, Err(CallError::TimedOut));
        let waited = waited.elapsed();
        worker.recv().unwrap().run();
        if waited < limit / 2 {
            return;
        }
        // A busy machine, or a limit that has started again.
        limit *= 2;
        assert!(limit < Duration::from_secs(5), "the limit counts from the wait");
    }
}
