//! `call_with`, `start_with` and `Flight`: a function may ask who waits for its result, and stop
//! when nobody does.
#![cfg(not(loom))]

mod common;

use std::sync::{mpsc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use common::{
    assert_quiet, follow, lead, the_flight, until, until_queued, until_waiting, watchdog,
};
use shared_calls::{CallError, Flight, FlightGroup, Job, Joined, Role, Ticket};

type Group = FlightGroup<u32, &'static str>;

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn a_call_without_a_limit_is_always_wanted() {
    let group = Group::new();
    let outcome = group.request("k").call_with(|flight| {
        assert!(flight.is_wanted());
        drop(follow(&group, "k"));
        assert!(flight.is_wanted());
        assert_eq!(the_flight(&group).key, "k", "it is not given up");
        Ok(1)
    });
    assert_eq!(outcome, Ok(1));
    assert!(!group.in_flight().iter().any(|flight| flight.given_up));
}

#[test]
fn followers_are_counted() {
    let _watchdog = watchdog();
    let group = Group::new();
    thread::scope(|s| {
        let outcome = group.request("k").call_with(|flight| {
            assert_eq!(flight.followers(), 0);
            let first = follow(&group, "k");
            let second = follow(&group, "k");
            assert_eq!(flight.followers(), 2);
            drop(first);
            assert_eq!(flight.followers(), 1);
            // A caller that queues for the next flight is none.
            s.spawn(|| group.request("k").next_flight().call(|| Ok(2)));
            until_queued(&group, 1);
            assert_eq!(flight.followers(), 1);
            drop(second);
            assert_eq!(flight.followers(), 0);
            Ok(1)
        });
        assert_eq!(outcome, Ok(1));
    });
    assert_quiet(&group);
}

/// The leader's own time is up from the beginning here, so that only followers want the result.
#[test]
fn a_call_whose_time_is_up_is_wanted_by_its_followers() {
    let group = Group::new();
    for request in
        [group.request("k").timeout(Duration::ZERO), group.request("k").deadline(Instant::now())]
    {
        let outcome = request.call_with(|flight| {
            let (first, second) = (follow(&group, "k"), follow(&group, "k"));
            assert!(flight.is_wanted());
            drop(first);
            assert!(flight.is_wanted());
            drop(second);
            assert!(!flight.is_wanted());
            Err("cancelled")
        });
        assert_eq!(outcome.unwrap_err().failed(), Some(&"cancelled"));
    }
    let outcome = group.request("k").timeout(HOUR).call_with(|flight| {
        assert!(flight.is_wanted());
        Ok(1)
    });
    assert_eq!(outcome, Ok(1));
    assert_quiet(&group);
}

/// The limit passes while the function runs.
#[test]
fn a_call_is_wanted_until_its_limit() {
    let _watchdog = watchdog();
    let group: Group = FlightGroup::builder().timeout(Duration::from_millis(5)).build();
    let begun = Instant::now();
    let outcome = group.request("k").call_with(|flight| {
        until("its time is up", || !flight.is_wanted());
        Err("cancelled")
    });
    assert!(begun.elapsed() >= Duration::from_millis(5));
    assert_eq!(outcome.unwrap_err().failed(), Some(&"cancelled"));
}

/// The answer gives the flight up under the lock that it looks under.
#[test]
fn not_wanted_is_final() {
    let group = Group::new();
    let outcome = group.request("k").timeout(Duration::ZERO).call_with(|flight| {
        assert!(!flight.is_wanted());
        let given_up = the_flight(&group);
        assert!(given_up.given_up);
        assert_eq!((given_up.key.as_str(), given_up.followers), ("k", 0));
        assert!(!group.forget("k"), "it is given up already");
        // A caller that comes now begins a flight of its own, which is none of this one's.
        let successor = lead(&group, "k");
        let follower = follow(&group, "k");
        assert_eq!(group.in_flight().len(), 2);
        assert!(!flight.is_wanted());
        assert_eq!((flight.followers(), successor.followers()), (0, 1));
        drop((successor, follower));
        assert!(!flight.is_wanted());
        Ok(1)
    });
    assert_eq!(outcome, Ok(1));
    assert_quiet(&group);
    assert!(group.in_flight().is_empty());
}

/// Its end does not touch the flight that began after it (G6).
#[test]
fn an_unwanted_flight_that_ends_leaves_its_successor_alone() {
    let group = Group::new();
    let mut successor = None;
    let outcome = group.request("k").timeout(Duration::ZERO).call_with(|flight| {
        assert!(!flight.is_wanted());
        successor = Some((lead(&group, "k"), follow(&group, "k")));
        Err("cancelled")
    });
    assert!(outcome.is_err());
    let (leader, follower) = successor.unwrap();
    assert_eq!(the_flight(&group).followers, 1);
    assert_eq!(leader.complete(Ok(2)).followers, 1);
    assert_eq!(follower.wait().result, Ok(2));
    assert_quiet(&group);
}

/// A job for this test to run when it wants to.
fn job(start: impl FnOnce(&dyn Fn(Job))) -> Job {
    let (jobs, worker) = mpsc::channel();
    start(&|job| jobs.send(job).unwrap());
    worker.recv().unwrap()
}

#[test]
fn a_job_is_wanted_while_its_ticket_is_there() {
    let group = Group::new();
    let (asks, asked) = mpsc::channel();
    let mut ticket = None;
    let (answer, answered) = mpsc::channel();
    let job = job(|spawn| {
        let start = group.request("k").start_with(spawn, move |flight| {
            while asked.recv().is_ok() {
                answer.send((flight.is_wanted(), flight.followers())).unwrap();
            }
            Ok(1)
        });
        ticket = Some(start);
    });
    thread::scope(|s| {
        s.spawn(|| job.run());
        let ask = || {
            asks.send(()).unwrap();
            answered.recv().unwrap()
        };
        assert_eq!(ask(), (true, 0));
        let follower = follow(&group, "k");
        assert_eq!(ask(), (true, 1));
        drop(ticket);
        assert_eq!(ask(), (true, 1));
        assert!(!the_flight(&group).given_up);
        drop(follower);
        assert_eq!(ask(), (false, 0));
        assert!(the_flight(&group).given_up);
        let successor = lead(&group, "k");
        assert_eq!(ask(), (false, 0));
        drop(asks);
        drop(successor);
    });
    assert_eq!(group.stats().led, 2);
    assert_quiet(&group);
}

/// The ticket of another `start` is a follower like any other.
#[test]
fn a_following_ticket_wants_the_result() {
    let group = Group::new();
    let mut first = None;
    let job = job(|spawn| {
        first =
            Some(group.request("k").start_with(spawn, |flight| Ok(u32::from(flight.is_wanted()))));
    });
    let second = group.start("k", |_| panic!("it follows"), || Ok(9));
    drop(first);
    job.run();
    assert_eq!(second.wait().result, Ok(1));
}

/// It counts from before the spawner runs, which may run the job at once.
#[test]
fn a_job_that_runs_inside_the_spawner_is_wanted() {
    let group = Group::new();
    let ticket = group.request("k").start_with(
        |job| job.run(),
        |flight| {
            assert!(flight.is_wanted());
            assert_eq!(flight.followers(), 0);
            Ok(1)
        },
    );
    assert_eq!(ticket.wait().result, Ok(1));
}

/// Whatever the deadline: only its drop says that nobody will look at the result.
#[test]
fn a_ticket_whose_deadline_has_passed_still_wants_the_result() {
    let group = Group::new();
    type Claim = Ticket<u32, &'static str>;
    let wanted = |end: fn(Claim) -> Option<Claim>| {
        let mut ticket = None;
        let job = job(|spawn| {
            let request = group.request("k").timeout(Duration::ZERO);
            ticket = Some(request.start_with(spawn, |flight| Ok(u32::from(flight.is_wanted()))));
        });
        let ticket = end(ticket.unwrap());
        job.run();
        ticket.map(|ticket| ticket.wait().result)
    };
    assert_eq!(wanted(Some), Some(Ok(1)));
    // A ticket that has been waited for is gone.
    let waited = wanted(|ticket| {
        assert_eq!(ticket.wait().result, Err(CallError::TimedOut));
        None
    });
    assert_eq!(waited, None);
    let still_there = wanted(|ticket| {
        assert!(ticket.wait_timeout(Duration::ZERO).is_none());
        Some(ticket)
    });
    assert_eq!(still_there, Some(Ok(1)));
}

/// Whether a job whose ticket has been dropped is wanted.
fn unwatched(group: &Group, before: impl FnOnce()) -> bool {
    let (answer, answered) = mpsc::channel();
    let mut ticket = None;
    let job = job(|spawn| {
        let f = move |flight: &Flight<'_>| {
            answer.send(flight.is_wanted()).unwrap();
            Ok(1)
        };
        ticket = Some(group.request("k").start_with(spawn, f));
    });
    before();
    drop(ticket);
    job.run();
    answered.recv().unwrap()
}

