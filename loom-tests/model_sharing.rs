//! Callers of one key at the same time: one runs at a time, everyone gets one outcome, and what the
//! function wrote is there (G1, G3, G5).

use loom::thread;

use crate::explore::{Model, Reached};
use crate::sync::{Arc, AtomicUsize, Ordering};
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

fn told(outcome: Outcome<usize, ()>, work: &Work) -> Got {
    let run = outcome.result.unwrap();
    let seen = work.written[run].load(Ordering::Relaxed);
    assert_eq!(seen, 1, "G5: what the function wrote is there");
    (run, outcome.role, outcome.followers)
}

fn call(group: &Group, work: &Work) -> Got {
    told(group.call_ex("key", || Ok(work.run())), work)
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
    let mut got = vec![match first {
        Some(Joined::Leader(leader)) => told(leader.complete(Ok(work.run())), &work),
        Some(Joined::Follower(_)) => unreachable!("nobody else was there"),
        None => call(&group, &work),
    }];
    got.extend(others.into_iter().map(|other| other.join().unwrap()));

    let runs = work.runs.load(Ordering::Relaxed);
    assert_eq!(
        got.iter().filter(|(_, role, _)| *role == Role::Led).count(),
        runs,
        "G1: every leader's run counted, and no other"
    );
    for run in 0..runs {
        let flight: Vec<_> = got.iter().filter(|(of, ..)| *of == run).collect();
        let led = flight.iter().filter(|(_, role, _)| *role == Role::Led);
        assert_eq!(led.count(), 1, "G3: one leader a flight");
        for (_, _, followers) in &flight {
            assert_eq!(*followers, flight.len() - 1, "G3: all are told how many");
        }
    }
    reached.mark(match runs {
        1 => "all shared one run",
        n if n == callers => "nobody shared",
        _ => "some shared",
    });
    assert!(format!("{group:?}").contains("in_flight: 0"), "G11");
}

#[test]
fn two_callers() {
    Model {
        preemptions: None,
        must_reach: &["all shared one run", "nobody shared"],
        executions: &[330, 513, 757],
    }
    .explore(|reached| callers_of_one_key(2, false, reached));
}

#[test]
fn a_leader_and_two_callers() {
    Model {
        preemptions: None,
        must_reach: &["all shared one run", "some shared", "nobody shared"],
        executions: &[42_009],
    }
    .explore(|reached| callers_of_one_key(3, true, reached));
}

#[test]
fn three_callers() {
    Model {
        preemptions: None,
        must_reach: &["all shared one run", "some shared", "nobody shared"],
        executions: &[2_330_385],
    }
    .explore(|reached| callers_of_one_key(3, false, reached));
}

#[test]
fn four_callers_bounded() {
    Model {
        preemptions: Some(3),
        must_reach: &["all shared one run", "some shared", "nobody shared"],
        executions: &[114_843],
    }
    .explore(|reached| callers_of_one_key(4, false, reached));
}

#[test]
fn a_leader_and_four_callers_bounded() {
    Model {
        preemptions: Some(2),
        must_reach: &["all shared one run", "some shared", "nobody shared"],
        executions: &[74_060],
    }
    .explore(|reached| callers_of_one_key(5, true, reached));
}
