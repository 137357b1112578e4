//! A history of calls, and the rules that it must follow whatever the threads did.
//!
//! All moments are ticks of one clock that every thread advances, so any two can be compared. A
//! call's moments are recorded just outside what they enclose: a call was not at work before `began`
//! nor after `returned`, and its function was at work at least from `ran.began` to `ran.ended`. So no
//! rule ever blames a group that is right.
//!
//! More ways to call fit in as more fields and more of [`Got`]: a flight that was given up counts
//! for [`Rule::OneAtATime`] until then; a caller that timed out is one that [`Got::Left`]; for
//! `next_flight` a rule asks that `ran.began` of the flight comes after `began` of the call; a
//! follower that took over is one that `ran`.

use std::collections::HashMap;

use shared_calls::Role;

/// A moment.
pub type Tick = u64;
/// Names a call, and the flight that it led.
pub type Id = u64;

/// What is known of one call.
#[derive(Clone, Debug)]
pub struct Call {
    pub id: Id,
    pub key: u64,
    pub began: Tick,
    pub returned: Tick,
    /// When its function ran, if it led. Where it led by `join`, what it did before it completed or
    /// dropped the `Leader` counts as its function.
    pub ran: Option<Run>,
    pub got: Got,
    /// The role and the number of followers that it was told, if it got an outcome.
    pub told: Option<(Role, usize)>,
}

#[derive(Clone, Copy, Debug)]
pub struct Run {
    pub began: Tick,
    pub ended: Tick,
}

/// How a call ended. Values, errors and panics with a text say which flight they come from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Got {
    Value(Id),
    Failed(Id),
    /// The leader unwound with it, a follower was told of it.
    Panicked(Option<Id>),
    /// The leader was dropped, a follower was told of it.
    Abandoned,
    /// A follower that did not wait. It had its seat at `seated` and began to leave at `leaving`.
    Left {
        seated: Tick,
        leaving: Tick,
    },
}

impl Got {
    /// Whose outcome it is, where it says so.
    fn flight(self) -> Option<Id> {
        match self {
            Got::Value(id) | Got::Failed(id) => Some(id),
            Got::Panicked(id) => id,
            Got::Abandoned | Got::Left { .. } => None,
        }
    }
}

/// What a history can be at fault with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// The record itself makes sense.
    InOrder,
    /// Of each key, one function runs at a time (G1).
    OneAtATime,
    /// A call led if and only if its function ran, and then it got its own outcome (G3).
    OneLeader,
    /// A follower got the outcome of a flight on its own key, as the leader brought it about (G3).
    OneOutcome,
    /// Nobody has an outcome before the function has ended.
    NotTooEarly,
    /// No call began after the first member of the flight, the leader included, was back (G2).
    NotTooLate,
    /// Where a follower cannot tell whose panic or abandonment it got, there is one that it may be.
    Caused,
    /// All members were told the same number of followers, and it is the right one.
    Counted,
}

/// The rule that was broken, and by which calls.
#[derive(Debug)]
pub struct Fault {
    pub rule: Rule,
    #[allow(dead_code)] // read by whoever reads a failed test's output
    pub evidence: Vec<Call>,
}

/// How often the interesting things happened.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tally {
    pub calls: usize,
    pub led: usize,
    /// What followers got.
    pub values: usize,
    pub failures: usize,
    pub panics: usize,
    pub textless_panics: usize,
    pub abandonments: usize,
    /// Followers that left, and those of them that were counted for certain.
    pub left: usize,
    pub left_too_late: usize,
}

impl Tally {
    pub fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.led += other.led;
        self.values += other.values;
        self.failures += other.failures;
        self.panics += other.panics;
        self.textless_panics += other.textless_panics;
        self.abandonments += other.abandonments;
        self.left += other.left;
        self.left_too_late += other.left_too_late;
    }
}

/// What is known of a flight.
struct Flight<'h> {
    leader: &'h Call,
    ran: Run,
    /// The earliest return of a member that is known. The flight was unlinked before.
    first_return: Tick,
    /// How many followers must have been counted, and how many more may have been.
    certain: usize,
    possible: usize,
    /// What a member was told.
    told: Option<usize>,
}

impl<'h> Flight<'h> {
    fn led_by(leader: &'h Call) -> Option<Self> {
        Some(Self {
            leader,
            ran: leader.ran?,
            first_return: leader.returned,
            certain: 0,
            possible: 0,
            told: leader.told.map(|(_, followers)| followers),
        })
    }

    /// Whether a follower that cannot tell may have been on this flight.
    fn may_have_had(&self, call: &Call) -> bool {
        let same_outcome_if_any = match call.got {
            Got::Left { seated, .. } => self.leader.began < seated,
            got => got == self.leader.got && self.ran.ended < call.returned,
        };
        same_outcome_if_any && call.began < self.first_return
    }

    /// All members were told the same.
    fn tells(&mut self, call: &Call) -> Result<(), Fault> {
        let Some((_, followers)) = call.told else {
            return Ok(());
        };
        let told = *self.told.get_or_insert(followers);
        hold(Rule::Counted, told == followers, &[call, self.leader])
    }
}

fn hold(rule: Rule, holds: bool, evidence: &[&Call]) -> Result<(), Fault> {
    if holds {
        Ok(())
    } else {
        let evidence = evidence.iter().copied().cloned().collect();
        Err(Fault { rule, evidence })
    }
}

