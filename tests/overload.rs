//! `max_followers` (G13): the call that would be one too many to wait for a flight is refused at
//! once, and the cap is exact however many arrive at the same time.
#![cfg(not(loom))]

mod common;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{mpsc, Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;

use common::{
    assert_quiet, follow, gate, lead, the_flight, until, until_queued, until_waiting, watchdog,
};
use shared_calls::{
    CallError, Deadlock, FlightGroup, Follower, Joined, Landed, Observer, Outcome, Role,
    SharedCalls,
};

type Group = FlightGroup<u32, &'static str>;

const HOUR: Duration = Duration::from_secs(3600);

fn join(group: &Group, cap: usize) -> Follower<u32, &'static str> {
    match group.request("k").max_followers(cap).join() {
        Joined::Follower(follower) => follower,
        Joined::Leader(_) => panic!("the key is in flight"),
    }
}

fn is_overloaded(outcome: &Outcome<u32, &'static str>) -> bool {
    if outcome.result != Err(CallError::Overloaded) {
        return false;
    }
    assert_eq!((outcome.role, outcome.followers), (Role::Followed, 0));
    true
}

#[test]
fn the_call_after_the_last_place_is_refused_at_once() {
    let group = Group::new();
    let leader = lead(&group, "k");
    let (first, second) = (join(&group, 2), join(&group, 2));
    let refused = group.request("k").max_followers(2).call_ex(|| panic!("it does not run"));
    assert!(is_overloaded(&refused));
    assert_eq!(leader.followers(), 2);

    // A place that is given up is free again.
    drop(first);
    let third = join(&group, 2);
    assert!(!third.is_done());
    assert!(join(&group, 2).is_done());

    assert_eq!(leader.complete(Ok(1)).followers, 2);
    assert_eq!(second.wait().result, Ok(1));
    assert_eq!(third.wait().result, Ok(1));
    let stats = group.stats();
    assert_eq!((stats.led, stats.followed, stats.overloaded), (1, 2, 1));
    assert_eq!(stats.calls(), 4);
    assert_quiet(&group);
}

/// Its outcome is there already, and counts when it is first looked at.
#[test]
fn a_refused_join_is_a_follower_that_is_done() {
    let group = Group::new();
    let leader = lead(&group, "k");
    let refused = join(&group, 0);
    assert!(refused.is_done());
    assert_eq!(group.stats().overloaded, 0);
    assert!(is_overloaded(&refused.try_wait().unwrap()));
    assert!(is_overloaded(&refused.wait_timeout(HOUR).unwrap()));
    assert_eq!(group.stats().overloaded, 1);
    drop(leader);
    // A refusal stays.
    assert!(is_overloaded(&refused.wait()));
    assert_eq!(group.stats().overloaded, 1);

    let leader = lead(&group, "k");
    drop(join(&group, 0));
    assert_eq!(group.stats().overloaded, 1);
    drop(leader);
}

#[test]
fn the_cap_is_exact_when_all_join_at_once() {
    const THREADS: usize = 12;
    const CAP: usize = 5;
    const ROUNDS: usize = 300;
    let _watchdog = watchdog();
    let group = Group::new();
    let barrier = Barrier::new(THREADS + 1);
    let refused = AtomicUsize::new(0);
    thread::scope(|s| {
        for _ in 0..THREADS {
            s.spawn(|| {
                for _ in 0..ROUNDS {
                    barrier.wait();
                    let follower = join(&group, CAP);
                    if follower.is_done() {
                        refused.fetch_add(1, SeqCst);
                        assert!(is_overloaded(&follower.try_wait().unwrap()));
                    }
                    barrier.wait();
                    drop(follower);
                }
            });
        }
        for round in 1..=ROUNDS {
            let leader = lead(&group, "k");
            barrier.wait();
            barrier.wait();
            assert_eq!(refused.load(SeqCst), round * (THREADS - CAP));
            drop(leader);
        }
    });
    let refused = (ROUNDS * (THREADS - CAP)) as u64;
    assert_eq!(group.stats().overloaded, refused);
}

