//! Who shares what with whom: roles, counts, and when sharing ends.
#![cfg(not(loom))]

mod common;

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::Arc;
use std::thread;

use common::{assert_quiet, follow, gate, lead, watchdog};
use shared_calls::{FlightGroup, Outcome, Role, SharedCalls, SharedCallsExt, Unshared};

type Group = FlightGroup<String, io::Error>;

fn ok(value: &str) -> Result<String, io::Error> {
    Ok(value.to_owned())
}

#[test]
fn a_lone_call_leads_and_has_no_followers() {
    let group = Group::new();
    let outcome = group.call_ex("k", || ok("value"));
    assert_eq!((outcome.role, outcome.followers), (Role::Led, 0));
    assert!(outcome.fresh() && !outcome.shared());
    assert_eq!(outcome.result.unwrap(), "value");
    assert_quiet(&group);
}

#[test]
fn all_callers_of_a_flight_get_its_value_and_one_of_them_led() {
    let _watchdog = watchdog();
    let group = Group::new();
    let (held, gate) = gate();
    thread::scope(|s| {
        let leader = s.spawn(|| {
            group.call_ex("k", || {
                held();
                ok("value")
            })
        });
        gate.begun();
        let followers = [(); 3].map(|()| follow(&group, "k"));
        gate.open();

        let led = leader.join().unwrap();
        assert!(led.fresh() && led.shared());
        assert_eq!((led.role, led.followers), (Role::Led, 3));
        assert_eq!(led.result.unwrap(), "value");
        for follower in followers {
            let followed = follower.wait();
            assert!(!followed.fresh() && followed.shared());
            assert_eq!((followed.role, followed.followers), (Role::Followed, 3));
            assert_eq!(followed.result.unwrap(), "value");
        }
    });
    assert_quiet(&group);
}

/// The same by `join` alone, on one thread: nothing in it blocks.
#[test]
fn join_and_complete_work_on_one_thread() {
    let _watchdog = watchdog();
    let group = Group::new();
    let leader = lead(&group, "k");
    assert_eq!(leader.followers(), 0);
    let followers = [follow(&group, "k"), follow(&group, "k")];
    assert_eq!(leader.followers(), 2);
    let led = leader.complete(ok("value"));
    assert_eq!((led.role, led.followers), (Role::Led, 2));
    for follower in followers {
        let followed = follower.wait();
        assert_eq!((followed.role, followed.followers), (Role::Followed, 2));
        assert_eq!(followed.result.unwrap(), "value");
    }
    assert_quiet(&group);
}

/// A group is not a cache.
#[test]
fn a_call_after_the_flight_runs_its_own_function() {
    let _watchdog = watchdog();
    let group = Group::new();
    for value in ["first", "second", "third"] {
        let leader = lead(&group, "k");
        let follower = follow(&group, "k");
        let _ = leader.complete(ok(value));
        // The follower has not even looked yet.
        assert_eq!(group.call("k", || ok("later")).unwrap(), "later");
        assert_eq!(follower.wait().result.unwrap(), value);
    }
}

/// Who has the outcome finds the key free (G2), also while the leader has not returned yet.
#[test]
fn a_follower_that_calls_again_leads() {
    let _watchdog = watchdog();
    let group = Group::new();
    for _ in 0..1_000 {
        let leader = lead(&group, "k");
        let follower = follow(&group, "k");
        thread::scope(|s| {
            s.spawn(|| leader.complete(ok("value")));
            assert_eq!(follower.wait().result.unwrap(), "value");
            assert!(group.call_ex("k", || ok("again")).fresh());
        });
    }
}

