//! A history that is as it should be, and for each rule others, changed in one place, that break
//! it. A checker that cannot find fault would be none.

mod batches;
mod interest;

use std::time::Duration;

use shared_calls::Role::{self, Followed, Led};

use crate::check::{check, Asked, Call, Got, Rule, Run};

/// A caller that led: `[began, ran.began, ran.ended, returned]`.
fn led(id: u64, key: u64, moments: [u64; 4], got: Got) -> Call {
    let [began, run, ended, returned] = moments;
    let call = followed(id, key, [began, returned], got);
    let unwanted = None;
    let ran = Some(Run { began: run, ended, unwanted });
    Call { ran, ..call }
}

/// A caller that followed and waited: `[began, returned]`.
fn followed(id: u64, key: u64, [began, returned]: [u64; 2], got: Got) -> Call {
    Call {
        id,
        key,
        asked: Asked::default(),
        began,
        returned,
        inside: Some(Vec::new()),
        batch: None,
        ran: None,
        let_go: None,
        got,
        told: None,
    }
}

/// A follower that left: `[began, seated, leaving, returned]`.
fn left(id: u64, key: u64, [began, seated, leaving, returned]: [u64; 4]) -> Call {
    followed(id, key, [began, returned], Got::Left { seated, leaving })
}

/// A `forget` that was true: `[began, returned]`.
fn forgot(key: u64, [began, returned]: [u64; 2]) -> Call {
    followed(began, key, [began, returned], Got::Forgot)
}

impl Call {
    fn asked(mut self, asked: Asked) -> Self {
        self.asked = asked;
        self
    }

