//! Futile waits (G9): a caller with a time limit is refused at once where nothing but its own limit
//! could end its wait. Where another limit could, it is not.
//!
//! No refusal here waits for a limit: the limits are of an hour, and the test ends now.
#![cfg(not(loom))]

mod common;

use std::sync::{mpsc, Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::{assert_quiet, follow, lead, until, until_waiting, watchdog};
use shared_calls::{CallError, FlightGroup, Job, Joined, Observer, Outcome, Request, Role};

type Group = FlightGroup<u32, &'static str>;
type Asked<'a> = Request<'a, 'a, u32, &'static str, str>;

const HOUR: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(5);

fn is_deadlock<T>(result: &Result<T, CallError<&'static str>>) -> bool {
    matches!(result, Err(CallError::Deadlock(_)))
}

fn no_job(_: Job) {
    panic!("it does not lead");
}

/// Has another thread lead "a" and wait for "b" as `waits` says, while this thread leads "b" and
/// then does `closes`. Both keys end with a value in any case.
fn cycle<W, T>(
    group: &Group,
    waits: impl Fn(Asked<'_>) -> W + Sync,
    closes: impl FnOnce() -> T,
) -> (W, T)
where
    W: Send,
{
    let both_lead = Barrier::new(2);
    thread::scope(|s| {
        let other = s.spawn(|| {
            let mut waited = None;
            let outcome = group.call("a", || {
                both_lead.wait();
                both_lead.wait();
                waited = Some(waits(group.request("b")));
                Ok(1)
            });
            assert_eq!(outcome, Ok(1));
            waited.unwrap()
        });
        let mut closed = None;
        let outcome = group.call("b", || {
            both_lead.wait();
            let before = group.stats();
            both_lead.wait();
            // The other waits, or its wait has ended by its limit.
            until("the other has begun to wait", || group.stats() != before);
            closed = Some(closes());
            Ok(2)
        });
        assert_eq!(outcome, Ok(2));
        (other.join().unwrap(), closed.unwrap())
    })
}

fn call(request: Asked<'_>) -> Result<u32, CallError<&'static str>> {
    request.call(|| panic!("it does not run"))
}

#[test]
fn the_callers_own_key_is_refused_whatever_the_limit() {
    let group = Group::new();
    let outer = group.call("k", || {
        let request = || group.request("k");
        assert!(is_deadlock(&call(request())));
        assert!(is_deadlock(&call(request().timeout(HOUR))));
        assert!(is_deadlock(&call(request().deadline(Instant::now() + HOUR))));
        // No time at all is no reason for another error.
        assert!(is_deadlock(&call(request().timeout(Duration::ZERO))));
        assert!(is_deadlock(&call(request().deadline(Instant::now()))));
        // An age is a limit like any other.
        assert!(is_deadlock(&call(request().max_age(HOUR))));
        assert!(is_deadlock(&call(request().max_age(Duration::ZERO))));
        assert!(is_deadlock(&call(request().timeout(HOUR).max_age(HOUR))));
        assert!(is_deadlock(&call(request().timeout(HOUR).next_flight())));
        assert!(is_deadlock(&call(request().timeout(Duration::ZERO).next_flight())));
        let outcome = request().timeout(HOUR).call_with(|_| panic!("it does not run"));
        assert!(is_deadlock(&outcome));
        Ok(1)
    });
    assert_eq!(outer, Ok(1));
    assert_eq!(group.stats().deadlocked, 11);
    assert_eq!(group.stats().timed_out, 0);
}

/// Through keys in between, which this thread leads as well.
#[test]
fn an_outer_key_is_refused_too() {
    let (group, other) = (Group::new(), Group::new());
    let outer = group.call("outer", || {
        other
            .call("middle", || {
                group
                    .call("inner", || {
                        assert!(is_deadlock(&call(group.request("outer").timeout(HOUR))));
                        assert!(is_deadlock(&call(other.request("middle").timeout(HOUR))));
                        Ok(1)
                    })
                    .map_err(|_| "inner")
            })
            .map_err(|_| "middle")
    });
    assert_eq!(outer, Ok(1));
}

#[test]
fn a_leader_that_runs_and_a_job_are_known_too() {
    let group = Group::new();
    let asks = {
        let group = group.clone();
        move || {
            assert!(is_deadlock(&call(group.request("k").timeout(HOUR))));
            Ok(1)
        }
    };
    assert_eq!(lead(&group, "k").run(asks.clone()).result, Ok(1));
    assert_eq!(group.start("k", Job::run, asks.clone()).wait().result, Ok(1));
    let (jobs, worker) = mpsc::channel();
    let ticket = group.start("k", |job| jobs.send(job).unwrap(), asks);
    thread::spawn(move || worker.recv().unwrap().run()).join().unwrap();
    assert_eq!(ticket.wait().result, Ok(1));
}

/// Whichever limit the caller has that would close the cycle, it is told at once.
#[test]
fn a_cycle_of_waits_without_a_limit_is_refused_to_one_with_a_limit() {
    let _watchdog = watchdog();
    let group = Group::new();
    let asks: [fn(Asked<'_>) -> Asked<'_>; 6] = [
        |a| a,
        |a| a.timeout(HOUR),
        |a| a.deadline(Instant::now() + HOUR),
        |a| a.max_age(HOUR),
        |a| a.timeout(HOUR).next_flight(),
        |a| a.max_age(HOUR).next_flight(),
    ];
    for ask in asks {
        let (waited, closed) = cycle(&group, call, || call(ask(group.request("a"))));
        assert!(is_deadlock(&closed), "{closed:?}");
        assert_eq!(waited, Ok(2), "the others go on");
    }
    let stats = group.stats();
    assert_eq!((stats.deadlocked, stats.timed_out), (6, 0));
    assert_quiet(&group);
}

#[test]
fn the_refusal_names_the_threads_of_the_cycle() {
    let _watchdog = watchdog();
    let group = Group::new();
    let mut names = (thread::current().id(), Vec::new());
    let other = |request: Asked<'_>| {
        let result = call(request);
        (thread::current().id(), result)
    };
    let ((other, _), ()) = cycle(&group, other, || {
        let Err(CallError::Deadlock(deadlock)) = call(group.request("a").timeout(HOUR)) else {
            panic!("it is refused");
        };
        assert!(deadlock.to_string().contains("deadlock"));
        names.1 = deadlock.threads().iter().map(|thread| thread.id()).collect();
    });
    assert_eq!(names.1, [names.0, other]);
}

/// It may end by that limit. So the caller is not refused, and its own limit ends its wait.
#[test]
fn a_cycle_in_which_another_caller_has_a_limit_is_not_refused() {
    let _watchdog = watchdog();
    let group = Group::new();
    let limits: [fn(Asked<'_>) -> Asked<'_>; 3] =
        [|b| b.timeout(HOUR), |b| b.deadline(Instant::now() + HOUR), |b| b.max_age(HOUR)];
    for limit in limits {
        let waits = |request: Asked<'_>| call(limit(request));
        let (waited, closed) = cycle(&group, waits, || call(group.request("a").timeout(SHORT)));
        assert_eq!(closed, Err(CallError::TimedOut));
        assert_eq!(waited, Ok(2));
    }
    assert_eq!(group.stats().deadlocked, 0);
}

/// The other limit does end it.
#[test]
fn a_cycle_ends_by_the_limit_of_another_caller() {
    let _watchdog = watchdog();
    let group = Group::new();
    let waits = |request: Asked<'_>| {
        let waited = call(request.timeout(SHORT));
        until_waiting(&group, 1); // It does not land before this thread waits for it.
        waited
    };
    let (waited, closed) = cycle(&group, waits, || call(group.request("a")));
    // The other one is freed by its own limit, lands, and this thread gets its value. Or this
    // thread was so late that it found nobody waiting.
    assert_eq!((waited, closed), (Err(CallError::TimedOut), Ok(1)));

    // By its age limit, the other one leads "b" instead.
    let waits = |request: Asked<'_>| {
        let waited = request.max_age(SHORT).call(|| Ok(7));
        until_waiting(&group, 1);
        waited
    };
    let (waited, closed) = cycle(&group, waits, || call(group.request("a")));
    assert_eq!((waited, closed), (Ok(7), Ok(1)));
    assert_eq!(group.stats().deadlocked, 0);
    assert_quiet(&group);
}

/// `join`, `start` and `call_many` do not give up by age while they wait.
#[test]
fn the_age_of_a_follower_is_no_limit() {
    let _watchdog = watchdog();
    let group: Group = FlightGroup::builder().max_age(HOUR).build();
    let closes = || call(group.request("a").timeout(HOUR));
    let waits = |request: Asked<'_>| match request.join() {
        Joined::Follower(follower) => follower.wait().result,
        Joined::Leader(_) => panic!("the key is in flight"),
    };
    let (waited, closed) = cycle(&group, waits, closes);
    assert!(is_deadlock(&closed));
    assert_eq!(waited, Ok(2));
    let waits = |request: Asked<'_>| request.start(no_job, || Ok(9)).wait().result;
    let (waited, closed) = cycle(&group, waits, closes);
    assert!(is_deadlock(&closed));
    assert_eq!(waited, Ok(2));
    let waits = |_: Asked<'_>| group.call_many(&["b"], |_| Ok(vec![9])).remove(0);
    let (waited, closed) = cycle(&group, waits, closes);
    assert!(is_deadlock(&closed));
    assert_eq!(waited, Ok(2));
    // The wait of a call is limited by the same default.
    let (_, closed) = cycle(&group, call, || call(group.request("a").timeout(SHORT)));
    assert_eq!(closed, Err(CallError::TimedOut));
}

/// A limit of a join, a ticket or a `wait_timeout` is one.
#[test]
fn the_deadline_of_a_follower_is_a_limit() {
    let _watchdog = watchdog();
    let group = Group::new();
    let closes = || call(group.request("a").timeout(SHORT));
    let waits = |request: Asked<'_>| match request.timeout(HOUR).join() {
        Joined::Follower(follower) => follower.wait().result,
        Joined::Leader(_) => panic!("the key is in flight"),
    };
    assert_eq!(cycle(&group, waits, closes), (Ok(2), Err(CallError::TimedOut)));
    let waits = |request: Asked<'_>| request.timeout(HOUR).start(no_job, || Ok(9)).wait().result;
    assert_eq!(cycle(&group, waits, closes), (Ok(2), Err(CallError::TimedOut)));
    let waits = |_: Asked<'_>| {
        let follower = follow(&group, "b");
        follower.wait_timeout(HOUR).expect("within an hour").result
    };
    assert_eq!(cycle(&group, waits, closes), (Ok(2), Err(CallError::TimedOut)));
}