#[test]
fn a_dropped_ticket_wants_nothing() {
    let group = Group::new();
    assert!(!unwatched(&group, || {}));
    assert!(!unwatched(&group, || drop(follow(&group, "k"))));
    assert_quiet(&group);
}

/// Those who queue want the next flight, not this one. Its turn comes when this one is given up.
#[test]
fn queued_callers_do_not_want_the_result() {
    let _watchdog = watchdog();
    let group = Group::new();
    thread::scope(|s| {
        let mut queued = None;
        let wanted = unwatched(&group, || {
            queued = Some(s.spawn(|| group.request("k").next_flight().call_ex(|| Ok(2))));
            until_queued(&group, 1);
        });
        assert!(!wanted);
        let outcome = queued.unwrap().join().unwrap();
        assert_eq!((outcome.result, outcome.role), (Ok(2), Role::Led));
    });
    assert_quiet(&group);
}

/// The queued caller need not wait for the function to end.
#[test]
fn the_queue_goes_on_as_soon_as_the_flight_is_not_wanted() {
    let _watchdog = watchdog();
    let group = Group::new();
    thread::scope(|s| {
        let outcome = group.request("k").timeout(Duration::ZERO).call_with(|flight| {
            let queued = s.spawn(|| group.request("k").next_flight().call(|| Ok(2)));
            until_queued(&group, 1);
            until_waiting(&group, 1);
            assert!(!flight.is_wanted());
            assert_eq!(queued.join().unwrap(), Ok(2));
            assert!(!flight.is_wanted());
            Ok(1)
        });
        assert_eq!(outcome, Ok(1));
    });
    assert_quiet(&group);
}

