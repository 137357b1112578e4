//! A history that is as it should be, and for each rule others, changed in one place, that break
//! it. A checker that cannot find fault would be none.

use shared_calls::Role::{self, Followed, Led};

use crate::check::{check, Call, Got, Rule, Run};

/// A caller that led: `[began, ran.began, ran.ended, returned]`.
fn led(id: u64, key: u64, moments: [u64; 4], got: Got) -> Call {
    let [began, run, ended, returned] = moments;
    let call = followed(id, key, [began, returned], got);
    let ran = Some(Run { began: run, ended });
    Call { ran, ..call }
}

/// A caller that followed and waited: `[began, returned]`.
fn followed(id: u64, key: u64, [began, returned]: [u64; 2], got: Got) -> Call {
    Call {
        id,
        key,
        began,
        returned,
        ran: None,
        got,
        told: None,
    }
}

/// A follower that left: `[began, seated, leaving, returned]`.
fn left(id: u64, key: u64, [began, seated, leaving, returned]: [u64; 4]) -> Call {
    followed(id, key, [began, returned], Got::Left { seated, leaving })
}

impl Call {
    fn told(mut self, role: Role, followers: usize) -> Self {
        self.told = Some((role, followers));
        self
    }
}

/// The flights of keys 1 and 2 overlap; those of one key come one after another.
fn good() -> Vec<Call> {
    use Got::{Abandoned, Failed, Panicked, Value};
    vec![
        // 0: a value for two followers.
        led(10, 1, [10, 20, 60, 90], Value(10)).told(Led, 2),
        followed(30, 1, [30, 80], Value(10)).told(Followed, 2),
        followed(31, 1, [31, 95], Value(10)).told(Followed, 2),
        // 3: a panic without a text.
        led(100, 1, [100, 120, 160, 190], Panicked(None)),
        followed(130, 1, [130, 180], Panicked(None)).told(Followed, 1),
        // 5: one with.
        led(200, 1, [200, 220, 260, 290], Panicked(Some(200))),
        followed(230, 1, [230, 280], Panicked(Some(200))).told(Followed, 1),
        // 7: a leader that was dropped.
        led(300, 1, [300, 320, 360, 390], Abandoned),
        followed(330, 1, [330, 380], Abandoned).told(Followed, 1),
        // 9: an error; one follower leaves in time and one too late.
        led(400, 1, [400, 420, 460, 490], Failed(400)).told(Led, 1),
        left(430, 1, [430, 435, 440, 450]),
        left(431, 1, [431, 436, 500, 510]),
        // 12: another key, at the same time.
        led(40, 2, [40, 41, 42, 43], Value(40)).told(Led, 0),
        led(301, 2, [301, 321, 361, 391], Abandoned),
        followed(331, 2, [331, 381], Abandoned).told(Followed, 1),
    ]
}

/// Asserts that the good history is found to break this rule when it is changed so.
#[track_caller]
fn assert_fault(rule: Rule, change: impl Fn(&mut [Call])) {
    let mut history = good();
    change(&mut history);
    let fault = check(&history).expect_err("a fault");
    assert_eq!(fault.rule, rule, "{fault:?}");
}

#[test]
fn a_good_history_passes() {
    let tally = check(&good()).unwrap();
    assert_eq!((tally.calls, tally.led, tally.values), (15, 7, 2));
    assert_eq!((tally.panics, tally.textless_panics), (1, 1));
    assert_eq!((tally.failures, tally.abandonments), (0, 2));
    assert_eq!((tally.left, tally.left_too_late), (2, 1));
    assert!(check(&[]).is_ok());
}

#[test]
fn records_are_in_order() {
    assert_fault(Rule::InOrder, |h| h[0].returned = 59);
    assert_fault(Rule::InOrder, |h| h[1].returned = 29);
    assert_fault(Rule::InOrder, |h| h[12].began = 44);
    assert_fault(Rule::InOrder, |h| {
        h[10] = left(430, 1, [430, 445, 440, 450])
    });
    // Only followers leave.
    assert_fault(Rule::InOrder, |h| h[0].got = h[10].got);
}

#[test]
fn one_function_runs_at_a_time() {
    // One inside the other.
    assert_fault(Rule::OneAtATime, |h| h[12].key = 1);
    // The second begins before the first has ended.
    assert_fault(Rule::OneAtATime, |h| {
        h[3].returned = 225;
        h[3].ran.as_mut().unwrap().ended = 221;
    });
}

#[test]
fn whoever_ran_led_and_got_its_own_outcome() {
    assert_fault(Rule::OneLeader, |h| h[0].got = Got::Value(40));
    assert_fault(Rule::OneLeader, |h| h[5].got = Got::Panicked(Some(100)));
    assert_fault(Rule::OneLeader, |h| h[0].told = Some((Followed, 2)));
    // Two leaders of one flight, of which one did not run.
    assert_fault(Rule::OneLeader, |h| h[1].told = Some((Led, 2)));
}

