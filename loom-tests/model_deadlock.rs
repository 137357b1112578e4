//! A wait that can never end is refused, and none that can end (G9).
//!
//! Were one too few refused, loom would find all threads blocked; each model counts that no more are.

use std::time::Duration;

use loom::thread;

use crate::deadlock;
use crate::explore::{Model, Reached};
use crate::sync::{Arc, Mutex};
use crate::{CallError, FlightGroup, Follower, Joined, Outcome, Role};

/// The function of a flight fails with this when it was refused what it asked for.
#[derive(Debug, PartialEq)]
struct Refused;

type Group = FlightGroup<usize, Refused>;

const SOON: Duration = Duration::from_secs(1);

/// What a function makes of what it got from within.
fn pass_on(inner: &Outcome<usize, Refused>) -> Result<usize, Refused> {
    match &inner.result {
        Ok(value) => Ok(value + 1),
        Err(CallError::Deadlock(_)) => Err(Refused),
        // The leader was refused, or waited for one that was.
        Err(CallError::Failed(refused)) => {
            assert_eq!(**refused, Refused);
            Err(Refused)
        }
        Err(other) => panic!("{other:?}"),
    }
}

fn is_refused(outcome: &Outcome<usize, Refused>) -> bool {
    matches!(outcome.result, Err(CallError::Deadlock(_)))
}

/// Leads `outer`, or follows it, and asks for `inner` from within. Tells what the function got.
fn nest(
    group: &Group,
    outer: &str,
    inner_group: &Group,
    inner: &str,
) -> Option<Outcome<usize, Refused>> {
    let mut got = None;
    let _ = group.call_ex(outer, || {
        let outcome = inner_group.call_ex(inner, || Ok(1));
        let result = pass_on(&outcome);
        got = Some(outcome);
        result
    });
    got
}

fn assert_over(groups: &[&Group]) {
    for group in groups {
        assert!(format!("{group:?}").contains("in_flight: 0"));
        assert_eq!(group.stats().waiting, 0);
    }
    assert_eq!(deadlock::waits(), 0, "a wait was left behind");
}

/// Each of the threads leads its own key and asks for the next one's.
fn ring(threads: usize, groups: &[Arc<Group>], reached: &Reached) {
    const KEYS: [&str; 3] = ["a", "b", "c"];
    let group_of = |i: usize| Arc::clone(&groups[i % groups.len()]);
    let ask = |i: usize| {
        let next = (i + 1) % threads;
        let (group, next_group) = (group_of(i), group_of(next));
        move || nest(&group, KEYS[i], &next_group, KEYS[next])
    };
    let others: Vec<_> = (1..threads).map(|i| thread::spawn(ask(i))).collect();
    let mut got = vec![ask(0)()];
    got.extend(others.into_iter().map(|other| other.join().unwrap()));

    // One that found its own key in flight followed, and its function did not run.
    let refused = got.iter().flatten().filter(|got| is_refused(got)).count();
    match refused {
        0 => reached.mark("nobody refused"),
        1 => {
            reached.mark("one refused");
            // Only where all the others were asleep.
            let followed = |got: &&Outcome<_, _>| got.role == Role::Followed;
            assert_eq!(got.iter().flatten().filter(followed).count(), threads);
        }
        _ => panic!("{refused} were refused"),
    }
    let groups: Vec<_> = groups.iter().map(|group| &**group).collect();
    assert_over(&groups);
}

#[test]
fn a_ring_of_two() {
    Model {
        preemptions: None,
        must_reach: &["nobody refused", "one refused"],
        executions: &[269, 541, 976],
    }
    .explore(|reached| ring(2, &[Arc::new(Group::new())], reached));
}

#[test]
fn a_ring_over_two_groups() {
    Model {
        preemptions: None,
        must_reach: &["nobody refused", "one refused"],
        executions: &[198, 386, 681],
    }
    .explore(|reached| {
        let groups = [Arc::new(Group::new()), Arc::new(Group::new())];
        ring(2, &groups, reached);
    });
}

