//! A wait that can never end is refused (G9), and no other is.
//!
//! Threads are put in order by [`until_waiting`]: who counts as waiting has asked, was not refused,
//! and what it waits for is known to those who ask after it.
//!
//! What can't be known, because no thread is known to lead, hangs: see `reentry.rs`.
#![cfg(not(loom))]

mod common;

use std::convert::Infallible;
use std::error::Error;
use std::fmt::Debug;
use std::hash::Hash;
use std::io;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{mpsc, Arc, Barrier, OnceLock};
use std::thread::{self, Builder, Scope, ScopedJoinHandle};
use std::time::Duration;

use common::{assert_quiet, follow, gate, give_up, lead, panic_text, until, watchdog, TOO_LONG};
use shared_calls::{
    CallError, Deadlock, FlightGroup, Follower, Job, Joined, Observer, Outcome, Role, SharedCalls,
    Ticket, WaitsFor,
};

type Group = FlightGroup<u32, &'static str>;
type Got = Result<u32, CallError<&'static str>>;
type Function = Box<dyn FnOnce() -> Result<u32, &'static str> + Send>;

/// The limit of a caller that the others ask in the meantime. On a machine so slow that they come
/// too late, a test misses what it looks for, and does not fail.
const A_WHILE: Duration = Duration::from_millis(50);

const SHORT: Duration = Duration::from_millis(2);

fn no_second_run<V, E>() -> Result<V, E> {
    panic!("no second execution")
}

/// Returns once so many threads wait for flights of the group.
#[track_caller]
fn until_waiting<V, E, K>(group: &FlightGroup<V, E, K>, n: u64) {
    until("so many wait", || group.stats().waiting == n);
}

fn spawn<'s, T: Send + 's>(
    s: &'s Scope<'s, '_>,
    name: &str,
    f: impl FnOnce() -> T + Send + 's,
) -> ScopedJoinHandle<'s, T> {
    Builder::new().name(name.into()).spawn_scoped(s, f).unwrap()
}

#[track_caller]
fn refusal<V: Debug, E: Debug>(result: Result<V, CallError<E>>) -> Deadlock {
    match result {
        Err(CallError::Deadlock(deadlock)) => deadlock,
        other => panic!("not refused: {other:?}"),
    }
}

fn names(deadlock: &Deadlock) -> Vec<&str> {
    let names = deadlock.threads().iter().map(|thread| thread.name());
    names.map(|name| name.unwrap_or("nameless")).collect()
}

/// What `Display` says after "deadlock: ".
fn told(deadlock: &Deadlock) -> String {
    let text = deadlock.to_string();
    let told = text.strip_prefix("deadlock: ");
    told.expect(&text).to_owned()
}

/// How many calls led, followed, timed out and were refused, when all is over.
#[track_caller]
fn assert_over<V, E, K>(group: &FlightGroup<V, E, K>, ended: [u64; 4]) {
    assert_quiet(group);
    let stats = group.stats();
    let counted = [stats.led, stats.followed, stats.timed_out, stats.deadlocked];
    assert_eq!(counted, ended, "led, followed, timed out, refused");
    assert_eq!((stats.in_flight, stats.waiting), (0, 0));
    assert_eq!(stats.calls(), ended.iter().sum::<u64>());
}

// Rings of threads.

/// A key of a group, whatever the types.
trait Spot: Sync {
    /// A call whose function does this, if it runs. All else than a value or a refusal is a fault.
    fn ask(&self, inside: &mut dyn FnMut()) -> Result<(), Deadlock>;
}

struct At<'g, V, E, K> {
    group: &'g FlightGroup<V, E, K>,
    key: K,
    value: V,
}

impl<V, E, K> Spot for At<'_, V, E, K>
where
    V: Clone + Debug + PartialEq + Send + Sync,
    E: Debug + Send + Sync,
    K: Hash + Eq + Clone + Send + Sync,
{
    fn ask(&self, inside: &mut dyn FnMut()) -> Result<(), Deadlock> {
        let call = self.group.call(&self.key, || {
            inside();
            Ok(self.value.clone())
        });
        match call {
            Ok(value) => assert_eq!(value, self.value),
            Err(error) => return Err(refusal(Err::<(), _>(error))),
        }
        Ok(())
    }
}

fn at<'g>(group: &'g Group, key: &str) -> At<'g, u32, &'static str, String> {
    let key = key.to_owned();
    let value = 1;
    At { group, key, value }
}

/// Each thread leads one of the spots, and all ask for the next one, the first thread when
/// `may_close`. Gives what each of them was told.
fn ring(
    spots: &[&dyn Spot],
    named: bool,
    may_close: &(dyn Fn() -> bool + Sync),
) -> Vec<Result<(), Deadlock>> {
    let all_lead = &Barrier::new(spots.len());
    let part = |i: usize| {
        move || {
            let mut told = None;
            let led = spots[i].ask(&mut || {
                all_lead.wait();
                if i == 0 {
                    until("the others wait", may_close);
                }
                let next = spots[(i + 1) % spots.len()];
                told = Some(next.ask(&mut || panic!("its leader is at it")));
            });
            led.expect("a leader is not refused");
            told.expect("a leader runs its function")
        }
    };
    thread::scope(|s| {
        let parts = (0..spots.len()).map(|i| match named {
            true => spawn(s, &format!("ring {i}"), part(i)),
            false => s.spawn(part(i)),
        });
        let parts: Vec<_> = parts.collect();
        parts.into_iter().map(|part| part.join().unwrap()).collect()
    })
}

/// The first thread was refused, and nobody else.
#[track_caller]
fn the_refused(told: Vec<Result<(), Deadlock>>) -> Deadlock {
    let mut told = told.into_iter();
    let first = told.next().unwrap().expect_err("the last to ask is refused");
    for other in told {
        other.expect("a caller that waits already has the value");
    }
    first
}

#[track_caller]
fn assert_told(deadlock: &Deadlock, n: usize) {
    let all = ["ring 0", "ring 1", "ring 2", "ring 3"];
    assert_eq!(names(deadlock), all[..n]);
    let waits = match n {
        2 => "thread 'ring 1', ",
        3 => "thread 'ring 1', which waits for thread 'ring 2', ",
        _ => {
            "thread 'ring 1', which waits for thread 'ring 2', \
             which waits for thread 'ring 3', "
        }
    };
    let all = format!("thread 'ring 0' would wait for {waits}which waits for thread 'ring 0'");
    assert_eq!(told(deadlock), all);
}

#[test]
fn of_a_ring_of_threads_the_last_to_ask_is_refused_and_the_others_have_values() {
    let _watchdog = watchdog();
    for n in 2..=4 {
        let group = Group::new();
        let keys = ["a", "b", "c", "d"].map(|key| at(&group, key));
        let spots: Vec<_> = keys[..n].iter().map(|key| key as &dyn Spot).collect();
        let others = n as u64 - 1;
        let told = ring(&spots, true, &|| group.stats().waiting == others);
        assert_told(&the_refused(told), n);
        assert_over(&group, [n as u64, others, 0, 1]);
    }
}

