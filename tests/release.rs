//! Followers are released by their leader, and by nobody else: no follower's progress depends on
//! another follower. In each test one follower is held up, and stays so until all others have
//! returned.

mod common;

use std::cell::Cell;
use std::collections::BTreeSet;
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
/// It is the first to wait, its scheduling class is `SCHED_IDLE`, and it may run on one processor
/// only, which is busy. The kernel counts how often it has run. A follower that depends on the first
/// never returns before the first has run. One that does not depend on it often does: one attempt
/// in which it did is enough.
#[cfg(target_os = "linux")]
#[test]
fn a_follower_without_a_processor_holds_up_no_other() {
    let _watchdog = watchdog();
    let group = FlightGroup::new();
    let mut dependent: BTreeSet<usize> = (1..FOLLOWERS).collect();
    for _ in 0..200 {
        for other in linux::others_that_return_before_the_first_runs(&group) {
            dependent.remove(&other);
        }
        if dependent.is_empty() {
            return;
        }
    }
    panic!("always returned after the first: {dependent:?}");
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs;
    use std::hint;
    use std::path::PathBuf;
    use std::process::Command;
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
    use std::sync::mpsc::{self, Receiver};
    use std::sync::OnceLock;
    use std::thread;

    use shared_calls::FlightGroup;

    use crate::common::{lead, until};
    use crate::FOLLOWERS;

    /// A thread, as the kernel shows it.
    #[derive(Clone)]
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
            self.change(Command::new("chrt").args([class, "--pid", "0"]));
        }

        /// From now on it runs on this processor only.
        fn pin(&self, processor: &str) {
            self.change(Command::new("taskset").args(["--cpu-list", "--pid", processor]));
        }

        fn change(&self, command: &mut Command) {
            let id = self.0.file_name().expect("ends in its number");
            // It fails if the thread has ended.
            command.arg(id).output().expect("util-linux is installed");
        }
    }

    fn this_thread() -> PathBuf {
        PathBuf::from("/proc").join(fs::read_link("/proc/thread-self").unwrap())
    }

    pub fn others_that_return_before_the_first_runs(group: &FlightGroup<u32, ()>) -> Vec<usize> {
        let follow = || {
            let value = group.call("k", || unreachable!("it follows"));
            assert_eq!(value.unwrap(), 1);
        };
        let processor = &a_processor();
        let leader = lead(group, "k");
        let (place, places) = mpsc::channel();
        let (returned, returns) = mpsc::channel();
        let runs_at_the_end = OnceLock::new();
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn({
                let place = place.clone();
                move || {
                    place.send(this_thread()).unwrap();
                    follow();
                }
            });
            let the_first = Thread::at(&places);
            until("it waits", || leader.followers() == 1 && the_first.sleeps());
            the_first.schedule("--idle");
            the_first.pin(processor);
            for other in 1..FOLLOWERS {
                let (place, returned) = (place.clone(), returned.clone());
                let (the_first, runs_at_the_end) = (the_first.clone(), &runs_at_the_end);
                scope.spawn(move || {
                    place.send(this_thread()).unwrap();
                    follow();
                    let first_has_run = the_first.runs() != *runs_at_the_end.get().unwrap();
                    returned.send((other, first_has_run)).unwrap();
                });
                let this = Thread::at(&places);
                until("it waits", || leader.followers() == 1 + other && this.sleeps());
            }
            scope.spawn(|| {
                place.send(this_thread()).unwrap();
                while !over.load(SeqCst) {
                    hint::spin_loop();
                }
            });
            Thread::at(&places).pin(processor);

            let runs = the_first.runs();
            assert!(runs.is_some(), "Linux counts this");
            runs_at_the_end.set(runs).unwrap();
            leader.complete(Ok(1)).result.unwrap();
            let returns: Vec<_> = returns.iter().take(FOLLOWERS - 1).collect();
            over.store(true, SeqCst);
            the_first.schedule("--other");
            let before = returns.iter().filter(|(_, first_has_run)| !first_has_run);
            before.map(|&(other, _)| other).collect()
        })
    }

    /// The number of a processor that this process may use.
    fn a_processor() -> String {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        // `0-3,8`
        let numbers = allowed.expect("Linux tells this").trim();
        numbers.split(['-', ',']).next().expect("at least one").to_owned()
    }
}