#[test]
fn a_ring_of_three_bounded() {
    Model {
        preemptions: Some(4),
        must_reach: &["nobody refused", "one refused"],
        executions: &[15_978, 20_553, 25_784],
    }
    .explore(|reached| ring(3, &[Arc::new(Group::new())], reached));
}

/// One of them does not ask from within its own key's function, but from one within that.
#[test]
fn a_ring_through_an_outer_key() {
    Model {
        preemptions: None,
        must_reach: &["nobody refused", "one refused"],
        executions: &[618, 1_254, 2_274],
    }
    .explore(|reached| {
        let group = Arc::new(Group::new());
        let other = thread::spawn({
            let group = Arc::clone(&group);
            move || nest(&group, "b", &group, "a").is_some_and(|got| is_refused(&got))
        });
        let mut refused = false;
        let _ = group.call("a", || {
            let inner = nest(&group, "between", &group, "b").expect("nobody else is there");
            refused = is_refused(&inner);
            pass_on(&inner)
        });
        reached.mark(match (refused, other.join().unwrap()) {
            (false, false) => "nobody refused",
            (true, true) => panic!("both were refused"),
            _ => "one refused",
        });
        assert_over(&[&group]);
    });
}

/// A caller follows a flight, which lands; then the one who led it asks for what the follower leads.
#[test]
fn a_landed_flight_holds_nobody_up() {
    Model {
        preemptions: None,
        must_reach: &["followed b", "led b", "followed a", "led a"],
        executions: &[26_706, 85_676],
    }
    .explore(|reached| {
        let group = Arc::new(Group::new());
        let other = thread::spawn({
            let (group, reached) = (Arc::clone(&group), reached.clone());
            move || {
                if let Some(got) = nest(&group, "a", &group, "b") {
                    assert!(!is_refused(&got), "false alarm");
                    reached.mark(match got.role {
                        Role::Led => "led b",
                        Role::Followed => "followed b",
                    });
                }
            }
        });
        let outer = group.call("outer", || {
            group.call("b", || Ok(1)).unwrap();
            let got = group.call_ex("a", || Ok(1));
            assert!(!is_refused(&got), "false alarm");
            reached.mark(match got.role {
                Role::Led => "led a",
                Role::Followed => "followed a",
            });
            pass_on(&got)
        });
        assert!(outer.is_ok());
        other.join().unwrap();
        assert_over(&[&group]);
    });
}

/// How one call within another ends, of which one or both have a limit.
fn limited(
    reached: &Reached,
    first: impl Fn(&Group) -> Result<usize, CallError<Refused>> + Send + 'static,
    second: impl Fn(&Group) -> Result<usize, CallError<Refused>>,
) {
    let group = Arc::new(Group::new());
    let mark = |reached: &Reached, inner: Result<usize, CallError<Refused>>, marks: [_; 3]| {
        reached.mark(match inner {
            Ok(_) => marks[0],
            Err(CallError::TimedOut) => marks[1],
            Err(CallError::Deadlock(_)) => marks[2],
            Err(other) => panic!("{other:?}"),
        });
        Ok(1)
    };
    let other = thread::spawn({
        let (group, reached) = (Arc::clone(&group), reached.clone());
        move || {
            let marks = ["first: value", "first: timed out", "first: refused"];
            let _ = group.call("a", || mark(&reached, first(&group), marks));
        }
    });
    let marks = ["second: value", "second: timed out", "second: refused"];
    let _ = group.call("b", || mark(reached, second(&group), marks));
    other.join().unwrap();
    assert_over(&[&group]);
}

/// A wait with a limit ends by itself: the cycle that it is part of is not refused to others. But
/// the one with the limit is refused where nothing else could end its wait.
#[test]
fn a_cycle_in_which_one_has_a_limit() {
    Model {
        preemptions: None,
        must_reach: &["first: value", "second: value", "second: timed out", "second: refused"],
        executions: &[638, 1_185, 2_000],
    }
    .explore(|reached| {
        limited(
            reached,
            |group| group.call("b", || Ok(1)),
            |group| group.request("a").timeout(SOON).call(|| Ok(1)),
        );
    });
}