#[test]
fn keys_do_not_wait_for_each_other() {
    let _watchdog = watchdog();
    let group = Group::new();
    let (held_a, gate_a) = gate();
    let (held_b, gate_b) = gate();
    thread::scope(|s| {
        let group = &group;
        let in_flight = |key, held: Box<dyn FnOnce() + Send>| {
            s.spawn(move || {
                group.call(key, || {
                    held();
                    ok(key)
                })
            })
        };
        // Two functions are in the middle of it at once, and a third runs from end to end.
        let a = in_flight("a", Box::new(held_a));
        gate_a.begun();
        let b = in_flight("b", Box::new(held_b));
        gate_b.begun();
        assert_eq!(group.call("c", || ok("c")).unwrap(), "c");
        // They end in another order than they began.
        gate_a.open();
        assert_eq!(a.join().unwrap().unwrap(), "a");
        gate_b.open();
        assert_eq!(b.join().unwrap().unwrap(), "b");
    });
    assert_quiet(&group);
}

#[test]
fn a_follower_that_leaves_is_not_counted() {
    let _watchdog = watchdog();
    let group = Group::new();
    let leader = lead(&group, "k");
    let stays = follow(&group, "k");
    let leaves = follow(&group, "k");
    assert_eq!(leader.followers(), 2);
    drop(leaves);
    assert_eq!(leader.followers(), 1);
    assert_eq!(leader.complete(ok("value")).followers, 1);
    assert_eq!(stays.wait().followers, 1);

    // Where all have left, the leader was alone.
    let leader = lead(&group, "k");
    drop(follow(&group, "k"));
    assert!(!leader.complete(ok("value")).shared());
    assert_quiet(&group);
}

#[test]
fn a_follower_that_leaves_after_the_landing_is_counted() {
    let _watchdog = watchdog();
    let group = Group::new();
    let leader = lead(&group, "k");
    let stays = follow(&group, "k");
    let leaves = follow(&group, "k");
    assert_eq!(leader.complete(ok("value")).followers, 2);
    drop(leaves);
    assert_eq!(stays.wait().followers, 2);
}

#[test]
fn leader_and_follower_may_move_to_other_threads() {
    let _watchdog = watchdog();
    let group = Group::new();
    let leader = lead(&group, "k");
    let follower = follow(&group, "k");
    thread::scope(|s| {
        let follower = s.spawn(|| follower.wait());
        let leader = s.spawn(|| leader.complete(ok("value")));
        assert_eq!(leader.join().unwrap().result.unwrap(), "value");
        assert_eq!(follower.join().unwrap().result.unwrap(), "value");
    });
    assert_quiet(&group);
}

#[test]
fn unshared_runs_every_function() {
    // One call inside another, on the same key: neither knows of the other.
    let outer: Outcome<_, io::Error> = Unshared.call_ex("k", || {
        let inner = Unshared.call_ex("k", || ok("inner"));
        assert!(inner.fresh() && !inner.shared());
        ok(&format!("outer of {}", inner.result.unwrap()))
    });
    assert!(outer.fresh() && !outer.shared());
    assert_eq!(outer.result.unwrap(), "outer of inner");

    let failed = Unshared.call("k", || Err::<(), _>("no"));
    assert_eq!(failed.unwrap_err().into_failed().unwrap(), "no");
}

/// Takes part in a flight of `group` through something that shares its calls.
fn assert_shares(group: &Group, calls: &impl SharedCalls<String, io::Error>) {
    let _watchdog = watchdog();
    assert!(calls.call_ex("k", || ok("alone")).fresh());
    assert_eq!(calls.call("k", || ok("alone")).unwrap(), "alone");

    let leader = lead(group, "k");
    thread::scope(|s| {
        let follower = s.spawn(|| calls.call_ex("k", || unreachable!("somebody leads")));
        common::until("a follower", || leader.followers() == 1);
        let _ = leader.complete(ok("led"));
        let outcome = follower.join().unwrap();
        assert_eq!((outcome.role, outcome.followers), (Role::Followed, 1));
        assert_eq!(outcome.result.unwrap(), "led");
    });
    assert_quiet(group);
}