/// With a default limit only own keys are refused, and cycles of waits that have none.
#[test]
fn a_group_with_a_default_limit() {
    let _watchdog = watchdog();
    let group: Group = FlightGroup::builder().timeout(HOUR).build();
    let outer = group.call("k", || {
        assert!(is_deadlock(&group.call("k", || Ok(9))));
        Ok(1)
    });
    assert_eq!(outer, Ok(1));
    let (waited, closed) = cycle(&group, call, || call(group.request("a").timeout(SHORT)));
    assert_eq!((waited, closed), (Ok(2), Err(CallError::TimedOut)));
    let unlimited = |request: Asked<'_>| call(request.without_defaults());
    let (waited, closed) = cycle(&group, unlimited, || group.call("a", || Ok(9)));
    assert!(is_deadlock(&closed));
    assert_eq!(waited, Ok(2));
}

/// Three threads: the limit of any of the others counts.
#[test]
fn a_cycle_of_three_threads() {
    let _watchdog = watchdog();
    for limited in [None, Some("a"), Some("b")] {
        let group = Group::new();
        let all_lead = Barrier::new(3);
        thread::scope(|s| {
            let waits = |own: &'static str, next: &'static str| {
                let (group, all_lead) = (&group, &all_lead);
                s.spawn(move || {
                    group.call(own, || {
                        all_lead.wait();
                        let request = group.request(next);
                        call(match limited == Some(own) {
                            true => request.timeout(HOUR),
                            false => request,
                        })
                        .map_err(|_| "not refused")
                    })
                })
            };
            let (a, b) = (waits("a", "b"), waits("b", "c"));
            let outer = group.call("c", || {
                all_lead.wait();
                until_waiting(&group, 2);
                let closed =
                    call(group.request("a").timeout(if limited.is_some() { SHORT } else { HOUR }));
                match limited {
                    None => {
                        let Err(CallError::Deadlock(deadlock)) = closed else {
                            panic!("it is refused");
                        };
                        assert_eq!(deadlock.threads().len(), 3);
                    }
                    Some(_) => assert_eq!(closed, Err(CallError::TimedOut)),
                }
                Ok(3)
            });
            assert_eq!(outer, Ok(3));
            assert_eq!((a.join().unwrap(), b.join().unwrap()), (Ok(3), Ok(3)));
        });
        assert_quiet(&group);
    }
}