/// A limit to the age ends a wait, too. Its caller leads then.
#[test]
fn a_cycle_in_which_one_has_an_age_limit() {
    Model {
        preemptions: None,
        must_reach: &["first: value", "second: value", "second: refused"],
        executions: &[736, 1_358, 2_281],
    }
    .explore(|reached| {
        limited(
            reached,
            |group| group.call("b", || Ok(1)),
            |group| group.request("a").max_age(SOON).call(|| Ok(1)),
        );
    });
}

#[test]
fn a_cycle_in_which_both_have_a_limit() {
    Model {
        preemptions: None,
        must_reach: &["first: timed out", "first: value", "second: timed out", "second: value"],
        executions: &[203_636],
    }
    .explore(|reached| {
        limited(
            reached,
            |group| group.request("b").timeout(SOON).call(|| Ok(1)),
            |group| group.request("a").timeout(SOON).call(|| Ok(1)),
        );
    });
}

/// A function asks for its own key. Whatever its limits, it gets the reason at once, and may run
/// alone.
#[test]
fn an_own_key_is_refused() {
    Model { preemptions: None, must_reach: &["alone", "refused"], executions: &[1] }.explore(
        |reached| {
            let group = Group::new();
            let request = || group.request("k");
            let outcome = group.call("k", || {
                for request in [
                    request(),
                    request().timeout(SOON),
                    request().timeout(Duration::ZERO),
                    request().max_age(SOON),
                    request().max_age(Duration::ZERO),
                    request().max_followers(0),
                    request().next_flight(),
                ] {
                    assert!(is_refused(&request.call_ex(|| Ok(1))));
                }
                reached.mark("refused");
                let alone = request().timeout(SOON).alone_on_deadlock();
                assert_eq!(alone.call(|| Ok(1)), Ok(1));
                reached.mark("alone");
                Ok(2)
            });
            assert_eq!(outcome, Ok(2));
            assert_eq!(group.stats().deadlocked, 8);
            assert_over(&[&group]);
        },
    );
}

/// Two in a cycle are willing to run alone: at most one of them does, and both have a value.
#[test]
fn a_ring_in_which_one_runs_alone() {
    Model {
        preemptions: None,
        must_reach: &["nobody alone", "one alone"],
        executions: &[269, 541],
    }
    .explore(|reached| {
        let group = Arc::new(Group::new());
        let ask = |outer: &'static str, inner: &'static str| {
            let group = Arc::clone(&group);
            move || {
                let value = group.call(outer, || {
                    let inner = group.request(inner).alone_on_deadlock().call(|| Ok(1));
                    Ok(inner.expect("a value in any case") + 1)
                });
                assert!(value.is_ok());
            }
        };
        let other = thread::spawn(ask("a", "b"));
        ask("b", "a")();
        other.join().unwrap();
        reached.mark(match group.stats().deadlocked {
            0 => "nobody alone",
            1 => "one alone",
            _ => panic!("both were refused"),
        });
        assert_over(&[&group]);
    });
}

/// One queues behind a flight that no thread is known to run. Its turn comes, and now it waits for
/// the next flight, whose function asks for what this one leads: either of the two is refused.
#[test]
fn a_queued_caller_follows_into_a_ring() {
    Model {
        preemptions: None,
        must_reach: &["nobody refused", "the leader", "the one from the queue"],
        executions: &[13_048, 32_222],
    }
    .explore(|reached| {
        let group = Arc::new(Group::new());
        let Joined::Leader(first) = group.join("k") else {
            unreachable!("nobody else is here yet")
        };
        let other = thread::spawn({
            let group = Arc::clone(&group);
            move || {
                let mut refused = false;
                let _ = group.call("x", || {
                    let inner = group.request("k").next_flight().call_ex(|| Ok(1));
                    refused = is_refused(&inner);
                    pass_on(&inner)
                });
                refused
            }
        });
        let _ = first.complete(Ok(1));
        let leader = nest(&group, "k", &group, "x");
        let leader = leader.is_some_and(|got| is_refused(&got));
        reached.mark(match (leader, other.join().unwrap()) {
            (false, false) => "nobody refused",
            (true, false) => "the leader",
            (false, true) => "the one from the queue",
            (true, true) => panic!("both were refused"),
        });
        assert_over(&[&group]);
    });
}

