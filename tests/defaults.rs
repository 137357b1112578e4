//! The builder's options hold for every call of the group, behind a trait object too. A request
//! replaces them one by one, or all at once with `without_defaults`.
#![cfg(not(loom))]

mod common;

use std::collections::hash_map::DefaultHasher;
use std::hash::BuildHasherDefault;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use common::{assert_quiet, follow, gate, lead, until_waiting, watchdog};
use shared_calls::{
    CallError, FlightGroup, Joined, Observer, Request, Role, SharedCalls, SharedCallsExt,
};

type Group = FlightGroup<u32, &'static str>;
type Dyn = Arc<dyn SharedCalls<u32, &'static str>>;

const HOUR: Duration = Duration::from_secs(3600);

fn shared(group: &Group) -> Dyn {
    Arc::new(group.clone())
}

/// Runs `call` on another thread, and ends the flight with 1 once it waits.
fn waits<T: Send>(group: &Group, call: impl FnOnce() -> T + Send) -> T {
    let leader = lead(group, "k");
    thread::scope(|s| {
        let caller = s.spawn(call);
        until_waiting(group, 1);
        let _ = leader.complete(Ok(1));
        caller.join().unwrap()
    })
}

#[test]
fn timeout() {
    let _watchdog = watchdog();
    let group: Group = FlightGroup::builder().timeout(Duration::ZERO).build();
    let calls = shared(&group);
    let leader = lead(&group, "k");
    assert_eq!(calls.call("k", || Ok(2)), Err(CallError::TimedOut));
    assert_eq!(group.call("k", || Ok(2)), Err(CallError::TimedOut));
    assert_eq!(group.request("k").call(|| Ok(2)), Err(CallError::TimedOut));
    let outcome = group.request("k").call_with(|_| Ok(2));
    assert_eq!(outcome, Err(CallError::TimedOut));
    assert_eq!(follow(&group, "k").wait().result, Err(CallError::TimedOut));
    let ticket = group.start("k", drop, || Ok(2));
    assert_eq!(ticket.wait().result, Err(CallError::TimedOut));
    let batch = group.call_many(&["k"], |_| Ok(vec![]));
    assert_eq!(batch, [Err(CallError::TimedOut)]);
    drop(leader);
    assert_eq!(group.stats().timed_out, 7);

    // Another option of the request's does not touch it.
    let leader = lead(&group, "k");
    let request = group.request("k").max_age(HOUR).max_followers(9).takeover(1);
    assert_eq!(request.call(|| Ok(2)), Err(CallError::TimedOut));
    drop(leader);

    let request = || group.request("k").timeout(HOUR);
    assert_eq!(waits(&group, || request().call(|| Ok(2))), Ok(1));
    let deadline = Instant::now() + HOUR;
    let request = || group.request("k").deadline(deadline);
    assert_eq!(waits(&group, || request().call(|| Ok(2))), Ok(1));
    let request = || group.request("k").without_defaults();
    assert_eq!(waits(&group, || request().call(|| Ok(2))), Ok(1));
}

/// The leader of a call is not interrupted: the default does not end a function that takes long.
#[test]
fn timeout_does_not_interrupt_a_leader() {
    let group: Group = FlightGroup::builder().timeout(Duration::ZERO).build();
    assert_eq!(shared(&group).call("k", || Ok(2)), Ok(2));
    // But the ticket of a job is bound by it.
    let (jobs, worker) = std::sync::mpsc::channel();
    let ticket = group.start("k", |job| jobs.send(job).unwrap(), || Ok(3));
    assert_eq!(ticket.wait().result, Err(CallError::TimedOut));
    worker.recv().unwrap().run();
    assert_eq!((group.stats().led, group.stats().timed_out), (2, 0));
}

#[test]
fn max_age() {
    let _watchdog = watchdog();
    let group: Group = FlightGroup::builder().max_age(Duration::ZERO).build();
    let calls = shared(&group);
    let mut hung = vec![lead(&group, "k")];
    assert_eq!(calls.call_ex("k", || Ok(2)).role, Role::Led);
    // That call has landed, so the key needs a flight that hangs again.
    hung.push(lead(&group, "k"));
    assert_eq!(group.call("k", || Ok(3)), Ok(3));
    hung.push(lead(&group, "k"));
    assert_eq!(group.call_many(&["k"], |_| Ok(vec![4])), [Ok(4)]);
    hung.push(lead(&group, "k"));
    let ticket = group.start("k", |job| job.run(), || Ok(5));
    assert_eq!((ticket.try_wait().unwrap().role, ticket.wait().result), (Role::Led, Ok(5)));
    hung.push(lead(&group, "k"));
    // It leads, because of the default.
    hung.push(lead(&group, "k"));
    let follows =
        |request: Request<'_, '_, _, _, str>| matches!(request.join(), Joined::Follower(_));
    assert!(follows(group.request("k").max_age(HOUR)));
    assert!(follows(group.request("k").without_defaults()));
    assert!(!follows(group.request("k").timeout(HOUR)));
    drop(hung);
    assert_quiet(&group);
}

