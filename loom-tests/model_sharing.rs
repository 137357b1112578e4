//! Callers of one key at the same time: one runs at a time, everyone gets one outcome, and what the
//! function wrote is there (G1, G3, G5).

use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

use crate::explore::{Model, Reached};
use crate::sync::Arc;
use crate::{FlightGroup, Joined, Outcome, Role};

/// A function that nothing but the group keeps from running twice at once: it reads and writes
/// without ordering. Two runs at once would lose a count, and so would a run that does not see all
/// that an earlier one wrote.
#[derive(Default)]
struct Work {
    runs: AtomicUsize,
    /// Written by the run of this number, and by no other.
    written: [AtomicUsize; 5],
}

impl Work {
    fn run(&self) -> usize {
        let run = self.runs.load(Ordering::Relaxed);
        self.runs.store(run + 1, Ordering::Relaxed);
        self.written[run].store(1, Ordering::Relaxed);
        run
    }
}

type Group = FlightGroup<usize, ()>;

/// What a call got: the number of the run, so that those who shared one know each other.
type Got = (usize, Role, usize);

fn got(outcome: Outcome<usize, ()>, work: &Work) -> Got {
    let run = outcome.result.unwrap();
    let seen = work.written[run].load(Ordering::Relaxed);
    assert_eq!(seen, 1, "G5: what the function wrote is there");
    (run, outcome.role, outcome.followers)
}

fn call(group: &Group, work: &Work) -> Got {
    got(group.call_ex("key", || Ok(work.run())), work)
}

/// Some threads call one key. With `led`, the first of them has taken the lead before the others
/// come: that leaves out what a model of fewer threads covers, so more of them fit.
fn callers_of_one_key(callers: usize, led: bool, reached: &Reached) {
    let group = Arc::new(Group::new());
    let work = Arc::new(Work::default());
    let first = led.then(|| group.join("key"));
    let others: Vec<_> = (1..callers)
        .map(|_| {
            let (group, work) = (Arc::clone(&group), Arc::clone(&work));
            thread::spawn(move || call(&group, &work))
        })
        .collect();
    let mut all = vec![match first {
        Some(Joined::Leader(leader)) => got(leader.complete(Ok(work.run())), &work),
        Some(Joined::Follower(_)) => unreachable!("nobody else was there"),
        None => call(&group, &work),
    }];
    all.extend(others.into_iter().map(|other| other.join().unwrap()));

    let runs = work.runs.load(Ordering::Relaxed);
    assert_eq!(
        all.iter().filter(|(_, role, _)| *role == Role::Led).count(),
        runs,
        "G1: every leader's run counted, and no other"
    );
    for run in 0..runs {
        let flight: Vec<_> = all.iter().filter(|(of, ..)| *of == run).collect();
        let led = flight.iter().filter(|(_, role, _)| *role == Role::Led);
        assert_eq!(led.count(), 1, "G3: one leader a flight");
        for (_, _, followers) in &flight {
            assert_eq!(*followers, flight.len() - 1, "G3: all learn how many");
        }
    }
    reached.mark(match runs {
        1 => "all shared one run",
        n if n == callers => "nobody shared",
        _ => "some shared",
    });
    let stats = group.stats();
    assert_eq!((stats.led, stats.followed), (runs as u64, (callers - runs) as u64));
    assert_eq!(stats.in_flight, 0, "G11");
}

#[test]
fn two_callers() {
    Model {
        preemptions: None,
        must_reach: &["all shared one run", "nobody shared"],
        executions: &[49, 89, 149],
    }
    .explore(|reached| callers_of_one_key(2, false, reached));
}

/// The first follower makes the latch and takes its place there while the leader is about to delete
/// the entry: the leader either finds both or neither.
#[test]
fn the_first_follower_comes_as_the_leader_ends() {
    Model {
        preemptions: None,
        must_reach: &["all shared one run", "nobody shared"],
        executions: &[13, 23, 38],
    }
    .explore(|reached| callers_of_one_key(2, true, reached));
}

/// Two callers find a flight that has no latch yet: one makes it, and both wait on that one.
#[test]
fn two_first_followers_share_a_latch() {
    Model { preemptions: None, must_reach: &["shared"], executions: &[175, 255, 350] }.explore(
        |reached| {
            let group = Arc::new(Group::new());
            let Joined::Leader(leader) = group.join("key") else {
                unreachable!("nobody else is here yet")
            };
            let join = |group: &Group| match group.join("key") {
                Joined::Follower(follower) => follower,
                Joined::Leader(_) => panic!("G1: two leaders"),
            };
            let other = thread::spawn({
                let group = Arc::clone(&group);
                move || join(&group)
            });
            let follower = join(&group);
            let other = other.join().unwrap();
            let waiter = thread::spawn(move || other.wait());
            assert_eq!(leader.complete(Ok(1)).followers, 2);
            for outcome in [follower.wait(), waiter.join().unwrap()] {
                assert_eq!((outcome.result, outcome.followers), (Ok(1), 2));
            }
            reached.mark("shared");
        },
    );
}

#[test]
fn a_leader_and_two_callers() {
    Model {
        preemptions: None,
        must_reach: &["all shared one run", "some shared", "nobody shared"],
        executions: &[37_828, 155_800],
    }
    .explore(|reached| callers_of_one_key(3, true, reached));
}

#[test]
fn three_callers() {
    Model {
        preemptions: None,
        must_reach: &["all shared one run", "some shared", "nobody shared"],
        executions: &[202_835],
    }
    .explore(|reached| callers_of_one_key(3, false, reached));
}

#[test]
fn four_callers_bounded() {
    Model {
        preemptions: Some(3),
        must_reach: &["all shared one run", "some shared", "nobody shared"],
        executions: &[18_037],
    }
    .explore(|reached| callers_of_one_key(4, false, reached));
}

#[test]
fn a_leader_and_four_callers_bounded() {
    Model {
        preemptions: Some(2),
        must_reach: &["all shared one run", "some shared", "nobody shared"],
        executions: &[14_288],
    }
    .explore(|reached| callers_of_one_key(5, true, reached));
}