#[test]
fn the_cap_is_exact_when_all_call_at_once() {
    const THREADS: usize = 12;
    const CAP: usize = 3;
    const ROUNDS: usize = 100;
    let _watchdog = watchdog();
    let group = Group::new();
    let barrier = Barrier::new(THREADS);
    let refused = AtomicUsize::new(0);
    let followed = AtomicUsize::new(0);
    thread::scope(|s| {
        for _ in 0..THREADS {
            s.spawn(|| {
                for round in 1..=ROUNDS {
                    barrier.wait();
                    let request = group.request("k").max_followers(CAP);
                    // The leader goes on once all others have arrived.
                    let outcome = request.call_ex(|| {
                        let all = round * (THREADS - 1 - CAP);
                        until("the others are refused", || refused.load(SeqCst) == all);
                        until("the others follow", || the_flight(&group).followers == CAP);
                        Ok(1)
                    });
                    match outcome.result {
                        Ok(1) if outcome.role == Role::Led => assert_eq!(outcome.followers, CAP),
                        Ok(1) => drop(followed.fetch_add(1, SeqCst)),
                        _ => {
                            assert!(is_overloaded(&outcome));
                            refused.fetch_add(1, SeqCst);
                        }
                    }
                    barrier.wait();
                }
            });
        }
    });
    assert_eq!(followed.into_inner(), ROUNDS * CAP);
    assert_quiet(&group);
}

/// Callers that come and go all the time are never more than the cap, and a free place is had.
#[test]
fn the_cap_is_exact_while_followers_leave() {
    const CAP: usize = 2;
    let _watchdog = watchdog();
    let group = Group::new();
    let leader = lead(&group, "k");
    let sitting = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let seen = thread::scope(|s| {
        let threads = [(); 4].map(|()| {
            s.spawn(|| {
                let mut seen = 0;
                for _ in 0..5_000 {
                    let follower = join(&group, CAP);
                    if !follower.is_done() {
                        assert!(sitting.fetch_add(1, SeqCst) < CAP);
                        seen += 1;
                        sitting.fetch_sub(1, SeqCst);
                    }
                    drop(follower);
                }
                seen
            })
        });
        let looker = s.spawn(|| {
            while !stop.load(SeqCst) {
                assert!(leader.followers() <= CAP);
            }
        });
        let seen: usize = threads.map(|t| t.join().unwrap()).iter().sum();
        stop.store(true, SeqCst);
        looker.join().unwrap();
        seen
    });
    assert!(seen > 0);
    assert_eq!(leader.followers(), 0);
    assert!(!join(&group, 1).is_done());
}

#[test]
fn each_call_applies_its_own_cap() {
    let group = Group::new();
    let leader = lead(&group, "k");
    let _followers = [follow(&group, "k"), follow(&group, "k")];
    assert!(join(&group, 1).is_done());
    assert!(join(&group, 2).is_done());
    let third = join(&group, 3);
    assert!(!third.is_done());
    assert!(!follow(&group, "k").is_done(), "without a cap");
    drop(leader);
}

#[test]
fn the_last_cap_that_a_request_names_counts() {
    let group = Group::new();
    let _leader = lead(&group, "k");
    let request = group.request("k").max_followers(0).max_followers(1);
    let Joined::Follower(follower) = request.join() else {
        panic!("it follows");
    };
    assert!(!follower.is_done());
}

#[test]
fn with_a_cap_of_zero_a_call_only_leads() {
    let group = Group::new();
    let request = || group.request("k").max_followers(0);
    assert_eq!(request().call(|| Ok(1)), Ok(1));
    let leader = lead(&group, "k");
    assert_eq!(request().call(|| Ok(1)), Err(CallError::Overloaded));
    let queued = request().next_flight().call(|| Ok(1));
    assert_eq!(queued, Err(CallError::Overloaded));
    assert_eq!((the_flight(&group).followers, the_flight(&group).queued), (0, 0));
    // Nothing of the queue is left behind.
    drop(leader);
    assert_quiet(&group);
    assert_eq!(group.stats().overloaded, 2);
}