/// Checks a history that is complete: that has every call on its keys.
pub fn check(history: &[Call]) -> Result<Tally, Fault> {
    for call in history {
        in_order(call)?;
        one_leader(call)?;
    }
    let mut flights = flights(history);
    one_at_a_time(&flights)?;

    // Those who know whose outcome they got. All of them first, to know when the first was back.
    let index: HashMap<Id, usize> = (0..).zip(&flights).map(|(i, f)| (f.leader.id, i)).collect();
    let mut knowing = Vec::new();
    for call in history {
        if let (None, Some(id)) = (call.ran, call.got.flight()) {
            let flight = index.get(&id).map(|&i| &mut flights[i]);
            let flight = flight.filter(|f| (f.leader.key, f.leader.got) == (call.key, call.got));
            hold(Rule::OneOutcome, flight.is_some(), &[call])?;
            let flight = flight.expect("it holds");
            let ended = flight.ran.ended < call.returned;
            hold(Rule::NotTooEarly, ended, &[call, flight.leader])?;
            flight.first_return = flight.first_return.min(call.returned);
            knowing.push((call, index[&id]));
        }
    }
    for (call, i) in knowing {
        let flight = &mut flights[i];
        let in_time = call.began < flight.first_return;
        hold(Rule::NotTooLate, in_time, &[call, flight.leader])?;
        flight.certain += 1;
        flight.tells(call)?;
    }

    // Those who do not, or who left.
    let mut left_too_late = 0;
    for call in history {
        if call.ran.is_some() || call.got.flight().is_some() {
            continue;
        }
        let from = flights.partition_point(|f| f.leader.key < call.key);
        let of_key = flights[from..]
            .iter_mut()
            .take_while(|f| f.leader.key == call.key);
        let mut candidates: Vec<_> = of_key.filter(|f| f.may_have_had(call)).collect();
        hold(Rule::Caused, !candidates.is_empty(), &[call])?;
        let alone = candidates.len() == 1;
        for flight in &mut candidates {
            let (certain, possible) = match call.got {
                Got::Left { .. } if call.returned < flight.ran.ended => (false, false),
                Got::Left { leaving, .. } => (alone && flight.first_return < leaving, true),
                _ => (alone, true),
            };
            flight.certain += usize::from(certain);
            flight.possible += usize::from(possible && !certain);
            left_too_late += usize::from(certain && matches!(call.got, Got::Left { .. }));
        }
        if alone {
            candidates[0].tells(call)?;
        }
    }
    for flight in &flights {
        let right = flight.certain..=flight.certain + flight.possible;
        let right = flight.told.map_or(true, |told| right.contains(&told));
        hold(Rule::Counted, right, &[flight.leader])?;
    }
    Ok(tally(history, left_too_late))
}

fn in_order(call: &Call) -> Result<(), Fault> {
    let moments = match (call.ran, call.got) {
        (Some(ran), Got::Left { .. }) => vec![ran.ended, ran.began], // a leader does not leave
        (Some(ran), _) => vec![call.began, ran.began, ran.ended, call.returned],
        (None, Got::Left { seated, leaving }) => vec![call.began, seated, leaving, call.returned],
        (None, _) => vec![call.began, call.returned],
    };
    let in_order = moments.windows(2).all(|pair| pair[0] < pair[1]);
    hold(Rule::InOrder, in_order, &[call])
}

fn one_leader(call: &Call) -> Result<(), Fault> {
    let own = call.got.flight().map_or(true, |id| id == call.id);
    let role = call.told.map(|(role, _)| role == Role::Led);
    let holds = match call.ran {
        Some(_) => own && role != Some(false),
        None => role != Some(true),
    };
    hold(Rule::OneLeader, holds, &[call])
}

/// The flights of a history, sorted by key and then by when their functions began.
fn flights(history: &[Call]) -> Vec<Flight<'_>> {
    let mut flights: Vec<_> = history.iter().filter_map(Flight::led_by).collect();
    flights.sort_by_key(|flight| (flight.leader.key, flight.ran.began));
    flights
}

fn one_at_a_time(flights: &[Flight<'_>]) -> Result<(), Fault> {
    for pair in flights.windows(2) {
        let (one, next) = (&pair[0], &pair[1]);
        let apart = one.leader.key != next.leader.key || one.ran.ended < next.ran.began;
        hold(Rule::OneAtATime, apart, &[one.leader, next.leader])?;
    }
    Ok(())
}

fn tally(history: &[Call], left_too_late: usize) -> Tally {
    let followers = |kind: fn(Got) -> bool| {
        let follows_and_is = |call: &&Call| call.ran.is_none() && kind(call.got);
        history.iter().filter(follows_and_is).count()
    };
    Tally {
        calls: history.len(),
        led: history.iter().filter(|call| call.ran.is_some()).count(),
        values: followers(|got| matches!(got, Got::Value(_))),
        failures: followers(|got| matches!(got, Got::Failed(_))),
        panics: followers(|got| matches!(got, Got::Panicked(Some(_)))),
        textless_panics: followers(|got| got == Got::Panicked(None)),
        abandonments: followers(|got| got == Got::Abandoned),
        left: followers(|got| matches!(got, Got::Left { .. })),
        left_too_late,
    }
}