#[test]
fn a_flight_that_was_given_up_counts_its_own_followers() {
    let group = Group::new();
    let outcome = group.request("k").timeout(Duration::ZERO).call_with(|flight| {
        let own = [follow(&group, "k"), follow(&group, "k")];
        assert!(group.forget("k"));
        assert_eq!(flight.followers(), 2);
        assert!(flight.is_wanted());
        let successor = lead(&group, "k");
        let others = [(); 3].map(|()| follow(&group, "k"));
        assert_eq!(flight.followers(), 2);
        drop(own);
        assert_eq!(flight.followers(), 0);
        assert!(!flight.is_wanted(), "the others wait for the successor");
        assert_eq!(successor.followers(), 3);
        assert!(!the_flight_in_the_map(&group).given_up);
        drop((successor, others));
        Ok(1)
    });
    assert_eq!(outcome, Ok(1));
}

fn the_flight_in_the_map(group: &Group) -> shared_calls::InFlight<String> {
    let flights = group.in_flight().into_iter();
    let mut flights = flights.filter(|flight| !flight.given_up);
    flights.next().expect("one is in the map")
}

/// The same with a ticket, which stays with the flight of its job.
#[test]
fn a_given_up_job_is_wanted_by_its_ticket() {
    let group = Group::new();
    let mut ticket = None;
    let job = job(|spawn| {
        let f = |flight: &Flight<'_>| Ok(u32::from(flight.is_wanted()));
        ticket = Some(group.request("k").start_with(spawn, f));
    });
    assert!(group.forget("k"));
    let successor = lead(&group, "k");
    job.run();
    assert_eq!(ticket.unwrap().wait().result, Ok(1));
    drop(successor);
}

/// A call that runs alone has no followers, and is wanted until its own deadline.
#[test]
fn a_call_that_runs_alone() {
    let group = Group::new();
    let outer = group.call("k", || {
        let _follower = follow(&group, "k");
        let request = group.request("k").alone_on_deadlock();
        let alone = request.call_with(|flight| {
            assert_eq!(flight.followers(), 0);
            assert!(flight.is_wanted());
            Ok(1)
        });
        assert_eq!(alone, Ok(1));
        let request = group.request("k").alone_on_deadlock().timeout(Duration::ZERO);
        let alone = request.call_with(|flight| {
            assert!(!flight.is_wanted());
            Ok(2)
        });
        assert_eq!(alone, Ok(2));
        let request = group.request("k").alone_on_deadlock().timeout(HOUR);
        assert_eq!(request.call_with(|flight| Ok(u32::from(flight.is_wanted()))), Ok(1));
        // The flight around it goes on.
        assert!(!the_flight(&group).given_up);
        assert_eq!(the_flight(&group).followers, 1);
        Ok(3)
    });
    assert_eq!(outer, Ok(3));
    assert_eq!(group.stats().deadlocked, 3);
}