/// One asks for the next flight of a key whose leader asks for what that one leads.
#[test]
fn a_ring_through_the_queue() {
    Model {
        preemptions: None,
        must_reach: &["nobody refused", "the leader", "the one in the queue"],
        executions: &[272, 506, 863],
    }
    .explore(|reached| {
        let group = Arc::new(Group::new());
        let other = thread::spawn({
            let group = Arc::clone(&group);
            move || {
                let mut refused = false;
                let _ = group.call("x", || {
                    let inner = group.request("k").next_flight().call_ex(|| Ok(1));
                    refused = is_refused(&inner);
                    pass_on(&inner)
                });
                refused
            }
        });
        let leader = nest(&group, "k", &group, "x");
        let leader = leader.is_some_and(|got| is_refused(&got));
        reached.mark(match (leader, other.join().unwrap()) {
            (false, false) => "nobody refused",
            (true, false) => "the leader",
            (false, true) => "the one in the queue",
            (true, true) => panic!("both were refused"),
        });
        assert_over(&[&group]);
    });
}

/// A leader gives its own flight up: a caller that waits for the next one goes on, and may be waited for.
#[test]
fn a_forgotten_flight_holds_no_queue_up() {
    Model { preemptions: None, must_reach: &["followed", "led"], executions: &[17_315] }.explore(
        |reached| {
            let group = Arc::new(Group::new());
            let other = thread::spawn({
                let group = Arc::clone(&group);
                move || {
                    let _ = group.call("x", || {
                        let inner = group.request("k").next_flight().call(|| Ok(1));
                        Ok(inner.expect("never refused"))
                    });
                }
            });
            let _ = group.call("k", || {
                group.forget("k");
                let inner = group.call_ex("x", || Ok(1));
                assert!(!is_refused(&inner), "false alarm");
                reached.mark(match inner.role {
                    Role::Led => "led",
                    Role::Followed => "followed",
                });
                pass_on(&inner)
            });
            other.join().unwrap();
            assert_over(&[&group]);
        },
    );
}

/// A third thread gives a flight up while another queues behind it. Its own function meets the next
/// flight, so it knows that; from then on, the queued caller is in no cycle with it.
#[test]
fn a_given_up_front_is_in_no_cycle() {
    Model {
        preemptions: Some(4),
        must_reach: &["followed", "led", "not given up yet"],
        executions: &[5_765],
    }
    .explore(|reached| {
        let group = Arc::new(Group::new());
        let queued = thread::spawn({
            let group = Arc::clone(&group);
            move || {
                let _ = group.call("x", || {
                    let inner = group.request("k").next_flight().call_ex(|| Ok(1));
                    assert!(!is_refused(&inner), "false alarm");
                    Ok(1)
                });
            }
        });
        let mut forgets = None;
        let _ = group.call("k", || {
            forgets = Some(thread::spawn({
                let group = Arc::clone(&group);
                move || group.forget("k")
            }));
            if is_refused(&group.call_ex("k", || Ok(2))) {
                reached.mark("not given up yet");
                return Ok(1);
            }
            let inner = group.call_ex("x", || Ok(1));
            assert!(!is_refused(&inner), "false alarm");
            reached.mark(match inner.role {
                Role::Led => "led",
                Role::Followed => "followed",
            });
            Ok(1)
        });
        queued.join().unwrap();
        // None if the other led "k" first.
        if let Some(forgets) = forgets {
            forgets.join().unwrap();
        }
        assert_over(&[&group]);
    });
}