    fn inside(mut self, keys: &[u64]) -> Self {
        self.inside = Some(keys.to_vec());
        self
    }

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

/// Another good one, with options.
fn good_with_options() -> Vec<Call> {
    use Got::{Panicked, TimedOut, Value};
    let next_flight = Asked { next_flight: true, ..Asked::default() };
    let limited = Asked { timeout: Some(Duration::ZERO), ..Asked::default() };
    let takes_over = Asked { takeovers: 1, ..Asked::default() };
    let gives_up = Asked { max_age: Some(Duration::from_micros(1)), ..Asked::default() };
    vec![
        // 0: a flight that is forgotten, and the one after it.
        led(10, 1, [10, 20, 100, 120], Value(10)).told(Led, 0),
        forgot(1, [30, 35]),
        led(40, 1, [40, 45, 60, 70], Value(40)).told(Led, 1),
        followed(50, 1, [50, 69], Value(40)).told(Followed, 1),
        // 4: one that was asked for before it began, and a caller whose time was up.
        followed(190, 1, [190, 280], Value(200)).asked(next_flight).told(Followed, 1),
        led(200, 1, [200, 210, 260, 290], Value(200)).told(Led, 1),
        followed(205, 1, [205, 215], TimedOut).asked(limited).told(Followed, 0),
        // 7: a panic for two followers, of which one takes over.
        led(300, 1, [300, 310, 360, 390], Panicked(Some(300))),
        followed(320, 1, [320, 380], Panicked(Some(300))).told(Followed, 2),
        led(330, 1, [330, 400, 410, 420], Value(330)).asked(takes_over).told(Led, 0),
        // 10: a flight that was given up for its age.
        led(500, 1, [500, 520, 600, 620], Value(500)).told(Led, 0),
        led(530, 1, [530, 540, 550, 560], Value(530)).asked(gives_up).told(Led, 0),
    ]
}

/// Asserts that the good history is found to break this rule when it is changed so.
#[track_caller]
fn assert_fault(rule: Rule, change: impl Fn(&mut [Call])) {
    assert_fault_in(good(), rule, change);
}

/// The same, with options.
#[track_caller]
fn assert_option_fault(rule: Rule, change: impl Fn(&mut [Call])) {
    assert_fault_in(good_with_options(), rule, change);
}

#[track_caller]
fn assert_fault_in(mut history: Vec<Call>, rule: Rule, change: impl Fn(&mut [Call])) {
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

    let tally = check(&good_with_options()).unwrap();
    assert_eq!((tally.timed_out, tally.queued), (1, 1));
    assert_eq!((tally.forgotten, tally.overlaps), (1, 2));
}

#[test]
fn records_are_in_order() {
    assert_fault(Rule::InOrder, |h| h[0].returned = 59);
    assert_fault(Rule::InOrder, |h| h[1].returned = 29);
    assert_fault(Rule::InOrder, |h| h[12].began = 44);
    assert_fault(Rule::InOrder, |h| h[10] = left(430, 1, [430, 445, 440, 450]));
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
fn a_caller_that_ran_led_and_got_its_own_outcome() {
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
fn no_caller_has_an_outcome_before_the_function_has_ended() {
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
        assert_fault(Rule::Counted, |h| h[..3].iter_mut().for_each(|call| tell(call, told)));
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

#[test]
fn two_functions_run_at_once_only_where_one_was_given_up() {
    let forgot_at = |h: &mut [Call], at: [u64; 2]| h[1] = forgot(1, at);
    // Too late, long before, of another key, or not at all.
    assert_option_fault(Rule::OneAtATime, |h| forgot_at(h, [46, 47]));
    assert_option_fault(Rule::OneAtATime, |h| forgot_at(h, [8, 9]));
    assert_option_fault(Rule::OneAtATime, |h| h[1].key = 2);
    assert_option_fault(Rule::OneAtATime, |h| h[11].asked.max_age = None);
}

#[test]
fn no_caller_shares_a_flight_that_was_given_up_before() {
    // The value is that of the first flight, which still runs.
    let shares_the_first = |h: &mut [Call]| {
        h[3].got = Got::Value(10);
        h[3].returned = 110;
    };
    assert_option_fault(Rule::NotReplaced, shares_the_first);
    // It need not be known who gave it up: there is a newer one.
    assert_option_fault(Rule::NotReplaced, |h| {
        shares_the_first(h);
        h[1] = forgot(1, [5, 41]);
    });
    assert_option_fault(Rule::NotReplaced, |h| {
        h[3] = followed(545, 1, [545, 610], Got::Value(500));
    });
}

#[test]
fn the_next_flight_begins_after_the_call() {
    assert_option_fault(Rule::NextFlight, |h| h[4].began = 211);
    // Where the caller cannot tell which flight it was.
    assert_option_fault(Rule::Caused, |h| {
        (h[5].got, h[4].got) = (Got::Abandoned, Got::Abandoned);
        h[4].began = 211;
    });
}

#[test]
fn a_caller_that_timed_out_ran_nothing_and_is_not_counted() {
    assert_option_fault(Rule::OneLeader, |h| h[9].got = Got::TimedOut);
    assert_option_fault(Rule::Counted, |h| h[6].told = Some((Followed, 1)));
    assert_option_fault(Rule::Counted, |h| h[5].told = Some((Led, 2)));
    // It had no limit, or there was nobody to wait for.
    assert_option_fault(Rule::Caused, |h| h[6].asked.timeout = None);
    assert_option_fault(Rule::Caused, |h| h[6].key = 3);
    assert_option_fault(Rule::Caused, |h| (h[6].began, h[6].returned) = (640, 650));
}

#[test]
fn a_caller_that_took_over_was_a_follower_before() {
    // Without the right to take over it could not have been the second follower.
    assert_option_fault(Rule::Counted, |h| h[9].asked.takeovers = 0);
    assert_option_fault(Rule::Counted, |h| h[8].told = Some((Followed, 3)));
    // Where the function returned an outcome nobody takes over.
    assert_option_fault(Rule::Counted, |h| {
        (h[7].got, h[8].got) = (Got::Failed(300), Got::Failed(300))
    });
}

#[test]
fn a_caller_with_a_maximum_age_of_zero_leads() {
    let age = |h: &mut [Call], i: usize| h[i].asked.max_age = Some(Duration::ZERO);
    assert_option_fault(Rule::NeverFollows, |h| age(h, 3));
    assert_option_fault(Rule::NeverFollows, |h| age(h, 6));
    // With any other limit it may follow, and its thread may lead the key already.
    let mut history = good_with_options();
    history[3].asked.max_age = Some(Duration::from_micros(1));
    age(&mut history, 6);
    history[6].got = Got::Deadlocked;
    history[6].inside = Some(vec![1]);
    check(&history).unwrap();
}

/// A flight with two followers, and a third caller that it had no place for.
fn good_with_a_cap() -> Vec<Call> {
    let mut history = vec![
        led(10, 1, [10, 20, 60, 90], Got::Value(10)).told(Led, 2),
        followed(30, 1, [30, 80], Got::Value(10)).told(Followed, 2),
        followed(31, 1, [31, 95], Got::Value(10)).told(Followed, 2),
        followed(40, 1, [40, 50], Got::Overloaded).told(Followed, 0),
    ];
    for call in &mut history {
        call.asked.max_followers = Some(2);
    }
    history
}

#[test]
fn no_flight_has_more_followers_than_its_callers_allow() {
    assert_eq!(check(&good_with_a_cap()).unwrap().overloaded, 1);
    let assert_fault = |rule, change: fn(&mut [Call])| {
        assert_fault_in(good_with_a_cap(), rule, change);
    };
    assert_fault(Rule::Capped, |h| {
        h.iter_mut().for_each(|c| c.asked.max_followers = Some(1));
    });
    // Refused without a limit, where there was a place, or where nobody was.
    assert_fault(Rule::Capped, |h| h[3].asked.max_followers = None);
    assert_fault(Rule::Capped, |h| h[3].asked.max_followers = Some(3));
    assert_fault(Rule::Capped, |h| (h[3].began, h[3].returned) = (100, 110));
    assert_fault(Rule::Capped, |h| h[3].key = 2);
    // It is no follower.
    assert_fault(Rule::Counted, |h| h[3].told = Some((Followed, 2)));
    assert_fault(Rule::OneLeader, |h| h[3].told = Some((Led, 0)));
}

#[test]
fn a_caller_that_takes_over_by_error_was_a_follower_before() {
    // As after a panic, but only if it takes over after an error, and the error is the leader's own.
    let by_error = |h: &mut [Call]| {
        (h[7].got, h[8].got) = (Got::Failed(300), Got::Failed(300));
        h[9].asked.by_error = true;
    };
    let mut history = good_with_options();
    by_error(&mut history);
    check(&history).unwrap();
    assert_option_fault(Rule::Counted, |h| {
        by_error(h);
        h[9].asked.by_error = false;
    });
    assert_option_fault(Rule::Counted, |h| {
        by_error(h);
        h[7].id = 301;
        (h[7].got, h[8].got) = (Got::Failed(301), Got::Failed(301));
    });
}

#[test]
fn a_refused_deadlock_was_a_cycle() {
    use Got::{Deadlocked, Value};
    // Two functions that ask for each other's keys. The one that came last is refused.
    let cycle = || {
        vec![
            led(10, 1, [10, 15, 90, 95], Value(10)).told(Led, 0),
            led(20, 2, [20, 25, 80, 85], Value(20)).told(Led, 1),
            followed(30, 2, [30, 86], Value(20)).inside(&[1]),
            followed(40, 1, [40, 50], Deadlocked).inside(&[2]).told(Followed, 0),
        ]
    };
    assert_eq!(check(&cycle()).unwrap().deadlocked, 1);
    let assert_fault = |rule, change: fn(&mut [Call])| assert_fault_in(cycle(), rule, change);
    // Not inside a function; the other wait was not, was over, or not yet; or it could end by itself.
    assert_fault(Rule::InACycle, |h| h[3].inside = Some(vec![]));
    assert_fault(Rule::InACycle, |h| h[2].inside = Some(vec![]));
    assert_fault(Rule::InACycle, |h| (h[3].began, h[3].returned) = (87, 88));
    assert_fault(Rule::InACycle, |h| h[2].began = 51);
    assert_fault(Rule::InACycle, |h| {
        h[2].asked.timeout = Some(Duration::ZERO);
    });
    assert_fault(Rule::InACycle, |h| {
        h[2].asked.max_age = Some(Duration::from_micros(1));
    });
    // It ran nothing, and does not count.
    assert_fault(Rule::OneLeader, |h| h[1].got = Deadlocked);
    assert_fault(Rule::Counted, |h| h[3].told = Some((Followed, 1)));
    // On its own key a limit does not help, and nobody else is needed.
    let mut own = cycle();
    own.remove(2);
    own[1].told = None;
    own[2].inside = Some(vec![2, 1]);
    check(&own).unwrap();
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
