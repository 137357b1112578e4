//! Followers are released by their leader, and by nobody else: no follower's progress depends on
//! another follower. In each test one follower is held up, and stays so until all others have
//! returned.

mod common;

use std::cell::Cell;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use common::{follow, lead, until, watchdog};
use shared_calls::{FlightGroup, Joined, Observer};

/// More than a few, so that what is done for a crowd is done here.
const FOLLOWERS: usize = 16;

thread_local! {
    /// Holds this thread up the next time that it comes to [`hold_up`].
    static HELD: Cell<Option<Hold>> = const { Cell::new(None) };
}

struct Hold {
    reached: mpsc::Sender<()>,
    go_on: mpsc::Receiver<()>,
}

fn hold_up() {
    if let Some(hold) = HELD.with(Cell::take) {
        hold.reached.send(()).expect("the test waits for this");
        // A test that has failed holds nobody up.
        let _ = hold.go_on.recv();
    }
}

/// A value whose clone, and an observer whose follower, may be held up.
#[derive(Debug, PartialEq)]
struct Value(u32);

impl Clone for Value {
    fn clone(&self) -> Self {
        hold_up();
        Self(self.0)
    }
}

struct HoldsUpFollowers;

impl Observer for HoldsUpFollowers {
    fn caller_joined(&self, _key: &String) {
        hold_up();
    }
}

type Group = FlightGroup<Value, ()>;

/// Every way to follow. Each returns the value that it got.
const WAYS: [fn(&Group) -> Value; 4] = [
    |group| group.call("k", || unreachable!("it follows")).unwrap(),
    |group| match group.join("k") {
        Joined::Follower(follower) => follower.wait().result.unwrap(),
        Joined::Leader(_) => unreachable!("it follows"),
    },
    |group| {
        let request = group.request("k").timeout(Duration::MAX);
        request.call(|| unreachable!("it follows")).unwrap()
    },
    |group| {
        let request = group.request("k").timeout(common::TOO_LONG);
        request.call(|| unreachable!("it follows")).unwrap()
    },
];

/// Holds each of the followers up in turn, and returns once all others have got their value every
/// time.
fn others_return(group: &Group) {
    let _watchdog = watchdog();
    for held in 0..FOLLOWERS {
        let leader = lead(group, "k");
        // It has joined and does not wait, and that holds nobody up either.
        let idle = follow(group, "k");
        let (reached, held_up) = mpsc::channel();
        let (go_on, wait_to_go_on) = mpsc::channel();
        let mut hold = Some(Hold {
            reached,
            go_on: wait_to_go_on,
        });
        let (returned, returns) = mpsc::channel();
        thread::scope(|scope| {
            for i in 0..FOLLOWERS {
                let hold = if i == held { hold.take() } else { None };
                let returned = returned.clone();
                scope.spawn(move || {
                    HELD.with(|held| held.set(hold));
                    let value = WAYS[i % WAYS.len()](group);
                    returned.send((i, value)).unwrap();
                });
            }
            until("all follow", || leader.followers() == FOLLOWERS + 1);
            let outcome = leader.complete(Ok(Value(42)));
            assert_eq!(outcome.followers, FOLLOWERS + 1);
            held_up.recv().unwrap();
            for (i, value) in returns.iter().take(FOLLOWERS - 1) {
                assert_eq!((i != held, value), (true, Value(42)));
            }
            go_on.send(()).unwrap();
            assert_eq!(returns.recv().unwrap(), (held, Value(42)));
        });
        assert_eq!(idle.wait().result.unwrap(), Value(42));
    }
}

#[test]
fn a_follower_that_clones_for_ever_holds_up_no_other() {
    others_return(&Group::new());
}

#[test]
fn a_follower_whose_observer_blocks_holds_up_no_other() {
    others_return(&FlightGroup::builder().observer(HoldsUpFollowers).build());
}