/// Those who queue count among themselves; they are no followers of the flight in front.
#[test]
fn the_queue_has_the_same_cap() {
    let _watchdog = watchdog();
    let group = Group::new();
    let front = lead(&group, "k");
    let runs = AtomicUsize::new(0);
    let request = || group.request("k").max_followers(2).next_flight();
    thread::scope(|s| {
        let queued = [(); 2].map(|()| {
            s.spawn(|| {
                request().call_ex(|| {
                    runs.fetch_add(1, SeqCst);
                    until("the other follows", || the_flight(&group).followers == 1);
                    Ok(2)
                })
            })
        });
        until_queued(&group, 2);
        until_waiting(&group, 2);
        assert!(is_overloaded(&request().call_ex(|| panic!("it does not run"))));
        let Joined::Follower(refused) = request().join() else {
            panic!("the key is in flight");
        };
        assert!(is_overloaded(&refused.wait()));
        // The flight in front has places of its own.
        assert_eq!(the_flight(&group).followers, 0);
        let follower = join(&group, 1);
        assert!(!follower.is_done());
        assert!(join(&group, 1).is_done());

        let _ = front.complete(Ok(1));
        assert_eq!(follower.wait().result, Ok(1));
        let outcomes = queued.map(|caller| caller.join().unwrap());
        assert!(outcomes.iter().all(|o| o.result == Ok(2) && o.followers == 1));
    });
    assert_eq!(runs.into_inner(), 1);
    assert_eq!(group.stats().overloaded, 2);
    assert_quiet(&group);
}

#[test]
fn the_cap_of_the_queue_is_exact_when_all_arrive_at_once() {
    const THREADS: usize = 8;
    const CAP: usize = 3;
    let _watchdog = watchdog();
    let group = Group::new();
    for _ in 0..50 {
        let barrier = Barrier::new(THREADS);
        let refused = AtomicUsize::new(0);
        let front = lead(&group, "k");
        thread::scope(|s| {
            for _ in 0..THREADS {
                s.spawn(|| {
                    barrier.wait();
                    let request = group.request("k").next_flight().max_followers(CAP);
                    match request.call(|| Ok(2)) {
                        Ok(2) => {}
                        Err(CallError::Overloaded) => drop(refused.fetch_add(1, SeqCst)),
                        other => panic!("unexpected: {other:?}"),
                    }
                });
            }
            until("the others are refused", || refused.load(SeqCst) == THREADS - CAP);
            assert_eq!(the_flight(&group).queued, CAP);
            let _ = front.complete(Ok(1));
        });
        assert_eq!(refused.into_inner(), THREADS - CAP);
        assert_quiet(&group);
    }
}

/// Own key, then age, then cap, then cycle.
#[test]
fn the_order_of_checks() {
    let _watchdog = watchdog();
    let group = FlightGroup::<u32, &'static str>::new();

    // The caller's own key, though the flight is full.
    let outer = group.call("k", || {
        let inner = group.request("k").max_followers(0).call(|| Ok(1));
        assert!(matches!(inner, Err(CallError::Deadlock(_))));
        Ok(1)
    });
    assert_eq!(outer, Ok(1));

    // A flight that is too old is given up, though it is full.
    let old = lead(&group, "k");
    let request = group.request("k").max_followers(0).max_age(Duration::ZERO);
    assert_eq!(request.call_ex(|| Ok(2)).role, Role::Led);
    drop(old);

    // A full flight, though the caller has no time.
    let full = lead(&group, "k");
    let request = || group.request("k").max_followers(0);
    assert_eq!(request().timeout(Duration::ZERO).call(|| Ok(1)), Err(CallError::Overloaded));
    drop(full);

    // A full flight, though the wait would close a cycle.
    let both_lead = Barrier::new(2);
    thread::scope(|s| {
        let other = s.spawn(|| {
            group.call("a", || {
                both_lead.wait();
                Ok(group.call("b", || Ok(0)).unwrap() + 1)
            })
        });
        let outer = group.call("b", || {
            both_lead.wait();
            until_waiting(&group, 1);
            let full = group.request("a").max_followers(0).call(|| Ok(1));
            assert_eq!(full, Err(CallError::Overloaded));
            let cycle = group.request("a").max_followers(1).call(|| Ok(1));
            assert!(matches!(cycle, Err(CallError::Deadlock(_))));
            Ok(5)
        });
        assert_eq!(outer, Ok(5));
        assert_eq!(other.join().unwrap(), Ok(6));
    });
    assert_quiet(&group);
}

