//! What a flight may not cost others, or leave behind (G10, G11, G12).

use std::hash::{Hash, Hasher};
use std::sync::Weak;
use std::time::Duration;

use loom::thread;

use crate::explore::Model;
use crate::sync::{self, Arc};
use crate::{FlightGroup, Joined};

/// G10: a function may wait for another key's call to finish. Under a lock that the other call
/// needs, it would wait for ever.
#[test]
fn a_function_holds_no_lock() {
    Model { preemptions: None, must_reach: &["both landed"], executions: &[5, 5, 5] }.explore(
        |reached| {
            let group = Arc::new(FlightGroup::<u32, ()>::new());
            let other = thread::spawn({
                let group = Arc::clone(&group);
                move || assert_eq!(group.call("other", || Ok(2)), Ok(2))
            });
            let value = group.call("key", || {
                other.join().unwrap();
                Ok(1)
            });
            assert_eq!(value, Ok(1));
            reached.mark("both landed");
        },
    );
}

type Nosy = FlightGroup<Value, (), Key>;

/// Looks at the group when it is cloned or dropped.
struct Value(Weak<Nosy>);

impl Clone for Value {
    fn clone(&self) -> Self {
        look_at(&self.0);
        Self(self.0.clone())
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        look_at(&self.0);
    }
}

/// Looks at the group when it is dropped. Larger than a key that is kept for reuse.
#[derive(Clone)]
struct Key([u64; 40], Weak<Nosy>);

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        look_at(&self.1);
    }
}

/// Takes the map's lock.
fn look_at(group: &Weak<Nosy>) {
    if let Some(group) = group.upgrade() {
        assert!(group.stats().in_flight <= 1);
    }
}

/// G10: cloning and dropping values and dropping keys take the map's lock, so under it they would
/// wait for ever.
#[test]
fn keys_and_values_may_look_at_the_group() {
    Model { preemptions: None, must_reach: &["shared", "alone"], executions: &[7_562] }.explore(
        |reached| {
            let group = Arc::new(Nosy::new());
            let call = {
                let group = Arc::downgrade(&group);
                move || {
                    let key = Key([0; 40], group.clone());
                    let value = Value(group.clone());
                    let group = group.upgrade().expect("held until the end");
                    group.call_ex(&key, || Ok(value)).shared()
                }
            };
            let other = thread::spawn(call.clone());
            let shared = call();
            assert_eq!(other.join().unwrap(), shared, "G3: all learn how many");
            reached.mark(if shared { "shared" } else { "alone" });
        },
    );
}

/// G11: when the group is quiet, the callers' values are all there are.
#[test]
fn a_quiet_group_keeps_no_value() {
    Model { preemptions: None, must_reach: &["shared", "alone"], executions: &[49, 89, 149] }
        .explore(|reached| {
            let group = Arc::new(FlightGroup::<Arc<()>, ()>::new());
            let value = Arc::new(());
            let call = {
                let (group, value) = (Arc::clone(&group), Arc::clone(&value));
                move || group.call_ex("key", || Ok(Arc::clone(&value)))
            };
            let other = thread::spawn({
                let call = call.clone();
                move || drop(call())
            });
            let outcome = call();
            other.join().unwrap();
            reached.mark(if outcome.shared() { "shared" } else { "alone" });
            drop((outcome, call));
            assert_eq!(Arc::strong_count(&value), 1, "a value was kept");
            assert_eq!(group.stats().in_flight, 0);
        });
}

/// What a call without followers costs: acquisitions of locks, clock readings, wake-ups.
const LONE: [usize; 3] = [2, 0, 0];

fn take_costs() -> [usize; 3] {
    [sync::take_locked(), sync::take_clock_read(), sync::take_notified()]
}