/// No time is no wait, so there is no cycle to look for.
#[test]
fn a_call_without_time_is_refused_for_no_cycle() {
    let _watchdog = watchdog();
    let group = Group::new();
    let closes = || call(group.request("a").timeout(Duration::ZERO));
    let (waited, closed) = cycle(&group, call, closes);
    assert_eq!((waited, closed), (Ok(2), Err(CallError::TimedOut)));
    let closes = || call(group.request("a").timeout(Duration::ZERO).next_flight());
    let (_, closed) = cycle(&group, call, closes);
    assert_eq!(closed, Err(CallError::TimedOut));
}

#[test]
fn looking_at_a_follower_looks_for_no_cycle() {
    let _watchdog = watchdog();
    let group = Group::new();
    let late = follow_then(&group, |follower| {
        assert!(!follower.is_done());
        assert!(follower.try_wait().is_none());
        assert!(follower.wait_timeout(Duration::ZERO).is_none());
        assert_eq!(group.stats().deadlocked, 0);
        // To wait is another thing. That it is for an hour only makes no difference.
        assert!(is_deadlock(&follower.wait_timeout(HOUR).unwrap().result));
        assert_eq!(group.stats().deadlocked, 1);
        // A refusal, once given, stays.
        assert!(follower.is_done());
        assert!(is_deadlock(&follower.try_wait().unwrap().result));
        assert!(is_deadlock(&follower.wait_timeout(Duration::ZERO).unwrap().result));
    });
    // Also when the flight has landed since.
    assert!(is_deadlock(&late.result));
    assert_eq!(late.role, Role::Followed);
    assert_eq!(group.stats().deadlocked, 1, "it is one call");
}

