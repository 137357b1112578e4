//! `stats()`: every call is counted once, as what it was, whichever way it ended; and so is every
//! flight. What is on its way shows in `in_flight` and `waiting`.
#![cfg(not(loom))]

mod common;

use std::panic::{catch_unwind, panic_any, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{mpsc, Arc};
use std::thread;
use std::time::Duration;

use common::{all_arrived, assert_quiet, follow, give_up, lead, panic_text, until, watchdog};
use common::{Watched, TOO_LONG};
use shared_calls::{CallError, FlightGroup, Joined, Role, Stats};

type Group = FlightGroup<u32, &'static str>;

const SHORT: Duration = Duration::from_millis(2);

/// What a group should have counted: a figure that is not named is 0.
macro_rules! stats {
    ($($figure:ident: $n:expr),*) => {{
        #[allow(unused_mut)]
        let mut stats = Stats::default();
        $(stats.$figure = $n;)*
        stats
    }};
}

// Leaders.

#[test]
fn a_new_group_has_counted_nothing() {
    assert_eq!(Group::new().stats(), stats!());
    assert_eq!(Group::builder().build().stats(), Stats::default());
    assert_eq!(Stats::default().calls(), 0);
}

#[test]
fn a_leader_is_counted_by_how_its_flight_ends() {
    let group = Group::new();
    group.call("k", || Ok(1)).unwrap();
    assert_eq!(group.stats(), stats!(led: 1));
    group.call("k", || Err("no")).unwrap_err();
    assert_eq!(group.stats(), stats!(led: 2, failed: 1));
    panic_text(|| drop(group.call("k", || panic!("boom"))));
    assert_eq!(group.stats(), stats!(led: 3, failed: 1, panicked: 1));

    let _ = lead(&group, "k").complete(Ok(1));
    assert_eq!(group.stats(), stats!(led: 4, failed: 1, panicked: 1));
    let _ = lead(&group, "k").complete(Err("no"));
    assert_eq!(group.stats(), stats!(led: 5, failed: 2, panicked: 1));
    drop(lead(&group, "k"));
    let abandoned = stats!(led: 6, failed: 2, panicked: 1, abandoned: 1);
    assert_eq!(group.stats(), abandoned);
    assert_eq!(abandoned.calls(), 6);
}

/// A leader that is dropped because its holder panics has abandoned its flight: no function of the
/// group's panicked.
#[test]
fn a_leader_that_is_dropped_by_a_panic_has_abandoned_its_flight() {
    let group = Group::new();
    panic_text(|| {
        let _leader = lead(&group, "k");
        panic!("boom");
    });
    assert_eq!(group.stats(), stats!(led: 1, abandoned: 1));
}

#[test]
fn a_leader_counts_where_it_is_completed() {
    let group = Group::new();
    let leader = lead(&group, "k");
    let _ = thread::scope(|s| s.spawn(|| leader.complete(Ok(1))).join().unwrap());
    assert_eq!(group.stats(), stats!(led: 1));
}

#[test]
fn a_job_counts_as_led_and_its_ticket_does_not_count_again() {
    let group = Arc::new(Group::new());
    let ran = group.start("k", |job| job.run(), || Ok(1));
    assert_eq!(group.stats(), stats!(led: 1));
    let _ = (ran.try_wait(), ran.try_wait(), ran.wait());
    assert_eq!(group.stats(), stats!(led: 1));

    let failed = group.start("k", |job| job.run(), || Err("no"));
    assert!(failed.wait_timeout(TOO_LONG).is_some());
    assert_eq!(group.stats(), stats!(led: 2, failed: 1));
    drop(group.start("k", |job| job.run(), || panic!("boom")));
    assert_eq!(group.stats(), stats!(led: 3, failed: 1, panicked: 1));

    drop(group.start("k", drop, || Ok(1)));
    let abandoned = stats!(led: 4, failed: 1, panicked: 1, abandoned: 1);
    assert_eq!(group.stats(), abandoned);
    panic_text(|| drop(group.start("k", |_| panic!("no thread"), || Ok(1))));
    let abandoned = stats!(led: 5, failed: 1, panicked: 1, abandoned: 2);
    assert_eq!(group.stats(), abandoned);
}

// Followers.

#[test]
fn a_follower_counts_when_it_has_its_outcome() {
    let _watchdog = watchdog();
    let group = Group::new();
    let leader = lead(&group, "k");
    let followers = [(); 3].map(|()| follow(&group, "k"));
    assert_eq!(group.stats(), stats!(in_flight: 1));
    let _ = leader.complete(Ok(1));
    assert_eq!(group.stats(), stats!(led: 1));
    for (i, follower) in (1..).zip(followers) {
        let _ = follower.wait();
        assert_eq!(group.stats(), stats!(led: 1, followed: i));
    }
    assert_eq!(group.stats().calls(), 4);
}

/// By whatever it is asked.
#[test]
fn a_follower_that_is_asked_again_counts_once() {
    let group = Group::new();
    let leader = lead(&group, "k");
    let follower = follow(&group, "k");
    let never = follow(&group, "k");
    // No outcome yet: nothing has ended.
    assert!(follower.try_wait().is_none());
    assert!(follower.wait_timeout(SHORT).is_none());
    assert!(!follower.is_done());
    assert_eq!(group.stats(), stats!(in_flight: 1));

    let _ = leader.complete(Ok(1));
    assert!(follower.is_done());
    assert_eq!(group.stats(), stats!(led: 1));
    for _ in 0..3 {
        assert!(follower.try_wait().is_some());
        assert!(follower.wait_timeout(TOO_LONG).is_some());
        assert_eq!(group.stats(), stats!(led: 1, followed: 1));
    }
    let _ = follower.wait();
    assert_eq!(group.stats(), stats!(led: 1, followed: 1));
    assert!(never.is_done());
    drop(never);
    assert_eq!(group.stats(), stats!(led: 1, followed: 1));
}

/// Two threads look at one follower at the same time.
#[test]
fn a_follower_that_is_shared_counts_once() {
    let _watchdog = watchdog();
    let group = Group::new();
    for round in 1..=200 {
        let leader = lead(&group, "k");
        let follower = follow(&group, "k");
        thread::scope(|s| {
            for _ in 0..2 {
                s.spawn(|| follower.wait_timeout(TOO_LONG).unwrap());
            }
            let _ = leader.complete(Ok(1));
        });
        assert_eq!(group.stats(), stats!(led: round, followed: round));
    }
}

#[test]
fn a_follower_that_is_dropped_is_not_counted() {
    let group = Group::new();
    let leader = lead(&group, "k");
    drop(follow(&group, "k"));
    let late = follow(&group, "k");
    drop(leader);
    drop(late);
    assert_eq!(group.stats(), stats!(led: 1, abandoned: 1));
}

/// A flight that fails does so once, however many share it.
#[test]
fn followers_of_any_ending_count_as_that() {
    let _watchdog = watchdog();
    let group = Group::new();
    type Leader<'g> = shared_calls::Leader<'g, u32, &'static str>;
    let ends: [fn(Leader<'_>); 3] = [
        |leader| drop(leader.complete(Ok(1))),
        |leader| drop(leader.complete(Err("no"))),
        |leader| drop(leader),
    ];
    for end in ends {
        let leader = lead(&group, "k");
        let followers = [(); 2].map(|()| follow(&group, "k"));
        end(leader);
        for follower in followers {
            drop(follower.wait());
        }
    }
    let ended = stats!(led: 3, followed: 6, failed: 1, abandoned: 1);
    assert_eq!(group.stats(), ended);
}

#[test]
fn a_following_ticket_counts_like_a_follower() {
    let group = Arc::new(Group::new());
    let leader = lead(&group, "k");
    let [polled, dropped, waited] = [(); 3].map(|()| {
        let spawn = |_| panic!("somebody leads");
        group.start("k", spawn, || Ok(2))
    });
    assert!(polled.try_wait().is_none() && polled.wait_timeout(SHORT).is_none());
    let _ = leader.complete(Ok(1));
    assert!(polled.is_done());
    assert_eq!(group.stats(), stats!(led: 1));
    let _ = (polled.try_wait(), polled.try_wait(), polled.wait());
    assert_eq!(group.stats(), stats!(led: 1, followed: 1));
    drop(dropped);
    let _ = waited.wait();
    assert_eq!(group.stats(), stats!(led: 1, followed: 2));
}

/// Whose `Clone` panics where it is told to.
struct Value {
    panics: bool,
}

impl Clone for Value {
    fn clone(&self) -> Self {
        assert!(!self.panics, "in Clone");
        let panics = false;
        Self { panics }
    }
}

#[test]
fn a_call_whose_value_panics_in_clone_has_ended() {
    let group = FlightGroup::<Value, ()>::new();
    let leader = lead(&group, "k");
    let followers = [(); 2].map(|()| follow(&group, "k"));
    panic_text(|| drop(leader.complete(Ok(Value { panics: true }))));
    assert_eq!(group.stats(), stats!(led: 1));
    let [first, last] = followers;
    panic_text(|| drop(first.try_wait()));
    assert_eq!(group.stats(), stats!(led: 1, followed: 1));
    panic_text(|| drop(first.wait()));
    // Has the value itself.
    assert!(last.wait().result.is_ok());
    assert_eq!(group.stats(), stats!(led: 1, followed: 2));
}

// Time-outs.

#[test]
fn a_call_whose_time_is_up_counts_as_timed_out() {
    let _watchdog = watchdog();
    let group = Group::new();
    let leader = lead(&group, "k");
    let request = || group.request("k").timeout(SHORT);
    request().call(|| Ok(2)).unwrap_err();
    assert_eq!(group.stats(), stats!(in_flight: 1, timed_out: 1));
    let zero = group.request("k").timeout(Duration::ZERO);
    zero.call_ex(|| Ok(2)).result.unwrap_err();
    assert_eq!(group.stats(), stats!(in_flight: 1, timed_out: 2));

    let Joined::Follower(follower) = request().join() else {
        panic!("somebody leads");
    };
    // This only looks.
    assert!(follower.wait_timeout(SHORT).is_none());
    assert_eq!(group.stats(), stats!(in_flight: 1, timed_out: 2));
    let _ = follower.wait();
    assert_eq!(group.stats(), stats!(in_flight: 1, timed_out: 3));
    drop(leader);
}

/// A follower that has a refusal for its outcome counts when it is asked for that.
#[test]
fn a_queued_call_whose_time_is_up_counts_once() {
    let _watchdog = watchdog();
    let group = Group::new();
    let leader = lead(&group, "k");
    let request = || group.request("k").next_flight().timeout(SHORT);
    let outcome = request().call_ex(|| Ok(2));
    assert!(matches!(outcome.result, Err(CallError::TimedOut)));
    assert_eq!(group.stats(), stats!(in_flight: 1, timed_out: 1));
    let Joined::Follower(follower) = request().join() else {
        panic!("somebody leads");
    };
    assert!(follower.is_done());
    assert_eq!(group.stats(), stats!(in_flight: 1, timed_out: 1));
    let _ = follower.try_wait();
    assert_eq!(group.stats(), stats!(in_flight: 1, timed_out: 2));
    let _ = (follower.try_wait(), follower.wait());
    assert_eq!(group.stats(), stats!(in_flight: 1, timed_out: 2));
    // Not at all if it is dropped before.
    drop(request().join());
    assert_eq!(group.stats(), stats!(in_flight: 1, timed_out: 2));
    let _ = leader.complete(Ok(1));
    assert_eq!(group.stats(), stats!(led: 1, timed_out: 2));
}

// Refusals.

/// In every way of asking for one's own key.
#[test]
fn a_call_that_is_refused_counts_as_deadlocked() {
    let _watchdog = watchdog();
    let asks: [fn(&Arc<Group>); 8] = [
        |group| drop(group.call("k", || Ok(2))),
        |group| drop(group.request("k").takeover(3).call(|| Ok(2))),
        |group| drop(group.request("k").next_flight().call(|| Ok(2))),
        |group| drop(follow(&**group, "k").wait()),
        |group| drop(group.start("k", |job| job.run(), || Ok(2)).wait()),
        // It has no function to run alone.
        |group| match group.request("k").next_flight().alone_on_deadlock().join() {
            Joined::Follower(follower) => drop(follower.wait()),
            Joined::Leader(_) => panic!("the key is in flight"),
        },
        |group| drop(group.request("k").timeout(SHORT).call(|| Ok(2))),
        |group| drop(group.call_many(&["k"], |_| Ok(vec![2]))),
    ];
    let group = Arc::new(Group::new());
    for (i, ask) in (1..).zip(asks) {
        let outer = group.call("k", || {
            ask(&group);
            assert_eq!(group.stats().deadlocked, i);
            Ok(1)
        });
        assert_eq!(outer.unwrap(), 1);
        assert_eq!(group.stats(), stats!(led: i, deadlocked: i));
    }
}

#[test]
fn a_refused_call_that_is_never_asked_for_is_not_counted() {
    let group = Group::new();
    let outer = group.call("k", || {
        drop(group.request("k").next_flight().join());
        let next = group.request("k").next_flight();
        drop(next.start(|_| panic!("it is refused"), || Ok(2)));
        drop(group.request("k").max_followers(0).join());
        Ok(1)
    });
    assert_eq!((outer, group.stats()), (Ok(1), stats!(led: 1)));
}

#[test]
fn a_call_that_finds_a_full_flight_counts_as_overloaded() {
    let _watchdog = watchdog();
    let group = Group::new();
    let leader = lead(&group, "k");
    let request = || group.request("k").max_followers(0);
    request().call(|| Ok(2)).unwrap_err();
    assert_eq!(group.stats(), stats!(in_flight: 1, overloaded: 1));
    request().next_flight().call(|| Ok(2)).unwrap_err();
    assert_eq!(group.stats(), stats!(in_flight: 1, overloaded: 2));
    request().timeout(Duration::ZERO).call(|| Ok(2)).unwrap_err();
    let ended = stats!(in_flight: 1, overloaded: 3);
    assert_eq!((group.stats(), ended.calls()), (ended, 3));

    let Joined::Follower(follower) = request().join() else {
        panic!("the key is in flight");
    };
    let ticket = request().start(|_| panic!("it is refused"), || Ok(2));
    assert!(follower.is_done() && ticket.is_done());
    assert_eq!(group.stats(), ended);
    let _ = (follower.try_wait(), follower.wait());
    let _ = (ticket.try_wait(), ticket.wait());
    assert_eq!(group.stats(), stats!(in_flight: 1, overloaded: 5));
    let _ = leader.complete(Ok(1));
    assert_eq!(group.stats(), stats!(led: 1, overloaded: 5));
}

/// What each of its keys is, is a call.
#[test]
fn every_key_of_a_batch_counts_as_a_call() {
    let _watchdog = watchdog();
    let group = Group::builder().timeout(SHORT).build();
    let leader = lead(&group, "slow");
    let keys = ["a", "slow", "b", "a"];
    let results = group.call_many(&keys, |led| Ok(vec![1; led.len()]));
    assert_eq!(results[1], Err(CallError::TimedOut));
    let ended = stats!(led: 2, timed_out: 1, in_flight: 1);
    assert_eq!(group.stats(), ended);
    group.call_many(&["a", "b"], |_| Err("no"));
    assert_eq!(group.stats(), stats!(led: 4, failed: 2, timed_out: 1, in_flight: 1));
    drop(leader);
}

/// A leading ticket counts as `led` when its flight lands, whatever `wait` returned.
#[test]
fn a_leading_ticket_that_times_out_counts_as_led() {
    let _watchdog = watchdog();
    let group = Group::new();
    let (jobs, worker) = mpsc::channel();
    let request = group.request("k").timeout(SHORT);
    let ticket = request.start(|job| jobs.send(job).unwrap(), || Ok(1));
    assert_eq!(ticket.wait().result, Err(CallError::TimedOut));
    assert_eq!(group.stats(), stats!(in_flight: 1));
    worker.recv().unwrap().run();
    assert_eq!(group.stats(), stats!(led: 1));
}

#[test]
fn a_call_that_ran_alone_counts_as_deadlocked_and_as_nothing_else() {
    let _watchdog = watchdog();
    let group = Group::new();
    let alone = || group.request("k").alone_on_deadlock();
    let outer = group.call("k", || {
        assert_eq!(alone().call_ex(|| Ok(2)).role, Role::Led);
        alone().call(|| Err("no")).unwrap_err();
        panic_text(|| drop(alone().call(|| panic!("boom"))));
        alone().next_flight().call(|| Ok(2)).unwrap();
        Ok(1)
    });
    assert_eq!(outer.unwrap(), 1);
    assert_eq!(group.stats(), stats!(led: 1, deadlocked: 4));
}

/// Where nothing is refused the option counts for nothing.
#[test]
fn a_call_that_would_run_alone_counts_as_usual_where_it_need_not() {
    let group = Group::new();
    let request = || group.request("k").alone_on_deadlock().timeout(SHORT);
    request().call(|| Ok(1)).unwrap();
    let leader = lead(&group, "k");
    request().call(|| Ok(1)).unwrap_err();
    let _ = leader.complete(Ok(1));
    assert_eq!(group.stats(), stats!(led: 2, timed_out: 1));
}

// Options.

/// One call leads, panics, is asked again by two, of which one leads and one follows: four calls.
#[test]
fn a_call_that_asks_again_counts_once() {
    let _watchdog = watchdog();
    let group = FlightGroup::<u32, &'static str, Watched>::new();
    let key = Watched::new("k");
    // Whichever of the two leads, the other one has come by then.
    let second = || {
        until("one follows", || group.in_flight()[0].followers == 1);
        Ok(2)
    };
    let first = lead(&group, &key);
    thread::scope(|s| {
        let (willing, unwilling) = all_arrived(&group, &key, 3, || {
            let (group, key) = (&group, &key);
            let willing = move || group.request(key).takeover(5).call(second);
            let unwilling = s.spawn(move || group.call(key, || Ok(3)));
            ([(); 2].map(|()| s.spawn(willing)), unwilling)
        });
        drop(first);
        assert!(matches!(unwilling.join().unwrap(), Err(CallError::Abandoned)));
        for caller in willing {
            assert_eq!(caller.join().unwrap().unwrap(), 2);
        }
    });
    // Led: the one that went away, and the one that took over. Followed: one of each flight.
    let ended = stats!(led: 2, followed: 2, abandoned: 1);
    assert_eq!(group.stats(), ended);
}

#[test]
fn a_call_without_takeovers_left_has_followed() {
    let _watchdog = watchdog();
    let group = FlightGroup::<u32, &'static str, Watched>::new();
    let key = Watched::new("k");
    let first = lead(&group, &key);
    thread::scope(|s| {
        let unwilling = all_arrived(&group, &key, 1, || {
            s.spawn(|| group.request(&key).takeover(0).call(|| Ok(2)))
        });
        drop(first);
        unwilling.join().unwrap().unwrap_err();
    });
    assert_eq!(group.stats(), stats!(led: 1, followed: 1, abandoned: 1));
}

/// Asked again, and then its time is up.
#[test]
fn a_call_that_asks_again_and_is_late_counts_as_timed_out_only() {
    let _watchdog = watchdog();
    let group = FlightGroup::<u32, &'static str, Watched>::new();
    let key = Watched::new("k");
    let first = lead(&group, &key);
    thread::scope(|s| {
        let caller = all_arrived(&group, &key, 1, || {
            let request = group.request(&key).takeover(5);
            let request = request.timeout(Duration::from_millis(50));
            s.spawn(move || request.call(|| Ok(2)))
        });
        // Given up and replaced, so that there is one to follow when the first goes away.
        let second = give_up(&group, &key);
        drop(first);
        let late = caller.join().unwrap();
        assert!(matches!(late, Err(CallError::TimedOut)));
        drop(second);
    });
    assert_eq!(group.stats(), stats!(led: 2, timed_out: 1, abandoned: 2));
}

#[test]
fn calls_for_the_next_flight_count_as_what_they_are_on_it() {
    let _watchdog = watchdog();
    let group = FlightGroup::<u32, &'static str, Watched>::new();
    let key = Watched::new("k");
    let running = lead(&group, &key);
    thread::scope(|s| {
        let queued = all_arrived(&group, &key, 3, || {
            [(); 3].map(|()| s.spawn(|| group.request(&key).next_flight().call_ex(|| Ok(2))))
        });
        until("all wait", || group.stats().waiting == 3);
        assert_eq!(group.stats(), stats!(in_flight: 1, waiting: 3));
        let _ = running.complete(Ok(1));
        let outcomes = queued.map(|caller| caller.join().unwrap());
        assert_eq!(outcomes.iter().filter(|o| o.fresh()).count(), 1);
    });
    assert_eq!(group.stats(), stats!(led: 2, followed: 2));
    let idle = group.request(&key).next_flight().call(|| Err("no"));
    idle.unwrap_err();
    assert_eq!(group.stats(), stats!(led: 3, followed: 2, failed: 1));
}

/// Joined, a caller for the next flight has got its place and no outcome.
#[test]
fn a_follower_of_the_next_flight_counts_when_it_has_its_outcome() {
    let _watchdog = watchdog();
    let group = FlightGroup::<u32, &'static str, Watched>::new();
    let key = Watched::new("k");
    let running = lead(&group, &key);
    thread::scope(|s| {
        let queued = all_arrived(&group, &key, 2, || {
            [(); 2].map(|()| s.spawn(|| group.request(&key).next_flight().join()))
        });
        let _ = running.complete(Ok(1));
        let mut leaders = Vec::new();
        let mut followers = Vec::new();
        for place in queued.map(|caller| caller.join().unwrap()) {
            match place {
                Joined::Leader(leader) => leaders.push(leader),
                Joined::Follower(follower) => followers.push(follower),
            }
        }
        assert_eq!(group.stats(), stats!(led: 1, in_flight: 1));
        let [leader] = <[_; 1]>::try_from(leaders).expect("one of them leads");
        let [follower] = <[_; 1]>::try_from(followers).expect("the other follows");
        let _ = leader.complete(Ok(2));
        assert_eq!(group.stats(), stats!(led: 2));
        let _ = follower.wait();
        assert_eq!(group.stats(), stats!(led: 2, followed: 1));
    });
}

#[test]
fn flights_that_were_given_up_are_counted_when_they_end() {
    let _watchdog = watchdog();
    let group = Group::new();
    let first = lead(&group, "k");
    let its_follower = follow(&group, "k");
    assert!(group.forget("k"));
    // Its function still runs.
    assert_eq!(group.stats(), stats!(in_flight: 1));
    let second = lead(&group, "k");
    let third = give_up(&group, "k");
    assert_eq!(group.stats(), stats!(in_flight: 3));
    assert!(group.forget_unshared("k"));
    assert_eq!(group.stats(), stats!(in_flight: 3));

    let _ = third.complete(Err("no"));
    drop(second);
    let _ = first.complete(Ok(1));
    let _ = its_follower.wait();
    let ended = stats!(led: 3, followed: 1, failed: 1, abandoned: 1);
    assert_eq!(group.stats(), ended);
}

// What is on its way.

/// A follower that is held waits for nothing, and neither does one that only looks.
#[test]
fn only_threads_that_are_blocked_are_waiting() {
    let _watchdog = watchdog();
    let group = Group::new();
    let leader = lead(&group, "k");
    let others = ["a", "b"].map(|key| lead(&group, key));
    let held = follow(&group, "k");
    assert!(held.try_wait().is_none() && !held.is_done());
    assert_eq!(group.stats(), stats!(in_flight: 3));
    thread::scope(|s| {
        let called = s.spawn(|| group.call("k", || Ok(2)));
        let patient = s.spawn(|| group.request("k").timeout(TOO_LONG).call(|| Ok(2)));
        let waits = s.spawn(|| held.wait_timeout(TOO_LONG).is_some());
        let queued = s.spawn(|| group.request("k").next_flight().call(|| Ok(2)));
        until("all wait", || group.stats().waiting == 4);
        assert_eq!(group.stats(), stats!(in_flight: 3, waiting: 4));
        // Given up: the flight's followers wait all the same. The one that was queued leads.
        assert!(group.forget("k"));
        assert_eq!(queued.join().unwrap().unwrap(), 2);
        assert_eq!(group.stats(), stats!(in_flight: 3, waiting: 3, led: 1));

        let _ = leader.complete(Ok(1));
        assert_eq!(called.join().unwrap().unwrap(), 1);
        assert_eq!(patient.join().unwrap().unwrap(), 1);
        assert!(waits.join().unwrap());
    });
    drop(others);
    assert_eq!(group.stats(), stats!(led: 4, followed: 3, abandoned: 2));
}

#[test]
fn a_caller_that_stops_waiting_is_not_counted_as_waiting() {
    let _watchdog = watchdog();
    let group = Group::new();
    let leader = lead(&group, "k");
    let follower = follow(&group, "k");
    for _ in 0..3 {
        assert!(follower.wait_timeout(SHORT).is_none());
        group.request("k").timeout(SHORT).call(|| Ok(2)).unwrap_err();
        let queued = group.request("k").next_flight().timeout(SHORT);
        queued.call(|| Ok(2)).unwrap_err();
        assert_eq!(group.stats().waiting, 0);
    }
    let outer = group.call("other", || {
        group.call("other", || Ok(2)).unwrap_err();
        assert_eq!(group.stats().waiting, 0);
        Ok(1)
    });
    outer.unwrap();
    drop((leader, follower));
}

#[test]
fn a_call_is_counted_before_it_returns_and_not_before_it_ends() {
    let _watchdog = watchdog();
    let group = Group::new();
    group
        .call("outer", || {
            assert_eq!(group.stats(), stats!(in_flight: 1));
            group
                .call("inner", || {
                    assert_eq!(group.stats(), stats!(in_flight: 2));
                    Ok(1)
                })
                .unwrap();
            assert_eq!(group.stats(), stats!(in_flight: 1, led: 1));
            Ok(1)
        })
        .unwrap();
    assert_eq!(group.stats(), stats!(led: 2));
}

#[test]
fn each_group_counts_for_itself() {
    let (one, other) = (Group::new(), Group::new());
    one.call("k", || other.call("k", || Err("no")).or(Ok(1))).unwrap();
    assert_eq!(one.stats(), stats!(led: 1));
    assert_eq!(other.stats(), stats!(led: 1, failed: 1));
}

// Everything at once.

/// What a caller of the test below knows of its own calls.
#[derive(Default)]
struct Own {
    /// Calls that returned, or panicked, and followers that were dropped unused.
    calls: AtomicU64,
    dropped: AtomicU64,
    /// Functions that began, and [`Leader`](shared_calls::Leader)s that were completed.
    executions: AtomicU64,
    abandoned: AtomicU64,
    failed: AtomicU64,
    panicked: AtomicU64,
    timed_out: AtomicU64,
}

fn one_more(figure: &AtomicU64) {
    figure.fetch_add(1, SeqCst);
}

/// A fixed sequence of numbers that look random.
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// One call of any kind.
fn any_call(group: &Arc<Group>, own: &Arc<Own>, dice: &mut Dice) {
    let key = ["a", "b", "c"][dice.throw(3) as usize];
    let end = dice.throw(4);
    let function = {
        let own = Arc::clone(own);
        move || {
            one_more(&own.executions);
            thread::yield_now();
            match end {
                0 => {
                    one_more(&own.failed);
                    Err("no")
                }
                1 => {
                    one_more(&own.panicked);
                    panic_any(());
                }
                _ => Ok(1),
            }
        }
    };
    let hurry = Duration::from_micros(dice.throw(50));
    let kind = dice.throw(12);
    if kind != 11 {
        one_more(&own.calls);
    }
    let called = catch_unwind(AssertUnwindSafe(|| match kind {
        0 => group.call(key, function),
        1 => group.request(key).timeout(hurry).call(function),
        2 => group.request(key).next_flight().call(function),
        3 => {
            let request = group.request(key).next_flight().timeout(hurry);
            request.takeover(1).call(function)
        }
        4 => group.request(key).takeover(2).call(function),
        5 => group.request(key).max_age(hurry).call(function),
        6 => {
            group.forget(key);
            group.request(key).alone_on_deadlock().call(function)
        }
        7 => group.start(key, |job| job.run(), function).wait().result,
        8 => {
            let spawn = |job| {
                one_more(&own.abandoned);
                drop(job);
            };
            group.start(key, spawn, function).wait().result
        }
        9 => match group.request(key).next_flight().join() {
            Joined::Leader(leader) => {
                one_more(&own.abandoned);
                drop(leader);
                Ok(1)
            }
            Joined::Follower(follower) => {
                let _ = follower.wait_timeout(hurry);
                follower.wait().result
            }
        },
        10 => match group.join(key) {
            Joined::Leader(leader) => {
                one_more(&own.executions);
                leader.complete(Ok(1)).result
            }
            Joined::Follower(follower) => follower.wait().result,
        },
        _ => match group.join(key) {
            Joined::Leader(leader) => {
                one_more(&own.calls);
                one_more(&own.executions);
                leader.complete(Ok(1)).result
            }
            Joined::Follower(follower) => {
                one_more(&own.dropped);
                drop(follower);
                Ok(1)
            }
        },
    }));
    if let Ok(Err(CallError::TimedOut)) = called {
        one_more(&own.timed_out);
    }
}

#[test]
fn under_load_every_call_is_counted_once() {
    let _watchdog = watchdog();
    // Silent, for the panics of this test: there are some thousands.
    let told = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !panic.payload().is::<()>() {
            told(panic);
        }
    }));
    let group = Arc::new(Group::new());
    let own = Arc::new(Own::default());
    let (rounds, threads) = (3_000, 6);
    thread::scope(|s| {
        for seed in 1..=threads {
            let (group, own) = (&group, &own);
            s.spawn(move || {
                let mut dice = Dice(seed);
                for _ in 0..rounds {
                    any_call(group, own, &mut dice);
                }
            });
        }
    });
    let now = |figure: &AtomicU64| figure.load(SeqCst);
    let stats = group.stats();
    assert_eq!(now(&own.calls) + now(&own.dropped), rounds * threads);
    assert_eq!(stats.calls(), now(&own.calls));
    assert_eq!(stats.led, now(&own.executions) + now(&own.abandoned));
    assert_eq!(stats.failed, now(&own.failed));
    assert_eq!(stats.panicked, now(&own.panicked));
    assert_eq!(stats.abandoned, now(&own.abandoned));
    assert_eq!(stats.timed_out, now(&own.timed_out));
    assert_eq!((stats.deadlocked, stats.in_flight, stats.waiting), (0, 0, 0));
    // Or else this has shown little.
    assert!(stats.followed > 0, "{stats:?}");
    assert_quiet(&*group);
}

/// While it is under load the sum may be behind, and is never ahead: nothing is counted that has not
/// been asked for.
#[test]
fn the_counts_never_run_ahead_or_back() {
    let _watchdog = watchdog();
    let group = Group::new();
    let asked = AtomicU64::new(0);
    let (done, is_done) = mpsc::channel::<()>();
    thread::scope(|s| {
        let (group, asked) = (&group, &asked);
        for _ in 0..3 {
            let done = done.clone();
            s.spawn(move || {
                for _ in 0..5_000 {
                    one_more(asked);
                    group.call("k", || Ok(1)).unwrap();
                }
                drop(done);
            });
        }
        drop(done);
        let mut before = Stats::default();
        while is_done.try_recv() == Err(mpsc::TryRecvError::Empty) {
            let now = group.stats();
            assert!(now.calls() <= asked.load(SeqCst));
            assert!(now.led >= before.led && now.followed >= before.followed);
            assert!(now.in_flight <= 1 && now.waiting <= 3, "{now:?}");
            before = now;
        }
    });
    assert_eq!(group.stats().calls(), 15_000);
}