/// A job that warms a cache is wanted by nobody, does not ask, and runs all the same.
#[test]
fn a_job_that_does_not_ask_runs_all_the_same() {
    let group = Group::new();
    let (done, ran) = mpsc::channel();
    let mut ticket = None;
    let job = job(|spawn| {
        let f = move |_: &Flight<'_>| {
            done.send(()).unwrap();
            Ok(1)
        };
        ticket = Some(group.request("k").start_with(spawn, f));
    });
    drop(ticket);
    job.run();
    ran.try_recv().unwrap();
    assert_eq!(group.stats().led, 1);
    assert_eq!(group.stats().failed, 0);
}

#[test]
fn call_with_follows_times_out_and_takes_over_like_call() {
    let _watchdog = watchdog();
    let group = Group::new();
    let leader = lead(&group, "k");
    let late = group.request("k").timeout(Duration::ZERO).call_with(|_| panic!("it does not run"));
    assert_eq!(late, Err(CallError::TimedOut));
    thread::scope(|s| {
        let follower = s.spawn(|| group.request("k").call_with(|_| panic!("it does not run")));
        let next = s.spawn(|| {
            group.request("k").next_flight().timeout(HOUR).call_with(|flight| {
                assert!(flight.is_wanted());
                Ok(2)
            })
        });
        until_waiting(&group, 2);
        let _ = leader.complete(Ok(1));
        let followed = follower.join().unwrap();
        assert_eq!(followed, Ok(1));
        assert_eq!(next.join().unwrap(), Ok(2));
    });
    let leader = lead(&group, "k");
    thread::scope(|s| {
        let follower = s.spawn(|| {
            let request = group.request("k").takeover(1).timeout(HOUR);
            request.call_with(|flight| {
                assert_eq!(flight.followers(), 0);
                assert!(flight.is_wanted());
                Ok(3)
            })
        });
        until_waiting(&group, 1);
        drop(leader);
        assert_eq!(follower.join().unwrap(), Ok(3));
    });
    assert_quiet(&group);
}

#[test]
fn a_panic_reaches_followers_and_tickets() {
    let group = Group::new();
    let mut follower = None;
    let text = common::panic_text(|| {
        let outcome = group.request("k").call_with(|_| {
            follower = Some(follow(&group, "k"));
            panic!("disk on fire")
        });
        drop(outcome);
    });
    assert_eq!(text, "disk on fire");
    let Err(CallError::Panicked(panicked)) = follower.unwrap().wait().result else {
        panic!("it has panicked");
    };
    assert_eq!(panicked.message(), Some("disk on fire"));
    let ticket = group.request("k").start_with(|job| job.run(), |_| panic!("and another"));
    assert!(matches!(ticket.wait().result, Err(CallError::Panicked(_))));
    assert_quiet(&group);
}

/// Nobody joins work that is about to stop: no call ever gets its "cancelled".
#[test]
fn nobody_gets_cancelled_by_a_race() {
    const ROUNDS: usize = 3_000;
    let _watchdog = watchdog();
    let group = Group::new();
    let barrier = Barrier::new(2);
    let (jobs, worker) = mpsc::channel::<Job>();
    thread::scope(|s| {
        s.spawn(|| {
            for job in worker {
                barrier.wait();
                job.run();
            }
        });
        for round in 0..ROUNDS {
            let ticket = group.request("k").start_with(
                |job| jobs.send(job).unwrap(),
                |flight| match flight.is_wanted() {
                    true => Ok(1),
                    false => Err("cancelled"),
                },
            );
            // For certain before the job asks now and then, and for certain after it.
            let follower = (round % 16 == 0).then(|| follow(&group, "k"));
            drop(ticket);
            barrier.wait();
            match round % 16 {
                1 => until("the job has ended", || group.stats().in_flight == 0),
                n => (0..n % 3).for_each(|_| thread::yield_now()),
            }
            assert!(matches!(group.call("k", || Ok(2)), Ok(1 | 2)));
            if let Some(follower) = follower {
                assert_eq!(follower.wait().result, Ok(1));
            }
            until("the job has ended", || group.stats().in_flight == 0);
        }
        drop(jobs);
        assert!(group.stats().failed >= (ROUNDS / 16) as u64);
    });
    assert!(group.in_flight().is_empty());
}

#[test]
fn a_queued_start_leads_the_flight_that_its_function_asks_about() {
    let _watchdog = watchdog();
    let group = Group::new();
    let front = lead(&group, "k");
    thread::scope(|s| {
        let caller = s.spawn(|| {
            let request = group.request("k").next_flight();
            request.start_with(|job| job.run(), |flight| Ok(u32::from(flight.is_wanted())))
        });
        until_waiting(&group, 1);
        let _ = front.complete(Ok(9));
        assert_eq!(caller.join().unwrap().wait().result, Ok(1));
    });
    let Joined::Leader(leader) = group.join("k") else {
        panic!("the key is free");
    };
    drop(leader);
}