/// Follows "a" inside the function of "b", in a cycle, and waits once both have landed.
fn follow_then(
    group: &Group,
    look: impl FnOnce(&shared_calls::Follower<u32, &'static str>),
) -> Outcome<u32, &'static str> {
    let (_, follower) = cycle(group, call, || {
        let follower = follow(group, "a");
        look(&follower);
        follower
    });
    until("both have landed", || group.stats().in_flight == 0);
    follower.wait()
}

/// One that has only looked gets the outcome.
#[test]
fn a_follower_that_was_not_refused_gets_the_outcome() {
    let _watchdog = watchdog();
    let group = Group::new();
    let outcome = follow_then(&group, |follower| {
        assert!(follower.try_wait().is_none());
        assert!(follower.wait_timeout(Duration::ZERO).is_none());
    });
    assert_eq!(outcome.result, Ok(1));
}

#[test]
fn a_ticket_looks_for_no_cycle_either() {
    let _watchdog = watchdog();
    let group = Group::new();
    let outer = group.call("k", || {
        let ticket = group.start("k", no_job, || Ok(9));
        assert!(ticket.try_wait().is_none());
        assert!(ticket.wait_timeout(Duration::ZERO).is_none());
        assert!(is_deadlock(&ticket.wait_timeout(HOUR).unwrap().result));
        assert!(is_deadlock(&ticket.try_wait().unwrap().result));
        let limited = group.request("k").timeout(HOUR).start(no_job, || Ok(9));
        assert!(is_deadlock(&limited.wait().result));
        Ok(1)
    });
    assert_eq!(outer, Ok(1));
    assert_eq!(group.stats().deadlocked, 2);
}

#[test]
fn a_join_with_a_limit_is_refused_when_it_waits() {
    let group = Group::new();
    let outer = group.call("k", || {
        let Joined::Follower(follower) = group.request("k").timeout(HOUR).join() else {
            panic!("the key is in flight");
        };
        assert!(!follower.is_done());
        assert!(is_deadlock(&follower.wait().result));
        // One that would have to queue is refused on arrival.
        let Joined::Follower(follower) = group.request("k").timeout(HOUR).next_flight().join()
        else {
            panic!("the key is in flight");
        };
        assert!(follower.is_done());
        assert!(is_deadlock(&follower.try_wait().unwrap().result));
        Ok(1)
    });
    assert_eq!(outer, Ok(1));
}