#[test]
fn following_tickets_count_and_the_leading_one_does_not() {
    let group = Group::new();
    let (jobs, worker) = mpsc::channel();
    let start = |cap| {
        let request = group.request("k").max_followers(cap);
        request.start(|job| jobs.send(job).unwrap(), || Ok(1))
    };
    let leading = start(0);
    let following = start(1);
    let refused = start(1);
    assert_eq!([&leading, &following, &refused].map(|t| t.is_done()), [false, false, true]);
    assert!(is_overloaded(&refused.wait()));
    drop(following);
    let following = start(1);
    assert!(!following.is_done());
    worker.recv().unwrap().run();
    assert!(worker.try_recv().is_err(), "one job");
    assert_eq!((leading.wait().result, following.wait().result), (Ok(1), Ok(1)));
    let stats = group.stats();
    assert_eq!((stats.led, stats.followed, stats.overloaded), (1, 1, 1));
}

#[test]
fn the_cap_of_the_group_holds_for_every_call() {
    let group = FlightGroup::<u32, &str>::builder().max_followers(1).build();
    let group: Arc<FlightGroup<u32, &str>> = Arc::new(group);
    let calls: Arc<dyn SharedCalls<u32, &str>> = group.clone();
    let leader = lead(&group, "k");
    let follower = follow(&group, "k");
    assert_eq!(calls.call("k", || Ok(1)), Err(CallError::Overloaded));
    assert_eq!(group.call("k", || Ok(1)), Err(CallError::Overloaded));
    assert!(follow(&group, "k").is_done());
    assert!(group.start("k", drop, || Ok(1)).is_done());
    assert_eq!(group.call_many(&["k"], |_| Ok(vec![])), [Err(CallError::Overloaded)]);
    let outcome = group.request("k").call_with(|_| Ok(1));
    assert_eq!(outcome, Err(CallError::Overloaded));
    // A request may say otherwise.
    assert!(!join(&group, 2).is_done());
    let Joined::Follower(free) = group.request("k").without_defaults().join() else {
        panic!("the key is in flight");
    };
    assert!(!free.is_done());
    drop((leader, follower));
}

/// Two threads are on one slow key; the third of the pool is free for other work.
#[test]
fn one_slow_key_does_not_take_all_threads_of_a_pool() {
    let _watchdog = watchdog();
    let group: Group = FlightGroup::builder().max_followers(1).build();
    let (held, gate) = gate();
    let held = Mutex::new(Some(held));
    let slow = || {
        let held = held.lock().unwrap().take().expect("one leads");
        held();
        Ok(1)
    };
    let slow = &slow;
    thread::scope(|s| {
        let leader = s.spawn(|| group.call("slow", slow));
        gate.begun();
        let follower = s.spawn(|| group.call("slow", slow));
        until_waiting(&group, 1);
        let third = s.spawn(|| [group.call("slow", slow), group.call("quick", || Ok(2))]);
        assert_eq!(third.join().unwrap(), [Err(CallError::Overloaded), Ok(2)]);
        gate.open();
        assert_eq!((leader.join().unwrap(), follower.join().unwrap()), (Ok(1), Ok(1)));
    });
}

