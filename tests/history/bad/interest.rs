//! Functions that ask whether their results are wanted, in histories that break a rule each.

use std::time::Duration;

use shared_calls::Role::{Followed, Led};

use super::{assert_fault_in, followed, led, left};
use crate::check::{check, Call, Got, Rule};

/// A job that nobody wants any more, and the flight that takes its place.
fn good_with_interest() -> Vec<Call> {
    let mut history = vec![
        led(10, 1, [10, 20, 100, 110], Got::Failed(10)),
        left(12, 1, [12, 15, 30, 35]),
        led(60, 1, [60, 65, 80, 90], Got::Value(60)).told(Led, 1),
        followed(61, 1, [61, 95], Got::Value(60)).told(Followed, 1),
    ];
    history[0].let_go = Some(25);
    history[0].ran.as_mut().unwrap().unwanted = Some([40, 50]);
    history
}

/// Asserts that it is found to break this rule when it is changed so.
#[track_caller]
fn assert_interest_fault(rule: Rule, change: impl Fn(&mut [Call])) {
    assert_fault_in(good_with_interest(), rule, change);
}

fn unwanted(call: &mut Call) -> &mut [u64; 2] {
    let run = call.ran.as_mut().unwrap();
    run.unwanted.as_mut().unwrap()
}

#[test]
fn nobody_joins_a_flight_that_nobody_wants() {
    let tally = check(&good_with_interest()).unwrap();
    assert_eq!((tally.unwanted, tally.overlaps), (1, 1));

    // A call that came after the answer gets the "cancelled", or one that was waiting before.
    let cancelled = |h: &mut [Call], began| {
        h[3] = followed(began, 1, [began, 120], Got::Failed(10));
        h[2].told = Some((Led, 0));
    };
    assert_interest_fault(Rule::Unwanted, |h| cancelled(h, 55));
    assert_interest_fault(Rule::Unwanted, |h| cancelled(h, 16));
    // Where it cannot tell whose outcome it is.
    assert_interest_fault(Rule::Caused, |h| {
        cancelled(h, 16);
        (h[0].got, h[3].got) = (Got::Abandoned, Got::Abandoned);
    });
    // The leader was told of a follower.
    assert_interest_fault(Rule::Unwanted, |h| h[0].told = Some((Led, 1)));
    // A caller took a place, and left or was out of time, after the answer.
    assert_interest_fault(Rule::Caused, |h| h[1] = left(51, 1, [51, 52, 53, 54]));
    assert_interest_fault(Rule::Caused, |h| {
        h[1] = followed(51, 1, [51, 55], Got::TimedOut);
        h[1].asked.timeout = Some(Duration::ZERO);
    });
}

#[test]
fn a_result_that_is_not_wanted_has_no_ticket_and_no_follower() {
    // The ticket waited, was dropped later, or the call had no limit.
    assert_interest_fault(Rule::Wanted, |h| h[0].let_go = None);
    assert_interest_fault(Rule::Wanted, |h| h[0].let_go = Some(51));
    // A follower had its place before the question, and left after the answer.
    assert_interest_fault(Rule::Caused, |h| h[1] = left(12, 1, [12, 15, 51, 55]));
    // It may leave meanwhile.
    let mut history = good_with_interest();
    history[1] = left(12, 1, [12, 15, 49, 55]);
    check(&history).unwrap();
}

#[test]
fn a_flight_that_nobody_wants_makes_room_for_another_one() {
    // It was not told so, or only after the other one had begun.
    assert_interest_fault(Rule::OneAtATime, |h| {
        h[0].ran.as_mut().unwrap().unwanted = None;
    });
    assert_interest_fault(Rule::OneAtATime, |h| *unwanted(&mut h[0]) = [70, 75]);
    // The answer of one flight does not give up another.
    assert_interest_fault(Rule::OneAtATime, |h| {
        h[1] = led(66, 1, [66, 70, 75, 76], Got::Value(66));
    });
    // The question is a part of the function.
    assert_interest_fault(Rule::InOrder, |h| *unwanted(&mut h[0]) = [19, 50]);
    assert_interest_fault(Rule::InOrder, |h| *unwanted(&mut h[0]) = [40, 101]);
}