/// A caller that led the flight could not have had an outcome in any time. Another one could.
#[test]
fn join_and_start_without_time_are_refused_on_the_callers_own_key() {
    let _watchdog = watchdog();
    let group = Group::new();
    let request = || group.request("k").timeout(Duration::ZERO);
    let joined = || {
        let Joined::Follower(follower) = request().join() else { unreachable!() };
        follower.wait().result
    };
    let outcome = group.call("k", || {
        assert!(is_deadlock(&joined()));
        assert!(is_deadlock(&request().start(no_job, || Ok(2)).wait().result));
        Ok(1)
    });
    assert_eq!(outcome, Ok(1));
    let leader = lead(&group, "k");
    assert_eq!(joined(), Err(CallError::TimedOut));
    assert_eq!(request().start(no_job, || Ok(2)).wait().result, Err(CallError::TimedOut));
    drop(leader);
    assert_quiet(&group);
}

#[test]
fn alone_on_deadlock_works_with_a_limit() {
    let _watchdog = watchdog();
    let group = Group::new();
    let alone = |request: Asked<'_>| request.alone_on_deadlock().call_ex(|| Ok(5));
    let outer = group.call("k", || {
        for request in [
            group.request("k").timeout(HOUR),
            group.request("k").timeout(Duration::ZERO),
            group.request("k").max_age(HOUR),
        ] {
            let outcome = alone(request);
            assert_eq!((outcome.result, outcome.role, outcome.followers), (Ok(5), Role::Led, 0));
        }
        Ok(1)
    });
    assert_eq!(outer, Ok(1));
    let (waited, closed) = cycle(&group, call, || alone(group.request("a").timeout(HOUR)).result);
    assert_eq!((waited, closed), (Ok(2), Ok(5)));
    let stats = group.stats();
    assert_eq!((stats.deadlocked, stats.led), (4, 3));
}

/// A held `Leader` and a job that has not begun are not known to belong to a thread.
#[test]
fn what_is_not_known_is_not_refused() {
    let _watchdog = watchdog();
    let group = Group::new();
    let leader = lead(&group, "held");
    let late = call(group.request("held").timeout(SHORT));
    assert_eq!(late, Err(CallError::TimedOut));
    let outer = group.call("k", || {
        assert_eq!(call(group.request("held").timeout(SHORT)), Err(CallError::TimedOut));
        Ok(1)
    });
    assert_eq!(outer, Ok(1));
    drop(leader);
    let (jobs, worker) = mpsc::channel();
    let ticket = group.start("job", |job| jobs.send(job).unwrap(), || Ok(1));
    assert!(ticket.wait_timeout(SHORT).is_none());
    worker.recv().unwrap().run();
    // A spawner is no function of the flight.
    let ticket = group.start(
        "spawner",
        |job| {
            let late = call(group.request("spawner").timeout(SHORT));
            assert_eq!(late, Err(CallError::TimedOut));
            job.run();
        },
        || Ok(1),
    );
    assert_eq!(ticket.wait().result, Ok(1));
    assert_eq!(group.stats().deadlocked, 0);
}

/// After its own flight was given up, a function may ask for its key: no false alarm.
#[test]
fn a_function_whose_flight_was_given_up_may_ask_for_its_key() {
    let group = Group::new();
    let outer = group.call("k", || {
        assert!(group.forget("k"));
        assert_eq!(group.request("k").timeout(HOUR).call(|| Ok(2)), Ok(2));
        Ok(1)
    });
    assert_eq!(outer, Ok(1));
}

