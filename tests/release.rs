//! Followers are released by their leader, and by nobody else: no follower's progress depends on
//! another follower. In each test one follower is held up, and stays so until all others have
//! returned.

mod common;

use std::cell::Cell;
use std::sync::mpsc;
use std::sync::Arc;
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
        let mut hold = Some(Hold { reached, go_on: wait_to_go_on });
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

/// The wake-up itself. A follower that has been woken and does not get a processor must not be the
/// one that wakes the others.
///
/// It is the first to wait, its scheduling class is `SCHED_IDLE`, and all processors are busy. The
/// kernel counts how often it has run. If the others wait for it, it always runs before all of them
/// have returned. If they do not, it mostly has not run by then: one such attempt is enough. Time
/// has no part in that; it only ends an attempt that leads to nothing.
#[cfg(target_os = "linux")]
#[test]
fn a_follower_without_a_processor_holds_up_no_other() {
    let _watchdog = watchdog();
    let group = Arc::new(FlightGroup::<u32, ()>::new());
    const ATTEMPTS: usize = 20;
    let independent = (0..ATTEMPTS).any(|_| linux::others_return_before_the_first_has_run(&group));
    assert!(independent, "the others always waited for the first");
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs;
    use std::hint;
    use std::path::PathBuf;
    use std::process::Command;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
    use std::sync::mpsc::{self, Receiver};
    use std::thread::{self, available_parallelism};
    use std::time::{Duration, Instant};

    use shared_calls::FlightGroup;

    use crate::common::{lead, until};
    use crate::FOLLOWERS;

    /// A thread, as the kernel shows it.
    struct Thread(PathBuf);

    impl Thread {
        /// To be called by a thread that sends where it is.
        fn at(place: &Receiver<PathBuf>) -> Self {
            Self(place.recv().expect("it has begun"))
        }

        fn sleeps(&self) -> bool {
            let stat = fs::read_to_string(self.0.join("stat")).expect("it lives");
            // `123 (its name) S …`
            let (_, state) = stat.rsplit_once(") ").expect("the name has an end");
            state.starts_with('S')
        }

        /// Changes whenever it runs: the time that it had a processor, and how often it got one.
        /// Nothing once it has ended.
        fn runs(&self) -> Option<String> {
            fs::read_to_string(self.0.join("schedstat")).ok()
        }

        /// `--idle`: it gets a processor only if nobody else wants one. `--other`: as usual.
        fn schedule(&self, class: &str) {
            let id = self.0.file_name().expect("ends in its number");
            let chrt = Command::new("chrt").args([class, "--pid", "0"]).arg(id).output();
            // It fails if the thread has ended.
            chrt.expect("util-linux is installed");
        }
    }

    fn this_thread() -> PathBuf {
        PathBuf::from("/proc").join(fs::read_link("/proc/thread-self").unwrap())
    }

    pub fn others_return_before_the_first_has_run(group: &FlightGroup<u32, ()>) -> bool {
        let follow = || {
            let value = group.call("k", || unreachable!("it follows"));
            assert_eq!(value.unwrap(), 1);
        };
        let leader = lead(group, "k");
        let (place, places) = mpsc::channel();
        let (returned, returns) = mpsc::channel();
        let busy = AtomicUsize::new(0);
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let first = {
                let place = place.clone();
                scope.spawn(move || {
                    place.send(this_thread()).unwrap();
                    follow();
                })
            };
            let the_first = Thread::at(&places);
            until("it waits", || leader.followers() == 1 && the_first.sleeps());
            the_first.schedule("--idle");
            for others in 1..FOLLOWERS {
                let (place, returned) = (place.clone(), returned.clone());
                scope.spawn(move || {
                    place.send(this_thread()).unwrap();
                    follow();
                    returned.send(()).unwrap();
                });
                let other = Thread::at(&places);
                until("it waits", || leader.followers() == 1 + others && other.sleeps());
            }
            assert!(the_first.runs().is_some(), "Linux counts this");
            for _ in 0..processors() {
                scope.spawn(|| {
                    busy.fetch_add(1, SeqCst);
                    while !over.load(SeqCst) {
                        hint::spin_loop();
                    }
                });
            }
            until("all are busy", || busy.load(SeqCst) == processors());

            let before = the_first.runs();
            leader.complete(Ok(1)).result.unwrap();
            let mut left = FOLLOWERS - 1;
            let give_up = Instant::now() + Duration::from_secs(2);
            while left > 0 && the_first.runs() == before && Instant::now() < give_up {
                let returned = returns.recv_timeout(Duration::from_millis(1));
                left -= usize::from(returned.is_ok());
            }
            let independent = left == 0 && the_first.runs() == before;

            over.store(true, SeqCst);
            the_first.schedule("--other");
            assert_eq!(returns.iter().take(left).count(), left);
            first.join().unwrap();
            independent
        })
    }

    fn processors() -> usize {
        available_parallelism().map_or(1, usize::from)
    }
}