#[test]
fn max_followers() {
    let group: Group = FlightGroup::builder().max_followers(0).build();
    let calls = shared(&group);
    let leader = lead(&group, "k");
    assert_eq!(calls.call("k", || Ok(2)), Err(CallError::Overloaded));
    let request = group.request("k").timeout(HOUR).takeover(1);
    assert_eq!(request.call(|| Ok(2)), Err(CallError::Overloaded));
    let is_refused = |request: Request<'_, '_, _, _, str>| match request.join() {
        Joined::Follower(follower) => follower.is_done(),
        Joined::Leader(_) => panic!("the key is in flight"),
    };
    assert!(is_refused(group.request("k")));
    assert!(!is_refused(group.request("k").max_followers(1)));
    assert!(!is_refused(group.request("k").without_defaults()));
    drop(leader);
}

#[test]
fn takeover() {
    let _watchdog = watchdog();
    let group: Group = FlightGroup::builder().takeover(1).build();
    let calls = shared(&group);
    let abandoned = |call: &(dyn Fn() -> Result<u32, CallError<&'static str>> + Sync)| {
        let leader = lead(&group, "k");
        thread::scope(|s| {
            let caller = s.spawn(call);
            until_waiting(&group, 1);
            drop(leader);
            caller.join().unwrap()
        })
    };
    assert_eq!(abandoned(&|| calls.call("k", || Ok(2))), Ok(2));
    assert_eq!(abandoned(&|| group.request("k").timeout(HOUR).call(|| Ok(2))), Ok(2));
    let error = Err(CallError::Abandoned);
    assert_eq!(abandoned(&|| group.request("k").takeover(0).call(|| Ok(2))), error);
    assert_eq!(abandoned(&|| group.request("k").without_defaults().call(|| Ok(2))), error);
    let never = || group.request("k").takeover_if(0, |_| true).call(|| Ok(2));
    assert_eq!(abandoned(&never), error);

    // Without a predicate, an error is an outcome.
    let failed = {
        let leader = lead(&group, "k");
        thread::scope(|s| {
            let caller = s.spawn(|| calls.call("k", || Ok(2)));
            until_waiting(&group, 1);
            let _ = leader.complete(Err("no"));
            caller.join().unwrap()
        })
    };
    assert_eq!(failed.unwrap_err().failed(), Some(&"no"));
}

#[test]
fn alone_on_deadlock() {
    let group: Group = FlightGroup::builder().alone_on_deadlock().build();
    let calls = shared(&group);
    let outer = calls.call("k", || Ok(calls.call("k", || Ok(1)).unwrap() + 1));
    assert_eq!(outer, Ok(2));
    let outer = calls.call("k", || {
        let limited = group.request("k").timeout(HOUR).call(|| Ok(1));
        assert_eq!(limited, Ok(1));
        let refused = group.request("k").without_defaults().call(|| Ok(1));
        assert!(matches!(refused, Err(CallError::Deadlock(_))));
        // A batch has no function left to run alone.
        let batch = group.call_many(&["k"], |_| Ok(vec![1]));
        assert!(matches!(batch[..], [Err(CallError::Deadlock(_))]));
        Ok(3)
    });
    assert_eq!(outer, Ok(3));
    assert_eq!(group.stats().deadlocked, 4);
}

/// `without_defaults` drops the group's and keeps the request's own, wherever it stands.
#[test]
fn without_defaults_keeps_the_requests_own_options() {
    let group: Group = FlightGroup::builder()
        .timeout(HOUR)
        .max_followers(0)
        .takeover(1)
        .alone_on_deadlock()
        .build();
    let leader = lead(&group, "k");
    let request = || group.request("k");
    let timed_out = Err(CallError::TimedOut);
    let calls = [
        request().without_defaults().timeout(Duration::ZERO),
        request().timeout(Duration::ZERO).without_defaults(),
        request().max_followers(1).without_defaults().timeout(Duration::ZERO),
        request().timeout(Duration::ZERO).without_defaults().max_followers(1),
        request().without_defaults().timeout(Duration::ZERO).without_defaults(),
    ];
    for call in calls {
        assert_eq!(call.call(|| Ok(1)), timed_out);
    }
    for call in [
        request().max_followers(0).without_defaults(),
        request().without_defaults().max_followers(0),
    ] {
        assert_eq!(call.call(|| Ok(1)), Err(CallError::Overloaded));
    }
    for call in [
        request().max_age(Duration::ZERO).without_defaults(),
        request().without_defaults().max_age(Duration::ZERO),
    ] {
        assert_eq!(call.call_ex(|| Ok(1)).role, Role::Led);
        // The next one finds a flight again.
        assert_eq!(group.in_flight().iter().filter(|f| f.given_up).count(), 1);
        drop(lead(&group, "k"));
    }
    drop(leader);

    let outer = group.call("k", || {
        let own = [
            request().alone_on_deadlock().without_defaults(),
            request().without_defaults().alone_on_deadlock(),
        ];
        for call in own {
            assert_eq!(call.call(|| Ok(1)), Ok(1));
        }
        let refused = request().without_defaults().call(|| Ok(1));
        assert!(matches!(refused, Err(CallError::Deadlock(_))));
        Ok(1)
    });
    assert_eq!(outer, Ok(1));
}