#[test]
fn a_follower_gets_what_the_leader_brought_about() {
    // A value that nobody made, that of another key, and that of one who only followed.
    assert_fault(Rule::OneOutcome, |h| h[1].got = Got::Value(11));
    assert_fault(Rule::OneOutcome, |h| h[1].got = Got::Value(40));
    assert_fault(Rule::OneOutcome, |h| h[1].got = Got::Value(31));
    // A value for an error, an error for a value, a value for a panic.
    assert_fault(Rule::OneOutcome, |h| h[1].got = Got::Failed(10));
    assert_fault(Rule::OneOutcome, |h| h[0].got = Got::Failed(10));
    assert_fault(Rule::OneOutcome, |h| h[6].got = Got::Value(200));
    // A panic's text, where there was none.
    assert_fault(Rule::OneOutcome, |h| h[4].got = Got::Panicked(Some(100)));
}

#[test]
fn nobody_has_an_outcome_before_the_function_has_ended() {
    assert_fault(Rule::NotTooEarly, |h| h[1].returned = 59);
    assert_fault(Rule::NotTooEarly, |h| h[6].returned = 259);
}

#[test]
fn no_call_begins_after_a_member_of_its_flight_is_back() {
    // The first one back is the follower h[1], at 80, before the leader.
    assert_fault(Rule::NotTooLate, |h| h[2].began = 81);
    // The first one back is the leader.
    assert_fault(Rule::NotTooLate, |h| {
        h[0].returned = 61;
        h[2].began = 62;
    });
    assert_fault(Rule::NotTooLate, |h| {
        h[5].returned = 261;
        h[6].began = 262;
    });
}

#[test]
fn a_follower_that_cannot_tell_has_a_flight_to_come_from() {
    // A panic where nobody panicked; one that was over before; one that is not over yet; one on
    // another key.
    assert_fault(Rule::Caused, |h| h[3].got = Got::Abandoned);
    assert_fault(Rule::Caused, |h| (h[4].began, h[4].returned) = (191, 300));
    assert_fault(Rule::Caused, |h| h[4].returned = 159);
    assert_fault(Rule::Caused, |h| h[4].key = 2);
    // A panic that should have come with its text.
    assert_fault(Rule::Caused, |h| h[6].got = Got::Panicked(None));
    // The same of leaders that were dropped.
    assert_fault(Rule::Caused, |h| h[7].got = Got::Value(300));
    assert_fault(Rule::Caused, |h| (h[8].began, h[8].returned) = (391, 500));
    assert_fault(Rule::Caused, |h| h[8].returned = 359);
    // A seat where no flight was.
    assert_fault(Rule::Caused, |h| h[10] = left(430, 1, [491, 492, 493, 494]));
    assert_fault(Rule::Caused, |h| h[10] = left(430, 1, [391, 392, 393, 394]));
}

#[test]
fn all_members_are_told_the_right_number_of_followers() {
    let tell =
        |call: &mut Call, followers| call.told = call.told.map(|(role, _)| (role, followers));
    // One is told another number than the rest.
    for member in 0..=2 {
        assert_fault(Rule::Counted, |h| tell(&mut h[member], 3));
    }
    // All are told too few, or too many.
    for told in [0, 1, 3] {
        assert_fault(Rule::Counted, |h| {
            h[..3].iter_mut().for_each(|call| tell(call, told))
        });
    }
    // The same where a follower cannot tell, but only one flight may be its own.
    for told in [0, 2] {
        assert_fault(Rule::Counted, |h| tell(&mut h[4], told));
        assert_fault(Rule::Counted, |h| tell(&mut h[8], told));
    }
    // The follower that left in time is counted, or the one that left too late is not.
    assert_fault(Rule::Counted, |h| tell(&mut h[9], 2));
    assert_fault(Rule::Counted, |h| tell(&mut h[9], 0));
}

/// Where the record leaves room, the checker does, too.
#[test]
fn what_cannot_be_known_is_no_fault() {
    let mut history = good();
    // It began to leave before the flight was unlinked and had left after: counted or not.
    history[11] = left(431, 1, [431, 436, 440, 510]);
    for told in [0, 1] {
        history[9].told = Some((Led, told));
        check(&history).unwrap();
    }
    // It took its seat on this flight or the next: either counts it, and not both.
    history[11] = left(431, 1, [431, 530, 600, 610]);
    history.push(led(500, 1, [500, 520, 560, 590], Got::Value(500)));
    let next = history.len() - 1;
    for (told, told_next) in [(0, 1), (1, 0)] {
        history[9].told = Some((Led, told));
        history[next].told = Some((Led, told_next));
        check(&history).unwrap();
    }

    // The first of these followers may come from either flight, the second from the later one only.
    let mut history = vec![
        led(10, 1, [10, 20, 60, 90], Got::Abandoned),
        led(65, 1, [65, 70, 80, 95], Got::Abandoned),
        followed(30, 1, [30, 96], Got::Abandoned).told(Followed, 1),
        followed(91, 1, [91, 97], Got::Abandoned).told(Followed, 1),
    ];
    check(&history).unwrap();
    history[3].told = Some((Followed, 2));
    check(&history).unwrap();
    history[3].told = Some((Followed, 3));
    check(&history).unwrap_err();
}
