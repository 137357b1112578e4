//! A call without followers: two acquisitions of the map's lock and of no other, no wake-up, and no
//! clock reading, whatever the group's defaults and whatever the call asks for.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::time::{Duration, Instant};

use crate::sync::{done, Done};
use crate::{Builder, FlightGroup, Joined, SharedCalls};

type Group = FlightGroup<u32, &'static str>;

const SECOND: Duration = Duration::from_secs(1);

fn two_map_locks() -> Done {
    Done { map: 2, ..Done::default() }
}

/// Every builder whose group must be as cheap as any other.
fn builders() -> [Builder<u32, &'static str>; 4] {
    let all = Group::builder().timeout(SECOND).max_age(SECOND);
    let all = all.max_followers(1).takeover(1).alone_on_deadlock();
    [
        Group::builder(),
        Group::builder().shards(8),
        all,
        Group::builder().timeout(Duration::ZERO).max_age(Duration::ZERO),
    ]
}

type Call = (&'static str, fn(&Group));

/// Every way to make a lone call.
const CALLS: [Call; 15] = [
    ("call", |g| drop(g.call("k", || Ok(1)))),
    ("call_ex", |g| drop(g.call_ex("k", || Ok(1)))),
    ("a call that fails", |g| drop(g.call("k", || Err("no")))),
    ("a call that panics", |g| {
        let call = || g.call("k", || std::panic::resume_unwind(Box::new("no")));
        drop(catch_unwind(AssertUnwindSafe(call)));
    }),
    ("a trait object", |g| {
        let calls: &dyn SharedCalls<u32, &'static str> = g;
        drop(calls.call("k", || Ok(1)));
    }),
    ("request", |g| drop(g.request("k").call(|| Ok(1)))),
    ("timeout", |g| drop(g.request("k").timeout(SECOND).call(|| Ok(1)))),
    ("deadline", |g| {
        static PAST: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        let past = *PAST.get_or_init(Instant::now);
        drop(g.request("k").deadline(past).call(|| Ok(1)));
    }),
    ("max_age", |g| drop(g.request("k").max_age(SECOND).call(|| Ok(1)))),
    ("next_flight", |g| drop(g.request("k").next_flight().call(|| Ok(1)))),
    ("max_followers", |g| drop(g.request("k").max_followers(0).call(|| Ok(1)))),
    ("takeover_if", |g| {
        let request = g.request("k").takeover_if(1, |_| true);
        drop(request.call(|| Err("no")));
    }),
    ("without_defaults", |g| {
        let request = g.request("k").without_defaults().alone_on_deadlock();
        drop(request.call(|| Ok(1)));
    }),
    ("join and complete", |g| match g.join("k") {
        Joined::Leader(leader) => drop(leader.complete(Ok(1))),
        Joined::Follower(_) => panic!("the key is in flight"),
    }),
    ("join and drop", |g| drop(g.join("k"))),
];

/// The first call of a thread draws its number.
fn warm(group: &Group) {
    group.call("warm", || Ok(1)).unwrap();
}

#[test]
fn a_lone_call_takes_the_maps_lock_twice_and_reads_no_clock() {
    for group in builders().map(Builder::build) {
        warm(&group);
        for (name, call) in CALLS {
            for _ in 0..3 {
                assert_eq!(done(|| call(&group)).0, two_map_locks(), "{name}");
            }
        }
    }
}

/// Also where other keys are in flight, and around and inside another call.
#[test]
fn a_lone_call_is_as_cheap_beside_others() {
    let group = Group::new();
    warm(&group);
    let _others = ["x", "y", "z"].map(|key| group.join(key));
    for (name, call) in CALLS {
        assert_eq!(done(|| call(&group)).0, two_map_locks(), "{name}");
    }
    let nested = || {
        group.call("outer", || {
            for (name, call) in CALLS {
                assert_eq!(done(|| call(&group)).0, two_map_locks(), "{name}");
            }
            Ok(1)
        })
    };
    assert_eq!(done(nested), (two_map_locks(), Ok(1)));
}

/// To get at its latch, the call that starts a flight takes the map's lock once more.
#[test]
fn a_lone_start_takes_the_maps_lock_three_times() {
    let group = Group::new();
    warm(&group);
    let (start, ticket) = done(|| group.start("k", |job| job.run(), || Ok(1)));
    assert!(start.map <= 3, "{start:?}");
    let (looked, outcome) = done(|| ticket.wait());
    assert_eq!((looked.map, looked.clock_read, outcome.result), (0, 0, Ok(1)));
}

#[test]
fn a_new_group_reads_no_clock_and_takes_no_lock() {
    let (made, _group) = done(Group::new);
    assert_eq!(made, Done::default());
    let (made, _groups) = done(|| builders().map(Builder::build));
    assert_eq!(made, Done::default());
}

/// The limit of `call_with` counts from its beginning: the function may ask whether it has passed.
#[test]
fn call_with_reads_the_clock_only_with_a_time_limit() {
    let group = Group::new();
    warm(&group);
    let call = || drop(group.request("k").call_with(|_| Ok(1)));
    assert_eq!(done(call).0, two_map_locks());
    let call = || drop(group.request("k").timeout(SECOND).call_with(|_| Ok(1)));
    let limited = Done { clock_read: 1, ..two_map_locks() };
    assert_eq!(done(call).0, limited);
}

/// Each key of a batch is as cheap as a call. The limit of a batch counts from its beginning.
#[test]
fn a_lone_batch_takes_the_maps_lock_twice_for_each_key() {
    let keys = ["a", "b", "c"];
    let batch = |group: &Group| {
        warm(group);
        let load = || group.call_many(&keys, |led| Ok(vec![1; led.len()]));
        done(|| assert_eq!(load(), [Ok(1), Ok(1), Ok(1)])).0
    };
    let mut six = two_map_locks();
    six.map = 6;
    assert_eq!(batch(&Group::new()), six);
    let limited = Group::builder().timeout(SECOND).build();
    six.clock_read = 1;
    assert_eq!(batch(&limited), six);
}

/// What is not asked for in a call is not paid for: a control, so that a count of 0 means something.
#[test]
fn what_is_counted_is_counted() {
    let group = Group::new();
    let leader = group.join("k");
    let (looked, _) = done(|| group.request("k").timeout(SECOND).join());
    assert_eq!(looked.map, 1);
    assert!(looked.clock_read >= 2, "the age, and the deadline");
    assert!(looked.others.iter().all(|name| name.contains("latch::")));
    assert!(!looked.others.is_empty());
    let Joined::Leader(leader) = leader else {
        panic!("the key was not in flight");
    };
    let follower = group.join("k");
    let (landed, _) = done(|| leader.complete(Ok(1)));
    assert_eq!((landed.map, landed.notified), (1, 1));
    drop(follower);
    let (counted, _) = done(|| group.stats());
    assert_eq!((counted.map, counted.notified, counted.clock_read), (1, 0, 0));
}