#[test]
fn without_defaults_keeps_takeover_if_and_next_flight() {
    let _watchdog = watchdog();
    let group: Group = FlightGroup::builder().timeout(Duration::ZERO).build();
    for before in [true, false] {
        let leader = lead(&group, "k");
        thread::scope(|s| {
            let caller = s.spawn(|| {
                let request = group.request("k");
                let request = match before {
                    true => request.without_defaults().takeover_if(1, |e| *e == "mine"),
                    false => request.takeover_if(1, |e| *e == "mine").without_defaults(),
                };
                request.call(|| Ok(2))
            });
            until_waiting(&group, 1);
            let _ = leader.complete(Err("mine"));
            assert_eq!(caller.join().unwrap(), Ok(2));
        });
        let leader = lead(&group, "k");
        thread::scope(|s| {
            let caller = s.spawn(|| {
                let request = group.request("k");
                let request = match before {
                    true => request.without_defaults().next_flight(),
                    false => request.next_flight().without_defaults(),
                };
                request.call_ex(|| Ok(3))
            });
            until_waiting(&group, 1);
            let _ = leader.complete(Ok(1));
            assert_eq!(caller.join().unwrap().result, Ok(3));
        });
    }
}

#[test]
fn every_handle_and_pointer_has_the_defaults() {
    let group: Group = FlightGroup::builder().max_followers(0).build();
    let leader = lead(&group, "k");
    let overloaded = Err(CallError::Overloaded);
    assert_eq!(group.clone().call("k", || Ok(1)), overloaded);
    let boxed: Box<dyn SharedCalls<u32, &'static str> + Send + Sync> = Box::new(group.clone());
    assert_eq!(boxed.call("k", || Ok(1)), overloaded);
    let by_ref: &dyn SharedCalls<u32, &'static str> = &group;
    assert_eq!(by_ref.call("k", || Ok(1)), overloaded);
    fn generic(calls: impl SharedCalls<u32, &'static str>) -> Result<u32, CallError<&'static str>> {
        SharedCallsExt::call(&calls, "k", || Ok(1))
    }
    assert_eq!(generic(&group), overloaded);
    assert_eq!(generic(Arc::new(Box::new(&group))), overloaded);
    drop(leader);
}

/// In whatever order the builder's methods are called.
#[test]
fn the_other_parts_of_the_builder_keep_the_options() {
    struct Silent;
    impl Observer for Silent {}
    let hasher = BuildHasherDefault::<DefaultHasher>::default();
    let group = FlightGroup::<u32, &str>::builder()
        .timeout(HOUR)
        .max_followers(0)
        .shards(8)
        .hasher(hasher)
        .observer(Silent)
        .build();
    for key in ["a", "b", "c", "d"] {
        let leader = lead(&group, key);
        assert_eq!(group.call(key, || Ok(1)), Err(CallError::Overloaded));
        drop(leader);
    }
}

#[test]
fn the_last_value_of_an_option_counts() {
    let group: Group = FlightGroup::builder()
        .max_followers(9)
        .max_followers(0)
        .timeout(HOUR)
        .timeout(Duration::ZERO)
        .build();
    let leader = lead(&group, "k");
    assert_eq!(group.call("k", || Ok(1)), Err(CallError::Overloaded));
    let request = group.request("k").max_followers(1);
    assert_eq!(request.call(|| Ok(1)), Err(CallError::TimedOut));
    drop(leader);
}

/// A program that uses the trait as it is does not wait for ever for a hung key.
#[test]
fn a_program_behind_the_trait_is_not_held_up() {
    let _watchdog = watchdog();
    let group: Group = FlightGroup::builder().timeout(Duration::from_millis(5)).shards(4).build();
    let calls = shared(&group);
    let (held, gate) = gate();
    thread::scope(|s| {
        let hung = s.spawn(|| {
            calls.call("k", || {
                held();
                Ok(1)
            })
        });
        gate.begun();
        assert_eq!(calls.call("k", || Ok(2)), Err(CallError::TimedOut));
        assert_eq!(calls.call("other", || Ok(2)), Ok(2));
        gate.open();
        assert_eq!(hung.join().unwrap(), Ok(1));
    });
}