/// A queued caller is checked again when its turn comes: the flight that it follows then has a
/// leader of its own, which may wait for it.
#[test]
fn a_queued_caller_is_checked_again_at_its_turn() {
    let _watchdog = watchdog();
    let group = Group::new();
    let front = lead(&group, "b");
    thread::scope(|s| {
        // It leads "b" next, or follows there: both queue.
        let other = s.spawn(|| {
            group.call("a", || match group.request("b").next_flight().call(|| Ok(4)) {
                Err(CallError::Deadlock(_)) => Ok(0),
                result => result.map_err(|_| "another error"),
            })
        });
        let queued = |n| group.in_flight().iter().any(|flight| flight.queued == n);
        until("it queues", || queued(1));
        let next = s.spawn(|| {
            let request = group.request("b").next_flight();
            request.call(|| match group.call("a", || Ok(9)) {
                Ok(value) => Ok(value + 10),
                Err(CallError::Deadlock(_)) => Ok(20),
                Err(_) => Err("another error"),
            })
        });
        until("both queue", || queued(2));
        let _ = front.complete(Ok(1));
        match (other.join().unwrap(), next.join().unwrap()) {
            // "a" led "b".
            (Ok(4), Ok(4)) => {}
            // "a" followed and was refused, because "b" waited for it.
            (Ok(0), Ok(10)) => {}
            // "a" followed, and "b" was refused, because "a" waited for it.
            (Ok(20), Ok(20)) => {}
            // "b" asked so late that "a" was not in flight any more.
            (Ok(4), Ok(_)) => {}
            unexpected => panic!("{unexpected:?}"),
        }
    });
    assert_quiet(&group);
}

/// A cycle through the queue of the next flight.
#[test]
fn a_cycle_through_a_queued_caller_is_refused() {
    let _watchdog = watchdog();
    let group = Group::new();
    let waits = |request: Asked<'_>| request.next_flight().call(|| Ok(7));
    let (waited, closed) = cycle(&group, waits, || call(group.request("a").timeout(HOUR)));
    assert!(is_deadlock(&closed));
    assert_eq!(waited, Ok(7));
    // A limit of the queued caller's is one.
    let waits = |request: Asked<'_>| request.next_flight().timeout(HOUR).call(|| Ok(7));
    let (waited, closed) = cycle(&group, waits, || call(group.request("a").timeout(SHORT)));
    assert_eq!((waited, closed), (Ok(7), Err(CallError::TimedOut)));
    assert_quiet(&group);
}

/// A queued caller whose front was given up waits for that no longer, even before it has woken up:
/// no false alarm. Many times, because it may be quick to wake.
#[test]
fn a_queue_whose_front_was_given_up_is_in_no_cycle() {
    let _watchdog = watchdog();
    let group = Group::new();
    let waits = |request: Asked<'_>| request.next_flight().call(|| Ok(7));
    for _ in 0..500 {
        let (waited, closed) = cycle(&group, waits, || {
            assert!(group.forget("b"));
            // The other one may have led "b" and ended "a" by now.
            group.request("a").timeout(HOUR).call(|| Ok(1))
        });
        assert_eq!((waited, closed), (Ok(7), Ok(1)));
    }
    assert_eq!(group.stats().deadlocked, 0);
}

/// Holds a caller up between its arrival in the queue of "b" and its wait.
struct HoldsUp {
    queued: mpsc::Sender<()>,
    go: Mutex<mpsc::Receiver<()>>,
}

impl Observer for HoldsUp {
    fn caller_joined(&self, key: &String) {
        if key == "b" {
            self.queued.send(()).unwrap();
            self.go.lock().unwrap().recv().unwrap();
        }
    }
}

/// Its turn has come before it waits: it does not wait for the flight in front any more.
#[test]
fn a_queued_caller_whose_turn_has_come_is_in_no_cycle() {
    let _watchdog = watchdog();
    let (queued, has_queued) = mpsc::channel();
    let (goes, go) = mpsc::channel();
    let go = Mutex::new(go);
    let group: Group = FlightGroup::builder().observer(HoldsUp { queued, go }).build();
    let both_lead = Barrier::new(2);
    thread::scope(|s| {
        let other = s.spawn(|| {
            group.call("a", || {
                both_lead.wait();
                let next = group.request("b").next_flight().call(|| Ok(7));
                assert_eq!(next, Ok(7), "it leads");
                Ok(1)
            })
        });
        let outer = group.call("b", || {
            both_lead.wait();
            has_queued.recv().unwrap();
            assert!(group.forget("b"));
            // Only now that this thread waits for the other one, that one goes on to wait.
            let group = &group;
            s.spawn(move || {
                until_waiting(group, 1);
                goes.send(()).unwrap();
            });
            assert_eq!(group.call("a", || Ok(9)), Ok(1));
            Ok(2)
        });
        assert_eq!((outer, other.join().unwrap()), (Ok(2), Ok(1)));
    });
    assert_eq!(group.stats().deadlocked, 0);
    assert_quiet(&group);
}