#[test]
fn pointers_to_a_group_share_its_calls() {
    type Dyn = dyn SharedCalls<String, io::Error>;
    type SendSync = dyn SharedCalls<String, io::Error> + Send + Sync;

    let group = Arc::new(Group::new());
    assert_shares(&group, &*group);
    assert_shares(&group, &&*group);
    assert_shares(&group, &group);
    assert_shares(&group, &Box::new(Arc::clone(&group)));
    let dynamic: Arc<Dyn> = Arc::clone(&group) as Arc<Dyn>;
    assert_shares(&group, &dynamic);
    let dynamic: Box<Dyn> = Box::new(Arc::clone(&group));
    assert_shares(&group, &dynamic);
    let dynamic: &Dyn = &group;
    assert_shares(&group, &dynamic);
    let dynamic: Arc<SendSync> = Arc::clone(&group) as Arc<SendSync>;
    assert_shares(&group, &dynamic);
}

#[test]
fn clones_of_a_group_are_handles_to_the_same_group() {
    let group = Group::new();
    let handle = group.clone();
    assert_shares(&group, &handle);
    assert_eq!(group.stats(), handle.stats());
    let leader = lead(&group, "k");
    assert_eq!(handle.in_flight().len(), 1);
    let follower = follow(&handle, "k");
    assert!(handle.forget("k"));
    // The last handle to go is any of them.
    drop(handle);
    let _ = leader.complete(ok("value"));
    drop(group);
    assert_eq!(follower.wait().result.unwrap(), "value");
}

/// As it is: the trait has `Send` and `Sync` as supertraits.
#[test]
fn a_trait_object_crosses_threads() {
    let calls: Arc<dyn SharedCalls<String, io::Error>> = Arc::new(Group::new());
    let there = Arc::clone(&calls);
    let called = thread::spawn(move || there.call("k", || ok("there")).unwrap());
    assert_eq!(called.join().unwrap(), "there");
    assert_eq!(calls.call("k", || ok("here")).unwrap(), "here");
}

/// [`SharedCallsExt`] is for generic code. A trait object that is not `'static` has the methods, too.
#[test]
fn generic_code_and_borrowed_trait_objects_can_call() {
    fn generic<C: SharedCalls<u32, ()> + ?Sized>(calls: &C) -> Option<u32> {
        calls.call("k", || Ok(1)).ok()
    }
    struct Borrows<'a>(&'a FlightGroup<u32, ()>);
    impl SharedCalls<u32, ()> for Borrows<'_> {
        fn call_dyn(&self, k: &str, f: &mut dyn FnMut() -> Result<u32, ()>) -> Outcome<u32, ()> {
            self.0.call_dyn(k, f)
        }
    }
    let group = FlightGroup::new();
    let borrows = Borrows(&group);
    let calls: &dyn SharedCalls<u32, ()> = &borrows;
    assert_eq!(calls.call("k", || Ok(1)), Ok(1));
    assert_eq!([generic(&group), generic(calls), generic(&Unshared)], [Some(1); 3]);
    assert_eq!(group.stats().led, 3);
}

/// The choice that the trait is there for.
#[test]
fn one_program_runs_with_sharing_and_without() {
    for sharing in [true, false] {
        let calls: Arc<dyn SharedCalls<String, io::Error>> =
            if sharing { Arc::new(Group::new()) } else { Arc::new(Unshared) };
        assert_eq!(calls.call("k", || ok("value")).unwrap(), "value");
    }
}

#[test]
fn call_dyn_runs_the_function_at_most_once() {
    fn runs(calls: &dyn SharedCalls<String, io::Error>) -> usize {
        let runs = AtomicUsize::new(0);
        let mut function = || {
            runs.fetch_add(1, SeqCst);
            ok("value")
        };
        assert!(calls.call_dyn("k", &mut function).fresh());
        runs.into_inner()
    }
    assert_eq!(runs(&Group::new()), 1);
    assert_eq!(runs(&Unshared), 1);
}