/// A job belongs to the thread that runs it, and a ticket is waited for like any flight.
#[test]
fn a_ring_through_a_job() {
    Model {
        preemptions: None,
        must_reach: &["the job", "the one with the ticket"],
        executions: &[35, 77, 147],
    }
    .explore(|reached| {
        let group = Arc::new(Group::new());
        let mut worker = None;
        let mut refused = None;
        let mut job_refused = false;
        let _ = group.call("a", || {
            let spawn = |job: crate::Job| worker = Some(thread::spawn(move || job.run()));
            let ticket = group.start("b", spawn, {
                let group = Arc::clone(&group);
                move || pass_on(&group.call_ex("a", || unreachable!("it is being led")))
            });
            let got = ticket.wait();
            job_refused = matches!(got.result, Err(CallError::Failed(_)));
            refused = Some(is_refused(&got));
            pass_on(&got)
        });
        worker.expect("spawned").join().unwrap();
        reached.mark(match (refused, job_refused) {
            (Some(true), false) => "the one with the ticket",
            (Some(false), true) => "the job",
            other => panic!("{other:?}"),
        });
        assert_over(&[&group]);
    });
}

/// Two threads wait with the same follower, one of them from within the flight's function. That one
/// is refused. The other is left waiting until the flight lands, and is refused as well: the two are one
/// call (G3).
#[test]
fn a_refusal_leaves_the_place_to_another_waiter() {
    Model { preemptions: None, must_reach: &["waited"], executions: &[135, 275, 505] }.explore(
        |reached| {
            let group = Group::new();
            // What runs the function, and the follower that it waits with.
            let (spawned, shared) = (Mutex::new(None), Arc::new(Mutex::new(None)));
            let f = {
                let shared = Arc::clone(&shared);
                move || {
                    let follower: Arc<Follower<usize, Refused>> = shared.lock().take().unwrap();
                    let got = follower.wait_timeout(Duration::MAX).expect("there is no limit");
                    assert!(is_refused(&got));
                    Ok(1)
                }
            };
            drop(group.start("k", |job| *spawned.lock() = Some(job), f));
            let Joined::Follower(follower) = group.join("k") else { unreachable!("a job leads") };
            let follower = Arc::new(follower);
            *shared.lock() = Some(Arc::clone(&follower));
            let job = spawned.lock().take().unwrap();
            let runner = thread::spawn(move || job.run());
            let got = follower.wait_timeout(Duration::MAX).expect("there is no limit");
            assert!(is_refused(&got));
            reached.mark("waited");
            runner.join().unwrap();
            drop(follower);
            assert_over(&[&group]);
        },
    );
}

/// A wait closes a cycle through a queued leader, and is refused. Before the refusal is written down,
/// the flight in front may be given up: then the queued leader goes on, and its flight lands. If another
/// thread gets that outcome with the same follower, both have it, because the two are one call (G3).
#[test]
fn a_refusal_that_comes_too_late() {
    Model {
        preemptions: Some(3),
        must_reach: &["a value", "refused", "the leader is refused"],
        executions: &[4_446],
    }
    .explore(|reached| {
        let group = Arc::new(Group::new());
        let spawned = Mutex::new(None);
        let f = {
            let group = Arc::clone(&group);
            move || pass_on(&group.request("x").next_flight().call_ex(|| Ok(1)))
        };
        drop(group.start("k", |job| *spawned.lock() = Some(job), f));
        let Joined::Follower(follower) = group.join("k") else { unreachable!("a job leads") };
        let follower = Arc::new(follower);
        let job = spawned.lock().take().unwrap();
        let mut others = None;
        let got = group.call("x", || {
            let shared = Arc::clone(&follower);
            let runner = thread::spawn(move || {
                job.run();
                is_refused(&shared.try_wait().expect("it has landed"))
            });
            let group = Arc::clone(&group);
            others = Some((runner, thread::spawn(move || group.forget("x"))));
            let got = follower.wait_timeout(Duration::MAX).expect("there is no limit");
            reached.mark(match &got.result {
                Ok(_) => "a value",
                Err(CallError::Deadlock(_)) => "refused",
                Err(_) => "the leader is refused",
            });
            Ok(usize::from(is_refused(&got)))
        });
        let (runner, forgetter) = others.expect("it has led");
        assert_eq!(runner.join().unwrap(), got == Ok(1), "two outcomes for one call");
        forgetter.join().unwrap();
        drop(follower);
        assert_over(&[&group]);
    });
}