/// G12: a lone call takes one lock, the map's, twice. It reads no clock and wakes nobody, whatever
/// its options are.
#[test]
fn a_lone_call_costs_two_locks() {
    Model { preemptions: None, must_reach: &["landed"], executions: &[1] }.explore(|reached| {
        let long = Duration::from_secs(1);
        let plain = FlightGroup::<u32, ()>::new();
        let with_defaults: FlightGroup<u32, ()> = FlightGroup::<u32, ()>::builder()
            .timeout(long)
            .max_age(long)
            .max_followers(1)
            .takeover(1)
            .alone_on_deadlock()
            .shards(2)
            .build();
        for group in [&plain, &with_defaults] {
            take_costs();
            assert_eq!(group.call("key", || Ok(1)), Ok(1));
            assert_eq!(take_costs(), LONE, "a call");

            assert_eq!(group.call("key", || Err(())).ok(), None);
            assert_eq!(take_costs(), LONE, "a call that fails");

            let request = group.request("key").max_age(long).timeout(long);
            assert_eq!(request.next_flight().call(|| Ok(1)), Ok(1));
            assert_eq!(take_costs(), LONE, "a request");

            assert_eq!(group.call_many(&["key"], |_| Ok(vec![1])), [Ok(1)]);
            let [locked, _, notified] = take_costs();
            assert_eq!([locked, notified], [2, 0], "a batch of one");
        }

        let Joined::Leader(leader) = plain.join("key") else { unreachable!("nobody else is here") };
        assert_eq!(leader.complete(Ok(1)).result, Ok(1));
        assert_eq!(take_costs(), LONE, "a leader");

        let request = plain.request("key").timeout(long);
        assert_eq!(request.call_with(|_| Ok(1)), Ok(1));
        assert_eq!(take_costs(), [2, 1, 0], "a deadline that the function may ask about");
        reached.mark("landed");
    });
}

/// G12: callers of different keys wake nobody, and take no lock but the map's.
#[test]
fn callers_of_different_keys_cost_each_other_nothing() {
    Model { preemptions: None, must_reach: &["landed"], executions: &[55] }.explore(|reached| {
        let group = Arc::new(FlightGroup::<u32, ()>::new());
        let other = thread::spawn({
            let group = Arc::clone(&group);
            move || assert_eq!(group.call("other", || Ok(2)), Ok(2))
        });
        assert_eq!(group.call("key", || Ok(1)), Ok(1));
        assert_eq!(group.call("key", || Ok(1)), Ok(1));
        other.join().unwrap();
        let [two, none, nobody] = LONE;
        assert_eq!(take_costs(), [3 * two, none, nobody]);
        reached.mark("landed");
    });
}

/// A landing notifies once, however many follow. A flight that its follower or its ticket has left
/// notifies nobody.
#[test]
fn a_landing_notifies_once() {
    Model {
        preemptions: None,
        must_reach: &["once", "not at all"],
        executions: &[934, 1_679, 2_792],
    }
    .explore(|reached| {
        let group = FlightGroup::<u32, ()>::new();
        let join = || match group.join("key") {
            Joined::Follower(follower) => follower,
            Joined::Leader(_) => panic!("G1: two leaders"),
        };
        let Joined::Leader(leader) = group.join("key") else {
            unreachable!("nobody else is here yet")
        };
        let (stays, leaves) = (join(), join());
        let leaver = thread::spawn(move || drop(leaves));
        let waiter = thread::spawn(move || stays.wait().followers);
        let followers = leader.complete(Ok(1)).followers;
        assert!((1..=2).contains(&followers));
        leaver.join().unwrap();
        assert_eq!(waiter.join().unwrap(), followers);
        assert_eq!(sync::take_notified(), 1);
        reached.mark("once");

        let Joined::Leader(leader) = group.join("key") else { panic!("the key is free") };
        drop(join());
        assert_eq!(leader.complete(Ok(1)).followers, 0);
        assert_eq!(sync::take_notified(), 0);

        let mut job = None;
        drop(group.start("key", |it| job = Some(it), || Ok(1)));
        job.expect("the key is free").run();
        assert_eq!(sync::take_notified(), 0);
        reached.mark("not at all");
    });
}