/// With values, errors and keys of different types. Of four keys, two are in one group.
#[test]
fn a_ring_may_go_through_several_groups() {
    let _watchdog = watchdog();
    for n in 2..=4 {
        let users = FlightGroup::<String, io::Error>::new();
        let sizes = FlightGroup::<u64, Infallible, (u8, String)>::new();
        let flags = FlightGroup::<(), Box<dyn Error + Send + Sync>, u64>::new();
        let user = |key: &str| At { group: &users, key: key.to_owned(), value: "value".to_owned() };
        let (first, last) = (user("a"), user("d"));
        let size = At { group: &sizes, key: (1, "a".to_owned()), value: 2 };
        let flag = At { group: &flags, key: 3, value: () };
        let spots: [&dyn Spot; 4] = [&first, &size, &flag, &last];
        let others = n as u64 - 1;
        let waiting =
            || users.stats().waiting + sizes.stats().waiting + flags.stats().waiting == others;
        assert_told(&the_refused(ring(&spots[..n], true, &waiting)), n);
        // The first thread asked in vain for the second one's key, which is in `sizes`.
        let [three, four] = [n > 2, n > 3].map(u64::from);
        assert_over(&users, [1 + four, 1 + four, 0, 0]);
        assert_over(&sizes, [1, 0, 0, 1]);
        assert_over(&flags, [three, three, 0, 0]);
    }
}

/// A thread that waits holds up all that it leads, and not only the innermost.
#[test]
fn a_ring_may_go_through_outer_flights() {
    let _watchdog = watchdog();
    let group = &Group::new();
    let both_lead = &Barrier::new(2);
    let refused = |_| "refused";
    thread::scope(|s| {
        let one = spawn(s, "one", move || {
            let asks = || {
                both_lead.wait();
                group.call("b", no_second_run).map_err(refused)
            };
            group.call("a", || group.call("inside a", asks).map_err(refused))
        });
        let two = spawn(s, "two", move || {
            let asks = || {
                both_lead.wait();
                until_waiting(group, 1);
                for key in ["a", "inside a", "a"] {
                    let deadlock = refusal(group.call(key, no_second_run));
                    assert_eq!(names(&deadlock), ["two", "one"], "{key}");
                }
                Ok(1)
            };
            group.call("b", || group.call("inside b", asks).map_err(refused))
        });
        assert_eq!(one.join().unwrap().unwrap(), 1);
        assert_eq!(two.join().unwrap().unwrap(), 1);
    });
    assert_over(group, [4, 1, 0, 3]);
}

#[test]
fn threads_without_a_name_are_told_by_their_ids() {
    let _watchdog = watchdog();
    let group = Group::new();
    let [a, b] = ["a", "b"].map(|key| at(&group, key));
    let told_each = ring(&[&a, &b], false, &|| group.stats().waiting == 1);
    let deadlock = the_refused(told_each);
    let [first, second] = deadlock.threads() else {
        panic!("two threads");
    };
    assert_ne!(first.id(), second.id());
    let [first, second] = [first, second].map(|thread| {
        assert_eq!(thread.name(), None);
        format!("thread {:?}", thread.id())
    });
    let all = format!("{first} would wait for {second}, which waits for {first}");
    assert_eq!(told(&deadlock), all);
    // It is what the call's error says, and it is an `Error` by itself.
    let error = CallError::<io::Error>::Deadlock(deadlock.clone());
    assert_eq!(error.to_string(), deadlock.to_string());
    assert!(error.source().is_none());
    let _: &dyn Error = &deadlock;
}

#[test]
fn of_a_ring_in_no_order_exactly_one_is_refused() {
    let _watchdog = watchdog();
    for round in 0..600 {
        let n = 2 + round % 3;
        let groups = [(); 4].map(|()| Group::new());
        let keys = ["a", "b", "c", "d"];
        // In one group, or in one for each.
        let spots = [0, 1, 2, 3].map(|i| at(&groups[i * (round % 2)], keys[i]));
        let spots: Vec<_> = spots[..n].iter().map(|spot| spot as &dyn Spot).collect();
        let told = ring(&spots, true, &|| true);
        let refused: Vec<_> = told.iter().filter_map(|told| told.as_ref().err()).collect();
        let [deadlock] = refused[..] else {
            panic!("exactly one: {told:?}");
        };
        assert_eq!(deadlock.threads().len(), n);
        let sum = |of: fn(&Group) -> u64| groups.iter().map(of).sum::<u64>();
        assert_eq!(sum(|group| group.stats().led), n as u64);
        assert_eq!(sum(|group| group.stats().followed), n as u64 - 1);
        assert_eq!(sum(|group| group.stats().deadlocked), 1);
        groups.iter().for_each(|group| assert_quiet(group));
    }
}

/// The two ask for each other's keys at the same instant, as well as it can be had.
#[test]
fn of_two_that_ask_at_once_exactly_one_is_refused() {
    const ROUNDS: usize = 20_000;
    let _watchdog = watchdog();
    let group = Group::new();
    let met = AtomicUsize::new(0);
    // Both are here, for the so-many-th time. They spin, as to wake up takes too long.
    let meet = |times: usize| {
        met.fetch_add(1, SeqCst);
        let mut spins = 0;
        while met.load(SeqCst) < 2 * times {
            spins += 1;
            if spins % 1_000 == 0 {
                thread::yield_now();
            }
        }
    };
    let refused = AtomicUsize::new(0);
    let part = |own: &'static str, others: &'static str| {
        for round in 0..ROUNDS {
            let led = group.call(own, || {
                meet(3 * round + 1);
                if let Err(error) = group.call(others, no_second_run) {
                    refusal(Err::<(), _>(error));
                    refused.fetch_add(1, SeqCst);
                }
                Ok(1)
            });
            led.unwrap();
            meet(3 * round + 2);
            assert_eq!(refused.load(SeqCst), round + 1);
            meet(3 * round + 3);
        }
    };
    thread::scope(|s| {
        s.spawn(|| part("a", "b"));
        s.spawn(|| part("b", "a"));
    });
    let rounds = ROUNDS as u64;
    assert_over(&group, [2 * rounds, rounds, 0, rounds]);
}

// One thread by itself.