#[test]
fn a_batch_that_names_a_key_twice_takes_one_place() {
    let _watchdog = watchdog();
    let group: Group = FlightGroup::builder().max_followers(1).build();
    let leader = lead(&group, "k");
    thread::scope(|s| {
        let batch = s.spawn(|| group.call_many(&["k", "k"], |_| Ok(vec![])));
        until_waiting(&group, 1);
        assert_eq!(leader.followers(), 1);
        // And one that is refused is refused once.
        let refused = group.call_many(&["k", "k"], |_| Ok(vec![]));
        assert_eq!(refused, [Err(CallError::Overloaded), Err(CallError::Overloaded)]);
        assert_eq!(group.stats().overloaded, 1);
        let _ = leader.complete(Ok(1));
        assert_eq!(batch.join().unwrap(), [Ok(1), Ok(1)]);
    });
    assert_eq!(group.stats().followed, 1);
}

/// A caller that takes over is a new arrival.
#[test]
fn a_caller_that_asks_again_can_be_refused() {
    let _watchdog = watchdog();
    let group = Group::new();
    let first = lead(&group, "k");
    let second = Mutex::new(None);
    thread::scope(|s| {
        s.spawn(|| {
            until_waiting(&group, 1);
            let _ = first.complete(Err("mine alone"));
        });
        // Between the first flight and asking again, another one begins, and is full.
        let request = group.request("k").max_followers(1).takeover_if(1, |_| {
            *second.lock().unwrap() = Some((lead(&group, "k"), follow(&group, "k")));
            true
        });
        assert_eq!(request.call(|| Ok(1)), Err(CallError::Overloaded));
    });
    let stats = group.stats();
    assert_eq!((stats.overloaded, stats.followed), (1, 0));
    drop(second);
    assert_quiet(&group);
}

#[test]
fn an_overloaded_call_runs_alone_for_no_deadlock_and_takes_nothing_over() {
    let group = Group::new();
    let _leader = lead(&group, "k");
    let request = group.request("k").max_followers(0).takeover(9).alone_on_deadlock();
    assert_eq!(request.call(|| Ok(1)), Err(CallError::Overloaded));
}

#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<String>>>);

impl Told {
    fn tell(&self, what: &str, key: &str) {
        self.0.lock().unwrap().push(format!("{what} {key}"));
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Observer for Told {
    fn flight_began(&self, key: &String) {
        self.tell("began", key);
    }
    fn caller_joined(&self, key: &String) {
        self.tell("joined", key);
    }
    fn flight_landed(&self, key: &String, _: &Landed) {
        self.tell("landed", key);
    }
    fn caller_timed_out(&self, key: &String) {
        self.tell("timed out", key);
    }
    fn deadlock_refused(&self, key: &String, _: &Deadlock) {
        self.tell("deadlock", key);
    }
    fn overload_refused(&self, key: &String) {
        self.tell("overload", key);
    }
}

/// As of a refused deadlock: once for each call that ends so.
#[test]
fn the_observer_is_told_of_overload() {
    let told = Told::default();
    let group: Group = FlightGroup::builder().observer(told.clone()).max_followers(0).build();
    let leader = lead(&group, "k");
    assert_eq!(told.take(), ["began k"]);
    assert_eq!(group.call("k", || Ok(1)), Err(CallError::Overloaded));
    assert_eq!(told.take(), ["overload k"]);
    let queued = group.request("k").next_flight().call(|| Ok(1));
    assert_eq!(queued, Err(CallError::Overloaded));
    assert_eq!(told.take(), ["overload k"]);
    let refused = follow(&group, "k");
    let ticket = group.start("k", drop, || Ok(1));
    assert_eq!(told.take(), [""; 0]);
    let _ = (refused.try_wait(), refused.wait(), ticket.try_wait(), ticket.wait());
    assert_eq!(told.take(), ["overload k", "overload k"]);
    let batch = group.call_many(&["k", "k"], |_| Ok(vec![]));
    assert_eq!(batch, [Err(CallError::Overloaded), Err(CallError::Overloaded)]);
    assert_eq!(told.take(), ["overload k"]);
    let _ = leader.complete(Ok(1));
    assert_eq!(told.take(), ["landed k"]);
    assert_eq!(group.stats().overloaded, 5);
}
