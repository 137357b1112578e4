//! Batches that break a rule each.

use std::time::Duration;

use shared_calls::Role::{Followed, Led};

use super::{assert_fault_in, followed, forgot, led};
use crate::check::{check, Batch, Call, Got, Rule, Run};

/// A batch of the keys 1, 2 and 3 that leads the first two and joins the flight of the third.
fn good_with_a_batch() -> Vec<Call> {
    use Got::Value;
    let ran = Run { began: 30, ended: 60, unwanted: None };
    let of_batch = |call: Call, given: Option<usize>| Call {
        batch: Some(Batch { id: 20, ran: Some(ran), given }),
        ..call
    };
    vec![
        // 0: the batch.
        of_batch(led(20, 1, [20, 30, 60, 110], Value(20)), Some(0)),
        of_batch(led(21, 2, [21, 30, 60, 110], Value(21)), Some(1)),
        of_batch(followed(22, 3, [22, 110], Value(10)), None),
        // 3: the flight that it joined, whose function calls with a key of the batch.
        led(10, 3, [10, 15, 90, 105], Value(10)).told(Led, 1),
        followed(40, 1, [40, 80], Value(20)).inside(&[3]).told(Followed, 1),
        // 5: a call that follows the batch, too.
        followed(41, 2, [41, 100], Value(21)).told(Followed, 1),
    ]
}

/// Asserts that the good batch is found to break this rule when it is changed so.
#[track_caller]
fn assert_batch_fault(rule: Rule, change: impl Fn(&mut [Call])) {
    assert_fault_in(good_with_a_batch(), rule, change);
}

#[test]
fn a_batch_runs_its_function_once_for_all_keys_that_it_leads() {
    let tally = check(&good_with_a_batch()).unwrap();
    assert_eq!((tally.batched, tally.joined_by_batch), (2, 1));

    // Once for each key; also for a key that it does not lead; not for one that it does.
    assert_batch_fault(Rule::OneBatch, |h| h[1].ran.as_mut().unwrap().ended = 61);
    assert_batch_fault(Rule::OneBatch, |h| {
        let run = &mut h[1].ran.as_mut().unwrap();
        (run.began, run.ended) = (61, 70);
        h[1].batch.as_mut().unwrap().ran = h[1].ran;
    });
    assert_batch_fault(Rule::OneBatch, |h| h[2].batch.as_mut().unwrap().given = Some(2));
    assert_batch_fault(Rule::OneBatch, |h| h[1].batch.as_mut().unwrap().given = None);
    // In another order, or without any key.
    assert_batch_fault(Rule::OneBatch, |h| {
        h[0].batch.as_mut().unwrap().given = Some(1);
        h[1].batch.as_mut().unwrap().given = Some(0);
    });
    assert_fault_in(good_with_a_batch()[2..].to_vec(), Rule::OneBatch, |_| {});
    // A key that is named twice is one call.
    assert_batch_fault(Rule::OneBatch, |h| (h[1].key, h[5].key) = (1, 1));
}

#[test]
fn each_key_of_a_batch_is_a_call_of_its_own() {
    // The value of the other key.
    assert_batch_fault(Rule::OneLeader, |h| h[0].got = Got::Value(21));
    assert_batch_fault(Rule::OneOutcome, |h| h[4].got = Got::Value(21));
    // Its followers and it are on a flight like any other.
    assert_batch_fault(Rule::Counted, |h| h[3].told = Some((Led, 0)));
    assert_batch_fault(Rule::NotTooLate, |h| {
        (h[5].began, h[5].returned) = (111, 120);
    });
    assert_batch_fault(Rule::OneAtATime, |h| h[3].key = 2);
    let assert_cap = |caps: [usize; 2], good: bool| {
        let mut history = good_with_a_batch();
        history.retain(|call| call.key == 3);
        history[0].batch = None;
        for (call, cap) in history.iter_mut().zip(caps) {
            call.asked.max_followers = Some(cap);
        }
        assert_eq!(check(&history).is_ok(), good);
    };
    assert_cap([1, 0], true);
    assert_cap([0, 0], false);
}

#[test]
fn a_batch_joins_the_flights_of_the_others_before_its_function_runs() {
    let late = |h: &mut [Call]| {
        h[3].began = 31;
        h[3].ran.as_mut().unwrap().began = 32;
    };
    assert_batch_fault(Rule::JoinsFirst, late);
    // Where it cannot tell which flight it was.
    assert_batch_fault(Rule::Caused, |h| {
        late(h);
        (h[2].got, h[3].got) = (Got::Abandoned, Got::Abandoned);
    });
}

#[test]
fn a_batch_waits_for_others_after_its_own_keys_have_landed() {
    // If it waited before, the function of the third key would wait for it in a cycle: the call
    // there would be refused, or the batch.
    assert_batch_fault(Rule::InACycle, |h| {
        h[4].got = Got::Deadlocked;
        h[4].told = Some((Followed, 0));
    });
    assert_batch_fault(Rule::InACycle, |h| {
        h[2].got = Got::Deadlocked;
        h[3].told = Some((Led, 0));
    });
    // Two that overlap.
    let ran = |began, ended| Some(Run { began, ended, unwanted: None });
    let of_batch =
        |call: Call, id, ran, given| Call { batch: Some(Batch { id, ran, given }), ..call };
    let (first, second) = (ran(30, 60), ran(31, 61));
    let mut history = vec![
        of_batch(led(10, 1, [10, 30, 60, 90], Got::Value(10)), 10, first, Some(0)),
        of_batch(followed(11, 2, [11, 90], Got::Value(13)), 10, first, None),
        of_batch(led(13, 2, [13, 31, 61, 91], Got::Value(13)), 13, second, Some(0)),
        of_batch(followed(14, 1, [14, 91], Got::Value(10)), 13, second, None),
    ];
    check(&history).unwrap();
    history[3].got = Got::Deadlocked;
    let fault = check(&history).unwrap_err();
    assert_eq!(fault.rule, Rule::InACycle);
}

#[test]
fn a_key_of_a_batch_times_out_alone_and_not_if_its_outcome_was_there() {
    let timed_out = |h: &mut [Call]| {
        h.iter_mut().take(3).for_each(|call| call.asked.timeout = Some(Duration::ZERO));
        h[2].got = Got::TimedOut;
        h[3].told = Some((Led, 0));
    };
    let mut history = good_with_a_batch();
    timed_out(&mut history);
    check(&history).unwrap();
    // Keys that it leads do not.
    assert_batch_fault(Rule::OneLeader, |h| {
        timed_out(h);
        h[1].got = Got::TimedOut;
    });
    // Its flight was back before the function of the batch had ended.
    assert_batch_fault(Rule::Caused, |h| {
        timed_out(h);
        h[3] = led(10, 3, [10, 15, 40, 50], Got::Value(10));
        h[4] = forgot(3, [120, 121]);
    });
}

#[test]
fn a_batch_that_unwinds_leaves_the_flights_that_it_has_joined() {
    let unwinds = |h: &mut [Call]| {
        for i in [0, 1, 4, 5] {
            h[i].got = Got::Panicked(None);
        }
        h[2].got = Got::Unwound;
        h[3].told = Some((Led, 0));
    };
    let mut history = good_with_a_batch();
    unwinds(&mut history);
    check(&history).unwrap();
    // There was nothing to join, or it led that key.
    assert_batch_fault(Rule::Caused, |h| {
        unwinds(h);
        h[2].key = 4;
    });
    assert_batch_fault(Rule::OneLeader, |h| {
        unwinds(h);
        h[0].got = Got::Unwound;
    });
}