type Way = (&'static str, fn(&Arc<Group>) -> Got);

/// To ask for the key in vain, in every way that would wait. A limit of the caller's own does not
/// count: nothing else could end the wait.
const WAYS: [Way; 25] = [
    ("call", |g| g.call("k", no_second_run)),
    ("call_ex", |g| in_vain(g.call_ex("k", no_second_run))),
    ("join", |g| in_vain(follow(g, "k").wait())),
    ("wait_timeout", |g| in_vain(follow(g, "k").wait_timeout(Duration::MAX).unwrap())),
    ("start", |g| in_vain(g.start("k", |_| panic!("leads"), no_second_run).wait())),
    ("ticket, wait_timeout", |g| {
        let ticket = g.start("k", |_| panic!("leads"), no_second_run);
        in_vain(ticket.wait_timeout(Duration::MAX).unwrap())
    }),
    ("dyn", |g| {
        let calls: Arc<dyn SharedCalls<u32, &'static str>> = g.clone();
        calls.call("k", no_second_run)
    }),
    ("request", |g| g.request("k").call(no_second_run)),
    ("request, join", |g| follow_by(g.request("k").join())),
    ("next_flight", |g| in_vain(g.request("k").next_flight().call_ex(no_second_run))),
    ("next_flight, join", |g| follow_by(g.request("k").next_flight().join())),
    ("timeout without end", |g| g.request("k").timeout(Duration::MAX).call(no_second_run)),
    ("timeout", |g| g.request("k").timeout(SHORT).call(no_second_run)),
    ("timeout of zero", |g| g.request("k").timeout(Duration::ZERO).call(no_second_run)),
    ("timeout, join", |g| follow_by(g.request("k").timeout(SHORT).join())),
    ("timeout, next_flight", |g| g.request("k").timeout(SHORT).next_flight().call(no_second_run)),
    ("timeout, start", |g| {
        let request = g.request("k").timeout(SHORT);
        in_vain(request.start(|_| panic!("leads"), no_second_run).wait())
    }),
    ("wait_timeout that would pass", |g| in_vain(follow(g, "k").wait_timeout(SHORT).unwrap())),
    ("max_age", |g| g.request("k").max_age(Duration::MAX).call(no_second_run)),
    ("max_age of zero", |g| g.request("k").max_age(Duration::ZERO).call(no_second_run)),
    ("max_followers of zero", |g| {
        // Its own key comes first.
        g.request("k").max_followers(0).call(no_second_run)
    }),
    ("call_many", |g| {
        let mut results = g.call_many(&["k"], |_| no_second_run());
        results.remove(0)
    }),
    // There is nothing to take over: nobody panicked.
    ("takeover", |g| in_vain(g.request("k").takeover(9).call_ex(no_second_run))),
    ("alone_on_deadlock, join", |g| {
        // There is no function to run.
        follow_by(g.request("k").alone_on_deadlock().join())
    }),
    ("all options", |g| {
        let request = g.request("k").next_flight().max_age(Duration::MAX);
        request.takeover(9).timeout(Duration::MAX).call(no_second_run)
    }),
];

fn in_vain(outcome: Outcome<u32, &'static str>) -> Got {
    assert_eq!((outcome.role, outcome.followers), (Role::Followed, 0));
    outcome.result
}

fn follow_by(joined: Joined<'_, u32, &'static str>) -> Got {
    match joined {
        Joined::Follower(follower) => in_vain(follower.wait()),
        Joined::Leader(_) => panic!("nobody leads"),
    }
}

type Lead = (&'static str, fn(&Arc<Group>, Function) -> Got);

/// To lead the key, in every way in which a known thread runs the function.
const LEADS: [Lead; 6] = [
    ("call", |g, f| g.call("k", f)),
    ("dyn", |g, f| {
        let calls: Arc<dyn SharedCalls<u32, &'static str>> = g.clone();
        calls.call("k", f)
    }),
    ("request", |g, f| {
        let request = g.request("k").next_flight().alone_on_deadlock();
        request.timeout(SHORT).takeover(1).call(f)
    }),
    ("start, run here", |g, f| g.start("k", |job| job.run(), f).wait().result),
    ("start, run later", |g, f| {
        let mut kept = None;
        let ticket = g.start("k", |job| kept = Some(job), f);
        kept.unwrap().run();
        ticket.wait().result
    }),
    ("start, run elsewhere", |g, f| {
        let on_a_thread = |job: Job| drop(thread::spawn(move || job.run()));
        g.start("k", on_a_thread, f).wait().result
    }),
];

#[test]
fn a_function_that_asks_for_its_own_key_is_refused_whichever_way_it_asks() {
    let _watchdog = watchdog();
    for (lead_by, lead) in LEADS {
        for (ask_by, ask) in WAYS {
            let group = Arc::new(Group::new());
            let (tell, told_by) = mpsc::channel();
            let inner = Arc::clone(&group);
            let function = move || {
                tell.send((ask(&inner), thread::current().id())).unwrap();
                Ok(1)
            };
            let led = lead(&group, Box::new(function));
            assert_eq!(led.unwrap(), 1, "{lead_by}, {ask_by}");
            let (got, me) = told_by.recv().unwrap();
            let deadlock = refusal(got);
            assert_eq!(deadlock.threads().len(), 1, "{lead_by}, {ask_by}");
            assert_eq!(deadlock.threads()[0].id(), me);
            assert!(told(&deadlock).ends_with(" would wait for itself"));
            assert_over(&group, [1, 0, 0, 1]);
        }
    }
}

/// It can't be waited for twice, but looked at before.
#[test]
fn a_follower_that_was_refused_in_the_queue_has_its_outcome() {
    let group = Group::new();
    let led = group.call("k", || {
        let Joined::Follower(follower) = group.request("k").next_flight().join() else {
            panic!("nobody leads");
        };
        assert!(follower.is_done());
        refusal(follower.try_wait().expect("an outcome").result);
        refusal(follower.wait_timeout(SHORT).expect("an outcome").result);
        refusal(follower.wait().result);
        Ok(1)
    });
    assert_eq!(led.unwrap(), 1);
    assert_over(&group, [1, 0, 0, 1]);
}

/// The ticket of the call that started the flight leads, and is refused all the same.
#[test]
fn a_function_that_waits_for_its_own_ticket_is_refused() {
    let _watchdog = watchdog();
    let group = Arc::new(Group::new());
    let (give, given) = mpsc::channel::<Ticket<u32, &'static str>>();
    let (tell, told_by) = mpsc::channel();
    let mut kept = None;
    let function = move || {
        tell.send(given.recv().unwrap().wait().result).unwrap();
        Ok(1)
    };
    let ticket = group.start("k", |job| kept = Some(job), function);
    let follower = follow(&group, "k");
    give.send(ticket).unwrap();
    kept.unwrap().run();
    assert_eq!(refusal(told_by.recv().unwrap()).threads().len(), 1);
    assert_eq!(follower.wait().result.unwrap(), 1);
    assert_over(&group, [1, 1, 0, 0]); // The call was one that led.
}

#[test]
fn a_leader_that_runs_its_function_is_known_to_lead() {
    let _watchdog = watchdog();
    let group = Group::new();
    let Joined::Leader(leader) = group.join("k") else { unreachable!("nobody is there") };
    let outcome = leader.run(|| {
        let refused = refusal(group.call("k", no_second_run));
        assert_eq!(refused.threads().len(), 1);
        Ok(7)
    });
    assert_eq!((outcome.role, outcome.result.unwrap()), (Role::Led, 7));
    assert_over(&group, [1, 0, 0, 1]);
}

/// A look without a wait is not refused, until a wait was: a refusal stays.
#[test]
fn looking_at_ones_own_flight_is_not_refused() {
    let _watchdog = watchdog();
    let group = Group::new();
    let led = group.call("k", || {
        let follower = follow(&group, "k");
        assert!(follower.try_wait().is_none());
        assert!(follower.wait_timeout(Duration::ZERO).is_none());
        assert!(!follower.is_done());
        refusal(follower.wait_timeout(SHORT).expect("refused").result);
        assert!(follower.is_done());
        refusal(follower.try_wait().expect("a refusal stays").result);
        refusal(follower.wait_timeout(Duration::ZERO).unwrap().result);
        let ticket = group.start("k", |_| panic!("leads"), no_second_run);
        assert!(ticket.try_wait().is_none());
        refusal(ticket.wait_timeout(SHORT).expect("refused").result);
        refusal(ticket.wait().result);
        Ok(1)
    });
    assert_eq!(led.unwrap(), 1);
    // `follower` was refused, and asked for more than once.
    assert_over(&group, [1, 0, 0, 2]);
}

/// After `forget` it leads a flight of its own. The one before still never ends without this one.
#[test]
fn re_entry_after_forgetting_leads_anew() {
    let group = Group::new();
    let led = group.call("k", || {
        let before = follow(&group, "k");
        assert!(group.forget("k"));
        let anew = group.call("k", || {
            refusal(group.call("k", no_second_run));
            Ok(2)
        });
        assert_eq!(anew.unwrap(), 2);
        refusal(before.wait().result);
        Ok(1)
    });
    assert_eq!(led.unwrap(), 1);
    assert_over(&group, [2, 0, 0, 2]);
}

#[test]
fn a_function_that_asks_for_its_own_key_by_way_of_others_is_refused() {
    let _watchdog = watchdog();
    let group = Arc::new(Group::new());
    let other = FlightGroup::<String, io::Error, u64>::new();
    let outer = group.call("a", || {
        let inner = other.call(&1, || {
            let job = Arc::clone(&group);
            let innermost = move || {
                for asked in ["a", "b"] {
                    let deadlock = refusal(job.call(asked, no_second_run));
                    assert_eq!(deadlock.threads().len(), 1, "{asked}");
                }
                Ok(3)
            };
            let ticket = group.start("b", |job| job.run(), innermost);
            assert_eq!(ticket.wait().result.unwrap(), 3);
            refusal(other.call(&1, no_second_run));
            refusal(group.call("a", no_second_run));
            Ok("value".to_owned())
        });
        assert_eq!(inner.unwrap(), "value");
        // What has ended, one inside the other, may be asked for again.
        assert_eq!(other.call(&1, || Ok(String::new())).unwrap(), "");
        assert_eq!(group.call("b", || Ok(4)).unwrap(), 4);
        refusal(group.call("a", no_second_run));
        Ok(1)
    });
    assert_eq!(outer.unwrap(), 1);
    assert_over(&group, [3, 0, 0, 4]);
    assert_over(&other, [2, 0, 0, 1]);
}

/// An observer is told before the function runs, on the leader's thread.
#[test]
fn an_observer_that_asks_for_the_key_it_is_told_of_is_refused() {
    static GROUP: OnceLock<Group> = OnceLock::new();

    struct Nosy(Arc<AtomicUsize>);
    impl Observer for Nosy {
        fn flight_began(&self, key: &String) {
            refusal(GROUP.get().unwrap().call(key.as_str(), no_second_run));
        }
        fn deadlock_refused(&self, key: &String, deadlock: &Deadlock) {
            assert_eq!((key.as_str(), deadlock.threads().len()), ("k", 1));
            self.0.fetch_add(1, SeqCst);
        }
    }

    let _watchdog = watchdog();
    let told = Arc::new(AtomicUsize::new(0));
    let group = Group::builder().observer(Nosy(Arc::clone(&told))).build();
    assert!(GROUP.set(group).is_ok());
    let group = GROUP.get().unwrap();
    assert_eq!(group.call("k", || Ok(1)).unwrap(), 1);
    drop(lead(group, "k")); // By `join` it is the same.
    assert_eq!(told.load(SeqCst), 2);
    assert_over(group, [2, 0, 0, 2]);
}

// `alone_on_deadlock`.

#[test]
fn alone_on_deadlock_runs_the_callers_own_function() {
    let _watchdog = watchdog();
    let group = Group::new();
    let led = group.call("k", || {
        let ask = || group.request("k").alone_on_deadlock();
        for request in [
            ask(),
            ask().next_flight(),
            ask().takeover(9),
            ask().timeout(SHORT),
            ask().max_age(Duration::ZERO),
        ] {
            let alone = request.call_ex(|| {
                // This one is not the flight's. The flight is still there.
                refusal(group.call("k", no_second_run));
                Ok(2)
            });
            assert_eq!((alone.role, alone.followers), (Role::Led, 0));
            assert_eq!(alone.result.unwrap(), 2);
        }
        let failed = ask().call(|| Err("failed")).unwrap_err();
        assert_eq!(failed.failed(), Some(&"failed"));
        let panicked = panic_text(|| drop(ask().call(|| panic!("alone"))));
        assert_eq!(panicked, "alone");
        refusal(group.call("k", no_second_run));
        Ok(1)
    });
    assert_eq!(led.unwrap(), 1);
    assert_over(&group, [1, 0, 0, 13]);
    assert_eq!((group.stats().failed, group.stats().panicked), (0, 0));
}

/// Who does not have to be alone, is not.
#[test]
fn in_a_ring_only_the_caller_that_would_be_refused_runs_alone() {
    let _watchdog = watchdog();
    let group = Group::new();
    let both_lead = Barrier::new(2);
    let part = |own: &str, others: &str, closes: bool, inside: &dyn Fn() -> u32| {
        let led = group.call(own, || {
            both_lead.wait();
            if closes {
                until_waiting(&group, 1);
            }
            let request = group.request(others).alone_on_deadlock();
            let outcome = request.call_ex(|| Ok(inside()));
            let role = if closes { Role::Led } else { Role::Followed };
            assert_eq!((outcome.role, outcome.result.is_ok()), (role, true));
            Ok(outcome.result.unwrap() + 1)
        });
        led.unwrap()
    };
    thread::scope(|s| {
        let first = s.spawn(|| part("a", "b", true, &|| 10));
        let second = s.spawn(|| part("b", "a", false, &|| panic!("alone")));
        assert_eq!(first.join().unwrap(), 11);
        assert_eq!(second.join().unwrap(), 12);
    });
    assert_over(&group, [2, 1, 0, 1]);
}

// Who only looks on.

/// Callers that follow a member of the ring close no circle, from a thread that leads nothing and
/// from one that leads something that nobody in the ring waits for.
#[test]
fn callers_that_follow_a_member_of_the_ring_get_the_value() {
    let _watchdog = watchdog();
    for early in [true, false] {
        let group = Group::new();
        let (ring_leads, bystanders) = (Barrier::new(2), Barrier::new(3));
        // They ask when the second one waits for the first, before or after that was refused.
        let arrive = || {
            until("the second one waits", || group.stats().waiting >= 1);
            if !early {
                bystanders.wait();
            }
        };
        thread::scope(|s| {
            let first = s.spawn(|| {
                group.call("a", || {
                    ring_leads.wait();
                    until_waiting(&group, if early { 4 } else { 1 });
                    let deadlock = refusal(group.call("b", no_second_run));
                    assert_eq!(deadlock.threads().len(), 2);
                    if !early {
                        bystanders.wait();
                        until_waiting(&group, 4);
                    }
                    Ok(1)
                })
            });
            let second = s.spawn(|| {
                group.call("b", || {
                    ring_leads.wait();
                    group.call("a", no_second_run).map_err(|_| "refused")
                })
            });
            let leads_nothing = s.spawn(|| {
                arrive();
                group.call("b", no_second_run)
            });
            let leads_another = s.spawn(|| {
                group.call("c", || {
                    arrive();
                    group.call("b", no_second_run).map_err(|_| "refused")
                })
            });
            // One who follows that one.
            let follows = s.spawn(|| {
                until("it waits", || {
                    group
                        .in_flight()
                        .iter()
                        .any(|flight| flight.key == "c" && flight.waits_for.is_some())
                });
                group.call("c", no_second_run)
            });
            for caller in [first, second, leads_nothing, leads_another, follows] {
                assert_eq!(caller.join().unwrap().unwrap(), 1);
            }
        });
        assert_over(&group, [3, 4, 0, 1]);
    }
}

// What is over, or may end by itself, blocks nobody.

/// One has followed what the other led, and the other now follows what the one leads.
#[test]
fn a_landed_flight_blocks_nobody() {
    /// Leads so many keys, one inside the other.
    fn nested(group: &Group, depth: u32, f: &dyn Fn() -> Got) -> Got {
        if depth == 0 {
            return f();
        }
        group.call(&depth.to_string(), || nested(group, depth - 1, f).map_err(|_| "refused"))
    }

    let _watchdog = watchdog();
    let group = &Group::new();
    let (tell, landed) = mpsc::channel();
    thread::scope(|s| {
        let other = s.spawn(move || {
            let led = group.call("b", || {
                until_waiting(group, 1);
                Ok(1)
            });
            assert_eq!(led.unwrap(), 1);
            landed.recv().unwrap();
            nested(group, 64, &|| group.call("x", no_second_run))
        });
        let one = s.spawn(move || {
            group.call("x", || {
                let led = || group.in_flight().iter().any(|flight| flight.key == "b");
                until("the other leads", led);
                let inside = || {
                    assert_eq!(group.call("b", no_second_run).unwrap(), 1);
                    let flights = group.in_flight();
                    assert!(flights.iter().all(|flight| flight.waits_for.is_none()));
                    Ok(1)
                };
                assert_eq!(group.call("inside x", inside).unwrap(), 1);
                tell.send(()).unwrap();
                until_waiting(group, 1);
                Ok(2)
            })
        });
        assert_eq!(one.join().unwrap().unwrap(), 2);
        assert_eq!(other.join().unwrap().unwrap(), 2);
    });
    assert_over(group, [67, 2, 0, 0]);
}

/// One has led "x", in every way, before the other one does.
#[test]
fn a_thread_that_has_led_a_key_is_not_taken_for_its_leader() {
    let _watchdog = watchdog();
    let group = &Group::new();
    let (tell, has_led) = mpsc::channel();
    let (begin, begun) = mpsc::channel();
    thread::scope(|s| {
        let one = s.spawn(move || {
            assert_eq!(group.call("x", || Ok(1)).unwrap(), 1);
            let panics = || group.call("x", || panic!("gone"));
            assert_eq!(panic_text(|| drop(panics())), "gone");
            drop(lead(group, "x"));
            group.call("y", || {
                assert_eq!(panic_text(|| drop(panics())), "gone");
                // With another one inside, too.
                let inside = || group.call("z", || Ok(1)).map_err(|_| "refused");
                assert_eq!(group.call("x", inside).unwrap(), 1);
                tell.send(()).unwrap();
                begun.recv().unwrap();
                group.call("x", no_second_run).map_err(|_| "refused")
            })
        });
        let other = s.spawn(move || {
            has_led.recv().unwrap();
            group.call("x", || {
                begin.send(()).unwrap();
                until_waiting(group, 1);
                Ok(2)
            })
        });
        assert_eq!(one.join().unwrap().unwrap(), 2);
        assert_eq!(other.join().unwrap().unwrap(), 2);
    });
    assert_over(group, [8, 1, 0, 0]);
}

/// Wherever in the ring it is: each of three in turn is the one that has a limit, and another one is
/// the last to ask. The limit ends the ring, so nobody is refused.
#[test]
fn a_ring_in_which_another_caller_has_a_time_limit_is_not_refused() {
    let _watchdog = watchdog();
    for (last, limited) in [(0, 1), (0, 2), (1, 0), (2, 1)] {
        for by_follower in [false, true] {
            let told = limited_ring(last, |i, group, next| {
                if i != limited {
                    return group.call(next, no_second_run).map_err(|_| "refused");
                }
                let timed_out = match by_follower {
                    true => follow(group, next).wait_timeout(A_WHILE).is_none(),
                    false => {
                        let request = group.request(next).timeout(A_WHILE);
                        matches!(request.call(no_second_run), Err(CallError::TimedOut))
                    }
                };
                assert!(timed_out);
                Ok(1)
            });
            assert_eq!(told, [3, 2, (!by_follower).into(), 0]);
        }
    }
}

/// Only its own limit could end its wait: it gets the reason at once, not `TimedOut` later.
#[test]
fn a_caller_with_a_time_limit_that_would_close_a_ring_is_refused_at_once() {
    type Ask = fn(&Group, &str) -> Got;
    let asks: [Ask; 5] = [
        |group, next| group.request(next).timeout(TOO_LONG).call(no_second_run),
        |group, next| group.request(next).max_age(TOO_LONG).call(no_second_run),
        |group, next| {
            let queued = group.request(next).next_flight();
            queued.timeout(TOO_LONG).call(no_second_run)
        },
        |group, next| follow_by(group.request(next).timeout(TOO_LONG).join()),
        |group, next| in_vain(follow(group, next).wait_timeout(TOO_LONG).unwrap()),
    ];
    let _watchdog = watchdog();
    for ask in asks {
        let told = limited_ring(0, |i, group, next| {
            if i == 0 {
                assert_eq!(refusal(ask(group, next)).threads().len(), 3);
                return Ok(1);
            }
            group.call(next, no_second_run).map_err(|_| "refused")
        });
        assert_eq!(told, [3, 2, 0, 1]);
    }
}

/// So `alone_on_deadlock` works for a caller with a limit, too.
#[test]
fn a_caller_with_a_time_limit_may_run_alone() {
    let _watchdog = watchdog();
    let told = limited_ring(0, |i, group, next| {
        if i > 0 {
            return group.call(next, no_second_run).map_err(|_| "refused");
        }
        let request = group.request(next).timeout(TOO_LONG).alone_on_deadlock();
        let outcome = request.call_ex(|| Ok(1));
        assert_eq!(outcome.role, Role::Led);
        outcome.result.map_err(|_| "refused")
    });
    assert_eq!(told, [3, 2, 0, 1]);
}

/// Three threads that lead a key each and ask for the next one, of which one asks when the two others
/// wait or have left. Gives what the group has counted.
fn limited_ring(
    last: usize,
    ask: impl Fn(usize, &Group, &str) -> Result<u32, &'static str> + Sync,
) -> [u64; 4] {
    let group = &Group::new();
    let keys = ["a", "b", "c"];
    let (all_lead, ask) = (&Barrier::new(3), &ask);
    let part = |i: usize| {
        let led = group.call(keys[i], || {
            all_lead.wait();
            if i == last {
                // Or the one with a limit waited, and has left.
                until("the others wait", || group.stats().waiting == 2 || group.stats().led > 0);
            }
            ask(i, group, keys[(i + 1) % 3])
        });
        assert_eq!(led.unwrap(), 1);
    };
    thread::scope(|s| {
        for i in 0..3 {
            s.spawn(move || part(i));
        }
    });
    assert_quiet(group);
    let stats = group.stats();
    [stats.led, stats.followed, stats.timed_out, stats.deadlocked]
}

// Who leads is not always who began.

/// Who waits counts, and not who took the seat.
#[test]
fn a_follower_is_refused_on_the_thread_on_which_it_waits() {
    let _watchdog = watchdog();
    let group = &Group::new();
    let (give, given) = mpsc::channel();
    let (held, gate) = gate();
    thread::scope(|s| {
        let leader = spawn(s, "leader", move || {
            group.call("k", || {
                held();
                let follower: Follower<_, _> = given.recv().unwrap();
                let deadlock = refusal(follower.wait().result);
                assert_eq!(names(&deadlock), ["leader"]);
                Ok(1)
            })
        });
        gate.begun();
        // Of two seats that this thread has, one goes to the leader.
        let seats = [follow(group, "k"), follow(group, "k")];
        gate.open();
        let [kept, passed_on] = seats;
        give.send(passed_on).unwrap();
        assert_eq!(kept.wait().result.unwrap(), 1);
        assert_eq!(leader.join().unwrap().unwrap(), 1);
    });
    assert_over(group, [1, 1, 0, 1]);
}

/// It may be completed by any thread, so nobody is known to hold it up: neither who took the lead,
/// nor who holds it.
#[test]
fn a_leader_that_another_thread_may_complete_blocks_nobody() {
    let _watchdog = watchdog();
    let group = &Group::new();
    let leader = lead(group, "x");
    thread::scope(|s| {
        let (give, given) = mpsc::channel();
        // This one took the lead of "w" and asks for it, in the midst of "y".
        let one = s.spawn(move || {
            group.call("y", || {
                give.send(lead(group, "w")).unwrap();
                let got = group.call("w", no_second_run);
                assert_eq!(got.unwrap(), 1);
                group.call("x", no_second_run).map_err(|_| "refused")
            })
        });
        let of_w = given.recv().unwrap();
        until("it waits for its own", || of_w.followers() == 1);
        until_waiting(group, 1);
        assert_eq!(of_w.complete(Ok(1)).followers, 1);
        until("it asks for \"x\"", || leader.followers() == 1);
        until_waiting(group, 1);
        // This one holds the lead of "x" for now, and asks for "y", whose leader waits for "x".
        let (give, given) = mpsc::channel();
        let other = s.spawn(move || {
            group.call("z", || {
                let mine = leader;
                give.send(mine).unwrap();
                group.call("y", no_second_run).map_err(|_| "refused")
            })
        });
        let leader = given.recv().unwrap();
        until_waiting(group, 2);
        assert_eq!(leader.complete(Ok(2)).followers, 1);
        assert_eq!(one.join().unwrap().unwrap(), 2);
        assert_eq!(other.join().unwrap().unwrap(), 2);
    });
    assert_over(group, [4, 3, 0, 0]);
}

/// "starter" leads "y" and starts "x" there, whose job "worker" runs, and whose function asks for
/// "y": a ring of two, and the last to ask is refused.
#[test]
fn a_job_belongs_to_the_thread_that_runs_it() {
    let _watchdog = watchdog();
    for starter_is_last in [true, false] {
        let group = &Arc::new(Group::new());
        let (queue, queued) = mpsc::channel::<Job>();
        let (tell, told_by) = mpsc::channel();
        thread::scope(|s| {
            let starter = spawn(s, "starter", move || {
                group.call("y", || {
                    let job = Arc::clone(group);
                    let function = move || {
                        tell.send(job.call("y", no_second_run)).unwrap();
                        Ok(2)
                    };
                    let ticket = group.start("x", |job| queue.send(job).unwrap(), function);
                    if starter_is_last {
                        until_waiting(group, 1);
                    }
                    let got = ticket.wait().result;
                    if starter_is_last {
                        assert_eq!(names(&refusal(got)), ["starter", "worker"]);
                    } else {
                        assert_eq!(got.unwrap(), 2);
                    }
                    Ok(1)
                })
            });
            let worker = spawn(s, "worker", move || {
                let job = queued.recv().unwrap();
                if !starter_is_last {
                    until_waiting(group, 1);
                }
                job.run();
                let asked = told_by.recv().unwrap();
                if starter_is_last {
                    assert_eq!(asked.unwrap(), 1);
                } else {
                    assert_eq!(names(&refusal(asked)), ["worker", "starter"]);
                }
            });
            assert_eq!(starter.join().unwrap().unwrap(), 1);
            worker.join().unwrap();
        });
        // The starter's wait was that of a call that leads.
        let [followed, refused] = if starter_is_last { [1, 0] } else { [0, 1] };
        assert_over(group, [2, followed, 0, refused]);
    }
}

/// While a job is in a queue nobody leads its flight, not even the thread that started it.
#[test]
fn a_job_does_not_belong_to_the_thread_that_started_it() {
    let _watchdog = watchdog();
    let group = &Arc::new(Group::new());
    let (queue, queued) = mpsc::channel::<Job>();
    thread::scope(|s| {
        let (tell, started) = mpsc::channel();
        let starter = s.spawn(move || {
            group.call("y", || {
                let ticket = group.start("x", |job| queue.send(job).unwrap(), || Ok(2));
                tell.send(()).unwrap();
                // The leader of "z" waits for the job.
                until_waiting(group, 1);
                assert_eq!(group.call("z", no_second_run).unwrap(), 2);
                // A call and a ticket on what it has started itself.
                assert_eq!(ticket.wait().result.unwrap(), 2);
                Ok(1)
            })
        });
        let other = s.spawn(move || {
            group.call("z", || {
                started.recv().unwrap();
                group.call("x", no_second_run).map_err(|_| "refused")
            })
        });
        let job = queued.recv().unwrap();
        until_waiting(group, 2);
        job.run();
        assert_eq!(starter.join().unwrap().unwrap(), 1);
        assert_eq!(other.join().unwrap().unwrap(), 2);

        // It calls what it has started, too.
        let (queue, queued) = mpsc::channel::<Job>();
        let starter = s.spawn(move || {
            group.call("y", || {
                let ticket = group.start("x", |job| queue.send(job).unwrap(), || Ok(2));
                drop(ticket);
                group.call("x", no_second_run).map_err(|_| "refused")
            })
        });
        let job = queued.recv().unwrap();
        until_waiting(group, 1);
        job.run();
        assert_eq!(starter.join().unwrap().unwrap(), 2);
    });
    assert_over(group, [5, 3, 0, 0]);
}

// The queue for the next flight.

/// "holds" leads "k", and "queues" leads "x" and is queued behind "k": a ring, if the one who holds
/// asks for "x".
#[test]
fn a_queued_caller_waits_for_the_flight_in_front() {
    let _watchdog = watchdog();
    for queued_is_last in [true, false] {
        let group = &Group::new();
        let both_lead = &Barrier::new(2);
        thread::scope(|s| {
            let holds = spawn(s, "holds", move || {
                group.call("k", || {
                    both_lead.wait();
                    if queued_is_last {
                        assert_eq!(group.call("x", no_second_run).unwrap(), 3);
                        return Ok(1);
                    }
                    until_waiting(group, 1);
                    let deadlock = refusal(group.call("x", no_second_run));
                    assert_eq!(names(&deadlock), ["holds", "queues"]);
                    // Who would be queued as well is refused as well.
                    let next = group.request("x").next_flight();
                    let deadlock = refusal(next.call(no_second_run));
                    assert_eq!(names(&deadlock), ["holds", "queues"]);
                    Ok(1)
                })
            });
            let queues = spawn(s, "queues", move || {
                group.call("x", || {
                    both_lead.wait();
                    let next = group.request("k").next_flight();
                    if queued_is_last {
                        until_waiting(group, 1);
                        let deadlock = refusal(next.call(no_second_run));
                        assert_eq!(names(&deadlock), ["queues", "holds"]);
                    } else {
                        let outcome = next.call_ex(|| Ok(2));
                        assert_eq!((outcome.role, outcome.result.unwrap()), (Role::Led, 2));
                    }
                    Ok(3)
                })
            });
            assert_eq!(holds.join().unwrap().unwrap(), 1);
            assert_eq!(queues.join().unwrap().unwrap(), 3);
        });
        match queued_is_last {
            true => assert_over(group, [2, 1, 0, 1]),
            false => assert_over(group, [3, 0, 0, 2]),
        }
    }
}

/// Two in a queue. When one of them leads the flight, the other one waits for that.
#[test]
fn a_caller_that_was_queued_waits_for_the_new_leader() {
    let _watchdog = watchdog();
    let group = &Group::new();
    let first = lead(group, "k");
    thread::scope(|s| {
        // Both are queued. One of them leads "k" next, and asks for what the other one leads.
        let part = |own: &'static str, others: &'static str| {
            group.call(own, || {
                let next = group.request("k").next_flight();
                let outcome = next.call_ex(|| {
                    // The other one has seen that it follows.
                    until("it follows", || {
                        let flights = group.in_flight();
                        let waits = |key| {
                            let flight = flights.iter().find(|flight| flight.key == key);
                            flight.expect("it is led").waits_for.clone()
                        };
                        waits(others) == Some(WaitsFor::Key("k".to_owned()))
                    });
                    let deadlock = refusal(group.call(others, no_second_run));
                    assert_eq!(names(&deadlock), [own, others]);
                    Ok(2)
                });
                assert_eq!(outcome.followers, 1);
                outcome.result.map_err(|_| "refused")
            })
        };
        let parts = [("a", "b"), ("b", "a")];
        let parts = parts.map(|(own, others)| spawn(s, own, move || part(own, others)));
        until_waiting(group, 2);
        let _ = first.complete(Ok(1));
        for part in parts {
            assert_eq!(part.join().unwrap().unwrap(), 2);
        }
    });
    assert_over(group, [4, 1, 0, 1]);
}

/// The one that leads "k" gives it up; so who is queued behind "k" waits for it no longer, also if
/// it has not noticed yet.
#[test]
fn a_forgotten_flight_holds_up_nobody_in_the_queue() {
    let _watchdog = watchdog();
    // Many rounds, as the one in the queue may be quick to notice.
    for round in 0..100 {
        let forgets = round % 2 == 0;
        let group = &Group::new();
        let both_lead = &Barrier::new(2);
        let (tell, told_by) = mpsc::channel();
        let (held, gate) = gate();
        thread::scope(|s| {
            let gives_up = s.spawn(move || {
                group.call("k", || {
                    both_lead.wait();
                    until_waiting(group, 1);
                    if forgets {
                        assert!(group.forget("k"));
                    } else {
                        // For a newcomer, whom those in the queue follow.
                        tell.send(give_up(group, "k")).unwrap();
                    }
                    group.call("x", no_second_run).map_err(|_| "refused")
                })
            });
            let queued = s.spawn(move || {
                group.call("x", || {
                    both_lead.wait();
                    let next = group.request("k").next_flight();
                    let outcome = next.call_ex(|| {
                        held();
                        Ok(2)
                    });
                    assert_eq!(outcome.fresh(), forgets);
                    assert_eq!(outcome.result.unwrap(), 2);
                    Ok(3)
                })
            });
            if forgets {
                gate.begun();
                until_waiting(group, 1);
                gate.open();
            } else {
                let newcomer = told_by.recv().unwrap();
                until_waiting(group, 2);
                let _ = newcomer.complete(Ok(2));
            }
            assert_eq!(gives_up.join().unwrap().unwrap(), 3);
            assert_eq!(queued.join().unwrap().unwrap(), 3);
        });
        let followed = if forgets { 1 } else { 2 };
        assert_over(group, [3, followed, 0, 0]);
    }
}

// What becomes of a refusal.

#[test]
fn a_refusal_that_the_function_returns_is_its_error() {
    let _watchdog = watchdog();
    let group = &FlightGroup::<u32, CallError<Infallible>>::new();
    let both_lead = &Barrier::new(2);
    thread::scope(|s| {
        let refused = spawn(s, "refused", move || {
            group.call("a", || {
                both_lead.wait();
                until_waiting(group, 2);
                group.call("b", no_second_run).map_err(|error| match error {
                    CallError::Deadlock(deadlock) => CallError::Deadlock(deadlock),
                    other => panic!("not refused: {other}"),
                })
            })
        });
        let other = s.spawn(move || {
            group.call("b", || {
                both_lead.wait();
                let error = group.call("a", no_second_run).unwrap_err();
                assert!(matches!(error.failed(), Some(CallError::Deadlock(_))));
                Ok(1)
            })
        });
        let follower = s.spawn(move || {
            until("somebody leads", || group.in_flight().iter().any(|flight| flight.key == "a"));
            group.call("a", no_second_run)
        });
        for told in [refused.join(), follower.join()] {
            let error = told.unwrap().unwrap_err();
            let Some(CallError::Deadlock(deadlock)) = error.failed() else {
                panic!("unexpected: {error}");
            };
            assert_eq!(names(deadlock), ["refused", "nameless"]);
        }
        assert_eq!(other.join().unwrap().unwrap(), 1);
    });
    assert_eq!(group.stats().failed, 1);
    assert_over(group, [2, 2, 0, 1]);
}

#[test]
fn a_refused_caller_may_panic() {
    let _watchdog = watchdog();
    let group = &Group::new();
    let both_lead = &Barrier::new(2);
    thread::scope(|s| {
        let refused = s.spawn(move || {
            let call = || {
                group.call("a", || {
                    both_lead.wait();
                    until_waiting(group, 1);
                    refusal(group.call("b", no_second_run));
                    panic!("refused")
                })
            };
            assert_eq!(panic_text(|| drop(call())), "refused");
            // It leads nothing any more, and this is not refused.
            until("somebody leads", || group.in_flight().iter().any(|flight| flight.key == "c"));
            let own = group.call("a", || group.call("c", no_second_run).map_err(|_| "refused"));
            assert_eq!(own.unwrap(), 1);
        });
        s.spawn(move || {
            let led = group.call("b", || {
                both_lead.wait();
                match group.call("a", no_second_run) {
                    Err(CallError::Panicked(panicked)) => {
                        assert_eq!(panicked.message(), Some("refused"));
                    }
                    other => panic!("unexpected: {other:?}"),
                }
                Ok(1)
            });
            assert_eq!(led.unwrap(), 1);
            let led = group.call("c", || {
                until_waiting(group, 1);
                Ok(1)
            });
            assert_eq!(led.unwrap(), 1);
        });
        refused.join().unwrap();
    });
    assert_eq!(group.stats().panicked, 1);
    assert_over(group, [4, 2, 0, 1]);
}

/// Its own function panics too, and the one beside it is not disturbed.
#[test]
fn a_panic_in_the_midst_of_others_leaves_them_known() {
    let _watchdog = watchdog();
    let group = &Group::new();
    let led = group.call("a", || {
        for _ in 0..3 {
            let inner = catch_unwind(AssertUnwindSafe(|| {
                group.call("b", || {
                    refusal(group.call("a", no_second_run));
                    panic!("inside")
                })
            }));
            assert!(inner.is_err());
            refusal(group.call("a", no_second_run));
            assert_eq!(group.call("b", || Ok(1)).unwrap(), 1);
        }
        Ok(1)
    });
    assert_eq!(led.unwrap(), 1);
    assert_over(group, [7, 0, 0, 6]);
}

/// Threads that share a follower are one call, with one outcome (G3). One that is refused leaves the
/// place to another that waits, which returns when the flight lands.
#[test]
fn a_refusal_is_the_outcome_for_all_threads_that_share_the_follower() {
    let _watchdog = watchdog();
    let group = Group::new();
    let leader = lead(&group, "k");
    let follower = follow(&group, "k");
    thread::scope(|s| {
        let waiter = s.spawn(|| follower.wait_timeout(Duration::MAX));
        until_waiting(&group, 1);
        let led = leader.run(|| {
            let refused = follower.wait_timeout(Duration::MAX).expect("no time limit passes");
            assert_eq!(refusal(refused.result).threads().len(), 1);
            Ok(1)
        });
        assert_eq!(led.followers, 1);
        let waited = waiter.join().unwrap().expect("no time limit passes");
        assert_eq!(refusal(waited.result).threads().len(), 1);
    });
    assert_eq!(refusal(follower.wait().result).threads().len(), 1);
    let stats = group.stats();
    assert_eq!((stats.followed, stats.deadlocked), (0, 1));
    assert_quiet(&group);
}

/// The last of these threads gives the place up, when its wait ends without an outcome.
#[test]
fn the_last_thread_that_waits_with_a_refused_follower_gives_up_its_place() {
    let _watchdog = watchdog();
    let group = Group::new();
    let leader = lead(&group, "k");
    let follower = follow(&group, "k");
    thread::scope(|s| {
        let waiter = s.spawn(|| follower.wait_timeout(Duration::from_millis(10)));
        let led = leader.run(|| {
            until("the other waits, or is done", || {
                group.stats().waiting == 1 || waiter.is_finished()
            });
            let refused = follower.wait_timeout(Duration::MAX).expect("no time limit passes");
            assert_eq!(refusal(refused.result).threads().len(), 1);
            assert!(waiter.join().unwrap().is_none());
            assert_eq!(group.in_flight()[0].followers, 0);
            Ok(1)
        });
        assert_eq!(led.followers, 0);
    });
    drop(follower);
    assert_quiet(&group);
}

/// It is no follower from then on, even if it is kept.
#[test]
fn a_follower_that_is_refused_gives_up_its_place() {
    let _watchdog = watchdog();
    let group = Group::new();
    let leader = lead(&group, "k");
    let follower = follow(&group, "k");
    let led = leader.run(|| {
        let refused = follower.wait_timeout(Duration::MAX).expect("no time limit passes");
        assert_eq!(refusal(refused.result).threads().len(), 1);
        assert_eq!(group.in_flight()[0].followers, 0);
        assert!(group.forget_unshared("k"));
        Ok(1)
    });
    assert_eq!((led.followers, led.shared()), (0, false));
    assert_eq!(refusal(follower.wait().result).threads().len(), 1, "a refusal stays");
    assert_quiet(&group);
}
